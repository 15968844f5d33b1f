"""Addresses that look like others are named, and usual ones are not."""

from __future__ import annotations

import pytest

from newsletter import addresses
from newsletter.lookalikes import mixed_scripts


@pytest.mark.parametrize(
    ("address", "scripts"),
    [
        ("zoe@pаypal.com", "Cyrillic and Latin"),  # the first a is Cyrillic
        ("zое@example.org", "Cyrillic and Latin"),  # so are o and e
        ("zoe@gοοgle.com", "Greek and Latin"),
        ("zoe@пример.com", ""),
        ("zoë@müller.de", ""),
        ("иван@example.org", ""),
        ("иван.ivanov@example.org", ""),
        ("李@例え.jp", ""),
        ("zoe+1@example.org", ""),
    ],
)
def test_two_scripts_in_one_word_are_told(address: str, scripts: str) -> None:
    assert mixed_scripts(address) == scripts
    assert mixed_scripts(addresses.parse(address)) == scripts

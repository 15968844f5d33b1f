"""Which machine this is, and what others may see of it."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

import pytest

from newsletter import machine

if TYPE_CHECKING:
    from pathlib import Path

NUMBER = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ([NUMBER + "\n"], NUMBER),
        ([None, NUMBER + "\n"], NUMBER),
        (["uninitialized\n", NUMBER], NUMBER),
        (["", None], socket.gethostname()),
        ([None, None], socket.gethostname()),
    ],
)
def test_the_number_is_the_system_s_or_the_host_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str | None], found: str
) -> None:
    places = [tmp_path / str(number) for number in range(len(files))]
    for place, text in zip(places, files, strict=True):
        if text is not None:
            place.write_text(text)
    monkeypatch.setattr(machine, "FILES", places)
    assert machine.number() == found


def test_a_seal_tells_places_apart_and_shows_nothing() -> None:
    seals = {
        machine.seal(NUMBER, "/srv/a"),
        machine.seal(NUMBER, "/srv/b"),
        machine.seal("0" * 32, "/srv/a"),
        machine.seal(NUMBER, "/srv/a", ""),
    }
    assert len(seals) == 4
    assert all(re.fullmatch(r"[0-9a-f]{64}", seal) and NUMBER not in seal for seal in seals)
    assert machine.seal(NUMBER, "/srv/a") in seals

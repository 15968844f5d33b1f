"""Addresses that look like another one: letters of two scripts in one word, such as a Cyrillic а among Latin ones.

They are addresses, and never taken for the one they look like (``addresses.key``). A person who reads them should know.
"""

from __future__ import annotations

import re
import unicodedata

ALIKE = ("LATIN", "GREEK", "CYRILLIC")  # the scripts whose letters are taken for each other


def mixed_scripts(address: str) -> str:
    """``Cyrillic and Latin`` if a word of the address, or a label of its domain, mixes them; else empty."""
    local, _, domain = address.rpartition("@")
    words = [*re.split(r"[\W\d_]+", local), *map(_label, domain.split("."))]
    found = next((scripts for scripts in map(_scripts, words) if len(scripts) > 1), ())
    return " and ".join(script.capitalize() for script in sorted(found))


def _label(label: str) -> str:
    """As people see it: ``xn--pypal-4ve`` → ``pаypal``."""
    if not label.startswith("xn--"):
        return label
    import idna  # noqa: PLC0415  its tables are large, and few domains need them

    try:
        return idna.decode(label)
    except idna.IDNAError:
        return label


def _scripts(word: str) -> set[str]:
    names = (unicodedata.name(letter, "").partition(" ")[0] for letter in word)
    return {name for name in names if name in ALIKE}

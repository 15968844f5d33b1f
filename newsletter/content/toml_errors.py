"""What ``tomllib`` says about a broken file, with the line and in words for people."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from newsletter.content.shape import DATE_HINT

if TYPE_CHECKING:
    from newsletter.content.codes import Fault

HINT = 'Text stands between two ", and a " inside it is written \\". Each key stands once, on its own line.'


def toml_fault(error: str, text: str) -> tuple[int | None, Fault]:
    """Line and fault from a message such as ``Invalid value (at line 3, column 8)``."""
    found = re.fullmatch(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", error, re.DOTALL)
    if found is None:
        return None, ("C108", "The file is not valid TOML.", HINT)
    line = int(found[2]) if found[2] else text.rstrip("\n").count("\n") + 1
    if date := re.match(r"\s*(?:date|published)\s*=\s*([0-9][^#\n]*)", text.split("\n")[line - 1]):
        return line, ("C114", f"{date[1].strip()} is not a date.", DATE_HINT)
    if twice := re.fullmatch(r"Cannot declare \((.*)\) twice", found[1]):
        name = ".".join(re.findall(r"'([^']*)'", twice[1]))
        return line, (
            "C108",
            f"The section [{name}] stands twice.",
            "Put its keys together under one of them.",
        )
    return line, ("C108", f"The file is not valid TOML here: {found[1]}.", HINT)

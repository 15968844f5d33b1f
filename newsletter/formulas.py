"""Spreadsheet formulas: text that a spreadsheet would run when somebody opens an exported file.

A cell that begins with one of a few characters is a formula to Excel and its like, whoever wrote it there: a stranger's
name could read cells and send them away. An apostrophe in front makes it text. One that was there already gets another,
so that taking exactly one back always gives what was there (the property that a test holds on to).
"""

from __future__ import annotations

import re

# A spreadsheet set to German splits lines at semicolons, whatever is quoted: then cells begin behind those as well, and
# behind the quotation marks there.
_BEGIN = r"(?:\A|(?<=[;\t\r\n]))"
_FORMULA = (
    r"""(?='*[ "\u00a0\u3000]*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20])"""  # the last four: full-width forms
)
_SHIELD = re.compile(_BEGIN + _FORMULA)
_SHIELDED = re.compile(_BEGIN + "'" + _FORMULA)


def shield(text: str) -> str:
    """``text`` for a cell: nothing in it is a formula."""
    return _SHIELD.sub("'", text)


def unshield(cell: str) -> str:
    """The inverse of ``shield``; other text stays as it is."""
    return _SHIELDED.sub("", cell) if "'" in cell else cell

"""What can be wrong with a template: the codes with their meanings, and how one is reported.

docs/ lists the codes from this table, so a code without a sentence can't exist.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, NoReturn

from newsletter.errors import TemplateError
from newsletter.model import Finding, Level

if TYPE_CHECKING:
    from collections.abc import Sequence

CODES = {
    # the template language
    "T101": "The template language (Jinja) can't read the template.",
    "T102": "A template uses a name that does not exist.",
    "T103": "A template includes or extends a file that does not exist.",
    "T104": "An expression in a template failed.",
    "T105": "A template of yours can't be read: not UTF-8, not a plain file, or a link out of the project.",
    # the structure of the MJML it gives
    "T201": "An unknown MJML tag.",
    "T202": "An MJML tag that is known, but left out on purpose because inboxes or the compiler spoil it.",
    "T203": "A tag in a place where MJML does not allow it.",
    "T204": "An attribute the component does not have: the compiler would drop it silently.",
    "T205": "A closing tag that closes nothing, or something else.",
    "T206": "A tag that is never closed.",
    "T207": "A `<` or a tag that can't be read: no quotes round a value, or a bare `<` in text.",
    "T208": "Text in a component that shows none.",
    "T209": "A padding in something other than px: Outlook would get the wrong widths.",
    "T210": "A conditional comment that is not complete, or of the kind inliners break.",
    "T211": "Tags nested deeper than 100: the compiler would bring the process down.",
    "T212": "More than 1 MB of MJML.",
    "T213": "A control character.",
    "T214": "No `<mjml>` with an `<mj-body>` in it.",
    "T215": "An `<mj-table>` without header cells: a screen reader would read layout as data.",
    # its styles
    "T301": "CSS that can't be inlined exactly, in `<mj-style inline>`.",
    "T302": "A rule in a media query without `!important`: the inlined styles would win.",
    "T303": "CSS that Gmail answers by dropping the whole block, or that asks the network.",
    # what came out
    "T401": "The MJML compiler refused the document.",
    "T402": "An MJML tag was left over in the HTML.",
    "T403": "A merge tag was lost or changed on the way.",
    "T404": "A comment for Outlook was changed on the way.",
    "T405": "A style block beyond what Gmail keeps.",
    "T406": "The mail would load something from the network while it is laid out.",
    "T407": "A picture that does not belong to the issue.",
}


class Place(NamedTuple):
    """Where in a template; line and column are 1-based, 0 means not known."""

    file: str
    line: int = 0
    column: int = 0


WHOLE = Place("the whole document")  # for what has no place of its own


def finding(code: str, place: Place, message: str, hint: str = "") -> Finding:
    """An error at a place; ``code`` is one of ``CODES``."""
    if code not in CODES:
        raise KeyError(code)
    line, column = place.line or None, place.column or None
    return Finding(code, Level.ERROR, place.file, message, hint, line=line, column=column)


def fail(findings: Sequence[Finding]) -> NoReturn:
    """Raise a ``TemplateError`` that carries all findings; each says its place and what to do."""
    errors = "1 error" if len(findings) == 1 else f"{len(findings)} errors"
    raise TemplateError(f"The templates can't be used as they are: {errors}.", findings)

"""Cut MJML into tags, text, styles and comments, losing nothing: the pieces joined are the source again.

The compiler reads the same text again with its own parser. This one exists because that one reports no places
and forgives what it should not; it is deliberately stricter than HTML.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from newsletter.render.findings import WHOLE, Place

if TYPE_CHECKING:
    from collections.abc import Iterator

ATTRIBUTE = re.compile(r"""\s+([A-Za-z_:][\w:.-]*)\s*=\s*("[^"<]*"|'[^'<]*')""")
TOKEN = re.compile(
    r"""(?P<comment><!--.*?-->)
    |<(?P<close>/?)(?P<name>[A-Za-z][\w:.-]*)
      (?P<attributes>(?:\s+[A-Za-z_:][\w:.-]*\s*=\s*(?:"[^"<]*"|'[^'<]*'))*)\s*(?P<void>/?)>
    |(?P<text>[^<]+)
    |(?P<bad><)""",
    re.DOTALL | re.VERBOSE,
)
MARK = re.compile(r' data-at="([^"<]*):(\d+):(\d+)"')  # what `templates.mark` writes
MARKED_TAG = re.compile(r"</?[A-Za-z][\w:.-]*" + MARK.pattern)
STYLES = frozenset({"mj-style", "style"})


class Kind(Enum):
    """What a piece of the source is."""

    OPEN = "open"
    CLOSE = "close"
    VOID = "void"  # <mj-spacer/>
    TEXT = "text"
    CSS = "css"
    COMMENT = "comment"
    BAD = "bad"  # from a `<` that begins nothing to the end: nobody can say what follows


class Token(NamedTuple):
    """One piece; ``place`` is its own, or that of the nearest tag before it."""

    kind: Kind
    raw: str
    place: Place
    name: str = ""
    attributes: tuple[tuple[str, str], ...] = ()  # in order, values as written, without their quotes


def tokens(source: str) -> Iterator[Token]:
    """Every piece of ``source``, in order."""
    place, offset = WHOLE, 0
    while offset < len(source):
        match = TOKEN.match(source, offset)
        assert match  # a run of text or a lone `<` always matches
        if marked := MARKED_TAG.match(source, offset):
            place = Place(marked[1], int(marked[2]), int(marked[3]))
        token = _token(match, place)
        if token.kind is Kind.BAD:
            token = token._replace(raw=source[offset:])
        yield token
        offset += len(token.raw)
        if token.kind is Kind.OPEN and token.name in STYLES and (css := _css(source, offset, token.name)):
            yield Token(Kind.CSS, css, place, token.name)
            offset += len(css)


def _token(match: re.Match[str], place: Place) -> Token:
    if match["name"] is None:
        kind = Kind.COMMENT if match["comment"] else Kind.TEXT if match["text"] else Kind.BAD
        return Token(kind, match[0], place)
    kind = Kind.CLOSE if match["close"] else Kind.VOID if match["void"] else Kind.OPEN
    attributes = MARK.sub("", match["attributes"])
    found = tuple((key, value[1:-1]) for key, value in ATTRIBUTE.findall(attributes))
    return Token(kind, match[0], place, match["name"], found)


def _css(source: str, offset: int, name: str) -> str:
    end = source.find(f"</{name}", offset)
    return source[offset:] if end < 0 else source[offset:end]

"""Pictures: kind and size read from the first bytes, and the references that stand for them in compiled HTML.

``render`` writes ``image:NAME`` where a picture goes, and each output (mail, preview, archive) puts its own
address there. Nothing in here decodes or alters a picture.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEME = "image:"

# Only attributes of tags are looked at: an author may write "image:x" in a sentence, and it must stay.
# Possessive, so that a stray "<" costs one pass and not one per character.
TAG = re.compile(r"""<[A-Za-z][^\s/>"']*+(?:[^"'>]|"[^"]*"|'[^']*')*+>""")
ATTRIBUTE = re.compile(r"""([\w:-]+)(\s*=\s*)("[^"]*"|'[^']*')""")
IN_STYLE = re.compile(rf"""url\((&quot;|&\#34;|&\#39;|["']?){SCHEME}([^"'()&\s]+)\1\)""")


def reference(name: str) -> str:
    """What a template writes for a picture: ``image:`` and the percent-encoded name."""
    return SCHEME + quote(name)


def resolve_pictures(html: str, url: Callable[[str], str]) -> str:
    """Replace every reference in an attribute (also in ``style="…url(…)"``) by ``url(name)``.

    ``url`` returns an address that needs no escaping: ``cid:…``, ``https://…`` or a relative path.
    """

    def in_style(match: re.Match[str]) -> str:
        return f"url({match[1]}{url(unquote(match[2]))}{match[1]})"

    def attribute(match: re.Match[str]) -> str:
        name, equals, quoted = match.groups()
        value, mark = quoted[1:-1], quoted[0]
        if name.lower() == "style":
            return f"{name}{equals}{mark}{IN_STYLE.sub(in_style, value)}{mark}"
        if name.lower() in {"alt", "title", "content"} or not value.startswith(SCHEME):
            return match[0]  # an author's words, or not a picture
        return f"{name}{equals}{mark}{url(unquote(value.removeprefix(SCHEME)))}{mark}"

    return TAG.sub(lambda tag: ATTRIBUTE.sub(attribute, tag[0]), html)


def measure(data: bytes) -> tuple[str, int, int]:
    """Media type, width and height in pixels of a PNG, JPEG or GIF, from its header.

    Raises:
        ValueError: with a sentence to show, if it is none of them or ends before its size.
    """
    for signature, media_type, size in KINDS:
        if data.startswith(signature):
            try:
                width, height = size(data)
            except struct.error:
                raise ValueError("The file is cut short: it ends before it tells its size.") from None
            if not width or not height:
                raise ValueError("The file says that the picture has no width or no height.")
            return media_type, width, height
    raise ValueError("This is not a PNG, JPEG or GIF file, whatever its name says.")


def _png(data: bytes) -> tuple[int, int]:
    """PNG, second edition, 11.2.2: IHDR comes first, and begins with width and height."""
    kind, width, height = struct.unpack_from(">4sII", data, 12)
    if kind != b"IHDR":
        raise ValueError("The PNG file is damaged: it does not begin with its header.")
    return width, height


def _gif(data: bytes) -> tuple[int, int]:
    """GIF89a §18: the logical screen descriptor follows the signature."""
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


# ITU-T T.81 table B.1: C4, C8 and CC stand between the frame headers and are none.
FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})


def _jpeg(data: bytes) -> tuple[int, int]:
    """ITU-T T.81 B.2.2: walk the segments to the frame header, which holds height before width."""
    at = 2
    while True:
        mark, code = struct.unpack_from(">BB", data, at)
        if mark != 0xFF or code in {0xD9, 0xDA}:
            raise ValueError("The JPEG file is damaged: it has no frame header.")
        if code in FRAME_HEADERS:
            _length, _precision, height, width = struct.unpack_from(">HBHH", data, at + 2)
            return width, height
        at += _segment_length(data, at, code)


def _segment_length(data: bytes, at: int, code: int) -> int:
    if code == 0xFF:  # a fill byte before the marker
        return 1
    if code in WITHOUT_LENGTH:
        return 2
    (length,) = struct.unpack_from(">H", data, at + 2)
    return 2 + int(length)


KINDS = (
    (b"\x89PNG\r\n\x1a\n", "image/png", _png),
    (b"\xff\xd8\xff", "image/jpeg", _jpeg),
    (b"GIF87a", "image/gif", _gif),
    (b"GIF89a", "image/gif", _gif),
)

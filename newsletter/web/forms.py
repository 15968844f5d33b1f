"""What a form sent, from bytes that anybody may have written."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException, MultiPartParser

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping

    from starlette.requests import Request

MOST_FIELDS = 20
URLENCODED, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"
BOUNDARY = re.compile(r"[\w'()+,./:=? -]{1,70}", re.ASCII)  # RFC 2046, section 5.1.1

# Of a body that is no form it would log a line, and quote from it. Who sent it is told; the log is for errors of ours.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


class Unreadable(ValueError):
    """Too many fields, or bytes that are not what their content type says."""


async def fields(request: Request) -> Mapping[str, str]:
    """Field → text, in both encodings of HTML forms; of a field that came twice, the first. No files.

    A body of any other type has no fields. It is UTF-8 whatever ``charset`` says: browsers say none, and some codecs of
    Python's (``unicode_escape``, ``utf_7``) make text that can't be encoded any more. Raises ``Unreadable``.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == URLENCODED:
        return _first(_urlencoded(await request.body()))
    if kind == MULTIPART:
        return _first(await _multipart(request))
    return {}


def _urlencoded(body: bytes) -> Iterable[tuple[str, str]]:
    try:
        return parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError as error:
        raise Unreadable from error


async def _multipart(request: Request) -> list[tuple[str, str]]:
    body = await request.body()

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    kind = Headers({"content-type": f'{MULTIPART}; boundary="{_boundary(request)}"'})  # and no charset
    parser = MultiPartParser(kind, stream(), max_files=0, max_fields=MOST_FIELDS, max_part_size=len(body))
    try:
        found = await parser.parse()
    except (MultiPartException, ValueError, KeyError) as error:
        raise Unreadable from error
    return [(name, value) for name, value in found.multi_items() if isinstance(value, str)]


def _boundary(request: Request) -> str:
    """Without a character that could end it and begin a ``charset``."""
    _, options = parse_options_header(request.headers["content-type"])
    found = options.get(b"boundary", b"").decode("latin-1")
    if not BOUNDARY.fullmatch(found):
        raise Unreadable
    return found


def _first(pairs: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name, value in pairs:
        found.setdefault(name, value)
    return found

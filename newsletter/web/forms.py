"""What a form sent, from bytes that anybody may have written."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from starlette.formparsers import MultiPartException, MultiPartParser

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping

    from starlette.requests import Request

MOST_FIELDS = 20
URLENCODED, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"


class Unreadable(ValueError):
    """Too many fields, or bytes that are not what their content type says."""


async def fields(request: Request) -> Mapping[str, str]:
    """Field → text, in both encodings of HTML forms; of a field that came twice, the first. No files.

    A body of any other type has no fields. Raises ``Unreadable``.
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

    parser = MultiPartParser(
        request.headers, stream(), max_files=0, max_fields=MOST_FIELDS, max_part_size=len(body)
    )
    try:
        found = await parser.parse()
    except (MultiPartException, ValueError, KeyError) as error:  # a charset like `idna` raises ValueErrors
        raise Unreadable from error
    return [(name, value) for name, value in found.multi_items() if isinstance(value, str)]


def _first(pairs: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name, value in pairs:
        found.setdefault(name, value)
    return found

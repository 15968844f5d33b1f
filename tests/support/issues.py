"""Issue folders and tiny pictures for tests."""

from __future__ import annotations

import json
import struct
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

LEAD = """\
## What was found

The level was **lower** in one group.

## Why it matters

It may help one day.

## What it does not show

One person can differ from a group.
"""


def a_table(**changes: Any) -> dict[str, Any]:
    """issue.toml as data; a change of None leaves a key out."""
    table: dict[str, Any] = {
        "subject": "A steady finding",
        "preheader": "Many ways, one answer.",
        "date": Raw("2026-12-01"),
        "lead": {"title": "Less iron", "source": {"title": "A paper", "url": "https://example.org/paper"}},
    }
    return {key: value for key, value in (table | changes).items() if value is not None}


class Raw(str):
    """TOML that is written as it is, without quotes."""

    __slots__ = ()


def to_toml(table: dict[str, Any], prefix: str = "") -> str:
    """``table`` as a person would write it: plain keys first, then [tables] and [[entries]]."""
    lines, below = [], []
    for key, value in table.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict):
            below.append(f"[{path}]\n{to_toml(value, f'{path}.')}")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            below += [f"[[{path}]]\n{to_toml(entry, f'{path}.')}" for entry in value]
        else:
            lines.append(f"{key} = {_value(value)}")
    return "\n".join([*lines, *below, ""])


def _value(value: Any) -> str:
    if isinstance(value, Raw):
        return value
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    # JSON's escapes are TOML's, but for DEL and for surrogate pairs, which ensure_ascii=False avoids.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def write_issue(
    project: Path,
    table: dict[str, Any] | str | None = None,
    lead: str | None = LEAD,
    *,
    slug: str = "2026-12",
) -> Path:
    """An issue folder in ``project``; what is None is left out."""
    folder = project / "issues" / slug
    (folder / "images").mkdir(parents=True, exist_ok=True)
    text = table if isinstance(table, str) else to_toml(a_table() if table is None else table)
    (folder / "issue.toml").write_text(text, encoding="utf-8", newline="\n")
    if lead is not None:
        (folder / "lead.md").write_text(lead, encoding="utf-8", newline="\n")
    return folder


def png(width: int = 3, height: int = 2, *, padding: int = 0) -> bytes:
    """A grey PNG; ``padding`` adds so many bytes that nobody can see."""
    rows = zlib.compress((b"\0" + b"\x80" * width) * height)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", rows)]
    chunks += [(b"teXt", bytes(padding))] if padding else []
    chunks += [(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def jpeg(width: int = 3, height: int = 2, *, marker: int = 0xC0, before: bytes = b"") -> bytes:
    """The head of a JPEG: an APP0, whatever is ``before``, and a frame header of kind ``marker``."""
    app0 = b"\xff\xe0" + struct.pack(">H", 16) + b"JFIF\0\1\1\0\0\1\0\1\0\0"
    frame = bytes([0xFF, marker]) + struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\1\x11\0"
    return b"\xff\xd8" + app0 + before + frame + b"\xff\xd9"


def gif(width: int = 3, height: int = 2, *, version: bytes = b"GIF89a") -> bytes:
    """The head of a GIF."""
    return version + struct.pack("<HH", width, height) + b"\0\0\0;"

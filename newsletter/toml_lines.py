"""On which line of a TOML file a key stands: ``tomllib`` forgets, and a person mends a file by line.

A scan, not a parser: it is asked only about files that ``tomllib`` has read. What it can't see (a key inside
an inline table, say) is found through its parent by ``find``.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
PATH = rf"{NAME}(?:\s*\.\s*{NAME})*"
HEADER = re.compile(rf"\s*(\[\[?)\s*({PATH})\s*\]")
KEY = re.compile(rf"\s*({PATH})\s*=")
# Strings and comments in the order they begin; the two long kinds may run over lines.
STRINGS = re.compile(
    r'''"""(?:[^\\]|\\.)*?"""+|\'\'\'.*?\'\'\'+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|#[^\n]*''', re.DOTALL
)


def key_lines(text: str) -> dict[str, int]:
    """Key path → line, 1-based. Entries of ``[[related]]`` are counted from 1: ``related.3.url``."""
    lines: dict[str, int] = {}
    seen: Counter[str] = Counter()
    table = ""
    for number, line in enumerate(STRINGS.sub(_marked, text).split("\n"), 1):
        if header := HEADER.match(line):
            table = _plain(header[2])
            if header[1] == "[[":
                seen[table] += 1
                table = f"{table}.{seen[table]}"
            lines.setdefault(table, number)
        elif key := KEY.match(line):
            lines.setdefault(".".join(filter(None, (table, _plain(key[1])))), number)
    return lines


def find(lines: Mapping[str, int], path: str) -> int | None:
    """The line of ``path``, else of the nearest table around it."""
    while path and path not in lines:
        path = path.rpartition(".")[0]
    return lines.get(path)


def _marked(string: re.Match[str]) -> str:
    """The string with a mark before its second and later lines, which are no lines of their own."""
    return string[0].replace("\n", "\n\0")


def _plain(path: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in re.findall(NAME, path))

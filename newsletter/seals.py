"""A seal: everything that an approval covers, as hashes by part. Whatever differs in any of them voids it.

The compiled mail alone would not do: the same bytes to another list, or from another sender, are another thing. And the
compiled mail alone would say *that* something changed, the parts say what (docs/decisions/0032).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from newsletter import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

Seal = Mapping[str, Mapping[str, str]]
"""Part → name → hash, or a short text that may be shown: the list, the version."""

PACKAGE = Path(__file__).parent
MISSING = "missing"
ELSEWHERE = ("templates/", "texts/")  # theirs is the part ``templates``, file by file


@dataclass(frozen=True, slots=True)
class Break:
    """One thing that differs between two seals; None where one of them does not have it."""

    part: str
    name: str
    before: str | None
    after: str | None

    @property
    def words(self) -> str:
        """What a person knows it by, and nothing of what is in it."""
        match self.part:
            case "sender":
                return f"{self.name} in newsletter.toml"
            case "audience":
                return f"the list ({self.before}, now {self.after})"
            case "program":
                return (
                    f"the program ({self.before}, now {self.after})"
                    if self.name == "version"
                    else "the program"
                )
            case "compiled":
                return "the compiled mail"
            case _:
                return f"{self.name} ({self._manner})" if self._manner else self.name

    @property
    def _manner(self) -> str:
        if self.before is None:
            return "new"
        return "gone" if self.after is None else ""


def of_files(files: Mapping[str, Path]) -> dict[str, str]:
    """Each file's hash under the name that messages give it. One that can't be read is like no other that can."""
    return {name: _of_file(path) for name, path in files.items()}


def _of_file(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return MISSING


def of_value(value: object) -> str:
    """The hash of a setting: seals are kept for ever, and need not hold an address."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=list).encode()).hexdigest()


@cache
def program() -> Mapping[str, str]:
    """The version, and one hash over the package's own files (10 ms, once for each process).

    What other packages do to a mail is in the hash of the compiled one.
    """
    seen = hashlib.sha256()
    for name, data in _own_files():
        seen.update(f"{name} {len(data)}\n".encode() + data)
    return {"version": __version__, "files": seen.hexdigest()}


def _own_files() -> Iterator[tuple[str, bytes]]:
    for file in sorted(PACKAGE.rglob("*")):
        name = file.relative_to(PACKAGE)
        hidden = any(part.startswith((".", "__pycache__")) for part in name.parts)
        texts = name.as_posix().startswith(ELSEWHERE) and name.suffix != ".py"
        if file.is_file() and not hidden and not texts:
            yield name.as_posix(), file.read_bytes()


def breaks(before: Seal, after: Seal) -> list[Break]:
    """Everything that differs, part by part; nothing for equal seals.

    That the compiled mail differs is said only where nothing else says why.
    """
    parts = [part for part in dict.fromkeys((*before, *after)) if part != "compiled"]
    found = [broken for part in parts for broken in _in_part(part, before, after)]
    return found or list(_in_part("compiled", before, after))


def _in_part(part: str, before: Seal, after: Seal) -> Iterator[Break]:
    old, new = before.get(part, {}), after.get(part, {})
    for name in dict.fromkeys((*old, *new)):
        if old.get(name) != new.get(name):
            yield Break(part, name, old.get(name), new.get(name))

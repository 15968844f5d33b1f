"""Make a publisher's folder, or the next issue in it, from the files in ``newsletter/starter``.

Nothing is ever overwritten, and what could not be finished is taken away again: half an issue would be found
by the next command as a broken one.
"""

from __future__ import annotations

import os
import tomllib
from datetime import UTC, date, datetime
from importlib import resources
from string import Template
from typing import TYPE_CHECKING

from newsletter.content import is_slug, month, slugs
from newsletter.errors import Refused, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from importlib.resources.abc import Traversable
    from pathlib import Path

PLACEHOLDER = "TODO"  # stands wherever a new issue still has to be written
# Without their dots in the package, so that no tool takes them for its own.
DOTTED = {"gitignore": ".gitignore"}
FIRST, NEXT = (
    "issues/first/",
    "issues/next/",
)  # in the starter: a publisher's first issue, and every later one


def init_project(folder: Path, *, today: date | None = None) -> list[Path]:
    """Make a publisher's folder with one issue to start from; returns the new files.

    The keys of ``.env`` are not made here: ``config.add_keys`` does it, so that none is ever replaced.

    Raises:
        Refused: if one of the files exists already; nothing was changed.
        UsageError: if the folder can't be written.
    """
    day = today or _today()
    first = f"issues/{day:%Y-%m}/"
    files = {
        path.replace(FIRST, first): Template(text).substitute(date=day.isoformat())
        for path, text in _starter().items()
        if not path.startswith(NEXT)
    }
    return _write(folder, files, empty=("templates", f"{first}images"))


def new_issue(project: Path, slug: str, *, today: date | None = None) -> list[Path]:
    """Start the issue ``slug``, dated to the first day of its month; returns the new files.

    Raises:
        UsageError: if the slug can't be used, or the folder can't be written.
        Refused: if there is such a folder already; nothing was changed.
    """
    if not is_slug(slug):
        raise UsageError(
            f"{slug!r} can't be the name of an issue.",
            hint="Use small letters, digits and single dashes, best year and month: newsletter new 2027-01",
        )
    folder = f"issues/{slug}"
    if not (project / folder).resolve().is_relative_to(project.resolve()):
        raise Refused(
            f"{folder} leads out of the project.", hint="Make issues/ a folder of its own, not a link."
        )
    if os.path.lexists(project / folder):
        raise Refused(
            f"{folder} exists already, and nothing was changed.", hint="Edit it, or choose another name."
        )
    number = _next_number(project)
    words = {
        "slug": slug,
        "date": f"{month(slug)}-01" if month(slug) else (today or _today()).isoformat(),
        "number": f"number = {number}" if number else "# number = 1",
    }
    files = {
        path.replace(NEXT, f"{folder}/"): Template(text).substitute(words)
        for path, text in _starter().items()
        if path.startswith(NEXT)
    }
    return _write(project, files, empty=(f"{folder}/images",))


def _today() -> date:
    return datetime.now(tz=UTC).astimezone().date()


def _next_number(project: Path) -> int:
    """One more than the newest issue's number; 1 for the first issue, 0 if the newest has none."""
    known = slugs(project)
    if not known:
        return 1
    try:
        newest = tomllib.loads(
            (project / "issues" / known[-1] / "issue.toml").read_text(encoding="utf-8-sig")
        )
    except (OSError, ValueError):  # that file is for `check` to judge
        return 0
    number = newest.get("number")
    return number + 1 if isinstance(number, int) else 0


def _starter() -> dict[str, str]:
    """Every file of the starter by its path; ``$words`` in them are still to be filled in."""
    root = resources.files("newsletter") / "starter"
    return {path: file.read_text(encoding="utf-8") for path, file in _walk(root)}


def _walk(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        else:
            yield prefix + DOTTED.get(entry.name, entry.name), entry


def _write(root: Path, files: Mapping[str, str], *, empty: tuple[str, ...]) -> list[Path]:
    """Write all files or none, and make the ``empty`` folders."""
    there = [name for name in files if (root / name).exists() or (root / name).is_symlink()]
    if there:
        raise Refused(
            f"{root} holds {', '.join(there)} already, and nothing was changed.",
            hint="Choose an empty folder, or move these away.",
        )
    made: list[Path] = []
    try:
        for name in sorted({*empty, *(name.rpartition("/")[0] for name in files)}):
            _make_folder(root / name, made)
        for name, text in files.items():
            with (root / name).open(
                "x", encoding="utf-8", newline="\n"
            ) as file:  # x: never over another's file
                made.append(root / name)
                file.write(text)
    except BaseException as error:
        _remove(made)
        if isinstance(error, OSError):
            raise UsageError(f"{root} can't be written: {error.strerror or error}.") from error
        raise
    return [path for path in made if path.is_file()]


def _make_folder(folder: Path, made: list[Path]) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent, made)
    folder.mkdir()
    made.append(folder)


def _remove(made: list[Path]) -> None:
    for path in reversed(made):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()

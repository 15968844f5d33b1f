"""Notice within some ten milliseconds that a file of the project was saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from anyio import sleep
from watchfiles import DefaultFilter, awatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio import Event
    from watchfiles import Change

PARTS = ("newsletter.toml", "issues", "templates")  # what an email is made of
FOLDERS = PARTS[1:]
QUIET = 10  # milliseconds without another change: long enough for an editor's write-and-rename
LONGEST = 200  # milliseconds to gather changes in, however busy the disk is


class _Parts(DefaultFilter):
    """The files an email is made of, without those that editors leave beside them."""

    def __init__(self, project: Path) -> None:
        super().__init__()
        self.project = project

    def __call__(self, change: Change, path: str) -> bool:
        parts = Path(path).relative_to(self.project).parts
        return bool(parts) and parts[0] in PARTS and super().__call__(change, path)


async def watch(project: Path, changed: Callable[[], None], stop: Event) -> None:
    """Call ``changed`` after every save, until ``stop`` is set."""
    while not stop.is_set():
        try:
            await _watch(project, _folders(project), changed, stop)
        except FileNotFoundError:  # a folder went away while it was listed
            changed()
            await sleep(0.1)


async def _watch(project: Path, folders: set[Path], changed: Callable[[], None], stop: Event) -> None:
    saves = awatch(
        *sorted(folders),
        watch_filter=_Parts(project),
        debounce=LONGEST,
        step=QUIET,
        stop_event=stop,
        recursive=False,
    )
    async for _ in saves:
        changed()
        if _folders(project) != folders:  # a folder came or went: watch anew
            return


def _folders(project: Path) -> set[Path]:
    """Listed one by one, because the project itself must be watched and may hold a huge .venv."""
    below = (child for name in FOLDERS for child in (project / name).rglob("*") if child.is_dir())
    return {project, *(project / name for name in FOLDERS if (project / name).is_dir()), *below}

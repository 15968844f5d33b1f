"""The machine: its clock, and room and permissions in the state folder."""

from __future__ import annotations

import os
import shutil
from datetime import timedelta
from typing import TYPE_CHECKING

from newsletter.doctor.report import error, ok, unseen, warning

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from newsletter.doctor.report import Result

CLOCK, DISK, FILES = "clock", "disk", "files"
MOST_APART = timedelta(seconds=60)
LEAST_BYTES = 1_000_000_000
LEAST_TIMES = 3  # of the database: a backup, an upgrade and a send may each need as much again
OTHERS = 0o077
SYNCHRONISE = "Set it, and keep it right: timedatectl set-ntp true"


def compared(theirs: datetime, ours: datetime, whose: str) -> Result:
    """Two clocks, both aware. Dates in mails and in the ledger come from ours."""
    apart = abs(ours - theirs)
    if apart > MOST_APART:
        said = (
            f"this machine says {ours:%Y-%m-%d %H:%M:%S} UTC, {whose} is {apart.total_seconds():.0f} s away."
        )
        return error(CLOCK, said, SYNCHRONISE)
    return ok(CLOCK, f"{whose} and this machine agree.")


def look_at_disk(state: Path, database: Path | None, *, free: int | None = None) -> Iterator[Result]:
    """``database`` is the file of SQLite; ``free`` is in bytes, and asked of the system when it is left out."""
    if not state.is_dir():
        yield unseen(DISK, f"there is no {state} yet.")
        return
    size = database.stat().st_size if database and database.exists() else 0
    free = shutil.disk_usage(state).free if free is None else free
    said = f"{free / 1e9:.1f} GB free for {state}"
    if free < max(LEAST_BYTES, LEAST_TIMES * size):
        yield warning(
            DISK, f"{said}, the database has {size / 1e9:.1f}.", "Make room, but not in that folder."
        )
    else:
        yield ok(DISK, f"{said}.")


def look_at_files(state: Path) -> Iterator[Result]:
    """Readers' addresses are in there: other users of the machine may neither enter nor read."""
    if os.name != "posix" or not state.is_dir():
        yield unseen(FILES, f"there is no {state} whose permissions could be seen.")
        return
    if state.stat().st_mode & OTHERS:
        yield warning(FILES, f"other users of this machine may enter {state}.", f"chmod 700 {state}")
    loose = [file for file in sorted(state.iterdir()) if file.is_file() and file.stat().st_mode & OTHERS]
    for file in loose:
        yield warning(FILES, f"other users of this machine may read {file}.", f"chmod 600 {file}")
    if not loose and not state.stat().st_mode & OTHERS:
        yield ok(FILES, f"only their owner may enter {state} and read what is in it.")

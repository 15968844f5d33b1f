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
    for folder in _disks(state, database):
        yield _room(folder, size, shutil.disk_usage(folder).free if free is None else free)


def _disks(state: Path, database: Path | None) -> list[Path]:
    """A folder on each: backups go to the one, what is written while a campaign is sent to the other."""
    if database and database.parent.is_dir() and database.parent.stat().st_dev != state.stat().st_dev:
        return [state, database.parent]
    return [state]


def _room(folder: Path, size: int, free: int) -> Result:
    said = f"{free / 1e9:.1f} GB free for {folder}"
    if free < max(LEAST_BYTES, LEAST_TIMES * size):
        return warning(
            DISK, f"{said}, the database has {size / 1e9:.1f}.", "Make room, but not in that folder."
        )
    return ok(DISK, f"{said}.")


def look_at_files(state: Path) -> Iterator[Result]:
    """Readers' addresses are in there: other users of the machine may neither enter nor read.

    Who runs this has to, and can't where root once typed a command in their place: the lock, or the folder of the
    backups, is root's then, and nothing leaves by itself any more.
    """
    if os.name != "posix" or not state.is_dir():
        yield unseen(FILES, f"there is no {state} whose permissions could be seen.")
        return
    if state.stat().st_mode & OTHERS:
        yield warning(FILES, f"other users of this machine may enter {state}.", f"chmod 700 {state}")
    found = sorted(state.iterdir()) if _is_ours(state) else []
    locked = [file for file in (state, *found) if not _is_ours(file)]
    for file in locked:
        mend = f"sudo chown -R {os.geteuid()} {state}"  # the number: in a container a user may have no name
        yield error(FILES, f"{file} belongs to another user and can't be used.", mend)
    loose = [file for file in found if file.is_file() and file.stat().st_mode & OTHERS]
    for file in loose:
        yield warning(FILES, f"other users of this machine may read {file}.", f"chmod 600 {file}")
    if not loose and not locked and not state.stat().st_mode & OTHERS:
        yield ok(FILES, f"only their owner may enter {state} and read what is in it.")


def _is_ours(file: Path) -> bool:
    return os.access(file, os.R_OK, effective_ids=os.access in os.supports_effective_ids)

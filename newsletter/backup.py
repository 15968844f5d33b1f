"""Backups: one SQLite file, whatever the database is, that was restored once before anybody has to rely on it.

It is marked as a backup in its ``meta``, so that a program that opens it in place is fenced (``store.instance``). The
keys in ``.env`` are not in it. docs/decisions/0031-a-backup-is-one-file.md
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from newsletter.errors import DatabaseError, Refused
from newsletter.store import copying, facts, instance, lock
from newsletter.store import engine as store
from newsletter.store.engine import read, write

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from sqlalchemy import Connection, Engine

NAME = "%Y-%m-%dT%H%M%SZ.db"  # of the moment, in UTC: sorts as time does
OURS = re.compile(r"\d{4}-\d\d-\d\dT\d{6}Z\.db")
WORKSHOP = ".backup-in-the-making-"
YOUNG_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was made and proved."""

    file: Path
    counts: Mapping[str, int]  # rows by table
    size: int  # bytes
    seconds: float


def make(engine: Engine, file: Path, now: datetime) -> Backup:
    """Writes a backup, restores it into a throw-away database, and compares; nothing is there before that is done.

    Nobody has to stop: it shows one moment, also of a campaign that is being sent. Raises ``Refused`` if the file
    exists, ``DatabaseError`` if it can't be written or is not whole.
    """
    began = time.monotonic()
    with _about(file, "can't be made"):
        _refuse_overwriting(file)  # in here, because a folder that may not be entered can't say either
        counts, size = _make(engine, file, now)
    if not store.fence(engine):
        instance.advance(engine, lambda _: None)
    return Backup(file, counts, size, time.monotonic() - began)


def _refuse_overwriting(file: Path) -> None:
    if file.exists():
        raise Refused(f"{file} exists, and a backup never overwrites anything.", hint="Name another file.")


def _make(engine: Engine, file: Path, now: datetime) -> tuple[dict[str, int], int]:
    with _workshop(file.parent) as room:
        made = room / "backup.db"
        counts = _write(engine, room / "snapshot.db", made, now)
        _prove(made, counts, room)
        size = made.stat().st_size
        made.rename(file)  # on the same disk: at once and whole
    return counts, size


def _write(engine: Engine, raw: Path, made: Path, now: datetime) -> dict[str, int]:
    counts = copying.snapshot(engine, raw)
    with _opened(raw) as snapshot:
        known = read(snapshot, facts.every)
        of = known.get(instance.PLACE, "a database without a home")
        marks = {instance.BACKUP_AT: f"{now:%Y-%m-%d %H:%M:%S} UTC", instance.BACKUP_OF: of}
        write(snapshot, lambda conn: facts.remember(conn, marks))
        made.touch(0o600)
        store.vacuum_into(snapshot, made)
    raw.unlink()
    with made.open("rb") as file:
        os.fsync(file.fileno())
    return counts | {"meta": counts["meta"] + len(marks.keys() - known.keys())}


def _prove(made: Path, counts: Mapping[str, int], room: Path) -> None:
    """A backup that nobody has restored is a hope.

    Rows that contradict each other are none of its business: a backup with them is better than none at all.
    """
    proof = room / "proof.db"
    restore(made, f"sqlite:///{proof}", room)
    with _opened(proof) as engine:
        wrong = store.health(engine).damage
        found = read(engine, copying.counts)
    wrong += [
        f"{rows} rows of {name} became {found[name]}" for name, rows in counts.items() if found[name] != rows
    ]
    if wrong:
        raise DatabaseError("; ".join(wrong), hint="Look at the database itself: newsletter db check")


@dataclass(frozen=True, slots=True)
class Restored:
    """What was put into a database."""

    counts: Mapping[str, int]
    facts: Mapping[str, str]  # what the backup said of itself


def restore(file: Path, url: str, place: Path, *, keys: Mapping[str, str] | None = None) -> Restored:
    """Puts a backup into a database that has no rows yet, in one transaction: killed, it leaves none.

    ``keys`` are the fingerprints to compare. In ``place`` lies a copy of the file for as long as it takes: the backup
    itself is only read, and an older one has to be upgraded. Raises ``DatabaseError`` for what is no backup, is
    damaged or of a newer schema, ``ConfigError`` for other keys, and ``Refused`` for a database with rows in it.
    """
    with _workshop(place) as room, _readable(file, room) as source:
        known = read(source, facts.every)
        store.check_keys(known, keys or {})
        store.create_or_upgrade(url)
        with closing_engine(store.open_engine(url)) as target:
            read(source, lambda theirs: write(target, partial(_fill, theirs)))
            return Restored(read(target, copying.counts), known)


def _fill(source: Connection, target: Connection) -> None:
    if tables := copying.used(target):
        raise Refused(
            f"the database {store.name_of(target.engine)} has rows in {', '.join(tables)}, "
            "and a backup is put into an empty one only.",
            hint="Move it away first, or name another one in DATABASE_URL. Nothing was changed.",
        )
    copying.fill(source, target)


@contextmanager
def _readable(file: Path, room: Path) -> Iterator[Engine]:
    """A copy of the backup in the present schema, found sound."""
    copy = room / "copy.db"
    with _about(file, "can't be restored", instead_of=copy):
        shutil.copyfile(file, copy)
        copy.chmod(0o600)
        if not copy.stat().st_size:  # to SQLite a database without tables, which would get its tables now
            raise DatabaseError("it is empty", hint="Take another one, or copy it here again.")
        with _opened(copy) as raw:
            if instance.BACKUP_AT not in read(raw, facts.every):
                raise DatabaseError(
                    "it is no backup, but a database", hint="Make one of it: newsletter db backup"
                )
            if damage := store.health(raw).damage:
                raise DatabaseError(f"it is damaged: {'; '.join(damage)}", hint="Take an older backup.")
    with _opened(copy) as engine:
        yield engine


@contextmanager
def _opened(file: Path) -> Iterator[Engine]:
    store.create_or_upgrade(f"sqlite:///{file}")
    engine = store.open_engine(f"sqlite:///{file}")
    with closing_engine(engine):
        yield engine


@contextmanager
def closing_engine(engine: Engine) -> Iterator[Engine]:
    """Lets go of its connections at the end."""
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def _workshop(place: Path) -> Iterator[Path]:
    """A folder for its owner only, which is gone afterwards; those of processes that were killed go as well."""
    # The mode is for the last one only, and the parent may be the state folder.
    for folder in (place.parent, place):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in place.glob(f"{WORKSHOP}*"):
        if _is_abandoned(left):
            shutil.rmtree(left, ignore_errors=True)
    room = Path(tempfile.mkdtemp(dir=place, prefix=WORKSHOP))
    try:
        with lock.hold(room / "lock", "a backup"):
            yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _is_abandoned(room: Path) -> bool:
    """Whether its process is dead. One that was made this very moment may not have its lock yet."""
    with suppress(OSError):
        return time.time() - room.stat().st_mtime > YOUNG_SECONDS and not lock.is_held(room / "lock")
    return False


@contextmanager
def _about(file: Path, what: str, instead_of: Path | None = None) -> Iterator[None]:
    """Errors say which backup they are about, and not the copy of it that was read ``instead_of`` it."""
    try:
        yield
    except OSError as error:
        raise DatabaseError(
            f"The backup {file} {what}: {error.strerror}.", hint="Check its folder, and the room on the disk."
        ) from error
    except DatabaseError as error:
        said = str(error).replace(str(instead_of), str(file)).rstrip(".")
        raise DatabaseError(f"The backup {file} {what}: {said}.", hint=error.hint) from error


def prune(folder: Path, keep: int, made: Path) -> list[Path]:
    """Removes all but ``made`` and the newest others, so that ``keep`` are left.

    Only files whose names are those that ``db backup`` gives. ``made`` stays whatever its name says: once the clock was
    wrong by a year, all new backups would look like the oldest ones.
    """
    others = (file for file in folder.iterdir() if OURS.fullmatch(file.name) and file != made)
    old = sorted(others, reverse=True)[keep - 1 :]
    for file in old:
        file.unlink()
    return old

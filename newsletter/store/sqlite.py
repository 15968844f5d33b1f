"""SQLite: how its file is opened, how a transaction begins, and what its errors mean.

WAL mode with ``synchronous=FULL``: what was committed survives a power cut, and readers never wait for the writer.
SQLite's own back-off sleeps up to 100 ms between tries and starves whoever waits for the write lock: beside a sender
that commits group after group, another writer waited up to 1.9 s. So its ``busy_timeout`` is 0 and we ask again every
half millisecond (27 ms at most in the same trial).
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from sqlalchemy import create_engine, event
from sqlalchemy.util import asbool

from newsletter.errors import ConfigError, DatabaseError
from newsletter.store.database import PATIENCE_SECONDS, UPGRADE, WAIT, Health, Problem, Whereabouts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import URL, Connection, Engine

RETRY_SECONDS = 0.0005
OPENED = "newsletter_file"  # of a connection: the file, and which one it was
SCRUB_SECONDS = 5.0  # a sender and a server leave gaps all the time; a backup may take minutes
REWRITTEN_BYTES = 64 << 20
BACKUP_PAGES = 2000  # 8 MB in one step
_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA wal_autocheckpoint=10000",  # 40 MB: ten times fewer pauses, and random pages are written home once
    "PRAGMA secure_delete=ON",  # an erased address must not stay readable in the file's free pages
)
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_LOCKED = Problem(
    "Another program keeps the database locked",
    "Probably a second `newsletter` command, a database browser or a backup: let it end, try again.",
)
_PROBLEMS = {
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_FULL: Problem(
        "The disk is full, or the database may not grow any further", "Free some space and run it again."
    ),
    sqlite3.SQLITE_READONLY: Problem(
        "The database can't be written: it is read-only", "Check who owns the file and its folder."
    ),
    sqlite3.SQLITE_NOTADB: Problem(
        "The file is not a database", "Restore it from a backup, or move it away to start anew."
    ),
    sqlite3.SQLITE_CORRUPT: Problem(
        "The database is damaged", "Keep a copy of the file and restore the last backup."
    ),
    sqlite3.SQLITE_IOERR: Problem(
        "The disk gave an error while the database was used", "Check the disk, then run it again."
    ),
    sqlite3.SQLITE_CANTOPEN: Problem(
        "The database can't be opened", "Check that its folder exists and may be written."
    ),
    sqlite3.SQLITE_PERM: Problem("The database may not be opened", "Check who owns the file and its folder."),
}


def make(url: URL, *, create: bool) -> Engine:
    """An engine on the file; with ``create``, an empty one is made if there is none."""
    if url.database in {None, "", ":memory:"}:
        raise ConfigError(
            "DATABASE_URL names no file: who has got a copy can't be kept in memory.", hint="Leave it out."
        )
    file = _file(url)
    if file is not None:
        _private(file, create=create and url.query.get("mode") != "rw")  # `rw` says that it has to be there
    engine = create_engine(
        url,
        connect_args={"timeout": 0},
        hide_parameters=True,
        pool_reset_on_return=None,  # every transaction of ours is ended before its connection goes back
    )
    event.listen(engine, "connect", partial(_on_connect, file))
    event.listen(engine, "begin", _on_begin)
    return engine


def _file(url: URL) -> Path | None:
    """The file that is going to be written, also where it is named as ``file:…?uri=true``; None if none is."""
    if not asbool(url.query.get("uri", "false")):
        return Path(name(url))
    uri = urlsplit(name(url))
    path = unquote(uri.path) if uri.scheme == "file" else name(url)
    asked = {**dict(parse_qsl(uri.query)), **url.query}
    return None if asked.get("mode") in {"ro", "memory"} or path == ":memory:" else Path(path)


def name(url: URL) -> str:
    """The path of the file."""
    return url.database or ""


def explain(error: BaseException, *, connecting: bool) -> Problem | None:
    """By SQLite's primary result code; the upper bits only say more about it."""
    return _PROBLEMS.get(_code(error))


def expect_small_commits(conn: Connection) -> None:
    """A log that starts over at 8 MB: to write over what is there costs the disk half of what growing the file does."""
    conn.exec_driver_sql("PRAGMA wal_autocheckpoint=2000")


def scrub(engine: Engine) -> bool:
    """Rewrites the file, if it is small, and cuts its log to nothing.

    ``secure_delete`` has overwritten the rows where they were. But where rows grew, SQLite has moved others to another
    page, and may leave what they were in the gap: one erased address of 300 was still there in a trial. Only a rewrite
    takes that away. It keeps writers waiting for a second for each 100 MB, so what is larger is left to a quiet hour.
    """
    with contextlib.closing(engine.raw_connection()) as borrowed:
        raw: Any = borrowed.driver_connection
        # First: what is rewritten goes into the log, which would grow by the whole file at every try.
        if not _cut_log(raw):
            return False
        try:
            if _size(raw) <= REWRITTEN_BYTES:
                _patiently(partial(_rewrite, raw), SCRUB_SECONDS)
        except sqlite3.OperationalError as error:
            if _code(error) not in _BUSY:
                raise
            return False
        return _cut_log(raw)


def _cut_log(raw: sqlite3.Connection) -> bool:
    """False if somebody has been reading or writing all the time."""
    until = time.monotonic() + SCRUB_SECONDS
    while raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
        if time.monotonic() >= until:
            return False
        time.sleep(RETRY_SECONDS)
    return True


def _size(raw: sqlite3.Connection) -> int:
    [pages], [size] = (raw.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
    return int(pages) * int(size)


def _rewrite(raw: sqlite3.Connection) -> None:
    raw.execute("PRAGMA temp_store=MEMORY")  # no second copy of everybody in a temporary folder
    try:
        raw.execute("VACUUM")
    finally:
        raw.execute("PRAGMA temp_store=DEFAULT")


def health(conn: Connection) -> Health:
    """Every page and every reference."""
    pages = [str(row[0]) for row in conn.exec_driver_sql("PRAGMA integrity_check(20)")]
    orphans = conn.exec_driver_sql("PRAGMA foreign_key_check").fetchmany(20)
    found = [f"a row of {table} refers to a missing {parent}" for table, _, parent, _ in orphans]
    return Health([line for line in pages if line != "ok"] + found, "every page and every reference", [])


def whereabouts(conn: Connection) -> Whereabouts:
    """The file, wherever the links to it lead."""
    [path] = (row.file for row in conn.exec_driver_sql("PRAGMA database_list") if row.name == "main")
    file = Path(path).resolve()
    return Whereabouts("", str(file), str(file), file)


def last_numbers(conn: Connection) -> dict[str, int]:
    """Of the tables that keep count. A backup of PostgreSQL has the others' as well (``count_on``)."""
    return {row.name: row.seq for row in conn.exec_driver_sql("SELECT name, seq FROM sqlite_sequence")}


def count_on(conn: Connection, numbers: Mapping[str, int]) -> None:
    """What it remembers of rows it has got by itself."""
    known = last_numbers(conn)
    conn.exec_driver_sql("DELETE FROM sqlite_sequence")
    for table in known.keys() | numbers.keys():
        number = max(known.get(table, 0), numbers.get(table, 0))
        conn.exec_driver_sql("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, number))


def snapshot(conn: Connection, file: Path) -> None:
    """Copies what this transaction sees, page by page; others may write meanwhile.

    Free pages come with it, and what is left of erased people in them: ``vacuum_into`` leaves those behind.
    """
    raw: Any = conn.connection.driver_connection
    with contextlib.closing(sqlite3.connect(file)) as target:
        raw.backup(target, pages=BACKUP_PAGES)


def vacuum_into(engine: Engine, file: Path) -> None:
    """Writes every row, and nothing besides, into an empty file."""
    with contextlib.closing(engine.raw_connection()) as borrowed:
        raw: Any = borrowed.driver_connection
        raw.execute("VACUUM INTO ?", (str(file),))


def _private(file: Path, *, create: bool) -> None:
    """Make the file its owner's alone: who is on this list is health data. -wal and -shm copy its mode."""
    try:
        if create:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file.touch(mode=0o600)
        if not file.is_file():
            raise DatabaseError(f"There is no database at {file}.", hint=UPGRADE)
        if file.stat().st_mode & 0o077:
            with contextlib.suppress(PermissionError):  # somebody else's file: theirs to decide
                file.chmod(0o600)
    except OSError as error:
        raise DatabaseError(
            f"The database {file} can't be opened: {error.strerror}.", hint="Check its folder."
        ) from error


def _on_connect(file: Path | None, connection: sqlite3.Connection, record: Any) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself: `_on_begin` does
    for pragma in _PRAGMAS:
        _patiently(partial(connection.execute, pragma), PATIENCE_SECONDS)
    record.info[OPENED] = (file, _identity(file))


def _on_begin(conn: Connection) -> None:
    """Takes the write lock at once: a transaction that reads first and asks for it later can be refused half done."""
    raw: Any = conn.connection.driver_connection
    wait = conn.get_execution_options().get(WAIT)
    if wait is None:
        _patiently(lambda: _begin_reading(raw), PATIENCE_SECONDS)
    else:
        _check_in_place(*conn.connection.info[OPENED])
        _patiently(lambda: raw.execute("BEGIN IMMEDIATE"), wait)


def _check_in_place(file: Path | None, opened: tuple[int, int] | None) -> None:
    """Else who moves a database away under a running server would lose what readers are then told was done (2 µs)."""
    if _identity(file) != opened:
        raise DatabaseError(
            f"The database {file} was moved away or replaced while this program used it, and nothing is written to it.",
            hint="Start this program again.",
        )


def _identity(file: Path | None) -> tuple[int, int] | None:
    try:
        found = file.stat() if file is not None else None
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if found else None


def _begin_reading(raw: sqlite3.Connection) -> None:
    """Take the snapshot now: after a plain BEGIN the first SELECT would, where nobody waits for a lock."""
    raw.execute("BEGIN")
    try:
        raw.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
    except sqlite3.Error:
        raw.rollback()
        raise


def _patiently(act: Callable[[], object], wait: float) -> None:
    deadline = time.monotonic() + wait
    while True:
        try:
            act()
        except sqlite3.OperationalError as error:
            if _code(error) not in _BUSY or time.monotonic() >= deadline:
                raise
        else:
            return
        time.sleep(RETRY_SECONDS)


def _code(error: BaseException) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF

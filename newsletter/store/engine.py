"""Opening the database, and the only two ways to use it: ``read`` and ``write``.

SQLite in WAL mode with ``synchronous=FULL``: what was committed survives a power cut, and readers never wait
for the writer. SQLite's own back-off sleeps up to 100 ms between tries and starves whoever waits for the
write lock: beside a sender that commits group after group, another writer waited up to 1.9 s. So its
``busy_timeout`` is 0 and we ask again every half millisecond (27 ms at most in the same trial).

Every SQLite error that a person can do something about leaves here as a ``DatabaseError``. Constraint
violations and wrong SQL pass through: the first are the caller's business, the second are bugs.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Engine, create_engine, event, insert, inspect, make_url, select, text
from sqlalchemy.exc import ArgumentError, DBAPIError

from newsletter.errors import ConfigError, DatabaseError
from newsletter.store.schema import meta

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy import URL, Connection

T = TypeVar("T")

SCHEMA = "0002"  # the newest revision; here as well, because alembic takes 100 ms to say it
RETRY_SECONDS = 0.0005
BREATH_SECONDS = 0.002  # four tries of whoever else wants to write
PATIENCE_SECONDS = 30.0
WAIT = "newsletter_wait"  # execution option: seconds to wait for the write lock; absent means reading

UPGRADE = "Run `newsletter db upgrade`."
_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA secure_delete=ON",  # an erased address must not stay readable in the file's free pages
)
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_SENTENCES = {
    sqlite3.SQLITE_FULL: (
        "The disk is full, or the database may not grow any further",
        "Free some space and run it again.",
    ),
    sqlite3.SQLITE_READONLY: (
        "The database can't be written: it is read-only",
        "Check who owns the file and its folder.",
    ),
    sqlite3.SQLITE_NOTADB: (
        "The file is not a database",
        "Restore it from a backup, or move it away to start anew.",
    ),
    sqlite3.SQLITE_CORRUPT: (
        "The database is damaged",
        "Keep a copy of the file and restore the last backup.",
    ),
    sqlite3.SQLITE_IOERR: (
        "The disk gave an error while the database was used",
        "Check the disk, then run it again.",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "The database can't be opened",
        "Check that its folder exists and may be written.",
    ),
    sqlite3.SQLITE_PERM: ("The database may not be opened", "Check who owns the file and its folder."),
}


def open_engine(url: str, *, create: bool = False) -> Engine:
    """An engine on a database with the present schema.

    With ``create``, a missing or empty database gets its tables first, also when two processes do it at once.
    An older one is never upgraded on the way: that wants a backup first. Raises ``DatabaseError``.
    """
    engine = _engine(url, create=create)
    try:
        if create and read(engine, _version) is None:
            _migrate(engine)  # does nothing if another process was quicker
        check_schema(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def create_or_upgrade(url: str) -> str:
    """Bring the database to the present schema in one transaction; returns the revision it had, "" if new."""
    engine = _engine(url, create=True)
    try:
        before = read(engine, _version)
        _refuse_newer(engine, before)
        _migrate(engine)
    finally:
        engine.dispose()
    return before or ""


def check_schema(engine: Engine) -> None:
    """Raise ``DatabaseError`` unless the schema is exactly the one this version was written for."""
    found = read(engine, _version)
    _refuse_newer(engine, found)
    if found is None:
        raise DatabaseError(f"The database {_name(engine)} has no tables yet.", hint=UPGRADE)
    if found < SCHEMA:
        message = f"The database {_name(engine)} has the older schema {found}; this version needs {SCHEMA}."
        raise DatabaseError(message, hint=f"Make a backup. {UPGRADE}")


def write(engine: Engine, fn: Callable[[Connection], T], *, wait: float = PATIENCE_SECONDS) -> T:
    """Run ``fn`` in one write transaction and commit; roll back if it raises. The only way to write.

    The write lock is taken at the start (``BEGIN IMMEDIATE``): a transaction that reads first and asks for it
    later can be refused with its work half done. Waits up to ``wait`` seconds for another writer, then raises
    ``DatabaseError``. ``fn`` runs once at most, and nothing slow belongs inside.
    """
    with _translated(engine), engine.connect().execution_options(**{WAIT: wait}) as conn, conn.begin():
        return fn(conn)


def in_chunks(engine: Engine, step: Callable[[Connection], object]) -> None:
    """Write ``step`` again and again until it returns nothing, with a breath between for other writers."""
    while write(engine, step):
        time.sleep(BREATH_SECONDS)


def read(engine: Engine, fn: Callable[[Connection], T]) -> T:
    """Run ``fn`` on one snapshot of the database. Raises ``DatabaseError`` where ``write`` would."""
    with _translated(engine), engine.connect() as conn, conn.begin():
        return fn(conn)


def ensure_keys(engine: Engine, signing: Mapping[int, bytes], address_key: bytes) -> None:
    """Tie the database to its secrets: the first use remembers their fingerprints, another key is an error.

    With another address key every suppression would be overlooked, with another signing key every link that
    was sent would be dead; both in silence. ``signing`` is key number → key. Raises ``ConfigError``.
    """
    keys = {f"secret_key_{number}_fingerprint": key for number, key in signing.items()}
    keys["address_key_fingerprint"] = address_key
    wanted = {name: fingerprint(key) for name, key in keys.items()}
    known = read(engine, lambda conn: {row.key: row.value for row in conn.execute(select(meta))})
    if any(known.get(name) != value for name, value in wanted.items()):
        write(engine, lambda conn: _remember_keys(conn, wanted))


def _remember_keys(conn: Connection, wanted: Mapping[str, str]) -> None:
    for name, value in wanted.items():
        remember_key(conn, name, value)


def fingerprint(key: bytes) -> str:
    """What the database keeps of a secret: enough to tell two apart, useless for finding it."""
    return hashlib.sha256(key).hexdigest()[:16]


def remember_key(conn: Connection, name: str, value: str) -> None:
    """Store a key's fingerprint, or compare it with the stored one; a mismatch is a ``ConfigError``."""
    known = conn.scalar(select(meta.c.value).where(meta.c.key == name))
    if known is None:
        conn.execute(insert(meta).values(key=name, value=value))
    elif known != value:
        label = name.removesuffix("_fingerprint").replace("_", " ")
        raise ConfigError(
            f"The {label} is not the one this database was made with.",
            hint="Put the old one back into .env. A new signing key goes in front of it, with a new number.",
        )


# How the engine is made


def _engine(url: str, *, create: bool) -> Engine:
    parsed = _parse(url)
    file = _file(parsed)
    if file is not None:
        _private(file, create=create)
    engine = create_engine(parsed, connect_args={"timeout": 0}, hide_parameters=True)
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    return engine


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        # The URL itself is not shown: it may hold a password.
        raise ConfigError(
            "DATABASE_URL is not a database address.", hint="Leave it out to use SQLite."
        ) from None
    if parsed.get_backend_name().startswith("postgres"):
        raise DatabaseError(
            "DATABASE_URL names PostgreSQL, and the extra `postgres` for it arrives with a later version.",
            hint="Leave DATABASE_URL out to use SQLite.",
        )
    if parsed.get_backend_name() != "sqlite":
        raise ConfigError(
            f"DATABASE_URL names {parsed.get_backend_name()}, and only SQLite is known.", hint="Leave it out."
        )
    if parsed.database in {None, "", ":memory:"}:
        raise ConfigError(
            "DATABASE_URL names no file: who has got a copy can't be kept in memory.", hint="Leave it out."
        )
    return parsed


def _file(url: URL) -> Path | None:
    """The file to make and to protect; None for ``file:…?uri=true``, which says itself how it is opened."""
    return None if url.query.get("uri") else Path(url.database or "")


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


def _on_connect(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself: `_on_begin` does
    for pragma in _PRAGMAS:
        _patiently(partial(connection.execute, pragma), PATIENCE_SECONDS)


def _on_begin(conn: Connection) -> None:
    raw: Any = conn.connection.driver_connection
    wait = conn.get_execution_options().get(WAIT)
    if wait is None:
        _patiently(lambda: _begin_reading(raw), PATIENCE_SECONDS)
    else:
        _patiently(lambda: raw.execute("BEGIN IMMEDIATE"), wait)


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


# What SQLite says, in sentences


@contextlib.contextmanager
def _translated(engine: Engine) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, DBAPIError) as error:
        sentence = _sentence(error.orig if isinstance(error, DBAPIError) else error)
        if sentence is None:
            raise
        raise DatabaseError(f"{sentence[0]}: {_name(engine)}.", hint=sentence[1]) from error


def _sentence(error: BaseException | None) -> tuple[str, str] | None:
    if _code(error) in _BUSY:
        return (
            "Another program keeps the database locked",
            "Probably a second `newsletter` command, a database browser or a backup: let it end, try again.",
        )
    return _SENTENCES.get(_code(error))


def _code(error: BaseException | None) -> int:
    """SQLite's primary result code (the upper bits only say more about it); 0 if it has none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _name(engine: Engine) -> str:
    return engine.url.database or ""


# The schema's revisions are numbers of four digits in one line: comparing them says which is older.


def _version(conn: Connection) -> str | None:
    """The revision of the schema; None without any table. Raises ``DatabaseError`` for a foreign database."""
    tables = set(inspect(conn).get_table_names())
    if not tables:
        return None
    if not {"alembic_version", "delivery"} <= tables:
        raise DatabaseError(
            f"The database {_name(conn.engine)} belongs to another program.", hint="Check DATABASE_URL."
        )
    return str(conn.scalar(text("SELECT version_num FROM alembic_version")))


def _refuse_newer(engine: Engine, found: str | None) -> None:
    if found is not None and found > SCHEMA:
        raise DatabaseError(
            f"The database {_name(engine)} was made by a newer version (schema {found}; this is {SCHEMA}).",
            hint="Install the newer version again.",
        )


def _migrate(engine: Engine) -> None:
    from alembic import command  # noqa: PLC0415 - 100 ms that only a new or upgraded database has to pay
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", "newsletter.store:migrations")

    def upgrade(conn: Connection) -> None:
        config.attributes["connection"] = conn
        command.upgrade(config, "head")

    write(engine, upgrade)

"""Opening the database, and the only two ways to use it: ``read`` and ``write``.

What differs from one kind of database to another is in ``sqlite`` and ``postgresql``.

Every error of the database that a person can do something about leaves here as a ``DatabaseError``. Constraint
violations and wrong SQL pass through: the first are the caller's business, the second are bugs.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import insert, inspect, make_url, select, text
from sqlalchemy.exc import ArgumentError, DBAPIError

from newsletter.errors import ConfigError, DatabaseError, NotAtHome
from newsletter.store import facts, postgresql, sqlite
from newsletter.store.database import CLAIM, FENCE, PATIENCE_SECONDS, SHARED, UPGRADE, WAIT
from newsletter.store.schema import meta

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from sqlalchemy import URL, Connection, Engine

    from newsletter.store.database import Database, Health, Whereabouts

T = TypeVar("T")

SCHEMA = "0005"  # the newest revision; here as well, because alembic takes 100 ms to say it
NEWEST_ENV = "Is .env an old copy? Put the newest one back, or the links of your last mails are dead."
BREATH_SECONDS = 0.002  # four tries of whoever else wants to write

_DATABASES: Mapping[str, Database] = {"sqlite": sqlite, "postgresql": postgresql}


def open_engine(url: str, *, create: bool = False) -> Engine:
    """An engine on a database with the present schema.

    With ``create``, a missing or empty database gets its tables first, also when two processes do it at once.
    An older one is never upgraded on the way: that wants a copy first, and not by `db backup`, which reads the present
    schema only. Raises ``DatabaseError``.
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


def create_or_upgrade(url: str, then: Callable[[Connection], object] = lambda _: None) -> str:
    """Bring the database to the present schema in one transaction; returns the revision it had, "" if new.

    ``then`` is part of that transaction; of one that had the present schema nothing is touched.
    """
    engine = _engine(url, create=True)
    try:
        before = read(engine, _version)
        _refuse_newer(engine, before)
        if before != SCHEMA:
            _migrate(engine, then)
    finally:
        engine.dispose()
    return before or ""


def check_schema(engine: Engine) -> None:
    """Raise ``DatabaseError`` unless the schema is exactly the one this version was written for."""
    found = read(engine, _version)
    _refuse_newer(engine, found)
    if found is None:
        raise DatabaseError(f"The database {name_of(engine)} has no tables yet.", hint=UPGRADE)
    if found < SCHEMA:
        message = f"The database {name_of(engine)} has the older schema {found}; this version needs {SCHEMA}."
        raise DatabaseError(message, hint=f"Copy it first, while nothing else uses it. {UPGRADE}")


def write(
    engine: Engine, fn: Callable[[Connection], T], *, wait: float = PATIENCE_SECONDS, shared: bool = False
) -> T:
    """Run ``fn`` in one write transaction and commit; roll back if it raises. The only way to write.

    One writer at a time: the write lock is taken at the start. On PostgreSQL those with ``shared`` write at the same
    time as each other, and at no other time; only for what senders do, row by row and on conditions. Waits up to
    ``wait`` seconds for another writer, then raises ``DatabaseError``. ``fn`` runs once at most, and nothing slow
    belongs inside. Raises ``NotAtHome`` at once on an engine that is fenced (``store.instance``).
    """
    refuse_fenced(engine)
    with _transaction(engine, {WAIT: wait, SHARED: shared}) as conn:
        return fn(conn)


def read(engine: Engine, fn: Callable[[Connection], T]) -> T:
    """Run ``fn`` on one snapshot of the database. Raises ``DatabaseError`` where ``write`` would."""
    with _transaction(engine, {}) as conn:
        return fn(conn)


def refuse_fenced(engine: Engine) -> None:
    """Raises ``NotAtHome`` if nothing may be written through this engine. For what should not ask first."""
    if why := fence(engine):
        raise NotAtHome(f"{why} Nothing is written to it.", hint=CLAIM)


def fence(engine: Engine) -> str:
    """Why nothing may be written, in a sentence; empty if it may."""
    return str(engine.get_execution_options().get(FENCE, ""))


def unfenced(engine: Engine) -> Engine:
    """The same connections without the fence: for what takes the database over, and nothing else."""
    return engine.execution_options(**{FENCE: ""})


def in_chunks(engine: Engine, step: Callable[[Connection], object], *, shared: bool = False) -> None:
    """Write ``step`` again and again until it returns nothing, with a breath between for other writers."""
    while write(engine, step, shared=shared):
        time.sleep(BREATH_SECONDS)


def many_senders(engine: Engine) -> bool:
    """Whether several processes may send from this database at once."""
    return engine.dialect.name == "postgresql"


def expect_small_commits(engine: Engine) -> None:
    """Says that sending begins, on the connection that it will use."""
    read(engine, _kind(engine.url).expect_small_commits)


def scrub(engine: Engine) -> bool:
    """After an erasure: takes it out of the database's free space and log; False if others kept them in use."""
    refuse_fenced(engine)
    with _translated(engine):
        return _kind(engine.url).scrub(engine)


def health(engine: Engine) -> Health:
    """Looks for damage in the whole database; changes nothing."""
    return read(engine, _kind(engine.url).health)


def whereabouts(conn: Connection) -> Whereabouts:
    """Where the database is."""
    return _kind(conn.engine.url).whereabouts(conn)


def last_numbers(conn: Connection) -> dict[str, int]:
    """The highest number that was ever given out, by table."""
    return _kind(conn.engine.url).last_numbers(conn)


def count_on(conn: Connection, numbers: Mapping[str, int]) -> None:
    """Gives out none of these numbers again: a link that was sent must not open another person's page."""
    _kind(conn.engine.url).count_on(conn, numbers)


def vacuum_into(engine: Engine, file: Path) -> None:
    """Writes a SQLite database anew into an empty file, without what is left of erased people in gaps."""
    with _translated(engine):
        sqlite.vacuum_into(engine, file)


def ensure_keys(engine: Engine, signing: Mapping[int, bytes], address_key: bytes) -> None:
    """Tie the database to its secrets: the first use remembers their fingerprints, another key is an error.

    With another address key every suppression would be overlooked, with another signing key every link that
    was sent would be dead; both in silence. ``signing`` is key number → key. Raises ``ConfigError``.
    """
    wanted = fingerprints(signing, address_key)
    known = read(engine, facts.every)
    check_keys(known, wanted)
    if wanted.keys() - known.keys() and not fence(engine):
        write(engine, lambda conn: _remember_keys(conn, wanted))


def check_keys(known: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Raises ``ConfigError`` for a key that is not the one of the database with these facts."""
    for name, value in wanted.items():
        if known.get(name, value) != value:
            raise _other_key(name)


def missing_key(known: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """A sentence if the newest signing key of the database with these facts is in no ``.env``; empty if it is.

    No error: a key that leaked has to go, and one gives the next a higher number. But so does an old ``.env`` look that
    was put back, and with it the links of the last mails are dead, and a key that was thrown away is believed again.
    """
    newest, ours = _newest_key(known), _newest_key(wanted)
    if newest <= ours:
        return ""
    return f"The database has known signing key {newest}, and the newest one in .env is {ours}."


def _newest_key(names: Iterable[str]) -> int:
    found = (re.fullmatch(r"secret_key_(\d+)_fingerprint", name) for name in names)
    return max((int(number[1]) for number in found if number), default=-1)


def _remember_keys(conn: Connection, wanted: Mapping[str, str]) -> None:
    for name, value in wanted.items():
        remember_key(conn, name, value)


def fingerprints(signing: Mapping[int, bytes], address_key: bytes) -> dict[str, str]:
    """The keys as ``meta`` holds them."""
    keys = {f"secret_key_{number}_fingerprint": key for number, key in signing.items()}
    keys["address_key_fingerprint"] = address_key
    return {name: fingerprint(key) for name, key in keys.items()}


def fingerprint(key: bytes) -> str:
    """What the database keeps of a secret: enough to tell two apart, useless for finding it."""
    return hashlib.sha256(key).hexdigest()[:16]


def remember_key(conn: Connection, name: str, value: str) -> None:
    """Store a key's fingerprint, or compare it with the stored one; a mismatch is a ``ConfigError``."""
    known = conn.scalar(select(meta.c.value).where(meta.c.key == name))
    if known is None:
        conn.execute(insert(meta).values(key=name, value=value))
    elif known != value:
        raise _other_key(name)


def _other_key(name: str) -> ConfigError:
    label = name.removesuffix("_fingerprint").replace("_", " ")
    return ConfigError(
        f"The {label} is not the one this database was made with.",
        hint="Put the old one back into .env. A new signing key goes in front of it, with a new number.",
    )


# How the engine is made


def _engine(url: str, *, create: bool) -> Engine:
    parsed = _parse(url)
    return _kind(parsed).make(parsed, create=create)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # The URL itself is not shown: it may hold a password.
        raise ConfigError(
            "DATABASE_URL is not a database address.", hint="Leave it out to use SQLite."
        ) from None
    if parsed.drivername == "postgres":  # as many hosts write it
        parsed = parsed.set(drivername="postgresql")
    if parsed.drivername not in {"sqlite", "sqlite+pysqlite", "postgresql", "postgresql+psycopg"}:
        raise ConfigError(
            f"DATABASE_URL names {parsed.drivername}, and only sqlite and postgresql are known.",
            hint="Leave it out to use SQLite, or write postgresql://USER:PASSWORD@HOST/NAME",
        )
    return parsed


def _kind(url: URL) -> Database:
    return _DATABASES[url.get_backend_name()]


def name_of(engine: Engine) -> str:
    """How errors call the database."""
    return _kind(engine.url).name(engine.url)


# Transactions


@contextlib.contextmanager
def _transaction(engine: Engine, options: dict[str, Any]) -> Iterator[Connection]:
    with _translated(engine), _begun(engine, options) as conn:
        yield conn
        conn.commit()


def _begun(engine: Engine, options: dict[str, Any]) -> Connection:
    """A connection in a transaction. One from the pool that the server has ended meanwhile is replaced, once."""
    try:
        return _begin(engine, options)
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
    return _begin(engine, options)


def _begin(engine: Engine, options: dict[str, Any]) -> Connection:
    with _translated(engine, connecting=True):
        conn = engine.connect().execution_options(**options)
    try:
        conn.begin()
    except BaseException:
        conn.close()
        raise
    return conn


@contextlib.contextmanager
def _translated(engine: Engine, *, connecting: bool = False) -> Iterator[None]:
    """What the driver says, in sentences."""
    driver: type[Exception] = engine.dialect.loaded_dbapi.Error
    try:
        yield
    except (driver, DBAPIError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        problem = _kind(engine.url).explain(cause or error, connecting=connecting)
        if problem is None:
            raise
        raise DatabaseError(f"{problem.sentence}: {name_of(engine)}.", hint=problem.hint) from error


# The schema's revisions are numbers of four digits in one line: comparing them says which is older.


def _version(conn: Connection) -> str | None:
    """The revision of the schema; None without any table. Raises ``DatabaseError`` for a foreign database."""
    tables = set(inspect(conn).get_table_names())
    if not tables:
        return None
    if not {"alembic_version", "delivery"} <= tables:
        raise DatabaseError(
            f"The database {name_of(conn.engine)} belongs to another program.", hint="Check DATABASE_URL."
        )
    return str(conn.scalar(text("SELECT version_num FROM alembic_version")))


def _refuse_newer(engine: Engine, found: str | None) -> None:
    if found is not None and found > SCHEMA:
        raise DatabaseError(
            f"The database {name_of(engine)} was made by a newer version (schema {found}; this is {SCHEMA}).",
            hint="Install the newer version again.",
        )


def _migrate(engine: Engine, then: Callable[[Connection], object] = lambda _: None) -> None:
    from alembic import command  # noqa: PLC0415 - 100 ms that only a new or upgraded database has to pay
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", "newsletter.store:migrations")

    def upgrade(conn: Connection) -> None:
        config.attributes["connection"] = conn
        command.upgrade(config, "head")
        then(conn)

    write(engine, upgrade)

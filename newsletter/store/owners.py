"""Who is sending: a row for each process, and a lock that ends with it.

A row alone would outlive a crash and say "alive" for ever. On SQLite the ``flock`` of ``lock`` is held, so one process
sends at a time and a free lock proves its owner dead. On PostgreSQL each owner holds a session advisory lock of its
own, which the server frees when the connection ends; and it renews a lease, because a server that was cut off from a
machine may not notice for hours. Whoever is found dead is put out: its row is ended, and every hand-over asks for it.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, insert, select, text, update

from newsletter.errors import DatabaseError
from newsletter.store import instance, lock
from newsletter.store.engine import many_senders, read, write
from newsletter.store.schema import owner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from sqlalchemy import Connection, Engine, Row

LEASE = timedelta(seconds=60)
BEAT_SECONDS = 10.0
LEASE_MICROS = LEASE // timedelta(microseconds=1)

# By the server's clock, so that those of several machines need not agree.
_SERVER_NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_BEAT = f"UPDATE owner SET seen_at = {_SERVER_NOW} WHERE id = %s AND ended_at IS NULL"  # noqa: S608
_FRESH = f"SELECT id FROM owner WHERE ended_at IS NULL AND seen_at >= {_SERVER_NOW} - :lease"  # noqa: S608
_HELD = (
    "SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks"
    " WHERE locktype = 'advisory' AND objsubid = 1 AND granted"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


@dataclass(frozen=True, slots=True)
class Owner:
    """A sending process, living or dead."""

    id: str
    campaign_id: int | None  # None until it is decided
    name: str  # process 123 on mailer, since …
    way: str  # smtp mail.example.org:587
    started_at: datetime
    seen_at: datetime
    settled_at: datetime | None
    ended_at: datetime | None


@contextmanager
def own(
    engine: Engine, lock_path: Path, *, name: str, way: str, clock: Callable[[], datetime]
) -> Iterator[str]:
    """Registers this process as a sender while the block runs; yields its id.

    Raises ``Occupied`` on SQLite when another process is sending.
    """
    mine = secrets.token_hex(8)
    with ExitStack() as held:
        if many_senders(engine):
            held.enter_context(_heartbeat(engine, mine))
        else:
            held.enter_context(lock.hold(lock_path, name))
        now = clock()
        row = {"id": mine, "name": name, "way": way, "started_at": now, "seen_at": now}
        instance.advance(engine, lambda conn: _register(conn, row))
        try:
            yield mine
        finally:
            with suppress(DatabaseError):  # then the next process finds it dead
                write(engine, lambda conn: _end(conn, [mine], clock()))


def _register(conn: Connection, row: Mapping[str, Any]) -> None:
    conn.execute(insert(owner).values(row))
    if conn.dialect.name == "postgresql":
        conn.exec_driver_sql(
            _BEAT, (row["id"],)
        )  # this machine's clock may be behind the server's by more than a lease


def _end(conn: Connection, ids: list[str], now: datetime) -> None:
    still = (owner.c.id.in_(ids), owner.c.ended_at.is_(None))
    conn.execute(update(owner).where(*still).values(ended_at=now))


def takes(conn: Connection, mine: str, campaign_id: int) -> None:
    """Says which campaign this process sends."""
    conn.execute(update(owner).where(owner.c.id == mine).values(campaign_id=campaign_id))


def is_living(conn: Connection, mine: str) -> bool:
    """Whether nobody has taken this process for dead."""
    row = select(owner.c.id).where(owner.c.id == mine, owner.c.ended_at.is_(None))
    return conn.execute(row).first() is not None


def bury(conn: Connection, mine: str, now: datetime) -> list[str]:
    """Ends the rows of the dead and returns their ids. On SQLite the caller holds the lock, so all others are dead."""
    others = set(conn.scalars(select(owner.c.id).where(owner.c.ended_at.is_(None), owner.c.id != mine)))
    if conn.dialect.name == "postgresql":
        others -= _living(conn)
    _end(conn, sorted(others), now)
    return sorted(others)


def at_work(engine: Engine, lock_path: Path) -> list[Owner]:
    """The processes that are sending now."""
    if not many_senders(engine) and not lock.is_held(lock_path):
        return []
    found = read(engine, _unended)
    return found if many_senders(engine) else found[-1:]  # those before it are dead and not buried yet


def _unended(conn: Connection) -> list[Owner]:
    rows = conn.execute(select(owner).where(owner.c.ended_at.is_(None)).order_by(owner.c.started_at)).all()
    living = _living(conn) if conn.dialect.name == "postgresql" else {row.id for row in rows}
    return [_owner(row) for row in rows if row.id in living]


def _living(conn: Connection) -> set[str]:
    """Whose lease is fresh and whose lock is held."""
    held = set(conn.scalars(text(_HELD)))
    return {one for one in conn.scalars(text(_FRESH), {"lease": LEASE_MICROS}) if lock_key(one) in held}


def newest(conn: Connection) -> datetime | None:
    """The latest moment that any sender has written down; None if there never was one."""
    columns = (owner.c.started_at, owner.c.seen_at, owner.c.settled_at, owner.c.ended_at)
    found = conn.execute(select(*(func.max(column, type_=column.type) for column in columns))).one()
    return max((moment for moment in found if moment), default=None)


def not_after(conn: Connection, now: datetime) -> None:
    """Puts back what processes that have ended wrote down with a clock that was ahead."""
    for column in (owner.c.started_at, owner.c.seen_at, owner.c.settled_at, owner.c.ended_at):
        ahead = (owner.c.ended_at.is_not(None), column > now)
        conn.execute(update(owner).where(*ahead).values({column: now}))


def _owner(row: Row[Any]) -> Owner:
    return Owner(**row._mapping)


def lock_key(mine: str) -> int:
    """The number of an owner's advisory lock: PostgreSQL knows them by 64 bits, signed."""
    return int.from_bytes(hashlib.sha256(mine.encode()).digest()[:8], "big", signed=True)


@contextmanager
def _heartbeat(engine: Engine, mine: str) -> Iterator[None]:
    """Holds the advisory lock on a connection of its own, and renews the lease there, while the block runs.

    A connection of the pool would do for neither: the lock must last longer than any transaction, and a step that waits
    for its turn must not delay the lease.
    """
    raw = _connection(engine)
    over = threading.Event()
    beating = threading.Thread(target=_beat, args=(engine, raw, mine, over), name="heartbeat", daemon=True)
    try:
        raw.execute("SELECT pg_advisory_lock(%s)", (lock_key(mine),))
        beating.start()
        yield
    finally:
        over.set()
        if beating.ident is not None:
            beating.join()
        raw.close()


def _connection(engine: Engine) -> Any:
    pooled = engine.raw_connection()
    raw: Any = pooled.driver_connection
    pooled.detach()
    raw.rollback()
    raw.autocommit = True
    return raw


def _beat(engine: Engine, raw: Any, mine: str, over: threading.Event) -> None:
    """Renews the lease. When its connection ends, the lock is free: then this process puts itself out."""
    import psycopg  # noqa: PLC0415 - only this database needs it

    try:
        while not over.wait(BEAT_SECONDS):
            raw.execute(_BEAT, (mine,))
    except psycopg.Error:
        with suppress(DatabaseError):
            write(engine, lambda conn: _end(conn, [mine], datetime.now(UTC)))

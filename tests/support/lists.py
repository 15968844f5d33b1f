"""Lists and who is on them, on a real database: what an operator does, and what a test looks at."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import update

from newsletter import addresses, subscriptions
from newsletter.store import subscribers as store
from newsletter.store.engine import read, write
from newsletter.store.schema import subscriber
from tests.support.ledgers import NOW

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from newsletter.admission import Verdict

SECRET = b"0123456789abcdef0123456789abcdef"


def add(engine: Engine, address: str, list_name: str = "readers", name: str = "") -> Verdict:
    found = subscriptions.add(engine, address, list_name, SECRET, name=name, source="a test", now=NOW)
    return found.verdict


def leave(engine: Engine, address: str, list_name: str | None = None) -> list[str]:
    return subscriptions.unsubscribe(engine, address, list_name, SECRET, source="a test", now=NOW)


def suppress(engine: Engine, address: str, reason: str = "manual") -> bool:
    return subscriptions.suppress(engine, address, SECRET, reason=reason, source="a test", now=NOW)


def erase(engine: Engine, address: str) -> None:
    """What an erasure leaves: a row without a person, and the suppression."""
    key = addresses.key(address, SECRET)

    def act(conn: Connection) -> None:
        store.unsuppress(conn, key)
        store.suppress(conn, {key: "erased"}, source="", now=NOW)
        gone = update(subscriber).where(subscriber.c.address_key == key)
        conn.execute(gone.values(address=None, address_key=None, name="", fields={}, erased_at=NOW))

    write(engine, act)


class Reader(NamedTuple):
    """What a test looks at."""

    name: str
    state: str
    suppressed: str


def readers(engine: Engine) -> dict[str, Reader]:
    """Address → standing on ``readers``."""
    return read(
        engine,
        lambda conn: {
            person.address: Reader(person.name, person.state.value, person.suppressed)
            for _, person in store.people(conn, "readers")
        },
    )


def mailable(engine: Engine) -> set[str]:
    """Canonical addresses that would get the next issue."""
    found = readers(engine).items()
    return {addresses.canonical(a) for a, r in found if a and r.state == "active" and not r.suppressed}


def dump(engine: Engine) -> list[str]:
    """Everything in the database."""
    engine.dispose()
    connection = sqlite3.connect(str(engine.url.database))
    lines = list(connection.iterdump())
    connection.close()
    return lines


def live_through(engine: Engine, address: str, past: str) -> None:
    """Gives a person a past."""
    if past in {"bounced", "manual"}:
        add(engine, address)
        suppress(engine, address, past)
    elif past != "nothing":
        add(engine, address)
    if past == "left":
        leave(engine, address, "readers")
    if past == "left all":
        leave(engine, address)
    if past == "erased":
        erase(engine, address)

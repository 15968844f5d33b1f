"""Readers who do something with a link of theirs, on a real database."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import delete, select

from newsletter import addresses
from newsletter.store import subscribers
from newsletter.store.engine import read, write
from newsletter.store.schema import consent, letter, metadata, subscription
from newsletter.store.subscribers import Newcomer
from tests.support.ledgers import _fill as fill
from tests.support.publication import NINE as NOW

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Engine

    from newsletter.model import LetterPurpose, SubscriptionState

SECRET = b"0123456789abcdef0123456789abcdef"
ZOE = "zoe@example.org"


def emptied(engine: Engine) -> Engine:
    """The same database with the list ``readers`` and nobody: a new one for each test would take most of the time."""

    def clear(conn: Connection) -> None:
        for table in reversed(metadata.sorted_tables):
            if table.name != "meta":
                conn.execute(delete(table))
        fill(conn, 0)

    write(engine, clear)
    return engine


def key(address: str) -> bytes:
    """As this publisher knows an address."""
    return addresses.key(address, SECRET)


def joins(
    engine: Engine,
    address: str = ZOE,
    list_name: str = "readers",
    state: str = "active",
    name: str = "Zoë",
    at: datetime = NOW - timedelta(days=90),
) -> int:
    """Puts somebody on a list; returns the number in their links."""
    newcomer = Newcomer(key(address), address, state, "added", name, {"town": "Leeds"})  # type: ignore[arg-type]
    list_id = write(engine, lambda conn: subscribers.ensure_list(conn, list_name, at))
    write(
        engine,
        lambda conn: subscribers.add_people(
            conn, list_id, [newcomer], source=f"{name}'s mother rang", now=at
        ),
    )
    found = read(engine, lambda conn: subscribers.person(conn, key(address)))
    return next(number for number, person in found if person.list == list_name)


def state_of(engine: Engine, subscription_id: int) -> SubscriptionState:
    """Where somebody stands now."""
    query = select(subscription.c.state).where(subscription.c.id == subscription_id)
    return read(engine, lambda conn: conn.scalar(query))


def acts(engine: Engine, subscription_id: int) -> list[str]:
    """All that was said, oldest first."""
    query = select(consent.c.act).where(consent.c.subscription_id == subscription_id).order_by(consent.c.id)
    return read(engine, lambda conn: list(conn.scalars(query)))


def letters(engine: Engine, purpose: LetterPurpose | None = None) -> Sequence[dict[str, object]]:
    """The rows of the outbox."""
    query = select(letter).order_by(letter.c.id)
    if purpose:
        query = query.where(letter.c.purpose == purpose)
    return read(engine, lambda conn: [dict(row._mapping) for row in conn.execute(query)])

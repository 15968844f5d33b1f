"""A real SQLite file with a list of people, and a campaign on it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import func, insert, select, update

from newsletter import freezing, sending
from newsletter.message import Wire
from newsletter.model import DeliveryState, Email, Kind, SubscriptionState
from newsletter.store import campaigns, listing, owners
from newsletter.store.campaigns import Target
from newsletter.store.engine import open_engine, read, write
from newsletter.store.schema import delivery, list_, owner, subscriber, subscription, suppression
from tests.support.publication import MESSAGE
from tests.support.publication import NINE as NOW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from newsletter.limits import Canary
    from newsletter.model import Campaign

TARGET = Target(issue="2026-12", period="2026-12", list="readers", kind=Kind.LIVE)
EMAIL = Email(
    title="Less iron",
    subject="Iron, @@name|reader@@",
    preheader="Held across many methods",
    html="<p>Dear @@name|reader@@</p><a href='@@unsubscribe_url@@'>leave</a>",
    text="Dear @@name|reader@@\n\nLeave: @@unsubscribe_url@@\n",
    language="en",
    view_path="/archive/2026-12",
)
RETRY = (timedelta(seconds=15), timedelta(minutes=2))
WIRE = Wire(EMAIL, MESSAGE)


OWNERS = ("me", "zombie")


def key(number: int) -> bytes:
    """The address key of person ``number``."""
    return number.to_bytes(16, "big")


def open_store(folder: Path, people: int = 0, url: str = "") -> Engine:
    """A database with the list ``readers`` and that many active people on it, ids from 1."""
    engine = open_engine(url or f"sqlite:///{folder / 'newsletter.db'}", create=True)
    fill(engine, people)
    return engine


def fill(engine: Engine, people: int) -> None:
    """The list, those people on it, and two senders, into a database that has nothing yet."""
    write(engine, lambda conn: _fill(conn, people))


def _fill(conn: Connection, people: int) -> None:
    conn.execute(insert(list_).values(id=1, name="readers", created_at=NOW))
    for one in OWNERS:
        row = {"id": one, "name": f"process {one}", "way": "memory", "started_at": NOW, "seen_at": NOW}
        conn.execute(insert(owner).values(row))
    for number in range(1, people + 1):
        person = {
            "id": number,
            "address": f"p{number}@example.org",
            "address_key": key(number),
            "name": f"P {number}",
        }
        conn.execute(insert(subscriber).values(**person, fields={}, created_at=NOW))
        standing = {"subscriber_id": number, "list_id": 1, "state": SubscriptionState.ACTIVE, "since": NOW}
        conn.execute(insert(subscription).values(id=number, **standing))
    if conn.dialect.name == "postgresql":  # it counts only what it has numbered itself
        for table in ("list", "subscriber", "subscription"):
            conn.exec_driver_sql(f"SELECT setval('{table}_id_seq', {people + 10})")


def unsubscribe(engine: Engine, number: int) -> None:
    """Person ``number`` leaves, as another process would record it."""
    gone = (
        update(subscription).where(subscription.c.id == number).values(state=SubscriptionState.UNSUBSCRIBED)
    )
    write(engine, lambda conn: conn.execute(gone))


def suppress(engine: Engine, number: int) -> None:
    """The address of person ``number`` is never to be mailed again."""
    row = insert(suppression).values(address_key=key(number), reason="bounced", at=NOW)
    write(engine, lambda conn: conn.execute(row))


def freeze(
    engine: Engine,
    target: Target = TARGET,
    only: frozenset[bytes] | None = None,
    owner: str = "me",
    canary: Canary | None = None,
) -> Campaign:
    """A running campaign to everyone who may get it."""
    planned = freezing.plan(engine, target, only=only)
    return freezing.freeze(
        engine, planned, [EMAIL], MESSAGE, transport="memory", now=NOW, owner=owner, canary=canary
    )


def counts(engine: Engine, campaign: Campaign) -> Mapping[DeliveryState, int]:
    """Rows by state."""
    return read(engine, lambda conn: campaigns.counts(conn, campaign.id))


@contextmanager
def alive(engine: Engine, one: str) -> Iterator[None]:
    """On PostgreSQL: the lock and the lease of a living process."""
    with engine.connect() as conn:
        conn.exec_driver_sql("SELECT pg_advisory_lock(%s)", (owners.lock_key(one),))
        yield
        conn.exec_driver_sql("SELECT pg_advisory_unlock(%s)", (owners.lock_key(one),))


def bury(engine: Engine, one: str) -> None:
    """The process ``one`` was found dead."""
    write(engine, lambda conn: conn.execute(update(owner).where(owner.c.id == one).values(ended_at=NOW)))


def rows(engine: Engine, campaign: Campaign) -> dict[str, DeliveryState]:
    """Address → state."""
    return read(engine, lambda conn: {row.address: row.state for row in listing.every(conn, campaign.id)})


def reasons(engine: Engine, campaign: Campaign) -> dict[str, str]:
    """Address → reason."""
    return read(engine, lambda conn: {row.address: row.reason for row in listing.every(conn, campaign.id)})


def total(engine: Engine) -> int:
    """All delivery rows there are."""
    return read(engine, lambda conn: conn.execute(select(func.count()).select_from(delivery)).scalar_one())


def links(subscription_id: int) -> Mapping[str, str]:
    """Stands in for the signer."""
    base = "https://news.example.org"
    return {
        "unsubscribe_url": f"{base}/u/{subscription_id}",
        "preferences_url": f"{base}/p/{subscription_id}",
    }


@dataclass
class TestClock:
    """Time that passes only when somebody waits."""

    __test__ = False

    moment: datetime = NOW
    waited: list[float] = field(default_factory=list)
    acts: dict[int, Callable[[], object]] = field(default_factory=dict)

    def now(self) -> datetime:
        """The present."""
        return self.moment

    def then(self, waits: int, act: Callable[[], object]) -> None:
        """Does something when so many waits have passed."""
        self.acts[len(self.waited) + waits] = act

    def wait(self, seconds: float) -> None:
        """Passes at once."""
        self.waited.append(seconds)
        self.acts.pop(len(self.waited), lambda: None)()
        self.moment += timedelta(seconds=seconds)


def conduct(clock: TestClock | None = None, **changes: object) -> sending.Conduct:
    """How tests send."""
    return sending.Conduct(
        **{"sign": links, "retry": RETRY, "owner": "me", "clock": clock or TestClock()} | changes
    )

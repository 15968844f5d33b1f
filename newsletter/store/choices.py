"""What people chose for themselves, by the number in their link: rows in, rows out. Deciding is ``choosing``'s.

Every change is conditional and says whether it changed anything: a link is pressed twice, and by two people, because
newsletters are forwarded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import and_, func, insert, select, update

from newsletter.model import SubscriptionState
from newsletter.store.schema import consent, list_, subscriber, subscription, suppression

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection

ON_LIST = (SubscriptionState.ACTIVE, SubscriptionState.PAUSED)


class Place(NamedTuple):
    """A person's standing with one list."""

    subscription_id: int
    list: str
    state: SubscriptionState
    paused_until: datetime | None


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose link it is. ``address`` and ``key`` are for the letters only: no page shows them."""

    subscriber_id: int
    list_id: int
    list: str
    edition: str
    address: str | None  # None once erased
    key: bytes | None
    suppressed: str  # the reason, or empty


@dataclass(frozen=True, slots=True)
class Said:
    """Where a choice was made: it stands on the consent."""

    source: str
    form: str
    now: datetime
    wording: str = ""  # the version of the words that were agreed to


def owner(conn: Connection, subscription_id: int) -> Owner | None:
    """The person behind a link; None if there never was such a subscription."""
    columns = (
        subscriber.c.id,
        list_.c.id,
        list_.c.name,
        subscriber.c.edition,
        subscriber.c.address,
        subscriber.c.address_key,
        func.coalesce(suppression.c.reason, ""),
    )
    query = select(*columns).join_from(subscription, subscriber).join(list_)
    query = query.join(suppression, suppression.c.address_key == subscriber.c.address_key, isouter=True)
    row = conn.execute(query.where(subscription.c.id == subscription_id)).first()
    return None if row is None else Owner(*row)


def places(conn: Connection, subscriber_id: int) -> list[Place]:
    """Every list that a person is or was on, in the order of the names."""
    columns = (subscription.c.id, list_.c.name, subscription.c.state, subscription.c.paused_until)
    query = (
        select(*columns).join_from(subscription, list_).where(subscription.c.subscriber_id == subscriber_id)
    )
    rows = conn.execute(query.order_by(list_.c.name))
    return [Place(number, name, SubscriptionState(state), until) for number, name, state, until in rows]


def known(conn: Connection, subscription_ids: Collection[int]) -> set[int]:
    """Those of the numbers that are subscriptions."""
    query = select(subscription.c.id).where(subscription.c.id.in_(subscription_ids))
    return set(conn.scalars(query))


def suppression_of(conn: Connection, key: bytes) -> str:
    """Why an address is not written to; empty for one that is."""
    return conn.scalar(select(suppression.c.reason).where(suppression.c.address_key == key)) or ""


def is_on_list(conn: Connection, subscription_id: int) -> bool:
    """Whether this subscription is active or paused."""
    state = conn.scalar(select(subscription.c.state).where(subscription.c.id == subscription_id))
    return state in ON_LIST


def activate(conn: Connection, subscription_id: int, now: datetime, *, source: str) -> None:
    """Puts a person on the list. For ``joining.confirm`` alone: it is the one way back for who left."""
    here = update(subscription).where(subscription.c.id == subscription_id)
    conn.execute(here.values(_active(now) | {"source": source}))


def pause(conn: Connection, subscription_ids: Collection[int], until: datetime, now: datetime) -> list[int]:
    """Active or paused → paused; returns which they were."""
    on_list = subscription.c.state.in_([state.value for state in ON_LIST])
    paused = {"state": SubscriptionState.PAUSED, "since": now, "paused_until": until}
    return _become(conn, subscription_ids, on_list, paused)


def resume(conn: Connection, subscription_ids: Collection[int], now: datetime) -> list[int]:
    """Paused → active; returns which they were."""
    return _become(conn, subscription_ids, subscription.c.state == SubscriptionState.PAUSED, _active(now))


def _active(now: datetime) -> dict[str, Any]:
    return {"state": SubscriptionState.ACTIVE, "since": now, "paused_until": None}


def _become(
    conn: Connection, subscription_ids: Collection[int], where: ColumnElement[bool], values: dict[str, Any]
) -> list[int]:
    changed = update(subscription).where(subscription.c.id.in_(subscription_ids), where).values(values)
    return sorted(conn.scalars(changed.returning(subscription.c.id)))


def choose_edition(conn: Connection, subscriber_id: int, edition: str) -> bool:
    """False if it was the same before, and for an erased person, who gets none."""
    other = (
        subscriber.c.id == subscriber_id,
        subscriber.c.edition != edition,
        subscriber.c.erased_at.is_(None),
    )
    return conn.execute(update(subscriber).where(*other).values(edition=edition)).rowcount == 1


def pause_is_over(now: datetime) -> ColumnElement[bool]:
    """Whether a paused subscription only waits to be woken: for everybody who asks, it is active."""
    until = subscription.c.paused_until  # without one, nobody has said an end: then it is not over
    return and_(subscription.c.state == SubscriptionState.PAUSED, until.is_not(None), until <= now)


def pauses_over(conn: Connection, now: datetime, limit: int) -> list[int]:
    """Up to ``limit`` subscriptions to wake. Reads all of them: a tenth of a second for a million."""
    return list(conn.scalars(select(subscription.c.id).where(pause_is_over(now)).limit(limit)))


def wake(conn: Connection, subscription_ids: Collection[int], now: datetime) -> list[int]:
    """Makes those active whose pause is over; returns which they were."""
    return _become(conn, subscription_ids, pause_is_over(now), _active(now))


def say(conn: Connection, acts: Mapping[int, str], said: Said) -> None:
    """Records what was said, subscription → act."""
    where = {"at": said.now, "source": said.source, "form": said.form, "wording": said.wording}
    rows = [{"subscription_id": number, "act": act, **where} for number, act in acts.items()]
    if rows:
        conn.execute(insert(consent), rows)

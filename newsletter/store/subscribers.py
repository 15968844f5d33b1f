"""People, lists, subscriptions, consents and suppressions: rows in, rows out. Deciding is ``subscriptions``'."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, case, func, insert, select, update

from newsletter.model import Subscriber, SubscriptionState
from newsletter.store.schema import campaign, consent, delivery, list_, subscriber, subscription, suppression

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row, Select

PAGE = 500


@dataclass(frozen=True, slots=True)
class Standing:
    """What the store knows of an address and of its place on one list."""

    subscriber_id: int
    name: str
    fields: Mapping[str, str]
    subscription_id: int | None  # None: not on this list
    state: SubscriptionState | None
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Newcomer:
    """Somebody to put on a list."""

    key: bytes
    address: str
    state: SubscriptionState
    act: str  # the consent: imported, added, unsubscribed
    name: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Suppressed:
    """An address that is never mailed again; ``address`` is empty where nobody on any list has it."""

    key: bytes
    reason: str
    at: datetime
    source: str
    address: str = ""


@dataclass(frozen=True, slots=True)
class Consent:
    """What a person, or who acted for them, said."""

    at: datetime
    list: str
    act: str
    source: str


@dataclass(frozen=True, slots=True)
class Copy:
    """One line of what a person was sent."""

    issue: str
    kind: str
    state: str
    receipt: str
    at: datetime | None
    reason: str


# Lists


def list_names(conn: Connection) -> list[str]:
    """Every list's name, in order."""
    return list(conn.scalars(select(list_.c.name).order_by(list_.c.name)))


def find_list(conn: Connection, name: str) -> int | None:
    """The list's id, None if there is no such list."""
    return conn.scalar(select(list_.c.id).where(list_.c.name == name))


def ensure_list(conn: Connection, name: str, now: datetime) -> int:
    """The list's id; makes the list if need be."""
    known = find_list(conn, name)
    if known is not None:
        return known
    return int(
        conn.execute(insert(list_).values(name=name, created_at=now).returning(list_.c.id)).scalar_one()
    )


def counts(conn: Connection) -> dict[str, dict[str, int]]:
    """List → state → how many; those who are active and suppressed count as ``suppressed``."""
    stopped = and_(subscription.c.state == SubscriptionState.ACTIVE, suppression.c.address_key.is_not(None))
    standing = case((stopped, "suppressed"), else_=subscription.c.state).label("standing")
    query = _people().with_only_columns(list_.c.name, standing, func.count()).group_by(list_.c.name, standing)
    found: dict[str, dict[str, int]] = {name: {} for name in list_names(conn)}
    for name, state, number in conn.execute(query):
        found[name][state] = number
    return found


# People


def standings(conn: Connection, list_id: int | None, keys: Collection[bytes]) -> dict[bytes, Standing]:
    """What is known of these addresses, by key; unknown ones are left out."""
    here = and_(subscription.c.subscriber_id == subscriber.c.id, subscription.c.list_id == list_id)
    columns = (
        subscriber.c.address_key,
        subscriber.c.id,
        subscriber.c.name,
        subscriber.c.fields,
        subscription.c.id,
        subscription.c.state,
        subscription.c.since,
    )
    query = select(*columns).join_from(subscriber, subscription, here, isouter=True)
    rows = conn.execute(query.where(subscriber.c.address_key.in_(keys)))
    return {bytes(key): Standing(*rest) for key, *rest in rows}


def add_people(
    conn: Connection, list_id: int, people: Sequence[Newcomer], *, source: str, now: datetime
) -> None:
    """Put people on a list where they have no subscription yet, with the consent that says how they came."""
    if not people:
        return
    ids = _subscriber_ids(conn, people, now)
    standing = {"list_id": list_id, "since": now, "source": source}
    rows = [{"subscriber_id": ids[person.key], "state": person.state, **standing} for person in people]
    made = conn.execute(insert(subscription).returning(subscription.c.subscriber_id, subscription.c.id), rows)
    acts = {ids[person.key]: person.act for person in people}
    said = [
        {"subscription_id": number, "at": now, "act": acts[person], "source": source}
        for person, number in made
    ]
    conn.execute(insert(consent), said)


def _subscriber_ids(conn: Connection, people: Sequence[Newcomer], now: datetime) -> dict[bytes, int]:
    """Key → id; makes those who are not on any list yet, and leaves the others' names as they are."""
    pair = (subscriber.c.address_key, subscriber.c.id)
    known = conn.execute(select(*pair).where(subscriber.c.address_key.in_([person.key for person in people])))
    ids = {bytes(key): number for key, number in known}
    rows = [
        {
            "address": p.address,
            "address_key": p.key,
            "name": p.name,
            "fields": dict(p.fields),
            "created_at": now,
        }
        for p in people
        if p.key not in ids
    ]
    if rows:
        ids |= {bytes(key): number for key, number in conn.execute(insert(subscriber).returning(*pair), rows)}
    return ids


def describe(conn: Connection, subscriber_id: int, name: str, fields: Mapping[str, str]) -> None:
    """Give a person another name and other fields."""
    changed = update(subscriber).where(subscriber.c.id == subscriber_id)
    conn.execute(changed.values(name=name, fields=dict(fields)))


def unsubscribe(conn: Connection, subscription_ids: Collection[int], *, source: str, now: datetime) -> int:
    """Record that people left; returns how many had not left before."""
    leaving = (
        update(subscription)
        .where(
            subscription.c.id.in_(subscription_ids), subscription.c.state != SubscriptionState.UNSUBSCRIBED
        )
        .values(state=SubscriptionState.UNSUBSCRIBED, since=now, paused_until=None)
        .returning(subscription.c.id)
    )
    left = conn.scalars(leaving).all()
    said = [
        {"subscription_id": number, "at": now, "act": "unsubscribed", "source": source} for number in left
    ]
    if said:
        conn.execute(insert(consent), said)
    return len(left)


def people(
    conn: Connection, list_name: str | None = None, state: SubscriptionState | None = None
) -> Iterator[tuple[int, Subscriber]]:
    """Everybody's standing with each list, as (subscription id, person), in the order they came; streamed."""
    query = _people().order_by(subscription.c.id).limit(PAGE)
    if list_name is not None:
        query = query.where(list_.c.name == list_name)
    if state is not None:
        query = query.where(subscription.c.state == state)
    last = 0
    while rows := conn.execute(query.where(subscription.c.id > last)).all():
        yield from ((row.id, _person(row)) for row in rows)
        last = rows[-1].id


def person(conn: Connection, key: bytes) -> list[tuple[int, Subscriber]]:
    """The same for one address: one entry for each list it is on."""
    query = _people().where(subscriber.c.address_key == key).order_by(list_.c.name)
    return [(row.id, _person(row)) for row in conn.execute(query)]


def _people() -> Select[Any]:
    columns = (
        subscription.c.id,
        subscription.c.state,
        subscription.c.since,
        subscription.c.source,
        subscriber.c.id.label("subscriber_id"),
        func.coalesce(subscriber.c.address, "").label("address"),
        subscriber.c.name,
        subscriber.c.fields,
        subscriber.c.edition,
        subscription.c.paused_until,
        list_.c.name.label("list"),
        func.coalesce(suppression.c.reason, "").label("suppressed"),
    )
    return (
        select(*columns)
        .join_from(subscription, subscriber)
        .join(list_)
        .join(suppression, suppression.c.address_key == subscriber.c.address_key, isouter=True)
    )


def _person(row: Row[Any]) -> Subscriber:
    return Subscriber(
        id=row.subscriber_id,
        address=row.address,
        name=row.name,
        list=row.list,
        state=SubscriptionState(row.state),
        since=row.since,
        source=row.source,
        fields=row.fields,
        suppressed=row.suppressed,
        edition=row.edition,
        paused_until=row.paused_until,
    )


def consents(conn: Connection, subscription_ids: Collection[int]) -> list[Consent]:
    """What was said about these subscriptions, oldest first."""
    query = select(consent.c.at, list_.c.name, consent.c.act, consent.c.source).join_from(
        consent, subscription
    )
    query = query.join(list_).where(subscription.c.id.in_(subscription_ids)).order_by(consent.c.id)
    return [Consent(*row) for row in conn.execute(query)]


def copies(conn: Connection, subscriber_id: int) -> list[Copy]:
    """What a person was sent, newest first."""
    columns = (
        delivery.c.issue,
        delivery.c.kind,
        delivery.c.state,
        func.coalesce(delivery.c.receipt, ""),
        func.coalesce(delivery.c.settled_at, delivery.c.handed_at, campaign.c.created_at),
        delivery.c.reason,
    )
    query = select(*columns).join_from(delivery, campaign).where(delivery.c.subscriber_id == subscriber_id)
    return [Copy(*row) for row in conn.execute(query.order_by(delivery.c.seq.desc()))]


# Suppressions


def suppressions(conn: Connection) -> Iterator[Suppressed]:
    """Every suppression, oldest first."""
    query = (
        select(suppression, func.coalesce(subscriber.c.address, ""))
        .join(subscriber, subscriber.c.address_key == suppression.c.address_key, isouter=True)
        .order_by(suppression.c.at, suppression.c.address_key)
    )
    yield from (Suppressed(*row) for row in conn.execute(query))


def suppressed(conn: Connection, keys: Collection[bytes]) -> dict[bytes, Suppressed]:
    """Those of the addresses that are suppressed."""
    rows = conn.execute(select(suppression).where(suppression.c.address_key.in_(keys)))
    return {bytes(row.address_key): Suppressed(*row) for row in rows}


def suppress(conn: Connection, reasons: Mapping[bytes, str], *, source: str, now: datetime) -> int:
    """Suppress addresses, key → reason; returns how many were not before. The first reason stays."""
    fresh = reasons.keys() - suppressed(conn, reasons).keys()
    rows = [
        {"address_key": key, "reason": reasons[key], "at": now, "source": source} for key in sorted(fresh)
    ]
    if rows:
        conn.execute(insert(suppression), rows)
    return len(rows)


def unsuppress(conn: Connection, key: bytes) -> None:
    """Let an address be mailed again."""
    conn.execute(suppression.delete().where(suppression.c.address_key == key))

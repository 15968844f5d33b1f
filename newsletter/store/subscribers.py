"""People, lists, subscriptions, consents and suppressions: rows in, rows out. Deciding is ``subscriptions``'."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import and_, case, delete, exists, func, insert, select, update

from newsletter.model import Edition, Subscriber, SubscriptionState
from newsletter.store.schema import (
    campaign,
    consent,
    delivery,
    from_micros,
    letter,
    list_,
    subscriber,
    subscription,
    suppression,
    to_micros,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, CursorResult, Row, Select

PAGE = 500
ERASED = "erased"
"""The reason of such a suppression, and in any case its source."""
LIFTABLE = ("unsubscribed", "bounced", ERASED)
"""Suppressions that a person's own fresh act lifts; a complaint and the operator's word stay."""


class Standing(NamedTuple):
    """What the store knows of an address and of its place on one list."""

    subscriber_id: int
    name: str
    fields: Mapping[str, str]
    subscription_id: int | None  # None: not on this list
    state: SubscriptionState | None


class Newcomer(NamedTuple):
    """Somebody to put on a list."""

    key: bytes
    address: str
    state: SubscriptionState
    act: str  # the consent: imported, added, unsubscribed; empty: the caller records it
    name: str = ""
    fields: Mapping[str, str] = MappingProxyType({})


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
    form: str = ""
    wording: str = ""  # the version


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
    rows: Iterable[Any] = _for_keys(conn, _STANDINGS, keys, list=list_id)
    return {
        bytes(key): Standing(number, name, _fields(said), *rest) for key, number, name, said, *rest in rows
    }


# SQL text, because an import asks for each of a million: as expressions, long lists of keys cost more than the look-up.
_STANDINGS = """SELECT s.address_key, s.id, s.name, s.fields, p.id, p.state
FROM subscriber s LEFT JOIN subscription p ON p.subscriber_id = s.id AND p.list_id = :list
WHERE s.address_key IN :keys"""
_SUPPRESSED = "SELECT address_key, reason, at, source FROM suppression WHERE address_key IN :keys"
_PERSON = """INSERT INTO subscriber (address, address_key, name, fields, edition, created_at)
VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (address_key) DO NOTHING"""
_SUBSCRIPTION = """INSERT INTO subscription (subscriber_id, list_id, state, since, source)
SELECT id, :list, :state, :at, :source FROM subscriber WHERE address_key IN :keys ORDER BY id"""
_CONSENT = """INSERT INTO consent (subscription_id, at, act, source, wording)
SELECT p.id, :at, :act, :source, ''
FROM subscriber s CROSS JOIN subscription p
WHERE s.address_key IN :keys AND p.subscriber_id = s.id AND p.list_id = :list ORDER BY p.id"""


def _for_keys(conn: Connection, sql: str, keys: Collection[bytes], **said: object) -> CursorResult[Any]:
    """One statement for many people: ``:keys`` are theirs, the other marks are in ``said``."""
    if conn.dialect.name == "postgresql":
        text = re.sub(r":(\w+)", r"%(\1)s", sql.replace("IN :keys", "= ANY(:keys)"))
        return conn.exec_driver_sql(text, {**said, "keys": list(keys)})
    values: list[object] = []
    for mark in re.findall(r":(\w+)", sql):
        values += keys if mark == "keys" else [said[mark]]
    text = re.sub(r":\w+", "?", sql.replace(":keys", f"({', '.join('?' * len(keys))})"))
    return conn.exec_driver_sql(text, tuple(values))


def _fields(said: str | dict[str, str]) -> Mapping[str, str]:
    """PostgreSQL's driver has read the JSON already."""
    known: dict[str, str] = {} if said == "{}" else json.loads(said) if isinstance(said, str) else said
    return known


def add_people(
    conn: Connection, list_id: int, people: Sequence[Newcomer], *, source: str, now: datetime
) -> None:
    """Put people on a list where they have no subscription yet, with the consent that says how they came.

    Who is on another list already keeps name and fields. SQL text, and the database finds the numbers itself: to ask
    for them and to hand each row back took three times as long.
    """
    if not people:
        return
    at = to_micros(now)
    _insert_people(conn, people, at)
    alike: dict[tuple[str, str], list[bytes]] = {}
    for person in people:
        alike.setdefault((str(person.state), person.act), []).append(person.key)
    for (state, said), keys in alike.items():
        _for_keys(conn, _SUBSCRIPTION, keys, list=list_id, state=state, at=at, source=source)
        if said:
            _for_keys(conn, _CONSENT, keys, list=list_id, act=said, at=at, source=source)


def _insert_people(conn: Connection, people: Sequence[Newcomer], at: int) -> None:
    edition = Edition.STANDARD.value
    rows: list[tuple[object, ...]] = [
        (p.address, p.key, p.name, json.dumps(dict(p.fields)) if p.fields else "{}", edition, at)
        for p in people
    ]
    mark = "%s" if conn.dialect.name == "postgresql" else "?"
    conn.exec_driver_sql(_PERSON.replace("?", mark), rows)


def forget_names_of_strangers(conn: Connection, names: Mapping[int, str]) -> None:
    """Subscriber → what they are called now: of those who have confirmed nothing, anybody may have typed the name."""
    confirmed = exists().where(
        subscription.c.subscriber_id == subscriber.c.id, subscription.c.state != SubscriptionState.PENDING
    )
    query = select(subscriber.c.id).where(subscriber.c.id.in_(names), ~confirmed)
    for number in conn.scalars(query).all():
        rename(conn, number, names[number])


def share_break(conn: Connection, list_id: int, subscriber_ids: Collection[int]) -> None:
    """Whoever comes onto a list while they are on a break, which holds for all lists, is on it here too."""
    other = subscription.alias()
    until = select(func.max(other.c.paused_until)).where(
        other.c.subscriber_id == subscription.c.subscriber_id, other.c.state == SubscriptionState.PAUSED
    )
    fresh = (
        subscription.c.list_id == list_id,
        subscription.c.subscriber_id.in_(subscriber_ids),
        subscription.c.state == SubscriptionState.ACTIVE,
    )
    paused = {"state": SubscriptionState.PAUSED, "paused_until": until.scalar_subquery()}
    conn.execute(update(subscription).where(*fresh, until.scalar_subquery().is_not(None)).values(paused))


def rename(conn: Connection, subscriber_id: int, name: str) -> None:
    """Give a person another name."""
    conn.execute(update(subscriber).where(subscriber.c.id == subscriber_id).values(name=name))


def describe(conn: Connection, subscriber_id: int, name: str, fields: Mapping[str, str]) -> None:
    """Give a person another name and other fields."""
    changed = update(subscriber).where(subscriber.c.id == subscriber_id)
    conn.execute(changed.values(name=name, fields=dict(fields)))


def unsubscribe(
    conn: Connection, subscription_ids: Collection[int], *, source: str, now: datetime, form: str = ""
) -> set[int]:
    """Record that people left, in two statements however many they are; returns who had not left before."""
    leaving = (
        update(subscription)
        .where(
            subscription.c.id.in_(subscription_ids), subscription.c.state != SubscriptionState.UNSUBSCRIBED
        )
        .values(state=SubscriptionState.UNSUBSCRIBED, since=now, paused_until=None)
        .returning(subscription.c.id)
    )
    left = set(conn.scalars(leaving))
    row = {"at": now, "act": "unsubscribed", "source": source, "form": form}
    if left:
        conn.execute(insert(consent), [{"subscription_id": number, **row} for number in sorted(left)])
    return left


def forget_pending(conn: Connection, since: datetime, limit: int) -> int:
    """Removes up to ``limit`` subscriptions that nobody confirmed or asked for since, and people who have no other."""
    old = and_(subscription.c.state == SubscriptionState.PENDING, subscription.c.since <= since)
    asked = exists().where(letter.c.subscription_id == subscription.c.id, letter.c.created_at > since)
    found = conn.execute(
        select(subscription.c.id, subscription.c.subscriber_id).where(old, ~asked).limit(limit)
    ).all()
    ids, owners = [row.id for row in found], [row.subscriber_id for row in found]
    for table in (letter, consent):
        conn.execute(delete(table).where(table.c.subscription_id.in_(ids)))
    conn.execute(delete(subscription).where(subscription.c.id.in_(ids)))
    elsewhere = exists().where(subscription.c.subscriber_id == subscriber.c.id)
    conn.execute(delete(subscriber).where(subscriber.c.id.in_(owners), ~elsewhere))
    return len(ids)


def people(
    conn: Connection, list_name: str | None = None, state: SubscriptionState | None = None, *, after: int = 0
) -> Iterator[tuple[int, Subscriber]]:
    """Everybody's standing with each list, as (subscription id, person), in the order they came; streamed.

    Only those behind the subscription ``after``.
    """
    query = _people().order_by(subscription.c.id).limit(PAGE)
    if list_name is not None:
        query = query.where(list_.c.name == list_name)
    if state is not None:
        query = query.where(subscription.c.state == state)
    while rows := conn.execute(query.where(subscription.c.id > after)).all():
        yield from ((row.id, _person(row)) for row in rows)
        after = rows[-1].id


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
    columns = (consent.c.at, list_.c.name, consent.c.act, consent.c.source, consent.c.form, consent.c.wording)
    query = select(*columns).join_from(consent, subscription)
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
    rows: Iterable[Any] = _for_keys(conn, _SUPPRESSED, keys)
    return {
        bytes(key): Suppressed(bytes(key), reason, from_micros(at), source)
        for key, reason, at, source in rows
    }


def suppress(conn: Connection, reasons: Mapping[bytes, str], *, source: str, now: datetime) -> int:
    """Suppress addresses, key → reason; returns for how many that says something new.

    The first reason stays, unless the new one is graver: one that the person's own act does not lift.
    """
    known = suppressed(conn, reasons)
    rows = [
        {"address_key": key, "reason": reasons[key], "at": now, "source": source}
        for key in sorted(reasons.keys() - known.keys())
    ]
    if rows:
        conn.execute(insert(suppression), rows)
    graver = [found for key, found in known.items() if is_graver(reasons[key], found.reason)]
    for found in graver:
        said = {"reason": reasons[found.key], "at": now}
        if found.source != ERASED:  # an erasure stays said: no operator takes that back
            said["source"] = source
        conn.execute(update(suppression).where(suppression.c.address_key == found.key).values(said))
    return len(rows) + len(graver)


def is_graver(reason: str, known: str) -> bool:
    """Whether a reason to suppress somebody says more than the one that is known; "" is none."""
    return known in LIFTABLE and reason not in LIFTABLE


def suppress_erased(conn: Connection, key: bytes, now: datetime) -> None:
    """Suppress an erased person's address. A complaint and an operator's word weigh more, and stay the reason."""
    suppress(conn, {key: ERASED}, source="", now=now)
    row = suppression.c.address_key == key
    # Who wrote a source may have written a name into it.
    conn.execute(update(suppression).where(row).values(source=ERASED))
    weaker = suppression.c.reason.in_(("unsubscribed", "bounced"))
    conn.execute(update(suppression).where(row, weaker).values(reason=ERASED, at=now))


def unsuppress(conn: Connection, key: bytes) -> None:
    """Let an address be mailed again."""
    conn.execute(suppression.delete().where(suppression.c.address_key == key))

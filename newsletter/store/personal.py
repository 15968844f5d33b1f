"""All rows about one person: to show, move and erase them. Deciding is ``personal_data``'s.

The ledger stays whole when a person is erased: its rows know an address only as its key, and what servers said of it,
which may quote the address, is cut down to their codes.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, exists, func, insert, literal, or_, select, update

from newsletter.model import NOT_ALLOWED, DeliveryState, SubscriptionState
from newsletter.store.doubts import CLOSED, FIRST_UNKNOWN, RESENT
from newsletter.store.schema import (
    Instant,
    campaign,
    consent,
    delivery,
    letter,
    list_,
    meta,
    subscriber,
    subscription,
    suppression,
    wording,
)
from newsletter.store.subscribers import ERASED

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Select

Rows = list[dict[str, Any]]


# Finding


def owner_of(conn: Connection, key: bytes) -> int | None:
    """Who has this address now."""
    return conn.scalar(select(subscriber.c.id).where(subscriber.c.address_key == key))


def had(conn: Connection, key: bytes) -> list[int]:
    """Who has this address, and whoever was erased and once got mail there: the ledger keeps the key."""
    now = owner_of(conn, key)
    return sorted({*erased_with(conn, key), *([] if now is None else [now])})


def erased_with(conn: Connection, key: bytes) -> dict[int, datetime]:
    """Whoever got mail at this address and was erased since, and when. Asks issue by issue: that has an index."""
    issues = select(campaign.c.issue).distinct()
    theirs = (
        delivery.c.issue.in_(issues),
        delivery.c.address_key == key,
        subscriber.c.erased_at.is_not(None),
    )
    query = select(subscriber.c.id, subscriber.c.erased_at).join_from(
        delivery, subscriber, subscriber.c.id == delivery.c.subscriber_id
    )
    return {number: at for number, at in conn.execute(query.where(*theirs))}  # noqa: C416 - Row is no tuple for dict()


# Showing


def held(conn: Connection, subscriber_id: int) -> dict[str, Rows]:
    """Every row about a person, table by table, each column of it; the lists' and campaigns' names stand beside."""
    mine = select(subscription.c.id).where(subscription.c.subscriber_id == subscriber_id).scalar_subquery()
    key = select(subscriber.c.address_key).where(subscriber.c.id == subscriber_id).scalar_subquery()
    name = list_.c.name.label("list")
    said = select(consent, wording.c.text.label("wording_text"), wording.c.language.label("wording_language"))
    asked = or_(letter.c.subscription_id.in_(mine), letter.c.address_key == key)
    queries: dict[str, Select[Any]] = {
        "subscriber": select(subscriber).where(subscriber.c.id == subscriber_id),
        "subscription": select(subscription, name)
        .join(list_)
        .where(subscription.c.subscriber_id == subscriber_id),
        "consent": said.outerjoin(wording, wording.c.version == consent.c.wording).where(
            consent.c.subscription_id.in_(mine)
        ),
        "delivery": select(delivery, campaign.c.audience.label("list"))
        .join(campaign, campaign.c.id == delivery.c.campaign_id)
        .where(delivery.c.subscriber_id == subscriber_id),
        "letter": select(letter, name).join(list_).where(asked),
        "suppression": select(suppression).where(suppression.c.address_key == key),
    }
    order = {"delivery": "seq", "suppression": "at"}
    return {
        table: _rows(conn, query.order_by(query.selected_columns[order.get(table, "id")]))
        for table, query in queries.items()
    }


def held_of_nobody(conn: Connection, key: bytes) -> dict[str, Rows]:
    """What there may be of an address that no person has: a sign-up on its way, a suppression."""
    asked = select(letter, list_.c.name.label("list")).join(list_).where(letter.c.address_key == key)
    stopped = select(suppression).where(suppression.c.address_key == key)
    return {"letters": _rows(conn, asked.order_by(letter.c.id)), "never_mailed": _rows(conn, stopped)}


def _rows(conn: Connection, query: Select[Any]) -> Rows:
    return [dict(row._mapping) for row in conn.execute(query)]


# Moving


def move(conn: Connection, subscriber_id: int, address: str, key: bytes) -> None:
    """Give a person another address. Nobody else may have it (a unique key says so).

    Their copies move along, but those of issues that the new address got already: such a row keeps the old key, which
    the caller suppresses, so that nobody gets an issue twice. A sender may have read a claimed row with the old
    address: it is given back, and claimed again with the new one.
    """
    mine = delivery.c.subscriber_id == subscriber_id
    other = delivery.alias()
    there = exists().where(
        other.c.issue == delivery.c.issue,
        other.c.address_key == key,
        other.c.kind == delivery.c.kind,
        other.c.attempt == delivery.c.attempt,
    )
    conn.execute(update(delivery).where(mine, ~there).values(address_key=key))
    claimed = (mine, delivery.c.state == DeliveryState.CLAIMED)
    conn.execute(update(delivery).where(*claimed).values(state=DeliveryState.PENDING, owner=None))
    conn.execute(
        update(subscriber).where(subscriber.c.id == subscriber_id).values(address=address, address_key=key)
    )


def is_on_a_list(conn: Connection, subscriber_id: int) -> bool:
    """Active or paused on any."""
    states = (SubscriptionState.ACTIVE, SubscriptionState.PAUSED)
    here = (subscription.c.subscriber_id == subscriber_id, subscription.c.state.in_(states))
    return conn.execute(select(subscription.c.id).where(*here).limit(1)).first() is not None


# Erasing


@dataclass(frozen=True, slots=True)
class Traces:
    """What an erased person had outside the database, and what may still come back into it."""

    copies: Sequence[tuple[str, str]]  # issue, delivery id in hex
    letters: Sequence[str]  # delivery ids in hex
    on_the_way: int  # copies of which no answer has come


def erase(conn: Connection, people: Collection[int], key: bytes, now: datetime) -> Traces:
    """Take every word about these people out of the rows. The suppression is the caller's to write, before."""
    mine = select(subscription.c.id).where(subscription.c.subscriber_id.in_(people)).scalar_subquery()
    asked = or_(letter.c.subscription_id.in_(mine), letter.c.address_key == key)
    traces = _traces(conn, people, asked)
    if traces.on_the_way:
        _expect_answers(conn, people)
    conn.execute(delete(letter).where(asked))
    conn.execute(update(consent).where(consent.c.subscription_id.in_(mine)).values(source=""))
    _leave(conn, people, now)
    _blank(conn, people, now)
    _cut_reasons(conn, people)
    return traces


EXPECTED = "erased_on_the_way_"  # in `meta`, with a person's number


def _expect_answers(conn: Connection, people: Collection[int]) -> None:
    """What a server will say of a copy that is on its way may quote the address."""
    for key in (f"{EXPECTED}{number}" for number in people):
        conn.execute(delete(meta).where(meta.c.key == key))
        conn.execute(insert(meta).values(key=key, value=""))


def cut_answers(conn: Connection) -> bool:
    """Cut what servers have said since of copies that were on their way to people who were erased; False if nothing."""
    keys = list(conn.scalars(select(meta.c.key).where(meta.c.key.startswith(EXPECTED, autoescape=True))))
    waits = {int(key.removeprefix(EXPECTED)): key for key in keys}
    handed = delivery.c.state == DeliveryState.HANDED
    still = select(delivery.c.subscriber_id).where(delivery.c.subscriber_id.in_(waits), handed)
    answered = waits.keys() - set(conn.scalars(still))
    if not answered:
        return False
    _cut_reasons(conn, answered)
    conn.execute(delete(meta).where(meta.c.key.in_([waits[number] for number in answered])))
    begin_overwriting(conn)
    return True


OVERWRITING = "erased_since"  # in `meta`: free space and log may still hold somebody


def begin_overwriting(conn: Connection) -> None:
    """Note, with the erasure itself, that its traces have still to be overwritten."""
    conn.execute(delete(meta).where(meta.c.key == OVERWRITING))
    conn.execute(insert(meta).values(key=OVERWRITING, value=secrets.token_hex(8)))


def overwriting(conn: Connection) -> str | None:
    """Which erasure was the last whose traces have still to be overwritten."""
    return conn.scalar(select(meta.c.value).where(meta.c.key == OVERWRITING))


def end_overwriting(conn: Connection, begun: str) -> None:
    """It is done, unless there was another one meanwhile."""
    conn.execute(delete(meta).where(meta.c.key == OVERWRITING, meta.c.value == begun))


def _traces(conn: Connection, people: Collection[int], asked: ColumnElement[bool]) -> Traces:
    sent = select(delivery.c.issue, delivery.c.id, delivery.c.state).where(
        delivery.c.subscriber_id.in_(people)
    )
    copies = conn.execute(sent.order_by(delivery.c.seq)).all()
    letters = conn.scalars(select(letter.c.delivery).where(asked).order_by(letter.c.id))
    return Traces(
        copies=[(row.issue, bytes(row.id).hex()) for row in copies],
        letters=[bytes(number).hex() for number in letters],
        on_the_way=sum(row.state == DeliveryState.HANDED for row in copies),
    )


def _leave(conn: Connection, people: Collection[int], now: datetime) -> None:
    """Off every list: a sender in the middle of a campaign asks for nothing else."""
    theirs = subscription.c.subscriber_id.in_(people)
    on_list = (theirs, subscription.c.state != SubscriptionState.UNSUBSCRIBED)
    conn.execute(update(subscription).where(*on_list).values(state=SubscriptionState.UNSUBSCRIBED, since=now))
    conn.execute(update(subscription).where(theirs).values(source="", paused_until=None))
    fresh = select(subscription.c.id).join(subscriber, subscriber.c.id == subscription.c.subscriber_id)
    ids = conn.scalars(fresh.where(theirs, subscriber.c.erased_at.is_(None)))
    said = [{"subscription_id": number, "at": now, "act": ERASED} for number in ids]
    if said:
        conn.execute(insert(consent), said)


def _blank(conn: Connection, people: Collection[int], now: datetime) -> None:
    """Large print says something about a person too."""
    nothing: dict[str, Any] = {
        "address": None,
        "address_key": None,
        "name": "",
        "fields": {},
        "edition": "standard",
    }
    at = func.coalesce(subscriber.c.erased_at, literal(now, Instant))
    conn.execute(update(subscriber).where(subscriber.c.id.in_(people)).values(**nothing, erased_at=at))


def _cut_reasons(conn: Connection, people: Collection[int]) -> None:
    wordy = or_(delivery.c.reason != "", delivery.c.provider_id != "")
    found = select(delivery.c.seq, delivery.c.reason).where(delivery.c.subscriber_id.in_(people), wordy)
    for row in conn.execute(found).all():
        cut = {"reason": codes_only(row.reason), "provider_id": ""}
        conn.execute(update(delivery).where(delivery.c.seq == row.seq).values(cut))


OURS = frozenset({RESENT, FIRST_UNKNOWN, CLOSED, "answered late", "cancelled", NOT_ALLOWED}) | {
    state.value for state in SubscriptionState
}
# RFC 5321 and RFC 3463. Only where a reply begins: further on, three digits may be part of somebody's address.
CODES = re.compile(r"(?:SendGrid answered )?[2-5]\d\d(?:[ -][245]\.\d{1,3}\.\d{1,3})?(?![\w.])")
GAVE_UP = "gave up: "


def codes_only(reason: str) -> str:
    """A reason with our own words and the servers' codes, and nothing that a server may have quoted."""
    kept = (_kept(part) for part in reason.split("; "))
    return "; ".join(part for part in kept if part)


def _kept(part: str) -> str:
    if part in OURS or part.startswith("suppressed: "):
        return part
    gave_up = part.startswith(GAVE_UP)
    found = CODES.match(part.removeprefix(GAVE_UP))
    words = ("gave up" if gave_up else "", found[0] if found else "")
    return ": ".join(word for word in words if word)

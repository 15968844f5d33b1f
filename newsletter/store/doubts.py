"""Unknown deliveries: what is known of each, and the three ways out of the doubt. Deciding is ``resolving``'s.

::

    unknown → pending     a person says: send it once more
            → closed      a person says: let it rest
            → accepted    something proves that the provider took it

Every statement asks for ``unknown`` again, so running one twice changes nothing the second time. A person's word is
about one hand-over: a row that has been handed over again since is another doubt, and the word does not count for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import bindparam, exists, func, or_, select, update

from newsletter.model import CampaignState, DeliveryState, SubscriptionState
from newsletter.store.schema import campaign, delivery, owner, subscriber, subscription, suppression

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Update

PAGE = 500
RESENT = "resent by a person's word"
FIRST_UNKNOWN = "a first copy may have arrived"
"""What the reason of a resent row keeps saying, wherever the second copy ends."""
CLOSED = "assumed accepted by a person's word"


@dataclass(frozen=True, slots=True)
class Doubt:
    """A copy of which nobody can say whether it arrived, and what is known of it."""

    seq: int
    id: bytes
    address: str  # empty once the person was erased
    name: str
    handed_at: datetime | None
    server: str  # where it was on its way to; empty when not known
    sender: str  # the process that handed it over; empty when not known
    reason: str
    receipt: str  # what an event of the provider's says; empty when none came


class HandOver(NamedTuple):
    """One hand-over of one row: what a person's word is about."""

    seq: int
    handed_at: datetime | None


class Standing(NamedTuple):
    """Where an address stands in a campaign."""

    state: DeliveryState
    hand_over: HandOver


def page(conn: Connection, campaign_id: int, *, after: int = 0, limit: int = PAGE) -> list[Doubt]:
    """Up to ``limit`` unknown deliveries behind the key ``after``, in the order of freezing."""
    columns = (
        delivery.c.seq,
        delivery.c.id,
        func.coalesce(subscriber.c.address, "").label("address"),
        subscriber.c.name,
        delivery.c.handed_at,
        func.coalesce(owner.c.way, "").label("server"),
        func.coalesce(owner.c.name, "").label("sender"),
        delivery.c.reason,
        func.coalesce(delivery.c.receipt, "").label("receipt"),
    )
    joined = select(*columns).join(subscriber, subscriber.c.id == delivery.c.subscriber_id)
    joined = joined.outerjoin(owner, owner.c.id == delivery.c.owner)
    rows = conn.execute(joined.where(*_unknown(campaign_id, after)).order_by(delivery.c.seq).limit(limit))
    return [_doubt(row) for row in rows]


def _doubt(row: Any) -> Doubt:
    return Doubt(**{**row._mapping, "id": bytes(row.id)})


def _unknown(campaign_id: int, after: int) -> tuple[Any, ...]:
    return (
        delivery.c.campaign_id == campaign_id,
        delivery.c.state == DeliveryState.UNKNOWN,
        delivery.c.seq > after,
    )


def hand_overs(conn: Connection, campaign_id: int, *, after: int = 0, limit: int = PAGE) -> list[HandOver]:
    """As ``page``, but only what ``resend`` and ``close`` need."""
    columns = select(delivery.c.seq, delivery.c.handed_at)
    rows = conn.execute(columns.where(*_unknown(campaign_id, after)).order_by(delivery.c.seq).limit(limit))
    return [HandOver(*row) for row in rows]


def standings(conn: Connection, campaign_id: int, keys: Collection[bytes]) -> dict[bytes, Standing]:
    """Where these addresses stand in this campaign, by address key; who has no row is left out."""
    columns = select(delivery.c.address_key, delivery.c.state, delivery.c.seq, delivery.c.handed_at)
    rows = conn.execute(
        columns.where(delivery.c.campaign_id == campaign_id, delivery.c.address_key.in_(keys))
    )
    return {
        bytes(row.address_key): Standing(DeliveryState(row.state), HandOver(row.seq, row.handed_at))
        for row in rows
    }


def leavers(conn: Connection, seqs: Collection[int]) -> int:
    """How many of these rows belong to people who have left or were suppressed since: they get no further copy."""
    gone = or_(
        ~exists().where(
            subscription.c.id == delivery.c.subscription_id, subscription.c.state == SubscriptionState.ACTIVE
        ),
        exists().where(suppression.c.address_key == delivery.c.address_key),
    )
    return int(
        conn.execute(
            select(func.count()).where(delivery.c.seq.in_(seqs), gone).select_from(delivery)
        ).scalar_one()
    )


def resend(conn: Connection, campaign_id: int, chosen: Sequence[HandOver]) -> int:
    """Unknown → pending, under the same delivery id; returns how many rows changed.

    A finished campaign runs again, in the same commit: none says that it has ended while a row waits. In a cancelled
    one nothing changes, because the copy would be skipped and its doubt forgotten.
    """
    changed = _change(conn, _RESEND, chosen)
    if changed:
        again = {"state": CampaignState.RUNNING, "finished_at": None}
        finished = (campaign.c.id == campaign_id, campaign.c.state == CampaignState.FINISHED)
        conn.execute(update(campaign).where(*finished).values(again))
    return changed


def close(conn: Connection, chosen: Sequence[HandOver], now: datetime) -> int:
    """Unknown → closed: the provider did not say *accepted*, so neither does the row. Returns how many changed."""
    return _change(conn, _CLOSE.values(settled_at=now), chosen)


def _change(conn: Connection, statement: Update, chosen: Sequence[HandOver]) -> int:
    if not chosen:
        return 0
    return conn.execute(statement, [{"b_seq": row.seq, "b_at": row.handed_at} for row in chosen]).rowcount


_SAME_DOUBT = (
    delivery.c.seq == bindparam("b_seq"),
    delivery.c.state == DeliveryState.UNKNOWN,
    delivery.c.handed_at.is_not_distinct_from(bindparam("b_at", type_=delivery.c.handed_at.type)),
)
_RESEND = (
    update(delivery)
    .where(
        *_SAME_DOUBT,
        exists().where(campaign.c.id == delivery.c.campaign_id, campaign.c.state != CampaignState.CANCELLED),
    )
    .values(state=DeliveryState.PENDING, reason=RESENT, tries=0, not_before=None, settled_at=None, owner=None)
)
_CLOSE = update(delivery).where(*_SAME_DOUBT).values(state=DeliveryState.CLOSED, reason=CLOSED)


def evidence(conn: Connection, delivery_id: bytes, now: datetime, said: str) -> bool:
    """Something proves that the provider took this copy: unknown → accepted, with ``said`` as the reason.

    A signed event, a bounce, a line in our own relay's log. Nothing else ever changes: not a row in another state
    (a person who said *resend* may already have a second copy on its way), and not an id that nobody knows.
    """
    doubtful = (delivery.c.id == delivery_id, delivery.c.state == DeliveryState.UNKNOWN)
    proven = {"state": DeliveryState.ACCEPTED, "reason": said, "settled_at": now}
    return conn.execute(update(delivery).where(*doubtful).values(proven)).rowcount == 1

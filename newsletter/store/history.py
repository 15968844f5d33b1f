"""What the ledger knows of one address: for whoever asks why it got a copy, or why not."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import case, exists, func, literal, select

from newsletter.model import CampaignState, DeliveryState, SubscriptionState
from newsletter.store import campaigns, personal
from newsletter.store.schema import campaign, delivery, subscriber, subscription, suppression

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection

    from newsletter.model import Campaign
    from newsletter.store.campaigns import Target


class Row(NamedTuple):
    """A campaign's row for one address."""

    state: DeliveryState
    at: datetime | None  # of the answer, else of the hand-over
    reason: str
    receipt: str
    stopped: str  # what keeps the copy from leaving, if it has not left: suppressed, paused, unsubscribed; or empty


def row(conn: Connection, campaign_id: int, key: bytes, people: Collection[int]) -> Row | None:
    """By the address key, which outlives an erasure, or by the person, who may have had another address then."""
    columns = (
        delivery.c.state,
        func.coalesce(delivery.c.settled_at, delivery.c.handed_at),
        delivery.c.reason,
        func.coalesce(delivery.c.receipt, ""),
        _stopped(),
    )
    here = select(*columns).where(delivery.c.campaign_id == campaign_id)
    issue = select(campaign.c.issue).where(campaign.c.id == campaign_id).scalar_subquery()
    for theirs in (
        (delivery.c.issue == issue, delivery.c.address_key == key),
        (delivery.c.subscriber_id.in_(people),),
    ):
        if found := conn.execute(here.where(*theirs)).first():
            return Row(DeliveryState(found[0]), *found[1:])
    return None


def _stopped() -> ColumnElement[str]:
    """What the mark before a hand-over asks for (``marks``)."""
    theirs = subscription.c.id == delivery.c.subscription_id
    state = select(subscription.c.state).where(theirs).scalar_subquery()
    suppressed = exists().where(suppression.c.address_key == delivery.c.address_key)
    return case(
        (state != SubscriptionState.ACTIVE, state), (suppressed, literal("suppressed")), else_=literal("")
    )


def elsewhere(conn: Connection, sent: Campaign, key: bytes) -> Campaign | None:
    """Another campaign of the same issue that has a row for this address."""
    same = (
        delivery.c.issue == sent.issue,
        delivery.c.address_key == key,
        delivery.c.kind == sent.kind,
        delivery.c.attempt == sent.attempt,
        campaign.c.state != CampaignState.PREPARING,
    )
    query = select(campaign.c.id).join_from(delivery, campaign, campaign.c.id == delivery.c.campaign_id)
    number = conn.scalar(query.where(*same, campaign.c.id != sent.id))
    return None if number is None else campaigns.get(conn, number)


def left_out_because(conn: Connection, target: Target, subscriber_id: int, now: datetime) -> str:
    """What the plan would say of one person on the target's list; empty if they would get a copy."""
    why = campaigns.left_out_because(target, None, now)
    return str(
        conn.scalar(campaigns.of_list(target).add_columns(why).where(subscriber.c.id == subscriber_id))
    )


def erased_at(conn: Connection, key: bytes) -> datetime | None:
    """When whoever had this address was erased, as far as the ledger tells."""
    return max(personal.erased_with(conn, key).values(), default=None)

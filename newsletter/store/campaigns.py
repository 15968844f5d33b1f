"""Campaigns: what was frozen, for whom, and how far it is. Rows only; deciding is ``sending``'s."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, case, exists, func, literal, not_, or_, select, update

from newsletter.model import (
    NOT_ALLOWED,
    OPEN_STATES,
    Campaign,
    CampaignState,
    DeliveryState,
    Edition,
    Email,
    Kind,
    Picture,
    SubscriptionState,
)
from newsletter.store.choices import pause_is_over
from newsletter.store.doubts import FIRST_UNKNOWN, RESENT
from newsletter.store.schema import (
    campaign,
    delivery,
    email,
    list_,
    picture,
    subscriber,
    subscription,
    suppression,
)

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Row, Select

CHUNK = 500
"""Rows in one transaction: about 10 ms, so that an unsubscribing reader hardly waits."""


ALREADY = "already in a campaign of this issue"


@dataclass(frozen=True, slots=True)
class Target:
    """Which campaign is meant: the unique key that stops a second one."""

    issue: str
    period: str
    list: str
    kind: Kind
    attempt: int = 1


def _from_row(row: Row[Any]) -> Campaign:
    held = row.canary_last is not None
    return Campaign(
        id=row.id,
        issue=row.issue,
        period=row.period,
        list=row.audience,
        kind=Kind(row.kind),
        attempt=row.attempt,
        state=CampaignState(row.state),
        transport=row.transport,
        digest=row.digest,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        reason=row.reason,
        override=row.override,
        approvals=tuple(row.approvals or ()),
        canary_copies=row.canary_copies if held else None,
        canary_until=row.canary_until if held else None,
    )


def find(conn: Connection, issue: str, list_name: str, kind: Kind) -> Campaign | None:
    """The latest attempt at sending this issue to this list, if there is one."""
    same = (campaign.c.issue == issue, campaign.c.audience == list_name, campaign.c.kind == kind)
    row = conn.execute(select(campaign).where(*same).order_by(campaign.c.attempt.desc()).limit(1)).first()
    return _from_row(row) if row else None


def holder(conn: Connection, target: Target) -> Campaign | None:
    """The campaign that has taken the target's period, if any: perhaps another issue's."""
    key = (
        campaign.c.period == target.period,
        campaign.c.audience == target.list,
        campaign.c.kind == target.kind,
        campaign.c.attempt == target.attempt,
    )
    row = conn.execute(select(campaign).where(*key)).first()
    return _from_row(row) if row else None


def get(conn: Connection, campaign_id: int) -> Campaign:
    """One campaign by its id."""
    return _from_row(conn.execute(select(campaign).where(campaign.c.id == campaign_id)).one())


def of_appointment(conn: Connection, appointment: int) -> Campaign | None:
    """The one campaign that came of an appointment, if any has begun."""
    row = conn.execute(select(campaign).where(campaign.c.appointment_id == appointment)).first()
    return _from_row(row) if row else None


def every(conn: Connection, issue: str | None = None) -> list[Campaign]:
    """All campaigns, newest first."""
    query = select(campaign).order_by(campaign.c.id.desc())
    if issue is not None:
        query = query.where(campaign.c.issue == issue)
    return [_from_row(row) for row in conn.execute(query)]


def next_attempt(conn: Connection, target: Target) -> int:
    """A rehearsal's number: the first that neither its issue nor its period has used, so that none stops another.

    One that is still being prepared has used nothing: a freeze that was killed is gone on with under its number.
    """
    used = or_(campaign.c.issue == target.issue, campaign.c.period == target.period)
    same = (
        campaign.c.audience == target.list,
        campaign.c.kind == target.kind,
        campaign.c.state != CampaignState.PREPARING,
        used,
    )
    last = conn.execute(select(func.max(campaign.c.attempt)).where(*same)).scalar_one()
    return (last or 0) + 1


def next_place(conn: Connection, target: Target) -> Target:
    """The target in the first free place of its period: ``2026-12 (2)``, ``2026-12 (3)``, …

    One that is still being prepared has no place yet, as with a rehearsal's number. Two that choose the same place at
    once meet in the unique key.
    """
    same = (
        campaign.c.audience == target.list,
        campaign.c.kind == target.kind,
        campaign.c.attempt == target.attempt,
        campaign.c.state != CampaignState.PREPARING,
    )
    used = set(conn.scalars(select(campaign.c.period).where(*same)))
    places = (f"{target.period} ({number})" for number in count(2))
    return replace(target, period=next(place for place in places if place not in used))


def in_state(conn: Connection, state: CampaignState) -> list[Campaign]:
    """All campaigns in one state, oldest first."""
    rows = conn.execute(select(campaign).where(campaign.c.state == state).order_by(campaign.c.id))
    return [_from_row(row) for row in rows]


EMAIL_FIELDS = ("edition", "title", "subject", "preheader", "html", "text", "language", "view_path", "digest")


def load_editions(conn: Connection, campaign_id: int) -> tuple[list[Email], dict[str, Any]]:
    """The frozen editions and the frozen message settings: what every copy is made of, today and after a restart.

    The first edition is for everybody who has chosen none of the others.
    """
    first = case((email.c.edition == Edition.STANDARD, 0), else_=1)
    rows = conn.execute(
        select(email).where(email.c.campaign_id == campaign_id).order_by(first, email.c.edition)
    )
    message = conn.execute(select(campaign.c.message).where(campaign.c.id == campaign_id)).scalar_one()
    return [_edition(conn, row) for row in rows.all()], dict(message)


def _edition(conn: Connection, row: Row[Any]) -> Email:
    mine = and_(picture.c.campaign_id == row.campaign_id, picture.c.edition == row.edition)
    pictures = tuple(
        Picture(
            name=p.name,
            media_type=p.media_type,
            data=bytes(p.data),
            width=p.width,
            height=p.height,
            alt=p.alt,
        )
        for p in conn.execute(select(picture).where(mine).order_by(picture.c.position))
    )
    fields = {name: getattr(row, name) for name in EMAIL_FIELDS if name != "digest"}
    return Email(pictures=pictures, **fields)


def _transition(
    conn: Connection, campaign_id: int, origins: Collection[CampaignState], **values: Any
) -> bool:
    where = (campaign.c.id == campaign_id, campaign.c.state.in_([state.value for state in origins]))
    return conn.execute(update(campaign).where(*where).values(**values)).rowcount == 1


def pause(conn: Connection, campaign_id: int, reason: str) -> bool:
    """``running`` → ``paused``: every later hand-over fails its condition."""
    return _transition(conn, campaign_id, {CampaignState.RUNNING}, state=CampaignState.PAUSED, reason=reason)


def resume(conn: Connection, campaign_id: int) -> bool:
    """``paused`` → ``running``."""
    return _transition(conn, campaign_id, {CampaignState.PAUSED}, state=CampaignState.RUNNING, reason="")


def hurry(conn: Connection, campaign_id: int, limit: int = CHUNK) -> bool:
    """Makes up to ``limit`` rows that wait for a later try due now; False when none is left. Their tries count on."""
    waiting = (delivery.c.campaign_id == campaign_id, delivery.c.state == DeliveryState.PENDING)
    some = select(delivery.c.seq).where(*waiting, delivery.c.not_before.is_not(None)).limit(limit)
    return conn.execute(update(delivery).where(delivery.c.seq.in_(some)).values(not_before=None)).rowcount > 0


def cancel(conn: Connection, campaign_id: int, now: datetime) -> bool:
    """``running`` or ``paused`` → ``cancelled``: that alone stops every hand-over; ``sweep`` then skips the rows."""
    ended = {"state": CampaignState.CANCELLED, "finished_at": now, "reason": ""}
    return _transition(conn, campaign_id, {CampaignState.RUNNING, CampaignState.PAUSED}, **ended)


def sweep(conn: Connection, now: datetime, limit: int = CHUNK) -> bool:
    """Skips up to ``limit`` rows that wait in cancelled campaigns; False when none is left.

    Rows come back to ``pending`` after a cancel too: claimed by a process that has died, or answered "later".
    """
    cancelled = select(campaign.c.id).where(campaign.c.state == CampaignState.CANCELLED)
    waiting = (delivery.c.campaign_id.in_(cancelled), delivery.c.state == DeliveryState.PENDING)
    some = select(delivery.c.seq).where(*waiting).limit(limit)
    resent = delivery.c.reason.startswith(RESENT)
    reason = case((resent, f"cancelled; {FIRST_UNKNOWN}"), else_="cancelled")
    skipped = {"state": DeliveryState.SKIPPED, "reason": reason, "settled_at": now, "not_before": None}
    return conn.execute(update(delivery).where(delivery.c.seq.in_(some)).values(**skipped)).rowcount > 0


def finish(conn: Connection, campaign_id: int, now: datetime) -> bool:
    """``running`` → ``finished``, only when no row is open: a campaign never claims an end that it has not reached."""
    still_open = exists().where(
        delivery.c.campaign_id == campaign_id, delivery.c.state.in_([state.value for state in OPEN_STATES])
    )
    done = {"state": CampaignState.FINISHED, "finished_at": now}
    where = (campaign.c.id == campaign_id, campaign.c.state == CampaignState.RUNNING, ~still_open)
    return conn.execute(update(campaign).where(*where).values(**done)).rowcount == 1


def counts(conn: Connection, campaign_id: int) -> dict[DeliveryState, int]:
    """How many deliveries are in each state; states without any are left out."""
    query = select(delivery.c.state, func.count()).where(delivery.c.campaign_id == campaign_id)
    return {DeliveryState(state): n for state, n in conn.execute(query.group_by(delivery.c.state))}


def of_list(target: Target) -> Select[Any]:
    """Everybody's subscription of the target's list, with the subscriber; columns are the caller's."""
    return (
        select()
        .select_from(subscription)
        .join(list_, list_.c.id == subscription.c.list_id)
        .join(subscriber, subscriber.c.id == subscription.c.subscriber_id)
        .where(list_.c.name == target.list)
    )


def _has_it(target: Target) -> ColumnElement[bool]:
    """Whether another campaign of the issue has taken the person. What a killed freeze left counts for nothing.

    The first half is asked once and not for each person: mostly there is no other campaign, and a million are spared a
    look into an index in random order.
    """
    row, other = delivery.alias(), campaign.alias()  # whoever asks may have joined these tables
    begun = (
        other.c.issue == target.issue,
        other.c.kind == target.kind,
        other.c.attempt == target.attempt,
        other.c.state != CampaignState.PREPARING,
    )
    theirs = (
        row.c.issue == target.issue,
        row.c.address_key == subscriber.c.address_key,
        row.c.kind == target.kind,
        row.c.attempt == target.attempt,
        row.c.campaign_id == other.c.id,
    )
    return and_(exists().where(*begun), exists().where(*theirs, *begun))


def left_out_because(
    target: Target, only: frozenset[bytes] | None, now: datetime | None = None
) -> ColumnElement[str]:
    """Why a person gets no copy; empty for those who do. One expression, so that plan and freeze can't differ.

    Whose pause is over ``now`` counts as active: ``choosing.wake`` makes it so before the freeze.
    """
    suppressed = exists().where(suppression.c.address_key == subscriber.c.address_key)
    has_it = _has_it(target)
    away = subscription.c.state != SubscriptionState.ACTIVE
    if now is not None:
        away = and_(away, not_(pause_is_over(now)))
    reasons = [
        (subscriber.c.address_key.is_(None), literal("erased")),
        (away, subscription.c.state),
        (suppressed, literal("suppressed")),
        (has_it, literal(ALREADY)),
    ]
    if only is not None:
        reasons.append((subscriber.c.address_key.not_in(only), literal(NOT_ALLOWED)))
    return case(*reasons, else_=literal(""))


def audience(
    conn: Connection, target: Target, only: frozenset[bytes] | None, now: datetime | None = None
) -> dict[str, int]:
    """How many people of the list would get a copy (key ``""``), and how many not, by reason."""
    return _by_reason(conn, of_list(target), left_out_because(target, only, now))


def audience_by_domain(
    conn: Connection,
    target: Target,
    only: frozenset[bytes] | None,
    domains: Collection[str],
    now: datetime | None = None,
) -> dict[str, int]:
    """How many people who would get a copy have an address at each of these domains. Looks at everybody once."""
    if not domains:
        return {}
    at = {f"@{domain}": domain for domain in domains}
    address = subscriber.c.address
    domain = case(
        *((address.endswith(end, autoescape=True), literal(name)) for end, name in at.items()), else_=None
    )
    theirs = of_list(target).where(left_out_because(target, only, now) == "")
    return {name: number for name, number in _by_reason(conn, theirs, domain).items() if name is not None}


def left_out(conn: Connection, sent: Campaign) -> dict[str, int]:
    """How many people of the list have no row in a campaign, by how they stand today."""
    target = Target(sent.issue, sent.period, sent.list, sent.kind, sent.attempt)
    row = exists().where(delivery.c.campaign_id == sent.id, delivery.c.subscriber_id == subscriber.c.id)
    return _by_reason(conn, of_list(target).where(~row), left_out_because(target, None))


def _by_reason(conn: Connection, people: Select[Any], reason: ColumnElement[str]) -> dict[str, int]:
    why = reason.label("why")
    rows = conn.execute(people.add_columns(why, func.count()).group_by(why))
    return {reason: n for reason, n in rows}  # noqa: C416 - Row is no tuple for dict()

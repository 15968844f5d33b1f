"""Campaigns: what was frozen, for whom, and how far it is. Rows only; deciding is ``sending``'s."""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, case, delete, exists, func, insert, literal, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from newsletter.model import (
    OPEN_STATES,
    Campaign,
    CampaignState,
    Delivery,
    DeliveryState,
    Email,
    Kind,
    Picture,
    SubscriptionState,
)
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
    from collections.abc import Collection, Iterator, Mapping
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Row, Select

CHUNK = 500
"""Rows in one transaction while freezing: about 10 ms, so that an unsubscribing reader hardly waits."""


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


def every(conn: Connection, issue: str | None = None) -> list[Campaign]:
    """All campaigns, newest first."""
    query = select(campaign).order_by(campaign.c.id.desc())
    if issue is not None:
        query = query.where(campaign.c.issue == issue)
    return [_from_row(row) for row in conn.execute(query)]


def next_attempt(conn: Connection, target: Target) -> int:
    """A rehearsal's number: the first that neither its issue nor its period has used, so that none stops another."""
    used = or_(campaign.c.issue == target.issue, campaign.c.period == target.period)
    same = (campaign.c.audience == target.list, campaign.c.kind == target.kind, used)
    last = conn.execute(select(func.max(campaign.c.attempt)).where(*same)).scalar_one()
    return (last or 0) + 1


def in_state(conn: Connection, state: CampaignState) -> list[Campaign]:
    """All campaigns in one state, oldest first."""
    rows = conn.execute(select(campaign).where(campaign.c.state == state).order_by(campaign.c.id))
    return [_from_row(row) for row in rows]


def create(
    conn: Connection,
    target: Target,
    compiled: Email,
    message: Mapping[str, Any],
    *,
    transport: str,
    now: datetime,
) -> int:
    """A campaign in ``preparing`` with its compiled bytes; the unique key refuses a second one."""
    list_id = conn.execute(select(list_.c.id).where(list_.c.name == target.list)).scalar_one()
    values = {
        "issue": target.issue,
        "period": target.period,
        "list_id": list_id,
        "audience": target.list,
        "kind": target.kind,
        "attempt": target.attempt,
        "state": CampaignState.PREPARING,
        "transport": transport,
        "digest": compiled.digest,
        "message": dict(message),
        "created_at": now,
    }
    campaign_id = int(conn.execute(insert(campaign).values(values).returning(campaign.c.id)).scalar_one())
    _store_email(conn, campaign_id, compiled)
    return campaign_id


EMAIL_FIELDS = ("edition", "title", "subject", "preheader", "html", "text", "language", "view_path", "digest")


def _store_email(conn: Connection, campaign_id: int, compiled: Email) -> None:
    row = {name: getattr(compiled, name) for name in EMAIL_FIELDS}
    conn.execute(insert(email).values(campaign_id=campaign_id, **row))
    for position, item in enumerate(compiled.pictures):
        key = {"campaign_id": campaign_id, "edition": compiled.edition, "position": position}
        conn.execute(insert(picture).values(**key, **asdict(item)))


def load_email(conn: Connection, campaign_id: int, edition: str = "standard") -> tuple[Email, dict[str, Any]]:
    """The frozen email and the frozen message settings: what every copy is made of, today and after a restart."""
    key = and_(email.c.campaign_id == campaign_id, email.c.edition == edition)
    row = conn.execute(select(email).where(key)).one()
    shown = select(picture).where(picture.c.campaign_id == campaign_id, picture.c.edition == edition)
    pictures = tuple(
        Picture(
            name=p.name,
            media_type=p.media_type,
            data=bytes(p.data),
            width=p.width,
            height=p.height,
            alt=p.alt,
        )
        for p in conn.execute(shown.order_by(picture.c.position))
    )
    fields = {name: getattr(row, name) for name in EMAIL_FIELDS if name != "digest"}
    message = conn.execute(select(campaign.c.message).where(campaign.c.id == campaign_id)).scalar_one()
    return Email(pictures=pictures, **fields), dict(message)


def _transition(
    conn: Connection, campaign_id: int, origins: Collection[CampaignState], **values: Any
) -> bool:
    where = (campaign.c.id == campaign_id, campaign.c.state.in_([state.value for state in origins]))
    return conn.execute(update(campaign).where(*where).values(**values)).rowcount == 1


def start(conn: Connection, campaign_id: int, now: datetime, *, at_most: int) -> bool:
    """``preparing`` → ``running``: the last commit of a freeze. False if more rows came in than a person confirmed."""
    if sum(counts(conn, campaign_id).values()) > at_most:
        return False
    running = {"state": CampaignState.RUNNING, "started_at": now}
    return _transition(conn, campaign_id, {CampaignState.PREPARING}, **running)


def pause(conn: Connection, campaign_id: int, reason: str) -> bool:
    """``running`` → ``paused``: every later hand-over fails its condition."""
    return _transition(conn, campaign_id, {CampaignState.RUNNING}, state=CampaignState.PAUSED, reason=reason)


def resume(conn: Connection, campaign_id: int) -> bool:
    """``paused`` → ``running``."""
    return _transition(conn, campaign_id, {CampaignState.PAUSED}, state=CampaignState.RUNNING, reason="")


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
    skipped = {"state": DeliveryState.SKIPPED, "reason": "cancelled", "settled_at": now, "not_before": None}
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


def _of_list(target: Target) -> Select[Any]:
    return (
        select()
        .select_from(subscription)
        .join(list_, list_.c.id == subscription.c.list_id)
        .join(subscriber, subscriber.c.id == subscription.c.subscriber_id)
        .where(list_.c.name == target.list)
    )


def _left_out_because(target: Target, only: frozenset[bytes] | None) -> ColumnElement[str]:
    """Why a person gets no copy; empty for those who do. One expression, so that plan and freeze can't differ."""
    suppressed = exists().where(suppression.c.address_key == subscriber.c.address_key)
    has_it = exists().where(
        delivery.c.issue == target.issue,
        delivery.c.address_key == subscriber.c.address_key,
        delivery.c.kind == target.kind,
        delivery.c.attempt == target.attempt,
        campaign.c.id == delivery.c.campaign_id,
        campaign.c.state != CampaignState.PREPARING,  # what a killed freeze left counts for nothing
    )
    reasons = [
        (subscriber.c.address_key.is_(None), literal("erased")),
        (subscription.c.state != SubscriptionState.ACTIVE, subscription.c.state),
        (suppressed, literal("suppressed")),
        (has_it, literal(ALREADY)),
    ]
    if only is not None:
        reasons.append((subscriber.c.address_key.not_in(only), literal("not on the allowlist")))
    return case(*reasons, else_=literal(""))


def audience(conn: Connection, target: Target, only: frozenset[bytes] | None) -> dict[str, int]:
    """How many people of the list would get a copy (key ``""``), and how many not, by reason."""
    return _by_reason(conn, _of_list(target), _left_out_because(target, only))


def left_out(conn: Connection, sent: Campaign) -> dict[str, int]:
    """How many people of the list have no row in a campaign, by how they stand today."""
    target = Target(sent.issue, sent.period, sent.list, sent.kind, sent.attempt)
    row = exists().where(delivery.c.campaign_id == sent.id, delivery.c.subscriber_id == subscriber.c.id)
    return _by_reason(conn, _of_list(target).where(~row), _left_out_because(target, None))


def _by_reason(conn: Connection, people: Select[Any], reason: ColumnElement[str]) -> dict[str, int]:
    why = reason.label("why")
    rows = conn.execute(people.add_columns(why, func.count()).group_by(why))
    return {reason: n for reason, n in rows}  # noqa: C416 - Row is no tuple for dict()


def add_recipients(
    conn: Connection,
    campaign_id: int,
    target: Target,
    only: frozenset[bytes] | None,
    *,
    after: int,
    limit: int = CHUNK,
) -> int | None:
    """Delivery rows for the next ``limit`` subscriptions behind ``after``; the last one's id, None at the end.

    ``ON CONFLICT DO NOTHING`` on (issue, address, kind, attempt): a person on two lists, or one whom another
    process has just added, gets the issue once.
    """
    why = _left_out_because(target, only).label("why")
    columns = (subscription.c.id, subscription.c.subscriber_id, subscriber.c.address_key, why)
    page = _of_list(target).add_columns(*columns).where(subscription.c.id > after)
    rows = conn.execute(page.order_by(subscription.c.id).limit(limit)).all()
    new = [_delivery_row(campaign_id, target, row) for row in rows if row.why == ""]
    if new:
        dialect = postgresql if conn.dialect.name == "postgresql" else sqlite
        conn.execute(dialect.insert(delivery).on_conflict_do_nothing(), new)
    return rows[-1].id if rows else None


def _delivery_row(campaign_id: int, target: Target, row: Row[Any]) -> dict[str, Any]:
    return {
        "id": secrets.token_bytes(16),
        "campaign_id": campaign_id,
        "issue": target.issue,
        "kind": target.kind,
        "attempt": target.attempt,
        "subscriber_id": row.subscriber_id,
        "subscription_id": row.id,
        "address_key": row.address_key,
        "edition": "standard",
        "state": DeliveryState.PENDING,
    }


def remove_rows(conn: Connection, campaign_id: int, limit: int = CHUNK) -> bool:
    """Takes away up to ``limit`` rows of a campaign that never ran; False when none is left."""
    some = select(delivery.c.seq).where(delivery.c.campaign_id == campaign_id).limit(limit)
    return conn.execute(delete(delivery).where(delivery.c.seq.in_(some))).rowcount > 0


def remove(conn: Connection, campaign_id: int) -> None:
    """Takes away a campaign that never ran and has no rows left."""
    for table in (picture, email):
        conn.execute(delete(table).where(table.c.campaign_id == campaign_id))
    conn.execute(
        delete(campaign).where(campaign.c.id == campaign_id, campaign.c.state == CampaignState.PREPARING)
    )


def deliveries(conn: Connection, campaign_id: int, state: DeliveryState | None = None) -> Iterator[Delivery]:
    """Every delivery of a campaign in the order of freezing, streamed by keyset pages."""
    columns = (delivery, func.coalesce(subscriber.c.address, "").label("address"), subscriber.c.name)
    query = select(*columns).join(subscriber, subscriber.c.id == delivery.c.subscriber_id)
    query = query.where(delivery.c.campaign_id == campaign_id).order_by(delivery.c.seq).limit(CHUNK)
    if state is not None:
        query = query.where(delivery.c.state == state)
    last = 0
    while rows := conn.execute(query.where(delivery.c.seq > last)).all():
        yield from (_delivery(row) for row in rows)
        last = rows[-1].seq


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        id=bytes(row.id),
        address=row.address,
        name=row.name,
        state=DeliveryState(row.state),
        tries=row.tries,
        not_before=row.not_before,
        handed_at=row.handed_at,
        settled_at=row.settled_at,
        reason=row.reason,
        provider_id=row.provider_id,
    )

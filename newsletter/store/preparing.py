"""A campaign while it is frozen: made or adopted, filled, started or removed. Rows only; ``freezing`` decides.

Only the process that stands in ``campaign.owner`` changes it, and only while nobody has taken that process for dead.
Every statement asks for that again in its own transaction, as the ledger's do.
"""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, delete, exists, func, insert, or_, select, update

from newsletter.model import Campaign, CampaignState, DeliveryState, Email, digest
from newsletter.store import campaigns
from newsletter.store.campaigns import Target
from newsletter.store.schema import campaign, delivery, email, list_, owner, picture, subscriber, subscription

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection


NO_CANARY: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Content:
    """What every copy of a campaign is made of, and how it is to leave."""

    editions: Sequence[Email]  # the first is for everybody who has chosen none of the others
    message: Mapping[str, Any]
    transport: str
    appointment: int | None = None  # of which the campaign comes
    override: str = ""  # why its period has a second one


@dataclass(frozen=True, slots=True)
class Found:
    """A campaign that is being prepared, or was when its process died."""

    campaign: Campaign
    living: bool  # its process is at work

    @property
    def target(self) -> Target:
        """What it was to send."""
        one = self.campaign
        return Target(one.issue, one.period, one.list, one.kind, one.attempt)


@dataclass(frozen=True, slots=True)
class Change:
    """A person whose row is missing, or stands there though they are not to get a copy."""

    subscription_id: int  # keyset order
    subscriber_id: int
    address_key: bytes | None
    surplus: int | None  # the row's seq, if it is to go
    edition: str


def in_the_way(conn: Connection, target: Target) -> list[Found]:
    """Every campaign in ``preparing`` whose unique keys the target needs: of the campaign or of its deliveries."""
    same = or_(
        campaign.c.issue == target.issue,
        and_(campaign.c.period == target.period, campaign.c.audience == target.list),
    )
    where = (campaign.c.kind == target.kind, campaign.c.attempt == target.attempt, same, _PREPARING)
    ids = conn.execute(select(campaign.c.id, _OWNER_LIVES.label("living")).where(*where)).all()
    return [Found(campaigns.get(conn, row.id), bool(row.living)) for row in ids]


_PREPARING = campaign.c.state == CampaignState.PREPARING
_OWNER_LIVES = exists().where(owner.c.id == campaign.c.owner, owner.c.ended_at.is_(None))


def _mine(campaign_id: int, mine: str) -> ColumnElement[bool]:
    taken_for_dead = exists().where(owner.c.id == mine, owner.c.ended_at.is_not(None))
    return and_(campaign.c.id == campaign_id, _PREPARING, campaign.c.owner == mine, ~taken_for_dead)


def create(conn: Connection, target: Target, content: Content, *, mine: str, now: datetime) -> int:
    """A new campaign in ``preparing``. The unique key refuses a second one of the period with an ``IntegrityError``."""
    list_id = conn.execute(select(list_.c.id).where(list_.c.name == target.list)).scalar_one()
    key = {
        "issue": target.issue,
        "period": target.period,
        "list_id": list_id,
        "audience": target.list,
        "kind": target.kind,
        "attempt": target.attempt,
        "state": CampaignState.PREPARING,
    }
    made = insert(campaign).values(key | _described(content, mine, now)).returning(campaign.c.id)
    campaign_id = int(conn.execute(made).scalar_one())
    _store_editions(conn, campaign_id, content.editions)
    return campaign_id


def adopt(conn: Connection, campaign_id: int, content: Content, *, mine: str, now: datetime) -> None:
    """Takes over what a dead process began; its email and its message count for nothing, its rows may be right."""
    for table in (picture, email):
        conn.execute(delete(table).where(table.c.campaign_id == campaign_id))
    conn.execute(update(campaign).where(campaign.c.id == campaign_id).values(_described(content, mine, now)))
    _store_editions(conn, campaign_id, content.editions)


def _described(content: Content, mine: str, now: datetime) -> dict[str, Any]:
    return {
        "transport": content.transport,
        "override": content.override,
        "digest": digest(content.editions),
        "message": dict(content.message),
        "created_at": now,
        "owner": mine,
        "appointment_id": content.appointment,
    }


def _store_editions(conn: Connection, campaign_id: int, editions: Sequence[Email]) -> None:
    for compiled in editions:
        _store_email(conn, campaign_id, compiled)


def _store_email(conn: Connection, campaign_id: int, compiled: Email) -> None:
    row = {name: getattr(compiled, name) for name in campaigns.EMAIL_FIELDS}
    conn.execute(insert(email).values(campaign_id=campaign_id, **row))
    for position, item in enumerate(compiled.pictures):
        key = {"campaign_id": campaign_id, "edition": compiled.edition, "position": position}
        conn.execute(insert(picture).values(**key, **asdict(item)))


def changes(
    conn: Connection,
    campaign_id: int,
    target: Target,
    only: frozenset[bytes] | None,
    *,
    after: int,
    limit: int,
) -> list[Change]:
    """The next ``limit`` people behind the subscription ``after`` whose row is missing or surplus.

    Of an adopted campaign this passes over the rows that are right without writing: two seconds for a million.
    """
    row = and_(
        delivery.c.campaign_id == campaign_id, delivery.c.subscriber_id == subscription.c.subscriber_id
    )
    wanted = campaigns.left_out_because(target, only) == ""
    query = (
        campaigns.of_list(target)
        .outerjoin(delivery, row)
        .add_columns(
            subscription.c.id,
            subscription.c.subscriber_id,
            subscriber.c.address_key,
            delivery.c.seq,
            subscriber.c.edition,
        )
        .where(subscription.c.id > after, wanted != delivery.c.seq.is_not(None))
    )
    rows = conn.execute(query.order_by(subscription.c.id).limit(limit))
    return [Change(*row) for row in rows]


def apply(conn: Connection, campaign_id: int, target: Target, wanted: Sequence[Change], *, mine: str) -> bool:
    """Adds and removes these people's rows; False, and nothing done, when the campaign is not this process's any more.

    They were chosen before this transaction, to keep it short. Who leaves in between is skipped at their turn, like
    everybody who leaves after the freeze. ``ON CONFLICT DO NOTHING`` on (issue, address, kind, attempt): whom another
    list's campaign has just taken gets the issue once.
    """
    if conn.execute(select(campaign.c.id).where(_mine(campaign_id, mine))).first() is None:
        return False
    surplus = [change.surplus for change in wanted if change.surplus is not None]
    if surplus:
        conn.execute(delete(delivery).where(delivery.c.seq.in_(surplus)))
    key = (campaign_id, target.issue, target.kind.value, target.attempt)
    new = [
        (
            secrets.token_bytes(16),
            *key,
            change.subscriber_id,
            change.subscription_id,
            change.address_key,
            PENDING,
            change.edition,
        )
        for change in wanted
        if change.surplus is None
    ]
    if new:
        conn.exec_driver_sql(_ADD if conn.dialect.paramstyle == "qmark" else _ADD.replace("?", "%s"), new)
    return True


PENDING = DeliveryState.PENDING.value
# SQL text, because it runs a million times under the write lock: through Core it costs twice as much. The ids are made
# here: one source of randomness for both databases (0.5 µs).
_ADD = (
    "INSERT INTO delivery (id, campaign_id, issue, kind, attempt, subscriber_id, subscription_id, address_key,"
    " state, edition, tries, reason, provider_id)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, '', '')"
    " ON CONFLICT DO NOTHING"
)


def size(conn: Connection, campaign_id: int) -> int:
    """How many rows are in."""
    return int(
        conn.execute(
            select(func.count()).select_from(delivery).where(delivery.c.campaign_id == campaign_id)
        ).scalar_one()
    )


def start(
    conn: Connection,
    campaign_id: int,
    *,
    mine: str,
    now: datetime,
    canary: Mapping[str, Any] = NO_CANARY,
    approvals: Sequence[str] = (),
) -> bool:
    """``preparing`` → ``running``: the last commit of a freeze. False when it is not this process's any more.

    ``canary`` is what ``canaries.chosen`` says: from the first moment on, the rest is held back.
    """
    running = {
        "state": CampaignState.RUNNING,
        "started_at": now,
        "owner": None,
        "approvals": list(approvals),
        **canary,
    }
    return conn.execute(update(campaign).where(_mine(campaign_id, mine)).values(running)).rowcount == 1


def leave(conn: Connection, campaign_id: int, *, mine: str) -> None:
    """Lets go of it, for whoever freezes the same next."""
    conn.execute(update(campaign).where(_mine(campaign_id, mine)).values(owner=None))


def remove_rows(conn: Connection, campaign_id: int, *, limit: int) -> bool:
    """Takes away up to ``limit`` rows of a campaign that nobody prepares; False when there is none to take."""
    dead = exists().where(campaign.c.id == campaign_id, _PREPARING, ~_OWNER_LIVES)
    some = select(delivery.c.seq).where(delivery.c.campaign_id == campaign_id, dead).limit(limit)
    return conn.execute(delete(delivery).where(delivery.c.seq.in_(some))).rowcount > 0


def remove(conn: Connection, campaign_id: int) -> bool:
    """Takes away a campaign that nobody prepares and that has no rows left; False when it is not so any more."""
    dead = (campaign.c.id == campaign_id, _PREPARING, ~_OWNER_LIVES)
    rows = exists().where(delivery.c.campaign_id == campaign_id)
    if conn.execute(select(campaign.c.id).where(*dead, ~rows)).first() is None:
        return False
    for table in (picture, email):
        conn.execute(delete(table).where(table.c.campaign_id == campaign_id))
    conn.execute(delete(campaign).where(campaign.c.id == campaign_id))
    return True

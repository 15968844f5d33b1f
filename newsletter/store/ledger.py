"""The ledger: who has claimed, handed and settled which delivery. Every statement is conditional.

``handed`` is committed before a copy may leave, by one update that checks everything again; a row that it did not
change does not leave. That one statement serves pausing, cancelling, unsubscribing in the middle of a send, and
processes that were thought dead.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, exists, func, select, update

from newsletter import limits
from newsletter.errors import DatabaseError
from newsletter.model import (
    Accepted,
    CampaignState,
    DeliveryState,
    NotTaken,
    Refused,
    SubscriptionState,
    Unknown,
)
from newsletter.store.doubts import RESENT
from newsletter.store.engine import BREATH_SECONDS, many_senders, write
from newsletter.store.schema import (
    EPOCH,
    Instant,
    campaign,
    delivery,
    owner,
    subscriber,
    subscription,
    suppression,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Engine

    from newsletter.model import Outcome

FIRST_UNKNOWN = "a first copy may have arrived"
LOOK = 50
"""Rows that one commit looks at, if many may not leave: the lock is held no longer than 20 ms."""
CLAIM = 500
"""Rows claimed at once: the claim costs one short transaction, and a dead owner's claims cost nothing."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A row that this process may hand over, with what the copy is made of."""

    seq: int
    id: bytes
    address: str
    name: str
    fields: Mapping[str, str]
    subscription_id: int
    edition: str
    tries: int
    resent: bool  # by a person's word, after a first copy that is unknown


class Ledger:
    """One process's view of one campaign. Used by one thread only: ``sending``'s desk."""

    def __init__(
        self,
        engine: Engine,
        campaign_id: int,
        owner: str,
        *,
        retry: Sequence[timedelta],
        only: frozenset[bytes] | None = None,
    ) -> None:
        self._engine = engine
        self._campaign = campaign_id
        self._owner = owner
        self._retry = retry
        self._only = only
        self._claimed: deque[Claimed] = deque()
        self._handed: dict[bytes, Claimed] = {}
        self._noted: datetime | None = None
        self._shared = many_senders(engine)
        self._most = 1  # copies that all lanes together have wanted at once

    def step(self, settled: Sequence[Outcome], want: int, now: datetime) -> list[Claimed]:
        """Stores what was settled and marks up to ``want`` copies handed, in one commit.

        What is returned may leave; fewer than ``want`` (or none) means that nothing else may, now. If it raises,
        nothing of it is remembered here either: the same outcomes may be offered again.
        """
        handed, more = self._write(settled, want, now)
        while more and len(handed) < want:  # many of them have gone: the next ones, in a commit of their own
            time.sleep(BREATH_SECONDS)
            try:
                further, more = self._write((), want - len(handed), now)
            except DatabaseError:
                if handed:  # they may leave; the next step meets the error again
                    break
                raise
            handed += further
        return handed

    def _write(self, settled: Sequence[Outcome], want: int, now: datetime) -> tuple[list[Claimed], bool]:
        """One commit: what leaves, and whether it only looked at some of those who may."""
        ahead = deque(self._claimed)

        def work(conn: Connection) -> tuple[list[Claimed], bool]:
            self._settle(conn, settled, now)
            return self._hand(conn, ahead, want, now)

        handed, more = write(self._engine, work, shared=True)
        self._claimed = ahead
        for outcome in settled:
            self._handed.pop(outcome.delivery, None)
        self._handed |= {row.id: row for row in handed}
        return handed, more

    def _hand(
        self, conn: Connection, ahead: deque[Claimed], want: int, now: datetime
    ) -> tuple[list[Claimed], bool]:
        handed: list[Claimed] = []
        looked = 0
        self._most = max(self._most, want)
        while len(handed) < want and self._may_work(conn) and (ahead or self._claim(conn, ahead, now)):
            if looked >= max(LOOK, want):
                return handed, True
            window = [ahead.popleft() for _ in range(min(want - len(handed), len(ahead)))]
            looked += len(window)
            handed += self._mark_handed(conn, window, now)
        return handed, False

    def _claim(self, conn: Connection, ahead: deque[Claimed], now: datetime) -> bool:
        due = delivery.c.not_before.is_(None) | (delivery.c.not_before <= now)
        mine = (delivery.c.campaign_id == self._campaign, delivery.c.state == DeliveryState.PENDING)
        size = min(CLAIM, 10 * self._most) if self._shared else CLAIM  # the others want work too
        page = select(delivery.c.seq).where(*mine, due).order_by(delivery.c.seq).limit(size)
        taken = (
            update(delivery)
            .where(delivery.c.seq.in_(page.with_for_update(skip_locked=True)), mine[1])
            .values(state=DeliveryState.CLAIMED, owner=self._owner)
            .returning(delivery.c.seq)
        )
        seqs = list(conn.execute(taken).scalars())
        ahead.extend(_load(conn, seqs))
        return bool(seqs)

    def _may_work(self, conn: Connection) -> bool:
        return bool(conn.scalar(select(and_(*self._at_work()))))

    def _at_work(self) -> list[ColumnElement[bool]]:
        """The campaign runs, and nobody has taken this process for dead."""
        return [
            exists().where(campaign.c.id == self._campaign, campaign.c.state == CampaignState.RUNNING),
            exists().where(owner.c.id == self._owner, owner.c.ended_at.is_(None)),
        ]

    def _mark_handed(self, conn: Connection, window: list[Claimed], now: datetime) -> list[Claimed]:
        marked = (
            update(delivery)
            .where(delivery.c.seq.in_([row.seq for row in window]), *self._may_leave())
            .values(state=DeliveryState.HANDED, handed_at=now)
            .returning(delivery.c.seq)
        )
        leaving = set(conn.execute(marked).scalars())
        self._skip(conn, [row.seq for row in window if row.seq not in leaving], now)
        return [row for row in window if row.seq in leaving]

    def _may_leave(self) -> list[ColumnElement[bool]]:
        """Still mine, campaign still running, person neither gone nor suppressed since the claim."""
        conditions = [
            delivery.c.state == DeliveryState.CLAIMED,
            delivery.c.owner == self._owner,
            *self._at_work(),
            exists().where(
                subscription.c.id == delivery.c.subscription_id,
                subscription.c.state == SubscriptionState.ACTIVE,
            ),
            ~exists().where(suppression.c.address_key == delivery.c.address_key),
        ]
        if self._only is not None:
            conditions.append(delivery.c.address_key.in_(self._only))
        return conditions

    def _skip(self, conn: Connection, seqs: list[int], now: datetime) -> None:
        """Rows that may not leave though the campaign runs: their people have gone since the freeze."""
        for seq in seqs:
            reason = self._why_not(conn, seq)
            skipped = {"state": DeliveryState.SKIPPED, "reason": reason, "settled_at": now, "owner": None}
            mine = (
                delivery.c.seq == seq,
                delivery.c.state == DeliveryState.CLAIMED,
                delivery.c.owner == self._owner,
            )
            conn.execute(update(delivery).where(*mine).values(**skipped))

    def _why_not(self, conn: Connection, seq: int) -> str:
        row = conn.execute(
            select(subscription.c.state, suppression.c.reason, delivery.c.reason.label("before"))
            .select_from(delivery)
            .join(subscription, subscription.c.id == delivery.c.subscription_id)
            .outerjoin(suppression, suppression.c.address_key == delivery.c.address_key)
            .where(delivery.c.seq == seq)
        ).one()
        before = f"; {FIRST_UNKNOWN}" if row.before.startswith(RESENT) else ""
        if row.state != SubscriptionState.ACTIVE:
            return f"{row.state}{before}"
        return (f"suppressed: {row.reason}" if row.reason is not None else "not on the allowlist") + before

    def _settle(self, conn: Connection, outcomes: Sequence[Outcome], now: datetime) -> None:
        # One that is no longer held was stored by an earlier try of this step.
        rows = [self._row_for(outcome, now) for outcome in outcomes if outcome.delivery in self._handed]
        if not rows:
            return
        changed = conn.execute(_SETTLE, [row | {"b_owner": self._owner} for row in rows]).rowcount
        self._note_progress(conn, now)
        if changed != len(rows):
            self._late(conn, [outcome for outcome in outcomes if isinstance(outcome, Accepted)], now)

    def _note_progress(self, conn: Connection, now: datetime) -> None:
        """For ``status``; once a second is enough, and costs the other steps nothing."""
        if self._noted is None or abs(now - self._noted) >= timedelta(seconds=1):
            conn.execute(update(owner).where(owner.c.id == self._owner).values(settled_at=now))
            self._noted = now

    def _row_for(self, outcome: Outcome, now: datetime) -> dict[str, Any]:
        copy = self._handed[outcome.delivery]
        tries = copy.tries
        row: dict[str, Any] = {
            "b_id": outcome.delivery,
            "reason": RESENT if copy.resent else "",
            "provider_id": "",
            "settled_at": now,
            "not_before": None,
            "tries": tries,
        }
        match outcome:
            case Accepted():
                return row | {
                    "state": DeliveryState.ACCEPTED,
                    "provider_id": outcome.provider_id,
                    "tries": tries + 1,
                }
            case Refused():
                return row | {
                    "state": DeliveryState.REFUSED,
                    "reason": outcome.reason + (f"; {FIRST_UNKNOWN}" if copy.resent else ""),
                    "tries": tries + 1,
                }
            case Unknown():
                return row | {"state": DeliveryState.UNKNOWN, "reason": outcome.reason, "tries": tries + 1}
            case NotTaken():
                return row | self._again(outcome, copy, now)

    def _again(self, outcome: NotTaken, copy: Claimed, now: datetime) -> dict[str, Any]:
        tries = copy.tries
        if not outcome.charged:
            return {"state": DeliveryState.PENDING, "settled_at": None, "not_before": outcome.not_before}
        when = limits.retry_at(tries + 1, self._retry, now)
        if when is None:
            return {
                "state": DeliveryState.REFUSED,
                "reason": f"gave up: {outcome.reason}" + (f"; {FIRST_UNKNOWN}" if copy.resent else ""),
                "tries": tries + 1,
            }
        later = max(when, outcome.not_before) if outcome.not_before else when
        pending = {"state": DeliveryState.PENDING, "settled_at": None, "not_before": later}
        reason = f"{RESENT}; {outcome.reason}" if copy.resent else outcome.reason
        return pending | {"reason": reason, "tries": tries + 1}

    def _late(self, conn: Connection, accepted: Sequence[Accepted], now: datetime) -> None:
        """The answer of a process that was thought dead may only turn unknown into accepted."""
        for outcome in accepted:
            late = (delivery.c.id == outcome.delivery, delivery.c.state == DeliveryState.UNKNOWN)
            values = {"state": DeliveryState.ACCEPTED, "provider_id": outcome.provider_id, "settled_at": now}
            conn.execute(update(delivery).where(*late).values(**values, reason="answered late"))

    def release(self) -> None:
        """Gives back what was claimed and not handed."""
        self._claimed.clear()
        mine = (delivery.c.campaign_id == self._campaign, delivery.c.state == DeliveryState.CLAIMED)
        back = update(delivery).where(*mine, delivery.c.owner == self._owner)
        free = {"state": DeliveryState.PENDING, "owner": None}
        write(self._engine, lambda conn: conn.execute(back.values(free)), shared=True)


_SETTLE = (
    update(delivery)
    .where(
        delivery.c.id == bindparam("b_id"),
        delivery.c.state == DeliveryState.HANDED,
        delivery.c.owner == bindparam("b_owner"),
    )
    .values(
        state=bindparam("state"),
        reason=bindparam("reason"),
        provider_id=bindparam("provider_id"),
        settled_at=bindparam("settled_at"),
        not_before=bindparam("not_before"),
        tries=bindparam("tries"),
    )
)


def _load(conn: Connection, seqs: list[int]) -> list[Claimed]:
    person = (subscriber.c.address, subscriber.c.name, subscriber.c.fields)
    columns = (
        delivery.c.seq,
        delivery.c.id,
        *person,
        delivery.c.subscription_id,
        delivery.c.edition,
        delivery.c.tries,
        delivery.c.reason,
    )
    joined = select(*columns).join(subscriber, subscriber.c.id == delivery.c.subscriber_id)
    rows = conn.execute(joined.where(delivery.c.seq.in_(seqs)).order_by(delivery.c.seq))
    return [_claimed(row) for row in rows]


def _claimed(row: Any) -> Claimed:
    return Claimed(
        seq=row.seq,
        id=bytes(row.id),
        address=row.address or "",
        name=row.name,
        fields=row.fields,
        subscription_id=row.subscription_id,
        edition=row.edition,
        tries=row.tries,
        resent=row.reason.startswith(RESENT),
    )


def next_due(conn: Connection, campaign_id: int) -> datetime | None:
    """When the next waiting delivery may be tried; None when nothing waits. A row without a time is due at once."""
    waiting = (delivery.c.campaign_id == campaign_id, delivery.c.state == DeliveryState.PENDING)
    at_once = select(delivery.c.seq).where(*waiting, delivery.c.not_before.is_(None)).limit(1)
    if conn.execute(at_once).first() is not None:  # usual, and spares looking at a million rows
        return EPOCH
    due: datetime | None = conn.scalar(
        select(func.min(delivery.c.not_before, type_=Instant())).where(*waiting)
    )
    return due


def due_rows(conn: Connection, campaign_id: int, now: datetime, *, most: int) -> int:
    """How many deliveries may be tried now, counted up to ``most``."""
    due = delivery.c.not_before.is_(None) | (delivery.c.not_before <= now)
    waiting = (delivery.c.campaign_id == campaign_id, delivery.c.state == DeliveryState.PENDING)
    some = select(delivery.c.seq).where(*waiting, due).limit(most).subquery()
    return int(conn.execute(select(func.count()).select_from(some)).scalar_one())


def held_by_others(conn: Connection, campaign_id: int, mine: str) -> bool:
    """Whether another sender has rows of this campaign in hand."""
    theirs = delivery.c.owner.is_distinct_from(mine)
    return bool(
        conn.scalar(select(exists().where(delivery.c.campaign_id == campaign_id, _in_hand(), theirs)))
    )


def _in_hand() -> ColumnElement[bool]:
    return delivery.c.state.in_([DeliveryState.CLAIMED.value, DeliveryState.HANDED.value])


def orphaned(conn: Connection, now: datetime) -> tuple[int, int]:
    """What dead owners left, put right: (claimed → pending, handed → unknown). The living keep theirs."""
    unfinished = select(campaign.c.id).where(campaign.c.state != CampaignState.FINISHED)
    living = exists().where(owner.c.id == delivery.c.owner, owner.c.ended_at.is_(None))
    theirs = update(delivery).where(delivery.c.campaign_id.in_(unfinished), ~living)
    claimed = theirs.where(delivery.c.state == DeliveryState.CLAIMED)
    freed = conn.execute(claimed.values(state=DeliveryState.PENDING, owner=None)).rowcount
    handed = theirs.where(delivery.c.state == DeliveryState.HANDED)
    lost = {"state": DeliveryState.UNKNOWN, "settled_at": now}
    reason = "its sending process died before an answer was stored"
    return freed, conn.execute(handed.values(**lost, reason=reason)).rowcount

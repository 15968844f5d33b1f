"""The ledger: who has claimed, handed and settled which delivery. Every statement is conditional.

``handed`` is committed before a copy may leave, by one update that checks everything again; a row that it did not
change does not leave. That one statement serves pausing, cancelling, unsubscribing in the middle of a send, and
processes that were thought dead.
"""

from __future__ import annotations

import time
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, exists, func, select, update

from newsletter.errors import DatabaseError
from newsletter.limits import Limits, Pace, retry_at
from newsletter.model import (
    NOT_ALLOWED,
    Accepted,
    CampaignState,
    DeliveryState,
    NotTaken,
    Refused,
    SubscriptionState,
    Unknown,
)
from newsletter.store import canaries, marks
from newsletter.store.ahead import Ahead, Claimed
from newsletter.store.allowances import Allowances
from newsletter.store.doubts import FIRST_UNKNOWN, RESENT
from newsletter.store.engine import BREATH_SECONDS, many_senders, read, write
from newsletter.store.schema import (
    EPOCH,
    Instant,
    campaign,
    delivery,
    owner,
    subscription,
    suppression,
    to_micros,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Engine

    from newsletter.model import Outcome
    from newsletter.store.allowances import Room

UNLIMITED = Limits()
LOOK = 50
"""Rows that one commit looks at, if many may not leave: the lock is held no longer than 20 ms."""
LONGEST_SEARCH = 0.5  # seconds for the first who may leave, while all others wait
CLAIM = 500
"""Rows claimed at once: the claim costs one short transaction, and a dead owner's claims cost nothing."""


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
        limits: Limits = UNLIMITED,
    ) -> None:
        self._engine = engine
        self._campaign = campaign_id
        self._owner = owner
        self._retry = retry
        self._only = only
        self._limits = limits
        self._allowances = Allowances(limits)
        self._pace = Pace(limits.rate)
        self._claimed = Ahead(limits)
        self._handed: dict[bytes, Claimed] = {}
        self._noted: datetime | None = None
        self._shared = many_senders(engine)
        self._most = 1  # copies that all lanes together have wanted at once
        self._sample: list[int] | None = None  # the rows that may leave while the rest is held back
        self._looked, self._held = False, True  # once nothing is held back, nothing ever is again
        self.opens_at: datetime | None = None  # when more may leave, if it was a limit that let no more leave

    def crowded(self, now: datetime, copies: int) -> str:
        """The provider has had enough for now, it said so often; returns what that changes, in words, if it does."""
        return self._pace.words() if self._pace.crowded(now, copies) else ""

    def step(self, settled: Sequence[Outcome], want: int, now: datetime) -> list[Claimed]:
        """Stores what was settled and marks up to ``want`` copies handed, in one commit.

        What is returned may leave; fewer than ``want`` (or none) means that nothing else may before ``opens_at``, or
        nothing at all if that is None. If it raises,
        nothing of it is remembered here either: the same outcomes may be offered again.
        """
        if self._held and not self._looked:
            self._look_for_canary(now)
        handed, more = self._write(settled, want, now)
        until = time.monotonic() + LONGEST_SEARCH
        while more and len(handed) < want:  # many of them have gone: the next ones, in a commit of their own
            if time.monotonic() >= until:
                self.opens_at = now
                break
            time.sleep(BREATH_SECONDS)
            try:
                further, more = self._write((), want - len(handed), now)
            except DatabaseError:
                if handed:  # they may leave; the next step meets the error again
                    break
                raise
            handed += further
        return handed

    def _look_for_canary(self, now: datetime) -> None:
        """Outside the write lock, because it looks at all rows; what is in the sample never changes."""
        self._sample = read(self._engine, lambda conn: _due_of_canary(conn, self._campaign, now))
        self._looked, self._held = True, self._sample is not None

    def _write(self, settled: Sequence[Outcome], want: int, now: datetime) -> tuple[list[Claimed], bool]:
        """One commit: what leaves, and whether it only looked at some of those who may."""
        ahead = self._claimed.copy()
        may = self._pace.allowed(now, want)

        def work(conn: Connection) -> tuple[list[Claimed], bool, datetime | None]:
            self._settle(conn, settled, now)
            room = self._allowances.room(conn, now) if self._allowances and may else None
            handed, more = self._hand(conn, ahead, may, room, now)
            opens_at = self._spend(conn, ahead, handed, room, want)
            if len(handed) == may < want:
                opens_at = max(self._pace.opens_at(now, want), opens_at or now)
            # Who waits for a limit should hear of a pause before it opens.
            rests = opens_at is not None and not handed and not self._may_work(conn)
            return handed, more, None if rests else opens_at

        handed, more, self.opens_at = write(self._engine, work, shared=True)
        self._claimed = ahead
        self._keep(settled, handed, now)
        return handed, more

    def _keep(self, settled: Sequence[Outcome], handed: Sequence[Claimed], now: datetime) -> None:
        """What a commit has changed, in this process's books."""
        for outcome in settled:
            self._handed.pop(outcome.delivery, None)
        self._handed |= {row.id: row for row in handed}
        self._pace.worked(sum(isinstance(outcome, Accepted) for outcome in settled), now)
        self._pace.spend(len(handed), now)

    def _spend(
        self, conn: Connection, ahead: Ahead, handed: Sequence[Claimed], room: Room | None, want: int
    ) -> datetime | None:
        """Charges the limits; returns when they let more leave, if it was them that let no more leave."""
        if room is None:
            return None
        if handed:
            room.spend(conn, Counter(self._limits.scope_of(row.address) for row in handed))
        waiting = ahead.waiting() if len(handed) < want else ()
        return min((room.opens_at(scope, want) for scope in waiting), default=None)

    def _hand(
        self, conn: Connection, ahead: Ahead, want: int, room: Room | None, now: datetime
    ) -> tuple[list[Claimed], bool]:
        handed: list[Claimed] = []
        spent: Counter[str] = Counter()
        looked, claimed = 0, False
        self._most = max(self._most, want)
        while len(handed) < want:
            if looked >= max(LOOK, want):
                return handed, True
            window = ahead.take(want - len(handed), room, spent)
            if not window:
                # All of these wait for their domain: others may not, and are claimed in the next commit.
                if claimed or not ahead.wants_more:
                    return handed, ahead.wants_more
                if not (claimed := self._claim(conn, ahead, now)):
                    break
                continue
            looked += len(window)
            leaving = self._mark_handed(conn, window, now)
            handed += leaving
            spent.update(self._limits.scope_of(row.address) for row in leaving if room)
            left = {row.seq for row in leaving}
            staying = [row for row in window if row.seq not in left]
            if staying and not self._may_work(conn):
                ahead.put_back(staying)
                break
            self._skip(conn, [row.seq for row in staying], now)
        return handed, False

    def _claim(self, conn: Connection, ahead: Ahead, now: datetime) -> bool:
        due = delivery.c.not_before.is_(None) | (delivery.c.not_before <= now)
        mine = (delivery.c.campaign_id == self._campaign, delivery.c.state == DeliveryState.PENDING)
        if not self._may_work(conn):
            return False
        size = min(CLAIM, 10 * self._most) if self._shared else CLAIM  # the others want work too
        page = select(delivery.c.seq).where(*mine, due).order_by(delivery.c.seq).limit(size)
        if self._sample is not None:
            page = page.where(delivery.c.seq.in_(self._next_of_sample(size)))
        taken = (
            update(delivery)
            .where(delivery.c.seq.in_(page.with_for_update(skip_locked=True)), mine[1])
            .values(state=DeliveryState.CLAIMED, owner=self._owner)
            .returning(delivery.c.seq)
        )
        seqs = conn.execute(taken).scalars().all()
        ahead.add(marks.load(conn, seqs))
        return bool(seqs)

    def _next_of_sample(self, size: int) -> list[int]:
        """Taken off, whatever becomes of the commit: the next round looks which of them are still due."""
        some, self._sample = (self._sample or [])[:size], (self._sample or [])[size:]
        return some

    def _may_work(self, conn: Connection) -> bool:
        """The campaign runs, and nobody has taken this process for dead."""
        running = exists().where(campaign.c.id == self._campaign, campaign.c.state == CampaignState.RUNNING)
        living = exists().where(owner.c.id == self._owner, owner.c.ended_at.is_(None))
        return bool(conn.scalar(select(and_(running, living))))

    def _mark_handed(self, conn: Connection, window: list[Claimed], now: datetime) -> list[Claimed]:
        only = self._only
        seqs = [row.seq for row in window if only is None or row.address_key in only]
        changed = marks.mark(conn, seqs, campaign=self._campaign, owner=self._owner, now=now)
        return [row for row in window if row.seq in changed]

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
        return (f"suppressed: {row.reason}" if row.reason is not None else NOT_ALLOWED) + before

    def _settle(self, conn: Connection, outcomes: Sequence[Outcome], now: datetime) -> None:
        # One that is no longer held was stored by an earlier try of this step.
        held = [
            (outcome, self._handed[outcome.delivery])
            for outcome in outcomes
            if outcome.delivery in self._handed
        ]
        if not held:
            return
        accepted = {
            copy.seq: outcome.provider_id
            for outcome, copy in held
            if isinstance(outcome, Accepted) and not copy.resent
        }
        rows = [self._row_for(outcome, copy, now) for outcome, copy in held if copy.seq not in accepted]
        changed = marks.accept(conn, accepted, owner=self._owner, now=now) if accepted else 0
        changed += marks.settle(conn, rows, owner=self._owner) if rows else 0
        self._note_progress(conn, now)
        if changed != len(held):
            self._late(conn, [outcome for outcome in outcomes if isinstance(outcome, Accepted)], now)

    def _note_progress(self, conn: Connection, now: datetime) -> None:
        """For ``status``; once a second is enough, and costs the other steps nothing."""
        if self._noted is None or abs(now - self._noted) >= timedelta(seconds=1):
            conn.execute(update(owner).where(owner.c.id == self._owner).values(settled_at=now))
            self._noted = now

    def _row_for(self, outcome: Outcome, copy: Claimed, now: datetime) -> dict[str, Any]:
        tries = copy.tries
        row: dict[str, Any] = {
            "seq": copy.seq,
            "reason": RESENT if copy.resent else "",
            "provider_id": "",
            "settled_at": to_micros(now),
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
            not_before = outcome.not_before and to_micros(outcome.not_before)
            return {"state": DeliveryState.PENDING, "settled_at": None, "not_before": not_before}
        when = retry_at(tries + 1, self._retry, now)
        if when is None:
            return {
                "state": DeliveryState.REFUSED,
                "reason": f"gave up: {outcome.reason}" + (f"; {FIRST_UNKNOWN}" if copy.resent else ""),
                "tries": tries + 1,
            }
        later = max(when, outcome.not_before) if outcome.not_before else when
        pending = {"state": DeliveryState.PENDING, "settled_at": None, "not_before": to_micros(later)}
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
        self._claimed, self._looked = Ahead(self._limits), False
        mine = (delivery.c.campaign_id == self._campaign, delivery.c.state == DeliveryState.CLAIMED)
        back = update(delivery).where(*mine, delivery.c.owner == self._owner)
        free = {"state": DeliveryState.PENDING, "owner": None}
        write(self._engine, lambda conn: conn.execute(back.values(free)), shared=True)


def next_due(conn: Connection, campaign_id: int) -> datetime | None:
    """When the next waiting delivery may be tried; None when nothing waits. A row without a time is due at once.

    While the rest of a campaign is held back, that is a row of its canary, or the moment at which the rest may leave.
    """
    sample = canaries.may_leave(conn, campaign_id)
    waiting = (delivery.c.campaign_id == campaign_id, delivery.c.state == DeliveryState.PENDING, *sample)
    at_once = select(delivery.c.seq).where(*waiting, delivery.c.not_before.is_(None)).limit(1)
    if conn.execute(at_once).first() is not None:  # usual, and spares looking at a million rows
        return EPOCH
    due: datetime | None = conn.scalar(
        select(func.min(delivery.c.not_before, type_=Instant())).where(*waiting)
    )
    if not sample:
        return due
    released = conn.scalar(select(campaign.c.canary_until).where(campaign.c.id == campaign_id)) or EPOCH
    return min(due or released, released)


def _due_of_canary(conn: Connection, campaign_id: int, now: datetime) -> list[int] | None:
    """The rows of the sample that may be tried now; None when nothing is held back."""
    sample = canaries.may_leave(conn, campaign_id)
    if not sample:
        return None
    due = delivery.c.not_before.is_(None) | (delivery.c.not_before <= now)
    waiting = (delivery.c.campaign_id == campaign_id, delivery.c.state == DeliveryState.PENDING, *sample)
    return list(conn.scalars(select(delivery.c.seq).where(*waiting, due).order_by(delivery.c.seq)))


def due_rows(conn: Connection, campaign_id: int, now: datetime, *, most: int) -> int:
    """How many deliveries may be tried now, counted up to ``most``."""
    due = delivery.c.not_before.is_(None) | (delivery.c.not_before <= now)
    sample = canaries.may_leave(conn, campaign_id)
    waiting = (delivery.c.campaign_id == campaign_id, delivery.c.state == DeliveryState.PENDING, *sample)
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

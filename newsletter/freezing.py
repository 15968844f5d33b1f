"""Who would get an issue, and the freeze that makes a campaign of it.

The campaign is ``preparing`` until its last row is in, and one commit then makes it ``running``: whatever kills the
process before that leaves nothing that can be sent. The compiled email is stored with it, so that the last reader gets
the bytes that the first one got, whatever was edited or upgraded meanwhile.

What a killed freeze left is adopted by the next freeze of the same: it takes the present email and the present plan,
and only the rows that differ are written (docs/decisions/0016).
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.exc import IntegrityError

from newsletter.errors import NotApproved, Occupied, Refused
from newsletter.model import CampaignState, Kind
from newsletter.store import campaigns, canaries, instance, preparing
from newsletter.store.engine import BREATH_SECONDS, read, write
from newsletter.store.preparing import Content

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Engine

    from newsletter.limits import Canary
    from newsletter.message import MessageSettings
    from newsletter.model import Campaign, Email
    from newsletter.store.campaigns import Target
    from newsletter.store.preparing import Change

    Approved = Callable[[Connection], Sequence[str]]  # who has, in words

T = TypeVar("T")

logger = logging.getLogger(__name__)

HOLD_SECONDS = 0.010  # how long one transaction may keep other writers waiting
PAGE = 5000
"""People looked up at once, outside the write lock: 2 MB."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a new campaign would be if the person says yes now."""

    target: Target
    recipients: int
    left_out: Mapping[str, int]  # reason → people
    only: frozenset[bytes] | None = None  # allowlist mode: these address keys and nobody else
    now: datetime | None = (
        None  # whose pause was over by then is one of the recipients: wake them before the freeze
    )
    override: str = ""  # why it is the second one in its period; empty where nothing had to be overridden


class InPreparation(Occupied):
    """A living process is freezing this campaign, or one that takes its period or its readers: wait for that one."""

    def __init__(self, campaign: Campaign) -> None:
        super().__init__(
            f"another process is preparing {campaign.label}.",
            hint="Wait until it has begun to send, and run the same command again.",
        )
        self.campaign = campaign


def plan(
    engine: Engine,
    target: Target,
    *,
    only: frozenset[bytes] | None = None,
    now: datetime | None = None,
    override: str = "",
) -> Plan:
    """Who would get the target now. Raises ``Refused`` when another issue has the period.

    A rehearsal takes the next number that is free, a live campaign has only one. With a reason to ``override``, a
    second issue of a period takes the next place in it; the same issue never goes to anybody twice
    (docs/decisions/0033).
    """
    if target.kind is Kind.REHEARSAL:
        attempt = read(engine, lambda conn: campaigns.next_attempt(conn, target))
        target = replace(target, attempt=attempt)
    taken = read(engine, lambda conn: campaigns.holder(conn, target))
    free = taken is None or taken.state is CampaignState.PREPARING
    if taken is not None and not free:
        if not override or taken.issue == target.issue:
            raise _period_taken(taken)
        target = read(engine, lambda conn: campaigns.next_place(conn, target))
    people = read(engine, lambda conn: campaigns.audience(conn, target, only, now))
    return Plan(target, people.pop("", 0), people, only, now, "" if free else override)


def _period_taken(taken: Campaign) -> Refused:
    return Refused(
        f"the period {taken.period} of the list {taken.list} was used by {taken.label}.",
        hint="A period is sent once. If this issue belongs to another month, set `period` in its issue.toml. If it is "
        'to go out as well, run the same command with --override "WHY".',
    )


def _nobody_need_approve(_: Connection) -> Sequence[str]:
    return ()


def freeze(
    engine: Engine,
    planned: Plan,
    editions: Sequence[Email],
    message: MessageSettings,
    *,
    transport: str,
    now: datetime,
    owner: str,
    appointment: int | None = None,
    canary: Canary | None = None,
    approved: Approved = _nobody_need_approve,
) -> Campaign:
    """All or nothing in effect, in short transactions; returns the running campaign.

    The first of the ``editions`` is for everybody who has chosen none of the others. ``canary`` says how many copies
    leave first; None: all at once. ``owner`` is this process (``store.owners``); the dead have been buried. One
    campaign comes of an ``appointment``, for good. ``approved`` says who has approved the editions, or raises
    ``Refused``: it is asked before anything is written and in the last transaction, so that whoever withdraws, or takes
    the date back, before that has stopped it.

    Raises ``InPreparation`` when a living process is at it, or has taken this one over. Raises ``Refused`` when more
    people came in than were planned (somebody said yes to a number), or when the period was used meanwhile.
    """
    read(engine, approved)
    content = Content(editions, message.to_dict(), transport, appointment, planned.override)
    made = _begin(engine, planned.target, content, mine=owner, now=now)
    _fill(engine, made, planned, mine=owner)
    # Counted before the last transaction, because a million take 60 ms: the rows are this process's, nobody adds any.
    rows = read(engine, lambda conn: preparing.size(conn, made))
    if rows > planned.recipients:
        write(engine, lambda conn: preparing.leave(conn, made, mine=owner))
        raise Refused(
            f"more people joined the list {planned.target.list} than the {planned.recipients} you confirmed.",
            hint="Nothing was sent. Run the same command again to see the new number.",
        )
    first = read(engine, lambda conn: canaries.chosen(conn, made, canary, rows))

    def start(conn: Connection) -> bool:
        return preparing.start(conn, made, mine=owner, now=now, canary=first, approvals=approved(conn))

    try:
        started = instance.advance(engine, start)
    except NotApproved:
        write(engine, lambda conn: preparing.leave(conn, made, mine=owner))
        raise
    except Refused:  # it is not to go at all, or not now: nothing stays of it
        write(engine, lambda conn: preparing.leave(conn, made, mine=owner))
        remove(engine, read(engine, lambda conn: campaigns.get(conn, made)))
        raise
    if not started:
        raise _lost(engine, made)
    begun = read(engine, lambda conn: campaigns.get(conn, made))
    logger.info(
        "campaign started",
        extra={"facts": {**begun.facts, "recipients": rows, "canary": begun.canary_copies}},
    )
    return begun


def _begin(engine: Engine, target: Target, content: Content, *, mine: str, now: datetime) -> int:
    for found in read(engine, lambda conn: preparing.in_the_way(conn, target)):
        if found.living:
            raise InPreparation(found.campaign)
        if found.target != target:
            remove(engine, found.campaign)
    try:
        return write(engine, lambda conn: _take(conn, target, content, mine=mine, now=now))
    except IntegrityError as error:
        taken = read(engine, lambda conn: campaigns.holder(conn, target) or _of_same(conn, content))
        if (
            taken is not None and taken.issue == target.issue
        ):  # another process was quicker with this very one
            raise InPreparation(taken) from error
        raise (_period_taken(taken) if taken else error) from error


def _of_same(conn: Connection, content: Content) -> Campaign | None:
    """What came of the appointment: a rehearsal's number does not tell, because each gets the next one."""
    found = content.appointment and campaigns.of_appointment(conn, content.appointment)
    return found or None


def _take(conn: Connection, target: Target, content: Content, *, mine: str, now: datetime) -> int:
    """Creates or adopts; what was found before this transaction may have changed."""
    found = preparing.in_the_way(conn, target)
    for one in found:
        if one.living or one.target != target:
            raise InPreparation(one.campaign)
    if not found:
        return preparing.create(conn, target, content, mine=mine, now=now)
    preparing.adopt(conn, found[0].campaign.id, content, mine=mine, now=now)
    return found[0].campaign.id


def _fill(engine: Engine, campaign_id: int, planned: Plan, *, mine: str) -> None:
    pace = _Pace(engine)
    put = partial(preparing.apply, campaign_id=campaign_id, target=planned.target, mine=mine)
    for page in _pages(engine, campaign_id, planned):
        done = 0
        while some := page[done : done + pace.rows]:
            if not pace.write(partial(put, wanted=some)):
                raise _lost(engine, campaign_id)
            done += len(some)


def _pages(engine: Engine, campaign_id: int, planned: Plan) -> Iterator[list[Change]]:
    look = partial(preparing.changes, campaign_id=campaign_id, target=planned.target, only=planned.only)
    last = 0
    while page := read(engine, partial(look, after=last, limit=PAGE)):
        yield page
        last = page[-1].subscription_id


def _lost(engine: Engine, campaign_id: int) -> InPreparation:
    """This process was stopped or cut off for so long that another one has taken it for dead."""
    return InPreparation(read(engine, lambda conn: campaigns.get(conn, campaign_id)))


def remove(engine: Engine, campaign: Campaign) -> bool:
    """Takes away what a killed freeze left; nothing of it was sent. False when somebody is preparing it again."""
    pace = _Pace(engine)
    while pace.write(lambda conn: preparing.remove_rows(conn, campaign.id, limit=pace.rows)):
        pass
    return write(engine, lambda conn: preparing.remove(conn, campaign.id))


class _Pace:
    """Transactions of as many rows as fit into ``HOLD_SECONDS`` on this machine at this moment.

    A fixed number would be right for one machine and one size only: the pages of the indexes are random, so a row costs
    more the more there are. Below ``LEAST`` it is not the rows that take the time, and fewer of them would only
    make more transactions.
    """

    LEAST, MOST = 100, 1000

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.rows = self.LEAST

    def write(self, step: Callable[[Connection], T]) -> T:
        """Runs it and leaves the others a breath; then there are more ``rows``, or fewer."""
        began = 0.0

        def timed(conn: Connection) -> T:
            nonlocal began
            began = time.perf_counter()
            return step(conn)

        done = write(self._engine, timed, shared=True)
        self._learn(time.perf_counter() - began)
        time.sleep(BREATH_SECONDS)
        return done

    def _learn(self, held: float) -> None:
        rows = self.rows + 10 if held < HOLD_SECONDS else self.rows * 3 // 4
        self.rows = max(self.LEAST, min(self.MOST, rows))

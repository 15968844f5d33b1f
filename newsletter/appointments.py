"""What goes out by itself, and when: the schedule's dates and those that people have named.

::

    appointment
    waiting → (a campaign has come of it: over)
       ├────→ held        its time came and it was not ready, or is past: a person sends it, or cancels it
       ├────→ dropped     its time is past and nobody wants it late, or a newer date has come meanwhile
       └────→ cancelled   by a person

Any number of processes may look at any time: what one of them writes down is what the others find, and the campaign's
period lets one of them start it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from itertools import takewhile
from typing import TYPE_CHECKING, Protocol

from newsletter import limits, recovery, schedule
from newsletter.errors import Refused
from newsletter.model import Appointment, AppointmentState, CampaignState
from newsletter.schedule import Verdict, judge
from newsletter.store import appointments as rows
from newsletter.store import campaigns, facts, instance
from newsletter.store.campaigns import Target
from newsletter.store.engine import read, write

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime, timedelta
    from zoneinfo import ZoneInfo

    from sqlalchemy import Connection, Engine

    from newsletter.model import Campaign, Kind
    from newsletter.schedule import Occurrence, Schedule


class Tell(Protocol):
    """Tells the editors, in the caller's transaction, what has become of an appointment; False if they know."""

    def __call__(
        self, conn: Connection, event: str, one: Appointment, why: str, now: datetime, about: str = ""
    ) -> bool:
        """``event``: held, dropped, late or remind. They hear of each ``about`` once."""


SCHEDULE = "schedule"  # in ``meta``: the one that counts, in words
SINCE = "schedule_since"  # … and from when on
SEEN = "run_seen_at"  # … and when a scheduler last looked


class Why(StrEnum):
    """Why one is held or dropped that was ready. Editors read it in their language: ``notice.why`` of the texts."""

    PASSED = (
        "its time was past when the schedule was changed, sending went live, or the database was restored"
    )
    MISSED = "it was missed, and the next date has come since"
    LATE = "it is later than max_lateness allows"


@dataclass(frozen=True, slots=True)
class Rules:
    """What the settings say of sending by itself."""

    schedule: Schedule | None
    zone: ZoneInfo
    max_lateness: timedelta
    late: str  # hold, send or drop
    remind: timedelta
    list: str  # where the schedule's issues go
    kind: Kind  # what a campaign is now


@dataclass(slots=True)
class Agenda:
    """What is to be done now."""

    due: list[Appointment] = field(default_factory=list)  # the earliest first
    near: list[Appointment] = field(default_factory=list)  # they come within ``remind``
    ended: list[Appointment] = field(default_factory=list)  # held or dropped just now


def look(engine: Engine, rules: Rules, now: datetime, tell: Tell, *, clock_is_right: bool = False) -> Agenda:
    """Writes down what the schedule asks for, holds or drops what is late, and returns what is to be done.

    Calling it twice is calling it once. Raises ``DatabaseError``, and ``Refused`` when the clock has jumped back.
    """
    if clock_is_right:
        recovery.trust_clock(engine, now)
    else:
        recovery.check_clock(engine, now)
        seen = last_seen(engine)
        if seen is not None and limits.is_behind(now, seen):
            raise recovery.clock_jumped(now, seen)
    return write(engine, lambda conn: _look(conn, rules, now, tell))


def _look(conn: Connection, rules: Rules, now: datetime, tell: Tell) -> Agenda:
    facts.remember(conn, {SEEN: now.isoformat()})
    since = _counts_since(conn, rules, now)
    agenda = Agenda()
    for late in _follow(conn, rules, since, now):
        _end(conn, late, Verdict.DROP, Why.MISSED, now, tell, agenda)
    claimed = _not_ahead(conn, instance.CLAIMED_AT, now)
    for one in rows.every(conn, {AppointmentState.WAITING}):
        start = max(filter(None, (claimed, None if one.issue else since)), default=one.due_at)
        verdict = judge(one.due_at, now, rules.max_lateness, rules.late, start)
        if verdict is Verdict.SEND:
            agenda.due.append(one)
            if now - one.due_at > rules.max_lateness:
                tell(conn, "late", one, Why.LATE, now)
        elif verdict is Verdict.WAIT:
            agenda.near += [one] if one.due_at - now <= rules.remind else []
        else:
            reason = Why.PASSED if one.due_at < start else Why.LATE
            _end(conn, one, verdict, reason, now, tell, agenda)
    return agenda


def _end(
    conn: Connection,
    one: Appointment,
    verdict: Verdict,
    reason: str,
    now: datetime,
    tell: Tell,
    agenda: Agenda,
) -> None:
    state = AppointmentState.HELD if verdict is Verdict.HOLD else AppointmentState.DROPPED
    if ended := _ended(conn, one, state, reason, now, tell):
        agenda.ended.append(ended)


def _ended(
    conn: Connection, one: Appointment, state: AppointmentState, reason: str, now: datetime, tell: Tell
) -> Appointment | None:
    if not rows.end(conn, one.id, state, reason, now):
        return None
    ended = rows.find(conn, one.period, one.list, one.kind)
    assert ended is not None
    tell(conn, state.value, ended, reason, now)
    return ended


def hold(engine: Engine, one: Appointment, reason: str, now: datetime, tell: Tell) -> Appointment | None:
    """Its time has come and it can't be sent: a person decides. None when a campaign has come of it meanwhile."""
    return write(engine, lambda conn: _ended(conn, one, AppointmentState.HELD, reason, now, tell))


class Changed(Refused):
    """Somebody has taken it back, held it or moved it since it was found due."""


def check_unchanged(conn: Connection, one: Appointment) -> None:
    """For the last transaction of a freeze, which takes minutes for a long list. Raises ``Changed``."""
    found = rows.find(conn, one.period, one.list, one.kind)
    if found is None or (found.id, found.state, found.due_at) != (
        one.id,
        AppointmentState.WAITING,
        one.due_at,
    ):
        how = (
            f"is {found.state}"
            if found and found.state is not AppointmentState.WAITING
            else "has another date"
        )
        raise Changed(f"{one.label} {how} meanwhile, and nothing of it has left.")


# The schedule


def _counts_since(conn: Connection, rules: Rules, now: datetime) -> datetime:
    """From when on the present schedule counts: whoever writes one down does not ask for what is past.

    Nor does who goes live at noon, after a rehearsal at nine.
    """
    words = f"{rules.schedule}, {rules.zone}, {rules.kind} to {rules.list}" if rules.schedule else ""
    since = _not_ahead(conn, SINCE, now)
    if since is None or facts.recall(conn, SCHEDULE) != words:
        facts.remember(conn, {SCHEDULE: words, SINCE: now.isoformat()})
        return now
    return since


def _not_ahead(conn: Connection, key: str, now: datetime) -> datetime | None:
    """A moment that was remembered; now, for good, when a clock that was wrong then has put it into the future.

    Years ahead, it would hold every date until then, or never write one down.
    """
    moment = facts.recall_moment(conn, key)
    if moment is None or moment <= now:
        return moment
    facts.remember(conn, {key: now.isoformat()})
    return now


def _follow(conn: Connection, rules: Rules, since: datetime, now: datetime) -> list[Appointment]:
    """Makes and moves the schedule's appointments; returns those that were missed before the newest date."""
    if rules.schedule is None:
        rows.forget(conn)
        return []
    for one in _its_own(conn, rules):
        rows.move(conn, one.id, schedule.of_period(rules.schedule, rules.zone, one.period).at)
    for each in _wanted(rules.schedule, rules, since, now):
        if rows.find(conn, each.period, rules.list, rules.kind) is None and not _used(
            conn, rules, each.period
        ):
            rows.make(conn, each.period, rules.list, rules.kind, each.at, now=now)
    waiting = _its_own(conn, rules)
    rows.forget(
        conn, [one.id for one in waiting]
    )  # of another list, or rehearsals where campaigns are live now
    newest = schedule.latest(rules.schedule, rules.zone, now)
    return [one for one in waiting if one.period < newest.period]


def _its_own(conn: Connection, rules: Rules) -> list[Appointment]:
    waiting = rows.every(conn, {AppointmentState.WAITING})
    return [one for one in waiting if not one.issue and (one.list, one.kind) == (rules.list, rules.kind)]


def _wanted(rule: Schedule, rules: Rules, since: datetime, now: datetime) -> Iterator[Occurrence]:
    """The newest date that has come, and those that come within ``remind``.

    One that had passed when the schedule began to count is not sent; if it has passed just now it is held, because
    whoever wrote the schedule down may have thought of that very date.
    """
    newest = schedule.latest(rule, rules.zone, now)
    if newest.at >= since - rules.max_lateness:
        yield newest
    coming = takewhile(
        lambda each: each.at <= now + rules.remind, schedule.occurrences(rule, rules.zone, now)
    )
    yield from (each for each in coming if each != newest)


def _used(conn: Connection, rules: Rules, period: str) -> bool:
    taken = campaigns.holder(conn, Target("", period, rules.list, rules.kind))
    return rules.kind.takes_period and taken is not None and taken.state is not CampaignState.PREPARING


# People's own dates


def arrange(
    engine: Engine, target: Target, due_at: datetime, options: Mapping[str, str], now: datetime
) -> Appointment:
    """An issue gets a date of its own, in place of the schedule's and of what was arranged before.

    Raises ``Refused`` when a campaign has the period, or when the period's date is that of another issue.
    """
    return write(engine, lambda conn: _arrange(conn, target, due_at, options, now))


def _arrange(
    conn: Connection, target: Target, due_at: datetime, options: Mapping[str, str], now: datetime
) -> Appointment:
    key = (target.period, target.list, target.kind)
    found = rows.find(conn, *key)
    if found is None:
        rows.make(conn, *key, due_at, now=now, issue=target.issue, options=options)
    else:
        _check_free(conn, found, target)
        rows.set_again(conn, found.id, due_at, now=now, issue=target.issue, options=options)
    made = rows.find(conn, *key)
    assert made is not None
    _end_others(conn, made, now)
    if (campaign := rows.campaign_of(conn, made)) is not None:  # in another period
        raise _begun(campaign)
    return made


def _end_others(conn: Connection, made: Appointment, now: datetime) -> None:
    """An issue has one date: its period may have been another when it got the first."""
    mine = (made.issue, made.list, made.kind)
    for one in rows.every(conn):
        if one.id != made.id and (one.issue, one.list, one.kind) == mine:
            rows.end(conn, one.id, AppointmentState.CANCELLED, "it has another date", now, rows.OPEN)


def _begun(campaign: Campaign) -> Refused:
    if not campaign.kind.takes_period:
        return Refused(
            f"{campaign.label} has not ended: it is {campaign.state}.",
            hint=f"Go on with it: `{campaign.send}`, or end it: `newsletter cancel {campaign.arguments}`.",
        )
    return Refused(
        f"{campaign.label} has the period {campaign.period} already: it is {campaign.state}.",
        hint="A period is sent once. `newsletter status` shows it.",
    )


def _check_free(conn: Connection, found: Appointment, target: Target) -> None:
    rows.part(conn, found.id)
    if (campaign := rows.campaign_of(conn, found)) is not None:
        raise _begun(campaign)
    if found.state in rows.OPEN and found.issue not in {"", target.issue}:
        raise Refused(
            f"the period {target.period} of the list {target.list} has a date already, for {found.issue}.",
            hint=f"Take that one back first: newsletter cancel {found.issue} --list {found.list}",
        )


def cancel(engine: Engine, one: Appointment, now: datetime) -> bool:
    """It does not go out by itself. False when a campaign has come of it meanwhile."""
    reason = "by hand"
    return write(
        engine, lambda conn: rows.end(conn, one.id, AppointmentState.CANCELLED, reason, now, rows.OPEN)
    )


def last_seen(engine: Engine) -> datetime | None:
    """When a scheduler last looked, on whatever machine."""
    return read(engine, lambda conn: facts.recall_moment(conn, SEEN))

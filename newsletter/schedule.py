"""``"first tuesday 09:00"`` and a zone → instants. Pure: time and zone are arguments.

A local time that does not exist, because clocks were put forward, is the first instant after the gap; one that comes
twice is the first of the two; day 31 is the last day of a shorter month. So each month has exactly one occurrence, in
the order of the months, whatever a zone does (RFC 5545, section 3.3.5, takes the gap otherwise: an hour late).
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from zoneinfo import ZoneInfo

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
WEEKDAY = "weekday"  # Monday to Friday
ORDINALS = {"first": 0, "second": 1, "third": 2, "fourth": 3, "last": -1}
FORMS = '"first tuesday 09:00", "last weekday 17:00" or "monthly on the 15th 08:30"'
MOMENT = '"2026-12-01 09:00"'

_NAMED = re.compile(rf"({'|'.join(ORDINALS)}) ({'|'.join((*DAYS, WEEKDAY))}) (\S+)")
_NUMBERED = re.compile(r"monthly on the ([0-9]{1,2})(?:st|nd|rd|th)? (\S+)")
_TIME = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")
_MOMENT = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})[ T](\S+)")
LONGEST_MONTH = 31


@dataclass(frozen=True, slots=True)
class Schedule:
    """A day of the month, by its number or by its name, and a time of day."""

    text: str  # as it was written, in small letters and single spaces
    at: time
    number: int = 0  # 1 to 31; 0: by its name
    day: str = ""  # a day's name or ``weekday``
    ordinal: int = 0  # of ``ORDINALS``

    def __str__(self) -> str:
        return self.text

    def date_in(self, year: int, month: int) -> date:
        """The one date of this month."""
        days = monthrange(year, month)[1]
        if self.number:
            return date(year, month, min(self.number, days))
        dates = (date(year, month, number) for number in range(1, days + 1))
        return [each for each in dates if self._is_named(each)][self.ordinal]

    def _is_named(self, day: date) -> bool:
        return day.weekday() < len(DAYS) - 2 if self.day == WEEKDAY else DAYS[day.weekday()] == self.day


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One time at which something is to be sent."""

    period: str  # "2026-12": the month of the date as it was meant
    at: datetime  # aware, UTC


def parse(text: str) -> Schedule:
    """Raises ``ValueError`` that says which forms there are."""
    words = " ".join(text.casefold().split())
    if named := _NAMED.fullmatch(words):
        ordinal, day, at = named.groups()
        return Schedule(words, _time(at), day=day, ordinal=ORDINALS[ordinal])
    if (numbered := _NUMBERED.fullmatch(words)) and 1 <= int(numbered[1]) <= LONGEST_MONTH:
        return Schedule(words, _time(numbered[2]), number=int(numbered[1]))
    if words.startswith("fifth "):
        raise ValueError("can't be the fifth, which few months have: write last")
    raise ValueError(f"must be like {FORMS}")


def _time(text: str) -> time:
    found = _TIME.fullmatch(text)
    if not found:
        raise ValueError(f"must end with a time of day, from 00:00 to 23:59, and not {text!r}")
    return time(int(found[1]), int(found[2]))


def moment(text: str, zone: ZoneInfo) -> datetime:
    """``2026-12-01 09:00`` in a zone → the instant, in UTC. Raises ``ValueError`` that says how to write one."""
    found = _MOMENT.fullmatch(text.strip())
    if not found:
        raise ValueError(f"must be a date and a time like {MOMENT}")
    try:
        day = date.fromisoformat(found[1])
    except ValueError:
        raise ValueError(f"names the date {found[1]}, which does not exist") from None
    return instant(day, _time(found[2]), zone)


def instant(day: date, at: time, zone: ZoneInfo) -> datetime:
    """When it is ``at`` on that ``day`` for the first time; where it never is, the end of the gap."""
    local = datetime.combine(day, at)
    early, late = (local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if early <= late:  # it exists, once or twice
        return early
    return _end_of_gap(late, early, zone)


def _end_of_gap(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """The second at which the clocks were put forward: ``before`` it they were not, ``after`` it they are."""
    offset = after.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = before + timedelta(seconds=(after - before) // timedelta(seconds=2))
        if middle.astimezone(zone).utcoffset() == offset:
            after = middle
        else:
            before = middle
    return after


def occurrences(schedule: Schedule, zone: ZoneInfo, start: datetime) -> Iterator[Occurrence]:
    """Those at ``start`` or after it, without end."""
    # A zone's date is a day away from UTC's at most; a month earlier misses none.
    year, month = _next_month(start.year, start.month, -1)
    while True:
        found = _in_month(schedule, zone, year, month)
        if found.at >= start:
            yield found
        year, month = _next_month(year, month, 1)


def latest(schedule: Schedule, zone: ZoneInfo, now: datetime) -> Occurrence:
    """The newest that has come: of several that were missed the others are past."""
    year, month = _next_month(now.year, now.month, 1)
    while (found := _in_month(schedule, zone, year, month)).at > now:
        year, month = _next_month(year, month, -1)
    return found


def of_period(schedule: Schedule, zone: ZoneInfo, period: str) -> Occurrence:
    """The one of a month that is written as ``2026-12``."""
    year, month = map(int, period.split("-"))
    return _in_month(schedule, zone, year, month)


def _in_month(schedule: Schedule, zone: ZoneInfo, year: int, month: int) -> Occurrence:
    at = instant(schedule.date_in(year, month), schedule.at, zone)
    return Occurrence(f"{year:04}-{month:02}", at)


def _next_month(year: int, month: int, step: int) -> tuple[int, int]:
    years, index = divmod(month - 1 + step, 12)
    return year + years, index + 1


class Verdict(StrEnum):
    """What is to be done about an appointment."""

    WAIT = "wait"
    SEND = "send"
    HOLD = "hold"
    DROP = "drop"


def judge(due_at: datetime, now: datetime, max_lateness: timedelta, late: str, since: datetime) -> Verdict:
    """``late`` is what is wanted after ``max_lateness``: hold, send or drop.

    What was due before ``since`` is held in any case: then nobody was to send it at that time, because the schedule was
    another one or the database was a backup.
    """
    if now < due_at:
        return Verdict.WAIT
    if due_at < since:
        return Verdict.HOLD
    return Verdict.SEND if now - due_at <= max_lateness else Verdict(late)

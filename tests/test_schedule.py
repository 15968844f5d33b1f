"""When the next issue is due: each month once, whatever the clocks of a zone do."""

from __future__ import annotations

import calendar
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from newsletter.schedule import (
    DAYS,
    ORDINALS,
    WEEKDAY,
    Verdict,
    instant,
    judge,
    latest,
    moment,
    occurrences,
    parse,
)

LONDON = ZoneInfo("Europe/London")
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
ZONES = sorted(available_timezones())
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def dates(text: str, count: int = 3, zone: ZoneInfo = LONDON) -> list[str]:
    """The next ones, as a person in the zone would write them."""
    found = islice(occurrences(parse(text), zone, NOW), count)
    return [f"{each.at.astimezone(zone):%a %d %b %H:%M}" for each in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("first tuesday 09:00", ["Tue 01 Dec 09:00", "Tue 05 Jan 09:00", "Tue 02 Feb 09:00"]),
        ("fourth friday 23:59", ["Fri 25 Dec 23:59", "Fri 22 Jan 23:59", "Fri 26 Feb 23:59"]),
        ("last sunday 09:00", ["Sun 27 Dec 09:00", "Sun 31 Jan 09:00", "Sun 28 Feb 09:00"]),
        ("First  Weekday 7:05", ["Tue 01 Dec 07:05", "Fri 01 Jan 07:05", "Mon 01 Feb 07:05"]),
        ("last weekday 17:00", ["Mon 30 Nov 17:00", "Thu 31 Dec 17:00", "Fri 29 Jan 17:00"]),
        ("Monthly on the 15th 8:30", ["Tue 15 Dec 08:30", "Fri 15 Jan 08:30", "Mon 15 Feb 08:30"]),
        ("monthly on the 31st 00:00", ["Mon 30 Nov 00:00", "Thu 31 Dec 00:00", "Sun 31 Jan 00:00"]),
        ("monthly on the 30 12:00", ["Mon 30 Nov 12:00", "Wed 30 Dec 12:00", "Sat 30 Jan 12:00"]),
    ],
)
def test_the_forms_there_are(text: str, expected: list[str]) -> None:
    assert dates(text) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("every tuesday 09:00", "must be like"),
        ("first tuesday", "must be like"),
        ("monthly on the 32nd 09:00", "must be like"),
        ("monthly on the 0th 09:00", "must be like"),
        ("first tuesday 24:00", "must end with a time of day, from 00:00 to 23:59, and not '24:00'"),
        ("last day 09:00", "must be like"),
        ("fifth friday 09:00", "write last"),
        ("", "must be like"),
    ],
)
def test_what_is_no_schedule_says_what_would_be_one(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse(text)


def test_a_time_that_does_not_exist_is_the_first_instant_after_the_gap() -> None:
    assert instant(date(2027, 3, 28), time(1, 30), LONDON) == datetime(2027, 3, 28, 1, tzinfo=UTC)
    # Half an hour only, on Lord Howe Island; and a whole day that Samoa has never had.
    lord_howe = instant(date(2027, 10, 3), time(2, 15), ZoneInfo("Australia/Lord_Howe"))
    assert lord_howe == datetime(2027, 10, 2, 15, 30, tzinfo=UTC)
    samoa = instant(date(2011, 12, 30), time(9), ZoneInfo("Pacific/Apia"))
    assert samoa == datetime(2011, 12, 30, 10, tzinfo=UTC)


def test_a_time_that_comes_twice_is_the_first() -> None:
    assert instant(date(2026, 10, 25), time(1, 30), LONDON) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


def first_instant(day: date, at: time, zone: ZoneInfo) -> datetime:
    """Minute after minute, until the zone's clocks show that time, or one that is later, for the first time."""
    wanted = datetime.combine(day, at)
    passing = wanted.replace(tzinfo=UTC) - 27 * HOUR
    while passing.astimezone(zone).replace(tzinfo=None) < wanted:
        passing += MINUTE
    return passing


@given(
    zone=st.sampled_from(ZONES),
    day=st.dates(date(2020, 1, 1), date(2036, 12, 31)),
    at=st.times().map(lambda at: at.replace(second=0, microsecond=0)),
)
@example("Africa/Casablanca", date(2027, 3, 7), time(2, 30))  # a winter time in the middle of spring
@example("America/Scoresbysund", date(2024, 3, 31), time(0, 30))
@example("Asia/Beirut", date(2027, 3, 28), time(0, 0))  # the gap begins at midnight
@example("Africa/Cairo", date(2027, 4, 30), time(0, 30))
def test_an_instant_is_when_clocks_show_it_for_the_first_time(zone: str, day: date, at: time) -> None:
    assert instant(day, at, ZoneInfo(zone)) == first_instant(day, at, ZoneInfo(zone))


@pytest.mark.parametrize("text", ["first tuesday 09:00", "last sunday 02:30", "monthly on the 31st 00:15"])
def test_ten_years_in_all_zones_have_each_month_once_and_in_order(text: str) -> None:
    rule, start = parse(text), datetime(2026, 1, 1, tzinfo=UTC)
    for name in ZONES:
        zone = ZoneInfo(name)
        found = list(islice(occurrences(rule, zone, start), 120))
        assert [each.period for each in found] == [f"{2026 + n // 12}-{n % 12 + 1:02}" for n in range(120)]
        assert all(before.at < after.at for before, after in pairwise(found)), name
        for each in found:
            here = each.at.astimezone(zone)
            assert (here.hour, here.minute) >= (rule.at.hour, rule.at.minute), (name, each)
            assert each.period == f"{here:%Y-%m}", (name, each)


RULES = st.one_of(
    st.builds(
        "{} {} {:%H:%M}".format,
        st.sampled_from(list(ORDINALS)),
        st.sampled_from([*DAYS, WEEKDAY]),
        st.times(),
    ),
    st.builds("monthly on the {} {:%H:%M}".format, st.integers(1, 31), st.times()),
)


@given(RULES, st.sampled_from(ZONES), st.integers(0, 16 * 365 * 24 * 60))
def test_the_latest_is_the_one_before_the_next(text: str, zone: str, minutes: int) -> None:
    now, rule, here = datetime(2020, 1, 2, tzinfo=UTC) + minutes * MINUTE, parse(text), ZoneInfo(zone)
    last, following = latest(rule, here, now), next(occurrences(rule, here, now))
    assert last.at <= now <= following.at
    if last.at < now:
        assert list(islice(occurrences(rule, here, last.at), 2)) == [last, following]


@given(RULES)
def test_a_schedule_reads_itself(text: str) -> None:
    assert parse(str(parse(text))) == parse(text)


@given(st.dates(date(1990, 1, 1), date(2060, 1, 1)), st.sampled_from(list(ORDINALS)), st.sampled_from(DAYS))
def test_the_day_by_its_name_is_that_of_a_calendar(day: date, ordinal: str, name: str) -> None:
    column = DAYS.index(name)
    weeks = [week[column] for week in calendar.monthcalendar(day.year, day.month) if week[column]]
    found = parse(f"{ordinal} {name} 09:00").date_in(day.year, day.month)
    assert found.day == weeks[ORDINALS[ordinal]]


# A person's own time


def test_a_moment_is_meant_in_the_zone() -> None:
    assert moment("2026-12-01 09:00", ZoneInfo("Europe/Berlin")) == datetime(2026, 12, 1, 8, tzinfo=UTC)
    assert moment("2027-06-01T9:00", LONDON) == datetime(2027, 6, 1, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("tomorrow", "must be a date and a time"),
        ("2026-12-01", "must be a date and a time"),
        ("2026-02-30 09:00", "2026-02-30, which does not exist"),
        ("2026-12-01 9am", "must end with a time of day"),
        ("2026-12-01 09:00Z", "must end with a time of day"),
    ],
)
def test_what_is_no_moment_says_how_to_write_one(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        moment(text, LONDON)


# What is late


@pytest.mark.parametrize(
    ("late", "hours", "verdict"),
    [
        ("hold", -0.1, Verdict.WAIT),
        ("hold", 0, Verdict.SEND),
        ("hold", 6, Verdict.SEND),
        ("hold", 6.01, Verdict.HOLD),
        ("send", 6.01, Verdict.SEND),
        ("drop", 6.01, Verdict.DROP),
        ("drop", 5, Verdict.SEND),
    ],
)
def test_what_is_late_is_dealt_with_as_configured(late: str, hours: float, verdict: Verdict) -> None:
    assert judge(NOW, NOW + hours * HOUR, 6 * HOUR, late, since=NOW - HOUR) is verdict


def test_what_was_due_before_the_schedule_counted_is_held_whatever_is_configured() -> None:
    for late in ("hold", "send", "drop"):
        assert judge(NOW, NOW + MINUTE, 6 * HOUR, late, since=NOW + MINUTE) is Verdict.HOLD

"""Retry times, rates, what a provider's wish does to the speed, and when too many were refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsletter import limits
from newsletter.limits import ALL, LONG_AGO, TOLERANCE, Canary, Limits, Pace, Rate

NOW = datetime(2026, 12, 1, 9, 0, tzinfo=UTC)
SCHEDULE = (timedelta(seconds=15), timedelta(hours=4))
SECOND, MICRO = timedelta(seconds=1), timedelta(microseconds=1)

rates = st.builds(Rate, st.integers(1, 1_000_000), st.sampled_from(list(limits.UNITS.values())))
gaps = st.one_of(st.integers(0, 10_000), st.integers(0, 2_000_000), st.integers(0, 100_000_000_000))


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def most_within(rate: Rate, span: timedelta) -> int:
    """What a rate promises for a window, both its ends included."""
    return (span + TOLERANCE) * rate.count // (rate.seconds * SECOND) + 1


def assert_obeyed(rate: Rate, taken: list[tuple[datetime, int]]) -> None:
    """In every window there is; each begins and ends with a copy, because wider ones hold no more."""
    ordered = sorted(taken)
    for first, (begin, _) in enumerate(ordered):
        for (end, _), sent in zip(ordered[first:], accumulate(n for _, n in ordered[first:]), strict=True):
            assert sent <= most_within(rate, end - begin)


# Retries


def test_each_failure_waits_for_its_own_step_of_the_schedule():
    assert limits.retry_at(1, SCHEDULE, NOW) == NOW + timedelta(seconds=15)
    assert limits.retry_at(2, SCHEDULE, NOW) == NOW + timedelta(hours=4)


def test_a_used_up_schedule_gives_no_time():
    assert limits.retry_at(3, SCHEDULE, NOW) is None
    assert limits.retry_at(1, (), NOW) is None


# Refusals


@pytest.mark.parametrize(
    ("accepted", "refused", "too_many"),
    [
        (0, 9, False),  # a list of nine dead addresses is not worth a stop
        (0, 10, True),
        (190, 10, False),  # 5 % is allowed, more is not
        (189, 10, True),
        (99_000, 1_000, False),
    ],
)
def test_a_share_of_refusals_stops_a_send_once_there_are_ten(accepted, refused, too_many):
    assert limits.too_many_refused(accepted, refused, 0.05) is too_many


# Rates


@given(rates)
def test_a_rate_is_written_as_it_is_read(rate):
    assert Rate.parse(str(rate)) == rate


def test_no_limit_is_no_rate():
    assert Rate.parse("unlimited") is None


@pytest.mark.parametrize(
    "text", ["", "50", "0/s", "-1/s", "50/w", "50 / s", "1.5/s", "50/S", "1000000000/s", "5٠/s"]
)
def test_what_is_no_rate_is_refused(text):
    with pytest.raises(ValueError, match="copies per second, minute, hour or day"):
        Rate.parse(text)


@given(rates, st.lists(st.tuples(gaps, st.integers(1, 5000)), max_size=25))
def test_no_window_sees_more_than_the_rate_and_a_tenth_of_a_second_whoever_takes_and_when(rate, takes):
    now, free_at, taken = NOW, LONG_AGO, []
    for gap, want in takes:
        now += gap * MICRO
        count = min(want, rate.room(free_at, now))
        if count:
            free_at = rate.spend(free_at, count, now)
            taken.append((now, count))
    assert_obeyed(rate, taken)


@given(rates, st.lists(st.integers(0, 100_000), min_size=1, max_size=200))
def test_a_sender_that_always_wants_more_reaches_the_rate_though_it_always_comes_a_little_late(rate, late):
    now, free_at, sent = NOW, LONG_AGO, 0
    for micros in late:
        now = rate.opens_at(free_at, now) + micros * MICRO
        count = rate.room(free_at, now)
        assert count >= 1
        free_at = rate.spend(free_at, count, now)
        sent += count
    # Rounding up costs a microsecond each time, and what has come due since the last look is still there.
    assert rate.takes(sent) + rate.interval + TOLERANCE + len(late) * MICRO >= now - NOW


@given(rates, st.integers(0, 10**12), st.integers(1, 2_000_000))
def test_it_opens_exactly_when_so_many_may_leave(rate, ahead, copies):
    free_at = NOW + ahead * MICRO
    opens = rate.opens_at(free_at, NOW, copies)
    assert rate.room(free_at, opens) >= min(copies, rate.burst)
    assert opens == NOW or rate.room(free_at, opens - MICRO) < min(copies, rate.burst)


@given(rates)
def test_after_any_pause_a_burst_leaves_and_never_more(rate):
    assert rate.room(LONG_AGO, NOW) == rate.burst == most_within(rate, timedelta())


@given(rates, st.integers(0, 10**7))
def test_spending_what_there_is_never_goes_beyond_the_latest_honest_moment(rate, ahead):
    free_at = min(NOW + ahead * MICRO, rate.latest(NOW))
    assert rate.spend(free_at, rate.room(free_at, NOW), NOW) <= rate.latest(NOW)


def test_a_burst_is_a_copy_and_a_tenth_of_a_seconds_worth():
    assert [Rate(n, 1).burst for n in (1, 9, 10, 50, 1_000_000)] == [1, 1, 2, 6, 100_001]
    assert Rate(1, 86400).burst == 1


def test_rounding_never_exceeds_a_rate_that_no_microsecond_divides():
    three = Rate(3, 1)
    assert three.interval == timedelta(microseconds=333_334)
    assert three.takes(3) == SECOND  # and what is rounded up once is not added up for each copy


# Whose limit


def test_a_domain_is_what_stands_behind_the_at_and_nothing_below_it():
    own = Limits(domains={"gmail.com": Rate(20, 1)})
    assert own.scope_of("zoe@gmail.com") == own.scope_of("zoe@Gmail.COM") == "domain:gmail.com"
    assert own.scope_of("zoe@mail.gmail.com") == own.scope_of("gmail.com@example.org") == ALL


def test_scopes_come_in_the_order_in_which_they_are_locked():
    own = Limits(Rate(50, 1), {"yahoo.com": Rate(1, 1), "gmail.com": Rate(20, 1)})
    assert list(own.rates()) == ["all", "domain:gmail.com", "domain:yahoo.com"]
    assert own
    assert not Limits()


# How long it takes


def test_the_slowest_limit_says_how_long_a_send_takes_at_least():
    own = Limits(Rate(100, 1), {"gmail.com": Rate(20, 1), "gmx.de": Rate(1, 1)})
    people = {ALL: 100_000, "domain:gmail.com": 30_000, "domain:gmx.de": 0}
    assert limits.estimate(people, own) == timedelta(seconds=30_000 / 20, milliseconds=-150)
    assert limits.estimate({ALL: 100_000}, own) == timedelta(seconds=1000, milliseconds=-110)


def test_without_a_limit_for_anybody_there_is_nothing_to_say():
    assert limits.estimate({ALL: 100_000}, Limits()) is None
    assert limits.estimate({ALL: 5, "domain:gmx.de": 0}, Limits(domains={"gmx.de": Rate(1, 1)})) is None


@given(rates, st.integers(1, 300))
def test_no_sender_is_quicker_than_the_estimate(rate, people):
    now, free_at, left = NOW, LONG_AGO, people
    while True:
        count = min(left, rate.room(free_at, now))
        free_at, left = rate.spend(free_at, count, now), left - count
        if not left:
            break
        now = rate.opens_at(free_at, now)
    shortest = limits.estimate({ALL: people}, Limits(rate))
    assert timedelta() <= now - NOW - shortest <= 300 * MICRO


# What the provider wishes


def send(pace: Pace, begin: float, seconds: float, speed: float, *, every: float = 0.1) -> int:
    """A sender that always wants more, and could do ``speed`` copies per second; returns what the pace let leave."""
    sent, due = 0, 0.0
    for step in range(round(seconds / every)):
        now = after(begin + step * every)
        due += speed * every
        count = pace.allowed(now, int(due))
        due -= count
        pace.spend(count, now)
        pace.worked(count, now)
        sent += count
    return sent


def slowed_down(configured: Rate | None = None) -> Pace:
    """After ten seconds with a hundred copies each, the provider has had enough."""
    pace = Pace(configured)
    send(pace, 0, 10, speed=100)
    assert pace.crowded(after(10), copies=50)
    return pace


def test_before_the_provider_asks_nothing_is_held_back():
    pace = Pace()
    assert pace.allowed(NOW, 10**6) == 10**6
    assert (pace.opens_at(NOW), pace.words(), pace.slowed) == (NOW, "", False)


def test_a_provider_that_has_had_enough_gets_half_of_what_it_got():
    pace = slowed_down()
    assert pace.words() == str(pace) == "sending at most 50/s since the server asked to slow down"
    assert send(pace, 10, 1.9, speed=100) == pytest.approx(100, abs=6)


def test_what_all_connections_hear_within_a_moment_is_one_signal():
    pace = slowed_down()
    assert [pace.crowded(after(10 + lane / 10), copies=50) for lane in range(20)] == [False] * 20
    assert "50/s" in pace.words()
    assert pace.crowded(after(15), copies=50)
    assert "25/s" in pace.words()


def test_a_signal_for_each_hundredth_copy_is_a_relay_that_ends_its_connections_and_changes_nothing():
    pace = Pace()
    for moment in range(60):
        assert send(pace, moment, 1, speed=100) == 100
        assert not pace.crowded(after(moment + 1))
    assert not pace.slowed


def test_a_provider_that_has_taken_little_is_heard_at_its_first_signal():
    pace = Pace()
    send(pace, 0, 5, speed=2)
    assert pace.crowded(after(5))
    assert "sending at most 1.1/s" in pace.words()


def test_each_further_signal_halves_what_is_allowed_and_it_never_comes_to_a_stand():
    pace = slowed_down()
    for signal in range(1, 40):
        assert pace.crowded(after(10 + 5 * signal), copies=50)
    now = after(300)
    assert pace.words() == "sending at most one copy every 5 seconds since the server asked to slow down"
    pace.spend(pace.allowed(now, 10), now)
    assert pace.opens_at(now) - now <= timedelta(seconds=5)
    assert pace.allowed(pace.opens_at(now), 10) == 1


def test_it_becomes_faster_while_copies_are_accepted_and_is_forgotten_well_above_where_it_began():
    pace = slowed_down()
    send(pace, 10, 12, speed=1000)
    assert pace.slowed
    assert 50 * 1.1**4 < send(pace, 22, 1, speed=1000) < 50 * 1.1**7
    send(pace, 23, 20, speed=1000)
    assert not pace.slowed
    assert pace.allowed(after(43), 10**6) == 10**6


def test_a_configured_rate_is_where_it_is_forgotten():
    pace = slowed_down(Rate(100, 1))
    send(pace, 10, 20, speed=100)
    assert not pace.slowed


def test_a_pause_proves_nothing():
    pace = slowed_down()
    pace.worked(1, after(3600))
    assert "55/s" in pace.words()


def test_a_signal_puts_the_recovery_off_also_where_it_does_not_count():
    pace = slowed_down()
    assert not pace.crowded(after(11.9), copies=50)
    pace.worked(1, after(12.1))
    assert "50/s" in pace.words()


@pytest.mark.parametrize("configured", [Rate(3600, 3600), None])
def test_a_provider_that_has_taken_nothing_yet_gets_half_of_the_rate_or_very_little(configured):
    pace = Pace(configured)
    assert pace.crowded(NOW)
    assert "one copy every 2 seconds" in pace.words()


def test_more_than_configured_is_never_measured():
    pace = Pace(Rate(10, 1))
    pace.worked(5000, NOW)  # what a long wait for answers brings all at once
    pace.crowded(after(0.1), copies=5000)
    assert "5/s" in pace.words()


def test_a_clock_that_goes_back_does_not_hold_it_up():
    pace = slowed_down()
    pace.spend(5, after(10))
    assert pace.opens_at(after(-3600)) <= after(-3600) + timedelta(seconds=0.1)
    assert pace.crowded(after(-3600))


@pytest.mark.parametrize("takes", [5, 50, 300])
def test_a_provider_that_takes_so_many_a_second_soon_gets_nearly_that_and_little_more(takes):
    """It counts as such providers do: what it had to spare, a second's worth at most, and 421 to the rest."""
    pace, spare, taken, refused = Pace(), float(takes), 0, 0
    for step in range(300 * 20):
        now = after(step / 20)
        spare = min(takes, spare + takes / 20)
        count = pace.allowed(now, takes)  # twenty times as much as it takes
        pace.spend(count, now)
        accepted = min(count, int(spare))
        spare -= accepted
        pace.worked(accepted, now)
        if accepted < count:
            pace.crowded(now, copies=count - accepted)
        if step >= 60 * 20:
            taken, refused = taken + accepted, refused + count - accepted
    assert taken >= 0.75 * takes * 240
    assert refused <= 0.1 * taken


@given(
    st.lists(
        st.tuples(st.floats(0, 20), st.sampled_from(["crowded", "send", "worked"]), st.integers(0, 500)),
        max_size=60,
    )
)
def test_whatever_happens_something_may_leave_within_five_seconds(events):
    pace, now = Pace(), NOW
    for gap, what, count in events:
        now += timedelta(seconds=gap)
        if what == "crowded":
            pace.crowded(now, copies=count)
        elif what == "worked":
            pace.worked(count, now)
        else:
            pace.spend(pace.allowed(now, count), now)
        opens = pace.opens_at(now, copies=50)
        assert opens - now <= timedelta(seconds=5)
        assert pace.allowed(opens, 1) == 1
        assert bool(pace.words()) == pace.slowed


# Canaries


@pytest.mark.parametrize(
    ("size", "recipients", "copies"),
    [(0.01, 1000, 10), (0.01, 1001, 11), (0.07, 100, 7), (0.01, 5, 1), (50, 1000, 50)],
)
def test_a_canary_is_a_share_rounded_up_or_a_number(size: float, recipients: int, copies: int) -> None:
    assert Canary(size, SECOND).copies(recipients) == copies


@pytest.mark.parametrize(("size", "recipients"), [(0.01, 1), (50, 50), (50, 7), (1.0, 9), (0.5, 0)])
def test_there_is_no_canary_when_nobody_would_be_left_to_wait(size: float, recipients: int) -> None:
    assert Canary(size, SECOND).copies(recipients) == 0


@pytest.mark.parametrize(
    ("accepted", "not_accepted", "share", "failed"),
    [
        (9, 1, 0.05, False),  # 10 %, and also one dead address, as every list has some
        (8, 2, 0.05, True),
        (98, 2, 0.05, False),
        (94, 6, 0.05, True),
        (0, 1, 0.05, True),  # nothing came through
        (0, 1, None, True),
        (1, 9, None, False),  # the publisher has switched the limit off
        (0, 0, 0.05, False),  # all of the sample have left the list meanwhile
    ],
)
def test_a_canary_fails_by_more_than_one_and_more_than_the_share(
    accepted: int, not_accepted: int, share: float | None, failed: bool
) -> None:
    assert limits.canary_failed(accepted, not_accepted, share) is failed

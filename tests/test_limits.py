from __future__ import annotations

from datetime import UTC, datetime, timedelta

from newsletter import limits

NOW = datetime(2026, 12, 1, 9, 0, tzinfo=UTC)
SCHEDULE = (timedelta(seconds=15), timedelta(hours=4))


def test_each_failure_waits_for_its_own_step_of_the_schedule():
    assert limits.retry_at(1, SCHEDULE, NOW) == NOW + timedelta(seconds=15)
    assert limits.retry_at(2, SCHEDULE, NOW) == NOW + timedelta(hours=4)


def test_a_used_up_schedule_gives_no_time():
    assert limits.retry_at(3, SCHEDULE, NOW) is None
    assert limits.retry_at(1, (), NOW) is None

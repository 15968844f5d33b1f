"""When to try again. Pure: the time is an argument."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

PATIENCE = timedelta(minutes=15)
"""How long a sending process waits for the next retry before it ends and says when to run it again."""

REFUSED_AT_FIRST, REFUSED_IN_A_ROW = 10, 50
"""So many refusals in a row, before and after the first acceptance, are about us and not about the readers."""


def retry_at(failures: int, schedule: Sequence[timedelta], now: datetime) -> datetime | None:
    """The next try after the ``failures``-th failure (1-based); None when the schedule is used up."""
    if failures > len(schedule):
        return None
    return now + schedule[failures - 1]


CLOCK_SLACK = timedelta(minutes=5)
"""What two clocks, or one that is being corrected, may differ by."""


def is_behind(now: datetime, latest: datetime) -> bool:
    """Whether a clock has jumped back behind a moment that was written down before."""
    return now < latest - CLOCK_SLACK

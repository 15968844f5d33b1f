"""When the next issue is due: each month once, whatever the clocks of a zone do."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from zoneinfo import ZoneInfo

import pytest

from newsletter.schedule import occurrences, parse

LONDON = ZoneInfo("Europe/London")
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


def dates(text: str, count: int = 3, zone: ZoneInfo = LONDON) -> list[str]:
    """The next ones, as a person in the zone would write them."""
    found = islice(occurrences(parse(text), zone, NOW), count)
    return [f"{each.at.astimezone(zone):%a %d %b %H:%M}" for each in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("first tuesday 09:00", ["Tue 01 Dec 09:00", "Tue 05 Jan 09:00", "Tue 02 Feb 09:00"]),
        ("Monthly on the 15th  8:30", ["Tue 15 Dec 08:30", "Fri 15 Jan 08:30", "Mon 15 Feb 08:30"]),
        ("last weekday 17:00", ["Mon 30 Nov 17:00", "Thu 31 Dec 17:00", "Fri 29 Jan 17:00"]),
        ("monthly on the 31st 00:00", ["Mon 30 Nov 00:00", "Thu 31 Dec 00:00", "Sun 31 Jan 00:00"]),
    ],
)
def test_the_forms_there_are(text: str, expected: list[str]) -> None:
    assert dates(text) == expected

"""How long a send will take, said before it begins."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from newsletter.cli import forecast
from newsletter.limits import Rate
from newsletter.store import speed
from tests.support.publisher import crowd, publisher
from tests.support.smtp_server import closed_port

if TYPE_CHECKING:
    from pathlib import Path

LIMITED = """
[sending]
mode = "live"
transport = "smtp"
connections = 2
rate = "10/m"
[sending.domains]
"slow.example.org" = "60/h"
[smtp]
port = {port}
security = "none"
"""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "a few seconds"),
        (9, "a few seconds"),
        (45, "about 45 seconds"),
        (1200, "about 20 minutes"),
        (7300, "about 2 hours"),
        (400_000, "about 5 days"),
    ],
)
def test_a_time_is_told_as_exactly_as_it_is_known(seconds: float, words: str) -> None:
    assert forecast.spoken(timedelta(seconds=seconds)) == words


def test_the_end_is_a_time_of_this_machine_with_its_day_where_that_is_another() -> None:
    now = datetime(2026, 12, 1, 14, 15).astimezone()
    assert forecast.until(now, timedelta(seconds=30)) == ""
    assert forecast.until(now, timedelta(minutes=20)) == ", until about 14:35"
    assert forecast.until(now.astimezone(UTC), timedelta(hours=22)) == ", until about Wednesday 12:15"
    assert forecast.until(now, timedelta(days=9)) == ", until about 10 December 2026"


@pytest.mark.parametrize(
    ("rate", "words"),
    [("50/s", "50 copies a second"), ("1/m", "1 copy a minute"), ("2000/h", "2,000 copies an hour")],
)
def test_a_rate_is_told_in_words(rate: str, words: str) -> None:
    limit = Rate.parse(rate)
    assert limit is not None
    assert forecast.rate(limit) == words


def test_the_plan_names_the_limit_that_takes_longest_and_so_does_going_on(tmp_path: Path) -> None:
    made = publisher(tmp_path, LIMITED.format(port=closed_port()))
    made.import_people(crowd(41))
    plan = made.newsletter("send", "2026-12", "--dry-run").stdout
    assert "takes  about 4 minutes at 10 copies a minute, until about" in plan
    assert ", 2 connections" in plan
    made.import_people((f"reader{number}@SLOW.example.org", "") for number in range(11))
    plan = made.newsletter("send", "2026-12", "--dry-run").stdout
    assert "takes  about 10 minutes at 60 copies an hour to slow.example.org, until about" in plan
    made.configure(LIMITED.format(port=closed_port()).replace("60/h", "60/s").replace("10/m", "10/s"))
    made.newsletter("send", "2026-12", "--confirm", "52", check=False)  # nobody is there to take it
    made.newsletter("resume", "2026-12")
    made.configure(LIMITED.format(port=closed_port()))
    rest = made.newsletter("send", "2026-12", "--dry-run").stdout
    assert "The rest takes about 10 minutes at 60 copies an hour to slow.example.org, until about" in rest


def test_without_limits_it_says_what_this_machine_has_reached_and_else_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "ENOUGH", 200)
    made = publisher(tmp_path)
    made.import_people(crowd(250))
    assert "     takes  " not in made.newsletter("send", "2026-12", "--dry-run").stdout
    made.newsletter("send", "2026-12", "--confirm", "250")
    plan = made.newsletter("send", "2026-12", "--again", "--dry-run").stdout
    assert "takes  a few seconds at the " in plan
    assert "copies a second that 2026-12 to readers (REHEARSAL) reached" in plan
    assert socket.gethostname() not in plan

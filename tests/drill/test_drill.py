"""Real drills: small ones that pass, and ones with senders that lie, which must not."""

from __future__ import annotations

import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from newsletter import drill
from newsletter.drill.children import Programs
from newsletter.drill.project import refuse_used
from newsletter.errors import DrillFailed, Refused, UsageError
from newsletter.store.engine import open_engine
from tests.drill import liars

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.postgresql import Server


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where drills make their folders."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def drills(folder: Path) -> list[Path]:
    return list(folder.glob("newsletter-drill-*"))


full = pytest.mark.full


@full  # shorter ones of both transports run in tests/cli/test_drill.py
@pytest.mark.parametrize("transport", ["smtp", "sendgrid"])
def test_the_ledger_tells_the_truth_though_its_sender_is_killed_again_and_again(
    folder: Path, transport: str
) -> None:
    order = drill.Order(people=50, kills=2, transports=(transport,), seed=7, connections=3)
    [report] = drill.run(order)
    assert report.diary.kills.total() == 2
    assert report.faults
    assert report.diary.left
    assert report.verdict.people == report.verdict.settled + report.verdict.unknown == 50
    assert not report.verdict.faults
    assert not drills(folder)


def programs(lie: str) -> Programs:
    begin = (sys.executable, liars.__file__, lie)
    return Programs(send=(*begin, "newsletter"), exact=(*begin, "sender"))


def drill_often(programs: Programs) -> None:
    """A short drill may miss the moment in which a lie shows."""
    for seed in range(5):
        drill.run(
            drill.Order(people=80, kills=4, transports=("smtp",), seed=seed, connections=3, programs=programs)
        )


TWICE = "got 2 copies"
NEVER = "accepted in the ledger, and the provider never had the copy"


@pytest.mark.parametrize(
    ("lie", "found"),
    [
        ("send_again_what_was_handed_over", TWICE),
        pytest.param("accept_before_handing_over", NEVER, marks=full),
        pytest.param("hand_over_without_a_mark", TWICE, marks=full),
        pytest.param("take_silence_for_a_yes", NEVER, marks=full),
        pytest.param("give_up_on_everything_in_doubt", "unknown without a withheld", marks=full),
        pytest.param("not_listen_to_people_who_leave", "handed over after leaving", marks=full),
    ],
)
def test_a_sender_that_lies_is_found_out(folder: Path, lie: str, found: str) -> None:
    with pytest.raises(DrillFailed, match=found) as failed:
        drill_often(programs(lie))
    assert str(drills(folder)[0]) in failed.value.hint
    assert "--seed" in failed.value.hint


@full
@pytest.mark.parametrize("transport", ["smtp", "sendgrid"])
def test_the_ledger_tells_the_truth_about_thousands(transport: str) -> None:
    [report] = drill.run(drill.Order(people=4000, kills=40, transports=(transport,), seed=2026))
    assert report.diary.kills.total() == 40


@full
@pytest.mark.parametrize("transport", ["smtp", "sendgrid"])
def test_three_senders_at_once_share_a_campaign_on_postgresql_and_tell_the_truth(
    postgresql_server: Server, transport: str
) -> None:
    url = postgresql_server.create(empty=True)
    order = drill.Order(people=2000, kills=20, transports=(transport,), seed=2026, processes=3, database=url)
    [report] = drill.run(order)
    assert (report.database, report.diary.kills.total()) == ("postgresql", 20)
    refuse_used(url)  # nothing of ours is left in it
    postgresql_server.drop(url)


def test_several_senders_at_once_need_postgresql(folder: Path) -> None:
    with pytest.raises(UsageError, match="on SQLite only one process sends"):
        drill.run(drill.Order(processes=2))
    assert not drills(folder)


def test_a_database_that_is_in_use_is_left_alone(folder: Path) -> None:
    used = f"sqlite:///{folder / 'used.db'}"
    open_engine(used, create=True).dispose()
    before = (folder / "used.db").read_bytes()
    with pytest.raises(Refused, match="that database has tables"):
        drill.run(drill.Order(database=used))
    assert (folder / "used.db").read_bytes() == before

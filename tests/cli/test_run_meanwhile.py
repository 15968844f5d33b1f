"""`newsletter run`, while something is changed between the moments: settings, files, dates, clocks."""

from __future__ import annotations

import re
import shutil
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, text

from newsletter import hosting
from newsletter.cli import running, sending
from newsletter.cli.running import Said
from newsletter.store import preparing
from tests.cli.test_running import (
    BEFORE,
    DATE,
    EVERYBODY,
    LIVE,
    look,
    notices,
    publishing,
    received,
    set_back,
)
from tests.support import schedulers
from tests.support.holding import HoldingServer
from tests.support.publisher import crowd
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sqlalchemy import Connection

    from newsletter.model import Email
    from tests.support.publisher import Publisher

ONLY_ONE = 'allowlist = ["reader00001@example.org"]\nconnections'


def give_a_date(made: Publisher, *more: str) -> None:
    """Due a moment ago by the real clock, for whoever looks by that."""
    moment = datetime.now(UTC) + timedelta(minutes=2)
    made.newsletter("send", "2027-12", "--at", f"{moment:%Y-%m-%d %H:%M}", "--confirm", "5", *more)
    set_back(made, moment - timedelta(minutes=3))


def cut_off(made: Publisher, server: HoldingServer) -> None:
    """A scheduler is killed while it sends."""
    give_a_date(made)
    process = made.start("run", "--once", "--clock-is-right")
    wait_for(server.holding, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    server.release()


@pytest.mark.parametrize("mode", ["off", "allowlist"])
def test_what_was_cut_off_does_not_go_on_in_another_mode(tmp_path: Path, mode: str) -> None:
    """Off is off; and an allowlist would have skipped everybody who is not on it, for good."""
    with publishing(tmp_path, hold_at=2) as (made, server):
        look(made, BEFORE)
        cut_off(made, server)
        left, live = received(server), (made.root / "newsletter.toml").read_text()
        made.configure(LIVE.format(port=server.port, mode=mode).replace("connections", ONLY_ONE))
        rests = made.newsletter("run", "--once", "--clock-is-right", check=False)
        assert rests.returncode == 5
        assert "2027-12 to readers does not go on by itself: " in rests.stderr
        assert received(server) == left
        assert "skipped" not in made.newsletter("status", "2027-12").stdout

        (made.root / "newsletter.toml").write_text(live)
        assert made.newsletter("run", "--once", "--clock-is-right", check=False).returncode == 7
        assert received(server) == EVERYBODY


def test_what_the_last_look_has_said_is_not_said_again() -> None:
    said = Said()
    for minute in range(3):
        said.next_look()
        assert said.anew(f"the clock says 09:0{minute}:00 UTC") is (minute == 0)
    said.next_look()
    said.next_look()
    assert said.anew("the clock says 09:07:00 UTC")


@pytest.mark.parametrize("deed", [("cancel", "2027-12"), ("send", "2027-12", "--at", "2099-12-20 10:00")])
def test_a_date_that_is_taken_back_or_moved_during_the_freeze_sends_nothing(
    tmp_path: Path, deed: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """Whoever was told that it does not go out now can rely on it; a freeze takes minutes for a long list."""
    with publishing(tmp_path) as (made, server):
        look(made, BEFORE)
        look(made, DATE - timedelta(hours=1))
        size = preparing.size

        def meanwhile(conn: Connection, campaign: int) -> int:
            more = ["--confirm", "5"] if deed[0] == "send" else []
            made.newsletter(*deed, *more)
            return size(conn, campaign)

        monkeypatch.setattr(preparing, "size", meanwhile)
        assert look(made, DATE) == 0
        assert "meanwhile, and nothing of it has left." in capsys.readouterr().out
        assert look(made, DATE) == 0
        assert received(server) == []
        assert notices(made) == []
        assert "preparing" not in made.newsletter("status").stdout
        assert ("2099" in made.newsletter("schedule").stdout) is (deed[0] == "send")


def test_what_one_date_waits_for_keeps_no_other_back_and_the_editors_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """With ``late = "send"`` it would wait for ever, and so would the issue behind it."""
    with publishing(tmp_path) as (made, server):
        made.configure(
            LIVE.format(port=server.port, mode="live").replace("[sending]", 'late = "send"\n[sending]')
        )
        look(made, BEFORE)
        another(made, "2027-11", "--at", "2027-12-07 09:30", "--confirm", "5")

        def only_one_is_there(editions: Sequence[Email], _: object) -> None:
            if editions[0].subject != ANOTHER:
                raise hosting.NotInPlace("the picture brain.png can't be fetched.")

        monkeypatch.setattr(hosting, "verify", only_one_is_there)
        for hours in (1, 2, 50):
            assert look(made, DATE + timedelta(hours=hours)) == 5
        assert received(server) == EVERYBODY
        assert notices(made) == [
            "Research Digest: 2027-12 to readers is not ready yet",
            "Research Digest: 2027-12 to readers goes out late",
        ]
        assert "2027-12 to readers waits, and is tried again" in capsys.readouterr().err


def test_options_that_fit_the_settings_no_more_are_told_and_keep_nothing_else_back(tmp_path: Path) -> None:
    with publishing(tmp_path) as (made, server):
        plain = LIVE.format(port=server.port, mode="live")
        made.configure(plain.replace("connections", 'canary = "20%"\nconnections'))
        look(made, BEFORE)
        another(made, "2027-11", "--at", "2027-12-09 10:30", "--confirm", "5", "--canary-wait", "30m")
        made.configure(plain)
        assert "not ready: --canary-wait says" in made.newsletter("schedule").stdout
        assert look(made, DATE) == 0
        assert received(server) == EVERYBODY
        assert notices(made) == ["Research Digest: 2027-11 to readers is not ready yet"]


ANOTHER = "Copper in the thalamus"


def another(made: Publisher, slug: str, *more: str) -> None:
    """A second issue, with a date of its own."""
    folder = made.root / "issues" / slug
    shutil.copytree(made.root / "issues" / "2027-12", folder)
    toml = folder / "issue.toml"
    toml.write_text(toml.read_text().replace("Iron in the thalamus", ANOTHER))
    made.newsletter("send", slug, *more)


@pytest.mark.parametrize("why", [(), ("--override", "the first one had a wrong figure")])
def test_an_issue_with_a_date_is_not_forgotten_when_another_one_takes_its_period(
    tmp_path: Path, why: tuple[str, ...]
) -> None:
    with publishing(tmp_path) as (made, server):
        look(made, BEFORE)
        another(made, "2027-12-b", "--at", "2027-12-09 10:30", "--confirm", "5", *why)
        made.newsletter("send", "2027-12", "--confirm", "5", "--clock-is-right")
        assert ("not ready: the period 2027-12" in made.newsletter("schedule").stdout) is (not why)
        code = look(made, datetime(2027, 12, 9, 10, 31, tzinfo=UTC))
        assert (code, len(received(server))) == ((0, 10) if why else (5, 5))
        assert [each for each in notices(made) if "was not sent" in each] == (
            [] if why else ["Research Digest: 2027-12-b to readers was not sent"]
        )
        assert look(made, datetime(2027, 12, 9, 10, 32, tzinfo=UTC)) == 0


def test_an_issue_that_was_sent_for_another_month_is_held_at_once(tmp_path: Path) -> None:
    """And not said to be sent before at each look, until it is too late for ``max_lateness``."""
    with publishing(tmp_path) as (made, server):
        issue = made.root / "issues" / "2027-12" / "issue.toml"
        right = issue.read_text()
        issue.write_text(f'period = "2027-11"\n{right}')
        made.newsletter("send", "2027-12", "--confirm", "5")
        issue.write_text(right)
        refused = made.newsletter(
            "send", "2027-12", "--at", "2099-12-07 10:00", "--confirm", "0", check=False
        )
        assert refused.returncode == 5
        look(made, BEFORE)
        assert look(made, DATE) == 5
        told = "2027-12 to readers has begun before, for the period 2027-11"
        assert f"held: {told}" in made.newsletter("schedule").stdout
        assert received(server) == EVERYBODY


def test_after_a_clock_that_was_years_ahead_one_word_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service is started without the option, and must not wait until those years are over."""
    with publishing(tmp_path) as (made, server):
        monkeypatch.setattr(sending, "utc_now", lambda: datetime(2035, 1, 20, 9, tzinfo=UTC))
        made.newsletter("run", "--once")
        monkeypatch.undo()
        made.newsletter("send", "2027-12", "--confirm", "5")
        end_in(made, datetime(2035, 1, 20, 9, tzinfo=UTC))
        refused = made.newsletter("run", "--once", check=False)
        assert refused.returncode == 5
        assert "`newsletter run --once --clock-is-right`" in refused.stderr
        made.newsletter("run", "--once", "--clock-is-right")
        assert made.newsletter("run", "--once").returncode == 0
        assert received(server) == EVERYBODY


def end_in(made: Publisher, moment: datetime) -> None:
    """The sender has written down that it ended then."""
    engine = create_engine(f"sqlite:///{made.root / '.newsletter' / 'newsletter.db'}")
    with engine.begin() as conn:
        conn.execute(text("UPDATE owner SET ended_at = :at"), {"at": int(moment.timestamp()) * 1_000_000})
    engine.dispose()


def test_what_was_due_behind_a_long_send_is_judged_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be later than `max_lateness` by then, or be taken back."""
    with publishing(tmp_path) as (made, server):
        look(made, BEFORE)
        another(made, "2027-11", "--at", "2027-12-07 08:59", "--confirm", "5")
        monkeypatch.setattr(running, "LOOK_SECONDS", 0.0)  # any send is a long one
        assert look(made, DATE) == 0
        assert received(server) == EVERYBODY
        assert look(made, DATE + timedelta(hours=7)) == 5
        assert received(server) == EVERYBODY
        assert notices(made) == ["Research Digest: 2027-12 to readers was not sent"]


def test_an_issue_with_another_name_than_its_period_is_named_and_can_be_taken_back(
    tmp_path: Path, capsys
) -> None:
    with publishing(tmp_path, mode="off") as (made, _):
        look(made, BEFORE)
        (made.root / "issues" / "2027-12").rename(made.root / "issues" / "winter")
        issue = made.root / "issues" / "winter" / "issue.toml"
        issue.write_text(f'period = "2027-12"\n{issue.read_text()}')
        look(made, DATE)
        assert "Next: newsletter send winter --list readers" in capsys.readouterr().out
        assert "newsletter cancel winter --list readers" in mails(made)[-1]
        assert "does not go out by itself" in made.newsletter("cancel", "winter").stdout


def test_cancelling_an_issue_leaves_the_date_that_another_one_has_in_its_period(tmp_path: Path) -> None:
    with publishing(tmp_path) as (made, _):
        another(made, "2027-12-b", "--at", "2099-12-09 10:30", "--confirm", "5")
        assert made.newsletter("cancel", "2027-12", check=False).returncode == 2
        assert "2027-12-b  ready" in made.newsletter("schedule").stdout


def mails(made: Publisher) -> list[str]:
    """What the editors are told, in full."""
    engine = create_engine(f"sqlite:///{made.root / '.newsletter' / 'newsletter.db'}")
    with engine.connect() as conn:
        found = list(conn.scalars(text("SELECT text FROM notice ORDER BY id")))
    engine.dispose()
    return found


def test_status_says_that_nobody_is_there_to_send_what_is_due(tmp_path: Path) -> None:
    with publishing(tmp_path) as (made, _):
        assert "and it never was." in made.newsletter("status").stderr
        give_a_date(made)
        said = made.newsletter("status")
        assert re.search(r"2027-12 to readers is to go out on \w+ \d+ \w+ 20", said.stdout)
        assert "nothing goes out by itself before `newsletter run` is at work" in said.stderr
        made.configure("")
        made.newsletter("cancel", "2027-12")
        assert made.newsletter("status").stderr == ""


def test_a_scheduler_that_sends_for_long_is_not_said_to_be_away(tmp_path: Path) -> None:
    with publishing(tmp_path, hold_at=2) as (made, server):
        give_a_date(made)
        process = made.start("run", "--once")
        wait_for(server.holding, process)
        engine = create_engine(f"sqlite:///{made.root / '.newsletter' / 'newsletter.db'}")
        with engine.begin() as conn:  # it has looked an hour ago, and has been sending since
            hour_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
            conn.execute(text("UPDATE meta SET value = :at WHERE key = 'run_seen_at'"), {"at": hour_ago})
        engine.dispose()
        assert "at work" in made.newsletter("schedule").stdout
        assert "by itself" not in made.newsletter("status").stderr
        server.release()
        process.communicate()
        assert "was last at work on" in made.newsletter("status").stderr


def test_the_editors_hear_of_one_date_before_another_one_is_sent(tmp_path: Path) -> None:
    """A send may last for a day; what is held, or not ready, has to be mended before that."""
    with publishing(tmp_path) as (made, server):
        look(made, BEFORE)
        another(made, "2027-11", "--at", "2027-12-07 08:59", "--confirm", "5")
        another(made, "2027-10", "--at", "2027-12-09 10:30", "--confirm", "5")
        for slug in ("2027-11", "2027-10"):
            shutil.rmtree(made.root / "issues" / slug)
        assert look(made, DATE) == 3
        assert len(notices(made)) == 2
        assert server.recipients()[:2] == ["editor@example.org", "editor@example.org"]
        assert received(server) == EVERYBODY


def test_two_schedulers_rehearse_once_and_neither_is_refused(tmp_path: Path) -> None:
    """An exit code would call somebody who finds all well."""
    with HoldingServer() as server:
        made = schedulers.scheduled(tmp_path / "press", server.port, 3)
        toml = made.root / "newsletter.toml"
        allowed = f'mode = "allowlist"\nallowlist = ["{EVERYBODY[0]}"]'
        toml.write_text(toml.read_text().replace('mode = "live"', allowed))
        made.import_people(crowd(2))
        found = schedulers.run(made, "race", 3)
        assert received(server) == [EVERYBODY[0]] * 3
        assert {each["code"] for each in found} == {0}


def test_what_a_dead_sender_had_in_hand_does_not_wait_for_anybodys_next_try(tmp_path: Path) -> None:
    """One is to be tried again in four hours; the others were in the hands of a sender that was killed."""
    with publishing(tmp_path, hold_at=3) as (made, server):
        cut_off(made, server)
        engine = create_engine(f"sqlite:///{made.root / '.newsletter' / 'newsletter.db'}")
        with engine.begin() as conn:
            later = int((datetime.now(UTC) + timedelta(hours=4)).timestamp()) * 1_000_000
            first = "state = 'accepted' AND seq = (SELECT min(seq) FROM delivery)"
            again = f"UPDATE delivery SET state = 'pending', not_before = :later WHERE {first}"
            assert conn.execute(text(again), {"later": later}).rowcount == 1
        engine.dispose()
        assert made.newsletter("run", "--once", check=False).returncode == 8
        assert received(server) == EVERYBODY
        assert made.newsletter("run", "--once").returncode == 0


def test_one_look_says_what_waits_although_its_time_has_come(tmp_path: Path) -> None:
    with publishing(tmp_path, hold_at=2) as (made, server):
        toml = made.root / "newsletter.toml"
        toml.write_text(toml.read_text().replace("[sending]", 'remind = "12h"\n[sending]'))
        assert made.newsletter("run", "--once").stdout == "Nothing is to go out within 12 hours.\n"
        another(made, "2027-11", "--at", "2099-01-01 10:00", "--confirm", "5")
        process = made.start("send", "2027-11", "--confirm", "5")
        wait_for(server.holding, process)
        give_a_date(made)
        said = made.newsletter("run", "--once").stdout
        assert "2027-12 to readers waits: another process is sending" in said
        assert "The next date: 2027-12 to readers" in said
        server.release()
        process.communicate()


def test_a_rehearsal_that_was_cut_off_before_going_live_is_left_and_is_no_alarm(tmp_path: Path) -> None:
    with publishing(tmp_path, hold_at=1) as (made, server):
        live = (made.root / "newsletter.toml").read_text()
        allowed = f'mode = "allowlist"\nallowlist = ["{EVERYBODY[0]}", "{EVERYBODY[1]}"]'
        (made.root / "newsletter.toml").write_text(live.replace('mode = "live"', allowed))
        moment = datetime.now(UTC) + timedelta(minutes=2)
        made.newsletter("send", "2027-12", "--at", f"{moment:%Y-%m-%d %H:%M}", "--confirm", "2")
        set_back(made, moment - timedelta(minutes=3))
        process = made.start("run", "--once")
        wait_for(server.holding, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        server.release()
        (made.root / "newsletter.toml").write_text(live)
        left = made.newsletter("run", "--once")
        assert "2027-12 to readers (REHEARSAL) does not go on by itself" in left.stderr
        assert len(received(server)) <= 1

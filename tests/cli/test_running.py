"""`newsletter run`, `schedule` and `send --at`: an issue goes out at its time, once, and whoever must know is told."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, text

from newsletter import wiring
from newsletter.cli.running import Look
from newsletter.config import load
from newsletter.desk import Stop
from tests.support import schedulers
from tests.support.holding import HoldingServer
from tests.support.publisher import Publisher, crowd, environment, publisher
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIVE = """
[schedule]
send = "first tuesday 09:00"
timezone = "Europe/London"
[sending]
mode = "{mode}"
transport = "smtp"
connections = 1
[smtp]
port = {port}
security = "none"
"""
PEOPLE = crowd(5)
BEFORE = datetime(2027, 12, 1, 9, tzinfo=UTC)  # the schedule was seen then
DATE = datetime(2027, 12, 7, 9, tzinfo=UTC)  # a first Tuesday


@contextmanager
def publishing(
    root: Path, mode: str = "live", hold_at: int = 10**9
) -> Iterator[tuple[Publisher, HoldingServer]]:
    """A publisher with five readers and an issue for December 2027, and a mail server."""
    with HoldingServer(hold_at) as server:
        made = publisher(root, LIVE.format(port=server.port, mode=mode))
        (made.root / "issues" / "2026-12").rename(made.root / "issues" / "2027-12")
        made.import_people(PEOPLE)
        yield made, server


def look(made: Publisher, now: datetime) -> int:
    """What `newsletter run --once` does at that time; it returns its exit code."""
    with environment(made.environ):
        settings = load(made.root, os.environ)
        engine = wiring.open_store(settings)
        try:
            return Look(settings, engine, now, Stop()).work()
        finally:
            engine.dispose()


def notices(made: Publisher, part: str = "subject") -> list[str]:
    """The subjects, or the texts, of what editors are told."""
    engine = create_engine(f"sqlite:///{made.root / '.newsletter' / 'newsletter.db'}")
    with engine.connect() as conn:
        found = list(conn.scalars(text(f"SELECT {part} FROM notice ORDER BY id")))
    engine.dispose()
    return found


def received(server: HoldingServer) -> list[str]:
    """Readers who got a copy, as often as they did; editors are no readers."""
    return sorted(address for address in server.recipients() if address.startswith("reader"))


EVERYBODY = sorted(address for address, _ in PEOPLE)


def test_an_issue_goes_out_at_its_time_and_nobody_has_to_watch(tmp_path: Path) -> None:
    with publishing(tmp_path) as (made, server):
        assert look(made, BEFORE) == 0
        assert look(made, DATE - timedelta(seconds=1)) == 0
        assert received(server) == []
        assert look(made, DATE) == 0
        assert received(server) == EVERYBODY
        assert look(made, DATE + timedelta(minutes=5)) == 0
        assert received(server) == EVERYBODY
        assert notices(made) == []
        [row] = json.loads(made.newsletter("status", "2027-12", "--json").stdout)
        assert (row["state"], row["kind"], row["deliveries"]["accepted"]) == ("finished", "live", 5)


def test_an_issue_that_is_not_ready_is_told_of_beforehand_and_held_at_its_time(
    tmp_path: Path, capsys
) -> None:
    with publishing(tmp_path) as (made, server):
        look(made, BEFORE)
        issue = made.root / "issues" / "2027-12" / "issue.toml"
        right = issue.read_text()
        issue.write_text(right.replace('subject = "', 'subjekt = "'))
        assert look(made, DATE - timedelta(days=2)) == 0
        assert look(made, DATE - timedelta(days=1)) == 0
        assert notices(made) == ["Research Digest: 2027-12 to readers is not ready yet"]
        assert "The issue 2027-12 can't be used as it is" in capsys.readouterr().err

        assert look(made, DATE) == 3
        assert notices(made)[1:] == ["Research Digest: 2027-12 to readers was not sent"]
        said = capsys.readouterr()
        assert "2027-12 to readers is held: The issue 2027-12 can't be used as it is" in said.err
        assert "Next: newsletter send 2027-12 --list readers" in said.out

        issue.write_text(right)  # mended, it stays held: a person says when
        assert look(made, DATE + timedelta(minutes=5)) == 0
        assert received(server) == []
        shown = made.newsletter("schedule").stdout
        assert "held: The issue 2027-12" in shown
        assert "Next: newsletter send 2027-12 --list readers\n      newsletter cancel 2027-12" in shown
        made.newsletter("send", "2027-12", "--confirm", "5", "--clock-is-right")
        assert received(server) == EVERYBODY
        assert look(made, DATE + timedelta(minutes=10)) == 0
        assert received(server) == EVERYBODY


def test_a_missing_issue_two_issues_and_an_empty_list_are_told_of(tmp_path: Path, capsys) -> None:
    with publishing(tmp_path) as (made, server):
        look(made, BEFORE)
        issues = made.root / "issues"
        (issues / "2027-12").rename(issues / "special")
        look(made, DATE - timedelta(days=2))
        assert (
            "there is no issue for 2027-12 yet\nWrite it: newsletter new 2027-12" in capsys.readouterr().err
        )
        assert look(made, DATE) == 3
        assert "there is no issue for 2027-12" in made.newsletter("schedule").stdout
        assert len(notices(made)) == 2

        january = datetime(2028, 1, 4, 9, tzinfo=UTC)
        for name in ("2028-01", "2028-01-extra"):
            (issues / name).mkdir()
            for file in (issues / "special").iterdir():
                (issues / name / file.name).write_bytes(file.read_bytes())
        assert look(made, january) == 3
        assert "2028-01 and 2028-01-extra all have the period 2028-01" in capsys.readouterr().err
        assert received(server) == []


def test_where_nothing_may_leave_it_is_held(tmp_path: Path, capsys) -> None:
    with publishing(tmp_path, mode="off") as (made, server):
        look(made, BEFORE)
        look(made, DATE - timedelta(days=1))
        assert "not ready for Tue 07 Dec 2027 09:00 GMT: sending is switched off" in capsys.readouterr().err
        assert look(made, DATE) == 5
        assert "held: sending is switched off" in made.newsletter("schedule").stdout
        assert received(server) == []


@pytest.mark.parametrize(
    ("late", "copies", "notice"),
    [("hold", 0, "was not"), ("send", 5, "goes out late"), ("drop", 0, "is not")],
)
def test_a_machine_that_was_off_over_the_date_does_as_configured_and_says_so(
    tmp_path: Path, late: str, copies: int, notice: str
) -> None:
    with publishing(tmp_path) as (made, server):
        made.configure(
            LIVE.format(port=server.port, mode="live").replace("[sending]", f'late = "{late}"\n[sending]')
        )
        look(made, BEFORE)
        code = look(made, DATE + timedelta(days=1))
        assert (code, len(received(server))) == ((0, 5) if copies else (5, 0))
        assert [notice in subject for subject in notices(made)] == [True]


def test_what_was_cut_off_goes_on_by_itself(tmp_path: Path) -> None:
    with publishing(tmp_path, hold_at=3) as (made, server):
        look(made, BEFORE)
        # Due a moment ago by the real clock, for a process of its own: a date of a person's.
        moment = datetime.now(UTC) + timedelta(minutes=2)
        made.newsletter("send", "2027-12", "--at", f"{moment:%Y-%m-%d %H:%M}", "--confirm", "5")
        set_back(made, moment - timedelta(minutes=3))
        process = made.start("run", "--once", "--clock-is-right")
        wait_for(server.holding, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        server.release()
        again = made.newsletter("run", "--once", "--clock-is-right", check=False)
        assert again.returncode == 7, again.stderr
        assert "Going on with 2027-12 to readers" in again.stdout
        assert max(Counter(received(server)).values()) == 1
        assert made.newsletter("run", "--once", "--clock-is-right").returncode == 0


def set_back(made: Publisher, due: datetime) -> None:
    """The appointment's time is that, and the last look was before it."""
    engine = create_engine(f"sqlite:///{made.root / '.newsletter' / 'newsletter.db'}")
    with engine.begin() as conn:
        micros = int(due.timestamp()) * 1_000_000
        conn.execute(text("UPDATE appointment SET due_at = :due WHERE issue IS NOT NULL"), {"due": micros})
    engine.dispose()


def test_the_loop_sends_at_the_time_and_ends_when_told(tmp_path: Path) -> None:
    with publishing(tmp_path) as (made, server):
        made.configure(LIVE.format(port=server.port, mode="live").replace("send =", "# send ="))
        moment = datetime.now(UTC) + timedelta(minutes=2)
        made.newsletter("send", "2027-12", "--at", f"{moment:%Y-%m-%d %H:%M}", "--confirm", "5")
        set_back(made, datetime.now(UTC) + timedelta(seconds=2))
        process = made.start("run")
        wait_for(lambda: received(server) == EVERYBODY, process)
        assert "`newsletter run` is at work." in made.newsletter("schedule").stdout
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate()
        assert (process.returncode, errors) == (0, "")
        assert out.startswith("At work.")
        assert out.endswith("Stopped.\n")


# Dates


def test_the_schedule_shows_the_next_twelve_dates_and_their_issues(tmp_path: Path) -> None:
    with publishing(tmp_path) as (made, _):
        said = made.newsletter("schedule")
        rows = [line for line in said.stdout.splitlines() if re.match(r"[A-Z][a-z]{2} \d\d [A-Z]", line)]
        assert len(rows) == 12
        assert all(row.startswith("Tue ") for row in rows)
        assert "`newsletter run` is at work, and it never was" in said.stderr
        found = json.loads(made.newsletter("schedule", "--json").stdout)
        assert {len(found), *(len(each["period"]) for each in found)} == {12, 7}


def test_an_issue_can_be_given_a_date_and_the_date_be_taken_back(tmp_path: Path) -> None:
    with publishing(tmp_path) as (made, _):
        asked = ("send", "2027-12", "--at", "2099-12-09 10:30")
        assert "at  Wed 09 Dec 2099 10:30 GMT" in made.newsletter(*asked, "--dry-run").stdout
        assert "Wed 09 Dec 2099" not in made.newsletter("schedule").stdout
        unconfirmed = made.newsletter(*asked, check=False)
        assert (unconfirmed.returncode, "--confirm 5" in unconfirmed.stderr) == (5, True)
        said = made.newsletter(*asked, "--confirm", "5")
        assert "2027-12 to readers goes out on Wed 09 Dec 2099 10:30 GMT." in said.stdout
        assert "Wed 09 Dec 2099 10:30 GMT  2027-12  2027-12  ready" in made.newsletter("schedule").stdout
        stands = made.newsletter("status")
        assert "2027-12 to readers is to go out on Wed 09 Dec 2099" in stands.stdout
        assert stands.stdout.splitlines()[-1].startswith("Next: ")
        assert "`newsletter run` is at work, and it never was" in stands.stderr
        assert "does not go out by itself" in made.newsletter("cancel", "2027-12").stdout
        assert "2099" not in made.newsletter("schedule").stdout


def test_editors_get_words_of_their_language_and_commands_that_name_the_issue(tmp_path: Path, capsys) -> None:
    with publishing(tmp_path) as (made, _):
        made.set(language="de")
        folder = made.root / "issues" / "2027-12"
        folder.joinpath("issue.toml").write_text(
            'period = "2027-12"\n' + folder.joinpath("issue.toml").read_text()
        )
        folder.rename(made.root / "issues" / "eisen")
        look(made, BEFORE)
        assert look(made, DATE - timedelta(days=2)) == 0
        assert look(made, DATE + timedelta(days=1)) == 5
        assert notices(made) == ["Research Digest: eisen an readers wurde nicht verschickt"]
        [mail] = notices(made, "text")
        assert "Es ist später, als max_lateness in newsletter.toml erlaubt." in mail
        assert "newsletter send eisen --list readers" in mail
        assert "Next: newsletter send eisen --list readers" in capsys.readouterr().out
        assert "does not go out by itself" in made.newsletter("cancel", "eisen").stdout


def test_a_reason_of_several_lines_is_whole_in_the_mail_and_short_in_tables(tmp_path: Path) -> None:
    with publishing(tmp_path) as (made, _):
        file = made.root / "newsletter.toml"
        file.write_text(file.read_text() + '[approval]\nrequire = ["editor"]\n')
        look(made, BEFORE)
        assert look(made, DATE) == 5
        [mail] = notices(made, "text")
        assert "    editor: nobody yet\n`newsletter approve 2027-12 --list readers --role editor" in mail
        row = r"held: issues/2027-12 is not approved for the list readers, and nothing was sent\.$"
        assert re.search(row, made.newsletter("schedule").stdout, re.MULTILINE)


def test_how_far_it_looks_ahead_is_said_in_the_unit_of_the_setting(tmp_path: Path) -> None:
    made = publisher(tmp_path, '[schedule]\nremind = "12h"\n')
    assert "Nothing is to go out within 12 hours." in made.newsletter("run", "--once").stdout


def test_a_date_is_not_taken_back_in_place_of_a_rehearsal_that_is_being_sent(tmp_path: Path) -> None:
    with publishing(tmp_path) as (made, _):
        made.newsletter("send", "2027-12", "--at", "2099-12-09 10:30", "--confirm", "5")
        made.configure("")
        made.newsletter("send", "2027-12", "--confirm", "5")
        engine = create_engine(f"sqlite:///{made.root / '.newsletter' / 'newsletter.db'}")
        with engine.begin() as conn:
            conn.execute(text("UPDATE campaign SET state = 'paused'"))
        engine.dispose()
        asked = made.newsletter("cancel", "2027-12", "--yes", check=False)
        assert (asked.returncode, "Add --kind" in asked.stderr) == (2, True)
        assert "is cancelled" in made.newsletter("cancel", "2027-12", "--kind", "rehearsal", "--yes").stdout
        assert "its period is free" in made.newsletter("cancel", "2027-12", "--kind", "live").stdout


def test_what_to_install_is_printed_or_written(tmp_path: Path) -> None:
    with publishing(tmp_path / "press") as (made, _):
        printed = made.newsletter("schedule", "--systemd", "--user", "digest").stdout
        assert "# --- /etc/systemd/system/newsletter-run.timer" in printed
        assert f"WorkingDirectory={made.root}\n" in printed
        assert "User=digest\n" in printed
        made.newsletter("schedule", "--systemd", "--out", str(tmp_path / "units"))
        written = {file.name for file in (tmp_path / "units").iterdir()}
        assert written >= {"newsletter-run.service", "newsletter-run.timer", "newsletter-serve.service"}
        assert "run --once" in made.newsletter("schedule", "--cron").stdout
        refused = made.newsletter(
            "schedule", "--systemd", "--out", str(made.root / ".env" / "units"), check=False
        )
        assert (refused.returncode, "can't be written" in refused.stderr) == (2, True), refused.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--systemd", "--cron"), "ask for one"),
        (("--json", "--cron"), "ask for one"),
        (("--out", "units"), "Add --systemd."),
        (("--systemd", "--out", "/proc/units"), "/proc/units can't be written: "),
    ],
)
def test_what_can_not_be_printed_or_written_is_said(
    tmp_path: Path, options: tuple[str, ...], told: str
) -> None:
    done = publisher(tmp_path).newsletter("schedule", *options, check=False)
    assert (done.returncode, told in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("at", "told"),
    [
        ("2020-01-01 09:00", "is past"),
        ("soon", "must be a date and a time"),
        ("2099-02-29 09:00", "does not exist"),
    ],
)
def test_a_time_that_can_not_be_meant_is_refused(tmp_path: Path, at: str, told: str) -> None:
    with publishing(tmp_path) as (made, _):
        refused = made.newsletter("send", "2027-12", "--at", at, "--confirm", "5", check=False)
        assert (refused.returncode, told in refused.stderr) == (2, True), refused.stderr


# Several, and the worst moments


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_two_schedulers_that_look_at_the_same_moment_send_once(
    tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    races = 4
    url = {} if database == "sqlite" else {"DATABASE_URL": request.getfixturevalue("postgresql_url")}
    with HoldingServer() as server:
        made = schedulers.scheduled(tmp_path / "press", server.port, races, url)
        made.import_people(PEOPLE[:2])
        found = schedulers.run(made, "race", races)
        assert_once_each(made, server, races, people=2)
        assert {each["code"] for each in found} == {0}, found


def test_a_scheduler_killed_between_two_writes_leaves_what_the_next_one_brings_to_its_end(
    tmp_path: Path,
) -> None:
    kills = 6
    with HoldingServer() as server:
        made = schedulers.scheduled(tmp_path / "press", server.port, kills + 1)
        made.import_people(PEOPLE[:2])
        found = schedulers.run(made, "kill", kills)
        assert {each["killed"] for each in found} == {-signal.SIGKILL}
        assert {each["again"] for each in found} <= {0, 7}
        assert_once_each(made, server, kills + 1, people=2)


def assert_once_each(made: Publisher, server: HoldingServer, count: int, *, people: int) -> None:
    """Each date has one campaign, which has ended; nobody has an issue twice, and every doubt has a name."""
    status = json.loads(made.newsletter("status", "--json").stdout)
    wanted = sorted(each.period for each in schedulers.dates(count))
    assert sorted(row["period"] for row in status) == wanted
    assert {row["state"] for row in status} == {"finished"}
    unknown = sum(row["deliveries"]["unknown"] for row in status)
    assert sum(row["deliveries"]["accepted"] for row in status) + unknown == count * people
    book = zip(server.recipients(), server.messages(), strict=True)  # mails to editors are in it too
    copies = Counter(_message_id(message) for address, message in book if address.startswith("reader"))
    assert max(copies.values()) == 1
    assert count * people - unknown <= len(copies) <= count * people


def _message_id(message: bytes) -> bytes:
    found = re.search(rb"(?mi)^Message-ID: (.*?)\r?$", message)
    assert found
    return found[1]

"""`send --canary` as a person types it, and the mails that editors get, through a real mail server."""

from __future__ import annotations

import json
import re
import shlex
import signal
import sqlite3
import time
from contextlib import closing, contextmanager
from email import message_from_bytes, policy
from typing import TYPE_CHECKING

import pytest

from tests.support.publisher import Publisher, crowd, publisher
from tests.support.smtp_server import ScriptedServer
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

PEOPLE = 20
LIVE = """
[sending]
mode = "{mode}"
allowlist = ["ann@example.org", "reader00000@example.org"]
transport = "smtp"
connections = 2
{more}
[smtp]
port = {port}
security = "none"
"""

DOUBTFUL = (
    "UPDATE delivery SET state = 'unknown'",
    "UPDATE campaign SET state = 'running', finished_at = NULL",
)


@pytest.fixture
def made(tmp_path: Path) -> Publisher:
    made = publisher(tmp_path)
    made.import_people(crowd(PEOPLE))
    return made


@contextmanager
def smtp(made: Publisher, more: str = "", mode: str = "live") -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        made.configure(LIVE.format(port=server.port, more=more, mode=mode))
        made.set(editors="@")
        file = made.root / "newsletter.toml"
        file.write_text(
            file.read_text().replace('editors = "@"', 'editors = ["ann@example.org", "bob@example.org"]')
        )
        yield server


def readers(server: ScriptedServer) -> list[str]:
    return [one.recipient for one in server.messages if one.recipient.startswith("reader")]


def mails(server: ScriptedServer) -> list[tuple[str, str, str]]:
    """Editor, subject and text of what they got."""
    found = [one for one in server.messages if not one.recipient.startswith("reader")]
    parsed = [message_from_bytes(one.content, policy=policy.default) for one in found]
    return [(one["To"], one["Subject"], one.get_content()) for one in parsed]  # type: ignore[attr-defined]


def status(made: Publisher) -> str:
    return made.newsletter("status").stdout


def canary(made: Publisher) -> dict[str, object] | None:
    campaigns = json.loads(made.newsletter("status", "--json").stdout)
    return campaigns[0]["canary"] if campaigns else None


def started(made: Publisher) -> subprocess.Popen[str]:
    """A send whose canary of three has its answers, and whose rest waits an hour."""
    process = made.start(*send("--canary", "3"))
    wait_for(lambda: (canary(made) or {}).get("canary_until") is not None, process)
    return process


def killed(made: Publisher) -> None:
    """One that was killed in that hour, of which two seconds are left."""
    process = started(made)
    process.kill()
    process.communicate()
    soon = int((time.time() + 2) * 1_000_000)
    change(made, f"UPDATE campaign SET canary_until = {soon}")


def change(made: Publisher, *statements: str) -> None:
    """What other tests show to happen, made so without their detours."""
    with closing(sqlite3.connect(made.root / ".newsletter" / "newsletter.db")) as database, database:
        for statement in statements:
            database.execute(statement)


def send(*more: str) -> tuple[str, ...]:
    return ("send", "2026-12", "--confirm", str(PEOPLE), *more)


# --- asking for one ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "options", "line"),
    [
        ("", (), None),
        ("", ("--canary", "10%"), "2 of 20 copies leave first, the rest an hour later"),
        (
            "",
            ("--canary", "5", "--canary-wait", "30m"),
            "5 of 20 copies leave first, the rest 30 minutes later",
        ),
        ("", ("--canary", "1%"), "1 of 20 copies leaves first, the rest an hour later"),
        ("", ("--canary", "20"), None),
        ('canary = "10%"\ncanary_wait = "2d"', (), "2 of 20 copies leave first, the rest 2 days later"),
        ('canary = "10%"', ("--canary-wait", "90s"), "2 of 20 copies leave first, the rest 90 seconds later"),
        ('canary = "10%"', ("--canary", "off"), None),
    ],
)
def test_the_plan_says_who_leaves_first(
    made: Publisher, setting: str, options: tuple[str, ...], line: str | None
) -> None:
    made.configure(LIVE.format(port=1, more=setting, mode="live"))
    plan = made.newsletter("send", "2026-12", "--dry-run", *options).stdout
    found = re.search(r"canary  (.*)", plan)
    assert (found[1] if found else None) == line


@pytest.mark.parametrize(
    "options",
    [
        "--canary 1% --canary-wait 30m",
        "--override 'the dose was wrong'",
        "--at '2099-12-09 10:30' --canary off",
        "--again",
    ],
)
def test_the_next_step_of_a_dry_run_is_the_same_send(made: Publisher, options: str) -> None:
    done = made.newsletter("send", "2026-12", "--dry-run", *shlex.split(options))
    assert f"Next: newsletter send 2026-12 --list readers {options} --confirm 20" in done.stdout


def test_a_rehearsal_has_one_only_if_it_is_asked_for(made: Publisher) -> None:
    made.configure('[sending]\ncanary = "10%"\n')
    assert "canary" not in made.newsletter("send", "2026-12", "--dry-run").stdout
    asked = made.newsletter("send", "2026-12", "--dry-run", "--canary", "3")
    assert "3 of 20 copies leave first" in asked.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--canary", "many"), "--canary many is neither a share nor a number of copies."),
        (("--canary", "0"), "--canary 0 is neither a share nor a number of copies."),
        (("--canary", "101%"), "Write `--canary 1%`, `--canary 50`, or `--canary off`."),
        (
            ("--canary", "1%", "--canary-wait", "soon"),
            "--canary-wait soon is no duration from a second to 30 days.",
        ),
        (("--canary-wait", "5m"), "no copies leave first"),
    ],
)
def test_what_can_not_be_meant_is_said_at_once(made: Publisher, options: tuple[str, ...], said: str) -> None:
    done = made.newsletter("send", "2026-12", "--dry-run", *options, check=False)
    assert done.returncode == 2
    assert said in done.stderr


# --- sending with one ----------------------------------------------------------------------------------------------


def test_the_rest_waits_is_killed_meanwhile_and_everybody_gets_one(made: Publisher) -> None:
    with smtp(made) as server:
        killed(made)
        assert len(readers(server)) == 3
        assert "running: canary of 3, the rest leaves at" in status(made)
        again = made.newsletter("send", "2026-12")
        assert "canary: 3 accepted; the rest leaves at" in again.stdout
        assert len(readers(server)) == len(set(readers(server))) == PEOPLE
        assert canary(made) is None
        assert mails(server) == [], "nothing needs a person"


def test_ctrl_c_in_the_wait_stops_as_ever_and_off_lets_the_rest_go(made: Publisher) -> None:
    with smtp(made) as server:
        process = started(made)
        assert re.search(r"canary of 3, the rest leaves at \d\d:\d\d; sent by process", status(made))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 8, errors
        assert "was stopped as you asked: 3 accepted, 17 waiting" in errors
        looked = made.newsletter("send", "2026-12", "--canary", "off", "--dry-run")
        assert "Next: newsletter send 2026-12 --list readers --canary off" in looked.stdout
        done = made.newsletter("send", "2026-12", "--canary", "off")
        assert "The canary is over by your word" in done.stdout
        assert len(readers(server)) == PEOPLE


def test_one_that_has_begun_keeps_its_canary(made: Publisher) -> None:
    with smtp(made):
        killed(made)
        done = made.newsletter("send", "2026-12", "--canary", "7")
    assert "keeps the canary that it began with" in done.stderr


def test_a_failed_one_is_told_to_the_editors_and_resuming_sends_the_rest(made: Publisher) -> None:
    with smtp(made) as server:
        everybody = [address for address, _ in crowd(PEOPLE)]
        server.refused.update({address: "550 5.7.1 no, <" + address + ">" for address in everybody})
        done = made.newsletter(*send("--canary", "3"), check=False)
        assert done.returncode == 8
        assert "of the canary of 3, 3 refused: the rest is held back, and resuming sends it" in done.stderr
        assert [(to, subject) for to, subject, _ in mails(server)] == [
            (f"{who}@example.org", "Research Digest 2026-12: sending is paused") for who in ("ann", "bob")
        ]
        text = mails(server)[0][2]
        assert "So far: 0 accepted, 3 refused, 0 unknown, 17 waiting." in text
        assert "newsletter resume 2026-12 --list readers --kind live" in text
        assert "reader0" not in text
        assert "Sclerosis" not in text
        server.refused.clear()
        made.newsletter("resume", "2026-12")
        made.newsletter("send", "2026-12")
        assert len(readers(server)) == PEOPLE - 3
        assert len(mails(server)) == 2, "told once"


# --- the editors' mails --------------------------------------------------------------------------------------------


def test_a_mail_that_can_not_leave_is_a_warning_and_no_other_exit_code(made: Publisher) -> None:
    made.configure(LIVE.format(port=1, more="", mode="live"))
    done = made.newsletter(*send(), check=False)
    assert done.returncode == 8, (
        "paused, because no server is there; that the editor can't be told changes nothing"
    )
    assert "Warning: 1 mail to the editors still to be sent: not taken." in done.stderr
    assert "1 mail to the editors still to be sent" in made.newsletter("status").stderr


def test_in_allowlist_mode_a_rehearsal_shows_what_editors_get_to_those_on_the_list(made: Publisher) -> None:
    with smtp(made, mode="allowlist") as server:
        server.refused["reader00000@example.org"] = "550 5.7.1 no"
        made.newsletter("send", "2026-12", "--confirm", "1", check=False)
        change(made, *DOUBTFUL)
        made.newsletter("cancel", "2026-12", "--yes")
        assert [(to, subject) for to, subject, _ in mails(server)] == [
            ("ann@example.org", "Research Digest 2026-12: 1 unknown")
        ]
    assert "editors" not in made.newsletter("status").stderr


def test_a_folder_tells_nobody(made: Publisher) -> None:
    made.newsletter(*send())
    change(made, *DOUBTFUL)
    made.newsletter("cancel", "2026-12", "--yes")
    assert not (made.root / ".newsletter" / "outbox" / "notices").exists()
    assert made.newsletter("status").stderr == ""

"""`newsletter resolve`, as a person types it: four readers got their copy, of two nobody can say."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
from collections import Counter
from email import message_from_bytes
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from newsletter.model import CampaignState, DeliveryState
from newsletter.store.engine import open_engine, write
from newsletter.store.schema import campaign, delivery
from tests.support.holding import HoldingServer
from tests.support.publisher import Publisher, crowd, publisher
from tests.support.smtp_server import USUAL, Cut, ScriptedServer, Taken
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

LIVE = """
[sending]
mode = "live"
transport = "smtp"
connections = 1
[smtp]
port = {port}
security = "none"
"""
ARRIVED = "reader00001@example.org"  # the server kept it, and its answer was lost
LOST = "reader00003@example.org"  # the server ended in the middle of it
DOTS = [USUAL["dot"], Taken(Cut), USUAL["dot"], Cut]


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which an issue was sent once."""
    with ScriptedServer({"dot": DOTS}) as server:
        made = publisher(tmp_path_factory.mktemp("sent"), LIVE.format(port=server.port))
        made.import_people(crowd(6))
        done = made.newsletter("send", "2026-12", "--confirm", "6", check=False)
    assert done.returncode == 7, done.stderr
    return made.root


@pytest.fixture
def made(sent: Path, tmp_path: Path) -> Publisher:
    copy = Publisher(shutil.copytree(sent, tmp_path / "copy"))
    copy.move_in()
    return copy


def states(made: Publisher) -> dict[str, str]:
    return {row["address"]: row["state"] for row in rows(made)}


def rows(made: Publisher) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(
        made.newsletter("deliveries", "2026-12", "--format", "json").stdout
    )
    return found


def campaign_state(made: Publisher) -> str:
    (campaign,) = json.loads(made.newsletter("status", "2026-12", "--json").stdout)
    return str(campaign["state"])


def test_the_unknown_are_listed_with_all_that_is_known_and_the_two_ways_out(made: Publisher) -> None:
    listed = made.newsletter("resolve", "2026-12", check=False)
    assert listed.returncode == 7
    assert "nobody can say whether 2 copies arrived" in listed.stdout
    lines = {line.split()[0]: line for line in listed.stdout.splitlines() if "@example.org" in line}
    assert set(lines) == {ARRIVED, LOST}
    ids = {row["address"]: row["id"] for row in rows(made)}
    for address, line in lines.items():
        assert ids[address] in line
        assert "smtp 127.0.0.1:" in line
        assert "Connection reset by peer" in line
    assert "--resend" in listed.stdout
    assert "--assume-accepted" in listed.stdout


def test_the_list_for_scripts_says_the_same(made: Publisher) -> None:
    listed = made.newsletter("resolve", "2026-12", "--json", check=False)
    assert listed.returncode == 7
    found = json.loads(listed.stdout)
    assert [row["address"] for row in found] == [ARRIVED, LOST]
    assert {row["handed_at"] is not None for row in found} == {True}
    assert all(row["sender"].startswith("process ") for row in found)


def test_a_resent_copy_reaches_its_reader_with_the_message_id_of_the_first(made: Publisher) -> None:
    ids = {row["address"]: row["id"] for row in rows(made)}
    said = made.newsletter("resolve", "2026-12", LOST.upper(), "--resend", "--confirm", "1").stdout
    assert "Next: newsletter send 2026-12 --list readers" in said
    assert campaign_state(made) == "running"
    with HoldingServer() as server:
        made.configure(LIVE.format(port=server.port))
        sent = made.newsletter("send", "2026-12", check=False)
        assert sent.returncode == 7  # the other one is still unknown
        assert server.recipients() == [LOST, "editor@example.org"], "who is told of the other one"
        copy = server.messages()[0]
    assert message_from_bytes(copy)["Message-ID"] == f"<{ids[LOST]}@example.org>"
    assert states(made) == dict.fromkeys(ids, "accepted") | {ARRIVED: "unknown"}
    assert campaign_state(made) == "finished"


def test_what_is_assumed_accepted_is_closed_and_nothing_leaves(made: Publisher) -> None:
    said = made.newsletter("resolve", "2026-12", "--all", "--assume-accepted", "--confirm", "2").stdout
    assert "4 accepted, 2 closed" in said
    assert campaign_state(made) == "finished"
    again = made.newsletter("send", "2026-12")
    assert "nobody gets it twice" in again.stdout
    assert "nothing to resolve" in made.newsletter("resolve", "2026-12").stdout


def test_an_address_that_is_not_unknown_is_named_and_nothing_changes(made: Publisher) -> None:
    before = rows(made)
    for address, told in [
        ("reader00000@example.org", "is accepted"),
        ("who@example.org", "has no copy in it"),
    ]:
        refused = made.newsletter(
            "resolve", "2026-12", LOST, address, "--resend", "--confirm", "2", check=False
        )
        assert refused.returncode == 2
        assert f"{address[0]}…@e…org {told}" in refused.stderr
    assert rows(made) == before


@pytest.mark.parametrize("confirm", [(), ("--confirm", "1")])
def test_nothing_changes_without_the_right_number(made: Publisher, confirm: tuple[str, ...]) -> None:
    before = rows(made)
    refused = made.newsletter("resolve", "2026-12", "--all", "--resend", *confirm, check=False)
    assert refused.returncode == 5
    assert "Nothing was changed" in refused.stderr or "--confirm 2" in refused.stderr
    assert rows(made) == before


def test_on_a_terminal_the_plan_is_shown_and_the_number_is_asked_for(made: Publisher) -> None:
    terminal, side = pty.openpty()
    call = made.command("resolve", "2026-12", "--all", "--assume-accepted")
    process = subprocess.Popen(call, stdin=side, stdout=side, stderr=side, env=made.env())
    os.close(side)
    seen = ""
    while "Type the number of copies" not in seen:
        seen += os.read(terminal, 1000).decode()
    assert "2 copies of 2026-12 to readers: assumed accepted." in seen
    os.write(terminal, b"2\n")
    assert process.wait(60) == 0
    os.close(terminal)
    assert Counter(states(made).values()) == {"accepted": 4, "closed": 2}


@pytest.mark.parametrize(
    "args",
    [
        ("--resend",),
        ("--all",),
        (LOST,),
        ("--all", LOST, "--resend"),
        ("--all", "--resend", "--assume-accepted"),
    ],
)
def test_a_call_that_does_not_say_what_or_which_is_refused(made: Publisher, args: tuple[str, ...]) -> None:
    refused = made.newsletter("resolve", "2026-12", *args, check=False)
    assert refused.returncode == 2
    assert "→" in refused.stderr


def test_who_has_left_since_is_counted_in_the_plan_and_gets_no_second_copy(made: Publisher) -> None:
    made.newsletter("subscribers", "unsubscribe", ARRIVED)
    said = made.newsletter("resolve", "2026-12", "--all", "--resend", "--confirm", "2").stdout
    assert "Left or suppressed since: 1." in said
    with HoldingServer() as server:
        made.configure(LIVE.format(port=server.port))
        made.newsletter("send", "2026-12")
        assert server.recipients() == [LOST]


def test_resolving_twice_does_it_once(made: Publisher) -> None:
    call = ("resolve", "2026-12", "--all", "--resend", "--json")
    assert json.loads(made.newsletter(*call, "--confirm", "2").stdout) == {
        "done": "resend",
        "copies": 2,
        "left": 0,
        "still_unknown": 0,
    }
    assert json.loads(made.newsletter(*call).stdout)["copies"] == 0  # nothing to confirm either


def test_a_paused_campaign_stays_paused_and_the_next_steps_say_so(made: Publisher) -> None:
    made.newsletter("resolve", "2026-12", ARRIVED, "--resend", "--confirm", "1")
    made.newsletter("pause", "2026-12")
    said = made.newsletter("resolve", "2026-12", LOST, "--resend", "--confirm", "1").stdout
    assert "Next: newsletter resume 2026-12 --list readers --kind live\n" in said
    assert campaign_state(made) == "paused"


def test_a_cancelled_campaign_sends_nothing_more_but_its_doubts_can_be_closed(made: Publisher) -> None:
    made.newsletter("resolve", "2026-12", ARRIVED, "--resend", "--confirm", "1")
    made.newsletter("cancel", "2026-12", "--yes")
    refused = made.newsletter("resolve", "2026-12", "--all", "--resend", "--confirm", "1", check=False)
    assert refused.returncode == 5
    assert "was cancelled" in refused.stderr
    made.newsletter("resolve", "2026-12", "--all", "--assume-accepted", "--confirm", "1")
    assert states(made)[LOST] == "closed"


def test_send_status_and_deliveries_lead_to_resolve(made: Publisher) -> None:
    for call in ("status", "deliveries"):
        said = made.newsletter(call, "2026-12").stdout
        assert said.endswith("Next: newsletter resolve 2026-12 --list readers --kind live\n")


def test_after_a_kill_the_unknown_are_listed_before_anybody_sends_again(tmp_path: Path) -> None:
    with HoldingServer(hold_at=4) as server:
        made = publisher(tmp_path, LIVE.format(port=server.port))
        made.import_people(crowd(6))
        process = made.start("send", "2026-12", "--confirm", "6")
        wait_for(server.holding, process)
        assert "nothing to resolve" in made.newsletter("resolve", "2026-12").stdout  # it may still answer
        process.send_signal(signal.SIGKILL)
        process.communicate()
    listed = json.loads(made.newsletter("resolve", "2026-12", "--json", check=False).stdout)
    assert 1 <= len(listed) <= 2  # one in flight, and one that may have been marked
    assert "nobody is sending it; `newsletter send 2026-12" in made.newsletter("status").stdout


def test_in_a_rehearsal_the_folder_itself_is_the_evidence(tmp_path: Path) -> None:
    made = publisher(tmp_path)
    made.import_people(crowd(2))
    made.newsletter("send", "2026-12", "--confirm", "2")
    as_a_kill_leaves_it(tmp_path / ".newsletter" / "newsletter.db")
    first, second = rows(made)
    (made.outbox / f"{first['id']}.eml").unlink()
    listed = json.loads(made.newsletter("resolve", "2026-12", "--json", check=False).stdout)
    assert [row["evidence"] for row in listed] == ["no file was written", "its file was written"]
    assert "leaves its file behind" in made.newsletter("resolve", "2026-12", check=False).stdout
    made.newsletter("resolve", "2026-12", first["address"], "--resend", "--confirm", "1")
    made.newsletter("resolve", "2026-12", second["address"], "--assume-accepted", "--confirm", "1")
    made.newsletter("send", "2026-12")
    assert len(list(made.outbox.glob("*.eml"))) == 2


def as_a_kill_leaves_it(database: Path) -> None:
    """Every copy handed over, and no answer stored."""
    engine = open_engine(f"sqlite:///{database}")
    running = {"state": CampaignState.RUNNING, "finished_at": None}
    write(engine, lambda conn: conn.execute(update(campaign).values(running)))
    write(engine, lambda conn: conn.execute(update(delivery).values(state=DeliveryState.HANDED)))
    engine.dispose()

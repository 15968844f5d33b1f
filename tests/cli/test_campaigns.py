"""`status` and `deliveries` tell the truth at any size; `pause`, `resume` and `cancel` work from another process."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import pytest

from newsletter import sending
from newsletter.cli import streaming
from newsletter.cli.campaigns import Work, standing
from newsletter.model import Accepted, Campaign, CampaignState, Kind
from newsletter.store import campaigns
from newsletter.store.engine import open_engine, write
from newsletter.store.owners import Owner
from newsletter.transports.memory import MemoryTransport
from tests.support import ledgers
from tests.support.holding import HoldingServer
from tests.support.publication import NINE
from tests.support.publisher import Publisher, crowd, publisher
from tests.support.smtp_server import ScriptedServer, closed_port
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Engine

    from newsletter.model import Recipient
    from newsletter.transports.memory import Answer

PEOPLE = 60
LANES = 2
LIVE = """
[sending]
mode = "live"
transport = "smtp"
connections = 2
retry = ["10m"]
[smtp]
port = {port}
security = "none"
"""


# --- who is at work --------------------------------------------------------------------------------------------


def a_campaign(state: CampaignState, reason: str = "") -> Campaign:
    return Campaign(
        id=7, issue="2026-12", period="2026-12", list="readers", kind=Kind.LIVE, attempt=1, state=state,
        transport="smtp", digest="", created_at=NINE, started_at=NINE, reason=reason,
    )  # fmt: skip


def a_sender(name: str, campaign_id: int | None = 7, settled_at: datetime | None = None) -> Owner:
    return Owner(
        id=name, campaign_id=campaign_id, name=name, way="smtp mail.example.org:587", started_at=NINE,
        seen_at=NINE, settled_at=settled_at, ended_at=None,
    )  # fmt: skip


def told(state: CampaignState, *living: Owner, after: timedelta = timedelta(0), reason: str = "") -> str:
    campaign = a_campaign(state, reason)
    return standing(campaign, Work.on(campaign, living, NINE + after))


def test_a_running_campaign_that_nobody_sends_says_so_with_the_command_that_goes_on() -> None:
    alone = "running: nobody is sending it; `newsletter send 2026-12 --list readers` goes on"
    assert told(CampaignState.RUNNING) == alone
    assert told(CampaignState.RUNNING, a_sender("elsewhere", campaign_id=8)) == alone


def test_everyone_who_sends_it_is_named() -> None:
    living = (a_sender("process 1 on a"), a_sender("elsewhere", campaign_id=8), a_sender("process 2 on b"))
    assert told(CampaignState.RUNNING, *living) == "running: sent by process 1 on a and process 2 on b"


def test_a_sender_that_stores_no_answer_for_a_quarter_of_an_hour_is_reported() -> None:
    """As listmonk's campaigns that show "running" and send nothing."""
    quiet, minutes = a_sender("process 1 on a", settled_at=NINE + timedelta(minutes=2)), timedelta(minutes=1)
    assert told(CampaignState.RUNNING, quiet, after=16 * minutes) == "running: sent by process 1 on a"
    since = f"{(NINE + 2 * minutes).astimezone():%Y-%m-%d %H:%M}"
    stalled = told(CampaignState.RUNNING, quiet, after=17 * minutes)
    assert stalled == f"running: sent by process 1 on a; no progress since {since}"
    busy = a_sender("process 2 on b", settled_at=NINE + 16 * minutes)
    assert "no progress" not in told(CampaignState.RUNNING, quiet, busy, after=17 * minutes)


def test_one_that_never_stored_an_answer_counts_from_its_start() -> None:
    assert "no progress" in told(CampaignState.RUNNING, a_sender("one"), after=timedelta(minutes=15))


def test_a_campaign_that_is_being_frozen_says_what_that_means() -> None:
    freezing = told(CampaignState.PREPARING, a_sender("process 1 on a", campaign_id=None))
    assert freezing == "preparing: is being frozen by process 1 on a; nothing has left"
    cut = told(CampaignState.PREPARING)
    assert cut == (
        "preparing: the freeze was cut off and nothing has left; "
        "`newsletter send 2026-12 --list readers` goes on with it"
    )


def test_a_paused_campaign_says_why() -> None:
    assert told(CampaignState.PAUSED, reason="by hand") == "paused: by hand"


# --- steering from another process -----------------------------------------------------------------------------


@contextmanager
def in_the_middle(tmp_path: Path) -> Iterator[tuple[Publisher, HoldingServer, subprocess.Popen[str]]]:
    """A real `send` whose server holds back its answers from the 20th copy on."""
    with HoldingServer(hold_at=20) as server:
        made = publisher(tmp_path, LIVE.format(port=server.port))
        made.import_people(crowd(PEOPLE))
        process = made.start("send", "2026-12", "--confirm", str(PEOPLE))
        wait_for(server.holding, process)
        yield made, server, process


def rows(made: Publisher) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(
        made.newsletter("deliveries", "2026-12", "--format", "json").stdout
    )
    return found


def handed(made: Publisher) -> list[datetime]:
    return [datetime.fromisoformat(row["handed_at"]) for row in rows(made) if row["handed_at"]]


def the_campaign(made: Publisher) -> dict[str, object]:
    (found,) = json.loads(made.newsletter("status", "2026-12", "--json").stdout)
    return dict(found)


def test_nothing_is_handed_over_after_a_pause_from_another_process(tmp_path: Path) -> None:
    with in_the_middle(tmp_path) as (made, server, process):
        assert f"sent by process {process.pid} on" in made.newsletter("status").stdout
        said = made.newsletter("pause", "2026-12").stdout
        assert "Next: newsletter resume 2026-12 --list readers --kind live" in said
        paused = datetime.now(UTC)
        assert "is paused" in said
        server.release()
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 8, errors
        assert "is paused: by hand" in errors
        assert max(handed(made)) <= paused
        assert {row["state"] for row in rows(made)} == {"accepted", "pending"}
        assert (the_campaign(made)["state"], the_campaign(made)["senders"]) == ("paused", [])
        made.newsletter("resume", "2026-12")
        assert "nobody is sending it" in made.newsletter("status").stdout
        made.newsletter("send", "2026-12")
        assert sorted(server.recipients()) == [address for address, _ in crowd(PEOPLE)]


def test_nothing_is_handed_over_after_a_cancel_from_another_process(tmp_path: Path) -> None:
    with in_the_middle(tmp_path) as (made, server, process):
        made.newsletter("cancel", "2026-12", "--yes")
        cancelled = datetime.now(UTC)
        server.release()
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 5, errors
        assert "was cancelled while it was being sent" in errors
        assert max(handed(made)) <= cancelled
        found = Counter(row["state"] for row in rows(made))
        assert set(found) == {"accepted", "skipped"}
        assert found["accepted"] == len(server.recipients())


def test_a_sender_that_waits_for_its_next_try_notices_a_pause_too(tmp_path: Path) -> None:
    with ScriptedServer(usual={"RCPT": "450 4.2.1 later"}) as server:
        made = publisher(tmp_path, LIVE.format(port=server.port))
        made.import_people(crowd(2))
        process = made.start("send", "2026-12", "--confirm", "2")
        wait_for(lambda: "waiting until" in process.stdout.readline(), process)
        made.newsletter("pause", "2026-12")
        process.communicate(timeout=60)  # the next try is ten minutes away
        assert process.returncode == 8


def test_twenty_pauses_at_random_moments_give_nobody_two_copies(tmp_path: Path) -> None:
    """In one process, each pause written through a connection of its own while copies are on their way."""
    chance, people = random.Random(2026), 250
    engine = ledgers.open_store(tmp_path, people)
    beside = open_engine(str(engine.url))
    campaign = ledgers.freeze(engine)
    arrived: list[str] = []
    for _ in range(20):
        transport = MemoryTransport(answer=pausing(beside, campaign.id, chance.randint(1, 9)), lanes=LANES)
        campaign = sending.run(engine, campaign, transport, ledgers.WIRE, ledgers.conduct())
        assert campaign.state is CampaignState.PAUSED
        arrived += addressees(transport)
        write(engine, partial(campaigns.resume, campaign_id=campaign.id))
    last = MemoryTransport()
    campaign = sending.run(engine, campaign, last, ledgers.WIRE, ledgers.conduct())
    assert campaign.state is CampaignState.FINISHED
    assert sorted(arrived + addressees(last)) == sorted(ledgers.rows(engine, campaign))
    engine.dispose()
    beside.dispose()


def pausing(beside: Engine, campaign_id: int, at: int) -> Answer:
    """Takes every copy, and pauses the campaign while the ``at``-th is on its way."""

    def answer(recipient: Recipient, number: int) -> Accepted:
        if number == at:
            assert write(beside, lambda conn: campaigns.pause(conn, campaign_id, "by hand"))
        return Accepted(recipient.delivery)

    return answer


def addressees(transport: MemoryTransport) -> list[str]:
    return [
        message_from_bytes(message)["To"].rpartition("<")[2].rstrip(">") for message in transport.messages
    ]


@pytest.mark.full
def test_twenty_pauses_of_real_processes_give_nobody_two_copies(tmp_path: Path) -> None:
    chance, people = random.Random(2026), 2000
    made = publisher(tmp_path)
    made.import_people(crowd(people))
    arrived: list[str] = []
    for _ in range(20):
        with HoldingServer(hold_at=chance.randint(1, people // 20 - 2 * LANES)) as server:
            made.configure(LIVE.format(port=server.port))
            process = made.start("send", "2026-12", "--confirm", str(people))
            wait_for(server.holding, process)
            made.newsletter("pause", "2026-12")
            paused = datetime.now(UTC)
            server.release()
            process.communicate(timeout=60)
            assert process.returncode == 8
            assert max(handed(made)) <= paused
            arrived += server.recipients()
            made.newsletter("resume", "2026-12")
    with HoldingServer() as server:
        made.configure(LIVE.format(port=server.port))
        made.newsletter("send", "2026-12")
        assert sorted(arrived + server.recipients()) == [address for address, _ in crowd(people)]


# --- any size --------------------------------------------------------------------------------------------------


def test_a_long_table_is_aligned_as_its_first_rows_need(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("李小龙" if number % 2 else "Ann", "accepted\nbell\a", None, number) for number in range(2000)]
    streaming.print_table(("name", "state", "why", "number"), iter(rows))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "name    state           why  number"
    assert lines[1] == "Ann     accepted bell�       0"
    assert lines[2] == "李小龙  accepted bell�       1"
    assert lines[-1].endswith(" 1999")
    assert len(lines) == 2001


@pytest.mark.parametrize("count", [0, 1, 500, 501, 1234])
def test_an_array_written_piece_by_piece_is_valid_json(
    capsys: pytest.CaptureFixture[str], count: int
) -> None:
    items = [{"name": f"Zoë\x1b[2J\u2028 {number}", "state": "accepted"} for number in range(count)]
    streaming.print_json_array(iter(items))
    said = capsys.readouterr().out
    assert json.loads(said) == items
    assert "\x1b" not in said


class Seen(list[object]):
    """A row that can be watched."""


class Item(dict[str, object]):
    """An object that can be watched."""


@pytest.mark.parametrize(
    ("show", "make"),
    [
        (lambda rows: streaming.print_table(("a", "b"), rows), lambda number: Seen([number, "x"])),
        (streaming.print_json_array, lambda number: Item(a=number)),
    ],
)
@pytest.mark.usefixtures("capsys")
def test_rows_that_were_printed_are_not_held_in_memory(
    show: Callable[[Iterator[object]], None], make: Callable[[int], object]
) -> None:
    alive: WeakValueDictionary[int, object] = WeakValueDictionary()
    most = 0

    def rows() -> Iterator[object]:
        nonlocal most
        for number in range(10 * streaming.AT_ONCE):
            row = alive[number] = make(number)
            most = max(most, len(alive))
            yield row

    show(rows())
    assert most <= 2 * streaming.AT_ONCE


def test_a_campaign_of_several_pages_is_shown_whole_in_every_form(tmp_path: Path) -> None:
    made = publisher(tmp_path, LIVE.format(port=closed_port()))
    people = crowd(1200)
    made.import_people(people)
    made.newsletter(
        "send", "2026-12", "--confirm", "1200", check=False
    )  # frozen, and nobody there to take it
    everyone = [address for address, _ in people]
    assert [row["address"] for row in rows(made)] == everyone
    shown = {
        form: made.newsletter("deliveries", "2026-12", "--state", "pending", "--format", form).stdout
        for form in ("table", "address")
    }
    assert shown["address"].split() == everyone
    assert re.findall(r"reader\d+@example\.org", shown["table"]) == everyone
    assert shown["table"].startswith("2026-12 to readers: 1,200 waiting\naddress ")
    none = made.newsletter("deliveries", "2026-12", "--state", "unknown", "--format", "json").stdout
    assert json.loads(none) == []

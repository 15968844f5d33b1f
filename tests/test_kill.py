"""A sending process is killed with SIGKILL in the middle; the ledger must still tell the truth about everyone."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from email import message_from_bytes, policy
from typing import TYPE_CHECKING

import pytest

from newsletter import recovery, sending
from newsletter.model import DeliveryState
from newsletter.transports.memory import MemoryTransport
from tests.support import ledgers
from tests.support.holding import Holding, HoldingSendGrid, HoldingServer
from tests.support.publisher import crowd, publisher
from tests.support.waiting import DEADLINE_SECONDS, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.publisher import Publisher

PEOPLE = 120
MANY = 2000


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def addressee(message: bytes) -> str:
    return str(message_from_bytes(message, policy=policy.default)["To"].addresses[0].addr_spec)


def assert_the_truth(
    publisher: Publisher, arrived: list[str], *, at_most_unknown: int, people: int = PEOPLE
) -> None:
    """Nobody twice, nobody forgotten, and every doubt has a name."""
    found = publisher.newsletter("deliveries", "2026-12", "--format", "json").stdout
    states = {row["address"]: row["state"] for row in json.loads(found)}
    assert len(states) == people
    assert set(states.values()) <= {"accepted", "unknown"}
    assert max(Counter(arrived).values()) == 1
    unknown = {address for address, state in states.items() if state == "unknown"}
    assert len(unknown) <= at_most_unknown
    assert set(states) - unknown <= set(arrived)


def send(made: Publisher) -> subprocess.Popen[str]:
    return made.start("send", "2026-12", "--confirm", str(PEOPLE))


def go_on(made: Publisher, *, unknown: bool = True) -> None:
    done = made.newsletter("send", "2026-12", check=False)
    assert done.returncode == (7 if unknown else 0), done.stderr
    assert "goes on" not in done.stderr


LIVE = """
[sending]
mode = "live"
transport = "{transport}"
connections = {lanes}
[smtp]
port = {port}
security = "none"
[sendgrid]
batch = 10
url = "http://127.0.0.1:{port}"
"""


def test_killed_while_an_smtp_server_holds_its_answers(tmp_path: Path) -> None:
    with HoldingServer(hold_at=40) as server:
        made = publisher(tmp_path, LIVE.format(transport="smtp", port=server.port, lanes=3))
        made.import_people(crowd(PEOPLE))
        process = send(made)
        wait_for(server.holding, process)
        kill(process)
        server.release()
        go_on(made)
        assert_the_truth(made, server.recipients(), at_most_unknown=2 * 3)


def test_killed_while_sendgrid_holds_its_answers(tmp_path: Path) -> None:
    with HoldingSendGrid(hold_at=3) as server:
        keyed = {"SENDGRID_API_KEY": "SG.test"}
        made = publisher(tmp_path, LIVE.format(transport="sendgrid", port=server.port, lanes=2), keyed)
        made.import_people(crowd(PEOPLE))
        process = send(made)
        wait_for(server.holding, process)
        kill(process)
        server.release()
        go_on(made)
        assert_the_truth(made, server.recipients(), at_most_unknown=(10 + 1) * 2)


def test_killed_while_writing_to_the_folder(tmp_path: Path) -> None:
    made = publisher(tmp_path, '[sending]\ntransport = "folder"\nconnections = 1\n')
    made.import_people(crowd(PEOPLE))
    process = send(made)
    wait_for(lambda: len(list(made.outbox.glob("*.eml"))) >= 10, process)
    kill(process)
    done = made.newsletter("send", "2026-12", check=False)
    assert done.returncode in {0, 7}
    arrived = [addressee(file.read_bytes()) for file in made.outbox.glob("*.eml")]
    assert_the_truth(made, arrived, at_most_unknown=100 + 1)


@pytest.mark.full
@pytest.mark.parametrize(("transport", "window"), [("smtp", 1), ("sendgrid", 10)])
def test_killed_again_and_again_at_random_moments(tmp_path: Path, transport: str, window: int) -> None:
    chance, kills, lanes = random.Random(2026), 0, 4
    server_class = {"smtp": HoldingServer, "sendgrid": HoldingSendGrid}[transport]
    with server_class() as server:
        made = publisher(
            tmp_path,
            LIVE.format(transport=transport, port=server.port, lanes=lanes),
            {"SENDGRID_API_KEY": "SG.test"},
        )
        made.import_people(crowd(MANY))
        process = start_sending(made)
        while not ended(process, server, chance):
            kills += 1
            process = start_sending(made)
        assert process.returncode in {0, 7}
        assert kills >= MANY // 100
        assert_the_truth(made, server.recipients(), at_most_unknown=(window + 1) * lanes * kills, people=MANY)


def start_sending(made: Publisher) -> subprocess.Popen[str]:
    return made.start("send", "2026-12", "--confirm", str(MANY))


def ended(process: subprocess.Popen[str], server: Holding, chance: random.Random) -> bool:
    """Waits for a random number of copies, and a moment longer; then kills. True if it was over before that."""
    enough = len(server.recipients()) + chance.randint(1, 50)
    while process.poll() is None and len(server.recipients()) < enough:
        time.sleep(0.001)
    time.sleep(chance.random() / 50)
    if process.poll() is None:
        kill(process)
        return False
    process.communicate()
    return process.returncode != -signal.SIGKILL


KILLED_IN_MEMORY = """
import sys, pathlib
from newsletter import sending
from newsletter.model import Accepted
from newsletter.transports.memory import MemoryTransport
from tests.support import ledgers

def tell(recipient, number):
    print(recipient.address, flush=True)
    if number == 5:
        sys.stdin.read()
    return Accepted(recipient.delivery)

engine = ledgers.open_store(pathlib.Path(sys.argv[1]), people=20)
sending.run(engine, ledgers.freeze(engine), MemoryTransport(answer=tell), ledgers.WIRE, ledgers.conduct())
"""


def test_killed_while_handing_over_in_memory(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED_IN_MEMORY, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    told = [process.stdout.readline().strip() for _ in range(5)]
    kill(process)
    engine = ledgers.open_engine(f"sqlite:///{tmp_path / 'newsletter.db'}")
    assert recovery.recover(engine, "zombie", ledgers.NOW).unknown == 1
    campaign = sending.begun(engine, "2026-12", "readers", ledgers.TARGET.kind)
    rest = MemoryTransport()
    ended = sending.run(engine, campaign, rest, ledgers.WIRE, ledgers.conduct(owner="zombie"))
    found = ledgers.rows(engine, ended)
    arrived = [*told, *(addressee(message) for message in rest.messages)]
    assert sorted(arrived) == sorted(found)
    assert [address for address, state in found.items() if state is DeliveryState.UNKNOWN] == [told[-1]]
    engine.dispose()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_asked_to_stop_it_settles_what_is_in_flight_and_says_how_to_go_on(
    tmp_path: Path, number: int
) -> None:
    with HoldingServer(hold_at=30) as server:
        made = publisher(tmp_path, LIVE.format(transport="smtp", port=server.port, lanes=2))
        made.import_people(crowd(PEOPLE))
        process = send(made)
        wait_for(server.holding, process)
        process.send_signal(number)
        server.release()
        _, errors = process.communicate()
        assert process.returncode == 8
        assert "`newsletter send 2026-12 --list readers` goes on" in errors
        go_on(made, unknown=False)
        assert_the_truth(made, server.recipients(), at_most_unknown=0)


TWICE = """
import os, signal, sys, threading
from newsletter.cli import output
from newsletter.cli.sending import _stop_gracefully
from newsletter.sending import Conduct

for _ in range(200):
    conduct = Conduct(sign=None, retry=(), owner="me")
    with _stop_gracefully(conduct, output.say):
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGHUP):
            os.kill(os.getpid(), number)
        while not conduct.stopping.is_set():
            conduct.clock.wait(0.001)
print("stopped", flush=True)
"""


def test_signals_that_come_close_together_do_not_hang_it() -> None:
    """As systemd and a closing terminal send them."""
    call = [sys.executable, "-c", TWICE]
    done = subprocess.run(call, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("stopped\n")
    assert done.stderr == ""


def test_ctrl_c_that_ends_the_reader_of_its_output_too_still_settles_what_is_in_flight(
    tmp_path: Path,
) -> None:
    with HoldingServer(hold_at=30) as server:
        made = publisher(tmp_path, LIVE.format(transport="smtp", port=server.port, lanes=2))
        made.import_people(crowd(PEOPLE))
        process = send(made)
        wait_for(server.holding, process)
        process.stdout.close()  # as `newsletter send … | tee log` does when tee dies of the same Ctrl-C
        process.send_signal(signal.SIGINT)
        server.release()
        assert process.wait(DEADLINE_SECONDS) == 8
        process.stderr.close()
        go_on(made, unknown=False)
        assert_the_truth(made, server.recipients(), at_most_unknown=0)

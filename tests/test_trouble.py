"""A full disk, a read-only or damaged database, a clock that jumps: a sentence, and nothing sent unseen."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event, insert
from sqlalchemy.engine import Engine

from newsletter import recovery, sending
from newsletter.errors import DatabaseError, Refused
from newsletter.model import Accepted, DeliveryState
from newsletter.store.engine import write
from newsletter.store.ledger import Ledger
from newsletter.store.schema import owner
from newsletter.transports.memory import MemoryTransport
from tests.support import ledgers
from tests.support.holding import HoldingServer
from tests.support.ledgers import NOW, TestClock, conduct, counts, freeze, open_store
from tests.support.publisher import crowd, publisher

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.publisher import Publisher

PEOPLE = 300
LIVE = """
[sending]
mode = "live"
transport = "smtp"
connections = 2
[smtp]
port = {port}
security = "none"
"""


@pytest.fixture
def server() -> Iterator[HoldingServer]:
    with HoldingServer() as server:
        yield server


@pytest.fixture
def made(tmp_path: Path, server: HoldingServer) -> Publisher:
    made = publisher(tmp_path, LIVE.format(port=server.port))
    made.import_people(crowd(PEOPLE))
    return made


def database(made: Publisher) -> Path:
    return made.root / ".newsletter" / "newsletter.db"


def send(made: Publisher) -> subprocess.CompletedProcess[str]:
    return made.newsletter("send", "2026-12", "--confirm", str(PEOPLE), check=False)


def assert_every_copy_is_in_the_ledger(made: Publisher, server: HoldingServer) -> None:
    listed = json.loads(made.newsletter("deliveries", "2026-12", "--format", "json").stdout)
    known = {row["address"] for row in listed if row["state"] in {"accepted", "handed", "unknown"}}
    assert set(server.recipients()) <= known
    assert len(server.recipients()) == len(set(server.recipients()))


@contextmanager
def no_page_beyond(made: Publisher, more: int) -> Iterator[None]:
    """The disk has room for that many more pages."""
    connection = sqlite3.connect(database(made))
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.close()

    def limit(raw: sqlite3.Connection, _record: object) -> None:
        raw.execute(f"PRAGMA max_page_count={pages + more}")

    event.listen(Engine, "connect", limit)
    try:
        yield
    finally:
        event.remove(Engine, "connect", limit)


@pytest.mark.parametrize("room", [0, 8, 20, 32])
def test_a_full_disk_is_said_and_nothing_leaves_that_is_not_in_the_ledger(
    made: Publisher, server: HoldingServer, room: int
) -> None:
    with no_page_beyond(made, room):
        full = send(made)
    if full.returncode != 0:  # with the most room, the campaign may just fit
        assert full.returncode == 6, full.stderr
        assert "The disk is full" in full.stderr
        assert "Traceback" not in full.stderr
    assert send(made).returncode in {0, 7}
    assert_every_copy_is_in_the_ledger(made, server)
    assert len(server.recipients()) == PEOPLE


def test_a_read_only_database_sends_nothing(made: Publisher, server: HoldingServer) -> None:
    made.environ["DATABASE_URL"] = f"sqlite:///file:{database(made)}?mode=ro&uri=true"
    done = send(made)
    assert done.returncode == 6
    assert "read-only" in done.stderr
    assert server.recipients() == []


LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.mark.full
def test_a_database_that_stays_locked_is_said(made: Publisher, server: HoldingServer) -> None:
    command = [sys.executable, "-c", LOCK, str(database(made))]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout.readline() == "locked\n"
        locked = send(made)
        holder.stdin.close()
    assert locked.returncode == 6
    assert "keeps the database locked" in locked.stderr
    assert server.recipients() == []
    assert send(made).returncode == 0


def test_a_damaged_database_is_said(made: Publisher, server: HoldingServer) -> None:
    connection = sqlite3.connect(database(made))
    (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'subscription'").fetchone()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    with database(made).open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    done = send(made)
    assert done.returncode == 6
    assert "damaged" in done.stderr
    assert server.recipients() == []


# --- the clock


def test_a_clock_behind_the_ledger_stops_a_send_before_it_begins(tmp_path: Path) -> None:
    engine = open_store(tmp_path, people=3)
    ahead = NOW + timedelta(hours=1)
    row = {"id": "later", "name": "process 1", "way": "memory", "started_at": ahead, "seen_at": ahead}
    write(engine, lambda conn: conn.execute(insert(owner).values(row)))
    with pytest.raises(Refused, match=r"the clock says 2026-.*, but the ledger was written at 2026-"):
        recovery.check_clock(engine, NOW)
    recovery.check_clock(engine, ahead - timedelta(minutes=4))
    engine.dispose()


def test_a_clock_that_jumps_back_while_sending_ends_it_with_every_answer_stored(tmp_path: Path) -> None:
    engine = open_store(tmp_path, people=5)
    campaign, clock = freeze(engine), TestClock()

    def answer(recipient, number):  # type: ignore[no-untyped-def]
        if number == 2:
            clock.moment -= timedelta(days=1)
        return Accepted(recipient.delivery)

    transport = MemoryTransport(answer=answer)
    with pytest.raises(Refused, match="the clock says"):
        sending.run(engine, campaign, transport, ledgers.WIRE, conduct(clock))
    assert counts(engine, campaign) == {DeliveryState.ACCEPTED: 2, DeliveryState.PENDING: 3}
    assert len(transport.messages) == 2
    engine.dispose()


# --- a database that fails in the middle


class Failing(Ledger):
    """The database can't be written in the ``at``-th step, and can again after that."""

    at = 3
    calls = 0

    def step(self, settled, want, now):  # type: ignore[no-untyped-def]
        self.calls += 1
        if self.calls != self.at:
            return super().step(settled, want, now)
        connection = sqlite3.connect(self._engine.url.database, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("newsletter.store.ledger.write", lambda *a, **k: write(*a, **k | {"wait": 0.0}))
            try:
                return super().step(settled, want, now)
            finally:
                connection.close()


def test_an_answer_that_could_not_be_stored_at_once_is_not_lost(tmp_path: Path) -> None:
    """Ghost #30169: accepted, and then the database fails. The next step stores what the failed one could not."""
    engine = open_store(tmp_path, people=5)
    campaign, transport = freeze(engine), MemoryTransport()
    with pytest.raises(DatabaseError, match="locked"):
        sending.run(engine, campaign, transport, ledgers.WIRE, conduct(ledger=Failing))
    assert counts(engine, campaign) == {DeliveryState.ACCEPTED: 2, DeliveryState.PENDING: 3}
    assert len(transport.messages) == 2
    engine.dispose()

"""Readers who leave, by the hundred a second: each function tries one promise and says what was seen.

A client in this process keeps a book of what it was told. Requests begin when they are due, whatever became of those
before: a client that waits for an answer before it asks again does not see how long others would have waited.
"""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from newsletter.tokens import Keyring, Purpose, maker
from tests.bench.sinks import sink
from tests.full.freezing import SECRET, Times, database
from tests.support.freezes import address, crowd_in
from tests.support.publisher import A_KEY, publisher
from tests.support.served import Served, serving
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.support.publisher import Publisher

CONNECTIONS = 64
BODY = b"List-Unsubscribe=One-Click"
TRIES = 5  # the best counts: machines are noisy
LIMIT = 120.0  # seconds, for one client's work


def crowded(folder: Path, people: int, extra: str = "") -> Publisher:
    """A publisher with a list of so many."""
    made = publisher(folder, extra)
    made.import_people([(address(1), "Reader 1")])
    crowd_in(database(made), people - 1, SECRET)
    return made


@dataclass
class Client:
    """Mail programs, all at once. ``told`` is its book: who was told that they have left."""

    port: int
    rate: int  # a second
    told: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # from when a request was due to its whole answer

    def leave(self, numbers: Sequence[int]) -> float:
        """Unsubscribes them at the rate; returns how long it took. A server that goes away ends it."""
        began = time.perf_counter()
        asyncio.run(asyncio.wait_for(self._leave(numbers), LIMIT))
        return time.perf_counter() - began

    async def _leave(self, numbers: Sequence[int]) -> None:
        token = maker(Purpose.UNSUBSCRIBE, Keyring.parse(f"1:{A_KEY}"))
        waiting = [(position, number, token(number)) for position, number in enumerate(numbers)][::-1]
        start = time.perf_counter() + 0.1
        await asyncio.gather(*(self._connection(waiting, start) for _ in range(CONNECTIONS)))

    async def _connection(self, waiting: list[tuple[int, int, str]], start: float) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            while waiting:
                position, number, token = waiting.pop()
                due = start + position / self.rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                writer.write(_request(token))
                assert await _status(reader) == 200
                self.told.append(number)
                self.seconds.append(time.perf_counter() - due)
            writer.close()


def _request(token: str) -> bytes:
    head = (
        f"POST /u/{token} HTTP/1.1\r\nHost: news.example.org\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(BODY)}\r\n\r\n"
    )
    return head.encode() + BODY


async def _status(reader: asyncio.StreamReader) -> int:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
    await reader.readexactly(length)
    return int(head.split()[1])


def lost(file: Path, told: Sequence[int]) -> int:
    """Of those who were told that they have left, how many have not."""
    with sqlite3.connect(file) as conn:
        gone = {row[0] for row in conn.execute("SELECT id FROM subscription WHERE state = 'unsubscribed'")}
    conn.close()
    return len(set(told) - gone)


def numbers(served: Served, count: int) -> list[int]:
    """So many who are on the list."""
    return served.numbers("state = 'active'")[:count]


def five_hundred(folder: Path) -> str:
    """500 a second for twenty seconds on SQLite, and everybody who was told so has left."""
    made = crowded(folder, 10_000)
    with serving(made) as served:
        client = Client(served.port, 500)
        took = client.leave(numbers(served, 10_000))
    assert len(client.told) == 10_000
    assert lost(database(made), client.told) == 0
    rate = len(client.told) / took
    assert rate >= 475, rate  # the first and the last are on their way for a moment
    return f"10,000 at {rate:.0f}/s, none lost; {Times.of(client.seconds)}"


def killed(folder: Path) -> str:
    """SIGKILL in the middle, five times: whoever was told that they have left, has."""
    made = crowded(folder, 20_000)
    told: list[int] = []
    for _ in range(TRIES):
        process = made.start("serve", "--port", "0")
        assert process.stdout is not None
        served = Served(made, process, int(process.stdout.readline().rstrip("/\n").rpartition(":")[2]), "")
        client = Client(served.port, 500)
        waiting = numbers(served, 4_000)
        asyncio.run(_kill_beside(client, waiting, process.pid))
        process.communicate()
        assert 0 < len(client.told) < len(waiting)
        told += client.told
        assert lost(database(made), told) == 0
    return f"{TRIES} kills, {len(told):,} people told, none lost"


async def _kill_beside(client: Client, waiting: Sequence[int], pid: int) -> None:
    import os

    async def kill() -> None:
        while len(client.told) < len(waiting) // 3:
            await asyncio.sleep(0.001)
        os.kill(pid, signal.SIGKILL)

    await asyncio.gather(client._leave(waiting), kill())


def quick(folder: Path) -> str:
    """At 200 a second 99 of 100 have their answer within 50 ms, when nothing is sent."""
    made = crowded(folder, 2_000 * TRIES)
    found = []
    with serving(made) as served:
        for _ in range(TRIES):
            client = Client(served.port, 200)
            client.leave(numbers(served, 2_000))
            found.append(Times.of(client.seconds))
    best = min(found, key=lambda times: times.p99)
    assert best.p99 < 0.050, found
    return f"{best} (best of {TRIES})"


SMTP = '[sending]\nmode = "live"\ntransport = "smtp"\n[smtp]\nport = {port}\nsecurity = "none"\n'


def quick_beside_a_campaign(folder: Path) -> str:
    """The same within 100 ms, while 100,000 copies leave through SMTP. Who leaves and has no copy yet gets none."""
    with sink("smtp_sink") as taking:
        made = crowded(folder, 100_000, SMTP.format(port=taking.port))
        sending = made.start("send", "2026-12", "--confirm", "100000")
        wait_for(lambda: _accepted(made) > 1_000, sending)
        found, told = [], list[int]()
        with serving(made) as served:
            for _ in range(TRIES):
                before = _accepted(made)
                client = Client(served.port, 200)
                client.leave(numbers(served, 1_000))
                assert sending.poll() is None, "the campaign ended before the readers had left"
                assert _accepted(made) > before
                found.append(Times.of(client.seconds))
                told += client.told
        _, errors = sending.communicate()
        assert sending.returncode == 0, errors
    assert lost(database(made), told) == 0
    best = min(found, key=lambda times: times.p99)
    assert best.p99 < 0.100, found
    return f"{best} (best of {TRIES}); {_accepted(made):,} copies accepted meanwhile and after"


def _accepted(made: Publisher) -> int:
    with suppress(sqlite3.OperationalError), sqlite3.connect(database(made)) as conn:
        return int(conn.execute("SELECT count(*) FROM delivery WHERE state = 'accepted'").fetchone()[0])
    return 0

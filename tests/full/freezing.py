"""Freezing and going on with a million people: each function tries one promise and says what was seen.

They take minutes and 2 GB of disk, so `make test` leaves them out: `pytest -m full -s tests/test_freezing.py`.
"""

from __future__ import annotations

import base64
import json
import resource
import select as select_
import signal
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import event, func, select, update

from newsletter import freezing, subscriptions
from newsletter.model import DeliveryState
from newsletter.store import preparing
from newsletter.store.database import WAIT
from newsletter.store.engine import open_engine, read, write
from newsletter.store.schema import delivery
from tests.support.freezes import address, crowd_in, enrol
from tests.support.ledgers import EMAIL, MESSAGE, NOW, TARGET
from tests.support.publisher import A_KEY, Publisher, publisher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection, Engine, Update

SECRET = base64.urlsafe_b64decode(A_KEY + "=" * (-len(A_KEY) % 4))
ALONE_SECONDS = 3  # how long the other writer is watched before the freeze begins
EVERY_SECONDS = 0.005
PATIENCE_SECONDS = 600


class Times(NamedTuple):
    """Of many transactions, in seconds."""

    median: float
    p99: float
    worst: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Times:
        ordered = sorted(seconds)
        return cls(statistics.median(ordered), ordered[int(len(ordered) * 0.99)], ordered[-1])

    def __str__(self) -> str:
        return " / ".join(f"{1000 * seconds:.1f}" for seconds in self) + " ms (median / 99 % / worst)"


def crowded(folder: Path, people: int) -> Publisher:
    """A publisher with a list of so many."""
    made = publisher(folder, '[sending]\ntransport = "folder"\nconnections = 4\n')
    made.import_people([(address(1), "Reader 1")])
    crowd_in(database(made), people - 1, SECRET)
    return made


def database(made: Publisher) -> Path:
    """Its file."""
    return made.root / ".newsletter" / "newsletter.db"


# Freezing while somebody else writes


def beside_another_writer(folder: Path, people: int) -> str:
    """Freezes in one process while another one records unsubscribes."""
    file = database(crowded(folder, people))
    other = _start("leave", file, people)
    assert other.stdout is not None
    other.stdout.readline()  # it has been watched alone
    freezer = _start("freeze", file, people)
    frozen = json.loads(freezer.communicate()[0])
    left = json.loads(other.communicate("enough\n")[0])
    assert (freezer.returncode, other.returncode) == (0, 0)
    assert people - left["people"] <= frozen["rows"] <= people
    holds, alone, beside = Times(*frozen["holds"]), Times(*left["alone"]), Times(*left["beside"])
    return (
        f"{frozen['rows']:,} recipients frozen in {frozen['seconds']:.0f} s ({frozen['cpu']:.0f} s of CPU, "
        f"{frozen['memory']} MB at most; the plan was counted in {frozen['plan']:.1f} s). {frozen['writes']:,} "
        f"transactions held the write lock for {holds}. Meanwhile another process recorded {left['people']:,} "
        f"unsubscribes, each within {beside}; before the freeze within {alone}"
    )


def _start(what: str, file: Path, people: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.full.freezing", what, str(file), str(people)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def freeze_and_tell(file: Path, _people: int) -> None:
    """What the freezing process does."""
    engine = open_engine(f"sqlite:///{file}")
    holds = _watch(engine)
    began = time.perf_counter()
    planned = freezing.plan(engine, TARGET)
    counted = time.perf_counter() - began
    mine = enrol(engine, "the freezing process")
    holds.clear()
    began, cpu = time.perf_counter(), time.process_time()
    made = freezing.freeze(engine, planned, [EMAIL], MESSAGE, transport="memory", now=NOW, owner=mine)
    told = {
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
        "plan": counted,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "rows": read(engine, lambda conn: preparing.size(conn, made.id)),
        "writes": len(holds),
        "holds": Times.of(holds),
    }
    print(json.dumps(told))


def _watch(engine: Engine) -> list[float]:
    """How long each write transaction lasts: from its BEGIN to the end of its COMMIT, checkpoints included."""
    holds: list[float] = []
    began: list[float] = []

    def on_begin(conn: Connection) -> None:
        if WAIT in conn.get_execution_options():
            began.append(time.perf_counter())

    def on_return(*_: object) -> None:
        if began:
            holds.append(time.perf_counter() - began.pop())

    event.listen(engine, "begin", on_begin)
    event.listen(engine, "checkin", on_return)
    return holds


def leave_until_told(file: Path, people: int) -> None:
    """What the other writer does: people leave, the last one first."""
    engine, number = open_engine(f"sqlite:///{file}"), people
    until = time.perf_counter() + ALONE_SECONDS
    alone: list[float] = []
    while time.perf_counter() < until:
        alone.append(_one_leaves(engine, number))
        number -= 1
    print("begin", flush=True)
    beside: list[float] = []
    while not select_.select([sys.stdin], [], [], 0)[0]:
        beside.append(_one_leaves(engine, number))
        number -= 1
    print(json.dumps({"people": people - number, "alone": Times.of(alone), "beside": Times.of(beside)}))


def _one_leaves(engine: Engine, number: int) -> float:
    began = time.perf_counter()
    now = datetime.now(UTC)
    subscriptions.unsubscribe(engine, address(number), "readers", SECRET, source="a test", now=now)
    took = time.perf_counter() - began
    time.sleep(EVERY_SECONDS)
    return took


# Going on after a kill


def after_kills(folder: Path, people: int) -> str:
    """`newsletter send` is killed near the end of the freeze and in the middle of sending, and started again."""
    made = crowded(folder, people)
    engine = open_engine(f"sqlite:///{database(made)}")
    process = _send(made, people)
    _wait_for(lambda: _rows(engine) >= people * 9 // 10, process)
    _kill(process)
    there = _rows(engine)

    process, began = _send(made, people), time.perf_counter()
    _wait_for(lambda: _rows(engine) > there, process)
    next_row = time.perf_counter() - began
    _wait_for(lambda: _copies(made) > 0, process)
    first_copy = time.perf_counter() - began
    _kill(process)
    assert _rows(engine) == people

    write(engine, lambda conn: conn.execute(_half_is_done(people)))
    copies = _copies(made)
    process, began = _send(made), time.perf_counter()
    _wait_for(lambda: _copies(made) > copies, process)
    next_copy = time.perf_counter() - began
    _kill(process)
    engine.dispose()
    return (
        f"{people:,} recipients: killed with {there:,} of them frozen, `newsletter send` adds the next row after "
        f"{next_row:.1f} s and writes the first copy after {first_copy:.1f} s; killed with half of the copies sent, "
        f"it writes the next one after {next_copy:.1f} s"
    )


def _send(made: Publisher, people: int | None = None) -> subprocess.Popen[str]:
    return made.start("send", "2026-12", *(["--confirm", str(people)] if people else []))


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert process.poll() is None, f"ended by itself: {process.communicate()}"
        assert time.monotonic() < deadline, "it never came that far"
        time.sleep(0.01)


def _kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def _rows(engine: Engine) -> int:
    """How many were frozen, without counting a million every time: one campaign, in a row."""
    return read(
        engine, lambda conn: conn.execute(select(func.coalesce(func.max(delivery.c.seq), 0))).scalar_one()
    )


def _copies(made: Publisher) -> int:
    return sum(1 for file in made.outbox.glob("*.eml")) if made.outbox.is_dir() else 0


def _half_is_done(people: int) -> Update:
    return (
        update(delivery).where(delivery.c.seq <= people // 2).values(state=DeliveryState.ACCEPTED, owner=None)
    )


if __name__ == "__main__":
    {"freeze": freeze_and_tell, "leave": leave_until_told}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))

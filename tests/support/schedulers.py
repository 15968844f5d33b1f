"""Schedulers that race each other or are killed, at times that are arguments. Each is a process of its own, forked.

``python -m tests.support.schedulers race FOLDER COUNT``: two of them look at COUNT dates, each date at the same moment.
``python -m tests.support.schedulers kill FOLDER COUNT``: one after another is killed, before and after commits, COUNT
times from the first commit to the last, and another one looks after each. Both print a line of JSON.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from newsletter import wiring
from newsletter.cli.running import Look
from newsletter.config import load
from newsletter.desk import Stop
from newsletter.errors import NewsletterError
from newsletter.schedule import Occurrence, occurrences, parse
from tests.support.commits import Deadly, on_each_side
from tests.support.publisher import ISSUE, LEAD, Publisher, publisher

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier


SCHEDULE = "monthly on the 1st 09:00"
START = datetime(
    2030, 1, 1, tzinfo=UTC
)  # behind every moment that people and campaigns are written down with
SETTINGS = f"""
[schedule]
send = "{SCHEDULE}"
[sending]
mode = "live"
transport = "smtp"
connections = 1
[smtp]
port = {{port}}
security = "none"
"""


def dates(count: int) -> list[Occurrence]:
    """The schedule's first ones."""
    return list(islice(occurrences(parse(SCHEDULE), ZoneInfo("UTC"), START), count))


def scheduled(root: Path, port: int, count: int, environ: dict[str, str] | None = None) -> Publisher:
    """A publisher with an issue for each of these dates, whose schedule counts from before the first."""
    made = publisher(root, SETTINGS.format(port=port), environ)
    for each in dates(count):
        folder = root / "issues" / each.period
        folder.mkdir(exist_ok=True)
        (folder / "issue.toml").write_text(ISSUE)
        (folder / "lead.md").write_text(LEAD)
    return made


def run(made: Publisher, what: str, count: int) -> list[dict[str, Any]]:
    """What the script of that name has seen."""
    call = [sys.executable, "-m", "tests.support.schedulers", what, str(made.root), str(count)]
    done = subprocess.run(call, env=made.env(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def look(root: Path, now: datetime) -> int:
    """One look, as `newsletter run --once` does it at that time."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        settings = load(root, os.environ)
        engine = wiring.open_store(settings)
        try:
            return Look(settings, engine, now, Stop()).work()
        except NewsletterError as error:
            return error.exit_code
        finally:
            engine.dispose()


def race(root: Path, count: int) -> list[dict[str, Any]]:
    """Two side by side; what each has ended with, by date."""
    fork = multiprocessing.get_context("fork")
    barrier, results = fork.Barrier(2), fork.SimpleQueue()
    racers = [fork.Process(target=_race, args=(root, count, barrier, results)) for _ in range(2)]
    for racer in racers:
        racer.start()
    found = [results.get() for _ in range(2 * count)]
    for racer in racers:
        racer.join()
    return found


def _race(root: Path, count: int, barrier: Barrier, results: Any) -> None:
    for each in dates(count):
        barrier.wait()
        results.put({"period": each.period, "code": look(root, each.at)})


def kill(root: Path, count: int) -> list[dict[str, Any]]:
    """A date for each of COUNT moments at which one is killed, spread over all that a look has."""
    found = []
    moments = _moments_of_a_look(root, dates(1)[0].at)
    for number, each in enumerate(dates(count + 1)[1:]):
        moment = number * moments // count + 1
        killed = _in_a_child(root, each.at, moment)
        again = _in_a_child(root, each.at + timedelta(minutes=1))
        found.append({"period": each.period, "moment": moment, "killed": killed, "again": again})
    return found


def _moments_of_a_look(root: Path, now: datetime) -> int:
    """How often one could be killed: before each commit that writes, and after it."""
    reading, writing = os.pipe()
    assert _in_a_child(root, now, tell=writing) == 0
    return int(os.read(reading, 20))


def _in_a_child(root: Path, now: datetime, die_at: int = 0, tell: int | None = None) -> int:
    child = multiprocessing.get_context("fork").Process(target=_look_and_die, args=(root, now, die_at, tell))
    child.start()
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def _look_and_die(root: Path, now: datetime, die_at: int, tell: int | None) -> None:
    """Odd moments: before a commit; even ones: when its connection has come back, hence after it."""
    passing = Deadly(die_at)
    on_each_side(passing)
    code = look(root, now)
    if tell is not None:
        os.write(tell, str(passing.count).encode())
    raise SystemExit(code)


if __name__ == "__main__":
    print(json.dumps({"race": race, "kill": kill}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))))

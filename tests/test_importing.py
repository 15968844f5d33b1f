"""Large files: killed anywhere an import can be gone on with, and it tells how far it is."""

from __future__ import annotations

import io
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from newsletter.cli.importing import Shown
from newsletter.people import WINDOW
from newsletter.store.engine import open_engine, read
from newsletter.store.schema import consent, subscriber, subscription, suppression
from tests.support.publisher import Publisher, publisher
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    import pytest

PEOPLE = 3_000


def people_file(folder: Path) -> Path:
    """A shuffled file with people who left, repeated rows and rows that can't be read."""
    rows = [
        f"reader{n}@example.org,Reader {n},{'unsubscribed' if n % 50 == 0 else 'active'}\n"
        for n in range(PEOPLE)
    ]
    rows += ["nobody,,active\n", "reader7@example.org,Again,active\n", "READER8@example.org,,bounced\n"]
    random.Random(7).shuffle(rows)
    file = folder / "people.csv"
    file.write_text("email,name,status\n" + "".join(rows), encoding="utf-8")
    return file


def book(press: Publisher) -> dict[str, object]:
    """Who is on the list and how, without the numbers that rows have by accident."""
    engine = open_engine(f"sqlite:///{press.root}/.newsletter/newsletter.db")
    who = select(subscriber.c.address, subscriber.c.name, subscription.c.state).join_from(
        subscription, subscriber
    )
    try:
        people = read(engine, lambda conn: sorted(tuple(row) for row in conn.execute(who)))
        acts = select(consent.c.act, func.count()).group_by(consent.c.act)
        said = read(engine, lambda conn: sorted(tuple(row) for row in conn.execute(acts)))
        stopped = read(engine, lambda conn: conn.scalar(select(func.count()).select_from(suppression)))
        return {"people": people, "said": said, "stopped": stopped}
    finally:
        engine.dispose()


def importing(press: Publisher, file: Path) -> tuple[str, ...]:
    return ("subscribers", "import", str(file), "--list", "readers", "--source", "a test", "--apply")


def test_an_import_that_is_killed_anywhere_is_finished_by_the_same_command(tmp_path: Path) -> None:
    """SIGKILL at random moments, again and again: in the end everything is as after one undisturbed import."""
    (tmp_path / "calm").mkdir()
    (tmp_path / "killed").mkdir()
    calm, press = publisher(tmp_path / "calm"), publisher(tmp_path / "killed")
    file, chance = people_file(tmp_path), random.Random(11)
    calm.newsletter(*importing(calm, file))
    database = press.root / ".newsletter" / "newsletter.db-wal"
    for _ in range(3):
        before = database.stat().st_size if database.exists() else 0
        process = press.start(*importing(press, file))
        more = before + chance.randrange(50_000, 600_000)
        wait_for(lambda more=more, process=process: process.poll() is not None or _size(database) > more)  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        process.communicate()
    done = press.newsletter(*importing(press, file))
    assert book(press) == book(calm)
    assert "1  not understood" in done.stdout
    again = press.newsletter(*importing(press, file))
    assert "Nothing was changed: the file has nothing new for readers." in again.stdout
    assert book(press) == book(calm)


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


# --- large files are read by a process of their own ----------------------------------------------------------------


def test_a_large_import_can_be_interrupted_and_gone_on_with(tmp_path: Path) -> None:
    press, file = publisher(tmp_path / "press"), tmp_path / "people.csv"
    count = WINDOW + 1_000
    rows = "".join(f"r{number}@example.org\n" for number in range(count))
    file.write_text("email\n" + rows, encoding="utf-8")
    database = press.root / ".newsletter" / "newsletter.db"

    first = press.start(*importing(press, file))
    wait_for(lambda: database.exists() and people_in(database) > 0, first)
    for process in (reader_of(first), first.pid):  # as Ctrl-C does
        os.kill(process, signal.SIGINT)
    _, said = first.communicate()
    assert first.returncode == 130, said
    assert re.search(r"\d00 people are done\. The same command does what is left\.", said), said
    assert "Traceback" not in said
    some = people_in(database)
    assert 0 < some < count

    second = press.start(*importing(press, file))
    wait_for(lambda: people_in(database) > some, second)
    os.kill(reader_of(second), signal.SIGKILL)
    _, said = second.communicate()
    assert second.returncode == 8, said
    assert re.search(r"\d00 people are done\. The same command does what is left\.", said), said
    assert some < people_in(database) < count

    press.newsletter(*importing(press, file))
    assert people_in(database) == count


def test_an_import_ends_when_its_file_changes(tmp_path: Path) -> None:
    press, file = publisher(tmp_path / "press"), tmp_path / "people.csv"
    rows = "".join(f"r{number}@example.org\n" for number in range(3 * WINDOW))
    file.write_text("email\n" + rows, encoding="utf-8")
    database = press.root / ".newsletter" / "newsletter.db"
    process = press.start(*importing(press, file))
    wait_for(lambda: database.exists() and people_in(database) > 0, process)
    os.truncate(file, len(rows) - 1_000)
    _, said = process.communicate()
    assert process.returncode == 8, said
    assert "people.csv was changed while it was read." in said
    assert re.search(r"00 people are done\. Run the same command again when the file is complete", said), said


def people_in(database: Path) -> int:
    conn = sqlite3.connect(database)
    try:
        return int(conn.execute("SELECT count(*) FROM subscriber").fetchone()[0])
    except sqlite3.OperationalError:
        return 0  # it is just being made
    finally:
        conn.close()


def reader_of(process: subprocess.Popen[str]) -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text("utf-8").split()
    [reader] = [
        number for number in children if b"spawn_main" in Path(f"/proc/{number}/cmdline").read_bytes()
    ]
    return int(reader)


def test_a_large_file_may_come_by_standard_input_and_a_pipe_may_not(tmp_path: Path) -> None:
    press, file = publisher(tmp_path / "press"), tmp_path / "people.csv"
    file.write_text("email\n" + "".join(f"r{n}@example.org\n" for n in range(WINDOW + 1)), encoding="utf-8")
    command = press.command("subscribers", "import", "/dev/stdin")
    run = partial(subprocess.run, command, capture_output=True, text=True, check=False, env=press.env())
    with file.open(encoding="utf-8") as stdin:
        done = run(stdin=stdin)
    assert (done.returncode, f"{WINDOW + 1}  new" in done.stdout) == (0, True), done
    done = run(input="email\na@example.org\n")
    assert (done.returncode, "Save it to a file first." in done.stderr) == (2, True), done


# --- how far it is -----------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_in_a_log_lines_tell_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    told = io.StringIO()
    monkeypatch.setattr(sys, "stderr", told)
    with Shown(seconds=0, quiet=0) as shown:
        shown.told(500, 1_000_000)
        shown.told(1000, 1_000_000)
    assert told.getvalue() == "read 500 of 1,000,000 lines\nread 1,000 of 1,000,000 lines\n"


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Terminal()
    monkeypatch.setattr(sys, "stderr", told)
    with Shown(quiet=0) as shown:
        shown.told(250_000, 1_000_000)
        shown.told(500_000, 1_000_000)
    assert "Reading" in told.getvalue()
    assert "500000/1000000" in told.getvalue()


def test_a_short_file_needs_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Terminal()
    monkeypatch.setattr(sys, "stderr", told)
    with Shown() as shown:
        shown.told(4, 4)
    assert told.getvalue() == ""

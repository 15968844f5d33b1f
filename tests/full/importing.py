"""Importing a million people, beside sqlite-utils: says what was seen."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.support.publisher import publisher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.publisher import Publisher

PEOPLE = 1_000_000
MOST_MEGABYTES = 160
DOMAINS = ("gmail.com", "example.org", "web.de", "outlook.com", "posteo.net", "yahoo.co.uk", "Example.COM")
ROUNDS = 3
LOOK_SECONDS = 0.1  # between two looks at the memory


def people_file(folder: Path, count: int = PEOPLE) -> Path:
    """Shuffled, with capital letters, other scripts' domains, people who left, and rows that can't be read."""
    chance = random.Random(7)
    rows = []
    for number in range(count):
        kind = chance.randrange(1000)
        domain = f"bücher{number % 50}.example" if kind == 0 else DOMAINS[chance.randrange(7)]
        at = "(at)" if kind == 1 else "@"
        status = ("unsubscribed", "bounced")[number % 2] if chance.randrange(100) == 0 else "active"
        rows.append(f"reader.{number:07}{at}{domain},Reader {number % 977},{status}\n")
    chance.shuffle(rows)
    file = folder / "people.csv"
    file.write_text("email,name,status\n" + "".join(rows), encoding="utf-8")
    return file


def a_million(folder: Path) -> str:
    """Ours and sqlite-utils in turn on the same file; then the same file once more."""
    folder.mkdir()
    utils = _sqlite_utils(folder)
    file = people_file(folder)
    ratios, ours = [], Run(0, 0)
    for turn in range(ROUNDS):
        made = publisher(folder / f"press{turn}")
        ours = _run(*made.command("subscribers", "import", str(file), "--apply"), made=made)
        target = str(folder / f"{turn}.db")
        theirs = _run(str(utils), "insert", target, "people", str(file), "--csv", "--pk", "email")
        ratios.append(theirs.seconds / ours.seconds)
    again = made.newsletter("subscribers", "import", str(file), "--apply").stdout
    assert "Nothing was changed: the file has nothing new for readers." in again
    ratios.sort()
    seen = (
        f"{ours.seconds:.0f} s, {ours.megabytes} MB; the same file again changes nothing;"
        f" sqlite-utils needs {ratios[1]:.1f}× ({ratios[0]:.1f}–{ratios[2]:.1f}) as long"
    )
    assert ours.megabytes <= MOST_MEGABYTES, seen
    return seen if ratios[1] >= 2 else f"**missed: twice as fast.** {seen}"


class Run(NamedTuple):
    """What a command needed."""

    seconds: float
    megabytes: int  # at most, of all its processes


def _run(*command: str, made: Publisher | None = None) -> Run:
    began, nowhere, most = time.monotonic(), subprocess.DEVNULL, 0
    with subprocess.Popen(
        command, env=made.env() if made else None, stdout=nowhere, stderr=nowhere
    ) as process:
        while process.poll() is None:
            most = max(most, sum(_kilobytes(number) for number in _family(process.pid)))
            time.sleep(LOOK_SECONDS)
    assert process.returncode == 0, command
    return Run(time.monotonic() - began, most // 1024)


def _family(number: int) -> Iterator[int]:
    """The process and all that it has started."""
    yield number
    with suppress(OSError):  # it has just ended
        children = Path(f"/proc/{number}/task/{number}/children").read_text("utf-8")
        for child in children.split():
            yield from _family(int(child))


def _kilobytes(number: int) -> int:
    """Its memory; of what it shares with others, its part (``Pss``)."""
    with suppress(OSError):
        found = Path(f"/proc/{number}/smaps_rollup").read_text("utf-8")
        return int(found.partition("\nPss:")[2].split()[0])
    return 0


def _sqlite_utils(folder: Path) -> Path:
    """On the same interpreter, in a place of its own."""
    place = folder / "peer"
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "sqlite-utils"]
    subprocess.run(pip, check=True, stdout=subprocess.DEVNULL)
    found = shutil.which("sqlite-utils", path=str(place / "bin"))
    assert found is not None
    return place / "bin" / "sqlite-utils"

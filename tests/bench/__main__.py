"""`make bench`, or `python -m tests.bench [WORD …]` for some sections: how fast, against peers, as ratios.

Writes the chosen sections of docs/performance.md, and ends with 1 if a bound is missed. ``--rounds`` and ``--scale``
make it short while something is being changed; then nothing is written and nothing is required.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.bench import tables
from tests.bench.peers import Missing
from tests.bench.sections import SECTIONS, Made, Section
from tests.bench.workshop import Workshop

ROUNDS = 5


def main() -> int:
    """Makes them; one that fails must not hide the others."""
    told = _arguments()
    chosen = [one for one in SECTIONS if not told.words or one.word in told.words]
    tried_only = told.rounds < ROUNDS or told.scale != 1
    missed: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        shop = Workshop(Path(folder), told.rounds, told.scale)
        for section in chosen:
            made = _make(section, shop)
            if not made.kept:
                missed.append(section.title)
            if made.text and not tried_only:
                _write(section, made)
    for title in missed:
        print(f"MISSED: {title}", file=sys.stderr)
    return int(bool(missed) and not tried_only)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Speed beside other tools.")
    words = [one.word for one in SECTIONS]
    parser.add_argument("words", nargs="*", metavar="WORD", help=f"{', '.join(words)}; without any: all")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--scale", type=float, default=1.0)
    told = parser.parse_args()
    if unknown := sorted(set(told.words) - set(words)):
        parser.error(f"there is no section {', '.join(unknown)}; there are {', '.join(words)}")
    return told


def _make(section: Section, shop: Workshop) -> Made:
    print(f"{section.title} …", flush=True)
    began = time.monotonic()
    try:
        made = section.make(shop)
    except (Missing, AssertionError, OSError, subprocess.SubprocessError) as error:
        if not isinstance(error, Missing):
            traceback.print_exc()
        made = Made("", kept=False)
        print(f"  not measured: {error}", flush=True)
    print(f"{made.text}\n  took {time.monotonic() - began:.0f} s\n", flush=True)
    return made


def _write(section: Section, made: Made) -> None:
    by = f"`python -m tests.bench {section.word}`, {tables.machine()}."
    tables.write([one.title for one in SECTIONS], {section.title: f"{made.text}\n\n{by}"})


if __name__ == "__main__":
    sys.exit(main())

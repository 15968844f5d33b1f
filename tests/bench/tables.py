"""What was measured, in Markdown, and docs/performance.md, in which each section is written on its own."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import peers
from tests.bench.measure import median, ratio

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.bench.measure import Rounds

NAMED = ("nodemailer", "aiosmtplib", "django", "dkimpy", "mjml")
REPORT = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
HEAD = """# Speed

Made by `make bench`, section by section (`python -m tests.bench WORD …` makes some of them anew). Contenders run in
turn, A B C A B C …, five rounds after a warm-up, so that a busy machine slows all of them; figures are medians, and
ratios are taken within each round and given with their range. Trust ratios more than seconds, which differ from machine
to machine. Ours and the Python peers run on one interpreter, which each section names: 3.11.2 is Debian's. One that was
built without profile-guided optimisation, as pyenv's are unless told to, needs an eighth more CPU. The peers are
{peers}.

How sending is measured: every contender sends the same message, the newest sample issue without its pictures as
multipart/alternative in quoted-printable, 47 kB on the wire, with the reader's name and links in both parts, the same
headers and `List-Unsubscribe`. It goes to a sink in another process on the same machine, which counts; a run counts
only if exactly as many messages arrived as were sent. *msg/s* is the sending itself: building, connecting, until the
last answer; starting the program and reading the peers' list of readers are left out, and so is our freeze. *CPU* is
what the sending process used in that time, user and system, in seconds for 1,000 messages; *whole process* adds its
start and its end. Ours is the real path at full promises: an SQLite file with `synchronous=FULL`, a mark committed
before each copy leaves, the suppression check, links signed as copies leave, and a rate limit that is obeyed and holds
nothing back.
"""


@dataclass(frozen=True)
class Bound:
    """A ratio that must be reached."""

    ours: str
    theirs: str
    figure: str  # of Cost
    least: float
    must: bool = True  # else it is only aimed at

    def verdict(self, costs: Rounds) -> tuple[str, bool]:
        """A sentence, and whether it holds."""
        found = ratio(costs, self.ours, self.theirs, self.figure)
        what = "messages a second" if self.figure == "rate" else "CPU"
        wish = "at least" if self.must else "hoped for"
        kept = found.median >= self.least or not self.must
        said = "" if kept else " **MISSED**"
        return f"- {self.ours} against {self.theirs}, {what}: {found}, {wish} {self.least:g}×{said}", kept


def comparison(costs: Rounds, ours: str, unit: str = "msg") -> list[str]:
    """A row for each contender, with how many times better ``ours`` is."""
    lines = [
        f"| contender | {unit}/s | CPU, s per 1,000 | whole process | memory, MB | {ours}: {unit}/s | {ours}: CPU |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, runs in costs.items():
        memory = median(runs, "memory") / 1e6
        whole = 1000 * median(runs, "whole") / runs[0].messages
        ratios = [ratio(costs, ours, name, figure) for figure in ("rate", "cpu_per_1000")]
        against = ["", ""] if name == ours else [str(one) for one in ratios]
        cells = [
            name,
            f"{median(runs, 'rate'):,.0f}",
            f"{median(runs, 'cpu_per_1000'):.3g}",
            f"{whole:.3g}",
            f"{memory:.0f}" if memory else "",
            *against,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def machine() -> str:
    """Where it was measured, without saying whose it is."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{os.cpu_count()} cores, {platform.system()}, {python}"


def write(order: Sequence[str], made: Mapping[str, str]) -> None:
    """Puts the sections (title → text) into the report in this order; the others stay, those that are no more go."""
    old = REPORT.read_text(encoding="utf-8") if REPORT.exists() else ""
    known = dict(part.partition("\n")[::2] for part in old.split("\n## ")[1:]) | made
    parts = [f"## {title}\n\n{known[title].strip()}\n" for title in order if title in known]
    head = HEAD.format(peers=", ".join(map(peers.version, NAMED)))
    REPORT.write_text("\n".join([head, *parts]), encoding="utf-8")

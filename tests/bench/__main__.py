"""A cold `newsletter build` against a cold `mjml` (npm), whole processes in turn, the newest sample issue.

Ours does more: it reads and checks the issue, makes the text part, inlines the CSS and writes the message. The npm
package gets the MJML that our templates made of the same issue.
"""

from __future__ import annotations

import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from newsletter import wiring
from newsletter.config import load
from newsletter.content import load as load_issue
from newsletter.content import slugs
from newsletter.render import FILTERS, template_context
from newsletter.render.templates import Templates

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / ".bench"
MJML = "mjml@4.18.0"
ROUNDS = 9
REPORT = ROOT / "docs" / "performance.md"
HEAD = """# Speed

Made by `make bench`: whole processes from start to end, ours and a peer's in turn, so that a busy machine slows both.
Ratios below 1 mean that ours is faster; trust them more than seconds, which differ from machine to machine.

"""


class Cost(NamedTuple):
    """One whole process."""

    wall: float  # seconds
    cpu: float  # seconds


def main() -> int:
    """Runs the rounds, prints the table, and ends with 1 if we are slower."""
    if shutil.which("npm") is None:
        print("npm is not here, so there is no peer to measure against: apt-get install npm")
        return 1
    settings = load(ROOT, {})
    slug = slugs(ROOT)[-1]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "issue.mjml"
        source.write_text(mjml_source(settings, slug), encoding="utf-8")
        ours = [
            sys.executable,
            "-m",
            "newsletter",
            "--project",
            str(ROOT),
            "build",
            slug,
            "--out",
            f"{folder}/out",
        ]
        theirs = [str(peer()), str(source), "-o", f"{folder}/theirs.html"]
        rounds = [(measure(ours), measure(theirs)) for _ in range(ROUNDS + 1)][
            1:
        ]  # the first warms the caches
    print(table(rounds))
    REPORT.write_text(HEAD + table(rounds) + "\n", encoding="utf-8")
    return 0 if ratio(rounds, "wall") <= 1 else 1


def mjml_source(settings: object, slug: str) -> str:
    """What our templates make of the issue, without our private marks."""
    issue = load_issue(ROOT, slug)
    context = template_context(
        issue,
        publication=wiring.publication(settings),
        theme=wiring.theme(settings),
        texts=wiring.texts(settings),
    )
    return re.sub(r' data-at="[^"]*"', "", Templates(None, FILTERS).render("issue.mjml.j2", context))


def peer() -> Path:
    """The `mjml` command, installed beside the checkout at first use."""
    command = PEERS / "node_modules" / ".bin" / "mjml"
    if not command.exists():
        PEERS.mkdir(exist_ok=True)
        subprocess.run(
            ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(PEERS), MJML],
            check=True,
        )
    return command


def measure(command: list[str]) -> Cost:
    """Wall and CPU seconds of one process from start to end."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def ratio(rounds: list[tuple[Cost, Cost]], figure: str) -> float:
    """The median of ours / theirs, round by round."""
    return statistics.median(getattr(ours, figure) / getattr(theirs, figure) for ours, theirs in rounds)


def table(rounds: list[tuple[Cost, Cost]]) -> str:
    """What was measured, in Markdown."""
    lines = [
        f"Cold build of one issue, {ROUNDS} rounds in turn, {platform.python_implementation()} "
        f"{platform.python_version()}, {MJML}.",
        "",
        "| figure | newsletter build (median) | mjml (median) | ratio (median) | ratio (range) |",
        "|---|---|---|---|---|",
    ]
    for figure in Cost._fields:
        ours, theirs = ([getattr(cost, figure) for cost in side] for side in zip(*rounds, strict=True))
        ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
        medians = (statistics.median(ours), statistics.median(theirs))
        lines.append(
            f"| {figure} | {medians[0]:.2f} s | {medians[1]:.2f} s | {statistics.median(ratios):.2f} "
            f"| {ratios[0]:.2f}–{ratios[-1]:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

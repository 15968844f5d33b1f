"""A cold `newsletter build` against a cold `mjml` (npm), whole processes in turn, the newest sample issue.

Ours does more: it reads and checks the issue, makes the text part, inlines the CSS and writes the message. The npm
package gets the MJML that our templates made of the same issue.
"""

from __future__ import annotations

import re
import resource
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from newsletter import wiring
from newsletter.config import load
from newsletter.content import load as load_issue
from newsletter.content import slugs
from newsletter.render import FILTERS, template_context
from newsletter.render.templates import Templates
from tests.bench import peers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from newsletter.config import Settings

ROUNDS = 9


class Cost(NamedTuple):
    """One whole process."""

    wall: float  # seconds
    cpu: float  # seconds


def compare(folder: Path) -> tuple[str, bool]:
    """The table, and whether ours is no slower."""
    settings = load(peers.ROOT, {})
    slug = slugs(peers.ROOT)[-1]
    source = folder / "issue.mjml"
    source.write_text(mjml_source(settings, slug), encoding="utf-8")
    project, out = str(peers.ROOT), str(folder / "out")
    ours = [sys.executable, "-m", "newsletter", "--project", project, "build", slug, "--out", out]
    command = peers.node("mjml").parent / ".bin" / "mjml"
    theirs = [str(command), str(source), "-o", str(folder / "theirs.html")]
    rounds = [(measure(ours), measure(theirs)) for _ in range(ROUNDS + 1)][1:]  # the first warms the caches
    return table(rounds), ratio(rounds, "wall") <= 1


def mjml_source(settings: Settings, slug: str) -> str:
    """What our templates make of the issue, without our private marks."""
    issue = load_issue(peers.ROOT, slug)
    context = template_context(
        issue,
        publication=wiring.publication(settings),
        theme=wiring.theme(settings),
        texts=wiring.texts(settings),
    )
    return re.sub(r' data-at="[^"]*"', "", Templates(None, FILTERS).render("issue.mjml.j2", context))


def measure(command: Sequence[str]) -> Cost:
    """Wall and CPU seconds of one process from start to end."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def ratio(rounds: Sequence[tuple[Cost, Cost]], figure: str) -> float:
    """The median of ours / theirs, round by round."""
    return statistics.median(getattr(ours, figure) / getattr(theirs, figure) for ours, theirs in rounds)


def table(rounds: Sequence[tuple[Cost, Cost]]) -> str:
    """What was measured, in Markdown."""
    lines = [
        f"Whole processes from start to end, ours and {peers.version('mjml')} in turn, {ROUNDS} rounds, the same issue;"
        " ours also checks it, inlines its CSS and writes the message. Ratios below 1 mean that ours is faster.",
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

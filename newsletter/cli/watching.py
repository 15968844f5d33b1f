"""``status --watch``: looks again and again, and never so often that the sender feels it."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import click

from newsletter.cli import campaigns, progress, streaming

if TYPE_CHECKING:
    from collections.abc import Sequence

    from newsletter.cli.campaigns import Row
    from newsletter.cli.main import Project

LOOK_SECONDS, LOOK_SELDOM, LOOK_TIMES = 1.0, 10.0, 50
"""A look takes a fiftieth of the time: a million rows are counted in 0.1 to 0.3 s, so it comes each five or ten."""


class Watcher(Protocol):
    """What becomes of each look."""

    def show(self, rows: Sequence[Row]) -> None:
        """Campaigns that are being sent."""

    def leave(self) -> None:
        """The person stops watching."""

    def end(self, rows: Sequence[Row]) -> None:
        """Nobody is sending any more: how they stand."""


def watch(project: Project, slug: str | None, *, as_json: bool) -> int:
    """Until nobody is sending (a campaign of that issue); returns the exit code."""
    from newsletter.cli.main import INTERRUPTED

    shown = _watcher(as_json=as_json)
    try:
        seen = _until_it_rests(project, slug, shown)
        shown.end([row for row in campaigns.look(project, slug) if not seen or row.campaign.id in seen])
    except KeyboardInterrupt:
        with suppress(OSError):
            shown.leave()
        return INTERRUPTED
    return 0


def _watcher(*, as_json: bool) -> Watcher:
    if as_json:
        return Objects()
    return Page() if progress.is_live(sys.stdout) else Plain()


def _until_it_rests(project: Project, slug: str | None, shown: Watcher) -> set[int]:
    """Shows each look; returns the ids of the campaigns that were at work."""
    seen: set[int] = set()
    while True:
        began = time.monotonic()
        rows = campaigns.look(project, slug, moving=True)
        if not rows and not _somebody_begins(project):
            return seen
        cost = time.monotonic() - began if seen else 0.0  # the first one is slow in any case
        seen |= {row.campaign.id for row in rows}
        shown.show(rows)
        _rest(project, progress.rest(cost, least=LOOK_SECONDS, most=LOOK_SELDOM, times=LOOK_TIMES))


def _rest(project: Project, seconds: float) -> None:
    """That long, or until nobody is at work any more."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and campaigns.at_work(project):
        time.sleep(min(left, LOOK_SECONDS))


def _somebody_begins(project: Project) -> bool:
    """A sender that has not written down yet what it sends: perhaps this."""
    return any(sender.campaign_id is None for sender in campaigns.at_work(project))


class Page:
    """On a terminal: two lines for each campaign, written anew."""

    def __init__(self) -> None:
        self._screen = progress.Screen(sys.stdout)
        self._bar = progress.Bar(sys.stdout)

    def show(self, rows: Sequence[Row]) -> None:
        columns, lines = self._screen.size
        room = columns - progress.MARGIN
        page = [line for row in rows for line in self._lines(row, room)]
        self._screen.draw(page[: lines - 1])

    def _lines(self, row: Row, columns: int) -> tuple[str, str]:
        state = f"{row.campaign.label}  {campaigns.standing(row.campaign, row.work)}"
        standing = progress.Standing.of(row.counts)
        return progress.cut(state, columns), self._bar.line(standing, row.rate, columns)

    def leave(self) -> None:
        self._screen.leave()

    def end(self, rows: Sequence[Row]) -> None:
        self._screen.clear()
        campaigns.print_status(rows)


class Plain:
    """In a pipe, a file or cron: lines, and the table at the end."""

    def __init__(self) -> None:
        self._lines: dict[int, progress.Lines] = {}

    def show(self, rows: Sequence[Row]) -> None:
        for row in rows:
            lines = self._lines.setdefault(row.campaign.id, progress.Lines(first_after=0))
            lines.show(row.campaign.label, progress.Standing.of(row.counts), row.rate, time.monotonic())

    def leave(self) -> None:
        pass

    def end(self, rows: Sequence[Row]) -> None:
        campaigns.print_status(rows)


class Objects:
    """For scripts: JSON, a line for each campaign at each look, the last ones when nobody is sending any more."""

    def show(self, rows: Sequence[Row]) -> None:
        for row in rows:
            click.echo(streaming.as_line(row.as_json()))

    def leave(self) -> None:
        pass

    def end(self, rows: Sequence[Row]) -> None:
        self.show(rows)

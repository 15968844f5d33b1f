"""A second ``send`` beside one that is at work: it watches."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from newsletter.cli import output, progress
from newsletter.cli.campaigns import rate_of, tally
from newsletter.errors import Occupied, Unfinished

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from newsletter.model import Campaign

LOOK_SECONDS = 0.5
COUNT_SELDOM, COUNT_TIMES = 10.0, 50
"""Counting takes a fiftieth of the time: a million rows take 0.1 to 0.3 s, and the sender would feel it."""


def until_it_ends(
    engine: Engine, lock_path: Path, find: Callable[[Connection], Campaign | None], busy: Occupied
) -> Campaign:
    """Shows how far the other process is; returns its campaign when it has ended.

    Raises ``Occupied`` when it sends something else, and ``Unfinished`` when it ended without a campaign.
    """
    from newsletter.store import lock
    from newsletter.store.engine import read
    from newsletter.store.owners import at_work

    output.say(
        f"{str(busy)[0].upper()}{str(busy)[1:]} This one follows; Ctrl-C stops following, not sending."
    )
    shown, next_look = progress.display(first_after=0), 0.0
    try:
        while lock.is_held(lock_path):
            campaign = read(engine, find)
            _check_same(campaign, [other.campaign_id for other in at_work(engine, lock_path)], busy)
            if campaign is not None and time.monotonic() >= next_look:
                next_look = _show(engine, campaign, shown)
            time.sleep(LOOK_SECONDS)
    finally:
        with suppress(OSError):
            shown.close()
    ended = read(engine, find)
    if ended is None:
        raise Unfinished("the other process ended and had sent nothing.", hint="Run the same command again.")
    return ended


def _check_same(campaign: Campaign | None, theirs: list[int | None], busy: Occupied) -> None:
    others = [each for each in theirs if each is not None and (campaign is None or each != campaign.id)]
    if others:
        raise busy


def _show(engine: Engine, campaign: Campaign, shown: progress.Display) -> float:
    """Returns when to count again."""
    began = time.monotonic()
    standing = progress.Standing.of(tally(engine, campaign))
    shown.show(campaign.label, standing, rate_of(engine, campaign, datetime.now(UTC)), time.monotonic())
    now = time.monotonic()
    return now + progress.rest(now - began, least=LOOK_SECONDS, most=COUNT_SELDOM, times=COUNT_TIMES)

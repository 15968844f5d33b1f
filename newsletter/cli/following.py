"""A second ``send`` beside one that is at work: it watches."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from newsletter.cli import output
from newsletter.cli.campaigns import summary, tally
from newsletter.errors import Occupied, Unfinished

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from newsletter.model import Campaign

LOOK_SECONDS = 0.5
TELL_SECONDS = 5.0


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
    told, said = 0.0, ""
    while lock.is_held(lock_path):
        campaign = read(engine, find)
        _check_same(campaign, [other.campaign_id for other in at_work(engine, lock_path)], busy)
        if campaign is not None and time.monotonic() - told >= TELL_SECONDS:
            told, said = time.monotonic(), _tell(engine, campaign, said)
        time.sleep(LOOK_SECONDS)
    ended = read(engine, find)
    if ended is None:
        raise Unfinished("the other process ended and had sent nothing.", hint="Run the same command again.")
    return ended


def _check_same(campaign: Campaign | None, theirs: list[int | None], busy: Occupied) -> None:
    others = [each for each in theirs if each is not None and (campaign is None or each != campaign.id)]
    if others:
        raise busy


def _tell(engine: Engine, campaign: Campaign, before: str) -> str:
    said = f"{campaign.label}: {summary(tally(engine, campaign))}."
    if said != before:
        output.say(said)
    return said

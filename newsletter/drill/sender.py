"""A sender whose ledger kills its own process: ``python -m newsletter.drill.sender --project DIR … after 7``.

It goes on with a campaign exactly as ``newsletter send`` does; only the ledger that it wires in counts its commits
and ends the process, by SIGKILL, before or after one of them. So the product needs no fail-points, and the moments
that matter most (the mark is stored and nothing has left; everything has left and no answer is stored) are hit for
certain instead of by luck.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newsletter import config, recovery, sending, wiring
from newsletter.drill.project import SLUG
from newsletter.errors import NewsletterError, Refused, Unfinished
from newsletter.message import MessageSettings
from newsletter.model import CampaignState
from newsletter.store import campaigns, owners
from newsletter.store.engine import read, write
from newsletter.store.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Engine

    from newsletter.config import Settings
    from newsletter.model import Campaign, Outcome
    from newsletter.store.ahead import Claimed


class Deadly(Ledger):
    """The real ledger, until its ``at``-th step."""

    def __init__(self, *args: Any, at: int, after: bool, **rest: Any) -> None:
        super().__init__(*args, **rest)
        self._left = at
        self._after = after

    def step(self, settled: Sequence[Outcome], want: int, now: datetime) -> list[Claimed]:
        """Before: what the lanes settled is lost. After: what was handed never leaves."""
        self._left -= 1
        if not self._left and not self._after:
            _die()
        handed = super().step(settled, want, now)
        if not self._left:
            _die()
        return handed


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def go_on(settings: Settings, at: int, *, after: bool) -> Campaign:
    """Takes up the campaign and sends, as far as the ledger lets it. Raises what ``newsletter send`` would."""
    engine = wiring.open_store(settings)
    try:
        lock, way = wiring.lock_path(settings), f"{settings.sending.transport} 127.0.0.1"
        with owners.own(engine, lock, name=wiring.whoami(), way=way, clock=_now) as mine:
            recovery.recover(engine, mine, _now())
            campaign = sending.begun(engine, SLUG, settings.newsletter.list, wiring.kind(settings))
            if campaign is None:
                raise Refused("there is no campaign to go on with.")
            if campaign.state is CampaignState.FINISHED:
                return campaign
            return _send(engine, settings, campaign, mine, partial(Deadly, at=at, after=after))
    finally:
        engine.dispose()


def _send(
    engine: Engine, settings: Settings, campaign: Campaign, mine: str, ledger: Callable[..., Ledger]
) -> Campaign:
    write(engine, lambda conn: owners.takes(conn, mine, campaign.id))
    editions, message = read(engine, lambda conn: campaigns.load_editions(conn, campaign.id))
    conduct = sending.Conduct(
        sign=wiring.signer(settings),
        retry=settings.sending.retry,
        owner=mine,
        only=wiring.only(settings),
        ledger=ledger,
    )
    wires = wiring.wires(editions, MessageSettings.from_dict(message))
    return sending.run(engine, campaign, wiring.transport(settings, campaign.issue), wires, conduct)


def _now() -> datetime:
    return datetime.now(UTC)


def main(arguments: Sequence[str]) -> int:
    """The process; ends with the exit codes of ``newsletter send``."""
    parser = argparse.ArgumentParser(prog="newsletter.drill.sender", description=__doc__)
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("when", choices=["before", "after"])
    parser.add_argument("step", type=int)
    told = parser.parse_args(arguments)
    try:
        ended = go_on(config.load(told.project, os.environ), told.step, after=told.when == "after")
    except NewsletterError as error:
        print(error, error.hint, sep="\n", file=sys.stderr)
        return error.exit_code
    return 0 if ended.state is CampaignState.FINISHED else Unfinished.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

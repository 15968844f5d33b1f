"""What a crash left, put right at the next start.

Only the holder of the sending lock may call this: the lock is free exactly when its owner is dead, so every claimed or
handed row, and every campaign that is still being prepared, belongs to a process that can't act any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from newsletter.model import CampaignState
from newsletter.store import campaigns, ledger
from newsletter.store.engine import in_chunks, read, write

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Engine


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was found: rows given back, and copies of which nobody can say whether they left."""

    freed: int
    unknown: int


def recover(engine: Engine, now: datetime) -> Recovered:
    """Claimed → pending, handed → unknown, unfinished freezes away. Running it twice is running it once."""
    freed, unknown = write(engine, lambda conn: ledger.orphaned(conn, now))
    in_chunks(engine, partial(campaigns.sweep, now=now))
    remove_unfinished(engine)
    return Recovered(freed, unknown)


def remove_unfinished(engine: Engine) -> None:
    """Takes away what killed freezes left. Nothing of it has been sent."""
    for old in read(engine, lambda conn: campaigns.in_state(conn, CampaignState.PREPARING)):
        in_chunks(engine, partial(campaigns.remove_rows, campaign_id=old.id))
        write(engine, partial(campaigns.remove, campaign_id=old.id))

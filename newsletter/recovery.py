"""What a crash left, put right at the next start.

Only the holder of the sending lock may call this: the lock is free exactly when its owner is dead, so every claimed or
handed row belongs to a process that can't act any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from newsletter.store import ledger
from newsletter.store.engine import write

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Engine


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was found: rows given back, and copies of which nobody can say whether they left."""

    freed: int
    unknown: int


def recover(engine: Engine, now: datetime) -> Recovered:
    """Claimed → pending, handed → unknown. Running it twice is running it once."""
    freed, unknown = write(engine, lambda conn: ledger.orphaned(conn, now))
    return Recovered(freed, unknown)

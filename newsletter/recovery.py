"""What a crash left, put right at the next start.

An owner is dead when its lock is free (``store.owners``): it can't act any more, and its row is ended before its rows
are touched, so that a process which was only thought dead gets nothing more to hand over.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from newsletter import limits
from newsletter.errors import Refused
from newsletter.store import campaigns, ledger, owners
from newsletter.store.engine import in_chunks, read, write

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, Engine


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was found: rows given back, and copies of which nobody can say whether they left."""

    freed: int
    unknown: int


def recover(engine: Engine, mine: str, now: datetime) -> Recovered:
    """Claimed → pending and handed → unknown for every owner that is dead. Running it twice is running it once."""

    def work(conn: Connection) -> Recovered:
        if not owners.is_living(conn, mine):
            raise taken_over()
        owners.bury(conn, mine, now)
        return Recovered(*ledger.orphaned(conn, now))

    found = write(engine, work)
    in_chunks(engine, partial(campaigns.sweep, now=now))
    return found


def check_clock(engine: Engine, now: datetime) -> None:
    """Raises ``Refused`` when the ledger has written down moments that lie ahead.

    A clock that has jumped back would hide retries that are due and put answers before their questions.
    """
    latest = read(engine, owners.newest)
    if latest is not None and limits.is_behind(now, latest):
        raise clock_jumped(now, latest)


def trust_clock(engine: Engine, now: datetime) -> None:
    """A person says that the clock was wrong before and is right: what it wrote ahead is said of now, and passes."""
    write(engine, lambda conn: owners.not_after(conn, now))


def taken_over() -> Refused:
    """The error of a process that others have taken for dead."""
    return Refused(
        "another process has taken this one for dead and its copies over: it was stopped, or cut off, for too long.",
        hint="Its copies in flight are unknown or settled. `newsletter send` joins in again.",
    )


def clock_jumped(now: datetime, latest: datetime) -> Refused:
    """The error for it."""
    return Refused(
        f"the clock says {now:%Y-%m-%d %H:%M:%S} UTC, but the ledger was written at {latest:%Y-%m-%d %H:%M:%S} UTC.",
        hint="Nothing was handed over. Set the clock (`timedatectl` shows it) and run the same command again. "
        "If it was wrong then and is right now: `newsletter run --once --clock-is-right`, "
        "or add that option to `newsletter send`.",
    )

"""What ``engine`` needs to know of a kind of database: each has a module of its own with these functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sqlalchemy import URL, Connection, Engine

PATIENCE_SECONDS = 30.0
WAIT = "newsletter_wait"  # execution option: seconds to wait for the write lock; absent means reading
SHARED = "newsletter_shared"  # execution option: several may hold the write lock in this way
FENCE = "newsletter_fence"  # execution option of an engine: why nothing may be written; empty, or absent, if it may

UPGRADE = "Run `newsletter db upgrade`."
RUNBOOK = "docs/runbook/restore-on-a-new-machine.md"
CLAIM = (
    "Use the one it was made from. If that is gone for good, `newsletter db claim` takes this one over "
    f"({RUNBOOK})."
)


@dataclass(frozen=True, slots=True)
class Problem:
    """An error of the database that a person can do something about."""

    sentence: str  # without its full stop: the name of the database follows
    hint: str


@dataclass(frozen=True, slots=True)
class Health:
    """What a look at the whole database found."""

    damage: list[str]
    checked: str  # what was looked at, for the sentence that says all is well
    doubts: list[str]  # what the database's settings can't promise


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a database is, as far as it can tell itself."""

    server: str  # the number of the server; empty for a file, which is where this machine is
    number: str  # of the database on it, or the path of the file
    place: str  # for people
    file: Path | None = None


class Database(Protocol):
    """One kind of database."""

    def make(self, url: URL, *, create: bool) -> Engine:
        """An engine whose transactions begin as ``write`` and ``read`` promise. Raises ``ConfigError``."""

    def name(self, url: URL) -> str:
        """How errors call the database; never with a password."""

    def explain(self, error: BaseException, *, connecting: bool) -> Problem | None:
        """What the driver's error means; None for what is the caller's business, or a bug."""

    def expect_small_commits(self, conn: Connection) -> None:
        """Thousands of them follow on this connection: sending begins."""

    def scrub(self, engine: Engine) -> bool:
        """Takes what was erased out of free space and logs, as far as it can; False if others were in the way."""

    def health(self, conn: Connection) -> Health:
        """Looks for damage; reads everything and changes nothing."""

    def whereabouts(self, conn: Connection) -> Whereabouts:
        """What changes when the database is copied to another place."""

    def last_numbers(self, conn: Connection) -> dict[str, int]:
        """The highest number that was ever given out, by table."""

    def count_on(self, conn: Connection, numbers: Mapping[str, int]) -> None:
        """Gives out none of these numbers again, nor one that stands in a row."""

"""A crash drill: a throw-away campaign, the real sender, a provider that keeps its own book, and SIGKILL.

Everything happens in a temporary folder and on loopback. Senders are child processes, killed at random moments, or by
a ledger that kills its own process before or after one of its commits (``drill.sender``); the product itself has no
fail-points. The provider lives in this process, so its book survives every kill, and it misbehaves as ``faults``
says. At the end the ledger is held against the book (``verdict``).

The seed decides which faults, kills and people there are. What the processes make of it depends on the machine's
timing too, so the same seed gives the same plan and not the same figures.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from newsletter.drill.book import Book
from newsletter.drill.children import Nursery, Programs
from newsletter.drill.crew import Crew
from newsletter.drill.project import Project, Way
from newsletter.drill.sendgrid_provider import SendGridProvider
from newsletter.drill.smtp_provider import SmtpProvider
from newsletter.drill.verdict import Evidence, judge
from newsletter.errors import DrillFailed, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from newsletter.drill.crew import Diary
    from newsletter.drill.provider import Provider
    from newsletter.drill.verdict import Verdict

PROVIDERS: Mapping[str, type[Provider]] = {"smtp": SmtpProvider, "sendgrid": SendGridProvider}
LARGEST_WINDOW = 50  # copies in one request, as newsletter.toml has it when it says nothing
MOST_SENTENCES = 5  # about people, in an error


@dataclass(frozen=True, slots=True)
class Order:
    """What kind of drill."""

    people: int = 1000
    kills: int = 20
    transports: Sequence[str] = ("smtp", "sendgrid")
    seed: int = 1
    connections: int = 5
    processes: int = 1
    database: str = ""  # of an empty scratch database; "": SQLite in the throw-away folder
    faults: bool = True
    keep: bool = False
    programs: Programs = field(default_factory=Programs)

    def fault_chance(self, window: int) -> float:
        """Per connection, and per copy or request: high in a small drill, so that most kinds of fault come up."""
        return min(0.15, window * max(0.01, 60 / self.people)) if self.faults else 0.0

    def window(self, transport: str) -> int:
        """Copies in one request: so few that something is left to be killed in after each kill."""
        if transport == "smtp":
            return 1
        share = self.people // (3 * self.connections * self.processes * (self.kills + 1))
        return max(2, min(LARGEST_WINDOW, share))


@dataclass(frozen=True, slots=True)
class Report:
    """What one transport's drill came to."""

    transport: str
    database: str  # sqlite or postgresql
    connections: int
    processes: int
    window: int
    kills_wanted: int
    verdict: Verdict
    diary: Diary
    withheld: int  # answers that the provider cut, or at most so many
    faults: Mapping[str, int]
    seconds: float


def run(order: Order, tell: Callable[[str], None] = lambda _sentence: None) -> list[Report]:
    """Drills each transport in turn; ``tell`` hears what begins.

    Raises ``DrillFailed`` when the ledger did not tell the truth: then the folder stays. Else it is removed, also
    after Ctrl-C, unless ``keep``; the children are ended in any case. Raises ``Refused`` for a database with tables.
    """
    root = Path(tempfile.mkdtemp(prefix="newsletter-drill-"))
    kept = order.keep
    try:
        return _run(order, root, tell)
    except DrillFailed as error:
        kept = True
        error.hint = (
            f"This is a bug in newsletter: please report it. What the drill left is in {root}. "
            f"To repeat it: --seed {order.seed}"
        )
        raise
    finally:
        if kept:
            tell(f"The drill's folder: {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)


def _run(order: Order, root: Path, tell: Callable[[str], None]) -> list[Report]:
    project = Project(root, order.database)
    try:
        if order.processes > 1 and project.engine.dialect.name == "sqlite":
            raise UsageError(
                "on SQLite only one process sends at a time.",
                hint="Name an empty PostgreSQL database with --database, or leave --processes out.",
            )
        reports = [_drill(order, project, transport, tell) for transport in order.transports]
        if order.database and not order.keep:
            project.empty()
        return reports
    finally:
        project.close()


def _drill(order: Order, project: Project, transport: str, tell: Callable[[str], None]) -> Report:
    began = time.monotonic()
    book = Book()
    window = order.window(transport)
    server = PROVIDERS[transport](book, seed=order.seed, chance=order.fault_chance(window), window=window)
    with server as provider:
        way = Way(transport, provider.port, order.connections, window)
        tell(f"Drilling {transport}: {order.people} people, {order.kills} kills, seed {order.seed} …")
        project.configure(way)
        people = way.people(order.people)
        project.bring(way, people)
        diary = _fire(order, project, way, provider, people)
        if not provider.drain():
            raise DrillFailed("a connection to the provider stayed open after every sender had ended.")
        if provider.bugs:
            raise DrillFailed(f"the fake provider has a bug: {provider.bugs[0]}")
    verdict = judge(_evidence(order, project, way, book, diary, people))
    _refuse_lies(transport, verdict)
    return Report(
        transport=transport,
        database=project.engine.dialect.name,
        connections=order.connections,
        processes=order.processes,
        window=window,
        kills_wanted=order.kills,
        verdict=verdict,
        diary=diary,
        withheld=len(book.withheld) + book.unread,
        faults=dict(sorted(book.faults.items())),
        seconds=time.monotonic() - began,
    )


def _fire(order: Order, project: Project, way: Way, provider: Provider, people: Sequence[str]) -> Diary:
    with Nursery(project, way, order.programs, len(people)) as nursery:
        crew = Crew(
            project,
            way,
            provider,
            nursery,
            people,
            kills=order.kills,
            processes=order.processes,
            dice=random.Random(f"{order.seed} {way.transport}"),  # noqa: S311 - repeatable, nothing secret
        )
        return crew.work()


def _evidence(
    order: Order, project: Project, way: Way, book: Book, diary: Diary, people: Sequence[str]
) -> Evidence:
    campaign = project.campaign(way)
    assert campaign is not None, "the crew has seen it finished"
    return Evidence(
        people=people,
        rows=project.rows(campaign),
        copies=book.copies,
        withheld=book.withheld,
        unread=book.unread,
        refused=book.refused,
        left=diary.left,
        left_in_peace=diary.left_in_peace,
        kills=diary.kills.total(),
        per_kill=(way.window + 1) * order.connections,
    )


def _refuse_lies(transport: str, verdict: Verdict) -> None:
    faults = verdict.faults
    if not faults:
        return
    shown = "\n".join(faults[:MOST_SENTENCES])
    more = f"\n… and {len(faults) - MOST_SENTENCES} more" if len(faults) > MOST_SENTENCES else ""
    raise DrillFailed(f"over {transport}, ledger and book do not agree:\n{shown}{more}")

"""Run a crash drill, and print what the ledger was worth."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import click

from newsletter.cli import output
from newsletter.model import DeliveryState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from newsletter.drill import Report

WIDTH = 88  # columns of the words behind the figures
WAYS = ("smtp", "sendgrid")
HOW = {
    "moment": "at a random moment",
    "progress": "after some copies",
    "before": "before a commit",
    "after": "after a commit",
}


@click.command(epilog="Example: newsletter drill --people 2000 --kills 50")
@click.option("--people", type=click.IntRange(min=10), default=1000, show_default=True, help="Recipients.")
@click.option("--kills", type=click.IntRange(min=0), default=20, show_default=True, help="How many SIGKILLs.")
@click.option("--transport", type=click.Choice(WAYS), help="Only this one.  [default: both, in turn]")
@click.option("--seed", type=int, help="Repeat the plan of another drill.  [default: a new one]")
@click.option(
    "--connections", type=click.IntRange(1, 100), default=5, show_default=True, help="At once, per sender."
)
@click.option(
    "--processes",
    type=click.IntRange(1, 20),
    default=1,
    show_default=True,
    help="Senders at once; more than one needs PostgreSQL.",
)
@click.option(
    "--database", default="", metavar="URL", help="An empty scratch database.  [default: a new SQLite file]"
)
@click.option("--no-faults", is_flag=True, help="Let the provider take everything; only kill.")
@click.option("--keep", is_flag=True, help="Keep the folder (and the database's tables) to look at.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def drill(
    people: int,
    kills: int,
    transport: str | None,
    seed: int | None,
    connections: int,
    processes: int,
    database: str,
    *,
    no_faults: bool,
    keep: bool,
    as_json: bool,
) -> None:
    """Kill a throw-away sender again and again, and see whether the ledger is true.

    Sends a made-up campaign with the real sender to a fake provider on this machine that keeps its own book, while
    senders are killed, answers get lost and people unsubscribe. Ends with 0 only if the ledger told the truth about
    everybody. Your own project and database are not touched, and nothing leaves this machine.
    """
    import secrets

    from newsletter.drill import Order, run

    order = Order(
        people=people,
        kills=kills,
        transports=(transport,) if transport else WAYS,
        seed=secrets.randbelow(10**6) if seed is None else seed,
        connections=connections,
        processes=processes,
        database=database,
        faults=not no_faults,
        keep=keep,
    )
    reports = run(order, (lambda sentence: click.echo(output.safe(sentence), err=True)))
    if as_json:
        output.print_json([_json(report, order.seed) for report in reports])
    else:
        for report in reports:
            _print(report)
        output.say()
        output.say("The ledger told the truth about everybody.")


def _print(report: Report) -> None:
    output.say()
    output.say(_heading(report))
    for label, number, words in _rows(report):
        lines = textwrap.wrap(words, WIDTH) or [""]
        output.say(f"{label:>11}  {number:>7}  {lines[0]}".rstrip())
        for line in lines[1:]:
            output.say(f"{'':>22}{line}")


def _heading(report: Report) -> str:
    processes = f"{report.processes} processes with " if report.processes > 1 else ""
    copies = output.plural(report.window, "copy") if report.window == 1 else f"{report.window} copies"
    return (
        f"{report.transport} on {report.database}: {processes}{output.plural(report.connections, 'connection')}, "
        f"{copies} at once"
    )


def _rows(report: Report) -> list[tuple[str, object, str]]:
    verdict, diary = report.verdict, report.diary
    settled = {state: verdict.states.get(state, 0) for state in _SETTLED}
    doubt = f"{verdict.unknown_arrived} arrived, {verdict.unknown_missing} did not"
    per_kill = (report.window + 1) * report.connections
    explained = f"{diary.kills.total()} kills × {per_kill} + {report.withheld} withheld answers"
    return [
        ("people", verdict.people, ""),
        ("settled", verdict.settled, _listed(settled)),
        ("unknown", verdict.unknown, doubt),
        ("at most", diary.kills.total() * per_kill + report.withheld, explained),
        ("lost", len(verdict.lost), ""),
        ("duplicated", len(verdict.duplicated), ""),
        ("misjudged", len(verdict.misjudged), ""),
        ("kills", diary.kills.total(), _kills(report)),
        ("faults", sum(report.faults.values()), _listed(report.faults)),
        ("left", len(diary.left), "unsubscribed or were suppressed meanwhile"),
        ("resumed", diary.resumed, "times, after the provider refused the sender"),
        ("seconds", f"{report.seconds:.1f}", ""),
    ]


def _kills(report: Report) -> str:
    kills = report.diary.kills
    missing = report.kills_wanted - kills.total()
    over = f"; {missing} more were wanted, but the campaign was over" if missing else ""
    return _listed({HOW[how]: kills[how] for how in HOW}) + over


_SETTLED = (DeliveryState.ACCEPTED, DeliveryState.REFUSED, DeliveryState.SKIPPED)


def _listed(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts.items() if number)


def _json(report: Report, seed: int) -> dict[str, Any]:
    verdict, diary = report.verdict, report.diary
    return {
        "transport": report.transport,
        "database": report.database,
        "seed": seed,
        "connections": report.connections,
        "processes": report.processes,
        "window": report.window,
        "people": verdict.people,
        "settled": {state.value: verdict.states.get(state, 0) for state in _SETTLED},
        "unknown": {
            "all": verdict.unknown,
            "arrived": verdict.unknown_arrived,
            "not_arrived": verdict.unknown_missing,
            "not_explained_by_withheld_answers": verdict.unexplained,
            "of_these_at_most": verdict.bound,
        },
        "lost": list(verdict.lost),
        "duplicated": list(verdict.duplicated),
        "misjudged": list(verdict.misjudged),
        "kills": {how: diary.kills[how] for how in HOW},
        "kills_wanted": report.kills_wanted,
        "faults": dict(report.faults),
        "withheld_answers": report.withheld,
        "left": len(diary.left),
        "resumed": diary.resumed,
        "seconds": round(report.seconds, 1),
    }

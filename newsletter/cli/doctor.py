"""What must be right before an issue can go out by itself: looked at, and told in one line each."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from newsletter.cli import output
from newsletter.errors import ConfigError, NotReady

if TYPE_CHECKING:
    from collections.abc import Sequence

    from newsletter.cli.main import Project
    from newsletter.doctor.report import Result

COLOURS = {"ok": "green", "warning": "yellow", "error": "red", "not looked at": "cyan"}
WIDTH = max(map(len, COLOURS))


@click.command(epilog="Example: newsletter doctor --seed received.eml")
@click.option("--json", "as_json", is_flag=True, help="Print what was found for a script.")
@click.option(
    "--seed",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A mail of yours as a mailbox has received it, to look at its signature.",
)
@click.option(
    "--nameserver",
    default="",
    metavar="HOST[:PORT]",
    help="Ask this one for names, your pages' name too, and not the system's.",
)
@click.option("--offline", is_flag=True, help="Leave out what needs the network.")
@click.pass_obj
def doctor(project: Project, *, as_json: bool, seed: Path | None, nameserver: str, offline: bool) -> None:
    """Look at everything that must be right before an issue goes out by itself.

    Settings, database, clock, disk, the way out, what the DNS says of you, and your readers' pages. It sends no mail
    and ends within a quarter of a minute.
    """
    found = _look(project, seed, nameserver, offline=offline)
    if as_json:
        output.print_json([_plain(result) for result in found])
    else:
        for result in found:
            _tell(result)
    _conclude(found, as_json=as_json)


def _look(project: Project, seed: Path | None, nameserver: str, *, offline: bool) -> Sequence[Result]:
    from newsletter import checkup
    from newsletter.config import load
    from newsletter.doctor import report

    root = project.root
    try:
        settings = load(root, os.environ)
    except ConfigError as problem:
        said = report.error("configuration", str(problem), problem.hint or "Mend it, and look again.")
        return [said, report.unseen("everything else", "without settings there is nothing to look at.")]
    asked = checkup.Asked(seed, nameserver, offline)
    return report.examine(checkup.checks(settings, asked), checkup.SECONDS)


def _plain(result: Result) -> dict[str, str]:
    return {"level": result.level, "name": result.name, "detail": result.detail, "hint": result.hint}


def _tell(result: Result) -> None:
    level = output.styled(f"{result.level:<{WIDTH}}", sys.stdout, fg=COLOURS[result.level])
    click.echo(f"{level}  {output.safe(f'{result.name}: {result.detail}')}")
    if result.hint:
        indent = " " * (WIDTH + 4)
        click.echo(f"{indent[2:]}→ {output.safe(result.hint).replace(chr(10), chr(10) + indent)}")


def _conclude(found: Sequence[Result], *, as_json: bool) -> None:
    """Raises ``NotReady`` if there is an error."""
    levels = [result.level.value for result in found]
    errors, warnings = levels.count("error"), levels.count("warning")
    counted = f"{output.plural(errors, 'error')}, {output.plural(warnings, 'warning')}"
    if errors:
        raise NotReady(
            f"not ready to send by itself: {counted}.", hint="Mend the errors above, and look again."
        )
    if not as_json:
        output.say(f"\nReady: {counted}, {levels.count('not looked at')} not looked at.")
        output.next_steps("newsletter proof SLUG --to ADDRESS")

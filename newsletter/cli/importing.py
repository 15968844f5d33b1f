"""Files of people, onto a list or among the suppressed: what would happen, how far it is, and what was done.

How far it is goes to standard error, so that the report can be kept in a file. Addresses are masked in it: it is mailed
around.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from newsletter.cli import output
from newsletter.errors import NewsletterError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Self

    from newsletter.cli.main import Project
    from newsletter.intake import Import, Report

QUIET_SECONDS = 1.0  # what is done by then needs no bar
LINE_SECONDS = 10.0  # between two lines where nothing can be drawn over
SHOWN_COLUMNS = 10  # of those left out
SIGNS = {"new": "+", "changed": "~", "stopped": "-", "refused": "!", "bad": "?"}
MEANS = {
    "new": "new",
    "changed": "changed",
    "stopped": "stopped (never to be mailed)",
    "unchanged": "unchanged",
    "refused": "refused",
    "repeated": "repeated in the file",
    "bad": "not understood",
}
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
LIST_HELP = "The list.  [default: the one in newsletter.toml]"

list_option = click.option("--list", "list_name", metavar="NAME", help=LIST_HELP)
source_option = click.option(
    "--source", default="", metavar="TEXT", help="Where this was said; it is recorded."
)


@click.command(
    "import",
    epilog="Example: newsletter subscribers import people.csv --source 'Clinic day, May 2026' --apply",
)
@click.argument("file", type=FILE)
@list_option
@source_option
@click.option(
    "--map",
    "mapping",
    multiple=True,
    metavar="COLUMN=MEANING",
    help="What a column holds: email, name, first, last, status or list; ignore takes it for nothing.",
)
@click.option(
    "--field", "fields", multiple=True, metavar="COLUMN", help="Keep this column as a merge tag of its name."
)
@click.option("--apply", is_flag=True, help="Do it; without this you only see what would happen.")
@click.pass_obj
def import_(
    project: Project,
    file: Path,
    list_name: str | None,
    source: str,
    mapping: tuple[str, ...],
    fields: tuple[str, ...],
    *,
    apply: bool,
) -> None:
    """Bring the people of a CSV file onto a list.

    The first line names the columns: `email`, and maybe `name` (or first and last name) and `status` (active,
    unsubscribed, bounced, complained). Whoever is not active is never mailed again. Nobody who left comes back. Of a
    file with a column `list`, only the rows of the list asked for are taken.
    """
    from newsletter.intake import Import, import_people

    chosen = list_name or project.settings.newsletter.list
    order = Import(
        file=file,
        list=chosen,
        source=_source(source, file),
        mapping=_mapping(mapping),
        fields=fields,
    )
    engine = project.store
    gc.freeze()  # what was imported stays, and need not be looked through again and again
    gc.set_threshold(20_000)  # `main` lets more gather; a million rows would leave 60 MB of it
    with _saying_what_is_done(apply=apply) as told:
        report = import_people(engine, order, project.settings.address_key, now=now(), apply=apply, told=told)
    _print_report(report)
    _after_import(project, order, report, apply=apply)


@contextmanager
def _saying_what_is_done(*, apply: bool) -> Iterator[Callable[[int, int], None]]:
    """Shows how far an import is, also when it stops before its end."""
    done = 0

    def told(people: int, lines: int) -> None:
        nonlocal done
        done = people
        shown.told(people, lines)

    try:
        with Shown() as shown:
            yield told
    except KeyboardInterrupt:
        words = f"{done:,} people are done. The same command does what is left." if apply else ""
        raise KeyboardInterrupt(words) from None
    except NewsletterError as error:
        if apply and done:
            error.hint = f"{done:,} people are done. {error.hint}".rstrip()
        raise


def _source(said: str, file: Path) -> str:
    """Where people of a file come from, as text that a database takes: names of files are bytes."""
    return os.fsencode(said or f"import of {file.name}").decode("utf-8", errors="replace")


def _mapping(texts: Sequence[str]) -> dict[str, str]:
    pairs = [_pair(text) for text in texts]
    if twice := [column for column, count in Counter(column for column, _ in pairs).items() if count > 1]:
        raise UsageError(f"--map names the column {twice[0]!r} twice.", hint="Leave one of them out.")
    return dict(pairs)


def _pair(text: str) -> tuple[str, str]:
    column, equals, meaning = text.rpartition("=")
    if not equals:
        raise UsageError(f"--map {text!r} has no =.", hint='Write it like this: --map "Mail=email"')
    return column.strip(), meaning.strip().casefold()


def _after_import(project: Project, order: Import, report: Report, *, apply: bool) -> None:
    from newsletter.rows import field_name

    known = project.settings.newsletter.fields
    unknown = [name for name in map(field_name, order.fields) if name not in known]
    if unknown:
        names = ", ".join(f'"{name}"' for name in (*known, *unknown))
        output.warn(f"issues can't use {', '.join(unknown)} before newsletter.toml says: fields = [{names}]")
    if report.new_list and report.changes and not apply:
        output.say(f"There is no list {order.list} yet: it will be made.")
    if not report.changes:
        output.say(
            f"Nothing {'was' if apply else 'would be'} changed: the file has nothing new for {order.list}."
        )
    elif apply:
        output.say(f"Done: {output.plural(report.changes, 'change')} on {order.list}.")
        output.next_steps("newsletter lists")
    else:
        output.say("Nothing was changed yet.")
        output.next_steps("the same command with --apply")


def _print_report(report: Report) -> None:
    for line in report.lines:
        shown = "  ".join(part for part in (line.address, line.why) if part)
        where = f"line {line.number}" if line.last == line.number else f"lines {line.number} to {line.last}"
        output.say(f"{SIGNS[line.verdict]} {where}: {shown}")
    if hidden := report.hidden:
        output.say(f"  … and {hidden} more")
    if report.lines:
        output.say()
    reasons = f": {_counted(report.refused)}"
    for verdict, number in sorted(report.counts.items(), key=lambda item: list(MEANS).index(item[0])):
        if number:
            output.say(f"{number:>8}  {MEANS[verdict]}{reasons if verdict == 'refused' else ''}")
    if report.others:
        output.say(
            f"{report.others.total():>8}  of other lists: {_counted(report.others)}; --list brings one of them"
        )
    if report.ignored:
        more = len(report.ignored) - SHOWN_COLUMNS
        shown = ", ".join(report.ignored[:SHOWN_COLUMNS])
        output.say(f"Columns left out: {shown}{f' and {more} more' if more > 0 else ''}")
    if report.encoding == "cp1252":
        output.warn("the file is not UTF-8 and was read as Windows-1252: check that names look right")


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {what}" for what, number in sorted(counts.items()))


@click.command("import", epilog="Example: newsletter suppressions import bounced.csv --source 'old provider'")
@click.argument("file", type=FILE)
@source_option
@click.pass_obj
def import_suppressions(project: Project, file: Path, source: str) -> None:
    """Suppress every address of a file, at once.

    A plain list, one address a line, or a CSV file with a column `email` and maybe `reason`.
    """
    from newsletter.admission import Verdict
    from newsletter.intake import suppress_file

    secret = project.settings.address_key
    engine = project.store
    report = suppress_file(engine, file, secret, source=_source(source, file), now=now())
    _print_report(report)
    if not report.changes:
        before = report.counts[Verdict.UNCHANGED]
        why = (
            "all that could be read were suppressed before"
            if before
            else "the file has no address that can be used"
        )
        output.say(f"Nothing was changed: {why}.")


# How far it is


class Shown:
    """told how many people were read, and how many lines there are."""

    def __init__(self, seconds: float = LINE_SECONDS, *, quiet: float = QUIET_SECONDS) -> None:
        self._bar: Any = None
        self._seconds = seconds
        self._next = time.monotonic() + quiet

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._bar is not None:
            self._bar.render_finish()

    def told(self, line: int, lines: int) -> None:
        """Shows it, if it is time to."""
        moment = time.monotonic()
        if self._bar is None and moment < self._next:
            return
        if not sys.stderr.isatty():
            self._next = moment + self._seconds
            click.echo(f"read {line:,} of {lines:,} lines", err=True)
            return
        if self._bar is None:
            self._bar = click.progressbar(length=lines, label="Reading", file=sys.stderr, show_pos=True)
            self._bar.render_progress()
        self._bar.update(line - self._bar.pos)


def now() -> datetime:
    """As every command about people records it."""
    return datetime.now(UTC)

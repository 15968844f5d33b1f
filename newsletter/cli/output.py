"""How every command speaks: results on stdout, errors and warnings on stderr, colour only where it helps.

Everything printed here may hold text from outside (a name in a CSV file, a server's answer), so control
characters never reach the terminal. Imports stand inside the functions: `--help` needs none of them.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from newsletter.errors import NewsletterError
    from newsletter.model import Finding

# Control characters but the line feed, and what turns the direction of a line around. Not `str.isprintable`: it
# would take the joiners out of Persian words and emoji, and the fixed spaces out of French sentences.
UNSAFE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
PIPE_WIDTH = 10_000  # columns: a table in a pipe or a file is never wrapped or cut


def accept_any_text() -> None:
    """Never die over a character the terminal's encoding lacks: show its code instead."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def styled(text: str, stream: TextIO, **style: Any) -> str:
    """``text`` in colour if ``stream`` is a terminal and NO_COLOR (https://no-color.org) is not set."""
    if os.environ.get("NO_COLOR") or not stream.isatty():
        return text
    return click.style(text, **style)


def safe(text: str) -> str:
    """``text`` without control characters, which could move the cursor or rewrite what was printed."""
    return UNSAFE.sub("\N{REPLACEMENT CHARACTER}", text)


def say(text: str = "") -> None:
    """A line of the result."""
    click.echo(safe(text))


def warn(text: str) -> None:
    """A line the person should see even when the result goes into a file."""
    click.echo(f"{styled('Warning:', sys.stderr, fg='yellow', bold=True)} {safe(text)}", err=True)


def next_steps(*lines: str) -> None:
    """What to do next: commands to paste, the last words of every command."""
    label = "Next:"
    for line in lines:
        say(f"{label} {line}")
        label = " " * len(label)


def print_json(value: Any) -> None:
    """``value`` for scripts."""
    click.echo(as_json(value))


def as_json(value: Any) -> str:
    """JSON without what could move a cursor."""
    import json

    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return UNSAFE.sub(lambda unsafe: json.dumps(unsafe[0])[1:-1], text)


@contextmanager
def as_file() -> Iterator[IO[str]]:
    """Standard output for what will be a file: UTF-8 and its own line ends, whatever the terminal has.

    It has a buffer of its own, because what a full disk did not take from ``sys.stdout`` would be tried again, and fail
    again, when the interpreter ends. Raises ``UsageError`` if it can't be written.
    """
    sys.stdout.flush()
    try:
        with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", newline="") as file:
            yield file
    except BrokenPipeError:
        raise
    except OSError as error:
        from newsletter.errors import UsageError

        raise UsageError(f"Standard output can't be written: {error.strerror or error}.") from error


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns under their names, as wide as they need; wide characters such as 李 count as two."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(safe("" if cell is None else str(cell)).replace("\n", " ")) for cell in row))
    terminal = sys.stdout.isatty()
    console = Console(file=sys.stdout, width=None if terminal else PIPE_WIDTH, highlight=False)
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        click.echo(line.rstrip())


def print_findings(findings: Iterable[Finding], *, err: bool = False) -> None:
    """Each finding as a block: where, what is wrong, what to do."""
    for finding in findings:
        click.echo(_block(finding, sys.stderr if err else sys.stdout), err=err)


def _block(finding: Finding, stream: TextIO) -> str:
    level = "waived" if finding.waived else finding.level.value
    colour = {"error": "red", "warning": "yellow"}.get(level, "green")
    lines = [
        f"{styled(level, stream, fg=colour)} {finding.code} {safe(finding.place)}",
        safe(finding.message),
    ]
    if finding.waived:
        lines.append(f"waived because: {safe(finding.waived)}")
    elif finding.hint:
        lines.append(f"→ {safe(finding.hint)}")
    return "\n    ".join(lines)


def count_findings(findings: Iterable[Finding]) -> str:
    """``2 errors, 1 warning``; waived ones are not counted."""
    levels = [finding.level.value for finding in findings if not finding.waived]
    errors, warnings = levels.count("error"), levels.count("warning")
    return f"{plural(errors, 'error')}, {plural(warnings, 'warning')}"


def plural(count: int, noun: str) -> str:
    """``1 error``, ``2 errors``, ``no errors``."""
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"


def print_error(error: NewsletterError) -> None:
    """One clear block on stderr: what went wrong, every finding, and the one thing to do next."""
    click.echo(f"{styled('Error:', sys.stderr, fg='red', bold=True)} {safe(str(error))}", err=True)
    print_findings(getattr(error, "findings", ()), err=True)
    if error.hint:
        click.echo(f"→ {safe(error.hint)}", err=True)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` Did you mean X?`` with a space before it, or nothing."""
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), n=1)
    return f" Did you mean {near[0]}?" if near else ""

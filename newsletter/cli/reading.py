"""How far the reading of a long file is: a bar on a terminal, a line now and then in a pipe or a log.

Both go to standard error, so that what a command finds can be kept in a file.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from typing import Self

QUIET_SECONDS = 1.0  # what is done by then needs no bar
LINE_SECONDS = 10.0  # between two lines where nothing can be drawn over


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
        now = time.monotonic()
        if self._bar is None and now < self._next:
            return
        if not sys.stderr.isatty():
            self._next = now + self._seconds
            click.echo(f"read {line:,} of {lines:,} lines", err=True)
            return
        if self._bar is None:
            self._bar = click.progressbar(length=lines, label="Reading", file=sys.stderr, show_pos=True)
            self._bar.render_progress()
        self._bar.update(line - self._bar.pos)

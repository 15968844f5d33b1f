"""A terminal of a given size, real as far as the program can tell (a pty), and what a person would see on it."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import termios
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.publisher import Publisher

DEADLINE_SECONDS = 60
SEQUENCE = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])")


class Terminal:
    """Shows what is written to ``side``. Knows the sequences that the program uses and no other: those fail."""

    def __init__(self, columns: int = 80, lines: int = 24) -> None:
        self._own, self.side = pty.openpty()
        termios.tcsetwinsize(self.side, (lines, columns))
        self.columns = columns
        self.raw = ""
        self.rows: list[str] = [""]
        self.wrapped: list[str] = []  # rows that did not fit: on a screen they would leave rubbish behind
        self.seen: list[str] = []  # the row of the cursor, each time it had changed
        self._row, self._column = 0, 0
        self._rest = ""

    def close(self) -> None:
        for descriptor in (self._own, self.side):
            os.close(descriptor)

    def type(self, text: str) -> None:
        """As a person would."""
        os.write(self._own, text.encode())

    def modes(self) -> list[Any]:
        """How the terminal is set: echo, lines, signals."""
        return termios.tcgetattr(self.side)

    @property
    def screen(self) -> str:
        """What stands there."""
        return "\n".join(row.rstrip() for row in self.rows).rstrip()

    def read(self, seconds: float = 0.0) -> bool:
        """Takes in what has come; waits so long for it. False when nothing came."""
        if not select.select([self._own], [], [], seconds)[0]:
            return False
        data = self._rest + os.read(self._own, 65536).decode("utf-8", "surrogateescape")
        whole = re.sub(r"(\x1b(\[[?0-9;]*)?|[\udc80-\udcff]+)$", "", data)  # a sequence or letter cut in two
        self._rest = data[len(whole) :]
        self.raw += whole
        self._show(whole.encode("utf-8", "surrogateescape").decode())
        return True

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Reads until it holds; fails when it never does."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"it never came that far:\n{self.screen}\n{self.seen}"
            self.read(0.02)

    def _show(self, text: str) -> None:
        at = 0
        while at < len(text):
            if sequence := SEQUENCE.match(text, at):
                self._obey(sequence[1], sequence[2])
                at = sequence.end()
                continue
            self._put(text[at])
            at += 1
        self._note()

    def _note(self) -> None:
        row = self.rows[self._row].rstrip()
        if row and (not self.seen or self.seen[-1] != row):
            self.seen.append(row)

    def _obey(self, number: str, letter: str) -> None:
        if letter == "m":
            return
        if letter == "A":
            self._row -= int(number or 1)
        elif letter in "JK" and not number:
            self.rows[self._row] = self.rows[self._row][: self._column]
            if letter == "J":
                del self.rows[self._row + 1 :]
        else:
            raise AssertionError(f"not known: ESC [ {number} {letter}")

    def _put(self, letter: str) -> None:
        if letter == "\r":
            self._note()
            self._column = 0
        elif letter == "\n":
            self._down()
        else:
            self._write(letter)

    def _down(self) -> None:
        self._row += 1
        if self._row == len(self.rows):
            self.rows.append("")

    def _write(self, letter: str) -> None:
        if self._column == self.columns:
            self.wrapped.append(self.rows[self._row])
            self._down()
            self._column = 0
        row = self.rows[self._row].ljust(self._column)
        self.rows[self._row] = row[: self._column] + letter + row[self._column + 1 :]
        self._column += 1


@contextmanager
def terminal(columns: int = 80, lines: int = 24) -> Iterator[Terminal]:
    """One that is closed again."""
    made = Terminal(columns, lines)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def on_a_terminal(
    made: Publisher, *args: str, columns: int = 80, env: dict[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], Terminal]]:
    """The real command on a terminal of its own."""
    environ = made.env() | {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"} | (env or {})
    with terminal(columns) as shown:
        side = shown.side
        process = subprocess.Popen(made.command(*args), stdin=side, stdout=side, stderr=side, env=environ)
        try:
            yield process, shown
        finally:
            process.kill()
            process.wait()


def finish(process: subprocess.Popen[bytes], shown: Terminal) -> int:
    """Waits for its end, reading all the time: a full terminal would hold it up."""
    shown.wait_for(lambda: process.poll() is not None)
    while shown.read():
        pass
    return process.wait()

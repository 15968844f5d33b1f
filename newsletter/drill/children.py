"""The senders: real processes, killed for real.

Only processes started here are ever ended, each through its own handle. If the drill itself is killed, they end by
themselves: their provider is gone, so they settle what they hold, try again for the length of the retry schedule,
and pause the campaign.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from newsletter.drill.project import SLUG

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from newsletter.drill.project import Project, Way

WORDS = 2000  # characters of a child's last words that an error shows


@dataclass(frozen=True, slots=True)
class Programs:
    """What a sender is. Tests put dishonest ones in their place, to see that a drill notices."""

    send: Sequence[str] = (sys.executable, "-m", "newsletter")
    exact: Sequence[str] = (sys.executable, "-m", "newsletter.drill.sender")


class Child:
    """A process that sends."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.began = time.monotonic()
        self._log = log

    @property
    def code(self) -> int | None:
        """How it ended; None while it lives. A signal is negative."""
        return self.process.poll()

    def kill(self) -> None:
        """SIGKILL: it can neither notice nor tidy up."""
        self.process.kill()
        self.process.wait()

    def ends_within(self, seconds: float) -> bool:
        """Waits for it; whether it has ended."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def last_words(self) -> str:
        """The end of what it printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-WORDS:].strip()


class Nursery:
    """Starts senders, and ends all that still live when the ``with`` block is left."""

    def __init__(self, project: Project, way: Way, programs: Programs, people: int) -> None:
        self._project = project
        self._way = way
        self._programs = programs
        self._people = people
        self._started: list[Child] = []

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_reason: object) -> None:
        for child in self._started:
            if child.code is None:
                child.kill()

    def send(self) -> Child:
        """``newsletter send``: begins the campaign, or goes on with it."""
        call = ("--project", str(self._project.root), "send", SLUG, "--list", self._way.readers)
        return self._start((*self._programs.send, *call, "--confirm", str(self._people)))

    def exact(self, *, after: bool, step: int) -> Child:
        """A sender whose ledger kills it before or after its ``step``-th commit."""
        call = ("--project", str(self._project.root))
        when = "after" if after else "before"
        return self._start((*self._programs.exact, *call, when, str(step)))

    def _start(self, command: Sequence[str]) -> Child:
        log = self._project.root / f"{self._way.transport}-sender-{len(self._started) + 1:04}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - our own program
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._project.root,
                env=dict(self._project.child_environ()),
                start_new_session=True,  # Ctrl-C is for the drill, which then ends them
            )
        child = Child(process, log)
        self._started.append(child)
        return child

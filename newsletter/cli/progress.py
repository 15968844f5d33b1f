"""How far a send is: a line that renews itself on a terminal, plain lines in a pipe, a file or cron.

The line is one write of one line, and nothing else: no cursor is hidden, no screen is switched, no thread draws. So
whatever ends the process, Ctrl-C twice and SIGKILL among it, leaves the terminal as it was. rich's ``Live`` hides the
cursor and draws from a thread; only its bar is used here. Words come before the bar, for who has the screen read out;
with TERM=dumb they get plain lines.

Nobody who looks on may stop the send: a terminal that was stopped with Ctrl-S or a pipe that nobody reads is passed
over, and one that has gone is silence.
"""

from __future__ import annotations

import math
import os
import select
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, TextIO

from newsletter.cli import output
from newsletter.errors import DatabaseError
from newsletter.model import OPEN_STATES, DeliveryState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Self

    from rich.console import Console

    from newsletter.desk import Progress

    Counts = Mapping[DeliveryState, int]

GONE = (OSError, RuntimeError, ValueError)
"""What speaking may raise: nobody is there any more, a signal handler speaks in the middle of it, a closed stream."""


# What is known


@dataclass(frozen=True, slots=True)
class Standing:
    """How many rows of a campaign have come how far."""

    accepted: int = 0
    refused: int = 0
    unknown: int = 0
    aside: int = 0  # skipped or closed: they are done, and nothing left for them
    waiting: int = 0

    @classmethod
    def of(cls, counts: Counts) -> Standing:
        """As the ledger has it."""
        known = {state: counts.get(state, 0) for state in DeliveryState}
        return cls(
            accepted=known[DeliveryState.ACCEPTED],
            refused=known[DeliveryState.REFUSED],
            unknown=known[DeliveryState.UNKNOWN],
            aside=known[DeliveryState.SKIPPED] + known[DeliveryState.CLOSED],
            waiting=sum(known[state] for state in OPEN_STATES),
        )

    @property
    def total(self) -> int:
        """All rows."""
        return self.answered + self.aside + self.waiting

    @property
    def answered(self) -> int:
        """Copies that have left, whatever became of them."""
        return self.accepted + self.refused + self.unknown

    @property
    def share(self) -> float:
        """What is done, 0 to 1."""
        return (self.total - self.waiting) / self.total if self.total else 1.0

    def after(self, heard: Progress, before: Progress) -> Standing:
        """With what was heard between ``before`` and ``heard``."""
        further = replace(
            self,
            accepted=self.accepted + heard.accepted - before.accepted,
            refused=self.refused + heard.refused - before.refused,
            unknown=self.unknown + heard.unknown - before.unknown,
        )
        return replace(further, waiting=max(0, self.waiting - (further.answered - self.answered)))


class Speed:
    """Copies per second over the last ten seconds. Pure: the time is an argument, in seconds of any clock."""

    OVER = 10.0
    LEAST = 2.0  # less shows how the connections were made

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, answered: int, now: float) -> None:
        """So many have left by now."""
        self._seen.append((now, answered))
        while len(self._seen) > 1 and self._seen[1][0] <= now - self.OVER:
            self._seen.popleft()

    def forget(self) -> None:
        """After a wait: it was no speed."""
        self._seen.clear()

    @property
    def rate(self) -> float | None:
        """None before there is enough to tell."""
        if not self._seen:
            return None
        (then, before), (now, answered) = self._seen[0], self._seen[-1]
        return max(0, answered - before) / (now - then) if now - then >= self.LEAST else None


def rest(cost: float, *, least: float, most: float, times: int) -> float:
    """Seconds until the next look: one that took ``cost`` seconds may use 1/``times`` of the time.

    Never longer than ``most``: a look may be slow by accident.
    """
    return min(max(least, cost * times), most)


# In words

MOST_DAYS = 99


def brief(seconds: float) -> str:
    """``15 s``, ``6 min``, ``2 h 10 min``, ``3 d``: rounded up, because being early is no disappointment."""
    if seconds > MOST_DAYS * 86400:  # also inf, which is what a hopeless rate gives
        return f"over {MOST_DAYS} d"
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = -int(-seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{-(-minutes // (24 * 60))} d"


def per_time(rate: float) -> str:
    """``812/s``, ``5.2/s``, ``30/min``: copies per second, in the unit that has figures to show."""
    if rate >= 10 or rate == 0:
        return f"{rate:,.0f}/s"
    if rate >= 1:
        return f"{rate:.1f}/s"
    return f"{rate * 60:.0f}/min" if rate * 60 >= 1 else f"{rate * 3600:.0f}/h"


def left(standing: Standing, rate: float | None) -> str:
    """``6 min left``; empty when nobody can say."""
    return f"{brief(standing.waiting / rate)} left" if rate and standing.waiting else ""


def pieces(standing: Standing, rate: float | None) -> dict[str, str]:
    """All there is to say, in the order of reading; what is empty is not said."""
    said = {
        "accepted": f"{standing.accepted:,} accepted",
        "refused": f"{standing.refused:,} refused" if standing.refused else "",
        "unknown": f"{standing.unknown:,} unknown" if standing.unknown else "",
        "aside": f"{standing.aside:,} skipped" if standing.aside else "",
        "waiting": f"{standing.waiting:,} waiting" if standing.waiting else "",
        "rate": per_time(rate) if rate is not None and standing.waiting else "",
        "left": left(standing, rate),
    }
    return {name: words for name, words in said.items() if words}


def sentence(label: str, standing: Standing, rate: float | None) -> str:
    """``2026-12 to readers: 410 accepted, 12 refused, 1,578 waiting, 82/s, 20 s left``: for plain lines."""
    return f"{label}: {', '.join(pieces(standing, rate).values())}"


# Which pieces a narrow terminal keeps, the dearest first.
DEAREST = ("accepted", "left", "unknown", "refused", "rate", "waiting", "aside")
GAP = 2
SHORTEST_BAR, LONGEST_BAR = 8, 30
MARGIN = 3  # a Ctrl-C shows as ^C behind the line, and must not begin another one


def fitting(standing: Standing, rate: float | None, columns: int) -> str:
    """What fits into ``columns``, ``41%  8,200 accepted  11,800 waiting  812/s  15 s left``."""
    said = pieces(standing, rate)
    percent = f"{int(standing.share * 100)}%"
    room, kept = columns - len(percent), set[str]()
    for name in DEAREST:
        need = GAP + len(said.get(name, ""))
        if name in said and need <= room:
            kept.add(name)
            room -= need
    words = (" " * GAP).join([percent, *(said[name] for name in said if name in kept)])
    return words[: max(0, columns)]


def cut(text: str, columns: int) -> str:
    """The beginning of a line, no wider than that; 李 is as wide as two letters."""
    from rich.cells import set_cell_size

    return set_cell_size(output.safe(text).replace("\n", " "), max(0, columns)).rstrip()


# Where it is shown


class Display(Protocol):
    """A place to show it."""

    def show(self, label: str, standing: Standing, rate: float | None, now: float) -> None:
        """How it stands at ``now``, in seconds; shown when it is time to."""

    def say(self, line: str) -> None:
        """A line that stays."""

    def close(self) -> None:
        """Nothing of it is left standing half."""


def is_live(stream: TextIO) -> bool:
    """Whether ``stream`` is a terminal on which a line can be written anew."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in {"dumb", "unknown"}


def display(*, first_after: float = 3.0) -> Display:
    """What standard output allows; in plain lines, nothing is said before ``first_after`` seconds."""
    return Line(sys.stdout) if is_live(sys.stdout) else Lines(first_after)


def takes(stream: TextIO) -> bool:
    """Whether a line can be written without waiting for whoever reads."""
    try:
        poller = select.poll()
        poller.register(stream.fileno(), select.POLLOUT)
    except (AttributeError, OSError, ValueError):  # no poll on Windows; no file behind a captured stdout
        return True
    return bool(poller.poll(0))


class Screen:
    """The last lines of a terminal, written anew in one write."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._rows = 0

    @property
    def size(self) -> os.terminal_size:
        """Columns and lines; what a terminal does not say is taken as usual."""
        try:
            found = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            found = os.terminal_size((0, 0))
        return os.terminal_size((found.columns or 80, found.lines or 24))

    def draw(self, lines: Sequence[str]) -> None:
        """These instead of those before; none may be wider than the terminal."""
        if takes(self._stream):
            text = self._back() + "\x1b[K\n".join(lines) + "\x1b[J"
            self._rows = len(lines)  # before the write: a signal handler that clears runs right after it
            self._write(text)

    def clear(self) -> None:
        """As if nothing had been drawn."""
        if self._rows:
            self._write(self._back() + "\x1b[J")
            self._rows = 0

    def leave(self) -> None:
        """What was drawn stays, and what comes next stands below it."""
        if self._rows:
            self._write("\n")
            self._rows = 0

    def _back(self) -> str:
        return "\r" + (f"\x1b[{self._rows - 1}A" if self._rows > 1 else "")

    def _write(self, text: str) -> None:
        """To the system at once: a signal handler that speaks meanwhile would find Python's buffer locked."""
        self._stream.flush()
        os.write(self._stream.fileno(), text.encode(self._stream.encoding or "utf-8", "replace"))


class Line:
    """On a terminal: one line with a bar, cleared when it is over."""

    EVERY = 0.2

    def __init__(self, stream: TextIO) -> None:
        self._screen = Screen(stream)
        self._bar = Bar(stream)
        self._drawn = -self.EVERY

    def show(self, label: str, standing: Standing, rate: float | None, now: float) -> None:
        if now - self._drawn >= self.EVERY:
            self._drawn = now
            self._screen.draw([self._bar.line(standing, rate, self._screen.size.columns - MARGIN)])

    def say(self, line: str) -> None:
        self._screen.clear()
        self._drawn = -self.EVERY
        output.say(line.lstrip("\n"))  # it begins where a line begins

    def close(self) -> None:
        self._screen.clear()


class Bar:
    """Words, and a bar where there is room for one; colour as rich finds it, which obeys NO_COLOR."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def line(self, standing: Standing, rate: float | None, columns: int) -> str:
        """One line, no wider than ``columns``."""
        words = fitting(standing, rate, columns)
        room = min(columns - len(words) - GAP, LONGEST_BAR)
        return words if room < SHORTEST_BAR else words + " " * GAP + self._drawn(standing.share, room)

    def _drawn(self, share: float, columns: int) -> str:
        from rich.progress_bar import ProgressBar

        with self._console.capture() as bar:
            self._console.print(ProgressBar(1.0, share, columns, complete_style="green"), end="")
        return bar.get()

    @cached_property
    def _console(self) -> Console:
        from rich.console import Console

        return Console(file=self._stream, width=LONGEST_BAR)


class Lines:
    """Everywhere else: the first after a few seconds, then one each ten seconds if something has changed."""

    EVERY = 10.0

    def __init__(self, first_after: float) -> None:
        self._next: float | None = None
        self._first_after = first_after
        self._said = ""

    def show(self, label: str, standing: Standing, rate: float | None, now: float) -> None:
        if self._next is None:
            self._next = now + self._first_after
        if now < self._next or not takes(sys.stdout):
            return
        self._next = now + self.EVERY
        counts = sentence(label, standing, None)
        if counts != self._said:
            self._said = counts
            output.say(sentence(label, standing, rate))

    def say(self, line: str) -> None:
        output.say(line)

    def close(self) -> None:
        pass


# Who feeds it


class Shown:
    """What ``send`` shows of its own work. ``told`` and ``notice`` are a ``Conduct``'s: quick, and they never raise.

    ``count`` reads the rows as they are: what was done before this process began is done, and only the ledger knows
    who was skipped and what other processes have sent. It is asked seldom, at most 1/200 of the time.
    """

    COUNT_SECONDS, COUNT_SELDOM, COUNT_TIMES = 5.0, 60.0, 200

    def __init__(
        self,
        label: str,
        count: Callable[[], Counts],
        *,
        shared: bool = False,
        screen: Display | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label = label
        self._count = count
        self._shared = shared  # others send too: only a count shows the speed of all
        self._display = screen or display()
        self._clock = clock
        self._speed = Speed()
        self._standing = Standing()
        self._before: Progress | None = None  # what had been heard when the rows were counted
        self._next_count = -math.inf

    def __enter__(self) -> Self:
        from newsletter.desk import Progress

        self.told(Progress())
        return self

    def __exit__(self, *_error: object) -> None:
        with suppress(*GONE):
            self._display.close()

    def told(self, heard: Progress) -> None:
        """What this process has heard so far."""
        with suppress(DatabaseError, *GONE):
            now = self._clock()
            counted = now >= self._next_count
            if counted:
                self._recount(heard, now)
            standing = self._standing.after(heard, self._before or heard)
            if counted or not self._shared:
                self._speed.note(standing.answered, now)
            self._display.show(self._label, standing, self._speed.rate, now)

    def notice(self, words: str) -> None:
        """It waits: says so in a line that stays."""
        self._speed.forget()
        self.say(words)

    def say(self, words: str) -> None:
        """A line that stays, above what renews itself."""
        with suppress(*GONE):
            self._display.say(words)

    def _recount(self, heard: Progress, now: float) -> None:
        self._next_count = now + self.COUNT_SECONDS  # also when it fails
        self._standing, self._before = Standing.of(self._count()), heard
        cost = self._clock() - now
        self._next_count = now + rest(
            cost, least=self.COUNT_SECONDS, most=self.COUNT_SELDOM, times=self.COUNT_TIMES
        )

"""The desk and its lanes: many threads hand over, one thread writes.

Every lane runs ``transport.run`` and pulls its copies; the thread that called ``Desk.work`` is the only one that
writes. It gathers what lanes have settled and want next, and answers all of them with one commit, so that the cost
of a durable mark is shared by the lanes that wait for it.

When the limits say that nothing may leave yet, a lane that holds nothing waits at the desk; one that is in the middle
of a copy gets an empty window, so that it ends that copy first.

What a kill costs: a lane has at most one copy in flight and one window behind it, or one window whose outcomes are not
yet stored, hence at most (window + 1) × lanes copies end as unknown, and nothing else does.
"""

from __future__ import annotations

import ctypes
import os
import queue
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from newsletter import limits
from newsletter.errors import TransportRejected, TransportUnavailable
from newsletter.model import Accepted, NotTaken, Recipient, Refused, Unknown
from newsletter.recovery import clock_jumped
from newsletter.transports.answers import words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from newsletter.message import Wire, Wires
    from newsletter.model import Outcome
    from newsletter.store.ahead import Claimed
    from newsletter.store.ledger import Ledger
    from newsletter.transports.base import Transport

    Sign = Callable[[int], Mapping[str, str]]
    """Subscription id → the personal links, as merge values."""


@contextmanager
def one_processor() -> Iterator[None]:
    """Keeps this thread, and those that it starts, on one processor.

    Only one thread of Python runs at a time. On two processors they wake each other up there and back at every system
    call, for nothing: a copy took twice the CPU, also with TLS and with DKIM. Does nothing where the system can't.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    _bind_to({_present_processor(allowed)})
    try:
        yield
    finally:
        _bind_to(allowed)


def _present_processor(allowed: set[int]) -> int:
    """Where the system has put us: away from what is busy, and often next to the disk. Any other would be a guess."""
    find = getattr(ctypes.CDLL(None), "sched_getcpu", None)
    here: int = find() if find is not None else -1
    return here if here in allowed else sorted(allowed)[os.getpid() % len(allowed)]


def _bind_to(processors: set[int]) -> None:
    with suppress(OSError):  # a sandbox may forbid it
        os.sched_setaffinity(0, processors)


class Clock(Protocol):
    """Time as an argument."""

    def now(self) -> datetime:
        """The present, aware, UTC."""

    def wait(self, seconds: float) -> None:
        """Lets time pass, a second at most."""


class SystemClock:
    """The machine's clock. Waits are short, and looked over between them: a signal need not cut one."""

    def now(self) -> datetime:
        """The present."""
        return datetime.now(UTC)

    def wait(self, seconds: float) -> None:
        """Sleeps."""
        time.sleep(seconds)


class Stop:
    """A wish to stop, set once. No lock in it: a signal handler may run while another one is in the middle of this.

    A ``threading.Event`` would hang there: two signals a tenth of a millisecond apart were enough.
    """

    def __init__(self) -> None:
        self._asked = False

    def set(self) -> None:
        """From now on."""
        self._asked = True

    def is_set(self) -> bool:
        """Whether it was asked for."""
        return self._asked


@dataclass(frozen=True, slots=True)
class Progress:
    """What a process has heard of its copies so far."""

    accepted: int = 0
    refused: int = 0
    unknown: int = 0
    again: int = 0  # not taken: tried again later


TELL_EVERY = timedelta(seconds=0.1)
REPLACE_EVERY = timedelta(seconds=1)
LINGER = 0.0002  # seconds that a commit waits for one lane more: a larger group costs each copy less
LONGEST_WAIT = 1.0  # seconds between two looks at whether somebody has stopped or paused meanwhile


@dataclass(slots=True, eq=False)
class _Request:
    """What a lane asks of the desk: store these outcomes, and hand me my next window."""

    settled: list[Outcome]
    want: int
    busy: bool  # in the middle of a copy: may not be kept waiting
    gate: threading.Lock  # opened when there is an answer; lighter than an Event, and one answers each copy
    window: Sequence[Recipient] | None = None  # None: that was all

    def answer(self, window: Sequence[Recipient] | None) -> None:
        """Lets the lane go on."""
        self.window = window
        self.gate.release()


class _Lane(threading.Thread):
    """One connection's thread: the iterator that the transport pulls from, and the book of what it holds."""

    def __init__(
        self, desk: queue.SimpleQueue[_Request | _Lane], transport: Transport, wire: Wire | Wires, number: int
    ) -> None:
        super().__init__(name=f"lane-{number}", daemon=True)
        self._desk = desk
        self._transport = transport
        self._wire = wire
        self._holds: set[bytes] = set()
        self._settled: list[Outcome] = []
        self._gate = threading.Lock()
        self._gate.acquire()  # closed until the desk answers
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._transport.run(self._wire, self._copies(), self._settle)
        except BaseException as error:
            self.error = error
        self._settled += [Unknown(delivery, self._last_words()) for delivery in sorted(self._holds)]
        self._ask(want=0)
        self._desk.put(self)

    def _last_words(self) -> str:
        return f"the connection's work ended without an answer ({words(self.error or 'no reason given')})"

    def _copies(self) -> Iterator[Sequence[Recipient]]:
        while (window := self._ask(want=self._transport.window)) is not None:
            yield window

    def _ask(self, want: int) -> Sequence[Recipient] | None:
        request = _Request(self._settled, want, bool(self._holds), self._gate)
        self._settled = []
        self._desk.put(request)
        self._gate.acquire()
        self._holds.update(copy.delivery for copy in request.window or ())
        return request.window

    def _settle(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            self._holds.remove(outcome.delivery)  # KeyError: settling twice is a transport's bug, not a state
            self._settled.append(outcome)


@dataclass(slots=True)
class Round:
    """What came of running lanes once, until all have ended."""

    accepted: int = 0
    handed: int = 0
    doubt: int = 0  # unknown outcomes in a row
    refused: int = 0  # refusals without an acceptance between them
    last_refusal: str = ""
    trusted: bool = False  # it has accepted copies in this process
    closed: bool = False  # lanes end with what they hold
    errors: list[BaseException] = field(default_factory=list)  # what lanes died of

    @property
    def denied(self) -> bool:
        """So many refusals in a row are about us."""
        most = limits.REFUSED_IN_A_ROW if self.trusted or self.accepted else limits.REFUSED_AT_FIRST
        return self.refused >= most

    @property
    def lost(self) -> TransportUnavailable | None:
        """Why a lane has ended that could be replaced; not one of too many, and not before a time that was named."""
        unavailable = (error for error in self.errors if isinstance(error, TransportUnavailable))
        return next((error for error in unavailable if not error.crowded and error.until is None), None)

    @property
    def turned_away(self) -> int:
        """Lanes that ended because there were too many of them; not where all were asked to come back later."""
        unavailable = (error for error in self.errors if isinstance(error, TransportUnavailable))
        return sum(error.crowded and error.until is None for error in unavailable)

    def note(self, settled: Sequence[Outcome]) -> None:
        """Counts."""
        for outcome in settled:
            self.accepted += isinstance(outcome, Accepted)
            if isinstance(outcome, Unknown):
                self.doubt += 1
            elif (
                not isinstance(outcome, NotTaken) or outcome.charged
            ):  # one given back says nothing of the provider
                self.doubt = 0
            if isinstance(outcome, Refused):
                self.refused, self.last_refusal = self.refused + 1, outcome.reason
            elif isinstance(outcome, Accepted):
                self.refused = 0


class Desk:
    """The one writer: serves the lanes of one campaign until nothing more may leave."""

    def __init__(
        self,
        book: Ledger,
        sign: Sign,
        clock: Clock,
        stopping: Stop,
        *,
        stop_refused: float | None = None,
        told: Callable[[Progress], None] = lambda _progress: None,
        notice: Callable[[str], None] = lambda _sentence: None,
    ) -> None:
        self._book = book
        self._sign = sign
        self._clock = clock
        self._stopping = stopping
        self._stop_refused = stop_refused
        self._told = told
        self._notice = notice
        self._requests: queue.SimpleQueue[_Request | _Lane] = queue.SimpleQueue()
        self._parked: list[_Request] = []  # lanes that hold nothing, until the limits let something leave
        self._opens_at: datetime | None = None
        self._broken: Exception | None = None
        self._unsaved: list[Outcome] = []  # answers that the database has not taken yet
        self._latest = clock.now()
        self._told_at = self._latest
        self._replaced_at = self._latest - REPLACE_EVERY
        self._heard: Counter[type[Outcome]] = Counter()
        self._round = Round()

    @property
    def progress(self) -> Progress:
        """All rounds together."""
        heard = self._heard
        return Progress(heard[Accepted], heard[Refused], heard[Unknown], heard[NotTaken])

    @property
    def too_many_refused(self) -> bool:
        """More of them than ``stop_refused`` allows."""
        refused, accepted = self._heard[Refused], self._heard[Accepted]
        return self._stop_refused is not None and limits.too_many_refused(
            accepted, refused, self._stop_refused
        )

    def work(
        self,
        transport: Transport,
        wire: Wire | Wires,
        lanes: int,
        *,
        probing: bool = False,
        trusted: bool = False,
    ) -> Round:
        """Runs that many lanes, a thread each, until all have ended.

        Two windows in a row without an answer close the round, and so does the first acceptance when ``probing``:
        a provider in trouble would else turn every lane's next window into a doubt, round after round. So do many
        refusals in a row, fewer unless the provider is ``trusted``: a relay that denies us would burn the whole list.

        Raises what the database raised, and ``Refused`` when the clock has jumped back: then no lane gets another
        copy. Answers that were known are offered to the database again until the last lane has ended; what it does not
        take by then is unknown after the next start.
        """
        self._round = Round(trusted=trusted)
        with one_processor():
            self._serve(transport, wire, lanes, probing=probing)
        self._tell()
        if self._broken is not None:
            raise self._broken
        return self._round

    def _serve(self, transport: Transport, wire: Wire | Wires, lanes: int, *, probing: bool) -> None:
        for number in range(lanes):
            _Lane(self._requests, transport, wire, number).start()
        while lanes:
            gathered, accepted = self._gather(lanes), self._round.accepted
            new = [one for one in gathered if isinstance(one, _Request)]
            self._hear(new, transport.window, probing=probing)
            self._answer(new)
            lanes -= self._bury([one for one in gathered if isinstance(one, _Lane)])
            if lanes and self._round.accepted > accepted and self._may_replace():
                _Lane(self._requests, transport, wire, lanes).start()
                lanes += 1

    def _may_replace(self) -> bool:
        """A lane was lost, and the provider takes copies: it may try again, one of them each second.

        Else one blip that all lanes but one have felt would leave the rest of the list to that one.
        """
        lost = self._round.lost
        if lost is None or self._round.closed or self._latest < self._replaced_at + REPLACE_EVERY:
            return False
        self._round.errors.remove(lost)
        self._replaced_at = self._latest
        return True

    def _bury(self, ended: Sequence[_Lane]) -> int:
        errors = [lane.error for lane in ended if lane.error is not None]
        self._round.errors += errors
        self._round.closed |= any(isinstance(error, TransportRejected) for error in errors)
        # Without a time it is about connections: fewer of them, or none for a while (``sending``).
        down = [error for error in errors if isinstance(error, TransportUnavailable)]
        self._slow_down(sum(error.crowded for error in down if error.until))
        if any(not error.crowded for error in down):
            self._unpark()  # they would only find out one by one, each when the limit opens for it
        return len(ended)

    def _unpark(self) -> None:
        for request in self._parked:
            request.answer(None)
        self._parked = []

    def _slow_down(self, signals: int) -> None:
        if signals and (change := self._book.crowded(self._now(), signals)):
            self._notice(change)

    def _gather(self, lanes: int) -> list[_Request | _Lane]:
        """Waits for one request and takes along those that come with it: they share one commit.

        Returns empty-handed when the limits open for parked lanes, and when it is time to look around.
        """
        gathered: list[_Request | _Lane] = []
        try:
            gathered.append(self._next(all_wait=len(self._parked) == lanes))
            while len(gathered) + len(self._parked) < lanes:
                gathered.append(self._requests.get(timeout=LINGER))
        except queue.Empty:
            pass
        return gathered

    def _next(self, *, all_wait: bool) -> _Request | _Lane:
        if not self._parked:
            return self._requests.get(timeout=LONGEST_WAIT)  # what is told goes on while a provider is silent
        left = (self._opens_at - self._clock.now()).total_seconds() if self._opens_at else 0.0
        wait = min(max(left, 0.0), LONGEST_WAIT)
        if not all_wait:
            return self._requests.get(timeout=wait)
        self._clock.wait(wait)
        raise queue.Empty

    def _hear(self, requests: Sequence[_Request], window: int, *, probing: bool) -> None:
        settled = [outcome for request in requests for outcome in request.settled]
        self._unsaved += settled
        self._round.note(settled)
        self._heard.update(map(type, settled))
        self._slow_down(sum(isinstance(outcome, NotTaken) and outcome.crowded for outcome in settled))
        self._round.closed |= self._round.denied or self.too_many_refused
        self._round.closed |= self._round.doubt >= 2 * window or (probing and self._round.accepted > 0)

    def _answer(self, new: Sequence[_Request]) -> None:
        requests = [*self._parked, *new]
        copies: list[Recipient] = []
        try:
            copies = self._step(sum(request.want for request in requests))
        except Exception as error:  # lanes wait for an answer, whatever happened here
            self._broken = self._broken or error
        self._parked = []
        for request in requests:
            window, copies = copies[: request.want], copies[request.want :]
            if window or self._opens_at is None or not request.want:
                request.answer(window or None)
            elif request.busy:
                request.answer(())
            else:
                self._parked.append(request)
        if self._latest - self._told_at >= TELL_EVERY:
            self._tell()

    def _step(self, want: int) -> list[Recipient]:
        now, self._opens_at = self._now(), None
        if self._broken is not None or self._round.closed or self._stopping.is_set():
            want = 0
        if not self._unsaved and not want:
            return []
        handed = self._book.step(self._unsaved, want, now)
        self._unsaved = []
        self._opens_at = self._book.opens_at if len(handed) < want else None
        self._round.handed += len(handed)
        return [self._recipient(row) for row in handed]

    def _tell(self) -> None:
        self._told_at = self._latest
        self._told(self.progress)

    def _now(self) -> datetime:
        """Never behind what was written before: a clock that jumps back ends the work."""
        now = self._clock.now()
        if limits.is_behind(now, self._latest):
            self._broken = self._broken or clock_jumped(now, self._latest)
        self._latest = max(now, self._latest)
        return self._latest

    def _recipient(self, row: Claimed) -> Recipient:
        values = {"name": row.name, **row.fields, **self._sign(row.subscription_id)}
        return Recipient(delivery=row.id, address=row.address, values=values, edition=row.edition)

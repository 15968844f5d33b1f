"""The desk and its lanes: many threads hand over, one thread writes.

Every lane runs ``transport.run`` and pulls its copies; the thread that called ``Desk.work`` is the only one that
writes. It gathers what lanes have settled and want next, and answers all of them with one commit, so that the cost
of a durable mark is shared by the lanes that wait for it.

What a kill costs: a lane has at most one window handed and one window's outcomes not yet stored, hence at most
(window + 1) × lanes copies end as unknown, and nothing else does.
"""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from newsletter import limits
from newsletter.errors import TransportRejected
from newsletter.model import Accepted, Recipient, Refused, Unknown
from newsletter.recovery import clock_jumped
from newsletter.transports.answers import words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from newsletter.message import Wire
    from newsletter.model import Outcome
    from newsletter.store.ledger import Claimed, Ledger
    from newsletter.transports.base import Transport

    Sign = Callable[[int], Mapping[str, str]]
    """Subscription id → the personal links, as merge values."""


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


@dataclass(slots=True)
class _Request:
    """What a lane asks of the desk: store these outcomes, and hand me my next window."""

    settled: list[Outcome]
    want: int
    window: list[Recipient] = field(default_factory=list)
    answered: threading.Event = field(default_factory=threading.Event)


class _Lane(threading.Thread):
    """One connection's thread: the iterator that the transport pulls from, and the book of what it holds."""

    def __init__(
        self, desk: queue.SimpleQueue[_Request | _Lane], transport: Transport, wire: Wire, number: int
    ) -> None:
        super().__init__(name=f"lane-{number}", daemon=True)
        self._desk = desk
        self._transport = transport
        self._wire = wire
        self._holds: set[bytes] = set()
        self._settled: list[Outcome] = []
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
        while window := self._ask(want=self._transport.window):
            yield window

    def _ask(self, want: int) -> list[Recipient]:
        request = _Request(self._settled, want)
        self._settled = []
        self._desk.put(request)
        request.answered.wait()
        self._holds |= {copy.delivery for copy in request.window}
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

    def note(self, settled: Sequence[Outcome]) -> None:
        """Counts."""
        for outcome in settled:
            self.accepted += isinstance(outcome, Accepted)
            self.doubt = self.doubt + 1 if isinstance(outcome, Unknown) else 0
            if isinstance(outcome, Refused):
                self.refused, self.last_refusal = self.refused + 1, outcome.reason
            elif isinstance(outcome, Accepted):
                self.refused = 0


class Desk:
    """The one writer: serves the lanes of one campaign until nothing more may leave."""

    def __init__(self, book: Ledger, sign: Sign, clock: Clock, stopping: Stop) -> None:
        self._book = book
        self._sign = sign
        self._clock = clock
        self._stopping = stopping
        self._requests: queue.SimpleQueue[_Request | _Lane] = queue.SimpleQueue()
        self._broken: Exception | None = None
        self._unsaved: list[Outcome] = []  # answers that the database has not taken yet
        self._latest = clock.now()
        self._round = Round()

    def work(
        self, transport: Transport, wire: Wire, lanes: int, *, probing: bool = False, trusted: bool = False
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
        for number in range(lanes):
            _Lane(self._requests, transport, wire, number).start()
        while lanes:
            gathered = self._gather()
            self._answer(
                [one for one in gathered if isinstance(one, _Request)], transport.window, probing=probing
            )
            lanes -= self._bury([one for one in gathered if isinstance(one, _Lane)])
        if self._broken is not None:
            raise self._broken
        return self._round

    def _bury(self, ended: Sequence[_Lane]) -> int:
        errors = [lane.error for lane in ended if lane.error is not None]
        self._round.errors += errors
        self._round.closed |= any(isinstance(error, TransportRejected) for error in errors)
        return len(ended)

    def _gather(self) -> list[_Request | _Lane]:
        """Waits for one request and takes along all that came meanwhile: they share one commit."""
        gathered = [self._requests.get()]
        while not self._requests.empty():
            gathered.append(self._requests.get())
        return gathered

    def _answer(self, requests: Sequence[_Request], window: int, *, probing: bool) -> None:
        settled = [outcome for request in requests for outcome in request.settled]
        self._round.note(settled)
        self._round.closed |= self._round.denied
        self._round.closed |= self._round.doubt >= 2 * window or (probing and self._round.accepted > 0)
        copies: list[Recipient] = []
        try:
            copies = self._step(settled, sum(request.want for request in requests))
        except Exception as error:  # lanes wait for an answer, whatever happened here
            self._broken = self._broken or error
        for request in requests:
            request.window, copies = copies[: request.want], copies[request.want :]
            request.answered.set()

    def _step(self, settled: list[Outcome], want: int) -> list[Recipient]:
        self._unsaved += settled
        now = self._now()
        if self._broken is not None or self._round.closed or self._stopping.is_set():
            want = 0
        if not self._unsaved and not want:
            return []
        handed = self._book.step(self._unsaved, want, now)
        self._unsaved = []
        self._round.handed += len(handed)
        return [self._recipient(row) for row in handed]

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

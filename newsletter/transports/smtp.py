"""Hands copies to a mail server over kept connections.

Where the server takes commands ahead (PIPELINING), a lane pulls its next copy while the body of the present one
travels, and writes that one's envelope behind this one's dot: the database works while the network does, and a copy
costs one round trip. So a lane holds two copies at most (with a window of one), and only the first of them can be in
doubt: of the second no more than the envelope has left.
"""

from __future__ import annotations

import random
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from newsletter.addresses import ascii_domain
from newsletter.errors import TransportError, TransportRejected, TransportUnavailable
from newsletter.message import needs_smtputf8
from newsletter.model import Refused
from newsletter.transports.answers import not_taken, unsendable
from newsletter.transports.smtp_session import SMALLER, Answer, SmtpSettings, Step, connect, verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from newsletter.message import Message, Wire, Wires
    from newsletter.model import Outcome, Recipient
    from newsletter.transports.smtp_session import Conversation, Envelope

    Settle = Callable[[Sequence[Outcome]], None]

# Seconds for the reply to the dot (RFC 5321 §4.5.3.2.6). Hanging up sooner makes duplicates (RFC 1047).
DOT_TIMEOUT = 600.0
NO_SMTPUTF8 = "the address is not ASCII before the @-sign, and the mail server takes no such (no SMTPUTF8)"
MOST_LOSSES = 3  # connections lost in a row, each with a copy on it, before a lane gives up
# Seconds: what a pause before connecting again is drawn from, and its limit.
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 3.0
MOST_DOUBLINGS = 10
OUT_OF_TURN = "the connection was lost before its turn"


class Signer(Protocol):
    """What signs copies (``transports.dkim``)."""

    def fields(self, message: Message) -> list[bytes]:
        """The header fields to put in front."""


class SmtpTransport:
    """One connection per lane, kept as long as the server keeps it."""

    name = "smtp"

    def __init__(
        self,
        settings: SmtpSettings,
        *,
        signer: Signer | None = None,
        dot_timeout: float = DOT_TIMEOUT,
        draw: Callable[[float, float], float] = random.uniform,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.lanes = settings.lanes
        self.window = settings.window
        self._settings = settings
        self._signer = signer
        self._dot_timeout = dot_timeout
        self._backoff = _Backoff(draw, sleep)

    def run(self, wire: Wire | Wires, copies: Iterator[Sequence[Recipient]], settle: Settle) -> None:
        """See ``base.Transport``."""
        line = _Line(self._settings, self._backoff)
        lane = _Lane(line, wire, _Pulled(copies, settle), signer=self._signer, dot_timeout=self._dot_timeout)
        try:
            lane.work()
        except BaseException:
            line.close()  # not QUIT: inside a message it would be read as part of it
            raise
        line.leave()


class _Backoff:
    """The pause before a lane connects again, which grows with the failures in a row.

    Anywhere between nothing and the limit (full jitter), so that lanes and processes that lost a server together don't
    come back together. All lanes share it: it is the server that failed. Their counting may race, which changes
    nothing but the length of a pause.
    """

    def __init__(self, draw: Callable[[float, float], float], sleep: Callable[[float], None]) -> None:
        self._draw = draw
        self._sleep = sleep
        self._failures = 0

    def failed(self) -> None:
        """A connection was lost, or could not be made."""
        self._failures = min(self._failures + 1, MOST_DOUBLINGS)

    def worked(self) -> None:
        """The server answered, whatever it said."""
        self._failures = 0

    def wait(self) -> None:
        """Pauses, if the last thing that happened was a failure."""
        if self._failures:
            self._sleep(self._draw(0.0, min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (self._failures - 1))))


class _Line:
    """The connection that a lane has at the moment."""

    def __init__(self, settings: SmtpSettings, backoff: _Backoff) -> None:
        self._settings = settings
        self._backoff = backoff
        self._losses = 0
        self._failure: TransportError | None = None  # why no further copy can leave
        self._talk: Conversation | None = None

    def prepare(self) -> None:
        """Gets ready, with patience; if that fails, the next copy is told why."""
        try:
            self.ready(patient=True)
        except TransportError as error:
            self._failure = error

    def ready(self, *, patient: bool = False) -> Conversation:
        """A connection on which a copy can start; a new one if the old was closed meanwhile."""
        if self._failure is not None:
            raise self._failure
        if self._talk is not None and self._talk.quiet():
            return self._talk
        self.close()
        if patient:
            self._backoff.wait()
        try:
            self._talk = connect(self._settings)
        except TransportError:
            self._backoff.failed()
            raise
        return self._talk

    def present(self) -> Conversation:
        """The connection that is in the middle of something."""
        assert self._talk is not None
        return self._talk

    def note(self, *, kept: bool) -> None:
        """What the last copy has shown of the server. Copies lost with their connection are patience lost."""
        if kept:
            self._losses = 0
            self._backoff.worked()
            return
        self._losses += 1
        self._backoff.failed()
        if self._losses >= MOST_LOSSES:
            self._failure = TransportUnavailable(
                f"the mail server cut the connection {self._losses} times in a row."
            )

    def leave(self) -> None:
        """Ends politely."""
        if self._talk is not None:
            self._talk.leave()

    def close(self) -> None:
        """Ends at once."""
        if self._talk is not None:
            self._talk.close()
            self._talk = None


class _Pulled:
    """What this lane was handed: what waits in it, and what is not settled."""

    def __init__(self, copies: Iterator[Sequence[Recipient]], settle: Settle) -> None:
        self._copies = copies
        self._settle = settle
        self._waiting: deque[Recipient] = deque()
        self._unsettled: dict[bytes, None] = {}
        self.ended = False

    @property
    def empty(self) -> bool:
        """Whether the next one has to be pulled."""
        return not self._waiting

    def next(self) -> Recipient | None:
        """The next copy; None when nothing may leave now (or ever again: ``ended``)."""
        if not self._waiting:
            window = next(self._copies, None)
            self.ended = window is None
            self._waiting.extend(window or ())
            self._unsettled |= dict.fromkeys(copy.delivery for copy in self._waiting)
        return self._waiting.popleft() if self._waiting else None

    def settle(self, outcome: Outcome) -> None:
        """One is done with."""
        del self._unsettled[outcome.delivery]
        self._settle([outcome])

    def give_back(self, why: object) -> None:
        """All the rest, of which nothing but an envelope has left."""
        rest, self._unsettled = self._unsettled, {}
        self._waiting.clear()
        if rest:
            self._settle(not_taken(rest, why))


@dataclass(slots=True)
class _Copy:
    """One message on its way through a lane."""

    recipient: Recipient
    pieces: list[bytes]
    size: int
    sender: str
    address: str
    written: bool = False  # its envelope has left, behind the dot of the one before
    answer: Answer | None = None  # to that

    def envelope(self, talk: Conversation) -> Envelope:
        """As this server wants it."""
        return talk.envelope(self.sender, self.address, self.size)


class _Lane:
    """Carries one copy after the other."""

    def __init__(
        self, line: _Line, wires: Wire | Wires, pulled: _Pulled, *, signer: Signer | None, dot_timeout: float
    ) -> None:
        self._line = line
        self._wires = wires
        self._pulled = pulled
        self._signer = signer
        self._dot_timeout = dot_timeout

    def work(self) -> None:
        """Until nothing more comes. Raises a ``TransportError`` after everything was settled."""
        try:
            while (copy := self._first()) is not None:
                following: _Copy | None = copy
                while following is not None:
                    following = self._carry(following)
        except TransportError as error:
            self._pulled.give_back(error)
            raise

    def _first(self) -> _Copy | None:
        """A copy when none is under way."""
        while not self._pulled.ended:
            # Before pulling: who waits half a minute for a connection should not hold a copy meanwhile,
            # which a kill would leave as unknown.
            if self._pulled.empty:
                self._line.prepare()
            if copy := self._take():
                return copy
        return None

    def _take(self) -> _Copy | None:
        """The next copy that can be built; None when nothing may leave now."""
        while (recipient := self._pulled.next()) is not None:
            try:
                return self._build(recipient)
            except ValueError as error:
                self._pulled.settle(Refused(recipient.delivery, unsendable(error)))
        return None

    def _build(self, recipient: Recipient) -> _Copy:
        wire = self._wires.of(recipient)
        message = wire.message(recipient)
        signed = self._signer.fields(message) if self._signer else []
        pieces = [*signed, *message.headers, b"\r\n", *message.body]
        sender, address = wire.envelope_from(recipient), ascii_domain(recipient.address)
        if not (
            sender.isprintable() and address.isprintable()
        ):  # the last guard against a command inside a command
            raise ValueError("the address holds a control character")
        return _Copy(recipient, pieces, sum(map(len, pieces)), sender, address)

    def _carry(self, copy: _Copy) -> _Copy | None:
        """Brings one copy to its outcome; returns the one that follows, if it was pulled already."""
        following: _Copy | None = None
        try:
            answer = self._open(copy)
        except _Unfit:
            self._pulled.settle(Refused(copy.recipient.delivery, NO_SMTPUTF8))
            return None
        talk = self._line.present()
        if answer is None:
            answer = talk.send_body(copy.pieces)
        if answer is None:
            following = self._take() if talk.pipelines else None
            answer = talk.end(self._ahead(talk, following), dot_timeout=self._dot_timeout)
        kept = talk.ready_for_next(answer)
        if kept and following is not None and following.written:
            following.answer = talk.open(None)
            if talk.out_of_step:  # then nobody knows either whether the answer before was the dot's
                answer, kept = Answer(Step.DOT, 0, "its answers are out of step"), False
        self._line.note(kept=kept)
        self._pulled.settle(verdict(copy.recipient.delivery, answer))
        if answer.code == 0:  # it may take a while to get through again: who waits should not hold a copy
            self._pulled.give_back(OUT_OF_TURN)
            return None
        if following is not None and not kept:
            following.written = False
        return following

    def _open(self, copy: _Copy) -> Answer | None:
        """None when the server waits for the message; a ``TransportError`` for a reason that is not the copy's own."""
        while True:
            if copy.written:
                answer, worn, copy.written = copy.answer, True, False
            else:
                talk = self._line.ready()
                worn = talk.used
                _check_fits(talk, copy)
                answer = talk.open(copy.envelope(talk))
            if answer is None or not (worn and answer.may_mean_the_connection):
                return answer
            # It has carried copies and may be at its limit: only a fresh one can tell that we are unwelcome.
            self._line.close()

    @staticmethod
    def _ahead(talk: Conversation, following: _Copy | None) -> Envelope | None:
        """What leaves of the next copy behind the dot of this one; what can't be sent is found out in its turn."""
        if following is None:
            return None
        try:
            _check_fits(talk, following)
        except (_Unfit, TransportRejected):
            return None
        following.written = True
        return following.envelope(talk)


class _Unfit(Exception):
    """The server can't take such an address."""


def _check_fits(talk: Conversation, copy: _Copy) -> None:
    """Raises ``_Unfit``, or ``TransportRejected`` where it is about all copies."""
    if not talk.has_extn("smtputf8") and needs_smtputf8(copy.recipient):
        raise _Unfit
    most = talk.esmtp_features.get("size", "")
    if most.isdecimal() and 0 < int(most) < copy.size:
        raise TransportRejected(
            f"a copy has {copy.size:,} bytes, and the mail server takes at most {int(most):,}.",
            hint=SMALLER,
        )

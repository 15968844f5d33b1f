"""Hands copies to a mail server, one at a time per connection: a doubt is never about more than one."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from newsletter.addresses import ascii_domain
from newsletter.errors import TransportError, TransportRejected, TransportUnavailable
from newsletter.message import needs_smtputf8
from newsletter.model import Refused
from newsletter.transports.answers import compose, not_taken, unsendable
from newsletter.transports.smtp_session import SMALLER, SmtpSettings, connect, verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from newsletter.message import Wire
    from newsletter.model import Outcome, Recipient
    from newsletter.transports.smtp_session import Conversation

# Seconds for the reply to the dot (RFC 5321 §4.5.3.2.6). Hanging up sooner makes duplicates (RFC 1047).
DOT_TIMEOUT = 600.0
NO_SMTPUTF8 = "the address is not ASCII before the @-sign, and the mail server takes no such (no SMTPUTF8)"
MOST_LOSSES = 3  # connections lost in a row, each with a copy on it, before a lane gives up
FIRST_PAUSE, LONGEST_PAUSE = (
    0.2,
    3.0,
)  # seconds: what a pause before connecting again is drawn from, and its limit
MOST_DOUBLINGS = 10


class SmtpTransport:
    """One connection per lane, kept as long as the server keeps it."""

    name = "smtp"
    window = 1

    def __init__(
        self,
        settings: SmtpSettings,
        *,
        dot_timeout: float = DOT_TIMEOUT,
        draw: Callable[[float, float], float] = random.uniform,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.lanes = settings.lanes
        self._settings = settings
        self._dot_timeout = dot_timeout
        self._backoff = _Backoff(draw, sleep)

    def run(
        self,
        wire: Wire,
        copies: Iterator[Sequence[Recipient]],
        settle: Callable[[Sequence[Outcome]], None],
    ) -> None:
        """See ``base.Transport``."""
        lane = _Lane(self._settings, self._dot_timeout, self._backoff)
        try:
            while True:
                # Before pulling: who waits half a minute for a connection should not hold a copy meanwhile,
                # which a kill would leave as unknown.
                lane.prepare()
                if (window := next(copies, None)) is None:
                    break
                _send(lane, wire, window, settle)
        except BaseException:
            lane.close()  # not QUIT: inside a message it would be read as part of it
            raise
        lane.leave()


def _send(
    lane: _Lane, wire: Wire, window: Sequence[Recipient], settle: Callable[[Sequence[Outcome]], None]
) -> None:
    for position, recipient in enumerate(window):
        try:
            outcome = lane.hand_over(wire, recipient)
        except TransportError as error:
            settle(not_taken((one.delivery for one in window[position:]), error))
            raise
        settle([outcome])


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


class _Lane:
    """The connection that a lane has at the moment."""

    def __init__(self, settings: SmtpSettings, dot_timeout: float, backoff: _Backoff) -> None:
        self._settings = settings
        self._dot_timeout = dot_timeout
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

    def hand_over(self, wire: Wire, recipient: Recipient) -> Outcome:
        """One copy's outcome; a ``TransportError`` if it could not leave for a reason that is not its own."""
        try:
            message = compose(wire, recipient)
        except ValueError as error:
            return Refused(recipient.delivery, unsendable(error))
        sender, address = wire.envelope_from(recipient), ascii_domain(recipient.address)
        while True:
            talk = self.ready()
            if needs_smtputf8(recipient) and not talk.has_extn("smtputf8"):
                return Refused(recipient.delivery, NO_SMTPUTF8)
            _check_size(talk, len(message))
            worn = talk.used
            answer = talk.hand_over(sender, address, message, dot_timeout=self._dot_timeout)
            if not (worn and answer.may_mean_the_connection):
                break
            # It has carried copies and may be at its limit: only a fresh one can tell that we are unwelcome.
            self.close()
        self._note(kept=talk.ready_for_next(answer))
        return verdict(recipient.delivery, answer)

    def _note(self, *, kept: bool) -> None:
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


def _check_size(talk: Conversation, size: int) -> None:
    most = talk.esmtp_features.get("size", "")
    if most.isdecimal() and 0 < int(most) < size:
        raise TransportRejected(
            f"a copy has {size:,} bytes, and the mail server takes at most {int(most):,}.",
            hint=SMALLER,
        )

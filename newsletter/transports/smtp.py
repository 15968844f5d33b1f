"""Hands copies to a mail server, one at a time per connection: a doubt is never about more than one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from newsletter.addresses import ascii_domain
from newsletter.errors import TransportError, TransportRejected, TransportUnavailable
from newsletter.message import needs_smtputf8
from newsletter.model import Refused
from newsletter.transports.answers import compose, not_taken, unsendable
from newsletter.transports.smtp_session import SmtpSettings, Step, connect, stuffed, verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from newsletter.message import Wire
    from newsletter.model import Outcome, Recipient
    from newsletter.transports.smtp_session import Conversation

# Seconds for the reply to the dot (RFC 5321 §4.5.3.2.6). Hanging up sooner makes duplicates (RFC 1047).
DOT_TIMEOUT = 600.0
NO_SMTPUTF8 = "the address is not ASCII before the @-sign, and the mail server takes no such (no SMTPUTF8)"
MOST_LOSSES = 3  # connections lost in a row, each with a copy on it, before a lane gives up


class SmtpTransport:
    """One connection per lane, kept as long as the server keeps it."""

    name = "smtp"
    window = 1

    def __init__(self, settings: SmtpSettings, *, dot_timeout: float = DOT_TIMEOUT) -> None:
        self.lanes = settings.lanes
        self._settings = settings
        self._dot_timeout = dot_timeout

    def run(
        self,
        wire: Wire,
        copies: Iterator[Sequence[Recipient]],
        settle: Callable[[Sequence[Outcome]], None],
    ) -> None:
        """See ``base.Transport``."""
        lane = _Lane(self._settings, self._dot_timeout)
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


class _Lane:
    """The connection that a lane has at the moment."""

    def __init__(self, settings: SmtpSettings, dot_timeout: float) -> None:
        self._settings = settings
        self._dot_timeout = dot_timeout
        self._losses = 0
        self._failure: TransportError | None = None
        self._talk: Conversation | None = None

    def prepare(self) -> None:
        """Gets ready; if that fails, the next copy is told why."""
        try:
            self.ready()
        except TransportError as error:
            self._failure = error

    def ready(self) -> Conversation:
        """A connection on which a copy can start; a new one if the old was closed meanwhile."""
        if self._failure is not None:
            raise self._failure
        if self._talk is not None and self._talk.quiet():
            return self._talk
        self.close()
        if self._losses >= MOST_LOSSES:
            raise TransportUnavailable(f"the mail server cut the connection {self._losses} times in a row.")
        self._talk = connect(self._settings)
        return self._talk

    def hand_over(self, wire: Wire, recipient: Recipient) -> Outcome:
        """One copy's outcome; a ``TransportError`` if it could not leave for a reason that is not its own."""
        try:
            body = stuffed(compose(wire, recipient))
        except ValueError as error:
            return Refused(recipient.delivery, unsendable(error))
        sender, address = wire.envelope_from(recipient), ascii_domain(recipient.address)
        talk = self.ready()
        if needs_smtputf8(recipient) and not talk.has_extn("smtputf8"):
            return Refused(recipient.delivery, NO_SMTPUTF8)
        _check_size(talk, len(body))
        answer = talk.hand_over(sender, address, body, dot_timeout=self._dot_timeout)
        if answer.step is Step.MAIL and talk.used:
            # It has carried copies and may be at its limit: only a fresh one can tell that we are unwelcome.
            self.close()
            talk = self.ready()
            answer = talk.hand_over(sender, address, body, dot_timeout=self._dot_timeout)
        self._losses = 0 if talk.ready_for_next(answer) else self._losses + 1
        return verdict(recipient.delivery, answer)

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
            hint='Make the pictures smaller, or use [images] mode = "hosted".',
        )

"""Keeps copies in a list: the fake that ships with the product, to try everything above it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from newsletter.errors import TransportError
from newsletter.model import Accepted, Refused, Unknown
from newsletter.transports.answers import compose, not_taken, unsendable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from newsletter.message import Wire, Wires
    from newsletter.model import Outcome, Recipient

    Answer = Callable[[Recipient, int], Outcome | Exception]


def accept(recipient: Recipient, _number: int) -> Outcome:
    """The provider of whom nothing is heard."""
    return Accepted(recipient.delivery)


class MemoryTransport:
    """Answers as it is told: ``answer(recipient, number)`` returns an outcome, or an exception to raise.

    ``number`` counts the copies from 1, over all lanes. After a ``TransportError`` this copy and the rest of
    its window are not taken, as with a real provider; any other exception leaves them unsettled, as a bug.
    """

    name = "memory"

    def __init__(self, answer: Answer = accept, *, lanes: int = 1, window: int = 1) -> None:
        self.lanes = lanes
        self.window = window
        self.messages: list[bytes] = []  # accepted, and those unknown: the worst that "unknown" can mean
        self._answer = answer
        self._number = 0
        self._lock = threading.Lock()

    def run(
        self,
        wire: Wire | Wires,
        copies: Iterator[Sequence[Recipient]],
        settle: Callable[[Sequence[Outcome]], None],
    ) -> None:
        """See ``base.Transport``."""
        for window in copies:
            for position, recipient in enumerate(window):
                try:
                    settle([self._take(wire, recipient)])
                except TransportError as error:
                    settle(not_taken((one.delivery for one in window[position:]), error))
                    raise

    def _take(self, wire: Wire | Wires, recipient: Recipient) -> Outcome:
        try:
            message = compose(wire, recipient)
        except ValueError as error:
            return Refused(recipient.delivery, unsendable(error))
        with self._lock:
            self._number += 1
            outcome = self._answer(recipient, self._number)
            if isinstance(outcome, Exception):
                raise outcome
            if isinstance(outcome, Accepted | Unknown):
                self.messages.append(message)
        return outcome

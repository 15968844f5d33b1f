"""The memory transport says what it is told to say."""

from __future__ import annotations

from newsletter.errors import TransportRejected
from newsletter.model import Accepted, NotTaken, Outcome, Recipient, Refused, Unknown
from newsletter.transports.memory import MemoryTransport
from tests.support.copies import hand_over, people, wire


def test_it_keeps_the_bytes_of_the_wire() -> None:
    transport, message = MemoryTransport(), wire()
    hand_over(transport, people(2), message)
    assert transport.messages == [b"".join(message.pieces(copy)) for copy in people(2)]


def test_it_keeps_unknown_copies_too_and_not_those_that_were_not_taken() -> None:
    def answer(copy: Recipient, number: int) -> Outcome:
        made = [Accepted(copy.delivery), Refused(copy.delivery, "no"), Unknown(copy.delivery, "?")]
        return [*made, NotTaken(copy.delivery, "later")][number - 1]

    transport = MemoryTransport(answer)
    report = hand_over(transport, people(4))
    assert report.kinds() == {1: "Accepted", 2: "Refused", 3: "Unknown", 4: "NotTaken"}
    assert len(transport.messages) == 2


def test_a_transport_error_settles_the_rest_of_the_window_as_not_taken() -> None:
    transport = MemoryTransport(
        lambda copy, number: TransportRejected("no") if number == 2 else Accepted(copy.delivery), window=3
    )
    report = hand_over(transport, people(5))
    assert report.kinds() == {1: "Accepted", 2: "NotTaken", 3: "NotTaken"}
    assert isinstance(report.error, TransportRejected)


def test_any_other_error_leaves_the_rest_of_the_window_to_the_ledger() -> None:
    transport = MemoryTransport(
        lambda copy, number: OSError("bug") if number == 2 else Accepted(copy.delivery), window=3
    )
    assert hand_over(transport, people(5)).kinds() == {1: "Accepted", 2: "Unknown", 3: "Unknown"}


def test_lanes_and_window_are_what_was_asked_for() -> None:
    transport = MemoryTransport(lanes=3, window=7)
    assert (transport.lanes, transport.window) == (3, 7)

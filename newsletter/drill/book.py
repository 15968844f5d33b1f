"""What a fake provider knows: which copies it took, to whom it said no, and which answers never reached the sender.

A copy stands in the book as soon as the provider has it whole, whatever becomes of the answer. The book is kept in
the drill's own process, so that no death of a sender can touch it.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


@dataclass(slots=True)
class Copy:
    """One copy that the provider took."""

    delivery: str  # in hex: the left part of the Message-ID, or custom_args
    address: str
    at: datetime
    answered: bool = False  # the whole answer was written to the connection


class Book:
    """Written by the provider's thread, read by the drill's."""

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._grown = threading.Condition()
        self.copies: list[Copy] = []
        self.withheld: set[str] = set()  # deliveries whose answer was cut or is of no use
        self.unread = 0  # at most so many copies more: of requests that were cut before they were read
        self.refused: set[str] = set()  # addresses that were told a definite no, now or for good
        self.faults: Counter[str] = Counter()

    def take(self, delivery: str, address: str) -> Copy:
        """One copy more."""
        copy = Copy(delivery, address, self._clock())
        with self._grown:
            self.copies.append(copy)
            self._grown.notify_all()
        return copy

    def withhold(self, deliveries: Iterable[str]) -> None:
        """Nobody will learn what became of these."""
        with self._grown:
            self.withheld.update(deliveries)

    def leave_unread(self, copies: int) -> None:
        """A request was cut before anybody knew what was in it: at most so many copies."""
        with self._grown:
            self.unread += copies

    def refuse(self, addresses: Iterable[str]) -> None:
        """These were told no."""
        with self._grown:
            self.refused.update(addresses)

    def count_fault(self, name: str) -> None:
        """One fault more."""
        with self._grown:
            self.faults[name] += 1

    def __len__(self) -> int:
        return len(self.copies)

    def wait(self, count: int, seconds: float) -> bool:
        """Until the book holds that many copies, at most so long; whether it does."""
        with self._grown:
            return self._grown.wait_for(lambda: len(self.copies) >= count, seconds)

    def queue(self, people: Sequence[str]) -> list[str]:
        """Those behind the last one who got a copy: the sender goes through ``people`` in that order."""
        with self._grown:
            there = {copy.address for copy in self.copies}
        last = next((at for at in reversed(range(len(people))) if people[at] in there), -1)
        return list(people[last + 1 :])

"""The ledger against the book. Pure: both are values by the time they come here.

The ledger is the sender's word, the book is what the provider really took. Each sentence about a person that the two
do not bear out has a name here: lost, duplicated, misjudged. A copy that the ledger calls unknown is no lie, whether
it arrived or not; but there may be no more of them than kills and withheld answers explain.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from newsletter.model import DeliveryState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from datetime import datetime

    from newsletter.drill.book import Copy
    from newsletter.model import Delivery

ENDED = frozenset(
    {DeliveryState.ACCEPTED, DeliveryState.REFUSED, DeliveryState.SKIPPED, DeliveryState.UNKNOWN}
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that the drill has seen."""

    people: Collection[str]  # who was on the list when the campaign was frozen
    rows: Sequence[Delivery]  # the ledger
    copies: Sequence[Copy]  # the book
    withheld: Collection[str] = ()  # deliveries (hex) whose answer was cut or of no use
    unread: int = 0  # at most so many copies more, in requests that were cut before they were read
    refused: Collection[str] = ()  # addresses that were told a definite no
    left: Mapping[str, datetime] | None = None  # when who unsubscribed or was suppressed: after the commit
    left_in_peace: Collection[str] = ()  # those who left while no sender was alive
    kills: int = 0
    per_kill: int = 0  # (window + 1) × connections: what one kill may leave in doubt


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of it. ``lost``, ``duplicated`` and ``misjudged`` are sentences, one for each person."""

    people: int
    states: Mapping[DeliveryState, int]
    unknown_arrived: int
    unknown_missing: int
    unexplained: int  # unknown, though their answers were not withheld: what the kills have to explain
    bound: int
    lost: Sequence[str]
    duplicated: Sequence[str]
    misjudged: Sequence[str]

    @property
    def settled(self) -> int:
        """Copies of which the ledger says for certain what became of them."""
        return sum(self.states.get(state, 0) for state in ENDED - {DeliveryState.UNKNOWN})

    @property
    def unknown(self) -> int:
        """Copies of which it says that nobody knows."""
        return self.states.get(DeliveryState.UNKNOWN, 0)

    @property
    def faults(self) -> list[str]:
        """Everything that should not be, as sentences."""
        found = [*self.lost, *self.duplicated, *self.misjudged]
        if self.unexplained > self.bound:
            found.append(
                f"{self.unexplained} copies are unknown without a withheld answer, and {self.bound} may be"
            )
        return found


def judge(seen: Evidence) -> Verdict:
    """Compares."""
    unknown = [row for row in seen.rows if row.state is DeliveryState.UNKNOWN]
    arrived = {copy.delivery for copy in seen.copies}
    doubtful = sum(row.id.hex() not in seen.withheld for row in unknown)
    there = sum(row.id.hex() in arrived for row in unknown)
    return Verdict(
        people=len(seen.people),
        states=Counter(row.state for row in seen.rows),
        unknown_arrived=there,
        unknown_missing=len(unknown) - there,
        unexplained=doubtful,
        bound=seen.kills * seen.per_kill + seen.unread,
        lost=sorted(_lost(seen)),
        duplicated=sorted(_duplicated(seen)),
        misjudged=sorted({*_denied(seen), *_strangers(seen), *_unfounded(seen), *_against_their_word(seen)}),
    )


def _lost(seen: Evidence) -> Iterator[str]:
    """Nobody would ever learn that these have no copy."""
    arrived = {copy.delivery for copy in seen.copies}
    for row in seen.rows:
        if row.state not in ENDED:
            yield f"{row.address} is still {row.state} after the end"
        elif row.state is DeliveryState.ACCEPTED and row.id.hex() not in arrived:
            yield f"{row.address} is accepted in the ledger, and the provider never had the copy"
    for address in set(seen.people) - {row.address for row in seen.rows}:
        yield f"{address} has no row in the ledger"


def _duplicated(seen: Evidence) -> Iterator[str]:
    """By address and by delivery: two rows for one person would be as bad as one row sent twice."""
    for what, times in Counter(copy.address for copy in seen.copies).items():
        if times > 1:
            yield f"{what} got {times} copies"
    for address, times in Counter(row.address for row in seen.rows).items():
        if times > 1:
            yield f"{address} has {times} rows in the ledger"


def _denied(seen: Evidence) -> Iterator[str]:
    """The ledger says that they have no copy, and they have."""
    arrived = {copy.delivery for copy in seen.copies}
    for row in seen.rows:
        if row.state in {DeliveryState.REFUSED, DeliveryState.SKIPPED} and row.id.hex() in arrived:
            yield f"{row.address} is {row.state} in the ledger, and the provider took the copy"


def _strangers(seen: Evidence) -> Iterator[str]:
    """Copies that nobody ordered, or not to there."""
    ordered = {row.id.hex(): row.address for row in seen.rows}
    for copy in seen.copies:
        if copy.delivery not in ordered:
            yield f"{copy.address} got the copy {copy.delivery or '(without an id)'}, which is not in the ledger"
        elif ordered[copy.delivery] != copy.address:
            yield f"{copy.address} got the copy of {ordered[copy.delivery]}"


def _unfounded(seen: Evidence) -> Iterator[str]:
    """Denied a copy without a reason."""
    left = seen.left or {}
    for row in seen.rows:
        if row.state is DeliveryState.REFUSED and row.address not in seen.refused:
            yield f"{row.address} is refused in the ledger, and the provider never said no"
        elif row.state is DeliveryState.SKIPPED and row.address not in left:
            yield f"{row.address} was skipped and had never left"


def _against_their_word(seen: Evidence) -> Iterator[str]:
    """Handed over, or arrived, after their leaving was committed."""
    left = seen.left or {}
    for row in seen.rows:
        gone = left.get(row.address)
        if gone is not None and row.handed_at is not None and row.handed_at > gone:
            yield f"{row.address} was handed over after leaving"
    for copy in seen.copies:
        gone = left.get(copy.address)
        if gone is not None and copy.address in seen.left_in_peace and copy.at > gone:
            yield f"{copy.address} got a copy after leaving"

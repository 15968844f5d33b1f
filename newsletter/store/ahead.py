"""Rows that a process has claimed and not handed yet, in their order; those of a limited domain wait apart."""

from __future__ import annotations

import copy
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from newsletter.limits import ALL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from newsletter.limits import Limits
    from newsletter.store.allowances import Room

MOST_HELD_BACK = 2000
"""Rows that wait for their domain's turn while others are claimed past them: memory, and what other senders miss."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A row that this process may hand over, with what the copy is made of."""

    seq: int
    id: bytes
    address_key: bytes
    address: str
    name: str
    fields: Mapping[str, str]
    subscription_id: int
    edition: str
    tries: int
    resent: bool  # by a person's word, after a first copy that is unknown


class Ahead:
    """What is next. A step works on a copy of it, which counts once the step is committed."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._domains = [scope for scope in limits.rates() if scope != ALL]
        self._next: deque[Claimed] = deque()
        self._held: dict[str, deque[Claimed]] = {}  # by scope

    def copy(self) -> Ahead:
        """The same rows."""
        twin = copy.copy(self)
        twin._next = self._next.copy()
        twin._held = {scope: rows.copy() for scope, rows in self._held.items() if rows}
        return twin

    def add(self, rows: Iterable[Claimed]) -> None:
        """Puts rows at the end."""
        self._next.extend(rows)

    def put_back(self, rows: Sequence[Claimed]) -> None:
        """Rows that were taken and did not leave are the next ones again."""
        self._next.extendleft(reversed(rows))

    @property
    def wants_more(self) -> bool:
        """Whether to claim further ones: all that are here wait for their domain's turn, and they are not too many."""
        return not self._next and sum(map(len, self._held.values())) < MOST_HELD_BACK

    def take(self, want: int, room: Room | None, spent: Counter[str]) -> list[Claimed]:
        """Up to ``want`` of the first rows that may leave, given what of the room was ``spent`` already."""
        if room is None:
            return [self._next.popleft() for _ in range(min(want, len(self._next)))]
        want = min(want, room.left(ALL) - spent.total())
        left = {scope: room.left(scope) - spent[scope] for scope in self._domains}
        taken: list[Claimed] = []
        for scope, rows in self._held.items():
            while rows and left[scope] > 0 and len(taken) < want:
                left[scope] -= 1
                taken.append(rows.popleft())
        while self._next and len(taken) < want:
            row = self._next.popleft()
            scope = self._limits.scope_of(row.address) if self._domains else ALL
            if scope == ALL or left[scope] > 0:
                left[scope] = left.get(scope, 0) - 1
                taken.append(row)
            else:
                self._held.setdefault(scope, deque()).append(row)
        return taken

    def waiting(self) -> set[str]:
        """The scopes whose rows are held back; ``ALL`` is one of them if rows wait for the total limit alone."""
        return {scope for scope, rows in self._held.items() if rows} | ({ALL} if self._next else set())

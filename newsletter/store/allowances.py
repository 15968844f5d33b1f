"""How fast copies may leave, for all processes that share the database together.

A row for each limit holds one moment (``limits.Rate``). What leaves is charged in the transaction that marks it, so a
copy is never handed over that was not paid for, and a process that dies or is started anew changes nothing. On
PostgreSQL the rows are locked from the look to the commit, always in the same order.

SQL text on the driver's own cursor, as in ``marks``: it runs for every group commit.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from newsletter import limits
from newsletter.limits import ALL
from newsletter.store.schema import from_micros, to_micros

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from newsletter.limits import Limits, Rate

_NEW = "INSERT INTO allowance (scope, free_at) VALUES (?, 0) ON CONFLICT DO NOTHING"
_LOOK = "SELECT scope, free_at FROM allowance WHERE scope IN ({marks}) ORDER BY scope"
_STORE = "UPDATE allowance SET free_at = ? WHERE scope = ?"


class Allowances:
    """What a sender's limits leave it, and take from it."""

    def __init__(self, limits: Limits) -> None:
        self._rates = limits.rates()
        self._scopes = tuple(self._rates)
        self._look = _LOOK.format(marks=", ".join("?" * len(self._scopes)))
        self._made = False

    def __bool__(self) -> bool:
        return bool(self._rates)

    def room(self, conn: Connection, now: datetime) -> Room:
        """What may leave now; within the transaction that marks it. ``now`` is the sender's clock.

        A row that is further ahead than any spending can have brought it was written under a lower rate, or by a clock
        that was wrong: it is put right at once, or it would stop everything for as long as the clock was ahead.
        Up to ``limits.CLOCK_SLACK`` is believed, because the clocks of two machines may differ by it.
        """
        if not self._made:
            self._make(conn)
        known = {scope: from_micros(free_at) for scope, free_at in self._rows(conn)}
        wrong = {
            scope: rate.latest(now)
            for scope, rate in self._rates.items()
            if known[scope] > rate.latest(now) + limits.CLOCK_SLACK
        }
        if wrong:
            _store(conn, wrong)
        return Room(self._rates, known | wrong, now)

    def _rows(self, conn: Connection) -> Sequence[tuple[str, int]]:
        cursor = conn.connection.cursor()
        cursor.execute(_for(conn, self._look, lock=True), self._scopes)
        return cursor.fetchall()

    def _make(self, conn: Connection) -> None:
        """The rows, before any is locked: two senders that begin together must not wait for each other."""
        cursor = conn.connection.cursor()
        cursor.execute(_for(conn, self._look), self._scopes)
        self._made = len(cursor.fetchall()) == len(self._scopes)  # those made now may be rolled back
        if not self._made:
            cursor.executemany(_for(conn, _NEW), [(scope,) for scope in self._scopes])


class Room:
    """What may leave at one moment."""

    __slots__ = ("_free_at", "_now", "_rates")

    def __init__(self, rates: Mapping[str, Rate], free_at: dict[str, datetime], now: datetime) -> None:
        self._rates = rates
        self._free_at = free_at
        self._now = now

    def left(self, scope: str) -> int:
        """How many copies of this scope; what all copies together may is in it."""
        return min(
            (self._rates[one].room(self._free_at[one], self._now) for one in self._over(scope)),
            default=sys.maxsize,
        )

    def spend(self, conn: Connection, spent: Mapping[str, int]) -> None:
        """Charges what was marked: ``Limits.scope_of`` → copies, each copy once. ``ALL`` pays for every one of them."""
        charged = {
            scope: copies
            for scope, copies in spent.items()
            if copies and scope != ALL and scope in self._rates
        }
        if ALL in self._rates and (total := sum(spent.values())):
            charged[ALL] = total
        paid = {
            scope: self._rates[scope].spend(self._free_at[scope], copies, self._now)
            for scope, copies in charged.items()
        }
        if paid:
            self._free_at |= paid
            _store(conn, paid)

    def opens_at(self, scope: str, copies: int = 1) -> datetime:
        """When so many of this scope may leave, or the most that ever may at once, if nobody else takes them."""
        opening = (
            self._rates[one].opens_at(self._free_at[one], self._now, copies) for one in self._over(scope)
        )
        return max(opening, default=self._now)

    def _over(self, scope: str) -> list[str]:
        """The limits that this scope is under."""
        return [one for one in dict.fromkeys((scope, ALL)) if one in self._rates]


def _store(conn: Connection, free_at: Mapping[str, datetime]) -> None:
    rows = [(to_micros(moment), scope) for scope, moment in free_at.items()]
    conn.connection.cursor().executemany(_for(conn, _STORE), rows)


def _for(conn: Connection, sql: str, *, lock: bool = False) -> str:
    if conn.dialect.name != "postgresql":
        return sql
    return sql.replace("?", "%s") + (" FOR UPDATE" if lock else "")

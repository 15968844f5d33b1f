"""When to try again, and how fast copies may leave. Pure: the time is an argument."""

from __future__ import annotations

import math
import re
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PATIENCE = timedelta(minutes=15)
"""How long a sending process waits for the next retry before it ends and says when to run it again."""

REFUSED_AT_FIRST, REFUSED_IN_A_ROW = 10, 50
"""So many refusals in a row, before and after the first acceptance, are about us and not about the readers."""

REFUSED_AT_LEAST = 10
"""Below this a share says nothing: a list of ten must not stop at its first dead address."""


def retry_at(failures: int, schedule: Sequence[timedelta], now: datetime) -> datetime | None:
    """The next try after the ``failures``-th failure (1-based); None when the schedule is used up."""
    if failures > len(schedule):
        return None
    return now + schedule[failures - 1]


def too_many_refused(accepted: int, refused: int, share: float) -> bool:
    """Whether over ``share`` (0 to 1) of the answered copies were refused: then the list is at fault, or we are."""
    return refused >= REFUSED_AT_LEAST and refused > share * (accepted + refused)


@dataclass(frozen=True, slots=True)
class Canary:
    """Which copies of a campaign leave first, and how long the rest waits for what becomes of them."""

    size: float | int  # a share (0 to 1) as a float, a number of copies as an int
    wait: timedelta  # from the last of their answers

    def copies(self, recipients: int) -> int:
        """How many leave first; 0 when nobody would be left to wait."""
        share = isinstance(self.size, float)
        # Rounded before it is rounded up: 7 % of 100 are 7, and not the 8 that floating point makes of them.
        wanted = max(1, math.ceil(round(self.size * recipients, 6))) if share else int(self.size)
        return wanted if wanted < recipients else 0


def canary_failed(accepted: int, not_accepted: int, share: float | None) -> bool:
    """Whether so many of the copies that left first were not accepted that the rest must not follow by itself.

    More than ``share``, and more than one: one refusal of ten is 10 %, and also a dead address as every list has some.
    If none was accepted, one is enough, whatever ``share`` says, also that there is none.
    """
    if not accepted:
        return not_accepted > 0
    return share is not None and not_accepted > 1 and not_accepted > share * (accepted + not_accepted)


CLOCK_SLACK = timedelta(minutes=5)
"""What two clocks, or one that is being corrected, may differ by."""


def is_behind(now: datetime, latest: datetime) -> bool:
    """Whether a clock has jumped back behind a moment that was written down before."""
    return now < latest - CLOCK_SLACK


# Rates

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
UNLIMITED = "unlimited"

TOLERANCE = timedelta(seconds=0.1)
"""How early a copy may leave, hence how much may leave at once. Without any, whatever a sender is late by would be lost
for good: a commit takes milliseconds, and ten copies a second would become nine."""

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)

_SECOND = timedelta(seconds=1)
_MICRO = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Rate:
    """``count`` copies in ``seconds``, evenly spread, as the generic cell rate algorithm does it (ITU-T I.371).

    All there is to remember is one moment, ``free_at``: when everything that has left is paid for. In any window of W
    seconds leaves at most what the rate gives in W + 0.1 seconds, and one copy more, whoever takes them, and with
    whatever pauses between. Whole numbers throughout, so that nothing adds up over a million copies.
    """

    count: int
    seconds: int

    @classmethod
    def parse(cls, text: str) -> Rate | None:
        """``"50/s"``, ``"30/m"``, ``"2000/h"`` or ``"100000/d"``; None for ``"unlimited"``.

        Raises:
            ValueError: with the rest of a sentence that begins with the setting's name.
        """
        if text == UNLIMITED:
            return None
        match = re.fullmatch(r"([0-9]{1,9})/([smhd])", text)
        if not match or not int(match[1]):
            raise ValueError(
                'must be a number of copies per second, minute, hour or day in quotes, such as "50/s", "30/m",'
                ' "2000/h" or "10000/d"'
            )
        return cls(int(match[1]), UNITS[match[2]])

    def __str__(self) -> str:
        unit = next((unit for unit, seconds in UNITS.items() if seconds == self.seconds), f"{self.seconds}s")
        return f"{self.count}/{unit}"

    @property
    def interval(self) -> timedelta:
        """Between two copies, rounded up."""
        return self.takes(1)

    @property
    def burst(self) -> int:
        """The most copies that may leave at one moment."""
        return self._within(TOLERANCE) + 1

    def takes(self, copies: int) -> timedelta:
        """What so many copies use up, rounded up to a microsecond: a rate is never exceeded by rounding."""
        return -(-copies * self.seconds * _SECOND // (self.count * _MICRO)) * _MICRO

    def room(self, free_at: datetime, now: datetime) -> int:
        """How many copies may leave now."""
        left = now + TOLERANCE - max(free_at, now)
        return self._within(left) + 1 if left >= timedelta() else 0

    def spend(self, free_at: datetime, copies: int, now: datetime) -> datetime:
        """``free_at`` after so many have left."""
        return max(free_at, now) + self.takes(copies)

    def opens_at(self, free_at: datetime, now: datetime, copies: int = 1) -> datetime:
        """When so many may leave, or the most that ever may at once."""
        ahead = self.takes(min(copies, self.burst) - 1)
        return max(now, free_at - TOLERANCE + ahead)

    def latest(self, now: datetime) -> datetime:
        """The latest ``free_at`` that copies which left by ``now`` can have made."""
        return now + TOLERANCE + self.interval

    def lasts(self, copies: int) -> timedelta:
        """From the first of so many copies to the last, if nothing else holds them up."""
        return max(self.takes(copies - 1) - TOLERANCE, timedelta())

    def _within(self, span: timedelta) -> int:
        return span * self.count // (self.seconds * _SECOND)


# Scopes: what a rate is about. They stand in the database.

ALL = "all"


def domain_of(address: str) -> str:
    """The part after the @ in small letters. Addresses in the database have it as A-labels already."""
    return address.rpartition("@")[2].lower()


def domain_scope(domain: str) -> str:
    """The scope of one domain's limit."""
    return f"domain:{domain}"


@dataclass(frozen=True, slots=True)
class Limits:
    """How fast a publisher wants copies to leave, from all processes that share a database together."""

    rate: Rate | None = None
    domains: Mapping[str, Rate] = field(default_factory=dict)  # A-labels in small letters

    def __bool__(self) -> bool:
        return self.rate is not None or bool(self.domains)

    def rates(self) -> dict[str, Rate]:
        """Scope → rate, in the order in which scopes are locked."""
        found = {domain_scope(domain): rate for domain, rate in self.domains.items()}
        if self.rate is not None:
            found[ALL] = self.rate
        return dict(sorted(found.items()))

    def scope_of(self, address: str) -> str:
        """The domain's scope where it has a limit of its own, else ``ALL``."""
        if not self.domains:
            return ALL
        domain = domain_of(address)
        return domain_scope(domain) if domain in self.domains else ALL


def estimate(recipients: Mapping[str, int], limits: Limits) -> timedelta | None:
    """How long a send takes at least, by its limits alone; None when none of them is about these recipients.

    ``recipients`` is scope → people: all of them under ``ALL``, and those of the limited domains under their scopes.
    """
    rates = limits.rates()
    spans = [rates[scope].lasts(people) for scope, people in recipients.items() if people and scope in rates]
    return max(spans, default=None)


# The provider's wish

MEASURED = timedelta(seconds=5)  # over which the speed is measured, and the share of signals
SHORTEST = 0.25  # seconds: what a speed can be told from
TOGETHER = timedelta(seconds=5)  # within which the signals of all lanes are one
STRAY = 0.05
"""Signals below this share of the copies are strays: a relay that ends each connection after a hundred copies says 421
as well, and to halve the speed for each of these would bring it to a stand."""
RECOVER_EVERY, RECOVER_FACTOR = timedelta(seconds=2), 1.1
WELL_ABOVE = 1.5  # times the speed at which the server had enough
SLOWEST = 0.2  # copies per second: stopping altogether is the retry schedule's business


class _Meter:
    """What was counted over the last seconds. Four entries a second, however often it is told."""

    def __init__(self) -> None:
        self._heard: deque[tuple[datetime, int]] = deque()

    def add(self, count: int, now: datetime) -> None:
        if self._heard and timedelta() <= now - self._heard[-1][0] < MEASURED / 20:
            begin, before = self._heard.pop()
            self._heard.append((begin, before + count))
        else:
            self._forget(now)
            self._heard.append((now, count))

    def total(self, now: datetime) -> int:
        self._forget(now)
        return sum(count for _, count in self._heard)

    def speed(self, now: datetime) -> float:
        """Per second, since the first of them."""
        total = self.total(now)
        return total / max(SHORTEST, (now - self._heard[0][0]).total_seconds()) if total else 0.0

    def _forget(self, now: datetime) -> None:
        while self._heard and not timedelta() <= now - self._heard[0][0] <= MEASURED:
            self._heard.popleft()


class Pace:
    """Half as fast when the provider has had enough, then a tenth faster every two seconds.

    One process's; several that send together each slow down by themselves. Recovers only while copies are accepted: a
    pause proves nothing. Not thread-safe.
    """

    def __init__(self, configured: Rate | None = None) -> None:
        self._most = configured.count / configured.seconds if configured else None
        self._accepted, self._signals = _Meter(), _Meter()
        self._speed: float | None = None  # copies per second; None: as fast as it goes
        self._enough = 0.0  # the speed at which it is forgotten
        self._halved_at = self._recover_at = self._free_at = LONG_AGO

    @property
    def slowed(self) -> bool:
        """Whether it holds anything back."""
        return self._speed is not None

    def worked(self, count: int, now: datetime) -> None:
        """So many copies were accepted."""
        if not count:
            return
        self._accepted.add(count, now)
        if self._speed is not None and now >= self._recover_at:
            faster = self._speed * RECOVER_FACTOR
            self._speed = faster if faster < self._enough else None
            self._recover_at = now + RECOVER_EVERY

    def crowded(self, now: datetime, copies: int = 1) -> bool:
        """The provider has had enough, and did not take so many copies. True when it slows down because of that.

        False for what is heard within a moment of such a signal, and for strays.
        """
        self._signals.add(copies, now)
        signals, accepted = self._signals.total(now), self._accepted.total(now)
        if signals < STRAY * (signals + accepted):
            return False
        self._recover_at = now + RECOVER_EVERY
        if self._speed is not None and timedelta() <= now - self._halved_at < TOGETHER:
            return False
        self._halve(now)
        return True

    def allowed(self, now: datetime, want: int) -> int:
        """How many of ``want`` may leave now. Spends nothing."""
        if self._speed is None:
            return want
        return min(want, self._rate.room(self._paid(now), now))

    def spend(self, count: int, now: datetime) -> None:
        """So many have left."""
        if self._speed is not None and count:
            self._free_at = self._rate.spend(self._paid(now), count, now)

    def opens_at(self, now: datetime, copies: int = 1) -> datetime:
        """When so many may leave, or the most that ever may at once."""
        return now if self._speed is None else self._rate.opens_at(self._paid(now), now, copies)

    def words(self) -> str:
        """For the operator; empty when nothing is held back."""
        if self._speed is None:
            return ""
        fast = f"{self._speed:.0f}/s" if self._speed >= 10 else f"{self._speed:.2g}/s"
        speed = fast if self._speed >= 1 else f"one copy every {1 / self._speed:.2g} seconds"
        return f"sending at most {speed} since the server asked to slow down"

    __str__ = words

    @property
    def _rate(self) -> Rate:
        return Rate(round((self._speed or SLOWEST) * 1000), 1000)

    def _paid(self, now: datetime) -> datetime:
        """Never later than honest: what was spent at a lower speed, or before a clock went back, is forgiven."""
        self._free_at = min(self._free_at, self._rate.latest(now))
        return self._free_at

    def _halve(self, now: datetime) -> None:
        if self._speed is None:
            self._speed = self._present(now)
            self._enough = min(self._most or math.inf, self._speed * WELL_ABOVE)
            self._free_at = now
        self._speed = max(self._speed / 2, SLOWEST)
        self._halved_at = now

    def _present(self, now: datetime) -> float:
        """Copies per second of late; what is configured where nothing was accepted; never more than that."""
        speed = self._accepted.speed(now) or self._most or 1.0
        return min(speed, self._most or speed)

"""One campaign under fire: starts senders, kills them, takes people away, resumes, until the campaign has ended."""

from __future__ import annotations

import math
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from newsletter.errors import DrillFailed
from newsletter.model import CampaignState

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence
    from datetime import datetime

    from newsletter.drill.book import Book
    from newsletter.drill.children import Child, Nursery
    from newsletter.drill.project import Project, Way
    from newsletter.drill.provider import Provider

TICK_SECONDS = 0.002
STUCK_SECONDS = 180.0  # without a copy, a start or an end
MOST_VAIN = 60  # senders in a row that ended by themselves and had nothing taken
POWER_CUTS = 0.2  # how many kills take all senders
FINE = frozenset({0, 5, 7, 8})  # exit codes of a sender that knows what it does
JITTER_SECONDS = 0.02


@dataclass(slots=True)
class Sender:
    """A child, and how it is to die."""

    child: Child
    how: str  # "" for one that is left alone
    target: int | None = None  # copies in the book at which it is killed at the latest
    jitter: float = 0.0  # seconds that it lives on after that
    at_time: float = math.inf  # of the monotonic clock
    reached: bool = False
    new: bool = True  # nothing was taken since it began

    def due(self, copies: int) -> bool:
        """Whether it is time."""
        if not self.reached and self.target is not None and copies >= self.target:
            self.reached = True
            self.at_time = min(self.at_time, time.monotonic() + self.jitter)
        return time.monotonic() >= self.at_time


@dataclass(slots=True)
class Diary:
    """What was done to the campaign."""

    kills: Counter[str] = field(default_factory=Counter)
    resumed: int = 0
    left: dict[str, datetime] = field(default_factory=dict)
    left_in_peace: set[str] = field(default_factory=set)


class Crew:
    """Keeps ``processes`` senders at work."""

    def __init__(
        self,
        project: Project,
        way: Way,
        provider: Provider,
        nursery: Nursery,
        people: Sequence[str],
        *,
        kills: int,
        processes: int,
        dice: random.Random,
    ) -> None:
        self._project = project
        self._way = way
        self._provider = provider
        self._book: Book = provider.book
        self._nursery = nursery
        self._people = people
        self._kills = kills
        self._processes = processes
        self._dice = dice
        self._senders: list[Sender] = []
        self._startup = 0.5  # seconds from a start to the first copy, as far as seen
        self._copies = 0  # in the book when we last looked
        self._moved = time.monotonic()  # when something last happened
        self._vain = 0  # senders that ended by themselves since the last copy
        self._leaving = self._plan_leaving()
        self.diary = Diary()

    def work(self) -> Diary:
        """Until the campaign is finished and every sender has ended."""
        self._start(self._processes)
        while self._senders:
            self._book.wait(len(self._book) + 1, TICK_SECONDS)
            self._note_progress()
            self._let_people_leave()
            for sender in list(self._senders):
                if sender not in self._senders:
                    continue  # it went with another one
                if sender.child.code is not None:
                    self._bury([sender], sender.how)
                elif sender.due(len(self._book)):
                    self._kill(sender)
        self._once_more()
        return self.diary

    def _note_progress(self) -> None:
        now, copies = time.monotonic(), len(self._book)
        if copies > self._copies:
            self._copies, self._moved, self._vain = copies, now, 0
            for sender in self._senders:
                if sender.new:
                    sender.new, self._startup = False, max(self._startup, now - sender.child.began)
        elif now - self._moved > STUCK_SECONDS:
            raise DrillFailed(f"nothing happened for {STUCK_SECONDS:.0f} seconds.")

    # Starting

    def _start(self, count: int) -> None:
        for _ in range(count):
            self._senders.append(self._next())
        self._set_pace()

    def _next(self) -> Sender:
        left = self._kills - self.diary.kills.total() - sum(bool(one.how) for one in self._senders)
        if left <= 0:
            return Sender(self._nursery.send(), "")
        how = self._dice.choice(["moment", "progress", "before", "after"])
        share, copies = self._share(left), len(self._book)
        if how in {"before", "after"} and copies:
            child = self._nursery.exact(after=how == "after", step=self._steps(share))
            return Sender(child, how, target=copies + share)
        if how == "moment":
            when = time.monotonic() + self._dice.uniform(0, 1.1 * self._startup)
            return Sender(self._nursery.send(), how, target=copies + share, at_time=when)
        jitter = self._dice.uniform(0, JITTER_SECONDS)
        target = copies + self._dice.randint(1, share)
        return Sender(self._nursery.send(), "progress", target=target, jitter=jitter)

    def _set_pace(self) -> None:
        """No sender outruns its death by far: else a quick one would leave nothing for the later kills."""
        targets = [one.target for one in self._senders if one.target is not None]
        self._provider.hold_at(min(targets) + self._in_hand if targets else None)

    def _share(self, kills_left: int) -> int:
        """How many copies may pass before the next kill, so that something is left for the last one.

        Each kill takes some of the open ones with it: what it leaves unknown is not sent again.
        """
        still_open = self._project.open_rows(self._way)
        each = still_open // (kills_left + 1) - self._in_hand // 2
        return max(1, min(self._processes * each, still_open // 3))

    @property
    def _in_hand(self) -> int:
        """How many copies one sender may have handed over at once."""
        return self._way.window * self._way.connections

    def _steps(self, share: int) -> int:
        """The same in commits, each of which hands over a window to some of the connections."""
        return self._dice.randint(1, max(2, 2 * share // (self._processes * self._in_hand)))

    # Ending

    def _kill(self, sender: Sender) -> None:
        """One, or now and then all at once, as a power cut does."""
        together = self._dice.random() < POWER_CUTS
        left = self._kills - self.diary.kills.total()
        doomed = [sender, *(one for one in self._senders if together and one is not sender)][:left]
        for one in doomed:
            one.child.kill()
        self._bury(doomed, "progress" if sender.reached else sender.how)

    def _bury(self, dead: Sequence[Sender], how: str) -> None:
        """Counts those that were killed (one may have ended by itself just before), and puts others in their places."""
        self._moved = time.monotonic()
        for sender in dead:
            self._senders.remove(sender)
            if how and sender.child.code == -signal.SIGKILL:
                self.diary.kills[how] += 1
            else:
                self._refuse_failure(sender.child)
        self._rest()
        if not self._over():
            self._start(len(dead))

    def _refuse_failure(self, child: Child) -> None:
        if child.code not in FINE:
            raise DrillFailed(f"a sender ended with {child.code}: {child.last_words()}")
        self._vain += 1
        if self._vain > MOST_VAIN:
            raise DrillFailed(f"{MOST_VAIN} senders in a row came to nothing: {child.last_words()}")

    def _over(self) -> bool:
        campaign = self._project.campaign(self._way)
        if campaign is None:
            return False
        if campaign.state is CampaignState.PAUSED:
            self._project.resume(campaign)
            self.diary.resumed += 1
        return campaign.state is CampaignState.FINISHED

    def _once_more(self) -> None:
        """Who sends a finished campaign again is told so, and reaches nobody."""
        child = self._nursery.send()
        if not child.ends_within(STUCK_SECONDS) or child.code not in {0, 7}:
            raise DrillFailed(f"sending the finished campaign again was not refused: {child.last_words()}")

    # People who leave

    def _plan_leaving(self) -> list[int]:
        """At how many copies in the book somebody leaves, the first one last."""
        most = int(0.8 * len(self._people))
        count = min(max(3, len(self._people) // 50), 200)
        return sorted((self._dice.randint(1, max(1, most)) for _ in range(count)), reverse=True)

    def _let_people_leave(self) -> None:
        while self._leaving and len(self._book) >= self._leaving[-1]:
            self._leaving.pop()
            self._take_somebody_away()

    def _rest(self) -> None:
        """After a kill, when nobody lives: who leaves now can't be in anybody's hands."""
        if self._senders or not self._leaving or not len(self._book) or self._dice.random() < 0.7:
            return
        if self._provider.drain():
            self._leaving.pop()
            self._take_somebody_away(in_peace=True)

    def _take_somebody_away(self, *, in_peace: bool = False) -> None:
        """Somebody without a copy: half of the time one of the next in the queue, who may be in a sender's hands."""
        queue = [one for one in self._book.queue(self._people) if one not in self.diary.left]
        if not queue:
            return
        nearby = queue[: 2 * self._processes * self._in_hand]
        address = self._dice.choice(nearby if self._dice.random() < 0.5 else queue)
        self.diary.left[address] = self._project.take_away(address, suppressed=self._dice.random() < 0.5)
        if in_peace:
            self.diary.left_in_peace.add(address)

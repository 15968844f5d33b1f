"""The ledger under everything that can happen to it, in any order: fifteen invariants.

A hypothesis state machine plays two and more sending processes, a provider that takes a copy or does not, people who
leave in the middle of it, operators, crashes, processes that are wrongly thought dead, a database that fails in the
middle of a step, and a clock that jumps. Beside the real database stands a model in plain Python: what the provider's
book holds, who may get a copy, and which copies anybody can be in doubt about.

=====  =======================================================================  ===================================
 no.   what holds                                                               where
=====  =======================================================================  ===================================
  1    a reader gets an issue once, and again only by a person's word           ``nobody_gets_a_second_copy``
  2    who was to get it ends in a last state, or unknown                       ``_run_to_the_end``
  3    who did not get it is skipped, refused, unknown, closed or open          ``nobody_is_lost_silently``
  4    accepted means that the provider's book holds it                         ``accepted_is_in_the_book``
  5    nothing is handed over after the reader left or the campaign stopped     ``_leave``, ``states_change_as_drawn``
  6    states change only along the diagram; counters equal the rows            ``states_change_as_drawn``
  7    unknown: at most (kills + cut answers) × what a process has in hand      ``doubts_are_few_and_named``
  8    a message shows its reader and no other                                  ``_check_message``
  9    a second try has the same bytes                                          ``_check_message``
 10    events in any order, and twice, give the same                            ``events``
 11    forged events change nothing                                             ``events``
 12    a period is sent once                                                    ``freeze``, ``a_period_is_sent_once``
 13    recovering twice is recovering once                                      ``recover``
 14    finished exactly when nothing is open                                    ``finished_means_that``, ``operate``
 15    an erased address is nowhere in the database                             ``the_erased_are_nowhere``
=====  =======================================================================  ===================================
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from enum import StrEnum
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import insert, update
from sqlalchemy.exc import DBAPIError

from newsletter import errors, freezing, recovery, resolving
from newsletter.model import (
    OPEN_STATES,
    Accepted,
    CampaignState,
    Kind,
    NotTaken,
    Refused,
    SubscriptionState,
    Unknown,
)
from newsletter.store import campaigns, doubts, ledger
from newsletter.store.campaigns import Target
from newsletter.store.doubts import FIRST_UNKNOWN
from newsletter.store.engine import in_chunks, open_engine, read, write
from newsletter.store.schema import subscriber, subscription, suppression, to_micros
from newsletter.transports.answers import words
from tests.support.ledgers import EMAIL, NOW, key
from tests.support.machine import (
    FORGOTTEN,
    MEMBERS,
    PEOPLE,
    RETRY,
    SUBSCRIPTIONS,
    PostgresqlDatabase,
    Provider,
    Sender,
    SqliteDatabase,
    address_of,
    person_of,
    reads_as_one_readers,
    subscription_id,
)
from tests.support.publication import MESSAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from newsletter.freezing import Plan
    from newsletter.model import Outcome
    from newsletter.resolving import Resolution
    from newsletter.store.ahead import Claimed
    from tests.support.machine import Change, Database, Row

STEPS = 30
IN_HAND = 4  # copies that one process has handed over and not settled, at most
SENDERS = 4  # living ones, with those that are wrongly thought dead
MOST_GONE = 3  # people who have left at one time: else soon nobody is left to be lost
A_WHILE = timedelta(hours=1)

MAIN = Target(issue="2026-12", period="2026-12", list="readers", kind=Kind.LIVE)
TARGETS = (
    MAIN,
    replace(MAIN, list="staff"),  # the same issue to another list, with people who are on both
    replace(MAIN, issue="2026-12-extra"),  # another issue for the same period
    replace(MAIN, kind=Kind.REHEARSAL),
)

BROKEN = (errors.DatabaseError, DBAPIError)

DELIVERY_DIAGRAM = {
    (None, "pending"),
    ("pending", "claimed"),
    ("pending", "skipped"),
    ("pending", FORGOTTEN),  # with an unfinished freeze
    ("claimed", "pending"),
    ("claimed", "handed"),
    ("claimed", "skipped"),
    ("handed", "accepted"),
    ("handed", "refused"),
    ("handed", "pending"),
    ("handed", "unknown"),
    ("unknown", "accepted"),
    ("unknown", "pending"),
    ("unknown", "closed"),
}
CAMPAIGN_DIAGRAM = {
    (None, "preparing"),
    ("preparing", "running"),
    ("preparing", FORGOTTEN),
    ("running", "paused"),
    ("paused", "running"),
    ("running", "finished"),
    ("finished", "running"),  # a person's word: resend
    ("running", "cancelled"),
    ("paused", "cancelled"),
}


class Answer(StrEnum):
    """What becomes of a copy that is in a process's hands."""

    NOTHING = "nothing yet"
    TAKEN = "taken, and no answer yet"
    ACCEPTED = "accepted"
    CUT = "the answer was cut"
    REFUSED = "refused"
    BUSY = "not taken, and charged"
    BUSY_UNTIL = "not taken, charged, with a wish"
    DROPPED = "not taken, and not charged"
    DROPPED_UNTIL = "not taken, not charged, with a wish"


class Verb(StrEnum):
    """What an operator may type."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    SWEEP = "sweep"
    FINISH = "finish"


class Act(StrEnum):
    """What a reader, or somebody on their behalf, may do."""

    LEAVE = "leave"
    PAUSE = "pause"
    RETURN = "return"
    SUPPRESS = "suppress"
    COMPLAIN = "complain"
    ERASE = "erase"


class _RolledBackError(Exception):
    """Ends a trial transaction."""


which = st.integers(0, SENDERS - 1)
people = st.sampled_from(PEOPLE)
subscriptions = st.sampled_from(SUBSCRIPTIONS)
want = st.integers(1, 2)  # little at a time, so that much can happen meanwhile
answers = st.lists(st.sampled_from(Answer), min_size=IN_HAND, max_size=IN_HAND)
fails = st.sampled_from((0,) * 12 + tuple(range(1, 11)))
moves = st.tuples(which, want, st.booleans(), answers, fails, st.sampled_from((0.001, 0.001, 20, 200)))
ways = st.sampled_from((resolving.Way.RESEND, resolving.Way.RESEND, resolving.Way.ASSUME_ACCEPTED))
arrivals = st.lists(st.booleans(), min_size=IN_HAND, max_size=IN_HAND)


EVENTS: dict[str, st.SearchStrategy[dict[str, Any]]] = {}


def happens(**drawn: Any) -> Callable[[Any], Any]:
    """What ``then`` may choose, with its arguments.

    All of it is one rule, because Hypothesis leaves about half of the rules out of each example: there would be
    crashes without people who leave, and answers without copies.
    """

    def decorate(act: Any) -> Any:
        EVENTS[act.__name__] = st.fixed_dictionaries(drawn)
        return act

    return decorate


class LedgerMachine(RuleBasedStateMachine):
    """A database, the processes that use it, and what must be true of both."""

    open_database: Callable[[], Database]

    def __init__(self) -> None:
        super().__init__()
        self.database = self.open_database()
        self.engine = self.database.engine
        self.now = NOW
        self.latest = self.now  # of all steps
        self.provider = Provider()
        self.senders: list[Sender] = []
        self.begun = 0  # processes so far
        self.lost: set[bytes] = set()  # handed by processes that died, and not recovered
        self.standing = dict.fromkeys(SUBSCRIPTIONS, SubscriptionState.ACTIVE)
        self.suppressed: set[int] = set()
        self.erased: set[int] = set()
        self.plans: dict[Target, Plan] = {}
        self.asked: tuple[Resolution, dict[int, int]] | None = None
        self.frozen: dict[int, tuple[Target, set[int]]] = {}  # campaign → what it is, and who is to get it
        self.states: dict[int, CampaignState] = {}
        self.unfinished = False  # a freeze was killed, and its process is not known to be dead
        self.words: Counter[tuple[str, str, int, int]] = Counter()  # resends by a person's word
        self.killed: Target | None = None  # a freeze that was killed: it will be tried again
        self.resent: set[bytes] = set()
        self.closed: set[bytes] = set()
        self.hand_overs: Counter[int] = Counter()
        self.doubtful: set[bytes] = set()
        self.kills = 0
        self.cuts = 0
        self.ever_unknown = 0
        self.turned_down: set[bytes] = set()
        self.charged: Counter[bytes] = Counter()
        self.wishes: dict[bytes, datetime] = {}

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:  # else a failure was found, and is not to be covered by another
                self._run_to_the_end()
        finally:
            self.database.close()

    # --- the model's own questions ---

    def _may_get(self, campaign: int, subscription: int) -> bool:
        """Invariant 5, as the model sees it."""
        return (
            self.states[campaign] is CampaignState.RUNNING
            and self.standing[subscription] is SubscriptionState.ACTIVE
            and person_of(subscription) not in self.suppressed
        )

    def _eligible(self, target: Target) -> set[int]:
        """Who is to get a copy if this is frozen now."""
        have = {
            person
            for other, persons in self.frozen.values()
            for person in persons
            if (other.issue, other.kind, other.attempt) == (target.issue, target.kind, target.attempt)
        }
        return {
            person
            for person in MEMBERS[target.list]
            if self.standing[subscription_id(target.list, person)] is SubscriptionState.ACTIVE
            and person not in self.suppressed | have
        }

    def _holder(self, target: Target) -> int | None:
        same = (target.period, target.list, target.kind, target.attempt)
        for number, (other, _) in self.frozen.items():
            if (other.period, other.list, other.kind, other.attempt) == same:
                return number
        return None

    def _by_id(self) -> dict[bytes, Row]:
        return {row.id: row for row in self.database.rows()}

    def _open(self, campaign: int) -> list[Row]:
        return [row for row in self.database.rows() if row.campaign == campaign and row.state in OPEN_STATES]

    def _name(self) -> str:
        self.begun += 1
        return f"{self.begun:016x}"

    # --- freezing ---

    @initialize(also_staff=st.booleans(), away=st.none() | subscriptions, suppressed=st.none() | people)
    def begin(self, also_staff: bool, away: int | None, suppressed: int | None) -> None:
        """Most of what can happen needs a running campaign and two senders."""
        if away is not None:
            self._stand(away, SubscriptionState.PAUSED)
        if suppressed is not None:
            self._suppress(suppressed, "complained")
        for target in TARGETS[: 1 + also_staff]:
            planned = self._plan(target)
            assert planned is not None
            self._freeze(target, planned)
        self._start(MAIN)
        self._start(TARGETS[also_staff])

    @happens(
        aim=st.sampled_from(TARGETS),
        later=st.booleans(),
        statement=st.sampled_from((0, 0, 0, 4, 8, 9, 10, 12)),
    )
    def freeze(self, aim: Target, later: bool, statement: int) -> None:
        """A period is taken once, by whoever comes first, whatever the clock says (12); also killed half-way.

        A person may be shown a plan and say yes later, when other things have happened.
        """
        if self.killed is not None:
            aim, self.killed = self.killed, None
        planned = self.plans.pop(aim, None) or self._plan(aim)
        if planned is None:
            return
        if later:
            self.plans[aim] = planned
        else:
            self._freeze(planned.target, planned, statement)

    def _plan(self, target: Target) -> Plan | None:
        """None when it was refused, which must be for a reason."""
        if target.kind is Kind.REHEARSAL or self._holder(target) is None:
            planned = freezing.plan(self.engine, target)
            assert planned.recipients == len(self._eligible(planned.target)), "2: somebody was not counted"
            return planned
        with pytest.raises(errors.Refused):
            freezing.plan(self.engine, target)
        return None

    def _freeze(self, target: Target, planned: Plan, statement: int = 0) -> None:
        eligible, taken = self._eligible(target), self._holder(target)
        mine = self._name()
        self.database.enrol(mine, self.now)
        if self.unfinished:
            self._recover(mine)
        self.database.faults.at(statement)
        made = None
        try:
            made = freezing.freeze(
                self.engine, planned, [EMAIL], MESSAGE, transport="memory", now=self.now, owner=mine
            )
        except errors.Refused:
            assert taken is not None or len(eligible) > planned.recipients
        except BROKEN:
            assert statement
            self.database.faults.at(0)
            made = read(self.engine, lambda conn: campaigns.holder(conn, target))
            if made is not None and made.state is CampaignState.PREPARING:
                self.unfinished, self.killed = True, target
        self.database.faults.at(0)
        self.database.end(mine)
        if made is not None and made.state is not CampaignState.PREPARING and made.id not in self.frozen:
            assert taken is None, "12: the period was taken"
            assert len(eligible) <= planned.recipients, "a person said yes to a smaller number"
            self.frozen[made.id], self.states[made.id] = (target, eligible), CampaignState.RUNNING
            self._check_frozen(made.id, eligible)

    def _check_frozen(self, campaign: int, eligible: set[int]) -> None:
        """Invariants 2 and 3 begin here: everybody who is to get it has a row."""
        rows = [row for row in self.database.rows() if row.campaign == campaign]
        assert sorted(row.person for row in rows) == sorted(eligible), "2, 3: not those who are to get it"

    # --- sending ---

    @happens(number=which)
    def start(self, number: int) -> None:
        """One more process goes on with a campaign."""
        running = self._running()
        if len(self.senders) == SENDERS or not running:
            return
        self._start(self.frozen[running[number % len(running)]][0])

    def _running(self) -> list[int]:
        return [number for number, state in self.states.items() if state is CampaignState.RUNNING]

    def _start(self, target: Target) -> None:
        campaign = self._holder(target)
        assert campaign is not None
        self.senders.append(Sender.start(self.database, self._name(), campaign, self.now))

    def _sender(self, number: int) -> Sender:
        """Mostly one that has something to do: in a campaign at rest nothing much can go wrong."""
        at_work = [one for one in self.senders if one.hands or self._runs(one)]
        some = at_work if at_work and number < SENDERS - 1 else self.senders
        return some[number % len(some)]

    def _runs(self, sender: Sender) -> bool:
        return self.states[sender.campaign] is CampaignState.RUNNING and not sender.buried

    def _move(
        self, number: int, want: int, in_hand: bool, answers: Sequence[Answer], statement: int, seconds: float
    ) -> None:
        """Copies leave and are answered: also by a process that was declared dead long ago.

        The database may fail in the middle of it: then no copy leaves, and no answer is lost.
        """
        self.now += timedelta(seconds=seconds)
        sender = self._sender(number)
        if not in_hand or not sender.hands:
            self._step(sender, want, [])
        if in_hand:
            self._step(sender, want, answers, statement)
        if self._runs(sender) and not self._open(sender.campaign):
            self._set(sender.campaign, campaigns.finish, True, CampaignState.FINISHED, now=self.now)

    def _step(self, sender: Sender, want: int, answers: Sequence[Answer], statement: int = 0) -> None:
        self.latest = max(self.now, self.latest)
        sender.unsaved += self._answers(sender, answers)
        before, offered = self._by_id(), list(sender.unsaved)
        room = min(want, IN_HAND - len(sender.hands) + sum(one.delivery in sender.hands for one in offered))
        self.database.faults.at(statement)
        try:
            handed = sender.ledger.step(offered, room, self.now)
        except BROKEN:
            assert statement
            self.database.faults.at(0)
            self._check_broken(sender, before)
            return
        self.database.faults.at(0)
        self._check_stored(sender, before)
        sender.unsaved.clear()
        assert len(handed) <= room, "7: more in hand than was asked for"
        if len(handed) < room and self._runs(sender) and not statement:
            assert not self._due(sender), "2: fewer than asked for means that nothing else may leave now"
        for row in handed:
            self._leave(sender, row)

    def _due(self, sender: Sender) -> list[Row]:
        now = to_micros(self.now)
        return [
            row
            for row in self._open(sender.campaign)
            if (row.state == "pending" and (row.not_before or 0) <= now)
            or (row.state == "claimed" and row.owner == sender.id)
        ]

    def _check_broken(self, sender: Sender, before: dict[bytes, Row]) -> None:
        """All the answers are stored or none, and no copy was handed over; the caller offers them again anyhow."""
        after = self._by_id()
        assert not [one for one, row in after.items() if row.state == "handed" != before[one].state], "1, 7"
        if any(after[one.delivery] != before[one.delivery] for one in sender.unsaved):
            self._check_stored(sender, before)

    def _answers(self, sender: Sender, answers: Sequence[Answer]) -> list[Outcome]:
        said = {outcome.delivery for outcome in sender.unsaved}
        waiting = [copy for copy in sender.hands if copy not in said]
        found = (self._answer(sender, *pair) for pair in zip(waiting, answers, strict=False))
        return [outcome for outcome in found if outcome is not None]

    def _answer(self, sender: Sender, copy: bytes, answer: Answer) -> Outcome | None:
        if answer is Answer.NOTHING:
            return None
        if answer is Answer.CUT:
            self.cuts += 1
            self.doubtful.add(copy)
            return Unknown(copy, "the answer was cut")
        if answer in {Answer.TAKEN, Answer.ACCEPTED} or copy in sender.taken:
            self._take(sender, copy)
            return None if answer is Answer.TAKEN else Accepted(copy, "queued")
        if answer is Answer.REFUSED:
            self.turned_down.add(copy)
            return Refused(copy, self._server_says(sender, copy))
        return self._not_taken(sender, copy, answer)

    def _not_taken(self, sender: Sender, copy: bytes, answer: Answer) -> Outcome:
        wish = self.now + A_WHILE if answer in {Answer.BUSY_UNTIL, Answer.DROPPED_UNTIL} else None
        charged = answer in {Answer.BUSY, Answer.BUSY_UNTIL}
        return NotTaken(copy, self._server_says(sender, copy), not_before=wish, charged=charged)

    @staticmethod
    def _server_says(sender: Sender, copy: bytes) -> str:
        """Servers quote the address, and transports pass on ``words`` only."""
        return words(f"550 <{sender.hands[copy].address}> is not here")

    def _take(self, sender: Sender, copy: bytes) -> None:
        if copy not in sender.taken:
            sender.taken.add(copy)
            self.provider.take(copy)

    def _leave(self, sender: Sender, row: Claimed) -> None:
        """Invariant 5, and everything else that must be so when a copy leaves."""
        assert not sender.buried, "a process that was declared dead hands over nothing"
        assert self._may_get(sender.campaign, row.subscription_id), "5: they left, or the campaign stopped"
        # What was due when it was claimed stays so if the clock goes back; far back, the desk ends the process.
        assert self.wishes.get(row.id, self.now) <= self.latest, "the provider asked for later"
        stored = self._by_id()[row.id]
        assert (stored.state, stored.owner, stored.campaign) == ("handed", sender.id, sender.campaign)
        assert row.id not in sender.hands, "one copy twice in one step"
        sender.hands[row.id] = row
        self.wishes.pop(row.id, None)
        self.hand_overs[row.seq] += 1
        self._check_message(sender, row)

    def _check_message(self, sender: Sender, row: Claimed) -> None:
        """Invariants 8 and 9: only this reader's address and links, and the same bytes at every try."""
        message = sender.message(row)
        number = row.id.hex().encode()
        assert message.count(number) == 1, "9: the Message-ID is the delivery's"
        plain = message.replace(number, b"0" * len(number))
        assert reads_as_one_readers(plain, person_of(row.subscription_id), row.subscription_id), "8"
        assert self.provider.first.setdefault(row.id, message) == message, "9"

    def _check_stored(self, sender: Sender, before: dict[bytes, Row]) -> None:
        """No answer is lost; and one that comes too late may only turn unknown into accepted."""
        after = self._by_id()
        for outcome in sender.unsaved:
            if outcome.delivery not in sender.hands:
                continue  # stored by a step that broke down afterwards
            was, now = before[outcome.delivery], after[outcome.delivery]
            if not sender.buried:
                assert (was.state, was.owner) == ("handed", sender.id)
                assert now.state in self._becomes(outcome), f"{outcome} was lost"
            elif isinstance(outcome, Accepted) and was.state == "unknown":
                assert now.state == "accepted", "a late answer was lost"
            else:
                assert now == was, "a late answer changed what it may not"
            del sender.hands[outcome.delivery]
            sender.taken.discard(outcome.delivery)

    def _becomes(self, outcome: Outcome) -> set[str]:
        """What a row is after an answer; one that was not taken may be on its way again."""
        match outcome:
            case Accepted():
                return {"accepted"}
            case Refused():
                return {"refused"}
            case Unknown():
                return {"unknown"}
        return self._comes_back(outcome)

    def _comes_back(self, outcome: NotTaken) -> set[str]:
        copy = outcome.delivery
        if outcome.not_before is not None:
            self.wishes[copy] = outcome.not_before
        if not outcome.charged:
            return {"pending", "claimed", "handed", "skipped"}
        self.charged[copy] += 1
        if self.charged[copy] <= len(RETRY):
            return {"pending"}
        self.turned_down.add(copy)
        return {"refused"}

    @happens(number=which, answers=answers)
    def wake(self, number: int, answers: Sequence[Answer]) -> None:
        """A process that was taken for dead has answers after all, and asks for more copies."""
        woken = [one for one in self.senders if one.buried and one.hands]
        if woken:
            self._step(woken[number % len(woken)], IN_HAND, answers)

    @happens(number=which)
    def release(self, number: int) -> None:
        """What was claimed and not handed is given back."""
        if not self.senders:
            return
        self._sender(number).ledger.release()

    # --- crashes ---

    @happens(number=which, arrives=arrivals, recovers=st.booleans())
    def crash(self, number: int, arrives: Sequence[bool], recovers: bool) -> None:
        """A process is gone; what it had in hand may have arrived or not, and no answer will ever come.

        Somebody starts another one, which puts things right first, as ``send`` does, or is not so far yet.
        """
        if not self.senders:
            return
        sender = self._sender(number)
        self._kill(sender, arrives)
        if self._runs(sender):
            self._start(self.frozen[sender.campaign][0])
            if recovers:
                self._recover(self.senders[-1].id)

    def _kill(self, sender: Sender, arrives: Sequence[bool]) -> None:
        self.senders.remove(sender)
        self.database.end(sender.id)
        said = {outcome.delivery for outcome in sender.unsaved}
        waiting = [copy for copy in sender.hands if copy not in said]
        for copy, arrived in zip(waiting, arrives, strict=False):
            if arrived:
                self._take(sender, copy)
        if not sender.buried:
            self._count_as_dead(sender)
            self.lost |= set(sender.hands)

    def _count_as_dead(self, sender: Sender) -> None:
        assert len(sender.hands) <= IN_HAND
        self.kills += 1
        self.doubtful |= set(sender.hands)

    @happens(number=which)
    def cut_off(self, number: int) -> None:
        """A process lives on, and everybody must think it dead."""
        if not self.senders:
            return
        sender = self._sender(number)
        sender.cut_off = True
        self.database.end(sender.id)

    @happens(number=which, joins=st.booleans(), statement=st.sampled_from((0, 0, 0, 1, 2, 3, 4, 5, 6)))
    def recover(self, number: int, joins: bool, statement: int) -> None:
        """What the dead left is put right, by a new process or by one that is at work; also cut off half-way (13)."""
        alive = [one for one in self.senders if not one.cut_off and not one.buried]
        if joins and alive:
            self._recover(alive[number % len(alive)].id, statement)
            return
        mine = self._name()
        self.database.enrol(mine, self.now)
        self._recover(mine, statement)
        self.database.end(mine)

    def _recover(self, mine: str, statement: int = 0) -> None:
        thought_dead = [
            one
            for one in self.senders
            if not one.buried and one.id != mine and (one.cut_off or self.database.one_sender)
        ]
        handed = self.lost.union(*(one.hands for one in thought_dead))
        self.database.faults.at(statement)
        try:
            found = recovery.recover(self.engine, mine, self.now)
        except BROKEN:
            assert statement
            self.database.faults.at(0)
            found = None
            recovery.recover(self.engine, mine, self.now)
        self.database.faults.at(0)
        assert found is None or found.unknown == len(handed), "7: what was in the hands of the dead"
        for one in thought_dead:
            one.buried = True
            self._count_as_dead(one)
        self.lost.clear()
        self.unfinished = False
        self._recover_again(mine)

    def _recover_again(self, mine: str) -> None:
        """Invariant 13."""
        once = self.database.rows(), self.database.campaigns()
        assert recovery.recover(self.engine, mine, self.now + A_WHILE) == recovery.Recovered(0, 0), "13"
        assert (self.database.rows(), self.database.campaigns()) == once, "13"

    # --- doubts ---

    @happens(told=st.lists(st.integers(0, 11), min_size=1, max_size=6), order=st.permutations(range(12)))
    def events(self, told: Sequence[int], order: Sequence[int]) -> None:
        """What the provider tells us later (10), with ids among it that nobody gave out (11)."""
        if not self.provider.book:
            return
        before = self._by_id()
        taken = sorted(self.provider.book, key=lambda one: before[one].seq)
        ids = [taken[n] if n < len(taken) else sha256(bytes([n])).digest()[:16] for n in told]
        trial = self._try_out([ids[n % len(ids)] for n in order])
        write(self.engine, lambda conn: self._tell(conn, ids))
        after = self._by_id()
        assert after == trial, "10: another order, and twice"
        for one, row in before.items():
            proven = one in ids and row.state == "unknown"
            assert (after[one].state == "accepted") if proven else (after[one] == row), "11"

    def _tell(self, conn: Any, ids: Sequence[bytes]) -> None:
        for one in ids:
            doubts.evidence(conn, one, self.now, "delivered")

    def _try_out(self, ids: Sequence[bytes]) -> dict[bytes, Row]:
        """What the rows would be: the transaction is rolled back."""
        found: list[Row] = []

        def work(conn: Any) -> None:
            self._tell(conn, ids)
            found.extend(self.database.rows_seen_by(conn))
            raise _RolledBackError

        with pytest.raises(_RolledBackError):
            write(self.engine, work)
        return {row.id: row for row in found}

    @happens(number=which, way=ways, some=st.none() | st.sets(people, min_size=1), later=st.booleans())
    def resolve(self, number: int, way: resolving.Way, some: set[int] | None, later: bool) -> None:
        """Somebody is shown the unknown copies, and says yes, perhaps when other things have happened."""
        doubtful = sorted({row.campaign for row in self.database.rows() if row.state == "unknown"})
        if not doubtful:
            return
        chosen = doubtful[number % len(doubtful)]
        campaign = read(self.engine, lambda conn: campaigns.get(conn, chosen))
        rows = [row for row in self.database.rows() if row.campaign == chosen and row.state == "unknown"]
        if some is not None:
            rows = [row for row in rows if row.person in some]
        if way is resolving.Way.RESEND and self.states[chosen] is CampaignState.CANCELLED:
            with pytest.raises(errors.Refused):
                resolving.plan_all(self.engine, campaign, way)
            return
        if not rows:
            return
        if some is None:
            asked = resolving.plan_all(self.engine, campaign, way)
        else:
            keys = {key(row.person): address_of(row.person) for row in rows}
            asked = resolving.plan_some(self.engine, campaign, way, keys)
        assert [one.seq for one in asked.chosen] == [row.seq for row in rows]
        seen = {row.seq: self.hand_overs[row.seq] for row in rows}
        if later:
            self.asked = asked, seen
        else:
            self._say_yes(asked, seen)

    @happens()
    def say_yes(self) -> None:
        """The person who was asked some time ago."""
        if self.asked is not None:
            asked, self.asked = self.asked, None
            self._say_yes(*asked)

    def _say_yes(self, resolution: Resolution, seen: dict[int, int]) -> None:
        """A person's word, about the very hand-overs that they were shown."""
        campaign = resolution.campaign.id
        resends = resolution.way is resolving.Way.RESEND
        stopped = resends and self.states[campaign] is CampaignState.CANCELLED
        due = [
            row
            for row in self.database.rows()
            if row.state == "unknown" and seen.get(row.seq) == self.hand_overs[row.seq] and not stopped
        ]
        assert resolving.carry_out(self.engine, resolution, self.now) == len(due)
        for row in due:
            (self.resent if resends else self.closed).add(row.id)
            del self.charged[row.id]
            self.words[row.reader] += resends
        if resends and due and self.states[campaign] is CampaignState.FINISHED:
            self.states[campaign] = CampaignState.RUNNING
        after = self._by_id()
        assert {after[row.id].state for row in due} <= {"pending" if resends else "closed"}

    # --- people ---

    @happens(number=which, verb=st.sampled_from([*Verb, Verb.RESUME, Verb.RESUME, Verb.FINISH]))
    def operate(self, number: int, verb: Verb) -> None:
        """Pause, resume, cancel, sweep, finish: each works exactly in the states that it is for."""
        fit = [one for one, state in self.states.items() if self._fits(verb, one, state)]
        some = fit if fit and number % 2 else sorted(self.states)
        campaign = some[number % len(some)]
        state = self.states[campaign]
        runs, rests = state is CampaignState.RUNNING, state is CampaignState.PAUSED
        match verb:
            case Verb.PAUSE:
                self._set(campaign, campaigns.pause, runs, CampaignState.PAUSED, reason="by hand")
            case Verb.RESUME:
                self._set(campaign, campaigns.resume, rests, CampaignState.RUNNING)
            case Verb.CANCEL:
                self._set(campaign, campaigns.cancel, runs or rests, CampaignState.CANCELLED, now=self.now)
            case Verb.FINISH:  # 14
                ends = runs and not self._open(campaign)
                self._set(campaign, campaigns.finish, ends, CampaignState.FINISHED, now=self.now)
            case Verb.SWEEP:
                in_chunks(self.engine, partial(campaigns.sweep, now=self.now, limit=2))

    def _fits(self, verb: Verb, campaign: int, state: CampaignState) -> bool:
        """Where it is of interest; the others are tried as well."""
        if verb is Verb.RESUME:
            return state is CampaignState.PAUSED
        if verb is Verb.CANCEL:
            return state is CampaignState.FINISHED
        return state is CampaignState.RUNNING and (verb is Verb.PAUSE or not self._open(campaign))

    def _set(self, campaign: int, act: Any, expected: bool, state: CampaignState, **more: Any) -> None:
        assert write(self.engine, lambda conn: act(conn, campaign, **more)) is expected, f"6, 14: {state}"
        if expected:
            self.states[campaign] = state

    @happens(number=st.integers(0, len(SUBSCRIPTIONS) - 1), act=st.sampled_from(Act))
    def reader(self, number: int, act: Act) -> None:
        """Somebody leaves in the middle of it, or comes back, or is never to be mailed again."""
        gone = [one for one, state in self.standing.items() if state is not SubscriptionState.ACTIVE]
        gone = [one for one in gone if person_of(one) not in self.erased]
        forever = act in {Act.SUPPRESS, Act.COMPLAIN, Act.ERASE}
        if len(self.suppressed if forever else gone) >= MOST_GONE:
            act = Act.RETURN
        some = gone if act is Act.RETURN else self._waiting()
        some = some or SUBSCRIPTIONS
        number = some[number % len(some)]
        match act:
            case Act.SUPPRESS | Act.COMPLAIN:
                self._suppress(person_of(number), act)
            case Act.ERASE:
                self._erase(person_of(number))
            case Act.LEAVE:
                self._stand(number, SubscriptionState.UNSUBSCRIBED)
            case Act.PAUSE:
                self._stand(number, SubscriptionState.PAUSED)
            case Act.RETURN:
                self._stand(number, SubscriptionState.ACTIVE)

    def _waiting(self) -> list[int]:
        """Whose copy has not left: of what happens to others nothing can be seen."""
        return [row.subscription for row in self.database.rows() if row.state in {"pending", "claimed"}]

    def _stand(self, number: int, state: SubscriptionState) -> None:
        if person_of(number) in self.erased:
            return
        changed = update(subscription).where(subscription.c.id == number).values(state=state)
        write(self.engine, lambda conn: conn.execute(changed))
        self.standing[number] = state

    def _suppress(self, person: int, reason: str) -> None:
        if person in self.suppressed:
            return
        row = insert(suppression).values(address_key=key(person), reason=reason, at=self.now)
        write(self.engine, lambda conn: conn.execute(row))
        self.suppressed.add(person)

    def _erase(self, person: int) -> None:
        """What ``subscribers erase`` will do: the person leaves everything and stays suppressed for ever."""
        for number in SUBSCRIPTIONS:
            if person_of(number) == person:
                self._stand(number, SubscriptionState.UNSUBSCRIBED)
        self._suppress(person, "erased")
        nobody = {"address": None, "address_key": None, "name": "", "fields": {}, "erased_at": self.now}
        changed = update(subscriber).where(subscriber.c.id == person).values(nobody)
        write(self.engine, lambda conn: conn.execute(changed))
        self.erased.add(person)

    # --- time ---

    @happens(seconds=st.sampled_from((1, 15, 120, 3600, 100_000, -1, -90, -4000, -3_000_000)))
    def clock(self, seconds: int) -> None:
        """Time passes, or the clock is set back."""
        self.now += timedelta(seconds=seconds)

    @rule(event=st.one_of([st.tuples(st.just(name), drawn) for name, drawn in EVENTS.items()]), move=moves)
    def then(self, event: tuple[str, dict[str, Any]], move: Any) -> None:
        """Something happens, and somebody goes on with the work."""
        name, drawn = event
        getattr(self, name)(**drawn)
        if self.senders:
            self._move(*move)

    # --- what is always so ---

    @invariant()
    def nobody_gets_a_second_copy(self) -> None:
        """1: an issue reaches a reader once, on however many lists, and again only as often as a person said so.

        And so that it stays like that: a copy in somebody's mailbox is never in a row that may leave by itself.
        """
        rows = self._by_id()
        copies: Counter[tuple[str, str, int, int]] = Counter()
        for copy, number in self.provider.book.items():
            copies[rows[copy].reader] += number
            if rows[copy].state in {"pending", "claimed"}:
                assert copy in self.resent, "1: it may leave a second time"
        for reader, number in copies.items():
            assert number <= 1 + self.words[reader], "1: two copies"

    @invariant()
    def nobody_is_lost_silently(self) -> None:
        """3: who has a right to a copy and got none has a row that says why, and the reason is true."""
        rows = self.database.rows()
        for campaign, (_, eligible) in self.frozen.items():
            assert {row.person for row in rows if row.campaign == campaign} == eligible, "3"
        for row in rows:
            if row.state == "skipped":
                gone = row.person in self.suppressed
                stopped = self.states[row.campaign] is CampaignState.CANCELLED
                assert gone or stopped or self._has_left(row), "3: skipped without a reason"
            if row.state == "refused":
                assert row.id in self.turned_down, "3: nobody refused it"
            if row.state in {"skipped", "refused"}:
                assert row.reason, "3"
                received = self.provider.book[row.id]
                assert not received or FIRST_UNKNOWN in row.reason, (
                    "3: a copy that may have arrived is forgotten"
                )

    def _has_left(self, row: Row) -> bool:
        """Or had, when it was skipped: they may have come back since."""
        return row.reason.startswith((SubscriptionState.UNSUBSCRIBED, SubscriptionState.PAUSED))

    @invariant()
    def accepted_is_in_the_book(self) -> None:
        """4: no row says accepted of a copy that the provider never took."""
        for row in self.database.rows():
            if row.state == "accepted":
                assert self.provider.book[row.id], "4"

    @invariant()
    def states_change_as_drawn(self) -> None:
        """6: every single change is an arrow of design §6, and 5 once more: at the moment of each hand-over.

        ``unknown`` is left towards pending and closed only after a person's word.
        """
        changes = self.database.journal()
        for change in changes:
            diagram = DELIVERY_DIAGRAM if change.what == "delivery" else CAMPAIGN_DIAGRAM
            assert (change.before, change.after) in diagram, "6"
            if change.what == "delivery":
                self._check_change(change)
        if changes:
            self._check_counters()

    def _check_change(self, change: Change) -> None:
        if change.after == "handed":
            assert (change.campaign, change.subscription, change.suppressed) == ("running", "active", 0), "5"
        if change.before is None or change.after == FORGOTTEN:
            assert change.campaign == "preparing", "6: rows come and go only while a campaign is prepared"
        self.ever_unknown += change.after == "unknown"
        ids = {row.seq: row.id for row in self.database.rows()}
        if (change.before, change.after) == ("unknown", "pending"):
            assert ids[change.number] in self.resent, "6: nobody said resend"
        if (change.before, change.after) == ("unknown", "closed"):
            assert ids[change.number] in self.closed, "6: nobody closed it"

    def _check_counters(self) -> None:
        found = {row.id: row.state for row in self.database.campaigns() if row.id in self.states}
        assert found == self.states, "6"
        counted = read(self.engine, self._counted)
        for campaign in self.states:
            states = Counter(row.state for row in self.database.rows() if row.campaign == campaign)
            assert counted[campaign] == states, "6"

    def _counted(self, conn: Any) -> dict[int, Any]:
        """What the product says."""
        return {one: campaigns.counts(conn, one) for one in self.states}

    @invariant()
    def doubts_are_few_and_named(self) -> None:
        """7: each kill and each cut answer costs what was in one process's hands, and nothing else ever does."""
        assert self.ever_unknown <= self.kills * IN_HAND + self.cuts, (
            "7: more doubts than kills and cuts make"
        )
        for row in self.database.rows():
            if row.state == "unknown":
                assert row.id in self.doubtful, "7: nobody could be in doubt about this one"
                assert row.reason, "7"

    @invariant()
    def handed_is_in_somebodys_hands(self) -> None:
        """The root of 1, 3 and 7: ``handed`` are exactly the copies that a process holds, or held when it died."""
        held = self.lost.union(*(one.hands for one in self.senders if not one.buried))
        assert {row.id for row in self.database.rows() if row.state == "handed"} == held, "1, 3, 7"

    @invariant()
    def a_period_is_sent_once(self) -> None:
        """12: one live campaign for a period and a list, whatever the clock said and whoever tried."""
        live = [(row.period, row.audience) for row in self.database.campaigns() if row.kind == Kind.LIVE]
        assert len(live) == len(set(live)), "12"

    @invariant()
    def finished_means_that(self) -> None:
        """14, one half; the other is in ``operate``: it finishes as soon as nothing is open."""
        for campaign, state in self.states.items():
            if state is CampaignState.FINISHED:
                assert not self._open(campaign), "14: finished, and somebody is waiting"

    @invariant()
    def the_erased_are_nowhere(self) -> None:
        """15: neither a reason nor a provider's word keeps an erased address; the file itself at the end."""
        for row in self.database.rows():
            assert "@" not in f"{row.reason} {row.provider_id}", "15: nobody's address belongs in there"

    # --- the end ---

    def _run_to_the_end(self) -> None:
        """2: whatever happened, the next send brings everybody to a last state or to unknown, and finishes (14)."""
        for sender in list(self.senders):
            self._kill(sender, [])
        mine = self._name()
        self.database.enrol(mine, self.now)
        self._recover(mine)
        for campaign in self.states:
            if self.states[campaign] is CampaignState.PAUSED:
                self._set(campaign, campaigns.resume, True, CampaignState.RUNNING)
        for campaign in self._running():
            self._send_the_rest(campaign)
        self._check_the_end()

    def _send_the_rest(self, campaign: int) -> None:
        self._start(self.frozen[campaign][0])
        sender = self.senders[-1]
        for _ in range(4 * len(PEOPLE)):
            self._step(sender, IN_HAND, [Answer.ACCEPTED] * IN_HAND)
            due = read(self.engine, lambda conn: ledger.next_due(conn, campaign))
            if not sender.hands and due is None:
                break
            self.now = max(self.now, due or self.now)
        sender.ledger.release()
        self._set(campaign, campaigns.finish, True, CampaignState.FINISHED, now=self.now)

    def _check_the_end(self) -> None:
        assert not any(self._open(campaign) for campaign in self.frozen), "2: somebody was left over"
        self._check_all()
        stored = self.database.bytes_on_disk()
        for person in self.erased:
            assert address_of(person).encode() not in stored, "15: an erased address is in the file"

    def _check_all(self) -> None:
        self.nobody_gets_a_second_copy()
        self.nobody_is_lost_silently()
        self.accepted_is_in_the_book()
        self.states_change_as_drawn()
        self.doubts_are_few_and_named()
        self.handed_is_in_somebodys_hands()
        self.finished_means_that()
        self.the_erased_are_nowhere()


def _some(part: int, whole: int) -> settings:
    """Part of the profile's examples: one is a whole story here, and takes a quarter of a second and more."""
    return settings(max_examples=settings().max_examples * part // whole, stateful_step_count=STEPS)


class OnSqlite(LedgerMachine):
    """A file of its own for each example."""

    open_database = SqliteDatabase


@pytest.fixture(autouse=True)
def short_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step ends its commit early when many people have left; here one or two are many."""
    monkeypatch.setattr(ledger, "LOOK", 1)


def test_the_ledger_keeps_its_promises_on_sqlite() -> None:
    run_state_machine_as_test(OnSqlite, settings=_some(1, 2))


def test_the_ledger_keeps_its_promises_on_postgresql(postgresql_url: str) -> None:
    engine = open_engine(postgresql_url)

    class OnPostgresql(LedgerMachine):
        open_database = partial(PostgresqlDatabase, engine)

    run_state_machine_as_test(OnPostgresql, settings=_some(1, 4))
    engine.dispose()


@pytest.mark.parametrize("statement", range(1, 15))
@pytest.mark.parametrize(("gone", "want"), [((2, 3, 4), 1), ((3, 5), 2)])
def test_a_step_that_breaks_down_anywhere_loses_no_answer_and_no_copy(
    gone: Sequence[int], want: int, statement: int
) -> None:
    """People in a row have left, so that the step has a commit for each of them: chance would rarely do it."""
    story = OnSqlite()
    story.begin(also_staff=False, away=None, suppressed=None)
    sender = story.senders[0]
    story._step(sender, 1, [])
    for person in gone:
        story._stand(subscription_id("readers", person), SubscriptionState.UNSUBSCRIBED)
    story._step(sender, want, [Answer.ACCEPTED], statement)
    story._step(sender, want, [Answer.ACCEPTED])
    story._check_all()
    story.teardown()

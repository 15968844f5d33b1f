"""Canaries: a sample leaves first, and the rest only when its time has come and its answers were good."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
import tempfile
import threading
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event, insert, select, update

from newsletter import limits, recovery, sending
from newsletter.desk import SystemClock
from newsletter.limits import Canary
from newsletter.model import Accepted, CampaignState, DeliveryState, NotTaken, Refused, Unknown
from newsletter.notices import Editors
from newsletter.store import campaigns, canaries, ledger
from newsletter.store.engine import open_engine, read, write
from newsletter.store.ledger import Ledger
from newsletter.store.schema import delivery, notice, owner
from newsletter.texts import load
from newsletter.transports.memory import MemoryTransport
from tests.support.ledgers import (
    NOW,
    WIRE,
    TestClock,
    alive,
    conduct,
    counts,
    freeze,
    open_store,
    unsubscribe,
)

PEOPLE = 16
HOUR = timedelta(hours=1)
THREE = Canary(3, HOUR)
TOLERANT = 0.4  # of three copies, one may be refused
EDITORS = Editors(("editor@example.org",), "Research Digest", load("en"))


@pytest.fixture
def engine(tmp_path, database_url):
    engine = open_store(tmp_path, people=PEOPLE, url=database_url)
    yield engine
    engine.dispose()


class Clock(TestClock):
    """A minute at a time: at each of its waits a sender looks at the campaign."""

    def wait(self, seconds):
        super().wait(60 if seconds >= 1 else seconds)


class Provider:
    """Answers as it is told, and remembers when each copy came, in their order."""

    def __init__(self, clock, answers=lambda _recipient, _tries: None, *, lanes=1, window=1):
        self.came = []  # (delivery, when)
        self.tries = Counter()
        self._clock, self._answers = clock, answers
        self.transport = MemoryTransport(self._answer, lanes=lanes, window=window)

    def _answer(self, recipient, _number):
        self.came.append((recipient.delivery, self._clock.now()))
        self.tries[recipient.delivery] += 1
        return self._answers(recipient, self.tries[recipient.delivery]) or Accepted(recipient.delivery)


def refusing(how_many, outcome=Refused):
    """The first so many readers are refused, and no other."""
    chosen = []

    def answer(recipient, _tries):
        if len(chosen) < how_many and recipient.delivery not in chosen:
            chosen.append(recipient.delivery)
            return outcome(recipient.delivery, "550 5.7.1 no, <zoe@example.org>")
        return None

    return answer


def every_other(how_many, outcome):
    """The first copy and the third, …: two doubts in a row would be an outage."""
    turns = iter([True, False] * how_many)
    return lambda one, _tries: outcome(one.delivery, "no answer") if next(turns, False) else None


def send(engine, campaign, provider, clock, **changes):
    how = conduct(clock, **{"stop_refused": TOLERANT, **changes})
    return sending.run(engine, campaign, provider.transport, WIRE, how)


def sample_of(engine, campaign, size=3):
    query = select(delivery.c.id).where(delivery.c.campaign_id == campaign.id).order_by(delivery.c.id)
    return {bytes(one) for one in read(engine, lambda conn: conn.scalars(query).all())[:size]}


def held(engine, campaign):
    return read(engine, lambda conn: canaries.find(conn, campaign.id))


def told(engine):
    return read(
        engine, lambda conn: [tuple(row) for row in conn.execute(select(notice.c.key, notice.c.text))]
    )


# --- who leaves, and when ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lanes", "window"), [(1, 1), (3, 2), (1, 50)])
def test_the_sample_leaves_and_some_time_after_its_last_answer_the_rest(engine, lanes, window):
    clock = Clock()
    provider = Provider(clock, lanes=lanes, window=window)
    campaign = freeze(engine, canary=THREE)
    said = []
    ended = send(engine, campaign, provider, clock, notice=said.append)
    assert ended.state is CampaignState.FINISHED
    first, rest = provider.came[:3], provider.came[3:]
    assert {one for one, _ in first} == sample_of(engine, campaign)
    assert len(rest) == PEOPLE - 3
    assert min(when for _, when in rest) >= max(when for _, when in first) + HOUR
    assert len(set(provider.came)) == PEOPLE
    assert said == [f"canary: 3 accepted; the rest leaves at {(NOW + HOUR).astimezone():%H:%M}"]


def test_no_wait_is_too_long_for_the_patience_of_a_sender(tmp_path):
    """It ends before a retry that is so far away; for a canary's time somebody has asked."""
    engine = open_store(tmp_path, people=2)
    clock = Clock()
    ended = send(engine, freeze(engine, canary=Canary(1, 2 * limits.PATIENCE)), Provider(clock), clock)
    engine.dispose()
    assert ended.state is CampaignState.FINISHED
    assert clock.now() >= NOW + 2 * limits.PATIENCE


def test_without_one_nothing_waits(engine):
    clock = Clock()
    ended = send(engine, freeze(engine), Provider(clock), clock)
    assert (ended.state, clock.now()) == (CampaignState.FINISHED, NOW)


def test_the_claim_of_a_campaign_without_one_is_the_statement_that_it_always_was(engine):
    claims = []
    event.listen(
        engine,
        "before_cursor_execute",
        lambda *call: (
            claims.append(call[2]) if re.match("UPDATE delivery.*RETURNING", call[2], re.DOTALL) else None
        ),
    )
    campaign = freeze(engine, canary=THREE)
    Ledger(engine, campaign.id, "me", retry=()).step([], 1, NOW)
    write(engine, lambda conn: canaries.release(conn, campaign.id))
    Ledger(engine, campaign.id, "me", retry=()).step([], 1, NOW)
    of_sample, free = claims
    assert of_sample != free
    assert free.count(" AND ") == 3, "campaign, state, due; and the state once more"


def test_a_campaign_says_how_it_stands(engine):
    clock = Clock()
    campaign = freeze(engine, canary=THREE)
    assert (campaign.canary_copies, campaign.canary_until) == (3, None)
    stopping = sending.Stop()
    clock.then(1, stopping.set)
    waiting = send(engine, campaign, Provider(clock), clock, stopping=stopping)
    assert waiting.state is CampaignState.RUNNING
    assert (waiting.canary_copies, waiting.canary_until) == (3, NOW + HOUR)
    later = Clock(NOW + timedelta(minutes=1))
    provider = Provider(later)
    ended = send(engine, waiting, provider, later)
    assert (ended.state, ended.canary_copies) == (CampaignState.FINISHED, None)
    assert min(when for _, when in provider.came) >= NOW + HOUR, "a later process waits for the same moment"


def test_a_person_may_let_the_rest_go_sooner_and_the_sender_that_waits_hears_it(engine):
    clock = Clock()
    campaign = freeze(engine, canary=THREE)
    clock.then(5, lambda: write(engine, lambda conn: canaries.release(conn, campaign.id)))
    ended = send(engine, campaign, Provider(clock), clock)
    assert ended.state is CampaignState.FINISHED
    assert clock.now() < NOW + timedelta(minutes=10)


def test_a_pause_by_hand_keeps_the_rest_back_and_time_goes_on(engine):
    clock = Clock()
    campaign = freeze(engine, canary=THREE)
    clock.then(30, lambda: write(engine, lambda conn: campaigns.pause(conn, campaign.id, "by hand")))
    assert send(engine, campaign, Provider(clock), clock).state is CampaignState.PAUSED
    write(engine, lambda conn: campaigns.resume(conn, campaign.id))
    provider = Provider(clock)
    assert send(engine, campaign, provider, clock).state is CampaignState.FINISHED
    assert min(when for _, when in provider.came) >= NOW + HOUR


def test_who_has_left_since_the_freeze_is_no_bad_answer(engine):
    clock = Clock()
    campaign = freeze(engine, canary=THREE)
    for number in range(1, PEOPLE):
        unsubscribe(engine, number)
    ended = send(engine, campaign, Provider(clock), clock)
    assert ended.state is CampaignState.FINISHED
    assert counts(engine, ended)[DeliveryState.SKIPPED] == PEOPLE - 1


# --- when it fails -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("outcome", "word"), [(Refused, "refused"), (Unknown, "unknown")])
def test_two_bad_answers_of_three_pause_it_at_once_and_resuming_sends_the_rest(engine, outcome, word):
    clock = Clock()
    provider = Provider(clock, every_other(2, outcome))
    campaign = freeze(engine, canary=THREE)
    paused = send(engine, campaign, provider, clock)
    assert paused.state is CampaignState.PAUSED
    assert paused.reason == (
        f"of the canary of 3, 1 accepted, 2 {word}: the rest is held back, and resuming sends it"
    )
    assert (len(provider.came), clock.now()) == (3, NOW)
    write(engine, lambda conn: campaigns.resume(conn, campaign.id))
    assert send(engine, campaign, provider, clock).state is CampaignState.FINISHED
    assert len(provider.came) == PEOPLE
    assert clock.now() < NOW + HOUR, "a person has decided, so nothing waits any more"


def test_one_dead_address_among_three_stops_nothing_however_small_the_share(engine):
    clock = Clock()
    ended = send(engine, freeze(engine, canary=THREE), Provider(clock, refusing(1)), clock, stop_refused=0.01)
    assert ended.state is CampaignState.FINISHED


def test_a_single_copy_that_is_refused_is_all_of_them(engine):
    clock = Clock()
    paused = send(engine, freeze(engine, canary=Canary(1, HOUR)), Provider(clock, refusing(1)), clock)
    assert paused.state is CampaignState.PAUSED


def test_a_server_that_asks_everybody_to_come_back_once_has_refused_nobody(engine):
    """Greylisting: each of them is taken at its second try, and by then its time is not over."""
    clock = Clock()
    grey = lambda one, tries: NotTaken(one.delivery, "450 4.2.0 greylisted") if tries == 1 else None  # noqa: E731
    provider = Provider(clock, grey)
    assert send(engine, freeze(engine, canary=THREE), provider, clock).state is CampaignState.FINISHED
    assert len({one for one, _ in provider.came[:6]}) == 3


def test_what_still_waits_for_a_try_when_the_time_has_come_was_not_accepted(engine):
    clock = Clock()
    campaign = freeze(engine, canary=THREE)
    later = lambda one, _tries: NotTaken(one.delivery, "450", not_before=NOW + 3 * HOUR)  # noqa: E731
    provider = Provider(clock, later)
    paused = send(engine, campaign, provider, clock)
    assert paused.reason.startswith("of the canary of 3, 3 not taken so far")
    assert clock.now() >= NOW + HOUR
    assert len(provider.came) == 3


def test_refusals_that_end_it_earlier_leave_nothing_to_be_decided_a_second_time(engine):
    """Ten refusals in a row are about us, whatever share of the canary they are: one pause, one resume."""
    clock = Clock()
    campaign = freeze(engine, canary=Canary(11, HOUR))
    provider = Provider(clock, refusing(10))
    paused = send(engine, campaign, provider, clock)
    assert (paused.state, paused.canary_copies) == (CampaignState.PAUSED, None)
    write(engine, lambda conn: campaigns.resume(conn, campaign.id))
    assert send(engine, campaign, provider, clock).state is CampaignState.FINISHED


# --- what the editors hear -----------------------------------------------------------------------------------------


def test_the_editors_hear_of_it_in_numbers_and_without_anybodys_name(engine):
    clock = Clock()
    campaign = freeze(engine, canary=THREE)
    send(engine, campaign, Provider(clock, refusing(2)), clock, editors=EDITORS)
    [(key, text)] = told(engine)
    assert key == f"paused:{campaign.id}:1"
    assert "1 accepted, 2 refused, 0 unknown, 13 waiting" in text
    assert "newsletter resume 2026-12 --list readers --kind live" in text
    assert "zoe" not in text


def test_a_second_pause_is_told_again_and_one_by_hand_is_not(engine):
    clock = Clock()
    campaign = freeze(engine, canary=THREE)
    send(engine, campaign, Provider(clock, refusing(2)), clock, editors=EDITORS)
    write(engine, lambda conn: campaigns.resume(conn, campaign.id))
    send(engine, campaign, Provider(clock, refusing(99)), clock, editors=EDITORS)
    assert [key for key, _ in told(engine)] == [f"paused:{campaign.id}:{number}" for number in (1, 2)]
    write(engine, lambda conn: campaigns.resume(conn, campaign.id))
    write(engine, lambda conn: campaigns.pause(conn, campaign.id, "by hand"))
    send(engine, campaign, Provider(clock), clock, editors=EDITORS)
    assert len(told(engine)) == 2


def test_a_campaign_that_ends_with_doubts_tells_how_many(engine):
    clock = Clock()
    campaign = freeze(engine)
    ended = send(engine, campaign, Provider(clock, every_other(2, Unknown)), clock, editors=EDITORS)
    assert ended.state is CampaignState.FINISHED
    [(key, text)] = told(engine)
    assert key == f"doubts:{campaign.id}:1"
    assert "nobody can say whether they arrived: 2." in text
    assert "newsletter resolve 2026-12 --list readers --kind live" in text


def test_a_second_sender_that_finds_it_finished_tells_nothing_more(engine):
    clock = Clock()
    campaign = freeze(engine)
    for answers in (every_other(2, Unknown), refusing(0)):
        send(engine, campaign, Provider(clock, answers), clock, editors=EDITORS)
    assert len(told(engine)) == 1


def test_one_that_ends_well_tells_nothing(engine):
    clock = Clock()
    send(engine, freeze(engine, canary=THREE), Provider(clock), clock, editors=EDITORS)
    assert told(engine) == []


def test_one_that_is_cancelled_with_doubts_tells_once(engine):
    clock = Clock()
    campaign = freeze(engine)
    cancel = lambda: write(engine, lambda conn: campaigns.cancel(conn, campaign.id, NOW))  # noqa: E731

    def answer(recipient, _tries):
        cancel()
        return Unknown(recipient.delivery, "no answer")

    for _ in range(2):
        send(engine, campaign, Provider(clock, answer), clock, editors=EDITORS)
    assert [key for key, _ in told(engine)] == [f"doubts:{campaign.id}:1"]


# --- kills ---------------------------------------------------------------------------------------------------------


def _dies(url, where):
    """A sending process, and where it meets its end."""
    engine, clock = open_engine(url), Clock()
    die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
    if where == "waiting":
        clock.then(30, die)
    else:
        setattr(canaries, where, die)
    [campaign] = read(engine, campaigns.every)
    send(engine, campaign, Provider(clock, refusing(2 if where == "fail" else 0)), clock, editors=EDITORS)


@pytest.mark.parametrize("where", ["wait", "waiting", "release", "fail"])
def test_a_kill_between_any_two_steps_costs_nothing(engine, database_url, where):
    """Before its wait is stored, in the middle of it, before the rest is released, and between verdict and pause."""
    campaign = freeze(engine, canary=THREE)
    process = multiprocessing.get_context("fork").Process(target=_dies, args=(database_url, where))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert counts(engine, campaign)[DeliveryState.PENDING] == PEOPLE - 3, "only the sample has left"
    clock = Clock(NOW + timedelta(minutes=1))
    provider = Provider(clock)
    ended = send(engine, campaign, provider, clock, editors=EDITORS)
    if where == "fail":
        assert (ended.state, len(provider.came)) == (CampaignState.PAUSED, 0)
        assert [key for key, _ in told(engine)] == [f"paused:{campaign.id}:1"]
    else:
        assert (ended.state, len(provider.came)) == (CampaignState.FINISHED, PEOPLE - 3)
        first = min(when for _, when in provider.came)
        assert NOW + HOUR <= first <= NOW + HOUR + timedelta(minutes=2), (
            "from the last answer, not from the restart"
        )


def test_two_senders_come_to_the_same_whoever_is_first(engine):
    """Each step is asked for twice, as two processes that have seen the same would."""
    campaign = freeze(engine, canary=THREE)
    twice = lambda act: [write(engine, act), write(engine, act)]  # noqa: E731
    assert twice(lambda conn: canaries.wait(conn, campaign.id, NOW + HOUR)) == [True, False]
    assert held(engine, campaign).until == NOW + HOUR
    assert twice(lambda conn: canaries.release(conn, campaign.id)) == [True, False]
    assert held(engine, campaign) is None
    assert not write(engine, lambda conn: canaries.fail(conn, campaign.id, "too late: it was released"))
    assert not write(engine, lambda conn: canaries.wait(conn, campaign.id, NOW))


def test_two_senders_at_once_send_one_canary_and_everybody_one_copy(tmp_path, postgresql_url):
    engine = open_store(tmp_path, people=200, url=postgresql_url)
    campaign = freeze(engine, canary=Canary(20, timedelta(seconds=1)))
    sample, clock = sample_of(engine, campaign, 20), SystemClock()
    providers = [Provider(clock) for _ in range(2)]
    ended = []

    def work(name, provider):
        with alive(engine, name):
            ended.append(send(engine, campaign, provider, clock, owner=name))

    threads = [
        threading.Thread(target=work, args=pair) for pair in zip(("me", "zombie"), providers, strict=True)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    engine.dispose()
    came = sorted((one for provider in providers for one in provider.came), key=lambda one: one[1])
    assert [one.state for one in ended] == [CampaignState.FINISHED] * 2
    assert len({one for one, _ in came}) == len(came) == 200
    assert {one for one, _ in came[:20]} == sample
    assert came[20][1] - came[19][1] >= timedelta(seconds=1)


def test_a_sender_that_has_seen_the_hold_takes_nothing_else_until_it_looks_again(engine):
    campaign = freeze(engine, canary=THREE)
    one, other = (Ledger(engine, campaign.id, name, retry=()) for name in ("me", "zombie"))
    mine, theirs = one.step([], 2, NOW), other.step([], 50, NOW)
    assert {row.id for row in (*mine, *theirs)} <= sample_of(engine, campaign)
    assert len(mine) == 2
    assert read(engine, lambda conn: ledger.due_rows(conn, campaign.id, NOW, most=99)) == 0


# --- whatever happens ----------------------------------------------------------------------------------------------


class Killed(Exception):
    """Stands for SIGKILL: nothing of the process does anything after it."""


class Mortal(Ledger):
    """Dies at one of its commits, just before it or just after it."""

    left = 0
    after = False
    dead = False

    def step(self, settled, want, now):
        self.left -= 1
        if self.left == 0 and not self.after:
            self._die()
        handed = super().step(settled, want, now)
        if self.left == 0:
            self._die()
        return handed

    def release(self):
        if self.dead:
            raise Killed
        super().release()

    def _die(self):
        self.dead = True
        raise Killed


ANSWERS = {
    "accepted": Accepted,
    "refused": lambda one: Refused(one, "550 no"),
    "unknown": lambda one: Unknown(one, "cut"),
    "later": lambda one: NotTaken(one, "450 later"),
    "given back": lambda one: NotTaken(one, "the connection was lost", charged=False),
}
answers = st.sampled_from(["accepted"] * 5 + list(ANSWERS))
deaths = st.lists(st.tuples(st.integers(1, 12), st.booleans()), max_size=4)


@pytest.fixture(scope="module")
def pattern():
    with tempfile.TemporaryDirectory() as folder:
        open_store(Path(folder), people=PEOPLE).dispose()
        yield Path(folder) / "newsletter.db"


@settings(max_examples=settings().max_examples // 3)  # each of them is a campaign from its freeze to its end
@given(
    says=st.lists(answers, min_size=30, max_size=30),
    deaths=deaths,
    size=st.integers(1, PEOPLE - 1),
    data=st.data(),
)
def test_nobody_twice_nobody_forgotten_and_no_more_than_the_canary_before_the_release(
    pattern, says, deaths, size, data
):
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(pattern, folder)
        engine = open_engine(f"sqlite:///{folder}/newsletter.db")
        try:
            _history(engine, list(says), deaths, size, data.draw)
        finally:
            engine.dispose()


def _history(engine, says, deaths, size, draw):
    campaign = freeze(engine, canary=Canary(size, HOUR))
    sample = sample_of(engine, campaign, size)
    clock, may_have_it = Clock(), Counter()

    def answer(recipient, _tries):
        if recipient.delivery not in sample:
            assert held(engine, campaign) is None
        outcome = ANSWERS[says.pop() if says else "accepted"](recipient.delivery)
        may_have_it[recipient.delivery] += isinstance(outcome, Accepted | Unknown)
        return outcome

    for number, death in enumerate([*deaths, *[None] * 20]):
        me = _enrol(engine, number, clock)
        recovery.recover(engine, me, clock.now())
        provider = Provider(clock, answer, window=draw(st.integers(1, 3)))
        try:
            ended = send(engine, campaign, provider, clock, owner=me, ledger=_mortal(death))
        except Killed:
            _bury(engine, me)
            continue
        if ended.state is CampaignState.FINISHED:
            break
        if ended.state is CampaignState.PAUSED:
            write(engine, lambda conn: campaigns.resume(conn, campaign.id))
        else:
            clock.moment += HOUR  # the next try is hours away: somebody starts it again
    found = counts(engine, campaign)
    assert ended.state is CampaignState.FINISHED
    assert sum(found.values()) == PEOPLE
    assert not set(found) & {DeliveryState.PENDING, DeliveryState.CLAIMED, DeliveryState.HANDED}
    assert max(may_have_it.values(), default=0) <= 1


def _mortal(death):
    def make(*args, **known):
        made = Mortal(*args, **known)
        made.left, made.after = death or (0, False)
        return made

    return make


def _enrol(engine, number, clock):
    name = f"sender {number}"
    row = {"id": name, "name": name, "way": "memory", "started_at": clock.now(), "seen_at": clock.now()}
    write(engine, lambda conn: conn.execute(insert(owner).values(row)))
    return name


def _bury(engine, name):
    gone = update(owner).where(owner.c.id == name).values(ended_at=NOW)
    write(engine, lambda conn: conn.execute(gone))

"""The desk between limits, lanes and a provider's moods. Time passes only when all lanes wait: see ``TestClock``."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta
from itertools import pairwise

import pytest
from sqlalchemy import func, update

from newsletter.desk import Progress, Stop
from newsletter.errors import TransportUnavailable
from newsletter.limits import Limits, Rate
from newsletter.model import (
    Accepted,
    CampaignState,
    DeliveryState,
    NotTaken,
    Refused,
    SubscriptionState,
    Unknown,
)
from newsletter.sending import run as send
from newsletter.store import campaigns, ledger
from newsletter.store.engine import read, write
from newsletter.store.schema import subscriber, subscription
from newsletter.transports.memory import MemoryTransport
from newsletter.transports.smtp import SmtpTransport
from newsletter.transports.smtp_session import SmtpSettings
from tests.support.ledgers import (
    NOW,
    RETRY,
    WIRE,
    TestClock,
    conduct,
    counts,
    freeze,
    open_store,
    reasons,
    rows,
)
from tests.support.smtp_server import HOST, After, Cut, ScriptedServer, Taken
from tests.test_limits import assert_obeyed

EACH_SECOND, EACH_DAY = Limits(Rate(1, 1)), Limits(Rate(1, 86400))
SLOW_GMAIL = Limits(domains={"gmail.com": Rate(1, 1)})
TICK = timedelta(seconds=1)
STUCK_AFTER = 60  # seconds of the real clock: a test that would hang fails instead


@pytest.fixture
def store(tmp_path):
    """Makes a list of so many people; those whose numbers are given are at gmail.com."""
    opened = []

    def fill(people, gmail=(), url=""):
        engine = open_store(tmp_path, people=people, url=url)
        opened.append(engine)
        moved = update(subscriber).where(subscriber.c.id.in_(gmail))
        write(engine, lambda conn: conn.execute(moved.values(address=move(subscriber.c.address))))
        return engine

    def move(address):
        return func.replace(address, "example.org", "gmail.com")

    yield fill
    for engine in opened:
        engine.dispose()


class Diary:
    """Who was handed over when, by the test's clock, and what is said to it."""

    def __init__(self, clock, say=lambda recipient, _number: Accepted(recipient.delivery)):
        self._clock, self._say = clock, say
        self.entries = []
        self.accepted = []

    def __call__(self, recipient, number):
        self.entries.append((self._clock.now(), recipient.address))
        said = self._say(recipient, number)
        if isinstance(said, Accepted):
            self.accepted.append(recipient.address)
        return said

    def times(self, domain=""):
        return [moment for moment, address in self.entries if address.endswith(domain)]

    def within(self, begin, end):
        """How many left from so many seconds after the start to so many."""
        return sum(NOW + begin * TICK <= moment < NOW + end * TICK for moment in self.times())


def smtp(server, lanes, kind=SmtpTransport):
    settings = SmtpSettings(HOST, server.port, security="none", timeout=STUCK_AFTER, lanes=lanes)
    return kind(settings, dot_timeout=STUCK_AFTER, sleep=lambda _seconds: None)


@pytest.fixture
def stopping():
    wish = Stop()
    alarm = threading.Timer(STUCK_AFTER, wish.set)
    alarm.start()
    yield wish
    alarm.cancel()


# --- limits ------------------------------------------------------------------------------------------------------


def test_many_lanes_together_obey_one_rate_and_use_it_up(store, database_url):
    engine, clock, rate = store(40, url=database_url), TestClock(), Rate(10, 1)
    diary = Diary(clock)
    how = conduct(clock, limits=Limits(rate))
    ended = send(engine, freeze(engine), MemoryTransport(diary, lanes=4), WIRE, how)
    assert (ended.state, counts(engine, ended)) == (CampaignState.FINISHED, {DeliveryState.ACCEPTED: 40})
    assert len(set(diary.accepted)) == len(diary.entries) == 40
    assert_obeyed(rate, [(moment, 1) for moment in diary.times()])
    assert diary.times()[-1] - NOW <= rate.takes(40)


def test_a_window_larger_than_the_burst_is_filled_as_far_as_the_rate_allows(store):
    engine, clock, rate = store(40), TestClock(), Rate(50, 1)
    diary = Diary(clock)
    transport = MemoryTransport(diary, lanes=2, window=15)
    ended = send(engine, freeze(engine), transport, WIRE, conduct(clock, limits=Limits(rate)))
    assert counts(engine, ended) == {DeliveryState.ACCEPTED: 40}
    assert_obeyed(rate, [(moment, 1) for moment in diary.times()])


def test_other_domains_go_on_while_one_waits_for_its_turn(store, database_url):
    engine, clock = store(24, gmail=range(1, 13), url=database_url), TestClock()
    diary = Diary(clock)
    ended = send(
        engine, freeze(engine), MemoryTransport(diary, lanes=4), WIRE, conduct(clock, limits=SLOW_GMAIL)
    )
    assert counts(engine, ended) == {DeliveryState.ACCEPTED: 24}
    assert set(Counter(diary.accepted).values()) == {1}
    assert set(diary.times("@example.org")) == {NOW}
    assert_obeyed(Rate(1, 1), [(moment, 1) for moment in diary.times("@gmail.com")])
    assert diary.times("@gmail.com")[-1] - NOW <= 12 * TICK


def test_people_behind_more_of_a_limited_domain_than_are_claimed_at_once_do_not_wait_for_them(store):
    many = ledger.CLAIM + 10
    engine, clock, stop = store(many + 5, gmail=range(1, many + 1)), TestClock(), Stop()
    diary = Diary(clock)
    clock.then(2, stop.set)
    how = conduct(clock, limits=Limits(domains={"gmail.com": Rate(1, 86400)}), stopping=stop)
    ended = send(engine, freeze(engine), MemoryTransport(diary, lanes=2), WIRE, how)
    assert counts(engine, ended) == {DeliveryState.ACCEPTED: 6, DeliveryState.PENDING: many - 1}
    assert len(diary.times("@example.org")) == 5


@pytest.mark.parametrize(
    ("rest", "state", "left"),
    [
        (
            lambda conn, one: campaigns.pause(conn, one, "by hand"),
            CampaignState.PAUSED,
            DeliveryState.PENDING,
        ),
        (lambda conn, one: campaigns.cancel(conn, one, NOW), CampaignState.CANCELLED, DeliveryState.SKIPPED),
    ],
)
def test_a_campaign_that_comes_to_rest_ends_the_wait_for_a_limit(store, rest, state, left):
    engine, clock = store(8), TestClock()
    campaign = freeze(engine)
    clock.then(2, lambda: write(engine, lambda conn: rest(conn, campaign.id)))
    diary = Diary(clock)
    ended = send(engine, campaign, MemoryTransport(diary, lanes=4), WIRE, conduct(clock, limits=EACH_DAY))
    assert (ended.state, len(clock.waited)) == (state, 2)
    assert counts(engine, ended) == {DeliveryState.ACCEPTED: 1, left: 7}
    assert len(diary.entries) == 1


def test_a_wish_to_stop_ends_the_wait_for_a_limit(store):
    engine, clock, stop = store(8), TestClock(), Stop()
    clock.then(2, stop.set)
    how = conduct(clock, limits=EACH_DAY, stopping=stop)
    ended = send(engine, freeze(engine), MemoryTransport(lanes=4), WIRE, how)
    assert (ended.state, len(clock.waited)) == (CampaignState.RUNNING, 2)
    assert counts(engine, ended) == {DeliveryState.ACCEPTED: 1, DeliveryState.PENDING: 7}


def test_no_body_waits_for_its_dot_until_the_limit_opens(store, stopping):
    engine, books = store(6), []

    class Watching(TestClock):
        def wait(self, seconds):
            books.append((server.commands.count("DATA"), len(server.messages), accepted()))
            super().wait(seconds)

    def accepted():
        return counts(engine, campaign).get(DeliveryState.ACCEPTED, 0)

    campaign = freeze(engine)
    with ScriptedServer(pipelining=True) as server:
        how = conduct(Watching(), limits=EACH_SECOND, stopping=stopping)
        ended = send(engine, campaign, smtp(server, lanes=2), WIRE, how)
    assert (ended.state, counts(engine, ended)) == (CampaignState.FINISHED, {DeliveryState.ACCEPTED: 6})
    assert {begun for begun, _, _ in books} == {1, 2, 3, 4, 5}
    assert all(begun == taken == stored for begun, taken, stored in books)
    assert sorted(arrived.recipient for arrived in server.messages) == sorted(rows(engine, ended))


# --- a provider in trouble ---------------------------------------------------------------------------------------


def down(recipient, _number):
    raise TransportUnavailable("connection refused")


def test_lanes_that_wait_for_a_limit_do_not_each_try_a_provider_that_is_down(store):
    engine, clock = store(10), TestClock()
    diary = Diary(clock, down)
    transport = MemoryTransport(diary, lanes=5)
    ended = send(engine, freeze(engine), transport, WIRE, conduct(clock, limits=EACH_SECOND))
    assert (ended.state, ended.reason) == (CampaignState.PAUSED, "connection refused")
    assert (len(diary.entries), clock.waited) == (1, [])
    assert counts(engine, ended) == {DeliveryState.PENDING: 10}


def test_each_try_of_the_schedule_costs_a_limit_one_copy(store):
    engine, clock, good = store(10), TestClock(), 3

    def answer(recipient, number):
        return Accepted(recipient.delivery) if number <= good else down(recipient, number)

    diary = Diary(clock, answer)
    transport = MemoryTransport(diary, lanes=5)
    ended = send(engine, freeze(engine), transport, WIRE, conduct(clock, limits=EACH_SECOND))
    assert (ended.state, counts(engine, ended)[DeliveryState.ACCEPTED]) == (CampaignState.PAUSED, good)
    assert len(diary.entries) == good + 1 + len(RETRY)


def test_a_provider_that_takes_copies_and_answers_none_is_left_after_two_doubts(store, stopping):
    engine = store(20)
    with ScriptedServer(usual={"dot": Taken(Cut)}, pipelining=True) as server:
        ended = send(engine, freeze(engine), smtp(server, lanes=1), WIRE, conduct(stopping=stopping))
    assert (ended.state, ended.reason[:31]) == (CampaignState.PAUSED, "the provider gave no answer to ")
    assert counts(engine, ended) == {DeliveryState.UNKNOWN: 2, DeliveryState.PENDING: 18}
    assert len(server.messages) == 2


def test_a_relay_that_welcomes_two_of_five_connections_gets_two_and_as_fast_as_before(store, stopping):
    engine, clock, notices, turned_away = store(30), TestClock(), [], []
    alone = threading.Event()

    class Counting(SmtpTransport):
        def run(self, *args):
            try:
                super().run(*args)
            except TransportUnavailable:
                turned_away.append(clock.now())
                if len(turned_away) == 3:
                    alone.set()
                raise

    first = (After(alone), "250 2.1.0 Ok")  # until the others have been turned away
    script = {
        "connect": ["421 4.7.0 too many connections"] * 3,
        "MAIL": [first] * 2,
        "RCPT": ["450 later"] * 6,
    }
    with ScriptedServer(script) as server:
        how = conduct(clock, notice=notices.append, stopping=stopping)
        ended = send(engine, freeze(engine), smtp(server, lanes=5, kind=Counting), WIRE, how)
    assert (ended.state, counts(engine, ended)) == (CampaignState.FINISHED, {DeliveryState.ACCEPTED: 30})
    assert len({arrived.recipient for arrived in server.messages}) == len(server.messages) == 30
    assert "the server wants fewer connections: 2 from now on" in notices
    assert not [notice for notice in notices if "sending at most" in notice]
    assert turned_away == [NOW] * 3
    assert clock.now() - NOW <= 2 * RETRY[0]


def test_a_lane_that_was_lost_is_replaced_while_the_others_get_on(store):
    engine, clock, runs = store(60), TestClock(), []

    class Blip(MemoryTransport):
        def run(self, wire, copies, settle):
            runs.append(clock.now())
            if len(runs) == 2:
                raise TransportUnavailable("connection refused")
            super().run(wire, copies, settle)

    def answer(recipient, _number):
        clock.moment += timedelta(seconds=0.1)
        return Accepted(recipient.delivery)

    ended = send(engine, freeze(engine), Blip(answer, lanes=2), WIRE, conduct(clock))
    assert counts(engine, ended) == {DeliveryState.ACCEPTED: 60}
    assert (len(runs), clock.waited) == (3, [])


def crowded(recipient):
    return NotTaken(recipient.delivery, "421 4.7.28 too much mail", crowded=True)


def test_a_provider_that_has_had_enough_gets_half_and_then_step_by_step_more(store):
    engine, clock, notices, rate = store(400), TestClock(), [], Rate(20, 1)

    def answer(recipient, number):
        return crowded(recipient) if 40 < number <= 50 else Accepted(recipient.delivery)

    diary = Diary(clock, answer)
    how = conduct(clock, limits=Limits(rate), notice=notices.append)
    ended = send(engine, freeze(engine), MemoryTransport(diary, lanes=4), WIRE, how)
    assert (ended.state, counts(engine, ended)) == (CampaignState.FINISHED, {DeliveryState.ACCEPTED: 400})
    [notice] = [notice for notice in notices if "asked to slow down" in notice]
    assert 9 <= float(notice.removeprefix("sending at most ").partition("/s")[0]) <= 10
    assert diary.within(0, 2) >= 38
    assert diary.within(3, 5) <= 24
    assert diary.within(3, 5) < diary.within(7, 9) < diary.within(11, 13)
    assert diary.within(20, 22) >= 38


def test_a_stray_word_of_too_much_mail_changes_nothing(store):
    engine, clock, notices, rate = store(150), TestClock(), [], Rate(20, 1)

    def answer(recipient, number):
        return crowded(recipient) if number % 50 == 0 else Accepted(recipient.delivery)

    diary = Diary(clock, answer)
    how = conduct(clock, limits=Limits(rate), notice=notices.append)
    ended = send(engine, freeze(engine), MemoryTransport(diary, lanes=4), WIRE, how)
    assert counts(engine, ended) == {DeliveryState.ACCEPTED: 150}
    assert not [notice for notice in notices if "slow down" in notice]
    assert diary.times()[149] - NOW <= rate.takes(150)


# --- many refusals -----------------------------------------------------------------------------------------------


def refusing(each):
    def answer(recipient, number):
        if number % each == 0:
            return Refused(recipient.delivery, "550 5.1.1 no such user")
        return Accepted(recipient.delivery)

    return answer


def sent_with(engine, campaign, each, share):
    return send(engine, campaign, MemoryTransport(refusing(each)), WIRE, conduct(stop_refused=share))


def test_more_refusals_than_the_publisher_allows_pause_the_campaign_with_the_numbers(store):
    engine = store(200)
    ended = sent_with(engine, freeze(engine), each=4, share=0.05)
    assert ended.state is CampaignState.PAUSED
    assert ended.reason.startswith(
        "10 copies were refused and 30 accepted, which is more than stop_refused allows;"
        " the last with: 550 5.1.1 no such user"
    )
    assert counts(engine, ended)[DeliveryState.PENDING] == 160


@pytest.mark.parametrize(
    ("people", "each", "share"),
    [
        pytest.param(300, 25, 0.05, id="fewer than that share"),
        pytest.param(19, 2, 0.05, id="a list so small that nine say nothing"),
        pytest.param(60, 2, None, id="no such setting"),
    ],
)
def test_refusals_that_are_allowed_stop_nothing(store, people, each, share):
    engine = store(people)
    ended = sent_with(engine, freeze(engine), each, share)
    assert ended.state is CampaignState.FINISHED
    assert counts(engine, ended)[DeliveryState.REFUSED] == people // each


def test_after_a_person_has_looked_the_refusals_count_from_zero(store):
    engine = store(200)
    ended = sent_with(engine, freeze(engine), each=4, share=0.05)
    write(engine, lambda conn: campaigns.resume(conn, ended.id))
    again = sent_with(engine, read(engine, lambda conn: campaigns.get(conn, ended.id)), each=4, share=0.05)
    assert again.reason.startswith("10 copies were refused and 30 accepted")
    assert counts(engine, again)[DeliveryState.REFUSED] == 20


# --- what is told, and who has gone ------------------------------------------------------------------------------


def test_what_is_told_adds_up_and_is_told_at_the_end_of_each_round(store):
    engine, told = store(30), []

    def answer(recipient, number):
        if number in {3, 4, 5}:
            return NotTaken(recipient.delivery, "450 later")
        if number in {10, 20}:
            return Refused(recipient.delivery, "550 no such user")
        return Unknown(recipient.delivery, "no answer") if number == 15 else Accepted(recipient.delivery)

    transport = MemoryTransport(answer, lanes=3)
    ended = send(engine, freeze(engine), transport, WIRE, conduct(told=told.append))
    assert told[0] == Progress(accepted=24, refused=2, unknown=1, again=3)
    assert told[-1] == Progress(accepted=27, refused=2, unknown=1, again=3)
    stored = counts(engine, ended)
    assert (stored[DeliveryState.ACCEPTED], stored[DeliveryState.REFUSED], stored[DeliveryState.UNKNOWN]) == (
        told[-1].accepted,
        told[-1].refused,
        told[-1].unknown,
    )


def test_while_a_limit_is_waited_for_it_is_told_ten_times_a_second_at_most(store):
    engine, clock, told = store(30), TestClock(), []
    how = conduct(
        clock, limits=Limits(Rate(50, 1)), told=lambda progress: told.append((clock.now(), progress))
    )
    send(engine, freeze(engine), MemoryTransport(lanes=2), WIRE, how)
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(told[:-1])]
    assert gaps
    assert min(gaps) >= timedelta(seconds=0.1)
    assert told[-1][1] == Progress(accepted=30)


@pytest.mark.parametrize("gone", [20, 3 * ledger.LOOK])
@pytest.mark.parametrize("limit", [Limits(), Limits(Rate(1000, 1))], ids=["unlimited", "limited"])
def test_the_first_who_may_still_get_a_copy_gets_it_behind_many_who_have_gone(store, gone, limit):
    engine = store(gone + 1)
    campaign = freeze(engine)
    leave = update(subscription).where(subscription.c.id <= gone)
    write(engine, lambda conn: conn.execute(leave.values(state=SubscriptionState.UNSUBSCRIBED)))
    transport = MemoryTransport(lanes=2)
    ended = send(engine, campaign, transport, WIRE, conduct(limits=limit))
    assert counts(engine, ended) == {DeliveryState.ACCEPTED: 1, DeliveryState.SKIPPED: gone}
    assert (rows(engine, ended)[f"p{gone + 1}@example.org"], len(transport.messages)) == ("accepted", 1)
    assert Counter(reasons(engine, ended).values()) == {"": 1, "unsubscribed": gone}

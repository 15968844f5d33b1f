"""The desk and its lanes, over the transport that ships for tests."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from newsletter import recovery, sending
from newsletter.errors import Refused, TransportRejected, TransportUnavailable
from newsletter.model import (
    Accepted,
    CampaignState,
    DeliveryState,
    Kind,
    NotTaken,
    Unknown,
)
from newsletter.model import Refused as RefusedCopy
from newsletter.store import campaigns, ledger
from newsletter.store.engine import write
from newsletter.store.ledger import Ledger
from newsletter.transports.memory import MemoryTransport
from tests.support.ledgers import (
    NOW,
    RETRY,
    TARGET,
    WIRE,
    TestClock,
    alive,
    bury,
    conduct,
    counts,
    freeze,
    key,
    open_store,
    reasons,
    rows,
    unsubscribe,
)


@pytest.fixture
def engine(tmp_path, database_url):
    engine = open_store(tmp_path, people=7, url=database_url)
    yield engine
    engine.dispose()


def run(engine, campaign, transport, how=None):
    return sending.run(engine, campaign, transport, WIRE, how or conduct())


def test_everyone_gets_one_copy_and_the_campaign_is_finished(engine):
    transport = MemoryTransport()
    ended = run(engine, freeze(engine), transport)
    assert ended.state is CampaignState.FINISHED
    assert counts(engine, ended) == {DeliveryState.ACCEPTED: 7}
    assert len(set(transport.messages)) == 7


def test_many_lanes_share_the_work_and_nobody_gets_two(engine):
    transport = MemoryTransport(lanes=4, window=2)
    run(engine, freeze(engine), transport)
    assert len(set(transport.messages)) == len(transport.messages) == 7


def test_a_finished_campaign_is_found_and_reaches_nobody_again(engine):
    campaign = run(engine, freeze(engine), MemoryTransport())
    assert sending.begun(engine, "2026-12", "readers", Kind.LIVE) == campaign
    again = MemoryTransport()
    run(engine, campaign, again)
    assert again.messages == []


def test_a_temporary_refusal_is_tried_again_after_the_configured_wait(engine):
    def once(recipient, number):
        return NotTaken(recipient.delivery, "450 later") if number == 1 else Accepted(recipient.delivery)

    clock = TestClock()
    ended = run(engine, freeze(engine), MemoryTransport(answer=once), conduct(clock))
    assert ended.state is CampaignState.FINISHED
    assert clock.now() - NOW == timedelta(seconds=15)


def test_a_retry_too_far_away_ends_the_process_and_keeps_the_row(engine):
    def later(recipient, _number):
        return NotTaken(recipient.delivery, "429", not_before=NOW + timedelta(hours=1))

    ended = run(engine, freeze(engine), MemoryTransport(answer=later))
    assert ended.state is CampaignState.RUNNING
    assert counts(engine, ended) == {DeliveryState.PENDING: 7}


def test_a_retry_that_is_due_soon_is_waited_for_even_by_a_later_process(engine):
    def later(recipient, _number):
        return NotTaken(recipient.delivery, "429", not_before=NOW + timedelta(minutes=20))

    campaign = run(engine, freeze(engine), MemoryTransport(answer=later))
    clock = TestClock(NOW + timedelta(minutes=10))
    assert run(engine, campaign, MemoryTransport(), conduct(clock)).state is CampaignState.FINISHED
    assert clock.now() == NOW + timedelta(minutes=20)


def test_a_provider_that_rejects_us_pauses_the_campaign_and_charges_nobody(engine):
    def rejected(_recipient, _number):
        raise TransportRejected("535 bad credentials")

    ended = run(engine, freeze(engine), MemoryTransport(answer=rejected))
    assert (ended.state, ended.reason) == (CampaignState.PAUSED, "535 bad credentials")
    with pytest.raises(Refused, match="is paused: 535 bad credentials"):
        sending.begun(engine, "2026-12", "readers", Kind.LIVE)


def test_a_provider_that_was_never_reached_pauses_the_campaign_at_once(engine):
    def unreachable(_recipient, _number):
        raise TransportUnavailable("connection refused")

    clock = TestClock()
    ended = run(engine, freeze(engine), MemoryTransport(answer=unreachable), conduct(clock))
    assert (ended.state, clock.waited) == (CampaignState.PAUSED, [])


def test_an_outage_after_a_good_start_is_waited_out(engine):
    def flaky(recipient, number):
        if number == 3:
            raise TransportUnavailable("connection refused")
        return Accepted(recipient.delivery)

    clock = TestClock()
    ended = run(engine, freeze(engine), MemoryTransport(answer=flaky), conduct(clock))
    assert ended.state is CampaignState.FINISHED
    assert clock.now() - NOW >= timedelta(seconds=15)


@pytest.mark.parametrize(("accepted", "refused"), [(0, 10), (5, 50)])
def test_a_provider_that_refuses_one_after_the_other_does_not_burn_the_list(
    tmp_path, database_url, accepted, refused
):
    engine = open_store(tmp_path, people=100, url=database_url)

    def answer(recipient, number):
        if number <= accepted:
            return Accepted(recipient.delivery)
        return RefusedCopy(recipient.delivery, "550 5.7.1 relay access denied")

    ended = run(engine, freeze(engine), MemoryTransport(answer=answer))
    assert ended.state is CampaignState.PAUSED
    assert f"refused {refused} copies in a row, the last with: 550 5.7.1 relay access denied" in ended.reason
    assert counts(engine, ended)[DeliveryState.REFUSED] == refused
    engine.dispose()


def test_a_few_bad_addresses_among_good_ones_stop_nothing(engine):
    def answer(recipient, number):
        return Accepted(recipient.delivery) if number % 3 == 0 else RefusedCopy(recipient.delivery, "550 no")

    assert run(engine, freeze(engine), MemoryTransport(answer=answer)).state is CampaignState.FINISHED


def test_a_provider_that_says_when_is_believed_and_that_is_no_failure(engine):
    clock, waits = TestClock(), 4  # more often than RETRY has entries

    def answer(recipient, number):
        if number % 2 and len(clock.waited) < waits * 60:
            return TransportUnavailable("slow down", until=clock.now() + timedelta(minutes=1))
        return Accepted(recipient.delivery)

    ended = run(engine, freeze(engine), MemoryTransport(answer=answer), conduct(clock))
    assert (ended.state, ended.reason) == (CampaignState.FINISHED, "")
    assert clock.now() >= NOW + timedelta(minutes=waits)


def test_a_provider_that_asks_for_more_patience_than_we_have_pauses_the_campaign(engine):
    later = NOW + timedelta(hours=1)
    transport = MemoryTransport(answer=lambda _one, _number: TransportUnavailable("slow down", until=later))
    assert run(engine, freeze(engine), transport).state is CampaignState.PAUSED


def test_beside_a_sender_that_has_the_rest_in_hand_no_connection_is_opened(tmp_path, postgresql_url):
    engine = open_store(tmp_path, people=3, url=postgresql_url)
    campaign, clock = freeze(engine), TestClock()
    theirs = Ledger(engine, campaign.id, "zombie", retry=RETRY)
    with alive(engine, "zombie"):
        window = theirs.step([], 3, NOW)
        begun = []

        class Counting(MemoryTransport):
            def run(self, *args):
                begun.append(1)
                super().run(*args)

        clock.then(5, lambda: theirs.step([Accepted(row.id) for row in window], 0, NOW))
        ended = run(engine, campaign, Counting(lanes=3), conduct(clock))
    assert (ended.state, begun) == (CampaignState.FINISHED, [])
    engine.dispose()


def test_a_process_that_was_taken_for_dead_hands_over_no_more_and_says_so(engine):
    campaign = freeze(engine)

    def answer(recipient, number):
        if number == 2:
            bury(engine, "me")
            write(engine, lambda conn: ledger.orphaned(conn, NOW))
        return Accepted(recipient.delivery)

    with pytest.raises(Refused, match="another process has taken this one for dead"):
        run(engine, campaign, MemoryTransport(answer=answer))
    assert counts(engine, campaign) == {DeliveryState.ACCEPTED: 2, DeliveryState.PENDING: 5}


def test_a_provider_that_stops_answering_costs_a_few_doubts_and_not_everyones(tmp_path):
    engine, lanes, window = open_store(tmp_path, people=200), 4, 3

    def mute_after_first(recipient, number):
        return Accepted(recipient.delivery) if number == 1 else Unknown(recipient.delivery, "503")

    transport = MemoryTransport(answer=mute_after_first, lanes=lanes, window=window)
    ended = run(engine, freeze(engine), transport)
    assert (ended.state, ended.reason[:31]) == (CampaignState.PAUSED, "the provider gave no answer to ")
    first_round, tries = (lanes + 2) * window, 2 * window * len(RETRY)
    assert counts(engine, ended)[DeliveryState.UNKNOWN] <= first_round + tries
    engine.dispose()


def test_what_a_transport_leaves_unsettled_is_unknown_and_not_repeated(engine):
    class Forgetful:
        name, lanes, window = "forgetful", 1, 2

        def run(self, _wire, copies, settle):
            settle([Accepted(next(copies)[0].delivery)])

    ended = run(engine, freeze(engine), Forgetful())
    assert counts(engine, ended)[DeliveryState.UNKNOWN] >= 1
    assert DeliveryState.PENDING not in counts(engine, ended)


def test_a_bug_in_a_transport_is_not_hidden(engine):
    def broken(_recipient, _number):
        raise ZeroDivisionError("boom p1@example.org \x1b[2J")

    campaign = freeze(engine)
    with pytest.raises(ZeroDivisionError):
        run(engine, campaign, MemoryTransport(answer=broken))
    kept = " ".join(reasons(engine, campaign).values())
    assert "boom" in kept
    assert not {"@", "\x1b"} & set(kept)
    assert counts(engine, campaign) == {DeliveryState.UNKNOWN: 1, DeliveryState.PENDING: 6}


def test_being_asked_to_stop_settles_what_is_in_flight_and_hands_over_no_more(engine):
    stopping = threading.Event()

    def stop_at_third(recipient, number):
        if number == 3:
            stopping.set()
        return Accepted(recipient.delivery)

    ended = run(engine, freeze(engine), MemoryTransport(answer=stop_at_third), conduct(stopping=stopping))
    assert ended.state is CampaignState.RUNNING
    assert counts(engine, ended) == {DeliveryState.ACCEPTED: 3, DeliveryState.PENDING: 4}
    assert run(engine, ended, MemoryTransport()).state is CampaignState.FINISHED


def test_pausing_from_elsewhere_stops_the_next_hand_over(engine):
    campaign = freeze(engine)

    def pause_at_second(recipient, number):
        if number == 2:
            write(engine, lambda conn: campaigns.pause(conn, campaign.id, "by hand"))
        return Accepted(recipient.delivery)

    ended = run(engine, campaign, MemoryTransport(answer=pause_at_second))
    assert (ended.state, counts(engine, ended)[DeliveryState.ACCEPTED]) == (CampaignState.PAUSED, 2)


def test_someone_who_leaves_in_the_middle_gets_no_copy(engine):
    def leave(recipient, number):
        if number == 1:
            unsubscribe(engine, 5)
        return Accepted(recipient.delivery)

    ended = run(engine, freeze(engine), MemoryTransport(answer=leave))
    assert rows(engine, ended)["p5@example.org"] is DeliveryState.SKIPPED
    assert reasons(engine, ended)["p5@example.org"] == "unsubscribed"


def test_an_allowlist_reaches_nobody_else(engine):
    only = frozenset({key(2)})
    transport = MemoryTransport()
    run(engine, freeze(engine, replace(TARGET, kind=Kind.REHEARSAL), only), transport, conduct(only=only))
    assert len(transport.messages) == 1


def test_message_and_links_are_the_persons_own(engine):
    transport = MemoryTransport()
    run(engine, freeze(engine), transport)
    assert all(sum(f"/u/{n}".encode() in message for n in range(1, 8)) == 1 for message in transport.messages)


def test_recovery_after_a_finished_run_changes_nothing(engine):
    run(engine, freeze(engine), MemoryTransport())
    assert recovery.recover(engine, "me", NOW) == recovery.Recovered(0, 0)


def test_an_answer_that_never_came_is_unknown_and_the_campaign_still_ends(engine):
    def mute(recipient, number):
        return Unknown(recipient.delivery, "no answer") if number == 4 else Accepted(recipient.delivery)

    ended = run(engine, freeze(engine), MemoryTransport(answer=mute))
    assert ended.state is CampaignState.FINISHED
    assert counts(engine, ended) == {DeliveryState.ACCEPTED: 6, DeliveryState.UNKNOWN: 1}

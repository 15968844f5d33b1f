"""Freezing, the desk and its lanes, over the transport that ships for tests."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import insert, update

from newsletter import freezing, recovery, sending
from newsletter.errors import Refused, TransportRejected, TransportUnavailable
from newsletter.model import (
    Accepted,
    CampaignState,
    DeliveryState,
    Kind,
    NotTaken,
    SubscriptionState,
    Unknown,
)
from newsletter.store import campaigns
from newsletter.store.engine import read, write
from newsletter.store.schema import list_, subscriber, subscription
from newsletter.transports.memory import MemoryTransport
from tests.support.ledgers import (
    EMAIL,
    MESSAGE,
    NOW,
    RETRY,
    TARGET,
    WIRE,
    TestClock,
    conduct,
    counts,
    freeze,
    key,
    open_store,
    reasons,
    rows,
    suppress,
    total,
    unsubscribe,
)


@pytest.fixture
def engine(tmp_path):
    engine = open_store(tmp_path, people=7)
    yield engine
    engine.dispose()


def run(engine, campaign, transport, how=None):
    return sending.run(engine, campaign, transport, WIRE, how or conduct())


# --- freezing


def test_the_plan_counts_who_gets_it_and_why_others_do_not(engine):
    unsubscribe(engine, 1)
    suppress(engine, 2)
    write(
        engine,
        lambda conn: conn.execute(update(subscriber).where(subscriber.c.id == 3).values(address_key=None)),
    )
    paused = update(subscription).where(subscription.c.id == 4).values(state=SubscriptionState.PAUSED)
    write(engine, lambda conn: conn.execute(paused))
    planned = freezing.plan(engine, TARGET)
    assert planned.recipients == 3
    assert planned.left_out == {"unsubscribed": 1, "suppressed": 1, "erased": 1, "paused": 1}


def test_a_frozen_campaign_has_one_row_per_eligible_person_and_is_running(engine):
    unsubscribe(engine, 7)
    campaign = freeze(engine)
    assert campaign.state is CampaignState.RUNNING
    assert campaign.started_at == NOW
    assert counts(engine, campaign) == {DeliveryState.PENDING: 6}


def test_the_email_of_a_campaign_is_read_back_byte_for_byte(engine):
    campaign = freeze(engine)
    email, message = read(engine, lambda conn: campaigns.load_email(conn, campaign.id))
    assert (email, email.digest) == (EMAIL, campaign.digest)
    assert type(MESSAGE).from_dict(message) == MESSAGE


def test_a_person_on_two_lists_gets_an_issue_once(engine):
    run(engine, freeze(engine), MemoryTransport())
    write(engine, lambda conn: conn.execute(insert(list_).values(id=2, name="carers", created_at=NOW)))
    standing = {"subscriber_id": 1, "list_id": 2, "state": SubscriptionState.ACTIVE, "since": NOW}
    write(engine, lambda conn: conn.execute(insert(subscription).values(id=20, **standing)))
    planned = freezing.plan(engine, replace(TARGET, list="carers"))
    assert (planned.recipients, planned.left_out) == (0, {"already in a campaign of this issue": 1})


def test_a_period_is_used_once_even_by_another_issue(engine):
    run(engine, freeze(engine), MemoryTransport())
    with pytest.raises(
        Refused, match="the period 2026-12 of the list readers was used by 2026-12 to readers"
    ):
        freezing.plan(engine, replace(TARGET, issue="another"))


@pytest.mark.parametrize("rows", [0, 3, 7])
def test_what_a_killed_freeze_left_counts_for_nothing_and_is_taken_away(engine, rows):
    make = {"transport": "memory", "now": NOW}
    made = write(engine, lambda conn: campaigns.create(conn, TARGET, EMAIL, MESSAGE.to_dict(), **make))
    if rows:
        write(engine, lambda conn: campaigns.add_recipients(conn, made, TARGET, None, after=0, limit=rows))
    assert sending.begun(engine, "2026-12", "readers", Kind.LIVE) is None
    assert freezing.plan(engine, TARGET).recipients == 7
    recovery.recover(engine, NOW)
    assert total(engine) == 0
    assert counts(engine, freeze(engine)) == {DeliveryState.PENDING: 7}


def test_more_people_than_were_confirmed_are_never_frozen(engine):
    planned = replace(freezing.plan(engine, TARGET), recipients=6)
    with pytest.raises(Refused, match="more people joined the list readers than the 6 you confirmed"):
        freezing.freeze(engine, planned, EMAIL, MESSAGE, transport="memory", now=NOW)
    assert total(engine) == 0
    assert freezing.plan(engine, TARGET).recipients == 7


def test_rehearsals_of_two_issues_of_one_period_do_not_stop_each_other(engine):
    for issue in ("2026-12", "2026-12-b", "2026-12"):
        planned = freezing.plan(engine, replace(TARGET, issue=issue, kind=Kind.REHEARSAL))
        assert planned.recipients == 7
        freezing.freeze(engine, planned, EMAIL, MESSAGE, transport="memory", now=NOW)


def test_a_rehearsal_uses_up_neither_period_nor_recipients(engine):
    rehearsal = replace(TARGET, kind=Kind.REHEARSAL)
    run(engine, freeze(engine, rehearsal), MemoryTransport())
    live = MemoryTransport()
    run(engine, freeze(engine), live)
    assert len(live.messages) == 7


# --- running


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
    assert recovery.recover(engine, NOW) == recovery.Recovered(0, 0)


def test_an_answer_that_never_came_is_unknown_and_the_campaign_still_ends(engine):
    def mute(recipient, number):
        return Unknown(recipient.delivery, "no answer") if number == 4 else Accepted(recipient.delivery)

    ended = run(engine, freeze(engine), MemoryTransport(answer=mute))
    assert ended.state is CampaignState.FINISHED
    assert counts(engine, ended) == {DeliveryState.ACCEPTED: 6, DeliveryState.UNKNOWN: 1}

"""The plan and the freeze: whom a campaign reaches, and what is left of one that was killed on the way."""

from __future__ import annotations

import random
import secrets
import signal
from dataclasses import replace
from functools import partial
from shutil import copyfile

import pytest
from sqlalchemy import insert, select, update

from newsletter import freezing, recovery, sending
from newsletter.errors import Refused
from newsletter.model import CampaignState, DeliveryState, Kind, SubscriptionState
from newsletter.store import campaigns, preparing
from newsletter.store.engine import open_engine, read, write
from newsletter.store.schema import delivery, list_, subscriber, subscription
from newsletter.transports.memory import MemoryTransport
from tests.full.freezing import after_kills, beside_another_writer
from tests.support.freezes import CONTENT, cut_off_freeze, enrol, freezing_process
from tests.support.ledgers import (
    EMAIL,
    MESSAGE,
    NOW,
    TARGET,
    WIRE,
    bury,
    conduct,
    counts,
    freeze,
    open_store,
    rows,
    suppress,
    total,
    unsubscribe,
)
from tests.support.publisher import crowd, publisher

FILE = "newsletter.db"
PEOPLE = 7
CROWD = 250
MANY = 2000
MILLION = 1_000_000


@pytest.fixture
def engine(tmp_path, database_url):
    engine = open_store(tmp_path, people=PEOPLE, url=database_url)
    yield engine
    engine.dispose()


def run(engine, campaign, transport):
    return sending.run(engine, campaign, transport, WIRE, conduct())


def ids(engine):
    """Delivery ids by person."""
    query = select(delivery.c.subscriber_id, delivery.c.id)
    return read(engine, lambda conn: {row.subscriber_id: row.id for row in conn.execute(query)})


def in_state(engine, state):
    return read(engine, lambda conn: campaigns.in_state(conn, state))


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
    [email], message = read(engine, lambda conn: campaigns.load_editions(conn, campaign.id))
    assert (email, email.digest) == (EMAIL, campaign.digest)
    assert type(MESSAGE).from_dict(message) == MESSAGE


def test_a_person_on_two_lists_gets_an_issue_once(engine):
    run(engine, freeze(engine), MemoryTransport())
    write(engine, lambda conn: conn.execute(insert(list_).values(id=2, name="carers", created_at=NOW)))
    standing = {"subscriber_id": 1, "list_id": 2, "state": SubscriptionState.ACTIVE, "since": NOW}
    write(engine, lambda conn: conn.execute(insert(subscription).values(id=20, **standing)))
    planned = freezing.plan(engine, replace(TARGET, list="carers"))
    assert (planned.recipients, planned.left_out) == (0, {"already in a campaign of this issue": 1})
    campaign = freeze(engine, replace(TARGET, list="carers"))
    assert counts(engine, campaign) == {}
    look = partial(preparing.changes, target=planned.target, only=None, after=0, limit=10)
    assert read(engine, partial(look, campaign_id=campaign.id)) == []


def test_a_period_is_used_once_even_by_another_issue(engine):
    run(engine, freeze(engine), MemoryTransport())
    with pytest.raises(
        Refused, match="the period 2026-12 of the list readers was used by 2026-12 to readers"
    ):
        freezing.plan(engine, replace(TARGET, issue="another"))


def test_rehearsals_of_two_issues_of_one_period_do_not_stop_each_other(engine):
    for issue in ("2026-12", "2026-12-b", "2026-12"):
        planned = freezing.plan(engine, replace(TARGET, issue=issue, kind=Kind.REHEARSAL))
        assert planned.recipients == 7
        freezing.freeze(engine, planned, [EMAIL], MESSAGE, transport="memory", now=NOW, owner="me")


def test_a_rehearsal_uses_up_neither_period_nor_recipients(engine):
    rehearsal = replace(TARGET, kind=Kind.REHEARSAL)
    run(engine, freeze(engine, rehearsal), MemoryTransport())
    live = MemoryTransport()
    run(engine, freeze(engine), live)
    assert len(live.messages) == 7


# --- what was cut off is adopted


@pytest.mark.parametrize("done", [0, 3, PEOPLE])
def test_a_freeze_that_was_cut_off_counts_for_nothing_and_the_next_one_goes_on_with_it(engine, done):
    cut_off_freeze(engine, people=done)
    before = ids(engine)
    assert sending.begun(engine, TARGET.issue, TARGET.list, Kind.LIVE) is None
    recovery.recover(engine, "me", NOW)
    assert freezing.plan(engine, TARGET).recipients == PEOPLE
    campaign = freeze(engine)
    assert (campaign.state, counts(engine, campaign)) == (
        CampaignState.RUNNING,
        {DeliveryState.PENDING: PEOPLE},
    )
    assert len(before) == done
    assert before.items() <= ids(engine).items()


def test_what_is_sent_is_what_was_confirmed_last_and_not_what_the_dead_process_had(engine):
    stale = replace(CONTENT, editions=[replace(EMAIL, subject="With a mistake")], transport="smtp")
    cut_off_freeze(engine, people=3, content=stale)
    campaign = freeze(engine)
    [email], _ = read(engine, lambda conn: campaigns.load_editions(conn, campaign.id))
    assert (email, campaign.digest, campaign.transport) == (EMAIL, EMAIL.digest, "memory")


def test_whoever_left_or_came_back_since_the_cut_is_treated_as_they_stand_now(engine):
    unsubscribe(engine, 2)
    cut_off_freeze(engine, people=5)  # 1 3 4 5 6
    unsubscribe(engine, 3)
    suppress(engine, 4)
    back = update(subscription).where(subscription.c.id == 2).values(state=SubscriptionState.ACTIVE)
    write(engine, lambda conn: conn.execute(back))
    freeze(engine)
    assert sorted(ids(engine)) == [1, 2, 5, 6, 7]


def test_more_people_than_were_confirmed_are_never_sent_to(engine):
    planned = replace(freezing.plan(engine, TARGET), recipients=6)
    with pytest.raises(Refused, match="more people joined the list readers than the 6 you confirmed"):
        freezing.freeze(engine, planned, [EMAIL], MESSAGE, transport="memory", now=NOW, owner="me")
    assert sending.begun(engine, TARGET.issue, TARGET.list, Kind.LIVE) is None
    assert freezing.plan(engine, TARGET).recipients == 7
    assert counts(engine, freeze(engine)) == {DeliveryState.PENDING: 7}


def test_a_rehearsal_that_was_cut_off_keeps_its_number(engine):
    rehearsal = replace(TARGET, kind=Kind.REHEARSAL)
    run(engine, freeze(engine, rehearsal), MemoryTransport())
    cut_off_freeze(engine, people=3, target=replace(rehearsal, attempt=2))
    assert freeze(engine, rehearsal).attempt == 2


# --- freezes that stand in each other's way


def test_readers_of_another_lists_cut_off_freeze_are_not_left_out_in_silence(engine):
    write(engine, lambda conn: conn.execute(insert(list_).values(id=2, name="carers", created_at=NOW)))
    standing = {"subscriber_id": 1, "list_id": 2, "state": SubscriptionState.ACTIVE, "since": NOW}
    write(engine, lambda conn: conn.execute(insert(subscription).values(id=20, **standing)))
    cut_off_freeze(engine, people=3)
    campaign = freeze(engine, replace(TARGET, list="carers"))
    assert list(rows(engine, campaign)) == ["p1@example.org"]
    assert in_state(engine, CampaignState.PREPARING) == []


def test_a_cut_off_freeze_of_another_issue_does_not_keep_the_period(engine):
    cut_off_freeze(engine, people=3, target=replace(TARGET, issue="2026-12-draft"))
    assert counts(engine, freeze(engine)) == {DeliveryState.PENDING: PEOPLE}
    assert total(engine) == PEOPLE


def test_a_cut_off_freeze_that_is_in_nobodys_way_delays_nobody_and_can_be_removed(engine):
    other = replace(TARGET, issue="2026-11", period="2026-11")
    cut_off_freeze(engine, people=3, target=other)
    freeze(engine)
    assert total(engine) == 3 + PEOPLE
    (left,) = in_state(engine, CampaignState.PREPARING)
    assert freezing.remove(engine, left)
    assert total(engine) == PEOPLE


@pytest.mark.parametrize(
    "other",
    [TARGET, replace(TARGET, list="carers", period="2026-13"), replace(TARGET, issue="2026-12-b")],
    ids=["the same", "the same issue to others", "the same period"],
)
def test_what_a_living_process_is_freezing_is_left_alone_until_it_dies(engine, other):
    write(engine, lambda conn: conn.execute(insert(list_).values(id=2, name="carers", created_at=NOW)))
    cut_off_freeze(engine, people=3, target=other, mine=enrol(engine, "busy"))
    (theirs,) = in_state(engine, CampaignState.PREPARING)
    before = ids(engine)
    with pytest.raises(freezing.InPreparation, match="another process is preparing 2026-12") as raised:
        freeze(engine)
    assert raised.value.campaign == theirs
    assert not freezing.remove(engine, theirs)
    assert ids(engine) == before
    bury(engine, "busy")
    assert counts(engine, freeze(engine)) == {DeliveryState.PENDING: PEOPLE}


def test_a_process_that_was_thought_dead_adds_nothing_to_a_freeze_that_another_one_took_over(engine):
    made = cut_off_freeze(engine, people=0, mine=enrol(engine, "slow"))
    look = partial(preparing.changes, campaign_id=made, target=TARGET, only=None, after=0, limit=3)
    late = read(engine, look)
    bury(engine, "slow")
    assert not write(engine, lambda conn: preparing.apply(conn, made, TARGET, late, mine="slow"))
    assert not write(engine, lambda conn: preparing.start(conn, made, mine="slow", now=NOW))
    assert counts(engine, freeze(engine)) == {DeliveryState.PENDING: PEOPLE}
    assert not write(engine, lambda conn: preparing.apply(conn, made, TARGET, late, mine="slow"))


# --- killed


def assert_all_or_nothing(engine, people, target=TARGET):
    """Either everybody has a row and it runs, or nothing can be sent."""
    campaign = sending.begun(engine, target.issue, target.list, target.kind)
    if campaign is not None:
        assert campaign.state is CampaignState.RUNNING
        assert counts(engine, campaign) == {DeliveryState.PENDING: people}
    return campaign


def go_on(engine, people, target=TARGET):
    """The next process finds the other one dead, as it always is on SQLite, and freezes the same."""
    mine = enrol(engine, secrets.token_hex(4))
    recovery.recover(engine, mine, NOW)
    if sending.begun(engine, target.issue, target.list, target.kind) is None:
        freeze(engine, target, owner=mine)
    assert_everyone_has_a_row(engine, people, target)


def assert_everyone_has_a_row(engine, people, target=TARGET):
    campaign = sending.begun(engine, target.issue, target.list, target.kind)
    query = select(delivery.c.subscriber_id).where(delivery.c.campaign_id == campaign.id)
    found = read(engine, lambda conn: conn.execute(query).scalars().all())
    assert sorted(found) == list(range(1, people + 1))


def test_killed_before_and_after_each_of_its_transactions_it_is_all_or_nothing(tmp_path):
    open_store(tmp_path, people=CROWD).dispose()
    exits, started = [], []
    while 0 not in exits:
        folder = tmp_path / str(len(exits))
        folder.mkdir()
        url = f"sqlite:///{copyfile(tmp_path / FILE, folder / FILE)}"
        process = freezing_process(url, killed_at=len(exits) + 1)
        process.join()
        exits.append(process.exitcode)
        engine = open_engine(url)
        started.append(assert_all_or_nothing(engine, CROWD) is not None)
        go_on(engine, CROWD)
        engine.dispose()
    halves = len(exits) - 1
    assert halves == 2 * 5  # it is made, three pages, it begins
    assert exits == [-signal.SIGKILL] * halves + [0]
    assert started == [False] * (halves - 1) + [True] * 2


@pytest.mark.parametrize("kills", [10, pytest.param(200, marks=pytest.mark.full)])
def test_killed_at_random_moments_it_is_all_or_nothing_and_the_next_one_goes_on(tmp_path, kills):
    made, chance, issue, killed = publisher(tmp_path), random.Random(2026), 0, 0
    made.import_people(crowd(MANY))
    url = f"sqlite:///{tmp_path / '.newsletter' / FILE}"
    engine = open_engine(url)
    while killed < kills:
        target = replace(TARGET, issue=f"issue-{issue}", period=f"issue-{issue}")
        process = freezing_process(url, target)
        process.join(chance.uniform(0, 0.4))
        process.kill()
        process.join()
        assert process.exitcode in {0, -signal.SIGKILL}
        killed += process.exitcode != 0
        if assert_all_or_nothing(engine, MANY, target):
            assert_everyone_has_a_row(engine, MANY, target)
            issue += 1
        unfinished = [one.label for one in in_state(engine, CampaignState.PREPARING)]
        shown = made.newsletter("status").stdout
        assert shown.count("preparing: ") == len(unfinished) <= 1
    print(f"{killed} kills, {issue} campaigns of {MANY} frozen in spite of them: each all or nothing")
    go_on(engine, MANY, target)
    engine.dispose()


# --- a million


@pytest.mark.full
def test_freezing_a_million_leaves_room_for_whoever_else_writes(tmp_path):
    print(f"\n{beside_another_writer(tmp_path, MILLION)}")


@pytest.mark.full
def test_going_on_with_a_million_after_a_kill_begins_at_once(tmp_path):
    print(f"\n{after_kills(tmp_path, MILLION)}")


# --- a second issue in a period


def test_a_second_issue_takes_the_first_free_place_of_its_period(engine):
    run(engine, freeze(engine), MemoryTransport())
    places = []
    for issue in ("b", "c"):
        planned = freezing.plan(engine, replace(TARGET, issue=issue), override="why")
        freezing.freeze(engine, planned, [EMAIL], MESSAGE, transport="memory", now=NOW, owner="me")
        places.append((planned.target.period, planned.target.attempt, planned.override))
    assert places == [("2026-12 (2)", 1, "why"), ("2026-12 (3)", 1, "why")]


def test_no_reason_sends_the_same_issue_twice_in_its_period(engine):
    run(engine, freeze(engine), MemoryTransport())
    with pytest.raises(Refused, match="was used by 2026-12 to readers"):
        freezing.plan(engine, TARGET, override="why")


def test_of_two_plans_for_the_same_place_the_second_is_told(engine):
    run(engine, freeze(engine), MemoryTransport())
    first, second = (freezing.plan(engine, replace(TARGET, issue=name), override="why") for name in "bc")
    make = partial(freezing.freeze, engine, transport="memory", now=NOW, owner="me")
    assert make(first, [EMAIL], MESSAGE).override == "why"
    with pytest.raises(Refused, match=r"the period 2026-12 \(2\) of the list readers was used by b"):
        make(second, [EMAIL], MESSAGE)
    assert freezing.plan(engine, replace(TARGET, issue="c"), override="why").target.period == "2026-12 (3)"


def test_a_second_issue_whose_freeze_was_cut_off_is_taken_over_in_its_place(engine):
    run(engine, freeze(engine), MemoryTransport())
    target = replace(TARGET, issue="b", period="2026-12 (2)")
    made = cut_off_freeze(engine, people=3, target=target, content=replace(CONTENT, override="why"))
    recovery.recover(engine, "me", NOW)
    planned = freezing.plan(engine, replace(TARGET, issue="b"), override="why")
    frozen = freezing.freeze(engine, planned, [EMAIL], MESSAGE, transport="memory", now=NOW, owner="me")
    assert (frozen.id, frozen.period, frozen.override) == (made, "2026-12 (2)", "why")

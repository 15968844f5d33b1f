"""Unknown rows: what is known of each, and that only a person or a proof ends a doubt."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select, update

from newsletter.model import Accepted, CampaignState, DeliveryState, Kind, Refused, Unknown
from newsletter.store import campaigns, doubts, ledger
from newsletter.store.campaigns import Target
from newsletter.store.doubts import HandOver
from newsletter.store.engine import read, write
from newsletter.store.ledger import Ledger
from newsletter.store.schema import delivery
from tests.support.ledgers import (
    NOW,
    RETRY,
    bury,
    counts,
    freeze,
    key,
    open_store,
    reasons,
    rows,
    suppress,
    unsubscribe,
)

LATER = NOW + timedelta(minutes=1)
REHEARSAL = Target(issue="2026-12", period="2026-12", list="readers", kind=Kind.REHEARSAL)


@pytest.fixture
def engine(tmp_path):
    engine = open_store(tmp_path, people=5)
    yield engine
    engine.dispose()


@pytest.fixture
def campaign(engine):
    """Persons 1 and 2 are unknown, 3 is accepted, 4 refused, 5 has its turn before it."""
    campaign = freeze(engine)
    book = Ledger(engine, campaign.id, "me", retry=RETRY)
    one, two, three, four = book.step([], 4, NOW)
    answers = [
        Unknown(one.id, "no answer"),
        Unknown(two.id, "cut"),
        Accepted(three.id),
        Refused(four.id, "who?"),
    ]
    book.step(answers, 0, NOW)
    book.release()
    return campaign


def finished(engine, campaign):
    """The same, with person 5 at their end too."""
    book = Ledger(engine, campaign.id, "me", retry=RETRY)
    [five] = book.step([], 1, NOW)
    book.step([Accepted(five.id)], 0, NOW)
    assert write(engine, lambda conn: campaigns.finish(conn, campaign.id, LATER))


def unknown(engine, campaign):
    return read(engine, lambda conn: doubts.page(conn, campaign.id))


def chosen(engine, campaign):
    return read(engine, lambda conn: doubts.hand_overs(conn, campaign.id))


def resend(engine, campaign):
    rows = chosen(engine, campaign)
    return write(engine, lambda conn: doubts.resend(conn, campaign.id, rows))


def state(engine, campaign):
    return read(engine, lambda conn: campaigns.get(conn, campaign.id)).state


def everything(engine):
    return read(engine, lambda conn: conn.execute(select(delivery).order_by(delivery.c.seq)).all())


def test_all_that_is_known_of_a_doubt_is_told(engine, campaign):
    first, second = unknown(engine, campaign)
    assert (first.address, first.name, first.reason) == ("p1@example.org", "P 1", "no answer")
    assert (first.handed_at, first.server, first.sender) == (NOW, "memory", "process me")
    assert (second.address, second.receipt) == ("p2@example.org", "")


def test_a_dead_process_leaves_behind_which_server_its_copies_were_on_their_way_to(engine):
    campaign = freeze(engine)
    Ledger(engine, campaign.id, "zombie", retry=RETRY).step([], 1, NOW)
    bury(engine, "zombie")
    write(engine, lambda conn: ledger.orphaned(conn, LATER))
    [doubt] = unknown(engine, campaign)
    assert (doubt.server, doubt.sender, doubt.handed_at) == ("memory", "process zombie", NOW)


def test_a_doubt_without_a_known_sender_is_listed_all_the_same(engine, campaign):
    write(engine, lambda conn: conn.execute(update(delivery).values(owner="lost", receipt="deferred")))
    assert [(doubt.server, doubt.sender, doubt.receipt) for doubt in unknown(engine, campaign)] == [
        ("", "", "deferred")
    ] * 2


def test_the_unknown_are_read_page_by_page_and_none_twice(engine, campaign):
    [first] = read(engine, lambda conn: doubts.page(conn, campaign.id, limit=1))
    [second] = read(engine, lambda conn: doubts.page(conn, campaign.id, after=first.seq, limit=1))
    assert [first.address, second.address] == ["p1@example.org", "p2@example.org"]
    assert read(engine, lambda conn: doubts.page(conn, campaign.id, after=second.seq)) == []


def test_another_campaigns_doubts_are_not_this_ones(engine, campaign):
    assert unknown(engine, freeze(engine, REHEARSAL)) == []


def test_a_resent_copy_waits_again_under_the_same_delivery_id(engine, campaign):
    before = [doubt.id for doubt in unknown(engine, campaign)]
    assert resend(engine, campaign) == 2
    assert set(reasons(engine, campaign).values()) == {doubts.RESENT, "", "who?"}
    window = Ledger(engine, campaign.id, "me", retry=RETRY).step([], 5, LATER)
    assert [row.id for row in window][:2] == before
    assert [row.tries for row in window] == [0, 0, 0]


def test_a_resent_copy_that_is_cancelled_does_not_forget_the_first_one(engine, campaign):
    resend(engine, campaign)
    write(engine, lambda conn: campaigns.cancel(conn, campaign.id, LATER))
    write(engine, lambda conn: campaigns.sweep(conn, LATER))
    resent = f"cancelled; {doubts.FIRST_UNKNOWN}"
    assert [row.reason for row in everything(engine)].count(resent) == 2


def test_a_resent_copy_is_due_at_once_and_has_all_its_tries_before_it(engine, campaign):
    tired = update(delivery).values(not_before=NOW + timedelta(days=1), tries=6)
    write(engine, lambda conn: conn.execute(tired))
    resend(engine, campaign)
    row = everything(engine)[0]
    assert (row.state, row.not_before, row.tries, row.owner, row.settled_at) == (
        "pending",
        None,
        0,
        None,
        None,
    )


def test_a_finished_campaign_with_a_resent_copy_runs_again(engine, campaign):
    finished(engine, campaign)
    resend(engine, campaign)
    found = read(engine, lambda conn: campaigns.get(conn, campaign.id))
    assert (found.state, found.finished_at) == (CampaignState.RUNNING, None)


def test_a_paused_campaign_with_a_resent_copy_stays_paused(engine, campaign):
    write(engine, lambda conn: campaigns.pause(conn, campaign.id, "by hand"))
    assert resend(engine, campaign) == 2
    assert state(engine, campaign) is CampaignState.PAUSED


def test_in_a_cancelled_campaign_nothing_is_resent(engine, campaign):
    write(engine, lambda conn: campaigns.cancel(conn, campaign.id, NOW))
    assert resend(engine, campaign) == 0
    assert counts(engine, campaign)[DeliveryState.UNKNOWN] == 2


def test_a_resend_of_nothing_opens_no_campaign_again(engine, campaign):
    finished(engine, campaign)
    rows = chosen(engine, campaign)
    write(engine, lambda conn: doubts.close(conn, rows, NOW))
    assert write(engine, lambda conn: doubts.resend(conn, campaign.id, rows)) == 0
    assert write(engine, lambda conn: doubts.resend(conn, campaign.id, [])) == 0
    assert state(engine, campaign) is CampaignState.FINISHED


def test_a_closed_doubt_does_not_say_that_the_provider_accepted_it(engine, campaign):
    finished(engine, campaign)
    rows_ = chosen(engine, campaign)
    assert write(engine, lambda conn: doubts.close(conn, rows_, LATER)) == 2
    assert rows(engine, campaign)["p1@example.org"] is DeliveryState.CLOSED
    assert reasons(engine, campaign)["p1@example.org"] == "assumed accepted by a person's word"
    assert everything(engine)[0].settled_at == LATER
    assert state(engine, campaign) is CampaignState.FINISHED


@pytest.mark.parametrize("way", ["resend", "close"])
def test_only_unknown_rows_change_whatever_is_asked(engine, campaign, way):
    all_rows = [HandOver(row.seq, row.handed_at) for row in everything(engine)]
    acts = {
        "resend": lambda conn: doubts.resend(conn, campaign.id, all_rows),
        "close": lambda conn: doubts.close(conn, all_rows, LATER),
    }
    before = everything(engine)
    assert write(engine, acts[way]) == 2
    assert everything(engine)[2:] == before[2:]
    again = everything(engine)
    assert write(engine, acts[way]) == 0
    assert everything(engine) == again


def test_a_persons_word_counts_for_the_hand_over_it_was_about_and_for_no_later_one(engine, campaign):
    seen = chosen(engine, campaign)
    resend(engine, campaign)
    book = Ledger(engine, campaign.id, "me", retry=RETRY)
    one, two = book.step([], 2, LATER)
    book.step([Unknown(one.id, "again"), Unknown(two.id, "again")], 0, LATER)
    assert write(engine, lambda conn: doubts.resend(conn, campaign.id, seen)) == 0
    assert write(engine, lambda conn: doubts.close(conn, seen, LATER)) == 0
    assert resend(engine, campaign) == 2


def test_who_has_left_since_is_counted_and_gets_no_second_copy(engine, campaign):
    unsubscribe(engine, 1)
    suppress(engine, 2)
    seqs = [row.seq for row in chosen(engine, campaign)]
    assert read(engine, lambda conn: doubts.leavers(conn, seqs)) == 2
    resend(engine, campaign)
    window = Ledger(engine, campaign.id, "me", retry=RETRY).step([], 5, LATER)
    assert [row.address for row in window] == ["p5@example.org"]


def test_addresses_are_found_by_their_key_with_the_state_they_are_in(engine, campaign):
    wanted = [key(1), key(3), key(9)]
    found = read(engine, lambda conn: doubts.standings(conn, campaign.id, wanted))
    assert {who: one.state for who, one in found.items()} == {
        key(1): DeliveryState.UNKNOWN,
        key(3): DeliveryState.ACCEPTED,
    }
    assert found[key(1)].hand_over == chosen(engine, campaign)[0]


# Evidence


def prove(engine, delivery_id, said="delivered, says an event"):
    return write(engine, lambda conn: doubts.evidence(conn, delivery_id, LATER, said))


def test_a_proof_turns_unknown_into_accepted_and_says_what_it_was(engine, campaign):
    doubt = unknown(engine, campaign)[0]
    assert prove(engine, doubt.id)
    assert rows(engine, campaign)["p1@example.org"] is DeliveryState.ACCEPTED
    assert reasons(engine, campaign)["p1@example.org"] == "delivered, says an event"


def test_a_proof_that_comes_twice_counts_once(engine, campaign):
    doubt = unknown(engine, campaign)[0]
    assert [prove(engine, doubt.id), prove(engine, doubt.id, "bounced")] == [True, False]
    assert reasons(engine, campaign)["p1@example.org"] == "delivered, says an event"


def test_a_proof_changes_no_other_state_and_no_id_that_nobody_knows(engine, campaign):
    rows_ = chosen(engine, campaign)
    write(engine, lambda conn: doubts.resend(conn, campaign.id, rows_[:1]))
    write(engine, lambda conn: doubts.close(conn, rows_[1:], NOW))
    before = everything(engine)
    assert {row.state for row in before} == {"pending", "closed", "accepted", "refused"}
    assert not any(prove(engine, delivery_id) for delivery_id in [*(row.id for row in before), bytes(16)])
    assert everything(engine) == before

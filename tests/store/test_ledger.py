"""The ledger: every statement is conditional, and no row is lost sight of."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import event, insert
from sqlalchemy.exc import IntegrityError

from newsletter.model import Accepted, CampaignState, DeliveryState, NotTaken, Refused, Unknown
from newsletter.store import campaigns, doubts, ledger, listing
from newsletter.store.engine import in_chunks, read, write
from newsletter.store.ledger import Ledger
from newsletter.store.schema import subscriber
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


@pytest.fixture
def engine(tmp_path, database_url):
    engine = open_store(tmp_path, people=5, url=database_url)
    yield engine
    engine.dispose()


def book(engine, campaign, owner="me", **changes):
    return Ledger(engine, campaign.id, owner, retry=RETRY, **changes)


def test_a_window_is_marked_handed_before_it_is_returned(engine):
    campaign = freeze(engine)
    window = book(engine, campaign).step([], 2, NOW)
    assert [row.address for row in window] == ["p1@example.org", "p2@example.org"]
    assert counts(engine, campaign) == {DeliveryState.HANDED: 2, DeliveryState.CLAIMED: 3}


def test_settling_and_the_next_hand_over_share_one_step(engine):
    campaign = freeze(engine)
    mine = book(engine, campaign)
    first = mine.step([], 1, NOW)[0]
    mine.step([Accepted(first.id, "queued as 1")], 1, NOW)
    assert rows(engine, campaign)["p1@example.org"] is DeliveryState.ACCEPTED
    assert counts(engine, campaign)[DeliveryState.HANDED] == 1


def test_nobody_gets_a_copy_after_unsubscribing_even_when_already_claimed(engine):
    campaign = freeze(engine)
    mine = book(engine, campaign)
    mine.step([], 1, NOW)
    unsubscribe(engine, 3)
    assert [row.address for row in mine.step([], 4, NOW)] == [
        "p2@example.org",
        "p4@example.org",
        "p5@example.org",
    ]
    assert reasons(engine, campaign)["p3@example.org"] == "unsubscribed"


def test_a_suppression_stops_a_claimed_copy(engine):
    campaign = freeze(engine)
    mine = book(engine, campaign)
    mine.step([], 1, NOW)
    suppress(engine, 2)
    mine.step([], 1, NOW)
    assert reasons(engine, campaign)["p2@example.org"] == "suppressed: bounced"
    assert rows(engine, campaign)["p2@example.org"] is DeliveryState.SKIPPED


def test_a_paused_campaign_hands_over_nothing_and_keeps_its_rows(engine):
    campaign = freeze(engine)
    mine = book(engine, campaign)
    mine.step([], 1, NOW)
    write(engine, lambda conn: campaigns.pause(conn, campaign.id, "by hand"))
    assert mine.step([], 4, NOW) == []
    mine.release()
    assert counts(engine, campaign) == {DeliveryState.HANDED: 1, DeliveryState.PENDING: 4}


def test_a_cancelled_campaign_skips_what_was_claimed_and_settles_what_was_handed(engine):
    campaign = freeze(engine)
    mine = book(engine, campaign)
    (first,) = mine.step([], 1, NOW)
    write(engine, lambda conn: campaigns.cancel(conn, campaign.id, NOW))
    assert mine.step([Accepted(first.id)], 1, NOW) == []
    mine.release()
    in_chunks(engine, partial(campaigns.sweep, now=NOW))
    assert counts(engine, campaign) == {DeliveryState.ACCEPTED: 1, DeliveryState.SKIPPED: 4}
    assert set(reasons(engine, campaign).values()) == {"", "cancelled"}


def test_a_copy_that_comes_back_after_the_cancel_waits_for_nobody(engine):
    campaign = freeze(engine)
    mine = book(engine, campaign)
    (first,) = mine.step([], 1, NOW)
    write(engine, lambda conn: campaigns.cancel(conn, campaign.id, NOW))
    mine.step([NotTaken(first.id, "450 later")], 0, NOW)
    mine.release()
    in_chunks(engine, partial(campaigns.sweep, now=NOW, limit=2))
    assert counts(engine, campaign) == {DeliveryState.SKIPPED: 5}


def test_an_allowlist_that_shrank_since_the_freeze_still_holds(engine):
    campaign = freeze(engine, only=frozenset({key(1), key(2)}))
    mine = book(engine, campaign, only=frozenset({key(2)}))
    assert [row.address for row in mine.step([], 5, NOW)] == ["p2@example.org"]
    assert reasons(engine, campaign)["p1@example.org"] == "not on the allowlist"


def test_a_charged_failure_waits_as_the_schedule_says_and_gives_up_at_its_end(engine):
    campaign = freeze(engine)
    mine = book(engine, campaign)
    (first,) = mine.step([], 1, NOW)
    mine.step([NotTaken(first.id, "450 busy")], 0, NOW)
    mine.release()
    assert first.address not in {row.address for row in mine.step([], 5, NOW + timedelta(seconds=14))}
    (again,) = mine.step([], 1, NOW + timedelta(seconds=15))
    assert again.id == first.id
    mine.step([NotTaken(first.id, "450 busy")], 0, NOW)
    (last,) = mine.step([], 1, NOW + timedelta(minutes=3))
    mine.step([NotTaken(last.id, "450 still busy")], 0, NOW)
    assert rows(engine, campaign)["p1@example.org"] is DeliveryState.REFUSED
    assert reasons(engine, campaign)["p1@example.org"] == "gave up: 450 still busy"


def test_an_uncharged_failure_never_uses_up_the_retries(engine):
    campaign = freeze(engine)
    mine = book(engine, campaign)
    for _ in range(len(RETRY) + 3):
        (first,) = mine.step([], 1, NOW)
        mine.step([NotTaken(first.id, "connection lost", charged=False)], 0, NOW)
        mine.release()
    assert rows(engine, campaign)["p1@example.org"] is DeliveryState.PENDING


def test_the_providers_wish_for_later_wins_over_an_earlier_retry(engine):
    campaign = freeze(engine)
    mine = book(engine, campaign)
    (first,) = mine.step([], 1, NOW)
    wish = NOW + timedelta(hours=2)
    mine.step([NotTaken(first.id, "429", not_before=wish)], 4, NOW)
    assert read(engine, lambda conn: ledger.next_due(conn, campaign.id)) == wish


def test_a_row_without_a_time_is_due_at_once(engine):
    campaign = freeze(engine)
    assert read(engine, lambda conn: ledger.next_due(conn, campaign.id)) < NOW


def test_each_answer_ends_in_its_own_state(engine):
    campaign = freeze(engine)
    mine = book(engine, campaign)
    one, two, three = mine.step([], 3, NOW)
    mine.step(
        [Accepted(one.id, "id-1"), Refused(two.id, "550 no such user"), Unknown(three.id, "no answer")],
        0,
        NOW,
    )
    found = read(engine, lambda conn: {row.address: row for row in listing.every(conn, campaign.id)})
    assert found[one.address].provider_id == "id-1"
    assert (found[two.address].state, found[two.address].reason) == (
        DeliveryState.REFUSED,
        "550 no such user",
    )
    assert (found[three.address].state, found[three.address].settled_at) == (DeliveryState.UNKNOWN, NOW)


def test_a_dead_owners_rows_are_given_back_and_its_copies_are_unknown(engine):
    campaign = freeze(engine)
    book(engine, campaign, owner="zombie").step([], 2, NOW)
    bury(engine, "zombie")
    assert write(engine, lambda conn: ledger.orphaned(conn, LATER)) == (3, 2)
    assert write(engine, lambda conn: ledger.orphaned(conn, LATER)) == (0, 0)
    assert counts(engine, campaign) == {DeliveryState.PENDING: 3, DeliveryState.UNKNOWN: 2}


def test_a_late_answer_of_a_zombie_turns_unknown_into_accepted_and_nothing_else(engine):
    campaign = freeze(engine)
    zombie = book(engine, campaign, owner="zombie")
    one, two = zombie.step([], 2, NOW)
    bury(engine, "zombie")
    write(engine, lambda conn: ledger.orphaned(conn, NOW))
    assert zombie.step([Accepted(one.id), NotTaken(two.id, "lost")], 0, LATER) == []
    assert rows(engine, campaign)[one.address] is DeliveryState.ACCEPTED
    assert rows(engine, campaign)[two.address] is DeliveryState.UNKNOWN


def test_many_who_have_left_are_skipped_in_short_commits(engine, tmp_path):
    """A suppression list that was brought in during a pause: others must be able to write in between."""
    campaign = freeze(engine)
    for number in range(1, 5):
        suppress(engine, number)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "LOOK", 1)
        commits = []
        event.listen(engine, "commit", commits.append)
        (left,) = book(engine, campaign).step([], 1, NOW)
    assert left.address == "p5@example.org"
    assert len(commits) == 1 + 5, "a look whether the rest is held back, and five searches"
    assert counts(engine, campaign) == {DeliveryState.SKIPPED: 4, DeliveryState.HANDED: 1}


@pytest.mark.parametrize(
    ("then", "reason"),
    [
        (Accepted, "resent by a person's word"),
        (lambda id_: Refused(id_, "550 no"), "550 no; a first copy may have arrived"),
        (lambda id_: NotTaken(id_, "451 later"), "gave up: 451 later; a first copy may have arrived"),
    ],
)
def test_a_first_copy_that_is_in_doubt_is_remembered_whatever_becomes_of_the_second(engine, then, reason):
    campaign = freeze(engine)
    mine = Ledger(engine, campaign.id, "me", retry=RETRY[:1])
    (first,) = mine.step([], 1, NOW)
    mine.step([Unknown(first.id, "cut")], 0, NOW)
    said = read(engine, lambda conn: doubts.hand_overs(conn, campaign.id))
    write(engine, lambda conn: doubts.resend(conn, campaign.id, said))
    mine.release()
    (again,) = mine.step([], 1, NOW)
    assert again.id == first.id
    mine.step([NotTaken(again.id, "451 later")], 0, NOW)
    mine.release()
    window = {row.id: row for row in mine.step([], 5, LATER)}
    mine.step([then(first.id)], 0, LATER)
    assert reasons(engine, campaign)[window[first.id].address] == reason


def test_an_unknown_copy_is_never_handed_again(engine):
    campaign = freeze(engine)
    mine = book(engine, campaign)
    (first,) = mine.step([], 1, NOW)
    mine.step([Unknown(first.id, "no answer")], 0, NOW)
    assert first.id not in {row.id for row in mine.step([], 5, LATER)}


def test_a_database_error_does_not_tell_an_address(engine):
    person = {"address": "secret@example.org", "address_key": key(1), "created_at": NOW}
    with pytest.raises(IntegrityError) as caught:
        write(engine, lambda conn: conn.execute(insert(subscriber).values(person)))
    assert "secret" not in str(caught.value)


def test_a_campaign_with_an_open_row_can_not_be_finished(engine):
    campaign = freeze(engine)
    mine = book(engine, campaign)
    window = mine.step([], 5, NOW)
    assert not write(engine, lambda conn: campaigns.finish(conn, campaign.id, NOW))
    mine.step([Accepted(row.id) for row in window], 0, NOW)
    assert write(engine, lambda conn: campaigns.finish(conn, campaign.id, NOW))
    assert read(engine, lambda conn: campaigns.get(conn, campaign.id)).state is CampaignState.FINISHED

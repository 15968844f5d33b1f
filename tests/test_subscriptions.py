"""Nobody who left comes back, and saying a thing twice is saying it once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from newsletter import subscriptions
from newsletter.admission import Verdict
from newsletter.errors import Refused, UsageError
from newsletter.store import subscribers as store
from newsletter.store.engine import read, write
from newsletter.store.schema import subscription
from tests.support.ledgers import NOW
from tests.support.lists import SECRET, Reader, add, dump, erase, leave, live_through, readers, suppress

if TYPE_CHECKING:
    from sqlalchemy import Engine


@pytest.fixture
def engine(sqlite_engine: Engine) -> Engine:
    """An empty database."""
    return sqlite_engine


# One person


def test_adding_a_person_twice_is_adding_once(engine: Engine) -> None:
    assert add(engine, "zoe@example.org", name="Zoë") is Verdict.NEW
    assert add(engine, "ZOE@example.org") is Verdict.UNCHANGED
    assert add(engine, "zoe@example.org", name="Zed") is Verdict.CHANGED
    assert readers(engine) == {"zoe@example.org": Reader("Zed", "active", "")}


@pytest.mark.parametrize("past", ["left", "left all", "bounced", "manual", "erased"])
def test_whoever_left_is_not_added_again(engine: Engine, past: str) -> None:
    live_through(engine, "zoe@example.org", past)
    before = dump(engine)
    with pytest.raises(Refused) as caught:
        add(engine, "Zoe@example.org")
    assert "zoe@example.org" not in str(caught.value).lower()
    assert dump(engine) == before


@pytest.mark.parametrize(("address", "name"), [("zoe", ""), ("zoe@example.org", "Z\r\nBcc: x")])
def test_what_can_not_be_added_is_a_sentence(engine: Engine, address: str, name: str) -> None:
    with pytest.raises(UsageError):
        add(engine, address, name=name)
    assert readers(engine) == {}


def test_leaving_one_list_leaves_the_others(engine: Engine) -> None:
    for name in ("readers", "friends"):
        add(engine, "zoe@example.org", name)
    assert leave(engine, "zoe@example.org", "friends") == ["friends"]
    assert readers(engine)["zoe@example.org"] == Reader("", "active", "")
    assert leave(engine, "zoe@example.org", "friends") == []


def test_leaving_all_lists_is_for_every_list_to_come(engine: Engine) -> None:
    add(engine, "zoe@example.org")
    assert leave(engine, "zoe@example.org") == ["readers"]
    with pytest.raises(Refused, match="suppressed: unsubscribed"):
        add(engine, "zoe@example.org", "friends")


def test_leaving_is_recorded_once(engine: Engine) -> None:
    add(engine, "zoe@example.org")
    for _ in range(2):
        leave(engine, "zoe@example.org")
    found = subscriptions.look_up(engine, "zoe@example.org", SECRET)
    assert [said.act for said in found.consents] == ["added", "unsubscribed"]
    assert found.suppressed is not None
    assert found.suppressed.reason == "unsubscribed"


def test_a_stranger_can_not_leave(engine: Engine) -> None:
    with pytest.raises(UsageError, match="not on any list"):
        leave(engine, "zoe@example.org")


def test_an_unknown_list_suggests_the_near_one(engine: Engine) -> None:
    add(engine, "zoe@example.org")
    subscriptions.check_list(engine, "readers")
    with pytest.raises(UsageError) as caught:
        subscriptions.check_list(engine, "raeders")
    assert "readers" in caught.value.hint


# Suppressions


def test_a_suppressed_strangers_address_is_not_kept(engine: Engine) -> None:
    suppress(engine, "zoe@example.org")
    assert "zoe" not in str(dump(engine))
    [found] = read(engine, lambda conn: list(store.suppressions(conn)))
    assert found.address == ""


def test_the_first_reason_stays(engine: Engine) -> None:
    assert suppress(engine, "zoe@example.org", "complained")
    assert not suppress(engine, "zoe@example.org", "manual")
    assert subscriptions.unsuppress(engine, "zoe@example.org", SECRET).reason == "complained"


@pytest.mark.parametrize("weaker", ["unsubscribed", "bounced"])
@pytest.mark.parametrize("graver", ["complained", "manual"])
def test_a_graver_reason_takes_the_place_of_a_weaker_one_and_never_the_other_way(
    engine: Engine, weaker: str, graver: str
) -> None:
    suppress(engine, "zoe@example.org", weaker)
    assert suppress(engine, "zoe@example.org", graver)
    assert not suppress(engine, "zoe@example.org", weaker)
    [found] = read(engine, lambda conn: list(store.suppressions(conn)))
    assert (found.reason, found.source) == (graver, "a test")


def test_the_operators_word_over_an_erasure_does_not_undo_it(engine: Engine) -> None:
    key = subscriptions.key_of("zoe@example.org", SECRET)
    write(engine, lambda conn: store.suppress_erased(conn, key, NOW))
    assert suppress(engine, "zoe@example.org", "manual")
    with pytest.raises(Refused, match="was erased"):
        subscriptions.unsuppress(engine, "zoe@example.org", SECRET)


def test_whoever_has_not_confirmed_is_not_added_over_their_head(engine: Engine) -> None:
    add(engine, "zoe@example.org")
    waits = update(subscription).values(state="pending")
    write(engine, lambda conn: conn.execute(waits))
    with pytest.raises(Refused, match="has not confirmed yet"):
        add(engine, "zoe@example.org")
    assert readers(engine)["zoe@example.org"].state == "pending"


def test_lifting_a_suppression_does_not_undo_an_unsubscription(engine: Engine) -> None:
    add(engine, "zoe@example.org")
    leave(engine, "zoe@example.org")
    subscriptions.unsuppress(engine, "zoe@example.org", SECRET)
    assert readers(engine)["zoe@example.org"] == Reader("", "unsubscribed", "")


def test_an_erasure_is_for_ever(engine: Engine) -> None:
    add(engine, "zoe@example.org")
    erase(engine, "zoe@example.org")
    with pytest.raises(Refused, match="was erased"):
        subscriptions.unsuppress(engine, "zoe@example.org", SECRET)


def test_what_is_not_suppressed_can_not_be_lifted(engine: Engine) -> None:
    with pytest.raises(UsageError, match="is not suppressed"):
        subscriptions.unsuppress(engine, "zoe@example.org", SECRET)

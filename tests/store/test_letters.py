"""The outbox of letters: one process at a time has a letter, and it goes to nobody's harm when that process is slow."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from newsletter.model import LetterPurpose, LetterState
from newsletter.store import letters, subscribers
from newsletter.store.engine import open_engine, read, write
from newsletter.store.letters import LEASE, Addressee, Letter
from newsletter.store.schema import letter
from newsletter.store.subscribers import Newcomer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

NOW = datetime(2026, 12, 1, 9, 0, 0, 123456, tzinfo=UTC)
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
ZOE = Addressee("zoe@example.org", b"z" * 16)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url, create=True)
    yield engine
    engine.dispose()


def queue(
    engine: Engine,
    purpose: LetterPurpose = LetterPurpose.SUBSCRIBE,
    *,
    now: datetime = NOW,
    subscription: int | None = None,
) -> None:
    def act(conn: Connection) -> None:
        list_id = subscribers.ensure_list(conn, "readers", now)
        said = {"name": "Zoë", "form": "page"}
        letters.queue(
            conn, purpose, list_id, ZOE, lasts=DAY, now=now, subscription_id=subscription, said=said
        )

    write(engine, act)


def claim(engine: Engine, now: datetime = NOW, limit: int = 20) -> list[Letter]:
    return write(engine, lambda conn: letters.claim(conn, now, limit))


def settle(engine: Engine, one: Letter, state: LetterState) -> None:
    write(engine, lambda conn: letters.settle(conn, one.id, state, NOW, "because"))


def row(engine: Engine) -> Any:
    return read(engine, lambda conn: conn.execute(select(letter)).one())


def expiry(engine: Engine) -> datetime:
    found = read(engine, lambda conn: conn.scalars(select(letter.c.expires_at).distinct()).one())
    assert isinstance(found, datetime)
    return found


def person(engine: Engine) -> int:
    """A subscription."""

    def act(conn: Connection) -> int:
        list_id = subscribers.ensure_list(conn, "readers", NOW)
        newcomer = Newcomer(ZOE.key, ZOE.address, "active", "added", "")  # type: ignore[arg-type]
        subscribers.add_people(conn, list_id, [newcomer], source="", now=NOW)
        return subscribers.person(conn, ZOE.key)[0][0]

    return write(engine, act)


def test_a_letter_is_claimed_once_in_the_order_of_asking(engine: Engine) -> None:
    for _ in range(3):
        queue(engine)
    first, second = claim(engine, limit=2)
    assert first.id < second.id
    assert (first.address, first.name, first.form, first.list) == (
        "zoe@example.org",
        "Zoë",
        "page",
        "readers",
    )
    assert [one.id for one in claim(engine)] == [second.id + 1]
    assert claim(engine) == []
    assert not read(engine, lambda conn: letters.due(conn, NOW))


def test_a_dead_process_loses_its_letter_when_the_lease_ends(engine: Engine) -> None:
    queue(engine)
    [mine] = claim(engine)
    assert claim(engine, NOW + LEASE - timedelta(microseconds=1)) == []
    [theirs] = claim(engine, NOW + LEASE)
    assert (theirs.id, theirs.delivery, theirs.tries) == (mine.id, mine.delivery, 1)


def test_a_letter_rests_until_its_next_try(engine: Engine) -> None:
    queue(engine)
    [mine] = claim(engine)
    write(engine, lambda conn: letters.postpone(conn, mine, NOW + LEASE * 2, "450"))
    assert claim(engine, NOW + LEASE) == []
    assert len(claim(engine, NOW + LEASE * 2)) == 1


def test_a_slow_process_does_not_take_the_letter_from_the_one_that_has_it_now(engine: Engine) -> None:
    queue(engine)
    [slow] = claim(engine)
    claim(engine, NOW + LEASE)
    write(engine, lambda conn: letters.postpone(conn, slow, NOW, "no answer"))
    assert claim(engine, NOW + LEASE) == [], "the other one's lease holds"


def test_a_slow_process_knows_less_than_the_one_that_sent_it(engine: Engine) -> None:
    queue(engine)
    [one] = claim(engine)
    settle(engine, one, LetterState.SENT)
    settle(engine, one, LetterState.GAVE_UP)
    write(engine, lambda conn: letters.postpone(conn, one, NOW, "no answer"))
    assert row(engine).state == "sent"
    assert claim(engine, NOW + DAY) == []


def test_an_address_stays_only_where_it_has_still_to_be_confirmed(engine: Engine) -> None:
    for purpose in LetterPurpose:
        for state in (LetterState.SENT, LetterState.GAVE_UP, LetterState.DROPPED):
            queue(engine, purpose)
            [one] = claim(engine)
            settle(engine, one, state)
    rows = read(engine, lambda conn: conn.execute(select(letter)).all())
    kept = [(row.purpose, row.state) for row in rows if row.address or row.address_key]
    assert kept == [("change", "sent")]
    named = [(row.purpose, row.state) for row in rows if row.name]
    assert named == [("subscribe", "sent"), ("change", "sent")]


@pytest.mark.parametrize("settled", [True, False])
@pytest.mark.parametrize("purpose", list(LetterPurpose))
def test_nobody_is_named_any_more_once_the_link_has_ended(
    engine: Engine, purpose: LetterPurpose, settled: bool
) -> None:
    queue(engine, purpose)
    if settled:
        settle(engine, *claim(engine), LetterState.SENT)
    write(engine, lambda conn: letters.forget_names(conn, expiry(engine)))
    found = row(engine)
    assert (found.address, found.address_key, found.name) == (None, None, "")


def test_what_readers_have_asked_for_leaves_before_strangers_sign_ups(engine: Engine) -> None:
    asked = [*[LetterPurpose.SUBSCRIBE] * 3, LetterPurpose.ACCESS, LetterPurpose.CHANGE]
    for purpose in asked:
        queue(engine, purpose)
    assert [one.purpose for one in claim(engine, limit=3)] == [asked[3], asked[4], asked[0]]


def test_a_link_is_used_once_and_then_its_letter_holds_no_address(engine: Engine) -> None:
    number = person(engine)
    queue(engine, LetterPurpose.CHANGE, subscription=number)
    expires = (NOW + DAY).replace(microsecond=0)  # a link counts whole seconds
    found = read(engine, lambda conn: letters.find(conn, LetterPurpose.CHANGE, number, expires))
    assert found is not None
    used = [write(engine, lambda conn: letters.use(conn, found.id, NOW)) for _ in range(2)]
    assert used == [True, False]
    assert row(engine).address is None


def test_of_two_letters_of_the_same_second_the_unused_one_is_found(engine: Engine) -> None:
    number = person(engine)
    for _ in range(2):
        queue(engine, LetterPurpose.ACCESS, subscription=number)
    expires = (NOW + DAY).replace(microsecond=0)

    def find(conn: Connection) -> Letter | None:
        return letters.find(conn, LetterPurpose.ACCESS, number, expires)

    first = read(engine, find)
    assert first is not None
    write(engine, lambda conn: letters.use(conn, first.id, NOW))
    second = read(engine, find)
    assert second is not None
    assert (second.id, second.used_at) == (first.id + 1, None)


@pytest.mark.parametrize(
    ("purpose", "moved"), [(LetterPurpose.ACCESS, timedelta()), (LetterPurpose.CHANGE, SECOND)]
)
def test_a_link_for_something_else_finds_no_letter(
    engine: Engine, purpose: LetterPurpose, moved: timedelta
) -> None:
    number = person(engine)
    queue(engine, LetterPurpose.CHANGE, subscription=number)
    expires = (NOW + DAY).replace(microsecond=0) + moved
    assert read(engine, lambda conn: letters.find(conn, purpose, number, expires)) is None


def test_rows_stay_a_month_after_their_link_and_go_a_chunk_at_a_time(engine: Engine) -> None:
    for _ in range(3):
        queue(engine)
    expires = expiry(engine)
    at = expires + letters.KEPT
    assert not write(engine, lambda conn: letters.sweep(conn, at - SECOND))
    removed = [write(engine, lambda conn: letters.sweep(conn, at, 2)) for _ in range(3)]
    assert removed == [True, True, False]
    assert read(engine, letters.counts) == {}

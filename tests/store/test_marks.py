"""The statements that run for every copy: each condition, on both databases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from newsletter.model import CampaignState, DeliveryState
from newsletter.store import doubts, marks
from newsletter.store.engine import read, write
from newsletter.store.schema import campaign, delivery, subscriber
from newsletter.transports.answers import words
from tests.support.ledgers import NOW, bury, freeze, open_store, suppress, unsubscribe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Engine

    from newsletter.store.ahead import Claimed

EVERYBODY = (1, 2, 3, 4, 5)


@pytest.fixture
def engine(tmp_path: Path, database_url: str) -> Iterator[Engine]:
    """Five people, and a campaign whose rows are all claimed by ``me``."""
    engine = open_store(tmp_path, people=5, url=database_url)
    freeze(engine)
    claim(engine)
    yield engine
    engine.dispose()


def claim(engine: Engine, owner: str | None = "me", state: DeliveryState = DeliveryState.CLAIMED) -> None:
    write(engine, lambda conn: conn.execute(update(delivery).values(state=state, owner=owner)))


def mark(engine: Engine, seqs: tuple[int, ...] = EVERYBODY) -> set[int]:
    return write(engine, lambda conn: marks.mark(conn, seqs, campaign=1, owner="me", now=NOW))


def stored(engine: Engine) -> list[tuple[object, ...]]:
    columns = (
        delivery.c.state,
        delivery.c.reason,
        delivery.c.provider_id,
        delivery.c.settled_at,
        delivery.c.tries,
    )
    return [
        tuple(row)
        for row in read(engine, lambda conn: conn.execute(select(*columns).order_by(delivery.c.seq)).all())
    ]


def rests(engine: Engine, state: CampaignState = CampaignState.PAUSED) -> None:
    write(engine, lambda conn: conn.execute(update(campaign).values(state=state)))


def test_all_that_may_leave_are_marked_with_the_time(engine: Engine) -> None:
    assert mark(engine, (1, 2)) == {1, 2}
    query = select(delivery.c.state, delivery.c.handed_at).order_by(delivery.c.seq)
    rows = read(engine, lambda conn: conn.execute(query).all())
    assert [tuple(row) for row in rows[:2]] == [(DeliveryState.HANDED, NOW)] * 2
    assert {row.state for row in rows[2:]} == {DeliveryState.CLAIMED}


@pytest.mark.parametrize(
    ("happened", "left"),
    [
        pytest.param(lambda engine: unsubscribe(engine, 2), {1, 3, 4, 5}, id="a reader has left"),
        pytest.param(lambda engine: suppress(engine, 3), {1, 2, 4, 5}, id="an address is suppressed"),
        pytest.param(lambda engine: claim(engine, "zombie"), set(), id="another process has them"),
        pytest.param(lambda engine: claim(engine, None, DeliveryState.PENDING), set(), id="they were freed"),
        pytest.param(
            lambda engine: claim(engine, "me", DeliveryState.ACCEPTED), set(), id="they have an answer"
        ),
        pytest.param(
            lambda engine: claim(engine, "me", DeliveryState.UNKNOWN), set(), id="they are in doubt"
        ),
        pytest.param(lambda engine: bury(engine, "me"), set(), id="this process was found dead"),
        *(
            pytest.param(
                lambda engine, state=state: rests(engine, state), set(), id=f"the campaign is {state}"
            )
            for state in CampaignState
            if state is not CampaignState.RUNNING
        ),
    ],
)
def test_every_condition_is_asked_again_at_the_mark(
    engine: Engine, happened: Callable[[Engine], None], left: set[int]
) -> None:
    happened(engine)
    assert mark(engine) == left


def test_a_copy_is_marked_once(engine: Engine) -> None:
    assert mark(engine) == set(EVERYBODY)
    again = write(engine, lambda conn: marks.mark(conn, EVERYBODY, campaign=2, owner="me", now=NOW))
    assert again <= set(EVERYBODY)
    assert {row[0] for row in stored(engine)} == {DeliveryState.HANDED}


def accept(engine: Engine, said: dict[int, str], owner: str = "me") -> int:
    return write(engine, lambda conn: marks.accept(conn, said, owner=owner, now=NOW))


def test_accepted_copies_keep_the_providers_id_and_the_rest_stays(engine: Engine) -> None:
    mark(engine, (1, 2, 3))
    assert accept(engine, {1: "250 one", 3: ""}) == 2
    rows = stored(engine)
    assert rows[0] == (DeliveryState.ACCEPTED, "", "250 one", NOW, 1)
    assert rows[2] == (DeliveryState.ACCEPTED, "", "", NOW, 1)
    assert [row[0] for row in rows] == ["accepted", "handed", "accepted", "claimed", "claimed"]


def test_only_what_is_handed_and_ones_own_is_settled(engine: Engine) -> None:
    mark(engine, (1, 2))
    before = stored(engine)
    row = {
        "seq": 1,
        "state": "refused",
        "reason": "no",
        "provider_id": "",
        "settled_at": 1,
        "not_before": None,
        "tries": 1,
    }
    assert accept(engine, {1: "x"}, owner="zombie") == 0
    assert accept(engine, {4: "claimed", 99: "nobody"}) == 0
    assert write(engine, lambda conn: marks.settle(conn, [row], owner="zombie")) == 0
    assert write(engine, lambda conn: marks.settle(conn, [row | {"seq": 4}], owner="me")) == 0
    assert stored(engine) == before


def load(engine: Engine, *seqs: int) -> list[Claimed]:
    return read(engine, lambda conn: marks.load(conn, seqs))


def test_a_row_is_read_with_what_its_copy_is_made_of_in_the_order_of_the_freeze(engine: Engine) -> None:
    changed = update(subscriber).where(subscriber.c.id == 2)
    fields = {"clinic": "Köln \u2028\"'\\", "given": "Ανν\U0001f600"}
    write(engine, lambda conn: conn.execute(changed.values(name="Zoë", fields=fields)))
    resent = update(delivery).where(delivery.c.seq == 3).values(reason=f"{doubts.RESENT}; 450 later", tries=2)
    write(engine, lambda conn: conn.execute(resent))
    first, second, third = load(engine, 3, 1, 2)
    assert [row.seq for row in (first, second, third)] == [1, 2, 3]
    assert (second.name, second.fields, second.resent) == ("Zoë", fields, False)
    assert (third.resent, third.tries, third.address) == (True, 2, "p3@example.org")
    assert (first.fields, first.subscription_id, len(first.id)) == ({}, 1, 16)


def test_an_erased_person_has_no_address_left_to_read(engine: Engine) -> None:
    nobody = update(subscriber).where(subscriber.c.id == 1).values(address=None, address_key=None)
    write(engine, lambda conn: conn.execute(nobody))
    assert load(engine, 1)[0].address == ""


# What a server or a socket may say; the transports pass it on as ``words``.
said = st.text(st.characters() | st.sampled_from("\x00\ud800\"'\\%:@\u2028"), max_size=40).map(words)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("marks")
    url = request.getfixturevalue("postgresql_server").create() if request.param == "postgresql" else ""
    engine = open_store(folder, people=2, url=url)
    freeze(engine)
    yield engine
    engine.dispose()


@settings(max_examples=settings.default.max_examples // 4)
@given(said, said)
def test_whatever_a_server_says_is_stored_as_it_was_said(shared: Engine, one: str, other: str) -> None:
    claim(shared, "me", DeliveryState.HANDED)
    refused = {
        "seq": 2,
        "state": "refused",
        "reason": other,
        "provider_id": "",
        "settled_at": 1,
        "not_before": None,
        "tries": 1,
    }
    assert accept(shared, {1: one}) == 1
    assert write(shared, lambda conn: marks.settle(conn, [refused], owner="me")) == 1
    (_, _, provider_id, *_), (_, reason, *_) = stored(shared)
    assert (provider_id, reason) == (one, other)

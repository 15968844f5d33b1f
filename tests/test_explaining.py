"""Why somebody is or is not in a send: then, and now."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from newsletter import choosing, explaining, personal_data
from newsletter.model import DeliveryState, Kind, SubscriptionState
from newsletter.store import personal, subscribers
from newsletter.store.engine import read, write
from newsletter.store.schema import delivery, subscription
from newsletter.store.subscribers import Consent
from tests.support.ledgers import NOW, TARGET, freeze, open_store
from tests.support.readers import SECRET, ZOE, emptied, joins, key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

LATER = NOW + timedelta(days=1)
BEFORE = NOW - timedelta(days=1)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One of each kind for all tests of this file."""
    url = request.getfixturevalue("postgresql_server").create() if request.param == "postgresql" else ""
    made = open_store(tmp_path_factory.mktemp("explaining"), url=url)
    yield made
    made.dispose()


@pytest.fixture
def engine(database: Engine) -> Engine:
    """A list that Bob is on, so that there is always somebody to send to."""
    joins(emptied(database), "bob@example.org")
    return database


def why(engine: Engine, slug: str | None = "2026-12", address: str = ZOE) -> str:
    """All sentences, one a line."""
    found = read(engine, lambda conn: explaining.explain(conn, key(address), slug, now=LATER))
    return "\n".join(sentence for part in found for sentence in part.sentences)


@pytest.mark.parametrize(
    ("state", "reason", "words"),
    [
        (DeliveryState.ACCEPTED, "", "Got a copy: the provider took it (2026-12-01"),
        (DeliveryState.REFUSED, "550 5.1.1 unknown", "but the provider refused it (2026-12-01"),
        (DeliveryState.REFUSED, "550 5.1.1 unknown", ": 550 5.1.1 unknown."),
        (DeliveryState.SKIPPED, "paused", "the copy was not sent (2026-12-01"),
        (DeliveryState.UNKNOWN, "cut off", "nobody can say whether it was taken"),
        (DeliveryState.PENDING, "", "the copy has not left yet"),
    ],
)
def test_a_row_of_the_ledger_is_the_proof(
    engine: Engine, state: DeliveryState, reason: str, words: str
) -> None:
    joins(engine)
    freeze(engine)
    said = {"state": state, "reason": reason, "settled_at": NOW}
    write(engine, lambda conn: conn.execute(update(delivery).values(said)))
    assert words in why(engine)


def test_whoever_came_later_was_not_there_yet(engine: Engine) -> None:
    freeze(engine)
    joins(engine, at=LATER)
    assert "came onto the list readers later, on 2026-12-02" in why(engine)
    assert "would get 2026-12" in why(engine)


def test_whoever_was_paused_then_is_told_so_though_it_has_ended_since(engine: Engine) -> None:
    zoe = joins(engine)
    write(engine, lambda conn: choosing.pause(conn, zoe, 3, source="x", now=BEFORE))
    freeze(engine)
    write(engine, lambda conn: choosing.resume(conn, zoe, source="x", now=NOW + timedelta(hours=1)))
    assert "At that time it was paused on the list readers, since 2026-11-30." in why(engine)
    assert "active since 2026-12-01: would get 2026-12" in why(engine)


def test_whoever_was_unsubscribed_or_not_confirmed_then_is_told_so(engine: Engine) -> None:
    zoe = joins(engine)
    write(engine, lambda conn: choosing.leave(conn, zoe, source="x", now=BEFORE))
    freeze(engine)
    assert "At that time it was unsubscribed" in why(engine)
    assert "unsubscribed since 2026-11-30. Gets nothing." in why(engine)


def test_whoever_was_suppressed_then_is_told_so(engine: Engine) -> None:
    joins(engine)
    write(engine, lambda conn: subscribers.suppress(conn, {key(ZOE): "bounced"}, source="x", now=BEFORE))
    freeze(engine)
    assert "At that time it was suppressed: bounced, since 2026-11-30." in why(engine)
    assert "but suppressed: bounced" in why(engine)


def test_what_left_no_trace_is_called_that(engine: Engine) -> None:
    zoe = joins(engine)
    gone = update(subscription).where(subscription.c.id == zoe)
    write(engine, lambda conn: conn.execute(gone.values(state=SubscriptionState.UNSUBSCRIBED)))
    freeze(engine)  # as if somebody had changed the database by hand
    assert "active at that time, as far as the consents say" in why(engine)


def test_a_person_on_two_lists_had_it_from_the_other_campaign(engine: Engine) -> None:
    joins(engine)
    joins(engine, list_name="carers")
    joins(engine, "eve@example.org", list_name="carers")
    freeze(engine, replace(TARGET, list="carers"))
    freeze(engine)
    assert "Another campaign of the issue had it already: 2026-12 to carers." in why(engine)
    assert "would not get 2026-12 again" in why(engine)


def test_a_rehearsal_may_have_gone_to_others_only(engine: Engine) -> None:
    joins(engine)
    freeze(engine, replace(TARGET, kind=Kind.REHEARSAL), only=frozenset({key("bob@example.org")}))
    assert "goes to the allowlist only" in why(engine)


def test_after_an_erasure_the_ledger_is_all_that_is_known(engine: Engine) -> None:
    joins(engine)
    freeze(engine)
    write(
        engine,
        lambda conn: conn.execute(update(delivery).values(state=DeliveryState.ACCEPTED, settled_at=NOW)),
    )
    freeze(engine, replace(TARGET, issue="2027-01", period="2027-01"))
    write(engine, lambda conn: conn.execute(delivery.delete().where(delivery.c.issue == "2027-01")))
    write(engine, lambda conn: personal_data.erase(conn, key(ZOE), now=LATER))
    assert "Got a copy" in why(engine)
    assert "Was erased on 2026-12-02" in why(engine)
    assert "Why can't be known any more" in why(engine, "2027-01")


def test_an_address_that_never_got_a_copy_is_known_as_erased_by_its_suppression(engine: Engine) -> None:
    joins(engine)
    write(engine, lambda conn: personal_data.erase(conn, key(ZOE), now=LATER))
    assert "Was erased on 2026-12-02" in why(engine, None)


def test_a_copy_belongs_to_the_person_also_under_a_new_address(engine: Engine) -> None:
    joins(engine)
    freeze(engine)
    new = "zoe.new@example.net"

    def move(conn: Connection) -> None:
        person = personal.owner_of(conn, key(ZOE))
        assert person is not None
        personal.move(conn, person, new, key(new))

    write(engine, move)
    assert "the copy has not left yet" in why(engine, address=new)
    assert "nothing says that it ever was" in why(engine)


def test_strangers_and_issues_that_nobody_sent_are_named(engine: Engine) -> None:
    assert why(engine, None, "who@example.org") == "Is on no list, and gets nothing."
    assert "Nothing was sent of this issue yet" in why(engine, "2030-01")
    freeze(engine)
    assert "is not on the list readers, and nothing says that it ever was" in why(
        engine, address="who@example.org"
    )
    assert SECRET.decode() not in why(engine)


def said(*acts: str) -> list[Consent]:
    return [Consent(NOW + timedelta(days=day), "readers", act, "") for day, act in enumerate(acts)]


@pytest.mark.parametrize(
    ("acts", "state"),
    [
        ((), None),
        (("asked",), "pending"),
        (("asked", "confirmed"), "active"),
        (("added", "asked"), "active"),
        (("added", "unsubscribed", "asked"), "unsubscribed"),
        (("added", "paused until 2027-01-01"), "paused"),
        (("added", "paused until 2027-01-01", "pause ended"), "active"),
        (("imported", "chose the edition large", "address changed"), "active"),
        (("something that nobody knows",), None),
    ],
)
def test_the_consents_tell_where_a_person_stood(acts: tuple[str, ...], state: str | None) -> None:
    assert explaining.state_after(said(*acts), NOW)[0] == state

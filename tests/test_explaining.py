"""Why somebody is or is not in a send: then, and now."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from newsletter import choosing, explaining, personal_data
from newsletter.errors import UsageError
from newsletter.model import CampaignState, DeliveryState, Kind, SubscriptionState
from newsletter.store import personal, subscribers
from newsletter.store.engine import read, write
from newsletter.store.schema import campaign, delivery, subscription
from newsletter.store.subscribers import Consent
from tests.support.ledgers import NOW, TARGET, freeze, open_store
from tests.support.readers import SECRET, ZOE, emptied, joins, key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

LATER = NOW + timedelta(days=1)
BEFORE = NOW - timedelta(days=1)
ISSUES = ("2026-12", "2030-01")


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
    found = read(engine, lambda conn: explaining.explain(conn, key(address), slug, issues=ISSUES, now=LATER))
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
    assert "will not get 2026-12, which is being sent: only those of its freeze (2026-12-01" in why(engine)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (CampaignState.RUNNING, "will not get 2026-12, which is being sent: only those of its freeze"),
        (CampaignState.PAUSED, "will not get 2026-12, which is being sent: only those of its freeze"),
        (CampaignState.FINISHED, "will not get 2026-12, which was sent before: only those of its freeze"),
        (CampaignState.CANCELLED, "will not get 2026-12, which was cancelled: only those of its freeze"),
        (CampaignState.PREPARING, "would get 2026-12 if it is sent to that list"),
    ],
)
def test_nobody_gets_an_issue_after_its_freeze(engine: Engine, state: CampaignState, words: str) -> None:
    freeze(engine)
    write(engine, lambda conn: conn.execute(update(campaign).values(state=state)))
    joins(engine, at=LATER)
    joins(engine, list_name="carers", at=LATER)
    found = why(engine).splitlines()
    assert [words in line for line in found if "On the list readers" in line] == [True]
    assert [line for line in found if "On the list carers" in line] == [
        "On the list carers, active since 2026-12-02: would get 2026-12 if it is sent to that list."
    ]


def test_a_slug_that_is_no_issue_is_a_clear_error(engine: Engine) -> None:
    for slug in ("nonsuch", "2026-12\udcff"):
        with pytest.raises(UsageError, match="There is no issue"):
            why(engine, slug)
    with pytest.raises(UsageError) as wrong:
        why(engine, "2026-21")
    assert wrong.value.hint == "Did you mean 2026-12?"


def test_an_issue_whose_folder_is_gone_is_known_by_what_was_sent(engine: Engine) -> None:
    freeze(engine, replace(TARGET, issue="2020-01", period="2020-01"))
    assert "not on the list readers" in why(engine, "2020-01")


@pytest.mark.parametrize("reason", ["complained", "manual"])
def test_whoever_can_not_come_back_alone_is_told_with_what_comes_first(engine: Engine, reason: str) -> None:
    zoe = joins(engine)
    write(engine, lambda conn: choosing.leave(conn, zoe, source="x", now=BEFORE))
    write(engine, lambda conn: subscribers.suppress(conn, {key(ZOE): reason}, source="x", now=BEFORE))
    assert why(engine, None).splitlines() == [
        f"On the list readers: unsubscribed since 2026-11-30, and suppressed: {reason}, since 2026-11-30."
        " Gets nothing.",
        f"Whoever is suppressed as {reason} can't come back alone: if they want to, "
        "`newsletter suppressions remove` comes first.",
    ]
    write(engine, lambda conn: personal_data.erase(conn, key(ZOE), now=LATER))
    assert "can't come back alone, and an erasure is for ever." in why(engine, None)


def test_a_copy_that_will_be_skipped_is_not_said_to_wait(engine: Engine) -> None:
    zoe = joins(engine)
    freeze(engine)
    write(engine, lambda conn: choosing.pause(conn, zoe, 1, source="x", now=LATER))
    assert "has not left yet; it will be skipped, because the person is paused now." in why(engine)
    write(engine, lambda conn: choosing.leave(conn, zoe, source="x", now=LATER))
    assert "has not left yet; it will be skipped, because the person is unsubscribed now." in why(engine)
    write(engine, lambda conn: personal_data.erase(conn, key(ZOE), now=LATER))
    joins(engine, at=LATER)  # somebody new: the copy is the old person's
    assert "has not left yet; it will be skipped" in why(engine)
    write(
        engine,
        lambda conn: subscribers.suppress(conn, {key("bob@example.org"): "bounced"}, source="", now=NOW),
    )
    assert "it will be skipped, because the person is suppressed now" in why(
        engine, address="bob@example.org"
    )


def test_whoever_was_erased_before_the_freeze_is_told_so(engine: Engine) -> None:
    joins(engine)
    write(engine, lambda conn: personal_data.erase(conn, key(ZOE), now=BEFORE))
    freeze(engine)
    assert "The person was erased on 2026-11-30, before it was frozen." in why(engine)


def test_whoever_was_paused_then_is_told_so_though_it_has_ended_since(engine: Engine) -> None:
    zoe = joins(engine)
    write(engine, lambda conn: choosing.pause(conn, zoe, 3, source="x", now=BEFORE))
    freeze(engine)
    write(engine, lambda conn: choosing.resume(conn, zoe, source="x", now=NOW + timedelta(hours=1)))
    assert "At that time it was paused on the list readers, since 2026-11-30." in why(engine)
    assert "active since 2026-12-01: will not get 2026-12" in why(engine)


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

"""Seeing, moving and erasing what is held about a person, on both databases."""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, func, insert, select, update

from newsletter import joining, personal_data, wiring
from newsletter.joining import SignUp, Wording
from newsletter.limits import Rate
from newsletter.model import DeliveryState, LetterPurpose, SubscriptionState
from newsletter.personal_data import export, export_by_key
from newsletter.store import letters as outbox
from newsletter.store import marks, personal, sqlite, subscribers
from newsletter.store.doubts import FIRST_UNKNOWN, RESENT
from newsletter.store.engine import open_engine, read, write
from newsletter.store.personal import codes_only
from newsletter.store.schema import consent, delivery, letter, metadata, subscriber, suppression, throttle
from tests.support.ledgers import NOW, freeze, open_store
from tests.support.readers import SECRET, ZOE, acts, emptied, joins, key, letters, state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Engine

NEW = "zoe.new@example.net"
NEVER = 99  # nobody's number
WORDING = Wording.of("I want the digest about multiple sclerosis by email.", "en")
SOON = NOW + timedelta(minutes=5)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One of each kind for all tests of this file."""
    url = request.getfixturevalue("postgresql_server").create() if request.param == "postgresql" else ""
    made = open_store(tmp_path_factory.mktemp("data"), url=url)
    yield made
    made.dispose()


@pytest.fixture
def engine(database: Engine) -> Engine:
    """A list without anybody on it."""
    return emptied(database)


def do(engine: Engine, act: Callable[..., Any], *args: object, now: datetime = SOON, **more: object) -> Any:
    """One press of a button."""
    return write(engine, lambda conn: act(conn, *args, now=now, **more))


def link(engine: Engine, number: int) -> tuple[int, datetime]:
    """Asks for the letter to the address on file; returns what its link says."""
    assert do(engine, personal_data.ask_access, number, secret=SECRET, now=NOW)
    expires = letters(engine, LetterPurpose.ACCESS)[-1]["expires_at"]
    assert isinstance(expires, datetime)
    return number, expires


def change_link(engine: Engine, number: int, address: str = NEW) -> tuple[int, datetime]:
    """Asks for another address; returns what the link in the letter to it says."""
    assert do(engine, personal_data.ask_change, *link(engine, number), address, secret=SECRET)
    expires = letters(engine, LetterPurpose.CHANGE)[-1]["expires_at"]
    assert isinstance(expires, datetime)
    return number, expires


def address_of(engine: Engine, number: int) -> str | None:
    """Where mail goes that this subscription brings."""
    query = select(subscriber.c.address).join_from(subscriber, metadata.tables["subscription"])
    return read(engine, lambda conn: conn.scalar(query.where(metadata.tables["subscription"].c.id == number)))


def asks(engine: Engine) -> None:
    """Signs up on the page; nobody has looked at it yet."""
    wish = SignUp(ZOE, "readers", name="Z.")
    limits = {"address_key": SECRET, "network": "203.0.113.9", "limits": Rate(20, 3600), "wording": WORDING}
    assert do(engine, joining.ask, wish, **limits)


def erase(engine: Engine, address: str = ZOE) -> Any:
    return do(engine, personal_data.erase, key(address))


def everything(engine: Engine) -> str:
    """Every value of every row, as text and bytes alike."""

    def look(conn: Any) -> str:
        rows = (row for table in metadata.sorted_tables for row in conn.execute(select(table)))
        return "\n".join(bytes(v).hex() if isinstance(v, bytes) else repr(v) for row in rows for v in row)

    return read(engine, look)


# The link


def test_a_link_to_ones_data_goes_to_the_address_on_file_and_works_once(engine: Engine) -> None:
    zoe = joins(engine)
    number, expires = link(engine, zoe)
    assert expires == (NOW + timedelta(hours=1)).replace(microsecond=0)
    assert do(engine, personal_data.usable, number, expires)
    assert do(engine, personal_data.download, number, expires)["person"]["address"] == ZOE
    assert not do(engine, personal_data.usable, number, expires)
    assert do(engine, personal_data.download, number, expires) is None
    assert not do(engine, personal_data.ask_change, number, expires, NEW, secret=SECRET)
    assert do(engine, personal_data.erase_by_link, number, expires) is None
    assert address_of(engine, zoe) == ZOE


def test_a_link_ends_after_an_hour_and_a_guess_opens_nothing(engine: Engine) -> None:
    zoe, bob = joins(engine), joins(engine, "bob@example.org")
    number, expires = link(engine, zoe)
    assert do(engine, personal_data.download, number, expires, now=expires) is None
    assert do(engine, personal_data.erase_by_link, bob, expires) is None
    assert do(engine, personal_data.download, number, expires + timedelta(seconds=1)) is None
    assert not do(engine, personal_data.ask_access, NEVER, secret=SECRET)


def test_nobody_fills_an_inbox_with_letters_about_data(engine: Engine) -> None:
    zoe = joins(engine)
    asked = [do(engine, personal_data.ask_access, zoe, secret=SECRET, now=NOW) for _ in range(20)]
    assert asked[0]
    assert 1 <= sum(asked) == len(letters(engine)) <= 4


# Seeing


def test_a_person_sees_every_column_that_is_held_about_them(engine: Engine) -> None:
    zoe = joins(engine)
    freeze(engine)
    do(engine, subscribers.suppress, {key(ZOE): "bounced"}, source="a bounce")
    write(engine, lambda conn: outbox.remember_wording(conn, WORDING.version, WORDING.text, "en", NOW))
    said = {"subscription_id": zoe, "at": NOW, "act": "confirmed", "source": "their link", "form": "website"}
    write(engine, lambda conn: conn.execute(insert(consent).values(said | {"wording": WORDING.version})))
    link(engine, zoe)
    found = read(engine, lambda conn: export_by_key(conn, key(ZOE)))
    assert json.loads(json.dumps(found)) == found
    assert found is not None
    parts = {
        "subscriber": [found["person"]],
        "subscription": found["lists"],
        "consent": found["lists"][0]["said"],
        "delivery": found["emails"],
        "letter": found["letters"],
        "suppression": found["never_mailed"],
    }
    for name, rows in parts.items():
        numbers = personal_data.INTERNAL | ({"id"} if name != "delivery" else set())
        assert rows, name
        assert {column.name for column in metadata.tables[name].columns} - numbers <= rows[0].keys(), name
    last = found["lists"][0]["said"][-1]
    assert (last["act"], last["form"], last["wording_text"]) == ("confirmed", "website", WORDING.text)
    assert found["person"]["fields"] == {"town": "Leeds"}


def test_nobody_sees_anything_of_anybody_else(engine: Engine) -> None:
    joins(engine)
    bob = joins(engine, "bob@example.org", name="Bob")
    freeze(engine)
    link(engine, bob)
    found = read(engine, lambda conn: export(conn, personal.owner_of(conn, key(ZOE)) or 0))
    assert "bob" not in json.dumps(found).lower()
    assert len(found["emails"]) == 1


def test_of_an_address_that_nobody_has_there_may_be_a_suppression(engine: Engine) -> None:
    assert read(engine, lambda conn: export_by_key(conn, key(ZOE))) is None
    do(engine, subscribers.suppress, {key(ZOE): "manual"}, source="a phone call")
    found = read(engine, lambda conn: export_by_key(conn, key(ZOE)))
    assert found is not None
    assert found["never_mailed"][0]["reason"] == "manual"


# Another address


def test_a_new_address_counts_once_somebody_there_said_yes(engine: Engine) -> None:
    zoe = joins(engine)
    number, expires = change_link(engine, zoe)
    assert [row["address"] for row in letters(engine, LetterPurpose.CHANGE)] == [NEW]
    assert address_of(engine, zoe) == ZOE
    change = {"source": "the new inbox"}
    assert do(engine, personal_data.change, number, expires, **change) == "changed"
    assert do(engine, personal_data.change, number, expires, **change) == "already"
    assert (address_of(engine, zoe), state_of(engine, zoe)) == (NEW, SubscriptionState.ACTIVE)
    assert acts(engine, zoe) == ["added", "address changed"]
    stopped = read(engine, lambda conn: subscribers.suppressed(conn, [key(ZOE), key(NEW)]))
    assert [(found.key, found.reason) for found in stopped.values()] == [(key(ZOE), "unsubscribed")]
    assert do(engine, personal_data.change, number, expires + timedelta(hours=1), **change) == "gone"
    assert do(engine, personal_data.change, NEVER, expires, **change) == "gone"


def test_what_is_no_address_leaves_the_link_as_it_was(engine: Engine) -> None:
    number, expires = link(engine, joins(engine))
    with pytest.raises(ValueError, match="@"):
        do(engine, personal_data.ask_change, number, expires, "nonsense", secret=SECRET)
    assert do(engine, personal_data.usable, number, expires)


def test_a_letter_about_a_new_address_tells_nothing_about_who_has_it(engine: Engine) -> None:
    zoe, _ = joins(engine), joins(engine, NEW)
    do(engine, subscribers.suppress, {key("bad@example.org"): "complained"}, source="")
    for address in (NEW, "bad@example.org", "nobody@example.org"):
        number, expires = link(engine, zoe)
        assert do(engine, personal_data.ask_change, number, expires, address, secret=SECRET)
        emptied_throttles(engine)
    assert {row["state"] for row in letters(engine, LetterPurpose.CHANGE)} == {"waiting"}


def test_asking_for_another_address_does_the_same_whoever_has_it_and_however_often(engine: Engine) -> None:
    """Else somebody could learn from the time of the answer who is here, or who has just signed up."""
    zoe, _ = joins(engine), joins(engine, NEW)
    done = []
    for address in (NEW, NEW, NEW, "nobody@example.org"):
        number, expires = link(engine, zoe)
        write(
            engine, lambda conn: conn.execute(throttle.delete().where(throttle.c.scope.not_in(scopes(NEW))))
        )
        with statements(engine) as seen:
            do(engine, personal_data.ask_change, number, expires, address, secret=SECRET)
        done.append(seen)
    assert done[0] == done[1] == done[2] == done[3]
    states = [row["state"] for row in letters(engine, LetterPurpose.CHANGE)]
    assert states == ["waiting", "waiting", "dropped", "waiting"]


def scopes(address: str) -> list[bytes]:
    return list(joining.letters_to(address, SECRET))


@contextmanager
def statements(engine: Engine) -> Iterator[list[str]]:
    """Each with its table, in their order."""
    seen: list[str] = []

    def listen(*call: Any) -> None:
        seen.append(str(call[2]))

    event.listen(engine, "before_cursor_execute", listen)
    yield seen
    event.remove(engine, "before_cursor_execute", listen)


def test_whoever_reads_the_letter_to_a_new_address_can_call_it_off(engine: Engine) -> None:
    number, expires = change_link(engine, joins(engine))
    for _ in range(2):
        assert do(engine, personal_data.refuse_change, number, expires, source="x") == "called off"
    assert do(engine, personal_data.change, number, expires, source="x") == "gone"
    assert address_of(engine, number) == ZOE
    assert NEW not in everything(engine)


def test_once_a_new_address_is_confirmed_unsubscribe_in_that_letter_means_unsubscribe(engine: Engine) -> None:
    number, expires = change_link(engine, joins(engine))
    assert do(engine, personal_data.change, number, expires, source="x") == "changed"
    assert do(engine, personal_data.refuse_change, number, expires, source="x") == "left"
    assert address_of(engine, number) == NEW
    assert state_of(engine, number) == SubscriptionState.UNSUBSCRIBED


def test_who_has_an_address_already_does_not_take_the_asker_off_by_saying_yes_and_then_no(
    engine: Engine,
) -> None:
    zoe, other = joins(engine), joins(engine, NEW, name="The other")
    number, expires = change_link(engine, zoe)
    for _ in range(2):
        assert do(engine, personal_data.change, number, expires, source="x") == "taken"
    assert do(engine, personal_data.refuse_change, number, expires, source="x") == "called off"
    assert do(engine, personal_data.change, number, expires, source="x") == "gone"
    assert {state_of(engine, one) for one in (zoe, other)} == {SubscriptionState.ACTIVE}


def test_a_month_later_nobody_knows_what_became_of_it(engine: Engine) -> None:
    number, expires = change_link(engine, joins(engine))
    write(engine, lambda conn: conn.execute(letter.delete()))
    assert do(engine, personal_data.refuse_change, number, expires, source="x") == "gone"


def emptied_throttles(engine: Engine) -> None:
    """An hour later."""
    write(engine, lambda conn: conn.execute(metadata.tables["throttle"].delete()))


def test_an_address_that_gets_our_mail_already_is_not_taken_over(engine: Engine) -> None:
    zoe, other = joins(engine), joins(engine, NEW, name="The other")
    assert do(engine, personal_data.change, *change_link(engine, zoe), source="x") == "taken"
    assert (address_of(engine, zoe), address_of(engine, other)) == (ZOE, NEW)
    assert state_of(engine, zoe) == SubscriptionState.ACTIVE


@pytest.mark.parametrize("state", ["unsubscribed", "pending"])
def test_an_address_that_gets_nothing_any_more_is_given_up_for_the_new_owner(
    engine: Engine, state: str
) -> None:
    zoe, other = joins(engine), joins(engine, NEW, state=state, name="Old name")
    assert do(engine, personal_data.change, *change_link(engine, zoe), source="x") == "changed"
    assert (address_of(engine, zoe), address_of(engine, other)) == (NEW, None)
    assert state_of(engine, other) == SubscriptionState.UNSUBSCRIBED
    assert "Old name" not in everything(engine)


@pytest.mark.parametrize(
    ("reason", "done"),
    [
        ("unsubscribed", "changed"),
        ("erased", "changed"),
        ("bounced", "changed"),
        ("complained", "gone"),
        ("manual", "gone"),
    ],
)
def test_a_persons_own_act_lifts_what_they_may_lift(engine: Engine, reason: str, done: str) -> None:
    zoe = joins(engine)
    do(engine, subscribers.suppress, {key(NEW): reason}, source="x")
    assert do(engine, personal_data.change, *change_link(engine, zoe), source="x") == done
    stopped = read(engine, lambda conn: key(NEW) in subscribers.suppressed(conn, [key(NEW)]))
    assert (address_of(engine, zoe), stopped) == ((NEW, False) if done == "changed" else (ZOE, True))


def test_the_same_address_in_other_letters_is_only_written_anew(engine: Engine) -> None:
    zoe = joins(engine)
    assert (
        do(engine, personal_data.change, *change_link(engine, zoe, "Zoe@Example.ORG"), source="x")
        == "changed"
    )
    assert (address_of(engine, zoe) or "").startswith("Zoe@")
    assert read(engine, lambda conn: subscribers.suppressed(conn, [key(ZOE)])) == {}


def test_a_copy_that_has_not_left_goes_to_the_new_address_and_never_to_both(engine: Engine) -> None:
    zoe = joins(engine)
    joins(engine, "bob@example.org")
    made = freeze(engine)
    claimed = update(delivery).values(state=DeliveryState.CLAIMED, owner="me")
    write(engine, lambda conn: conn.execute(claimed))
    seqs = read(engine, lambda conn: list(conn.scalars(select(delivery.c.seq).order_by(delivery.c.seq))))
    assert do(engine, personal_data.change, *change_link(engine, zoe), source="x") == "changed"
    # A sender that read the old address before may not use it any more …
    may = write(engine, lambda conn: marks.mark(conn, seqs, campaign=made.id, owner="me", now=SOON))
    assert may == {seqs[1]}
    # … and the row waits for whoever claims it with the new one, whose key is not suppressed.
    query = select(delivery.c.state, delivery.c.address_key).where(delivery.c.seq == seqs[0])
    [row] = read(engine, lambda conn: conn.execute(query).all())
    assert (row.state, bytes(row.address_key)) == (DeliveryState.PENDING, key(NEW))
    assert [one.address for one in read(engine, lambda conn: marks.load(conn, seqs[:1]))] == [NEW]


def test_an_issue_that_the_new_address_has_had_is_not_sent_there_again(engine: Engine) -> None:
    zoe, other = joins(engine), joins(engine, NEW)
    made = freeze(engine)
    query = select(delivery.c.seq).where(delivery.c.subscription_id == zoe)
    seq = read(engine, lambda conn: conn.scalar(query))
    write(engine, lambda conn: subscribers.unsubscribe(conn, [other], source="x", now=NOW))
    assert do(engine, personal_data.change, *change_link(engine, zoe), source="x") == "changed"
    row = update(delivery).where(delivery.c.seq == seq).values(state=DeliveryState.CLAIMED, owner="me")
    write(engine, lambda conn: conn.execute(row))
    assert (
        write(engine, lambda conn: marks.mark(conn, [seq], campaign=made.id, owner="me", now=SOON)) == set()
    )


# Erasing


def test_an_erased_person_is_gone_from_every_column_and_the_numbers_stay(engine: Engine) -> None:
    zoe = joins(engine)
    joins(engine, "bob@example.org", name="Bob")
    freeze(engine)
    link(engine, zoe)
    answer = {
        "state": DeliveryState.REFUSED,
        "reason": "550 5.1.1 user zoe at example.org unknown",
        "provider_id": "250 queued for zoe",
    }
    mine = delivery.c.subscription_id == zoe
    write(engine, lambda conn: conn.execute(update(delivery).where(mine).values(answer)))
    before = read(engine, lambda conn: conn.scalar(select(func.count()).select_from(delivery)))
    done = erase(engine)
    assert len(done.copies) == len(done.letters) == 1
    held = everything(engine)
    for word in ("zoe", "Zoë"):
        assert word not in held, word
    assert (held.count("Leeds"), held.count("'s mother rang")) == (1, 2)  # Bob's
    assert "bob@example.org" in held
    row = read(
        engine, lambda conn: conn.execute(select(delivery.c.reason, delivery.c.state).where(mine)).one()
    )
    assert tuple(row) == ("550 5.1.1", "refused")
    assert before == read(engine, lambda conn: conn.scalar(select(func.count()).select_from(delivery)))
    assert acts(engine, zoe) == ["added", "erased"]
    assert state_of(engine, zoe) == SubscriptionState.UNSUBSCRIBED


def test_erasing_again_takes_what_came_in_since_and_says_when_nobody_is_there(engine: Engine) -> None:
    zoe = joins(engine)
    freeze(engine)
    handed = update(delivery).values(state=DeliveryState.HANDED, owner="me")
    write(engine, lambda conn: conn.execute(handed))
    assert erase(engine).on_the_way == 1
    late = update(delivery).values(state=DeliveryState.REFUSED, reason="550 no zoe here")
    write(engine, lambda conn: conn.execute(late))
    assert erase(engine).on_the_way == 0
    assert "zoe here" not in everything(engine)
    assert acts(engine, zoe) == ["added", "erased"]
    assert erase(engine, "nobody@example.org") is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "erased"),
        ("unsubscribed", "erased"),
        ("bounced", "erased"),
        ("complained", "complained"),
        ("manual", "manual"),
    ],
)
def test_an_erased_address_stays_suppressed_for_the_graver_reason(
    engine: Engine, before: str, after: str
) -> None:
    joins(engine)
    if before:
        do(engine, subscribers.suppress, {key(ZOE): before}, source="Zoë rang")
    erase(engine)
    found = read(engine, lambda conn: conn.execute(select(suppression)).one())
    assert (bytes(found.address_key), found.reason, found.source) == (key(ZOE), after, "erased")


def test_an_erased_person_comes_back_by_their_own_confirmation_and_as_somebody_new(engine: Engine) -> None:
    zoe = joins(engine)
    erase(engine)
    asks(engine)
    [waiting] = write(engine, lambda conn: outbox.claim(conn, SOON))
    fresh = write(engine, lambda conn: joining.look(conn, waiting)).subscription_id
    assert fresh is not None
    assert fresh != zoe
    assert state_of(engine, fresh) == SubscriptionState.PENDING
    said = {"form": "page", "source": "", "wording": WORDING}
    done = do(engine, joining.confirm, fresh, expires=waiting.expires_at, **said)
    assert done == joining.Outcome.CONFIRMED
    assert (state_of(engine, fresh), state_of(engine, zoe)) == ("active", "unsubscribed")
    assert read(engine, lambda conn: subscribers.suppressed(conn, [key(ZOE)])) == {}


def test_the_link_of_an_erased_person_still_says_that_they_have_left(engine: Engine) -> None:
    from newsletter import choosing

    zoe = joins(engine)
    erase(engine)
    assert do(engine, choosing.leave, zoe, source="one click") == "already"
    found = read(engine, lambda conn: choosing.standing(conn, zoe))
    assert found is not None
    assert found.erased
    assert not do(engine, choosing.choose_edition, zoe, "large", source="x")
    assert not do(engine, personal_data.ask_access, zoe, secret=SECRET)


def test_a_person_erases_themselves_with_the_link_and_its_letter_goes_too(engine: Engine) -> None:
    number, expires = link(engine, joins(engine))
    assert do(engine, personal_data.erase_by_link, number, expires) is not None
    assert read(engine, lambda conn: conn.scalar(select(func.count()).select_from(letter))) == 0
    assert not do(engine, personal_data.usable, number, expires)


@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        ("", ""),
        ("550 5.1.1 zoe unknown", "550 5.1.1"),
        ("gave up: 450 4.2.1 zoe is full", "gave up: 450 4.2.1"),
        ("gave up: the connection was reset", "gave up"),
        (f"{RESENT}; 451 later, zoe", f"{RESENT}; 451"),
        (f"421 zoe; {FIRST_UNKNOWN}", f"421; {FIRST_UNKNOWN}"),
        ("unsubscribed", "unsubscribed"),
        ("suppressed: bounced", "suppressed: bounced"),
        ("user 555 unknown", ""),
        ("SendGrid answered 503: zoe", "SendGrid answered 503"),
        ("555123 is a phone number", ""),
    ],
)
def test_of_what_servers_said_only_their_codes_stay(reason: str, kept: str) -> None:
    assert codes_only(reason) == kept


@given(st.text(st.sampled_from("abzoe@.45 ;:-"), max_size=40))
def test_no_word_of_a_server_survives_an_erasure(said: str) -> None:
    assert not any(letter in "abzoe@" for letter in codes_only(f"550 {said}"))


def test_what_servers_say_after_an_erasure_is_cut_by_a_serving_process(engine: Engine) -> None:
    joins(engine)
    freeze(engine)
    handed = update(delivery).values(state=DeliveryState.HANDED, owner="me")
    write(engine, lambda conn: conn.execute(handed))
    erase(engine)
    keep_house = wiring.housekeeping(engine)
    keep_house()
    late = update(delivery).values(state=DeliveryState.REFUSED, reason="550 5.1.1 no zoe here")
    write(engine, lambda conn: conn.execute(late))
    keep_house()
    assert "zoe here" not in everything(engine)
    assert read(engine, lambda conn: conn.scalar(select(delivery.c.reason))) == "550 5.1.1"
    assert not write(engine, personal.cut_answers)


def test_a_sign_up_that_waits_can_be_erased_before_anybody_has_looked_at_it(engine: Engine) -> None:
    asks(engine)
    assert ZOE in everything(engine)
    assert erase(engine) is not None
    assert ZOE not in everything(engine)
    assert letters(engine) == []


def test_erasing_an_address_takes_the_letter_that_somebody_elses_change_sends_there(engine: Engine) -> None:
    change_link(engine, joins(engine))
    assert erase(engine, NEW) is not None
    assert NEW not in everything(engine)
    assert ZOE in everything(engine)


def test_an_address_of_which_nothing_is_known_leaves_no_trace_of_the_question(engine: Engine) -> None:
    before = everything(engine)
    assert erase(engine) is None
    assert everything(engine) == before


# What is left in free space


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A database in a file, and no patience with whoever reads it."""
    monkeypatch.setattr(sqlite, "SCRUB_SECONDS", 0.02)
    made = open_store(tmp_path)
    yield made
    made.dispose()


def on_disk(folder: Path) -> bool:
    """Whether any file of the database holds the address."""
    return any(ZOE.encode() in found.read_bytes() for found in folder.glob("newsletter.db*"))


@contextmanager
def somebody_reading(engine: Engine) -> Iterator[None]:
    """A backup that began before what the block does."""
    reader = open_engine(str(engine.url))
    with reader.connect() as conn, conn.begin():
        conn.execute(select(subscriber)).all()
        yield
    reader.dispose()


def test_erasing_once_more_finishes_what_a_backup_prevented(file: Engine, tmp_path: Path) -> None:
    joins(file)
    with somebody_reading(file):
        assert not personal_data.clear_up(file, tmp_path, erase(file))
        assert on_disk(tmp_path)
    assert personal_data.clear_up(file, tmp_path, erase(file))
    assert not on_disk(tmp_path)


def test_a_serving_process_finishes_it_by_itself(
    file: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keep_house = wiring.housekeeping(file)
    joins(file)
    with somebody_reading(file):
        personal_data.clear_up(file, tmp_path, erase(file))
        keep_house()
        assert "may still be in the database's free space" in caplog.text
        assert on_disk(tmp_path)
    keep_house()
    assert not on_disk(tmp_path)


def test_a_process_that_was_killed_after_the_erasure_leaves_it_to_the_next(
    file: Engine, tmp_path: Path
) -> None:
    joins(file)
    erase(file)  # and then nothing: it was killed
    assert on_disk(tmp_path)
    wiring.housekeeping(file)()
    assert not on_disk(tmp_path)


def test_of_two_erasures_at_once_neither_takes_the_others_for_done(engine: Engine) -> None:
    joins(engine)
    joins(engine, "bob@example.org")
    erase(engine)
    first = read(engine, personal.overwriting)
    erase(engine, "bob@example.org")
    assert first is not None
    write(engine, lambda conn: personal.end_overwriting(conn, first))
    assert read(engine, personal.overwriting) is not None
    assert personal_data.finish_overwriting(engine)
    assert read(engine, personal.overwriting) is None


# The files


def test_the_files_of_an_erased_persons_mails_go_and_nobody_elses(engine: Engine, tmp_path: Path) -> None:
    zoe = joins(engine)
    joins(engine, "bob@example.org")
    freeze(engine)
    link(engine, zoe)
    copies = read(
        engine,
        lambda conn: {row.subscription_id: bytes(row.id).hex() for row in conn.execute(select(delivery))},
    )
    mail = [tmp_path / "2026-12" / f"{number}.eml" for number in copies.values()]
    half, note = mail[0].with_name(f".{copies[zoe]}.tmp"), tmp_path / "letters" / f"{letters_id(engine)}.eml"
    for file in (*mail, half, note):
        file.parent.mkdir(exist_ok=True)
        file.write_text("a copy")
    assert personal_data.clear_up(engine, tmp_path, erase(engine))
    left = [file.stem for file in tmp_path.rglob("*.eml")] + [file.name for file in tmp_path.rglob(".*.tmp")]
    assert left == [number for owner, number in copies.items() if owner != zoe]
    assert personal_data.clear_up(engine, tmp_path / "nowhere", erase(engine))


def letters_id(engine: Engine) -> str:
    """Of the only letter."""
    [row] = letters(engine)
    number = row["delivery"]
    assert isinstance(number, bytes | memoryview)
    return bytes(number).hex()

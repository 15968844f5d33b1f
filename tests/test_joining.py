"""People come by themselves: the form says the same of everybody, and only a click on a mailed link brings them in."""

from __future__ import annotations

import re
import statistics
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, func, insert, select, update

from newsletter import addresses, choosing, joining, personal_data, subscriptions
from newsletter.joining import Look, Outcome, SignUp, Wording
from newsletter.limits import Rate
from newsletter.model import LetterPurpose, LetterState, SubscriptionState
from newsletter.store import letters, subscribers
from newsletter.store.engine import open_engine, read, write
from newsletter.store.schema import consent, letter, subscriber, subscription, suppression, wording

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Engine

NOW = datetime(2026, 12, 1, 9, 0, tzinfo=UTC)
SECRET = b"0123456789abcdef0123456789abcdef"
AGREED = Wording.of("I want to get it.", "en")
ZOE = "zoe@example.org"


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url, create=True)
    yield engine
    engine.dispose()


def key(address: str = ZOE) -> bytes:
    return addresses.key(address, SECRET)


def ask(
    engine: Engine,
    address: str = ZOE,
    *,
    list_name: str = "readers",
    now: datetime = NOW,
    network: str = "203.0.113.9",
    **said: str,
) -> bool:
    wish = SignUp(address, list_name, form="page", source="https://news.example.org/subscribe", **said)
    limits = Rate(20, 3600)
    return write(
        engine,
        lambda conn: joining.ask(
            conn, wish, address_key=SECRET, network=network, limits=limits, wording=AGREED, now=now
        ),
    )


def look(engine: Engine, now: datetime = NOW) -> Look:
    """As the office does: claims the one letter that waits."""

    def act(conn: Any) -> Look:
        [found] = letters.claim(conn, now)
        seen = joining.look(conn, found)
        letters.settle(conn, found.id, LetterState.SENT, now)
        return seen

    return write(engine, act)


def confirm(engine: Engine, number: int, now: datetime = NOW, *, asked: datetime = NOW) -> Outcome:
    expires = (asked + joining.CONFIRM_LASTS).replace(microsecond=0)
    return write(
        engine,
        lambda conn: joining.confirm(
            conn, number, expires=expires, form="confirm", source="link in a mail", wording=AGREED, now=now
        ),
    )


def join(engine: Engine, now: datetime = NOW) -> int:
    """The whole way; returns the subscription."""
    assert ask(engine, now=now)
    number = look(engine, now).subscription_id
    assert number is not None
    confirm(engine, number, now, asked=now)
    return number


def state(engine: Engine, address: str = ZOE) -> str | None:
    found = read(engine, lambda conn: subscribers.person(conn, key(address)))
    return found[0][1].state if found else None


def acts(engine: Engine) -> list[tuple[str, str, str]]:
    query = select(consent.c.act, consent.c.form, consent.c.wording).order_by(consent.c.id)
    return read(engine, lambda conn: [tuple(row) for row in conn.execute(query)])


def put(engine: Engine, status: SubscriptionState = SubscriptionState.ACTIVE, reason: str = "") -> None:
    """Somebody whom we know."""

    def act(conn: Any) -> None:
        list_id = subscribers.ensure_list(conn, "readers", NOW)
        newcomer = subscribers.Newcomer(key(), ZOE, status, "imported", "Zoë")
        subscribers.add_people(conn, list_id, [newcomer], source="a test", now=NOW)
        if reason:
            conn.execute(insert(suppression).values(address_key=key(), reason=reason, at=NOW, source=""))

    write(engine, act)


# --- asking ------------------------------------------------------------------------------------------------------


def test_whoever_asks_and_confirms_is_on_the_list_and_the_consent_can_be_shown(engine: Engine) -> None:
    assert ask(engine, name="Zoë")
    assert state(engine) is None, "asking alone makes no person"
    number = look(engine).subscription_id
    assert state(engine) == "pending"
    assert number is not None
    assert confirm(engine, number, NOW + timedelta(hours=1)) is Outcome.CONFIRMED
    assert state(engine) == "active"
    assert acts(engine) == [("asked", "page", AGREED.version), ("confirmed", "confirm", AGREED.version)]
    kept = read(engine, lambda conn: conn.execute(select(wording.c.version, wording.c.text)).all())
    assert [tuple(row) for row in kept] == [(AGREED.version, "I want to get it.")]
    [(_, person)] = read(engine, lambda conn: subscribers.person(conn, key()))
    assert (person.name, person.source) == ("Zoë", "https://news.example.org/subscribe")


SITUATIONS: dict[str, Callable[[Engine], object]] = {
    "nobody": lambda engine: None,
    "pending": lambda engine: put(engine, SubscriptionState.PENDING),
    "active": put,
    "unsubscribed": lambda engine: put(engine, SubscriptionState.UNSUBSCRIBED, "unsubscribed"),
    "complained": lambda engine: put(engine, SubscriptionState.UNSUBSCRIBED, "complained"),
    "manual": lambda engine: put(engine, reason="manual"),
    "asked a moment ago": lambda engine: [ask(engine, network=f"198.51.{n}.1") for n in range(3)][-1],
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_asking_does_the_same_whoever_it_is_about(engine: Engine, situation: str) -> None:
    """The same statements with the same shape: a stranger who asks learns nothing, however exactly they measure."""
    seen: list[str] = []
    write(engine, lambda conn: subscribers.ensure_list(conn, "readers", NOW))
    ask(engine, "first@example.org", network="198.51.100.1")  # the words are known from now on
    SITUATIONS[situation](engine)

    def listen(*call: Any) -> None:
        seen.append(str(call[2]))

    event.listen(engine, "before_cursor_execute", listen)
    assert ask(engine) is (situation != "asked a moment ago")
    event.remove(engine, "before_cursor_execute", listen)
    tables = [re.search(r"(?:FROM|INTO) (\w+)", statement) for statement in seen]
    assert [found[1] for found in tables if found] == ["throttle"] * 3 + ["wording", "list", "letter"]


@pytest.mark.full
def test_asking_takes_as_long_whoever_it_is_about(tmp_path: Path) -> None:
    """The same statements find the same number of rows, so a clock finds no more than its own noise."""
    engine = open_engine(f"sqlite:///{tmp_path}/newsletter.db", create=True)
    put(engine)
    spans: dict[str, list[float]] = {"known": [], "unknown": [], "refused": []}
    addresses_of = {"known": ZOE, "unknown": "ann@example.org", "refused": "often@example.org"}
    for turn in range(400):
        now = NOW + timedelta(days=turn)
        while ask(engine, "often@example.org", now=now, network="an attacker's"):
            pass
        for who in sorted(spans, reverse=turn % 2 == 0):
            begin = time.perf_counter()
            assert ask(engine, addresses_of[who], now=now, network=f"{who}-{turn}") is (who != "refused")
            spans[who].append(time.perf_counter() - begin)
    engine.dispose()
    middle = {who: statistics.median(each) for who, each in spans.items()}
    noise = statistics.median(abs(span - middle["unknown"]) for span in spans["unknown"])
    print(
        ", ".join(f"{who} {span * 1e6:.0f} µs" for who, span in middle.items()), f"noise {noise * 1e6:.0f} µs"
    )
    assert abs(middle["known"] - middle["unknown"]) < noise
    assert abs(middle["refused"] - middle["unknown"]) < noise


def test_a_flood_of_wishes_is_answered_and_forgotten(engine: Engine) -> None:
    first = [ask(engine, now=NOW + timedelta(minutes=5 * n), network=f"10.0.{n}.1") for n in range(4)]
    assert first == [True, True, True, False]
    hours = [ask(engine, now=NOW + timedelta(hours=n), network=f"10.1.{n}.1") for n in range(1, 73)]
    assert [hour for hour, one in enumerate(hours, 1) if one] == [1, 24, 48, 72], (
        "four in all, then one a day"
    )
    crowd = [ask(engine, f"reader{n}@example.org", network="203.0.113.77") for n in range(30)]
    assert sum(crowd) == joining.AT_ONCE


@pytest.mark.parametrize(
    "spellings",
    [
        ["zoe@example.org", "ZOE@example.org", "Zoe@EXAMPLE.org"],
        [f"zoe+{tag}@example.org" for tag in "abc"],
        ["zoe@example.org", "z.oe@example.org", "Z.o.e+news@example.org"],
    ],
)
def test_one_mailbox_is_not_flooded_however_its_address_is_written(
    engine: Engine, spellings: list[str]
) -> None:
    taken = [ask(engine, one, network=f"10.{n}.0.1") for n, one in enumerate(spellings)]
    assert taken == [True, True, False]


def test_what_was_refused_holds_nobody_and_is_swept_away(engine: Engine) -> None:
    for n in range(3):
        ask(engine, network=f"10.{n}.0.1", name="Zoë")
    rows = read(engine, lambda conn: conn.execute(select(letter)).all())
    assert [row.state for row in rows] == ["waiting", "waiting", "dropped"]
    assert (rows[2].address, rows[2].address_key, rows[2].name, rows[2].source) == (None, None, "", "")
    assert write(engine, lambda conn: letters.sweep(conn, NOW + timedelta(seconds=1)))
    assert read(engine, letters.counts) == {LetterState.WAITING: 2}


@pytest.mark.parametrize("name", ["a\nb: c", "=?utf-8?q?=0ABcc:x?=", "x" * 61])
def test_a_name_that_no_mail_could_hold_is_not_taken(engine: Engine, name: str) -> None:
    if "\n" in name:
        assert joining.tidy_name(name) == "a b: c"
        return
    with pytest.raises(ValueError, match="the name"):
        ask(engine, name=name)
    assert read(engine, lambda conn: conn.scalar(select(func.count()).select_from(letter))) == 0


# --- what the letter finds out -----------------------------------------------------------------------------------


def test_who_is_on_the_list_is_told_so_and_nothing_changes(engine: Engine) -> None:
    put(engine)
    ask(engine, "ZOE@Example.org", name="Mallory")
    assert look(engine).on_list
    [(_, person)] = read(engine, lambda conn: subscribers.person(conn, key()))
    assert (person.name, person.address, person.state) == ("Zoë", ZOE, "active")


@pytest.mark.parametrize("reason", ["complained", "manual"])
def test_where_somebody_said_more_than_goodbye_no_letter_leaves(engine: Engine, reason: str) -> None:
    put(engine, SubscriptionState.UNSUBSCRIBED, reason)
    ask(engine)
    assert look(engine).dropped == f"suppressed: {reason}"
    assert state(engine) == "unsubscribed"


@pytest.mark.parametrize("reason", ["unsubscribed", "bounced", "erased"])
def test_only_the_persons_own_click_lifts_a_suppression(engine: Engine, reason: str) -> None:
    put(engine, SubscriptionState.UNSUBSCRIBED, reason)
    ask(engine)
    number = look(engine).subscription_id
    assert number is not None
    assert state(engine) == "unsubscribed"
    assert confirm(engine, number) is Outcome.CONFIRMED
    assert state(engine) == "active"
    assert read(engine, lambda conn: subscribers.suppressed(conn, [key()])) == {}


def test_who_left_for_good_comes_back_to_the_one_list_that_they_confirm(engine: Engine) -> None:
    """Suppressed from outside, and never taken off the other list: lifting must not put them back there."""

    def both(conn: Any) -> None:
        for name, state_ in (
            ("events", SubscriptionState.ACTIVE),
            ("readers", SubscriptionState.UNSUBSCRIBED),
        ):
            newcomer = subscribers.Newcomer(key(), ZOE, state_, "imported")
            subscribers.add_people(
                conn, subscribers.ensure_list(conn, name, NOW), [newcomer], source="", now=NOW
            )
        subscribers.suppress(conn, {key(): "unsubscribed"}, source="", now=NOW)

    write(engine, both)
    ask(engine)
    number = look(engine).subscription_id
    assert number is not None
    assert confirm(engine, number) is Outcome.CONFIRMED
    found = read(engine, lambda conn: {one.list: one.state for _, one in subscribers.person(conn, key())})
    assert found == {"events": "unsubscribed", "readers": "active"}


def test_an_erased_person_can_come_back_by_themselves_and_in_no_other_way(engine: Engine) -> None:
    join(engine)
    write(engine, lambda conn: personal_data.erase(conn, key(), now=NOW))
    with pytest.raises(Exception, match="not put on readers: suppressed: erased"):
        subscriptions.add(engine, ZOE, "readers", SECRET, name="", source="", now=NOW)
    later = NOW + timedelta(days=2)
    number = join(engine, later)
    assert state(engine) == "active"
    assert read(engine, lambda conn: choosing.standing(conn, number)) is not None


# --- confirming --------------------------------------------------------------------------------------------------


def test_pressing_twice_is_pressing_once(engine: Engine) -> None:
    number = join(engine)
    before = acts(engine)
    assert confirm(engine, number, NOW + timedelta(days=1)) is Outcome.ALREADY
    assert acts(engine) == before


def test_an_old_confirmation_does_not_bring_back_who_has_left(engine: Engine) -> None:
    number = join(engine)
    write(engine, lambda conn: choosing.leave(conn, number, source="link in a mail", now=NOW))
    assert confirm(engine, number, NOW + timedelta(days=1)) is Outcome.GONE
    assert state(engine) == "unsubscribed"


def test_a_link_for_nobody_confirms_nobody(engine: Engine) -> None:
    assert confirm(engine, 7) is Outcome.GONE
    number = join(engine)
    wrong = confirm(engine, number, asked=NOW + timedelta(seconds=1))
    assert wrong is Outcome.GONE


def test_a_suppression_that_came_in_between_stands(engine: Engine) -> None:
    ask(engine)
    number = look(engine).subscription_id
    assert number is not None
    write(engine, lambda conn: subscribers.suppress(conn, {key(): "complained"}, source="", now=NOW))
    assert confirm(engine, number) is Outcome.GONE
    assert state(engine) == "pending"


def test_whoever_clicks_is_called_what_they_wrote_and_not_what_a_stranger_did(engine: Engine) -> None:
    ask(engine, name="Idiot")
    look(engine)
    hour = NOW + timedelta(hours=1)
    ask(engine, now=hour, name="Vera")
    number = look(engine, hour).subscription_id
    assert number is not None
    assert confirm(engine, number, hour, asked=hour) is Outcome.CONFIRMED
    assert name_of(engine) == "Vera"


@pytest.mark.parametrize(
    ("before", "list_name", "name", "after"),
    [
        ("active", "news", "", "Zoë"),
        ("active", "news", "Idiot", "Zoë"),  # whoever is on a list is renamed by no sign-up
        ("unsubscribed", "readers", "", "Zoë"),
        ("unsubscribed", "readers", "Zoe", "Zoe"),
        ("unsubscribed", "news", "", "Zoë"),
    ],
)
def test_who_was_here_before_is_renamed_by_themselves_only(
    engine: Engine, before: str, list_name: str, name: str, after: str
) -> None:
    put(engine, SubscriptionState(before))
    ask(engine, list_name=list_name, name=name)
    number = look(engine).subscription_id
    assert number is not None
    assert confirm(engine, number) is Outcome.CONFIRMED
    assert name_of(engine) == after


def name_of(engine: Engine) -> str:
    [name] = {person.name for _, person in read(engine, lambda conn: subscribers.person(conn, key()))}
    return name


# --- forgetting --------------------------------------------------------------------------------------------------


def test_who_never_confirms_is_forgotten_and_who_did_stays(engine: Engine) -> None:
    join(engine)
    ask(engine, "ann@example.org")
    look(engine)
    later = NOW + joining.UNCONFIRMED_KEPT
    assert not write(engine, lambda conn: joining.forget_unconfirmed(conn, later - timedelta(seconds=1)))
    assert write(engine, lambda conn: joining.forget_unconfirmed(conn, later))
    assert not write(engine, lambda conn: joining.forget_unconfirmed(conn, later))
    assert (state(engine, "ann@example.org"), state(engine)) == (None, "active")
    left = read(engine, lambda conn: conn.scalar(select(func.count()).select_from(subscriber)))
    assert left == 1


def test_who_asked_once_more_has_all_the_time_of_the_new_letter(engine: Engine) -> None:
    ask(engine)
    look(engine)
    again = NOW + joining.UNCONFIRMED_KEPT - timedelta(hours=1)
    ask(engine, now=again)
    number = look(engine, again).subscription_id
    assert number is not None
    late = again + timedelta(days=6)
    assert not write(engine, lambda conn: joining.forget_unconfirmed(conn, late))
    assert confirm(engine, number, late, asked=again) is Outcome.CONFIRMED


def test_a_person_of_another_list_is_kept_when_a_wish_is_forgotten(engine: Engine) -> None:
    put(engine)
    ask(engine, list_name="news")
    look(engine)
    write(engine, lambda conn: joining.forget_unconfirmed(conn, NOW + joining.UNCONFIRMED_KEPT))
    lists = read(engine, lambda conn: [person.list for _, person in subscribers.person(conn, key())])
    assert lists == ["readers"]


def test_a_letter_keeps_no_address_once_it_is_sent(engine: Engine) -> None:
    join(engine)
    rows = read(engine, lambda conn: conn.execute(select(letter)).all())
    assert [(row.address, row.address_key, row.name, row.purpose) for row in rows] == [
        (None, None, "", LetterPurpose.SUBSCRIBE)
    ]
    far = rows[0].expires_at + letters.KEPT
    assert write(engine, lambda conn: letters.sweep(conn, far))
    assert read(engine, letters.counts) == {}


def test_pausing_is_being_on_the_list(engine: Engine) -> None:
    number = join(engine)
    write(engine, lambda conn: choosing.pause(conn, number, 3, source="", now=NOW))
    later = NOW + timedelta(days=1)
    ask(engine, now=later)
    assert look(engine, later).on_list
    paused = select(subscription.c.state).where(subscription.c.id == number)
    assert read(engine, lambda conn: conn.scalar(paused)) == "paused"
    write(engine, lambda conn: conn.execute(update(subscription).values(state="unsubscribed")))

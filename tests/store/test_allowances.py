"""The shared allowance in the database: whoever takes from it, the sum obeys, across processes and restarts."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, func, insert, select

from newsletter import limits
from newsletter.errors import DatabaseError
from newsletter.limits import ALL, Limits, Rate
from newsletter.model import Kind, SubscriptionState
from newsletter.store import campaigns
from newsletter.store.allowances import Allowances
from newsletter.store.campaigns import Target
from newsletter.store.engine import open_engine, read, write
from newsletter.store.schema import allowance, subscriber, subscription
from tests.support.databases import python
from tests.support.ledgers import NOW, TARGET, key, open_store, suppress, unsubscribe
from tests.test_limits import assert_obeyed, gaps, rates

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from tests.support.postgresql import Server

GMAIL = "domain:gmail.com"
MICRO = timedelta(microseconds=1)
FIFTY = Limits(Rate(50, 1))
BOTH = Limits(Rate(50, 1), {"gmail.com": Rate(10, 1)})
FEWER = settings(max_examples=settings.default.max_examples // 2)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One database for all tests in here: they change one small table."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('allowances') / 'newsletter.db'}"
        return
    server: Server = request.getfixturevalue("postgresql_server")
    url = server.create()
    yield url
    server.drop(url)


@pytest.fixture(scope="module")
def database(url: str) -> Iterator[Engine]:
    engine = open_engine(url, create=True)
    yield engine
    engine.dispose()


@pytest.fixture
def engine(database: Engine) -> Engine:
    forget(database)
    return database


def take(
    engine: Engine, allowances: Allowances, now: datetime, want: int = sys.maxsize, scope: str = ALL
) -> int:
    """Takes what it can get, as a sender would; returns how much it was."""

    def spend(conn: Connection) -> int:
        room = allowances.room(conn, now)
        count = min(want, room.left(scope))
        room.spend(conn, {scope: count})
        return count

    return write(engine, spend, shared=True)


def opens_at(engine: Engine, own: Limits, now: datetime, scope: str = ALL) -> datetime:
    return write(engine, lambda conn: Allowances(own).room(conn, now).opens_at(scope), shared=True)


def forget(engine: Engine) -> None:
    write(engine, lambda conn: conn.execute(delete(allowance)))


# Whoever takes, and when


@given(rate=rates, takes=st.lists(st.tuples(gaps, st.integers(0, 2), st.integers(1, 5000)), max_size=12))
@FEWER
def test_several_senders_together_obey_one_rate(
    database: Engine, rate: Rate, takes: list[tuple[int, int, int]]
) -> None:
    forget(database)
    senders = [Allowances(Limits(rate)) for _ in range(3)]
    now, taken = NOW, []
    for gap, sender, want in takes:
        now += gap * MICRO
        if count := take(database, senders[sender], now, want):
            taken.append((now, count))
    assert_obeyed(rate, taken)


@given(
    together=rates,
    gmail=rates,
    takes=st.lists(st.tuples(gaps, st.sampled_from([ALL, GMAIL]), st.integers(1, 5000)), max_size=12),
)
@FEWER
def test_a_domains_limit_and_the_one_for_all_hold_at_the_same_time(
    database: Engine, together: Rate, gmail: Rate, takes: list[tuple[int, str, int]]
) -> None:
    forget(database)
    allowances = Allowances(Limits(together, {"gmail.com": gmail}))
    now, taken = NOW, []
    for gap, scope, want in takes:
        now += gap * MICRO
        if count := take(database, allowances, now, want, scope):
            taken.append((now, scope, count))
    assert_obeyed(together, [(when, count) for when, _, count in taken])
    assert_obeyed(gmail, [(when, count) for when, scope, count in taken if scope == GMAIL])


TAKER = """
import sys
from datetime import UTC, datetime
from newsletter.limits import ALL, Limits, Rate
from newsletter.store.allowances import Allowances
from newsletter.store.engine import open_engine, write

engine, allowances = open_engine(sys.argv[1]), Allowances(Limits(Rate(500, 1)))
sys.stdin.readline()  # both have begun

def take(conn):
    now = datetime.now(UTC)
    room = allowances.room(conn, now)
    count = min(7, room.left(ALL))
    room.spend(conn, {ALL: count})
    return now, count

left = 150
while left > 0:
    now, count = write(engine, take, shared=True)
    left -= count
    if count:
        print(now.isoformat(), count)
"""


def test_two_processes_on_one_database_obey_together(engine: Engine, url: str) -> None:
    takers = [python(TAKER, url) for _ in range(2)]
    for taker in takers:
        assert taker.stdin is not None
        taker.stdin.write("go\n")
        taker.stdin.flush()
    said = [taker.communicate(timeout=60)[0].splitlines() for taker in takers]
    assert [taker.returncode for taker in takers] == [0, 0]
    taken = [line.split() for lines in said for line in lines]
    assert sum(int(count) for _, count in taken) >= 300
    assert_obeyed(Rate(500, 1), [(datetime.fromisoformat(when), int(count)) for when, count in taken])


def test_a_process_that_looks_waits_for_one_that_is_spending(engine: Engine, url: str) -> None:
    """Side by side they would spend the same allowance twice."""
    other = open_engine(url)
    take(engine, Allowances(FIFTY), NOW)  # the row is there
    later = NOW + timedelta(seconds=1)

    def spend(conn: Connection) -> None:
        room = Allowances(FIFTY).room(conn, later)
        with pytest.raises(DatabaseError, match="keeps the database locked"):
            write(other, partial(Allowances(FIFTY).room, now=later), wait=0.05, shared=True)
        room.spend(conn, {ALL: room.left(ALL)})

    write(engine, spend, shared=True)
    assert take(other, Allowances(FIFTY), later) == 0
    other.dispose()


# What a process leaves behind


def test_a_restart_does_not_burst(engine: Engine, url: str) -> None:
    assert take(engine, Allowances(FIFTY), NOW) == FIFTY.rate.burst == 6
    again = open_engine(url)
    assert take(again, Allowances(FIFTY), NOW) == 0
    assert take(again, Allowances(FIFTY), NOW + timedelta(milliseconds=20)) == 1
    again.dispose()


def test_what_was_not_committed_was_not_spent(engine: Engine) -> None:
    allowances = Allowances(FIFTY)

    def fail(conn: Connection) -> None:
        allowances.room(conn, NOW).spend(conn, {ALL: 6})
        raise RuntimeError

    for _ in range(2):  # the first time the row itself is undone with it
        with pytest.raises(RuntimeError):
            write(engine, fail, shared=True)
    assert take(engine, allowances, NOW) == 6
    assert take(engine, allowances, NOW) == 0


def test_looking_costs_nothing(engine: Engine) -> None:
    allowances = Allowances(BOTH)
    for _ in range(3):
        assert take(engine, allowances, NOW, want=0) == 0
    assert take(engine, allowances, NOW) == 6


def test_each_limit_has_one_row_and_no_limit_has_none(engine: Engine) -> None:
    assert not Allowances(Limits())
    for _ in range(3):
        take(engine, Allowances(BOTH), NOW, want=1)
    assert read(engine, lambda conn: conn.scalar(select(func.count()).select_from(allowance))) == 2


# Domains


def test_a_domain_that_has_its_share_does_not_hold_up_the_others(engine: Engine) -> None:
    allowances = Allowances(BOTH)
    assert take(engine, allowances, NOW, scope=GMAIL) == 2
    assert take(engine, allowances, NOW, scope=GMAIL) == 0
    assert take(engine, allowances, NOW) == 4  # of six, the two to Gmail are among them
    assert opens_at(engine, BOTH, NOW, GMAIL) == NOW + timedelta(milliseconds=100)
    assert opens_at(engine, BOTH, NOW) == NOW + timedelta(milliseconds=20)


def test_a_domain_waits_for_the_limit_of_all_too(engine: Engine) -> None:
    allowances = Allowances(BOTH)
    take(engine, allowances, NOW)
    assert take(engine, allowances, NOW, scope=GMAIL) == 0
    assert opens_at(engine, BOTH, NOW, GMAIL) == NOW + timedelta(milliseconds=20)


def test_with_a_limit_for_one_domain_all_others_are_free(engine: Engine) -> None:
    own = Limits(domains={"gmail.com": Rate(10, 1)})
    assert take(engine, Allowances(own), NOW, want=100_000) == 100_000
    assert opens_at(engine, own, NOW) == NOW
    assert take(engine, Allowances(own), NOW, scope=GMAIL) == 2


def test_waiting_for_several_copies_is_waiting_for_a_burst_at_most(engine: Engine) -> None:
    take(engine, Allowances(FIFTY), NOW)
    room = write(engine, partial(Allowances(FIFTY).room, now=NOW), shared=True)
    assert room.opens_at(ALL, copies=3) == NOW + timedelta(milliseconds=60)
    assert room.opens_at(ALL, copies=1000) == NOW + timedelta(milliseconds=120)


# Clocks, and settings that change


@given(rate=rates, back=st.integers(0, 10**12))
@FEWER
def test_a_clock_that_goes_back_holds_nothing_up_for_longer_than_two_clocks_may_differ(
    database: Engine, rate: Rate, back: int
) -> None:
    forget(database)
    allowances = Allowances(Limits(rate))
    take(database, allowances, NOW)
    now = NOW - back * MICRO
    first = take(database, allowances, now)
    opens = opens_at(database, Limits(rate), now)
    assert opens - now <= limits.CLOCK_SLACK + rate.latest(NOW) - NOW
    assert first + take(database, allowances, opens) >= 1


def test_a_clock_that_was_far_ahead_is_put_right_at_the_first_look(engine: Engine) -> None:
    allowances = Allowances(FIFTY)
    take(engine, allowances, NOW + timedelta(days=365))
    assert take(engine, allowances, NOW) == 0
    assert opens_at(engine, FIFTY, NOW) == NOW + timedelta(milliseconds=20)


def test_a_clock_that_jumps_ahead_gives_one_burst(engine: Engine) -> None:
    allowances = Allowances(FIFTY)
    take(engine, allowances, NOW)
    assert take(engine, allowances, NOW + timedelta(days=365)) == 6


def test_who_raises_the_limit_need_not_wait_for_what_the_old_one_had_in_store(engine: Engine) -> None:
    assert take(engine, Allowances(Limits(Rate(1, 86400))), NOW) == 1
    assert take(engine, Allowances(FIFTY), NOW) == 0
    assert take(engine, Allowances(FIFTY), NOW + timedelta(milliseconds=20)) == 1


@pytest.mark.parametrize("text", ["1/d", "1000000/s"])
def test_the_slowest_and_the_fastest_rate(engine: Engine, text: str) -> None:
    rate = Rate.parse(text)
    assert rate is not None
    allowances = Allowances(Limits(rate))
    assert take(engine, allowances, NOW) == rate.burst
    assert take(engine, allowances, NOW) == 0
    assert take(engine, allowances, NOW + rate.takes(rate.burst)) == rate.burst


# Whom a planned send reaches


def person(engine: Engine, number: int, address: str) -> None:
    """One more on the list."""
    known = {"id": number, "address": address, "address_key": key(number), "name": "", "fields": {}}
    standing = {
        "id": number,
        "subscriber_id": number,
        "list_id": 1,
        "state": SubscriptionState.ACTIVE,
        "since": NOW,
    }

    def add(conn: Connection) -> None:
        conn.execute(insert(subscriber).values(**known, created_at=NOW))
        conn.execute(insert(subscription).values(standing))

    write(engine, add)


def test_the_recipients_at_each_limited_domain_are_counted_as_they_will_be_frozen(
    tmp_path: Path, database_url: str
) -> None:
    engine = open_store(tmp_path, url=database_url)
    people = (
        "a@gmail.com",
        "b@gmail.com",
        "c@mail.gmail.com",
        "gmail.com@example.org",
        "d@gmx.de",
        "e@gmail.com",
    )
    for number, address in enumerate(people, 1):
        person(engine, number, address)
    suppress(engine, 6)
    count = partial(campaigns.audience_by_domain, target=TARGET, domains=["gmail.com", "gmx.de", "g_x.de"])
    assert read(engine, partial(count, only=None)) == {"gmail.com": 2, "gmx.de": 1}
    assert read(engine, partial(count, only=frozenset({key(1)}))) == {"gmail.com": 1}
    unsubscribe(engine, 5)
    assert read(engine, partial(count, only=None)) == {"gmail.com": 2}
    other = Target("2026-12", "2026-12", "editors", Kind.LIVE)
    assert read(engine, partial(count, target=other, only=None)) == {}
    assert read(engine, partial(count, domains=[], only=None)) == {}
    engine.dispose()

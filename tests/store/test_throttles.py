"""How often strangers may ask: nobody can be flooded with letters, and whose row it is stays unknown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from newsletter.limits import Rate
from newsletter.store import throttles
from newsletter.store.engine import open_engine, read, write
from newsletter.store.schema import throttle
from newsletter.store.throttles import Allowance, network, scope

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Engine

NOW = datetime(2026, 12, 1, 9, 0, tzinfo=UTC)
SECRET = b"0123456789abcdef0123456789abcdef"
ZOE, CLINIC = scope("address", "zoe@example.org", SECRET), scope("network", "203.0.113.0/24", SECRET)
SIX_AN_HOUR = Allowance(Rate(6, 3600), 2)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url, create=True)
    yield engine
    engine.dispose()


def take(engine: Engine, now: datetime, **wanted: Allowance) -> bool:
    scopes = {{"zoe": ZOE, "clinic": CLINIC}[name]: allowance for name, allowance in wanted.items()}
    return write(engine, lambda conn: throttles.take(conn, scopes, now))


def test_a_few_may_come_at_once_and_then_as_many_as_the_rate_gives(engine: Engine) -> None:
    taken = [take(engine, NOW + timedelta(minutes=minute), zoe=SIX_AN_HOUR) for minute in range(31)]
    assert [minute for minute, one in enumerate(taken) if one] == [0, 1, 10, 20, 30]


def test_one_scope_without_room_keeps_the_others_untouched(engine: Engine) -> None:
    plenty = Allowance(Rate(100, 1), 100)
    assert take(engine, NOW, zoe=Allowance(Rate(1, 3600), 1))
    for _ in range(3):
        assert not take(engine, NOW, zoe=Allowance(Rate(1, 3600), 1), clinic=plenty)
    hundred = [take(engine, NOW, clinic=plenty) for _ in range(101)]
    assert hundred == [True] * 100 + [False]


def test_what_is_over_is_taken_away(engine: Engine) -> None:
    take(engine, NOW, zoe=SIX_AN_HOUR, clinic=Allowance(Rate(1, 86400), 1))
    write(engine, lambda conn: throttles.sweep(conn, NOW + timedelta(hours=1)))
    rows = read(engine, lambda conn: conn.execute(select(throttle)).all())
    assert [bytes(row.scope) for row in rows] == [CLINIC]


def test_a_row_tells_nobody_whose_it_is_without_the_secret() -> None:
    assert scope("address", "a", SECRET) != scope("network", "a", SECRET)
    assert scope("address", "a", SECRET) != scope("address", "a", bytes(32))
    assert len(scope("address", "a", SECRET)) == 16


@pytest.mark.parametrize(
    ("client", "whole"),
    [
        ("203.0.113.9", "203.0.113.0/24"),
        ("2001:db8:12:3456:1::1", "2001:db8:12::/48"),
        ("::ffff:203.0.113.9", "203.0.113.0/24"),
        ("testclient", "testclient"),
    ],
)
def test_neighbours_share_a_network(client: str, whole: str) -> None:
    assert network(client) == whole


@given(st.lists(st.integers(0, 900), min_size=1, max_size=40), st.integers(1, 5))
def test_in_any_hour_there_are_never_more_than_the_rate_and_the_burst_give(
    gaps: list[int], burst: int
) -> None:
    """The rule itself, without a database: what ``take`` computes with."""
    rate, free_at, now, taken = Rate(6, 3600), NOW, NOW, list[datetime]()
    for gap in gaps:
        now += timedelta(seconds=gap)
        later = throttles.after(Allowance(rate, burst), free_at, now)
        if later is not None:
            free_at = later
            taken.append(now)
    for begin in taken:
        within = [one for one in taken if begin <= one < begin + timedelta(hours=1)]
        assert len(within) <= rate.count + burst


WISHES = st.lists(
    st.tuples(st.sets(st.integers(0, 2), min_size=1), st.integers(0, 400)), min_size=1, max_size=25
)


def test_the_rows_say_what_the_rule_says_and_a_refusal_leaves_them_alone(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/newsletter.db", create=True)
    runs = count()

    @given(WISHES)
    @settings(max_examples=30)
    def agree(wishes: list[tuple[set[int], int]]) -> None:
        run, now, known = next(runs), NOW, dict[int, datetime]()
        for wanted, gap in wishes:
            now += timedelta(seconds=gap)
            later = {one: throttles.after(SIX_AN_HOUR, known.get(one), now) for one in wanted}
            scopes = {scope("address", f"{run}-{one}", SECRET): SIX_AN_HOUR for one in wanted}
            taken = write(engine, lambda conn, scopes=scopes, now=now: throttles.take(conn, scopes, now))  # type: ignore[misc]
            assert taken is (None not in later.values())
            known |= {one: at for one, at in later.items() if at} if taken else {}

    agree()
    engine.dispose()

"""Group commit: one transaction for all who ask at the same moment, and nobody pays for another's mistake."""

from __future__ import annotations

import threading
from concurrent.futures import wait
from functools import partial
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event

from newsletter.errors import DatabaseError
from newsletter.store.engine import open_engine, write
from newsletter.store.group import MOST, Group
from tests.support.databases import put, values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url, create=True)
    yield engine
    engine.dispose()


@pytest.fixture
def group(engine: Engine) -> Iterator[Group]:
    group = Group(engine)
    yield group
    group.close()


class Gate:
    """The first to write waits here, so that the others gather behind it."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()

    def __call__(self, conn: Connection) -> None:
        self.reached.set()
        assert self.open.wait(60)


def commits(engine: Engine) -> list[object]:
    found: list[object] = []
    event.listen(engine, "commit", found.append)
    return found


def test_what_was_asked_for_is_committed_when_the_answer_comes(engine: Engine, group: Group) -> None:
    assert group.write(lambda conn: put(conn, "a")).result(60) is None
    assert "a" in values(engine)
    assert group.read(lambda conn: conn.info is not None)


def test_those_who_wait_share_one_commit_and_keep_their_order(engine: Engine, group: Group) -> None:
    gate, order = Gate(), list[int]()
    first = group.write(gate)
    assert gate.reached.wait(60)

    def later(number: int, conn: Connection) -> int:
        put(conn, f"key {number}")
        order.append(number)
        return number

    found = commits(engine)
    # The gate is held far longer than one transaction takes more, so these come in the next one.
    futures = [group.write(partial(later, number)) for number in range(20)]
    gate.open.set()
    assert [future.result(60) for future in futures] == list(range(20))
    assert first.result(60) is None
    assert order == list(range(20))
    assert len(found) <= 2


def test_the_same_thing_for_many_is_done_in_one_call(engine: Engine, group: Group) -> None:
    gate, calls = Gate(), list[list[int]]()
    group.write(gate)
    assert gate.reached.wait(60)

    def squares(conn: Connection, numbers: list[int]) -> dict[int, int]:
        calls.append(numbers)
        if 13 in numbers:
            put(conn, "13")
        return {number: number**2 for number in numbers}

    futures = [group.write_one_of(squares, number) for number in (1, 2, 2, 3)]
    between = group.write(lambda conn: put(conn, "13"))
    unlucky = group.write_one_of(squares, 13)
    gate.open.set()
    wait([*futures, between, unlucky], 60)
    assert [future.result() for future in futures] == [1, 4, 4, 9]
    assert calls[:2] == [[1, 2, 2, 3], [13]]  # which failed, so each was done once more by itself
    assert calls[2:] == [[1], [2], [2], [3], [13]]
    assert type(unlucky.exception()).__name__ == "IntegrityError"


def test_one_who_fails_fails_alone(engine: Engine, group: Group) -> None:
    gate = Gate()
    group.write(gate)
    assert gate.reached.wait(60)
    before = group.write(lambda conn: put(conn, "before"))
    twice = group.write(lambda conn: put(conn, "before"))  # a key that is taken
    after = group.write(lambda conn: put(conn, "after"))
    gate.open.set()
    wait([before, twice, after], 60)
    assert before.exception() is None
    assert type(twice.exception()).__name__ == "IntegrityError"
    assert after.exception() is None
    assert {"before", "after"} <= set(values(engine))


def test_a_crowd_is_written_in_several_transactions(engine: Engine, group: Group) -> None:
    gate = Gate()
    group.write(gate)
    assert gate.reached.wait(60)
    futures = [group.write(lambda conn, n=n: put(conn, f"key {n}")) for n in range(2 * MOST + 1)]
    found = commits(engine)
    gate.open.set()
    wait(futures, 60)
    assert all(future.exception() is None for future in futures)
    assert len(found) >= 3
    assert len(values(engine)) >= 2 * MOST + 1


def test_whoever_gave_up_waiting_has_still_asked(engine: Engine, group: Group) -> None:
    gate = Gate()
    group.write(gate)
    assert gate.reached.wait(60)
    future = group.write(lambda conn: put(conn, "asked"))
    assert not future.cancel()
    gate.open.set()
    group.close()
    assert "asked" in values(engine)


def test_closing_writes_what_was_asked_for_and_takes_no_more(engine: Engine) -> None:
    group = Group(engine)
    futures = [group.write(lambda conn, n=n: put(conn, f"key {n}")) for n in range(50)]
    group.close()
    assert all(future.done() and future.exception() is None for future in futures)
    with pytest.raises(DatabaseError):
        group.write(put)
    group.close()  # the second time changes nothing


def test_a_database_that_can_not_be_written_is_told_to_everybody_who_waits(
    engine: Engine,
) -> None:
    group, gate = Group(engine, wait=0.05), Gate()
    holder = threading.Thread(target=write, args=(engine, gate))
    holder.start()
    assert gate.reached.wait(60)
    with pytest.raises(DatabaseError, match=r"locked|waited|busy"):
        group.write(put).result(60)
    gate.open.set()
    holder.join()
    group.write(lambda conn: put(conn, "later")).result(60)
    group.close()
    assert "later" in values(engine)

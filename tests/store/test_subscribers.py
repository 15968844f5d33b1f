"""Many people at once: what it costs does not depend on how many there are already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from newsletter.model import SubscriptionState
from newsletter.store import subscribers
from newsletter.store.engine import open_engine, write
from newsletter.store.subscribers import Newcomer
from tests.support.ledgers import NOW

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection


def people(first: int, count: int) -> list[Newcomer]:
    return [
        Newcomer(
            number.to_bytes(16, "big"), f"r{number}@example.org", SubscriptionState.ACTIVE, "imported", "Ann"
        )
        for number in range(first, first + count)
    ]


def test_the_thousandth_hundred_costs_what_the_first_did(tmp_path: Path) -> None:
    """In steps of SQLite's machine. A plan that walks the list made importing a million take eight times as long."""
    engine, steps = open_engine(f"sqlite:///{tmp_path}/newsletter.db", create=True), [0, 0]

    def add(conn: Connection, turn: int) -> None:
        raw: Any = conn.connection.driver_connection
        raw.set_progress_handler(lambda: steps.__setitem__(turn, steps[turn] + 1), 10)
        known = subscribers.ensure_list(conn, "readers", NOW)
        subscribers.add_people(conn, known, people(turn * 10_000, 100), source="a test", now=NOW)
        raw.set_progress_handler(None, 0)

    def crowd(conn: Connection) -> None:
        known = subscribers.ensure_list(conn, "readers", NOW)
        subscribers.add_people(conn, known, people(100, 5_000), source="a test", now=NOW)

    write(engine, lambda conn: add(conn, 0))
    write(engine, crowd)
    write(engine, lambda conn: add(conn, 1))
    engine.dispose()
    assert steps[1] < 1.5 * steps[0], steps

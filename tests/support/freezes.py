"""Freezes that were cut off, and lists that are large."""

from __future__ import annotations

import multiprocessing
import os
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import insert

from newsletter import addresses, freezing, recovery
from newsletter.store import preparing
from newsletter.store.engine import open_engine, read, write
from newsletter.store.preparing import Content
from newsletter.store.schema import owner
from tests.support.commits import Deadly, on_each_side
from tests.support.ledgers import EMAIL, MESSAGE, NOW, TARGET

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.process import BaseProcess
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from newsletter.store.campaigns import Target

CONTENT = Content([EMAIL], MESSAGE.to_dict(), "memory")


def enrol(engine: Engine, name: str) -> str:
    """A sending process of this name begins."""
    row = {"id": name, "name": name, "way": "memory", "started_at": NOW, "seen_at": NOW}
    write(engine, lambda conn: conn.execute(insert(owner).values(row)))
    return name


def cut_off_freeze(
    engine: Engine, *, people: int, target: Target = TARGET, content: Content = CONTENT, mine: str = "gone"
) -> int:
    """What a freeze leaves whose process dies after that many rows; the campaign's id."""
    made = write(engine, partial(preparing.create, target=target, content=content, mine=mine, now=NOW))
    look = partial(preparing.changes, campaign_id=made, target=target, only=None, after=0, limit=people)
    some = read(engine, look)
    assert write(engine, lambda conn: preparing.apply(conn, made, target, some, mine=mine))
    return made


def crowd_in(file: Path, count: int, secret: bytes) -> None:
    """Puts that many people on the list with id 1, at once: the import takes ten minutes for a million."""
    engine = open_engine(f"sqlite:///{file}")
    write(engine, lambda conn: _insert(conn, count, secret))
    engine.dispose()


def address(number: int) -> str:
    """Of person ``number``."""
    return f"reader{number}@example.org"


def _insert(conn: Connection, count: int, secret: bytes) -> None:
    raw = conn.connection.driver_connection
    last = conn.exec_driver_sql("SELECT coalesce(max(id), 0) FROM subscriber").scalar_one()
    raw.executemany(
        "INSERT INTO subscriber (id, address, address_key, name, fields, edition, created_at)"
        " VALUES (?, ?, ?, ?, '{}', 'standard', 0)",
        _people(last + 1, count, secret),
    )
    raw.execute(
        "INSERT INTO subscription (subscriber_id, list_id, state, since, source)"
        " SELECT id, 1, 'active', 0, 'a test' FROM subscriber WHERE id > ? ORDER BY id",
        (last,),
    )


def _people(first: int, count: int, secret: bytes) -> Iterator[tuple[int, str, bytes, str]]:
    for number in range(first, first + count):
        yield number, address(number), addresses.key(address(number), secret), f"Reader {number}"


# Processes that freeze, to be killed. Forked from a server that has imported everything: 10 ms each instead of 700.

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.support.freezes"])


def freezing_process(url: str, target: Target = TARGET, *, killed_at: int = 0) -> BaseProcess:
    """A started process that plans and freezes; ends itself at its ``killed_at``-th half write transaction.

    The odd ones are before the commit, the even ones after it.
    """
    process = _FORKS.Process(target=_freeze_there, args=(url, target, killed_at))
    process.start()
    return process


def _freeze_there(url: str, target: Target, killed_at: int) -> None:
    engine = open_engine(url)
    mine = enrol(engine, f"process {os.getpid()}")
    recovery.recover(engine, mine, NOW)
    if killed_at:
        on_each_side(Deadly(killed_at), engine)  # odd: before a commit, even: after it
    planned = freezing.plan(engine, target)
    freezing.freeze(engine, planned, [EMAIL], MESSAGE, transport="memory", now=NOW, owner=mine)

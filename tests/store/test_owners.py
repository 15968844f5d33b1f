"""Who sends, on each database: rows that live as long as their process."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from newsletter.errors import Occupied
from newsletter.store import owners
from newsletter.store.engine import many_senders, open_engine, read, write
from newsletter.store.schema import owner
from tests.support.ledgers import NOW
from tests.support.waiting import wait_for

KNOWN = {"name": "process 1 on a", "way": "smtp 127.0.0.1:25", "clock": lambda: NOW}


@pytest.fixture
def engine(database_url):
    engine = open_engine(database_url, create=True)
    yield engine
    engine.dispose()


def test_a_sender_is_at_work_while_its_block_runs(engine, tmp_path):
    assert owners.at_work(engine, tmp_path / "lock") == []
    with owners.own(engine, tmp_path / "lock", **KNOWN) as mine:
        (found,) = owners.at_work(engine, tmp_path / "lock")
        assert (found.id, found.name, found.way) == (mine, "process 1 on a", "smtp 127.0.0.1:25")
        assert read(engine, lambda conn: owners.is_living(conn, mine))
    assert owners.at_work(engine, tmp_path / "lock") == []
    assert not read(engine, lambda conn: owners.is_living(conn, mine))


def test_a_second_one_is_refused_on_sqlite_and_joins_in_on_postgresql(engine, tmp_path):
    with owners.own(engine, tmp_path / "lock", **KNOWN):
        if many_senders(engine):
            with owners.own(engine, tmp_path / "lock", **KNOWN):
                assert len(owners.at_work(engine, tmp_path / "lock")) == 2
        else:
            with pytest.raises(Occupied, match="process 1 on a"):
                owners.own(engine, tmp_path / "lock", **KNOWN).__enter__()


def test_the_dead_are_buried_once_and_the_living_stay(engine, tmp_path):
    row = {"id": "dead", "name": "process 0", "way": "", "started_at": NOW, "seen_at": NOW}
    write(engine, lambda conn: conn.execute(owner.insert().values(row)))
    with owners.own(engine, tmp_path / "lock", **KNOWN) as mine:
        assert write(engine, lambda conn: owners.bury(conn, mine, NOW)) == ["dead"]
        assert write(engine, lambda conn: owners.bury(conn, mine, NOW)) == []
        assert [one.id for one in owners.at_work(engine, tmp_path / "lock")] == [mine]


def test_the_newest_moment_in_the_rows_is_what_the_clock_is_held_against(engine):
    assert read(engine, owners.newest) is None
    later = NOW.replace(year=2030)
    row = {"id": "one", "name": "", "way": "", "started_at": NOW, "seen_at": NOW, "settled_at": later}
    write(engine, lambda conn: conn.execute(owner.insert().values(row)))
    assert read(engine, owners.newest) == later


# --- PostgreSQL: the lock and the lease


@pytest.fixture
def server(postgresql_url):
    engine = open_engine(postgresql_url)
    yield engine
    engine.dispose()


def long_ago(engine, one):
    old = owner.update().where(owner.c.id == one).values(seen_at=NOW.replace(year=2020))
    write(engine, lambda conn: conn.execute(old))


def test_an_owner_whose_connection_ended_is_dead(server, tmp_path):
    cut = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1"
    with owners.own(server, tmp_path, **KNOWN) as dead:
        write(server, lambda conn: conn.exec_driver_sql(cut))
        wait_for(lambda: owners.at_work(server, tmp_path) == [])
        assert write(server, lambda conn: owners.bury(conn, "me", NOW)) == [dead]
        assert not read(server, lambda conn: owners.is_living(conn, dead))


def test_an_owner_that_notices_it_puts_itself_out(server, tmp_path, monkeypatch):
    monkeypatch.setattr(owners, "BEAT_SECONDS", 0.01)
    cut = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1"
    with owners.own(server, tmp_path, **KNOWN) as mine:
        write(server, lambda conn: conn.exec_driver_sql(cut))
        wait_for(lambda: not read(server, lambda conn: owners.is_living(conn, mine)))


def test_an_owner_whose_lease_ran_out_is_dead_even_if_the_server_has_not_noticed(server, tmp_path):
    with owners.own(server, tmp_path, **KNOWN) as silent:
        long_ago(server, silent)
        assert write(server, lambda conn: owners.bury(conn, "me", NOW)) == [silent]


def test_a_living_owner_renews_its_lease(server, tmp_path, monkeypatch):
    monkeypatch.setattr(owners, "BEAT_SECONDS", 0.01)
    with owners.own(server, tmp_path, **KNOWN) as mine:
        long_ago(server, mine)
        seen = select(owner.c.seen_at).where(owner.c.id == mine)
        wait_for(lambda: read(server, lambda conn: conn.scalar(seen)).year > 2020)


def test_a_machine_whose_clock_is_behind_is_not_taken_for_dead(server, tmp_path):
    behind = KNOWN | {"clock": lambda: NOW.replace(year=2020)}
    with owners.own(server, tmp_path, **behind) as mine:
        assert [one.id for one in owners.at_work(server, tmp_path)] == [mine]

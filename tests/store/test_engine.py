"""The database: durable, shared by processes, clear about what is wrong with it. What is kept on both kinds."""

from __future__ import annotations

import threading
import traceback
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from newsletter.errors import ConfigError, DatabaseError
from newsletter.store.engine import (
    SCHEMA,
    check_schema,
    create_or_upgrade,
    ensure_keys,
    health,
    open_engine,
    read,
    write,
)
from newsletter.store.schema import list_, meta
from tests.support.databases import holder, put, python, sql, values
from tests.support.ledgers import NOW

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from tests.support.postgresql import Server

COUNT = """
import sys
from sqlalchemy import text
from newsletter.store.engine import open_engine, write

def more(conn):
    number = int(conn.scalar(text("SELECT value FROM meta WHERE key = 'count'")))
    conn.execute(text("UPDATE meta SET value = :next WHERE key = 'count'"), {"next": str(number + 1)})

engine = open_engine(sys.argv[1], create=True)
for _ in range(int(sys.argv[2])):
    write(engine, more)
"""


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """A database that is ready."""
    made = open_engine(database_url, create=True)
    yield made
    made.dispose()


@pytest.fixture
def busy(engine: Engine, database_url: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the write lock until it is told to end."""
    process = holder(database_url)
    yield process
    process.communicate()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without any table; on SQLite not even the file."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/newsletter.db"
        return
    server: Server = request.getfixturevalue("postgresql_server")
    url = server.create(empty=True)
    yield url
    server.drop(url)


def test_a_write_that_raises_leaves_nothing(engine: Engine) -> None:
    def half(conn: Connection) -> None:
        put(conn)
        raise KeyError

    with pytest.raises(KeyError):
        write(engine, half)
    assert values(engine) == {}
    write(engine, put)
    assert values(engine) == {"key": "value"}


def test_reading_sees_one_snapshot(engine: Engine) -> None:
    def look(conn: Connection) -> list[str]:
        write(engine, put)
        return list(conn.scalars(select(meta.c.key)))

    assert read(engine, look) == []
    assert read(engine, lambda conn: list(conn.scalars(select(meta.c.key)))) == ["key"]


def test_reading_goes_on_while_another_process_writes(engine: Engine, busy: subprocess.Popen[str]) -> None:
    assert values(engine) == {}


def test_a_writer_waits_and_then_says_who_may_hold_the_lock(
    engine: Engine, busy: subprocess.Popen[str]
) -> None:
    with pytest.raises(DatabaseError, match="Another program keeps the database locked") as caught:
        write(engine, put, wait=0.05)
    assert "newsletter" in caught.value.hint


def test_a_waiting_writer_gets_its_turn(engine: Engine, busy: subprocess.Popen[str]) -> None:
    waiting = threading.Thread(target=write, args=(engine, put))
    waiting.start()
    busy.communicate()
    waiting.join(timeout=20)
    assert values(engine) == {"key": "value"}


def test_what_runs_inside_a_write_runs_once(engine: Engine) -> None:
    runs = []

    def clash(conn: Connection) -> None:
        runs.append(1)
        put(conn)
        put(conn)

    with pytest.raises(IntegrityError):
        write(engine, clash)
    assert runs == [1]
    assert values(engine) == {}


def test_a_sound_database_is_found_sound(engine: Engine) -> None:
    write(engine, put)
    assert health(engine).damage == []


def test_two_processes_lose_no_write_of_each_other(engine: Engine, database_url: str) -> None:
    write(engine, lambda conn: put(conn, "count", "0"))
    both = [python(COUNT, database_url, "150") for _ in range(2)]
    for process in both:
        process.communicate(timeout=60)
    assert [process.returncode for process in both] == [0, 0]
    assert values(engine)["count"] == "300"


def test_two_processes_may_be_the_first_at_once(empty_url: str) -> None:
    both = [python(COUNT, empty_url, "0") for _ in range(2)]
    for process in both:
        process.communicate(timeout=60)
    assert [process.returncode for process in both] == [0, 0]
    open_engine(empty_url).dispose()


def test_an_older_schema_names_the_command_and_is_not_upgraded_on_the_way(
    engine: Engine, database_url: str
) -> None:
    sql(database_url, "UPDATE alembic_version SET version_num = '0000'")
    for create in (False, True):
        with pytest.raises(DatabaseError, match="older schema 0000") as caught:
            open_engine(database_url, create=create)
        assert caught.value.hint == "Copy it first, while nothing else uses it. Run `newsletter db upgrade`."


def test_a_newer_schema_is_left_alone(engine: Engine, database_url: str) -> None:
    sql(database_url, "UPDATE alembic_version SET version_num = '9999'")
    for use in (lambda: open_engine(database_url, create=True), lambda: create_or_upgrade(database_url)):
        with pytest.raises(DatabaseError, match="made by a newer version"):
            use()


def test_the_database_of_another_program_is_left_alone(empty_url: str) -> None:
    sql(empty_url, "CREATE TABLE recipes (name TEXT)")
    for use in (lambda: open_engine(empty_url, create=True), lambda: create_or_upgrade(empty_url)):
        with pytest.raises(DatabaseError, match="belongs to another program"):
            use()


def test_an_upgrade_says_where_it_came_from(empty_url: str) -> None:
    assert create_or_upgrade(empty_url) == ""
    assert create_or_upgrade(empty_url) == SCHEMA
    engine = open_engine(empty_url)
    check_schema(engine)
    engine.dispose()


@pytest.mark.parametrize(
    ("address", "error", "words"),
    [
        ("mysql://me:secret@db/news", ConfigError, "only sqlite and postgresql"),
        ("postgresql+asyncpg://me:secret@db/news", ConfigError, "only sqlite and postgresql"),
        ("postgresql://me:secret@db/", ConfigError, "names no database"),
        ("postgres://me:secret@127.0.0.1:1/news", DatabaseError, "can't be reached: news on 127.0.0.1:1"),
        ("postgresql://me@127.0.0.1:1/news?password=secret", DatabaseError, "can't be reached"),
        ("postgresql://me:secret@127.0.0.1:secret/news", ConfigError, "not a database address"),
        ("sqlite://", ConfigError, "names no file"),
        ("sqlite:///:memory:", ConfigError, "names no file"),
        ("secret", ConfigError, "not a database address"),
    ],
)
def test_an_address_that_can_not_be_used_is_not_repeated(
    address: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        open_engine(address, create=True)
    assert "secret" not in str(caught.value) + caught.value.hint


def test_a_row_without_its_parent_is_refused_and_not_called_a_database_error(engine: Engine) -> None:
    row = {"subscriber_id": 1, "list_id": 1, "state": "active", "since": 0}
    statement = text(
        "INSERT INTO subscription (subscriber_id, list_id, state, since, source)"
        " VALUES (:subscriber_id, :list_id, :state, :since, '')"
    )
    with pytest.raises(IntegrityError, match=r"(?i)foreign key"):
        write(engine, lambda conn: conn.execute(statement, row))


def test_the_error_of_a_failed_statement_holds_nothing_that_was_to_be_written(engine: Engine) -> None:
    """It may stand in a log, and the values are addresses."""
    address = "zoe@example.org"

    def twice(conn: Connection) -> None:
        put(conn, address)
        put(conn, address)

    def nowhere(conn: Connection) -> None:
        conn.execute(text("SELECT nothing FROM nowhere WHERE a = :a"), {"a": address})

    for fails in (twice, nowhere):
        with pytest.raises(DBAPIError) as caught:
            write(engine, fails)
        assert address not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)


def test_keys_are_remembered_and_another_key_is_refused(engine: Engine) -> None:
    ensure_keys(engine, {1: b"one"}, b"address")
    ensure_keys(engine, {1: b"one"}, b"address")
    assert "one" not in str(values(engine))
    with pytest.raises(ConfigError, match="address key"):
        ensure_keys(engine, {1: b"one"}, b"another")
    with pytest.raises(ConfigError, match="secret key 1"):
        ensure_keys(engine, {1: b"two"}, b"address")


def test_a_signing_key_rotates_under_a_new_number(engine: Engine) -> None:
    ensure_keys(engine, {1: b"one"}, b"address")
    ensure_keys(engine, {2: b"two", 1: b"one"}, b"address")
    with pytest.raises(ConfigError, match="secret key 2"):
        ensure_keys(engine, {2: b"three"}, b"address")


def test_a_mismatch_remembers_nothing(engine: Engine) -> None:
    ensure_keys(engine, {1: b"one"}, b"address")
    with pytest.raises(ConfigError):
        ensure_keys(engine, {2: b"two"}, b"another")
    assert "secret_key_2_fingerprint" not in values(engine)


def test_an_unknown_state_can_not_be_stored(engine: Engine) -> None:
    write(engine, lambda conn: conn.execute(insert(list_).values(id=1, name="readers", created_at=NOW)))
    person = text(
        "INSERT INTO subscriber (id, name, fields, edition, created_at) VALUES (1, '', '{}', 's', 0)"
    )
    write(engine, lambda conn: conn.execute(person))
    row = text(
        "INSERT INTO subscription (subscriber_id, list_id, state, since, source) VALUES (1, 1, 'maybe', 0, '')"
    )
    with pytest.raises(IntegrityError, match=r"(?i)check constraint"):
        write(engine, lambda conn: conn.execute(row))

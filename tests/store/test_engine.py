"""The database file: private, durable, shared by processes, and clear about what is wrong with it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event, insert, select, text

from newsletter.errors import ConfigError, DatabaseError
from newsletter.store.engine import (
    SCHEMA,
    check_schema,
    create_or_upgrade,
    ensure_keys,
    open_engine,
    read,
    write,
)
from newsletter.store.schema import list_, meta
from tests.support.ledgers import NOW

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection, Engine

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""

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
def url(tmp_path: Path) -> str:
    """Where a test's database is going to be."""
    return f"sqlite:///{tmp_path}/state/newsletter.db"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The same as a path."""
    return tmp_path / "state" / "newsletter.db"


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """A database that is ready."""
    made = open_engine(url, create=True)
    yield made
    made.dispose()


def pragma(engine: Engine, name: str) -> object:
    return read(engine, lambda conn: conn.exec_driver_sql(f"PRAGMA {name}").scalar())


def put(conn: Connection, key: str = "key", value: str = "value") -> None:
    conn.execute(insert(meta).values(key=key, value=value))


def values(engine: Engine) -> dict[str, str]:
    return read(engine, lambda conn: {row.key: row.value for row in conn.execute(select(meta))})


def sql(file: Path, statement: str) -> None:
    """Runs a statement as another program would."""
    connection = sqlite3.connect(file)
    connection.execute(statement)
    connection.commit()
    connection.close()


def python(code: str, *args: str) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code, *args], stdin=pipe, stdout=pipe, text=True, env=env)


@pytest.fixture
def holder(engine: Engine, file: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the write lock until it is told to end."""
    process = python(HOLD, str(file))
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.communicate()


def test_what_is_committed_survives_a_power_cut_and_readers_never_wait(engine: Engine) -> None:
    assert pragma(engine, "journal_mode") == "wal"
    assert pragma(engine, "synchronous") == 2  # FULL
    assert pragma(engine, "foreign_keys") == 1
    assert pragma(engine, "busy_timeout") == 0


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such permissions")
def test_file_and_folder_are_their_owners_alone_whatever_the_umask_says(url: str, file: Path) -> None:
    before = os.umask(0)
    try:
        engine = open_engine(url, create=True)
        write(engine, put)
    finally:
        os.umask(before)
    assert file.parent.stat().st_mode & 0o777 == 0o700
    for name in ("newsletter.db", "newsletter.db-wal", "newsletter.db-shm"):
        assert (file.parent / name).stat().st_mode & 0o777 == 0o600, name
    engine.dispose()


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such permissions")
def test_a_restored_file_that_others_may_read_is_closed_again(engine: Engine, url: str, file: Path) -> None:
    engine.dispose()
    file.chmod(0o644)
    open_engine(url).dispose()
    assert file.stat().st_mode & 0o777 == 0o600


def test_what_was_deleted_can_not_be_read_in_the_file(engine: Engine, file: Path) -> None:
    write(engine, lambda conn: put(conn, "secret", "zoe@example.org" * 5))
    write(engine, lambda conn: conn.execute(meta.delete()))
    engine.dispose()
    assert not file.with_name("newsletter.db-wal").exists()
    assert b"zoe@example.org" not in file.read_bytes()


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


def test_reading_goes_on_while_another_process_writes(engine: Engine, holder: subprocess.Popen[str]) -> None:
    assert values(engine) == {}


def test_a_writer_waits_and_then_says_who_may_hold_the_lock(
    engine: Engine, holder: subprocess.Popen[str]
) -> None:
    with pytest.raises(DatabaseError, match="Another program keeps the database locked") as caught:
        write(engine, put, wait=0.05)
    assert "newsletter" in caught.value.hint


def test_a_waiting_writer_gets_its_turn(engine: Engine, holder: subprocess.Popen[str]) -> None:
    waiting = threading.Thread(target=write, args=(engine, put))
    waiting.start()
    holder.communicate()
    waiting.join(timeout=20)
    assert values(engine) == {"key": "value"}


def test_two_processes_lose_no_write_of_each_other(engine: Engine, url: str) -> None:
    write(engine, lambda conn: put(conn, "count", "0"))
    both = [python(COUNT, url, "150") for _ in range(2)]
    for process in both:
        process.communicate(timeout=60)
    assert [process.returncode for process in both] == [0, 0]
    assert values(engine)["count"] == "300"


def test_two_processes_may_be_the_first_at_once(url: str) -> None:
    both = [python(COUNT, url, "0") for _ in range(2)]
    for process in both:
        process.communicate(timeout=60)
    assert [process.returncode for process in both] == [0, 0]
    open_engine(url).dispose()


def test_a_read_only_database_can_be_read_and_says_so_when_written(engine: Engine, file: Path) -> None:
    write(engine, put)
    closed = open_engine(f"sqlite:///file:{file}?mode=ro&uri=true")
    assert values(closed) == {"key": "value"}
    with pytest.raises(DatabaseError, match="read-only"):
        write(closed, lambda conn: put(conn, "other"))
    closed.dispose()


def test_a_full_disk_is_a_sentence_and_leaves_the_database_whole(engine: Engine, url: str) -> None:
    write(engine, put)
    small = open_engine(url)
    small.dispose()  # the next connection is the first that is told
    event.listen(small, "connect", lambda raw, _: raw.execute("PRAGMA max_page_count = 1").fetchall())
    with pytest.raises(DatabaseError, match="The disk is full"):
        write(small, lambda conn: put(conn, "big", "x" * 2_000_000))
    assert values(small) == {"key": "value"}
    small.dispose()


def test_a_file_that_is_no_database_is_a_sentence(url: str, file: Path) -> None:
    file.parent.mkdir()
    file.write_text("Dear reader, this is a letter and not a database. " * 20)
    with pytest.raises(DatabaseError, match="not a database"):
        open_engine(url, create=True)


def test_a_damaged_database_is_a_sentence(engine: Engine, url: str, file: Path) -> None:
    engine.dispose()
    with file.open("r+b") as raw:
        raw.seek(100)  # behind the header of the first page, where the schema stands
        raw.write(b"\xff" * 3000)
    with pytest.raises(DatabaseError, match="damaged"):
        open_engine(url)


def test_a_missing_database_is_not_made_by_looking(url: str, file: Path) -> None:
    with pytest.raises(DatabaseError, match="There is no database") as caught:
        open_engine(url)
    assert "newsletter db upgrade" in caught.value.hint
    assert not file.exists()


def test_a_folder_that_is_a_file_is_a_sentence(url: str, file: Path) -> None:
    file.parent.write_text("in the way")
    with pytest.raises(DatabaseError, match="can't be opened"):
        open_engine(url, create=True)


def test_an_older_schema_names_the_command_and_is_not_upgraded_on_the_way(
    engine: Engine, url: str, file: Path
) -> None:
    sql(file, "UPDATE alembic_version SET version_num = '0000'")
    for create in (False, True):
        with pytest.raises(DatabaseError, match="older schema 0000") as caught:
            open_engine(url, create=create)
        assert "newsletter db upgrade" in caught.value.hint


def test_a_newer_schema_is_left_alone(engine: Engine, url: str, file: Path) -> None:
    sql(file, "UPDATE alembic_version SET version_num = '9999'")
    for use in (lambda: open_engine(url, create=True), lambda: create_or_upgrade(url)):
        with pytest.raises(DatabaseError, match="made by a newer version"):
            use()


def test_the_database_of_another_program_is_left_alone(url: str, file: Path) -> None:
    file.parent.mkdir()
    sql(file, "CREATE TABLE recipes (name TEXT)")
    for use in (lambda: open_engine(url, create=True), lambda: create_or_upgrade(url)):
        with pytest.raises(DatabaseError, match="belongs to another program"):
            use()


def test_an_upgrade_says_where_it_came_from(url: str) -> None:
    assert create_or_upgrade(url) == ""
    assert create_or_upgrade(url) == SCHEMA
    engine = open_engine(url)
    check_schema(engine)
    engine.dispose()


@pytest.mark.parametrize(
    ("address", "error", "words"),
    [
        ("postgresql://me:secret@db/news", DatabaseError, "PostgreSQL"),
        ("mysql://me:secret@db/news", ConfigError, "only SQLite"),
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
    assert "secret" not in str(caught.value)


def test_a_row_without_its_parent_is_refused_and_not_called_a_database_error(engine: Engine) -> None:
    row = {"subscriber_id": 1, "list_id": 1, "state": "active", "since": 0}
    statement = text(
        "INSERT INTO subscription (subscriber_id, list_id, state, since, source)"
        " VALUES (:subscriber_id, :list_id, :state, :since, '')"
    )
    with pytest.raises(Exception, match="FOREIGN KEY") as caught:
        write(engine, lambda conn: conn.execute(statement, row))
    assert not isinstance(caught.value, DatabaseError)


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
    with pytest.raises(Exception, match="CHECK constraint"):
        write(engine, lambda conn: conn.execute(row))

"""The SQLite file: private, durable, and clear about what is wrong with it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event

from newsletter.errors import DatabaseError
from newsletter.store.engine import expect_small_commits, open_engine, read, write
from newsletter.store.schema import meta
from tests.support.databases import put, values

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Engine


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


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such permissions")
@pytest.mark.parametrize(
    "uri", ["file:{}?uri=true", "file://{}?mode=rwc&uri=true", "file:{}%3Fcache=private?uri=1"]
)
def test_a_file_that_is_named_as_a_uri_is_its_owners_alone_too(tmp_path: Path, uri: str) -> None:
    file = tmp_path / "state of things" / "newsletter.db"
    url = "sqlite:///" + uri.format(str(file).replace(" ", "%2520"))  # decoded once by each of two
    before = os.umask(0)
    try:
        engine = open_engine(url, create=True)
        write(engine, put)
    finally:
        os.umask(before)
    for name in ("newsletter.db", "newsletter.db-wal", "newsletter.db-shm"):
        assert (file.parent / name).stat().st_mode & 0o777 == 0o600, name
    engine.dispose()
    file.chmod(0o644)
    open_engine(url).dispose()
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("mode", "create"), [("", False), ("mode=rw&", True), ("mode=ro&", True)])
def test_a_missing_file_is_not_made_where_its_uri_says_so(file: Path, mode: str, create: bool) -> None:
    file.parent.mkdir()
    with pytest.raises(DatabaseError):
        open_engine(f"sqlite:///file:{file}?{mode}uri=true", create=create)
    assert not file.exists()


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such permissions")
def test_a_file_that_is_only_read_keeps_its_permissions(engine: Engine, file: Path) -> None:
    file.chmod(0o644)
    open_engine(f"sqlite:///file:{file}?mode=ro&uri=true").dispose()
    assert file.stat().st_mode & 0o777 == 0o644


def test_what_was_deleted_can_not_be_read_in_the_file(engine: Engine, file: Path) -> None:
    write(engine, lambda conn: put(conn, "secret", "zoe@example.org" * 5))
    write(engine, lambda conn: conn.execute(meta.delete()))
    engine.dispose()
    assert not file.with_name("newsletter.db-wal").exists()
    assert b"zoe@example.org" not in file.read_bytes()


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


def test_who_sends_keeps_the_log_short(tmp_path: Path) -> None:
    """It is written over, which costs the disk less than growing it."""
    engine = open_engine(f"sqlite:///{tmp_path}/newsletter.db", create=True)
    expect_small_commits(engine)
    assert read(engine, lambda conn: conn.exec_driver_sql("PRAGMA wal_autocheckpoint").scalar()) == 2000
    engine.dispose()


def test_a_file_that_was_moved_away_or_replaced_is_not_written_any_more(tmp_path: Path) -> None:
    """A server still holds it open: what it wrote would be in the wrong file."""
    file = tmp_path / "used.db"
    engine = open_engine(f"sqlite:///{file}", create=True)
    write(engine, lambda conn: conn.execute(meta.insert().values(key="a", value="1")))
    file.rename(tmp_path / "away.db")
    with pytest.raises(DatabaseError, match="moved away or replaced") as caught:
        write(engine, lambda conn: conn.execute(meta.insert().values(key="b", value="2")))
    assert caught.value.hint == "Start this program again."
    open_engine(f"sqlite:///{file}", create=True).dispose()
    with pytest.raises(DatabaseError, match="moved away or replaced"):
        write(engine, lambda conn: conn.execute(meta.insert().values(key="b", value="2")))
    engine.dispose()

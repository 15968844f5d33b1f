"""What was erased leaves the database's files, not only its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, update

from newsletter.store import sqlite
from newsletter.store.engine import open_engine, read, scrub, write
from newsletter.store.schema import subscriber, subscription
from tests.support.databases import values
from tests.support.ledgers import open_store

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from sqlalchemy import Engine

WORD = b"p7@example.org"


def held(folder: Path) -> set[str]:
    """The files that hold the word."""
    return {file.name for file in folder.iterdir() if WORD in file.read_bytes()}


def erase(engine: Engine) -> None:
    """Person 7 leaves no row behind."""
    write(engine, lambda conn: conn.execute(delete(subscription).where(subscription.c.id == 7)))
    write(engine, lambda conn: conn.execute(delete(subscriber).where(subscriber.c.id == 7)))


def test_after_a_scrub_no_file_holds_an_erased_word_and_the_rest_is_whole(tmp_path: Path) -> None:
    engine = open_store(tmp_path, people=200)
    longer = update(subscriber).values(name=subscriber.c.name + " of the long name that moves rows about")
    write(engine, lambda conn: conn.execute(longer))
    erase(engine)
    assert "newsletter.db-wal" in held(tmp_path)
    assert scrub(engine)
    assert held(tmp_path) == set()
    assert (tmp_path / "newsletter.db-wal").stat().st_size == 0
    assert not sqlite_damage(engine)
    engine.dispose()


def sqlite_damage(engine: Engine) -> list[str]:
    """What SQLite finds."""
    return read(engine, sqlite.health).damage


def test_a_large_file_is_not_rewritten_but_its_log_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "REWRITTEN_BYTES", 0)
    engine = open_store(tmp_path, people=20)
    erase(engine)
    assert scrub(engine)
    assert held(tmp_path) == set()  # overwritten where it was
    engine.dispose()


def test_a_scrub_says_when_somebody_keeps_the_log_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "SCRUB_SECONDS", 0.02)
    engine = open_store(tmp_path, people=20)
    reader = open_engine(f"sqlite:///{tmp_path / 'newsletter.db'}")
    with reader.connect() as conn, conn.begin():
        values(engine)
        erase(engine)
        assert not scrub(engine)
    reader.dispose()
    assert scrub(engine)
    assert held(tmp_path) == set()
    engine.dispose()


def test_trying_again_beside_a_backup_does_not_let_the_log_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "SCRUB_SECONDS", 0.02)
    engine = open_store(tmp_path, people=20)
    backup = open_engine(f"sqlite:///{tmp_path / 'newsletter.db'}")
    with backup.connect() as conn, conn.begin():
        values(engine)
        conn.exec_driver_sql("SELECT count(*) FROM subscriber")
        erase(engine)
        log = tmp_path / "newsletter.db-wal"
        sizes = []
        for _ in range(3):
            assert not scrub(engine)
            sizes.append(log.stat().st_size)
    backup.dispose()
    assert sizes[0] == sizes[1] == sizes[2]
    assert scrub(engine)
    assert held(tmp_path) == set()
    engine.dispose()


def test_a_scrub_says_when_somebody_keeps_the_database_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "SCRUB_SECONDS", 0.02)
    engine = open_store(tmp_path, people=1)
    other = open_engine(f"sqlite:///{tmp_path / 'newsletter.db'}")
    assert write(other, lambda _conn: scrub(engine)) is False
    other.dispose()
    engine.dispose()


def test_on_postgresql_there_is_nothing_to_do(postgresql_url: str) -> None:
    engine = open_engine(postgresql_url)
    assert scrub(engine)
    engine.dispose()

"""The database as the doctor sees it, on SQLite and PostgreSQL."""

from __future__ import annotations

import sqlite3
import time
from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from newsletter.doctor import database
from newsletter.store.engine import open_engine, write
from newsletter.store.schema import owner

KEYS = {1: b"k" * 32}
ADDRESS_KEY = b"a" * 32


def now() -> datetime:
    return datetime.now(UTC)


def look(url: str, *, signing=KEYS, clock=now) -> list[tuple[str, str]]:
    found = list(database.look(url, signing, ADDRESS_KEY, clock))
    return [(result.level.value, result.name) for result in found]


def made(url: str) -> str:
    open_engine(url, create=True).dispose()
    return url


def test_a_sound_one_is_right_and_its_clock_is_ours(database_url):
    levels = look(made(database_url))
    assert levels[:2] == [("ok", "database"), ("ok", "clock")]
    assert len(levels) == (3 if database_url.startswith("postgresql") else 2)
    assert {level for level, _ in levels} == {"ok"}


def test_one_that_is_not_there_is_not_made(tmp_path):
    file = tmp_path / "newsletter.db"
    assert look(f"sqlite:///{file}") == [("error", "database")]
    assert not file.exists()


def test_an_older_schema_is_an_error(database_url):
    engine = open_engine(made(database_url))
    write(engine, lambda conn: conn.execute(text("UPDATE alembic_version SET version_num = '0001'")))
    engine.dispose()
    [result] = database.look(database_url, KEYS, ADDRESS_KEY, now)
    assert "older schema" in result.detail
    assert "db upgrade" in result.hint


def test_other_keys_are_an_error(database_url):
    look(made(database_url))
    assert look(database_url, signing={1: b"x" * 32}) == [("error", "database")]


def test_an_env_without_the_newest_signing_key_is_warned_of(database_url):
    look(made(database_url), signing={1: b"x" * 32, 2: b"y" * 32})
    assert look(database_url, signing={1: b"x" * 32})[:2] == [("ok", "database"), ("warning", "database")]
    assert look(database_url, signing={3: b"z" * 32})[1] == ("ok", "clock")


def test_one_that_is_at_home_elsewhere_is_an_error_and_is_not_written(tmp_path):
    url = made(f"sqlite:///{tmp_path / 'newsletter.db'}")
    [result] = database.look(url, KEYS, ADDRESS_KEY, now, lambda _: "It is at home elsewhere.")
    assert result.level == "error"
    # To claim it is the second thing to think of.
    assert result.hint.startswith("Use the one it was made from.")
    assert look(url, signing={1: b"x" * 32})[0] == ("ok", "database")  # no key had been remembered


def test_one_that_another_program_keeps_locked_is_an_error_soon(tmp_path):
    url = made(f"sqlite:///{tmp_path / 'newsletter.db'}")
    other = sqlite3.connect(tmp_path / "newsletter.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    begun = time.monotonic()
    assert look(url) == [("error", "database")]
    assert time.monotonic() - begun < database.WAIT_SECONDS + 5
    other.close()


def test_a_clock_behind_the_ledger_is_an_error(database_url):
    engine = open_engine(made(database_url))
    later = now() + timedelta(hours=1)
    row = {"id": "o" * 16, "name": "one", "way": "a folder", "started_at": later, "seen_at": later}
    write(engine, lambda conn: conn.execute(owner.insert().values(**row)))
    engine.dispose()
    assert ("error", "clock") in look(database_url)


def test_a_clock_that_is_not_the_database_servers_is_an_error(postgresql_url):
    ahead = look(postgresql_url, clock=lambda: now() + timedelta(minutes=2))
    assert ahead == [("ok", "database"), ("ok", "clock"), ("error", "clock")]

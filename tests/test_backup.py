"""A backup is one file, whole, of one moment, and a database made of it is the same database."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import delete, insert, select

from newsletter import backup
from newsletter.backup import make, prune, restore
from newsletter.errors import ConfigError, DatabaseError, NewsletterError, Refused
from newsletter.store import facts, instance, promises
from newsletter.store.engine import fence, open_engine, read, write
from newsletter.store.schema import meta, metadata, subscriber, subscription, suppression
from tests.support import homes, ledgers
from tests.support.databases import sql
from tests.support.homes import home, opened
from tests.support.ledgers import NOW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine

    from newsletter.store.instance import Home
    from tests.support.postgresql import Server

PEOPLE = 30


@pytest.fixture
def here(tmp_path: Path) -> Home:
    """Where the database is at home."""
    return home(tmp_path)


@pytest.fixture
def engine(database_url: str, here: Home, tmp_path: Path, empty_file: Path) -> Iterator[Engine]:
    """A database in use: people, one of them suppressed, and a campaign."""
    if database_url.startswith("sqlite"):
        shutil.copy(empty_file, tmp_path / "newsletter.db")
    made = opened(database_url, here)
    ledgers.fill(made, PEOPLE)
    ledgers.suppress(made, 3)
    ledgers.freeze(made)
    write(made, _more)
    yield made
    made.dispose()


def _more(conn: Connection) -> None:
    """What the ledger's tests have none of: text of all kinds, JSON, and numbers that are given out by the database."""
    odd = {"address": "o'brien@example.org", "address_key": b"\x00\xff" * 8, "name": "李 \N{GRINNING FACE}"}
    conn.execute(insert(subscriber).values(**odd, fields={"city": 'A "B"', "empty": None}, created_at=NOW))


@pytest.fixture
def made(engine: Engine, tmp_path: Path) -> Path:
    """A backup of it."""
    return make(engine, tmp_path / "backups" / "one.db", NOW).file


@pytest.fixture
def small(tmp_path: Path, here: Home, empty_file: Path) -> Iterator[Engine]:
    """People in a file, for what is the same on both databases."""
    engine = opened(f"sqlite:///{shutil.copy(empty_file, tmp_path / 'newsletter.db')}", here)
    ledgers.fill(engine, PEOPLE)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, empty_file: Path) -> Path:
    """A backup of such a file."""
    folder = tmp_path_factory.mktemp("one")
    engine = opened(f"sqlite:///{shutil.copy(empty_file, folder / 'newsletter.db')}", home(folder))
    ledgers.fill(engine, PEOPLE)
    made = make(engine, folder / "backups" / "one.db", NOW)
    engine.dispose()
    return made.file


@pytest.fixture
def kept(one: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    return Path(shutil.copytree(one.parent, tmp_path / "backups")) / one.name


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database to restore into."""
    if request.param == "postgresql":
        server: Server = request.getfixturevalue("postgresql_server")
        return server.create(empty=True)
    return f"sqlite:///{tmp_path}/restored.db"


def rows(engine: Engine) -> dict[str, list[Any]]:
    """Everything there is, but for what a database says of itself."""

    def look(conn: Connection) -> dict[str, list[Any]]:
        tables = [table for table in metadata.sorted_tables if table is not meta]
        return {
            table.name: [tuple(row) for row in conn.execute(select(table).order_by(*table.primary_key))]
            for table in tables
        }

    return read(engine, look)


def using(url: str, act: Callable[[Engine], Any]) -> Any:
    engine = open_engine(url)
    try:
        return act(engine)
    finally:
        engine.dispose()


# What it holds


def test_what_is_restored_is_what_there_was_on_either_database(
    engine: Engine, made: Path, empty_url: str, tmp_path: Path
) -> None:
    done = restore(made, empty_url, tmp_path)
    assert using(empty_url, rows) == rows(engine)
    assert done.counts["subscriber"] == PEOPLE + 1
    assert done.counts["delivery"] == PEOPLE - 1


def test_numbers_that_were_given_out_are_never_given_out_again(
    engine: Engine, empty_url: str, tmp_path: Path
) -> None:
    """Else the link in a mail to somebody who was removed would open the page of somebody else."""
    newest = write(engine, _joins)
    write(engine, lambda conn: conn.execute(delete(subscription).where(subscription.c.id == newest[1])))
    write(engine, lambda conn: conn.execute(delete(subscriber).where(subscriber.c.id == newest[0])))
    file = make(engine, tmp_path / "one.db", NOW).file
    restore(file, empty_url, tmp_path)
    again = using(empty_url, lambda restored: write(restored, _joins))
    assert again[0] > newest[0]
    assert again[1] > newest[1]


def _joins(conn: Connection) -> tuple[int, int]:
    person = conn.scalar(insert(subscriber).values(fields={}, created_at=NOW).returning(subscriber.c.id))
    standing = {"subscriber_id": person, "list_id": 1, "state": "active", "since": NOW}
    return int(person), int(conn.scalar(insert(subscription).values(standing).returning(subscription.c.id)))


def test_it_is_marked_so_that_nobody_writes_to_it_where_it_lies(kept: Path, here: Home) -> None:
    found = opened(f"sqlite:///{kept}", here)
    assert "is a backup of the place here, made at" in fence(found)
    found.dispose()


def test_it_is_for_its_owner_only_and_so_is_its_folder(kept: Path) -> None:
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    assert [file.name for file in kept.parent.iterdir()] == ["one.db"]


def test_it_is_a_database_that_other_programs_can_read(kept: Path) -> None:
    with sqlite3.connect(f"file:{kept}?mode=ro", uri=True) as conn:
        assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert conn.execute("SELECT count(*) FROM subscriber").fetchone() == (PEOPLE,)
    conn.close()


def test_what_was_deleted_is_not_in_it(tmp_path: Path, here: Home) -> None:
    """The file itself may hold it in its free space, for as long as nobody has scrubbed it."""
    file = tmp_path / "newsletter.db"
    engine = opened(f"sqlite:///{file}", here)
    ledgers.fill(engine, people=3)
    careless = sqlite3.connect(file, isolation_level=None)
    careless.execute("PRAGMA secure_delete=OFF")
    careless.execute("UPDATE subscriber SET address = 'gone@example.org' WHERE id = 2")
    careless.execute("UPDATE subscriber SET address = NULL WHERE id = 2")
    careless.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    careless.close()
    made = make(engine, tmp_path / "one.db", NOW).file
    engine.dispose()
    assert b"gone@example.org" in file.read_bytes()
    assert b"gone@example.org" not in made.read_bytes()


def test_it_shows_one_moment_while_others_write(engine: Engine, database_url: str, tmp_path: Path) -> None:
    """Each transaction adds to two tables; a backup that saw half of one would have one row more in the first."""
    over, busy = threading.Event(), open_engine(database_url)

    def join() -> None:
        while not over.is_set():
            write(busy, _joins)

    writing = threading.Thread(target=join)
    before = len(rows(engine)["subscription"])
    writing.start()
    found = [make(engine, tmp_path / f"{number}.db", NOW).counts for number in range(3)]
    over.set()
    writing.join()
    busy.dispose()
    assert [counts["subscriber"] - counts["subscription"] for counts in found] == [1] * 3
    assert before <= found[0]["subscription"] < found[2]["subscription"]


def test_a_backup_raises_the_generation_so_that_putting_it_back_is_noticed(
    small: Engine, here: Home, tmp_path: Path
) -> None:
    before = here.witness.read() or 0
    made = make(small, tmp_path / "one.db", NOW)
    assert here.witness.read() == before + 1
    assert using(f"sqlite:///{made.file}", lambda found: read(found, facts.every))["generation"] == str(
        before
    )


def test_a_copy_can_be_backed_up_as_well(small: Engine, tmp_path: Path) -> None:
    copy = opened(str(small.url), home(tmp_path, "there"))
    made = make(copy, tmp_path / "one.db", NOW).file
    copy.dispose()
    assert (
        using(f"sqlite:///{made}", lambda found: read(found, facts.every))[instance.BACKUP_OF]
        == "the place here"
    )


# What is refused


def test_nothing_is_ever_overwritten(small: Engine, kept: Path) -> None:
    before = kept.read_bytes()
    with pytest.raises(Refused, match="exists"):
        make(small, kept, NOW)
    assert kept.read_bytes() == before


def test_a_place_that_is_no_folder_is_said(small: Engine, kept: Path) -> None:
    with pytest.raises(DatabaseError, match=r"The backup .+ can't be made: "):
        make(small, kept / "two.db", NOW)


def test_a_folder_that_may_not_be_entered_is_said(small: Engine, tmp_path: Path) -> None:
    """As one that root has made."""
    before = os.geteuid()
    folder = tmp_path / "backups"
    folder.mkdir(mode=0o000 if before else 0o700)
    if before == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(DatabaseError, match=r"The backup .+ can't be made: Permission denied"):
            make(small, folder / "one.db", NOW)
    finally:
        os.seteuid(before)
        folder.chmod(0o700)


def junk(file: Path) -> None:
    file.write_bytes(b"no database at all" * 100)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size * 2 // 3)


def overwritten(file: Path) -> None:
    with file.open("r+b") as pages:
        pages.seek(4096 * 5)
        pages.write(b"\xff" * 4096 * 8)


def newer(file: Path) -> None:
    sql(f"sqlite:///{file}", "UPDATE alembic_version SET version_num = '9999'")


def unmarked(file: Path) -> None:
    sql(f"sqlite:///{file}", "DELETE FROM meta WHERE key = 'backup_at'")


def foreign(file: Path) -> None:
    file.unlink()
    sql(f"sqlite:///{file}", "CREATE TABLE pot (id INTEGER)")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (junk, "not a database"),
        (empty, "it is empty"),
        (cut, "damaged"),
        (overwritten, "damaged"),
        (newer, "was made by a newer version"),
        (unmarked, "it is no backup, but a database"),
        (foreign, "belongs to another program"),
    ],
)
def test_what_is_no_whole_backup_is_not_restored(
    kept: Path, tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    spoil(kept)
    before = kept.read_bytes()
    target = tmp_path / "restored.db"
    with pytest.raises(DatabaseError, match=words) as caught:
        restore(kept, f"sqlite:///{target}", tmp_path)
    assert str(kept) in str(caught.value)
    assert backup.WORKSHOP not in str(caught.value)
    assert not target.exists()
    assert kept.read_bytes() == before
    assert list(tmp_path.glob(f"{backup.WORKSHOP}*")) == []


def test_a_backup_goes_into_an_empty_database_only(made: Path, engine: Engine, tmp_path: Path) -> None:
    before = rows(engine)
    url = engine.url.render_as_string(hide_password=False).replace("+psycopg", "")
    with pytest.raises(Refused, match="has rows in list, subscriber"):
        restore(made, url, tmp_path)
    assert rows(engine) == before


def test_one_row_is_too_much(kept: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/restored.db"
    target = open_engine(url, create=True)
    one = insert(suppression).values(address_key=b"1" * 16, reason="manual", at=NOW)
    write(target, lambda conn: conn.execute(one))
    target.dispose()
    with pytest.raises(Refused, match="has rows in suppression"):
        restore(kept, url, tmp_path)


def test_other_keys_are_refused(kept: Path, tmp_path: Path) -> None:
    sql(f"sqlite:///{kept}", "INSERT INTO meta VALUES ('address_key_fingerprint', 'abc')")
    for keys in ({}, {"address_key_fingerprint": "abc", "secret_key_2_fingerprint": "a new one"}):
        restore(kept, f"sqlite:///{tmp_path}/{len(keys)}.db", tmp_path, keys=keys)
    with pytest.raises(ConfigError, match="The address key is not the one"):
        restore(kept, f"sqlite:///{tmp_path}/other.db", tmp_path, keys={"address_key_fingerprint": "other"})
    assert not (tmp_path / "other.db").exists()


def test_an_older_backup_is_upgraded_and_stays_as_it_is(tmp_path: Path, empty_url: str) -> None:
    file = tmp_path / "old.db"
    homes.make_old(f"sqlite:///{file}")
    sql(f"sqlite:///{file}", "INSERT INTO meta VALUES ('backup_at', 'long ago'), ('backup_of', 'here')")
    before = file.read_bytes()
    restore(file, empty_url, tmp_path)
    assert len(using(empty_url, rows)["subscriber"]) == 1
    assert file.read_bytes() == before


def test_what_was_restored_waits_to_be_claimed(kept: Path, tmp_path: Path, here: Home) -> None:
    url = f"sqlite:///{tmp_path}/restored.db"
    restore(kept, url, tmp_path)
    engine = opened(url, here)
    assert "is a backup of the place here" in fence(engine)
    assert instance.claim(engine, here, NOW)
    assert fence(engine) == ""
    engine.dispose()
    assert homes.fence_of(url, here) == ""


def test_a_backup_that_does_not_hold_what_was_there_is_none(small: Engine, tmp_path: Path) -> None:
    """A reference to nobody can be restored into no database, so it is found out before anybody relies on it."""
    file = tmp_path / "newsletter.db"
    sql(f"sqlite:///{file}", "INSERT INTO subscription VALUES (1000, 7000, 1, 'active', 0, '', NULL)")
    with pytest.raises(NewsletterError, match="damaged"):
        make(small, tmp_path / "two.db", NOW)
    assert not (tmp_path / "two.db").exists()


def test_rows_that_contradict_each_other_are_no_reason_to_have_no_backup(
    small: Engine, tmp_path: Path
) -> None:
    ledgers.freeze(small)
    sql(str(small.url), "UPDATE campaign SET state = 'finished'")
    assert read(small, promises.broken)
    assert make(small, tmp_path / "one.db", NOW).file.exists()


# The folder


def test_only_the_newest_of_our_own_files_are_kept(tmp_path: Path) -> None:
    ours = [f"2026-11-{day:02}T030000Z.db" for day in range(1, 10)]
    others = ["before-the-move.db", "2026-11-01T030000Z.db.gz", "notes.txt"]
    for name in [*ours, *others]:
        (tmp_path / name).touch()
    assert [file.name for file in prune(tmp_path, 2, tmp_path / ours[-1])] == ours[6::-1]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([*ours[-2:], *others])


def test_the_one_that_was_just_made_stays_although_the_clock_was_wrong_before(tmp_path: Path) -> None:
    made, future = tmp_path / "2026-11-29T030000Z.db", tmp_path / "2099-01-01T000000Z.db"
    for file in (made, future):
        file.touch()
    assert prune(tmp_path, 1, made) == [future]
    assert made.exists()


def test_what_a_killed_process_left_goes_with_the_next_one_and_a_living_one_s_stays(
    small: Engine, tmp_path: Path
) -> None:
    folder = tmp_path / "backups"
    dead = folder / f"{backup.WORKSHOP}dead"
    young = folder / f"{backup.WORKSHOP}young"
    for room in (dead, young):
        room.mkdir(parents=True)
        (room / "snapshot.db").write_bytes(b"half of it")
    os.utime(dead, (0, 0))
    make(small, folder / "one.db", NOW)
    assert not dead.exists()
    assert young.exists()
    shutil.rmtree(young)

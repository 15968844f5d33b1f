"""`newsletter db`, as a person types it: create, check, back up, restore, and take over."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
from typing import TYPE_CHECKING

import pytest

from newsletter.backup import WORKSHOP
from tests.support import postgresql
from tests.support.freezes import crowd_in
from tests.support.holding import HoldingServer
from tests.support.publisher import A_KEY, Publisher, crowd, publisher
from tests.support.served import serving
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.postgresql import Server

LIVE = """
[sending]
mode = "live"
transport = "smtp"
connections = 2
[smtp]
port = {port}
security = "none"
"""


def database(made: Publisher) -> Path:
    return made.root / ".newsletter" / "newsletter.db"


def copied(made: Publisher, root: Path) -> Publisher:
    return Publisher(shutil.copytree(made.root, root), made.environ)


@pytest.fixture
def sent(tmp_path: Path) -> Publisher:
    """A folder in which an issue was rehearsed."""
    made = publisher(tmp_path / "press")
    made.import_people(crowd(3))
    made.newsletter("send", "2026-12", "--confirm", "3")
    return made


# upgrade and check


def test_db_upgrade_makes_the_database_and_says_when_there_is_nothing_to_do(tmp_path: Path) -> None:
    made = publisher(tmp_path)
    assert "Made the database" in made.newsletter("db", "upgrade").stdout
    assert "up to date" in made.newsletter("db", "upgrade").stdout
    assert "is sound" in made.newsletter("db", "check").stdout


def test_db_check_without_a_database_says_what_to_run(tmp_path: Path) -> None:
    made = publisher(tmp_path)
    done = made.newsletter("db", "check", check=False)
    assert done.returncode == 6
    assert "newsletter db upgrade" in done.stderr
    assert not (made.root / ".newsletter").exists()


def test_db_check_finds_a_reference_to_nobody(tmp_path: Path) -> None:
    made = publisher(tmp_path)
    made.newsletter("db", "upgrade")
    with sqlite3.connect(made.root / ".newsletter" / "newsletter.db") as connection:
        connection.execute("INSERT INTO subscription VALUES (1, 7, 7, 'active', 0, '', NULL)")
    connection.close()
    done = made.newsletter("db", "check", check=False)
    assert done.returncode == 6
    assert "a row of subscription refers to a missing subscriber" in done.stderr


def test_db_check_finds_a_damaged_page(tmp_path: Path) -> None:
    made = publisher(tmp_path)
    made.newsletter("db", "upgrade")
    file = made.root / ".newsletter" / "newsletter.db"
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    pages = bytearray(file.read_bytes())
    pages[-2000:-1000] = b"\xff" * 1000
    pages[4096 * 4 : 4096 * 4 + 100] = b"\xff" * 100
    file.write_bytes(pages)
    done = made.newsletter("db", "check", check=False)
    assert done.returncode == 6
    assert "damaged" in done.stderr


def test_db_commands_on_postgresql_never_show_the_password(tmp_path: Path, postgresql_server: Server) -> None:
    url = postgresql_server.create(empty=True)
    made = Publisher(publisher(tmp_path).root, {"DATABASE_URL": f"{url}?password=hunter2"})
    said = [made.newsletter("db", "upgrade"), made.newsletter("db", "check"), made.newsletter("config")]
    assert "Made the database" in said[0].stdout
    assert "every row and every reference checked" in said[1].stdout
    assert "fsync = off" in said[1].stdout
    assert "hunter2" not in "".join(done.stdout + done.stderr for done in said)
    [witness] = (made.root / ".newsletter").iterdir()
    assert witness.name.startswith("generation-")
    postgresql_server.drop(url)


def test_db_check_says_where_the_database_is_at_home(sent: Publisher, tmp_path: Path) -> None:
    here = sent.newsletter("db", "check")
    assert f"It is at home here: {database(sent)} on " in here.stdout
    there = copied(sent, tmp_path / "copy").newsletter("db", "check")
    assert "is sound" in there.stdout
    assert "is a copy, or was moved" in there.stderr
    assert "newsletter db claim" in there.stdout


def test_db_check_finds_a_promise_that_is_broken(sent: Publisher) -> None:
    with sqlite3.connect(database(sent)) as connection:
        connection.execute("UPDATE delivery SET state = 'pending'")
    connection.close()
    done = sent.newsletter("db", "check", check=False)
    assert done.returncode == 6
    assert "3 deliveries are open, and their campaign is finished" in done.stderr


# A copy


@pytest.mark.parametrize("way", ["another folder", "another machine"])
def test_a_copy_can_be_looked_at_and_sends_nothing(sent: Publisher, tmp_path: Path, way: str) -> None:
    if way == "another folder":
        copy = copied(sent, tmp_path / "copy")
    else:
        copy = Publisher(sent.root, {"NEWSLETTER_INSTANCE": "a container of another name"})
    for command in (
        ("status",),
        ("deliveries", "2026-12"),
        ("subscribers", "list"),
        ("resolve", "2026-12"),
        ("send", "2026-12", "--again", "--dry-run"),
        ("subscribers", "export", "--out", str(tmp_path / "readers.csv")),
    ):
        done = copy.newsletter(*command)
        assert done.stderr.count("Warning: ") == 1, command
        assert "It can be read here, and nothing is written to it." in done.stderr
    for refused in (
        ("send", "2026-12", "--again"),
        ("serve", "--port", "0"),
        ("subscribers", "add", "new@example.org"),
        ("subscribers", "unsubscribe", "reader00001@example.org"),
    ):
        done = copy.newsletter(*refused, check=False)
        assert done.returncode == 6, refused
        assert "Nothing is written to it." in done.stderr
        assert "newsletter db claim" in done.stderr
    assert "recipients" not in copy.newsletter("send", "2026-12", "--again", check=False).stdout


def test_the_name_in_the_environment_stands_for_the_machine(tmp_path: Path) -> None:
    """A container has a new host name each time it is made."""
    made = publisher(tmp_path, environ={"NEWSLETTER_INSTANCE": "digest"})
    made.import_people(crowd(1))
    assert f"at home here: {database(made)} on digest" in made.newsletter("db", "check").stdout
    shown = json.loads(made.newsletter("config", "--json").stdout)
    assert shown["NEWSLETTER_INSTANCE"] == {"value": "digest", "from": "environment"}


def test_a_database_that_was_put_back_sends_nothing_more(tmp_path: Path) -> None:
    """The copy was made before the issue was sent: it would send it to everybody once more."""
    with HoldingServer() as server:
        made = publisher(tmp_path / "press", LIVE.format(port=server.port))
        made.import_people(crowd(5))
        shutil.copy(database(made), tmp_path / "before.db")
        made.newsletter("send", "2026-12", "--confirm", "5")
        shutil.copy(tmp_path / "before.db", database(made))
        again = made.newsletter("send", "2026-12", "--confirm", "5", check=False)
    assert again.returncode == 6
    assert "was put back to an earlier state" in again.stderr
    assert len(server.recipients()) == 5


# claim


def test_a_claim_asks_and_then_the_copy_is_the_original(sent: Publisher, tmp_path: Path) -> None:
    copy = copied(sent, tmp_path / "copy")
    asked = copy.newsletter("db", "claim", check=False)
    assert asked.returncode == 5
    assert f"it was last at home at {database(sent)} on " in asked.stdout
    assert "Its last campaign: 2026-12 to readers (REHEARSAL), finished" in asked.stdout
    assert "If it is right, add --yes." in asked.stderr
    done = copy.newsletter("db", "claim", "--yes")
    assert "The other installation must never send again." in done.stdout
    assert copy.newsletter("send", "2026-12", "--again", "--confirm", "3").stderr == ""
    assert "nothing was changed" in copy.newsletter("db", "claim").stdout


def test_what_was_running_is_paused_and_says_why(tmp_path: Path) -> None:
    with HoldingServer(hold_at=3) as server:
        made = publisher(tmp_path / "press", LIVE.format(port=server.port))
        made.import_people(crowd(9))
        process = made.start("send", "2026-12", "--confirm", "9")
        wait_for(server.holding, process)
        process.kill()
        process.communicate()
        copy = copied(made, tmp_path / "copy")
        assert "that are running, and will be paused: 1" in copy.newsletter("db", "claim", "--yes").stdout
        server.release()
        refused = copy.newsletter("send", "2026-12", check=False)
        assert refused.returncode == 5
        assert "Do not resume yet" in refused.stderr
        state = copy.newsletter("status").stdout
        assert "the database was restored or moved" in state
        assert "unknown" in state
        assert "in doubt" not in state
        copy.newsletter("resume", "2026-12")
        assert copy.newsletter("send", "2026-12", check=False).returncode == 7
    assert len(server.recipients()) == len(set(server.recipients()))


def test_a_machine_that_was_put_back_as_a_whole_is_claimed_on_demand(sent: Publisher) -> None:
    done = sent.newsletter("db", "claim", "--put-back", "--yes")
    assert "seems to be at home here" in done.stdout
    assert "is at home here now" in done.stdout


# backup and restore


def only_backup(made: Publisher) -> Path:
    [file] = (made.root / ".newsletter" / "backups").iterdir()
    return file


def test_a_backup_and_a_new_machine_make_the_old_one(sent: Publisher, tmp_path: Path) -> None:
    done = sent.newsletter("db", "backup")
    assert "3 subscribers, 3 subscriptions, 0 suppressions, 1 campaign, 3 deliveries" in done.stdout
    assert "the keys are not in the backup" in done.stdout
    assert A_KEY.encode() not in only_backup(sent).read_bytes()
    new = publisher(tmp_path / "new")
    restored = new.newsletter("db", "restore", str(only_backup(sent)))
    assert "What came later is not in it." in restored.stdout
    assert database(new).parent.stat().st_mode & 0o777 == 0o700
    assert new.newsletter("send", "2026-12", check=False).returncode == 6
    new.newsletter("db", "claim", "--yes")
    assert "nobody gets it twice: 3 accepted" in new.newsletter("send", "2026-12").stdout
    assert "is at home here" in new.newsletter("db", "check").stdout


def test_the_oldest_backups_go_when_a_new_one_is_whole(sent: Publisher) -> None:
    folder = sent.root / ".newsletter" / "backups"
    folder.mkdir()
    for day in (1, 2, 3):
        (folder / f"2026-11-0{day}T030000Z.db").touch()
    done = sent.newsletter("db", "backup", "--keep", "2")
    assert "Removed 2026-11-02T030000Z.db." in done.stdout
    assert "Removed 2026-11-01T030000Z.db." in done.stdout
    assert len(list(folder.iterdir())) == 2


def test_only_the_usual_folder_is_tidied(sent: Publisher, tmp_path: Path) -> None:
    done = sent.newsletter("db", "backup", str(tmp_path / "one.db"), "--keep", "1", check=False)
    assert done.returncode == 2
    assert not (tmp_path / "one.db").exists()


def test_with_other_keys_nothing_is_restored(sent: Publisher, tmp_path: Path) -> None:
    sent.newsletter("db", "backup")
    new = publisher(tmp_path / "new", environ={"NEWSLETTER_ADDRESS_KEY": A_KEY[::-1]})
    done = new.newsletter("db", "restore", str(only_backup(sent)), check=False)
    assert done.returncode == 2
    assert "The address key is not the one" in done.stderr
    assert not database(new).exists()


def test_an_env_from_before_the_newest_key_is_warned_of(sent: Publisher, tmp_path: Path) -> None:
    file = sent.root / ".env"
    file.write_text(file.read_text().replace("KEYS=1:", f"KEYS=2:{A_KEY[::-1]},1:"))
    sent.newsletter("db", "backup")
    done = publisher(tmp_path / "new").newsletter("db", "restore", str(only_backup(sent)))
    assert "has known signing key 2, and the newest one in .env is 1." in done.stderr


def test_a_full_disk_leaves_no_backup(sent: Publisher) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        done = sent.newsletter("db", "backup", check=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert done.returncode == 6, done.stderr
    assert "can't be made" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((sent.root / ".newsletter" / "backups").iterdir()) == []


def test_a_backup_in_the_middle_of_a_campaign_knows_who_has_a_copy(tmp_path: Path) -> None:
    """Whoever restores it sends to nobody by itself; and the campaign itself does not notice."""
    with HoldingServer(hold_at=6) as server:
        made = publisher(tmp_path / "press", LIVE.format(port=server.port))
        made.import_people(crowd(20))
        process = made.start("send", "2026-12", "--confirm", "20")
        with serving(made) as pages:
            wait_for(server.holding, process)
            made.newsletter("db", "backup")
            assert pages.unsubscribe(pages.numbers()[-1]) == 200
            server.release()
            said = process.communicate(timeout=60)[1]
        assert process.returncode == 0, said
        new = publisher(tmp_path / "new", LIVE.format(port=server.port))
        new.newsletter("db", "restore", str(only_backup(made)))
        assert (
            "5 accepted" in new.newsletter("status").stdout or "4 accepted" in new.newsletter("status").stdout
        )
        new.newsletter("db", "claim", "--yes")
        assert new.newsletter("send", "2026-12", check=False).returncode == 5
    assert len(server.recipients()) == 19


@pytest.fixture
def crowded(tmp_path: Path) -> Publisher:
    """A list that takes a moment to copy."""
    made = publisher(tmp_path / "press")
    made.import_people(crowd(1))
    crowd_in(database(made), 20_000, b"k" * 32)
    return made


def killed(made: Publisher, folder: Path, *args: str, when: Callable[[Path], bool]) -> None:
    """Starts a command, and kills it when its workshop in ``folder`` has come so far."""
    process = made.start(*args)
    wait_for(lambda: any(when(room) for room in folder.glob(f"{WORKSHOP}*")), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def has(name: str) -> Callable[[Path], bool]:
    return lambda room: any(room.rglob(name))


@pytest.mark.parametrize(
    "file",
    [
        pytest.param("lock", marks=pytest.mark.full),
        "snapshot.db",
        pytest.param("backup.db", marks=pytest.mark.full),
        "proof.db",
    ],
)
def test_a_backup_that_is_killed_leaves_nothing_that_looks_like_one(crowded: Publisher, file: str) -> None:
    folder = crowded.root / ".newsletter" / "backups"
    killed(crowded, folder, "db", "backup", when=has(file))
    assert list(folder.glob("*.db")) == []
    for room in folder.glob(f"{WORKSHOP}*"):
        os.utime(room, (0, 0))
    crowded.newsletter("db", "backup")
    assert only_backup(crowded).suffix == ".db"  # what the killed one left is gone
    assert "is at home here" in crowded.newsletter("db", "check").stdout


@pytest.mark.parametrize("file", ["copy.db", "newsletter.db-wal"])
def test_a_restore_that_is_killed_leaves_no_row_and_can_be_run_again(
    crowded: Publisher, tmp_path: Path, file: str
) -> None:
    crowded.newsletter("db", "backup")
    new = publisher(tmp_path / "new")
    state = new.root / ".newsletter"
    call = ("db", "restore", str(only_backup(crowded)))
    killed(new, state / "backups", *call, when=lambda _: any(state.rglob(file)))
    if database(new).exists():
        with sqlite3.connect(database(new)) as conn:
            if conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
                assert conn.execute("SELECT count(*) FROM meta").fetchone() == (0,)
        conn.close()
    assert "20,001 subscribers" in new.newsletter("db", "restore", str(only_backup(crowded))).stdout
    assert new.newsletter("send", "2026-12", check=False).returncode == 6


def test_the_next_backup_clears_away_the_copy_that_a_killed_restore_has_left(
    crowded: Publisher, tmp_path: Path
) -> None:
    crowded.newsletter("db", "backup")
    new = publisher(tmp_path / "new")
    state = new.root / ".newsletter"
    killed(new, state / "backups", "db", "restore", str(only_backup(crowded)), when=has("copy.db"))
    [room] = state.rglob(f"{WORKSHOP}*")
    os.utime(room, (0, 0))
    new.newsletter("db", "backup")
    assert list(state.rglob("copy.db")) == []


# PostgreSQL


def tool(server: Server, name: str, *args: str) -> None:
    place = postgresql.programs()
    assert place is not None
    found = shutil.which(name, path=str(place)) or shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name}")
    subprocess.run([found, *args], check=True, capture_output=True)


@pytest.fixture
def served_by_postgresql(tmp_path: Path, postgresql_server: Server) -> Publisher:
    """A folder with its database on a server, in which an issue was rehearsed."""
    made = publisher(tmp_path / "press", environ={"DATABASE_URL": postgresql_server.create(empty=True)})
    made.import_people(crowd(3))
    made.newsletter("send", "2026-12", "--confirm", "3")
    return made


def test_a_database_made_from_another_one_is_fenced(
    served_by_postgresql: Publisher, postgresql_server: Server
) -> None:
    name = served_by_postgresql.environ["DATABASE_URL"].rpartition("/")[2]
    postgresql_server.sql(f"CREATE DATABASE twin_of_{name} TEMPLATE {name}")
    twin = Publisher(served_by_postgresql.root, {"DATABASE_URL": postgresql_server.url(f"twin_of_{name}")})
    assert twin.newsletter("send", "2026-12", "--again", check=False).returncode == 6
    assert "is at home here" in served_by_postgresql.newsletter("db", "check").stdout


def test_a_dump_is_fenced_in_another_database_and_in_its_own(
    served_by_postgresql: Publisher, postgresql_server: Server, tmp_path: Path
) -> None:
    made, url = served_by_postgresql, served_by_postgresql.environ["DATABASE_URL"]
    dump = str(tmp_path / "dump")
    tool(postgresql_server, "pg_dump", "--format=custom", f"--file={dump}", url)
    other = postgresql_server.create(empty=True)
    tool(postgresql_server, "pg_restore", f"--dbname={other}", dump)
    moved = Publisher(made.root, {"DATABASE_URL": other})
    assert "is a copy, or was moved" in moved.newsletter("status").stderr
    made.newsletter("send", "2026-12", "--again", "--confirm", "3")
    tool(postgresql_server, "pg_restore", "--clean", f"--dbname={url}", dump)
    again = made.newsletter("send", "2026-12", "--again", check=False)
    assert again.returncode == 6
    assert "was put back to an earlier state" in again.stderr


def test_a_list_moves_from_a_server_into_a_file_and_back(
    served_by_postgresql: Publisher, postgresql_server: Server, tmp_path: Path
) -> None:
    made, file = served_by_postgresql, str(tmp_path / "one.db")
    assert "3 deliveries" in made.newsletter("db", "backup", file).stdout
    lite = publisher(tmp_path / "lite")
    lite.newsletter("db", "restore", file)
    lite.newsletter("db", "claim", "--yes")
    lite.newsletter("db", "backup")
    back = Publisher(made.root, {"DATABASE_URL": postgresql_server.create(empty=True)})
    assert "3 deliveries" in back.newsletter("db", "restore", str(only_backup(lite))).stdout
    back.newsletter("db", "claim", "--yes")
    assert "nobody gets it twice: 3 accepted" in back.newsletter("send", "2026-12").stdout


def test_a_backup_of_a_server_that_is_killed_leaves_nothing(
    served_by_postgresql: Publisher,
) -> None:
    folder = served_by_postgresql.root / ".newsletter" / "backups"
    killed(served_by_postgresql, folder, "db", "backup", when=has("lock"))
    assert list(folder.glob("*.db")) == []
    served_by_postgresql.newsletter("db", "backup")
    assert len(list(folder.glob("*.db"))) == 1

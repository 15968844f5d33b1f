"""PostgreSQL: who may write at the same time as whom, what a commit promises, and what its errors say."""

from __future__ import annotations

import os
import signal
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from newsletter.errors import DatabaseError
from newsletter.store.database import PATIENCE_SECONDS
from newsletter.store.engine import health, many_senders, open_engine, read, write
from newsletter.store.postgresql import IDLE_SECONDS
from tests.support.databases import holder, put, python, sql, values
from tests.support.postgresql import GUARDED, PASSWORD
from tests.support.postgresql import server as start_server
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine

    from tests.support.postgresql import Server

WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


@pytest.fixture
def engine(postgresql_url: str) -> Iterator[Engine]:
    """A database that is ready."""
    made = open_engine(postgresql_url)
    yield made
    made.dispose()


@pytest.fixture
def server(postgresql_server: Server) -> Server:
    """The server, for what is said to it behind our back."""
    return postgresql_server


def setting(engine: Engine, name: str) -> object:
    return read(engine, lambda conn: conn.exec_driver_sql(f"SHOW {name}").scalar())


def waiting(engine: Engine) -> int:
    """How many wait for the write lock."""
    return read(engine, lambda conn: int(conn.scalar(text(WAITING)) or 0))


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def raising(engine: Engine, state: str) -> Callable[[], None]:
    """A write in which the server reports this SQLSTATE. A real full disk is nothing a test can make."""
    block = text(f"DO $$ BEGIN RAISE 'it happened' USING ERRCODE = '{state}'; END $$")
    return lambda: write(engine, lambda conn: conn.execute(block))


def everything(error: BaseException | None) -> str:
    """What a traceback would show of an error and of what led to it."""
    if error is None:
        return ""
    return f"{error!s} {error!r} {everything(error.__cause__)} {everything(error.__context__)}"


# Who may write with whom


def test_senders_write_at_the_same_time(engine: Engine, postgresql_url: str) -> None:
    other = holder(postgresql_url, shared=True)
    write(engine, put, shared=True, wait=5)
    other.communicate()
    assert values(engine) == {"key": "value"}


@pytest.mark.parametrize("shared", [False, True])
def test_everybody_else_writes_alone(engine: Engine, postgresql_url: str, shared: bool) -> None:
    other = holder(postgresql_url, shared=not shared)
    with pytest.raises(DatabaseError, match="Another program keeps the database locked"):
        write(engine, put, shared=shared, wait=0.1)
    other.communicate()


def test_a_person_who_leaves_is_not_kept_waiting_by_senders_that_come_later(
    engine: Engine, postgresql_url: str
) -> None:
    order: list[str] = []
    sender = holder(postgresql_url, shared=True)
    leaving = in_thread(partial(write, engine, lambda conn: order.append("leaves")))
    wait_for(lambda: waiting(engine) == 1)
    later = in_thread(partial(write, engine, lambda conn: order.append("sends"), shared=True))
    wait_for(lambda: waiting(engine) == 2)
    assert order == []
    sender.communicate()
    leaving.join(timeout=20)
    later.join(timeout=20)
    assert order == ["leaves", "sends"]


def test_a_writer_sees_what_was_committed_while_it_waited(engine: Engine) -> None:
    seen: list[object] = []

    def look(conn: Connection) -> None:
        seen.append(conn.scalar(text("SELECT count(*) FROM meta")))

    def first(conn: Connection) -> threading.Thread:
        second = in_thread(partial(write, engine, look))
        wait_for(lambda: waiting(engine) == 1)
        put(conn)
        return second

    write(engine, first).join(timeout=20)
    assert seen == [1]


def test_a_sender_that_is_stopped_does_not_keep_the_lock(engine: Engine, postgresql_url: str) -> None:
    code = "from newsletter.store import postgresql\npostgresql.IDLE_SECONDS = 0.5\n"
    stopped = python(code + STEP, postgresql_url)
    assert stopped.stdout is not None
    assert stopped.stdout.readline() == "held\n"
    stopped.send_signal(signal.SIGSTOP)
    write(engine, put, wait=20)
    stopped.send_signal(signal.SIGCONT)
    assert "stood still" in stopped.communicate("\n")[0]
    assert values(engine) == {"key": "value"}


STEP = """
import sys
from newsletter.errors import DatabaseError
from newsletter.store.engine import open_engine, write
from tests.support.databases import put

def step(conn):
    put(conn, "of the stopped one")
    print("held", flush=True)
    sys.stdin.readline()
    put(conn, "another")

try:
    write(open_engine(sys.argv[1]), step, shared=True)
except DatabaseError as error:
    print(error)
"""


def test_nobody_gives_up_before_a_stopped_process_is_put_out() -> None:
    assert IDLE_SECONDS < PATIENCE_SECONDS / 2


def test_several_processes_may_send(engine: Engine) -> None:
    assert many_senders(engine)


# What is promised


def test_a_commit_is_on_the_disk_whatever_the_server_is_set_to(postgresql_url: str) -> None:
    name = postgresql_url.rpartition("/")[2]
    sql(postgresql_url, f"ALTER DATABASE {name} SET synchronous_commit = off")
    engine = open_engine(postgresql_url)
    assert setting(engine, "synchronous_commit") == "on"
    engine.dispose()


def test_a_cut_network_is_noticed_on_both_sides(engine: Engine) -> None:
    def ours(conn: Connection) -> dict[str, str]:
        raw = conn.connection.driver_connection
        assert raw is not None
        return dict(raw.info.get_parameters())

    known = read(engine, ours)
    assert int(known["keepalives_idle"]) + 3 * int(known["keepalives_interval"]) <= 30
    assert int(known["tcp_user_timeout"]) <= 30_000
    assert int(known["connect_timeout"]) <= 30
    assert known["application_name"] == "newsletter"
    assert (setting(engine, "tcp_keepalives_idle"), setting(engine, "tcp_user_timeout")) == ("10", "25000")


def test_the_address_may_say_otherwise(postgresql_url: str) -> None:
    engine = open_engine(f"{postgresql_url}?application_name=second&connect_timeout=3")
    assert setting(engine, "application_name") == "second"
    engine.dispose()


def test_a_read_can_not_write(engine: Engine) -> None:
    with pytest.raises(DatabaseError, match="read-only"):
        read(engine, put)


def test_what_follows_a_swallowed_error_is_not_taken_for_committed(engine: Engine) -> None:
    def swallow(conn: Connection) -> None:
        put(conn)
        with pytest.raises(IntegrityError):
            put(conn)

    with pytest.raises(RuntimeError, match="can't be committed"):
        write(engine, swallow)
    assert values(engine) == {}


# What its errors say


def test_a_connection_that_is_lost_in_the_middle_is_a_sentence(engine: Engine, server: Server) -> None:
    def cut(conn: Connection) -> None:
        put(conn)
        me = conn.scalar(text("SELECT pg_backend_pid()"))
        server.sql(f"SELECT pg_terminate_backend({me}, 5000)")
        put(conn, "other")

    with pytest.raises(DatabaseError, match="The connection to the database was lost"):
        write(engine, cut)
    assert values(engine) == {}


def test_a_connection_that_was_lost_before_the_commit_has_not_committed(
    engine: Engine, server: Server
) -> None:
    def cut(conn: Connection) -> None:
        put(conn)
        me = conn.scalar(text("SELECT pg_backend_pid()"))
        server.sql(f"SELECT pg_terminate_backend({me}, 5000)")

    with pytest.raises(DatabaseError, match="The connection to the database was lost"):
        write(engine, cut)
    assert values(engine) == {}


def test_connections_that_ended_between_two_uses_are_replaced(engine: Engine, server: Server) -> None:
    write(engine, put)
    ours = read(engine, lambda conn: conn.scalar(text("SELECT pg_backend_pid()")))
    server.sql(f"SELECT pg_terminate_backend({ours}, 5000)")
    assert values(engine) == {"key": "value"}


def test_a_server_that_has_gone_is_a_sentence() -> None:
    with start_server() as server:
        engine = open_engine(server.create())
        os.kill(server.pid, signal.SIGINT)
        wait_for(lambda: not (server.folder / "data" / "postmaster.pid").exists())
        with pytest.raises(DatabaseError, match="can't be reached"):
            values(engine)
        engine.dispose()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("53100", "The disk of the database server is full"),
        ("25006", "read-only"),
        ("53300", "no connection to spare"),
        ("42501", "may not do this"),
        ("XX001", "The database is damaged"),
        ("XX002", "The database is damaged"),
        ("57P01", "was lost"),
        ("58030", "The disk gave an error"),
        ("08006", "was lost"),
    ],
)
def test_what_a_person_can_do_something_about_is_a_sentence(engine: Engine, state: str, words: str) -> None:
    with pytest.raises(DatabaseError, match=words) as caught:
        raising(engine, state)()
    assert "test_" in str(caught.value)
    assert caught.value.hint


def test_a_bug_is_no_sentence(engine: Engine) -> None:
    with pytest.raises(Exception, match="division by zero") as caught:
        write(engine, lambda conn: conn.execute(text("SELECT 1 / 0")))
    assert not isinstance(caught.value, DatabaseError)


def test_a_server_that_takes_no_writes_is_read_and_says_so(postgresql_url: str) -> None:
    name = postgresql_url.rpartition("/")[2]
    sql(postgresql_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    engine = open_engine(postgresql_url)
    assert values(engine) == {}
    with pytest.raises(DatabaseError, match="read-only"):
        write(engine, put)
    engine.dispose()


def test_a_wrong_password_is_a_sentence_without_it(server: Server, postgresql_url: str) -> None:
    name = postgresql_url.rpartition("/")[2]
    server.sql(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {GUARDED}", name)
    open_engine(server.url(name, user=GUARDED, password=PASSWORD)).dispose()
    with pytest.raises(DatabaseError, match="refused the login") as caught:
        open_engine(server.url(name, user=GUARDED, password="hunter2"))
    assert "hunter2" not in everything(caught.value)


def test_no_form_of_the_password_shows_in_the_engine(server: Server, postgresql_url: str) -> None:
    name = postgresql_url.rpartition("/")[2]
    server.sql(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {GUARDED}", name)
    engine = open_engine(f"{server.url(name, user=GUARDED)}?password={PASSWORD}")
    write(engine, put)
    assert PASSWORD not in repr(engine) + str(engine.url)
    engine.dispose()


def test_a_user_without_rights_is_a_sentence(server: Server, postgresql_url: str) -> None:
    name = postgresql_url.rpartition("/")[2]
    with pytest.raises(DatabaseError, match="may not do this"):
        open_engine(server.url(name, user=GUARDED, password=PASSWORD))


def test_a_database_that_is_not_there_is_a_sentence(server: Server) -> None:
    with pytest.raises(DatabaseError, match="no such database: nowhere on"):
        open_engine(server.url("nowhere"), create=True)


def test_a_database_that_can_not_hold_every_name_is_refused(server: Server) -> None:
    server.sql("CREATE DATABASE latin TEMPLATE template0 ENCODING LATIN1 LOCALE 'C'")
    with pytest.raises(DatabaseError, match="the encoding LATIN1"):
        open_engine(server.url("latin"), create=True)
    server.drop(server.url("latin"))


def test_too_many_connections_are_a_sentence(server: Server, postgresql_url: str) -> None:
    name = postgresql_url.rpartition("/")[2]
    server.sql(f"ALTER DATABASE {name} CONNECTION LIMIT 0")
    server.sql(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {GUARDED}", name)
    with pytest.raises(DatabaseError, match="no connection to spare"):
        open_engine(server.url(name, user=GUARDED, password=PASSWORD))


def test_an_address_does_not_stand_in_the_error_of_a_refused_row(engine: Engine) -> None:
    person = text(
        "INSERT INTO subscriber (address, name, fields, created_at) VALUES (:address, '', '{}', 0)"
    ).bindparams(address="zoe@example.org")
    with pytest.raises(IntegrityError, match="not-null") as caught:
        write(engine, lambda conn: conn.execute(person))
    assert "zoe" not in everything(caught.value)


def test_a_reference_to_nobody_is_found(engine: Engine, postgresql_url: str) -> None:
    sql(
        postgresql_url,
        "SET session_replication_role = replica",  # as a restore does, which checks nothing
        "INSERT INTO consent (subscription_id, at, act, source, wording) VALUES (7, 0, 'added', '', '')",
    )
    assert health(engine).damage == ["1 rows of consent refer to a missing subscription"]


def test_a_server_that_risks_what_was_committed_is_named(engine: Engine) -> None:
    assert "fsync = off" in health(engine).doubts[0]


WITHOUT_DRIVER = """
import sys
sys.modules["psycopg"] = None
from newsletter.errors import ConfigError
from newsletter.store.engine import open_engine
try:
    open_engine("postgresql://me:hunter2@127.0.0.1/news")
except ConfigError as error:
    print(error, error.hint)
"""


def test_without_the_driver_the_extra_is_named() -> None:
    said = python(WITHOUT_DRIVER).communicate()[0]
    assert "pip install 'newsletter-press[postgres]'" in said
    assert "hunter2" not in said


# The tests' own server


def test_the_server_of_killed_tests_ends_with_them() -> None:
    code = "from tests.support.postgresql import *\nwith server() as s: print(s.pid, s.folder, flush=True); input()"
    tests = python(code)
    assert tests.stdout is not None
    pid, folder = tests.stdout.readline().split()
    tests.kill()
    tests.communicate()
    wait_for(lambda: not _alive(int(pid)))
    wait_for(lambda: not os.path.exists(folder))  # noqa: PTH110 - a name that another process told

"""PostgreSQL: how it is connected to, how a transaction begins, and what its errors mean.

One writer at a time, as on SQLite, by an advisory lock that each writing transaction takes first; senders share it, so
that they work side by side while everybody else writes alone. So no copy is handed over after an unsubscribe has been
committed (docs/decisions/0015-postgresql.md). The server's queue is fair: whoever waits for the lock alone goes before
those who come to share it later.

A connection that is cut is noticed by both sides within half a minute, and a stopped process can't keep the lock:
the server ends its transaction after ``IDLE_SECONDS``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, column, create_engine, event, func, select

from newsletter.errors import ConfigError, DatabaseError
from newsletter.store.database import SHARED, WAIT, Health, Problem, Whereabouts
from newsletter.store.schema import metadata

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import URL, Connection, Engine, Table
    from sqlalchemy.engine import ExceptionContext

LOCK = (0x6E657773, 1)  # pg_advisory_lock(int, int) is a space of its own, beside the one for a bigint
IDLE_SECONDS = 10  # less than others wait: a process stopped with the lock is put out before anybody gives up

# Where DATABASE_URL says otherwise, it has its way.
_CONNECTION: dict[str, Any] = {
    "application_name": "newsletter",
    "client_encoding": "utf8",
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
# The server's default may be to say "committed" before it is on the disk; remote_apply promises more than we need.
# The keepalives are those of the server, which frees a lost process's locks.
_SESSION = """
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') <> 'remote_apply';
SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;
SET tcp_user_timeout = 25000
"""
_SECRET = ("password", "sslpassword")  # as parts of the query they would show in the engine's repr

# The snapshot is taken by the first query, so here is one.
_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT 1"
# READ COMMITTED, because its statements see what was committed while they waited for a lock. Never READ WRITE: that
# would overrule a server that was told to take no more writes.
_WRITE = (
    "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = {wait};"
    " SET LOCAL idle_in_transaction_session_timeout = {idle}; SELECT pg_advisory_xact_lock{form}({lock})"
)

_LOST = Problem(
    "The connection to the database was lost",
    "See that the server runs and can be reached, then run it again.",
)
_FULL = Problem("The disk of the database server is full", "Free some space there and run it again.")
_DAMAGED = Problem("The database is damaged", "Stop writing to it, and restore the last backup.")
_CROWDED = Problem(
    "The database server has no connection to spare", "End other programs, or raise its max_connections."
)
_NO_RIGHT = Problem(
    "The user in DATABASE_URL may not do this in the database", "Make that user the owner of the database."
)
_PROBLEMS = {
    "55P03": Problem(
        "Another program keeps the database locked",
        "Probably a second `newsletter` command or a backup: let it end, try again.",
    ),
    "40P01": Problem("Two programs waited for each other in the database", "Run it again."),
    "53100": _FULL,
    "53200": Problem("The database server is out of memory", "Give it more, then run it again."),
    "53300": _CROWDED,
    "25006": Problem(
        "The database can't be written: it is read-only",
        "Check that DATABASE_URL names the main server and not a standby, and that its disk is not full.",
    ),
    "25P03": Problem(
        f"This process stood still for over {IDLE_SECONDS} seconds while writing, so the write was undone",
        "Was it stopped, or the machine asleep? Run it again.",
    ),
    "42501": _NO_RIGHT,
    "57P01": _LOST,
    "57P02": _LOST,
    "57P03": Problem("The database server is starting or stopping", "Wait a moment and run it again."),
    "58030": Problem("The disk gave an error while the database was used", "Check the server's disk."),
    "XX001": _DAMAGED,
    "XX002": _DAMAGED,
}
# Without a connection there is no SQLSTATE, only what the server said. Servers that speak another language than
# English get the last sentence of these.
_REFUSALS = (
    (
        r"authentication failed|no password supplied|no pg_hba\.conf entry|role .* does not exist",
        Problem("The database server refused the login", "Check user and password in DATABASE_URL."),
    ),
    (
        r"database .* does not exist",
        Problem("The server has no such database", "Check DATABASE_URL, or make it there with `createdb`."),
    ),
    (r"too many|connection slots", _CROWDED),
    (r"permission denied", _NO_RIGHT),
    (r"starting up|shutting down|recovery|not yet accepting", _PROBLEMS["57P03"]),
)


def make(url: URL, *, create: bool) -> Engine:
    """An engine on the server. Raises ``ConfigError`` without the driver, which the extra ``postgres`` brings."""
    if not url.database:
        raise ConfigError(
            "DATABASE_URL names no database.",
            hint="Write its name last: postgresql://USER:PASSWORD@HOST/NAME",
        )
    secret = {key: url.query[key] for key in _SECRET if key in url.query}
    known = {key: value for key, value in _CONNECTION.items() if key not in url.query}
    shown = url.set(drivername="postgresql+psycopg").difference_update_query(_SECRET)
    try:
        engine = create_engine(
            shown,
            connect_args={
                **known,
                **secret,
                "autocommit": True,
            },  # the driver begins nothing: `_on_begin` does
            hide_parameters=True,
            use_native_hstore=False,  # a question to the server on each connection, and we have none
        )
    except ImportError:
        raise ConfigError(
            "DATABASE_URL names PostgreSQL, and its driver is not installed.",
            hint="Run `pip install 'newsletter-press[postgres]'`.",
        ) from None
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    event.listen(engine, "commit", _on_commit)
    event.listen(engine, "handle_error", _on_error)
    return engine


def name(url: URL) -> str:
    """The database and the server."""
    host = url.host or url.query.get("host") or "this machine"
    port = url.port or url.query.get("port") or 5432
    return f"{url.database} on {host}:{port}"


def explain(error: BaseException, *, connecting: bool) -> Problem | None:
    """By SQLSTATE; what the driver finds out by itself, as a rule that the connection is gone, has none."""
    if connecting:
        return _refusal(str(error))
    state = getattr(error, "sqlstate", None) or ""
    if state.startswith("08") or (not state and type(error).__name__ == "OperationalError"):
        return _LOST
    return _PROBLEMS.get(state)


def _refusal(said: str) -> Problem:
    for words, problem in _REFUSALS:
        if re.search(words, said):
            return problem
    reason = said.partition("\n")[0].rpartition("failed: ")[2].rstrip(".")
    return Problem(
        "The database server can't be reached",
        f"It was said: {reason}. Check DATABASE_URL, and that it runs.",
    )


def _on_connect(raw: Any, _record: object) -> None:
    encoding = raw.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise DatabaseError(
            f"The database has the encoding {encoding}, which can't hold every name.",
            hint="Make it anew with `createdb --encoding UTF8 --template template0`.",
        )
    raw.execute(_SESSION)


def _on_begin(conn: Connection) -> None:
    options = conn.get_execution_options()
    wait = options.get(WAIT)
    if wait is None:
        conn.exec_driver_sql(_READ)
        return
    statement = _WRITE.format(
        wait=max(1, round(wait * 1000)),  # 0 would be for ever
        idle=IDLE_SECONDS * 1000,
        form="_shared" if options.get(SHARED) else "",
        lock=f"{LOCK[0]}, {LOCK[1]}",
    )
    conn.exec_driver_sql(statement)


def _on_commit(conn: Connection) -> None:
    """After an error that somebody caught, the server takes COMMIT for ROLLBACK and says nothing."""
    raw: Any = conn.connection.driver_connection
    if raw.info.transaction_status.name == "INERROR":
        raw.rollback()
        raise RuntimeError("A transaction can't be committed after an error inside it.")


def _on_error(context: ExceptionContext) -> None:
    """Takes the details away, in which the server quotes the whole row: an address would stand in a log."""
    said = getattr(getattr(context.original_exception, "diag", None), "message_primary", None)
    if said and context.sqlalchemy_exception is not None:
        context.original_exception.args = (said,)
        context.sqlalchemy_exception.args = (f"({type(context.original_exception).__name__}) {said}",)


# Looking for damage


def expect_small_commits(conn: Connection) -> None:
    """The server keeps its log in files of one size."""


def scrub(engine: Engine) -> bool:
    """Nothing to do from here: the server writes over dead rows and old logs by itself (autovacuum)."""
    return True


def health(conn: Connection) -> Health:
    """Every row is read and every reference followed; what only the server's own tools see stays unseen."""
    damage = [line for table in metadata.sorted_tables for line in _damage(conn, table)]
    broken = conn.exec_driver_sql(
        "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"
        " AND indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = current_schema()::regnamespace)"
    )
    damage += [f"the index {index} is not usable" for index in broken.scalars()]
    return Health(damage, "every row and every reference", list(_doubts(conn)))


def _damage(conn: Connection, table: Table) -> Iterator[str]:
    whole = func.length(
        func.row_to_json(column(table.name, is_literal=True)).op("::")(column("text", is_literal=True))
    )
    conn.execute(select(func.sum(whole)).select_from(table)).scalar()  # a damaged page or value ends this
    for key in table.foreign_keys:
        child, parent = key.parent, key.column.table.alias("parent")
        there = and_(parent.c[key.column.name] == child)
        missing = (
            select(table)
            .outerjoin(parent, there)
            .where(child.is_not(None), parent.c[key.column.name].is_(None))
        )
        count = conn.scalar(select(func.count()).select_from(missing.subquery()))
        if count:
            yield f"{count} rows of {table.name} refer to a missing {key.column.table.name}"


def whereabouts(conn: Connection) -> Whereabouts:
    """Both numbers are the server's own: it gives no second database the same, and another server is another one."""
    allowed = conn.exec_driver_sql("SELECT has_function_privilege('pg_control_system()', 'EXECUTE')").scalar()
    place = name(conn.engine.url)
    which = "(SELECT system_identifier FROM pg_control_system())" if allowed else "0"
    row = conn.exec_driver_sql(
        f"SELECT {which} AS server, oid FROM pg_database WHERE datname = current_database()"  # noqa: S608
    ).one()
    return Whereabouts(
        str(row.server) if allowed else place, str(row.oid), f"{place} (database number {row.oid})"
    )


def last_numbers(conn: Connection) -> dict[str, int]:
    """Of each table that counts. A number that was taken and not used counts as well."""
    found = {}
    for table, sequence in _sequences(conn).items():
        row = conn.exec_driver_sql(f"SELECT last_value, is_called FROM {sequence}").one()  # noqa: S608 - our own name
        found[table] = row.last_value if row.is_called else row.last_value - 1
    return found


def count_on(conn: Connection, numbers: Mapping[str, int]) -> None:
    """Rows that came with their numbers have moved no sequence."""
    for table in metadata.sorted_tables:
        if (sequence := _sequences(conn).get(table.name)) and table.autoincrement_column is not None:
            highest = conn.scalar(select(func.max(table.autoincrement_column))) or 0
            last = max(highest, numbers.get(table.name, 0))
            conn.execute(select(func.setval(sequence, max(last, 1), last > 0)))


def _sequences(conn: Connection) -> dict[str, str]:
    counting = {table.name: table.autoincrement_column for table in metadata.sorted_tables}
    asked = {
        table: conn.scalar(select(func.pg_get_serial_sequence(table, column.name)))
        for table, column in counting.items()
        if column is not None
    }
    return {table: sequence for table, sequence in asked.items() if sequence}


def _doubts(conn: Connection) -> Iterator[str]:
    def setting(which: str) -> object:
        return conn.exec_driver_sql(f"SHOW {which}").scalar()

    for which in ("fsync", "full_page_writes"):
        if setting(which) != "on":
            yield f"The server runs with {which} = off: a power cut can lose what was committed, or damage it."
    if setting("data_checksums") != "on":
        yield "The server keeps no checksums of its pages, so a disk that changes a byte may go unnoticed."

"""A PostgreSQL server of the tests' own: made in a temporary folder, gone with the tests, however they end."""

from __future__ import annotations

import itertools
import os
import pwd
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from newsletter.store.engine import create_or_upgrade

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection

USER = "newsletter"
GUARDED = "guarded"  # needs the password, where all others are let in
PASSWORD = "open-sesame"
START_SECONDS = 60.0
HBA = f"""
local all all trust
host all {GUARDED} 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
"""

# The shell waits for its standard input to end: that is when the tests close it, or are no more, even after SIGKILL.
RUN = """
{postgres} -D {data} {options} >{folder}/log 2>&1 </dev/null & server=$!
read -r end
kill -INT $server
wait $server
rm -rf {folder}
"""


@cache
def programs() -> Path | None:
    """Where ``initdb`` and ``postgres`` are; None without PostgreSQL."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent, *debian] if found else debian
    return next((place for place in places if (place / "postgres").exists()), None)


def _version(place: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in place.parent.name.split(".") if part.isdigit())


def missing() -> str:
    """Why there can be no server, else an empty text."""
    return "" if programs() else "PostgreSQL is not installed: apt-get install postgresql"


@dataclass(slots=True)
class Server:
    """A running server."""

    folder: Path
    port: int
    pid: int
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _migrated: bool = False

    def url(self, database: str, *, user: str = USER, password: str = "") -> str:
        """What DATABASE_URL says for a database of this server."""
        login = f"{user}:{password}" if password else user
        return f"postgresql://{login}@127.0.0.1:{self.port}/{database}"

    def create(self, *, empty: bool = False) -> str:
        """A new database, with our tables unless ``empty``; returns its URL."""
        name = f"test_{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {'template0' if empty else self._template()}")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Takes a database away, whoever is connected to it."""
        self.sql(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")

    def sql(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Runs one statement as another program would; returns its rows."""
        with self.connect(self.url(database)) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def connect(self, url: str) -> Connection:
        """A connection of its own, each statement for itself."""
        import psycopg

        return psycopg.connect(url, autocommit=True, connect_timeout=10)

    def _template(self) -> str:
        if not self._migrated:
            self.sql("CREATE DATABASE migrated TEMPLATE template0")
            create_or_upgrade(self.url("migrated"))
            self._migrated = True
        return "migrated"


@contextmanager
def server(folder: Path | None = None, *, fsync: bool = False) -> Iterator[Server]:
    """A server while the block runs, in a new folder within ``folder``. ``fsync=False`` is faster, and for tests only.

    PostgreSQL refuses to run as root, so its own user runs it then, and has to be able to reach ``folder``.
    """
    place = Path(tempfile.mkdtemp(prefix="newsletter-pg-", dir=folder))
    try:
        _make(place)
        with _running(place, fsync=fsync) as running:
            yield running
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _make(place: Path) -> None:
    if os.geteuid() == 0:
        shutil.chown(place, _other_user())
    secret = place / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)  # of a server that lives for a minute and holds nobody's data
    options = [
        "-U",
        USER,
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--no-sync",
        "--no-instructions",
    ]
    made = subprocess.run(
        _as_user(str(_program("initdb")), "-D", str(place / "data"), *options),
        capture_output=True,
        text=True,
        check=False,
        cwd=place,
    )
    if made.returncode:
        raise RuntimeError(f"initdb: {made.stderr}")
    (place / "data" / "pg_hba.conf").write_text(HBA)


@contextmanager
def _running(place: Path, *, fsync: bool) -> Iterator[Server]:
    """Another program may take the port before the server does: then another port is tried."""
    for last in (False, False, True):
        port = _free_port()
        with _process(place, port, fsync=fsync) as process:
            try:
                yield _ready(place, port, process)
            except PortTaken:
                if last:
                    raise
            else:
                return


class PortTaken(Exception):
    """The server ended before anybody could connect to it."""


@contextmanager
def _process(place: Path, port: int, *, fsync: bool) -> Iterator[subprocess.Popen[bytes]]:
    settings = {
        "port": port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": place,
        "max_connections": 60,
        "shared_buffers": "32MB",
        "fsync": "on" if fsync else "off",
        "full_page_writes": "on" if fsync else "off",
        "autovacuum": "on" if fsync else "off",
    }
    options = " ".join(f"-c {key}={shlex.quote(str(value))}" for key, value in settings.items())
    quoted = {"postgres": _program("postgres"), "data": place / "data", "folder": place}
    script = RUN.format(options=options, **{key: shlex.quote(str(value)) for key, value in quoted.items()})
    process = subprocess.Popen(
        _as_user("sh", "-c", script),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=place,
        start_new_session=True,  # Ctrl-C is for the tests; the server ends after them
    )
    try:
        yield process
    finally:
        process.communicate()  # closes its standard input and waits


def _ready(place: Path, port: int, process: subprocess.Popen[bytes]) -> Server:
    import psycopg

    deadline = time.monotonic() + START_SECONDS
    pid_file = place / "data" / "postmaster.pid"
    while time.monotonic() < deadline:
        with suppress(psycopg.OperationalError, OSError, ValueError):
            pid = int(pid_file.read_text().partition("\n")[0])  # empty, before the server has written it
            found = Server(place, port, pid)
            found.sql(f"CREATE ROLE {GUARDED} LOGIN PASSWORD '{PASSWORD}'")
            return found
        if "could not create any TCP/IP sockets" in _log(place):
            raise PortTaken(_log(place))
        if process.poll() is not None:
            break
        time.sleep(0.02)
    raise RuntimeError(f"PostgreSQL did not start: {_log(place)}")


def _log(place: Path) -> str:
    with suppress(OSError):
        return (place / "log").read_text()
    return ""


def _program(name: str) -> Path:
    place = programs()
    if place is None:
        raise RuntimeError(missing())
    return place / name


def _as_user(*command: str) -> list[str]:
    if os.geteuid() != 0:
        return list(command)
    runuser = shutil.which("runuser", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    return [runuser or "runuser", "-u", _other_user(), "--", *command]


@cache
def _other_user() -> str:
    names = {user.pw_name for user in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

"""Small reads and writes for tests of the store, and other processes that do them at the same time."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from sqlalchemy import create_engine, insert, select

from newsletter.store.engine import read
from newsletter.store.schema import meta

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine


def put(conn: Connection, key: str = "key", value: str = "value") -> None:
    """One row."""
    conn.execute(insert(meta).values(key=key, value=value))


def values(engine: Engine) -> dict[str, str]:
    """All rows."""
    return read(engine, lambda conn: {row.key: row.value for row in conn.execute(select(meta))})


def sql(url: str, *statements: str) -> None:
    """Runs statements as another program would, in one transaction."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as conn:
        for statement in statements:
            conn.exec_driver_sql(statement)
    engine.dispose()


def python(code: str, *args: str) -> subprocess.Popen[str]:
    """Another process."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code, *args], stdin=pipe, stdout=pipe, text=True, env=env)


HOLD = """
import sys
from newsletter.store.engine import open_engine, write

def hold(conn):
    print("held", flush=True)
    sys.stdin.read()

engine = open_engine(sys.argv[1])
write(engine, hold, shared=len(sys.argv) > 2)
"""


def holder(url: str, *, shared: bool = False) -> subprocess.Popen[str]:
    """Another process that holds the write lock until its standard input ends."""
    process = python(HOLD, url, *(["shared"] if shared else []))
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process

"""What every test shares: fixed seeds, and the two databases."""

from __future__ import annotations

import os
import shutil
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from newsletter.store.engine import open_engine
from tests.support import postgresql

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Engine

COMMON = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.too_slow],
    "database": None,
}
settings.register_profile("test", max_examples=60, **COMMON)
settings.register_profile("prove", max_examples=3000, **COMMON)
settings.register_profile("histories", max_examples=400, **COMMON)  # each of them has thirty steps
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "test"))


# A shell without a terminal starts what runs behind it with Ctrl-C ignored, `nohup` with SIGHUP ignored, and children
# inherit that: but ours are to be stopped by these very signals.
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[postgresql.Server]:
    """One server for all tests of this process."""
    if postgresql.programs() is None:
        pytest.skip("there is no PostgreSQL server to start: apt-get install postgresql")
    with postgresql.server() as server:
        yield server


@pytest.fixture
def postgresql_url(postgresql_server: postgresql.Server) -> Iterator[str]:
    """The address of a PostgreSQL database with our tables and nothing in them."""
    url = postgresql_server.create()
    yield url
    postgresql_server.drop(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A test runs on each database, which has our tables and nothing in them."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql_url"))
    shutil.copy(request.getfixturevalue("empty_file"), tmp_path / "newsletter.db")
    return f"sqlite:///{tmp_path / 'newsletter.db'}"


@pytest.fixture(scope="session")
def empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database to copy: making one for every test would take most of the time."""
    file = tmp_path_factory.mktemp("template") / "empty.db"
    open_engine(f"sqlite:///{file}", create=True).dispose()
    return file


@pytest.fixture
def sqlite_engine(tmp_path: Path, empty_file: Path) -> Iterator[Engine]:
    """A SQLite database with our tables and nothing in them."""
    shutil.copy(empty_file, tmp_path / "newsletter.db")
    made = open_engine(f"sqlite:///{tmp_path}/newsletter.db")
    yield made
    made.dispose()

"""Homes for databases, and processes that are killed between any two of their writes."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, create_engine, func, select

from newsletter.store import instance
from newsletter.store.engine import create_or_upgrade, fence, open_engine
from newsletter.store.instance import Home, Witness
from newsletter.store.schema import campaign
from tests.support.commits import Deadly, on_each_side
from tests.support.databases import sql
from tests.support.ledgers import NOW

if TYPE_CHECKING:
    from pathlib import Path


LATER = NOW + timedelta(hours=1)


def home(folder: Path, key: str = "here", *, required: bool = True) -> Home:
    """A place with its witness in ``folder``."""
    return Home(key, f"the place {key}", Witness(folder / f"{key}.generation", required))


def opened(url: str, place: Home, *, create: bool = True) -> Engine:
    """As ``wiring.open_store`` does it."""
    engine = open_engine(url, create=create)
    instance.settle(engine, place)
    return engine


def fence_of(url: str, place: Home) -> str:
    """Why it may not be written in that place; empty if it may."""
    engine = opened(url, place)
    engine.dispose()
    return fence(engine)


def make_old(url: str) -> None:
    """A database of the schema before homes, with a person in it."""
    config = Config()
    config.set_main_option("script_location", "newsletter.store:migrations")
    engine = create_engine(url)
    with engine.begin() as conn:
        config.attributes["connection"] = conn
        command.upgrade(config, "0004")
    engine.dispose()
    sql(
        url,
        "INSERT INTO subscriber (id, name, fields, edition, created_at) VALUES (1, '', '{}', 'standard', 0)",
    )


# What a process does that is killed


def open_new(url: str, place: Home) -> None:
    """The first use of a database."""
    opened(url, place).dispose()


def upgrade(url: str, place: Home) -> None:
    """`newsletter db upgrade`."""
    create_or_upgrade(url, lambda conn: instance.welcome(conn, place))


def advance(url: str, place: Home) -> None:
    """As a campaign's start does."""
    instance.advance(opened(url, place), lambda conn: conn.scalar(select(func.count()).select_from(campaign)))


def claim(url: str, place: Home) -> None:
    """`newsletter db claim`."""
    instance.claim(opened(url, place), place, LATER)


_FORKS = multiprocessing.get_context("forkserver")


def is_killed(step: int, act: object, url: str, place: Home) -> bool:
    """Whether the process that does ``act`` got as far as its ``step``-th step, at which it kills itself.

    Steps are before a commit, after it, and before a file gets its name.
    """
    process = _FORKS.Process(target=_die, args=(step, act, url, place))
    process.start()
    process.join(60)
    assert process.exitcode in {0, -signal.SIGKILL}
    return process.exitcode != 0


def _die(at: int, act: object, url: str, place: Home) -> None:
    step = Deadly(at)
    on_each_side(step)
    sys.addaudithook(lambda name, _: step() if name == "os.rename" else None)
    act(url, place)  # type: ignore[operator]

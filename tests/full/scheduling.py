"""Schedulers at their full size: each function tries one promise and says what was seen."""

from __future__ import annotations

import signal
from collections import Counter
from typing import TYPE_CHECKING

from tests.cli.test_running import assert_once_each
from tests.support import postgresql, schedulers
from tests.support.holding import HoldingServer
from tests.support.publisher import crowd

if TYPE_CHECKING:
    from pathlib import Path

RACES = 1000
KILLS = 60


def races(folder: Path, environ: dict[str, str] | None = None) -> str:
    """Two schedulers look at a thousand dates, each at the same moment."""
    with HoldingServer() as server:
        made = schedulers.scheduled(folder, server.port, RACES, environ)
        made.import_people(crowd(1))
        found = schedulers.run(made, "race", RACES)
        assert_once_each(made, server, RACES, people=1)
    codes = Counter(each["code"] for each in found)
    assert set(codes) <= {0, 5}, codes
    return f"{RACES:,} races: {RACES:,} campaigns, {len(server.messages()):,} copies, nobody twice"


def races_on_postgresql(folder: Path) -> str:
    """The same, on a server that waits for its disk."""
    with postgresql.server(fsync=True) as server:
        return races(folder, {"DATABASE_URL": server.create(empty=True)})


def kills(folder: Path, environ: dict[str, str] | None = None) -> str:
    """A scheduler is killed before and after each of its commits."""
    with HoldingServer() as server:
        made = schedulers.scheduled(folder, server.port, KILLS + 1, environ)
        made.import_people(crowd(2))
        found = schedulers.run(made, "kill", KILLS)
        assert {each["killed"] for each in found} == {-signal.SIGKILL}
        assert {each["again"] for each in found} <= {0, 7}
        assert_once_each(made, server, KILLS + 1, people=2)
    moments = len({each["moment"] for each in found})
    unknown = sum(each["again"] == 7 for each in found)
    return (
        f"killed at {moments} moments: the next one brought each to its end, {unknown} with copies in doubt"
    )


def kills_on_postgresql(folder: Path) -> str:
    """The same there."""
    with postgresql.server(fsync=True) as server:
        return kills(folder, {"DATABASE_URL": server.create(empty=True)})

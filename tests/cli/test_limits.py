"""`rate` as the operator meets it: real processes, a real mail server, and the ledger's own times."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from newsletter.limits import Rate
from newsletter.store.engine import open_engine, read
from newsletter.store.schema import delivery
from tests.cli.test_following import LIVE
from tests.support.holding import HoldingServer
from tests.support.publisher import crowd, publisher
from tests.support.waiting import wait_for
from tests.test_limits import assert_obeyed

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from tests.support.publisher import Publisher

PEOPLE = 30


def limited(tmp_path: Path, server: HoldingServer, rate: str, **environ: str) -> Publisher:
    settings = LIVE.replace('transport = "smtp"', f'transport = "smtp"\nrate = "{rate}"')
    made = publisher(tmp_path, settings.format(port=server.port), environ)
    made.import_people(crowd(PEOPLE))
    return made


def hand_overs(url: str) -> list[tuple[datetime, int]]:
    engine = open_engine(url)
    moments = read(engine, lambda conn: conn.execute(select(delivery.c.handed_at)).scalars().all())
    engine.dispose()
    return [(moment, 1) for moment in sorted(moments)]


def test_processes_that_share_a_database_share_the_rate(tmp_path: Path, postgresql_url: str) -> None:
    with HoldingServer() as server:
        made = limited(tmp_path, server, "20/s", DATABASE_URL=postgresql_url)
        together = [made.start("send", "2026-12", "--confirm", str(PEOPLE)) for _ in range(2)]
        for process in together:
            out, errors = process.communicate()
            assert process.returncode == 0, errors
            assert f"{PEOPLE} accepted" in out
    assert sorted(server.recipients()) == [address for address, _ in crowd(PEOPLE)]
    assert_obeyed(Rate(20, 1), hand_overs(postgresql_url))


@pytest.mark.parametrize("word", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_heard_while_the_limit_is_waited_for(tmp_path: Path, word: signal.Signals) -> None:
    with HoldingServer() as server:
        made = limited(tmp_path, server, "1/h")
        process = made.start("send", "2026-12", "--confirm", str(PEOPLE))
        wait_for(lambda: len(server.recipients()) == 1, process)
        process.send_signal(word)
        out, errors = process.communicate()
        assert process.returncode == 8, (out, errors)
        assert "newsletter send 2026-12" in out + errors
        status = made.newsletter("status", "2026-12").stdout
        assert len(server.recipients()) == 1
    assert "1 accepted" in " ".join(status.split())
    assert "29" in status

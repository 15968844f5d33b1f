"""Several `newsletter send` on one PostgreSQL: they share the campaign, and take up what a dead one leaves."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.cli.test_following import LIVE
from tests.support.holding import HoldingServer
from tests.support.publisher import crowd, publisher
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.publisher import Publisher

PEOPLE = 60


def on_postgresql(tmp_path: Path, url: str, server: HoldingServer) -> Publisher:
    made = publisher(tmp_path, LIVE.format(port=server.port), {"DATABASE_URL": url})
    made.import_people(crowd(PEOPLE))
    return made


@pytest.mark.parametrize("senders", [3])
def test_all_that_start_at_once_share_one_campaign(tmp_path: Path, postgresql_url: str, senders: int) -> None:
    with HoldingServer(hold_at=PEOPLE - 5) as server:
        made = on_postgresql(tmp_path, postgresql_url, server)
        together = [made.start("send", "2026-12", "--confirm", str(PEOPLE)) for _ in range(senders)]
        wait_for(server.holding)
        assert made.newsletter("status", "2026-12").stdout.count("process ") >= 1
        server.release()
        for process in together:
            out, errors = process.communicate()
            assert process.returncode == 0, errors
            assert f"{PEOPLE} accepted" in out
        assert sorted(server.recipients()) == [address for address, _ in crowd(PEOPLE)]


def test_a_living_sender_takes_up_what_a_killed_one_leaves(tmp_path: Path, postgresql_url: str) -> None:
    with HoldingServer(hold_at=10) as server:
        made = on_postgresql(tmp_path, postgresql_url, server)
        first = made.start("send", "2026-12", "--confirm", str(PEOPLE))
        wait_for(server.holding, first)
        second = made.start("send", "2026-12", "--confirm", str(PEOPLE))
        line = second.stdout.readline()
        assert "Going on with" in line, (line, second.communicate())
        first.send_signal(signal.SIGKILL)
        first.communicate()
        server.release()
        out, _ = second.communicate()
        assert second.returncode == 7
        assert "unknown" in out
        counts = {address: server.recipients().count(address) for address, _ in crowd(PEOPLE)}
        assert max(counts.values()) == 1

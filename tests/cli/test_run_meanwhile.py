"""`newsletter run`, while something is changed between the moments: settings, files, dates, clocks."""

from __future__ import annotations

import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from newsletter.cli.running import Said
from tests.cli.test_running import BEFORE, EVERYBODY, LIVE, look, publishing, received, set_back
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.holding import HoldingServer
    from tests.support.publisher import Publisher

ONLY_ONE = 'allowlist = ["reader00001@example.org"]\nconnections'


def give_a_date(made: Publisher, *more: str) -> None:
    """Due a moment ago by the real clock, for whoever looks by that."""
    moment = datetime.now(UTC) + timedelta(minutes=2)
    made.newsletter("send", "2027-12", "--at", f"{moment:%Y-%m-%d %H:%M}", "--confirm", "5", *more)
    set_back(made, moment - timedelta(minutes=3))


def cut_off(made: Publisher, server: HoldingServer) -> None:
    """A scheduler is killed while it sends."""
    give_a_date(made)
    process = made.start("run", "--once", "--clock-is-right")
    wait_for(server.holding, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    server.release()


@pytest.mark.parametrize("mode", ["off", "allowlist"])
def test_what_was_cut_off_does_not_go_on_in_another_mode(tmp_path: Path, mode: str) -> None:
    """Off is off; and an allowlist would have skipped everybody who is not on it, for good."""
    with publishing(tmp_path, hold_at=2) as (made, server):
        look(made, BEFORE)
        cut_off(made, server)
        left, live = received(server), (made.root / "newsletter.toml").read_text()
        made.configure(LIVE.format(port=server.port, mode=mode).replace("connections", ONLY_ONE))
        rests = made.newsletter("run", "--once", "--clock-is-right", check=False)
        assert rests.returncode == 5
        assert "2027-12 to readers does not go on by itself: " in rests.stderr
        assert received(server) == left
        assert "skipped" not in made.newsletter("status", "2027-12").stdout

        (made.root / "newsletter.toml").write_text(live)
        assert made.newsletter("run", "--once", "--clock-is-right", check=False).returncode == 7
        assert received(server) == EVERYBODY


def test_what_the_last_look_has_said_is_not_said_again() -> None:
    said = Said()
    for minute in range(3):
        said.next_look()
        assert said.anew(f"the clock says 09:0{minute}:00 UTC") is (minute == 0)
    said.next_look()
    said.next_look()
    assert said.anew("the clock says 09:07:00 UTC")

"""A second `send` beside one that is at work, on SQLite: real processes, a real mail server."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.support.holding import HoldingServer
from tests.support.publisher import crowd, publisher
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.publisher import Publisher

PEOPLE = 40
LIVE = """
[sending]
mode = "live"
transport = "smtp"
connections = 2
[smtp]
port = {port}
security = "none"
"""


@contextmanager
def two_senders(
    tmp_path: Path,
) -> Iterator[tuple[Publisher, HoldingServer, subprocess.Popen[str], subprocess.Popen[str]]]:
    """The first is in the middle of its work, the second one has found that out."""
    with HoldingServer(hold_at=20) as server:
        made = publisher(tmp_path, LIVE.format(port=server.port))
        made.import_people(crowd(PEOPLE))
        first = made.start("send", "2026-12", "--confirm", str(PEOPLE))
        wait_for(server.holding, first)
        second = made.start("send", "2026-12", "--confirm", str(PEOPLE))
        said = ""
        while "This one follows" not in said:
            line = second.stdout.readline()
            assert line, second.communicate()
            said += line
        assert f"process {first.pid} on" in said
        yield made, server, first, second


def test_the_second_follows_the_first_and_ends_as_it_does(tmp_path: Path) -> None:
    with two_senders(tmp_path) as (_, server, first, second):
        server.release()
        assert first.communicate()[0].count("is finished: 40 accepted") == 1
        assert "is finished: 40 accepted" in second.communicate()[0]
        assert (first.returncode, second.returncode) == (0, 0)
        assert sorted(server.recipients()) == [address for address, _ in crowd(PEOPLE)]


def test_a_pause_ends_both_with_its_reason(tmp_path: Path) -> None:
    with two_senders(tmp_path) as (made, server, first, second):
        made.newsletter("pause", "2026-12")
        server.release()
        for process in (first, second):
            errors = process.communicate()[1]
            assert process.returncode == 8
            assert "is paused: by hand" in errors


def test_a_first_that_is_killed_leaves_the_second_with_the_way_to_go_on(tmp_path: Path) -> None:
    with two_senders(tmp_path) as (made, server, first, second):
        first.send_signal(signal.SIGKILL)
        first.communicate()
        errors = second.communicate()[1]
        assert second.returncode == 8
        assert "`newsletter send 2026-12 --list readers` goes on" in errors
        server.release()
        assert made.newsletter("send", "2026-12", check=False).returncode == 7


def test_stopping_the_one_that_follows_stops_nothing_else(tmp_path: Path) -> None:
    with two_senders(tmp_path) as (_, server, first, second):
        second.send_signal(signal.SIGINT)
        second.communicate()
        assert second.returncode == 130
        server.release()
        first.communicate()
        assert first.returncode == 0


def test_another_issue_is_not_followed_but_refused(tmp_path: Path) -> None:
    with two_senders(tmp_path) as (made, server, first, second):
        folder = made.root / "issues" / "2027-01"
        folder.mkdir()
        for file in (made.root / "issues" / "2026-12").iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        refused = made.newsletter("send", "2027-01", "--confirm", str(PEOPLE), check=False)
        assert refused.returncode == 5
        assert f"process {first.pid} on" in refused.stderr
        server.release()
        for process in (first, second):
            process.communicate()


def test_some_that_start_at_the_same_moment_send_once(tmp_path: Path) -> None:
    with HoldingServer() as server:
        made = publisher(tmp_path, LIVE.format(port=server.port))
        made.import_people(crowd(PEOPLE))
        together = [made.start("send", "2026-12", "--confirm", str(PEOPLE)) for _ in range(3)]
        for process in together:
            out, errors = process.communicate()
            assert process.returncode == 0, errors
            assert "40 accepted" in out
        assert sorted(server.recipients()) == [address for address, _ in crowd(PEOPLE)]

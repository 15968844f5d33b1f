"""`status --watch`: a page on a terminal, lines in a pipe, JSON for scripts, until nobody is sending."""

from __future__ import annotations

import json
import re
import signal
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from tests.cli.test_following import LIVE, PEOPLE
from tests.support.holding import HoldingServer
from tests.support.publisher import crowd, publisher
from tests.support.terminal import finish, on_a_terminal
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.publisher import Publisher


@contextmanager
def a_send(tmp_path: Path) -> Iterator[tuple[Publisher, HoldingServer, subprocess.Popen[str]]]:
    """In the middle of its work."""
    with HoldingServer(hold_at=20) as server:
        made = publisher(tmp_path, LIVE.format(port=server.port))
        made.import_people(crowd(PEOPLE))
        process = made.start("send", "2026-12", "--confirm", str(PEOPLE))
        wait_for(server.holding, process)
        yield made, server, process
        server.release()
        process.communicate()


def test_on_a_terminal_a_page_stands_until_the_send_has_ended(tmp_path: Path) -> None:
    with a_send(tmp_path) as (made, server, sender):
        with on_a_terminal(made, "status", "2026-12", "--watch", columns=60) as (process, shown):
            shown.wait_for(
                lambda: re.search(r"^\d+%  \d+ accepted  \d+ waiting", shown.screen, re.MULTILINE) is not None
            )
            assert shown.screen.splitlines()[0].startswith("2026-12 to readers  running: sent by process")
            assert len(shown.screen.splitlines()) == 2
            server.release()
            assert finish(process, shown) == 0
        assert "\x1b[?" not in shown.raw
        assert "%" not in shown.screen
        assert "finished" in shown.screen
        sender.communicate()


def test_ctrl_c_ends_the_watching_and_leaves_the_page(tmp_path: Path) -> None:
    with a_send(tmp_path) as (made, _, sender):
        with on_a_terminal(made, "status", "--watch") as (process, shown):
            shown.wait_for(lambda: "waiting" in shown.screen)
            process.send_signal(signal.SIGINT)
            assert finish(process, shown) == 130
        assert len(shown.screen.splitlines()) == 2
        assert shown.raw.endswith("\n")
        assert sender.poll() is None


def test_in_a_pipe_there_are_lines_or_objects_and_the_end(tmp_path: Path) -> None:
    with a_send(tmp_path) as (made, server, _):
        forms = ((), ("--json",))
        watchers = [made.start("status", "2026-12", "--watch", *form) for form in forms]
        firsts = [watcher.stdout.readline() for watcher in watchers]
        server.release()
        ends = [watcher.communicate(timeout=60) for watcher in watchers]
        assert [
            (watcher.returncode, errors) for watcher, (_, errors) in zip(watchers, ends, strict=True)
        ] == [
            (0, ""),
            (0, ""),
        ]
    assert re.match(r"2026-12 to readers: \d+ accepted, \d+ waiting", firsts[0])
    assert re.search(r"2026-12 to readers +finished +40 accepted", ends[0][0])
    objects = [json.loads(line) for line in [firsts[1], *ends[1][0].splitlines()]]
    assert (objects[0]["state"], objects[-1]["state"]) == ("running", "finished")
    assert objects[0]["left"] + objects[0]["deliveries"]["accepted"] == PEOPLE
    assert (objects[-1]["left"], objects[-1]["rate"], objects[-1]["estimate"]) == (0, None, None)
    moments = [datetime.fromisoformat(each["seen_at"]) for each in objects]
    assert moments == sorted(moments)


def test_where_nobody_is_sending_it_ends_at_once(tmp_path: Path) -> None:
    made = publisher(tmp_path)
    assert made.newsletter("status", "--watch").stdout.startswith("Nothing was sent yet.")
    made.import_people(crowd(3))
    made.newsletter("send", "2026-12", "--confirm", "3")
    for form in ((), ("--json",)):
        said = made.newsletter("status", "--watch", *form).stdout
        assert "finished" in said
    assert json.loads(said)["deliveries"]["accepted"] == 3
    assert made.newsletter("status", "2020-01", "--watch", check=False).returncode == 2

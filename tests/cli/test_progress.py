"""What `send` shows while it works: a line that renews itself on a terminal, plain lines everywhere else."""

from __future__ import annotations

import os
import re
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsletter.cli import progress
from newsletter.cli.progress import Line, Lines, Shown, Speed, Standing
from newsletter.desk import Progress
from newsletter.errors import DatabaseError
from newsletter.model import DeliveryState
from tests.cli.test_following import LIVE, PEOPLE
from tests.support.holding import HoldingServer
from tests.support.publisher import crowd, publisher
from tests.support.smtp_server import closed_port
from tests.support.terminal import finish, on_a_terminal, terminal
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.terminal import Terminal

HALF = Standing(accepted=8_200, refused=12, unknown=3, aside=0, waiting=11_785)
MILLION = Standing(accepted=410_200, refused=1_012, unknown=33, aside=1_204, waiting=587_551)


class Watch:
    """A clock that is set by hand, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# --- what is said ----------------------------------------------------------------------------------------------


def test_a_wide_line_has_everything_and_words_come_before_the_bar() -> None:
    line = progress.fitting(HALF, 812.4, 100)
    assert line == "41%  8,200 accepted  12 refused  3 unknown  11,785 waiting  812/s  15 s left"


def test_forty_columns_keep_what_matters_most() -> None:
    assert progress.fitting(Standing(accepted=8_200, waiting=11_800), 812.4, 37) == (
        "41%  8,200 accepted  812/s  15 s left"
    )
    assert progress.fitting(MILLION, 4812.0, 37) == "41%  410,200 accepted  3 min left"


@given(
    standing=st.builds(Standing, *[st.integers(0, 10**7)] * 5),
    rate=st.none() | st.floats(0, 1e5),
    columns=st.integers(0, 200),
)
def test_no_line_is_wider_than_its_terminal(standing: Standing, rate: float | None, columns: int) -> None:
    assert len(progress.fitting(standing, rate, columns)) <= columns


def test_nothing_is_said_of_what_there_is_none_of() -> None:
    done = progress.sentence("2026-12 to readers", Standing(accepted=40), 12.0)
    assert done == "2026-12 to readers: 40 accepted"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"),
        (59.4, "59 s"),
        (61, "2 min"),
        (3540, "59 min"),
        (7800, "2 h 10 min"),
        (200_000, "3 d"),
        (float("inf"), "over 99 d"),
    ],
)
def test_a_time_that_is_left_has_the_unit_that_fits(seconds: float, words: str) -> None:
    assert progress.brief(seconds) == words


@pytest.mark.parametrize(
    ("rate", "words"),
    [(4812.3, "4,812/s"), (5.25, "5.2/s"), (0.5, "30/min"), (0.01, "36/h"), (0, "0/s")],
)
def test_a_slow_rate_is_told_by_the_minute_or_the_hour(rate: float, words: str) -> None:
    assert progress.per_time(rate) == words


def test_the_speed_is_that_of_the_last_ten_seconds() -> None:
    speed = Speed()
    for second in range(31):
        speed.note(100 * min(second, 15) + 10 * max(0, second - 15), float(second))
    assert speed.rate == pytest.approx(10.0)


def test_a_speed_is_not_told_before_there_is_one() -> None:
    speed = Speed()
    assert speed.rate is None
    speed.note(0, 0.0)
    speed.note(500, 0.5)
    assert speed.rate is None
    speed.note(2000, 2.0)
    assert speed.rate == 1000
    speed.forget()
    assert speed.rate is None


def test_when_nothing_comes_back_any_more_the_speed_says_so() -> None:
    speed = Speed()
    for now, answered in ((0.0, 0), (5.0, 500), (10.0, 500), (16.0, 500)):
        speed.note(answered, now)
    assert speed.rate == 0


# --- plain lines -----------------------------------------------------------------------------------------------


def test_plain_lines_begin_after_three_seconds_and_come_each_ten_if_something_changed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = Lines(first_after=3.0)
    said = {}
    for second in range(40):
        accepted = 10 * min(second, 20)
        lines.show("2026-12 to readers", Standing(accepted=accepted, waiting=400 - accepted), 10.0, second)
        if out := capsys.readouterr().out:
            said[second] = out
    assert said == {
        3: "2026-12 to readers: 30 accepted, 370 waiting, 10/s, 37 s left\n",
        13: "2026-12 to readers: 130 accepted, 270 waiting, 10/s, 27 s left\n",
        23: "2026-12 to readers: 200 accepted, 200 waiting, 10/s, 20 s left\n",
    }


def test_a_pipe_that_nobody_reads_does_not_stop_the_send(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        os.set_blocking(pipe.fileno(), False)
        full = 0
        while progress.takes(pipe):
            full += os.write(pipe.fileno(), b"." * 4096)
        os.set_blocking(pipe.fileno(), True)
        Lines(first_after=0).show("2026-12 to readers", HALF, 10.0, 0.0)  # would wait for ever
        monkeypatch.undo()
        assert reader.read(full) == b"." * full


# --- what it is told -------------------------------------------------------------------------------------------


class Record:
    """A display that remembers."""

    def __init__(self) -> None:
        self.shown: list[tuple[Standing, float | None]] = []
        self.said: list[str] = []

    def show(self, _label: str, standing: Standing, rate: float | None, _now: float) -> None:
        self.shown.append((standing, rate))

    def say(self, line: str) -> None:
        self.said.append(line)

    def close(self) -> None:
        pass


def test_what_was_accepted_before_this_process_began_is_done() -> None:
    counts = {DeliveryState.ACCEPTED: 41_000, DeliveryState.UNKNOWN: 4, DeliveryState.PENDING: 58_996}
    seen = Record()
    with Shown("2026-12 to readers", lambda: counts, screen=seen, clock=Watch()) as shown:
        shown.told(Progress(accepted=1000, refused=3, unknown=1, again=7))
    standing, _ = seen.shown[-1]
    assert standing == Standing(accepted=42_000, refused=3, unknown=5, waiting=57_992)
    assert standing.total == 100_000


def test_who_was_skipped_or_got_a_copy_from_another_process_is_seen_at_the_next_count() -> None:
    counts = {DeliveryState.PENDING: 100}
    seen, clock = Record(), Watch()
    with Shown("2026-12 to readers", lambda: counts, screen=seen, clock=clock) as shown:
        shown.told(Progress(accepted=10))
        counts = {DeliveryState.ACCEPTED: 60, DeliveryState.SKIPPED: 5, DeliveryState.PENDING: 35}
        clock.now += 1
        shown.told(Progress(accepted=20))
        assert seen.shown[-1][0].accepted == 20
        clock.now += Shown.COUNT_SECONDS
        shown.told(Progress(accepted=30))
        assert seen.shown[-1][0] == Standing(accepted=60, aside=5, waiting=35)
        shown.told(Progress(accepted=40))
        assert seen.shown[-1][0] == Standing(accepted=70, aside=5, waiting=25)


def test_a_count_that_takes_long_comes_seldom() -> None:
    clock, counted = Watch(), []

    def count() -> dict[DeliveryState, int]:
        counted.append(clock.now)
        clock.now += 0.1
        return {DeliveryState.PENDING: 10**6}

    with Shown("2026-12 to readers", count, screen=Record(), clock=clock) as shown:
        for _ in range(500):
            clock.now += 0.1
            shown.told(Progress())
    assert len(counted) == 3
    assert counted[1] - counted[0] == pytest.approx(20.0, abs=0.2)


def test_one_look_that_was_slow_by_accident_does_not_blind_for_long() -> None:
    assert progress.rest(0.001, least=1.0, most=10.0, times=50) == 1.0
    assert progress.rest(0.08, least=1.0, most=10.0, times=50) == 4.0
    assert progress.rest(2.0, least=1.0, most=10.0, times=50) == 10.0


def test_where_others_send_too_only_a_count_shows_the_speed_of_all() -> None:
    seen, clock, others = Record(), Watch(), 0

    def count() -> dict[DeliveryState, int]:
        return {DeliveryState.ACCEPTED: others, DeliveryState.PENDING: 9000 - others}

    with Shown("2026-12 to readers", count, shared=True, screen=seen, clock=clock) as shown:
        for second in range(1, 16):
            clock.now += 1
            others = 300 * second
            shown.told(Progress(accepted=100 * second))
    assert seen.shown[-1][1] == pytest.approx(300.0)


def test_after_a_wait_the_speed_begins_anew() -> None:
    seen, clock = Record(), Watch()
    with Shown("x", lambda: {DeliveryState.PENDING: 100}, screen=seen, clock=clock) as shown:
        clock.now += 4
        shown.told(Progress(accepted=40))
        assert seen.shown[-1][1] == 10.0
        shown.notice("waiting until 09:01:00 for the next try")
        clock.now += 60
        shown.told(Progress(accepted=41))
        assert seen.shown[-1][1] is None
    assert seen.said == ["waiting until 09:01:00 for the next try"]


def test_neither_a_terminal_that_has_gone_nor_a_database_that_does_not_answer_stops_the_send(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def locked() -> dict[DeliveryState, int]:
        raise DatabaseError("the database is locked")

    with terminal() as gone, os.fdopen(os.dup(gone.side), "w", encoding="utf-8") as stream:
        line = Line(stream)
    monkeypatch.setattr(sys, "stdout", stream)
    for count in (dict, locked):
        with Shown("x", count, screen=line, clock=Watch()) as shown:
            shown.told(Progress(accepted=1))
            shown.notice("waiting")


# --- the line on a terminal ------------------------------------------------------------------------------------


@contextmanager
def a_line(columns: int, monkeypatch: pytest.MonkeyPatch, **env: str) -> Iterator[tuple[Terminal, Line]]:
    """In this process, on a terminal of its own; also what is printed goes there."""
    for name, value in ({"TERM": "xterm-256color"} | env).items():
        monkeypatch.setenv(name, value)
    with (
        terminal(columns) as shown,
        os.fdopen(os.dup(shown.side), "w", encoding="utf-8") as stream,
        monkeypatch.context() as patch,
    ):
        patch.setattr(sys, "stdout", stream)
        yield shown, Line(stream)
        while shown.read():
            pass


def draw(line: Line, standing: Standing, now: float, stream: Terminal) -> str:
    line.show("2026-12 to readers", standing, 812.0, now)
    stream.wait_for(lambda: not stream.read())
    return stream.screen


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_the_line_is_one_line_and_leaves_room_for_what_ctrl_c_prints(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with a_line(columns, monkeypatch) as (shown, line):
        for step, standing in enumerate((MILLION, HALF, Standing(accepted=3, waiting=4), MILLION)):
            seen = draw(line, standing, float(step), shown)
            assert "\n" not in seen
            assert len(seen) <= columns - len("^C")
    assert shown.wrapped == []


def test_a_shorter_line_leaves_nothing_of_the_longer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_line(80, monkeypatch, NO_COLOR="1") as (shown, line):
        draw(line, MILLION, 0.0, shown)
        assert draw(line, Standing(accepted=3, waiting=1), 1.0, shown) == (
            "75%  3 accepted  1 waiting  812/s  1 s left  " + "━" * 22 + "╸"
        )


def test_colour_is_only_decoration_and_no_color_takes_it_away(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = {}
    for no_color in ("", "1"):
        with a_line(80, monkeypatch, NO_COLOR=no_color) as (shown, line):
            seen = draw(line, Standing(accepted=3, waiting=4), 0.0, shown)
            drawn[no_color] = seen.rstrip("━╸╺ "), "\x1b[3" in shown.raw
    assert drawn[""][1]
    assert not drawn["1"][1]
    assert drawn[""][0] == drawn["1"][0]


def test_a_notice_stands_on_a_line_of_its_own_and_the_line_goes_on_below(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with a_line(80, monkeypatch) as (shown, line):
        draw(line, HALF, 0.0, shown)
        line.say("waiting until 09:01:00 for the next try (the server is busy)")
        below = draw(line, HALF, 0.01, shown).splitlines()
        assert below[0] == "waiting until 09:01:00 for the next try (the server is busy)"
        assert below[1].startswith("41%")
        line.close()
    assert shown.screen == below[0]


def test_the_line_is_drawn_five_times_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_line(80, monkeypatch) as (shown, line):
        for tick in range(100):
            draw(line, Standing(accepted=tick, waiting=100 - tick), tick / 100, shown)
    assert len(shown.seen) == 5


def test_a_terminal_that_was_stopped_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_line(80, monkeypatch) as (shown, line):
        draw(line, HALF, 0.0, shown)
        shown.type("\x13")  # Ctrl-S
        wait_for(lambda: not progress.takes(sys.stdout))
        line.show("2026-12 to readers", MILLION, 1.0, 1.0)  # would wait for ever
        shown.type("\x11")  # Ctrl-Q
        wait_for(lambda: progress.takes(sys.stdout))
        assert draw(line, MILLION, 2.0, shown).startswith("41%  410,200 accepted")


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"TERM": "unknown"}])
def test_a_terminal_that_can_not_write_a_line_anew_gets_plain_lines(
    env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with a_line(80, monkeypatch, **env):
        assert isinstance(progress.display(), Lines)


# --- the real command ------------------------------------------------------------------------------------------


def test_a_send_shows_how_far_it_is_and_ends_with_a_clean_screen(tmp_path: Path) -> None:
    made = publisher(tmp_path)
    made.import_people(crowd(200))
    call = ("send", "2026-12", "--confirm", "200")
    with on_a_terminal(made, *call, columns=40, env={"NO_COLOR": "1"}) as (process, shown):
        assert finish(process, shown) == 0
    steps = [int(match[1]) for row in shown.seen if (match := re.match(r"(\d+)%  [\d,]+ accepted", row))]
    assert steps[0] == 0
    assert steps == sorted(steps)
    assert not any("%" in row and len(row) > 40 - len("^C") for row in shown.seen)
    assert "%" not in shown.screen
    assert "is finished: 200 accepted" in shown.screen.replace("\n", "")
    assert "\x1b[3" not in shown.raw  # no colour


@contextmanager
def a_send_that_is_held(
    tmp_path: Path, *args: str
) -> Iterator[tuple[HoldingServer, subprocess.Popen[bytes], Terminal]]:
    """`newsletter send` on a terminal, whose server holds back its answers. It goes on, so it asks nothing."""
    made = publisher(tmp_path, LIVE.format(port=closed_port()))
    made.import_people(crowd(PEOPLE))
    made.newsletter("send", "2026-12", "--confirm", str(PEOPLE), check=False)
    made.newsletter("resume", "2026-12")
    with HoldingServer(hold_at=20) as server:
        made.configure(LIVE.format(port=server.port))
        with on_a_terminal(made, "send", "2026-12", *args) as (process, shown):
            shown.wait_for(lambda: server.holding() and "40 waiting" in "".join(shown.seen))
            yield server, process, shown


def test_ctrl_c_is_answered_at_once_and_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    with a_send_that_is_held(tmp_path) as (server, process, shown):
        modes = shown.modes()
        process.send_signal(signal.SIGINT)
        shown.wait_for(lambda: "Stopping: copies in flight are being settled." in shown.screen)
        server.release()
        assert finish(process, shown) == 8
        assert shown.modes() == modes
    assert "\x1b[?" not in shown.raw  # the cursor is never hidden, nor the screen switched
    assert re.search(r"^Going on with .*\nStopping: .*\nError: .* was stopped", shown.screen, re.MULTILINE)


def test_ctrl_c_twice_says_how_it_stands_and_what_goes_on(tmp_path: Path) -> None:
    with a_send_that_is_held(tmp_path) as (_, process, shown):
        process.send_signal(signal.SIGINT)
        shown.wait_for(lambda: "Stopping" in shown.screen)
        process.send_signal(signal.SIGINT)
        assert finish(process, shown) == 130
    said = shown.screen.replace("\n", "")
    assert re.search(
        r"Interrupted\. 2026-12 to readers: \d+ accepted, \d+ waiting \(\d+ of them in doubt\)", said
    )
    assert "`newsletter send 2026-12 --list readers` goes on" in said


def test_whoever_stops_reading_does_not_stop_the_send(tmp_path: Path) -> None:
    with HoldingServer(hold_at=20) as server:
        made = publisher(tmp_path, LIVE.format(port=server.port))
        made.import_people(crowd(PEOPLE))
        process = made.start("send", "2026-12", "--confirm", str(PEOPLE))
        wait_for(server.holding, process)
        process.stdout.close()
        server.release()
        assert process.wait(60) == 141
        process.stderr.close()
        assert sorted(server.recipients()) == [address for address, _ in crowd(PEOPLE)]


def test_a_second_send_shows_the_progress_of_the_first(tmp_path: Path) -> None:
    with HoldingServer(hold_at=20) as server:
        made = publisher(tmp_path, LIVE.format(port=server.port))
        made.import_people(crowd(PEOPLE))
        first = made.start("send", "2026-12", "--confirm", str(PEOPLE))
        wait_for(server.holding, first)
        with on_a_terminal(made, "send", "2026-12") as (second, shown):
            shown.wait_for(lambda: re.search(r"%  \d+ accepted  \d+ waiting", shown.screen) is not None)
            server.release()
            assert finish(second, shown) == 0
        first.communicate()
    assert "%" not in shown.screen

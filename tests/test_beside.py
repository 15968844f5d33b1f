"""A generator in another process: all that it yields, whatever it raises, and no process is left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from contextlib import closing
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from newsletter.beside import beside
from newsletter.errors import Unfinished, UsageError
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]


def numbers(count: int) -> Iterator[int]:
    yield from range(count)


def whose() -> Iterator[int]:
    yield os.getpid()


def endless() -> Iterator[bytes]:
    yield str(os.getpid()).encode()
    while True:
        yield bytes(100_000)


def refusing(sentence: str, hint: str) -> Iterator[int]:
    yield 1
    raise UsageError(sentence, hint=hint)


def broken() -> Iterator[int]:
    yield 1
    raise ZeroDivisionError


def killed() -> Iterator[int]:
    yield 1
    os.kill(os.getpid(), signal.SIGKILL)
    yield 2


def interrupted() -> Iterator[int]:
    os.kill(os.getpid(), signal.SIGINT)
    yield 1


def held_back() -> Iterator[bool]:
    yield signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_it_is_another_process_and_everything_comes_in_order() -> None:
    assert next(beside(whose)) != os.getpid()
    assert list(beside(numbers, 5_000)) == list(range(5_000))
    assert list(beside(numbers, 0)) == []
    assert multiprocessing.active_children() == []


def test_what_it_refuses_is_refused_here() -> None:
    found = beside(refusing, "The file is odd.", "Make it even.")
    assert next(found) == 1
    with pytest.raises(UsageError, match=r"^The file is odd\.$") as error:
        next(found)
    assert error.value.hint == "Make it even."


def test_a_bug_says_where_it_was() -> None:
    with pytest.raises(ZeroDivisionError) as error:
        list(beside(broken))
    [note] = error.value.__notes__
    assert "test_beside.py" in note
    assert "broken" in note


def test_when_it_is_killed_that_is_said() -> None:
    found = beside(killed)
    assert next(found) == 1
    with pytest.raises(Unfinished, match="is gone") as error:
        next(found)
    assert error.value.hint == "The same command does what is left."


def test_ctrl_c_is_for_the_first_process_to_answer() -> None:
    assert list(beside(interrupted)) == [1]


def test_ctrl_c_while_it_starts_is_for_the_first_process_too(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = SpawnProcess.start, list[SpawnProcess]()

    def interrupted_start(process: SpawnProcess) -> None:
        signal.pthread_kill(
            threading.main_thread().ident or 0, signal.SIGINT
        )  # the tests' runner has other threads
        start(process)
        started.append(process)
        os.kill(process.pid or 0, signal.SIGINT)

    assert list(beside(held_back)) == [True]
    monkeypatch.setattr(SpawnProcess, "start", interrupted_start)
    with pytest.raises(KeyboardInterrupt):
        next(beside(endless))
    [process] = started
    assert process.exitcode == -signal.SIGTERM
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_who_has_enough_ends_it() -> None:
    with closing(beside(endless)) as found:
        number = int(next(found))
        assert alive(number)
    assert not alive(number)


def test_it_ends_when_the_first_process_is_killed() -> None:
    program = (
        "import tests.test_beside as t, time\n"
        "if __name__ == '__main__':\n"
        "    found = t.beside(t.endless)\n"
        "    print(next(found).decode(), flush=True)\n"
        "    [None for _ in found]\n"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    number = int(first.stdout.readline())
    assert alive(number)
    first.kill()
    _, errors = first.communicate()  # waits for the other one too, which has the same standard error
    wait_for(lambda: not alive(number))
    assert errors == ""


def alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{number}/status").read_text("utf-8")

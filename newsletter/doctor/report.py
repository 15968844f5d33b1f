"""What a check finds, and how checks are run: side by side and with an end in sight."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from newsletter.errors import NewsletterError, where

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


class Level(StrEnum):
    """How it stands."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"
    UNSEEN = "not looked at"


@dataclass(frozen=True, slots=True)
class Result:
    """One thing that was looked at. ``hint`` is the one thing to do."""

    level: Level
    name: str
    detail: str
    hint: str = ""


class Check(NamedTuple):
    """Something to look at."""

    name: str
    run: Callable[[], Iterable[Result]]


def ok(name: str, detail: str) -> Result:
    """It is right."""
    return Result(Level.OK, name, detail)


def warning(name: str, detail: str, hint: str) -> Result:
    """It works, and some day it will not."""
    return Result(Level.WARNING, name, detail, hint)


def error(name: str, detail: str, hint: str) -> Result:
    """Nothing should leave before it is mended."""
    return Result(Level.ERROR, name, detail, hint)


def unseen(name: str, detail: str, hint: str = "") -> Result:
    """Nobody has looked, and why."""
    return Result(Level.UNSEEN, name, detail, hint)


def examine(checks: Sequence[Check], seconds: float) -> list[Result]:
    """What all checks find, in their order; after ``seconds`` those that still wait for somebody are errors.

    Each has a thread of its own, which is left alone then: a name lookup can't be ended.
    """
    done: queue.SimpleQueue[tuple[int, list[Result]]] = queue.SimpleQueue()
    for number, check in enumerate(checks):
        thread = threading.Thread(
            target=_run, args=(number, check, done), name=f"doctor-{check.name}", daemon=True
        )
        thread.start()
    found: dict[int, list[Result]] = {}
    until = time.monotonic() + seconds
    while len(found) < len(checks) and (left := until - time.monotonic()) > 0:
        try:
            number, results = done.get(timeout=left)
        except queue.Empty:
            break
        found[number] = results
    return [
        result
        for number, check in enumerate(checks)
        for result in found.get(number, [_too_slow(check.name, seconds)])
    ]


def _run(number: int, check: Check, done: queue.SimpleQueue[tuple[int, list[Result]]]) -> None:
    done.put((number, _results(check)))


def _results(check: Check) -> list[Result]:
    try:
        return list(check.run())
    except NewsletterError as problem:
        return [error(check.name, str(problem), problem.hint)]
    # One check that breaks must not keep the others back. Its own words may hold anything.
    except Exception as bug:
        return [error(check.name, where(bug), "Please report it.")]


def _too_slow(name: str, seconds: float) -> Result:
    return error(name, f"no end of it within {seconds:g} s.", "Is the network slow? Try again in a minute.")

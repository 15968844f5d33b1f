"""Several processes that answer on one socket. They are equals; this one starts them, and starts them anew.

Each is told to stop when this one is, and finishes what it is answering. One that dies after it had begun to serve is
replaced; one that can't even begin ends all, because the next would fare no better.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.process import BaseProcess

    Work = Callable[..., None]
    """Serves until SIGTERM: ``work(number, begun, *args)`` sets the event ``begun`` once it does."""

LOOK_SECONDS = 0.2
GRACE_SECONDS = 30.0


class Crew:
    """Runs ``count`` processes until SIGINT or SIGTERM."""

    def __init__(self, work: Work, args: tuple[Any, ...], count: int) -> None:
        self._work, self._args = work, args
        self._context = multiprocessing.get_context("spawn")  # a forked one would share our locks and sockets
        self._begun = [self._context.Event() for _ in range(count)]
        self._members: list[BaseProcess] = []
        self._stopped = threading.Event()

    def run(self, announce: Callable[[], None]) -> bool:
        """``announce`` is called once all of them serve. False when one could not begin."""
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._members = [self._start(number) for number in range(len(self._begun))]
            return self._watch(announce)
        finally:
            self._end()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, *_: object) -> None:
        self._stopped.set()

    def _start(self, number: int) -> BaseProcess:
        member = self._context.Process(
            target=self._work, args=(number, self._begun[number], *self._args), daemon=True
        )
        member.start()
        return member

    def _watch(self, announce: Callable[[], None]) -> bool:
        announced = False
        while not self._stopped.wait(LOOK_SECONDS):
            if not announced and all(begun.is_set() for begun in self._begun):
                announced = True
                announce()
            for number, member in enumerate(self._members):
                if member.is_alive():
                    continue
                if not self._begun[number].is_set():
                    return False
                self._begun[number].clear()
                self._members[number] = self._start(number)
        return True

    def _end(self) -> None:
        for member in self._members:
            member.terminate()  # SIGTERM
        for member in self._members:
            member.join(GRACE_SECONDS)
            if member.is_alive():
                member.kill()
                member.join()

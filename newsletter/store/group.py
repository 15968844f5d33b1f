"""Group commit: what many ask for at the same moment is written by one thread, in one transaction.

A durable commit costs a few milliseconds of the disk's time, whatever is in it. On SQLite, one each would make 500
unsubscribing readers a second impossible; together they share a commit, and nobody is answered before it is done.
"""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from newsletter.errors import DatabaseError
from newsletter.store import engine as store
from newsletter.store.database import PATIENCE_SECONDS
from newsletter.store.engine import BREATH_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection, Engine

T = TypeVar("T")
A = TypeVar("A")

MOST = 200  # in one transaction
LONGEST_SECONDS = (
    0.01  # after which a transaction takes no more: whoever else wants to write has waited enough
)


class _Wish(NamedTuple):
    fn: Callable[[Connection], Any]
    future: Future[Any]
    many: Callable[[Connection, list[Any]], Mapping[Any, Any]] | None = None
    item: Any = None


class _Failed(Exception):
    """One of the group raised, so none of it was written."""


class Group:
    """The one writer of a process. Its thread begins with the first write."""

    def __init__(self, engine: Engine, *, wait: float = PATIENCE_SECONDS) -> None:
        self._engine = engine
        self._wait_seconds = wait  # for another writer
        self._wishes: queue.SimpleQueue[_Wish | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = False

    def write(self, fn: Callable[[Connection], T]) -> Future[T]:
        """Runs ``fn`` soon, in one transaction with others', in the order of the calls.

        The future is done once the transaction is committed: its result survives a power cut. When one of a group
        raises, the group is rolled back and each runs in a transaction of its own: ``fn`` may run twice, and the first
        time left no trace in the database. ``DatabaseError`` as from ``engine.write``.
        """
        future: Future[T] = Future()
        self._put(_Wish(fn, future))
        return future

    def write_one_of(self, many: Callable[[Connection, list[A]], Mapping[A, T]], item: A) -> Future[T]:
        """The same for ``many``, which does for a list of items what is asked for one: item → its result.

        Those that wait one behind another are done in one call: twice as many unsubscribes a second.
        """
        future: Future[T] = Future()
        self._put(_Wish(lambda conn: many(conn, [item])[item], future, many, item))
        return future

    def _put(self, wish: _Wish) -> None:
        wish.future.set_running_or_notify_cancel()  # who no longer waits for the answer has still asked
        with self._lock:
            if self._closed:
                raise DatabaseError("The server is stopping.", hint="Try again in a moment.")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="group commit", daemon=True)
                self._thread.start()
            self._wishes.put(wish)

    def read(self, fn: Callable[[Connection], T]) -> T:
        """Runs ``fn`` on one snapshot, in the caller's thread."""
        return store.read(self._engine, fn)

    def close(self) -> None:
        """Commits what was asked for, and takes no more."""
        with self._lock:
            self._closed = True
            thread = self._thread
            self._wishes.put(None)
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while (first := self._wishes.get()) is not None:
            self._commit(first)
            if not self._wishes.empty():
                time.sleep(BREATH_SECONDS)  # other processes write as well, and somebody sends a campaign

    def _commit(self, first: _Wish) -> None:
        group = [first]
        try:
            results = store.write(self._engine, partial(self._together, group), wait=self._wait_seconds)
        except _Failed:
            for wish in group:
                self._alone(wish)
        except BaseException as error:  # the transaction could not be begun or committed
            for wish in group:
                wish.future.set_exception(error)
        else:
            for wish, result in zip(group, results, strict=True):
                wish.future.set_result(result)

    def _together(self, group: list[_Wish], conn: Connection) -> list[Any]:
        """Runs all who wait, and whoever comes meanwhile."""
        results: list[Any] = []
        until = time.monotonic() + LONGEST_SECONDS
        while True:
            self._take(group)
            try:
                results += _answers(conn, group[len(results) :])
            except BaseException as error:
                raise _Failed from error
            if len(group) >= MOST or time.monotonic() > until or self._wishes.empty():
                return results

    def _take(self, group: list[_Wish]) -> None:
        """Whoever waits, but for the end, which is for ``_run``."""
        with suppress(queue.Empty):
            while len(group) < MOST:
                wish = self._wishes.get_nowait()
                if wish is None:
                    self._wishes.put(None)
                    return
                group.append(wish)

    def _alone(self, wish: _Wish) -> None:
        try:
            result = store.write(self._engine, wish.fn, wait=self._wait_seconds)
        except BaseException as error:  # told to whoever asked
            wish.future.set_exception(error)
        else:
            wish.future.set_result(result)


def _answers(conn: Connection, wishes: list[_Wish]) -> list[Any]:
    results: list[Any] = []
    for many, those in groupby(wishes, attrgetter("many")):
        if many is None:
            results += [wish.fn(conn) for wish in those]
        else:
            items = [wish.item for wish in those]
            found = many(conn, items)
            results += [found[item] for item in items]
    return results

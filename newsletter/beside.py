"""A generator in a process of its own, while this one uses what it has made so far.

For work that keeps a processor busy beside work that waits for a database: threads of one interpreter would take turns.
"""

from __future__ import annotations

import gc
import multiprocessing
import signal
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any, TypeVar

from newsletter.errors import NewsletterError, Unfinished, where

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

T = TypeVar("T")


def beside(make: Callable[..., Iterable[T]], *args: object) -> Generator[T]:
    """What ``make(*args)`` yields; it runs ahead by as much as a pipe holds, 64 kB on Linux.

    What it raises is raised here. Both processes end together, however they end: the other one at its next item when
    this one is killed. Raises ``Unfinished`` when the other one is killed.
    """
    context = multiprocessing.get_context("spawn")  # a forked one would share our locks and files
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(theirs, make, args), daemon=True)
    try:
        _start(process)
        theirs.close()  # else its end would stay open when the process is gone
        while (found := _receive(ours)) is not None:
            yield found[0]
    finally:
        ours.close()
        if process.pid is not None:
            process.terminate()
            process.join()


def _start(process: SpawnProcess) -> None:
    """Ctrl-C reaches both and is for the first to answer: the other one inherits that it is held back.

    To ignore it is the other one's first act, but until then it would end with a traceback.
    """
    resource_tracker.ensure_running()  # it would be started on the way, and let the signal through
    with uninterrupted():
        process.start()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C is answered when the block is done. For a process with one thread: another one would let it through."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _receive(pipe: Connection) -> tuple[Any] | None:
    """One item, or None at the end."""
    try:
        found: tuple[Any] | Exception | None = pipe.recv()
    except (EOFError, OSError):  # between two items, in the middle of one
        raise Unfinished(
            "The process that was to do half of the work is gone: somebody ended it, or memory was short.",
            hint="The same command does what is left.",
        ) from None
    if isinstance(found, Exception):
        raise found
    return found


def _run(pipe: Connection, make: Callable[..., Iterable[T]], args: tuple[object, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # however it was started
    gc.freeze()  # what was imported stays
    with suppress(BrokenPipeError):  # the other process is gone
        for found in _guarded(make(*args)):
            pipe.send(found)


def _guarded(items: Iterable[T]) -> Iterator[tuple[T] | Exception | None]:
    try:
        for item in items:
            yield (item,)
    except Exception as error:
        if not isinstance(error, NewsletterError):
            error.add_note(where(error))  # which does not travel
        yield error
    else:
        yield None

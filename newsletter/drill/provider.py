"""A server on loopback, in a thread of the drill's own process.

Only the standard library, because it ships with the product; one event loop without coroutines, because a provider
that is slower than the sender would hide what the sender does wrong at full speed.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
from typing import TYPE_CHECKING

from newsletter.drill.faults import Deck

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

    from newsletter.drill.book import Book
    from newsletter.drill.faults import Fault

LOOPBACK = "127.0.0.1"
SLOW_SECONDS = 0.3  # at most, of a slow answer
BACKLOG = 1000


class Talk(asyncio.Protocol):
    """One connection: bytes gather in ``buffer``, ``work`` takes complete things out of it."""

    transport: asyncio.Transport

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.book = provider.book
        self.buffer = bytearray()
        self.fault: Fault | None = None
        self.paused = False  # an answer is being delayed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.provider.opened(self)
        self.greet()

    def connection_lost(self, exc: Exception | None) -> None:
        self.provider.closed(self)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self.go_on()

    def go_on(self) -> None:
        """Works off what has arrived, in order."""
        while not (self.paused or self.provider.holds or self.transport.is_closing()) and self.work():
            pass

    def greet(self) -> None:
        """The connection was made."""

    def work(self) -> bool:
        """Takes one thing out of the buffer; False when there is nothing whole in it."""
        raise NotImplementedError  # each protocol has its own

    def caught(self, step: str) -> Fault | None:
        """The fault that was drawn for this step, if one was; it is used up and counted."""
        fault = self.fault
        if fault is None or fault.step != step:
            return None
        self.fault = None
        self.book.count_fault(str(fault))
        return fault

    def delay(self, act: Callable[[], None]) -> None:
        """Does it later; what arrives meanwhile waits."""
        self.paused = True

        def later() -> None:
            self.paused = False
            if not self.transport.is_closing():
                act()
                self.go_on()

        seconds = self.provider.dice.uniform(0.02, SLOW_SECONDS)
        asyncio.get_running_loop().call_later(seconds, later)


class Provider:
    """Listens while the ``with`` block lasts. ``greetings`` and ``turns`` are what may go wrong."""

    talk: type[Talk]
    greeting_faults: Sequence[Fault]
    turn_faults: Sequence[Fault]

    def __init__(self, book: Book, *, seed: int, chance: float, window: int = 1) -> None:
        self.book = book
        self.window = window
        self.dice = random.Random(seed)  # noqa: S311 - repeatable, nothing secret
        self.greetings = Deck(self.greeting_faults, chance, self.dice)
        self.turns = Deck(self.turn_faults, chance, self.dice)
        self.port = 0
        self._most: int | None = None
        self._open: set[Talk] = set()
        self._knocked: set[int] = set()  # the ports of our own connections: see `drain`
        self._changed = threading.Condition()
        self.bugs: list[str] = []  # exceptions of our own: a book with holes proves nothing
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda _loop, context: self.bugs.append(repr(context)))

    def __enter__(self) -> Self:
        serving = self._loop.create_server(lambda: self.talk(self), LOOPBACK, 0, backlog=BACKLOG)
        self._server = self._loop.run_until_complete(serving)
        self.port = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, name="provider", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        for talk in list(self._open):
            talk.transport.abort()
        while self._open:
            await asyncio.sleep(0)

    def hold_at(self, copies: int | None) -> None:
        """Reads and answers nothing more while the book has that many copies; None: goes on for ever."""
        if copies != self._most:
            self._most = copies
            self._loop.call_soon_threadsafe(self._wake)

    @property
    def holds(self) -> bool:
        """Whether senders have to wait."""
        return self._most is not None and len(self.book) >= self._most

    def _wake(self) -> None:
        for talk in list(self._open):
            talk.go_on()

    def opened(self, talk: Talk) -> None:
        """A connection more."""
        with self._changed:
            self._open.add(talk)
            self._knocked.discard(talk.transport.get_extra_info("peername")[1])
            self._changed.notify_all()

    def closed(self, talk: Talk) -> None:
        """A connection less."""
        with self._changed:
            self._open.discard(talk)
            self._changed.notify_all()

    def drain(self, seconds: float = 30.0) -> bool:
        """Waits until everything that dead senders left in a connection was read; False if that takes too long.

        A connection of ours, made now, is accepted after all that were made before it.
        """
        until = time.monotonic() + seconds
        with socket.socket() as ours:
            ours.bind((LOOPBACK, 0))
            port = ours.getsockname()[1]
            with self._changed:
                self._knocked.add(port)
            ours.connect((LOOPBACK, self.port))
            accepted = self._wait(lambda: port not in self._knocked, until)
        return accepted and self._wait(lambda: not self._open, until)

    def _wait(self, condition: Callable[[], bool], until: float) -> bool:
        with self._changed:
            return self._changed.wait_for(condition, max(0.0, until - time.monotonic()))

    def is_ours(self, talk: Talk) -> bool:
        """Whether it is ``drain`` that knocks, who draws no faults."""
        with self._changed:
            return talk.transport.get_extra_info("peername")[1] in self._knocked

"""One process that answers readers, sends their letters and keeps house, until it is told to stop.

uvicorn waits for ever for headers that never come to an end and for answers that nobody takes, and one machine could
hold all connections open that way. Here they have ten seconds and thirty. And it takes connections as long as there are
descriptors: then it could open no database and no mail any more, and asyncio would fill the log. Here some are kept.
"""

from __future__ import annotations

import contextlib
import logging
import resource
import signal
import socket
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from newsletter.errors import UsageError
from newsletter.web.guard import HEADERS

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from starlette.types import ASGIApp

HEADER_SECONDS = 10.0
DRAIN_SECONDS = 30.0  # for an answer to be taken
LARGEST_HEAD = 16 * 1024  # bytes
MOST_CONNECTIONS = 2000
FEWEST_CONNECTIONS = 16  # however few descriptors there are
AT_ONCE = 16  # connections that asyncio takes before it looks at anything else
TURNS = 5  # of its loop, between taking a connection and having closed it
OWN_DESCRIPTORS = 128  # for letters and the database: fifteen connections of three files each, at most
QUEUE = 1024  # connections that wait in the kernel, where they need no descriptor
GRACE_SECONDS = 10  # for requests that are being answered when the server is told to stop
STOPS = (signal.SIGINT, signal.SIGTERM)

logger = logging.getLogger(__name__)


class Impatient(H11Protocol):
    """Closes a connection whose next request has not come whole, its headers that is, in ``header_seconds``.

    Also one whose answer was not taken in ``drain_seconds``, and at once what comes when there are ``most`` already.
    """

    def __init__(
        self, *args: Any, most: int, header_seconds: float, drain_seconds: float, **more: Any
    ) -> None:
        super().__init__(*args, **more)
        self._most, self._header_seconds, self._drain_seconds = most, header_seconds, drain_seconds
        self._deadline: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # `pause_writing` whenever anything is left to be written
        if len(self.connections) > self._most:
            transport.abort()
        else:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        self._drained()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stuck is None:  # also a transport that was told to close waits until all is written
            self._stuck = self.loop.call_later(self._drain_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        self._drained()
        super().resume_writing()

    def _drained(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def handle_events(self) -> None:
        super().handle_events()
        self._watch()

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
            self._forget()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self._header_seconds, self._give_up)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        if self.conn.trailing_data[0]:  # some came: who sends so slowly is told
            self._answer(408, b"Request timeout.\n")
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """For what is no HTTP: uvicorn's own answer has none of our headers."""
        self._answer(400, b"This is not a valid HTTP request.\n")
        self.transport.close()

    def _answer(self, status: int, text: bytes) -> None:
        if self.conn.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        kind = {"content-type": "text/plain; charset=utf-8", "content-length": str(len(text))}
        headers = {**HEADERS, **kind, "connection": "close"}
        for event in (
            h11.Response(status_code=status, headers=list(headers.items())),
            h11.Data(data=text),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")


class Server(uvicorn.Server):
    """Ends in peace when it is told to stop: uvicorn would end itself by the same signal once more."""

    def __init__(self, settings: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(settings)
        self._announce = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens, and says so."""
        await super().startup(sockets)
        for each in sockets or ():
            each.listen(QUEUE)  # asyncio has just made it as short as what it takes at once
        self._announce()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM: what is being answered is answered, and then it stops."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in STOPS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def make(
    app: ASGIApp,
    started: Callable[[], None],
    *,
    header_seconds: float = HEADER_SECONDS,
    drain_seconds: float = DRAIN_SECONDS,
) -> Server:
    """A server whose ``run`` answers until SIGINT or SIGTERM. Nothing of a request is ever logged.

    This process may open as many files from now on as it is allowed to, and needs.
    """
    most = room(_raise_limit())
    protocol: Any = partial(Impatient, most=most, header_seconds=header_seconds, drain_seconds=drain_seconds)
    settings = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,  # `origin` reads them, where it is known what they are for
        server_header=False,
        h11_max_incomplete_event_size=LARGEST_HEAD,
        timeout_graceful_shutdown=GRACE_SECONDS,
        backlog=AT_ONCE,
    )
    return Server(settings, started)


def room(descriptors: int) -> int:
    """How many connections may be open, so that the rest of the process can still open what it needs."""
    kept = OWN_DESCRIPTORS + TURNS * AT_ONCE
    return max(FEWEST_CONNECTIONS, min(MOST_CONNECTIONS, descriptors - kept))


def _raise_limit() -> int:
    """How many descriptors this process may have from now on. No more than it needs: libraries walk through all."""
    needed = MOST_CONNECTIONS + OWN_DESCRIPTORS + TURNS * AT_ONCE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    may = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < may:
        resource.setrlimit(resource.RLIMIT_NOFILE, (may, hard))
    return may


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 is any free one. Raises ``UsageError``."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _unusable(host, port, error) from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(QUEUE)
    except OSError as error:
        listening.close()
        raise _unusable(host, port, error) from None
    listening.set_inheritable(True)
    return listening


def _unusable(host: str, port: int, error: OSError) -> UsageError:
    return UsageError(
        f"The server can't listen on {host} port {port}: {error.strerror or error}.",
        hint="Is another one running? Change host or port under [web] in newsletter.toml.",
    )


class Chore(threading.Thread):
    """Something that is done again and again beside the server; an error is told, and it goes on."""

    def __init__(self, name: str, step: Callable[[], object], seconds: float) -> None:
        super().__init__(name=name, daemon=True)
        self._step, self._seconds = step, seconds
        self._stopped = threading.Event()

    def run(self) -> None:
        """Until ``stop``."""
        while not self._stopped.is_set():
            try:
                self._step()
            except Exception as error:  # the server must not end because the disk was full for a minute
                logger.error("%s could not be done: %s", self.name, type(error).__name__)  # noqa: TRY400
            self._stopped.wait(self._seconds)

    def stop(self) -> None:
        """Returns when the step that is being done is done."""
        self._stopped.set()
        self.join()

"""Providers that keep a book and can hold back an answer: the moment in which a sender is killed is then certain."""

from __future__ import annotations

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from aiosmtpd.smtp import SMTP

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

NEVER = 10**9


class Holding:
    """Takes everything; from its ``hold_at``-th message or request on, answers only after ``release``."""

    port: int

    def __init__(self, hold_at: int = NEVER) -> None:
        self._hold_at = hold_at
        self._book: list[tuple[str, bytes]] = []
        self._open = threading.Event()
        self._held = threading.Event()
        self._count = 0

    def take(self, copies: list[tuple[str, bytes]]) -> bool:
        """Writes them into the book; True if their answer has to wait."""
        self._book += copies
        self._count += 1
        if self._count < self._hold_at or self._open.is_set():
            return False
        self._held.set()
        return True

    def wait(self) -> None:
        """Until released."""
        self._open.wait(60)

    def holding(self) -> bool:
        """Whether an answer is being held back."""
        return self._held.is_set()

    def release(self) -> None:
        """Answers everything, from now on at once."""
        self._open.set()

    def recipients(self) -> list[str]:
        """Everyone who got a copy, as often as they got one."""
        return [address for address, _ in self._book]

    def messages(self) -> list[bytes]:
        """The copies."""
        return [message for _, message in self._book]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        self.stop()

    def stop(self) -> None:
        """Ends the server."""
        raise AssertionError("each server ends itself")


class HoldingServer(Holding):
    """A real SMTP server (aiosmtpd)."""

    def __init__(self, hold_at: int = NEVER) -> None:
        super().__init__(hold_at)
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(self._loop.create_server(self._protocol, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def _protocol(self) -> SMTP:
        return SMTP(self, hostname="mail.example.org", loop=self._loop)

    async def handle_DATA(self, _server: object, _session: object, envelope: Any) -> str:
        if self.take([(envelope.rcpt_tos[0], envelope.content)]):
            await asyncio.get_running_loop().run_in_executor(None, self.wait)
        return "250 2.0.0 queued"

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.get_running_loop().shutdown_default_executor()


class HoldingSendGrid(Holding):
    """A real HTTP server that says 202."""

    def __init__(self, hold_at: int = NEVER) -> None:
        super().__init__(hold_at)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"book": self}))
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join(60)
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    book: HoldingSendGrid

    def log_message(self, *_arguments: object) -> None:
        """Keeps the test's output clean."""

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if len(data) < int(self.headers["Content-Length"]):
            return  # the sender was killed while it spoke
        body = json.loads(data)
        people = [one["to"][0]["email"] for one in body["personalizations"]]
        if self.book.take([(address, b"") for address in people]):
            self.book.wait()
        try:
            self.send_response(202)
            self.send_header("X-Message-Id", "abc")
            self.send_header("Content-Length", "0")
            self.end_headers()
        except OSError:
            self.close_connection = True  # the sender was killed while it waited

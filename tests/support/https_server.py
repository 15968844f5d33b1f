"""A proxy that speaks HTTPS before `newsletter serve`, or in its place, and is wrong in just the way it is told."""

from __future__ import annotations

import http.client
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

HOP = {"connection", "transfer-encoding", "content-length", "date", "server"}


class Said(NamedTuple):
    """An answer. A header of ours wins over one that comes from behind."""

    status: int = 200
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed
    body: bytes = b""


@dataclass
class Front:
    """``behind`` is the port that requests are passed on to; ``acts`` answer in its place."""

    behind: int = 0
    acts: dict[tuple[str, str], Said] = field(default_factory=dict)  # (method, start of the path)
    dropped: set[str] = field(default_factory=set)  # headers taken out, in small letters
    added: dict[str, str] = field(default_factory=dict)
    date: str = ""  # in place of the time
    asked: list[tuple[str, str]] = field(default_factory=list)
    port: int = 0

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Said:
        self.asked.append((method, path))
        for (known, start), said in self.acts.items():
            if (known, path[: len(start)]) == (method, start):
                return said
        if not self.behind:
            return Said(404)
        connection = http.client.HTTPConnection("127.0.0.1", self.behind, timeout=10)
        try:
            connection.request(method, path, body or None, headers)
            reply = connection.getresponse()
            kept = {name: value for name, value in reply.getheaders() if name.lower() not in HOP}
            return Said(reply.status, kept, reply.read())
        finally:
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, *_arguments: object) -> None:
        """Silent."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        return self.server.front.date or super().date_time_string(timestamp)

    def do_GET(self) -> None:
        self._pass_on(b"")

    def do_POST(self) -> None:
        self._pass_on(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _pass_on(self, body: bytes) -> None:
        front = self.server.front
        asked = {name: self.headers[name] for name in ("Host", "Content-Type") if self.headers[name]}
        said = front.answer(self.command, self.path, asked, body)
        self.send_response(said.status)
        for name, value in {**said.headers, **front.added}.items():
            if name.lower() not in front.dropped:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(said.body)))
        self.end_headers()
        self.wfile.write(said.body)


class _Server(ThreadingHTTPServer):
    front: Front
    tls: ssl.SSLContext | None = None

    def finish_request(self, request, client_address) -> None:  # type: ignore[no-untyped-def]
        if self.tls is not None:
            request = self.tls.wrap_socket(request, server_side=True)
        try:
            super().finish_request(request, client_address)
        finally:
            request.close()

    def handle_error(self, *_arguments: object) -> None:
        """A client that does not like our certificate hangs up."""


@contextmanager
def front(tls: ssl.SSLContext | None, **known: object) -> Iterator[Front]:
    """Runs one on a free port of loopback; without ``tls`` in clear text."""
    made = Front(**known)  # type: ignore[arg-type]
    with _Server(("127.0.0.1", 0), _Handler) as server:
        made.port = server.server_port
        server.front, server.tls = made, tls
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="https")
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join(10)

"""A local SendGrid: takes ``/v3/mail/send``, holds requests to the documented rules, and misbehaves as told.

What it accepts it writes out per person, replacing substitutions literally, in all parts alike and up to four levels
deep, as SendGrid does: so a test sees what each person would get.
"""

from __future__ import annotations

import contextlib
import json
import queue
import re
import socket
import struct
import threading
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Mapping, Sequence

KEY = "SG.test-key"
LEVELS = 4
RESERVED = {"x-sg-id", "x-sg-eid", "received", "dkim-signature", "content-type", "content-transfer-encoding"}
RESERVED |= {"to", "from", "subject", "reply-to", "cc", "bcc"}


@dataclass(frozen=True)
class Written:
    """What one person would get."""

    address: str
    subject: str
    text: str
    html: str
    headers: Mapping[str, str]
    delivery: str


@dataclass(frozen=True)
class Say:
    """Answers this and takes nothing."""

    status: int
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    """``cut`` (RST), ``hang``, ``drip`` (202, a byte at a time), ``half`` (202, the body ends too soon), ``noise``."""

    kind: str
    taken: bool = False


class SendGrid(ThreadingHTTPServer):
    """``acts`` are used up in order, one a request; then requests are judged by the rules alone.

    Connections stay open, as HTTP/1.1 has it, until the other side or the test ends.
    """

    daemon_threads = False

    def __init__(self, acts: Sequence[Say | Fault] = (), tls: ssl.SSLContext | None = None) -> None:
        self.acts = deque(acts)
        self.usual: Say | Fault | None = None
        self.scopes = ["mail.send", "mail.batch.create", "2fa_required"]  # of the key
        self.bad: set[str] = set()  # addresses that the rules find wrong
        self.naming = (
            "to"  # how errors name those: "to", "first" (only one), "member" (not what of it) or "nobody"
        )
        self.always: Mapping[str, str] = {}  # headers of every answer
        self.most_members = 1000  # more is 413
        self.requests: list[dict[str, Any]] = []
        self.book: list[Written] = []
        self.authorizations: list[str] = []
        self.stopping = threading.Event()
        self.connections = 0  # made so far
        self._tls = tls
        self.open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        """What goes into ``[sendgrid] url``."""
        return f"{'https://localhost' if self._tls else 'http://127.0.0.1'}:{self.server_port}"

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serves one connection to its end, in a thread of its own."""
        if self._tls is not None:
            request = self._tls.wrap_socket(request, server_side=True)
        self.connections += 1
        self.open.add(request)
        try:
            super().finish_request(request, client_address)
        finally:
            self.open.discard(request)
            if self._tls is not None:
                request.close()

    def stop(self) -> None:
        """Ends connections that the other side would keep, and everything else."""
        self.stopping.set()
        self.shutdown()
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def addresses(self) -> list[str]:
        """Who would get something, in order."""
        return [written.address for written in self.book]


@contextlib.contextmanager
def sendgrid_server(*acts: Say | Fault, tls: ssl.SSLContext | None = None) -> Iterator[SendGrid]:
    """Runs one on a free port of loopback."""
    with SendGrid(acts, tls) as server:
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="sendgrid"
        )
        thread.start()
        try:
            yield server
        finally:
            server.stop()
            thread.join(10)


class _Handler(BaseHTTPRequestHandler):
    server: SendGrid
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments: object) -> None:
        """Silent."""

    def do_GET(self) -> None:
        """What a key may do; else where a followed redirect would end, which must never be seen."""
        if self.path == "/v3/scopes":
            self._answer(self._scopes())
            return
        self.server.authorizations.append(f"GET with {self.headers.get('Authorization')}")
        self._answer(Say(200, "{}"))

    def _scopes(self) -> Say:
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            return Say(401, errors(("", "authorization required")))
        act = self.server.acts.popleft() if self.server.acts else None
        return act if isinstance(act, Say) else Say(200, json.dumps({"scopes": self.server.scopes}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.authorizations.append(self.headers.get("Authorization", ""))
        self.server.requests.append(body)
        act = self.server.acts.popleft() if self.server.acts else self.server.usual
        if isinstance(act, Say):
            self._answer(act)
        elif act is not None:
            self._misbehave(act, body)
        else:
            self._answer(self._judge(body))

    def _judge(self, body: dict[str, Any]) -> Say:
        if self.path != "/v3/mail/send":
            return Say(404, errors(("", "not found")))
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            return Say(401, errors(("", "The provided authorization grant is invalid, expired, or revoked")))
        if len(body["personalizations"]) > self.server.most_members:
            return Say(413, errors(("", "too large")))
        found = [*problems(body), *self._bad_addresses(body)]
        if found:
            return Say(400, errors(*self._named(found)))
        self.server.book += write_out(body)
        return Say(202, "", {"X-Message-Id": f"id-{len(self.server.requests)}"})

    def _bad_addresses(self, body: dict[str, Any]) -> Iterator[tuple[str, str]]:
        for number, member in enumerate(body["personalizations"]):
            if member["to"][0]["email"] in self.server.bad:
                address = member["to"][0]["email"]
                yield f"personalizations.{number}.to.0.email", f"Does not contain a valid address: {address}"

    def _named(self, found: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
        match self.server.naming:
            case "nobody":
                return [("", "Bad Request")]
            case "first":
                return found[:1]
            case "member":
                return [(place.partition(".to")[0], why) for place, why in found]
            case _:
                return found

    def _answer(self, say: Say) -> None:
        data = say.body.encode()
        self.send_response(say.status)
        for name, value in {**self.server.always, **say.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self._headers_buffer += [
            b"\r\n",
            data,
        ]  # one packet: two would wait for each other on a kept connection
        self.flush_headers()

    def _misbehave(self, fault: Fault, body: dict[str, Any]) -> None:
        self.close_connection = True
        if fault.taken:
            self.server.book += write_out(body)
        if fault.kind == "cut":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif fault.kind == "hang":
            self.connection.settimeout(30)
            self.connection.recv(1)  # until the other side gives up
        elif fault.kind == "half":
            self.wfile.write(b"HTTP/1.1 202 Accepted\r\nX-Message-Id: x\r\nContent-Length: 100\r\n\r\nhalf")
        elif fault.kind == "noise":
            self.wfile.write(b"\x00\xff this is not HTTP\r\n\r\n")
        elif fault.kind == "drip":
            with contextlib.suppress(OSError):
                for byte in b"HTTP/1.1 202 Accepted\r\nX-Message-Id: x\r\nContent-Length: 0\r\n\r\n":
                    self.wfile.write(bytes([byte]))
                    self.server.stopping.wait(0.05)


@dataclass(frozen=True)
class Cut:
    """One request: reads ``reads`` bytes of it (None: all of it, then takes it), says ``says``, and hangs up."""

    reads: int | None = None
    says: bytes = b""
    reset: bool = False
    after: threading.Event | None = None  # what it waits for before it says it
    stays: bool = (
        False  # does not hang up: the next one is read from this connection, if the sender keeps to it
    )


@dataclass
class Butcher:
    """Cuts connections after any byte, each as its next ``Cut`` says, and knows which requests it had in whole."""

    listener: socket.socket
    cuts: queue.SimpleQueue[Cut | None] = field(default_factory=queue.SimpleQueue)
    taken: int = 0
    size: int = 0  # bytes of the last whole request
    connections: int = 0
    requests: list[dict[str, Any]] = field(default_factory=list)  # those it had in whole
    # Released after each cut.
    done: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    _connection: socket.socket | None = None

    @property
    def url(self) -> str:
        """What goes into ``[sendgrid] url``."""
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def serve(self) -> None:
        """Until there is no further ``Cut``."""
        with contextlib.suppress(OSError):  # the test has ended, and the listener with it
            while cut := self.cuts.get():
                self._serve(cut)
        self._hang_up()

    def _serve(self, cut: Cut) -> None:
        connection = self._read(cut.reads)
        if cut.after is not None:
            cut.after.wait(10)
        with contextlib.suppress(OSError):  # the other side may be gone
            connection.sendall(cut.says)
        if cut.reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if not cut.stays:
            self._hang_up()
        self.done.release()

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _read(self, count: int | None) -> socket.socket:
        """The connection over which it came."""
        while True:
            kept = self._connection is not None
            if self._connection is None:
                self._connection, _ = self.listener.accept()
                self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections += 1
            seen = self._take(self._connection, count)
            if seen or count == 0 or not kept:
                return self._connection
            self._hang_up()  # the sender left this one: its next request comes over another

    def _take(self, connection: socket.socket, count: int | None) -> bytes:
        seen = b""
        with contextlib.suppress(ConnectionResetError):  # the sender left with something of ours unread
            while len(seen) < (wanted := length(seen) if count is None else count) and (
                data := connection.recv(wanted - len(seen))
            ):
                seen += data
        if count is None and len(seen) == length(seen):
            self.taken, self.size = self.taken + 1, len(seen)
            self.requests.append(json.loads(seen.partition(b"\r\n\r\n")[2]))
        return seen


def length(seen: bytes) -> int:
    """Bytes of the request of which these are the first; one more than there are while nobody can know."""
    head, end, _ = seen.partition(b"\r\n\r\n")
    found = re.search(rb"(?i)content-length: (\d+)", head)
    return len(head + end) + int(found[1]) if end and found else len(seen) + 1


@contextlib.contextmanager
def butcher() -> Iterator[Butcher]:
    """Runs one on a free port of loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Butcher(listener)
        thread = threading.Thread(target=server.serve, name="butcher")
        thread.start()
        try:
            yield server
        finally:
            server.cuts.put(None)
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # what is still waited for will not come
            thread.join(10)
            assert not thread.is_alive()


def errors(*found: tuple[str, str]) -> str:
    """The body of an error, as SendGrid writes it."""
    return json.dumps(
        {"errors": [{"message": why, "field": place or None, "help": None} for place, why in found]}
    )


def problems(body: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What SendGrid would not take: (field, message)."""
    members = body["personalizations"]
    if not 1 <= len(members) <= 1000:
        yield "personalizations", "limited to 1000"
    seen: set[str] = set()
    for number, member in enumerate(members):
        yield from _member_problems(f"personalizations.{number}", member, seen)
    if not body.get("subject"):
        yield "subject", "The subject is required."
    types = [part["type"] for part in body["content"]]
    if types not in (["text/plain"], ["text/plain", "text/html"]) or not all(
        part["value"] for part in body["content"]
    ):
        yield "content", "text/plain first, then text/html, neither empty"
    for name in body.get("headers", {}):
        if name.lower() in RESERVED:
            yield "headers", f"{name} is reserved"


def _member_problems(place: str, member: dict[str, Any], seen: set[str]) -> Iterator[tuple[str, str]]:
    if len(member["to"]) != 1 or set(member) - {"to", "headers", "substitutions", "custom_args"}:
        yield place, "exactly one reader each"
    address = member["to"][0]["email"].lower()
    if address in seen:
        yield place, f"{address} is in there twice"
    seen.add(address)
    values = {**member["substitutions"], **member["custom_args"]}
    if not all(isinstance(value, str) for value in values.values()):
        yield place, "strings only"
    if sum(len(word.encode()) for pair in values.items() for word in pair) > 10_000:
        yield f"{place}.substitutions", "too long"
    for name, value in member["headers"].items():
        if name.lower() in RESERVED or not value.isascii():
            yield f"{place}.headers", f"{name} is reserved or not ASCII"


def write_out(body: dict[str, Any]) -> Iterator[Written]:
    """One message per person."""
    text, html, *_ = *(part["value"] for part in body["content"]), ""
    for member in body["personalizations"]:
        values = member["substitutions"]
        yield Written(
            address=member["to"][0]["email"],
            subject=substitute(body["subject"], values),
            text=substitute(text, values),
            html=substitute(html, values),
            headers={**body.get("headers", {}), **member["headers"]},
            delivery=member["custom_args"]["delivery"],
        )


def substitute(text: str, values: Mapping[str, str]) -> str:
    """Literally, and again in what came of it."""
    for _ in range(LEVELS):
        for tag, value in values.items():
            text = text.replace(tag, value)
    return text

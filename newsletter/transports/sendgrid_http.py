"""The sendgrid package's client with an HTTP layer of ours below it: guarded, over one kept connection.

As it comes, the package waits for ever, sends the API key along when it is redirected (and reports that as success),
obeys ``http_proxy`` from the environment, and logs key, addresses and bodies at debug level. Its objects hold the key
as plain text, so they get none: the header with the key is added here, as a ``Secret``. It also opens a connection for
each request, which costs more than all the rest of one.

A kept connection has a danger of its own: the server may close it while nothing is asked. What is written into that
moment is lost, or is not, and nobody can say: HTTP has no answer for it, and ``mail/send`` can't be asked twice. So a
request never rides on a connection that was silent for long or has anything to read, and none is written twice.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import io
import socket
import ssl
import time
from dataclasses import dataclass, replace
from email.message import Message
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import python_http_client
import sendgrid

from newsletter.transports.answers import words
from newsletter.transports.deadline import DeadlineReader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from _typeshed import WriteableBuffer

MOST_BYTES = 30_000_000  # of a request, as SendGrid documents
TOO_LARGE = 413
# Servers close silent connections after 5 s (Apache, Node.js) to 75 s (nginx). A new one costs some milliseconds, one
# closed in the moment of writing makes a whole window unknown.
MOST_IDLE = 3.0
MOST_AGE = 60.0  # seconds; whoever takes a machine out of service waits for connections to end
LUMP = 16_384  # bytes written at once: a TLS record
URL_SAFE = "/%:@!$&'()*+,;="


class Secret(str):
    """Text whose ``repr``, which is what tracebacks with local variables print, does not show it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'"


class NotSent(Exception):
    """Nothing of the request left: there was no connection to send it over."""


class NoAnswer(Exception):
    """Something of the request left, and no whole answer came back."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    status: int
    body: bytes
    headers: Message[str, str]


class GuardedClient(python_http_client.Client):  # type: ignore[misc]  # the package has no types
    """Knows the API's paths, version and headers as the package does; posts as we do."""

    def __init__(self, connection: KeptConnection, **known: Any) -> None:
        super().__init__(**known)
        self._connection = connection

    # Each step of `client.mail.send` is made by this method; the package's own would drop the guard.
    def _build_client(self, name: str | None = None) -> GuardedClient:
        return GuardedClient(
            self._connection,
            host=self.host,
            version=self._version,
            request_headers=self.request_headers,
            url_path=[*self._url_path, name] if name else self._url_path,
        )

    def post(self, body: memoryview) -> Reply:
        """Posts JSON, once. Error statuses are returned. Raises ``NotSent`` and ``NoAnswer``."""
        if len(body) > MOST_BYTES:
            return Reply(TOO_LARGE, b"", Message())  # what SendGrid would say, without the upload
        headers = {**self.request_headers, "Content-Type": "application/json"}
        reply = self._connection.post(urlsplit(self._build_url(None)).path, headers, body)
        key = headers["Authorization"].removeprefix("Bearer ").encode()
        # A proxy's error page may repeat what it got.
        return replace(reply, body=reply.body.replace(key, b"..."))

    def _make_request(self, *_: object, **__: object) -> Any:
        raise NotImplementedError("only post() is guarded; the package's own requests are not")


def client(api_key: Secret, url: str, connection: KeptConnection) -> GuardedClient:
    """The package's client for the API at ``url``, with the key, over this connection."""
    api = sendgrid.SendGridAPIClient("not here", host=url)  # with none it would take one from the environment
    headers = {**api.client.request_headers, "Authorization": Secret(f"Bearer {api_key}")}
    return GuardedClient(connection, host=url, request_headers=headers, version=3)


class KeptConnection:
    """A connection that is made when it is needed and reused as long as that is safe. Not for two threads at once.

    No redirect, no proxy, and ``timeout`` seconds for all of a request: connecting, writing and reading.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._place = urlsplit(url)
        self._timeout = timeout
        self._host = ""
        self._link: _Link | None = None

    def post(self, path: str, headers: Mapping[str, str], body: memoryview) -> Reply:
        """Posts once and reads the answer, whatever it is. Raises ``NotSent`` and ``NoAnswer``."""
        until = time.monotonic() + self._timeout
        link = self._ready(until)
        try:
            return link.talk(self._head(path, headers, len(body)), body, until)
        # The last three: what http.client says to lengths below zero or beyond all measure.
        except (OSError, http.client.HTTPException, ValueError, OverflowError, MemoryError) as error:
            failure = words(error) or type(error).__name__
        finally:
            if not link.reusable:
                self.close()
        # Out here, and without the cause: the frames below hold the key and the readers.
        raise NoAnswer(failure)

    def close(self) -> None:
        """Ends the connection, if there is one."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def _ready(self, until: float) -> _Link:
        """The connection we have if it is still good, else a new one."""
        if self._link is not None and not self._link.fresh():
            self.close()
        if self._link is None:
            self._link = self._connect(until)
        return self._link

    def _connect(self, until: float) -> _Link:
        place = self._place
        assert place.hostname is not None
        try:
            self._host = place.netloc.rpartition("@")[2].encode("idna").decode()
            secure = place.scheme == "https"
            link = _Link(_dial(place.hostname, place.port or (443 if secure else 80), secure, until))
        except (OSError, ValueError) as error:  # ValueError: a host that can't be a name, or no such port
            raise NotSent(words(error)) from error
        if time.monotonic() < until and link.quiet():
            return link
        link.close()
        raise NotSent("the server hung up, or connecting took too long")

    def _head(self, path: str, headers: Mapping[str, str], size: int) -> memoryview:
        fixed = {"Host": self._host, "Accept-Encoding": "identity", "Content-Length": str(size)}
        lines = [f"{name}: {value}" for name, value in {**fixed, **headers}.items()]
        lines = [f"POST {quote(path, safe=URL_SAFE)} HTTP/1.1", *lines, "", ""]
        return memoryview("\r\n".join(lines).encode("ascii"))  # whose repr shows nothing


def _dial(host: str, port: int, secure: bool, until: float) -> socket.socket:
    """A connection to the first of the host's addresses that can be reached, in time."""
    failure = OSError("the host has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        if secure:  # before it connects: wrapping one that was reset meanwhile would lose it unclosed
            sock = _tls().wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
        try:
            _shake_hands(sock, address, until)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure


def _shake_hands(sock: socket.socket, address: Any, until: float) -> None:
    sock.settimeout(_left(until))
    sock.connect(address)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if isinstance(sock, ssl.SSLSocket):
        sock.settimeout(_left(until))
        sock.do_handshake()


@functools.cache
def _tls() -> ssl.SSLContext:
    # Reading the system's authorities takes 20 ms: once, not per connection.
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _left(until: float) -> float:
    """Seconds until then; a socket would take 0 for "do not wait" and a negative number for a mistake."""
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("no complete answer in time")
    return seconds


class _Link:
    """One open connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._reader = _Reader(sock)
        self._opened = self._used = time.monotonic()
        self.reusable = True

    def fresh(self) -> bool:
        """Whether a request may ride on it, as far as one can know before."""
        now = time.monotonic()
        return now - self._used < MOST_IDLE and now - self._opened < MOST_AGE and self.quiet()

    def quiet(self) -> bool:
        """Still open, and the server has said nothing that nobody asked for, such as a second answer."""
        self._reader.allow(0)
        try:
            self._reader.lines.peek(1)
        except TimeoutError:
            return True
        except OSError:
            return False
        return False

    def talk(self, head: memoryview, body: memoryview, until: float) -> Reply:
        """Writes one request and reads its answer. ``reusable`` says whether another one may follow."""
        self.reusable = whole = False
        # A server that has heard enough may answer and close before it has read everything: its answer counts.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            # Together, so that a small request is one packet.
            self._write(memoryview(b"".join((head, body[:LUMP]))), until)
            self._write(body[LUMP:], until)
            whole = True
        reply, lasts = self._read(until)
        if not whole and reply.status < 300:
            raise ConnectionError(f"answered {reply.status} to half a request")
        self.reusable = whole and lasts and 200 <= reply.status < 500
        self._used = time.monotonic()
        return reply

    def _write(self, rest: memoryview, until: float) -> None:
        """One deadline for all of it, which ``sendall`` over TLS does not know."""
        while rest:
            self._sock.settimeout(_left(until))
            rest = rest[self._sock.send(rest[:LUMP]) :]

    def _read(self, until: float) -> tuple[Reply, bool]:
        """The answer, and whether the server keeps the connection after it."""
        self._reader.allow(_left(until))
        with _Response(self._reader, method="POST") as response:  # type: ignore[arg-type]  # all it asks is makefile
            response.begin()
            if self._reader.ended:
                raise ConnectionError("the answer's headers were cut")
            reply = Reply(response.status, response.read(), response.headers)
            return reply, response.version == 11 and not response.will_close

    def close(self) -> None:
        """Hangs up."""
        self._sock.close()


class _Reader(DeadlineReader):
    """Knows whether the other side has closed: ``http.client`` takes headers that were cut for whole ones."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.ended = False
        self.lines = _Lines(self)

    def readinto(self, buffer: WriteableBuffer) -> int:
        count = super().readinto(buffer)
        self.ended = count == 0
        return count

    def makefile(self, *_mode: object) -> io.BufferedReader:
        return self.lines


class _Lines(io.BufferedReader):
    """Outlives the answer: what the server says after it must be seen before the next request."""

    def close(self) -> None:
        """``http.client`` closes what it has read to the end."""


class _Response(http.client.HTTPResponse):
    """Skips every interim answer (RFC 9110 §15.2); the library itself skips 100 only."""

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]  # not in the type stubs
            if status == http.HTTPStatus.SWITCHING_PROTOCOLS or not 100 <= status < 200:
                return version, status, reason
            http.client.parse_headers(self.fp)

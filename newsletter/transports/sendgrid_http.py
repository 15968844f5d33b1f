"""The sendgrid package's client with a guarded HTTP layer below it.

As it comes, the package waits for ever, sends the API key along when it is redirected (and reports that as success),
obeys ``http_proxy`` from the environment, and logs key, addresses and bodies at debug level. Its objects hold the key
as plain text, so they get none: the header with the key is added here, as a ``Secret``.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import logging
import ssl
import time
from dataclasses import dataclass, replace
from email.message import Message
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import python_http_client
import sendgrid

from newsletter.transports.answers import words
from newsletter.transports.deadline import DeadlineReader

if TYPE_CHECKING:
    import socket
    import urllib.request
    from collections.abc import Mapping

    from _typeshed import WriteableBuffer

MOST_BYTES = 30_000_000  # of a request, as SendGrid documents
TOO_LARGE = 413


class Secret(str):
    """Text whose ``repr``, which is what tracebacks with local variables print, does not show it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'"


# A filter holds whatever level an application sets later; a level of ours would not.
logging.getLogger("python_http_client.client").addFilter(lambda _record: False)


class NotSent(Exception):
    """Nothing of the request left: there was no connection to send it over."""


class NoAnswer(Exception):
    """Something of the request left, and no whole answer came back."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer, in the form in which the package expects it from ``urllib``."""

    status: int
    body: bytes
    headers: Message[str, str]

    def getcode(self) -> int:
        """The status."""
        return self.status

    def read(self) -> bytes:
        """The body."""
        return self.body

    def info(self) -> Message[str, str]:
        """The headers."""
        return self.headers


class GuardedClient(python_http_client.Client):  # type: ignore[misc]  # the package has no types
    """Knows the API's paths as the package does; posts as we do. Error statuses are returned, not raised."""

    # Each step of `client.mail.send` is made by this method; the package's own would drop the guard.
    def _build_client(self, name: str | None = None) -> GuardedClient:
        return GuardedClient(
            host=self.host,
            version=self._version,
            request_headers=self.request_headers,
            url_path=[*self._url_path, name] if name else self._url_path,
            append_slash=self.append_slash,
            timeout=self.timeout,
        )

    def _make_request(
        self, _opener: object, request: urllib.request.Request, timeout: float | None = None
    ) -> Reply:
        assert isinstance(request.data, bytes)
        if len(request.data) > MOST_BYTES:
            return Reply(TOO_LARGE, b"", Message())  # what SendGrid would say, without the upload
        headers = dict(request.header_items())
        reply = exchange(request.full_url, request.data, headers, timeout or self.timeout)
        key = headers["Authorization"].removeprefix("Bearer ").encode()
        return replace(
            reply, body=reply.body.replace(key, b"...")
        )  # a proxy's error page may repeat what it got


def client(api_key: Secret, url: str, timeout: float) -> Any:
    """A ``SendGridAPIClient`` whose requests take ``timeout`` seconds in all. Raises ``NotSent`` and ``NoAnswer``."""
    api = sendgrid.SendGridAPIClient("not here", host=url)  # with none it would take one from the environment
    headers = {**api.client.request_headers, "Authorization": Secret(f"Bearer {api_key}")}
    api.client = GuardedClient(host=url, request_headers=headers, version=3, timeout=timeout)
    return api


def exchange(url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Reply:
    """Posts once and reads the answer, whatever it is. No redirect, no proxy, and one deadline for everything."""
    until = time.monotonic() + timeout
    with contextlib.closing(_connection(url, timeout)) as connection:
        _connect(connection, until)
        try:
            return _post(connection, urlsplit(url).path, body, headers, until)
        except (OSError, http.client.HTTPException) as error:
            failure = words(error) or type(error).__name__
        # Out here, and without the cause: the frames of http.client hold the key and the readers.
        raise NoAnswer(failure)


def _connect(connection: http.client.HTTPConnection, until: float) -> None:
    try:
        connection.connect()
    except (OSError, UnicodeError) as error:  # UnicodeError: a host that can't be a name
        raise NotSent(words(error)) from error
    if time.monotonic() >= until:
        raise NotSent("connecting took too long")


def _connection(url: str, timeout: float) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = (
        http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
        if parts.scheme == "http"
        else http.client.HTTPSConnection(parts.hostname, parts.port, timeout=timeout, context=_tls())
    )
    connection.set_debuglevel(0)  # else an application that raises the class's level prints the key
    return connection


@functools.cache
def _tls() -> ssl.SSLContext:
    context = (
        ssl.create_default_context()
    )  # reading the system's authorities takes 20 ms: once, not per request
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _post(
    connection: http.client.HTTPConnection, path: str, body: bytes, headers: Mapping[str, str], until: float
) -> Reply:
    connection.sock.settimeout(max(0.001, until - time.monotonic()))
    whole = False
    # A server that has heard enough may answer and close before it has read everything: its answer counts.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.request("POST", path, body, {**headers, "Connection": "close"})
        whole = True
    reply = _read(connection.sock, until)
    if not whole and reply.status < 300:
        raise NoAnswer(f"answered {reply.status} to half a request")
    return reply


def _read(sock: socket.socket, until: float) -> Reply:
    reader = _Reader(sock)
    reader.allow(until - time.monotonic())
    with _Response(reader, method="POST") as response:  # type: ignore[arg-type]  # all it asks is makefile
        response.begin()
        if reader.ended:
            raise NoAnswer("the answer's headers were cut")
        return Reply(response.status, response.read(), response.headers)


class _Reader(DeadlineReader):
    """Knows whether the other side has closed: ``http.client`` takes headers that were cut for whole ones."""

    ended = False

    def readinto(self, buffer: WriteableBuffer) -> int:
        count = super().readinto(buffer)
        self.ended = count == 0
        return count


class _Response(http.client.HTTPResponse):
    """Skips every interim answer (RFC 9110 §15.2); the library itself skips 100 only."""

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]  # not in the type stubs
            if status == http.HTTPStatus.SWITCHING_PROTOCOLS or not 100 <= status < 200:
                return version, status, reason
            http.client.parse_headers(self.fp)

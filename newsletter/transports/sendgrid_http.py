"""The sendgrid package's client with a guarded HTTP layer below it.

As it comes, the package waits for ever, sends the API key along when it is redirected (and reports that as success),
obeys ``http_proxy`` from the environment, and logs key, addresses and bodies at debug level.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import logging
import ssl
import time
from dataclasses import dataclass
from email.message import Message
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import python_http_client
import sendgrid

from newsletter.transports.answers import words
from newsletter.transports.deadline import DeadlineReader

if TYPE_CHECKING:
    import urllib.request
    from collections.abc import Mapping

MOST_BYTES = 30_000_000  # of a request, as SendGrid documents
TOO_LARGE = 413

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
        return exchange(request.full_url, request.data, headers, timeout or self.timeout)


def client(api_key: str, url: str, timeout: float) -> Any:
    """A ``SendGridAPIClient`` whose requests take ``timeout`` seconds in all. Raises ``NotSent`` and ``NoAnswer``."""
    api = sendgrid.SendGridAPIClient(api_key, host=url)
    api.client = GuardedClient(
        host=url, request_headers=api.client.request_headers, version=3, timeout=timeout
    )
    return api


def exchange(url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Reply:
    """Posts once and reads the answer, whatever it is. No redirect, no proxy, and one deadline for everything."""
    until = time.monotonic() + timeout
    with contextlib.closing(_connection(url, timeout)) as connection:
        try:
            connection.connect()
        except (OSError, UnicodeError) as error:  # UnicodeError: a host that can't be a name
            raise NotSent(words(error)) from error
        if time.monotonic() >= until:
            raise NotSent("connecting took too long")
        try:
            return _post(connection, urlsplit(url).path, body, headers, until)
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(words(error) or type(error).__name__) from error


def _connection(url: str, timeout: float) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    assert parts.hostname is not None
    if parts.scheme == "http":
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=timeout, context=_tls())


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()  # reading the system's authorities takes 20 ms: once, not per request


def _post(
    connection: http.client.HTTPConnection, path: str, body: bytes, headers: Mapping[str, str], until: float
) -> Reply:
    sock = connection.sock
    sock.settimeout(until - time.monotonic())
    # A server that has heard enough may answer and close before it has read everything: its answer counts.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.request("POST", path, body, {**headers, "Connection": "close"})
    reader = DeadlineReader(sock)
    reader.allow(until - time.monotonic())
    response = http.client.HTTPResponse(reader, method="POST")  # type: ignore[arg-type]  # all it asks is makefile
    with response:
        response.begin()
        return Reply(response.status, response.read(), response.headers)

"""One request to a web server, as a mail program makes it: no redirect is followed, no cookie kept, no proxy used."""

from __future__ import annotations

import http.client
import socket
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from newsletter.doctor.names import Unanswered
from newsletter.doctor.report import ok, warning

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from email.message import Message

    from newsletter.doctor.report import Result

    Lookup = Callable[[str], Sequence[str]]
    """A host's name → its addresses."""

SECONDS = 3.0  # for each step
MOST_BYTES = 100_000  # of an answer; more is not read
SOON_DAYS = 14  # authorities renew a month before the end, so that this is a renewal that failed
PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Message
    body: bytes = field(repr=False)
    expires: datetime | None  # the certificate; None without TLS


class NoAnswer(Exception):
    """Nothing that could be judged. The text says why, for the end of a sentence."""


class NoAddress(NoAnswer):
    """The name leads nowhere, so nobody was asked."""


def ask(
    method: str, url: str, lookup: Lookup, *, headers: Mapping[str, str] | None = None, body: bytes = b""
) -> Answer:
    """Raises ``NoAnswer``. The certificate is checked, against the system's authorities or those of SSL_CERT_FILE."""
    place = urlsplit(url)
    host, secure = place.hostname or "", place.scheme == "https"
    try:
        connection = http.client.HTTPConnection(place.netloc, timeout=SECONDS)
        connection.sock = _dial(_addresses(lookup, host), place.port or PORTS[place.scheme])
        try:
            expires = _secure(connection, host) if secure else None
            target = place.path + (f"?{place.query}" if place.query else "") or "/"
            connection.request(method, target, body or None, dict(headers or {}))
            reply = connection.getresponse()
            return Answer(reply.status, reply.msg, reply.read(MOST_BYTES), expires)
        finally:
            connection.close()
    except ssl.SSLCertVerificationError as error:
        raise NoAnswer(f"its certificate is not valid: {error.verify_message}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NoAnswer(_why(error)) from None


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {SECONDS:g} s"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return f"what it says is no answer ({type(error).__name__})"


def _addresses(lookup: Lookup, host: str) -> Sequence[str]:
    try:
        found = lookup(host)
    except Unanswered as error:
        raise NoAddress(str(error)) from None
    except OSError as error:
        raise NoAddress(_why(error)) from None
    if not found:
        raise NoAddress("the name has no address")
    return found


def _dial(addresses: Sequence[str], port: int) -> socket.socket:
    failure = OSError()
    for address in addresses:
        try:
            return socket.create_connection((address, port), timeout=SECONDS)
        except OSError as error:
            failure = error
    raise failure


def _secure(connection: http.client.HTTPConnection, host: str) -> datetime | None:
    assert connection.sock is not None
    wrapped = ssl.create_default_context().wrap_socket(connection.sock, server_hostname=host)
    connection.sock = wrapped
    return expiry(wrapped)


def expiry(sock: ssl.SSLSocket) -> datetime | None:
    """When the certificate of the other side ends."""
    told = (sock.getpeercert() or {}).get("notAfter")
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(told)), UTC) if told else None


def certificate(name: str, expires: datetime | None, now: datetime) -> Result:
    """Whether a valid certificate stays so for a while."""
    if expires is None:
        return warning(name, "the certificate says no end.", "Look at it.")
    days = (expires - now).days
    said = f"the certificate is valid until {expires:%Y-%m-%d} ({days} days)."
    if days < SOON_DAYS:
        return warning(name, said, "Renew it, and see why that did not happen by itself.")
    return ok(name, said)


def system_lookup(host: str) -> Sequence[str]:
    """What this machine takes for the host's addresses. Raises ``OSError``."""
    return list(dict.fromkeys(str(found[4][0]) for found in socket.getaddrinfo(host, None)))

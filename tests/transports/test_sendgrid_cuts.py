"""Connections that end after any byte: what SendGrid took is accepted or unknown, and accepted means taken."""

from __future__ import annotations

import socket
import ssl
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from newsletter.errors import TransportUnavailable
from newsletter.transports import sendgrid_http
from newsletter.transports.sendgrid import SendGridSettings, SendGridTransport
from tests.support.copies import Report, hand_over, people, wire
from tests.support.sendgrid_server import KEY, Butcher, Cut, butcher
from tests.support.smtp_server import HOST, make_certificate, server_context, smtp_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from newsletter.message import Wire

HEAD = b"HTTP/1.1 202 Accepted\r\nServer: nginx\r\nX-Message-Id: abc\r\n"
PLAIN = HEAD + b"Content-Length: 0\r\n\r\n"
WITH_BODY = HEAD + b"Content-Length: 9\r\n\r\nall right"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nall\r\n6\r\n right\r\n0\r\n\r\n"
UNTIL_CLOSE = HEAD + b"\r\nall right"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
BAD_REQUEST = b'HTTP/1.1 400 Bad Request\r\nContent-Length: 14\r\n\r\n{"errors": []}'


@pytest.fixture(scope="module")
def server() -> Iterator[Butcher]:
    with butcher() as running:
        yield running


def send(server: Butcher, *cuts: Cut, message: Wire | None = None) -> Report:
    """Two people in one request."""
    for cut in cuts:
        server.cuts.put(cut)
    settings = SendGridSettings(KEY, url=server.url, batch=2, timeout=10)
    return hand_over(SendGridTransport(settings), people(2), message)


def fate(server: Butcher, cut: Cut) -> str:
    """What became of the members of one request; it must be the same for all, and true."""
    before = server.taken
    report = send(server, cut)
    (kind,) = set(report.kinds().values())
    if server.taken > before:
        assert kind in {"Accepted", "Unknown"}
    else:
        assert kind != "Accepted"
    return kind


@pytest.mark.parametrize("reset", [False, True])
def test_a_request_that_is_cut_after_any_byte_is_unknown_for_every_member(
    server: Butcher, reset: bool
) -> None:
    assert fate(server, Cut(None, PLAIN)) == "Accepted"
    head = 400  # more than its headers
    points = {*range(1, head, 9), *range(head, server.size, 150), server.size - 2, server.size - 1}
    assert {fate(server, Cut(point, b"", reset)) for point in sorted(points)} == {"Unknown"}
    # An end that comes before the first byte is written is seen in time, or not.
    assert fate(server, Cut(0, b"", reset)) in {"Unknown", "NotTaken"}


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("answer", [PLAIN, WITH_BODY], ids=["empty", "body"])
def test_an_answer_that_is_cut_before_its_last_byte_is_unknown(
    server: Butcher, answer: bytes, reset: bool
) -> None:
    for count in range(len(answer)):
        assert fate(server, Cut(None, answer[:count], reset)) == "Unknown", answer[:count]
    assert fate(server, Cut(None, answer)) == "Accepted"


def test_an_answer_in_chunks_is_whole_with_its_last_chunk(server: Butcher) -> None:
    last = CHUNKED.index(b"0\r\n\r\n") + 1  # what comes after its length of 0 says nothing any more
    for count in range(len(CHUNKED) + 1):
        kind = fate(server, Cut(None, CHUNKED[:count]))
        assert kind == ("Accepted" if count >= last else "Unknown"), CHUNKED[:count]


def test_an_answer_without_a_length_is_whole_with_its_headers(server: Butcher) -> None:
    headers = len(HEAD) + 2
    for count in range(len(UNTIL_CLOSE) + 1):
        kind = fate(server, Cut(None, UNTIL_CLOSE[:count]))
        assert kind == ("Accepted" if count >= headers else "Unknown"), UNTIL_CLOSE[:count]


def test_interim_answers_are_skipped_and_a_cut_in_them_is_unknown(server: Butcher) -> None:
    for count in range(len(INTERIM) + 1):
        assert fate(server, Cut(None, INTERIM[:count])) == "Unknown", INTERIM[:count]
    assert fate(server, Cut(None, INTERIM + PLAIN)) == "Accepted"


def test_interim_answers_without_end_are_unknown(server: Butcher) -> None:
    assert fate(server, Cut(None, b"HTTP/1.1 102 Processing\r\n\r\n" * 50_000)) == "Unknown"


def test_a_400_that_is_cut_is_unknown_and_a_whole_one_is_definite(server: Butcher) -> None:
    for count in range(len(BAD_REQUEST)):
        assert fate(server, Cut(None, BAD_REQUEST[:count])) == "Unknown"
    answers = (BAD_REQUEST, PLAIN, PLAIN)
    report = send(server, *[Cut(None, answer, stays=True) for answer in answers])
    assert set(report.kinds().values()) == {"Accepted"}


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 202 Accepted\r\n\r\n",
        b"HTTP/1.1 202 Accepted\r\nContent-Length: 6\r\nContent-Type: text/html\r\n\r\n<html>",
        b"HTTP/1.1 202\r\nContent-Length: nonsense\r\n\r\n",
        b"HTTP/1.0 202 OK\nX-Message-Id:\n\n",
        b'HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\n\r\n{"errors": [{"message": "?"}]}',
    ],
)
def test_202_is_accepted_with_or_without_an_id_and_whatever_is_in_it(server: Butcher, answer: bytes) -> None:
    assert fate(server, Cut(None, answer)) == "Accepted"


def test_a_202_to_half_a_request_is_not_believed(server: Butcher) -> None:
    """More than the sockets' buffers hold: the connection breaks while we write."""
    large = wire(text="x" * 8_000_000 + " @@unsubscribe_url@@")
    report = send(server, Cut(1000, PLAIN), message=large)
    assert set(report.kinds().values()) == {"Unknown"}
    report = send(server, Cut(1000, b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"), message=large)
    assert set(report.kinds().values()) <= {"Unknown", "NotTaken"}


def test_a_202_that_comes_after_the_time_is_up_is_unknown(server: Butcher) -> None:
    given_up = threading.Event()
    before = server.taken
    server.cuts.put(Cut(None, PLAIN, after=given_up))
    settings = SendGridSettings(KEY, url=server.url, timeout=0.3)
    report = hand_over(SendGridTransport(settings), people(2))
    given_up.set()
    assert set(report.kinds().values()) == {"Unknown"}
    assert server.taken == before + 1


# --- TLS ---------------------------------------------------------------------------------------------------------


def over_tls(port: int, **changes: Any) -> SendGridTransport:
    return SendGridTransport(SendGridSettings(KEY, url=f"https://localhost:{port}", **changes))


def trusted(folder: Path, monkeypatch: Any) -> ssl.SSLContext:
    """A server's context whose certificate this machine trusts during the test."""
    files = make_certificate(folder)
    monkeypatch.setenv("SSL_CERT_FILE", str(files[0]))
    sendgrid_http._tls.cache_clear()
    return server_context(*files)


@pytest.fixture(autouse=True)
def _trust_anew() -> Iterator[None]:
    yield
    sendgrid_http._tls.cache_clear()


@pytest.mark.parametrize("reset", [False, True])
def test_a_handshake_that_is_cut_after_any_byte_leaves_nothing_taken(server: Butcher, reset: bool) -> None:
    port = server.listener.getsockname()[1]
    for count in (0, 1, 5, 100, 300):
        server.cuts.put(Cut(count, b"", reset))
        report = hand_over(over_tls(port, timeout=10), people(2))
        assert isinstance(report.error, TransportUnavailable)
        assert set(report.kinds().values()) == {"NotTaken"}


def test_certificates_are_checked_and_nothing_below_tls_1_2_is_spoken() -> None:
    context = sendgrid_http._tls()
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_a_server_that_speaks_only_tls_1_1_gets_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    context = trusted(tmp_path, monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with smtp_server(tls=context) as mailbox:
        report = hand_over(over_tls(mailbox.port, timeout=10), people(1))
    assert isinstance(report.error, TransportUnavailable)
    assert "can't be reached" in str(report.error)
    assert report.kinds() == {1: "NotTaken"}


def test_a_server_that_reads_slowly_over_tls_does_not_stretch_the_time(
    tmp_path: Path, monkeypatch: Any
) -> None:
    context = trusted(tmp_path, monkeypatch)
    over = threading.Event()

    def sip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with context.wrap_socket(connection, server_side=True) as secure:
            while not over.wait(0.05) and secure.recv(20_000):
                pass

    with socket.create_server((HOST, 0)) as listener:
        thread = threading.Thread(target=sip, args=(listener,))
        thread.start()
        large = wire(text="x" * 8_000_000 + " @@unsubscribe_url@@")
        report = hand_over(over_tls(listener.getsockname()[1], timeout=1), people(1), large)
        over.set()  # hand_over waits a minute at most
        thread.join(10)
    assert report.kinds() == {1: "Unknown"}

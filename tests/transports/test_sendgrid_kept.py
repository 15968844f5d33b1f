"""Requests that follow one another over one connection: none is lost to its end, and none gets another one's answer."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsletter.errors import TransportUnavailable
from newsletter.transports import sendgrid_http
from newsletter.transports.sendgrid import SendGridSettings, SendGridTransport
from tests.support.copies import hand_over, people, wire
from tests.support.sendgrid_server import KEY, Butcher, Cut, Say, butcher, errors, sendgrid_server
from tests.support.smtp_server import make_certificate, server_context
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from newsletter.model import Outcome, Recipient

HEAD = b"HTTP/1.1 202 Accepted\r\nX-Message-Id: abc\r\n"
PLAIN = HEAD + b"Content-Length: 0\r\n\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nall\r\n6\r\n right\r\n0\r\n\r\n"
CLOSING = HEAD + b"Connection: close\r\nContent-Length: 0\r\n\r\n"
OLD = b"HTTP/1.0 202 Accepted\r\nContent-Length: 0\r\n\r\n"
OLD_KEPT = b"HTTP/1.0 202 Accepted\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n"
DENIED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
BROKEN = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.fixture
def server() -> Iterator[Butcher]:
    with butcher() as running:
        yield running


def transport(server: Butcher, **changes: Any) -> SendGridTransport:
    return SendGridTransport(
        SendGridSettings(KEY, **{"url": server.url, "batch": 2, "timeout": 10, **changes})
    )


def run(
    sending: SendGridTransport, windows: Sequence[Sequence[Recipient]], wait: Callable[[], object]
) -> list[str]:
    """What became of each window; ``wait`` is called before each but the first."""
    found: list[Outcome] = []

    def copies() -> Iterator[Sequence[Recipient]]:
        for number, window in enumerate(windows):
            if number:
                wait()
            yield window

    sending.run(wire(), copies(), found.extend)
    kinds = {outcome.delivery: type(outcome).__name__ for outcome in found}
    assert len(found) == len(kinds) == sum(map(len, windows))
    together = [{kinds[copy.delivery] for copy in window} for window in windows]
    assert all(len(kind) == 1 for kind in together)
    return [kind.pop() for kind in together]


def windows(count: int) -> list[list[Recipient]]:
    found = people(2 * count)
    return [found[at : at + 2] for at in range(0, 2 * count, 2)]


def fates(server: Butcher, *cuts: Cut, **changes: Any) -> list[str]:
    """One window for each cut; each leaves when the server has done with the one before."""
    for cut in cuts:
        server.cuts.put(cut)
    return run(transport(server, **changes), windows(len(cuts)), lambda: server.done.acquire(timeout=10))


def said(answer: bytes) -> Cut:
    """A whole request, this answer, and the connection stays open."""
    return Cut(None, answer, stays=True)


# --- kept --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [PLAIN, CHUNKED, INTERIM + PLAIN], ids=["length", "chunked", "interim"])
def test_requests_of_a_lane_share_a_connection(server: Butcher, answer: bytes) -> None:
    assert fates(server, *[said(answer)] * 4) == ["Accepted"] * 4
    assert (server.connections, server.taken) == (1, 4)


def test_a_refusal_keeps_the_connection_as_well() -> None:
    with sendgrid_server(Say(400, errors(("personalizations.0.to", "no")))) as server:
        settings = SendGridSettings(KEY, url=server.url, batch=2)
        report = hand_over(SendGridTransport(settings), people(6))
    assert report.kinds() == {1: "Refused", **dict.fromkeys(range(2, 7), "Accepted")}
    assert (server.connections, len(server.requests)) == (1, 4)


def test_each_lane_has_a_connection_of_its_own_and_leaves_none_open() -> None:
    with sendgrid_server() as server:
        settings = SendGridSettings(KEY, url=server.url, batch=2)
        report = hand_over(SendGridTransport(settings), people(40), lanes=3)
        wait_for(lambda: not server.open)
    assert set(report.kinds().values()) == {"Accepted"}
    assert 1 <= server.connections <= 3


def test_a_connection_is_kept_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS 1.3 tickets arrive after the handshake: they are no word out of turn."""
    files = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(files[0]))
    sendgrid_http._tls.cache_clear()
    try:
        with sendgrid_server(tls=server_context(*files)) as server:
            settings = SendGridSettings(KEY, url=server.url, batch=2)
            report = hand_over(SendGridTransport(settings), people(8))
    finally:
        sendgrid_http._tls.cache_clear()
    assert report.kinds() == dict.fromkeys(range(1, 9), "Accepted")
    assert (server.connections, len(server.requests)) == (1, 4)


# --- not kept ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [False, True])
def test_a_connection_that_the_server_closed_while_idle_costs_nothing(server: Butcher, reset: bool) -> None:
    assert fates(server, *[Cut(None, PLAIN, reset=reset)] * 3) == ["Accepted"] * 3
    assert (server.connections, server.taken) == (3, 3)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("point", [1, 100, 1000, None])
def test_a_connection_that_ends_while_we_write_makes_that_window_unknown_and_no_other(
    server: Butcher, point: int | None, reset: bool
) -> None:
    cuts = [said(PLAIN), Cut(point, b"", reset), said(PLAIN)]
    assert fates(server, *cuts) == ["Accepted", "Unknown", "Accepted"]
    # Nothing is written twice: what the server had in whole, it had once.
    assert (server.connections, server.taken) == (2, 2 if point else 3)


@pytest.mark.parametrize("answer", [CLOSING, OLD, OLD_KEPT], ids=["close", "1.0", "1.0 kept"])
def test_a_connection_that_the_server_means_to_end_gets_no_further_request(
    server: Butcher, answer: bytes
) -> None:
    assert fates(server, *[said(answer)] * 3) == ["Accepted"] * 3
    assert server.connections == 3


def test_a_server_that_answers_without_a_length_ends_its_answer_with_the_connection(server: Butcher) -> None:
    answer = Cut(None, HEAD + b"\r\nall right")
    assert fates(server, answer, answer) == ["Accepted"] * 2
    assert server.connections == 2


def test_after_a_server_error_the_next_request_goes_over_a_new_connection(server: Butcher) -> None:
    assert fates(server, said(BROKEN), said(PLAIN)) == ["Unknown", "Accepted"]
    assert server.connections == 2


@pytest.mark.parametrize("name", ["MOST_IDLE", "MOST_AGE"])
def test_a_connection_that_was_silent_for_long_or_is_old_is_replaced(
    server: Butcher, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sendgrid_http, name, 0.0)
    assert fates(server, *[said(PLAIN)] * 3) == ["Accepted"] * 3
    assert server.connections == 3


# --- whose answer ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", [DENIED, PLAIN, TOO_SLOW, INTERIM, b"\r\n", b"\x00"])
def test_what_the_server_says_unasked_is_not_read_as_the_answer_to_the_next_request(
    server: Butcher, extra: bytes
) -> None:
    assert fates(server, said(PLAIN + extra), said(PLAIN)) == ["Accepted"] * 2
    assert (server.connections, server.taken) == (2, 2)


@pytest.mark.parametrize("extra", [DENIED, PLAIN, TOO_SLOW, INTERIM, b"\r\n", b"\x00"])
def test_nor_is_what_it_says_a_while_after_its_answer(server: Butcher, extra: bytes) -> None:
    for cut in (said(PLAIN), Cut(0, extra, stays=True), said(PLAIN)):
        server.cuts.put(cut)
    found = run(transport(server), windows(2), lambda: [server.done.acquire(timeout=10) for _ in range(2)])
    assert found == ["Accepted"] * 2
    assert (server.connections, server.taken) == (2, 2)


def test_an_answer_that_comes_after_its_time_is_not_read_as_the_next_ones(server: Butcher) -> None:
    given_up = threading.Event()
    server.cuts.put(Cut(None, DENIED, after=given_up, stays=True))
    server.cuts.put(said(PLAIN))

    def wait() -> None:
        given_up.set()
        server.done.acquire(timeout=10)

    assert run(transport(server, timeout=0.3), windows(2), wait) == ["Unknown", "Accepted"]
    assert server.connections == 2


def test_a_server_that_tired_of_waiting_took_nothing_and_is_asked_again_later(server: Butcher) -> None:
    """It says 408 to a silent connection; now and then that crosses a request on its way."""
    server.cuts.put(said(PLAIN))
    server.cuts.put(Cut(None, TOO_SLOW))
    report = hand_over(transport(server), people(4))
    assert isinstance(report.error, TransportUnavailable)
    assert report.kinds() == {1: "Accepted", 2: "Accepted", 3: "NotTaken", 4: "NotTaken"}
    assert not report.outcomes[3].charged


def test_a_server_that_speaks_first_gets_nothing() -> None:
    with butcher() as server:
        server.cuts.put(Cut(0, b"220 mail.example.org ESMTP\r\n", stays=True))
        kind = hand_over(transport(server), people(2)).kinds()[1]
    assert kind in {"NotTaken", "Unknown"}  # whether it is heard in time is a matter of microseconds


@pytest.mark.parametrize("size", [b"-1", b"-5", b"f" * 10, b"f" * 30, b"zz", b""])
def test_chunks_of_nonsense_are_no_answer(server: Butcher, size: bytes) -> None:
    nonsense = Cut(None, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + size + b"\r\nall\r\n")
    assert fates(server, nonsense, said(PLAIN)) == ["Unknown", "Accepted"]


@pytest.mark.parametrize("size", [b"9" * 12, b"9" * 40])
def test_a_length_of_nonsense_is_no_answer(server: Butcher, size: bytes) -> None:
    nonsense = Cut(None, HEAD + b"Content-Length: " + size + b"\r\n\r\nall right")
    assert fates(server, nonsense, said(PLAIN)) == ["Unknown", "Accepted"]


# --- anything ----------------------------------------------------------------------------------------------------

whole = [PLAIN, CHUNKED, CLOSING, OLD, OLD_KEPT, INTERIM + PLAIN, PLAIN + PLAIN, PLAIN + DENIED, BROKEN]
cut = st.builds(Cut, says=st.sampled_from([*whole, PLAIN[:30], b""]), reset=st.booleans())
early = st.builds(
    Cut, reads=st.sampled_from([1, 300, 900]), says=st.sampled_from([DENIED, b""]), reset=st.booleans()
)
kept = st.builds(Cut, says=st.sampled_from(whole), stays=st.just(True))


@given(found=st.lists(cut | early | kept, min_size=1, max_size=6))
def test_whatever_becomes_of_its_connections_nobody_is_written_to_twice_and_accepted_means_taken(
    found: list[Cut],
) -> None:
    with butcher() as server:
        for cut in found:
            server.cuts.put(cut)
        report = hand_over(transport(server, timeout=0.5), people(2 * len(found)))
    taken = [one["custom_args"]["delivery"] for body in server.requests for one in body["personalizations"]]
    assert len(taken) == len(set(taken))
    assert len(report.outcomes) == report.pulled
    for copy, kind in zip(people(report.pulled), report.kinds().values(), strict=True):
        assert kind in ({"Accepted", "Unknown"} if copy.id in taken else {"Unknown", "NotTaken"})

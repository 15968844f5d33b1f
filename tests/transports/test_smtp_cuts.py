"""A connection that ends after any number of bytes: what we then say of a copy holds against the server's own book."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from newsletter.errors import TransportUnavailable
from newsletter.model import NotTaken, Picture
from newsletter.transports.smtp import SmtpTransport
from newsletter.transports.smtp_session import SmtpSettings
from tests.support.copies import hand_over, people, wire
from tests.support.smtp_server import HOST, Close, Cut, ScriptedServer, make_certificate, server_context

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tests.support.copies import Report

MESSAGE = wire()
STRIDE = 89  # prime, so that it meets no structure of the message


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


def send(server: ScriptedServer, count: int, ca_file: str = "") -> Report:
    known = SmtpSettings(HOST, server.port, security="tls" if ca_file else "none", ca_file=ca_file, timeout=5)
    transport = SmtpTransport(known, dot_timeout=5, sleep=lambda _seconds: None)
    return hand_over(transport, people(count), MESSAGE)


class Whole:
    """An undisturbed conversation about some copies, and where its parts end."""

    def __init__(self, count: int, *, pipelining: bool) -> None:
        self.count, self.pipelining = count, pipelining
        with ScriptedServer(pipelining=pipelining) as server:
            send(server, count)
        (talk,) = server.talks
        self.length, self.said = len(talk.heard), len(talk.said)
        self.borders: list[int] = []  # where commands end
        self.dots: list[int] = []
        self._near: set[int] = set()
        end = 0
        for line in bytes(talk.heard).splitlines(keepends=True):
            start, end = end, end + len(line)
            if line.upper().startswith((b"EHLO", b"MAIL", b"RCPT", b"DATA", b".\r\n", b"QUIT")):
                self.borders.append(end)
                self._near |= set(range(start - 3, end + 4))
            if line == b".\r\n":
                self.dots.append(end)
        self.mail, _rcpt, self.data = self.borders[1:4]

    def server(self, **how: Any) -> ScriptedServer:
        """One more like it."""
        return ScriptedServer(pipelining=self.pipelining, **how)

    def offsets(self) -> list[int]:
        """Each byte of the commands and around them, and some of the bodies."""
        return sorted(n for n in self._near | set(range(0, self.length, STRIDE)) if 0 <= n <= self.length)


@pytest.fixture(scope="module", params=[False, True], ids=["in lockstep", "pipelining"])
def whole(request: pytest.FixtureRequest) -> Whole:
    return Whole(4 if request.param else 2, pipelining=request.param)


def cut_everywhere(
    whole: Whole, offsets: Iterable[int], manner: type, certificate: tuple[Path, Path] | None = None
) -> set[tuple[str, str]]:
    """Cuts after each of so many bytes that came; returns what the first copy came to, by the region of the cut."""
    seen = set()
    tls = server_context(*certificate) if certificate else None
    for offset in offsets:
        with whole.server(cut=(offset, manner), tls=tls) as server:
            report = send(server, whole.count, str(certificate[0]) if certificate else "")
        assert_the_truth(report, server, offset)
        region = region_of(whole, offset)
        seen.add((region, report.kinds()[1]))
        if region == "before MAIL was answered":
            assert isinstance(report.error, TransportUnavailable), offset
            assert (server.messages, charged(report)) == ([], []), offset
        else:
            assert report.error is None, offset
    return seen


def assert_the_truth(report: Report, server: ScriptedServer, offset: int) -> None:
    """With one connection lost, one copy at most is in doubt or charged: the one that was under way."""
    taken = [arrived.recipient for arrived in server.messages]
    assert len(taken) == len(set(taken)), offset
    assert report.pulled == len(report.outcomes), offset
    for number, kind in report.kinds().items():
        sure = "Accepted" if f"reader{number}@example.net" in taken else "NotTaken"
        assert kind in {sure, "Unknown"}, (offset, number)
        if kind == "Unknown":
            assert may_have_left(server, number), (offset, number)
    assert len([1 for kind in report.kinds().values() if kind == "Unknown"]) + len(charged(report)) <= 1, (
        offset
    )


def charged(report: Report) -> list[int]:
    """Whose copy was not taken, and counted."""
    return [n for n, one in report.outcomes.items() if isinstance(one, NotTaken) and one.charged]


def may_have_left(server: ScriptedServer, number: int) -> bool:
    """Whether this copy's dot was written, or more was written than came to be read."""
    heard = bytes(server.heard[0])
    _, found, rest = heard.partition(f"\r\nTo: reader{number}@example.net\r\n".encode())
    if found and b"\r\n.\r\n" in rest:
        return True
    return server.tls is not None or any(cut and cut[1] is Cut for cut in (server.cut, server.cut_reply))


def region_of(whole: Whole, offset: int) -> str:
    if offset <= whole.mail:
        return "before MAIL was answered"
    if offset <= whole.data:
        return "before the message"
    if offset < whole.dots[0]:
        return "inside the message"
    return "the dot has come" if offset == whole.dots[0] else "after the answer to the dot"


# Inside a message that fits into the sockets' buffers we have said the dot before we can hear of the cut.
POSSIBLE = {
    "before MAIL was answered": {"NotTaken"},
    "before the message": {"NotTaken"},
    "inside the message": {"NotTaken", "Unknown"},
    "the dot has come": {"Unknown"},
    "after the answer to the dot": {"Accepted"},
}


@pytest.mark.parametrize("manner", [Cut, Close])
def test_wherever_a_connection_ends_nobody_is_lost_and_nobody_served_twice(
    whole: Whole, manner: type
) -> None:
    seen = cut_everywhere(whole, whole.offsets(), manner)
    assert {region for region, _kind in seen} == set(POSSIBLE)
    assert all(kind in POSSIBLE[region] for region, kind in seen)


@pytest.mark.parametrize("manner", [Cut, Close])
def test_the_same_inside_tls(whole: Whole, manner: type, certificate: tuple[Path, Path]) -> None:
    near = {spot + shift for spot in whole.borders[:9] for shift in (-1, 0, 1)}
    seen = cut_everywhere(whole, sorted(n for n in near if n <= whole.length), manner, certificate)
    assert all(kind in POSSIBLE[region] for region, kind in seen)


@pytest.mark.full
@pytest.mark.parametrize("manner", [Cut, Close])
def test_the_same_after_every_single_byte(whole: Whole, manner: type) -> None:
    seen = cut_everywhere(whole, range(whole.length + 1), manner)
    assert all(kind in POSSIBLE[region] for region, kind in seen)


# --- the answers break off ---------------------------------------------------------------------------------------


def cut_replies(whole: Whole, offsets: Iterable[int], manner: type, *, burst: bool) -> set[str]:
    """Cuts after each of so many bytes that were said; returns all that copies came to."""
    seen = set()
    for offset in offsets:
        with whole.server(cut_reply=(offset, manner), burst=burst) as server:
            report = send(server, whole.count)
        assert_the_truth(report, server, offset)
        seen |= set(report.kinds().values())
    return seen


@pytest.mark.parametrize("burst", [False, True])
@pytest.mark.parametrize("manner", [Cut, Close])
def test_wherever_the_answers_break_off_only_what_was_said_counts(
    whole: Whole, manner: type, burst: bool
) -> None:
    seen = cut_replies(whole, range(whole.said + 1), manner, burst=burst)
    assert seen == {"Accepted", "NotTaken", "Unknown"}


# --- our own writing breaks off ----------------------------------------------------------------------------------


class Breaking(socket.socket):
    """Writes so many bytes, and then fails in one of the ways of a socket."""

    left: int
    error: type[OSError]

    def send(self, data: Any, *_flags: int) -> int:
        if not self.left:
            raise self.error("so many and no more")
        count = super().send(bytes(data)[: self.left])
        self.left -= count
        return count

    def sendall(self, data: Any, *_flags: int) -> None:
        while data:
            data = data[self.send(data) :]

    def sendmsg(self, pieces: Any, *_rest: Any) -> int:
        return self.send(b"".join(pieces))


def break_off(whole: Whole, offsets: Iterable[int], error: type[OSError], patch: pytest.MonkeyPatch) -> None:
    """Fails after each of so many bytes of the first connection: then nothing at all is in doubt."""

    def create(address: tuple[str, int], timeout: float, *_rest: object) -> socket.socket:
        if not unbroken:
            return connect(address, timeout)
        breaking = Breaking()
        breaking.left, breaking.error = unbroken.pop(), error
        breaking.settimeout(timeout)
        breaking.connect(address)
        return breaking

    connect = socket.create_connection
    patch.setattr(socket, "create_connection", create)
    for offset in offsets:
        unbroken = [offset]
        with whole.server() as server:
            report = send(server, whole.count)
        assert_the_truth(report, server, offset)
        kinds = list(report.kinds().values())
        left = sum(dot <= offset for dot in whole.dots)
        assert kinds[:left] == ["Accepted"] * left, (
            offset
        )  # its answer was read, though more could not be written
        assert "Unknown" not in kinds, offset


@pytest.fixture
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.mark.parametrize("error", [ConnectionResetError, TimeoutError])
def test_wherever_our_writing_breaks_off_the_dot_decides(
    whole: Whole, error: type[OSError], patch: pytest.MonkeyPatch
) -> None:
    break_off(whole, whole.offsets(), error, patch)


@pytest.mark.full
@pytest.mark.parametrize("error", [ConnectionResetError, TimeoutError])
def test_the_same_after_every_byte_of_ours(
    whole: Whole, error: type[OSError], patch: pytest.MonkeyPatch
) -> None:
    break_off(whole, range(whole.length + 1), error, patch)


# --- a message of more than the sockets' buffers hold ------------------------------------------------------------


@pytest.mark.parametrize("pipelining", [False, True])
@pytest.mark.parametrize("manner", [Cut, Close])
@pytest.mark.parametrize("part", [0, 1, 1_000_000])
def test_a_message_that_cannot_be_finished_ends_without_a_dot(
    manner: type, part: int, pipelining: bool, large: tuple[Any, int]
) -> None:
    """Here the end of the connection is heard of while we still write."""
    message, before = large
    with ScriptedServer(cut=(before + part, manner), pipelining=pipelining) as server:
        known = SmtpSettings(HOST, server.port, security="none", timeout=5)
        report = hand_over(SmtpTransport(known, sleep=lambda _seconds: None), people(1), message)
    outcome = report.outcomes[1]
    assert isinstance(outcome, NotTaken)
    assert outcome.reason.startswith(f"no usable answer to {'the message' if part else 'DATA'} (")
    assert server.messages == []
    assert b"\r\n.\r\n" not in server.heard[0]


@pytest.fixture(scope="module")
def large() -> tuple[Any, int]:
    """Such a message, and the bytes that come before it."""
    with ScriptedServer() as server:
        send(server, 1)
    picture = Picture("images/large.png", "image/png", bytes(5_000_000), 1, 1, "")
    message = wire(html='<p><img src="image:images/large.png" alt=""></p>', pictures=(picture,))
    return message, bytes(server.heard[0]).index(b"DATA\r\n") + len(b"DATA\r\n")

"""A connection that ends after any number of bytes: what we then say of a copy holds against the server's own book."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from newsletter.errors import TransportUnavailable
from newsletter.transports.smtp import SmtpTransport
from newsletter.transports.smtp_session import SmtpSettings, Step, connect
from tests.support.copies import hand_over, people
from tests.support.smtp_server import HOST, Close, Cut, ScriptedServer, make_certificate, server_context

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.support.copies import Report

COUNT = 2
LARGE = (b"x" * 998 + b"\r\n") * 20_000  # more than the sockets' buffers hold
STRIDE = 89  # prime, so that it meets no structure of the message
NEAR = 3


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


def send(server: ScriptedServer, ca_file: str = "") -> Report:
    known = SmtpSettings(HOST, server.port, security="tls" if ca_file else "none", ca_file=ca_file, timeout=5)
    return hand_over(SmtpTransport(known, dot_timeout=5, sleep=lambda _seconds: None), people(COUNT))


class Whole:
    """An undisturbed conversation about two copies, and where its parts end."""

    def __init__(self) -> None:
        with ScriptedServer() as server:
            send(server)
        (heard,) = server.heard
        self.length = len(heard)
        lines = bytes(heard).splitlines(keepends=True)
        ends = [sum(map(len, lines[: number + 1])) for number in range(len(lines))]
        commands = (b"EHLO", b"MAIL", b"RCPT", b"DATA", b".\r\n", b"QUIT")
        self.borders = [end for line, end in zip(lines, ends, strict=True) if line.startswith(commands)]
        self.mail, self.data, self.dot = (
            next(end for line, end in zip(lines, ends, strict=True) if line.startswith(start))
            for start in (b"MAIL", b"DATA", b".\r\n")
        )

    def offsets(self) -> list[int]:
        """Each byte around each border and around where the body ends, and some of all the others."""
        spots = [0, *self.borders, *(border - len(b".\r\n") for border in self.borders)]
        near = {spot + shift for spot in spots for shift in range(-NEAR, NEAR + 1)}
        return sorted(n for n in near | set(range(0, self.length, STRIDE)) if 0 <= n <= self.length)


@pytest.fixture(scope="module")
def whole() -> Whole:
    return Whole()


def cut_everywhere(
    whole: Whole, offsets: Iterable[int], manner: type, certificate: tuple[Path, Path] | None = None
) -> set[tuple[str, str]]:
    """Checks every offset; returns what the first copy came to, by the region of the cut."""
    seen = set()
    tls = server_context(*certificate) if certificate else None
    for offset in offsets:
        with ScriptedServer(cut=(offset, manner), tls=tls) as server:
            report = send(server, str(certificate[0]) if certificate else "")
            taken = [arrived.recipient for arrived in server.messages]
        kinds = report.kinds()
        assert_the_truth(kinds, taken, offset)
        region = region_of(whole, offset)
        seen.add((region, kinds[1]))
        if region == "before MAIL was answered":
            assert isinstance(report.error, TransportUnavailable), offset
            assert (taken, report.outcomes[1].charged) == ([], False), offset
        else:
            assert report.error is None, offset
    return seen


def assert_the_truth(kinds: dict[int, str], taken: list[str], offset: int) -> None:
    assert len(taken) == len(set(taken)), offset
    for number, kind in kinds.items():
        allowed = (
            {"Accepted", "Unknown"} if f"reader{number}@example.net" in taken else {"NotTaken", "Unknown"}
        )
        assert kind in allowed, (offset, number)


def region_of(whole: Whole, offset: int) -> str:
    if offset <= whole.mail:
        return "before MAIL was answered"
    if offset <= whole.data:
        return "before the message"
    if offset < whole.dot:
        return "inside the message"
    return "the dot has come" if offset == whole.dot else "after the answer to the dot"


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
    near = {spot + shift for spot in whole.borders for shift in (-1, 0, 1)}
    seen = cut_everywhere(whole, sorted(n for n in near if n <= whole.length), manner, certificate)
    assert all(kind in POSSIBLE[region] for region, kind in seen)


@pytest.mark.full
@pytest.mark.parametrize("manner", [Cut, Close])
def test_the_same_after_every_single_byte(whole: Whole, manner: type) -> None:
    seen = cut_everywhere(whole, range(whole.length + 1), manner)
    assert all(kind in POSSIBLE[region] for region, kind in seen)


@pytest.mark.parametrize("manner", [Cut, Close])
@pytest.mark.parametrize("part", [0, 1, 3_000_000])
def test_a_message_that_cannot_be_finished_ends_without_a_dot(manner: type, part: int) -> None:
    """Here the end of the connection is heard of while we still write."""
    with ScriptedServer() as server:
        talk = connect(SmtpSettings(HOST, server.port, security="none", timeout=5))
        talk.hand_over("a@example.org", "b@example.net", b"", dot_timeout=5)
        talk.leave()
    before = bytes(server.heard[0]).index(b"DATA\r\n") + len(b"DATA\r\n")
    with ScriptedServer(cut=(before + part, manner)) as server:
        talk = connect(SmtpSettings(HOST, server.port, security="none", timeout=5))
        answer = talk.hand_over("a@example.org", "b@example.net", LARGE, dot_timeout=5)
        assert not talk.ready_for_next(answer)
    assert answer.step is (Step.BODY if part else Step.DATA)
    assert server.messages == []
    assert b"\r\n.\r\n" not in server.heard[0]

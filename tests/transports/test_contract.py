"""What every transport promises (transports/base.py), checked on all four in the same words."""

from __future__ import annotations

import email
import email.policy
import re
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

import pytest

from newsletter.errors import TransportUnavailable
from newsletter.model import Accepted, NotTaken, Refused, Unknown
from newsletter.transports.folder import FolderTransport
from newsletter.transports.memory import MemoryTransport
from newsletter.transports.sendgrid import SendGridSettings, SendGridTransport
from newsletter.transports.smtp import SmtpTransport
from newsletter.transports.smtp_session import SmtpSettings
from tests.support.copies import hand_over, people, recipient
from tests.support.sendgrid_server import KEY, Fault, Say, sendgrid_server
from tests.support.smtp_server import HOST, Cut, ScriptedServer, Taken, closed_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from newsletter.model import Outcome, Recipient
    from newsletter.transports.base import Transport


def text_of(message: bytes) -> str:
    """The plain text part of a message."""
    body = email.message_from_bytes(message, policy=email.policy.default).get_body(("plain",))
    assert body is not None
    return str(body.get_content())


class Provider(Protocol):
    """The other side of a transport, and its moods."""

    transport: Transport

    def texts(self) -> list[str]:
        """The text parts of what arrived."""

    def be_down_once(self) -> None:
        """The next attempt does not get through."""


class Memory:
    def __init__(self) -> None:
        self.next: Outcome | Exception | None = None
        self.refused = ""
        self.transport = MemoryTransport(self._answer, window=3)

    def _answer(self, copy: Recipient, _number: int) -> Outcome | Exception:
        answer, self.next = self.next, None
        if isinstance(answer, Unknown):
            return Unknown(copy.delivery, answer.reason)
        if copy.address == self.refused:
            return Refused(copy.delivery, "550 no such person")
        return answer or Accepted(copy.delivery)

    def texts(self) -> list[str]:
        return [text_of(message) for message in self.transport.messages]

    def be_down_once(self) -> None:
        self.next = TransportUnavailable("not now")

    def lose_an_answer(self) -> None:
        self.next = Unknown(b"", "cut")

    def refuse(self, address: str) -> None:
        self.refused = address


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path / "outbox" / "2026-12"
        self.transport = FolderTransport(self.path)

    def texts(self) -> list[str]:
        return [text_of(path.read_bytes()) for path in sorted(self.path.glob("*.eml"))]

    def be_down_once(self) -> None:
        self.path.parent.mkdir()
        self.path.write_text("in the way")

    def recover(self) -> None:
        self.path.unlink()


class Smtp:
    def __init__(self, stack: ExitStack) -> None:
        self._server = stack.enter_context(ScriptedServer())
        settings = SmtpSettings(HOST, self._server.port, security="none", timeout=5)
        self.transport = SmtpTransport(settings, dot_timeout=5)

    def texts(self) -> list[str]:
        return [text_of(arrived.content) for arrived in self._server.messages]

    def be_down_once(self) -> None:
        self._server.push("connect", "421 4.3.2 busy")

    def lose_an_answer(self) -> None:
        self._server.push("dot", Taken(Cut))

    def refuse(self, address: str) -> None:
        self._server.refused[address] = "550 5.1.1 no such person"


class SendGrid:
    def __init__(self, stack: ExitStack) -> None:
        self._server = stack.enter_context(sendgrid_server())
        self.transport = SendGridTransport(SendGridSettings(KEY, url=self._server.url, batch=3, timeout=5))

    def texts(self) -> list[str]:
        return [written.text for written in self._server.book]

    def be_down_once(self) -> None:
        self._server.acts.append(Say(429))

    def lose_an_answer(self) -> None:
        self._server.acts.append(Fault("cut", taken=True))

    def refuse(self, address: str) -> None:
        self._server.bad.add(address)


def make(name: str, path: Path, stack: ExitStack) -> Provider:
    makers = {
        "memory": Memory,
        "folder": lambda: Folder(path),
        "smtp": lambda: Smtp(stack),
        "sendgrid": lambda: SendGrid(stack),
    }
    return makers[name]()


@pytest.fixture(params=["memory", "folder", "smtp", "sendgrid"])
def provider(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Provider]:
    """Each of the four."""
    with ExitStack() as stack:
        yield make(request.param, tmp_path, stack)


@pytest.fixture(params=["memory", "smtp", "sendgrid"])
def answering(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Provider]:
    """Those with somebody on the other side."""
    with ExitStack() as stack:
        yield make(request.param, tmp_path, stack)


def readers(provider: Provider) -> list[int]:
    """Whose copies arrived: by their unsubscribe link, which must be alone in the copy and fit the name."""
    found = []
    for text in provider.texts():
        (number,) = {int(digits) for digits in re.findall(r"/u/(\d{35})", text)}
        assert f"Dear Reader {number}," in text
        found.append(number)
    return sorted(found)


def test_everyone_gets_their_own_copy_once(provider: Provider) -> None:
    report = hand_over(provider.transport, people(7))
    assert report.error is None
    assert report.kinds() == dict.fromkeys(range(1, 8), "Accepted")
    assert readers(provider) == list(range(1, 8))


def test_without_copies_nothing_happens(provider: Provider) -> None:
    report = hand_over(provider.transport, [])
    assert (report.error, report.outcomes, provider.texts()) == (None, {}, [])


def test_it_stops_when_the_copies_end(provider: Provider) -> None:
    hand_over(provider.transport, people(2))
    assert readers(provider) == [1, 2]


def test_its_name_is_the_one_the_ledger_knows(provider: Provider) -> None:
    assert provider.transport.name == type(provider).__name__.lower()


def test_a_copy_that_cannot_be_built_is_refused_and_hurts_nobody_else(provider: Provider) -> None:
    copies = people(5)
    copies[2] = recipient(3, name="Eve\r\nBcc: everyone@example.net")
    report = hand_over(provider.transport, copies)
    assert report.kinds() == {1: "Accepted", 2: "Accepted", 3: "Refused", 4: "Accepted", 5: "Accepted"}
    assert readers(provider) == [1, 2, 4, 5]


def test_a_person_whom_the_provider_refuses_hurts_nobody_else(answering) -> None:
    answering.refuse("reader3@example.net")
    report = hand_over(answering.transport, people(5))
    assert report.kinds() == {1: "Accepted", 2: "Accepted", 3: "Refused", 4: "Accepted", 5: "Accepted"}
    assert readers(answering) == [1, 2, 4, 5]


def test_a_provider_that_is_down_leaves_nothing_unknown_and_charges_nobody(provider: Provider) -> None:
    provider.be_down_once()
    report = hand_over(provider.transport, people(4))
    assert isinstance(report.error, TransportUnavailable)
    assert 1 <= len(report.outcomes) == report.pulled
    assert all(isinstance(outcome, NotTaken) and not outcome.charged for outcome in report.outcomes.values())
    assert provider.texts() == []


def test_after_a_failure_the_same_transport_can_run_again(provider: Provider) -> None:
    provider.be_down_once()
    hand_over(provider.transport, people(4))
    getattr(provider, "recover", lambda: None)()
    report = hand_over(provider.transport, people(4))
    assert report.error is None
    assert readers(provider) == [1, 2, 3, 4]


def test_a_lost_answer_makes_its_window_unknown_and_the_rest_goes_on(answering) -> None:
    answering.lose_an_answer()
    report = hand_over(answering.transport, people(9))
    assert report.error is None
    unknown = [number for number, kind in report.kinds().items() if kind == "Unknown"]
    assert 1 <= len(unknown) <= answering.transport.window
    assert unknown == list(range(1, len(unknown) + 1))
    assert set(report.kinds().values()) == {"Unknown", "Accepted"}
    assert readers(answering) == list(range(1, 10))  # none twice, though some are not known


def test_several_lanes_share_the_work_and_nobody_is_served_twice(provider: Provider) -> None:
    report = hand_over(provider.transport, people(40), lanes=4, window=min(provider.transport.window, 5))
    assert report.error is None
    assert set(report.kinds().values()) == {"Accepted"}
    assert readers(provider) == list(range(1, 41))


def test_an_unreachable_mail_server_or_api_is_unavailable() -> None:
    port = closed_port()
    for transport in (
        SmtpTransport(SmtpSettings(HOST, port, security="none", timeout=5)),
        SendGridTransport(SendGridSettings(KEY, url=f"http://{HOST}:{port}", timeout=5)),
    ):
        report = hand_over(transport, people(2))
        assert isinstance(report.error, TransportUnavailable)
        assert all(isinstance(outcome, NotTaken) for outcome in report.outcomes.values())

"""What every transport promises (transports/base.py), checked on all of them in the same words."""

from __future__ import annotations

import email
import email.policy
import re
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

import pytest

from newsletter.errors import TransportRejected, TransportUnavailable
from newsletter.model import Accepted, NotTaken, Refused, Unknown
from newsletter.transports.folder import FolderTransport
from newsletter.transports.memory import MemoryTransport
from newsletter.transports.sendgrid import SendGridSettings, SendGridTransport
from newsletter.transports.smtp import SmtpTransport
from newsletter.transports.smtp_session import SmtpSettings
from tests.support.copies import hand_over, people, recipient, wire
from tests.support.sendgrid_server import KEY, Fault, Say, sendgrid_server
from tests.support.smtp_server import HOST, closed_port, smtp_server
from tests.support.smtp_sink import MISSING, found, smtp_sink

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

    name: str
    transport: Transport

    def texts(self) -> list[str]:
        """The text parts of what arrived."""

    def be_down_once(self) -> None:
        """The next attempt does not get through."""


class Memory:
    name = "memory"

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
    name = "folder"

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


def smtp(port: int) -> SmtpTransport:
    """To a server on this machine."""
    return SmtpTransport(SmtpSettings(HOST, port, security="none", timeout=5), dot_timeout=5)


class Aiosmtpd:
    name = "smtp"

    def __init__(self, stack: ExitStack) -> None:
        self._mailbox = stack.enter_context(smtp_server())
        self.transport = smtp(self._mailbox.port)

    def texts(self) -> list[str]:
        return [text_of(arrived.content) for arrived in self._mailbox.messages]

    def be_down_once(self) -> None:
        self._mailbox.busy_once = True

    def lose_an_answer(self) -> None:
        self._mailbox.cut_once = True

    def refuse(self, address: str) -> None:
        self._mailbox.refused[address] = "550 5.1.1 no such person"


class Postfix:
    name = "smtp"

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._sink = stack.enter_context(smtp_sink(path / "sink"))
        self.transport = smtp(self._sink.port)

    def texts(self) -> list[str]:
        return [text_of(arrived.content) for arrived in self._sink.read()]

    def be_down_once(self) -> None:
        self._sink.stop()

    def recover(self) -> None:
        self._sink.start()


class SendGrid:
    name = "sendgrid"

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
        "aiosmtpd": lambda: Aiosmtpd(stack),
        "smtp-sink": lambda: Postfix(path, stack),
        "sendgrid": lambda: SendGrid(stack),
    }
    return makers[name]()


with_sink = pytest.mark.skipif(not found(), reason=MISSING)


@pytest.fixture(
    params=["memory", "folder", "aiosmtpd", pytest.param("smtp-sink", marks=with_sink), "sendgrid"]
)
def provider(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Provider]:
    """Each of them."""
    with ExitStack() as stack:
        yield make(request.param, tmp_path, stack)


@pytest.fixture(params=["memory", "aiosmtpd", "sendgrid"])
def answering(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Provider]:
    """Those that can be told to treat one copy otherwise than the next."""
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


def test_an_empty_window_means_that_one_should_ask_again(provider: Provider) -> None:
    report = hand_over(provider.transport, people(7), empty={0, 2, 3, 5, 9}, window=1)
    assert report.error is None
    assert readers(provider) == list(range(1, 8))


def test_its_name_is_the_one_the_ledger_knows(provider: Provider) -> None:
    assert provider.transport.name == provider.name


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


# --- Postfix's smtp-sink and its failure switches ----------------------------------------------------------------

COMMANDS = ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", ".", "RSET", "QUIT"]
SWITCHES = {
    "-r": "a soft refusal",
    "-f": "a hard refusal",
    "-q": "a disconnection",
    "-Q": "421 and a disconnection",
}
NOT_YET = ["CONNECT", "EHLO", "MAIL"]
NO_MATTER = ["RSET", "QUIT"]  # nobody is refused here, so that RSET is never said


def expected(switch: str, command: str) -> tuple[type[Exception] | None, str]:
    """What lanes end with, and what every copy that they pulled came to."""
    if command in NO_MATTER or (switch, command) == ("-f", "EHLO"):
        return None, "Accepted"  # its 500 to EHLO is what a server older than that says: HELO does
    if switch == "-f":
        return (TransportRejected, "NotTaken") if command in NOT_YET else (None, "Refused")
    if switch == "-r":
        return (TransportUnavailable if command in NOT_YET else None), "NotTaken"
    return TransportUnavailable, "Unknown" if (switch, command) == ("-q", ".") else "NotTaken"


@with_sink
@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("switch", SWITCHES, ids=SWITCHES.get)
def test_smtp_sink_with_a_failure_switch(switch: str, command: str, lanes: int, tmp_path: Path) -> None:
    error, kind = expected(switch, command)
    with smtp_sink(tmp_path / "sink", switch, command) as sink:
        transport = SmtpTransport(
            SmtpSettings(HOST, sink.port, security="none", timeout=5),
            dot_timeout=5,
            sleep=lambda _seconds: None,
        )
        # Enough for each lane's three lost connections, each of which may take two copies along.
        report = hand_over(transport, people(40), lanes=lanes)
        read = sorted(arrived.recipient for arrived in sink.read())
    assert [type(one) for one in report.errors] == ([error] * lanes if error else [])
    assert len(report.outcomes) == report.pulled
    told = [one for one in report.outcomes.values() if not (isinstance(one, NotTaken) and not one.charged)]
    assert {type(one).__name__ for one in told} == (set() if error and command in NOT_YET else {kind})
    # Its book also holds what it refused after the dot: there, its word counts.
    heard = told if command == "." or kind == "Accepted" else []
    assert read == sorted(f"reader{int.from_bytes(one.delivery, 'big')}@example.net" for one in heard)


@with_sink
def test_smtp_sink_that_refuses_before_the_end_of_the_message_has_not_taken_it(tmp_path: Path) -> None:
    with smtp_sink(tmp_path / "sink", "-A", "0") as sink:
        report = hand_over(smtp(sink.port), people(2))
        assert sink.read() == []
    # Whether we hear of it before our dot or read it as the answer to it, is a matter of microseconds.
    assert set(report.kinds().values()) <= {"NotTaken", "Refused"}


@with_sink
@pytest.mark.parametrize(
    "switches", [["-e"], ["-P"], ["-8", "-a", "-E", "-N", "-p", "-C", "-F"], ["-W", "CONNECT:1"]]
)
def test_smtp_sink_that_offers_little_or_is_slow_is_served_as_well(
    switches: list[str], tmp_path: Path
) -> None:
    with smtp_sink(tmp_path / "sink", *switches) as sink:
        report = hand_over(smtp(sink.port), people(2))
        read = [arrived.recipient for arrived in sink.read()]
    assert report.error is None
    assert report.kinds() == {1: "Accepted", 2: "Accepted"}
    assert sorted(read) == ["reader1@example.net", "reader2@example.net"]


@with_sink
def test_smtp_sink_that_ends_in_the_middle_leaves_a_book_that_fits(tmp_path: Path) -> None:
    """``-M 5``: it ends, with all its connections, when it has five messages."""
    with smtp_sink(tmp_path / "sink", "-M", "5") as sink:
        report = hand_over(smtp(sink.port), people(20), lanes=2)
        read = {arrived.recipient for arrived in sink.read()}
    kinds = report.kinds()
    assert {f"reader{number}@example.net" for number, kind in kinds.items() if kind == "Accepted"} <= read
    assert all(kinds[int(address[6:].partition("@")[0])] in {"Accepted", "Unknown"} for address in read)
    assert all(isinstance(error, TransportUnavailable) for error in report.errors)


@with_sink
@pytest.mark.parametrize("switches", [[], ["-p"]], ids=["pipelining", "in lockstep"])
def test_smtp_sink_gets_three_hundred_copies_over_ten_lanes_once_each(
    switches: list[str], tmp_path: Path
) -> None:
    with smtp_sink(tmp_path / "sink", *switches) as sink:
        report = hand_over(smtp(sink.port), people(300), lanes=10)
        read = [arrived.recipient for arrived in sink.read()]
    assert report.errors == []
    assert report.kinds() == dict.fromkeys(range(1, 301), "Accepted")
    assert sorted(read) == sorted(copy.address for copy in people(300))


@with_sink
def test_smtp_sink_gets_the_very_bytes(tmp_path: Path) -> None:
    message = wire()
    with smtp_sink(tmp_path / "sink") as sink:
        hand_over(smtp(sink.port), people(1), message)
        (arrived,) = sink.read()
    (copy,) = people(1)
    assert arrived.content == b"".join(message.pieces(copy))
    assert (arrived.sender, arrived.recipient) == (f"bounces+{copy.id}@example.org", copy.address)

"""What each answer of a mail server means, and that nothing is ever sent less safely than configured."""

from __future__ import annotations

import dataclasses
import email
import email.policy
import random
import re
import time
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from newsletter.errors import TransportRejected, TransportUnavailable
from newsletter.model import Accepted, NotTaken, Picture, Refused
from newsletter.transports.smtp import SmtpTransport
from newsletter.transports.smtp_session import SmtpSettings
from tests.support.copies import Report, hand_over, people, recipient, wire
from tests.support.smtp_server import (
    HOST,
    USUAL,
    Close,
    Cut,
    Deaf,
    Drip,
    Hang,
    Late,
    ScriptedServer,
    Taken,
    closed_port,
    make_certificate,
    server_context,
    smtp_server,
)

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from newsletter.message import Wire

ONE = people(1)[0].delivery


def settings(port: int, **changes: Any) -> SmtpSettings:
    return SmtpSettings(**{"host": HOST, "port": port, "security": "none", "timeout": 5, **changes})


def send(server: ScriptedServer, count: int = 1, *, dot_timeout: float = 5, **changes: Any) -> Report:
    known = settings(server.port, **changes)
    return hand_over(
        SmtpTransport(known, dot_timeout=dot_timeout, sleep=lambda _seconds: None), people(count)
    )


@pytest.fixture(params=[False, True], ids=["in lockstep", "pipelining"])
def pipelining(request: pytest.FixtureRequest) -> bool:
    """Whether the server takes commands ahead of its answers; most of what they mean does not depend on it."""
    return bool(request.param)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    files = make_certificate(tmp_path_factory.mktemp("certificate"))
    return files[0], server_context(*files)


# --- what an answer means for one copy ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "act", "outcome"),
    [
        ("RCPT", "450 4.2.0 greylisted", NotTaken(ONE, "450 4.2.0 greylisted")),
        ("RCPT", "421 4.3.2 bye", NotTaken(ONE, "421 4.3.2 bye")),
        ("RCPT", "550 5.1.1 <reader1@example.net> unknown", Refused(ONE, "550 5.1.1 … unknown")),
        ("RCPT", "251 will forward", Accepted(ONE, "2.0.0 Ok: queued as Q1")),
        ("DATA", "451 4.3.0 later", NotTaken(ONE, "451 4.3.0 later")),
        ("DATA", "554 5.5.1 no", Refused(ONE, "554 5.5.1 no")),
        ("dot", "250 2.0.0 Ok: queued as ABC", Accepted(ONE, "2.0.0 Ok: queued as ABC")),
        ("dot", "451 4.3.0 later", NotTaken(ONE, "451 4.3.0 later")),
        ("dot", "421 4.3.2 bye", NotTaken(ONE, "421 4.3.2 bye")),
        ("dot", "554 5.7.1 spam", Refused(ONE, "554 5.7.1 spam")),
    ],
)
def test_an_answer_settles_its_copy_and_the_lane_goes_on(
    step: str, act: str, outcome: NotTaken | Refused | Accepted, pipelining: bool
) -> None:
    if isinstance(outcome, NotTaken) and act.startswith("421"):
        outcome = dataclasses.replace(outcome, crowded=True)
    with ScriptedServer({step: [act]}, pipelining=pipelining) as server:
        report = send(server, 3)
    assert report.error is None
    assert report.outcomes[1] == outcome
    assert report.kinds()[3] == "Accepted"
    if (step, act[:3], pipelining) != ("dot", "421", True):  # there its envelope was under way when all ended
        assert report.kinds()[2] == "Accepted"


# What no client can read a meaning into (RFC 5321, section 4.2).
NONSENSE = [
    "nonsense",
    "999 what",
    "2",
    "",
    "\r\n250 ok",
    "100 hm",
    "250-one\r\n251 two",
    "250-one\r\n550 two",
    "250-one\r\nand two",
    "250_ok",
    "+25 ok",
    b"\x00\xff\xfe\r\n",
    b"\x16\x03\x01\x02\x00\r\n",
    b"2" * 3_000_000,
    b"250-more\r\n" * 200_000,
]


@pytest.mark.parametrize("step", ["RCPT", "DATA"])
@pytest.mark.parametrize(
    "act", [Cut, Close, Hang, *NONSENSE, Late("450 later"), Late(b"250 2.0"), Late(b"354 go on")]
)
def test_a_connection_lost_before_the_dot_means_not_taken(step: str, act: Any, pipelining: bool) -> None:
    with ScriptedServer({step: [act]}, pipelining=pipelining) as server:
        report = send(server, 2, timeout=0.3)
        assert len(server.messages) == 1
    assert report.kinds() == {1: "NotTaken", 2: "Accepted"}
    assert report.outcomes[1].charged
    assert server.connections == 2


# What a server can say of the dot that ends before its line does.
HALF_SAID = [
    b"",
    b"2",
    b"25",
    b"250",
    b"250 2.0.0 O",
    b"250 2.0.0 Ok\r",
    b"250-2.0.0 Ok\r\n",
    b"450 4",
    b"550 5",
]


@pytest.mark.parametrize(
    "act",
    [Cut, Close, Hang, *NONSENSE, "354 more?", Drip("250 2.0.0 Ok, so slowly", 0.1), *map(Late, HALF_SAID)],
)
@pytest.mark.parametrize("taken", [True, False])
def test_no_usable_answer_to_the_dot_means_unknown_whether_it_was_taken_or_not(act: Any, taken: bool) -> None:
    with ScriptedServer({"dot": [Taken(act) if taken else act]}) as server:
        report = send(server, 2, dot_timeout=0.5)
        assert len(server.messages) == 1 + taken
    assert report.kinds() == {1: "Unknown", 2: "Accepted"}
    assert server.connections == 2


@pytest.fixture(scope="module")
def large() -> Wire:
    """A message of more than the sockets' buffers hold, so that the trouble comes while we write."""
    picture = Picture("images/large.png", "image/png", bytes(5_000_000), 1, 1, "")
    return wire(html='<p><img src="image:images/large.png" alt=""></p>', pictures=(picture,))


@pytest.mark.parametrize("act", [Cut, Deaf])
def test_a_body_that_cannot_be_finished_gets_no_dot_and_is_not_taken(
    act: Any, pipelining: bool, large: Wire
) -> None:
    with ScriptedServer({"body": [act]}, pipelining=pipelining) as server:
        transport = SmtpTransport(settings(server.port, timeout=1), sleep=lambda _seconds: None)
        report = hand_over(transport, people(1), large)
        assert server.messages == []
    outcome = report.outcomes[1]
    assert isinstance(outcome, NotTaken)
    assert outcome.reason.startswith("no usable answer to the message (")
    assert b"\r\n.\r\n" not in server.heard[0]


def test_what_a_server_says_before_the_dot_is_not_taken_for_the_answer_to_it() -> None:
    with ScriptedServer({"DATA": ["354 go on\r\n250 2.0.0 Ok: a lie"]}) as server:
        report = send(server, 2)
        assert len(server.messages) == 1
    assert report.kinds() == {1: "NotTaken", 2: "Accepted"}


@pytest.mark.parametrize("step", ["connect", "EHLO", "MAIL", "RCPT", "DATA", "dot", "QUIT"])
@pytest.mark.parametrize(
    "manner",
    [
        Drip,
        lambda text: text.encode() + b"\n",
        lambda text: f"{text[:3]}-first\r\n{text[:3]}-second\r\n{text}".encode() + b"\r\n",
        lambda text: text.encode() + b" \xff\xfe\x00" + b"long" * 5000 + b"\r\n",
    ],
    ids=["single bytes", "bare LF", "several lines", "long and binary"],
)
def test_a_whole_reply_counts_however_it_comes(step: str, manner: Any) -> None:
    act = manner(USUAL[step].replace("250-mail.example.org\r\n", ""))
    with ScriptedServer({step: [Taken(act) if step == "dot" else act]}) as server:
        report = send(server, 2)
        assert len(server.messages) == 2
    assert (report.error, set(report.kinds().values())) == (None, {"Accepted"})


@pytest.mark.parametrize("step", ["connect", "EHLO", "MAIL", "RCPT", "DATA", "dot"])
@pytest.mark.parametrize("extra", ["250 2.0.0 Ok", "354 go on", "421 4.3.2 bye", "550 5.1.1 no such person"])
def test_a_reply_that_nobody_asked_for_answers_nothing(step: str, extra: str) -> None:
    """It ends the connection: read as the answer to what comes next, it would settle a copy by accident."""
    act = f"{USUAL[step]}\r\n{extra}"
    with ScriptedServer({step: [Taken(act) if step == "dot" else act]}) as server:
        report = send(server, 3)
        taken = [arrived.recipient for arrived in server.messages]
    assert len(taken) == len(set(taken))
    assert set(report.kinds().values()) <= {"Accepted", "NotTaken"}
    accepted = [number for number, kind in report.kinds().items() if kind == "Accepted"]
    assert [f"reader{number}@example.net" for number in accepted] == taken
    if step == "connect":
        assert isinstance(report.error, TransportUnavailable)
    else:
        assert report.error is None
        assert len(taken) == (3 if step in {"EHLO", "dot"} else 2)


# --- what an answer means for the lane ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "act"),
    [
        ("connect", "421 4.3.2 too many"),
        ("connect", "450 no"),
        ("connect", Cut),
        ("connect", Hang),
        ("connect", Close),
        *(("connect", act) for act in NONSENSE),
        ("connect", "250 hi"),
        ("connect", Late(b"220 mail.exam")),
        ("EHLO", "421 bye"),
        ("EHLO", "451 later"),
        ("EHLO", Cut),
        ("EHLO", Hang),
        *(("EHLO", act) for act in NONSENSE),
        ("EHLO", Late(b"250-mail.example.org\r\n250-SIZE")),
        ("MAIL", "421 4.3.2 bye"),
        ("MAIL", "451 4.3.0 later"),
        ("MAIL", "452 4.3.1 no room"),
        ("MAIL", Cut),
        ("MAIL", Hang),
        *(("MAIL", act) for act in NONSENSE),
    ],
)
def test_trouble_up_to_mail_is_unavailable_and_charged_to_nobody(
    step: str, act: Any, pipelining: bool
) -> None:
    with ScriptedServer({step: [act]}, pipelining=pipelining) as server:
        report = send(server, 3, timeout=0.3)
    assert isinstance(report.error, TransportUnavailable)
    assert report.kinds() == {1: "NotTaken"}
    assert not report.outcomes[1].charged


@pytest.mark.parametrize(
    ("step", "act"),
    [
        ("connect", "554 5.7.1 you are listed"),
        ("EHLO", "550 5.7.1 go away"),
        ("MAIL", "550 5.1.8 <bounces@example.org> sender unknown"),
        ("MAIL", "530 5.7.0 login first"),
        ("MAIL", "552 5.3.4 message too big"),
    ],
)
def test_a_refusal_up_to_mail_stops_the_campaign_with_the_servers_words(
    step: str, act: str, pipelining: bool
) -> None:
    with ScriptedServer({step: [act]}, pipelining=pipelining) as server:
        report = send(server, 3)
    assert isinstance(report.error, TransportRejected)
    assert act.split("<", maxsplit=1)[0].strip() in str(report.error)
    assert "@" not in str(report.error)
    assert report.kinds() == {1: "NotTaken"}
    assert not report.outcomes[1].charged


@pytest.mark.parametrize("host", ["nowhere.invalid", "mail..invalid", "x" * 70 + ".invalid"])
def test_a_name_that_does_not_resolve_is_unavailable(host: str) -> None:
    transport = SmtpTransport(settings(25, host=host))
    assert isinstance(hand_over(transport, people(1)).error, TransportUnavailable)


def test_a_connection_that_cannot_be_made_holds_no_copy_meanwhile() -> None:
    """While connecting nothing is pulled: a kill then leaves nothing unknown."""
    with ScriptedServer({"connect": [Hang]}) as server:
        transport = SmtpTransport(settings(server.port, timeout=0.3))
        pulled: list[float] = []

        def copies() -> Any:
            pulled.append(time.monotonic())
            yield from ()

        started = time.monotonic()
        transport.run(wire(), copies(), lambda _outcomes: None)
    assert pulled[0] - started >= 0.3


def test_a_server_that_is_down_when_the_last_copy_is_done_is_no_error() -> None:
    with ScriptedServer(
        {"connect": ["220 hi", "421 no more"], "dot": [Late("250 2.0.0 Ok: queued as Q")]}
    ) as server:
        report = send(server, 1)
    assert (report.error, report.kinds()) == (None, {1: "Accepted"})


@pytest.mark.parametrize("most", [1, 2, 10])
@pytest.mark.parametrize(
    "limit",
    [
        {"MAIL": "421 4.7.0 too many messages"},
        {"MAIL": Late("421 4.7.0 too many messages")},
        {"MAIL": "451 4.7.1 enough"},
        {"MAIL": "550 enough"},
        {"MAIL": Cut},
        {"RCPT": "421 4.7.0 too many messages"},
        {"RCPT": Late("421 4.7.0 too many messages")},
        {"DATA": Late("421 4.7.0 too many messages")},
        {"dot": Taken("250 2.0.0 Ok: queued as Q\r\n421 4.7.0 too many messages")},
        {"dot": Taken(Late("250 2.0.0 Ok: queued as Q\r\n421 4.7.0 too many messages"))},
        {"dot": Taken(Late("250 2.0.0 Ok: queued as Q"))},
    ],
    ids=str,
)
def test_a_server_with_a_limit_per_connection_gets_the_next_copy_on_a_new_one(
    limit: Any, most: int, pipelining: bool
) -> None:
    """Nobody is charged, nobody gets two, and a healthy server is not waited for."""
    pauses: list[float] = []
    count = 2 * most + 1
    with ScriptedServer(limit=(most, limit), pipelining=pipelining) as server:
        transport = SmtpTransport(settings(server.port), sleep=pauses.append)
        report = hand_over(transport, people(count))
        assert [arrived.recipient for arrived in server.messages] == [one.address for one in people(count)]
    assert (report.error, set(report.kinds().values())) == (None, {"Accepted"})
    assert server.connections in {3, 4}  # one more, if the last one was closed after the last copy
    assert pauses == []


def test_a_server_that_closes_after_each_copy_is_no_failure() -> None:
    with ScriptedServer(usual={"dot": Taken(Late("250 2.0.0 Ok: queued as Q"))}) as server:
        report = send(server, 6)
    assert report.error is None
    assert set(report.kinds().values()) == {"Accepted"}


def test_three_connections_lost_in_a_row_end_the_lane() -> None:
    with ScriptedServer(usual={"dot": Taken(Cut)}) as server:
        report = send(server, 10)
    assert isinstance(report.error, TransportUnavailable)
    assert report.kinds() == {1: "Unknown", 2: "Unknown", 3: "Unknown", 4: "NotTaken"}
    assert not report.outcomes[4].charged


def test_lost_connections_count_only_in_a_row() -> None:
    with ScriptedServer({"RCPT": [Cut, Cut, "250 ok", Cut, Cut, "250 ok"]}) as server:
        report = send(server, 6)
    assert report.error is None
    assert list(report.kinds().values()) == ["NotTaken", "NotTaken", "Accepted"] * 2


# --- connecting again --------------------------------------------------------------------------------------------


def test_pauses_before_connecting_again_grow_with_the_failures_in_a_row_and_end_with_an_answer() -> None:
    pauses: list[float] = []
    with ScriptedServer({"RCPT": [Cut, Cut, "250 ok", Cut, "450 later", Cut]}) as server:
        transport = SmtpTransport(settings(server.port), draw=lambda _least, most: most, sleep=pauses.append)
        hand_over(transport, people(8))
    assert pauses == [0.2, 0.4, 0.2, 0.2]


def test_pauses_are_drawn_from_nothing_to_a_limit_of_a_few_seconds_and_survive_the_lane() -> None:
    ranges: list[tuple[float, float]] = []
    pauses: list[float] = []

    def draw(least: float, most: float) -> float:
        ranges.append((least, most))
        return most / 2

    transport = SmtpTransport(settings(closed_port()), draw=draw, sleep=pauses.append)
    for _ in range(8):
        assert isinstance(hand_over(transport, people(1)).error, TransportUnavailable)
    assert ranges == [(0.0, most) for most in (0.2, 0.4, 0.8, 1.6, 3.0, 3.0, 3.0)]
    assert pauses == [most / 2 for _least, most in ranges]


def test_no_copy_is_held_during_a_pause() -> None:
    held: list[bool] = []
    holding: list[bytes] = []

    def copies() -> Any:
        for copy in people(4):
            holding.append(copy.delivery)
            yield [copy]

    with ScriptedServer({"RCPT": [Cut, Cut]}) as server:
        transport = SmtpTransport(settings(server.port), sleep=lambda _seconds: held.append(bool(holding)))
        transport.run(wire(), copies(), lambda outcomes: [holding.remove(one.delivery) for one in outcomes])
    assert held == [False, False]


def test_lanes_that_lose_their_server_together_do_not_come_back_together() -> None:
    pauses: list[float] = []
    with ScriptedServer({"RCPT": [Cut] * 10}) as server:
        transport = SmtpTransport(settings(server.port), draw=random.Random(7).uniform, sleep=pauses.append)
        report = hand_over(transport, people(40), lanes=10)
        accepted = [number for number, kind in report.kinds().items() if kind == "Accepted"]
        assert sorted(arrived.recipient for arrived in server.messages) == sorted(
            f"reader{number}@example.net" for number in accepted
        )
    assert 1 < len(pauses) == len(set(pauses))
    assert all(0 < pause < 3 for pause in pauses)


def test_one_connection_serves_many_and_is_left_politely() -> None:
    with ScriptedServer({"RCPT": ["250 ok", "550 no", "250 ok"]}) as server:
        send(server, 3)
    verbs = [command.split()[0].upper() for command in server.commands]
    assert verbs == ["EHLO", "MAIL", "RCPT", "DATA", "MAIL", "RCPT", "RSET", "MAIL", "RCPT", "DATA", "QUIT"]
    assert server.connections == 1


@pytest.mark.parametrize("act", ["503 no", "451 later", "421 bye", Cut, Hang, "nonsense", "250 ok\r\n250 ok"])
def test_a_connection_that_cannot_be_reset_is_replaced(act: Any) -> None:
    with ScriptedServer({"RCPT": ["550 no"], "RSET": [act]}) as server:
        report = send(server, 2, timeout=0.3)
    assert report.kinds() == {1: "Refused", 2: "Accepted"}
    assert server.connections == 2


@pytest.mark.parametrize("act", ["421 bye", "450 no", "550 no", Cut, Close, Hang, "nonsense"])
def test_what_a_server_says_to_quit_changes_nothing(act: Any) -> None:
    with ScriptedServer({"QUIT": [act]}) as server:
        report = send(server, 2, timeout=0.3)
    assert (report.error, report.kinds()) == (None, {1: "Accepted", 2: "Accepted"})


def test_a_server_older_than_ehlo_is_greeted_in_the_old_way() -> None:
    with ScriptedServer({"EHLO": ["502 5.5.1 what?"], "HELO": ["250 hi"]}) as server:
        assert send(server).kinds() == {1: "Accepted"}


# --- what leaves -------------------------------------------------------------------------------------------------


def test_a_real_server_gets_the_bytes_of_the_wire_with_a_sender_per_copy() -> None:
    message = wire()
    with smtp_server() as mailbox:
        report = hand_over(SmtpTransport(settings(mailbox.port)), people(2), message)
    assert report.outcomes[2] == Accepted(people(2)[1].delivery, "2.0.0 Ok: queued as Q2")
    for copy, arrived in zip(people(2), mailbox.messages, strict=True):
        assert arrived.content == b"".join(message.pieces(copy))
        assert (arrived.sender, arrived.recipient) == (f"bounces+{copy.id}@example.org", copy.address)


def test_several_lanes_keep_a_connection_each() -> None:
    with smtp_server() as mailbox:
        report = hand_over(SmtpTransport(settings(mailbox.port)), people(60), lanes=5)
    assert report.error is None
    assert sorted(arrived.recipient for arrived in mailbox.messages) == sorted(
        copy.address for copy in people(60)
    )


@pytest.mark.parametrize(
    "note",
    [".", "..", "\n.\n", "\r\n.\r\nMAIL FROM:<x@example.org>\r\n", "\n.\r\nQUIT", "a\n." * 50, "." * 200],
)
def test_no_message_can_end_early_and_no_dot_is_lost(note: str) -> None:
    """A line that begins with a dot is written so that it does not: then nobody has to stuff or unstuff one."""
    message = wire(text=".@@note|x@@\n@@note|x@@\n.\n", html="<p>.@@note|x@@</p>\n.\n<p>@@note|x@@</p>")
    with ScriptedServer(pipelining=True) as server:
        report = hand_over(
            SmtpTransport(settings(server.port)), [recipient(1, note=note), recipient(2)], message
        )
    assert set(report.kinds().values()) == {"Accepted"}
    assert [command[:4].upper() for command in server.commands] == [
        "EHLO",
        *["MAIL", "RCPT", "DATA"] * 2,
        "QUIT",
    ]
    assert bytes(server.heard[0]).count(b"\n.") == 2
    parsed = email.message_from_bytes(server.messages[0].content, policy=email.policy.default)
    body = parsed.get_body(("plain",))
    assert body is not None
    lines = note.replace("\r\n", "\n")
    assert body.get_content().replace("\r\n", "\n") == f".{lines}\n{lines}\n.\n"


def test_an_address_outside_ascii_leaves_only_with_smtputf8() -> None:
    copy = recipient(1, "zoë@example.net")
    with ScriptedServer() as server:
        report = hand_over(SmtpTransport(settings(server.port)), [copy, recipient(2)])
    assert report.kinds() == {1: "Refused", 2: "Accepted"}
    assert "SMTPUTF8" in report.outcomes[1].reason
    with smtp_server(smtputf8=True) as mailbox:
        report = hand_over(SmtpTransport(settings(mailbox.port)), [copy, recipient(2)])
    assert report.kinds() == {1: "Accepted", 2: "Accepted"}
    assert [arrived.recipient for arrived in mailbox.messages] == ["zoë@example.net", "reader2@example.net"]
    assert ["SMTPUTF8" in arrived.options for arrived in mailbox.messages] == [True, False]


def test_every_message_is_seven_bit_so_that_no_body_type_need_be_declared() -> None:
    """Only the address itself can't be written in ASCII; RFC 6531, section 3.6, asks for BODY only because of parts."""
    foreign = wire(
        subject="Été à Zoë 🧠", html="<p>naïve @@name|reader@@ 🧠</p>", text="naïve @@name|reader@@ 🧠"
    )
    copies = [recipient(1, name="Zoë 🧠"), recipient(2, "zoë@example.net", name="Zoë")]
    with smtp_server(smtputf8=True) as mailbox:
        assert hand_over(SmtpTransport(settings(mailbox.port)), copies, foreign).error is None
    plain, utf8 = (arrived.content for arrived in mailbox.messages)
    assert plain.isascii()
    assert [line for line in utf8.split(b"\r\n") if not line.isascii()] == ["To: zoë@example.net".encode()]
    assert not any("BODY" in option for arrived in mailbox.messages for option in arrived.options)


def test_internationalised_domains_travel_as_their_ascii_names_by_idna_2008() -> None:
    copy = recipient(1, "reader@straße.example")
    message = wire(envelope_from="bounces@bücher.example", from_address="digest@bücher.example")
    with smtp_server() as mailbox:
        assert hand_over(SmtpTransport(settings(mailbox.port)), [copy], message).kinds() == {1: "Accepted"}
    (arrived,) = mailbox.messages
    assert (
        arrived.recipient == "reader@xn--strae-oqa.example"
    )  # and not strasse.example, which is somebody else
    assert arrived.sender == f"bounces+{copy.id}@xn--bcher-kva.example"
    assert b"\r\nTo: reader@xn--strae-oqa.example\r\n" in arrived.content
    assert arrived.content.isascii()


def test_the_size_is_declared_to_a_server_that_wants_to_know() -> None:
    with smtp_server() as mailbox:
        hand_over(SmtpTransport(settings(mailbox.port)), people(1))
    (arrived,) = mailbox.messages
    assert arrived.options == (f"SIZE={len(arrived.content)}",)
    with ScriptedServer() as server:
        send(server)
    assert not any("SIZE" in command for command in server.commands)


def test_a_server_that_finds_the_declared_size_too_large_stops_the_campaign_with_a_hint() -> None:
    act = "552 5.3.4 Message size exceeds fixed limit"
    with ScriptedServer({"EHLO": ["250-hi\r\n250 SIZE"], "MAIL": [act]}) as server:
        report = send(server, 3)
    assert isinstance(report.error, TransportRejected)
    assert "too large for the mail server: 552" in str(report.error)
    assert "pictures" in report.error.hint
    assert report.kinds() == {1: "NotTaken"}


@pytest.mark.parametrize(
    "address", ["a@b>\r\nRCPT TO:<c@d", "a@example.net\r\nDATA", "<a@example.net>", "a\x00@b"]
)
def test_an_address_cannot_smuggle_in_a_command(address: str) -> None:
    with ScriptedServer() as server:
        report = hand_over(SmtpTransport(settings(server.port)), [recipient(1, address), recipient(2)])
    assert report.kinds() == {1: "Refused", 2: "Accepted"}
    assert [command for command in server.commands if command.startswith("RCPT")] == [
        "RCPT TO:<reader2@example.net>"
    ]


def test_a_message_larger_than_the_server_takes_stops_the_campaign_before_it_is_sent() -> None:
    with smtp_server(most_bytes=500) as mailbox:
        report = hand_over(SmtpTransport(settings(mailbox.port)), people(2))
    assert isinstance(report.error, TransportRejected)
    assert re.search(r"a copy has [\d,]+ bytes, and the mail server takes at most 500", str(report.error))
    assert report.kinds() == {1: "NotTaken"}
    assert mailbox.messages == []


@pytest.mark.parametrize("size", ["", " 0", " lots"])
def test_a_server_that_names_no_limit_has_none(size: str) -> None:
    with ScriptedServer({"EHLO": [f"250-hi\r\n250 SIZE{size}"]}) as server:
        assert send(server).kinds() == {1: "Accepted"}


# --- TLS and login -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_tls_with_a_login_against_a_real_server(
    security: str, certificate: tuple[Path, ssl.SSLContext]
) -> None:
    file, context = certificate
    chosen = {"tls": context} if security == "tls" else {"starttls": context}
    with smtp_server(login=("ann", "s3cret"), **chosen) as mailbox:
        known = settings(
            mailbox.port,
            security=security,
            username="ann",
            password="s3cret",
            ca_file=str(file),
            host="localhost",
        )
        report = hand_over(SmtpTransport(known), people(2))
        wrong = hand_over(SmtpTransport(dataclasses.replace(known, password="guess")), people(1))
    assert report.error is None
    assert [(arrived.login, arrived.encrypted) for arrived in mailbox.messages] == [("ann", True)] * 2
    assert isinstance(wrong.error, TransportRejected)
    assert "535" in str(wrong.error)
    assert "guess" not in str(wrong.error)


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_certificate_that_nobody_vouches_for_is_not_trusted(
    security: str, certificate: tuple[Path, ssl.SSLContext]
) -> None:
    with smtp_server(**{security: certificate[1]}) as mailbox:
        report = hand_over(SmtpTransport(settings(mailbox.port, security=security)), people(1))
    assert isinstance(report.error, TransportUnavailable)
    assert "certificate" in str(report.error).lower()
    assert (report.kinds(), mailbox.messages) == ({1: "NotTaken"}, [])


def test_a_certificate_for_another_host_is_not_trusted(tmp_path: Path) -> None:
    files = make_certificate(tmp_path, host="elsewhere.example")
    with smtp_server(tls=server_context(*files)) as mailbox:
        known = settings(mailbox.port, security="tls", ca_file=str(files[0]), host="localhost")
        report = hand_over(SmtpTransport(known), people(1))
    assert isinstance(report.error, TransportUnavailable)
    assert mailbox.messages == []


def test_a_server_without_starttls_gets_nothing() -> None:
    with ScriptedServer() as server:
        report = send(server, security="starttls")
    assert isinstance(report.error, TransportRejected)
    assert "STARTTLS" in str(report.error)
    assert [command for command in server.commands if not command.lower().startswith("ehlo")] == []


@pytest.mark.parametrize(
    ("act", "error"),
    [
        ("454 4.7.0 TLS not available", TransportUnavailable),
        ("421 4.3.2 bye", TransportUnavailable),
        ("501 no", TransportRejected),
        *((act, TransportUnavailable) for act in (Cut, Close, Hang, *NONSENSE)),
        ("220 go on\r\n250-injected\r\n250 AUTH PLAIN", TransportUnavailable),
        (Late("220 go on"), TransportUnavailable),
        (b"220 go on\r\n\x16\x03\x01\x00\x05nonsense", TransportUnavailable),
    ],
)
def test_a_server_that_does_not_keep_its_offer_of_tls_gets_nothing(act: Any, error: type) -> None:
    with ScriptedServer({"EHLO": ["250-hi\r\n250 STARTTLS"], "STAR": [act]}) as server:
        report = send(server, security="starttls", timeout=0.3)
    assert isinstance(report.error, error)
    assert (report.kinds(), server.messages) == ({1: "NotTaken"}, [])
    assert not {"MAIL", "RCPT", "AUTH"} & {command[:4] for command in server.commands}


@pytest.mark.parametrize(
    ("act", "error"),
    [
        ("454 4.7.0 try later", TransportUnavailable),
        ("421 4.3.2 bye", TransportUnavailable),
        ("535 5.7.8 wrong", TransportRejected),
        ("334 abc", TransportUnavailable),
        ("334", TransportRejected),  # asks again and again
        *((act, TransportUnavailable) for act in (Cut, Close, Hang, *NONSENSE)),
    ],
)
def test_whatever_comes_of_a_login_nothing_leaves_without_it(
    act: Any, error: type, certificate: tuple[Path, ssl.SSLContext]
) -> None:
    file, context = certificate
    offer = ["250-hi\r\n250 AUTH CRAM-MD5"]
    with ScriptedServer({"EHLO": offer, "AUTH": [act]}, tls=context) as server:
        login = {"username": "ann", "password": "s3cret", "ca_file": str(file), "host": "localhost"}
        report = send(server, security="tls", timeout=0.5, **login)
    assert isinstance(report.error, error)
    assert (report.kinds(), server.messages) == ({1: "NotTaken"}, [])
    assert "s3cret" not in "".join(traceback.format_exception(report.error))


def test_a_plain_server_on_a_tls_port_is_unavailable() -> None:
    with ScriptedServer() as server:
        assert isinstance(send(server, security="tls", timeout=1).error, TransportUnavailable)


def test_a_password_never_travels_in_the_clear() -> None:
    with ScriptedServer({"EHLO": ["250-hi\r\n250 AUTH PLAIN LOGIN"]}) as server:
        report = send(server, username="ann", password="s3cret")
    assert isinstance(report.error, TransportRejected)
    assert "in the clear" in str(report.error)
    assert server.commands == []


def test_a_password_that_smtplib_cannot_send_is_not_shown(certificate: tuple[Path, ssl.SSLContext]) -> None:
    file, context = certificate
    with smtp_server(tls=context, login=("ann", "x")) as mailbox:
        known = settings(mailbox.port, security="tls", username="ann", password="pässword", ca_file=str(file))
        report = hand_over(SmtpTransport(known), people(1))
    assert isinstance(report.error, TransportRejected)
    assert "ASCII" in str(report.error)
    shown = "".join(traceback.format_exception(report.error))
    assert "pässword" not in shown
    assert mailbox.messages == []


def test_a_server_without_a_way_to_log_in_gets_nothing(certificate: tuple[Path, ssl.SSLContext]) -> None:
    file, context = certificate
    with smtp_server(starttls=context) as mailbox:
        known = settings(mailbox.port, security="starttls", username="ann", password="x", ca_file=str(file))
        report = hand_over(SmtpTransport(known), people(1))
    assert isinstance(report.error, TransportRejected)
    assert mailbox.messages == []


def test_a_missing_ca_file_is_named(tmp_path: Path) -> None:
    transport = SmtpTransport(settings(closed_port(), security="tls", ca_file=str(tmp_path / "none.pem")))
    report = hand_over(transport, people(1))
    assert isinstance(report.error, TransportRejected)
    assert "none.pem" in str(report.error)


def test_settings_do_not_show_the_password() -> None:
    assert "s3cret" not in repr(settings(25, password="s3cret"))


def test_messages_parse_after_the_trip() -> None:
    with smtp_server() as mailbox:
        hand_over(SmtpTransport(settings(mailbox.port)), people(1))
    parsed = email.message_from_bytes(mailbox.messages[0].content)
    assert [part.get_content_type() for part in parsed.walk()][1:] == ["text/plain", "text/html"]

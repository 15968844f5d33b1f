"""A server that takes commands ahead of its answers (RFC 2920): what leaves when, and what each answer then means.

That nothing is lost or doubled wherever such a conversation breaks: test_smtp_cuts.py and test_smtp_any_server.py.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from newsletter.errors import TransportRejected, TransportUnavailable
from newsletter.model import Accepted, NotTaken, Refused, Unknown
from newsletter.transports.smtp import SmtpTransport
from newsletter.transports.smtp_session import SmtpSettings
from tests.support.copies import Report, hand_over, people, recipient, wire
from tests.support.smtp_server import (
    HOST,
    PIPELINES,
    USUAL,
    After,
    Ahead,
    Close,
    Cut,
    Drip,
    Hang,
    Late,
    ScriptedServer,
    Taken,
    make_certificate,
    server_context,
)
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from newsletter.model import Outcome, Recipient

HELD = Taken((Ahead(b"DATA\r\n"), "250 2.0.0 Ok"))  # answered when the next envelope has come


def transport(port: int, *, dot_timeout: float = 5, **changes: Any) -> SmtpTransport:
    known = SmtpSettings(**{"host": HOST, "port": port, "security": "none", "timeout": 5, **changes})
    return SmtpTransport(known, dot_timeout=dot_timeout, sleep=lambda _seconds: None)


def send(server: ScriptedServer, count: int, **changes: Any) -> Report:
    return hand_over(transport(server.port, **changes), people(count))


def untouched(outcome: Outcome) -> bool:
    """What may become of a copy whose body had not begun when the connection of the one before it was lost."""
    return isinstance(outcome, Accepted) or (isinstance(outcome, NotTaken) and not outcome.charged)


@dataclass
class Desk:
    """Hands out windows on this thread, looks around each time, and writes down who asked and said what when."""

    windows: Sequence[Sequence[Recipient]]
    look: Callable[[str], None] = lambda _what: None
    diary: list[str] = field(default_factory=list)
    held: list[int] = field(default_factory=list)  # copies that were open at each pull

    def run(self, through: SmtpTransport) -> list[str]:
        """The diary of one lane."""
        self._open: set[bytes] = set()
        through.run(wire(), self._copies(), self._settle)
        assert not self._open
        return self.diary

    def _copies(self) -> Iterator[Sequence[Recipient]]:
        for number, window in enumerate(self.windows, 1):
            self.held.append(len(self._open))
            self._note(f"pull {number}")
            self._open |= {copy.delivery for copy in window}
            yield window
        self._note("end")

    def _settle(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            self._open.remove(outcome.delivery)
            self._note(f"{type(outcome).__name__} {int.from_bytes(outcome.delivery, 'big')}")

    def _note(self, what: str) -> None:
        self.diary.append(what)
        self.look(what)


def singly(count: int) -> list[list[Recipient]]:
    return [[copy] for copy in people(count)]


# --- what leaves when --------------------------------------------------------------------------------------------


def test_the_commands_of_a_copy_leave_in_one_go() -> None:
    with ScriptedServer({"MAIL": [(Ahead(b"DATA\r\n"), "250 2.1.0 Ok")]}, pipelining=True) as server:
        assert send(server, 1).kinds() == {1: "Accepted"}


def test_the_next_copy_is_pulled_while_the_body_travels_and_before_its_dot() -> None:
    message = b"".join(wire().pieces(people(1)[0]))

    def look(what: str) -> None:
        if what == "pull 2":
            wait_for(lambda: len(server.heard[0].partition(b"DATA\r\n")[2]) >= len(message))
            assert server.heard[0].partition(b"DATA\r\n")[2] == message

    with ScriptedServer(pipelining=True) as server:
        diary = Desk(singly(2), look).run(transport(server.port))
    assert diary == ["pull 1", "pull 2", "Accepted 1", "end", "Accepted 2"]


def test_the_next_envelope_leaves_with_the_dot_and_not_after_its_answer() -> None:
    with ScriptedServer({"dot": [HELD, HELD]}, pipelining=True) as server:
        assert set(send(server, 3).kinds().values()) == {"Accepted"}
        assert len(server.messages) == 3
    assert server.connections == 1


def test_a_copy_is_settled_before_the_next_ones_body_begins() -> None:
    def look(what: str) -> None:
        if what.startswith("Accepted 1"):
            assert server.heard[0].count(b"\r\nTo: ") <= 1

    with ScriptedServer({"dot": [HELD]}, pipelining=True) as server:
        Desk(singly(2), look).run(transport(server.port))


def test_a_lane_holds_two_copies_at_most() -> None:
    with ScriptedServer(pipelining=True) as server:
        desk = Desk(singly(6))
        desk.run(transport(server.port))
    assert desk.held == [0, 1, 1, 1, 1, 1]


def test_a_wider_window_is_used_up_before_the_next_is_pulled() -> None:
    windows = [people(10)[:4], people(10)[4:8], people(10)[8:]]
    with ScriptedServer({"dot": [HELD] * 9}, pipelining=True) as server:
        through = transport(server.port, window=4)
        assert through.window == 4
        desk = Desk(windows)
        diary = desk.run(through)
        assert [arrived.recipient for arrived in server.messages] == [copy.address for copy in people(10)]
    assert desk.held == [0, 1, 1]
    assert diary.index("pull 2") == diary.index("Accepted 3") + 1


def test_a_server_gets_the_bytes_of_the_wire() -> None:
    message = wire()
    with ScriptedServer(pipelining=True) as server:
        hand_over(transport(server.port), people(3), message)
        for copy, arrived in zip(people(3), server.messages, strict=True):
            assert arrived.content == b"".join(message.pieces(copy))
            assert (arrived.sender, arrived.recipient) == (
                f"bounces+{copy.id}@example.org",
                copy.address,
            )


@pytest.mark.parametrize("offer", [PIPELINES, PIPELINES.lower(), "250-x\r\n250 Pipelining"])
def test_the_offer_counts_however_it_is_written(offer: str) -> None:
    with ScriptedServer({"dot": [HELD]}, usual={"EHLO": offer}) as server:
        assert set(send(server, 2).kinds().values()) == {"Accepted"}


@pytest.mark.parametrize("offer", [USUAL["EHLO"], "250-x\r\n250 X-PIPELINING", "250 x PIPELINING"])
@pytest.mark.parametrize("window", [1, 4])
def test_without_the_offer_each_command_waits_for_the_answer_to_the_last(offer: str, window: int) -> None:
    with ScriptedServer(usual={"EHLO": offer}) as server:
        report = send(server, 6, window=window)
    assert set(report.kinds().values()) == {"Accepted"}
    assert_lockstep(server, 0)


def assert_lockstep(server: ScriptedServer, connection: int) -> None:
    for speaker, text in server.talks[connection].turns:
        if speaker == "heard":
            assert text.count(b"\r\n") == 1 or text.endswith(b"\r\n.\r\n")


def test_what_one_connection_offers_does_not_hold_for_the_next() -> None:
    script = {"EHLO": [PIPELINES, USUAL["EHLO"]], "dot": [HELD, Taken(Late("250 2.0.0 Ok"))]}
    with ScriptedServer(script) as server:
        report = send(server, 5)
    assert server.connections == 2
    assert all(map(untouched, report.outcomes.values()))
    assert_lockstep(server, 1)


def test_the_end_of_the_copies_lets_the_last_one_end() -> None:
    with ScriptedServer(pipelining=True) as server:
        diary = Desk(singly(2)).run(transport(server.port))
    assert diary[-2:] == ["end", "Accepted 2"]
    assert server.heard[0].endswith(b"\r\n.\r\nquit\r\n")


@pytest.mark.parametrize("pipelining", [True, False])
def test_an_empty_window_lets_the_copy_under_way_end_before_the_lane_asks_again(pipelining: bool) -> None:
    one, two, three = singly(3)

    def look(what: str) -> None:
        if what == "Accepted 1":
            wait_for(lambda: server.heard[0].endswith(b".\r\n"))  # and nothing behind it

    with ScriptedServer(pipelining=pipelining) as server:
        desk = Desk([one, [], two, three], look)
        diary = desk.run(transport(server.port))
        assert [arrived.recipient for arrived in server.messages] == [copy.address for copy in people(3)]
    assert desk.held[2] == 0
    assert diary.index("Accepted 1") < diary.index("pull 3")
    assert server.connections == 1


@pytest.mark.parametrize("empty", [range(9), range(0, 20, 2), range(1, 20, 2), [1], [3]])
@pytest.mark.parametrize("window", [1, 3])
def test_however_often_windows_are_empty_everyone_is_served_once(empty: Sequence[int], window: int) -> None:
    with ScriptedServer(pipelining=True) as server:
        report = hand_over(transport(server.port, window=window), people(7), empty=empty)
        assert [arrived.recipient for arrived in server.messages] == [copy.address for copy in people(7)]
    assert set(report.kinds().values()) == {"Accepted"}


# --- answers that come as they like ------------------------------------------------------------------------------

ANSWERS = ["MAIL", "RCPT", "DATA", "dot"]


def test_a_burst_of_answers_is_read_one_by_one() -> None:
    with ScriptedServer({"dot": [HELD] * 5}, pipelining=True, burst=True) as server:
        report = send(server, 6)
    assert list(report.kinds().values()) == ["Accepted"] * 6
    burst = b"250 2.0.0 Ok\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 go on\r\n"
    assert [bytes(text) for speaker, text in server.talks[0].turns if speaker == "said"].count(burst) == 5


@pytest.mark.parametrize(
    "manner",
    [
        Drip,
        lambda text: text.encode() + b"\n",
        lambda text: f"{text[:3]}-first\r\n{text[:3]}-second\r\n{text}",
        lambda text: (text[:2].encode(), text[2:7].encode(), text[7:].encode() + b"\r", b"\n"),
        lambda text: text.encode() + b" \xff\xfe\x00" + b"long" * 5000 + b"\r\n",
    ],
    ids=["single bytes", "bare LF", "several lines", "pieces", "long and binary"],
)
@pytest.mark.parametrize("burst", [True, False])
def test_whole_answers_count_however_they_come(manner: Any, burst: bool) -> None:
    usual = {step: manner(USUAL[step]) for step in ANSWERS}
    usual["dot"] = Taken(usual["dot"])
    with ScriptedServer(usual=usual, pipelining=True, burst=burst) as server:
        report = send(server, 4)
        assert len(server.messages) == 4
    assert (report.error, set(report.kinds().values())) == (None, {"Accepted"})
    assert server.connections == 1


def test_half_an_answer_is_waited_for() -> None:
    rest = threading.Event()
    script = {"dot": [Taken((Ahead(b"DATA\r\n"), b"250 2.0.0 O", After(rest), b"k\r\n"))]}

    def finish() -> None:
        wait_for(lambda: bool(server.talks) and server.talks[0].said.endswith(b"250 2.0.0 O"))
        rest.set()

    finisher = threading.Thread(target=finish)
    with ScriptedServer(script, pipelining=True) as server:
        finisher.start()
        report = send(server, 2)
        finisher.join()
    assert report.kinds() == {1: "Accepted", 2: "Accepted"}
    assert server.connections == 1


# --- what an answer means for the copy ---------------------------------------------------------------------------

NO_RECIPIENT = {
    "DATA is refused": ["554 5.5.1 no valid recipients"],
    "DATA is out of order": ["503 5.5.1 RCPT first"],
    "DATA is put off": ["450 4.7.1 later"],
    "DATA is let through": ["354 go on"],
}


@pytest.mark.parametrize("turn", [0, 1, 2], ids=["first", "middle", "last"])
@pytest.mark.parametrize("data", NO_RECIPIENT.values(), ids=NO_RECIPIENT)
@pytest.mark.parametrize(
    ("rcpt", "kind"), [("550 5.1.1 <x@y> unknown", Refused), ("450 4.2.1 greylisted", NotTaken)]
)
def test_a_recipient_that_is_not_taken_is_told_by_rcpt_and_hurts_nobody_else(
    rcpt: str, kind: type, data: Sequence[str], turn: int
) -> None:
    answers = ["250 2.1.5 Ok"] * 3
    answers[turn] = rcpt
    script = {"RCPT": answers, "DATA without RCPT": data}
    with ScriptedServer(script, pipelining=True) as server:
        report = send(server, 3)
        assert len(server.messages) == 2
    outcomes = [report.outcomes[number] for number in (1, 2, 3)]
    assert isinstance(outcomes.pop(turn), kind)
    assert all(isinstance(one, Accepted) for one in outcomes)
    assert report.outcomes[turn + 1].reason == rcpt.replace("<x@y>", "…")
    assert (report.error, server.connections) == (None, 1)


@pytest.mark.parametrize(
    "said",
    [
        "554 5.5.1 no",
        "503 5.5.1 no",
        "250 2.0.0 Ok: nothing",
        "451 no",
        "421 bye",
        Cut,
        Close,
        Hang,
        "354 ?",
        "x",
    ],
)
def test_what_a_server_says_of_a_message_to_nobody_changes_nothing(said: Any) -> None:
    """It said 354 though it had refused the recipient (RFC 2920, section 3.1): it gets a dot alone."""
    script = {"RCPT": ["550 5.1.1 no"], "DATA without RCPT": ["354 go on"], "dot without RCPT": [said]}
    with ScriptedServer(script, pipelining=True) as server:
        report = send(server, 2, timeout=0.5)
        assert [arrived.recipient for arrived in server.messages] == ["reader2@example.net"]
    assert b"DATA\r\n.\r\n" in server.heard[0]
    assert report.kinds() == {1: "Refused", 2: "Accepted"}


@pytest.mark.parametrize("act", [Cut, Close, "421 4.3.2 bye"])
def test_a_refusal_holds_though_the_connection_ends_before_the_answer_to_data(act: Any) -> None:
    script = {"RCPT": ["250 2.1.5 Ok", "550 5.1.1 no"], "DATA without RCPT": [act]}
    with ScriptedServer(script, pipelining=True) as server:
        report = send(server, 3)
    assert [type(report.outcomes[number]) for number in (1, 2, 3)] == [Accepted, Refused, Accepted]


@pytest.mark.parametrize(("data", "kind"), [("451 4.3.0 later", NotTaken), ("554 5.7.1 no", Refused)])
def test_a_copy_refused_at_data_gets_no_body(data: str, kind: type) -> None:
    with ScriptedServer({"DATA": ["354 go on", data]}, pipelining=True) as server:
        report = send(server, 3)
        assert len(server.messages) == 2
    assert [type(report.outcomes[number]) for number in (1, 2, 3)] == [Accepted, kind, Accepted]
    assert server.connections == 1


ENOUGH_AT_MAIL = ["421 4.7.0 enough", Late("421 4.7.0 enough"), "451 4.7.1 enough", "550 enough"]


@pytest.mark.parametrize(
    ("act", "burst"), [(Cut, False), *((act, burst) for act in ENOUGH_AT_MAIL for burst in (False, True))]
)
def test_a_connection_that_is_worn_out_at_mail_is_replaced_and_nobody_is_charged(
    act: Any, burst: bool
) -> None:
    with ScriptedServer(limit=(2, {"MAIL": act}), pipelining=True, burst=burst) as server:
        report = send(server, 5)
        assert [arrived.recipient for arrived in server.messages] == [copy.address for copy in people(5)]
    assert (report.error, set(report.kinds().values())) == (None, {"Accepted"})


@pytest.mark.parametrize(
    ("act", "error"),
    [
        ("421 4.7.0 enough", TransportUnavailable),
        ("451 4.3.0 later", TransportUnavailable),
        (Cut, TransportUnavailable),
        ("550 5.7.1 you are listed", TransportRejected),
        ("552 5.3.4 too large", TransportRejected),
    ],
)
def test_a_fresh_connection_that_refuses_mail_ends_the_lane_and_nobody_is_charged(
    act: Any, error: type
) -> None:
    with ScriptedServer(usual={"MAIL": act}, pipelining=True) as server:
        report = send(server, 3)
    assert isinstance(report.error, error)
    assert report.outcomes
    assert all(isinstance(one, NotTaken) and not one.charged for one in report.outcomes.values())
    assert server.messages == []


@pytest.mark.parametrize("act", ["550 5.7.1 you are listed", "421 4.7.0 enough"])
def test_a_lane_that_is_refused_after_a_copy_settles_that_one_first(act: str) -> None:
    with ScriptedServer({"MAIL": ["250 2.1.0 Ok"]}, usual={"MAIL": act}, pipelining=True) as server:
        report = send(server, 3)
    assert report.kinds() == {1: "Accepted", 2: "NotTaken"}
    assert not report.outcomes[2].charged
    assert isinstance(report.error, TransportRejected if act.startswith("5") else TransportUnavailable)


def test_a_server_that_closes_after_each_copy_is_no_failure() -> None:
    with ScriptedServer(usual={"dot": Taken(Late("250 2.0.0 Ok"))}, pipelining=True) as server:
        report = send(server, 6)
    assert (report.error, set(report.kinds().values())) == (None, {"Accepted"})


# --- a connection that is lost -----------------------------------------------------------------------------------


@pytest.mark.parametrize("act", [Cut, Close, Hang, "nonsense", Late(b"250 2.0.")])
@pytest.mark.parametrize("taken", [True, False])
def test_only_the_copy_whose_dot_has_left_can_be_in_doubt(act: Any, taken: bool) -> None:
    with ScriptedServer({"dot": [Taken(act) if taken else act]}, pipelining=True) as server:
        report = send(server, 3, dot_timeout=0.5)
        assert len(server.messages) == sum(kind == "Accepted" for kind in report.kinds().values()) + taken
    assert report.error is None
    assert isinstance(report.outcomes[1], Unknown)
    assert untouched(report.outcomes[2])
    assert isinstance(report.outcomes[3], Accepted)


@pytest.mark.parametrize("window", [1, 4])
def test_the_copies_behind_a_lost_one_are_not_charged_when_no_connection_can_be_made_again(
    window: int,
) -> None:
    script = {"dot": [Taken(Cut)], "connect": ["220 hi"]}
    with ScriptedServer(script, usual={"connect": "421 4.3.2 down"}, pipelining=True) as server:
        report = send(server, 6, window=window)
    assert isinstance(report.error, TransportUnavailable)
    kinds = report.kinds()
    assert kinds.pop(1) == "Unknown"
    assert set(kinds.values()) == {"NotTaken"}
    assert not any(report.outcomes[number].charged for number in kinds)
    assert report.pulled == len(report.outcomes)


@pytest.mark.parametrize(
    "act", [Cut, "nonsense", "250 2.0.0 too early", "421 4.3.2 bye", Late("421 4.3.2 bye")]
)
def test_a_server_that_speaks_or_ends_inside_a_body_gets_no_dot(act: Any) -> None:
    def spoken() -> bool:  # after its 354, which the server notes a moment after it was sent
        return bool(server.talks[0].said.partition(b"354 go on\r\n")[2])

    def look(what: str) -> None:
        if what == "pull 2":  # the body of the first has left, its dot has not
            wait_for(lambda: server.ended == 1 or spoken())

    with ScriptedServer({"body": [act]}, pipelining=True) as server:
        desk = Desk(singly(3), look)
        diary = desk.run(transport(server.port))
        taken = [int(arrived.recipient[6]) for arrived in server.messages]
    assert "NotTaken 1" in diary
    assert b"\r\n.\r\n" not in server.heard[0]
    assert taken == [number for number in (1, 2, 3) if f"Accepted {number}" in diary]
    assert not any(line.startswith("Unknown") for line in diary)


def test_three_connections_lost_in_a_row_end_the_lane() -> None:
    with ScriptedServer(usual={"dot": Taken(Cut)}, pipelining=True) as server:
        report = send(server, 12)
        assert len(server.messages) == 3
    assert isinstance(report.error, TransportUnavailable)
    kinds = list(report.kinds().values())
    assert kinds.count("Unknown") == 3
    assert kinds.count("NotTaken") == len(kinds) - 3
    assert not any(one.charged for one in report.outcomes.values() if isinstance(one, NotTaken))


# --- a server that is out of step --------------------------------------------------------------------------------

EXTRA = ["250 2.0.0 Ok", "354 go on", "421 4.3.2 bye", "550 5.1.1 no such person", "450 4.2.1 later"]


@pytest.mark.parametrize("step", ANSWERS)
@pytest.mark.parametrize("extra", EXTRA)
@pytest.mark.parametrize("burst", [True, False])
def test_an_answer_that_nobody_asked_for_settles_nothing(step: str, extra: str, burst: bool) -> None:
    """At any turn of three copies; it ends the connection, whichever command it is taken to answer."""
    for turn in range(3):
        acts: list[Any] = [Taken(USUAL[step]) if step == "dot" else USUAL[step]] * 3
        wrong = f"{USUAL[step]}\r\n{extra}"
        acts[turn] = Taken(wrong) if step == "dot" else wrong
        with ScriptedServer({step: acts}, pipelining=True, burst=burst) as server:
            report = send(server, 4)
        assert_the_truth(report, server)
        assert report.error is None


def assert_the_truth(report: Report, server: ScriptedServer) -> None:
    """One copy at most is in doubt: the one before the answers that don't fit, whose own may have been another's."""
    taken = [int(arrived.recipient[6]) for arrived in server.messages]
    kinds = report.kinds()
    doubt = [number for number, kind in kinds.items() if kind == "Unknown"]
    assert len(taken) == len(set(taken))
    assert len(doubt) <= 1
    assert sorted({*taken, *doubt}) == [n for n, kind in kinds.items() if kind in {"Accepted", "Unknown"}]


@pytest.mark.parametrize(
    ("step", "act"),
    [
        ("MAIL", "354 go on"),
        ("RCPT", "354 go on"),
        ("DATA", "250 2.0.0 Ok"),
        ("MAIL", "334 what"),
        ("RCPT", "334 what"),
        ("MAIL", b""),
        ("RCPT", b""),
        ("DATA", b""),
    ],
)
@pytest.mark.parametrize("turn", [0, 1, 2])
def test_an_answer_that_cannot_be_one_or_is_missing_ends_the_connection(
    step: str, act: Any, turn: int
) -> None:
    acts: list[Any] = [USUAL[step]] * 3
    acts[turn] = act
    with ScriptedServer({step: acts}, pipelining=True) as server:
        report = send(server, 4, timeout=0.4)
    assert_the_truth(report, server)
    assert set(report.kinds().values()) <= {"Accepted", "Unknown", "NotTaken"}


def test_a_server_that_says_nothing_of_a_message_has_not_accepted_it() -> None:
    """What it says of the next one's MAIL stands in the place of that answer; one further on it shows."""
    for turn in range(3):
        acts: list[Any] = [USUAL["dot"]] * 3
        acts[turn] = b""
        with ScriptedServer({"dot": acts}, pipelining=True) as server:
            report = send(server, 4, timeout=0.4, dot_timeout=0.4)
        assert_the_truth(report, server)
        assert report.kinds()[turn + 1] == "Unknown"


# --- addresses, sizes, TLS and login -----------------------------------------------------------------------------


def test_an_address_outside_ascii_between_others_is_refused_alone_or_leaves_in_utf8() -> None:
    copies = [recipient(1), recipient(2, "zoë@example.net"), recipient(3)]
    with ScriptedServer(pipelining=True) as server:
        report = hand_over(transport(server.port), copies)
    assert report.kinds() == {1: "Accepted", 2: "Refused", 3: "Accepted"}
    offer = f"{PIPELINES[:-12]}250-SMTPUTF8\r\n250 8BITMIME"
    with ScriptedServer({"dot": [HELD, HELD]}, usual={"EHLO": offer}) as server:
        report = hand_over(transport(server.port), copies)
    assert set(report.kinds().values()) == {"Accepted"}
    assert "RCPT TO:<zoë@example.net>" in server.commands
    assert ["SMTPUTF8" in line for line in server.commands if line.startswith("MAIL")] == [False, True, False]


@pytest.mark.parametrize("window", [1, 3])
def test_a_copy_that_cannot_be_built_hurts_neither_the_one_before_nor_the_one_after(window: int) -> None:
    copies = people(5)
    for number in (2, 3):
        copies[number - 1] = recipient(number, name="Eve\r\nBcc: everyone@example.net")
    with ScriptedServer(pipelining=True) as server:
        report = hand_over(transport(server.port, window=window), copies)
        assert len(server.messages) == 3
    assert list(report.kinds().values()) == ["Accepted", "Refused", "Refused", "Accepted", "Accepted"]
    assert server.connections == 1


def test_a_copy_too_large_for_the_server_stops_the_lane_after_the_one_under_way_is_settled() -> None:
    copies = [recipient(1), recipient(2, name="x" * 3000), recipient(3)]
    most = max(len(b"".join(wire().pieces(copy))) for copy in (copies[0], copies[2]))
    offer = f"{PIPELINES[:-12]}250-SIZE {most + 10}\r\n250 8BITMIME"
    with ScriptedServer(usual={"EHLO": offer}) as server:
        report = hand_over(transport(server.port), copies)
        assert len(server.messages) == 1
    assert report.kinds() == {1: "Accepted", 2: "NotTaken"}
    assert isinstance(report.error, TransportRejected)
    assert "at most" in str(report.error)


def test_each_size_is_declared_ahead() -> None:
    copies = [recipient(number, name="x" * 100 * number) for number in (1, 2, 3)]
    offer = f"{PIPELINES[:-12]}250-SIZE\r\n250 8BITMIME"
    with ScriptedServer({"dot": [HELD, HELD]}, usual={"EHLO": offer}) as server:
        hand_over(transport(server.port), copies)
        sizes = [len(arrived.content) for arrived in server.messages]
    declared = [line.rpartition("SIZE=")[2] for line in server.commands if line.startswith("MAIL")]
    assert declared == list(map(str, sizes))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


def test_inside_tls_commands_leave_ahead_as_well(certificate: tuple[Path, Path]) -> None:
    tls = server_context(*certificate)
    with ScriptedServer({"dot": [HELD] * 4}, pipelining=True, burst=True, tls=tls) as server:
        report = send(server, 5, security="tls", ca_file=str(certificate[0]))
    assert (report.error, set(report.kinds().values())) == (None, {"Accepted"})


def test_nothing_is_sent_ahead_before_starttls_and_a_login_are_done(certificate: tuple[Path, Path]) -> None:
    """What is offered in the clear may be anybody's word, and what is sent ahead there anybody's to read."""
    offer = "250-x\r\n250-PIPELINING\r\n250 STARTTLS"
    with ScriptedServer({"EHLO": [offer], "STAR": ["454 4.7.0 not now"]}) as server:
        report = send(server, 2, security="starttls", username="ann", password="s3cret")
    assert isinstance(report.error, TransportUnavailable)
    assert [command[:4].upper() for command in server.commands] == ["EHLO", "STAR"]
    login = "250-x\r\n250-PIPELINING\r\n250 AUTH PLAIN"
    usual = {"EHLO": login, "AUTH": "235 2.7.0 Ok"}
    with ScriptedServer({"dot": [HELD]}, usual=usual, tls=server_context(*certificate)) as server:
        known = {"security": "tls", "ca_file": str(certificate[0]), "username": "ann", "password": "s3cret"}
        assert set(send(server, 2, **known).kinds().values()) == {"Accepted"}
    heard = [bytes(text[:4]) for speaker, text in server.talks[0].turns if speaker == "heard"]
    assert heard[:3] == [b"ehlo", b"AUTH", b"MAIL"]


@pytest.mark.parametrize("injected", ["250 2.0.0 Ok", "250-evil\r\n250-PIPELINING\r\n250 AUTH PLAIN"])
def test_what_a_stranger_puts_behind_the_answer_to_starttls_counts_for_nothing(injected: str) -> None:
    script = {"EHLO": ["250-x\r\n250-PIPELINING\r\n250 STARTTLS"], "STAR": [f"220 go on\r\n{injected}"]}
    with ScriptedServer(script) as server:
        report = send(server, 2, security="starttls", timeout=0.5)
    assert isinstance(report.error, TransportUnavailable)
    assert not {"MAIL", "RCPT", "AUTH"} & {command[:4] for command in server.commands}


# --- a provider that has had enough of us ------------------------------------------------------------------------

ENOUGH = [
    "421 4.7.0 too many",
    "421 bye",
    "450 4.7.28 unusual rate",
    "452 4.5.3 too many messages, slow down",
]
NOT_ENOUGH = ["450 4.2.0 greylisted", "451 4.3.0 internal error", "452 4.2.2 mailbox full"]


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("step", ["RCPT", "DATA", "dot"])
@pytest.mark.parametrize(
    ("said", "crowded"), [*((s, True) for s in ENOUGH), *((s, False) for s in NOT_ENOUGH)]
)
def test_a_copy_put_off_says_whether_we_were_too_fast(
    said: str, crowded: bool, step: str, pipelining: bool
) -> None:
    with ScriptedServer({step: [said]}, pipelining=pipelining) as server:
        report = send(server, 1)
    outcome = report.outcomes[1]
    assert isinstance(outcome, NotTaken)
    assert outcome.crowded is crowded


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("step", ["connect", "EHLO", "MAIL"])
@pytest.mark.parametrize(
    ("said", "crowded"), [("421 4.7.0 too many", True), ("451 4.3.0 internal error", False)]
)
def test_a_lane_turned_away_says_whether_we_were_too_fast(
    said: str, crowded: bool, step: str, pipelining: bool
) -> None:
    with ScriptedServer({step: [said]}, pipelining=pipelining) as server:
        report = send(server, 1)
    assert isinstance(report.error, TransportUnavailable)
    assert report.error.crowded is crowded


def test_a_refusal_is_no_sign_of_being_too_fast() -> None:
    for step in ("RCPT", "DATA", "dot"):
        with ScriptedServer({step: ["550 5.7.1 too many complaints"]}, pipelining=True) as server:
            assert isinstance(send(server, 1).outcomes[1], Refused)

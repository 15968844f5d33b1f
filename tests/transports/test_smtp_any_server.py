"""Servers that do as they like at each step: what we say of a copy holds against their book, and nothing hangs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from newsletter.model import NotTaken, Recipient, Unknown
from newsletter.transports.smtp import SmtpTransport
from newsletter.transports.smtp_session import SmtpSettings
from tests.support.copies import Report, hand_over, people, wire
from tests.support.smtp_server import HOST, USUAL, Close, Cut, Drip, Late, ScriptedServer, Taken

MESSAGE = wire()
SHORT = (
    0.1  # seconds until we give up on an answer; a machine that is too busy for it only makes more trouble
)
MOST_RUNS = 6

TEMPORARY = ["421 4.3.2 bye", Late("421 4.3.2 bye"), "450 4.2.1 later", "451 4.7.0 too many"]
PERMANENT = ["550 5.1.1 no", "554 5.5.1 no", Late("554 5.7.1 no")]
BROKEN = [Cut, Close, "nonsense", b"250 cut sho", Late(b"250 2"), "250-one\r\n550 two"]
EXTRA = ["250 2.0.0 extra", "354 extra", "421 4.3.2 extra", "450 4.2.1 extra", "550 5.1.1 extra"]


def faults(step: str) -> list[Any]:
    """What may come instead of the usual answer. A silence is an answer left out, though the command is followed."""
    extra = [f"{USUAL[step]}\r\n{more}" for more in EXTRA]
    wrong = ["250 2.0.0 Ok"] if step == "DATA" else ["354 go on"]
    return [*TEMPORARY, *PERMANENT, *BROKEN, *extra, *wrong, Drip(USUAL[step]), ""]


def dots() -> list[Any]:
    """The same, of a message that was kept or thrown away. Who begins to say 250 and goes on has kept it."""
    lost = [Cut, Close, "nonsense", Late(b"250 2")]
    kept: list[Any] = [f"{USUAL['dot']}\r\n{more}" for more in EXTRA]
    kept += [*BROKEN, Late(USUAL["dot"]), Drip(USUAL["dot"])]
    return [*TEMPORARY, *PERMANENT, *lost, *map(Taken, kept)]


STEPS: dict[str, list[Any]] = {
    "connect": [Cut, "421 4.7.0 too many", f"{USUAL['connect']}\r\n250 extra"],
    "EHLO": [Cut, "421 4.7.0 too many", "nonsense"],
    "MAIL": faults("MAIL"),
    "RCPT": faults("RCPT"),
    "DATA": faults("DATA"),
    "body": [Cut, Late("421 4.3.2 bye")],  # who speaks here and goes on may be read as speaking of the dot
    "dot": dots(),
    "RSET": ["503 no", Cut, "nonsense"],
    "QUIT": [Cut, "550 no"],
    "DATA without RCPT": ["354 go on", "503 5.5.1 RCPT first", "451 later", "250 what", Cut],
    "dot without RCPT": ["250 2.0.0 Ok: nothing", "451 later", "354 what", Cut, Close],
}


@dataclass(frozen=True)
class Plan:
    """One server, and how it is used."""

    script: dict[str, list[Any]]
    count: int
    pipelining: bool
    burst: bool
    window: int
    empty: frozenset[int]


def usual_or(step: str, trouble: int) -> st.SearchStrategy[Any]:
    """The usual answer, or else a fault in one of so many cases."""
    usual = st.sampled_from([USUAL[step]] * (trouble - 1))
    return st.integers(1, trouble).flatmap(lambda drawn: usual if drawn > 1 else st.sampled_from(STEPS[step]))


plans = st.builds(
    Plan,
    script=st.fixed_dictionaries(
        {
            step: st.lists(usual_or(step, 3 if step in {"RCPT", "DATA", "dot", "body"} else 6), max_size=10)
            for step in STEPS
        }
    ),
    count=st.integers(5, 10),
    pipelining=st.sampled_from([True, True, False]),
    burst=st.booleans(),
    window=st.sampled_from([1, 1, 2, 4]),
    empty=st.frozensets(st.integers(0, 12), max_size=4),
)


def run(server: ScriptedServer, plan: Plan, copies: list[Recipient]) -> Report:
    known = SmtpSettings(HOST, server.port, security="none", timeout=SHORT, window=plan.window)
    transport = SmtpTransport(known, dot_timeout=SHORT, sleep=lambda _seconds: None)
    return hand_over(transport, copies, MESSAGE, empty=plan.empty)


def hold(plan: Plan) -> None:
    """Hands over, and again what was not taken, as a campaign does; then compares with what the server has."""
    waiting = people(plan.count)
    said: dict[int, str] = {}
    with ScriptedServer(plan.script, pipelining=plan.pipelining, burst=plan.burst) as server:
        for _ in range(MOST_RUNS):
            report = run(server, plan, waiting)
            assert report.pulled == len(report.outcomes)
            assert not any(one == Unknown(one.delivery, "left unsettled") for one in report.outcomes.values())
            said |= report.kinds()
            again = {one.delivery for one in report.outcomes.values() if isinstance(one, NotTaken)}
            waiting = [copy for copy in waiting if copy.delivery in again or _number(copy) not in said]
            if not waiting:
                break
    taken = [int(arrived.recipient[6:].partition("@")[0]) for arrived in server.messages]
    assert len(taken) == len(set(taken)), "somebody was served twice"
    sure = {number for number, kind in said.items() if kind == "Accepted"}
    doubtful = {number for number, kind in said.items() if kind == "Unknown"}
    assert sure <= set(taken), "accepted, and not in its book"
    assert set(taken) <= sure | doubtful, "not taken, and in its book"
    assert len(doubtful) <= server.connections


def _number(copy: Recipient) -> int:
    return int.from_bytes(copy.delivery, "big")


@given(plan=plans)
def test_whatever_a_server_does_what_we_say_of_a_copy_is_true(plan: Plan) -> None:
    """``HYPOTHESIS_PROFILE=prove`` tries thousands of them."""
    hold(plan)

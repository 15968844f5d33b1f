"""A 400 is about somebody: who it is about is refused, the others get their copy once, and nobody is guessed at."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsletter.errors import TransportRejected
from newsletter.transports.sendgrid import SendGridSettings, SendGridTransport
from newsletter.transports.sendgrid_payload import Payload
from tests.support.copies import Report, hand_over, people, recipient, wire
from tests.support.sendgrid_server import KEY, Say, SendGrid, errors, sendgrid_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from newsletter.model import Recipient


@pytest.fixture(scope="module")
def running() -> Iterator[SendGrid]:
    with sendgrid_server() as server:
        yield server


@pytest.fixture
def server(running: SendGrid) -> SendGrid:
    return fresh(running)


def fresh(server: SendGrid, naming: str = "to") -> SendGrid:
    """As if just started."""
    server.acts.clear()
    server.bad.clear()
    server.requests.clear()
    server.book.clear()
    server.naming = naming
    server.usual = None
    return server


def send(server: SendGrid, copies: list[Recipient], batch: int = 50) -> Report:
    settings = SendGridSettings(KEY, url=server.url, batch=batch, timeout=5)
    return hand_over(SendGridTransport(settings), copies)


def sizes(server: SendGrid) -> list[int]:
    return [len(request["personalizations"]) for request in server.requests]


def bad(server: SendGrid, *numbers: int) -> None:
    server.bad = {f"reader{number}@example.net" for number in numbers}


@st.composite
def lists(draw: st.DrawFn) -> tuple[list[Recipient], set[str], int]:
    """People, some with the same address in other letters; the addresses that SendGrid finds wrong; the batch."""
    owners = draw(st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=24))
    copies = [
        recipient(number, f"{'Reader' if big else 'reader'}{owner}@example.net")
        for number, (owner, big) in enumerate(owners, 1)
    ]
    wrong = draw(st.sets(st.sampled_from(sorted({copy.address for copy in copies}))))
    return copies, wrong, draw(st.integers(1, 12))


@given(case=lists(), naming=st.sampled_from(["to", "first"]))
def test_every_good_copy_is_taken_once_and_every_bad_one_refused(
    running: SendGrid, case: tuple[list[Recipient], set[str], int], naming: str
) -> None:
    copies, wrong, batch = case
    server = fresh(running, naming)
    server.bad = wrong
    report = send(server, copies, batch)
    assert report.error is None
    expected = {copy.id: "Refused" if copy.address in wrong else "Accepted" for copy in copies}
    assert list(report.kinds().values()) == list(expected.values())
    taken = Counter(written.delivery for written in server.book)
    assert taken == Counter(one for one, kind in expected.items() if kind == "Accepted")
    assert len(server.requests) <= 2 * len(copies)


@given(case=lists(), naming=st.sampled_from(["member", "nobody"]))
def test_without_a_name_nobody_good_is_refused_and_nobody_is_lost_or_served_twice(
    running: SendGrid, case: tuple[list[Recipient], set[str], int], naming: str
) -> None:
    copies, wrong, batch = case
    server = fresh(running, naming)
    server.bad = wrong
    report = send(server, copies, batch)
    kinds = report.kinds()
    taken = Counter(written.delivery for written in server.book)
    for number, copy in enumerate(copies[: report.pulled], 1):
        outcomes = {"Refused", "NotTaken"} if copy.address in wrong else {"Accepted", "NotTaken"}
        assert kinds[number] in outcomes
        assert taken[copy.id] == (kinds[number] == "Accepted")
    if report.error is None:
        assert "NotTaken" not in kinds.values()
    else:  # many bad ones, and nothing or little was taken before: it might be the email, and nobody is charged
        assert isinstance(report.error, TransportRejected)
        last = range((report.pulled - 1) // batch * batch, report.pulled)
        assert {kinds[at + 1] for at in last if copies[at].address in wrong} == {"NotTaken"}
    assert len(server.requests) <= 2 * len(copies)


places = st.sampled_from(["personalizations", "personalization", "personalizations.", "subject", ""])
fields = st.one_of(
    st.none(),
    st.integers(),
    places,
    st.builds(
        "personalizations.{}{}".format, st.integers(0, 9), st.sampled_from(["", ".to", ".to.0.email", ".x"])
    ),
    st.text(max_size=20),
)
bodies = st.one_of(
    st.binary(max_size=40).map(lambda data: data.decode("latin-1")),
    st.lists(st.fixed_dictionaries({"field": fields, "message": st.text(max_size=9)}), max_size=3).map(
        lambda found: json.dumps({"errors": found})
    ),
)


@given(found=st.lists(bodies, min_size=1, max_size=12))
def test_whatever_400s_say_each_copy_is_settled_once_and_an_accepted_one_was_taken_once(
    running: SendGrid, found: list[str]
) -> None:
    server = fresh(running)
    server.acts.extend(Say(400, body) for body in found)
    report = send(server, people(8), batch=8)
    assert len(report.outcomes) == report.pulled == 8
    taken = Counter(written.delivery for written in server.book)
    for copy, kind in zip(people(8), report.kinds().values(), strict=True):
        assert taken[copy.id] == (kind == "Accepted")
    assert len(server.requests) <= 16


@pytest.mark.parametrize(
    "place",
    [
        "personalizations.99.to.0.email",
        "personalizations.-1.to",
        "personalizations.٣.to",
        "personalizations[2].to",
        "personalizations.2to",
        "personalization.2.to",
        "xpersonalizations.2.to",
    ],
)
def test_a_field_in_a_form_that_sendgrid_does_not_document_points_at_nobody(
    server: SendGrid, place: str
) -> None:
    server.acts.append(Say(400, errors((place, "no"))))
    report = send(server, people(4))
    assert "Refused" not in report.kinds().values()


def test_an_address_in_the_words_of_an_error_without_field_is_not_taken_for_the_culprit(
    server: SendGrid,
) -> None:
    server.acts.append(Say(400, errors(("", "reader3@example.net is no valid address"))))
    report = send(server, people(4))
    assert report.kinds() == dict.fromkeys(range(1, 5), "Accepted")
    assert sizes(server) == [4, 2, 2]


def test_several_culprits_in_one_answer_and_one_beyond_its_end(server: SendGrid) -> None:
    server.acts.append(
        Say(
            400,
            errors(
                ("personalizations.0.to", "no"),
                ("personalizations.7.to.0.email", "who?"),
                ("personalizations.3.to.0.email", "no"),
            ),
        )
    )
    report = send(server, people(5))
    assert report.kinds() == {1: "Refused", 2: "Accepted", 3: "Accepted", 4: "Refused", 5: "Accepted"}


def test_someone_who_is_named_for_something_else_than_the_address_is_tried_alone(server: SendGrid) -> None:
    server.acts.append(
        Say(400, errors(("personalizations.1.headers", "no"), ("personalizations.2", "twice")))
    )
    server.acts.extend([Say(202), Say(400, errors(("personalizations.0.headers", "no")))])
    report = send(server, people(4))
    assert report.error is None
    assert report.kinds() == {1: "Accepted", 2: "Refused", 3: "Accepted", 4: "Accepted"}
    assert sizes(server) == [4, 2, 1, 1]


def test_a_wrong_address_beside_a_wrong_sender_is_refused_before_the_sender_pauses_the_campaign(
    server: SendGrid,
) -> None:
    both = errors(("from.email", "not verified"), ("personalizations.1.to", "no"))
    server.acts.extend([Say(400, both), Say(400, errors(("from.email", "not verified")))])
    report = send(server, people(3))
    assert isinstance(report.error, TransportRejected)
    assert report.kinds() == {1: "NotTaken", 2: "Refused", 3: "NotTaken"}


@pytest.mark.parametrize("naming", ["nobody", "member"])
def test_an_email_that_sendgrid_takes_for_nobody_pauses_the_campaign_and_refuses_nobody(
    server: SendGrid, naming: str
) -> None:
    bad(server, *range(1, 9))
    server.naming = naming
    report = send(server, people(8), batch=4)
    assert isinstance(report.error, TransportRejected)
    assert "SendGrid takes none of 4 copies and names no address: 400" in str(report.error)
    assert report.kinds() == dict.fromkeys(range(1, 5), "NotTaken")


def test_an_email_that_sendgrid_takes_no_longer_pauses_the_campaign_after_a_few(server: SendGrid) -> None:
    bad(server, *range(3, 30))
    server.naming = "nobody"
    report = send(server, people(29), batch=1)
    assert isinstance(report.error, TransportRejected)
    kinds = report.kinds()
    assert [number for number, kind in kinds.items() if kind == "Refused"] == list(range(3, 13))
    assert kinds[13] == "NotTaken"
    assert report.pulled == 13


def test_an_outage_amid_halving_leaves_whom_nobody_vouches_for_not_taken(server: SendGrid) -> None:
    server.acts.extend([Say(400), Say(400), Say(400), Say(429)])
    report = send(server, people(4))
    assert report.kinds() == dict.fromkeys(range(1, 5), "NotTaken")
    assert sizes(server) == [4, 2, 1, 1]


# --- the last look before a request leaves -------------------------------------------------------------------------


def request_with(change: Any) -> None:
    payload = Payload(wire())
    payload.request(change([payload.copy(one) for one in people(2)]))


def test_a_request_that_would_name_a_reader_twice_is_not_made() -> None:
    with pytest.raises(AssertionError, match="each reader once"):
        request_with(lambda copies: [*copies, copies[0]])


def test_a_request_for_two_people_has_two_visible_addresses_in_two_places() -> None:
    payload = Payload(wire())
    members = json.loads(bytes(payload.request([payload.copy(one) for one in people(2)])))["personalizations"]
    assert [len(member["to"]) for member in members] == [1, 1]

"""When SendGrid, or something in front of it, asks for a pause: nothing leaves before the moment it names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest

from newsletter.errors import TransportRejected, TransportUnavailable
from newsletter.model import NotTaken
from newsletter.transports.sendgrid import SendGridSettings, SendGridTransport
from tests.support.copies import Report, hand_over, people
from tests.support.sendgrid_server import KEY, Say, SendGrid, errors, sendgrid_server

if TYPE_CHECKING:
    from newsletter.transports.base import Transport

NOW = datetime(2026, 12, 1, 9, tzinfo=UTC)
SOON = NOW + timedelta(seconds=60)


def epoch(moment: datetime) -> str:
    return str(int(moment.timestamp()))


def empty(moment: datetime = SOON) -> dict[str, str]:
    """The headers of an answer after which nothing remains until then."""
    return {"X-RateLimit-Limit": "600", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": epoch(moment)}


def transport(server: SendGrid, clock: Any = lambda: NOW, **changes: Any) -> SendGridTransport:
    known = {"url": server.url, "batch": 4, "timeout": 5, **changes}
    return SendGridTransport(SendGridSettings(KEY, **known), clock=clock, jitter=lambda: 0.0)


def send(server: SendGrid, count: int) -> Report:
    return hand_over(transport(server), people(count))


@pytest.mark.parametrize(
    ("headers", "until"),
    [
        (empty(), SOON),
        ({"X-RateLimit-Reset": epoch(SOON)}, SOON),
        ({"Retry-After": "60"}, SOON),
        ({"Retry-After": format_datetime(SOON, usegmt=True)}, SOON),
        ({"Retry-After": "Tue, 01 Dec 2026 10:01:00 +0100"}, SOON),
        ({"Retry-After": "Tuesday, 01-Dec-26 09:01:00 GMT"}, SOON),
        ({"Retry-After": "30", **empty()}, SOON),
        ({"Retry-After": "60", **empty(NOW + timedelta(seconds=1))}, SOON),
        ({"Retry-After": "60", **empty(NOW - timedelta(seconds=60))}, SOON),
        ({"Retry-After": "86400"}, NOW + timedelta(days=1)),
        (empty(NOW - timedelta(seconds=60)), None),
        (empty(NOW), None),
        (empty(NOW + timedelta(days=2)), None),
        ({"X-RateLimit-Reset": "soon", "Retry-After": "soon"}, None),
        ({"X-RateLimit-Reset": "9" * 40, "Retry-After": "9" * 40}, None),
        ({"X-RateLimit-Reset": "-1", "Retry-After": "-1"}, None),
        ({"Retry-After": "0"}, None),
        ({"Retry-After": "Tue, 01 Dec 99999 09:01:00 GMT"}, None),
        ({}, None),
    ],
)
def test_a_429_is_not_taken_until_the_moment_it_names_if_that_makes_sense(
    headers: dict[str, str], until: datetime | None
) -> None:
    with sendgrid_server(Say(429, errors(("", "too many requests")), headers)) as server:
        report = send(server, 6)
    assert isinstance(report.error, TransportUnavailable)
    assert (report.error.until, report.error.crowded) == (until, True)
    copies = people(4)
    assert [report.outcomes[number] for number in range(1, 5)] == [
        NotTaken(copy.delivery, str(report.error), not_before=until, charged=False) for copy in copies
    ]
    assert (report.pulled, len(server.requests)) == (4, 1)


def test_after_the_last_request_of_a_window_nothing_leaves_and_nothing_is_pulled() -> None:
    with sendgrid_server() as server:
        server.always = empty()
        report = send(server, 6)
    assert report.kinds() == dict.fromkeys(range(1, 5), "Accepted")
    assert isinstance(report.error, TransportUnavailable)
    assert (report.error.until, report.error.crowded) == (SOON, True)
    assert str(report.error) == "SendGrid takes no more requests until 2026-12-01 09:01:00 UTC."
    assert (report.pulled, len(server.requests)) == (4, 1)


def test_as_long_as_something_remains_or_the_reset_makes_no_sense_the_next_request_leaves() -> None:
    for headers in (
        {"X-RateLimit-Remaining": "1", "X-RateLimit-Reset": epoch(SOON)},
        empty(NOW - timedelta(seconds=1)),
        {"X-RateLimit-Remaining": "0"},
        {"Retry-After": "60"},  # on a 202: other providers were seen to send it; nothing asks us to wait
    ):
        with sendgrid_server() as server:
            server.always = headers
            assert send(server, 6).error is None
            assert len(server.requests) == 2


def test_a_window_that_closes_amid_halving_leaves_the_rest_for_later() -> None:
    with sendgrid_server(Say(400, "", empty())) as server:
        report = send(server, 4)
    assert report.kinds() == dict.fromkeys(range(1, 5), "NotTaken")
    assert {outcome.not_before for outcome in report.outcomes.values()} == {SOON}
    assert len(server.requests) == 1


def test_a_person_refused_by_the_last_request_stays_refused() -> None:
    with sendgrid_server(Say(400, errors(("personalizations.0.to", "no")), empty())) as server:
        report = send(server, 3)
    assert report.kinds() == {1: "Refused", 2: "NotTaken", 3: "NotTaken"}


def test_a_503_is_unknown_and_its_retry_after_is_kept_to() -> None:
    with sendgrid_server(Say(503, "", {"Retry-After": "60"})) as server:
        report = send(server, 6)
    assert report.kinds() == dict.fromkeys(range(1, 5), "Unknown")
    assert isinstance(report.error, TransportUnavailable)
    assert report.error.until == SOON
    assert (report.pulled, len(server.requests)) == (4, 1)


def test_an_outage_does_not_ask_for_a_slower_pace() -> None:
    with sendgrid_server(Say(503), Say(503)) as server:
        report = send(server, 8)
    assert isinstance(report.error, TransportUnavailable)
    assert not report.error.crowded


def test_a_refusal_of_the_sender_is_more_than_a_pause() -> None:
    with sendgrid_server(Say(401, "", empty())) as server:
        report = send(server, 4)
    assert isinstance(report.error, TransportRejected)


def test_one_lane_that_is_told_to_wait_holds_the_others_and_a_later_run() -> None:
    with sendgrid_server() as server:
        shared: Transport = transport(server)
        server.always = empty()
        first = hand_over(shared, people(4))
        several = hand_over(shared, people(40), lanes=5)
    assert first.kinds() == dict.fromkeys(range(1, 5), "Accepted")
    assert [type(error) for error in several.errors] == [TransportUnavailable] * 5
    assert (several.pulled, len(server.requests)) == (0, 1)


def test_when_the_moment_has_come_the_same_transport_goes_on() -> None:
    now = [NOW]
    with sendgrid_server() as server:
        shared = transport(server, clock=lambda: now[0])
        server.always = empty()
        hand_over(shared, people(4))
        server.always = {}
        now[0] = SOON - timedelta(microseconds=1)
        assert hand_over(shared, people(4)).pulled == 0
        now[0] = SOON
        assert hand_over(shared, people(4)).error is None
    assert len(server.requests) == 2


def test_processes_that_are_told_the_same_second_come_back_at_different_moments() -> None:
    found = set()
    for jitter in (0.125, 0.875):
        with sendgrid_server(Say(429, "", empty())) as server:
            settings = SendGridSettings(KEY, url=server.url)
            report = hand_over(
                SendGridTransport(settings, clock=lambda: NOW, jitter=lambda lag=jitter: lag), people(1)
            )
        assert isinstance(report.error, TransportUnavailable)
        found.add(report.error.until)
    assert found == {SOON + timedelta(seconds=0.125), SOON + timedelta(seconds=0.875)}

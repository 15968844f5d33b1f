"""What each answer of SendGrid means, what it is given, and that the key and the readers stay private."""

from __future__ import annotations

import base64
import email
import email.policy
import html
import json
import socket
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsletter.errors import TransportError, TransportRejected, TransportUnavailable
from newsletter.model import Accepted, Picture
from newsletter.transports import sendgrid_http
from newsletter.transports.sendgrid import SendGridSettings, SendGridTransport
from newsletter.transports.sendgrid_payload import Payload
from tests.support.copies import Report, hand_over, people, recipient, wire
from tests.support.sendgrid_server import KEY, Fault, Say, SendGrid, errors, sendgrid_server, write_out
from tests.support.smtp_server import HOST, closed_port, make_certificate, server_context, smtp_server

if TYPE_CHECKING:
    from pathlib import Path

    from newsletter.model import Recipient

NOW = datetime(2026, 12, 1, 9, tzinfo=UTC)


def transport(server: SendGrid, **changes: Any) -> SendGridTransport:
    known = {"url": server.url, "batch": 4, "timeout": 5, **changes}
    return SendGridTransport(SendGridSettings(KEY, **known), clock=lambda: NOW, jitter=lambda: 0.0)


def send(server: SendGrid, copies: int | list[Recipient] = 4, **changes: Any) -> Report:
    who = people(copies) if isinstance(copies, int) else copies
    return hand_over(transport(server, **changes), who)


def sizes(server: SendGrid) -> list[int]:
    return [len(request["personalizations"]) for request in server.requests]


# --- answers -----------------------------------------------------------------------------------------------------


def test_202_is_accepted_with_the_id_that_events_will_begin_with() -> None:
    with sendgrid_server() as server:
        report = send(server, 6)
    assert report.outcomes[1] == Accepted(people(1)[0].delivery, "id-1")
    assert report.outcomes[6] == Accepted(people(6)[5].delivery, "id-2")
    assert sizes(server) == [4, 2]


def test_the_people_whom_a_400_names_are_refused_and_the_others_go_again_at_once() -> None:
    with sendgrid_server() as server:
        server.bad = {"reader2@example.net", "reader4@example.net"}
        report = send(server, 5, batch=5)
    assert report.error is None
    assert report.kinds() == {1: "Accepted", 2: "Refused", 3: "Accepted", 4: "Refused", 5: "Accepted"}
    assert report.outcomes[2].reason == "400 Does not contain a valid address: …"
    assert sizes(server) == [5, 3]
    assert sorted(server.addresses()) == [f"reader{number}@example.net" for number in (1, 3, 5)]


@pytest.mark.parametrize("bad", [[3], [1], [8], [2, 7], [1, 2, 3, 4, 5, 6, 7]])
def test_a_400_that_names_nobody_is_halved_until_the_culprit_is_alone(bad: list[int]) -> None:
    with sendgrid_server() as server:
        server.bad = {f"reader{number}@example.net" for number in bad}
        server.naming = "nobody"
        report = send(server, 8, batch=8)
    assert report.error is None
    assert [number for number, kind in report.kinds().items() if kind == "Refused"] == bad
    good = [number for number in range(1, 9) if number not in bad]
    assert sorted(server.addresses()) == [f"reader{number}@example.net" for number in good]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<html>Bad Request</html>",
        "null",
        "[]",
        '{"errors": null}',
        '{"errors": 3}',
        '{"errors": ["x"]}',
        '{"errors": [{"message": null}]}',
        '{"errors": [{"field": "personalizations"}]}',
        '{"errors": [{"field": "personalizations.99.to", "message": "who?"}]}',
        '{"errors": [{"field": 7}]}',
        '{"errors": [{"field": "personalizations.' + "9" * 5000 + '.to"}]}',
        "[" * 100_000,
    ],
)
def test_a_400_with_any_body_at_all_refuses_only_who_stays_alone_with_it(body: str) -> None:
    with sendgrid_server(Say(400, body), Say(400, body)) as server:
        report = send(server, 4)
    assert report.error is None
    assert report.kinds() == dict.fromkeys(range(1, 5), "Accepted")
    assert sizes(server) == [4, 2, 1, 1, 2]


def test_a_400_about_what_all_share_pauses_the_campaign_instead_of_refusing_everyone() -> None:
    with sendgrid_server(
        Say(400, errors(("from.email", "The from email digest@example.org is invalid")))
    ) as server:
        report = send(server, 4)
    assert isinstance(report.error, TransportRejected)
    assert "from.email: The from email … is invalid" in str(report.error)
    assert set(report.kinds().values()) == {"NotTaken"}
    assert len(server.requests) == 1


def test_a_413_is_halved() -> None:
    with sendgrid_server() as server:
        server.most_members = 2
        report = send(server, 7, batch=7)
    assert report.kinds() == dict.fromkeys(range(1, 8), "Accepted")
    assert sizes(server) == [7, 3, 1, 2, 4, 2, 2]


def test_a_413_for_one_copy_alone_pauses_the_campaign() -> None:
    with sendgrid_server() as server:
        server.most_members = 0
        report = send(server, 3)
    assert isinstance(report.error, TransportRejected)
    assert report.kinds() == dict.fromkeys(range(1, 4), "NotTaken")


@pytest.mark.parametrize("status", [200, 201, 204, 302, 401, 403, 404, 405, 415])
def test_an_answer_that_means_us_pauses_the_campaign_and_nothing_was_taken(status: int) -> None:
    with sendgrid_server() as elsewhere:
        act = Say(
            status, "" if status == 204 else errors(("", "no, ann@example.org")), {"Location": elsewhere.url}
        )
        with sendgrid_server(act) as server:
            report = send(server, 6)
    assert isinstance(report.error, TransportRejected)
    assert str(status) in str(report.error)
    assert "@" not in str(report.error)
    assert report.kinds() == dict.fromkeys(range(1, 5), "NotTaken")
    assert not any(outcome.charged for outcome in report.outcomes.values())
    # Followed redirects would have shown the key to whoever is there.
    assert (len(server.requests), elsewhere.authorizations) == (1, [])


@pytest.mark.parametrize("taken", [True, False])
@pytest.mark.parametrize("kind", ["cut", "hang", "drip", "half", "noise"])
def test_no_whole_answer_means_unknown_for_every_member_and_the_next_window_goes_on(
    kind: str, taken: bool
) -> None:
    started = time.monotonic()
    with sendgrid_server(Fault(kind, taken)) as server:
        report = send(server, 6, timeout=0.5)
    assert time.monotonic() - started < 5
    assert report.error is None
    assert report.kinds() == {**dict.fromkeys(range(1, 5), "Unknown"), 5: "Accepted", 6: "Accepted"}
    assert len(server.book) == (6 if taken else 2)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_error_means_unknown_for_every_member(status: int) -> None:
    with sendgrid_server(Say(status, "<html>Bad Gateway</html>")) as server:
        report = send(server, 6)
    assert report.error is None
    assert report.kinds() == {**dict.fromkeys(range(1, 5), "Unknown"), 5: "Accepted", 6: "Accepted"}
    assert str(status) in report.outcomes[1].reason


def test_two_doubts_in_a_row_are_an_outage_and_end_the_lane() -> None:
    with sendgrid_server(Say(503), Say(202), Say(503), Fault("cut")) as server:
        report = send(server, 9, batch=2)
    assert isinstance(report.error, TransportUnavailable)
    expected = {
        1: "Unknown",
        2: "Unknown",
        3: "Accepted",
        4: "Accepted",
        **dict.fromkeys(range(5, 9), "Unknown"),
    }
    assert report.kinds() == expected
    assert report.pulled == 8


def test_an_outage_amid_the_parts_of_a_window_leaves_the_rest_of_it_not_taken() -> None:
    with sendgrid_server(Say(413), Say(503), Say(503)) as server:
        report = send(server, 8, batch=8)
    assert isinstance(report.error, TransportUnavailable)
    assert list(report.kinds().values()) == ["Unknown"] * 8
    with sendgrid_server(Say(413), Say(202, "", {"X-Message-Id": "a"}), Say(401)) as server:
        report = send(server, 8, batch=8)
    assert list(report.kinds().values()) == ["Accepted"] * 4 + ["NotTaken"] * 4


def test_no_connection_means_not_taken() -> None:
    report = hand_over(
        SendGridTransport(SendGridSettings(KEY, url=f"http://{HOST}:{closed_port()}")), people(2)
    )
    assert isinstance(report.error, TransportUnavailable)
    assert report.kinds() == {1: "NotTaken", 2: "NotTaken"}
    assert not any(outcome.charged for outcome in report.outcomes.values())


@pytest.mark.parametrize("host", ["nowhere.invalid", "api..invalid"])
def test_a_name_that_does_not_resolve_means_not_taken(host: str) -> None:
    report = hand_over(SendGridTransport(SendGridSettings(KEY, url=f"https://{host}")), people(1))
    assert isinstance(report.error, TransportUnavailable)
    assert report.kinds() == {1: "NotTaken"}


def test_a_certificate_that_nobody_vouches_for_means_not_taken_and_shows_nothing(tmp_path: Path) -> None:
    with smtp_server(tls=server_context(*make_certificate(tmp_path))) as mailbox:
        url = f"https://localhost:{mailbox.port}"
        report = hand_over(SendGridTransport(SendGridSettings(KEY, url=url, timeout=5)), people(1))
    assert isinstance(report.error, TransportUnavailable)
    assert "certificate" in str(report.error).lower()
    assert report.kinds() == {1: "NotTaken"}


# --- the guard ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", "SG.with space", "SG.line\nend", "SG.nöt-ascii"])
def test_without_a_usable_key_nothing_is_pulled_and_the_key_is_not_shown(key: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("SENDGRID_API_KEY", KEY)  # the package would take it from here
    report = hand_over(SendGridTransport(SendGridSettings(key)), people(2))
    assert isinstance(report.error, TransportRejected)
    assert report.pulled == 0
    assert "SG." not in str(report.error) + report.error.hint + repr(SendGridSettings(key))


@pytest.mark.parametrize(
    "url", ["http://api.sendgrid.com", "http://192.0.2.1", "ftp://localhost", "api.sendgrid.com", "https://"]
)
def test_the_key_does_not_travel_in_the_clear(url: str) -> None:
    report = hand_over(SendGridTransport(SendGridSettings(KEY, url=url)), people(1))
    assert isinstance(report.error, TransportRejected)
    assert report.pulled == 0


def test_the_key_reaches_sendgrid_and_a_slash_at_the_end_of_the_url_does_no_harm() -> None:
    with sendgrid_server() as server:
        report = hand_over(SendGridTransport(SendGridSettings(KEY, url=server.url + "/")), people(1))
    assert report.kinds() == {1: "Accepted"}
    assert server.authorizations == [f"Bearer {KEY}"]


def test_an_answer_that_comes_before_the_request_is_read_counts() -> None:
    """A server may refuse a large request without reading all of it."""
    with socket.create_server((HOST, 0)) as listener:

        def refuse() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        url = f"http://{HOST}:{listener.getsockname()[1]}"
        # More than the sockets' buffers hold: the connection breaks while we write.
        large = wire(text="x" * 8_000_000 + " @@unsubscribe_url@@")
        report = hand_over(SendGridTransport(SendGridSettings(KEY, url=url, timeout=5)), people(1), large)
        thread.join()
    assert isinstance(report.error, TransportRejected)


def test_a_request_over_the_documented_size_is_halved_without_an_upload(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with sendgrid_server() as server:
        send(server, 2, batch=2)
        two = len(json.dumps(server.requests[0]))
        monkeypatch.setattr(sendgrid_http, "MOST_BYTES", two + 50)
        report = send(server, 4)
    assert report.kinds() == dict.fromkeys(range(1, 5), "Accepted")
    assert sizes(server) == [2, 2, 2]


# --- what leaves -------------------------------------------------------------------------------------------------


def parts(message: bytes) -> dict[str, str]:
    parsed = email.message_from_bytes(message, policy=email.policy.default)
    leaves = [part for part in parsed.walk() if not part.is_multipart()]
    return {part.get_content_type(): part.get_content().replace("\r\n", "\n") for part in leaves}


NAMES = [
    "O’Brien",
    "<b>Zoë</b>",
    "李小龙",
    "",
    "A & B",
    '"quoted"',
    "@@name@@",
    "@@h0.0@@",
    "{{name}}",
    "100%",
]


def test_each_person_gets_what_smtp_would_have_brought() -> None:
    message = wire()
    copies = [recipient(number, name=name) for number, name in enumerate(NAMES, 1)]
    with sendgrid_server() as server:
        report = hand_over(transport(server, batch=20), copies, message)
    assert set(report.kinds().values()) == {"Accepted"}
    for copy, written in zip(copies, server.book, strict=True):
        sent = b"".join(message.pieces(copy))
        parsed = email.message_from_bytes(sent, policy=email.policy.default)
        assert written.html.strip() == parts(sent)["text/html"].strip()
        assert written.text.strip() == parts(sent)["text/plain"].strip()
        assert written.subject == parsed["Subject"]
        assert written.address == copy.address
        assert written.delivery == copy.id
        ours = {name: value for name, value in parsed.items() if name not in MIME_AND_SENDGRIDS_OWN}
        assert written.headers == ours


MIME_AND_SENDGRIDS_OWN = {"From", "To", "Reply-To", "Subject", "Date", "MIME-Version", "Content-Type"}


def test_a_name_is_escaped_in_the_html_part_and_nowhere_else() -> None:
    with sendgrid_server() as server:
        send(server, [recipient(1, name="<b>Zoë & co</b>")])
    (written,) = server.book
    assert "Dear &lt;b&gt;Zoë &amp; co&lt;/b&gt;," in written.html
    assert "Dear <b>Zoë & co</b>," in written.text
    assert written.subject == "Iron for <b>Zoë & co</b>"


@given(st.lists(st.text(alphabet="@h0t.sname|<&x", max_size=12), min_size=1, max_size=4))
def test_whatever_a_name_holds_it_is_replaced_once(found: list[str]) -> None:
    payload = Payload(wire())
    request = payload.request(
        [payload.copy(recipient(number, name=name)) for number, name in enumerate(found)]
    )
    for name, written in zip(found, write_out(json.loads(bytes(request))), strict=True):
        assert f"Dear {name or 'reader'},\n" in written.text
        assert f"<p>Dear {html.escape(name) or 'reader'},</p>" in written.html
        assert written.subject == f"Iron for {name or 'reader'}"


def test_a_tag_with_two_fallbacks_keeps_both() -> None:
    message = wire(text="Dear @@name|reader@@, or @@name|friend@@; @@name|reader@@. @@unsubscribe_url@@")
    with sendgrid_server() as server:
        hand_over(transport(server), [recipient(1, name=""), recipient(2, name="Ann")], message)
    assert server.book[0].text.startswith("Dear reader, or friend; reader.")
    assert server.book[1].text.startswith("Dear Ann, or Ann; Ann.")


def test_the_content_travels_once_and_readers_do_not_see_each_other() -> None:
    with sendgrid_server() as server:
        send(server, 4)
    (request,) = server.requests
    assert [part["type"] for part in request["content"]] == ["text/plain", "text/html"]
    assert [member["to"] for member in request["personalizations"]] == [
        [{"email": one.address}] for one in people(4)
    ]
    for number, member in enumerate(request["personalizations"], 1):
        assert f"{number:035}" in member["headers"]["List-Unsubscribe"]
        assert member["headers"]["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        assert "List-Unsubscribe" not in request["headers"]
        assert str(member).count("example.net") == 1


def test_sendgrid_is_told_nothing_but_an_opaque_id_and_to_track_nothing() -> None:
    with sendgrid_server() as server:
        send(server, 1)
    (request,) = server.requests
    assert request["personalizations"][0]["custom_args"] == {"delivery": people(1)[0].id}
    assert request["tracking_settings"] == {
        "click_tracking": {"enable": False, "enable_text": False},
        "open_tracking": {"enable": False},
        "subscription_tracking": {"enable": False},
        "ganalytics": {"enable": False},
    }
    assert not {"asm", "categories", "mail_settings", "send_at", "template_id", "attachments"} & set(request)
    assert request["from"] == {"email": "digest@example.org", "name": "Research Digest"}
    assert request["reply_to"] == {"email": "editor@example.org"}


def test_headers_that_all_share_stand_once_and_those_of_a_person_with_them() -> None:
    with sendgrid_server() as server:
        send(server, 1)
    (request,) = server.requests
    assert request["headers"]["List-ID"] == "Research Digest <digest.example.org>"
    assert set(request["personalizations"][0]["headers"]) == {
        "List-Unsubscribe",
        "List-Unsubscribe-Post",
        "Message-ID",
    }


def test_a_sender_with_accents_is_encoded_in_custom_headers_only() -> None:
    with sendgrid_server() as server:
        report = hand_over(transport(server), people(1), wire(from_name="Café Digest"))
    assert report.kinds() == {1: "Accepted"}
    (request,) = server.requests
    assert request["from"]["name"] == "Café Digest"
    found = request["headers"]["List-ID"]
    assert found.isascii()
    assert found.endswith(" <digest.example.org>")
    header = email.message_from_string(f"List-ID: {found}\n\n", policy=email.policy.default)["List-ID"]
    assert header == "Café Digest <digest.example.org>"


def test_pictures_travel_as_inline_attachments_unless_they_are_hosted() -> None:
    data = b"\x89PNG fake"
    picture = Picture("images/my scan.png", "image/png", data, 1, 1, "A scan")
    unused = Picture("images/other.png", "image/png", b"other", 1, 1, "Another")
    page = '<html><body><img src="image:images/my%20scan.png" alt="A scan">@@unsubscribe_url@@</body></html>'
    embedded = wire(html=page, pictures=(picture, unused))
    hosted = wire(html=page, pictures=(picture, unused), images_url="https://news.example.org/media")
    with sendgrid_server() as server:
        for message in (embedded, hosted):
            assert hand_over(transport(server), people(1), message).kinds() == {1: "Accepted"}
    (attachment,) = server.requests[0]["attachments"]
    assert base64.b64decode(attachment["content"]) == data
    assert (attachment["type"], attachment["disposition"]) == ("image/png", "inline")
    assert f'src="cid:{attachment["content_id"]}"' in server.book[0].html
    assert "scan" not in attachment["filename"]
    assert "attachments" not in server.requests[1]
    assert 'src="https://news.example.org/media/' in server.book[1].html


def test_values_over_the_documented_limit_are_refused_for_that_person_only() -> None:
    with sendgrid_server() as server:
        report = send(server, [recipient(1), recipient(2, name="x" * 4000), recipient(3)])
    assert report.kinds() == {1: "Accepted", 2: "Refused", 3: "Accepted"}
    assert "10,000" in report.outcomes[2].reason


def test_half_a_character_is_refused_for_that_person_only() -> None:
    message = wire(subject="Iron")
    with sendgrid_server() as server:
        report = hand_over(transport(server), [recipient(1), recipient(2, name="\ud800")], message)
    assert report.kinds() == {1: "Accepted", 2: "Refused"}


def test_an_empty_window_is_no_request_and_not_the_end() -> None:
    found: list[Any] = []
    first, second = people(2)
    with sendgrid_server() as server:
        transport(server).run(wire(), iter([[], [first], [], [], [second], []]), found.extend)
    assert [type(outcome) for outcome in found] == [Accepted, Accepted]
    assert (sizes(server), server.connections) == ([1, 1], 1)


def test_an_address_that_stands_twice_in_a_window_goes_in_two_requests() -> None:
    copies = [recipient(1, "ann@example.net"), recipient(2), recipient(3, "Ann@example.net"), recipient(4)]
    with sendgrid_server() as server:
        report = send(server, copies)
    assert set(report.kinds().values()) == {"Accepted"}
    assert sizes(server) == [3, 1]


def test_a_window_never_holds_more_than_sendgrid_takes() -> None:
    assert SendGridTransport(SendGridSettings(KEY, batch=5000)).window == 1000


def test_the_errors_of_a_lane_are_transport_errors() -> None:
    with sendgrid_server(Say(429)) as server:
        assert isinstance(send(server, 1).error, TransportError)

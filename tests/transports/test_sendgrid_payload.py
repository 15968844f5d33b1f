"""The request body, built from pieces that are encoded once, says what one built the plain way would say."""

from __future__ import annotations

import base64
import html
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsletter import merge
from newsletter.addresses import ascii_domain
from newsletter.headers import with_phrase
from newsletter.model import Picture
from newsletter.transports.sendgrid_payload import MOST_VALUES, RESERVED, TRACKING_OFF, Copy, Payload, rename
from tests.support.copies import people, recipient, wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from newsletter.message import Wire
    from newsletter.model import Recipient


def plain(message: Wire, copies: Sequence[Recipient]) -> dict[str, Any]:
    """The whole request as one value, nothing prepared: what the fast one is held against."""
    nonce = message.email.digest[:16]
    settings = message.settings
    known = message.values(copies[0])
    shared = {name: known[name] for name in ("issue_title", "view_url")}
    parts = [
        rename(message.html(), f"h{nonce}", shared, html.escape),
        rename(message.text(), f"t{nonce}", shared),
        rename(message.email.subject, f"s{nonce}", shared),
    ]
    shown = [one for one in message.email.pictures if f"cid:{message.content_id(one)}" in message.html()]
    own = {"List-Unsubscribe", "List-Unsubscribe-Post", "Message-ID"}
    headers = [custom_headers(message, copy) for copy in copies]
    return {
        "personalizations": [
            {
                "to": [{"email": dict(message.headers(copy))["To"]}],
                "headers": {name: value for name, value in found.items() if name in own},
                "substitutions": {
                    tag: merge.fill((slot,), message.values(copy), part.escape)
                    for part in parts
                    for slot, tag in part.tags.items()
                },
                "custom_args": {"delivery": copy.id},
            }
            for copy, found in zip(copies, headers, strict=True)
        ],
        "headers": {name: value for name, value in headers[0].items() if name not in own},
        "from": {"email": ascii_domain(settings.from_address), "name": settings.from_name},
        **({"reply_to": {"email": ascii_domain(settings.reply_to)}} if settings.reply_to else {}),
        "subject": parts[2].text,
        "content": [
            {"type": "text/plain", "value": parts[1].text},
            {"type": "text/html", "value": parts[0].text},
        ],
        **({"attachments": [attachment(message, one) for one in shown]} if shown else {}),
        "tracking_settings": TRACKING_OFF,
    }


def custom_headers(message: Wire, copy: Recipient) -> dict[str, str]:
    list_id = with_phrase("List-ID", message.settings.from_name, message.settings.list_id)
    found = {**dict(message.headers(copy)), "List-ID": " ".join(list_id.tokens)}
    return {name: value for name, value in found.items() if name.lower() not in RESERVED}


def attachment(message: Wire, picture: Picture) -> dict[str, str]:
    return {
        "content": base64.b64encode(picture.data).decode("ascii"),
        "type": picture.media_type,
        "filename": f"{picture.sha256[:16]}.png",
        "disposition": "inline",
        "content_id": message.content_id(picture),
    }


def body(message: Wire, copies: Sequence[Recipient]) -> bytes:
    payload = Payload(message)
    return bytes(payload.request([payload.copy(one) for one in copies]))


printable = st.text(st.characters(blacklist_categories=("C", "Zl", "Zp")), max_size=20)
hostile = st.text("\"\\/%{}[],:@<>&'\u2028é李😀\x7fst0", max_size=20)
pieces = st.sampled_from(
    [
        "@@name|reader@@",
        "@@name@@",
        "@@view_url@@",
        "@@issue_title@@",
        '@@colour|%s “"\\@@',
        "%s",
        '"',
        "\\",
        "é",
    ]
)
texts = st.lists(pieces, max_size=6).map(lambda found: "".join(["Iron ", *found, " @@unsubscribe_url@@"]))
subjects = st.lists(pieces, max_size=3).map(lambda found: "".join(["Iron ", *found]))

links = st.sampled_from(
    [
        "https://news.example.org/u/0123456789-_",
        "https://news.example.org/u/?t=a&b=%41'",
        "https://news.example.org:8443//u",
        "https://localhost",
        "https://news.example.org/u/",
    ]
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[Wire, list[Recipient]]:
    """An email and those who get it."""
    message = wire(
        subject=draw(subjects),
        text=draw(texts),
        html=draw(texts),
        from_name=draw(st.sampled_from(["Research Digest", "Café “Digest”", ""])),
        reply_to=draw(st.sampled_from(["", "editor@bücher.example"])),
        unsubscribe_mailto=draw(st.sampled_from(["", "leave@example.org"])),
    )
    domains = st.sampled_from(["example.net", "bücher.example"])
    return message, [
        recipient(
            number,
            f"reader{number}@{draw(domains)}",
            name=draw(printable | hostile.filter(str.isprintable)),
            colour=draw(printable),
            unsubscribe_url=draw(links),
        )
        for number in range(1, draw(st.integers(1, 4)) + 1)
    ]


@given(requests())
def test_a_window_is_what_its_copies_are_one_by_one(case: tuple[Wire, list[Recipient]]) -> None:
    message, copies = case
    payload = Payload(message)
    assert payload.window(copies) in (None, [payload.copy(one) for one in copies])


def test_people_without_anything_unusual_go_the_quick_way() -> None:
    payload = Payload(wire(subject="Iron for @@name|you@@", unsubscribe_mailto="leave@example.org"))
    names = ["José Ñúñez", "O’Neill & Sons <x>", "", "李 雷"]
    copies = [recipient(number, name=name) for number, name in enumerate(names, 1)]
    assert payload.window(copies) == [payload.copy(one) for one in copies]


@pytest.mark.parametrize("name", ["half \ud800", "a\0b", "x" * 10_000, "=?utf-8?q?a?="])
def test_one_who_needs_care_sends_the_whole_window_the_careful_way(name: str) -> None:
    payload = Payload(wire(subject="Iron for @@name|you@@"))
    assert payload.window([recipient(1), recipient(2, name=name)]) is None


@given(case=requests())
def test_a_request_says_what_one_built_the_plain_way_says(case: tuple[Wire, list[Recipient]]) -> None:
    message, copies = case
    assert json.loads(body(message, copies)) == plain(message, copies)


@given(value=hostile)
def test_no_value_can_break_out_of_its_string(value: str) -> None:
    message = wire(subject="Iron")  # so that what no header can hold is in the parts
    copies = [recipient(1, name=value), recipient(2)]
    found = body(message, copies)
    assert found.isascii()
    assert json.loads(found) == plain(message, copies)


def test_pictures_travel_once_for_all() -> None:
    picture = Picture("images/scan.png", "image/png", b"\x89PNG fake", 1, 1, "A scan")
    page = '<html><body><img src="image:images/scan.png" alt="A scan">@@unsubscribe_url@@</body></html>'
    message = wire(html=page, pictures=(picture,))
    assert json.loads(body(message, people(3))) == plain(message, people(3))


def test_what_all_share_is_encoded_once_and_not_for_each_request() -> None:
    payload = Payload(wire())
    first, second = (bytes(payload.request([payload.copy(one)])) for one in people(2))
    common = b'}}],"headers":'
    assert first.partition(common)[2] == second.partition(common)[2] != b""


@pytest.mark.parametrize("over", [0, 1])
def test_the_limit_for_values_is_the_documented_one_to_the_byte(over: int) -> None:
    message = wire(text="@@name@@ @@unsubscribe_url@@", html="@@unsubscribe_url@@", subject="Iron")
    (member,) = plain(message, [recipient(1, name="")])["personalizations"]
    values = {**member["substitutions"], **member["custom_args"]}
    size = sum(len(word.encode()) for pair in values.items() for word in pair)
    full = recipient(1, name="é" * ((MOST_VALUES - size) // 2) + "x" * ((MOST_VALUES - size) % 2 + over))
    if over:
        with pytest.raises(ValueError, match="10,001 bytes"):
            Payload(message).copy(full)
    else:
        assert Payload(message).copy(full)


# --- the last look before a request leaves -------------------------------------------------------------------------


def leaves(*copies: Copy) -> None:
    """Nothing: it must not."""
    with pytest.raises(AssertionError, match="each reader once"):
        Payload(wire()).request(copies)


def tampered(old: str, new: str) -> Copy:
    """A copy as a mistake in the template would make it."""
    copy = Payload(wire()).copy(people(1)[0])
    assert old.encode() in copy.personalization
    return replace(copy, personalization=copy.personalization.replace(old.encode(), new.encode(), 1))


def test_a_request_that_would_name_a_reader_twice_is_not_made() -> None:
    payload = Payload(wire())
    copies = [payload.copy(one) for one in people(2)]
    leaves(*copies, copies[0])
    leaves(*copies, payload.copy(recipient(3, "READER1@example.net")))


def test_a_request_that_would_show_readers_to_each_other_is_not_made() -> None:
    end = 'reader1@example.net"}]'
    leaves(tampered(end, 'reader1@example.net"},{"email":"reader2@example.net"}]'))
    leaves(tampered(end, f'{end},"cc":[{{"email":"reader2@example.net"}}]'))
    leaves(tampered('"custom_args"', '"bcc":[{"email":"reader2@example.net"}],"custom_args"'))
    leaves(tampered('"custom_args"', '"to":[{"email":"reader2@example.net"}],"custom_args"'))


def test_a_request_that_would_go_to_somebody_else_is_not_made() -> None:
    leaves(tampered("reader1@", "reader2@"))


def test_a_reader_whose_values_look_like_a_second_reader_still_gets_their_copy() -> None:
    message = wire(subject="Iron")
    name = '"}],"to":[{"email":"reader2@example.net"}],"cc":[{"email":"x@example.net"}]'
    found = json.loads(body(message, [recipient(1, name=name)]))
    assert [member["to"] for member in found["personalizations"]] == [[{"email": "reader1@example.net"}]]
    assert found == plain(message, [recipient(1, name=name)])

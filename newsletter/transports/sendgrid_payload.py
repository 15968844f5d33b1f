"""A window of copies → the body of one ``mail/send`` request. Pure: nothing in here knows about HTTP.

The content travels once. What differs per person is ``substitutions``, which SendGrid replaces literally and in all
parts alike, and again inside what it has replaced (four levels deep). So every part has tags of its own, whose values
are escaped for that part, and the tags hold a nonce that nobody's name can hold.
"""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from newsletter import merge
from newsletter.addresses import ascii_domain
from newsletter.headers import with_phrase
from newsletter.message import picture_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from newsletter.message import Wire
    from newsletter.model import Picture, Recipient

MOST_VALUES = 10_000  # bytes of substitutions and custom_args per person, as SendGrid documents

# What SendGrid writes itself; it answers 400 to most of them. A second Date would break RFC 5322.
RESERVED = frozenset(
    {"x-sg-id", "x-sg-eid", "received", "dkim-signature", "content-type", "content-transfer-encoding"}
    | {"mime-version", "date", "to", "from", "subject", "reply-to", "cc", "bcc"}
)
# These stand with each person even if they are alike by chance, as in a window of one.
PERSONAL = frozenset({"List-Unsubscribe", "List-Unsubscribe-Post", "Message-ID"})

# Off in every request: the account's own settings may have them on.
TRACKING_OFF = {
    "click_tracking": {"enable": False, "enable_text": False},
    "open_tracking": {"enable": False},
    "subscription_tracking": {"enable": False},
    "ganalytics": {"enable": False},
}


@dataclass(frozen=True, slots=True)
class Copy:
    """One person's part of a request. Its ``repr``, which a traceback may show, says nothing of the person."""

    delivery: bytes
    address: str = field(repr=False)  # its domain as A-labels
    substitutions: Mapping[str, str] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the email with its merge tags renamed for it alone."""

    text: str
    tags: Mapping[merge.Slot, str]
    escape: Callable[[str], str]

    def values(self, known: Mapping[str, str]) -> dict[str, str]:
        """Tag → this person's value."""
        return {tag: merge.fill((slot,), known, self.escape) for slot, tag in self.tags.items()}


def rename(text: str, prefix: str, escape: Callable[[str], str] = str) -> Part:
    """Gives each different merge tag of a text a number of its own: ``@@h0123456789abcdef.0@@``."""
    tags: dict[merge.Slot, str] = {}
    pieces = [
        piece if isinstance(piece, str) else tags.setdefault(piece, f"@@{prefix}.{len(tags)}@@")
        for piece in merge.split(text)
    ]
    return Part("".join(pieces), tags, escape)


class Payload:
    """An email as SendGrid takes it."""

    def __init__(self, wire: Wire) -> None:
        nonce = wire.email.digest[:16]
        html_part = rename(wire.html(), f"h{nonce}", html.escape)
        text_part = rename(wire.text(), f"t{nonce}")
        subject = rename(wire.email.subject, f"s{nonce}")
        self._wire = wire
        self._parts = (html_part, text_part, subject)
        self._shared = {
            "from": {"email": ascii_domain(wire.settings.from_address), "name": wire.settings.from_name},
            **_reply_to(wire.settings.reply_to),
            "subject": subject.text,
            # SendGrid wants the plain text first.
            "content": [
                {"type": "text/plain", "value": text_part.text},
                {"type": "text/html", "value": html_part.text},
            ],
            **_attachments(wire),
            "tracking_settings": TRACKING_OFF,
        }
        # Custom headers are passed on as they are, so this one is encoded as it is in our own messages.
        list_id = with_phrase("List-ID", wire.settings.from_name, wire.settings.list_id)
        self._list_id = " ".join(list_id.tokens)

    def copy(self, recipient: Recipient) -> Copy:
        """One person's part. Raises ``ValueError`` if their values can't be sent."""
        headers = dict(self._wire.headers(recipient))  # refuses what no header can hold
        known = self._wire.values(recipient)
        substitutions = {tag: value for part in self._parts for tag, value in part.values(known).items()}
        _check_size({**substitutions, **_custom_args(recipient.delivery)})
        custom = {name: value for name, value in headers.items() if name.lower() not in RESERVED}
        return Copy(recipient.delivery, headers["To"], substitutions, {**custom, "List-ID": self._list_id})

    def request(self, copies: Sequence[Copy]) -> dict[str, Any]:
        """The JSON-able body for these copies, whose addresses all differ."""
        shared = _shared_headers(copies)
        people = [_personalization(copy, shared) for copy in copies]
        _check_private(people)
        return {"personalizations": people, "headers": shared, **self._shared}


def _check_private(people: Sequence[Mapping[str, Any]]) -> None:
    """The last look before a request leaves: no mistake above may show readers to each other, or write to one twice."""
    addresses = [one["email"].casefold() for member in people for one in member["to"]]
    alone = all(len(member["to"]) == 1 and not {"cc", "bcc"} & member.keys() for member in people)
    if not alone or len(set(addresses)) != len(people):
        raise AssertionError("a request to SendGrid must name each reader once, and nobody beside them")


def _check_size(values: Mapping[str, str]) -> None:
    size = sum(len(word.encode()) for pair in values.items() for word in pair)
    if size > MOST_VALUES:
        raise ValueError(f"the merge values take {size:,} bytes, and SendGrid takes at most {MOST_VALUES:,}")


def _shared_headers(copies: Sequence[Copy]) -> dict[str, str]:
    return {
        name: value
        for name, value in copies[0].headers.items()
        if name not in PERSONAL and all(copy.headers.get(name) == value for copy in copies)
    }


def _personalization(copy: Copy, shared: Mapping[str, str]) -> dict[str, Any]:
    return {
        # One `to` each: whoever shares one sees the others' addresses.
        "to": [{"email": copy.address}],
        "headers": {name: value for name, value in copy.headers.items() if name not in shared},
        "substitutions": copy.substitutions,
        "custom_args": _custom_args(copy.delivery),
    }


def _custom_args(delivery: bytes) -> dict[str, str]:
    # SendGrid keeps these for long and does not treat them as personal: an opaque id and nothing else.
    return {"delivery": delivery.hex()}


def _reply_to(address: str) -> dict[str, Any]:
    return {"reply_to": {"email": ascii_domain(address)}} if address else {}


def _attachments(wire: Wire) -> dict[str, Any]:
    shown = {wire.content_id(picture): picture for picture in wire.email.pictures}
    found = [_attachment(wire, cid, one) for cid, one in shown.items() if f"cid:{cid}" in wire.html()]
    return {"attachments": found} if found else {}


def _attachment(wire: Wire, content_id: str, picture: Picture) -> dict[str, str]:
    return {
        "content": base64.b64encode(picture.data).decode("ascii"),
        "type": picture.media_type,
        "filename": picture_path(wire.email, picture).rpartition("/")[2],
        "disposition": "inline",
        "content_id": content_id,
    }

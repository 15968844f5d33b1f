"""A window of copies → the body of one ``mail/send`` request. Pure: nothing in here knows about HTTP.

The content travels once. What differs per person is ``substitutions``, which SendGrid replaces literally and in all
parts alike, and again inside what it has replaced (four levels deep). So every part has tags of its own, whose values
are escaped for that part, and the tags hold a nonce that nobody's name can hold.

The content is encoded once as well: ``json.dumps`` of a whole request costs several times as much as all else that
is done for its readers. Each person's part is a JSON template, filled with strings that are encoded one by one.
"""

from __future__ import annotations

import base64
import html
import json
import re
from dataclasses import dataclass, field
from itertools import repeat
from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING, Any

from newsletter import merge
from newsletter.addresses import ascii_domain
from newsletter.headers import with_phrase
from newsletter.message import picture_path
from newsletter.model import Edition, Recipient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from newsletter.message import Wire
    from newsletter.model import Picture

MOST_VALUES = 10_000  # bytes of substitutions and custom_args per person, as SendGrid documents

# What SendGrid writes itself; it answers 400 to most of them. A second Date would break RFC 5322.
RESERVED = frozenset(
    {"x-sg-id", "x-sg-eid", "received", "dkim-signature", "content-type", "content-transfer-encoding"}
    | {"mime-version", "date", "to", "from", "subject", "reply-to", "cc", "bcc"}
)
# These stand with each person; all others are the same for everyone. A mail to an editor has the last one only.
UNSUBSCRIBE, ONE_CLICK = "List-Unsubscribe", "List-Unsubscribe-Post"
PERSONAL = (UNSUBSCRIBE, ONE_CLICK, "Message-ID")
# Addresses and links with which nothing can be wrong, a line for each person: see `Payload.window`.
SOUND = re.compile(r"(?:[A-Za-z0-9._+-]++@[A-Za-z0-9.-]++ https://[A-Za-z0-9.:/_-]++(?<![.:/])\n)*+")
# Whose headers show which shape all have. If one that is personal were ever taken for one of all, then it would tell
# nobody's secrets.
NOBODYS_TOKEN = "0f5c1d6f7c0a4b1f9b8e"  # noqa: S105 - of no one, and long enough to occur nowhere else
NOBODYS_LINK = f"https://example.org/u/{NOBODYS_TOKEN}"
NOBODY = Recipient(b"nobody's copy id", "nobody@example.org", {"unsubscribe_url": NOBODYS_LINK})

# Off in every request: the account's own settings may have them on.
TRACKING_OFF = {
    "click_tracking": {"enable": False, "enable_text": False},
    "open_tracking": {"enable": False},
    "subscription_tracking": {"enable": False},
    "ganalytics": {"enable": False},
}

NAMED = '"to":[{"email":'  # how a personalization begins
OWN = "\0"  # in a template: what is a person's own stands here; JSON never holds it as it is


@dataclass(slots=True)  # not frozen, which takes a microsecond a copy
class Copy:
    """One person's part of a request. Its ``repr``, which a traceback may show, says nothing of the person."""

    delivery: bytes
    address: str = field(repr=False)  # its domain as A-labels
    personalization: bytes = field(repr=False)  # JSON, all ASCII
    payload: Payload = field(repr=False)  # with the content of this person's edition


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the email with its merge tags renamed for it alone."""

    text: str
    tags: Mapping[merge.Slot, str]
    escape: Callable[[str], str]


def rename(text: str, prefix: str, shared: Mapping[str, str], escape: Callable[[str], str] = str) -> Part:
    """Gives each different merge tag of a text a number of its own: ``@@h0123456789abcdef.0@@``.

    What is ``shared`` by all copies stands in the text itself.
    """
    tags: dict[merge.Slot, str] = {}
    pieces = [
        piece if isinstance(piece, str) else tags.setdefault(piece, f"@@{prefix}.{len(tags)}@@")
        for piece in merge.bind(merge.split(text), shared, escape)
    ]
    return Part("".join(pieces), tags, escape)


class Payload:
    """An email as SendGrid takes it."""

    def __init__(self, wire: Wire) -> None:
        nonce = wire.email.digest[:16]
        shared = {name: value for name, value in wire.values(NOBODY).items() if name not in NOBODY.values}
        html_part = rename(wire.html(), f"h{nonce}", shared, html.escape)
        text_part = rename(wire.text(), f"t{nonce}", shared)
        subject = rename(wire.email.subject, f"s{nonce}", shared)
        headers = _custom_headers(wire)
        self._wire = wire
        self._in_subject = {slot.name for slot in subject.tags}
        self._personal = [name for name in PERSONAL if name in headers and name != ONE_CLICK]
        self._unsubscribe = _shape(headers.get(UNSUBSCRIBE, ""), NOBODYS_LINK, NOBODYS_TOKEN)
        self._message_id = _shape(headers["Message-ID"], NOBODY.id)
        self._owns = {
            tag: (slot.name, quoted(slot.fallback or ""), part.escape)
            for part in (html_part, text_part, subject)
            for slot, tag in part.tags.items()
        }
        self._names = {name for name, *_ in self._owns.values()}
        self._template = _template({name: headers[name] for name in PERSONAL if name in headers}, self._owns)
        common = json.dumps(
            {
                "headers": {name: value for name, value in headers.items() if name not in PERSONAL},
                "from": {"email": ascii_domain(wire.settings.from_address), "name": wire.settings.from_name},
                **_reply_to(wire.settings.reply_to),
                "subject": subject.text,
                "content": _content(wire, text_part, html_part),
                **_attachments(wire),
                "tracking_settings": TRACKING_OFF,
            }
        )
        self._common = common.encode("ascii")

    def window(self, people: Sequence[Recipient]) -> list[Copy] | None:
        """What ``copy`` makes of each of them, column by column, in a third of the time.

        None if anybody among them needs ``copy``: an unusual address or link, half a character, very long values.
        """
        addresses = [one.address for one in people]
        links = [one.values.get("unsubscribe_url", "") for one in people]
        if not SOUND.fullmatch("".join(map("%s %s\n".__mod__, zip(addresses, links, strict=True)))):
            return None
        numbers = [one.delivery.hex() for one in people]
        columns = {name: [one.values.get(name) or "" for one in people] for name in self._names}
        try:
            own = [_column(columns[name], fallback, escape) for name, fallback, escape in self._owns.values()]
        except ValueError:
            return None
        if not all(_is_plain(word) for name in self._in_subject for word in columns[name]):
            return None
        left = [self._unsubscribe.replace(OWN, link, 1) for link in links]
        if OWN in left[0]:  # it may be done by mail as well
            left = [one.replace(OWN, link.rpartition("/")[2]) for one, link in zip(left, links, strict=True)]
        sent = [self._message_id.replace(OWN, number) for number in numbers]
        rows = zip(map(quoted, addresses), left, sent, *own, numbers, strict=True)
        texts = list(map(self._template.__mod__, rows))
        if max(map(len, texts)) > MOST_VALUES:
            return None
        deliveries = [one.delivery for one in people]
        return list(map(Copy, deliveries, addresses, map(str.encode, texts), repeat(self)))

    def copy(self, recipient: Recipient) -> Copy:
        """One person's part, whoever they are. Raises ``ValueError`` if their values can't be sent."""
        headers, known = dict(self._wire.headers(recipient)), recipient.values
        address, number = headers["To"], recipient.delivery.hex()
        shown = (quoted(headers[name]) for name in self._personal)
        values = (
            quoted(escape(value)) if (value := known.get(name)) else fallback
            for name, fallback, escape in self._owns.values()
        )
        text = self._template % (quoted(address), *shown, *values, number)
        # JSON in ASCII is never shorter than UTF-8, and half a character is written as it is: \ud800.
        if len(text) > MOST_VALUES or "\\ud" in text:
            _check_values(json.loads(text))
        return Copy(recipient.delivery, address, text.encode("ascii"), self)

    def request(self, copies: Sequence[Copy]) -> memoryview:
        """The JSON body for these copies, whose addresses all differ; no traceback shows what is in it."""
        _check_private(copies)
        people = [copy.personalization for copy in copies]
        people[0] = b'{"personalizations":[' + people[0]
        people[-1] += b"]," + self._common[1:]
        return memoryview(b",".join(people))


def _content(wire: Wire, text: Part, page: Part) -> list[dict[str, str]]:
    """SendGrid wants the plain text first."""
    parts = [("text/plain", text), ("text/html", page)]
    if wire.email.edition == Edition.TEXT:
        del parts[1]
    return [{"type": kind, "value": part.text} for kind, part in parts]


def _is_plain(word: str) -> bool:
    """Whether nothing can be wrong with it in a subject: no control characters, no encoded words."""
    return (not word or word.isprintable()) and "=" not in word and "?" not in word


def _column(values: list[str], fallback: str, escape: Callable[[str], str]) -> Iterable[str]:
    """Everybody's value as JSON. Raises ``ValueError`` if one of them holds half a character, or the separator."""
    together = "\0".join(values)
    together.encode()
    escaped = escape(together).split("\0")
    if len(escaped) != len(values):
        raise ValueError("a value holds a control character")
    if "" in values:
        return [quoted(value) if value else fallback for value in escaped]
    return map(quoted, escaped)


def _template(shown: Mapping[str, str], tags: Iterable[str]) -> str:
    """A personalization with ``%s`` for each string in which people differ."""
    headers = {name: quoted(text) if name == ONE_CLICK else OWN for name, text in shown.items()}
    # One `to` each: whoever shares one sees the others' addresses.
    # SendGrid keeps custom_args for long and does not treat them as personal: an opaque id and nothing else.
    text = (
        f'{{{NAMED}{OWN}}}],"headers":{_object(headers)},"substitutions":{_object(dict.fromkeys(tags, OWN))},'
        f'"custom_args":{{"delivery":"{OWN}"}}}}'
    )
    return text.replace("%", "%%").replace(OWN, "%s")


def _object(members: Mapping[str, str]) -> str:
    """A JSON object, of values that are JSON already."""
    return "{" + ",".join(f"{quoted(name)}:{value}" for name, value in members.items()) + "}"


def _shape(header: str, *own: str) -> str:
    """One of nobody's headers as JSON, with a place for all that is their own."""
    text = quoted(header)
    for words in own:
        text = text.replace(words, OWN)
    return text


def _check_values(member: Mapping[str, Any]) -> None:
    values = {**member["substitutions"], **member["custom_args"]}
    size = sum(len(word.encode()) for pair in values.items() for word in pair)  # ValueError: half a character
    if size > MOST_VALUES:
        raise ValueError(f"the merge values take {size:,} bytes, and SendGrid takes at most {MOST_VALUES:,}")


def _custom_headers(wire: Wire) -> dict[str, str]:
    """Those that SendGrid passes on, of nobody."""
    # They are passed on as they are, so this one is encoded as it is in our own messages.
    headers = dict(wire.headers(NOBODY))
    if "List-ID" in headers:
        list_id = with_phrase("List-ID", wire.settings.from_name, wire.settings.list_id)
        headers["List-ID"] = " ".join(list_id.tokens)
    return {name: value for name, value in headers.items() if name.lower() not in RESERVED}


def _check_private(copies: Sequence[Copy]) -> None:
    """The last look before a request leaves: no mistake above may show readers to each other, or write to one twice.

    It looks at the very bytes that leave: who is named first, and that nobody follows, for which there would have to
    be another list (``to``, ``cc`` or ``bcc``). A [ may also stand in a value, but the key ``email`` can't, since a
    quote in a JSON string has a backslash before it.
    """
    addresses = {copy.address.casefold() for copy in copies}
    if len(addresses) != len(copies) or not all(map(_alone, copies)):
        raise AssertionError("a request to SendGrid must name each reader once, and nobody beside them")


def _alone(copy: Copy) -> bool:
    start, named = f"{{{NAMED}{quoted(copy.address)}}}],".encode("ascii"), copy.personalization
    return named.startswith(start) and (named.find(b"[", len(start)) < 0 or named.count(b'"email":') == 1)


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

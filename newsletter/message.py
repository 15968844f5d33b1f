"""An email and a recipient → the bytes of one message.

::

    multipart/alternative    the edition without html is a text/plain and nothing else
    ├── text/plain
    └── text/html            without pictures, else
        multipart/related
        ├── text/html
        └── image/…          one per picture that the html shows

Everything is 7-bit: texts are quoted-printable, pictures base64. The same email, settings and recipient give the same
bytes, on any machine and at any time, so a second try is the same message and not another one.

What all copies share is encoded once and cut where a copy differs; a copy is a list of these pieces and its own. Shapes
that nearly all addresses and links have go straight into their header, others take the careful way of ``headers``; a
property test holds the two against each other.
"""

from __future__ import annotations

import base64
import html
import re
from dataclasses import asdict, dataclass
from datetime import datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from newsletter import merge
from newsletter.headers import (
    LONGEST_LINE,
    PLAIN_MAILBOX,
    Header,
    clean,
    fixed,
    fold,
    mailbox,
    plain_line,
    unstructured,
    with_phrase,
)
from newsletter.model import Edition
from newsletter.pictures import resolve_pictures
from newsletter.quoted_printable import Gap, splice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from newsletter.model import Email, Picture, Recipient

    Plain = Callable[
        [Recipient], bytes | None
    ]  # a field's line, if its value has the shape that nearly all have
    Careful = Callable[[Recipient], Header]  # ValueError naming the value that can't stand there

EXTENSIONS = {"image/png": "png", "image/jpeg": "jpg", "image/gif": "gif"}
ONE_CLICK = "List-Unsubscribe=One-Click"  # RFC 8058, section 3.1: these very characters
HTTPS_URI = re.compile(r"https://[!-~]+")
NOT_IN_LIST_URI = re.compile(r'[<>,"]')  # RFC 2369, section 2: these end a URI or begin the next
# A link as ours are, and what stands behind its last slash, which no mailto link has to quote.
PLAIN_LINK = re.compile(r"https://[!#-+\--;=?-~]*/([A-Za-z0-9_.~-]+)")
LEADING_DOT = re.compile(rb"(?:\A|\n)\.")
LIST_ID = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+")


@dataclass(frozen=True)
class MessageSettings:
    """What every copy of a campaign says of its sender. Stored with the campaign, so that a restart changes nothing."""

    from_name: str  # short and discreet: what an inbox shows
    from_address: str
    reply_to: str  # empty: replies go to from_address
    list_id: str
    base_url: str  # https://…, no slash at the end
    unsubscribe_mailto: str  # empty: unsubscribing by mail is not offered
    date: datetime  # aware; the campaign's start
    envelope_from: str = ""  # empty: from_address
    images_url: str = ""  # empty: pictures travel inside the mail

    def to_dict(self) -> dict[str, str]:
        """A form that JSON can hold."""
        return {**asdict(self), "date": self.date.isoformat()}

    @classmethod
    def from_dict(cls, stored: Mapping[str, str]) -> MessageSettings:
        """The inverse of ``to_dict``."""
        rest = {name: value for name, value in stored.items() if name != "date"}
        return cls(**rest, date=datetime.fromisoformat(stored["date"]))


def needs_smtputf8(recipient: Recipient) -> bool:
    """Whether only a server with SMTPUTF8 (RFC 6531) can take this copy: its To holds more than ASCII.

    The domain never decides, because it travels as A-labels; a local part has no other form.
    """
    address = recipient.address
    return not address.isascii() and not address.rpartition("@")[0].isascii()


def picture_path(email: Email, picture: Picture) -> str:
    """``2026-12/0123456789abcdef.png``: where a hosted picture lies under ``images_url``."""
    slug = email.view_path.rpartition("/")[2]
    return f"{slug}/{picture.sha256[:16]}.{EXTENSIONS[picture.media_type]}"


def picture_url(email: Email, settings: MessageSettings, picture: Picture) -> str:
    """Where readers load a hosted picture from."""
    return f"{settings.images_url}/{picture_path(email, picture)}"


class Message(NamedTuple):
    """One copy, cut into pieces of bytes with CRLF line ends."""

    headers: list[bytes]  # one field each, folded, with its CRLF
    body: list[bytes]  # what follows the blank line; ends with CRLF


class Wire:
    """One email on its way to many: the only builder of messages. Nothing in it changes, so threads may share it.

    No line of a message begins with a dot, so that nobody has to double one (RFC 5321, section 4.5.2).

    Raises:
        ValueError: naming the setting (or the picture) that can't stand in a message.
    """

    def __init__(self, email: Email, settings: MessageSettings) -> None:
        self.email = email
        self.settings = settings
        self._sender = _ascii_mailbox("from_address", settings.from_address)
        self._domain = self._sender.rpartition("@")[2]
        bounces = settings.envelope_from
        self._bounces = _ascii_mailbox("envelope_from", bounces).rpartition("@") if bounces else None
        leave = settings.unsubscribe_mailto
        self._leave = quote(_ascii_mailbox("unsubscribe_mailto", leave), safe="@") if leave else ""
        self._shared = {"issue_title": email.title, "view_url": settings.base_url + email.view_path}
        self._embedded: dict[str, Picture] = {}  # by Content-ID: one picture shown twice travels once
        self._html = resolve_pictures(email.html, self._address_of)
        self._subject_parts = self._bind_subject()
        self._body, self._gaps = _frozen(self._spliced())
        self._fields = self._all_fields()
        self._folded = [b"" if field is None else fold(field) for field in self._fields.values()]
        self._folded.append(fold(fixed("MIME-Version", "1.0")))
        self._folded += self._structure()
        makers = self._makers()
        self._careful = {name: careful for name, (_, careful) in makers.items()}
        self._personal = [
            (position, *makers[name])
            for position, (name, field) in enumerate(self._fields.items())
            if field is None
        ]
        _check_dots([*self._folded, *self._body])

    def message(self, recipient: Recipient) -> Message:
        """One copy: the pieces that all share are the same objects each time.

        Raises:
            ValueError: naming the value of this recipient that can't stand in a message.
        """
        headers, body = self._folded.copy(), self._body.copy()
        for position, plain, careful in self._personal:
            headers[position] = plain(recipient) or fold(careful(recipient))
        values = recipient.values
        for position, gap in self._gaps:
            body[position] = gap.piece(values)
        return Message(headers, body)

    def pieces(self, recipient: Recipient) -> list[bytes]:
        """The whole message; join the pieces to get it. Raises as ``message`` does."""
        headers, body = self.message(recipient)
        return [*headers, b"\r\n", *body]

    def headers(self, recipient: Recipient) -> list[tuple[str, str]]:
        """All headers but those of the MIME structure, in order, decoded.

        Raises:
            ValueError: as ``message`` does.
        """
        return [
            (name, (field or self._careful[name](recipient)).text) for name, field in self._fields.items()
        ]

    def html(self) -> str:
        """The html part with its pictures' addresses in place and its merge tags still in."""
        return self._html

    def text(self) -> str:
        """The text part with its merge tags still in."""
        return self.email.text

    def values(self, recipient: Recipient) -> dict[str, str]:
        """What fills this recipient's merge tags: their own values, and those that all copies share."""
        return {**recipient.values, **self._shared}

    def content_id(self, picture: Picture) -> str:
        """Without angle brackets. From the bytes alone, so that no reader's mail differs from another's."""
        return f"{picture.sha256[:32]}@{self._domain}"

    def envelope_from(self, recipient: Recipient) -> str:
        """Where bounces go: with ``envelope_from`` set, an address that names the delivery (VERP)."""
        if self._bounces is None:
            return self._sender
        local, _, domain = self._bounces
        return f"{local}+{recipient.id}@{domain}"

    def of(self, _recipient: Recipient) -> Wire:
        """What this recipient's copy is made with: there is one edition only. See ``Wires``."""
        return self

    # --- headers ---

    def _all_fields(self) -> dict[str, Header | None]:
        """In their order; None stands for one that is made for each copy."""
        known = self.settings
        if not LIST_ID.fullmatch(known.list_id):
            raise ValueError("list_id is no name with a dot in it, such as digest.example.org")
        if known.date.tzinfo is None:
            raise ValueError("date has no time zone")
        reply_to = _ascii_mailbox("reply_to", known.reply_to or known.from_address)
        return {
            "From": with_phrase("From", known.from_name, self._sender),
            "Reply-To": fixed("Reply-To", reply_to),
            "To": None,
            "Subject": self._shared_subject(),
            "Date": fixed("Date", format_datetime(known.date)),
            "Message-ID": None,
            "List-ID": with_phrase("List-ID", known.from_name, known.list_id),
            "List-Help": fixed("List-Help", f"<mailto:{quote(reply_to, safe='@')}>"),
            "List-Post": fixed("List-Post", "NO"),
            "List-Unsubscribe": None,
            "List-Unsubscribe-Post": fixed("List-Unsubscribe-Post", ONE_CLICK),
            "Auto-Submitted": fixed("Auto-Submitted", "auto-generated"),
            "X-Auto-Response-Suppress": fixed("X-Auto-Response-Suppress", "OOF, AutoReply"),
        }

    def _bind_subject(self) -> merge.Parts:
        parts = merge.split(clean("the subject", self.email.subject))
        _check_values(parts, self._shared)
        return merge.bind(parts, self._shared)

    def _shared_subject(self) -> Header | None:
        if any(isinstance(part, merge.Slot) for part in self._subject_parts):
            return None
        return unstructured("Subject", merge.fill(self._subject_parts, {}))

    def _makers(self) -> dict[str, tuple[Plain, Careful]]:
        """What makes the fields that differ: for most people the first, for all others the second."""
        return {
            "To": (_plain_to, _to),
            "Subject": (self._plain_subject, self._subject),
            "Message-ID": (self._plain_message_id, self._message_id),
            "List-Unsubscribe": (self._plain_unsubscribe, self._unsubscribe),
        }

    def _plain_subject(self, recipient: Recipient) -> bytes | None:
        return plain_line("Subject", merge.fill(self._subject_parts, recipient.values))

    def _subject(self, recipient: Recipient) -> Header:
        _check_values(self._subject_parts, recipient.values)
        return unstructured("Subject", merge.fill(self._subject_parts, recipient.values))

    def _plain_message_id(self, recipient: Recipient) -> bytes | None:
        return _short(f"Message-ID: <{recipient.delivery.hex()}@{self._domain}>\r\n")

    def _message_id(self, recipient: Recipient) -> Header:
        return fixed("Message-ID", f"<{recipient.id}@{self._domain}>")

    def _plain_unsubscribe(self, recipient: Recipient) -> bytes | None:
        link = PLAIN_LINK.fullmatch(recipient.values.get("unsubscribe_url", ""))
        if link is None:
            return None
        mailto = f",<mailto:{self._leave}?subject={link[1]}>" if self._leave else ""
        return _short(f"List-Unsubscribe: <{link[0]}>{mailto}\r\n")

    def _unsubscribe(self, recipient: Recipient) -> Header:
        """The URIs in angle brackets and without a blank between them: nothing may fold or encode this header."""
        url = recipient.values.get("unsubscribe_url", "")
        if not HTTPS_URI.fullmatch(url) or NOT_IN_LIST_URI.search(url):
            raise ValueError(
                "the value of @@unsubscribe_url@@ is no https address for List-Unsubscribe (RFC 8058)"
            )
        mailto = f",<mailto:{self._leave}?subject={quote(url.rpartition('/')[2])}>" if self._leave else ""
        return fixed("List-Unsubscribe", f"<{url}>{mailto}")

    # --- structure ---

    def _address_of(self, name: str) -> str:
        """What stands for ``image:NAME`` in the html."""
        picture = next((one for one in self.email.pictures if one.name == name), None)
        if picture is None:
            raise ValueError(f"the email shows a picture that it does not bring: {name}")
        if self.settings.images_url:
            return picture_url(self.email, self.settings, picture)
        self._embedded[self.content_id(picture)] = picture
        return f"cid:{self.content_id(picture)}"

    def _structure(self) -> list[bytes]:
        """The fields that say what the body is: one part alone where there is no html."""
        if self.email.edition == Edition.TEXT:
            return list(_content("text/plain"))
        return [_multipart("alternative", self._boundary("alternative"))]

    def _spliced(self) -> list[bytes | Gap]:
        """The body, cut where a copy differs."""
        text = merge.bind(merge.split(self.email.text), self._shared)
        if self.email.edition == Edition.TEXT:
            return [*splice("the text part", text), b"" if self.email.text.endswith("\n") else b"\r\n"]
        page = merge.bind(merge.split(self._html), self._shared, html.escape)
        spliced_text, spliced_page = splice("the text part", text), splice("the html part", page, html.escape)
        outer, inner = self._boundary("alternative"), self._boundary("related")
        before, between, end = (
            _part(outer, *_content("text/plain")),
            _part(outer, *_content("text/html")),
            b"",
        )
        if self._embedded:
            between = _part(outer, _multipart("related", inner, 'type="text/html";'))
            between += _part(inner, *_content("text/html"))
            pictures = b"".join(_part(inner, _picture(cid, one)) for cid, one in self._embedded.items())
            end = b"\r\n%b--%b--\r\n" % (pictures, inner)
        end += b"\r\n--%b--\r\n" % outer
        return [before, *spliced_text, b"\r\n" + between, *spliced_page, end]

    def _boundary(self, kind: str) -> bytes:
        # "=_" occurs neither in quoted-printable nor in base64 (RFC 2045, section 6.7), so that no content
        # and no value can hold a boundary.
        return f"=_{kind}_{self.email.digest[:24]}".encode("ascii")


class NoticeWire(Wire):
    """A mail to an editor: like any other, without the fields of a list, which nobody could leave (RFC 2369)."""

    def _all_fields(self) -> dict[str, Header | None]:
        return {name: field for name, field in super()._all_fields().items() if not name.startswith("List-")}


class Wires:
    """The editions of one email, each ready to be sent."""

    def __init__(self, editions: Sequence[Wire]) -> None:
        """The first one is for everybody whose edition is not among them."""
        self._first = editions[0]
        self._by_name = {wire.email.edition: wire for wire in editions}

    def of(self, recipient: Recipient) -> Wire:
        """What this recipient's copy is made with."""
        return self._by_name.get(recipient.edition, self._first)


def _plain_to(recipient: Recipient) -> bytes | None:
    address = recipient.address
    return _short(f"To: {address}\r\n") if PLAIN_MAILBOX.fullmatch(address) else None


def _to(recipient: Recipient) -> Header:
    # The bare address: no server on the way needs the name, and no name can then break the header.
    return fixed("To", mailbox("the recipient's address", recipient.address))


def _short(line: str) -> bytes | None:
    return line.encode("ascii") if len(line) <= LONGEST_LINE else None


def _ascii_mailbox(what: str, address: str) -> str:
    wired = mailbox(what, address)
    if not wired.isascii():
        raise ValueError(f"{what} is not ASCII before the @-sign: most servers would refuse every copy")
    return wired


def _multipart(kind: str, boundary: bytes, *parameters: str) -> bytes:
    tokens = (f"multipart/{kind};", *parameters, f'boundary="{boundary.decode("ascii")}"')
    return fold(Header("Content-Type", "", tokens))


def _content(media_type: str) -> tuple[bytes, bytes]:
    encoding = fold(fixed("Content-Transfer-Encoding", "quoted-printable"))
    return fold(fixed("Content-Type", f"{media_type}; charset=utf-8")), encoding


def _part(boundary: bytes, *head_and_body: bytes) -> bytes:
    return b"--%b\r\n%b\r\n" % (boundary, b"".join(head_and_body))


def _picture(content_id: str, picture: Picture) -> bytes:
    # The file name is the hash's: the author's own would be one more thing to encode, and may tell too much.
    file = f"{picture.sha256[:16]}.{EXTENSIONS[picture.media_type]}"
    head = (
        fixed("Content-Type", picture.media_type),
        fixed("Content-Transfer-Encoding", "base64"),
        fixed("Content-ID", f"<{content_id}>"),
        fixed("Content-Disposition", f'inline; filename="{file}"'),
    )
    body = base64.encodebytes(picture.data).strip().replace(b"\n", b"\r\n")
    return b"".join(map(fold, head)) + b"\r\n" + body


def _check_values(parts: merge.Parts, values: Mapping[str, str]) -> None:
    for part in parts:
        if isinstance(part, merge.Slot):
            clean(f"the value of @@{part.name}@@", values.get(part.name, ""))


def _frozen(spliced: list[bytes | Gap]) -> tuple[list[bytes], tuple[tuple[int, Gap], ...]]:
    """The pieces, with nothing yet where the gaps are, and the gaps with their positions. Text surrounds each gap."""
    pieces = [b""]
    gaps = []
    for piece in spliced:
        if isinstance(piece, Gap):
            gaps.append((len(pieces), piece))
            pieces += [b"", b""]
        else:
            pieces[-1] += piece
    return pieces, tuple(gaps)


def _check_dots(pieces: list[bytes]) -> None:
    """The last look: SMTP ends a message at a dot alone on its line, and takes one away from any other such line."""
    if any(LEADING_DOT.search(piece) for piece in pieces):
        raise AssertionError("a line of a message begins with a dot")

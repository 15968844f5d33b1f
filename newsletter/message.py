"""An email and a recipient → the bytes of one message.

::

    multipart/alternative
    ├── text/plain
    └── text/html            without pictures, else
        multipart/related
        ├── text/html
        └── image/…          one per picture that the html shows

Everything is 7-bit: texts are quoted-printable, pictures base64. The same email, settings and recipient give the same
bytes, on any machine and at any time, so a second try is the same message and not another one.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
from dataclasses import asdict, dataclass
from datetime import datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from newsletter import merge
from newsletter.headers import Header, clean, fixed, fold, mailbox, unstructured, with_phrase
from newsletter.pictures import resolve_pictures

if TYPE_CHECKING:
    from collections.abc import Mapping

    from newsletter.model import Email, Picture, Recipient

EXTENSIONS = {"image/png": "png", "image/jpeg": "jpg", "image/gif": "gif"}
ONE_CLICK = "List-Unsubscribe=One-Click"  # RFC 8058, section 3.1: these very characters
HTTPS_URI = re.compile(r"https://[!-~]+")
NOT_IN_LIST_URI = re.compile(r'[<>,"]')  # RFC 2369, section 2: these end a URI or begin the next
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
    return not recipient.address.rpartition("@")[0].isascii()


def picture_path(email: Email, picture: Picture) -> str:
    """``2026-12/0123456789abcdef.png``: where a hosted picture lies under ``images_url``."""
    slug = email.view_path.rpartition("/")[2]
    return f"{slug}/{picture.sha256[:16]}.{EXTENSIONS[picture.media_type]}"


def picture_url(email: Email, settings: MessageSettings, picture: Picture) -> str:
    """Where readers load a hosted picture from."""
    return f"{settings.images_url}/{picture_path(email, picture)}"


class Message(NamedTuple):
    """One copy, cut into pieces of bytes with CRLF line ends."""

    headers: list[bytes]  # one field each, with its CRLF
    body: list[bytes]  # what follows the blank line


class Wire:
    """One email on its way to many: the only builder of messages. Holds no state, so threads may share it.

    Raises:
        ValueError: naming the setting (or the picture) that can't stand in a message.
    """

    def __init__(self, email: Email, settings: MessageSettings) -> None:
        self.email = email
        self.settings = settings
        self._sender = _ascii_mailbox("from_address", settings.from_address)
        self._domain = self._sender.rpartition("@")[2]
        self._envelope = _ascii_mailbox("envelope_from", settings.envelope_from or settings.from_address)
        leave = settings.unsubscribe_mailto
        self._leave = quote(_ascii_mailbox("unsubscribe_mailto", leave), safe="@") if leave else ""
        self._embedded: dict[str, Picture] = {}  # by Content-ID: one picture shown twice travels once
        self._html = resolve_pictures(email.html, self._address_of)
        self._subject_parts = merge.split(clean("the subject", email.subject))
        self._html_parts = merge.split(self._html)
        self._text_parts = merge.split(email.text)
        self._static = self._static_headers()
        self._before_text, self._before_html, self._end = self._frame()

    def pieces(self, recipient: Recipient) -> list[bytes]:
        """The whole message, CRLF line ends, not dot-stuffed; join the pieces to get it.

        Raises:
            ValueError: naming the value of this recipient that can't stand in a message.
        """
        values = self.values(recipient)
        return [
            *(fold(header) for header in self._headers(recipient, values)),
            self._before_text,
            _quoted_printable("the text part", merge.fill(self._text_parts, values)),
            self._before_html,
            _quoted_printable("the html part", merge.fill(self._html_parts, values, html.escape)),
            self._end,
        ]

    def headers(self, recipient: Recipient) -> list[tuple[str, str]]:
        """All headers but those of the MIME structure, in order, decoded.

        Raises:
            ValueError: as ``pieces`` does.
        """
        return [(name, text) for name, text, _ in self._headers(recipient, self.values(recipient))]

    def html(self) -> str:
        """The html part with its pictures' addresses in place and its merge tags still in."""
        return self._html

    def text(self) -> str:
        """The text part with its merge tags still in."""
        return self.email.text

    def values(self, recipient: Recipient) -> dict[str, str]:
        """What fills this recipient's merge tags: their own values, and those that all copies share."""
        view_url = self.settings.base_url + self.email.view_path
        return {**recipient.values, "issue_title": self.email.title, "view_url": view_url}

    def content_id(self, picture: Picture) -> str:
        """Without angle brackets. From the bytes alone, so that no reader's mail differs from another's."""
        return f"{picture.sha256[:32]}@{self._domain}"

    def envelope_from(self, recipient: Recipient) -> str:
        """Where bounces go: with ``envelope_from`` set, an address that names the delivery (VERP)."""
        if not self.settings.envelope_from:
            return self._envelope
        local, _, domain = self._envelope.rpartition("@")
        return f"{local}+{recipient.id}@{domain}"

    # --- headers ---

    def _static_headers(self) -> dict[str, Header]:
        known = self.settings
        if not LIST_ID.fullmatch(known.list_id):
            raise ValueError("list_id is no name with a dot in it, such as digest.example.org")
        if known.date.tzinfo is None:
            raise ValueError("date has no time zone")
        reply_to = _ascii_mailbox("reply_to", known.reply_to or known.from_address)
        return {
            "from": with_phrase("From", known.from_name, self._sender),
            "reply-to": fixed("Reply-To", reply_to),
            "date": fixed("Date", format_datetime(known.date)),
            "list-id": with_phrase("List-ID", known.from_name, known.list_id),
            "list-help": fixed("List-Help", f"<mailto:{quote(reply_to, safe='@')}>"),
        }

    def _headers(self, recipient: Recipient, values: Mapping[str, str]) -> list[Header]:
        static = self._static
        return [
            static["from"],
            static["reply-to"],
            # The bare address: no server on the way needs the name, and no name can then break the header.
            fixed("To", mailbox("the recipient's address", recipient.address)),
            unstructured("Subject", self._subject(values)),
            static["date"],
            fixed("Message-ID", f"<{recipient.id}@{self._domain}>"),
            static["list-id"],
            static["list-help"],
            fixed("List-Post", "NO"),
            fixed("List-Unsubscribe", self._unsubscribe(values.get("unsubscribe_url", ""))),
            fixed("List-Unsubscribe-Post", ONE_CLICK),
            fixed("Auto-Submitted", "auto-generated"),
            fixed("X-Auto-Response-Suppress", "OOF, AutoReply"),
        ]

    def _subject(self, values: Mapping[str, str]) -> str:
        for part in self._subject_parts:
            if isinstance(part, merge.Slot):
                clean(f"the value of @@{part.name}@@", values.get(part.name, ""))
        return merge.fill(self._subject_parts, values)

    def _unsubscribe(self, url: str) -> str:
        """The URIs in angle brackets and without a blank between them: nothing may fold or encode this header."""
        if not HTTPS_URI.fullmatch(url) or NOT_IN_LIST_URI.search(url):
            raise ValueError(
                "the value of @@unsubscribe_url@@ is no https address for List-Unsubscribe (RFC 8058)"
            )
        mailto = f",<mailto:{self._leave}?subject={quote(url.rpartition('/')[2])}>" if self._leave else ""
        return f"<{url}>{mailto}"

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

    def _frame(self) -> tuple[bytes, bytes, bytes]:
        """What stands before the text, between text and html, and after the html."""
        outer, inner = self._boundary("alternative"), self._boundary("related")
        before_text = (
            b"MIME-Version: 1.0\r\n"
            + _multipart("alternative", outer)
            + b"\r\n"
            + _part(outer, _content("text/plain"))
        )
        html_head = _content("text/html")
        if not self._embedded:
            return before_text, b"\r\n" + _part(outer, html_head), b"\r\n--%b--\r\n" % outer
        related = _part(outer, _multipart("related", inner, 'type="text/html";')) + _part(inner, html_head)
        pictures = b"".join(_part(inner, _picture(cid, one)) for cid, one in self._embedded.items())
        return before_text, b"\r\n" + related, b"\r\n%b--%b--\r\n\r\n--%b--\r\n" % (pictures, inner, outer)

    def _boundary(self, kind: str) -> bytes:
        # "=_" occurs neither in quoted-printable nor in base64 (RFC 2045, section 6.7), so that no content
        # and no value can hold a boundary.
        return f"=_{kind}_{self.email.digest[:24]}".encode("ascii")


def _ascii_mailbox(what: str, address: str) -> str:
    wired = mailbox(what, address)
    if not wired.isascii():
        raise ValueError(f"{what} is not ASCII before the @-sign: most servers would refuse every copy")
    return wired


def _multipart(kind: str, boundary: bytes, *parameters: str) -> bytes:
    tokens = (f"multipart/{kind};", *parameters, f'boundary="{boundary.decode("ascii")}"')
    return fold(Header("Content-Type", "", tokens))


def _content(media_type: str) -> bytes:
    encoding = fold(fixed("Content-Transfer-Encoding", "quoted-printable"))
    return fold(fixed("Content-Type", f"{media_type}; charset=utf-8")) + encoding


def _part(boundary: bytes, head_and_body: bytes) -> bytes:
    return b"--%b\r\n%b\r\n" % (boundary, head_and_body)


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


def _quoted_printable(what: str, text: str) -> bytes:
    """Lines of at most 76 columns; every kind of line end becomes CRLF, blanks before one are kept."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    try:
        return binascii.b2a_qp(lines.encode("utf-8"), istext=True).replace(b"\n", b"\r\n")
    except UnicodeEncodeError:
        raise ValueError(f"{what} holds half a character (a lone surrogate)") from None

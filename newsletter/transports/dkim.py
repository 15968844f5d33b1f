"""Signs copies with DKIM (RFC 6376; Ed25519: RFC 8463).

Headers are signed in relaxed form, because servers on the way fold them anew; the body in simple form, because its
lines need no mercy: they are quoted-printable, so that no blank stands at their ends, and nobody has a reason to change
them. Simple form only takes empty lines off the end of a body, and ours hardly ever have any: it is hashed piece by
piece as it is. Relaxed form would make one blank of two in a row, and would have to be made for each copy.

No ``l=``: it would let anybody add to the body. No ``x=``: a copy that waits for days in a queue is as good as before.
``t=`` says what the Date says, so that a second try of a copy is the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import re
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from newsletter.headers import WIDTH, Header, fold

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from newsletter.message import Message
    from newsletter.transports.dkim_keys import PrivateKey

# Named once more than they occur, so that the signature breaks when somebody adds another (RFC 6376, section 8.15).
# RFC 8058, section 4, wants both unsubscribe headers covered.
SEALED = (
    *("from", "reply-to", "to", "subject", "date", "message-id", "mime-version", "content-type"),
    *("list-unsubscribe", "list-unsubscribe-post"),
)
SIGNED = (*SEALED, "list-id", "list-help", "list-post")
BLANKS = re.compile(rb"[ \t\r\n]+")
CRLF = b"\r\n"
EMPTY_LINES = re.compile(rb"(?:\r\n)+\Z")


class Signer:
    """Makes one signature with each key. Nothing in it changes, so threads may share it.

    ``keys`` are selectors and their keys; ``domain`` is that of the From address or above it, as A-labels.
    """

    def __init__(self, domain: str, keys: Sequence[tuple[str, PrivateKey]]) -> None:
        self._keys = [_Key(*_signing(key), domain, selector) for selector, key in keys]

    def fields(self, message: Message) -> list[bytes]:
        """The DKIM-Signature fields, to stand before the other headers. The same message gives the same bytes."""
        lines = [_relaxed(field) for field in message.headers]
        names, order = _chosen(tuple(line.name for line in lines))
        date = next((line.text for line in lines if line.name == "date"), b"")
        headers = b"".join([lines[position].text for position in order])
        body = base64.b64encode(_body_hash(message.body))
        return [_field(key, _opening(key, names, date), headers, body) for key in self._keys]


class _Line(NamedTuple):
    """A header field in relaxed form."""

    name: str
    text: bytes  # all of it, with its CRLF


class _Key(NamedTuple):
    """One key, and what its signatures say of it."""

    algorithm: str
    sign: Callable[[bytes], bytes]
    domain: str
    selector: str


class _Opening(NamedTuple):
    """What stands before ``bh=``: on the wire, and as it is signed."""

    folded: bytes
    relaxed: bytes


def _signing(key: PrivateKey) -> tuple[str, Callable[[bytes], bytes]]:
    if isinstance(key, RSAPrivateKey):
        padding, digest = PKCS1v15(), SHA256()
        return "rsa-sha256", lambda data: key.sign(data, padding, digest)
    return "ed25519-sha256", lambda data: key.sign(hashlib.sha256(data).digest())  # RFC 8463, section 3


def _field(key: _Key, opening: _Opening, headers: bytes, body: bytes) -> bytes:
    """The signature covers its own field too, all but what stands behind ``b=`` and the last CRLF."""
    signed = key.sign(b"%b%b bh=%b; b=" % (headers, opening.relaxed, body))
    return b"%b bh=%b;\r\n b=%b\r\n" % (opening.folded, body, _broken(base64.b64encode(signed)))


def _broken(text: bytes) -> bytes:
    """In lines; the blank in front of each means nothing (RFC 6376, section 3.5)."""
    length = WIDTH - len(" b=")
    return b"\r\n ".join(text[start : start + length] for start in range(0, len(text), length))


# The fields that all copies share are the same each time, and those of a lane's last few copies push none of them out:
# what is used most stays.
@lru_cache(maxsize=256)
def _relaxed(field: bytes) -> _Line:
    """RFC 6376, section 3.4.2."""
    name, _, value = field.partition(b":")
    small = name.rstrip().lower()
    return _Line(small.decode("ascii"), b"%b:%b\r\n" % (small, BLANKS.sub(b" ", value).strip(b" ")))


@lru_cache(maxsize=16)
def _chosen(names: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """What ``h=`` names, and the positions of the fields in its order: of several, the lowest first (section 5.4.2)."""
    listed: list[str] = []
    order: list[int] = []
    for name in SIGNED:
        found = [position for position, each in enumerate(names) if each == name]
        listed += [name] * (len(found) + (name in SEALED))
        order += reversed(found)
    return tuple(listed), tuple(order)


@lru_cache(maxsize=64)
def _opening(key: _Key, names: tuple[str, ...], date: bytes) -> _Opening:
    """The same for all copies of a campaign. ``date`` is the whole field; without one there is no ``t=``."""
    stamp = (f"t={_seconds(date)};",) if date else ()
    tags = ("v=1;", f"a={key.algorithm};", "c=relaxed/simple;", f"d={key.domain};", f"s={key.selector};")
    folded = fold(Header("DKIM-Signature", "", (*tags, *stamp, *_packed(names))))
    return _Opening(folded, _relaxed(folded).text.removesuffix(CRLF))


def _seconds(date: bytes) -> int:
    value = date.partition(b":")[2].decode("ascii")
    return int(parsedate_to_datetime(value).timestamp())


def _packed(names: tuple[str, ...]) -> list[str]:
    """The tag ``h=``, in pieces that each fit into a line."""
    pieces = ["h="]
    for position, name in enumerate(names, 1):
        word = f"{name}:" if position < len(names) else f"{name};"
        if len(pieces[-1]) + len(word) >= WIDTH:
            pieces.append("")
        pieces[-1] += word
    return pieces


def _body_hash(body: Sequence[bytes]) -> bytes:
    """SHA-256 over the body in simple form (RFC 6376, section 3.4.3), which its pieces nearly always are."""
    last = body[-1] if body else b""
    if not last.endswith(CRLF):
        raise AssertionError("a body does not end with a line end, so its simple form is another")
    if last == CRLF or last.endswith(CRLF + CRLF):  # a plain text whose last line is a merge tag's own
        body = [EMPTY_LINES.sub(CRLF, b"".join(body), count=1)]
    digest = hashlib.sha256()
    for piece in body:
        digest.update(piece)
    return digest.digest()

"""Header fields as they stand on the wire: tokens that stay whole, folded between them and nowhere else.

Why not ``email.policy.SMTP``: it writes a URI that is too long for a line as encoded words (Gmail then ignores
List-Unsubscribe), and in Python 3.11 an encoded word in a subject can bring a line break and so a header of its own
(CVE-2024-6923). Here a URI or an address is one token, and whatever an author writes is either plain or encoded.
"""

from __future__ import annotations

import re
from email.charset import Charset
from email.errors import HeaderParseError
from email.header import decode_header
from itertools import chain, repeat
from typing import NamedTuple

from newsletter.addresses import ascii_domain

WIDTH = 76  # columns of a line that holds an encoded word (RFC 2047, section 2); RFC 5322 would allow 78
LONGEST_WORD = 75  # an encoded word (RFC 2047, section 2)
LONGEST_LINE = 998  # RFC 5322, section 2.1.1
LONGEST_PLAIN = 60  # a plain word longer than this is encoded, because only encoded words can be cut

# Besides C0, DEL and C1: line and paragraph separators, which some readers break at, and halves of characters.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
ONE_SPACE_BETWEEN = re.compile(rf"[!-~]{{1,{LONGEST_PLAIN}}}(?: [!-~]{{1,{LONGEST_PLAIN}}})*")
ATOMS = re.compile(r"[\w!#$%&'*+/=?^`{|}~ -]*", re.ASCII)
MAILBOX = re.compile(r"""[^\s()<>\[\]:;@\\,"]+@[A-Za-z0-9.-]+""")
# Mailboxes as nearly all are. Without = there is no encoded word, and in ASCII nothing to convert.
PLAIN_MAILBOX = re.compile(r"[\w!#$%&'*+/?^`{|}~.-]+@[A-Za-z0-9.-]+", re.ASCII)
UTF8 = Charset("utf-8")


class Header(NamedTuple):
    """One field: what it says, and the tokens that say so on the wire."""

    name: str
    text: str
    tokens: tuple[str, ...]


def fold(header: Header) -> bytes:
    """The field's lines, each with its CRLF.

    Raises:
        ValueError: if a token could end its line, or is too long for one.
    """
    lines = [f"{header.name}:"]
    for position, token in enumerate(header.tokens):
        # The last guard of all: whatever a caller forgot, no field can begin inside another.
        if " " in token or not token.isprintable():
            raise ValueError(f"{header.name} holds a character that no header can hold")
        if position and len(lines[-1]) + 1 + len(token) > WIDTH:
            lines.append("")
        lines[-1] += f" {token}"
    folded = "\r\n".join(lines).encode("utf-8")
    if max(map(len, folded.split(b"\r\n"))) > LONGEST_LINE:
        raise ValueError(f"{header.name} holds an address that is too long for a line of a mail")
    return folded + b"\r\n"


def fixed(name: str, value: str) -> Header:
    """A field of ours, or a URI: nothing in it is ever encoded."""
    return Header(name, value, tuple(value.split(" ")))


def unstructured(name: str, text: str) -> Header:
    """A field for reading, such as Subject; encoded as a whole unless it is plain."""
    clean(name, text)
    return Header(name, text, tuple(text.split()) if _plain(text) else _encoded(text, len(name) + 2))


def plain_line(name: str, text: str) -> bytes | None:
    """``fold(unstructured(name, text))`` for a text that needs only one line and no encoding; None for any other."""
    if text and len(name) + 2 + len(text) <= WIDTH and _plain(text):
        return f"{name}: {text}\r\n".encode("ascii")
    return None


def with_phrase(name: str, phrase: str, angled: str) -> Header:
    """``phrase <angled>``: the sender and the list (RFC 5322, section 3.4; RFC 2919)."""
    # Blanks in rows mean nothing in a phrase, and programs collapse them.
    words = " ".join(clean(name, phrase).split())
    shown = words if ATOMS.fullmatch(words) else _quoted(words)
    tokens = tuple(shown.split()) if _plain(words) else _encoded(words, len(name) + 2)
    return Header(name, f"{shown} <{angled}>".lstrip(), (*tokens, f"<{angled}>"))


def mailbox(what: str, address: str) -> str:
    """An address that can stand in a header without quotes, its domain as A-labels.

    Raises:
        ValueError: naming ``what``, never the address.
    """
    if PLAIN_MAILBOX.fullmatch(address):
        return address
    clean(what, address)
    try:
        wired = ascii_domain(address)
    except ValueError:
        wired = ""
    # Some readers decode what looks like an encoded word even where RFC 2047, section 5, forbids it.
    if not MAILBOX.fullmatch(wired) or "=?" in wired:
        raise ValueError(f"{what} is no address that can stand in a header")
    return wired


def clean(what: str, text: str) -> str:
    """``text`` itself; ``ValueError`` naming ``what`` if it, or what an encoded word in it says, could end a line."""
    for seen in (text, _said(text)):
        if found := CONTROL.search(seen):
            raise ValueError(
                f"{what} holds the control character U+{ord(found[0]):04X}, which no header can hold"
            )
    return text


def _said(text: str) -> str:
    """What the encoded words in ``text`` say.

    Always read as UTF-8: a line break is the same byte in every charset in use, and to look up a codec by a name that
    an attacker chose is a risk of its own.
    """
    if "=?" not in text:
        return ""
    try:
        words = decode_header(text)
    except HeaderParseError:
        return ""  # base64 that no reader can decode; it will stand there literally
    return "".join(said.decode("utf-8", "replace") for said, charset in words if charset)


def _plain(text: str) -> bool:
    """Whether readers see ``text`` as it is, even after folding: blanks at the ends or in rows would get lost."""
    return not text or ("=?" not in text and ONE_SPACE_BETWEEN.fullmatch(text) is not None)


def _quoted(text: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def _encoded(text: str, taken: int) -> tuple[str, ...]:
    """Encoded words for all of ``text``; ``taken`` columns of the first line are gone."""
    rooms = chain([WIDTH - taken], repeat(LONGEST_WORD))
    return tuple(word for word in UTF8.header_encode_lines(text, rooms) if word)

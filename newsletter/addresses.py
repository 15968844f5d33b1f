"""Email addresses: what may be mailed, when two are the same, and how the ledger and logs know them.

Two addresses are one if their local parts agree without regard to case and their domains are the same name in DNS.
Dots and ``+tags`` are never taken out: only Gmail ignores dots, and elsewhere the shortened address is somebody else.
For the same reason case is what ``lower`` says, not ``casefold``: to that one, ``straße@`` and ``strasse@`` are one.
Domains are converted as IDNA2008 says (RFC 5891): Python's own codec turns ``straße.de`` into ``strasse.de``, which
another person may own.
"""

from __future__ import annotations

import hmac
import re
from unicodedata import normalize

KEY_BYTES = 16
BLANKS = " \t\xa0\ufeff"  # what spreadsheets leave around a cell
ENCODED_WORD = re.compile(r"=\?.*\?=")
# Addresses as nearly all are: no rule that email-validator knows can refuse or change one of these if it is no
# longer than a local part may be. A property test holds the two against each other.
PLAIN = re.compile(
    r"[A-Za-z0-9]+(?:[._+-][A-Za-z0-9]+)*@"
    r"(?:[a-z0-9]+(?:-[a-z0-9]+)*\.)+(?!(?:arpa|invalid|local|localhost|onion|test)\Z)[a-z]{2,24}"
)
LONGEST_PLAIN = 64


def parse(text: str) -> str:
    """The address as it goes on the wire: local part as written (NFC), domain as A-labels in small letters.

    Raises:
        ValueError: with a sentence to show. Quoted local parts, bracketed IP addresses and names that
            no public mail server can have (``localhost``, ``.test``) are refused too.
    """
    stripped = text.strip(BLANKS)
    if len(stripped) <= LONGEST_PLAIN and stripped.isascii():
        local, _, domain = stripped.rpartition("@")
        small = f"{local}@{domain.lower()}"
        if PLAIN.fullmatch(small):
            return small
    from email_validator import validate_email  # noqa: PLC0415  costs 40 ms, which most commands need not pay

    if ENCODED_WORD.search(stripped):
        # RFC 5322 allows these characters, but readers of headers would decode them into something else.
        raise ValueError("The part before the @-sign looks like an encoded word of a mail header.")
    found = validate_email(stripped, check_deliverability=False, allow_smtputf8=True, strict=True)
    return f"{found.local_part}@{found.ascii_domain}"


def canonical(address: str) -> str:
    """The form in which equal addresses are equal texts. For comparing only: mail goes to what was written.

    Raises:
        ValueError: if there is no @ or the domain can't be one.
    """
    local, domain = _halves(ascii_domain(address.strip(BLANKS)))
    # Python writes the small sigma in two ways, by what stands behind it.
    small = normalize("NFD", local).lower().replace("ς", "σ")
    return f"{normalize('NFC', small)}@{domain.lower()}"


def ascii_domain(address: str) -> str:
    """The address with its domain as A-labels; one that is ASCII already stays as it is.

    Raises:
        ValueError: if there is no @ or the domain can't be one.
    """
    local, domain = _halves(address)
    if domain.isascii():
        return address
    import idna  # noqa: PLC0415  its tables are large, and few domains need them

    try:
        return f"{local}@{idna.encode(domain, uts46=True).decode('ascii')}"
    except idna.IDNAError as error:
        raise ValueError(f"The part after the @-sign is no domain name ({error}).") from None


def key(address: str, secret: bytes) -> bytes:
    """The 16 bytes by which deliveries and suppressions know an address; nobody without ``secret`` can guess it.

    Raises:
        ValueError: as ``canonical`` does.
    """
    # What is plain has one form already, but for capital letters; a property test holds the two against each other.
    form = address.lower() if PLAIN.fullmatch(address) else canonical(address)
    return hmac.digest(secret, form.encode("utf-8"), "sha256")[:KEY_BYTES]


def mask(address: str) -> str:
    """``z…@e…org`` for ``zoe@example.org``: enough to find a typing error, too little to know a person by."""
    local, at, domain = address.strip(BLANKS).rpartition("@")
    if not at:
        return f"{_initial(domain)}…"
    first, dot, top = domain.rpartition(".")
    end = top if dot and top.isalnum() else ""
    return f"{_initial(local)}…@{_initial(first or domain)}…{end}"


def _halves(address: str) -> tuple[str, str]:
    local, _, domain = address.rpartition("@")
    if not local or not domain:
        raise ValueError("An address has something before and after one @-sign.")
    return local, domain


def _initial(text: str) -> str:
    return text[:1] if text[:1].isprintable() else ""

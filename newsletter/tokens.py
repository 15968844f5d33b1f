"""The tokens in links: who signed what for which subscription. No address, no name, nothing to look up.

::

    byte 0      purpose (low four bits) and version (high four bits)
    byte 1      id of the key that signed
    bytes 2-9   subscription id, big-endian
    bytes 10-13 expiry in seconds since 1970, big-endian: CONFIRM, ACCESS and CHANGE only
    last 16     HMAC-SHA256 over everything before, cut to 128 bits

Written in base64url without padding: 35 characters, 40 with an expiry. Links in mails that have left can't be called
back, so this form is final: a new one gets a new version, and version 1 is read for ever.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

VERSION = 1
MAC_BYTES = 16
SHORTEST_KEY = 32  # bytes: as long as what SHA-256 gives (RFC 2104, section 3)
HEAD = struct.Struct(">BBQ")
EXPIRY = struct.Struct(">I")
URL_SAFE = bytes.maketrans(b"+/", b"-_")  # RFC 4648, section 5
CONTEXT = b"newsletter link\0"  # so that a signature made for anything else is never a link


class Purpose(IntEnum):
    """What a link may do. The numbers are in every mail ever sent."""

    UNSUBSCRIBE = 1
    PREFERENCES = 2
    CONFIRM = 3
    ACCESS = 4
    CHANGE = 5  # confirms a new address

    @property
    def expires(self) -> bool:
        """Whether its tokens end; those in newsletters never do."""
        return self in {Purpose.CONFIRM, Purpose.ACCESS, Purpose.CHANGE}


class BadToken(ValueError):
    """Nothing that we signed for this purpose, or no longer valid. The message tells a reader nothing more."""


class Expired(BadToken):
    """Ours, and too old."""


@dataclass(frozen=True)
class Keyring:
    """The keys that are known, and the id of the one that signs."""

    keys: Mapping[int, bytes] = field(repr=False)
    signing: int

    def __post_init__(self) -> None:
        """Raises ``ValueError`` for an id that fits no byte, a key that is too short, or no key to sign with."""
        for number, key in self.keys.items():
            if not 0 <= number <= 255:
                raise ValueError(f"Key id {number} is not a number from 0 to 255.")
            if len(key) < SHORTEST_KEY:
                raise ValueError(f"Key {number} has {len(key)} bytes and needs {SHORTEST_KEY}.")
        if self.signing not in self.keys:
            raise ValueError(f"There is no key {self.signing} to sign with.")

    @classmethod
    def parse(cls, text: str) -> Keyring:
        """Read ``1:BASE64URL,2:BASE64URL``. The first key signs, all of them are believed.

        Raises:
            ValueError: with a sentence that never holds a key.
        """
        keys: dict[int, bytes] = {}
        for position, entry in enumerate(text.split(","), 1):
            number, key = _entry(position, entry.strip())
            if number in keys:
                raise ValueError(f"Two keys have the id {number}; each needs its own.")
            keys[number] = key
        return cls(keys, next(iter(keys)))


def _entry(position: int, entry: str) -> tuple[int, bytes]:
    number, colon, key = entry.partition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,3}", number):
        raise ValueError(f"Key {position} is not written as ID:KEY, with a number as its id.")
    try:
        return int(number), _bytes(key.rstrip("="))
    except ValueError:
        raise ValueError(f"Key {number} is not base64url (A–Z, a–z, 0–9, - and _).") from None


def make(purpose: Purpose, subscription: int, ring: Keyring, *, expires: datetime | None = None) -> str:
    """A token for one subscription; the same arguments give the same token.

    Raises:
        ValueError: if ``expires`` is missing for a purpose that needs it, given for one that must not end, or
            not aware; or if the subscription id does not fit 8 bytes.
    """
    if purpose.expires != (expires is not None):
        raise ValueError(
            f"A link to {purpose.name.lower()} {'needs' if purpose.expires else 'has no'} expiry."
        )
    try:
        signed = HEAD.pack(VERSION << 4 | purpose, ring.signing, subscription)
        signed += EXPIRY.pack(_seconds(expires)) if expires else b""
    except struct.error:
        raise ValueError("The subscription id or the expiry is out of range.") from None
    return _encode(signed + _mac(signed, ring.keys[ring.signing]))


def maker(purpose: Purpose, ring: Keyring) -> Callable[[int], str]:
    """``make`` for a whole campaign: what its tokens share is put together once. For purposes that do not expire.

    Raises:
        ValueError: if the purpose needs an expiry.
    """
    make(purpose, 0, ring)
    head, key = HEAD.pack(VERSION << 4 | purpose, ring.signing, 0)[:2], ring.keys[ring.signing]

    def token(subscription: int) -> str:
        signed = head + subscription.to_bytes(8, "big")
        return _encode(signed + _mac(signed, key))

    return token


def read(token: str, purpose: Purpose, ring: Keyring, *, now: datetime) -> int:
    """The subscription id in ``token``.

    Raises:
        BadToken: if it is not ours, is for another purpose, its key is unknown, or it has expired (``Expired``).
    """
    return _opened(token, purpose, ring, now)[0]


def read_dated(token: str, purpose: Purpose, ring: Keyring, *, now: datetime | None) -> tuple[int, datetime]:
    """The subscription id, and when the token expires: for purposes that do.

    Raises as ``read`` does; without ``now``, a token that has expired is read like any other.
    """
    subscription, signed = _opened(token, purpose, ring, now)
    return subscription, datetime.fromtimestamp(EXPIRY.unpack_from(signed, HEAD.size)[0], UTC)


def _opened(token: str, purpose: Purpose, ring: Keyring, now: datetime | None) -> tuple[int, bytes]:
    signed = _genuine(token, ring)
    head, _, subscription = HEAD.unpack_from(signed)
    if head != VERSION << 4 | purpose:
        raise BadToken("This link is not valid.")
    # Only after the signature: a guess must not learn more than that it was wrong.
    if purpose.expires and now is not None and EXPIRY.unpack_from(signed, HEAD.size)[0] <= _seconds(now):
        raise Expired("This link has expired.")
    return int(subscription), signed


def _genuine(token: str, ring: Keyring) -> bytes:
    """The signed bytes, once the signature is known to be ours."""
    try:
        raw = _decode(token)
    except ValueError:
        raw = b""
    signed, mac = raw[:-MAC_BYTES], raw[-MAC_BYTES:]
    key = ring.keys.get(signed[1]) if len(signed) >= HEAD.size else None
    if key is None or not hmac.compare_digest(mac, _mac(signed, key)):
        raise BadToken("This link is not valid.")
    return signed


def _mac(signed: bytes, key: bytes) -> bytes:
    return hmac.digest(key, CONTEXT + signed, hashlib.sha256)[:MAC_BYTES]


def _seconds(moment: datetime) -> int:
    if moment.tzinfo is None:
        raise ValueError("A time without a zone can't be compared.")
    return int(moment.astimezone(UTC).timestamp())


def _encode(raw: bytes) -> str:
    return binascii.b2a_base64(raw, newline=False).translate(URL_SAFE).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    """The bytes of a token; ``ValueError`` also for another spelling of them, so that one token is one text."""
    raw = _bytes(text)
    if _encode(raw) != text:
        raise ValueError("not the one way to write these bytes")
    return raw


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)

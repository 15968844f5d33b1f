"""Keys for DKIM, and the only name server that a test may ask."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import dkim
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateNumbers, RSAPublicNumbers

from newsletter.transports import dkim_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    from newsletter.transports.dkim_keys import PrivateKey

DOMAIN = "example.org"


@cache
def rsa() -> tuple[str, PrivateKey]:
    """Selector and key."""
    return "news2027", dkim_keys.make("rsa")


@cache
def ed25519() -> tuple[str, PrivateKey]:
    """Selector and key."""
    return "news2027-ed", dkim_keys.make("ed25519")


def rsa_of(prime: int, other: int) -> RSAPrivateKey:
    """A key of two primes, since nobody sells one that is too short or too long."""
    exponent, modulus, totient = 65537, prime * other, (prime - 1) * (other - 1)
    secret = pow(exponent, -1, totient)
    parts = secret % (prime - 1), secret % (other - 1), pow(other, -1, prime)
    public = RSAPublicNumbers(exponent, modulus)
    return RSAPrivateNumbers(prime, other, secret, *parts, public).private_key()


def published(
    keys: Iterable[tuple[str, PrivateKey]], domain: str = DOMAIN
) -> Callable[[bytes, float], bytes]:
    """What dkimpy asks instead of the DNS."""
    records = {
        f"{dkim_keys.record_name(selector, domain)}.".encode(): dkim_keys.record(key).encode()
        for selector, key in keys
    }
    return lambda name, timeout=0: records[name]


def verdicts(message: bytes, lookup: Callable[[bytes, float], bytes]) -> list[bool]:
    """What dkimpy says of each signature, topmost first. One that it can't read at all is an error."""
    reader = dkim.DKIM(message)
    count = sum(name.lower() == b"dkim-signature" for name, _ in reader.headers)
    return [_verified(dkim.DKIM(message), index, lookup) for index in range(count)]


def _verified(reader: dkim.DKIM, index: int, lookup: Callable[[bytes, float], bytes]) -> bool:
    try:
        return bool(reader.verify(index, dnsfunc=lookup))
    except dkim.ValidationError as error:
        if "body hash" not in str(error):
            raise
        return False

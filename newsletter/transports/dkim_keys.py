"""The keys that sign copies: made, kept in files, and published in the DNS (RFC 6376, section 3.6; RFC 8463).

No message in here shows any of a private key.
"""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal

PrivateKey = RSAPrivateKey | Ed25519PrivateKey

BITS = 2048  # of a new RSA key (RFC 8301, section 3.2)
LEAST_BITS, MOST_BITS = 1024, 4096  # what every receiver has to read (the same)
LONGEST_STRING = 255  # bytes of one string of a TXT record (RFC 1035, section 3.3)


def make(algorithm: Literal["rsa", "ed25519"]) -> PrivateKey:
    """A new key."""
    if algorithm == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=BITS)
    return Ed25519PrivateKey.generate()


def write(file: Path, key: PrivateKey) -> None:
    """Into a new file that only its owner can read, and that is there in full or not at all.

    Raises:
        FileExistsError: whatever lies there stays as it is.
    """
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(pem)
            out.flush()
            os.fsync(out.fileno())  # its other half may be published within the minute
    except BaseException:
        file.unlink()
        raise


def read(file: Path) -> PrivateKey:
    """The key in a PEM file, PKCS#8 or PKCS#1.

    Raises:
        ValueError: with the rest of a sentence that begins with the file.
        OSError: if the file can't be read.
    """
    try:
        key = load_pem_private_key(file.read_bytes(), password=None)
    except TypeError:
        raise ValueError(
            "is protected by a password, and nobody is there to type it: write the key without one"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("holds no private key in PEM form") from None
    if isinstance(key, RSAPrivateKey):
        return _checked(key)
    if isinstance(key, Ed25519PrivateKey):
        return key
    raise ValueError("holds a key of a kind that DKIM does not know: take RSA or Ed25519")


def _checked(key: RSAPrivateKey) -> RSAPrivateKey:
    if not LEAST_BITS <= key.key_size <= MOST_BITS:
        raise ValueError(
            f"holds an RSA key of {key.key_size} bits, and receivers have to take {LEAST_BITS} to {MOST_BITS} "
            f"(RFC 8301): make one of {BITS}"
        )
    return key


def describe(key: PrivateKey) -> str:
    """``RSA, 2048 bits``."""
    return f"RSA, {key.key_size} bits" if isinstance(key, RSAPrivateKey) else "Ed25519"


def is_short(key: PrivateKey) -> bool:
    """Whether receivers take it, and should not have to for long."""
    return isinstance(key, RSAPrivateKey) and key.key_size < BITS


def record_name(selector: str, domain: str) -> str:
    """Where in the DNS the public key stands."""
    return f"{selector}._domainkey.{domain}"


def record(key: PrivateKey) -> str:
    """What stands there in a TXT record."""
    public = key.public_key()
    if isinstance(key, RSAPrivateKey):
        return _tags("rsa", public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return _tags("ed25519", public.public_bytes(Encoding.Raw, PublicFormat.Raw))


def _tags(kind: str, public: bytes) -> str:
    return f"v=DKIM1; k={kind}; p={base64.b64encode(public).decode('ascii')}"


def strings(value: str) -> list[str]:
    """A record's value, cut as a TXT record has to be; readers put the pieces together without a blank."""
    return [value[start : start + LONGEST_STRING] for start in range(0, len(value), LONGEST_STRING)]

"""When somebody got the sign-up form: signed, so that nobody can say an earlier time.

People need more than a moment to write an address, and programs that fill in every form do not. A form of another
website has no such time and is taken as it is.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from newsletter.tokens import Keyring

CONTEXT = b"newsletter form\0"  # so that a signature made for anything else is no time
SHORTEST = timedelta(seconds=2)
LONGEST_TEXT = 64
MILLISECOND = timedelta(milliseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def stamp(now: datetime, ring: Keyring) -> str:
    """What the form carries."""
    moment = str((now - EPOCH) // MILLISECOND)
    return f"{moment}.{_mac(moment, ring.keys[ring.signing])}"


def age(text: str, ring: Keyring, now: datetime) -> timedelta | None:
    """How long ago the form was made; None for what we did not sign."""
    if not text.isascii():  # nor could it be encoded, if it holds half of a character
        return None
    moment, _, mac = text[:LONGEST_TEXT].partition(".")
    if not any(hmac.compare_digest(mac.encode(), _mac(moment, key).encode()) for key in ring.keys.values()):
        return None
    return now - EPOCH - int(moment) * MILLISECOND


def _mac(moment: str, key: bytes) -> str:
    return hmac.digest(key, CONTEXT + moment.encode(), hashlib.sha256)[:16].hex()

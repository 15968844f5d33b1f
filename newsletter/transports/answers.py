"""What all transports do alike with a copy that can't leave and with a provider's words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from newsletter.model import NotTaken

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from newsletter.message import Wire, Wires
    from newsletter.model import Outcome, Recipient

MOST_WORDS = 300  # characters kept of what a server says: enough for any reply, too little to flood a ledger
# What `words` would leave as it is.
TAME = re.compile(r"(?=.{0,300}\Z)(?:[!-?A-~]+(?: [!-?A-~]+)*)?")


def words(said: object) -> str:
    """A provider's or an error's words as the ledger may keep them: one line, at most 300 characters.

    A word that holds an @ becomes "…": servers quote the address back, and the ledger must not know it (an
    erased person would live on in there). Control characters could rewrite the terminal of whoever reads it.
    """
    if isinstance(said, OSError):
        said = said.strerror or said  # without "[Errno 111]"
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    if TAME.fullmatch(text):
        return text
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join("…" if "@" in word else word for word in printable.split())[:MOST_WORDS]


def compose(wire: Wire | Wires, recipient: Recipient) -> bytes:
    """The whole message in one piece. Raises ``ValueError`` if this person's values can't stand in one."""
    return b"".join(wire.of(recipient).pieces(recipient))


def unsendable(error: ValueError) -> str:
    """The reason for a copy that ``compose`` could not build."""
    return f"this copy can't be built: {words(error)}"


def not_taken(
    deliveries: Iterable[bytes], why: object, *, not_before: datetime | None = None
) -> list[Outcome]:
    """The outcome of copies that never left, for a reason that is not theirs."""
    reason = words(why)
    return [NotTaken(one, reason, not_before=not_before, charged=False) for one in deliveries]

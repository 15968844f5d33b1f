"""Who is on which list, one person at a time: add, unsubscribe, suppress, look up.

Nothing in here brings back a person who left (``admission``).
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from newsletter import addresses, admission
from newsletter.admission import Verdict
from newsletter.errors import Refused, UsageError
from newsletter.model import SubscriptionState
from newsletter.people import Entry, usable
from newsletter.store import letters
from newsletter.store import subscribers as store
from newsletter.store.engine import read, write
from newsletter.store.subscribers import ERASED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Engine

    from newsletter.admission import Decision
    from newsletter.model import LetterPurpose, Subscriber
    from newsletter.store.subscribers import Consent, Copy, Suppressed


@dataclass(frozen=True, slots=True)
class Person:
    """All that is known about an address."""

    standings: Sequence[Subscriber]
    suppressed: Suppressed | None
    consents: Sequence[Consent]
    copies: Sequence[Copy]
    asked: Sequence[tuple[LetterPurpose, str, datetime]]  # purpose, list and time of letters that wait


# One person


def add(
    engine: Engine, text: str, list_name: str, secret: bytes, *, name: str, source: str, now: datetime
) -> Decision:
    """Put one person on a list, or give them another name. Raises ``Refused`` for one who left."""
    address = _parse(text)
    try:
        entry = Entry(addresses.key(address, secret), address, usable("name", name.strip()))
    except ValueError as error:
        raise UsageError(f"{str(error).capitalize()}.") from None

    def act(conn: Connection) -> Decision:
        list_id = store.ensure_list(conn, list_name, now)
        [decision] = admission.judge(conn, list_id, [entry])
        if decision.verdict is Verdict.REFUSED:
            raise Refused(
                f"{addresses.mask(address)} is not put on {list_name}: {decision.why}.",
                hint="They come by their own act only: `newsletter subscribers show ADDRESS` says more.",
            )
        admission.act(conn, list_id, [decision], "added", source, now)
        return decision

    return write(engine, act)


def unsubscribe(
    engine: Engine, text: str, list_name: str | None, secret: bytes, *, source: str, now: datetime
) -> list[str]:
    """Take a person off one list, or off all and suppress the address; returns the lists they have left now."""
    address = _parse(text)
    key = addresses.key(address, secret)

    def act(conn: Connection) -> list[str]:
        found = [(number, p) for number, p in store.person(conn, key) if list_name in {None, p.list}]
        if not found:
            where = f"on {list_name}" if list_name else "on any list"
            raise UsageError(
                f"{addresses.mask(address)} is not {where}.",
                hint="To make sure that an address is never mailed: newsletter suppressions add ADDRESS",
            )
        if list_name is None:
            store.suppress(conn, {key: "unsubscribed"}, source=source, now=now)
        store.unsubscribe(conn, [number for number, _ in found], source=source, now=now)
        return [p.list for _, p in found if p.state != SubscriptionState.UNSUBSCRIBED]

    return write(engine, act)


def look_up(engine: Engine, text: str, secret: bytes) -> Person:
    """All that is known about an address."""
    key = addresses.key(_parse(text), secret)

    def look(conn: Connection) -> Person:
        found = store.person(conn, key)
        return Person(
            standings=[person for _, person in found],
            suppressed=store.suppressed(conn, [key]).get(key),
            consents=store.consents(conn, [number for number, _ in found]),
            copies=store.copies(conn, found[0][1].id) if found else (),
            asked=letters.for_address(conn, key),
        )

    return read(engine, look)


def key_of(text: str, secret: bytes) -> bytes:
    """The key of an address that somebody typed. Raises ``UsageError`` for what is none."""
    return addresses.key(_parse(text), secret)


def check_list(engine: Engine, name: str) -> None:
    """Raise ``UsageError`` unless there is such a list."""
    names = read(engine, store.list_names)
    if name in names:
        return
    near = get_close_matches(name, names, n=1)
    known = f"Did you mean {near[0]}?" if near else f"There is: {', '.join(names)}."
    first = f"There is none yet; an import makes it: newsletter subscribers import FILE --list {name}"
    raise UsageError(f"There is no list {name!r}.", hint=known if names else first)


def _parse(text: str) -> str:
    try:
        return addresses.parse(text)
    except ValueError as error:
        raise UsageError(f"{addresses.mask(text)} is no address: {error}") from None


# Suppressions


def suppress(engine: Engine, text: str, secret: bytes, *, reason: str, source: str, now: datetime) -> bool:
    """Never mail an address again; False if that was so already. Nothing but its key is kept."""
    key = addresses.key(_parse(text), secret)
    return write(engine, lambda conn: store.suppress(conn, {key: reason}, source=source, now=now)) == 1


def unsuppress(engine: Engine, text: str, secret: bytes) -> Suppressed:
    """Let an address be mailed again; returns what was lifted. Raises ``Refused`` for an erased person."""
    address = _parse(text)
    key = addresses.key(address, secret)

    def act(conn: Connection) -> Suppressed:
        found = store.suppressed(conn, [key]).get(key)
        if found is None:
            raise UsageError(f"{addresses.mask(address)} is not suppressed.")
        if ERASED in {found.reason, found.source}:
            raise Refused(
                f"{addresses.mask(address)} was erased, and an erasure is for ever.",
                hint="They can subscribe anew themselves.",
            )
        store.unsuppress(conn, key)
        return found

    return write(engine, act)

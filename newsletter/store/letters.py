"""The outbox of letters: rows in, rows out. ``letters`` decides what each says and when it is tried again."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, delete, func, insert, or_, select, update

from newsletter.model import LetterPurpose, LetterState
from newsletter.store.schema import letter, list_, wording

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Row, Select, Table

LEASE = timedelta(minutes=2)
"""How long a process has for a letter, or a notice, before another one takes it. Sending one takes seconds; a provider
that is silent about the end of a message may keep a process waiting longer, and then it is sent twice."""

KEPT = timedelta(days=30)
"""How long a row stays after its link has expired, for whoever is asked why no letter came."""


_NOTHING_SAID = {"name": "", "form": "", "source": "", "wording": ""}
_NO_ADDRESS = {"address": None, "address_key": None}
_NOBODY = _NO_ADDRESS | {"name": ""}


@dataclass(frozen=True, slots=True)
class Letter:
    """One row, as far as anybody needs it."""

    id: int
    delivery: bytes
    purpose: LetterPurpose
    list: str
    list_id: int
    subscription_id: int | None
    address: str
    address_key: bytes
    name: str
    form: str
    source: str
    wording: str
    created_at: datetime
    expires_at: datetime
    tries: int  # before this one
    used_at: datetime | None  # when its link did what it is for


@dataclass(frozen=True, slots=True)
class Addressee:
    """Where a letter goes that does not go to the address on file."""

    address: str
    key: bytes


def queue(
    conn: Connection,
    purpose: LetterPurpose,
    list_id: int,
    to: Addressee | None = None,
    *,
    lasts: timedelta,
    now: datetime,
    subscription_id: int | None = None,
    said: Mapping[str, str] = _NOTHING_SAID,
    refused: str = "",
) -> None:
    """A letter that is to be sent; ``said`` is name, form, source and wording, as far as there are any.

    One that is ``refused``, and why, is written like any other, because the time of an answer must not tell. It holds
    nobody, and the next ``sweep`` takes it away.
    """
    row = {
        "delivery": secrets.token_bytes(16),
        "purpose": purpose,
        "list_id": list_id,
        "subscription_id": subscription_id,
        "address": to.address if to else None,
        "address_key": to.key if to else None,
        "created_at": now,
        "expires_at": (now + lasts).replace(microsecond=0),
        "state": LetterState.WAITING,
        "settled_at": None,
        "tries": 0,
        "reason": "",
    }
    if refused:
        gone = {"state": LetterState.DROPPED, "reason": refused, "settled_at": now, "expires_at": now - KEPT}
        row, said = row | _NO_ADDRESS | gone, _NOTHING_SAID
    conn.execute(insert(letter).values(row | _NOTHING_SAID | dict(said)))


def due(conn: Connection, now: datetime) -> bool:
    """Whether ``claim`` would find any."""
    return conn.execute(select(letter.c.id).where(free(letter, now)).limit(1)).first() is not None


def free(outbox: Table, now: datetime) -> ColumnElement[bool]:
    """A row of ``letter`` or ``notice`` waits, its next try has come, and no living process has it."""
    unleased = or_(outbox.c.leased_until.is_(None), outbox.c.leased_until <= now)
    due_now = or_(outbox.c.not_before.is_(None), outbox.c.not_before <= now)
    return and_(outbox.c.state == LetterState.WAITING, unleased, due_now)


def claim(conn: Connection, now: datetime, limit: int = 20) -> list[Letter]:
    """Takes the next letters that are due, for ``LEASE``; no other process gets them meanwhile.

    First those that readers have asked for: a link that lasts an hour must not wait behind strangers' sign-ups.
    """
    strangers, found = letter.c.purpose == LetterPurpose.SUBSCRIBE, list[Letter]()
    for some in (~strangers, strangers):
        query = _letters().where(free(letter, now), some).order_by(letter.c.id).limit(limit - len(found))
        found += [_letter(row) for row in conn.execute(query)]
    mine = letter.c.id.in_([one.id for one in found])
    conn.execute(update(letter).where(mine).values(leased_until=now + LEASE, tries=letter.c.tries + 1))
    return found


def for_address(conn: Connection, key: bytes) -> list[tuple[LetterPurpose, str, datetime]]:
    """Purpose, list and time of what somebody asked to have sent to an address and that has not left, oldest first."""
    query = select(letter.c.purpose, list_.c.name, letter.c.created_at).join_from(letter, list_)
    rows = conn.execute(query.where(letter.c.address_key == key).order_by(letter.c.id))
    return [(LetterPurpose(purpose), name, at) for purpose, name, at in rows]


def assign(conn: Connection, letter_id: int, subscription_id: int) -> None:
    """Says whose it is, once a sign-up has been looked at."""
    conn.execute(update(letter).where(letter.c.id == letter_id).values(subscription_id=subscription_id))


def settle(conn: Connection, letter_id: int, state: LetterState, now: datetime, reason: str = "") -> None:
    """It is done with. The address goes, but for a new one that has still to be confirmed, and so does the name, but
    for that of a sign-up: who clicks is called what that letter's sender wrote, not what any other one did.

    One that was sent stays so: whoever was slow with a second copy knows less.
    """
    done = {"state": state, "settled_at": now, "leased_until": None, "not_before": None, "reason": reason}
    unsent = (letter.c.id == letter_id, letter.c.state != LetterState.SENT)
    conn.execute(update(letter).where(*unsent).values(done))
    sent = and_(letter.c.id == letter_id, letter.c.state == LetterState.SENT)
    signed_up, moved = (letter.c.purpose == each for each in (LetterPurpose.SUBSCRIBE, LetterPurpose.CHANGE))
    conn.execute(update(letter).where(sent, signed_up).values(_NO_ADDRESS))
    conn.execute(
        update(letter).where(letter.c.id == letter_id, ~and_(sent, or_(signed_up, moved))).values(_NOBODY)
    )


def postpone(conn: Connection, claimed: Letter, until: datetime, reason: str) -> None:
    """It was not taken, or nobody knows: it is tried again. Nothing, if another process has it by now."""
    later = {"not_before": until, "leased_until": None, "reason": reason}
    mine = (letter.c.id == claimed.id, letter.c.tries == claimed.tries + 1)
    conn.execute(update(letter).where(*mine).values(later))


def find(
    conn: Connection, purpose: LetterPurpose, subscription_id: int, expires_at: datetime
) -> Letter | None:
    """The letter that brought a link; of two that brought the same one, that which was not used."""
    same = (
        letter.c.purpose == purpose,
        letter.c.subscription_id == subscription_id,
        letter.c.expires_at == expires_at,
    )
    unused_first = (letter.c.used_at.is_not(None), letter.c.id)
    row = conn.execute(_letters().where(*same).order_by(*unused_first).limit(1)).first()
    return _letter(row) if row else None


def use(conn: Connection, letter_id: int, now: datetime) -> bool:
    """Its link does what it is for, and what the letter held of an address is not needed any more; False if it did."""
    unused = (letter.c.id == letter_id, letter.c.used_at.is_(None))
    return conn.execute(update(letter).where(*unused).values(_NOBODY | {"used_at": now})).rowcount == 1


def call_off(conn: Connection, letter_id: int, now: datetime) -> None:
    """Its link does nothing any more, and if it has not left, it does not leave."""
    off = {"state": LetterState.DROPPED, "reason": "called off", "settled_at": now, "leased_until": None}
    conn.execute(update(letter).where(letter.c.id == letter_id).values(_NOBODY | off))


def counts(conn: Connection) -> dict[LetterState, int]:
    """How many rows are in each state."""
    rows = conn.execute(select(letter.c.state, func.count()).group_by(letter.c.state))
    return {LetterState(state): number for state, number in rows}


def sweep(conn: Connection, now: datetime, limit: int = 500) -> bool:
    """Takes away rows that nobody will ask for again, a month after their links expired; False when none is left."""
    some = select(letter.c.id).where(letter.c.expires_at <= now - KEPT).limit(limit)
    return conn.execute(delete(letter).where(letter.c.id.in_(some))).rowcount > 0


def forget_names(conn: Connection, now: datetime, limit: int = 500) -> bool:
    """Whom a letter names goes as soon as its link has ended; False when there is none."""
    named = or_(letter.c.address_key.is_not(None), letter.c.name != "")
    some = select(letter.c.id).where(letter.c.expires_at <= now, named).limit(limit)
    return conn.execute(update(letter).where(letter.c.id.in_(some)).values(_NOBODY)).rowcount > 0


def remember_wording(conn: Connection, version: str, text: str, language: str, now: datetime) -> None:
    """Keeps the words that people agree to, once."""
    if conn.execute(select(wording.c.version).where(wording.c.version == version)).first() is None:
        conn.execute(insert(wording).values(version=version, text=text, language=language, first_at=now))


_COLUMNS = (
    "id",
    "delivery",
    "purpose",
    "list_id",
    "subscription_id",
    "address",
    "address_key",
    "name",
    "form",
    "source",
    "wording",
    "created_at",
    "expires_at",
    "tries",
    "used_at",
)


def _letters() -> Select[Any]:
    columns = [letter.c[name] for name in _COLUMNS]
    return select(*columns, list_.c.name.label("list")).join_from(letter, list_)


def _letter(row: Row[Any]) -> Letter:
    return Letter(
        id=row.id,
        delivery=bytes(row.delivery),
        purpose=LetterPurpose(row.purpose),
        list=row.list,
        list_id=row.list_id,
        subscription_id=row.subscription_id,
        address=row.address or "",
        address_key=bytes(row.address_key or b""),
        name=row.name,
        form=row.form,
        source=row.source,
        wording=row.wording,
        created_at=row.created_at,
        expires_at=row.expires_at,
        tries=row.tries,
        used_at=row.used_at,
    )

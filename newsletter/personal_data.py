"""What a person may ask of us about themselves: to see all of it, to change their address, to be erased.

A link in a newsletter is not enough for that, because newsletters are forwarded. It asks for a letter, which goes to
the address on file with a link that ends after an hour and works once: what it does and that it was used are one
transaction. A new address is used only after somebody there has said yes.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from newsletter import addresses, choosing
from newsletter.joining import A_FEW_A_DAY, A_FEW_NOW, TOO_MANY, letters_to
from newsletter.model import LetterPurpose
from newsletter.store import choices, engine, letters, personal, subscribers, throttles
from newsletter.store.choices import Said
from newsletter.store.letters import Addressee

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from newsletter.store.personal import Rows

ACCESS_LASTS = timedelta(hours=1)
CHANGE_LASTS = timedelta(days=1)
MOVED = "moved to another address"

CHANGED, ALREADY, TAKEN, GONE = "changed", "already", "taken", "gone"
CALLED_OFF, LEFT = "called off", "left"


# The link to one's own data


def ask_access(conn: Connection, subscription_id: int, *, secret: bytes, now: datetime) -> bool:
    """Queue a letter to the address on file with a link to ``download``, ``ask_change`` and ``erase_by_link``.

    False, and nothing done, for an erased person, and when there were too many in a short time. ``secret`` makes
    address keys.
    """
    owner = choices.owner(conn, subscription_id)
    if owner is None or owner.key is None:
        return False
    if not throttles.take(conn, _limits(owner.key, secret), now):
        return False
    purpose, number = LetterPurpose.ACCESS, subscription_id
    letters.queue(conn, purpose, owner.list_id, lasts=ACCESS_LASTS, now=now, subscription_id=number)
    return True


def _limits(key: bytes, secret: bytes) -> dict[bytes, throttles.Allowance]:
    """Of their own: no stranger's sign-ups keep a reader from their data."""
    scopes = {"access": A_FEW_NOW, "access a day": A_FEW_A_DAY}
    return {throttles.scope(name, key, secret): allowance for name, allowance in scopes.items()}


def usable(conn: Connection, subscription_id: int, expires: datetime, *, now: datetime) -> bool:
    """Whether an access link can still be used: for the page that shows what it can do."""
    found = letters.find(conn, LetterPurpose.ACCESS, subscription_id, expires)
    return found is not None and found.used_at is None and now < expires


def _use(conn: Connection, subscription_id: int, expires: datetime, now: datetime) -> choices.Owner | None:
    """The person, if their link had not been used: from now on it is."""
    found = letters.find(conn, LetterPurpose.ACCESS, subscription_id, expires)
    if found is None or not now < expires or not letters.use(conn, found.id, now):
        return None
    owner = choices.owner(conn, subscription_id)
    return owner if owner is not None and owner.key is not None else None


# Seeing


def download(
    conn: Connection, subscription_id: int, expires: datetime, *, now: datetime
) -> dict[str, Any] | None:
    """All that is held about the person, for whom the link was mailed; None if it is used up."""
    owner = _use(conn, subscription_id, expires, now)
    return None if owner is None else export(conn, owner.subscriber_id)


def export(conn: Connection, subscriber_id: int) -> dict[str, Any]:
    """All that is held about a person, ready for JSON: times are ISO 8601 in UTC, bytes are hex digits.

    Every column of every row about them, with the words they agreed to in full (GDPR, articles 15 and 20). Left out
    are only the numbers by which rows find each other, and which process of ours sent a copy.
    """
    held = personal.held(conn, subscriber_id)
    [person] = held["subscriber"]
    return {
        "person": _plain(person),
        "lists": [_plain(row) | {"said": _said(held["consent"], row["id"])} for row in held["subscription"]],
        "emails": [_plain(row) for row in held["delivery"]],
        "letters": [_plain(row) for row in held["letter"]],
        "never_mailed": [_plain(row) for row in held["suppression"]],
    }


def export_by_key(conn: Connection, key: bytes) -> dict[str, Any] | None:
    """The same for an address, for the operator; None if nobody has it and nothing is suppressed.

    Of an address that nobody has, or that was erased, there may be the suppression and a letter on its way.
    """
    person = personal.owner_of(conn, key)
    held = export(conn, person) if person is not None else _strangers(conn, key)
    return held if any(held.values()) else None


def _strangers(conn: Connection, key: bytes) -> dict[str, Any]:
    return {part: [_plain(row) for row in rows] for part, rows in personal.held_of_nobody(conn, key).items()}


INTERNAL = frozenset(
    {"seq", "subscriber_id", "subscription_id", "list_id", "campaign_id", "owner", "leased_until"}
)


def _said(consents: Rows, subscription_id: int) -> list[dict[str, Any]]:
    return [_plain(row) for row in consents if row["subscription_id"] == subscription_id]


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in row.items() if name not in INTERNAL}
    # Numbers of rows are ours; a copy's random id stands in its Message-ID.
    return {name: _json(value) for name, value in kept.items() if name != "id" or isinstance(value, bytes)}


def _json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    return bytes(value).hex() if isinstance(value, bytes | memoryview) else value


# Another address


def ask_change(
    conn: Connection,
    subscription_id: int,
    expires: datetime,
    new_address: str,
    *,
    secret: bytes,
    now: datetime,
) -> bool:
    """Use an access link up and queue a letter to the new address, whoever has it; False if the link is used up.

    Raises ``ValueError`` with a sentence for what is no address: roll back, and the link can be used again.
    """
    address = addresses.parse(new_address)
    key = addresses.key(address, secret)
    owner = _use(conn, subscription_id, expires, now)
    if owner is None:
        return False
    refused = "" if throttles.take(conn, letters_to(address, secret), now) else TOO_MANY
    letters.queue(
        conn,
        LetterPurpose.CHANGE,
        owner.list_id,
        Addressee(address, key),
        lasts=CHANGE_LASTS,
        now=now,
        subscription_id=subscription_id,
        refused=refused,
    )
    return True


def change(
    conn: Connection, subscription_id: int, expires: datetime, *, source: str, now: datetime, form: str = ""
) -> str:
    """Use the new address from now on: somebody there said yes.

    ``changed``; ``already`` for a second click; ``taken`` when that address gets our mails already, and then nothing
    changes: two standings can't be made one without a guess, and each has its own way out. ``gone`` when the link has
    ended, the person was erased, or that address must not be written to.

    The old address is suppressed as one that left, so that no old file brings it back beside the new one.
    """
    found = letters.find(conn, LetterPurpose.CHANGE, subscription_id, expires)
    owner = choices.owner(conn, subscription_id)
    if found is None or not now < expires or owner is None or owner.key is None:
        return GONE
    if found.used_at is not None:
        return ALREADY
    to = Addressee(found.address, found.address_key)
    if hindered := _hindrance(conn, owner, to):
        return hindered  # and the link is not used up: whoever is there has not become the reader
    letters.use(conn, found.id, now)
    _move(conn, owner, to, Said(source, form, now))
    return CHANGED


def refuse_change(
    conn: Connection, subscription_id: int, expires: datetime, *, source: str, now: datetime, form: str = ""
) -> str:
    """The answer to the same letter of a mail program's "unsubscribe".

    ``called off`` while nobody has confirmed it: whoever reads there did not ask, and the reader's standing is not
    theirs. ``left`` once it was confirmed, for then it is. ``gone`` when nobody can know any more.
    """
    found = letters.find(conn, LetterPurpose.CHANGE, subscription_id, expires)
    if found is None:
        return GONE
    if found.used_at is not None:
        choosing.leave(conn, subscription_id, source=source, now=now, form=form)
        return LEFT
    letters.call_off(conn, found.id, now)
    return CALLED_OFF


def _hindrance(conn: Connection, owner: choices.Owner, to: Addressee) -> str:
    stopped = subscribers.suppressed(conn, [to.key]).get(to.key)
    if not to.address or (stopped and stopped.reason not in subscribers.LIFTABLE):
        return GONE
    other = personal.owner_of(conn, to.key)
    free = other in {None, owner.subscriber_id} or not personal.is_on_a_list(conn, other)
    return "" if free else TAKEN


def _move(conn: Connection, owner: choices.Owner, to: Addressee, said: Said) -> None:
    other = personal.owner_of(conn, to.key)
    if other not in {
        None,
        owner.subscriber_id,
    }:  # gets nothing any more: the same person, who had given it up
        personal.erase(conn, [other], to.key, said.now)
    subscribers.unsuppress(conn, to.key)
    personal.move(conn, owner.subscriber_id, to.address, to.key)
    if owner.key is not None and owner.key != to.key:  # else it is only written in another way
        subscribers.suppress(conn, {owner.key: "unsubscribed"}, source=MOVED, now=said.now)
    places = choices.places(conn, owner.subscriber_id)
    choices.say(conn, {place.subscription_id: "address changed" for place in places}, said)


# Erasing


@dataclass(frozen=True, slots=True)
class Erased:
    """What is left to do outside the transaction: ``clear_up`` does it."""

    copies: Sequence[tuple[str, str]] = field(repr=False)  # issue, delivery id in hex
    letters: Sequence[str] = field(repr=False)
    on_the_way: int  # copies of which no answer has come: erase once more when it has


def erase(conn: Connection, key: bytes, *, now: datetime) -> Erased | None:
    """Take a person out of everything but the numbers; None if nothing is known of this address.

    What stays is the ledger without their address, the consents without their source, and the address key on the
    suppression list, so that no old file brings them back. Once more does what came in since. Call ``clear_up`` when
    the transaction is committed.
    """
    people = personal.had(conn, key)
    known = people or letters.for_address(conn, key) or _was_erased(conn, key)
    if not known:
        return None
    subscribers.suppress_erased(conn, key, now)
    traces = personal.erase(conn, people, key, now)
    personal.begin_overwriting(conn)
    return Erased(traces.copies, traces.letters, traces.on_the_way)


def _was_erased(conn: Connection, key: bytes) -> bool:
    stopped = subscribers.suppressed(conn, [key]).get(key)
    return stopped is not None and subscribers.ERASED in {stopped.reason, stopped.source}


def erase_by_link(
    conn: Connection, subscription_id: int, expires: datetime, *, now: datetime
) -> Erased | None:
    """The same for whoever the link was mailed to; None if it is used up."""
    owner = _use(conn, subscription_id, expires, now)
    return None if owner is None or owner.key is None else erase(conn, owner.key, now=now)


def clear_up(engine_: Engine, outbox: Path, erased: Erased) -> bool:
    """Remove the files of an erased person's mails, and their traces from the database's free space and log.

    ``outbox`` is the folder with one folder for each issue. False if other programs kept the database in use for too
    long: then erasing once more does it, and a serving process tries again by itself.
    """
    files = [*erased.copies, *(("letters", number) for number in erased.letters)]
    for folder, number in files:
        for name in (f"{number}.eml", f".{number}.tmp"):
            with suppress(NotADirectoryError):
                (outbox / folder / name).unlink(missing_ok=True)
    return finish_overwriting(engine_)


def finish_overwriting(engine_: Engine) -> bool:
    """Take what erasures have left out of the database's free space and log; False if others keep them in use.

    The database itself remembers that there is something to do, so that a process that was killed, or had to give up,
    leaves it to the next one.
    """
    begun = engine.read(engine_, personal.overwriting)
    if begun is None:
        return True
    if not engine.scrub(engine_):
        return False
    engine.write(engine_, lambda conn: personal.end_overwriting(conn, begun))
    return True

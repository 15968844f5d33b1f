"""What a person can do with the link in their mail: leave, pause, come back, another edition, other lists.

Newsletters are forwarded, so whoever holds the link may do this and nothing more: no name and no address comes out of
here, and nothing begins that was not agreed to. Joining one more list takes a letter to the address on file. All of it
is atomic in the caller's transaction, and pressing twice is pressing once.
"""

from __future__ import annotations

import time
from calendar import monthrange
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from newsletter.joining import CONFIRM_LASTS, letters_to
from newsletter.model import Edition, LetterPurpose, SubscriptionState
from newsletter.store import choices as store
from newsletter.store import letters, throttles
from newsletter.store.choices import Said
from newsletter.store.engine import BREATH_SECONDS, read, write
from newsletter.store.letters import Addressee
from newsletter.store.subscribers import ensure_list, unsubscribe

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Engine

    from newsletter.joining import Wording
    from newsletter.store.choices import Place

PAUSES = (1, 3, 6)  # months
CHUNK = 500  # rows in one transaction: about 10 ms
LEFT, ALREADY, UNKNOWN = "left", "already", "unknown"


@dataclass(frozen=True, slots=True)
class Choices:
    """All that a page behind a mail's link may show: no name, no address."""

    list: str  # whose mail the link was in
    state: SubscriptionState  # on that list
    paused_until: datetime | None  # on whichever list is paused longest
    edition: Edition
    lists: Sequence[Place]  # this one too
    suppressed: str  # why this address is not written to, or empty
    erased: bool


def standing(conn: Connection, subscription_id: int) -> Choices | None:
    """How things are; None if there never was such a subscription."""
    owner = store.owner(conn, subscription_id)
    if owner is None:
        return None
    lists = store.places(conn, owner.subscriber_id)
    here = next(place for place in lists if place.subscription_id == subscription_id)
    until = max((place.paused_until for place in lists if place.paused_until), default=None)
    return Choices(
        here.list,
        here.state,
        until,
        Edition.stored(owner.edition),
        lists,
        owner.suppressed,
        erased=owner.key is None,
    )


# Leaving


def leave(conn: Connection, subscription_id: int, *, source: str, now: datetime, form: str = "") -> str:
    """Take a person off the list at once: ``left``, ``already`` (erased people too) or ``unknown``."""
    return leave_many(conn, [subscription_id], source=source, now=now, form=form)[subscription_id]


def leave_many(
    conn: Connection, subscription_ids: Collection[int], *, source: str, now: datetime, form: str = ""
) -> dict[int, str]:
    """The same for many, in three statements at most."""
    left = unsubscribe(conn, subscription_ids, source=source, now=now, form=form)
    rest = set(subscription_ids) - left
    known = store.known(conn, rest) if rest else set()
    return {
        number: LEFT if number in left else ALREADY if number in known else UNKNOWN
        for number in subscription_ids
    }


# Pausing


def pause(
    conn: Connection, subscription_id: int, months: int, *, source: str, now: datetime, form: str = ""
) -> datetime | None:
    """Send nothing for 1, 3 or 6 months, from any list: whoever asks for a break wants quiet.

    Returns until when, None for whoever is on no list. Pressed again, it counts from now; on the same day it changes
    nothing. Raises ``ValueError`` for another number.
    """
    if months not in PAUSES:
        raise ValueError(f"A pause has {', '.join(map(str, PAUSES))} months.")
    until = months_later(now, months)
    on = [place for place in _places(conn, subscription_id) if place.state in store.ON_LIST]
    before = {p.subscription_id: p.paused_until for p in on if _same_day(p.paused_until, until)}
    paused = store.pause(conn, {place.subscription_id for place in on} - before.keys(), until, now)
    store.say(conn, dict.fromkeys(paused, f"paused until {until:%Y-%m-%d}"), Said(source, form, now))
    return until if paused else next(iter(before.values()), None)


def _same_day(one: datetime | None, other: datetime) -> bool:
    return one is not None and one.date() == other.date()


def months_later(moment: datetime, months: int) -> datetime:
    """The same day and time so many calendar months later; where a month is too short, its last day."""
    years, month = divmod(moment.month - 1 + months, 12)
    year, month = moment.year + years, month + 1
    return moment.replace(year=year, month=month, day=min(moment.day, monthrange(year, month)[1]))


def resume(conn: Connection, subscription_id: int, *, source: str, now: datetime, form: str = "") -> bool:
    """End a pause on every list; False for whoever has none. Brings back nobody who left."""
    theirs = [place.subscription_id for place in _places(conn, subscription_id)]
    resumed = store.resume(conn, theirs, now)
    store.say(conn, dict.fromkeys(resumed, "resumed"), Said(source, form, now))
    return bool(resumed)


def wake(conn: Connection, now: datetime, limit: int) -> bool:
    """End up to ``limit`` pauses whose time is over; False when there is none."""
    return _wake(conn, store.pauses_over(conn, now, limit), now)


def wake_all(engine: Engine, now: datetime) -> None:
    """End every pause whose time is over: before a freeze, and now and then.

    Looking for them takes longer than anybody should hold the write lock, so it is done outside of it.
    """
    while over := read(engine, lambda conn: store.pauses_over(conn, now, CHUNK)):
        write(engine, partial(_wake, subscription_ids=over, now=now))
        time.sleep(BREATH_SECONDS)


def _wake(conn: Connection, subscription_ids: Collection[int], now: datetime) -> bool:
    woken = store.wake(conn, subscription_ids, now)
    store.say(conn, dict.fromkeys(woken, "pause ended"), Said("", "", now))
    return bool(woken)


def _places(conn: Connection, subscription_id: int) -> list[Place]:
    """Every list of the person behind a link."""
    owner = store.owner(conn, subscription_id)
    return store.places(conn, owner.subscriber_id) if owner else []


# The edition


def choose_edition(
    conn: Connection,
    subscription_id: int,
    edition: Edition,
    *,
    source: str,
    now: datetime,
    form: str = "",
) -> bool:
    """Send another edition from the next issue on, on every list; False if nobody is there to send it to.

    Raises ``ValueError`` for one that does not exist.
    """
    edition, owner = Edition(edition), store.owner(conn, subscription_id)
    if owner is None or owner.key is None:
        return False
    if store.choose_edition(conn, owner.subscriber_id, edition):
        store.say(conn, {subscription_id: f"chose the edition {edition}"}, Said(source, form, now))
    return True


# Other lists


def leave_list(
    conn: Connection, subscription_id: int, list_name: str, *, source: str, now: datetime, form: str = ""
) -> str:
    """Leave another list of the same person's at once: ``left``, ``already`` or ``unknown``."""
    found = _places(conn, subscription_id)
    place = next((place.subscription_id for place in found if place.list == list_name), None)
    return UNKNOWN if place is None else leave(conn, place, source=source, now=now, form=form)


def join_list(
    conn: Connection,
    subscription_id: int,
    list_name: str,
    *,
    secret: bytes,
    wording: Wording,
    source: str,
    now: datetime,
    form: str = "",
) -> bool:
    """Queue a letter to the address on file that asks to confirm one more list; nothing else changes.

    False, and nothing done, for an erased person, and when there were too many letters in a short time: the limits are
    those of sign-ups. ``secret`` makes address keys.
    """
    owner = store.owner(conn, subscription_id)
    if owner is None or owner.address is None or owner.key is None:
        return False
    if not throttles.take(conn, letters_to(owner.address, secret), now):
        return False
    letters.remember_wording(conn, wording.version, wording.text, wording.language, now)
    to, list_id = Addressee(owner.address, owner.key), ensure_list(conn, list_name, now)
    said = {"form": form, "source": source, "wording": wording.version}
    letters.queue(conn, LetterPurpose.SUBSCRIBE, list_id, to, lasts=CONFIRM_LASTS, now=now, said=said)
    return True

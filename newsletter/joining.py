"""How people come onto a list by themselves: they ask, get a letter, and confirm.

``ask`` looks nothing up about the person and does the same for every address, so that a form never tells strangers who
is on the list. What the address is to us is looked at when its letter is sent (``look``), and only ``confirm`` brings
anybody in, or back: from a link that was mailed to that address. docs/decisions/0022 and 0024.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from newsletter import addresses
from newsletter.headers import clean
from newsletter.limits import Rate
from newsletter.model import LetterPurpose, SubscriptionState
from newsletter.store import choices, throttles
from newsletter.store import letters as outbox
from newsletter.store import subscribers as people
from newsletter.store.choices import Said
from newsletter.store.letters import Addressee
from newsletter.store.subscribers import LIFTABLE, Newcomer
from newsletter.store.throttles import Allowance

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from newsletter.store.choices import Owner
    from newsletter.store.letters import Letter

CONFIRM_LASTS = timedelta(days=7)
UNCONFIRMED_KEPT = timedelta(days=30)
LONGEST_NAME = 60  # characters
A_FEW_NOW = Allowance(Rate(6, 3600), 2)
A_FEW_A_DAY = Allowance(Rate(1, 86400), 4)  # then one a day: whoever is annoyed with letters gets no fifth
TOO_MANY = "too many in a short time"
AT_ONCE = 10  # from one network: a waiting room where somebody passes the address on


@dataclass(frozen=True, slots=True)
class Wording:
    """The words that somebody agrees to, and the version by which a consent names them."""

    text: str
    language: str

    @classmethod
    def of(cls, text: str, language: str) -> Wording:
        """The words as a page shows them."""
        return cls(text, language)

    @property
    def version(self) -> str:
        """12 hex digits of the words' hash: other words, another version."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class SignUp:
    """What somebody asks for."""

    address: str  # of ``addresses.parse``
    list: str
    name: str = ""
    form: str = ""  # which form was used
    source: str = ""  # where it stands


class Outcome(StrEnum):
    """What a click on a confirmation did."""

    CONFIRMED = "confirmed"
    ALREADY = "already"  # on the list, and was before this click
    GONE = "gone"  # the link was used before, or what it belongs to was forgotten


@dataclass(frozen=True, slots=True)
class Look:
    """Whom a sign-up is about."""

    subscription_id: int | None
    on_list: bool = False
    dropped: str = ""  # why no letter is to leave; empty where one is


def ask(
    conn: Connection,
    wish: SignUp,
    *,
    address_key: bytes,
    network: str,
    limits: Rate,
    wording: Wording,
    now: datetime,
) -> bool:
    """Queues the letter that asks to confirm; False, and no letter, when there were too many in a short time.

    Both take the same time, and the caller gives the same answer to both. ``address_key`` is the secret that makes
    keys, ``network`` where the wish came from, ``limits`` how many may come from there. Raises ``ValueError`` for a
    name that no mail could hold.
    """
    strangers = throttles.scope("network", throttles.network(network), address_key)
    scopes = letters_to(wish.address, address_key) | {strangers: Allowance(limits, AT_ONCE)}
    name = tidy_name(wish.name)
    taken = throttles.take(conn, scopes, now)
    outbox.remember_wording(conn, wording.version, wording.text, wording.language, now)
    list_id = people.ensure_list(conn, wish.list, now)
    said = {"name": name, "form": wish.form, "source": wish.source, "wording": wording.version}
    to, refused = Addressee(wish.address, addresses.key(wish.address, address_key)), "" if taken else TOO_MANY
    purpose = LetterPurpose.SUBSCRIBE
    outbox.queue(conn, purpose, list_id, to, lasts=CONFIRM_LASTS, now=now, said=said, refused=refused)
    return taken


def letters_to(address: str, secret: bytes) -> dict[bytes, Allowance]:
    """How many letters strangers may have sent to an address, in whatever way they ask, and however they write it."""
    mailbox = throttles.mailbox(address)
    return {
        throttles.scope("address", mailbox, secret): A_FEW_NOW,
        throttles.scope("address a day", mailbox, secret): A_FEW_A_DAY,
    }


def tidy_name(text: str) -> str:
    """A name with single blanks. Raises ``ValueError`` for one that is too long or could end a line of a mail."""
    tidy = " ".join(text.split())
    if len(tidy) > LONGEST_NAME:
        raise ValueError(f"the name has more than {LONGEST_NAME} characters")
    return clean("the name", tidy)


def look(conn: Connection, letter: Letter) -> Look:
    """Finds out whom a sign-up is about: makes a new person ``pending``, and changes nobody who is known."""
    stopped = people.suppressed(conn, [letter.address_key]).get(letter.address_key)
    if stopped is not None and stopped.reason not in LIFTABLE:
        return Look(None, dropped=f"suppressed: {stopped.reason}")
    known = people.standings(conn, letter.list_id, [letter.address_key]).get(letter.address_key)
    number = known.subscription_id if known else None
    if number is None:
        number = _welcome(conn, letter)
    if letter.subscription_id is None:  # its first try
        outbox.assign(conn, letter.id, number)
        choices.say(conn, {number: "asked"}, _said(letter, letter.created_at))
    here = known is not None and known.state in choices.ON_LIST
    return Look(number, on_list=here and stopped is None)


def _welcome(conn: Connection, letter: Letter) -> int:
    """A new subscription that nobody has confirmed; returns its number."""
    newcomer = Newcomer(letter.address_key, letter.address, SubscriptionState.PENDING, "", letter.name)
    people.add_people(conn, letter.list_id, [newcomer], source=letter.source, now=letter.created_at)
    made = people.standings(conn, letter.list_id, [letter.address_key])[letter.address_key]
    assert made.subscription_id is not None
    return made.subscription_id


def _said(letter: Letter, now: datetime, *, wording: str = "") -> Said:
    return Said(letter.source, letter.form, now, wording or letter.wording)


def confirm(
    conn: Connection,
    subscription_id: int,
    *,
    expires: datetime,
    form: str,
    source: str,
    wording: Wording,
    now: datetime,
) -> Outcome:
    """Puts the person of a confirmation's link on the list, or back on it. The second click changes nothing.

    A link that was used brings nobody back who has left since.
    """
    letter = outbox.find(conn, LetterPurpose.SUBSCRIBE, subscription_id, expires)
    owner = choices.owner(conn, subscription_id)
    if letter is None or owner is None or owner.key is None or not _may_come(owner):
        return Outcome.GONE
    here = choices.is_on_list(conn, subscription_id) and not owner.suppressed
    first = outbox.use(conn, letter.id, now)
    if here or not first:
        return Outcome.ALREADY if here else Outcome.GONE
    _call(conn, owner, letter.name)
    _lift(conn, owner, now)
    choices.activate(conn, subscription_id, now, source=letter.source)
    outbox.remember_wording(conn, wording.version, wording.text, wording.language, now)
    choices.say(conn, {subscription_id: "confirmed"}, Said(source, form, now, wording.version))
    return Outcome.CONFIRMED


def _call(conn: Connection, owner: Owner, name: str) -> None:
    """Whoever was nowhere is called what the letter that was clicked says, and not what strangers have typed."""
    places = choices.places(conn, owner.subscriber_id)
    if any(place.state in choices.ON_LIST for place in places):
        return
    only_asked = all(place.state == SubscriptionState.PENDING for place in places)
    if name or only_asked:
        people.rename(conn, owner.subscriber_id, name)


def _lift(conn: Connection, owner: Owner, now: datetime) -> None:
    """The suppression goes. Whoever had left for good comes back to the one list that they have just confirmed."""
    if owner.suppressed == "unsubscribed":
        places = choices.places(conn, owner.subscriber_id)
        others = [place.subscription_id for place in places if place.state in choices.ON_LIST]
        people.unsubscribe(conn, others, source="suppressed before", now=now)
    assert owner.key is not None
    people.unsuppress(conn, owner.key)


def _may_come(owner: Owner) -> bool:
    """Not where somebody said more than that they want to leave: a complaint and the operator's word stay."""
    return not owner.suppressed or owner.suppressed in LIFTABLE


def forget_unconfirmed(conn: Connection, now: datetime, limit: int = 100) -> bool:
    """Removes up to ``limit`` people who never confirmed; False when there is none.

    They have agreed to nothing, so nothing of them is kept.
    """
    return people.forget_pending(conn, now - UNCONFIRMED_KEPT, limit) > 0

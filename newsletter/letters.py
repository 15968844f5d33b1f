"""Letters: mails to one person who has just asked for something. Sent at least once, and never behind a campaign.

::

    letter
    waiting → sent       the provider took it
       ├────→ waiting    not taken, no answer, or the process died with it: tried again until its link expires
       ├────→ gave-up    refused for good, or expired
       └────→ dropped    nobody is to get it: suppressed, erased, not on the allowlist

A process takes a letter for two minutes. If it dies, the next one sends the letter, perhaps for the second time: two
confirmations cost a reader a glance, and none costs us the reader. A campaign's copy is never sent on a guess.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING

from newsletter import joining, posting
from newsletter.errors import ContentError, TransportError, where
from newsletter.model import NOT_ALLOWED, Accepted, Edition, LetterPurpose, LetterState, Recipient, Refused
from newsletter.store import choices
from newsletter.store import letters as outbox
from newsletter.store.engine import read, write
from newsletter.store.personal import codes_only
from newsletter.store.subscribers import LIFTABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from threading import Event

    from sqlalchemy import Connection, Engine

    from newsletter.message import Wire
    from newsletter.model import Outcome
    from newsletter.store.letters import Letter
    from newsletter.transports.base import Transport

EXPIRED = "expired before it could be sent"

logger = logging.getLogger(__name__)


class LetterKind(StrEnum):
    """What a letter says: a template's words, and a link's purpose."""

    CONFIRM = "confirm"
    ALREADY = "already"
    ACCESS = "access"
    CHANGE = "change"


@dataclass(frozen=True, slots=True)
class Links:
    """Makes the links of letters. ``action`` gets the kind, the subscription and when the link expires."""

    action: Callable[[LetterKind, int, datetime], str]
    lasting: Callable[[int], Mapping[str, str]]  # subscription → unsubscribe_url and preferences_url


@dataclass(frozen=True, slots=True)
class Ready:
    """A letter whose words and whose way are known."""

    letter: Letter
    kind: LetterKind
    edition: Edition  # the reader's own: whoever chose large print can't read a small letter either
    recipient: Recipient = field(repr=False)


@dataclass(frozen=True, slots=True)
class Dropped:
    """A letter that nobody is to get."""

    letter: Letter
    why: str


class Office:
    """Sends what waits. One for each process that may send letters; they share the work."""

    def __init__(
        self,
        engine: Engine,
        transport: Transport,
        compose: Callable[[LetterKind, str, Edition, datetime], Wire],
        links: Links,
        *,
        only: frozenset[bytes] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._engine = engine
        self._transport = transport
        self._compose = compose
        self._links = links
        self._only = only  # allowlist mode: these address keys and nobody else
        self._clock = clock

    def run(self, closing: Event) -> None:
        """Until ``closing`` is set. What goes wrong is logged, without addresses, and tried again."""
        posting.keep_at(self.work, closing, "letters", logger)

    def work(self) -> int:
        """Sends the letters that are due, once; returns how many were looked at. Raises ``DatabaseError``."""
        now = self._clock()
        # Looked for without the write lock: mostly there are none.
        if not read(self._engine, lambda conn: outbox.due(conn, now)):
            return 0
        ready = write(self._engine, lambda conn: self._take(conn, now))
        alike: dict[tuple[LetterKind, str, Edition], list[Ready]] = {}
        for one in ready:
            if isinstance(one, Ready):
                alike.setdefault((one.kind, one.letter.list, one.edition), []).append(one)
        for (kind, about, edition), some in alike.items():
            self._send(some, partial(self._compose, kind, about, edition, now))
        return len(ready)

    # Deciding

    def _take(self, conn: Connection, now: datetime) -> list[Ready | Dropped | None]:
        found = [self._try_to_decide(conn, letter, now) for letter in outbox.claim(conn, now)]
        for one in found:
            if isinstance(one, Dropped):
                late = one.why == EXPIRED
                state = LetterState.GAVE_UP if late else LetterState.DROPPED
                outbox.settle(conn, one.letter.id, state, now, one.why)
        return found

    def _try_to_decide(self, conn: Connection, letter: Letter, now: datetime) -> Ready | Dropped | None:
        """One row that nobody had thought of must not keep back all others. None: it waits."""
        try:
            return self._decide(conn, letter, now)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            logger.error("a letter waits, because of %s", where(error))  # noqa: TRY400 - its words may hold an address
            outbox.postpone(conn, letter, now + posting.LATER, "could not be made")
            return None

    def _decide(self, conn: Connection, letter: Letter, now: datetime) -> Ready | Dropped:
        if letter.expires_at <= now:
            return Dropped(letter, EXPIRED)
        if letter.purpose is LetterPurpose.SUBSCRIBE:
            return self._of_sign_up(conn, letter)
        kind = LetterKind.ACCESS if letter.purpose is LetterPurpose.ACCESS else LetterKind.CHANGE
        return self._address(conn, letter, kind, letter.subscription_id)

    def _of_sign_up(self, conn: Connection, letter: Letter) -> Ready | Dropped:
        if self._only is not None and letter.address_key not in self._only:
            return Dropped(letter, NOT_ALLOWED)  # before anything is known of a person who gets no letter
        seen = joining.look(conn, letter)
        if seen.dropped:
            return Dropped(letter, seen.dropped)
        kind = LetterKind.ALREADY if seen.on_list else LetterKind.CONFIRM
        return self._address(conn, letter, kind, seen.subscription_id)

    def _address(
        self, conn: Connection, letter: Letter, kind: LetterKind, subscription: int | None
    ) -> Ready | Dropped:
        owner = choices.owner(conn, subscription) if subscription is not None else None
        if owner is None or subscription is None or owner.key is None or owner.address is None:
            return Dropped(letter, "erased")
        # A new address is the letter's own; else the one on file: what was typed may be spelled otherwise.
        elsewhere = kind is LetterKind.CHANGE
        address, key = (letter.address, letter.address_key) if elsewhere else (owner.address, owner.key)
        stopped = choices.suppression_of(conn, key)
        if stopped and stopped not in LIFTABLE:
            return Dropped(letter, f"suppressed: {stopped}")
        if self._only is not None and key not in self._only:
            return Dropped(letter, NOT_ALLOWED)
        action = self._links.action(kind, subscription, letter.expires_at)
        # Whether the new address is its asker's is what this letter asks. Until somebody there has said yes, it gets no
        # link to the person's standing: "unsubscribe" in a mail program means "I did not ask for this" there.
        lasting = {"unsubscribe_url": action} if elsewhere else self._links.lasting(subscription)
        values = {**lasting, "action_url": action}
        return Ready(letter, kind, Edition.stored(owner.edition), Recipient(letter.delivery, address, values))

    # Sending

    def _send(self, some: Sequence[Ready], compose: Callable[[], Wire]) -> None:
        letters = {one.letter.delivery: one.letter for one in some}
        why = "no answer"
        try:
            wire = compose()
            copies = iter([[one.recipient] for one in some])
            self._transport.run(wire, copies, partial(self._settle, letters))
        except (
            TransportError,
            ContentError,
        ) as error:  # a template of the publisher's that can't be compiled
            why = str(error)
            logger.warning("letters wait: %s", error)
        finally:
            self._postpone(list(letters.values()), why)

    def _settle(self, letters: dict[bytes, Letter], outcomes: Sequence[Outcome]) -> None:
        """Each at once: what is not stored when the process dies is sent again."""
        for outcome in outcomes:
            letter = letters.pop(outcome.delivery)
            if isinstance(outcome, Accepted):
                self._store(letter, LetterState.SENT, "")
                logger.info("letter sent")
            elif isinstance(outcome, Refused):
                self._store(letter, LetterState.GAVE_UP, codes_only(outcome.reason))
            else:
                self._postpone([letter], outcome.reason)

    def _store(self, letter: Letter, state: LetterState, reason: str) -> None:
        now = self._clock()
        write(self._engine, lambda conn: outbox.settle(conn, letter.id, state, now, reason))

    def _postpone(self, letters: Sequence[Letter], why: str) -> None:
        now = self._clock()

        def later(conn: Connection) -> None:
            for letter in letters:
                again = posting.next_try(letter.tries + 1, now)
                outbox.postpone(conn, letter, again, codes_only(why) or "not taken")

        if letters:
            write(self._engine, later)


class ClosedOffice:
    """Where nothing may leave: letters wait until that is changed, or until they expire."""

    def run(self, closing: Event) -> None:
        """Does nothing until ``closing`` is set."""
        closing.wait()

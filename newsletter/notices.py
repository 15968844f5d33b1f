"""Notices: mails to the editors, when something needs a person. Sent at least once, through the configured transport.

::

    notice
    waiting → sent       the provider took it
       ├────→ waiting    not taken, no answer, or the process died with it: tried again for three days
       └────→ gave-up    refused for good, too old, or the editor is not on the allowlist

They are queued in the transaction of what they tell of, so that no crash tells twice or not at all. Their words name no
reader and quote no server: its answer may hold an address, and mails are kept where the ledger is not.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from newsletter import posting
from newsletter.errors import TransportError
from newsletter.message import NoticeWire
from newsletter.model import (
    NOT_ALLOWED,
    OPEN_STATES,
    Accepted,
    CampaignState,
    DeliveryState,
    Edition,
    Email,
    NoticeState,
    Recipient,
    Refused,
)
from newsletter.store import campaigns, doubts
from newsletter.store import notices as outbox
from newsletter.store.engine import read, write
from newsletter.store.personal import codes_only

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from threading import Event

    from sqlalchemy import Connection, Engine

    from newsletter.message import MessageSettings
    from newsletter.model import Campaign, Outcome
    from newsletter.store.notices import Notice
    from newsletter.texts import Texts
    from newsletter.transports.base import Transport

KEEPS_TRYING = timedelta(days=3)  # by then somebody has looked, or nobody reads this mailbox
MOST = 20  # notices that one call of ``work`` sends

logger = logging.getLogger(__name__)


# What they say


@dataclass(frozen=True, slots=True)
class Editors:
    """Whom to tell, and in which words."""

    addresses: Sequence[str]
    publication: str  # its short name: what stands in an inbox is discreet
    texts: Texts

    def tell(self, conn: Connection, key: str, words: str, now: datetime, **facts: object) -> bool:
        """Queues ``notice.<words>`` of the texts, filled with the facts; False when ``key`` was told before."""
        known = {"publication": self.publication, **facts}
        return outbox.queue(
            conn,
            key,
            self.addresses,
            subject=self.texts.get(f"notice.{words}.subject", **known),
            text=self.texts.get(f"notice.{words}.text", **known),
            now=now,
        )


def tell_paused(conn: Connection, editors: Editors, paused: Campaign, why: str, now: datetime) -> None:
    """A campaign has paused itself; ``why`` is a code of ``notice.because``. The next pause is told anew."""
    if not _concerns_editors(paused):
        return
    because = editors.texts[f"notice.because.{why}"]
    _tell(conn, editors, paused, "paused", now, because=because)


def tell_doubts(conn: Connection, editors: Editors, ended: Campaign, now: datetime) -> None:
    """A campaign has finished or was cancelled, and of some copies nobody can say whether they arrived."""
    if not _concerns_editors(ended) or not doubts.hand_overs(conn, ended.id, limit=1):
        return  # mostly; and to count a million rows would hold the write lock for long
    if ended.state is CampaignState.CANCELLED and outbox.told(conn, f"doubts:{ended.id}:"):
        return  # by the command that cancelled it, or by the process that was sending it
    _tell(conn, editors, ended, "doubts", now)


def _concerns_editors(one: Campaign) -> bool:
    """Copies in a folder are nobody's: who fills one looks on. An allowlist's rehearsal shows what a real one tells."""
    return one.transport != "folder"


def _tell(
    conn: Connection, editors: Editors, one: Campaign, words: str, now: datetime, **facts: object
) -> None:
    """Each time anew: the caller's transaction has changed the campaign's state, which happens once."""
    prefix = f"{words}:{one.id}:"
    counts = campaigns.counts(conn, one.id)
    editors.tell(
        conn,
        f"{prefix}{outbox.told(conn, prefix) + 1}",
        words,
        now,
        issue=one.issue,
        list=one.list,
        arguments=one.arguments,
        send=one.send,
        accepted=counts.get(DeliveryState.ACCEPTED, 0),
        refused=counts.get(DeliveryState.REFUSED, 0),
        unknown=counts.get(DeliveryState.UNKNOWN, 0),
        waiting=sum(counts.get(state, 0) for state in OPEN_STATES),
        **facts,
    )


# How they leave


def wire(notice: Notice, settings: MessageSettings, language: str) -> NoticeWire:
    """One notice's mail: plain text and nothing else. Raises ``ValueError`` when none can be made of it."""
    subject, text = (words.replace("@@", "@ @") for words in (notice.subject, notice.text))  # no merge tags
    email = Email(
        title=subject,
        subject=subject,
        preheader="",
        html="",
        text=text,
        language=language,
        view_path="/",
        edition=Edition.TEXT,
    )
    return NoticeWire(email, settings)


class Post:
    """Sends what waits. One for each process that may send notices; they share the work."""

    def __init__(
        self,
        engine: Engine,
        transport: Transport,
        compose: Callable[[Notice], NoticeWire],
        *,
        allowed: Callable[[str], bool] = lambda _address: True,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._engine = engine
        self._transport = transport
        self._compose = compose
        self._allowed = allowed  # allowlist mode: these addresses and nobody else
        self._clock = clock
        self._down = False  # the provider can't be reached

    def run(self, closing: Event) -> None:
        """Until ``closing`` is set. What goes wrong is logged, without addresses, and tried again."""
        posting.keep_at(self.work, closing, "notices", logger)

    def work(self) -> int:
        """Sends the notices that are due, each once; returns how many left. Raises ``DatabaseError``.

        A provider that can't be reached is logged and not asked again in this call: the rest waits with it.
        """
        sent, self._down = 0, False
        for _ in range(MOST):
            if self._down or (one := self._take()) is None:
                break
            sent += self._deal_with(one) is NoticeState.SENT
        if sent:
            logger.info("notices sent", extra={"facts": {"count": sent}})
        return sent

    def _take(self) -> Notice | None:
        now = self._clock()
        # Looked for without the write lock: mostly there is none.
        if not read(self._engine, lambda conn: outbox.due(conn, now)):
            return None
        return write(self._engine, lambda conn: outbox.claim(conn, now))

    def _deal_with(self, one: Notice) -> NoticeState:
        if not self._allowed(one.address):
            return self._settle(one, NoticeState.GAVE_UP, NOT_ALLOWED)
        try:
            mail = self._compose(one)
        except ValueError:
            return self._settle(one, NoticeState.GAVE_UP, "no mail can be made of it")
        said: list[Outcome] = []
        try:
            self._transport.run(mail, iter([[Recipient(one.delivery, one.address, {})]]), said.extend)
        except TransportError as error:
            self._down = True
            logger.warning("notices wait: %s", error)
        return self._after(one, said[0] if said else None)

    def _after(self, one: Notice, outcome: Outcome | None) -> NoticeState:
        if isinstance(outcome, Accepted):
            return self._settle(one, NoticeState.SENT, "")
        reason = "no answer" if outcome is None else codes_only(outcome.reason) or "not taken"
        if isinstance(outcome, Refused) or self._clock() - one.created_at >= KEEPS_TRYING:
            return self._settle(one, NoticeState.GAVE_UP, reason)
        return self._postpone(one, reason)

    def _settle(self, one: Notice, state: NoticeState, reason: str) -> NoticeState:
        now = self._clock()
        write(self._engine, lambda conn: outbox.settle(conn, one.id, state, now, reason))
        return state

    def _postpone(self, one: Notice, reason: str) -> NoticeState:
        now = self._clock()
        again = posting.next_try(one.tries + 1, now)
        write(self._engine, lambda conn: outbox.postpone(conn, one, again, reason))
        return NoticeState.WAITING


class ClosedPost:
    """Where nothing may leave: notices wait until that is changed; ``newsletter status`` says that there are some."""

    def run(self, closing: Event) -> None:
        """Does nothing until ``closing`` is set."""
        closing.wait()

    def work(self) -> int:
        """Sends nothing."""
        return 0

"""People, an email, and the book-keeping that ``sending`` does around a transport, without a database."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from newsletter.message import MessageSettings, Wire
from newsletter.model import Email, Recipient, Unknown

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence

    from newsletter.model import Outcome, Picture
    from newsletter.transports.base import Transport

HTML = (
    '<html lang="en"><body><p>Dear @@name|reader@@,</p><p>.a line that starts with a dot</p>'
    '<p><a href="@@unsubscribe_url@@">unsubscribe</a> <a href="@@view_url@@">@@issue_title@@</a></p></body></html>'
)
TEXT = "Dear @@name|reader@@,\n\n.a line that starts with a dot\n\nUnsubscribe: @@unsubscribe_url@@\n"


def recipient(number: int, address: str = "", **values: str) -> Recipient:
    """Person ``number``, with links of their own."""
    links = {
        "unsubscribe_url": f"https://news.example.org/u/{number:035}",
        "preferences_url": f"https://news.example.org/p/{number:035}",
    }
    named = {"name": f"Reader {number}", **values}
    return Recipient(number.to_bytes(16, "big"), address or f"reader{number}@example.net", {**links, **named})


def people(count: int) -> list[Recipient]:
    """Persons 1 to ``count``."""
    return [recipient(number) for number in range(1, count + 1)]


def wire(
    *,
    subject: str = "Iron for @@name|reader@@",
    html: str = HTML,
    text: str = TEXT,
    pictures: tuple[Picture, ...] = (),
    **settings: str,
) -> Wire:
    """A small email, ready to be sent."""
    email = Email(
        title="Iron & more",
        subject=subject,
        preheader="A finding",
        html=html,
        text=text,
        language="en",
        view_path="/archive/2026-12",
        pictures=pictures,
    )
    known = {
        "from_name": "Research Digest",
        "from_address": "digest@example.org",
        "reply_to": "editor@example.org",
        "list_id": "digest.example.org",
        "base_url": "https://news.example.org",
        "unsubscribe_mailto": "",
        "envelope_from": "bounces@example.org",
    }
    return Wire(email, MessageSettings(**{**known, **settings}, date=datetime(2026, 12, 1, 9, tzinfo=UTC)))


@dataclass
class Report:
    """What came of a run, by the person's number."""

    outcomes: Mapping[int, Outcome]
    errors: Sequence[BaseException]
    pulled: int

    def kinds(self) -> dict[int, str]:
        """Number → the outcome's name."""
        return {number: type(outcome).__name__ for number, outcome in sorted(self.outcomes.items())}

    @property
    def error(self) -> BaseException | None:
        """What the only lane raised."""
        assert len(self.errors) <= 1, self.errors
        return self.errors[0] if self.errors else None


@dataclass
class _Book:
    waiting: list[Recipient]
    lock: threading.Lock = field(default_factory=threading.Lock)
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    errors: list[BaseException] = field(default_factory=list)
    pulled: int = 0


# Copies that may be open when a lane pulls its next window: only SMTP pulls while one is in flight.
OPEN = {"smtp": 1}


class _Lane(threading.Thread):
    """Holds the transport to its contract: one settlement per copy, and no more open than may be when it pulls."""

    def __init__(
        self, book: _Book, transport: Transport, message: Wire, window: int, empty: Container[int]
    ) -> None:
        super().__init__(name="lane")
        self._book, self._transport, self._wire, self._window = book, transport, message, window
        self._empty = empty
        self._holds: dict[bytes, Recipient] = {}

    def run(self) -> None:
        try:
            self._transport.run(self._wire, self._copies(), self._settle)
        except BaseException as error:
            self._book.errors.append(error)
        self._settle([Unknown(delivery, "left unsettled") for delivery in list(self._holds)])

    def _copies(self) -> Iterator[Sequence[Recipient]]:
        for pull in itertools.count():
            most = OPEN.get(self._transport.name, 0)
            assert len(self._holds) <= most, "pulled the next window with copies of the last one unsettled"
            if pull in self._empty:
                yield []
                continue
            with self._book.lock:
                window = self._book.waiting[: self._window]
                del self._book.waiting[: self._window]
                self._book.pulled += len(window)
            if not window:
                return
            self._holds |= {copy.delivery: copy for copy in window}
            yield window

    def _settle(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            del self._holds[outcome.delivery]  # KeyError: settled twice, or never pulled
            with self._book.lock:
                self._book.outcomes[int.from_bytes(outcome.delivery, "big")] = outcome


def hand_over(
    transport: Transport,
    recipients: Sequence[Recipient],
    message: Wire | None = None,
    *,
    lanes: int = 1,
    window: int = 0,
    empty: Container[int] = (),
) -> Report:
    """Runs lanes over these people until all have ended (at most a minute). ``empty``: pulls that bring nothing yet."""
    book = _Book(list(recipients))
    known = message or wire()
    threads = [_Lane(book, transport, known, window or transport.window, empty) for _ in range(lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a lane did not end"
    return Report(book.outcomes, book.errors, book.pulled)

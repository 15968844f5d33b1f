"""A file's people, each once: what is asked for them, and which rows can't be read.

The first row of a person gives the name, the worst row the status, however far down it stands.
"""

from __future__ import annotations

import re
from collections import defaultdict
from enum import IntEnum
from functools import lru_cache
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from newsletter import addresses
from newsletter.formulas import unshield
from newsletter.headers import clean
from newsletter.model import SubscriptionState

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from newsletter.rows import Columns, Row, Sheet

CHUNK = 500  # people of one transaction: about 10 ms, so that an unsubscribing reader hardly waits
WINDOW = 40_000
"""People of a large file who are put in the order of their keys: then 500 of them change 100 pages of an index. In the
order of the file it would be one page for each, and a million people would write 5 GB."""

TURNING = re.compile(r"[\u202a-\u202e\u2066-\u2069]")  # Unicode Annex 9: they reach beyond the name
PLAIN_TEXT = re.compile(r"[A-Za-z0-9À-ɏ .,'’&()-]*")  # as nearly all names are: nothing in it can be wrong
LONGEST_TEXT = 200  # characters of a name or a custom field


class Status(IntEnum):
    """What is said of a person. Where two things are said, the greater one holds."""

    ACTIVE = 0
    BOUNCED = 1
    UNSUBSCRIBED = 2
    COMPLAINED = 3

    @property
    def reason(self) -> str:
        """As it stands on a suppression."""
        return self.name.lower()

    @property
    def state(self) -> SubscriptionState:
        """A bounce is the mailbox's word and not the person's, who never said they want to leave."""
        said_no = self in {Status.UNSUBSCRIBED, Status.COMPLAINED}
        return SubscriptionState.UNSUBSCRIBED if said_no else SubscriptionState.ACTIVE


STATUS_WORDS = {
    "active": Status.ACTIVE,
    "subscribed": Status.ACTIVE,
    "confirmed": Status.ACTIVE,
    "unsubscribed": Status.UNSUBSCRIBED,
    "optedout": Status.UNSUBSCRIBED,
    "bounced": Status.BOUNCED,
    "cleaned": Status.BOUNCED,
    "complained": Status.COMPLAINED,
    "complaint": Status.COMPLAINED,
    "spam": Status.COMPLAINED,
}

NO_FIELDS: Mapping[str, str] = {}


class Entry(NamedTuple):
    """What is asked for one person. There are millions: this is the cheapest value."""

    key: bytes
    address: str
    name: str = ""
    fields: Mapping[str, str] = NO_FIELDS
    status: Status = Status.ACTIVE
    line: int = 0


class Unread(NamedTuple):
    """A row that can't be used."""

    line: int
    address: str  # as it stands there
    why: str


class Chunk(NamedTuple):
    """Some people, and what else was found on the way to them."""

    entries: list[Entry]
    unread: list[Unread]
    repeated: int  # rows of people who were read before


def in_chunks(sheet: Sheet, columns: Columns, secret: bytes) -> Generator[Chunk]:
    """Everybody, as many at a time as one transaction takes; the last chunk may have nobody.

    Those of a large file are in the order of their keys, window after window. The next window is read little by little,
    between the chunks of this one.
    """
    large = sheet.lines > WINDOW
    reading = _Reading(sheet, columns, secret)
    ready = reading.some(WINDOW if large else CHUNK)
    while ready:
        if large:
            ready.sort(key=itemgetter(0))
        following: list[Entry] = []
        for start in range(0, len(ready), CHUNK):
            following += reading.some(CHUNK)
            yield reading.chunk(ready[start : start + CHUNK])
        ready = following
    yield reading.chunk([])


class _Reading:
    """One way through the file."""

    def __init__(self, sheet: Sheet, columns: Columns, secret: bytes) -> None:
        self._unread: list[Unread] = []
        self._repeated = 0
        self._entries = self._read(sheet, columns, secret)

    def some(self, count: int) -> list[Entry]:
        """The next people, each of the file once."""
        return list(islice(self._entries, count))

    def chunk(self, entries: list[Entry]) -> Chunk:
        """These, with what was found since the last chunk."""
        found = Chunk(entries, self._unread, self._repeated)
        self._unread, self._repeated = [], 0
        return found

    def _read(self, sheet: Sheet, columns: Columns, secret: bytes) -> Iterator[Entry]:
        stopped, seen = _stopped(sheet, columns, secret), _Seen()
        for row in sheet.rows():
            try:
                entry = _entry(row, columns, secret, stopped)
            except ValueError as error:
                self._unread.append(unread(row, columns, error))
                continue
            if seen.add(entry.key):
                yield entry
            else:
                self._repeated += 1


class _Seen:
    """A set of keys that takes 25 MB for a million; Python's own would take 120.

    Keys are evenly spread, so those with the same first bytes are few: what is left of them stands in one row.
    """

    FIRST = 2  # bytes

    def __init__(self) -> None:
        self._rows: defaultdict[bytes, bytearray] = defaultdict(bytearray)

    def add(self, key: bytes) -> bool:
        """False if it was there already."""
        row, rest = self._rows[key[: self.FIRST]], key[self.FIRST :]
        at = row.find(rest)
        while at % len(rest) and at > 0:  # found across two of them
            at = row.find(rest, at + 1)
        if at >= 0:
            return False
        row += rest
        return True


def _stopped(sheet: Sheet, columns: Columns, secret: bytes) -> dict[bytes, Status]:
    """Who must not be mailed according to any row of the file, however far down it stands."""
    found: dict[bytes, Status] = {}
    if "status" not in columns.places:
        return found
    for said, email in sheet.pairs(columns.places["status"], columns.places["email"]):
        status = status_of(said)
        if status is Status.ACTIVE or status is None:
            continue
        try:
            key = addresses.key(addresses.parse(unshield(email.strip())), secret)
        except ValueError:
            continue  # reported when the rows are read for good
        found[key] = max(status, found.get(key, status))
    return found


def _entry(row: Row, columns: Columns, secret: bytes, stopped: Mapping[bytes, Status]) -> Entry:
    """Raises ``ValueError`` with what is wrong with the row."""
    if row.problem:
        raise ValueError(row.problem)
    status = _status(row, columns)
    address = addresses.parse(columns.cell(row, "email"))
    key = addresses.key(address, secret)
    status = max(status, stopped[key]) if key in stopped else status
    try:
        name = usable("name", _name(row, columns))
        fields = {field: usable(field, row.cells[place]) for field, place in columns.fields.items()}
    except ValueError:
        if status is Status.ACTIVE:
            raise
        name, fields = "", {}  # a name that can't be used must not keep a person from being left alone
    said = {field: text for field, text in fields.items() if text} if fields else NO_FIELDS
    return Entry(key, address, name, said, status, row.line)


def unread(row: Row, columns: Columns, error: ValueError) -> Unread:
    """What to say of a row that has this wrong with it."""
    address = "" if row.problem else columns.cell(row, "email")
    return Unread(row.line, address, str(error).rstrip("."))


def _status(row: Row, columns: Columns) -> Status:
    if row.problem or "status" not in columns.places:
        return Status.ACTIVE
    said = columns.cell(row, "status")
    status = status_of(said)
    if status is None:
        # Not even an empty cell is taken for a yes: people who never confirmed often have one.
        raise ValueError(f"the status {said[:20]!r} is none of active, unsubscribed, bounced and complained")
    return status


@lru_cache(maxsize=100)  # a file holds a handful of words, a million times
def status_of(said: str) -> Status | None:
    """What a word of a status column means; None for one that means nothing to us."""
    return STATUS_WORDS.get(re.sub(r"[\s_-]+", "", said.casefold()))


def _name(row: Row, columns: Columns) -> str:
    if whole := columns.cell(row, "name"):
        return whole
    parts = (columns.cell(row, "first"), columns.cell(row, "last"))
    return " ".join(part for part in parts if part)


def usable(what: str, text: str) -> str:
    """A name or a field's text, if a mail can hold it. Raises ``ValueError`` with what is wrong with it."""
    if len(text) <= LONGEST_TEXT and PLAIN_TEXT.fullmatch(text):
        return text
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"the {what} has {len(text)} characters and may have {LONGEST_TEXT}")
    if TURNING.search(text):
        raise ValueError(f"the {what} has a hidden character in it that turns the words after it round")
    try:
        # A name that no header can hold would make every copy to this person unsendable.
        return clean(what, text)
    except ValueError:
        raise ValueError(f"the {what} has a line break or another control character in it") from None

"""A file's people, each once: what is asked for them, and which rows can't be read.

The first row of a person gives the name, the worst row the status, however far down it stands.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from contextlib import suppress
from enum import IntEnum
from functools import lru_cache
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from newsletter import addresses
from newsletter.errors import UsageError
from newsletter.formulas import unshield
from newsletter.headers import clean
from newsletter.model import SubscriptionState
from newsletter.rows import Row

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from newsletter.rows import Columns, Sheet

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
    "optout": Status.UNSUBSCRIBED,
    "optedout": Status.UNSUBSCRIBED,
    "bounced": Status.BOUNCED,
    "hardbounce": Status.BOUNCED,
    "hardbounced": Status.BOUNCED,
    "cleaned": Status.BOUNCED,
    "complained": Status.COMPLAINED,
    "complaint": Status.COMPLAINED,
    "spam": Status.COMPLAINED,
    "abuse": Status.COMPLAINED,
}

BETWEEN = re.compile(r"[\s,;:<>()]+")  # what stands around an address in a row that is no row
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
    last: int  # where it ends


class Chunk(NamedTuple):
    """Some people, and what else was found on the way to them."""

    entries: list[Entry]
    unread: list[Unread]
    repeated: int  # rows of people who were read before
    others: Mapping[str, int]  # rows of other lists, by their names as they stand there


def in_chunks(sheet: Sheet, columns: Columns, secret: bytes, *, strict: bool = False) -> Generator[Chunk]:
    """Everybody, as many at a time as one transaction takes; the last chunk may have nobody.

    Those of a large file are in the order of their keys, window after window. The next window is read little by little,
    between the chunks of this one.

    Raises ``UsageError`` if ``strict`` and a quotation mark swallows rows, before anybody is yielded.
    """
    large = sheet.lines > WINDOW
    reading = _Reading(sheet, columns, secret, strict=strict)
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

    def __init__(self, sheet: Sheet, columns: Columns, secret: bytes, *, strict: bool) -> None:
        self._unread: list[Unread] = []
        self._repeated = 0
        self._others: Counter[str] = Counter()
        self._entries = self._read(sheet, columns, secret, strict=strict)

    def some(self, count: int) -> list[Entry]:
        """The next people, each of the file once."""
        return list(islice(self._entries, count))

    def chunk(self, entries: list[Entry]) -> Chunk:
        """These, with what was found since the last chunk."""
        found = Chunk(entries, self._unread, self._repeated, self._others)
        self._unread, self._repeated, self._others = [], 0, Counter()
        return found

    def _read(self, sheet: Sheet, columns: Columns, secret: bytes, *, strict: bool) -> Iterator[Entry]:
        said, seen = _Said(sheet, columns, secret), _Seen()
        said.find(strict=strict)
        for row in self._wanted(sheet.rows(), columns) if "list" in columns.places else sheet.rows():
            try:
                entry = _entry(row, columns, secret, said)
            except ValueError as error:
                self._unread.append(unread(row, columns, error))
                continue
            if seen.add(entry.key):
                yield entry
            else:
                self._repeated += 1

    def _wanted(self, rows: Iterator[Row], columns: Columns) -> Iterator[Row]:
        for row in rows:
            other = columns.other_list(row)
            if other is None:
                yield row
            else:
                self._others[other] += 1


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


class _Said:
    """What any row of a file says against people, however far down it stands."""

    def __init__(self, sheet: Sheet, columns: Columns, secret: bytes) -> None:
        self.stopped: dict[bytes, Status] = {}
        self.unclear: dict[bytes, int] = {}  # → the line of a row that can't be read: it may be a no
        self._broken: set[int] = set()  # lines whose cells are not even known
        self._sheet, self._columns, self._secret = sheet, columns, secret

    def find(self, *, strict: bool) -> None:
        """Look the file through. Raises ``UsageError`` if ``strict`` and a quotation mark swallows rows."""
        status = self._columns.places.get("status")
        if status is None and not self._sheet.quoted:
            return
        for row, cells in self._remarkable(status):
            if strict:
                self._refuse_torn(row)
            if status is not None:
                self._note(row, cells)
        if self._broken:
            self._note_broken()

    def _remarkable(self, status: int | None) -> Iterator[tuple[Row, Sequence[str]]]:
        """All rows but those of one line that say yes: a million of these must cost next to nothing."""
        width, active, last = len(self._sheet.header), Status.ACTIVE, 0
        for end, cells in self._sheet.glance():
            line, last = last + 1, end
            if cells is None:
                yield (
                    Row(line, (), "a quotation mark is not closed where a cell ends", end, end - line + 1),
                    (),
                )
                continue
            if len(cells) > width and not any(map(str.strip, cells[width:])):
                del cells[width:]
            if (
                line != end
                or len(cells) != width
                or (status is not None and status_of(cells[status]) is not active)
            ):
                yield self._sheet.row(line, cells, end), cells

    def _refuse_torn(self, row: Row) -> None:
        if row.swallowed > 1:
            raise UsageError(
                f"{self._sheet.path}, lines {row.line} to {row.last}: {row.problem}, so nobody in them can be read.",
                hint=f"Mend the quotation marks in line {row.line}; without --apply you see all such places.",
            )

    def _note(self, row: Row, cells: Sequence[str]) -> None:
        if row.problem:
            self._note_unclear(row.line, " ".join(cells))
            self._broken.update(() if cells else (row.line,))
            return
        status, email = status_of(self._columns.cell(row, "status")), self._columns.cell(row, "email")
        # Of another list's rows, only what is said of the address itself: to leave one list is no word about all.
        about_all = (Status.BOUNCED, Status.COMPLAINED)
        if status is Status.ACTIVE or (status not in about_all and self._columns.other_list(row) is not None):
            return
        try:
            key = addresses.key(addresses.parse(email), self._secret)
        except ValueError:
            self._note_unclear(row.line, email)
            return
        if status is None:
            self.unclear.setdefault(key, row.line)
        else:
            self.stopped[key] = max(status, self.stopped.get(key, status))

    def _note_broken(self) -> None:
        with self._sheet.text() as file:
            for number, line in enumerate(file, start=1):
                if number in self._broken:
                    self._note_unclear(number, line)

    def _note_unclear(self, line: int, text: str) -> None:
        """Every address in a text of which no more is known."""
        for word in BETWEEN.split(text.replace('"', "")):
            if "@" in word:
                with suppress(ValueError):
                    key = addresses.key(addresses.parse(unshield(word)), self._secret)
                    self.unclear.setdefault(key, line)


def _entry(row: Row, columns: Columns, secret: bytes, said: _Said) -> Entry:
    """Raises ``ValueError`` with what is wrong with the row."""
    if row.problem:
        raise ValueError(row.problem)
    status = _status(row, columns)
    address = addresses.parse(columns.cell(row, "email"))
    key = addresses.key(address, secret)
    status = max(status, said.stopped[key]) if key in said.stopped else status
    if status is Status.ACTIVE and key in said.unclear:
        raise ValueError(
            f"line {said.unclear[key]} says something about this address that could not be understood"
        )
    try:
        name = usable("name", _name(row, columns))
        fields = {field: usable(field, row.cells[place]) for field, place in columns.fields.items()}
    except ValueError:
        if status is Status.ACTIVE:
            raise
        name, fields = "", {}  # a name that can't be used must not keep a person from being left alone
    filled = {field: text for field, text in fields.items() if text} if fields else NO_FIELDS
    return Entry(key, address, name, filled, status, row.line)


_CODEPOINT = re.compile(r"(Codepoint U\+[0-9A-F]+) .*", re.DOTALL)  # the domain is quoted behind it


def unread(row: Row, columns: Columns, error: ValueError) -> Unread:
    """What to say of a row that has this wrong with it."""
    address = "" if row.problem else columns.cell(row, "email")
    why = _CODEPOINT.sub(r"\1 is not allowed)", str(error).rstrip("."))
    if columns.torn(row):
        return Unread(row.line, "", f"{why}, so nobody in them was read", row.last)
    return Unread(row.line, address, why, row.line)


def _status(row: Row, columns: Columns) -> Status:
    if row.problem or "status" not in columns.places:
        return Status.ACTIVE
    said = columns.cell(row, "status")
    status = status_of(said)
    if status is None:
        # Not even an empty cell is taken for a yes: people who never confirmed often have one.
        raise ValueError(
            f"the status {harmless(said)!r} is none of active, unsubscribed, bounced and complained"
        )
    return status


def harmless(text: str) -> str:
    """A cell for a report: short, and no address, which stands there when cells are shifted."""
    return addresses.mask(text) if "@" in text else text[:30]


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

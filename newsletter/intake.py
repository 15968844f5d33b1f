"""People from a file: onto a list, or among the suppressed.

An import decides row by row (``admission``) and acts in chunks of one transaction each: an import that was cut off has
done some chunks wholly, and running it again does the rest.
"""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, TypeVar

from newsletter import addresses
from newsletter.admission import NO_FIELDS, Decision, Entry, Status, Verdict, act, judge, usable
from newsletter.errors import UsageError
from newsletter.formulas import unshield
from newsletter.rows import Columns, choose_columns, open_sheet
from newsletter.store import subscribers as store
from newsletter.store.engine import BREATH_SECONDS, read, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from newsletter.rows import Row, Sheet

T = TypeVar("T")

WINDOW = 20_000
"""People of a large file who are put in the order of their keys: then 500 of them change 100 pages of an index. In the
order of the file it would be one page for each, and a million people would write 5 GB."""

CHUNK = 500  # rows in one transaction: about 10 ms, so that an unsubscribing reader hardly waits
SHOWN = 10  # rows of each verdict that a report names; the rest are counted
SHOWN_BAD = 100
DECIDED = (Verdict.NEW, Verdict.CHANGED, Verdict.STOPPED, Verdict.UNCHANGED, Verdict.REFUSED)

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


@dataclass(frozen=True, slots=True)
class Line:
    """One row as a report shows it; the address is masked."""

    number: int
    verdict: Verdict
    address: str
    why: str


@dataclass(slots=True)
class Report:
    """What an import did, or would do."""

    encoding: str
    ignored: tuple[str, ...] = ()
    new_list: bool = False  # there was no such list before
    counts: Counter[Verdict] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)  # by reason
    lines: list[Line] = field(default_factory=list)  # the first few of each verdict

    @property
    def changes(self) -> int:
        """How many rows changed something."""
        return self.counts[Verdict.NEW] + self.counts[Verdict.CHANGED] + self.counts[Verdict.STOPPED]

    @property
    def hidden(self) -> int:
        """How many rows deserve a line and got none."""
        named = (Verdict.NEW, Verdict.CHANGED, Verdict.STOPPED, Verdict.REFUSED, Verdict.BAD)
        return sum(self.counts[verdict] for verdict in named) - len(self.lines)

    def note(self, number: int, verdict: Verdict, address: str, why: str) -> None:
        """Count a row, and keep it if it is among the first of its kind."""
        self.counts[verdict] += 1
        limit = SHOWN_BAD if verdict is Verdict.BAD else SHOWN
        if verdict not in {Verdict.UNCHANGED, Verdict.REPEATED} and self.counts[verdict] <= limit:
            self.lines.append(Line(number, verdict, addresses.mask(address), why))

    def note_decisions(self, decisions: Sequence[Decision]) -> None:
        """The same for rows that could be read: counted together, because there are a million."""
        for verdict in DECIDED:
            some = [decision for decision in decisions if decision.verdict is verdict]
            shown = max(0, SHOWN - self.counts[verdict])
            for entry, _, _, why in some[:shown]:
                self.note(entry.line, verdict, entry.address, why)
            self.counts[verdict] += len(some[shown:])
            if verdict is Verdict.REFUSED:
                self.refused.update(decision.why for decision in some)


@dataclass(frozen=True, slots=True)
class Import:
    """Which file goes onto which list, and how it is to be read."""

    file: Path
    list: str
    source: str  # where these people agreed: stands on every consent
    mapping: Mapping[str, str] = field(default_factory=dict)  # column → email, name, first, last or status
    fields: Sequence[str] = ()  # columns to keep as custom fields


# Import


def _unheard(_line: int, _lines: int) -> None:
    """Whom nobody asks to tell how far it is."""


def import_people(
    engine: Engine,
    order: Import,
    secret: bytes,
    *,
    now: datetime,
    apply: bool,
    told: Callable[[int, int], None] = _unheard,
) -> Report:
    """Bring a file's people onto a list, or only say what that would do. ``secret`` makes the address keys.

    ``told`` hears how many people are done and how many lines the file has. What was done when the process ends stays,
    and the same call does the rest.

    Raises ``UsageError`` for a file that can't be read as a table; a row that can't be read is in the report.
    """
    _check_list_name(order.list)
    sheet = open_sheet(order.file)
    columns = choose_columns(sheet, order.mapping, order.fields)
    known = read(engine, store.list_names)
    report = Report(sheet.encoding, columns.ignored, new_list=order.list not in known)
    people = _entries(sheet, columns, secret, report)
    ended = 0.0
    for done, entries in enumerate(_in_order(people, WINDOW if sheet.lines > WINDOW else 0)):
        # Else others who write would wait for the whole file. What is read between two transactions is time for them.
        time.sleep(max(0.0, ended + BREATH_SECONDS - time.monotonic()) if apply else 0.0)
        report.note_decisions(_step(engine, order, entries, now=now, apply=apply))
        ended = time.monotonic()
        told(done * CHUNK + len(entries), sheet.lines)
    report.lines.sort(key=lambda line: line.number)
    return report


def _in_order(entries: Iterator[Entry], window: int) -> Iterator[list[Entry]]:
    """As many as one transaction takes; those of a ``window`` are put in the order of their keys.

    The next window is read little by little, between the transactions of this one.
    """
    if not window:
        yield from _chunks(entries, CHUNK)
        return
    ready = list(islice(entries, window))
    while ready:
        ready.sort(key=itemgetter(0))  # the key
        following: list[Entry] = []
        for some in _chunks(ready, CHUNK):
            following += islice(entries, CHUNK)
            yield some
        ready = following


def _step(
    engine: Engine, order: Import, entries: Sequence[Entry], *, now: datetime, apply: bool
) -> Sequence[Decision]:
    def preview(conn: Connection) -> Sequence[Decision]:
        return judge(conn, store.find_list(conn, order.list), entries)

    def really(conn: Connection) -> Sequence[Decision]:
        list_id = store.ensure_list(conn, order.list, now)
        decisions = judge(conn, list_id, entries)
        act(conn, list_id, decisions, "imported", order.source, now)
        return decisions

    return write(engine, really) if apply else read(engine, preview)


def _entries(sheet: Sheet, columns: Columns, secret: bytes, report: Report) -> Iterator[Entry]:
    """Each person of the file once: the first row gives the name, the worst row the status."""
    stopped = _stopped(sheet, columns, secret)
    seen = _Seen()
    for row in sheet.rows():
        try:
            entry = _entry(row, columns, secret, stopped)
        except ValueError as error:
            report.note(row.line, Verdict.BAD, _email(row, columns), str(error).rstrip("."))
            continue
        if seen.add(entry.key):
            yield entry
        else:
            report.note(row.line, Verdict.REPEATED, entry.address, "")


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
        status = _read_status(said)
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


def _email(row: Row, columns: Columns) -> str:
    return "" if row.problem else columns.cell(row, "email")


def _status(row: Row, columns: Columns) -> Status:
    if row.problem or "status" not in columns.places:
        return Status.ACTIVE
    said = columns.cell(row, "status")
    status = _read_status(said)
    if status is None:
        # Not even an empty cell is taken for a yes: people who never confirmed often have one.
        raise ValueError(f"the status {said[:20]!r} is none of active, unsubscribed, bounced and complained")
    return status


@lru_cache(maxsize=100)  # a file holds a handful of words, a million times
def _read_status(said: str) -> Status | None:
    return STATUS_WORDS.get(_word(said))


def _word(said: str) -> str:
    return re.sub(r"[\s_-]+", "", said.casefold())


def _name(row: Row, columns: Columns) -> str:
    if whole := columns.cell(row, "name"):
        return whole
    parts = (columns.cell(row, "first"), columns.cell(row, "last"))
    return " ".join(part for part in parts if part)


def _chunks(things: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(things)
    while chunk := list(islice(rest, size)):
        yield chunk


def _check_list_name(name: str) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", name):
        raise UsageError(f"{name!r} can't be a list's name.", hint="Use small letters, digits, - and _.")


# Suppressions


def suppress_file(engine: Engine, file: Path, secret: bytes, *, source: str, now: datetime) -> Report:
    """Suppress every address of a file: a plain list, or a table with ``email`` and maybe ``reason`` or ``status``."""
    sheet = open_sheet(file)
    report = Report(sheet.encoding)
    for found in _chunks(_suppressions(sheet, secret, report), CHUNK):
        fresh = write(engine, partial(store.suppress, reasons=dict(found), source=source, now=now))
        report.counts[Verdict.STOPPED] += fresh
        report.counts[Verdict.UNCHANGED] += len(found) - fresh
    return report


def _suppressions(sheet: Sheet, secret: bytes, report: Report) -> Iterator[tuple[bytes, str]]:
    """Key and reason of each address of the file, once."""
    by_reason = {name: "status" for name in sheet.header if name.casefold() == "reason"}
    columns = choose_columns(sheet, by_reason, ()) if sheet.header else Columns({"email": 0}, {}, ())
    seen: set[bytes] = set()
    for row in sheet.rows():
        try:
            key, reason = _suppression(row, columns, secret)
        except ValueError as error:
            report.note(row.line, Verdict.BAD, _email(row, columns), str(error).rstrip("."))
            continue
        if key in seen:
            report.counts[Verdict.REPEATED] += 1
            continue
        seen.add(key)
        yield key, reason


def _suppression(row: Row, columns: Columns, secret: bytes) -> tuple[bytes, str]:
    """Any reason will do, except that the person is active: then it is the wrong file."""
    if row.problem:
        raise ValueError(row.problem)
    key = addresses.key(addresses.parse(_email(row, columns)), secret)
    status = STATUS_WORDS.get(_word(columns.cell(row, "status")))
    if status is Status.ACTIVE:
        raise ValueError("is active according to this file, so it is not suppressed")
    return key, status.reason if status else "manual"

"""Who is on which list: import, add, unsubscribe, suppress, look up.

One rule stands above all others: nothing in here brings back a person who left. A subscription that was
unsubscribed, a suppressed address and an erased person stay as they are, whatever a file or an operator says.

An import decides row by row with ``decide``, which is pure, and acts in chunks of one transaction each: an
import that was cut off has done some chunks wholly, and running it again does the rest.
"""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import IntEnum, StrEnum
from functools import lru_cache, partial
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from newsletter import addresses
from newsletter.errors import Refused, UsageError
from newsletter.formulas import unshield
from newsletter.headers import clean
from newsletter.model import SubscriptionState
from newsletter.rows import Columns, choose_columns, open_sheet
from newsletter.store import subscribers as store
from newsletter.store.engine import BREATH_SECONDS, read, write
from newsletter.store.subscribers import ERASED, Newcomer, Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from newsletter.model import Subscriber
    from newsletter.rows import Row, Sheet
    from newsletter.store.subscribers import Consent, Copy, Suppressed

T = TypeVar("T")

WINDOW = 20_000
"""People of a large file who are put in the order of their keys: then 500 of them change 100 pages of an index. In the
order of the file it would be one page for each, and a million people would write 5 GB."""

CHUNK = 500  # rows in one transaction: about 10 ms, so that an unsubscribing reader hardly waits
TURNING = re.compile(r"[\u202a-\u202e\u2066-\u2069]")  # Unicode Annex 9: they reach beyond the name
PLAIN_TEXT = re.compile(r"[A-Za-z0-9À-ɏ .,'’&()-]*")  # as nearly all names are: nothing in it can be wrong
LONGEST_TEXT = 200  # characters of a name or a custom field
SHOWN = 10  # rows of each verdict that a report names; the rest are counted
SHOWN_BAD = 100


class Status(IntEnum):
    """What a file says of a person. Where a file says two things, the greater one holds."""

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


_NO_FIELDS: Mapping[str, str] = MappingProxyType({})


class Entry(NamedTuple):
    """What is asked for one person."""

    key: bytes
    address: str
    name: str = ""
    fields: Mapping[str, str] = _NO_FIELDS
    status: Status = Status.ACTIVE
    line: int = 0


class Verdict(StrEnum):
    """What becomes of a row."""

    NEW = "new"
    CHANGED = "changed"
    STOPPED = "stopped"  # suppressed, and unsubscribed where the person said so
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    REPEATED = "repeated"
    BAD = "bad"


class Decision(NamedTuple):
    """A verdict on an entry, with what it was based on."""

    entry: Entry
    known: Standing | None
    verdict: Verdict
    why: str = ""

    @property
    def on_list(self) -> bool:
        """Whether the person has a subscription to this list already."""
        return self.known is not None and self.known.subscription_id is not None


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

    def note_decision(self, decision: Decision) -> None:
        """The same for a row that could be read."""
        entry = decision.entry
        self.note(entry.line, decision.verdict, entry.address, decision.why)
        if decision.verdict is Verdict.REFUSED:
            self.refused[decision.why] += 1


@dataclass(frozen=True, slots=True)
class Import:
    """Which file goes onto which list, and how it is to be read."""

    file: Path
    list: str
    source: str  # where these people agreed: stands on every consent
    mapping: Mapping[str, str] = field(default_factory=dict)  # column → email, name, first, last or status
    fields: Sequence[str] = ()  # columns to keep as custom fields


@dataclass(frozen=True, slots=True)
class Person:
    """All that is known about an address."""

    standings: Sequence[Subscriber]
    suppressed: Suppressed | None
    consents: Sequence[Consent]
    copies: Sequence[Copy]


# Deciding


def decide(entry: Entry, known: Standing | None, suppressed: str) -> Decision:
    """What is to become of an entry, given the person's standing and the reason of a suppression ("" for none)."""
    if entry.status is not Status.ACTIVE:
        return _decide_stop(entry, known, suppressed)
    if suppressed:
        return Decision(entry, known, Verdict.REFUSED, f"suppressed: {suppressed}")
    if known is None or known.state is None:
        return Decision(entry, known, Verdict.NEW)
    if known.state == SubscriptionState.UNSUBSCRIBED:
        return Decision(entry, known, Verdict.REFUSED, "unsubscribed")
    why = _difference(entry, known)
    return Decision(entry, known, Verdict.CHANGED if why else Verdict.UNCHANGED, why)


def _decide_stop(entry: Entry, known: Standing | None, suppressed: str) -> Decision:
    active = known is not None and known.state not in {None, SubscriptionState.UNSUBSCRIBED}
    leaves = active and entry.status.state is SubscriptionState.UNSUBSCRIBED
    # An address that is suppressed and not on the list is not put there: perhaps it was erased.
    verdict = Verdict.UNCHANGED if suppressed and not leaves else Verdict.STOPPED
    return Decision(entry, known, verdict, entry.status.reason)


def _difference(entry: Entry, known: Standing) -> str:
    """What the entry says otherwise; an empty cell says nothing."""
    said = []
    if entry.name and entry.name != known.name:
        said.append(f"name: {known.name or '(none)'} → {entry.name}")
    said += [f"{name}: {text}" for name, text in entry.fields.items() if known.fields.get(name) != text]
    return ", ".join(said)


def _judge(conn: Connection, list_id: int | None, entries: Sequence[Entry]) -> list[Decision]:
    keys = [entry.key for entry in entries]
    known = store.standings(conn, list_id, keys)
    stopped = store.suppressed(conn, keys)
    reasons = {key: found.reason for key, found in stopped.items()}
    return [decide(entry, known.get(entry.key), reasons.get(entry.key, "")) for entry in entries]


def _act(
    conn: Connection, list_id: int, decisions: Sequence[Decision], act: str, source: str, now: datetime
) -> None:
    coming = [d for d in decisions if d.verdict in {Verdict.NEW, Verdict.STOPPED} and not d.on_list]
    store.add_people(conn, list_id, [_newcomer(d.entry, act) for d in coming], source=source, now=now)
    for decision in decisions:
        if decision.verdict in {Verdict.NEW, Verdict.CHANGED} and decision.known is not None:
            _describe(conn, decision.entry, decision.known)
    stopping = [d for d in decisions if d.verdict is Verdict.STOPPED]
    store.suppress(conn, {d.entry.key: d.entry.status.reason for d in stopping}, source=source, now=now)
    leaving = [d for d in stopping if d.entry.status.state is SubscriptionState.UNSUBSCRIBED]
    ids = [d.known.subscription_id for d in leaving if d.known and d.known.subscription_id is not None]
    store.unsubscribe(conn, ids, source=source, now=now)


def _newcomer(entry: Entry, act: str) -> Newcomer:
    state = entry.status.state
    said = "unsubscribed" if state is SubscriptionState.UNSUBSCRIBED else act
    return Newcomer(entry.key, entry.address, state, said, entry.name, entry.fields)


def _describe(conn: Connection, entry: Entry, known: Standing) -> None:
    if _difference(entry, known):
        fields = {**known.fields, **entry.fields}
        store.describe(conn, known.subscriber_id, entry.name or known.name, fields)


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
    for done, entries in enumerate(_in_order(people, WINDOW if sheet.lines > WINDOW else 0)):
        for decision in _step(engine, order, entries, now=now, apply=apply):
            report.note_decision(decision)
        told(done * CHUNK + len(entries), sheet.lines)
    report.lines.sort(key=lambda line: line.number)
    return report


def _in_order(entries: Iterable[Entry], window: int) -> Iterator[list[Entry]]:
    """As many as one transaction takes; those of a ``window`` are put in the order of their keys."""
    for some in _chunks(entries, window or CHUNK):
        if window:
            some.sort(key=lambda entry: entry.key)
        yield from _chunks(some, CHUNK)


def _step(
    engine: Engine, order: Import, entries: Sequence[Entry], *, now: datetime, apply: bool
) -> Sequence[Decision]:
    def preview(conn: Connection) -> Sequence[Decision]:
        return _judge(conn, store.find_list(conn, order.list), entries)

    def really(conn: Connection) -> Sequence[Decision]:
        list_id = store.ensure_list(conn, order.list, now)
        decisions = _judge(conn, list_id, entries)
        _act(conn, list_id, decisions, "imported", order.source, now)
        return decisions

    if not apply:
        return read(engine, preview)
    time.sleep(BREATH_SECONDS)  # else others who write would wait for the whole file
    return write(engine, really)


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
        name = _text("name", _name(row, columns))
        fields = {field: _text(field, row.cells[place]) for field, place in columns.fields.items()}
    except ValueError:
        if status is Status.ACTIVE:
            raise
        name, fields = "", {}  # a name that can't be used must not keep a person from being left alone
    said = {field: text for field, text in fields.items() if text} if fields else _NO_FIELDS
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


def _text(what: str, text: str) -> str:
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


def _chunks(things: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(things)
    while chunk := list(islice(rest, size)):
        yield chunk


def _check_list_name(name: str) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", name):
        raise UsageError(f"{name!r} can't be a list's name.", hint="Use small letters, digits, - and _.")


# One person


def add(
    engine: Engine, text: str, list_name: str, secret: bytes, *, name: str, source: str, now: datetime
) -> Decision:
    """Put one person on a list, or give them another name. Raises ``Refused`` for one who left."""
    address = _parse(text)
    try:
        entry = Entry(addresses.key(address, secret), address, _text("name", name.strip()))
    except ValueError as error:
        raise UsageError(f"{str(error).capitalize()}.") from None

    def act(conn: Connection) -> Decision:
        list_id = store.ensure_list(conn, list_name, now)
        [decision] = _judge(conn, list_id, [entry])
        if decision.verdict is Verdict.REFUSED:
            raise Refused(
                f"{addresses.mask(address)} is not put on {list_name}: {decision.why}.",
                hint="Whoever left comes back by their own act only: `newsletter subscribers show ADDRESS` says more.",
            )
        _act(conn, list_id, [decision], "added", source, now)
        return decision

    return write(engine, act)


def unsubscribe(
    engine: Engine, text: str, list_name: str | None, secret: bytes, *, source: str, now: datetime
) -> list[str]:
    """Take a person off one list, or off all and suppress the address; returns the lists they have left now."""
    address = _parse(text)
    key = addresses.key(address, secret)

    def act(conn: Connection) -> list[str]:
        found = [(number, p) for number, p in store.person(conn, key) if list_name in {None, p.list}]
        if not found:
            where = f"on {list_name}" if list_name else "on any list"
            raise UsageError(
                f"{addresses.mask(address)} is not {where}.",
                hint="To make sure that an address is never mailed: newsletter suppressions add ADDRESS",
            )
        if list_name is None:
            store.suppress(conn, {key: "unsubscribed"}, source=source, now=now)
        store.unsubscribe(conn, [number for number, _ in found], source=source, now=now)
        return [p.list for _, p in found if p.state != SubscriptionState.UNSUBSCRIBED]

    return write(engine, act)


def look_up(engine: Engine, text: str, secret: bytes) -> Person:
    """All that is known about an address."""
    key = addresses.key(_parse(text), secret)

    def look(conn: Connection) -> Person:
        found = store.person(conn, key)
        return Person(
            standings=[person for _, person in found],
            suppressed=store.suppressed(conn, [key]).get(key),
            consents=store.consents(conn, [number for number, _ in found]),
            copies=store.copies(conn, found[0][1].id) if found else (),
        )

    return read(engine, look)


def key_of(text: str, secret: bytes) -> bytes:
    """The key of an address that somebody typed. Raises ``UsageError`` for what is none."""
    return addresses.key(_parse(text), secret)


def check_list(engine: Engine, name: str) -> None:
    """Raise ``UsageError`` unless there is such a list."""
    names = read(engine, store.list_names)
    if name in names:
        return
    near = get_close_matches(name, names, n=1)
    known = f"Did you mean {near[0]}?" if near else f"There is: {', '.join(names)}."
    first = f"There is none yet; an import makes it: newsletter subscribers import FILE --list {name}"
    raise UsageError(f"There is no list {name!r}.", hint=known if names else first)


def _parse(text: str) -> str:
    try:
        return addresses.parse(text)
    except ValueError as error:
        raise UsageError(f"{addresses.mask(text)} is no address: {error}") from None


# Suppressions


def suppress(engine: Engine, text: str, secret: bytes, *, reason: str, source: str, now: datetime) -> bool:
    """Never mail an address again; False if that was so already. Nothing but its key is kept."""
    key = addresses.key(_parse(text), secret)
    return write(engine, lambda conn: store.suppress(conn, {key: reason}, source=source, now=now)) == 1


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


def unsuppress(engine: Engine, text: str, secret: bytes) -> Suppressed:
    """Let an address be mailed again; returns what was lifted. Raises ``Refused`` for an erased person."""
    address = _parse(text)
    key = addresses.key(address, secret)

    def act(conn: Connection) -> Suppressed:
        found = store.suppressed(conn, [key]).get(key)
        if found is None:
            raise UsageError(f"{addresses.mask(address)} is not suppressed.")
        if ERASED in {found.reason, found.source}:
            raise Refused(
                f"{addresses.mask(address)} was erased, and an erasure is for ever.",
                hint="They can subscribe anew themselves.",
            )
        store.unsuppress(conn, key)
        return found

    return write(engine, act)

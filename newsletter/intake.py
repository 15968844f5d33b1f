"""People from a file: onto a list, or among the suppressed.

An import decides row by row (``admission``) and acts in chunks of one transaction each: an import that was cut off has
done some chunks wholly, and running it again does the rest.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from newsletter import addresses, people
from newsletter.admission import Verdict, act, judge
from newsletter.beside import beside, uninterrupted
from newsletter.errors import UsageError
from newsletter.people import CHUNK, Status, status_of
from newsletter.rows import Columns, choose_columns, open_sheet
from newsletter.store import subscribers as store
from newsletter.store.engine import BREATH_SECONDS, read, write

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from newsletter.admission import Decision
    from newsletter.people import Chunk, Entry, Unread
    from newsletter.rows import Row, Sheet

SHOWN = 10  # rows of each verdict that a report names; the rest are counted
SHOWN_BAD = 100
DECIDED = (Verdict.NEW, Verdict.CHANGED, Verdict.STOPPED, Verdict.UNCHANGED, Verdict.REFUSED)


@dataclass(frozen=True, slots=True)
class Line:
    """One row as a report shows it; the address is masked."""

    number: int
    verdict: Verdict
    address: str
    why: str
    last: int  # where a row ends that a quotation mark has made of several


@dataclass(slots=True)
class Report:
    """What an import did, or would do."""

    encoding: str
    ignored: tuple[str, ...] = ()
    new_list: bool = False  # there was no such list before
    counts: Counter[Verdict] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)  # by reason
    others: Counter[str] = field(default_factory=Counter)  # rows of other lists, by their names
    lines: list[Line] = field(default_factory=list)  # the first few of each verdict

    @property
    def changes(self) -> int:
        """How many rows changed something."""
        return self.counts[Verdict.NEW] + self.counts[Verdict.CHANGED] + self.counts[Verdict.STOPPED]

    @property
    def hidden(self) -> int:
        """How many rows got no line, of the verdicts that have some."""
        shown: Counter[Verdict] = Counter()
        for line in self.lines:
            shown[line.verdict] += line.last - line.number + 1
        return sum(self.counts[verdict] - number for verdict, number in shown.items())

    def note_unread(self, found: Unread) -> None:
        """Count a row that can't be used, line by line, and keep it if it is among the first."""
        if self.counts[Verdict.BAD] < SHOWN_BAD:
            self._show(Verdict.BAD, found.line, found.address, found.why, found.last)
        self.counts[Verdict.BAD] += found.last - found.line + 1

    def note_others(self, rows: Mapping[str, int]) -> None:
        """Count rows of other lists; if it seems that the column names no lists, only the first few names are kept."""
        for name, count in rows.items():
            shown = people.harmless(name) or "(none)"
            self.others[shown if shown in self.others or len(self.others) < SHOWN else "(more)"] += count

    def note_decisions(self, decisions: Sequence[Decision]) -> None:
        """The same for people, counted together because there are a million."""
        for verdict in DECIDED:
            some = [decision for decision in decisions if decision.verdict is verdict]
            shown = max(0, SHOWN - self.counts[verdict])
            if verdict is not Verdict.UNCHANGED:
                for decision in some[:shown]:
                    line = decision.entry.line
                    self._show(verdict, line, decision.entry.address, decision.why, line)
            self.counts[verdict] += len(some)
            if verdict is Verdict.REFUSED:
                self.refused.update(decision.why for decision in some)

    def _show(self, verdict: Verdict, line: int, address: str, why: str, last: int) -> None:
        self.lines.append(Line(line, verdict, addresses.mask(address), why, last))


@dataclass(frozen=True, slots=True)
class Import:
    """Which file goes onto which list, and how it is to be read."""

    file: Path
    list: str
    source: str  # where these people agreed: stands on every consent
    mapping: Mapping[str, str] = field(default_factory=dict)  # column → a key of rows.MEANINGS, or ignore
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

    Raises ``UsageError`` for a file that can't be read as a table, and, before anything is written, for one in which
    a quotation mark swallows rows; ``Unfinished`` for one that changes. A row that can't be read is in the report.
    """
    _check_list_name(order.list)
    sheet = open_sheet(order.file)
    columns = replace(choose_columns(sheet, order.mapping, order.fields), wanted=order.list)
    known = read(engine, store.list_names)
    report = Report(sheet.encoding, columns.ignored, new_list=order.list not in known)
    done, ended = 0, 0.0
    with contextlib.closing(_chunks(sheet, columns, secret, strict=apply)) as chunks:
        for chunk in chunks:
            # Else others who write would wait for the whole file. What takes time anyway is time for them.
            time.sleep(max(0.0, ended + BREATH_SECONDS - time.monotonic()) if apply else 0.0)
            with uninterrupted():  # between the two, a chunk would be done that was not told of
                decisions = _step(engine, order, chunk.entries, now=now, apply=apply)
                ended = time.monotonic()
                done += len(chunk.entries)
                told(done, sheet.lines)
            report.note_decisions(decisions)
            for found in chunk.unread:
                report.note_unread(found)
            report.counts[Verdict.REPEATED] += chunk.repeated
            report.note_others(chunk.others)
    report.lines.sort(key=lambda line: line.number)
    if report.others and not any(report.counts.values()):
        _refuse_other_lists(order, sheet.header[columns.places["list"]], report.others)
    return report


def _refuse_other_lists(order: Import, column: str, others: Mapping[str, int]) -> None:
    names = ", ".join(others)
    raise UsageError(
        f"{order.file} has nobody for the list {order.list}: its column {column} names {names}.",
        hint=f'Choose one of these with --list, or take the column for nothing: --map "{column}=ignore"',
    )


def _step(
    engine: Engine, order: Import, entries: Sequence[Entry], *, now: datetime, apply: bool
) -> Sequence[Decision]:
    if not entries:
        return ()

    def preview(conn: Connection) -> Sequence[Decision]:
        return judge(conn, store.find_list(conn, order.list), entries)

    def really(conn: Connection) -> Sequence[Decision]:
        list_id = store.ensure_list(conn, order.list, now)
        decisions = judge(conn, list_id, entries)
        act(conn, list_id, decisions, "imported", order.source, now)
        return decisions

    return write(engine, really) if apply else read(engine, preview)


def _chunks(sheet: Sheet, columns: Columns, secret: bytes, *, strict: bool) -> Generator[Chunk]:
    """A large file is read and checked by another process, which is the half of the work that is not the database's."""
    if sheet.lines > people.WINDOW:
        # /dev/stdin would be another file over there.
        there = replace(sheet, path=sheet.path.resolve())
        return beside(partial(people.in_chunks, strict=strict), there, columns, secret)
    return people.in_chunks(sheet, columns, secret, strict=strict)


def _check_list_name(name: str) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", name):
        raise UsageError(f"{name!r} can't be a list's name.", hint="Use small letters, digits, - and _.")


# Suppressions


def suppress_file(engine: Engine, file: Path, secret: bytes, *, source: str, now: datetime) -> Report:
    """Suppress every address of a file: a plain list, or a table with ``email`` and maybe ``reason`` or ``status``."""
    sheet = open_sheet(file)
    report = Report(sheet.encoding)
    rest = _suppressions(sheet, secret, report)
    while found := list(islice(rest, CHUNK)):
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
            report.note_unread(people.unread(row, columns, error))
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
    key = addresses.key(addresses.parse(columns.cell(row, "email")), secret)
    status = status_of(columns.cell(row, "status"))
    if status is Status.ACTIVE:
        raise ValueError("is active according to this file, so it is not suppressed")
    return key, status.reason if status else "manual"

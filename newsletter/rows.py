"""A file of people, as a spreadsheet or another provider exports it → rows of text, one at a time.

The file is read two or three times, first to find out how it is written, and is never held in memory: lists of a
million people are files of 70 MB. It must not change meanwhile.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
import stat
from contextlib import closing
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple

from newsletter import merge
from newsletter.errors import Unfinished, UsageError
from newsletter.formulas import unshield

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence, Set
    from pathlib import Path
    from typing import BinaryIO, TextIO

    from _typeshed import WriteableBuffer

SCAN_BYTES = 1 << 20
LONGEST_CELL = 131_072  # characters: the csv module's own limit, which we never raise
BLOCK = 1 << 16
SAVE_AS = "Save it as `CSV UTF-8` and try again."
AGAIN = "Run the same command again when the file is complete; what is done already stays."
ADDRESS = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+")  # what looks like one
_ZIP = b"PK\x03\x04"  # what .xlsx and .ods files are
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Stamp(NamedTuple):
    """What is another one as soon as a file is written to, or another file takes its place."""

    inode: int
    size: int
    changed: int  # ns


class _Steady(io.FileIO):
    """A file that is looked at again with each block that is read, so that no row comes from a changed one."""

    def __init__(self, path: Path, stamp: Stamp) -> None:
        try:
            super().__init__(path)
        except OSError as error:
            raise _gone(path, error) from error
        self._path, self._stamp = path, stamp

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        try:
            count = super().readinto(buffer)
        except OSError as error:
            raise _gone(self._path, error) from error
        if _stamp(os.fstat(self.fileno())) != self._stamp:
            raise Unfinished(f"{self._path} was changed while it was read.", hint=AGAIN)
        return count


def _gone(path: Path, error: OSError) -> Unfinished:
    return Unfinished(f"{path} can't be read any more: {error.strerror}.", hint=AGAIN)


def _stamp(found: os.stat_result) -> Stamp:
    return Stamp(found.st_ino, found.st_size, found.st_mtime_ns)


def _first_look(path: Path) -> Stamp:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # asked first: opening a pipe waits until somebody writes
            raise UsageError(
                f"{path} can't be read: it is a pipe, a device or a folder.", hint="Save it to a file first."
            )
        with path.open("rb") as file:
            return _stamp(os.fstat(file.fileno()))
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}.") from error


class Row(NamedTuple):
    """One row; with a ``problem`` its cells are not to be used. There are millions: this is the cheapest value."""

    line: int  # 1-based, where the row begins
    cells: tuple[str, ...]
    problem: str = ""
    last: int = 0  # where it ends
    swallowed: int = 0  # lines of it that are probably other rows, behind a stray quotation mark


@dataclass(frozen=True, slots=True)
class Sheet:
    """A file whose encoding and separator are known."""

    path: Path
    stamp: Stamp
    encoding: str  # utf-8-sig or cp1252
    separator: str
    header: tuple[str, ...]  # empty for a plain list, whose first line is an address already
    lines: int = 0  # of the file: a cell may hold some, so there are no more rows than that
    quoted: bool = True  # whether any cell may be

    def rows(self) -> Iterator[Row]:
        """Every row below the header; blank ones are left out."""
        found = _read(self.text(), self.separator)
        for row in found:
            if not self.header:
                yield row
            elif row.cells == self.header:
                break
        width = len(self.header)
        for row in found:
            yield row if len(row.cells) == width and row.last == row.line else self._checked(row)

    def text(self) -> TextIO:
        """The file from its beginning. Reading it raises ``Unfinished`` once it is not what it was."""
        return io.TextIOWrapper(_open(self.path, self.stamp), self.encoding, newline="")

    def glance(self) -> Iterator[tuple[int, list[str] | None]]:
        """Where each row ends and its bare cells, None for one that is no row: in a quarter of the time of ``rows``."""
        with self.text() as file:
            reader = csv.reader(file, delimiter=self.separator, strict=True)
            while True:
                try:
                    for cells in reader:
                        yield reader.line_num, cells
                    return
                except csv.Error:
                    yield reader.line_num, None

    def row(self, line: int, cells: list[str], last: int) -> Row:
        """What ``glance`` found, as it is among ``rows``."""
        return self._checked(Row(line, _tidy(cells), "", last))

    def _checked(self, row: Row) -> Row:
        width = len(self.header)
        cells, rest = row.cells[:width], row.cells[width:]
        problem, swallowed = row.problem, row.swallowed
        if not problem and row.last > row.line:
            swallowed = max(map(self._swallowed_in, row.cells))
            problem = "a quotation mark makes one cell of these rows" if swallowed else ""
        if not problem and (len(cells) < width or any(rest)):
            # Shifted cells would give a person somebody else's status: better no row than a guess.
            problem = f"has {len(row.cells)} cells where the first line has {width}"
        return Row(row.line, () if problem else cells, problem, row.last, swallowed)

    def _swallowed_in(self, cell: str) -> int:
        """How many lines of a cell are left from the first that is a row by itself: as many cells, one an address."""
        lines = cell.splitlines()
        for at, line in enumerate(lines if len(lines) > 1 else ()):
            cells = line.split(self.separator)
            if len(cells) == len(self.header) and any(ADDRESS.fullmatch(one.strip(' "')) for one in cells):
                return len(lines) - at
        return 0


def open_sheet(path: Path) -> Sheet:
    """Find out how the file is written. Raises ``UsageError`` for one that is no table of text."""
    stamp = _first_look(path)
    with _open(path, stamp) as file:
        encoding, lines, quoted = _encoding(path, file)
    if encoding == "cp1252":
        with _open(path, stamp) as file:
            _refuse_mixture(path, file)
    sheet = Sheet(path, stamp, encoding, "", (), lines, quoted)
    with sheet.text() as text:
        separator = _separator(text)
    with closing(_read(sheet.text(), separator)) as rows:
        first = next(rows, None)
        if first is not None and first.cells[:1] == (
            "sep=",
        ):  # Excel's own word for itself about the separator
            first = next(rows, None)
    if first is None:
        raise UsageError(
            f"{path} is empty.", hint="Its first line names the columns, such as: email,name,status"
        )
    if first.problem:
        raise UsageError(f"{path}, line {first.line}: {first.problem}.", hint=SAVE_AS)
    headless = any("@" in cell for cell in first.cells)
    return replace(sheet, separator=separator, header=() if headless else first.cells)


def _open(path: Path, stamp: Stamp) -> BinaryIO:
    return io.BufferedReader(_Steady(path, stamp), BLOCK)


def _encoding(path: Path, file: BinaryIO) -> tuple[str, int, bool]:
    """UTF-8 where every byte fits it (nothing else does by accident), else Windows-1252; how many lines; any quotes."""
    lines, quoted = 0, False
    decoders = {name: codecs.getincrementaldecoder(name)() for name in ("utf-8-sig", "cp1252")}
    for number, data in enumerate(iter(lambda: file.read(SCAN_BYTES), b"")):
        _refuse_binary(path, data, first=number == 0)
        lines += data.count(b"\n")
        quoted = quoted or b'"' in data
        decoders = {name: decoder for name, decoder in decoders.items() if _accepts(decoder, data)}
    fitting = [name for name, decoder in decoders.items() if _accepts(decoder, b"", final=True)]
    if not fitting:
        raise UsageError(f"{path} is neither UTF-8 nor Windows-1252 text.", hint=SAVE_AS)
    return fitting[0], lines, quoted


def _refuse_mixture(path: Path, file: BinaryIO) -> None:
    """One byte that is not UTF-8 must not turn every name of a file that is UTF-8 into `MÃ¼ller`.

    Some lines of Windows-1252 are UTF-8 by accident, such as `JOSÉ` before a blank that does not break; so it is the
    greater part that counts.
    """
    bad, good = [], 0
    for number, line in enumerate(file, start=1):
        try:
            # What UTF-8 writes with the byte for ß is no letter of Europe: in Windows-1252 it is `Weiß’` and the like.
            good += re.search("[\x80-\u07bf\u0800-\U0010ffff]", line.decode("utf-8")) is not None
        except UnicodeDecodeError:
            bad.append(number)
    if good >= len(bad):
        raise UsageError(
            f"{path} is UTF-8 in some places and not in others: see line {bad[0]}.", hint=SAVE_AS
        )


def _accepts(decoder: codecs.IncrementalDecoder, data: bytes, *, final: bool = False) -> bool:
    try:
        decoder.decode(data, final)
    except UnicodeDecodeError:
        return False
    return True


def _refuse_binary(path: Path, data: bytes, *, first: bool) -> None:
    if first and data.startswith(_ZIP):
        raise UsageError(f"{path} is a spreadsheet or an archive, not a CSV file.", hint=SAVE_AS)
    if first and data.startswith(_UTF16):
        raise UsageError(f"{path} is UTF-16 text, which is not read.", hint=SAVE_AS)
    if b"\0" in data:
        raise UsageError(f"{path} holds NUL bytes: it is UTF-16, or no text at all.", hint=SAVE_AS)


def _separator(file: TextIO) -> str:
    """The comma, semicolon or tab that occurs most in the first line, outside quotes; a plain list has none."""
    line = next((line for line in file if line.strip()), "")
    return max(",;\t", key=re.sub(r'"[^"]*("|\Z)', "", line).count)


def _read(file: TextIO, separator: str) -> Generator[Row]:
    with file:
        reader = csv.reader(file, delimiter=separator, strict=True)
        last = 0
        while True:
            before = last
            try:
                cells = _tidy(next(reader))
            except StopIteration:
                return
            except csv.Error as error:
                last = reader.line_num
                yield Row(before + 1, (), _explained(str(error), last - before), last)
                continue
            last = reader.line_num
            if any(cells):
                yield Row(before + 1, cells, "", last)


def _tidy(cells: list[str]) -> tuple[str, ...]:
    return tuple([unshield(cell) if "'" in cell else cell for cell in map(str.strip, cells)])


def _explained(error: str, lines: int) -> str:
    if "field larger" in error or "unexpected end" in error:
        return "a quotation mark is opened and not closed, or a cell is far too long"
    if lines > 1:
        return "a quotation mark that is opened in the first of these is closed in the last one only"
    return "a quotation mark stands inside a cell: write it twice, or take it out"


# Which column is which

MEANINGS = {
    "email": {"email", "emailaddress", "emailaddresses", "mailaddress"},
    "name": {"name", "fullname"},
    "first": {"first", "firstname", "givenname", "forename", "vorname"},
    "last": {"last", "lastname", "surname", "familyname", "nachname", "familienname"},
    "status": {"status"},
    "list": {"list"},
}
IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class Columns:
    """Where in a row to find what."""

    places: Mapping[str, int]  # a key of MEANINGS → position
    fields: Mapping[str, int]  # custom field → position
    ignored: tuple[str, ...]
    wanted: str = ""  # of the lists that the column of that meaning names

    def cell(self, row: Row, meaning: str) -> str:
        """The row's text for a meaning; empty where the file has no such column."""
        place = self.places.get(meaning)
        return "" if place is None else row.cells[place]

    def other_list(self, row: Row) -> str | None:
        """What the row calls its list, if it is not the one that is wanted."""
        place = self.places.get("list")
        if place is None or row.problem or row.cells[place].casefold() == self.wanted:
            return None
        return row.cells[place]

    def torn(self, row: Row) -> bool:
        """Whether a quotation mark has made one row of several, instead of one cell of several lines."""
        if row.last == row.line or row.problem:
            return row.last > row.line
        return any("\n" in self.cell(row, meaning) or "\r" in self.cell(row, meaning) for meaning in MEANINGS)


def choose_columns(sheet: Sheet, mapping: Mapping[str, str], fields: Sequence[str]) -> Columns:
    """Recognise the columns by their names; ``mapping`` (column → meaning) wins, ``fields`` become custom fields.

    Nothing else of the file is kept: a column nobody named may hold a diagnosis. Raises ``UsageError``.
    """
    if not sheet.header:
        raise UsageError(
            f"{sheet.path} has no header: its first line looks like an address.",
            hint="Put a line on top that names the columns, such as: email,name,status",
        )
    said = [(_meaning(target), _position(sheet, column)) for column, target in mapping.items()]
    named = {meaning: place for meaning, place in said if meaning != IGNORE}
    if twice := next((one for one, place in said if place != named.get(one, place)), ""):
        raise UsageError(f"--map says of two columns that they are `{twice}`.", hint="Leave one of them out.")
    found = _recognised(sheet, named, {place for _, place in said})
    custom = {field_name(column): _position(sheet, column) for column in fields}
    places = _name_in_halves(sheet, found, named) | named
    if "email" not in places:
        columns = ", ".join(sheet.header)
        raise UsageError(
            f"{sheet.path} has no column `email`; it has: {columns}.",
            hint='Say which one it is: --map "COLUMN=email"',
        )
    used = {*places.values(), *custom.values()}
    ignored = tuple(name for place, name in enumerate(sheet.header) if name and place not in used)
    return Columns(places, custom, ignored)


def _recognised(sheet: Sheet, named: Mapping[str, int], taken: Set[int]) -> dict[str, int]:
    places: dict[str, int] = {}
    for place, column in enumerate(sheet.header):
        meaning = next((word for word, names in MEANINGS.items() if _plain(column) in names), "")
        if not meaning or meaning in named or place in taken:
            continue
        if meaning in places:
            first = sheet.header[places[meaning]]
            raise UsageError(
                f"{sheet.path} has two columns for `{meaning}`: {first} and {column}.",
                hint=f'Say which one counts: --map "{first}={meaning}"',
            )
        places[meaning] = place
    return places


def _name_in_halves(sheet: Sheet, found: dict[str, int], named: Mapping[str, int]) -> dict[str, int]:
    """Beside one half of a name, a column `Name` holds the other; beside both it is left out."""
    halves = {"first", "last"} & (found.keys() | named.keys())
    if "name" not in found or not halves:
        return found
    whole = _plain(sheet.header[found["name"]]) != "name"
    if whole and not halves & named.keys():
        return found
    rest = {meaning: place for meaning, place in found.items() if meaning != "name"}
    missing = () if whole else {"first", "last"} - halves
    return rest | dict.fromkeys(missing, found["name"])


def _meaning(target: str) -> str:
    if target not in MEANINGS and target != IGNORE:
        raise UsageError(f"--map knows no {target!r}.", hint=f"It knows: {', '.join(MEANINGS)} and {IGNORE}.")
    return target


def _position(sheet: Sheet, column: str) -> int:
    """Where a column that was named on the command line stands."""
    if sheet.header.count(column) == 1:
        return sheet.header.index(column)
    found = [place for place, name in enumerate(sheet.header) if _plain(name) == _plain(column)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"{sheet.path} has {len(found)} columns called {column!r}.", hint="Rename one of them."
        )
    near = get_close_matches(column, sheet.header, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"It has: {', '.join(sheet.header)}."
    raise UsageError(f"{sheet.path} has no column {column!r}.", hint=hint)


def field_name(column: str) -> str:
    """``Home Town`` → ``home_town``: what stands between the @@ of a merge tag. Raises ``UsageError``."""
    name = re.sub(r"[\W_]+", "_", column.casefold()).strip("_")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UsageError(
            f"--field {column!r} gives no name for a merge tag.",
            hint="Rename the column: small letters, digits and _, beginning with a letter.",
        )
    if name in merge.RESERVED:
        raise UsageError(
            f"--field {column!r}: the merge tag {name} has a meaning already.", hint="Rename the column."
        )
    return name


def _plain(column: str) -> str:
    return re.sub(r"[\s_-]+", "", column.casefold())

"""A list as a file for a spreadsheet: streamed, its owner's alone, and nothing in it that a spreadsheet would run."""

from __future__ import annotations

import csv
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from newsletter.errors import Refused, UsageError
from newsletter.formulas import shield
from newsletter.store import subscribers as store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import IO

    from sqlalchemy import Connection

    from newsletter.model import Subscriber, SubscriptionState

COLUMNS = ("email", "name", "list", "status", "since", "source", "edition", "paused_until")


def write_csv(
    conn: Connection,
    file: IO[str],
    *,
    list_name: str | None = None,
    state: SubscriptionState | None = None,
    fields: Sequence[str] = (),
) -> int:
    """Write everybody who is not erased, one line for each list they are on; returns how many lines.

    The first columns are those that the import knows: whom it would not mail it does not mail after coming back either.
    ``fields`` are custom fields, each a column behind the others. All cells are quoted, because a spreadsheet may take
    another character for the separator.
    """
    sheet = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\r\n")  # RFC 4180
    sheet.writerow([*COLUMNS, *map(shield, fields)])
    written = 0
    for _, person in store.people(conn, list_name, state):
        if person.address:
            sheet.writerow([shield(text) for text in _cells(person, fields)])
            written += 1
    return written


def _cells(person: Subscriber, fields: Sequence[str]) -> list[str]:
    return [
        person.address,
        person.name,
        person.list,
        person.suppressed or person.state.value,
        f"{person.since:%Y-%m-%d}",
        person.source,
        person.edition,
        f"{person.paused_until:%Y-%m-%d}" if person.paused_until else "",
        *(str(person.fields.get(name, "")) for name in fields),
    ]


@contextmanager
def private_file(path: Path, *, force: bool = False) -> Iterator[IO[str]]:
    """A file that nobody else can read, and that is there only when it is whole.

    It is written beside its place: a full disk costs neither an older file nor leaves a half one.

    Raises ``Refused`` for one that exists, unless ``force``, and for what is no plain file: what a link leads to may be
    anybody's, and a device would be replaced. ``UsageError`` where none can be written.
    """
    try:
        _refuse(path, force=force)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".export-")  # its mode is 0600
        with _gone_unless_moved(Path(name)) as unfinished:
            with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            _refuse(path, force=force)  # somebody may have made it meanwhile
            unfinished.replace(path)
    except OSError as error:
        raise UsageError(
            f"{path} can't be written: {error.strerror or error}.", hint="Choose another place, or make room."
        ) from error


def _refuse(path: Path, *, force: bool) -> None:
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise Refused(
            f"{path} is a link, a folder or a device, and none of them is replaced.",
            hint="Name a file of its own.",
        )
    if path.exists() and not force:
        raise Refused(f"{path} exists already.", hint="Choose another name, or overwrite it with --force.")


@contextmanager
def _gone_unless_moved(path: Path) -> Iterator[Path]:
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)

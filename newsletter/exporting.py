"""A list as a file for a spreadsheet: streamed, its owner's alone, and nothing in it that a spreadsheet would run."""

from __future__ import annotations

import csv
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from newsletter.errors import Refused, UsageError
from newsletter.formulas import shield
from newsletter.store import subscribers as store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
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
    """A new file that nobody else can read. What is there already stays, unless ``force``; a half-written one goes.

    Raises ``Refused`` for one that exists, ``UsageError`` where none can be made.
    """
    try:
        if force:
            path.unlink(missing_ok=True)  # opened as it is, it would keep a mode that others can read
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Refused(
            f"{path} exists already.", hint="Choose another name, or overwrite it with --force."
        ) from None
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror}.") from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise

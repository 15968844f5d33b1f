"""The shape of issue.toml: which keys there are, and plain sentences for what does not fit.

Pydantic judges the shape and nothing else. What a value says (a link, a merge tag) is the business of
``content``, which judges every value it can, so that one wrong key does not hide the other mistakes.
"""

from __future__ import annotations

import re
from datetime import date  # noqa: TC003  pydantic reads the annotations
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class Table(BaseModel):
    """A table of issue.toml. Nothing is converted: ``date = "1.12."`` must not become a date by guessing."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SourceTable(Table):
    """``[lead.source]``: the paper."""

    title: str
    journal: str = ""
    doi: str = ""
    url: str = ""
    published: date | None = None


class LeadTable(Table):
    """``[lead]``."""

    title: str
    source: SourceTable
    image: str = ""
    image_alt: str = ""
    topics: list[str] = []


class RelatedTable(Table):
    """One ``[[related]]``."""

    title: str
    text: str
    url: str
    date: date
    pin: bool = False


class RelatedOptionsTable(Table):
    """``[related_options]``."""

    ban: list[str] = []


class WaiveTable(Table):
    """One ``[[waive]]``."""

    code: str
    where: str = ""
    because: str


class IssueTable(Table):
    """The whole file."""

    subject: str
    preheader: str
    date: date
    lead: LeadTable
    number: Annotated[int, Field(ge=1)] | None = None
    period: str = ""
    related: list[RelatedTable] = []
    related_options: RelatedOptionsTable = RelatedOptionsTable()
    waive: list[WaiveTable] = []


# Where each table's keys belong, as a person writes it, and an example of what a missing one may look like.
TABLES: dict[str, tuple[str, type[Table]]] = {
    "": ("at the top, before the first [table]", IssueTable),
    "lead": ("under [lead]", LeadTable),
    "lead.source": ("under [lead.source]", SourceTable),
    "related.#": ("under [[related]]", RelatedTable),
    "related_options": ("under [related_options]", RelatedOptionsTable),
    "waive.#": ("under [[waive]]", WaiveTable),
}
EXAMPLES = {"date": "2026-12-01", "lead": "[lead]", "source": "[lead.source]", "url": '"https://…"'}
DATE_HINT = "Write year, month and day with two dashes, without quotes or a time: 2026-12-31"
EXPECTED = {
    "string_type": 'text in quotes: key = "…"',
    "int_type": "a whole number without quotes",
    "greater_than_equal": "a whole number from 1 on",
    "bool_type": "true or false, without quotes",
    "list_type": "a list in square brackets, or a table written as [[…]]",
    "model_type": "a table: a line [name], and its keys below",
}


class Misfit(NamedTuple):
    """Something in issue.toml that does not have the right shape."""

    code: str
    where: str  # key path, entries counted from 1: related.3.url
    what: str
    todo: str


def read(data: dict[str, Any]) -> IssueTable | list[Misfit]:
    """The validated file, or everything about its shape that is wrong."""
    try:
        return IssueTable.model_validate(data)
    except ValidationError as error:
        return [_misfit(details) for details in error.errors(include_url=False, include_context=False)]


def _misfit(error: ErrorDetails) -> Misfit:
    parts = [str(part + 1) if isinstance(part, int) else part for part in error["loc"]]
    where, key = ".".join(parts), parts[-1]
    if error["type"] == "extra_forbidden":
        return Misfit("C111", where, f"There is no key “{key}” {_place(parts)}.", _suggestion(parts))
    if error["type"] == "missing":
        example = EXAMPLES.get(key, '"…"')
        line = example if example.startswith("[") else f"{key} = {example}"
        return Misfit("C112", where, f"“{where}” is missing.", f"Add it {_place(parts)}: {line}")
    if error["type"].startswith(("date", "datetime")):
        return Misfit("C114", where, f"“{where}” must be a date.", DATE_HINT)
    expected = EXPECTED[error["type"]]
    return Misfit("C113", where, f"“{where}” must be {expected}.", "Correct what stands after the =.")


def pattern(where: str) -> str:
    """``related.3.url`` → ``related.#.url``."""
    return re.sub(r"(?<=\.)[0-9]+", "#", where)


def _place(parts: list[str]) -> str:
    return TABLES[pattern(".".join(parts[:-1]))][0]


def _suggestion(parts: list[str]) -> str:
    key = parts[-1]
    fields = TABLES[pattern(".".join(parts[:-1]))][1].model_fields
    if near := get_close_matches(key, fields, n=1):
        return f"Did you mean “{near[0]}”?"
    homes = [place for place, table in TABLES.values() if key in table.model_fields]
    if homes:
        return f"It belongs {homes[0]}."
    return f"Remove it. The keys here are: {', '.join(fields)}."

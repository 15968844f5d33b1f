"""Results of any length: printed as they are read, never held whole."""

from __future__ import annotations

import json
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import click

from newsletter.cli import output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

AT_ONCE = 500
"""Lines in one write to the terminal or pipe; also the rows from which a long table takes its widths."""


def print_lines(lines: Iterable[str]) -> None:
    """Each as ``output.say`` prints it."""
    lines = iter(lines)
    while some := list(islice(lines, AT_ONCE)):
        output.say("\n".join(some))


def print_json_array(items: Iterable[Mapping[str, Any]]) -> None:
    """One valid JSON array, an object to a line."""
    click.echo("[", nl=False)
    comma = "\n"
    items = iter(items)
    while some := [as_line(item) for item in islice(items, AT_ONCE)]:
        click.echo(comma + ",\n".join(some), nl=False)
        comma = ",\n"
    click.echo("\n]")


def as_line(item: Mapping[str, Any]) -> str:
    """JSON without a line end in it, and without what could move a cursor."""
    text = json.dumps(
        item, ensure_ascii=False, default=str
    )  # without indent: that would cost four times as much
    return output.UNSAFE.sub(lambda unsafe: json.dumps(unsafe[0])[1:-1], text)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """As ``output.print_table``; a long one is as wide as its first rows need, and longer cells stick out."""
    rows = iter(rows)
    first = list(islice(rows, AT_ONCE))
    more = list(islice(rows, 1))
    if more:
        print_lines(_aligned(columns, first, chain(more, rows)))
    else:
        output.print_table(columns, first)


def _aligned(
    columns: Sequence[str], first: Sequence[Sequence[object]], rest: Iterable[Sequence[object]]
) -> Iterator[str]:
    from rich.cells import cell_len

    texts = [_cells(row) for row in (columns, *first)]
    widths = [max(cell_len(row[at]) for row in texts) for at in range(len(columns))]
    for row in chain(texts, map(_cells, rest)):
        yield _line(row, widths, cell_len)


def _cells(row: Sequence[object]) -> list[str]:
    return [output.safe("" if cell is None else str(cell)).replace("\n", " ") for cell in row]


def _line(cells: Sequence[str], widths: Sequence[int], measure: Callable[[str], int]) -> str:
    padded = (cell + " " * (width - measure(cell) + 2) for cell, width in zip(cells, widths, strict=True))
    return "".join(padded).rstrip()

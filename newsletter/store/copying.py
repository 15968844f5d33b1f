"""All rows of a database, in one snapshot, into another one of either kind. Both have the present schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import JSON, BigInteger, bindparam, delete, func, insert, select, type_coerce

from newsletter.store import sqlite
from newsletter.store.engine import count_on, last_numbers, open_engine, read, write
from newsletter.store.schema import Instant, meta, metadata

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Column, Connection, Engine, Table
    from sqlalchemy.types import TypeEngine

ROWS = 1000  # in memory at once


def snapshot(engine: Engine, file: Path) -> dict[str, int]:
    """One moment of the database as a SQLite file; others may write meanwhile. Returns how many rows each table had."""

    def take(conn: Connection) -> dict[str, int]:
        if conn.dialect.name == "sqlite":
            sqlite.snapshot(conn, file)
        else:
            _into_new(conn, file)
        return counts(conn)

    return read(engine, take)


def _into_new(source: Connection, file: Path) -> None:
    target = open_engine(f"sqlite:///{file}", create=True)
    try:
        write(target, lambda conn: fill(source, conn))
    finally:
        target.dispose()


def counts(conn: Connection) -> dict[str, int]:
    """Rows by table."""
    return {
        table.name: conn.execute(select(func.count()).select_from(table)).scalar_one()
        for table in metadata.sorted_tables
    }


def used(conn: Connection) -> list[str]:
    """The tables with a row in them; what a new database knows of itself counts for nothing."""
    return [name for name, rows in counts(conn).items() if rows and name != meta.name]


def fill(source: Connection, target: Connection) -> None:
    """Every row of ``source``, into a ``target`` that has none; numbers go on where those of ``source`` ended."""
    target.execute(delete(meta))
    for table in metadata.sorted_tables:  # whoever is referred to comes first
        _copy(table, source, target)
    count_on(target, last_numbers(source))


def _copy(table: Table, source: Connection, target: Connection) -> None:
    every = select(*(type_coerce(column, _stored(column)) for column in table.columns)).select_from(table)
    put = insert(table).values(
        {column.name: bindparam(column.name, type_=_stored(column)) for column in table.columns}
    )
    with source.execution_options(yield_per=ROWS).execute(every) as rows:
        for some in rows.partitions():
            target.execute(put, [dict(zip(table.columns.keys(), row, strict=True)) for row in some])


def _stored(column: Column[Any]) -> TypeEngine[Any]:
    """As it lies in the database: nothing is gained by making moments of numbers and numbers of moments."""
    if isinstance(column.type, Instant):
        return BigInteger()
    return JSON(none_as_null=True) if isinstance(column.type, JSON) else column.type

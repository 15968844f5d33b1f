"""The migrated database is the one that ``schema`` describes."""

from __future__ import annotations

import re
import sqlite3
from typing import TYPE_CHECKING

from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from newsletter.store.engine import SCHEMA, create_or_upgrade
from newsletter.store.schema import metadata

if TYPE_CHECKING:
    from pathlib import Path


def tables(file: Path) -> dict[str, set[str]]:
    """Name → the lines of its definition, in no order: constraints may stand anywhere."""
    connection = sqlite3.connect(file)
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    connection.close()
    return {name: {line.strip(" \t,") for line in sql.splitlines()} for name, sql in rows}


def test_migrating_makes_exactly_the_tables_of_the_schema(tmp_path: Path) -> None:
    create_or_upgrade(f"sqlite:///{tmp_path}/migrated.db")
    engine = create_engine(f"sqlite:///{tmp_path}/described.db")
    metadata.create_all(engine)
    engine.dispose()
    migrated = tables(tmp_path / "migrated.db")
    migrated.pop("alembic_version")
    assert migrated == tables(tmp_path / "described.db")


def test_revisions_are_four_digits_in_one_line_and_the_engine_knows_the_last() -> None:
    config = Config()
    config.set_main_option("script_location", "newsletter.store:migrations")
    scripts = ScriptDirectory.from_config(config)
    revisions = [script.revision for script in scripts.walk_revisions()]
    assert scripts.get_heads() == [SCHEMA]
    assert revisions == sorted(revisions, reverse=True)
    assert all(re.fullmatch(r"\d{4}", revision) for revision in revisions)

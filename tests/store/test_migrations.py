"""The migrated database is the one that ``schema`` describes, and older ones come to it with all their rows."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text

from newsletter.store import engine as store
from newsletter.store.engine import SCHEMA, create_or_upgrade, open_engine, read
from newsletter.store.schema import metadata

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Engine

    from tests.support.postgresql import Server

OLD_ROWS = (
    "INSERT INTO list (id, name, created_at) VALUES (1, 'readers', 0)",
    "INSERT INTO subscriber (id, address, name, fields, edition, created_at)"
    " VALUES (1, 'zoe@example.org', 'Zoë', '{}', 'standard', 0)",
    "INSERT INTO subscription (id, subscriber_id, list_id, state, since, source) VALUES (1, 1, 1, 'active', 0, '')",
    "INSERT INTO campaign (id, issue, period, list_id, audience, kind, attempt, state, reason, transport, digest,"
    " message, created_at)"
    " VALUES (1, '2026-12', '2026-12', 1, 'readers', 'live', 1, 'running', '', 'smtp', '', '{}', 0)",
)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Two databases without a table."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/one.db", f"sqlite:///{tmp_path}/two.db"
        return
    server: Server = request.getfixturevalue("postgresql_server")
    pair = server.create(empty=True), server.create(empty=True)
    yield pair
    for url in pair:
        server.drop(url)


@contextmanager
def opened(url: str) -> Iterator[Engine]:
    """As somebody would who knows nothing of us."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    yield engine
    engine.dispose()


def shape(engine: Engine) -> dict[str, Any]:
    """All that a database says of its tables."""
    look = inspect(engine)
    tables = {name: _table(look, name) for name in look.get_table_names() if name != "alembic_version"}
    return tables | {"ids that are never used again": _autoincrement(engine)}


def _table(look: Any, name: str) -> dict[str, Any]:
    columns = {
        column["name"]: (str(column["type"]), column["nullable"], bool(column.get("default")))
        for column in look.get_columns(name)
    }
    rest = ("get_foreign_keys", "get_unique_constraints", "get_indexes", "get_check_constraints")
    return {
        "columns": columns,
        "primary key": look.get_pk_constraint(name),
        **{which: sorted(getattr(look, which)(name), key=str) for which in rest},
    }


def _autoincrement(engine: Engine) -> list[str]:
    """PostgreSQL's sequences never go back, and SQLAlchemy doesn't tell it of SQLite."""
    if engine.dialect.name != "sqlite":
        return []
    asked = text("SELECT name FROM sqlite_master WHERE sql LIKE '%AUTOINCREMENT%' ORDER BY name")
    with engine.connect() as conn:
        return list(conn.scalars(asked))


def test_migrating_makes_exactly_the_tables_of_the_schema(empty: tuple[str, str]) -> None:
    create_or_upgrade(empty[0])
    with opened(empty[0]) as migrated, opened(empty[1]) as described:
        metadata.create_all(described)
        assert shape(migrated) == shape(described)


def test_a_database_of_the_first_schema_is_upgraded_with_its_rows(
    empty: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade = command.upgrade
    with monkeypatch.context() as patched:
        patched.setattr(store, "SCHEMA", "0001")
        patched.setattr(command, "upgrade", lambda config, _revision: upgrade(config, "0001"))
        create_or_upgrade(empty[0])
    with opened(empty[0]) as old, old.begin() as conn:
        for statement in OLD_ROWS:
            conn.execute(text(statement))
    assert create_or_upgrade(empty[0]) == "0001"
    engine = open_engine(empty[0])
    row = read(engine, lambda conn: conn.execute(text("SELECT issue, owner FROM campaign")).one())
    assert (row.issue, row.owner) == ("2026-12", None)
    engine.dispose()


def test_two_databases_never_give_a_subscription_the_same_number(empty: tuple[str, str]) -> None:
    """Else a link in a mail from a database that was lost would open another person's page in the next one."""
    numbers = []
    for url in empty:
        create_or_upgrade(url)
        with opened(url) as engine, engine.begin() as conn:
            for statement in OLD_ROWS[:2]:
                conn.execute(text(statement))
            numbers.append(
                conn.execute(
                    text(OLD_ROWS[2].replace("(id, ", "(").replace("(1, 1,", "(1,") + " RETURNING id")
                ).scalar_one()
            )
    assert all(2**40 < number <= 2**48 for number in numbers)
    assert numbers[0] != numbers[1]


def test_ids_that_are_used_up_quickly_have_eight_bytes(postgresql_url: str) -> None:
    with opened(postgresql_url) as engine:
        look = inspect(engine)
        for table, name in (("delivery", "seq"), ("subscription", "id"), ("delivery", "subscription_id")):
            types = {column["name"]: str(column["type"]) for column in look.get_columns(table)}
            assert types[name] == "BIGINT", (table, name)


def test_revisions_are_four_digits_in_one_line_and_the_engine_knows_the_last() -> None:
    config = Config()
    config.set_main_option("script_location", "newsletter.store:migrations")
    scripts = ScriptDirectory.from_config(config)
    revisions = [script.revision for script in scripts.walk_revisions()]
    assert scripts.get_heads() == [SCHEMA]
    assert revisions == sorted(revisions, reverse=True)
    assert all(re.fullmatch(r"\d{4}", revision) for revision in revisions)

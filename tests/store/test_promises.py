"""What no constraint holds and must be true of the rows all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from newsletter.store import promises
from newsletter.store.engine import read
from tests.support import ledgers
from tests.support.databases import sql

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Engine


@pytest.fixture
def engine(tmp_path: Path, database_url: str) -> Iterator[Engine]:
    """Three people, and a campaign that is running."""
    made = ledgers.open_store(tmp_path, 3, database_url)
    ledgers.freeze(made)
    yield made
    made.dispose()


def test_a_ledger_in_use_keeps_them_all(engine: Engine) -> None:
    assert read(engine, promises.broken) == []


@pytest.mark.parametrize(
    ("statements", "found"),
    [
        (
            ["UPDATE campaign SET state = 'finished', finished_at = 1"],
            ["3 deliveries are open, and their campaign is finished"],
        ),
        (
            ["UPDATE campaign SET state = 'finished'", "UPDATE delivery SET state = 'accepted'"],
            ["1 campaigns are finished without a moment"],
        ),
        (
            [
                "UPDATE campaign SET state = 'preparing'",
                "UPDATE delivery SET state = 'accepted' WHERE subscriber_id = 2",
            ],
            ["1 deliveries were begun, and their campaign is still being prepared"],
        ),
        (
            ["UPDATE delivery SET attempt = 2"],
            ["3 deliveries are of another issue, kind or attempt than their campaign"],
        ),
        (
            ["UPDATE delivery SET state = 'claimed', owner = 'nobody' WHERE subscriber_id = 1"],
            ["1 deliveries are claimed or handed by a sender that there never was"],
        ),
        (
            ["UPDATE delivery SET state = 'handed', owner = 'me' WHERE subscriber_id < 3"],
            ["2 deliveries are handed without a moment"],
        ),
        (["DELETE FROM email"], ["1 campaigns have no email"]),
        (
            ["UPDATE subscriber SET erased_at = 1 WHERE id = 1"],
            ["1 subscribers are erased and still have an address"],
        ),
        (
            ["UPDATE delivery SET subscription_id = 3 WHERE subscriber_id = 1"],
            ["1 deliveries have the subscription of another subscriber"],
        ),
    ],
)
def test_each_that_is_broken_is_named_with_its_number(
    engine: Engine, database_url: str, statements: list[str], found: list[str]
) -> None:
    sql(database_url, *statements)
    assert read(engine, promises.broken) == found

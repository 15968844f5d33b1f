"""How fast copies leave, from a few rows of the ledger."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from newsletter.model import CampaignState, DeliveryState
from newsletter.store import speed
from newsletter.store.engine import read, write
from newsletter.store.schema import campaign, delivery, owner, subscriber
from tests.support import ledgers
from tests.support.publication import NINE

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy import Connection


def each(seconds: float, count: int, start: float = 0.0) -> list[datetime]:
    """That many moments, evenly spread."""
    return [NINE + timedelta(seconds=start + seconds * number) for number in range(count)]


def after(seconds: float) -> datetime:
    return NINE + timedelta(seconds=seconds)


@pytest.mark.parametrize(("seconds", "count"), [(0.005, 2000), (0.1, 300), (3.0, 60), (180.0, 20)])
def test_a_steady_speed_is_found_however_slow_it_is(seconds: float, count: int) -> None:
    found = speed.over(each(seconds, count), after(seconds * count))
    assert found == pytest.approx(1 / seconds)


def test_the_speed_is_that_of_the_last_ten_seconds() -> None:
    slow_then_fast = each(1.0, 100) + each(0.1, 150, start=100)
    assert speed.over(slow_then_fast, after(115)) == pytest.approx(10.0)


def test_nothing_is_told_of_one_copy_or_of_a_time_long_past() -> None:
    assert speed.over([], NINE) is None
    assert speed.over(each(1.0, 1), NINE) is None
    assert speed.over(each(0.1, 300), after(30 + 20)) == pytest.approx(10.0)
    assert speed.over(each(0.1, 300), after(30 + 31)) is None
    assert speed.over(each(60.0, 30), after(30 * 60 + 100)) == pytest.approx(1 / 60)


def test_copies_that_were_tried_again_much_later_do_not_slow_a_finished_send() -> None:
    moments = each(0.01, 1900) + each(60.0, 100, start=4000)
    random.Random(2026).shuffle(moments)
    assert speed.steady(moments) == pytest.approx(100.0, rel=0.01)
    assert speed.steady(moments[:500]) is None


def settle(conn: Connection, campaign_id: int, state: CampaignState) -> None:
    """Every row of it accepted, a hundred each second."""
    for number, moment in enumerate(each(0.01, speed.ENOUGH)):
        row = update(delivery).where(delivery.c.seq == number + 1)
        conn.execute(row.values(state=DeliveryState.ACCEPTED, settled_at=moment))
    conn.execute(update(campaign).values(state=state, finished_at=NINE))
    here = {"name": "process 7 on mailer, since 2026-12-01", "campaign_id": campaign_id}
    conn.execute(update(owner).where(owner.c.id == "me").values(here))


def test_what_the_last_send_from_this_machine_reached_is_known(tmp_path: Path) -> None:
    engine = ledgers.open_store(tmp_path, speed.ENOUGH)
    sent = ledgers.freeze(engine)
    write(engine, lambda conn: settle(conn, sent.id, CampaignState.RUNNING))
    assert read(engine, lambda conn: speed.recent(conn, sent.id, after(10))) == pytest.approx(100.0)
    assert read(engine, lambda conn: speed.reached(conn, "memory", "mailer")) is None  # not finished
    write(engine, lambda conn: settle(conn, sent.id, CampaignState.FINISHED))
    found, reached = read(engine, lambda conn: speed.reached(conn, "memory", "mailer")) or (None, 0)
    assert found is not None
    assert (found.id, reached) == (sent.id, pytest.approx(100.0))
    for transport, machine in (("smtp", "mailer"), ("memory", "mail"), ("memory", "%")):
        assert read(engine, lambda conn, way=transport, on=machine: speed.reached(conn, way, on)) is None
    engine.dispose()


def test_those_who_wait_are_counted_by_their_domains(tmp_path: Path, database_url: str) -> None:
    engine = ledgers.open_store(tmp_path, 9, database_url)
    moved = update(subscriber).where(subscriber.c.id <= 4).values(address="x@gmail.com")
    write(engine, lambda conn: conn.execute(moved))
    campaign_id = ledgers.freeze(engine).id
    done = update(delivery).where(delivery.c.subscriber_id == 1).values(state=DeliveryState.ACCEPTED)
    write(engine, lambda conn: conn.execute(done))
    domains = ("gmail.com", "example.org", "org", "example.net")
    found = read(engine, lambda conn: speed.waiting_by_domain(conn, campaign_id, domains))
    assert found == {"gmail.com": 3, "example.org": 5}
    assert read(engine, lambda conn: speed.waiting_by_domain(conn, campaign_id, ())) == {}
    assert read(engine, lambda conn: speed.reached(conn, "memory", "mailer")) is None
    assert read(engine, lambda conn: speed.recent(conn, campaign_id, NINE)) is None
    engine.dispose()

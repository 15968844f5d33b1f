"""The rows of a campaign, page by page, for people and scripts to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from newsletter.model import Delivery, DeliveryState
from newsletter.store.schema import delivery, subscriber

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Row

PAGE = 500


def page(
    conn: Connection, campaign_id: int, state: DeliveryState | None, *, after: int = 0, limit: int = PAGE
) -> tuple[list[Delivery], int]:
    """Up to ``limit`` deliveries behind the key ``after``, in the order of freezing, and the last one's key.

    An empty list means the end.
    """
    columns = (delivery, func.coalesce(subscriber.c.address, "").label("address"), subscriber.c.name)
    query = select(*columns).join(subscriber, subscriber.c.id == delivery.c.subscriber_id)
    query = query.where(delivery.c.campaign_id == campaign_id, delivery.c.seq > after)
    if state is not None:
        query = query.where(delivery.c.state == state)
    rows = conn.execute(query.order_by(delivery.c.seq).limit(limit)).all()
    return [_delivery(row) for row in rows], rows[-1].seq if rows else after


def every(conn: Connection, campaign_id: int) -> Iterator[Delivery]:
    """All of them, as they were at one moment."""
    rows, last = page(conn, campaign_id, None)
    while rows:
        yield from rows
        rows, last = page(conn, campaign_id, None, after=last)


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        id=bytes(row.id),
        address=row.address,
        name=row.name,
        state=DeliveryState(row.state),
        tries=row.tries,
        not_before=row.not_before,
        handed_at=row.handed_at,
        settled_at=row.settled_at,
        reason=row.reason,
        provider_id=row.provider_id,
        edition=row.edition,
    )

"""How many there are, by state: for whoever watches the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

from newsletter.model import SubscriptionState
from newsletter.store.schema import subscription

if TYPE_CHECKING:
    from sqlalchemy import Connection


def subscriptions(conn: Connection) -> dict[str, int]:
    """Places on lists, for every state. Reads them all: a tenth of a second for a million."""
    query = select(subscription.c.state, func.count()).group_by(subscription.c.state)
    found = {row.state: row[1] for row in conn.execute(query)}
    return {state.value: found.get(state, 0) for state in SubscriptionState}

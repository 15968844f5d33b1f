"""The statements that run for every copy: reading it, the mark before it leaves, and what was said of it.

They are SQL text, whole windows as one value, and give back a number: as SQLAlchemy expressions they cost up to half of
the rate at which copies leave, and for each row that passes between SQLite and Python all lanes may take turns first.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from newsletter.store.ahead import Claimed
from newsletter.store.doubts import RESENT
from newsletter.store.schema import to_micros

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

# Still mine, campaign still running, nobody has taken this process for dead, person neither gone nor suppressed.
_MARK = """UPDATE delivery SET state = 'handed', handed_at = :now
WHERE seq IN LISTED AND state = 'claimed' AND owner = :owner
AND EXISTS (SELECT 1 FROM campaign WHERE campaign.id = :campaign AND campaign.state = 'running')
AND EXISTS (SELECT 1 FROM owner WHERE owner.id = :owner AND owner.ended_at IS NULL)
AND EXISTS (SELECT 1 FROM subscription s WHERE s.id = delivery.subscription_id AND s.state = 'active')
AND NOT EXISTS (SELECT 1 FROM suppression p WHERE p.address_key = delivery.address_key)
"""
_MARKED = "SELECT seq FROM delivery WHERE seq IN LISTED AND state = 'handed' AND owner = :owner"
_LOAD = """SELECT delivery.seq, delivery.id, delivery.address_key, subscriber.address, subscriber.name,
subscriber.fields, delivery.subscription_id, delivery.edition, delivery.tries, delivery.reason
FROM delivery JOIN subscriber ON subscriber.id = delivery.subscriber_id
WHERE delivery.seq IN LISTED ORDER BY delivery.seq"""
_ROWS = """(SELECT json_extract(value, '$.seq') AS seq, json_extract(value, '$.state') AS state,
json_extract(value, '$.reason') AS reason, json_extract(value, '$.provider_id') AS provider_id,
json_extract(value, '$.settled_at') AS settled_at, json_extract(value, '$.not_before') AS not_before,
json_extract(value, '$.tries') AS tries FROM json_each(:rows)) AS said"""
_ROWS_POSTGRESQL = """jsonb_to_recordset(CAST(:rows AS jsonb)) AS said(seq bigint, state text, reason text,
provider_id text, settled_at bigint, not_before bigint, tries integer)"""
_SETTLE = """UPDATE delivery SET state = said.state, reason = said.reason, provider_id = said.provider_id,
settled_at = said.settled_at, not_before = said.not_before, tries = said.tries
FROM ROWS
WHERE delivery.seq = said.seq AND delivery.state = 'handed' AND delivery.owner = :owner
"""

# What nearly all of them are, with nothing to look up: row → the provider's id.
_ACCEPT = """UPDATE delivery SET state = 'accepted', reason = '', provider_id = said.value,
settled_at = :now, not_before = NULL, tries = tries + 1
FROM PAIRS
WHERE delivery.seq = CAST(said.key AS BIGINT) AND delivery.state = 'handed' AND delivery.owner = :owner
"""
_PAIRS = "json_each(:said) AS said"
_PAIRS_POSTGRESQL = "jsonb_each_text(CAST(:said AS jsonb)) AS said"


def _for_sqlite(sql: str) -> str:
    return (
        sql.replace("IN LISTED", "IN (SELECT value FROM json_each(:seqs))")
        .replace("ROWS", _ROWS)
        .replace("PAIRS", _PAIRS)
    )


def _for_postgresql(sql: str) -> str:
    text = (
        sql.replace("IN LISTED", "= ANY(:seqs)")
        .replace("ROWS", _ROWS_POSTGRESQL)
        .replace("PAIRS", _PAIRS_POSTGRESQL)
    )
    return re.sub(r":(\w+)", r"%(\1)s", text)


_STATEMENTS = (_MARK, _MARKED, _SETTLE, _LOAD, _ACCEPT)
_TEXTS = {
    "sqlite": tuple(map(_for_sqlite, _STATEMENTS)),
    "postgresql": tuple(map(_for_postgresql, _STATEMENTS)),
}


def load(conn: Connection, seqs: Sequence[int]) -> list[Claimed]:
    """These rows in their order, with what their copies are made of."""
    rows = conn.exec_driver_sql(_TEXTS[conn.dialect.name][3], {"seqs": _listed(conn, seqs)})
    return [_claimed(*row) for row in rows.all()]


def _claimed(
    seq: int,
    id_: bytes,
    key: bytes,
    address: str | None,
    name: str,
    fields: str | dict[str, str],
    subscription: int,
    edition: str,
    tries: int,
    reason: str,
) -> Claimed:
    # PostgreSQL's driver has read the JSON already.
    known: dict[str, str] = (
        {} if fields == "{}" else json.loads(fields) if isinstance(fields, str) else fields
    )
    resent = reason.startswith(RESENT)
    return Claimed(
        seq, bytes(id_), bytes(key), address or "", name, known, subscription, edition, tries, resent
    )


def _listed(conn: Connection, seqs: Sequence[int]) -> str | list[int]:
    return list(seqs) if conn.dialect.name == "postgresql" else json.dumps(list(seqs))


def mark(conn: Connection, seqs: Sequence[int], *, campaign: int, owner: str, now: datetime) -> set[int]:
    """Marks these rows as handed, on every condition; returns those that it changed, which alone may leave."""
    sql, marked, *_ = _TEXTS[conn.dialect.name]
    known: dict[str, Any] = {"seqs": _listed(conn, seqs), "owner": owner}
    done = conn.exec_driver_sql(sql, known | {"campaign": campaign, "now": to_micros(now)}).rowcount
    # They were claimed until now, so those that are handed are the changed ones.
    return set(seqs) if done == len(seqs) else set(conn.exec_driver_sql(marked, known).scalars())


def accept(conn: Connection, said: Mapping[int, str], *, owner: str, now: datetime) -> int:
    """Stores that handed rows were accepted (row → the provider's id); returns how many were handed, and theirs."""
    told = {"said": json.dumps(said), "owner": owner, "now": to_micros(now)}
    return conn.exec_driver_sql(_TEXTS[conn.dialect.name][4], told).rowcount


def settle(conn: Connection, rows: Sequence[dict[str, Any]], *, owner: str) -> int:
    """Stores what was said of handed rows; returns how many of them were still handed, and the owner's."""
    told = {"rows": json.dumps(rows), "owner": owner}
    return conn.exec_driver_sql(_TEXTS[conn.dialect.name][2], told).rowcount

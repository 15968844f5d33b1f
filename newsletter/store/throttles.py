"""How often strangers may ask for something: a row for each address and each network, known by a keyed hash only.

The generic cell rate algorithm again, with room for a few at once: people press twice and mistype, and a clinic's
patients share one network.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select

from newsletter import addresses
from newsletter.store.schema import throttle

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy import Connection

    from newsletter.limits import Rate

SCOPE_BYTES = 16
CONTEXT = b"newsletter throttle\0"  # so that no scope is ever an address key
IPV4_PREFIX, IPV6_PREFIX = 24, 48  # a street of households, or all that a company may ask its provider for


@dataclass(frozen=True, slots=True)
class Allowance:
    """A rate, and how many may come at once after a quiet time."""

    rate: Rate
    burst: int


def scope(kind: str, text: str | bytes, secret: bytes) -> bytes:
    """The key of a row: whose it is can't be found out without ``secret``."""
    data = text.encode() if isinstance(text, str) else text
    return hmac.digest(secret, CONTEXT + kind.encode() + b"\0" + data, hashlib.sha256)[:SCOPE_BYTES]


def network(client: str) -> str:
    """``203.0.113.9`` → ``203.0.113.0/24``; IPv6 by its first 48 bits. What is no address stays as it is."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    prefix = IPV4_PREFIX if address.version == 4 else IPV6_PREFIX
    return str(ipaddress.ip_network((address, prefix), strict=False))


def mailbox(address: str) -> str:
    """What is probably one mailbox, however it is written: ``V.era+news@…`` → ``vera@…``.

    Only for counting. Where dots and tags mean something, two people share an allowance, and wait at most.
    """
    local, _, domain = addresses.canonical(address).rpartition("@")
    return f"{local.partition('+')[0].replace('.', '') or local}@{domain}"


def after(allowance: Allowance, free_at: datetime | None, now: datetime) -> datetime | None:
    """When everything is paid for once one more has come; None if there is no room for it."""
    later = allowance.rate.spend(free_at or now, 1, now)
    return later if later - now <= allowance.rate.takes(allowance.burst) else None


def take(conn: Connection, wanted: Mapping[bytes, Allowance], now: datetime) -> bool:
    """Takes one from each scope, or from none if one of them has nothing left.

    Both write the same rows: else the time of an answer would tell whether somebody has asked for this address before.
    """
    rows = conn.execute(select(throttle).where(throttle.c.scope.in_(wanted)))
    known = {bytes(row.scope): row.free_at for row in rows}
    later = {key: after(allowance, known.get(key), now) for key, allowance in wanted.items()}
    taken = None not in later.values()
    left = later if taken else {key: known.get(key, now) for key in wanted}
    conn.execute(delete(throttle).where(throttle.c.scope.in_(wanted)))
    conn.execute(insert(throttle), [{"scope": key, "free_at": free_at} for key, free_at in left.items()])
    return taken


def sweep(conn: Connection, now: datetime, limit: int = 500) -> bool:
    """Takes away rows whose time has passed; False when none is left."""
    some = select(throttle.c.scope).where(throttle.c.free_at <= now).limit(limit)
    return conn.execute(delete(throttle).where(throttle.c.scope.in_(some))).rowcount > 0

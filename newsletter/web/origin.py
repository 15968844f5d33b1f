"""Where a request came from: the connection's own end, or what a proxy that we trust says of it."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request

    Address = ipaddress.IPv4Address | ipaddress.IPv6Address
    Network = ipaddress.IPv4Network | ipaddress.IPv6Network

HEADER = "x-forwarded-for"
NOWHERE = "0.0.0.0"  # noqa: S104 - not listened on: what a socket without an address counts as


def networks(texts: Sequence[str]) -> list[Network]:
    """The proxies of newsletter.toml."""
    return [ipaddress.ip_network(text) for text in texts]


def client(request: Request, proxies: Sequence[Network]) -> str:
    """The address of whoever asks.

    Each proxy adds the address it saw at the end of ``X-Forwarded-For``. So from the end on, the first that is not one
    of our proxies is the client; what stands before it anybody may have made up. What is no address ends the search.
    """
    found = _address(request.client.host if request.client else NOWHERE) or ipaddress.ip_address(NOWHERE)
    for text in reversed(",".join(request.headers.getlist(HEADER)).split(",")):
        said = _address(text)
        if said is None or not any(found in network for network in proxies):
            break
        found = said
    return str(found)


def _address(text: str) -> Address | None:
    """IPv4 also as IPv6 sockets write it (``::ffff:192.0.2.1``)."""
    try:
        found = ipaddress.ip_address(text.strip())
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found

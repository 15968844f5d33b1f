"""How long a send will take, said before it begins: by the limits, and by what this machine has reached before."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from newsletter.cli import output

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from newsletter.cli.planning import Order
    from newsletter.freezing import Plan
    from newsletter.limits import Rate
    from newsletter.model import Campaign

UNITS = {1: "a second", 60: "a minute", 3600: "an hour", 86400: "a day"}


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that makes it take so long."""

    takes: timedelta
    why: str


def of_plan(order: Order, planned: Plan, now: datetime) -> str:
    """``about 20 minutes at 50 copies a second, until about 14:35``; empty when nothing tells."""
    from newsletter import wiring
    from newsletter.store import campaigns
    from newsletter.store.engine import read

    domains = wiring.limits(order.settings).domains
    by_domain = read(
        order.engine,
        lambda conn: campaigns.audience_by_domain(conn, planned.target, planned.only, domains, planned.now),
    )
    return _words(order, planned.recipients, by_domain, now)


def of_rest(order: Order, campaign: Campaign, waiting: int, now: datetime) -> str:
    """The same for what is left of a campaign."""
    from newsletter import wiring
    from newsletter.store import speed
    from newsletter.store.engine import read

    domains = wiring.limits(order.settings).domains
    by_domain = read(order.engine, lambda conn: speed.waiting_by_domain(conn, campaign.id, domains))
    return _words(order, waiting, by_domain, now)


def _words(order: Order, people: int, by_domain: Mapping[str, int], now: datetime) -> str:
    longest = max(_reasons(order, people, by_domain), key=lambda reason: reason.takes, default=None)
    if longest is None or not people:
        return ""
    return f"{spoken(longest.takes)} {longest.why}{until(now, longest.takes)}"


def _reasons(order: Order, people: int, by_domain: Mapping[str, int]) -> Iterator[Reason]:
    from newsletter import wiring
    from newsletter.limits import ALL, domain_scope, estimate
    from newsletter.store import speed
    from newsletter.store.engine import read

    limits = wiring.limits(order.settings)
    counts = {ALL: people} | {domain_scope(domain): count for domain, count in by_domain.items()}
    for scope, limit in limits.rates().items():
        takes = estimate({scope: counts.get(scope, 0)}, limits)
        if takes is not None:
            to = "" if scope == ALL else f" to {scope.partition(':')[2]}"
            yield Reason(takes, f"at {rate(limit)}{to}")
    way, machine = order.settings.sending.transport, socket.gethostname()
    if known := read(order.engine, lambda conn: speed.reached(conn, way, machine)):
        campaign, reached = known
        why = f"at the {reached:,.0f} copies a second that {campaign.label} reached"
        yield Reason(timedelta(seconds=people / reached), why)


def rate(limit: Rate) -> str:
    """``50 copies a second``."""
    return f"{limit.count:,} {'copy' if limit.count == 1 else 'copies'} {UNITS[limit.seconds]}"


def spoken(span: timedelta) -> str:
    """``a few seconds``, ``about 40 seconds``, ``about 20 minutes``, ``about 3 hours``, ``about 4 days``."""
    seconds = span.total_seconds()
    if seconds < 10:
        return "a few seconds"
    for unit, size, most in (("second", 1, 90), ("minute", 60, 90), ("hour", 3600, 48)):
        if seconds <= size * most:
            return f"about {output.plural(round(seconds / size), unit)}"
    return f"about {output.plural(round(seconds / 86400), 'day')}"


def exact(span: timedelta) -> str:
    """``an hour``, ``30 minutes``, ``2 days``: in the largest unit that is exact, as a person wrote it."""
    units = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))
    seconds = int(span.total_seconds())
    unit, size = next((unit, size) for unit, size in units if seconds % size == 0)
    if seconds == size:
        return "an hour" if unit == "hour" else f"a {unit}"
    return output.plural(seconds // size, unit)


def until(now: datetime, span: timedelta) -> str:
    """``, until about 14:35``, by this machine's clock; nothing for what is over at once."""
    if span < timedelta(minutes=1):
        return ""
    here, end = now.astimezone(), (now + span).astimezone()
    if end.date() == here.date():
        return f", until about {end:%H:%M}"
    return f", until about {end:%A %H:%M}" if span < timedelta(days=6) else f", until about {end:%d %B %Y}"

"""Numbers for Prometheus: requests by route and status, and how long they took. No token and no address is in them.

Every process counts in its own row of one shared table, so that whichever of them is asked tells the sum of all.
"""

from __future__ import annotations

from bisect import bisect_left
from multiprocessing import RawArray
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, MutableSequence

ROUTES = ("/", "/subscribe", "/c", "/u", "/p", "/a", "/healthz", "/metrics", "other")
STATUSES = (200, 204, 303, 400, 404, 405, 408, 410, 413, 422, 500, 503)
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)  # seconds
TIMES = len(BUCKETS) + 2  # the buckets, whatever took longer, and the sum
WIDTH = len(ROUTES) * (len(STATUSES) + TIMES)
PREFIX = "newsletter"


def shared(processes: int) -> MutableSequence[float]:
    """The table, which child processes may be given."""
    table: MutableSequence[float] = RawArray("d", WIDTH * processes)
    return table


class Counts:
    """What one process has answered, and on request what all have."""

    def __init__(self, table: MutableSequence[float], process: int = 0) -> None:
        self._table = table
        self._base = process * WIDTH

    def add(self, path: str, status: int, seconds: float) -> None:
        """One answer."""
        route = ROUTES.index(route_of(path))
        known = STATUSES.index(status if status in STATUSES else 500)
        times = self._base + len(ROUTES) * len(STATUSES) + route * TIMES
        self._table[self._base + route * len(STATUSES) + known] += 1
        self._table[times + bisect_left(BUCKETS, seconds)] += 1
        self._table[times + TIMES - 1] += seconds

    def lines(self) -> Iterator[str]:
        """The text format, version 0.0.4."""
        yield f"# HELP {PREFIX}_http_requests_total Requests that were answered."
        yield f"# TYPE {PREFIX}_http_requests_total counter"
        for row, route in enumerate(ROUTES):
            for column, status in enumerate(STATUSES):
                if count := self._sum(row * len(STATUSES) + column):
                    yield f'{PREFIX}_http_requests_total{{route="{route}",status="{status}"}} {count:.0f}'
        yield f"# HELP {PREFIX}_http_request_seconds How long answers took."
        yield f"# TYPE {PREFIX}_http_request_seconds histogram"
        for row, route in enumerate(ROUTES):
            yield from self._histogram(route, len(ROUTES) * len(STATUSES) + row * TIMES)

    def _histogram(self, route: str, start: int) -> Iterator[str]:
        name, total = f"{PREFIX}_http_request_seconds", 0.0
        counts = [self._sum(start + offset) for offset in range(TIMES)]
        if not any(counts):
            return
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), counts[:-1], strict=True):
            total += count
            yield f'{name}_bucket{{route="{route}",le="{bound}"}} {total:.0f}'
        yield f'{name}_sum{{route="{route}"}} {counts[-1]:.6f}'
        yield f'{name}_count{{route="{route}"}} {total:.0f}'

    def _sum(self, cell: int) -> float:
        return sum(self._table[start + cell] for start in range(0, len(self._table), WIDTH))


def route_of(path: str) -> str:
    """The route without its token; ``other`` for what there is no route for."""
    parts = path.split("/")
    route = f"/{parts[1]}" if len(parts) > 1 else path
    return route if route in ROUTES else "other"


def gauges(name: str, meaning: str, values: Mapping[str, int]) -> Iterator[str]:
    """Numbers that rise and fall, by state."""
    yield f"# HELP {PREFIX}_{name} {meaning}"
    yield f"# TYPE {PREFIX}_{name} gauge"
    for state, count in values.items():
        yield f'{PREFIX}_{name}{{state="{state}"}} {count}'

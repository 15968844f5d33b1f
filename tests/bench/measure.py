"""Contenders in turn, A B C A B C …, so that a busy moment of the machine meets all of them."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from tests.bench import peers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.bench.sinks import Sink

WARM_UP = 100  # messages that each contender sends beforehand, uncounted
PATIENCE_SECONDS = 1800  # a million messages on a slow machine


class Cost(NamedTuple):
    """Of one run."""

    messages: int
    wall: float  # seconds of the sending: connecting, building, waiting for the last answer
    cpu: float  # user and system seconds of the sending process in that time, all its threads
    whole: float  # the same from its start to its end
    memory: int  # bytes, at most; 0: not known
    sink_cpu: float
    size: float  # bytes of a message, commands included

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.wall

    @property
    def cpu_per_1000(self) -> float:
        """Seconds."""
        return 1000 * self.cpu / self.messages


@dataclass(frozen=True)
class Contender:
    """Something that sends ``messages``.

    ``command`` makes ready, unmeasured, for a sink and a number of them. ``check`` raises unless the first message that
    the sink got is what was meant.
    """

    name: str
    messages: int
    command: Callable[[Sink, int], Sequence[str]]
    check: Callable[[str], object] = lambda _first: None
    env: Mapping[str, str] = field(default_factory=dict)


Rounds = dict[str, list[Cost]]


def in_turn(contenders: Sequence[Contender], sink: Sink, rounds: int) -> Rounds:
    """So many rounds of all of them, after a warm-up."""
    for one in contenders:
        run(one, sink, min(WARM_UP, one.messages))
    costs: Rounds = {one.name: [] for one in contenders}
    for number in range(rounds):
        for one in contenders:
            costs[one.name].append(run(one, sink, one.messages))
        rates = ", ".join(f"{name} {cost[-1].rate:,.0f}/s" for name, cost in costs.items())
        print(f"  round {number + 1}: {rates}", flush=True)
    return costs


def run(one: Contender, sink: Sink, messages: int) -> Cost:
    """Raises ``AssertionError`` unless the sink has counted exactly what was to be sent."""
    command = one.command(sink, messages)
    sink.take()
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=peers.ROOT,
        env=peers.environment() | one.env,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, f"{one.name} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    seen = sink.take()
    assert seen["messages"] == messages, f"{one.name}: {seen['messages']} of {messages} messages arrived"
    one.check(seen["first"])
    whole = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # A program that says nothing of itself (smtp-source) is up at once: all of it counts.
    told = json.loads(done.stdout) if done.stdout.startswith("{") else {}
    return Cost(
        messages,
        told.get("wall", wall),
        told.get("cpu", whole),
        whole,
        told.get("memory", 0),
        seen["cpu"],
        seen["bytes"] / messages,
    )


class Ratio(NamedTuple):
    """Of two contenders, round by round."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        digits = 2 if self.median < 1 else 1 if self.median < 20 else 0
        return f"{self.median:.{digits}f}× ({self.least:.{digits}f}–{self.most:.{digits}f})"


def ratio(costs: Rounds, ours: str, theirs: str, figure: str) -> Ratio:
    """How many times better ours is: more messages a second (``rate``), less CPU (``cpu_per_1000``)."""
    pairs = zip(costs[ours], costs[theirs], strict=True)
    found = [getattr(a, figure) / getattr(b, figure) for a, b in pairs]
    if figure != "rate":
        found = [1 / one for one in found]
    return Ratio(statistics.median(found), min(found), max(found))


def median(costs: Sequence[Cost], figure: str) -> float:
    """Over the rounds."""
    return statistics.median(getattr(cost, figure) for cost in costs)

"""What a sending process says of itself. Standard library only: every contender in Python uses it, ours too."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def measured() -> Iterator[None]:
    """Around all the sending, from the first message built to the last one answered; prints what it took."""
    began, cpu = time.perf_counter(), time.process_time()
    yield
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(json.dumps({"wall": wall, "cpu": cpu, "memory": peak_memory()}), flush=True)


def peak_memory() -> int:
    """Bytes; of this program alone, which getrusage would not say: a new program inherits what its parent had."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

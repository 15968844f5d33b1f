"""Waiting for a condition, with a deadline: never for a time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

DEADLINE_SECONDS = 60


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    """Until it holds; fails when it never does, or when the process ends before."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert process is None or process.poll() is None, f"ended by itself: {process.communicate()}"
        assert time.monotonic() < deadline, "it never came that far"
        time.sleep(0.005)

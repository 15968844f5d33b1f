"""The moments between which a process can be killed: before each commit that writes, and after it.

From outside the product: SQLAlchemy says when a transaction is about to commit, and when its connection has come back.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import Pool

from newsletter.store.database import WAIT

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection


def on_each_side(act: Callable[[], None], engine: Engine | None = None) -> None:
    """Calls ``act`` at each of these moments, of this engine or of every one there is."""
    writing = False

    def before(conn: Connection) -> None:
        nonlocal writing
        writing = WAIT in conn.get_execution_options()
        if writing:
            act()

    def after(*_: object) -> None:
        nonlocal writing
        if writing:
            writing = False
            act()

    event.listen(engine or Engine, "commit", before)
    event.listen(engine or Pool, "checkin", after)


class Deadly:
    """Kills this process when it is called for the ``number``-th time; never for 0."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.count = 0

    def __call__(self) -> None:
        self.count += 1
        if self.count == self._number:
            os.kill(os.getpid(), signal.SIGKILL)

"""One sender at a time on SQLite, kept by the operating system.

A lock file that is merely *present* outlives a crash; an ``flock`` ends with its process, even after SIGKILL. So a
free lock proves that the last owner is dead, which is all that recovery needs to know.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from newsletter.errors import DatabaseError, Occupied

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


PATIENCE_SECONDS = 0.2


@contextmanager
def hold(path: Path, whoami: str) -> Iterator[None]:
    """Holds the sending lock; ``whoami`` is what another process reads in it.

    Raises ``Occupied`` when another process has it.
    """
    descriptor = _open(path)
    try:
        try:
            _take(descriptor)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode("utf-8", "replace").strip()
            raise Occupied(
                f"another process is sending: {holder or 'unknown'}.",
                hint="`newsletter status` shows how far it is. Wait for it, or `newsletter pause` its campaign.",
            ) from None
        except OSError as error:
            raise DatabaseError(f"{path} can't be locked: {error.strerror}.") from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, whoami.encode())
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int) -> None:
    """Waits a moment: somebody who only asks ``is_held`` holds it for an instant too."""
    import fcntl  # noqa: PLC0415 - POSIX only; writing and previewing must work without it

    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
        else:
            return
        time.sleep(0.01)


def is_held(path: Path) -> bool:
    """Whether a living process has the lock."""
    import fcntl  # noqa: PLC0415 - as above

    if not path.exists():
        return False
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        hint = "Check who owns it and its folder."
        raise DatabaseError(f"the lock {path} can't be opened: {error.strerror}.", hint=hint) from error

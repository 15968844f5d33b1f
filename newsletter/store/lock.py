"""One sender at a time on SQLite, kept by the operating system.

A lock file that is merely *present* outlives a crash; an ``flock`` ends with its process, even after SIGKILL. So a
free lock proves that the last owner is dead, which is all that recovery needs to know.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from newsletter.errors import DatabaseError, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def hold(path: Path, whoami: str) -> Iterator[None]:
    """Holds the sending lock; ``whoami`` is what another process reads in it.

    Raises ``Refused`` when another process has it.
    """
    import fcntl  # noqa: PLC0415 - POSIX only; writing and previewing must work without it

    descriptor = _open(path)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode("utf-8", "replace").strip()
            raise Refused(
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


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        hint = "Check who owns it and its folder."
        raise DatabaseError(f"the lock {path} can't be opened: {error.strerror}.", hint=hint) from error

"""Reading a socket with an end in sight."""

from __future__ import annotations

import io
import ssl
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

    from _typeshed import WriteableBuffer

MOST_BYTES = 1_000_000  # of one answer; the longest real ones are a few kilobytes


class DeadlineReader(io.RawIOBase):
    """Reads until a moment, however slowly the other side drips, and not for ever, however fast it talks.

    A socket's own time-out starts anew with each byte that arrives: a server that sends one a second holds a
    connection for hours with a time-out of 30 s.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self._sock = sock
        self._until = 0.0
        self._budget = 0

    def allow(self, seconds: float) -> None:
        """Starts the time and the bytes for one answer; with 0, only what has already arrived is read."""
        self._until = time.monotonic() + seconds
        self._budget = MOST_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        if self._budget <= 0:
            raise OSError(f"the answer is longer than {MOST_BYTES:,} bytes")
        self._sock.settimeout(max(0.0, self._until - time.monotonic()))
        try:
            count = self._sock.recv_into(buffer)
        except (BlockingIOError, ssl.SSLWantReadError):
            raise TimeoutError("no complete answer in time") from None
        self._budget -= count
        return count

    def makefile(self, *_mode: object) -> io.BufferedReader:
        """What ``http.client`` and ``smtplib`` ask a socket for."""
        return io.BufferedReader(self)

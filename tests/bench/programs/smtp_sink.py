"""A mail server that takes everything, counts it and forgets it: one protocol on uvloop, in a process of its own.

It keeps the first message since it was last asked, so that what contenders send can be compared. ``python smtp_sink.py
'{"delay": 0.02, "certificate": "…", "key": "…"}'`` prints its port and the port of its book.
"""

from __future__ import annotations

import asyncio

import uvloop
from sink_book import Book, serve

END = b"\r\n.\r\n"
REPLIES = {
    b"EHLO": b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 104857600\r\n",
    b"DATA": b"354 go ahead\r\n",
    b"QUIT": b"221 bye\r\n",
}
OK = b"250 ok\r\n"


class Talk(asyncio.Protocol):
    """One connection."""

    def __init__(self, book: Book, delay: float) -> None:
        self._book = book
        self._delay = delay
        self._loop = asyncio.get_running_loop()
        self._in_message = False
        self._tail = b""  # what may be the beginning of a line or of the end of a message
        self._kept: list[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._book.connections += 1
        self._reply([b"220 sink ESMTP\r\n"])

    def data_received(self, chunk: bytes) -> None:
        self._book.bytes += len(chunk)
        replies: list[bytes] = []
        while chunk:
            chunk = self._message(chunk, replies) if self._in_message else self._command(chunk, replies)
        if replies:
            self._reply(replies)

    def _message(self, chunk: bytes, replies: list[bytes]) -> bytes:
        text = self._tail + chunk
        end = text.find(END)
        if end < 0:
            cut = max(len(text) - len(END) + 1, 0)
            self._tail = text[cut:]
            self._keep(text[:cut])
            return b""
        self._keep(text[: end + 2])
        if self._kept is not None:
            self._book.first, self._kept = b"".join(self._kept)[2:], None
        self._book.messages += 1
        self._in_message, self._tail = False, b""
        replies.append(OK)
        return text[end + len(END) :]

    def _keep(self, text: bytes) -> None:
        if self._kept is not None:
            self._kept.append(text)

    def _command(self, chunk: bytes, replies: list[bytes]) -> bytes:
        line, found, rest = (self._tail + chunk).partition(b"\n")
        if not found:
            self._tail = line
            return b""
        verb = line[:4].upper()
        self._tail = b""
        replies.append(REPLIES.get(verb, OK))
        if verb == b"DATA":
            self._in_message, self._tail = True, b"\r\n"  # a dot in the first line ends it as well
            self._kept = [] if not self._book.first else None
        return rest

    def _reply(self, replies: list[bytes]) -> None:
        """All of it as late as a round trip would be long, however many commands came together."""
        text = b"".join(replies)
        if self._delay:
            self._loop.call_later(self._delay, self._write, text)
        else:
            self._write(text)

    def _write(self, text: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(text)
            if text.endswith(REPLIES[b"QUIT"]):
                self._transport.close()


uvloop.run(serve(lambda book, told: Talk(book, told.get("delay", 0.0))))

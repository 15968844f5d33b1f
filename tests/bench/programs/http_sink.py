"""An API that takes every request: 202 after the whole body, counted by the people in it. On uvloop, as smtp_sink."""

from __future__ import annotations

import asyncio
import re

import uvloop
from sink_book import Book, serve

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
CLOSE = re.compile(rb"\r\nconnection: *close\r\n", re.IGNORECASE)
ANSWER = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nX-Message-Id: sink\r\n\r\n"
PERSON = b'"to":'  # of a personalization; inside a string its quotes would have backslashes


class Talk(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._head = b""
        self._body: list[bytes] = []
        self._left = 0
        self._last = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._book.connections += 1

    def data_received(self, chunk: bytes) -> None:
        self._book.bytes += len(chunk)
        if not self._left:
            head, found, chunk = (self._head + chunk).partition(b"\r\n\r\n")
            if not found:
                self._head = head
                return
            self._begin(head + b"\r\n")
        self._body.append(chunk)
        self._left -= len(chunk)
        if not self._left:
            self._finish()

    def _begin(self, head: bytes) -> None:
        self._head = b""
        length = LENGTH.search(head)
        assert length is not None
        self._left = int(length[1])
        self._last = CLOSE.search(head) is not None

    def _finish(self) -> None:
        body = b"".join(self._body)
        self._body = []
        self._book.first = self._book.first or body[:1_000_000]
        self._book.requests += 1
        self._book.messages += body.count(PERSON)
        self._transport.write(ANSWER)
        if self._last:
            self._transport.close()


uvloop.run(serve(lambda book, _told: Talk(book)))

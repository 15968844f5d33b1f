"""What both sinks share: a server, and a second port at which the bench takes the figures."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Book:
    """Counts since it was last asked."""

    def __init__(self) -> None:
        self._began = time.process_time()
        self.connections = self.requests = self.messages = self.bytes = 0
        self.first = b""

    def figures(self) -> dict[str, Any]:
        """For JSON."""
        known = {name: value for name, value in vars(self).items() if name not in {"_began", "first"}}
        return known | {
            "cpu": time.process_time() - self._began,
            "first": base64.b64encode(self.first).decode(),
        }


async def serve(protocol: Callable[[Book, dict[str, Any]], asyncio.Protocol]) -> None:
    """Until standard input ends: then the bench has ended, however that came."""
    told, book, loop = json.loads(sys.argv[1]), Book(), asyncio.get_running_loop()

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(json.dumps(book.figures()).encode())
        book.__init__()  # type: ignore[misc]  # connections hold it
        writer.close()

    context = None
    if told.get("certificate"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(told["certificate"], told["key"])
    server = await loop.create_server(lambda: protocol(book, told), "127.0.0.1", 0, ssl=context, backlog=1024)
    control = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(*(one.sockets[0].getsockname()[1] for one in (server, control)), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)

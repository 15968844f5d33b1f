"""One message again and again, made beforehand, pipelined over kept connections on uvloop: what the sink can take."""

from __future__ import annotations

import asyncio
from pathlib import Path

import uvloop
from measured import measured
from order import TOLD

ENVELOPE = b"MAIL FROM:<digest@example.org>\r\nRCPT TO:<reader@example.org>\r\nDATA\r\n"
MESSAGE = Path(TOLD["message"]).read_bytes()


class Sender(asyncio.Protocol):
    """One connection."""

    left = TOLD["messages"]

    def __init__(self, done: asyncio.Future[None]) -> None:
        self._done = done
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        transport.write(b"EHLO bench\r\n")

    def data_received(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\r\n")
        for line in lines:
            if line.startswith(b"354"):
                self._transport.write(MESSAGE)
                self._transport.write(b".\r\n" + self._envelope())
            elif line.startswith(b"250 SIZE"):
                self._transport.write(self._envelope())
            elif line.startswith(b"221"):
                self._done.set_result(None)

    def _envelope(self) -> bytes:
        if not Sender.left:
            return b"QUIT\r\n"
        Sender.left -= 1
        return ENVELOPE


async def main() -> None:
    """All connections at once."""
    loop = asyncio.get_running_loop()
    done = [loop.create_future() for _ in range(TOLD["connections"])]
    for one in done:
        await loop.create_connection(lambda one=one: Sender(one), "127.0.0.1", TOLD["port"])
    await asyncio.gather(*done)


with measured():
    uvloop.run(main())

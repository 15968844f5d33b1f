"""Serve the preview on this machine until Ctrl-C."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import uvicorn

from newsletter.errors import UsageError
from newsletter.web.preview import create_app

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOST = "127.0.0.1"
FIRST_PORT = 8400
TRIES = 20


def serve(project: Path, slug: str | None, port: int | None, announce: Callable[[str], None]) -> None:
    """Serve until Ctrl-C, which leaves as ``KeyboardInterrupt``. ``announce`` gets the URL once it answers.

    Raises:
        UsageError: if ``port`` is taken, or without one, if the first twenty from 8400 are.
    """
    with _listen(port) as listening:
        url = f"http://{HOST}:{listening.getsockname()[1]}/"
        app = create_app(project, slug)
        settings = uvicorn.Config(
            app, http="h11", ws="none", loop="asyncio", lifespan="on", log_config=None, access_log=False
        )
        _Server(settings, app.state.studio.close, lambda: announce(url)).run(sockets=[listening])


class _Server(uvicorn.Server):
    """Ends the pages' event streams before it stops: it would wait for them for ever."""

    def __init__(
        self, settings: uvicorn.Config, close: Callable[[], None], started: Callable[[], None]
    ) -> None:
        super().__init__(settings)
        self._close = close
        self._announce = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._close()
        await super().shutdown(sockets)


def _listen(port: int | None) -> socket.socket:
    ports = range(FIRST_PORT, FIRST_PORT + TRIES) if port is None else (port,)
    for candidate in ports:
        listening = _bind(candidate)
        if listening:
            return listening
    taken = f"Port {port} is" if port else f"The ports {ports[0]} to {ports[-1]} are"
    raise UsageError(f"{taken} taken by another program.", hint="Name a free one with --port.")


def _bind(port: int) -> socket.socket | None:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if os.name == "posix":  # on Windows this option would let us take over a port that is in use
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen()
    except OSError:
        listening.close()
        return None
    return listening

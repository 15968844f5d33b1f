"""Where everything is sent to: a process of its own that takes all and counts."""

from __future__ import annotations

import json
import socket
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.bench import peers
from tests.support.smtp_server import make_certificate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Sink:
    """One that runs."""

    port: int
    book: int  # the port where it tells its figures
    authority: str = ""  # the file of the certificate to trust; empty: no TLS

    def take(self) -> dict[str, Any]:
        """What it counted since it was last asked, and the first message of that."""
        with socket.create_connection((HOST, self.book)) as talk:
            return json.load(talk.makefile("rb"))


@contextmanager
def sink(program: str, *, delay: float = 0.0, certificate: Path | None = None) -> Iterator[Sink]:
    """``smtp_sink`` or ``http_sink``; ``delay`` is seconds before each reply, ``certificate`` a folder for one."""
    told: dict[str, Any] = {"delay": delay}
    authority = ""
    if certificate is not None:
        certificate.mkdir(exist_ok=True)
        pem, key = make_certificate(certificate)
        authority = str(pem)
        told |= {"certificate": authority, "key": str(key)}
    command = [peers.python(), str(peers.PROGRAMS / f"{program}.py"), json.dumps(told)]
    # It ends when its standard input does, so it ends with us.
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=peers.environment()) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        ports = process.stdout.readline().split()
        yield Sink(*map(int, ports), authority)
        process.stdin.close()

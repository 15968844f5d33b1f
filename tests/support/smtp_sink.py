"""Postfix's smtp-sink: a mail server that is not ours, with switches for what can go wrong, and a book in files."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.smtp_server import HOST, Arrived, closed_port

if TYPE_CHECKING:
    from collections.abc import Iterator

UNPACKED = Path(__file__).parents[2] / ".venv" / "postfix"  # where .ci/smtp-sink puts it
DEADLINE_SECONDS = 10
MISSING = "Postfix's smtp-sink is not here: run .ci/smtp-sink, which says why it can't fetch it"


def found() -> str:
    """The program's path; empty if there is none."""
    search = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", str(UNPACKED / "usr" / "sbin")])
    return shutil.which("smtp-sink", path=search) or ""


class SmtpSink:
    """One process, which can be stopped and started again on its port. ``switches`` as in smtp-sink(1)."""

    def __init__(self, folder: Path, *switches: str) -> None:
        self.port = closed_port()
        self._folder = folder
        self._switches = switches
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir()

    def start(self) -> None:
        """Returns once it listens."""
        command = [found(), *self._as_nobody(), "-d", "copy.", *self._switches, f"{HOST}:{self.port}", "100"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._folder,
                env={**os.environ, "LD_LIBRARY_PATH": _libraries()},
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not self._listens():
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline, "smtp-sink does not listen"
            time.sleep(0.01)

    def stop(self) -> None:
        """Ends this process, and no other."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(DEADLINE_SECONDS)
            self._process = None

    def read(self) -> list[Arrived]:
        """The messages whose final dot it has read, whatever it answered."""
        dumps = [_dump(path) for path in sorted(self._folder.glob("copy.*"))]
        return [_parse(dump) for dump in dumps if dump.endswith(b"\n\n")]  # else it ended while it read

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), DEADLINE_SECONDS):
            return True
        return False

    def _as_nobody(self) -> list[str]:
        """It refuses to work as root. The book is the working folder, because nobody may enter those above it."""
        if os.geteuid() != 0:
            return []
        os.chown(self._folder, pwd.getpwnam("nobody").pw_uid, -1)
        return ["-u", "nobody"]


@contextlib.contextmanager
def smtp_sink(folder: Path, *switches: str) -> Iterator[SmtpSink]:
    """Runs one; its book is in ``folder``, which is made."""
    sink = SmtpSink(folder, *switches)
    try:
        sink.start()
        yield sink
    finally:
        sink.stop()


def _libraries() -> str:
    own = [
        UNPACKED / "usr" / "lib" / "postfix",
        *UNPACKED.glob("usr/lib/*-linux-*"),
        *UNPACKED.glob("lib/*-linux-*"),
    ]
    return os.pathsep.join([*map(str, own), os.environ.get("LD_LIBRARY_PATH", "")])


def _dump(path: Path) -> bytes:
    """Nothing if it takes the file away at this moment, as it does with a message that broke off."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    return b""


def _parse(dump: bytes) -> Arrived:
    """Its own headers, the last of which is Received in three lines; the message; an empty line."""
    head, _, rest = dump.partition(b"\nReceived: ")
    content = rest.split(b"\n", 3)[3].removesuffix(b"\n")
    args = dict(line.split(b": ", 1) for line in head.split(b"\n"))
    sender, *options = args[b"X-Mail-Args"].decode().split(" ")
    recipient = args[b"X-Rcpt-Args"].decode()
    return Arrived(
        sender.strip("<>"), recipient.strip("<>"), content.replace(b"\n", b"\r\n"), options=tuple(options)
    )

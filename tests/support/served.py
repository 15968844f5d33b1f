"""`newsletter serve` as a process of its own, asked over real sockets."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from newsletter.tokens import Keyring, Purpose, maker
from tests.support.publisher import A_KEY

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.support.publisher import Publisher

DEADLINE = 30.0
HOST = {"Host": "news.example.org"}
ONE_CLICK = "List-Unsubscribe=One-Click"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass
class Served:
    """A running server."""

    folder: Publisher
    process: subprocess.Popen[str]
    port: int
    said: str
    told: bool = False

    def stop(self) -> None:
        """Tells it to stop, once: a second signal would end it at once."""
        if not self.told:
            self.process.send_signal(signal.SIGTERM)
        self.told = True

    def ask(self, method: str, path: str, body: str = "", **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            named = {name.replace("_", "-"): text for name, text in headers.items()}
            connection.request(method, path, body or None, HOST | (FORM if body else {}) | named)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def unsubscribe(self, number: int) -> int:
        token = maker(Purpose.UNSUBSCRIBE, Keyring.parse(f"1:{A_KEY}"))(number)
        return self.ask("POST", f"/u/{token}", ONE_CLICK)[0]

    def raw(self, data: bytes) -> bytes:
        """What comes back until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE) as plug:
            plug.sendall(data)
            return b"".join(iter(lambda: plug.recv(65536), b""))

    def database(self) -> sqlite3.Connection:
        return sqlite3.connect(self.folder.root / ".newsletter" / "newsletter.db")

    def numbers(self, where: str = "1") -> list[int]:
        with self.database() as conn:
            found = [row[0] for row in conn.execute(f"SELECT id FROM subscription WHERE {where}")]
        conn.close()
        return found

    def letters(self, state: str) -> int:
        with self.database() as conn:
            [row] = conn.execute("SELECT count(*) FROM letter WHERE state = ?", (state,))
        conn.close()
        return int(row[0])


@contextmanager
def serving(folder: Publisher, *args: str, lines: int = 2, within: str = "") -> Iterator[Served]:
    """Until it has stopped in peace. It must not have logged anything but that letters and notices were sent."""
    process = folder.start("serve", "--port", "0", *args, within=within)
    assert process.stdout is not None
    try:
        said = "".join(process.stdout.readline() for _ in range(lines))
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", said)
        assert found, said + process.communicate(timeout=DEADLINE)[1]
        running = Served(folder, process, int(found[1]), said)
        yield running
        running.stop()
        out, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, errors
    assert [
        line for line in errors.splitlines() if not re.search(r" info (letter|notices) sent( |$)", line)
    ] == []
    assert out.startswith("Stopped.")
    assert "@" not in said + out

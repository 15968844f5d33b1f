"""The readers' pages without a socket: the whole application on a real database, asked as a server would ask it."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlencode

from sqlalchemy import select

from newsletter import config, tokens, wiring
from newsletter.store.engine import read
from newsletter.store.schema import subscription
from newsletter.tokens import Purpose
from newsletter.web import counting
from newsletter.web.deeds import Deeds
from newsletter.web.readers import create_app
from tests.support.publisher import crowd, environment, publisher

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from sqlalchemy import Engine
    from starlette.types import ASGIApp, Message

    from newsletter.config import Settings

HOST = "news.example.org"
FORM = "application/x-www-form-urlencoded"


class Answer(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def header(self, name: str) -> str:
        return next((value for known, value in self.headers if known == name), "")


@dataclass
class Site:
    """A publisher's pages, with a clock that a test sets."""

    settings: Settings
    engine: Engine
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    peer: str = "127.0.0.1"

    def __post_init__(self) -> None:
        self.group = wiring.group(self.engine)
        clear_up = wiring.clear_up(self.settings, self.engine)
        self.deeds = Deeds(self.group, self.settings, clear_up=clear_up, clock=lambda: self.now)
        self.counts = counting.Counts(counting.shared(1))
        self.app: ASGIApp = create_app(self.settings, self.deeds, self.counts)
        self.ring = wiring.keyring(self.settings)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        *,
        query: bytes = b"",
    ) -> Answer:
        """One request."""
        given = list(headers.items() if hasattr(headers, "items") else headers)
        given = given if any(name == "host" for name, _ in given) else [("host", HOST), *given]
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in given]
        return asyncio.run(_asked(self.app, method, path, query, raw, body, self.peer))

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, headers={name.replace("_", "-"): text for name, text in headers.items()})

    def post(self, path: str, sent: Mapping[str, str] | None = None, **headers: str) -> Answer:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return self.ask("POST", path, urlencode(sent or {}).encode(), {"content-type": FORM} | named)

    def token(self, purpose: Purpose, number: int = 0, *, lasts: timedelta = timedelta(hours=1)) -> str:
        expires = self.now + lasts if purpose.expires else None
        return tokens.make(purpose, self.subscriptions()[number], self.ring, expires=expires)

    def link(self, purpose: Purpose, number: int = 0) -> str:
        paths = {Purpose.UNSUBSCRIBE: "u", Purpose.PREFERENCES: "p", Purpose.ACCESS: "a"}
        return f"/{paths.get(purpose, 'c')}/{self.token(purpose, number)}"

    def subscriptions(self) -> list[int]:
        return read(self.engine, lambda conn: list(conn.scalars(select(subscription.c.id).order_by("id"))))

    def rows(self) -> dict[str, list[tuple[object, ...]]]:
        """Everything in the database, without the application."""
        file = self.engine.url.database
        with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as conn:
            names = [row[0] for row in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            found = {name: list(conn.execute(f'SELECT * FROM "{name}"')) for name in sorted(names)}
        conn.close()
        return found

    def one(self, sql: str) -> object:
        with sqlite3.connect(f"file:{self.engine.url.database}?mode=ro", uri=True) as conn:
            row = conn.execute(sql).fetchone()
        conn.close()
        return row[0] if row and len(row) == 1 else row


async def _asked(
    app: ASGIApp,
    method: str,
    path: str,
    query: bytes,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
    peer: str,
) -> Answer:
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode("utf-8", "replace"),
        "root_path": "",
        "scheme": "http",
        "query_string": query,
        "headers": headers,
        "client": (peer, 4711),
        "server": ("127.0.0.1", 8080),
        "state": {},
    }
    said: list[Message] = []
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return waiting.pop() if waiting else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        said.append(message)

    await app(scope, receive, send)
    start = said[0]
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]]
    return Answer(start["status"], pairs, b"".join(message.get("body", b"") for message in said[1:]))


WEB = """
[web]
privacy_url = "https://example.org/privacy"
[web.lists]
readers = "Research Digest"
events = "Events near you"
"""


@contextmanager
def site(folder: Path, extra: str = WEB, people: int = 3, *, newsletter: str = "") -> Iterator[Site]:
    """The pages of a new publisher with this many people on the list; ``newsletter`` replaces lines of that section."""
    made = publisher(folder, extra)
    made.import_people(crowd(people))
    key = newsletter.partition(" =")[0]
    file = folder / "newsletter.toml"
    lines = [line for line in file.read_text().split("\n") if not newsletter or not line.startswith(key)]
    file.write_text("\n".join(lines).replace("[newsletter]", f"[newsletter]\n{newsletter}", 1))
    with environment({}):
        settings = config.load(folder, {})
    engine = wiring.open_store(settings)
    found = Site(settings, engine)
    try:
        yield found
    finally:
        found.group.close()
        engine.dispose()

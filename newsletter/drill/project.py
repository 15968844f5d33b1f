"""A throw-away publisher: a folder with its own settings, keys, issue, people and database."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from newsletter import config, intake, scaffold, subscriptions, wiring
from newsletter.errors import DatabaseError, Refused
from newsletter.model import OPEN_STATES, Kind
from newsletter.store import campaigns, listing
from newsletter.store.engine import open_engine, read, write
from newsletter.store.schema import metadata

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from newsletter.config import Settings
    from newsletter.model import Campaign, Delivery

SLUG = "2026-12"
KEPT = (
    "PATH",
    "HOME",
    "LANG",
    "PYTHONPATH",
)  # of the environment; no secret of the person who runs the drill
API_KEY = "SG.drill"

# Twelve tries a second apart: a person is given up only if the provider says no a dozen times in a row.
TOML = """
[newsletter]
name = "Crash Drill"
from = "drill@example.org"
reply_to = "drill@example.org"
editors = []
base_url = "https://drill.example.org"
postal_address = "1 Example Street, Example Town"
list = "{list}"
list_id = "drill.example.org"

[sending]
mode = "live"
transport = "{transport}"
connections = {connections}
retry = [{retry}]
stop_refused = "off"

[smtp]
host = "127.0.0.1"
port = {port}
security = "none"
timeout = "10s"

[sendgrid]
url = "http://127.0.0.1:{port}"
batch = {window}
"""
RETRY = ", ".join(['"1s"'] * 12)


@dataclass(frozen=True, slots=True)
class Way:
    """One transport's part of a drill: its provider, its own list and people."""

    transport: str
    port: int
    connections: int
    window: int  # copies in one doubt

    @property
    def readers(self) -> str:
        """Whom it goes to. Each transport has its own people, so that both find an untouched database."""
        return f"{self.transport}-readers"

    def people(self, count: int) -> list[str]:
        """Their addresses, at a domain that can't exist (RFC 2606)."""
        return [f"{self.transport}-{number:06}@example.org" for number in range(1, count + 1)]


class Project:
    """The folder and its database. ``close`` it."""

    def __init__(self, root: Path, database: str) -> None:
        self.root = root
        self.environ = {"SENDGRID_API_KEY": API_KEY} | ({"DATABASE_URL": database} if database else {})
        if database:
            refuse_used(database)
        scaffold.init_project(root, today=date(int(SLUG[:4]), int(SLUG[5:]), 1))
        config.add_keys(root, {})
        self.settings = self.configure(Way("smtp", 25, 1, 1))
        self.engine: Engine = wiring.open_store(self.settings)

    def configure(self, way: Way) -> Settings:
        """newsletter.toml for this transport."""
        text = TOML.format(
            list=way.readers,
            transport=way.transport,
            connections=way.connections,
            retry=RETRY,
            port=way.port,
            window=way.window,
        )
        (self.root / "newsletter.toml").write_text(text, encoding="utf-8")
        self.settings = config.load(self.root, self.environ)
        return self.settings

    def child_environ(self) -> Mapping[str, str]:
        """What a sender may know: nothing of the drill's surroundings but where programs are."""
        return {name: os.environ[name] for name in KEPT if name in os.environ} | self.environ

    def bring(self, way: Way, people: list[str]) -> None:
        """Puts them on the list."""
        file = self.root / f"{way.readers}.csv"
        file.write_text("email\n" + "".join(f"{address}\n" for address in people), encoding="utf-8")
        order = intake.Import(file, way.readers, "drill")
        now = datetime.now(UTC)
        intake.import_people(self.engine, order, self.settings.address_key, now=now, apply=True)

    def take_away(self, address: str, *, suppressed: bool) -> datetime:
        """Unsubscribes or suppresses somebody, as another process would; returns a moment after the commit."""
        secret, now = self.settings.address_key, datetime.now(UTC)
        if suppressed:
            subscriptions.suppress(self.engine, address, secret, reason="complained", source="drill", now=now)
        else:
            subscriptions.unsubscribe(self.engine, address, None, secret, source="drill", now=now)
        return datetime.now(UTC)

    def campaign(self, way: Way) -> Campaign | None:
        """As it is now."""
        return read(self.engine, lambda conn: campaigns.find(conn, SLUG, way.readers, Kind.LIVE))

    def open_rows(self, way: Way) -> int:
        """How many copies have not come to an end; 0 before the campaign is frozen."""
        campaign = self.campaign(way)
        counts = read(self.engine, lambda conn: campaigns.counts(conn, campaign.id)) if campaign else {}
        return sum(number for state, number in counts.items() if state in OPEN_STATES)

    def resume(self, campaign: Campaign) -> None:
        """What an operator would do."""
        write(self.engine, lambda conn: campaigns.resume(conn, campaign.id))

    def rows(self, campaign: Campaign) -> list[Delivery]:
        """The whole ledger of it."""
        return read(self.engine, lambda conn: list(listing.every(conn, campaign.id)))

    def empty(self) -> None:
        """Leaves the database as it was found: without tables."""
        write(self.engine, _drop)

    def close(self) -> None:
        """Lets go of the database."""
        self.engine.dispose()


def refuse_used(database: str) -> None:
    """Raises ``Refused`` for a database that has our tables; opening it will refuse those of others."""
    try:
        open_engine(database).dispose()
    except DatabaseError:
        return
    raise Refused(
        "that database has tables, and a drill only uses an empty one.",
        hint="Make a new one for it: whatever is in there is left alone.",
    )


def _drop(conn: Connection) -> None:
    metadata.drop_all(conn)
    conn.exec_driver_sql("DROP TABLE IF EXISTS alembic_version")

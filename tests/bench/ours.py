"""Our side of the bench: all that must change when the product's seams do.

``frozen`` makes a publisher's folder with a frozen campaign, once for each size. Each run takes a copy of it and sends
in a process of its own, ``python -m tests.bench.ours '{…}'``, by the functions that `newsletter send` calls.
"""

from __future__ import annotations

import gc
import json
import shutil
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newsletter import addresses, config, freezing, intake, recovery, sending, wiring
from newsletter.desk import one_processor
from newsletter.message import MessageSettings, Wire
from newsletter.model import CampaignState, DeliveryState, Kind, Recipient
from newsletter.store import campaigns, owners
from newsletter.store.campaigns import Target
from newsletter.store.engine import read, write
from newsletter.transports.smtp import SmtpTransport
from newsletter.transports.smtp_session import SmtpSettings
from tests.bench import sample
from tests.bench.programs.measured import measured

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Connection, Engine

    from newsletter.config import Settings
    from newsletter.model import Campaign, Email, Outcome
    from newsletter.transports.base import Transport

SLUG = "2026-12"
TARGET = Target(issue=SLUG, period=SLUG, list="readers", kind=Kind.LIVE)
MOST_IMPORTED = 20_000
"""Larger lists are written by SQL: an import of a million takes ten minutes, their freeze two."""

# The limiter works, and holds nothing back. Readers of one of the six domains are limited twice.
TOML = """
[newsletter]
name = "Research Digest"
full_name = "Multiple Sclerosis Research Digest"
from = "digest@example.org"
reply_to = "editor@example.org"
base_url = "https://news.example.org"
postal_address = "1 Example Street, Example Town"
list_id = "digest.example.org"

[sending]
mode = "live"
transport = "{transport}"
connections = {connections}
rate = "{rate}"
domains = {{ "1.example.org" = "{rate}" }}

[smtp]
host = "127.0.0.1"
port = {port}
security = "{security}"
ca_file = "{ca}"

[sendgrid]
url = "https://127.0.0.1:{port}"
batch = {batch}
"""
LIMIT = "100000/s"
DEFAULTS: dict[str, Any] = {
    "transport": "smtp",
    "connections": 10,
    "rate": LIMIT,
    "port": 25,
    "security": "none",
    "ca": "",
    "batch": 50,
}
API_KEY = "SG.bench"


# --- beforehand ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Frozen:
    """A publisher's folder with a campaign that is ready to be sent."""

    root: Path
    people: int
    seconds: float  # that the freeze took


def frozen(root: Path, email: Email, people: int) -> Frozen:
    """Makes it through the functions of the command line: keys, import, plan, freeze."""
    root.mkdir(parents=True)
    settings = configure(root)
    config.add_keys(root, {})
    settings = config.load(root, {})
    engine = wiring.open_store(settings)
    _import(engine, settings, root, min(people, MOST_IMPORTED))
    began = time.perf_counter()
    _freeze(engine, settings, email)
    seconds = time.perf_counter() - began
    if people > MOST_IMPORTED:
        write(engine, lambda conn: _add_by_sql(conn, settings.address_key, MOST_IMPORTED + 1, people))
    engine.dispose()  # and the write-ahead log with it: the folder can be copied
    return Frozen(root, people, seconds)


def configure(root: Path, extra: str = "", **changes: object) -> Settings:
    """newsletter.toml, with these sections behind the others."""
    text = TOML.format(**DEFAULTS | changes) + extra
    (root / "newsletter.toml").write_text(text, encoding="utf-8")
    return config.load(root, {"SENDGRID_API_KEY": API_KEY})


def _import(engine: Engine, settings: Settings, root: Path, people: int) -> None:
    file = root / "people.csv"
    rows = "".join(f"{one.address},{one.name}\n" for one in sample.people(people))
    file.write_text("email,name\n" + rows, encoding="utf-8")
    order = intake.Import(file, TARGET.list, "bench")
    now = datetime.now(UTC)
    intake.import_people(engine, order, settings.address_key, now=now, apply=True)


def _freeze(engine: Engine, settings: Settings, email: Email) -> None:
    now = datetime.now(UTC)
    with _owned(engine, settings) as mine:
        planned = freezing.plan(engine, TARGET)
        message = wiring.message_settings(settings, now)
        freezing.freeze(engine, planned, [email], message, transport="smtp", now=now, owner=mine)


def _add_by_sql(conn: Connection, secret: bytes, first: int, last: int) -> None:
    raw = conn.connection.driver_connection
    assert raw is not None
    raw.execute("PRAGMA cache_size = -500000")
    raw.executemany(
        "INSERT INTO subscriber (id, address, address_key, name, fields, edition, created_at)"
        " VALUES (?, ?, ?, ?, '{}', 'standard', 0)",
        ((number, *_person(number, secret)) for number in range(first, last + 1)),
    )
    raw.execute(
        "INSERT INTO subscription (subscriber_id, list_id, state, since, source)"
        " SELECT id, 1, 'active', 0, 'bench' FROM subscriber WHERE id >= ? ORDER BY id",
        (first,),
    )
    raw.execute(
        "INSERT INTO delivery (id, campaign_id, issue, kind, attempt, subscriber_id, subscription_id, address_key,"
        " state, edition, tries, reason, provider_id)"
        " SELECT randomblob(16), campaign.id, issue, kind, attempt, subscriber.id, subscription.id, address_key,"
        " 'pending', 'standard', 0, '', ''"
        " FROM subscription JOIN subscriber ON subscriber.id = subscriber_id, campaign"
        " WHERE subscriber.id >= ? ORDER BY subscription.id",
        (first,),
    )


def _person(number: int, secret: bytes) -> tuple[str, bytes, str]:
    address = sample.address(number)
    return address, addresses.key(address, secret), sample.name(number)


def copied(made: Frozen, root: Path, extra: str = "", **changes: object) -> None:
    """A folder to send from, once."""
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(made.root, root)
    configure(root, extra, **changes)
    from tests.support.publisher import Publisher  # not in the process that is measured

    Publisher(root).move_in()


# --- the process that is measured ------------------------------------------------------------------------------------


def main() -> None:
    """Told ``root``, ``how`` and ``window``; says what it took, as the peers do."""
    told = json.loads(sys.argv[1])
    settings = config.load(Path(told["root"]), {"SENDGRID_API_KEY": API_KEY})
    engine = wiring.open_store(settings)
    campaign = read(engine, lambda conn: campaigns.find(conn, SLUG, TARGET.list, Kind.LIVE))
    assert campaign is not None
    way = _transport(settings, told["window"])
    HOW[told["how"]](engine, settings, campaign, way)


def _transport(settings: Settings, window: int) -> Transport:
    made = wiring.transport(settings, SLUG)
    if window == 1 or not isinstance(made, SmtpTransport):
        return made
    # No setting for it: a window of one is the smallest doubt, and what we ship.
    known, lanes = settings.smtp, settings.sending.connections
    way = SmtpSettings(known.host, known.port, security=known.security, ca_file=known.ca_file, lanes=lanes)
    return SmtpTransport(replace(way, window=window))


def _send(engine: Engine, settings: Settings, campaign: Campaign, way: Transport) -> None:
    with _owned(engine, settings) as mine:
        recovery.recover(engine, mine, datetime.now(UTC))
        write(engine, lambda conn: owners.takes(conn, mine, campaign.id))
        with measured():
            wire = _wire(engine, campaign)
            ended = sending.run(engine, campaign, way, wire, _conduct(settings, mine))
        assert ended.state is CampaignState.FINISHED, ended
        counts = read(engine, lambda conn: campaigns.counts(conn, campaign.id))
        assert {state for state, count in counts.items() if count} == {DeliveryState.ACCEPTED}, counts


def _conduct(settings: Settings, mine: str) -> sending.Conduct:
    """As `newsletter send` does."""
    return sending.Conduct(
        sign=wiring.signer(settings),
        retry=settings.sending.retry,
        owner=mine,
        only=wiring.only(settings),
        limits=settings.sending.limits,
        stop_refused=settings.sending.stop_refused,
        notice=lambda sentence: print(sentence, file=sys.stderr),
    )


def _wire(engine: Engine, campaign: Campaign) -> Wire:
    [email], message = read(engine, lambda conn: campaigns.load_editions(conn, campaign.id))
    return Wire(email, MessageSettings.from_dict(message))


@contextmanager
def _owned(engine: Engine, settings: Settings) -> Iterator[str]:
    def clock() -> datetime:
        return datetime.now(UTC)

    place = wiring.lock_path(settings)
    with owners.own(engine, place, name=wiring.whoami(), way="bench", clock=clock) as mine:
        yield mine


# --- without a ledger: what is left is the transport -----------------------------------------------------------------


def _send_without_ledger(engine: Engine, settings: Settings, campaign: Campaign, way: Transport) -> None:
    """The same transport, threads and readers, links signed as they leave; nothing is claimed, marked or settled."""
    sign = wiring.signer(settings)
    rows = read(engine, _readers)
    _hand_over(engine, campaign, way, (_signed(recipient, sign(number)) for number, recipient in rows))


def _send_ready(engine: Engine, settings: Settings, campaign: Campaign, way: Transport) -> None:
    """As peers do: every reader's links are made beforehand."""
    sign = wiring.signer(settings)
    ready = [_signed(recipient, sign(number)) for number, recipient in read(engine, _readers)]
    _hand_over(engine, campaign, way, ready)


def _signed(recipient: Recipient, links: Mapping[str, str]) -> Recipient:
    return replace(recipient, values={**recipient.values, **links})


def _hand_over(engine: Engine, campaign: Campaign, way: Transport, readers: Iterable[Recipient]) -> None:
    left, one_at_a_time = iter(readers), threading.Lock()

    def copies() -> Iterator[Sequence[Recipient]]:
        while True:
            with one_at_a_time:
                window = list(islice(left, way.window))
            if not window:
                return
            yield window

    def lane(wire: Wire) -> None:
        way.run(wire, copies(), _forget)

    gc.freeze()  # a sender never holds its readers in a list: looking through it again and again is not its work
    with measured(), one_processor():
        wire = _wire(engine, campaign)
        threads = [threading.Thread(target=lane, args=[wire]) for _ in range(way.lanes)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _readers(conn: Connection) -> list[tuple[int, Recipient]]:
    rows = conn.exec_driver_sql(
        "SELECT delivery.subscription_id, delivery.id, address, name FROM delivery"
        " JOIN subscriber ON subscriber.id = delivery.subscriber_id ORDER BY delivery.seq"
    )
    return [(number, Recipient(bytes(id_), address, {"name": name})) for number, id_, address, name in rows]


def _forget(_outcomes: Sequence[Outcome]) -> None:
    pass


HOW = {"whole": _send, "bare": _send_without_ledger, "ready": _send_ready}

if __name__ == "__main__":
    main()

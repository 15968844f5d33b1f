"""What the ledger's state machine plays with: a database that keeps a journal, sending processes, a provider's book.

The journal is written by triggers, in the transaction that makes the change: no state can be passed through unseen,
and what was rolled back never happened. The product knows nothing of it.
"""

from __future__ import annotations

import email
import email.policy
import re
import shutil
import sqlite3
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import delete, event, insert, inspect, text

from newsletter.message import MessageSettings, Wire
from newsletter.model import Recipient, SubscriptionState
from newsletter.store import campaigns, owners
from newsletter.store.engine import open_engine, read, write
from newsletter.store.ledger import Ledger
from newsletter.store.schema import list_, metadata, owner, subscriber, subscription
from tests.support.ledgers import NOW, key, links

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from newsletter.model import Outcome
    from newsletter.store.ahead import Claimed

LISTS = {"readers": 1, "staff": 2}
MEMBERS = {"readers": range(1, 11), "staff": (1, 2, 11, 12)}  # two people are on both lists
PEOPLE = range(1, 13)
RETRY = (timedelta(seconds=15),)  # short, so that copies do run out of tries
FORGOTTEN = "forgotten"  # the journal's word for a row that was deleted


def subscription_id(list_name: str, person: int) -> int:
    """Different on each list, so that another reader's link can't pass for one's own."""
    return LISTS[list_name] * 100 + person


SUBSCRIPTIONS = [subscription_id(name, person) for name, people in MEMBERS.items() for person in people]


def person_of(number: int) -> int:
    """Whose subscription it is."""
    return number % 100


def address_of(person: int) -> str:
    """No address is the beginning or the end of another one."""
    return f"p{person}@example.org"


class Row(NamedTuple):
    """A delivery as it stands, with its campaign's key."""

    seq: int
    id: bytes
    campaign: int
    issue: str
    kind: str
    attempt: int
    subscription: int
    state: str
    receipt: str | None
    tries: int
    not_before: int | None
    owner: str | None
    handed_at: int | None
    settled_at: int | None
    reason: str
    provider_id: str

    @property
    def person(self) -> int:
        """Whose copy it is."""
        return person_of(self.subscription)

    @property
    def reader(self) -> tuple[str, str, int, int]:
        """What a person may get once: an issue, in one kind and attempt."""
        return self.issue, self.kind, self.attempt, self.person


class Change(NamedTuple):
    """One line of the journal: what changed, and how everything stood at that moment."""

    what: str  # delivery or campaign
    number: int
    before: str | None
    after: str
    campaign: str
    subscription: str | None
    suppressed: int


_ROWS = text(
    "SELECT seq, id, campaign_id, issue, kind, attempt, subscription_id, state, receipt, tries, not_before, owner,"
    " handed_at, settled_at, reason, provider_id FROM delivery ORDER BY seq"
)
_CAMPAIGNS = text("SELECT id, state, period, audience, kind, attempt FROM campaign ORDER BY id")
_JOURNAL = text(
    "SELECT n, what, number, before, after, campaign, subscription, suppressed FROM journal WHERE n > :n ORDER BY n"
)
JOURNAL_COLUMNS = (
    "what TEXT, number INTEGER, before TEXT, after TEXT, campaign TEXT, subscription TEXT, suppressed INTEGER"
)
_NOTE = "INSERT INTO journal (what, number, before, after, campaign, subscription, suppressed) VALUES"
_STANDING = (
    "(SELECT state FROM campaign WHERE id = {0}.campaign_id),"
    " (SELECT state FROM subscription WHERE id = {0}.subscription_id),"
    " (SELECT count(*) FROM suppression WHERE address_key = {0}.address_key)"
)
NOTES = {  # (event, table) → what the journal notes
    ("INSERT", "delivery"): f"{_NOTE} ('delivery', NEW.seq, NULL, NEW.state, {_STANDING.format('NEW')})",
    ("UPDATE", "delivery"): f"{_NOTE} ('delivery', NEW.seq, OLD.state, NEW.state, {_STANDING.format('NEW')})",
    (
        "DELETE",
        "delivery",
    ): f"{_NOTE} ('delivery', OLD.seq, OLD.state, '{FORGOTTEN}', {_STANDING.format('OLD')})",
    ("INSERT", "campaign"): f"{_NOTE} ('campaign', NEW.id, NULL, NEW.state, NEW.state, NULL, 0)",
    ("UPDATE", "campaign"): f"{_NOTE} ('campaign', NEW.id, OLD.state, NEW.state, NEW.state, NULL, 0)",
    ("DELETE", "campaign"): f"{_NOTE} ('campaign', OLD.id, OLD.state, '{FORGOTTEN}', OLD.state, NULL, 0)",
}


class Database:
    """A real database with twelve people, two lists and a journal."""

    engine: Engine
    one_sender = True  # whoever recovers holds the lock, so that all others must be dead

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.faults = Faults(engine, self._break)
        self._rows: list[Row] = []
        self._campaigns: list[Any] = []
        self._news: list[Change] = []
        self._seen = 0
        self._look()

    def _look(self) -> None:
        if self.faults.changed:
            read(self.engine, self._look_at_all)
            self.faults.changed = False

    def _look_at_all(self, conn: Connection) -> None:
        self._rows = self.rows_seen_by(conn)
        self._campaigns = list(conn.execute(_CAMPAIGNS))
        for number, *change in conn.execute(_JOURNAL, {"n": self._seen}):
            self._seen = number
            self._news.append(Change(*change))

    def rows(self) -> list[Row]:
        """Every delivery; read again only when something may have changed."""
        self._look()
        return self._rows

    @staticmethod
    def rows_seen_by(conn: Connection) -> list[Row]:
        """As one transaction sees them."""
        return [
            Row(*(bytes(value) if isinstance(value, memoryview) else value for value in row))
            for row in conn.execute(_ROWS)
        ]

    def campaigns(self) -> list[Any]:
        """Every campaign."""
        self._look()
        return self._campaigns

    def journal(self) -> list[Change]:
        """What was noted since the last call."""
        self._look()
        news, self._news = self._news, []
        return news

    def enrol(self, sender: str, now: datetime) -> None:
        """A sending process begins."""
        row = {"id": sender, "name": f"process {sender}", "way": "memory", "started_at": now, "seen_at": now}
        write(self.engine, lambda conn: conn.execute(insert(owner).values(row)))

    def end(self, sender: str) -> None:
        """The process is gone, or cut off: whatever proved that it lives is gone with it."""

    def bytes_on_disk(self) -> bytes:
        """All that a thief of the disk would get, where that is one file."""
        return b""

    def close(self) -> None:
        """Nothing is kept."""

    def _break(self, raw: Any) -> None:
        raise NotImplementedError


class Faults:
    """Sees every statement, and breaks the connection at a chosen one, as a full disk or a cut network would."""

    def __init__(self, engine: Engine, act: Any) -> None:
        self.changed = True  # something was written since it was last set to False
        self._act = act
        self._left = 0
        event.listen(engine, "before_cursor_execute", self._count)

    def at(self, statement: int) -> None:
        """The next ``statement``-th statement fails; 0: none."""
        self._left = statement

    def _count(self, conn: Connection, _cursor: object, statement: str, *_rest: object) -> None:
        self.changed |= not statement.startswith(("SELECT", "BEGIN"))
        self._left -= 1
        if self._left == 0:
            self._act(conn.connection.driver_connection)


class SqliteDatabase(Database):
    """A file of its own, copied from one that was made once."""

    _made: Path | None = None

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="machine-"))
        self.file = self.folder / "newsletter.db"
        shutil.copyfile(self._pattern(), self.file)
        self._broken: sqlite3.Connection | None = None
        super().__init__(open_engine(f"sqlite:///{self.file}"))
        event.listen(self.engine, "rollback", lambda _conn: self._mend())
        event.listen(self.engine, "commit", lambda _conn: self._mend())

    @classmethod
    def _pattern(cls) -> Path:
        if cls._made is None:
            folder = tempfile.TemporaryDirectory(prefix="machine-pattern-")
            cls._kept = folder  # removed with the process
            cls._made = Path(folder.name) / "newsletter.db"
            engine = open_engine(f"sqlite:///{cls._made}", create=True)
            write(engine, _keep_journal)
            write(engine, fill)
            engine.dispose()
        return cls._made

    def _break(self, raw: sqlite3.Connection) -> None:
        """Nothing can be written any more, as on a disk that went read-only, until the transaction has ended."""
        raw.execute("PRAGMA query_only=ON")
        self._broken = raw

    def _mend(self) -> None:
        if self._broken is not None:
            self._broken.execute("PRAGMA query_only=OFF")
            self._broken = None

    def bytes_on_disk(self) -> bytes:
        """The file and its journal, after a checkpoint."""
        with sqlite3.connect(self.file, timeout=10) as raw:
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        raw.close()
        return b"".join(path.read_bytes() for path in sorted(self.folder.iterdir()))

    def close(self) -> None:
        self.engine.dispose()
        shutil.rmtree(self.folder)


class PostgresqlDatabase(Database):
    """A database that is emptied before each example: that takes 5 ms, and a new one 100."""

    one_sender = False

    def __init__(self, engine: Engine) -> None:
        write(engine, _start_anew)
        self._pooled = engine.raw_connection()
        self._locks: Any = self._pooled.driver_connection
        super().__init__(engine)

    def enrol(self, sender: str, now: datetime) -> None:
        """As ``owners.own`` does: a lease by the server's clock, and a lock, all of them on one connection here."""
        self._locks.execute("SELECT pg_advisory_lock(%s)", (owners.lock_key(sender),))
        super().enrol(sender, datetime.now(UTC))

    def end(self, sender: str) -> None:
        self._locks.execute("SELECT pg_advisory_unlock(%s)", (owners.lock_key(sender),))

    def _break(self, raw: Any) -> None:
        """The network is cut: the server takes back what the transaction had done."""
        raw.close()

    def close(self) -> None:
        self._locks.execute("SELECT pg_advisory_unlock_all()")
        self._pooled.close()


def _start_anew(conn: Connection) -> None:
    if not inspect(conn).has_table("journal"):
        _keep_postgresql_journal(conn)
    for table in reversed(metadata.sorted_tables):
        conn.execute(delete(table))
    conn.execute(text("DELETE FROM journal"))
    fill(conn)


def _keep_postgresql_journal(conn: Connection) -> None:
    conn.exec_driver_sql(
        f"CREATE TABLE journal (n BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, {JOURNAL_COLUMNS})"
    )
    for (what, table), note in NOTES.items():
        name = f"note_{what}_{table}"
        body = f"BEGIN {note}; RETURN NULL; END"
        conn.exec_driver_sql(
            f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $note${body}$note$"
        )
        conn.exec_driver_sql(f"CREATE TRIGGER {name} AFTER {_when(what, table)} EXECUTE FUNCTION {name}()")


def _keep_journal(conn: Connection) -> None:
    conn.execute(text(f"CREATE TABLE journal (n INTEGER PRIMARY KEY, {JOURNAL_COLUMNS})"))
    for (what, table), note in NOTES.items():
        trigger = f"CREATE TRIGGER note_{what}_{table} AFTER {_when(what, table)} BEGIN {note}; END"
        conn.exec_driver_sql(trigger)


def _when(what: str, table: str) -> str:
    if what == "UPDATE":
        return f"UPDATE OF state ON {table} FOR EACH ROW WHEN (OLD.state <> NEW.state)"
    return f"{what} ON {table} FOR EACH ROW"


def fill(conn: Connection) -> None:
    """The lists and the people, all of them active."""
    lists = [{"id": number, "name": name, "created_at": NOW} for name, number in LISTS.items()]
    conn.execute(insert(list_), lists)
    conn.execute(insert(subscriber), [_subscriber(person) for person in PEOPLE])
    conn.execute(insert(subscription), [_subscription(number) for number in SUBSCRIPTIONS])


def _subscriber(person: int) -> dict[str, Any]:
    named = {"id": person, "address": address_of(person), "name": f"P {person}"}
    return {**named, "address_key": key(person), "fields": {}, "created_at": NOW}


def _subscription(number: int) -> dict[str, Any]:
    row = {"id": number, "subscriber_id": person_of(number), "list_id": number // 100}
    return {**row, "state": SubscriptionState.ACTIVE, "since": NOW}


@dataclass
class Sender:
    """A sending process: what it has in hand exists nowhere else, and is lost with it."""

    id: str
    campaign: int
    ledger: Ledger
    wire: Wire
    hands: dict[bytes, Claimed] = field(default_factory=dict)  # handed, and no answer stored
    taken: set[bytes] = field(default_factory=set)  # of these, what this process has got rid of
    unsaved: list[Outcome] = field(default_factory=list)  # answers that the database has not taken
    cut_off: bool = False  # it lives, and whoever looks must think it dead
    buried: bool = False

    @classmethod
    def start(cls, database: Database, name: str, campaign: int, now: datetime) -> Sender:
        """A process that goes on with a campaign: all that it knows comes from the database."""
        database.enrol(name, now)
        [stored], message = read(database.engine, lambda conn: campaigns.load_editions(conn, campaign))
        wire = Wire(stored, MessageSettings.from_dict(message))
        return cls(name, campaign, Ledger(database.engine, campaign, name, retry=RETRY), wire)

    def message(self, row: Claimed) -> bytes:
        """The bytes of a copy, made as ``desk`` makes them."""
        values = {"name": row.name, **row.fields, **links(row.subscription_id)}
        copy = Recipient(delivery=row.id, address=row.address, values=values, edition=row.edition)
        return b"".join(self.wire.pieces(copy))


@dataclass
class Provider:
    """The company behind the transport: what it took, in order, and what the first try of each copy looked like."""

    book: Counter[bytes] = field(default_factory=Counter)
    first: dict[bytes, bytes] = field(default_factory=dict)

    def take(self, delivery: bytes) -> None:
        """A copy is in the reader's mailbox."""
        self.book[delivery] += 1


_LINK = re.compile(r"https://news\.example\.org/[up]/(\d+)")
_ADDRESS = re.compile(r"p\d+@example\.org")


@cache  # parsing takes 4 ms, and but for the Message-ID a person's copies are the same in all examples
def reads_as_one_readers(message: bytes, person: int, subscription: int) -> bool:
    """One visible address, no hidden one, and nobody else's address or links anywhere."""
    parsed = email.message_from_bytes(message, policy=email.policy.default)
    texts = [part.get_content() for part in parsed.walk() if part.get_content_maintype() == "text"]
    everything = "\n".join([*(f"{name}: {value}" for name, value in parsed.items()), *texts])
    visible = [
        one.addr_spec for name in ("to", "cc", "bcc") for one in getattr(parsed[name], "addresses", ())
    ]
    return (
        visible == [address_of(person)]
        and set(_ADDRESS.findall(everything)) == {address_of(person)}
        and set(_LINK.findall(everything)) == {str(subscription)}
        and len(texts) == 2
    )

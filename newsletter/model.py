"""The nouns of the product, as frozen values. Standard library only; nothing in here reads or writes anything.

The words are those of the glossary (docs/glossary.md): an *issue* is content, an *email* is what it compiles to,
a *campaign* is one issue to one list, a *delivery* is one campaign to one recipient.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date, datetime

# --- content -----------------------------------------------------------------------------------------------------


class Level(StrEnum):
    """An error stops a send; a warning informs."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, where it stands, and what to do about it."""

    code: str
    level: Level
    file: str  # relative to the project, with forward slashes
    message: str  # what is wrong, one sentence
    hint: str = ""  # what to do, one sentence
    line: int | None = None  # 1-based
    column: int | None = None  # 1-based
    where: str = ""  # key path, e.g. "related.3.url": what `[[waive]] where` names
    waived: str = ""  # the reason given for waiving it

    @property
    def place(self) -> str:
        """``file:line:column`` or ``file: key.path``, as far as known."""
        spot = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        return f"{spot} [{self.where}]" if self.where else spot


@dataclass(frozen=True)
class Picture:
    """A picture that travels with the mail. We never alter its bytes."""

    name: str  # as the issue writes it, e.g. "images/scan.png": rendered as `image:NAME`
    media_type: str  # image/png, image/jpeg or image/gif
    data: bytes = field(repr=False)
    width: int  # pixels
    height: int  # pixels
    alt: str

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the bytes: the Content-ID and the hosted file name come from it."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True, slots=True)
class Source:
    """The paper a summary is about."""

    title: str
    journal: str = ""
    doi: str = ""  # bare: 10.1371/…
    url: str = ""
    published: date | None = None

    @property
    def link(self) -> str:
        """Where the original can be read; the DOI wins because publishers keep it alive."""
        return f"https://doi.org/{quote(self.doi, safe='/():;.,-_')}" if self.doi else self.url


@dataclass(frozen=True, slots=True)
class Section:
    """One of the three parts of a lead: found, why it matters, what it does not show."""

    heading: str  # plain text, may hold merge tags
    body: str  # Markdown, raw HTML off
    line: int  # of the heading in lead.md, 1-based


@dataclass(frozen=True, slots=True)
class Lead:
    """The main summary of an issue."""

    title: str
    sections: tuple[Section, Section, Section]
    source: Source
    picture: Picture | None = None
    topics: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Teaser:
    """A short pointer to a related article."""

    title: str
    text: str
    url: str
    date: date
    pin: bool = False


@dataclass(frozen=True, slots=True)
class Waiver:
    """A person's reason for sending in spite of a finding."""

    code: str
    where: str
    because: str


@dataclass(frozen=True, slots=True)
class Issue:
    """One edition's content, validated."""

    slug: str
    subject: str
    preheader: str
    date: date
    period: str
    lead: Lead
    number: int | None = None
    related: tuple[Teaser, ...] = ()
    banned: tuple[str, ...] = ()
    closing: str = ""  # Markdown
    closing_file: str = ""  # which file it came from, for messages
    waivers: tuple[Waiver, ...] = ()

    @property
    def folder(self) -> str:
        """The folder as messages name it."""
        return f"issues/{self.slug}"


@dataclass(frozen=True, slots=True)
class Publication:
    """What a reader may know about the publisher: all that templates see of the configuration."""

    name: str  # short and discreet: what an inbox shows
    full_name: str
    base_url: str  # https://…, no slash at the end
    postal_address: str
    reply_to: str
    language: str = "en"


# --- email -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Email:
    """An issue compiled once. Subject, html and text still hold merge tags; pictures stand as ``image:NAME``."""

    title: str  # of the lead: fills @@issue_title@@
    subject: str
    preheader: str
    html: str
    text: str
    language: str
    view_path: str  # "/archive/2026-12"
    pictures: tuple[Picture, ...] = ()
    edition: str = "standard"

    @cached_property
    def digest(self) -> str:
        """One hash over everything a reader gets: previewed, approved and sent bytes are compared by it."""
        seen = hashlib.sha256()
        fields = (
            self.title,
            self.subject,
            self.preheader,
            self.html,
            self.text,
            self.language,
            self.view_path,
            self.edition,
        )
        for part in (*fields, *(f"{p.name} {p.media_type} {p.alt} {p.sha256}" for p in self.pictures)):
            data = part.encode("utf-8")
            seen.update(len(data).to_bytes(8, "big") + data)
        return seen.hexdigest()


def digest(editions: Sequence[Email]) -> str:
    """One hash over everything that anybody gets of an issue, whichever edition they have chosen."""
    each = [edition.digest for edition in editions]
    return each[0] if len(each) == 1 else hashlib.sha256(" ".join(each).encode()).hexdigest()


def short(digest: str) -> str:
    """The first twelve digits of a digest: what people compare by eye, from the preview to the status of the send."""
    return digest[:12]


# --- people ------------------------------------------------------------------------------------------------------


class SubscriptionState(StrEnum):
    """Where a person stands with a list."""

    PENDING = "pending"
    ACTIVE = "active"
    PAUSED = "paused"
    UNSUBSCRIBED = "unsubscribed"


class Edition(StrEnum):
    """The variants of an issue that a person can choose from; each is compiled once."""

    STANDARD = "standard"
    LARGE = "large"  # large print, one column
    TEXT = "text"  # no html part at all

    @classmethod
    def stored(cls, text: str) -> Edition:
        """As a row has it: one that this version does not know is the standard edition."""
        return cls(text) if text in set(cls) else cls.STANDARD


class LetterPurpose(StrEnum):
    """What somebody has asked for who then gets a letter: a mail to one person, outside all campaigns."""

    SUBSCRIBE = "subscribe"  # the letter asks to confirm, or says that this address is on the list already
    ACCESS = "access"  # a link to one's own data
    CHANGE = "change"  # a link that confirms a new address


class LetterState(StrEnum):
    """Where a letter stands."""

    WAITING = "waiting"
    SENT = "sent"
    GAVE_UP = "gave-up"
    DROPPED = "dropped"  # nobody is to get it, for instance because the address is suppressed


@dataclass(frozen=True, slots=True)
class Subscriber:
    """A person and their standing with one list."""

    id: int
    address: str
    name: str
    list: str
    state: SubscriptionState
    since: datetime
    source: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    suppressed: str = ""  # the reason, if the address is suppressed
    edition: str = Edition.STANDARD
    paused_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Recipient:
    """All that a transport may know about one copy."""

    delivery: bytes  # 16 random bytes: Message-ID, VERP, custom_args
    address: str = field(repr=False)  # nor the values: a traceback may be shown to others
    values: Mapping[str, str] = field(repr=False)  # merge tag → raw; absent or empty means: use the fallback
    edition: str = "standard"

    @property
    def id(self) -> str:
        """The delivery id in hex."""
        return self.delivery.hex()


# --- sending -----------------------------------------------------------------------------------------------------


class Kind(StrEnum):
    """A rehearsal runs the same code but takes no period and stops no live campaign."""

    LIVE = "live"
    REHEARSAL = "rehearsal"
    CORRECTION = "correction"

    @property
    def takes_period(self) -> bool:
        """Whether its period can't be sent once more; a rehearsal may be repeated."""
        return self is not Kind.REHEARSAL


class CampaignState(StrEnum):
    """See the diagram in ``sending``."""

    PREPARING = "preparing"
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"
    CANCELLED = "cancelled"


class AppointmentState(StrEnum):
    """An appointment is over when a campaign has come of it; that is no state of its own."""

    WAITING = "waiting"  # for its time
    HELD = "held"  # its time came and it could not or should not be sent: a person decides
    DROPPED = "dropped"  # its time passed, and nobody wants it late
    CANCELLED = "cancelled"  # by a person


class NoticeState(StrEnum):
    """Where a mail to an editor stands."""

    WAITING = "waiting"
    SENT = "sent"
    GAVE_UP = "gave-up"


class DeliveryState(StrEnum):
    """Named after who said so: *accepted* is the provider's word, *delivered* would be the mailbox's."""

    PENDING = "pending"
    CLAIMED = "claimed"
    HANDED = "handed"  # the only state in which a copy may exist without our knowing
    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"
    CLOSED = "closed"  # an unknown one that a person put to rest


OPEN_STATES = frozenset({DeliveryState.PENDING, DeliveryState.CLAIMED, DeliveryState.HANDED})
NOT_ALLOWED = "not on the allowlist"  # why a mail stays, in mode allowlist; kept with it


@dataclass(frozen=True, slots=True)
class Campaign:
    """One issue to one list at one time."""

    id: int
    issue: str
    period: str
    list: str
    kind: Kind
    attempt: int
    state: CampaignState
    transport: str
    digest: str
    created_at: datetime
    started_at: datetime | None = None  # also the Date header of every copy
    finished_at: datetime | None = None
    reason: str = ""  # why it is paused
    override: str = ""  # a person's reason for a second campaign in its period
    approvals: tuple[str, ...] = ()  # who had approved these bytes, in words, as it was frozen
    canary_copies: int | None = None  # so many leave before the rest; None once nothing is held back
    canary_until: datetime | None = None  # when the rest leaves; None until the canary has its answers

    @property
    def label(self) -> str:
        """How people name it: ``2026-12 to readers`` or ``2026-12 to readers (REHEARSAL 2)``."""
        plain = f"{self.issue} to {self.list}"
        if self.kind is Kind.LIVE:
            return plain
        number = f" {self.attempt}" if self.attempt > 1 else ""
        return f"{plain} ({self.kind.upper()}{number})"

    @property
    def facts(self) -> Mapping[str, object]:
        """How a log names it."""
        return {"campaign": self.label, "list": self.list}

    @property
    def arguments(self) -> str:
        """How a command names it, for hints that can be pasted: ``2026-12 --list readers --kind rehearsal``."""
        return f"{self.issue} --list {self.list} --kind {self.kind}"

    @property
    def send(self) -> str:
        """The command that goes on with it."""
        return f"newsletter send {self.issue} --list {self.list}"


class Role(StrEnum):
    """As what somebody approves an issue."""

    EDITOR = "editor"
    MEDICAL = "medical"


@dataclass(frozen=True, slots=True)
class Approval:
    """A person's word that these very bytes may go to a list. ``approval`` says whether it still counts."""

    issue: str
    list: str
    role: str
    name: str
    at: datetime
    digest: str  # of the compiled editions
    seal: Mapping[str, Mapping[str, str]]  # ``seals.Seal``
    snapshot: Mapping[str, Any]  # ``comparing.Snapshot``
    withdrawn_at: datetime | None = None
    id: int = 0  # in the database; they are in order

    @property
    def words(self) -> str:
        """``editor: Ann Example, 2026-11-28 10:12 UTC``."""
        return f"{self.role}: {self.name}, {self.at:%Y-%m-%d %H:%M} UTC"


@dataclass(frozen=True, slots=True)
class Appointment:
    """When an issue is to go to a list. It is over when a campaign has come of it."""

    id: int
    period: str
    list: str
    kind: Kind
    issue: str  # the slug; empty: the schedule made it, for whichever issue has the period
    due_at: datetime
    state: AppointmentState
    changed_at: datetime  # of the state
    options: Mapping[str, str] = field(default_factory=dict)  # what `send --at` was given besides
    reason: str = ""  # why it is held or dropped

    @property
    def label(self) -> str:
        """How people name it: ``2026-12 to readers``."""
        rehearsal = " (REHEARSAL)" if self.kind is Kind.REHEARSAL else ""
        return f"{self.issue or self.period} to {self.list}{rehearsal}"

    @property
    def summary(self) -> str:
        """The reason in one line; what to do about it may follow in further ones."""
        return self.reason.partition("\n")[0]

    def issue_of(self, by_period: Mapping[str, Sequence[str]]) -> str:
        """The issue for people to name: its own, else the one that its period has; the period if that is not clear."""
        found = by_period.get(self.period, ())
        return self.issue or (found[0] if len(found) == 1 else self.period)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One campaign to one recipient: a row of the ledger."""

    id: bytes
    address: str  # empty once the person was erased
    name: str
    state: DeliveryState
    tries: int
    not_before: datetime | None
    handed_at: datetime | None
    settled_at: datetime | None
    reason: str = ""  # why skipped, refused or unknown; the server's own words where there are any
    provider_id: str = ""
    edition: str = Edition.STANDARD


# What a transport says about one copy. Everything pulled is settled exactly once.


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider took responsibility for the copy."""

    delivery: bytes
    provider_id: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """A definite permanent answer about this recipient."""

    delivery: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class NotTaken:
    """Certainly not taken: try again. ``charged`` counts it against this recipient's retries."""

    delivery: bytes
    reason: str
    not_before: datetime | None = None  # the provider's wish; None: as the retry schedule says
    charged: bool = True
    crowded: bool = False  # the provider has had enough for now: the next ones should leave more slowly


@dataclass(frozen=True, slots=True)
class Unknown:
    """The copy may or may not have been taken. Never repeated without a person's word."""

    delivery: bytes
    reason: str


Outcome = Accepted | Refused | NotTaken | Unknown

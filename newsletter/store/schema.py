"""The tables. Constraints, not ``if``s, stop the second time.

Three unique constraints carry the product's promise: a person has one delivery per campaign, an address gets an
issue once per kind and attempt however many lists it is on, and a period has one live campaign per audience.
Deliveries and suppressions know an address only as its key (HMAC), so that erasing a person leaves the ledger whole.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

from newsletter.model import (
    AppointmentState,
    CampaignState,
    DeliveryState,
    Kind,
    LetterPurpose,
    LetterState,
    NoticeState,
    SubscriptionState,
)

if TYPE_CHECKING:
    from enum import StrEnum

    from sqlalchemy import Dialect

# For what grows: on PostgreSQL, rows that were refused use up numbers too. SQLite counts to 2^63 in any case, and only
# gives numbers out by itself under this name.
Number = BigInteger().with_variant(Integer, "sqlite")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_micros(moment: datetime) -> int:
    """Microseconds since 1970 in UTC, exact (``timestamp()`` would round through a float)."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def from_micros(micros: int) -> datetime:
    """The inverse of ``to_micros``; always aware, always UTC."""
    return EPOCH + timedelta(microseconds=micros)


class Instant(TypeDecorator[datetime]):
    """A moment as a whole number: one form for both databases and for SQL written by hand."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else to_micros(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else from_micros(value)


def one_of(column: str, states: type[StrEnum], *unused: str) -> CheckConstraint:
    """No row holds a state that the code does not know; ``unused`` ones stand in a constraint made before."""
    words = ", ".join(f"'{word}'" for word in (*unused, *(state.value for state in states)))
    return CheckConstraint(f"{column} IN ({words})", name=column)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

meta = Table(
    "meta",
    metadata,
    Column("key", Text, primary_key=True),  # e.g. "address_key_fingerprint"
    Column("value", Text, nullable=False),
)

list_ = Table(
    "list",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created_at", Instant, nullable=False),
)

subscriber = Table(
    "subscriber",
    metadata,
    Column("id", Number, primary_key=True),
    Column("address", Text),  # as the person wrote it; NULL once erased
    Column("address_key", LargeBinary(16), unique=True),  # NULL once erased
    Column("name", Text, nullable=False, default=""),
    Column("fields", JSON, nullable=False, default=dict),
    Column("edition", Text, nullable=False, default="standard"),
    Column("created_at", Instant, nullable=False),
    Column("erased_at", Instant),
    sqlite_autoincrement=True,  # an id is never used again: links of a removed person must not open another's page
)

subscription = Table(
    "subscription",
    metadata,
    Column("id", Number, primary_key=True),  # stands in every link, 8 bytes
    Column("subscriber_id", ForeignKey("subscriber.id"), nullable=False),
    Column("list_id", ForeignKey("list.id"), nullable=False),
    Column("state", Text, nullable=False),
    Column("since", Instant, nullable=False),  # of the state
    Column("source", Text, nullable=False, default=""),
    Column("paused_until", Instant),
    UniqueConstraint("subscriber_id", "list_id"),
    one_of("state", SubscriptionState),
    Index("ix_subscription_list_id_id", "list_id", "id"),  # freezing pages through a list in the order of ids
    sqlite_autoincrement=True,
)

consent = Table(  # append-only: what a person (or who acted for them) said, and where
    "consent",
    metadata,
    Column("id", Number, primary_key=True),
    Column("subscription_id", ForeignKey("subscription.id"), nullable=False, index=True),
    Column("at", Instant, nullable=False),
    Column("act", Text, nullable=False),  # imported, added, unsubscribed …
    Column("source", Text, nullable=False, default=""),
    Column("wording", Text, nullable=False, default=""),  # of the wording table
    Column("form", Text, nullable=False, default="", server_default=""),  # which form, page or link was used
)

wording = (
    Table(  # what people agreed to, word for word: a consent that can't be shown is none (GDPR, article 7)
        "wording",
        metadata,
        Column("version", Text, primary_key=True),  # of its bytes: 12 hex digits
        Column("text", Text, nullable=False),
        Column("language", Text, nullable=False),
        Column("first_at", Instant, nullable=False),
    )
)

suppression = Table(
    "suppression",
    metadata,
    Column("address_key", LargeBinary(16), primary_key=True),
    Column("reason", Text, nullable=False),  # unsubscribed, bounced, complained, manual, erased
    Column("at", Instant, nullable=False),
    Column("source", Text, nullable=False, default=""),
)

letter = Table(  # a mail to one person that somebody has just asked for: sent at least once, never behind a campaign
    "letter",
    metadata,
    Column("id", Number, primary_key=True),
    Column("delivery", LargeBinary(16), nullable=False, unique=True),  # its Message-ID, the same on every try
    Column("purpose", Text, nullable=False),
    Column("list_id", ForeignKey("list.id"), nullable=False),
    Column("subscription_id", ForeignKey("subscription.id")),  # NULL until a sign-up is looked at
    Column("address", Text),  # NULL once it is not needed any more
    Column("address_key", LargeBinary(16)),
    Column(
        "name", Text, nullable=False, default=""
    ),  # a sign-up's: whoever confirms it and is on no list is called so
    Column("form", Text, nullable=False, default=""),
    Column("source", Text, nullable=False, default=""),
    Column("wording", Text, nullable=False, default=""),
    Column("created_at", Instant, nullable=False),
    Column(
        "expires_at", Instant, nullable=False
    ),  # whole seconds: with purpose and subscription it names the row
    Column("state", Text, nullable=False),
    Column("not_before", Instant),
    Column("tries", Integer, nullable=False, default=0),
    Column("leased_until", Instant),  # some process is sending it
    Column("settled_at", Instant),
    Column("used_at", Instant),  # when its link did what it is for
    Column("reason", Text, nullable=False, default=""),  # why it was dropped or given up; never an address
    one_of("purpose", LetterPurpose),
    one_of("state", LetterState),
    Index("ix_letter_state_id", "state", "id"),
    Index("ix_letter_subscription_id", "subscription_id"),
    Index("ix_letter_address_key", "address_key"),
    sqlite_autoincrement=True,
)

throttle = Table(  # how often strangers may ask for something; rows whose time has passed are taken away
    "throttle",
    metadata,
    Column(
        "scope", LargeBinary(16), primary_key=True
    ),  # a keyed hash: whose address or network it is stays unknown
    Column("free_at", Instant, nullable=False),
)

campaign = Table(
    "campaign",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("issue", Text, nullable=False),  # the slug
    Column("period", Text, nullable=False),
    Column("list_id", ForeignKey("list.id"), nullable=False),
    Column("audience", Text, nullable=False),  # the list's name: stays readable when a list is removed
    Column("kind", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False, default=""),
    Column("transport", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column(
        "message", JSON, nullable=False
    ),  # message.MessageSettings at freeze: a restart sends the same bytes
    Column("created_at", Instant, nullable=False),
    Column("started_at", Instant),
    Column("finished_at", Instant),
    Column("owner", Text),  # who freezes it, while it is preparing
    Column("appointment_id", Integer),  # of which it came; one campaign comes of an appointment
    Column(
        "override", Text, nullable=False, default="", server_default=""
    ),  # why its period has a second one
    Column("approvals", JSON),  # who had approved these bytes, in words
    Column("canary_copies", Integer),  # so many leave first; NULL: all at once
    Column("canary_wait", Integer),  # seconds from the last of them to the rest
    Column(
        "canary_last", LargeBinary(16)
    ),  # deliveries up to this id are the canary; NULL: nothing is held back
    Column("canary_until", Instant),  # when the rest may leave; NULL until the canary has its answers
    UniqueConstraint("period", "audience", "kind", "attempt"),
    Index("uq_campaign_appointment_id", "appointment_id", unique=True),
    one_of("state", CampaignState, "scheduled", "held"),
    one_of("kind", Kind),
    sqlite_autoincrement=True,
)

appointment = Table(  # when an issue is to go to a list: by the schedule, or by a person's word
    "appointment",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("period", Text, nullable=False),
    Column("audience", Text, nullable=False),  # the list's name
    Column("kind", Text, nullable=False),
    Column("issue", Text),  # the slug, where a person named it; NULL: whichever has the period
    Column("due_at", Instant, nullable=False),
    Column("options", JSON, nullable=False, default=dict),  # what `send --at` was given besides
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False, default=""),
    Column("created_at", Instant, nullable=False),
    Column("changed_at", Instant, nullable=False),  # of the state
    UniqueConstraint("period", "audience", "kind"),
    one_of("state", AppointmentState),
    one_of("kind", Kind),
    sqlite_autoincrement=True,
)

approval = Table(  # append-only but for its withdrawal: who said that these very bytes may go to this list
    "approval",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("issue", Text, nullable=False),
    Column("audience", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("at", Instant, nullable=False),
    Column("digest", Text, nullable=False),  # of the compiled editions: the one of campaign.digest
    Column("seal", JSON, nullable=False),  # hash by part: any other one voids it
    Column("snapshot", JSON, nullable=False),  # what readers would have got, to show what has changed since
    Column("withdrawn_at", Instant),
    Index("ix_approval_issue_audience", "issue", "audience"),
    sqlite_autoincrement=True,
)

notice = Table(  # a mail to an editor: something needs a person. Sent at least once.
    "notice",
    metadata,
    Column("id", Number, primary_key=True),
    Column("key", Text, nullable=False),  # what it is about: each is told once
    Column("address", Text, nullable=False),
    Column("delivery", LargeBinary(16), nullable=False, unique=True),  # its Message-ID, the same on every try
    Column("subject", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("state", Text, nullable=False),
    Column("not_before", Instant),
    Column("tries", Integer, nullable=False, default=0),
    Column("leased_until", Instant),  # some process is sending it
    Column("settled_at", Instant),
    Column("reason", Text, nullable=False, default=""),
    UniqueConstraint("key", "address"),
    one_of("state", NoticeState),
    Index("ix_notice_state_id", "state", "id"),
    sqlite_autoincrement=True,
)

owner = Table(  # every sending process there ever was: who is at work, and where an unknown copy was on its way to
    "owner",
    metadata,
    Column(
        "id", Text, primary_key=True
    ),  # random, 16 hex digits; stands in delivery.owner and campaign.owner
    Column("campaign_id", ForeignKey("campaign.id")),  # what it sends; NULL before that is decided
    Column("name", Text, nullable=False),  # process 123 on mailer, since …
    Column("way", Text, nullable=False),  # smtp mail.example.org:587
    Column("started_at", Instant, nullable=False),
    Column("seen_at", Instant, nullable=False),  # PostgreSQL: the lease is renewed by this heartbeat
    Column("settled_at", Instant),  # when it last stored an answer
    Column("ended_at", Instant),  # it has given back what it held, or was found dead
)

allowance = Table(  # a row for each limit, shared by all who send: never more than a handful
    "allowance",
    metadata,
    Column("scope", Text, primary_key=True),  # all, domain:gmail.com
    Column("free_at", Instant, nullable=False),  # when everything that has left is paid for
)

email = Table(  # one row per edition: the bytes that were previewed are the bytes that are sent
    "email",
    metadata,
    Column("campaign_id", ForeignKey("campaign.id"), primary_key=True),
    Column("edition", Text, primary_key=True),
    Column("title", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("preheader", Text, nullable=False),
    Column("html", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("view_path", Text, nullable=False),
    Column("digest", Text, nullable=False),
)

picture = Table(
    "picture",
    metadata,
    Column("campaign_id", ForeignKey("campaign.id"), primary_key=True),
    Column("edition", Text, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("alt", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

delivery = Table(
    "delivery",
    metadata,
    Column("seq", Number, primary_key=True),  # keyset order; never leaves the database
    Column("id", LargeBinary(16), nullable=False, unique=True),
    Column("campaign_id", ForeignKey("campaign.id"), nullable=False),
    Column("issue", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("subscriber_id", ForeignKey("subscriber.id"), nullable=False, index=True),
    Column("subscription_id", ForeignKey("subscription.id"), nullable=False),
    Column("address_key", LargeBinary(16), nullable=False),
    Column("edition", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("receipt", Text),  # delivered, deferred, bounced, complained: what the provider told us later
    Column("tries", Integer, nullable=False, default=0),
    Column("not_before", Instant),
    Column("owner", Text),  # the sending process that has claimed or handed it
    Column("handed_at", Instant),
    Column("settled_at", Instant),
    Column("reason", Text, nullable=False, default=""),
    Column("provider_id", Text, nullable=False, default=""),
    UniqueConstraint("campaign_id", "subscriber_id"),
    UniqueConstraint("issue", "address_key", "kind", "attempt"),
    one_of("state", DeliveryState),
    Index("ix_delivery_campaign_id_state", "campaign_id", "state", "seq"),  # claiming
    Index("ix_delivery_campaign_id_seq", "campaign_id", "seq"),  # listing
)

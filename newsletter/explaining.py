"""Why a person is or is not in a send: then, and now. Says what the rows say, and where they say nothing, so.

A campaign's row is the proof. Where there is none, the consents and the suppression tell how the person stood when the
campaign was frozen. An erasure takes that away: only the ledger still knows the address, as its key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING

from newsletter.content import is_slug
from newsletter.errors import UsageError
from newsletter.model import CampaignState, DeliveryState, Kind, SubscriptionState
from newsletter.store import campaigns, history, subscribers
from newsletter.store.campaigns import Target
from newsletter.store.subscribers import ERASED, LIFTABLE

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from newsletter.model import Campaign, Subscriber
    from newsletter.store.history import Row
    from newsletter.store.subscribers import Consent, Suppressed


@dataclass(frozen=True, slots=True)
class Explanation:
    """Sentences about one campaign, or about today."""

    about: str
    sentences: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Known:
    """All that is known about an address."""

    key: bytes
    standings: Mapping[str, Subscriber]  # by list
    consents: Sequence[Consent]
    suppressed: Suppressed | None
    erased: str  # "erased on 2026-12-01", or empty
    erased_at: datetime | None  # None also where nothing says when


def explain(
    conn: Connection, key: bytes, slug: str | None = None, *, issues: Collection[str] = (), now: datetime
) -> list[Explanation]:
    """What became of this address in every campaign of the issue, and whether it would get the next one.

    Raises ``UsageError`` for a slug that is none of the publisher's ``issues`` and of which nothing was ever sent.
    """
    sent = campaigns.every(conn, slug) if slug and is_slug(slug) else []  # no other text is safe to ask for
    if slug and not sent and slug not in issues:
        raise _no_such_issue(slug, issues)
    known = _look_up(conn, key)
    then = [_then(conn, known, one) for one in sent]
    if slug and not then:
        then = [Explanation(slug, ["Nothing was sent of this issue yet, and nothing is being prepared."])]
    return [*then, Explanation("now", _now(conn, known, slug or "", now))]


def _no_such_issue(slug: str, issues: Collection[str]) -> UsageError:
    near = get_close_matches(slug, issues, n=1)
    hint = f"Did you mean {near[0]}?" if near else "`newsletter status` lists what was sent."
    return UsageError(f"There is no issue {slug!r}, and nothing was sent of one.", hint=hint)


def _look_up(conn: Connection, key: bytes) -> _Known:
    found = subscribers.person(conn, key)
    known = _Known(
        key,
        {person.list: person for _, person in found},
        subscribers.consents(conn, [number for number, _ in found]),
        subscribers.suppressed(conn, [key]).get(key),
        "",
        None,
    )
    return known if known.standings else _as_erased(conn, known)  # they may have come back since


def _as_erased(conn: Connection, known: _Known) -> _Known:
    at, stop = history.erased_at(conn, known.key), known.suppressed
    if at is None and stop is not None and stop.reason == ERASED:
        at = stop.at
    if at is not None:
        return replace(known, erased=f"erased on {_day(at)}", erased_at=at)
    return replace(known, erased="erased" if stop is not None and stop.source == ERASED else "")


# Now


def _now(conn: Connection, known: _Known, slug: str, now: datetime) -> list[str]:
    standings = [_next(conn, known, person, slug, now) for person in known.standings.values()]
    return [*(standings or [_stranger(known)]), *_barred(known)]


def _barred(known: _Known) -> list[str]:
    """Whoever pressed "spam" can't subscribe anew like others who left."""
    stop = known.suppressed
    if stop is None or stop.reason in LIFTABLE:
        return []
    said = f"Whoever is suppressed as {stop.reason} can't come back alone"
    if known.erased:
        return [f"{said}, and an erasure is for ever."]
    return [f"{said}: if they want to, `newsletter suppressions remove` comes first."]


def _stranger(known: _Known) -> str:
    if known.erased:
        return f"Was {known.erased}: is on no list, and gets nothing."
    if known.suppressed is not None:
        return f"Is on no list, and is suppressed: {_stop(known.suppressed)}."
    return "Is on no list, and gets nothing."


def _next(conn: Connection, known: _Known, person: Subscriber, slug: str, now: datetime) -> str:
    """The plan's own words, so that this and a plan can't differ."""
    target = Target(slug, "", person.list, Kind.LIVE)
    why = history.left_out_because(conn, target, person.id, now)
    since = f"since {_day(person.since)}"
    if not why:
        return f"On the list {person.list}, active {since}{_but(conn, person.list, slug)}."
    if why == campaigns.ALREADY:
        return f"On the list {person.list}, active {since}: would not get {slug} again, because one campaign had it."
    if why == "suppressed" and known.suppressed is not None:
        return f"On the list {person.list}, but suppressed: {_stop(known.suppressed)}. Gets nothing."
    until = f", until {_day(person.paused_until)}" if person.paused_until else ""
    stop = known.suppressed
    also = f", and suppressed: {_stop(stop)}" if stop is not None and stop.reason != person.state else ""
    return f"On the list {person.list}: {person.state} {since}{until}{also}. Gets nothing."


def _but(conn: Connection, list_name: str, slug: str) -> str:
    """A campaign has one freeze: who was not in it does not get the issue, whatever they do later."""
    live = campaigns.find(conn, slug, list_name, Kind.LIVE) if slug else None
    if live is None or live.state is CampaignState.PREPARING:
        return f": would get {slug or 'the next issue'} if it is sent to that list"
    ended = {CampaignState.FINISHED: "was sent before", CampaignState.CANCELLED: "was cancelled"}
    how = ended.get(live.state, "is being sent")
    return f": will not get {slug}, which {how}: only those of its freeze ({_minute(live.created_at)}) get it"


def _stop(found: Suppressed) -> str:
    return f"{found.reason}, since {_day(found.at)}"


# Then


def _then(conn: Connection, known: _Known, sent: Campaign) -> Explanation:
    row = history.row(conn, sent.id, known.key, [person.id for person in known.standings.values()])
    sentences = [_row(row, sent)] if row else _no_row(conn, known, sent)
    return Explanation(f"{sent.label}, frozen {_minute(sent.created_at)}", sentences)


ROWS = {
    DeliveryState.ACCEPTED: "Got a copy: the provider took it",
    DeliveryState.REFUSED: "Was to get a copy, but the provider refused it",
    DeliveryState.SKIPPED: "Was chosen, but the copy was not sent",
    DeliveryState.UNKNOWN: "A copy was handed over, and nobody can say whether it was taken",
    DeliveryState.CLOSED: "A copy was handed over, nobody can say whether it was taken, and a person let it rest",
    DeliveryState.HANDED: "A copy is being handed over at this moment",
    DeliveryState.CLAIMED: "Is chosen, and next in line: the copy has not left",
    DeliveryState.PENDING: "Is chosen, and the copy has not left yet",
}


def _row(row: Row, sent: Campaign) -> str:
    at = f" ({_minute(row.at)})" if row.at else ""
    why = f": {row.reason}" if row.reason else ""
    told = f"; the provider said later: {row.receipt}" if row.receipt else ""
    return f"{ROWS[row.state]}{at}{why}{told}{_rest(row, sent)}."


def _rest(row: Row, sent: Campaign) -> str:
    """What becomes of a copy that waits."""
    if row.state not in {DeliveryState.PENDING, DeliveryState.CLAIMED}:
        return ""
    if row.stopped:
        return f"; it will be skipped, because the person is {row.stopped} now"
    return "" if sent.state is CampaignState.RUNNING else f"; the campaign is {sent.state}"


def _no_row(conn: Connection, known: _Known, sent: Campaign) -> list[str]:
    if sent.state is CampaignState.PREPARING:
        return ["It is being prepared, and whether this address is in it is not decided yet."]
    if known.erased_at is not None and known.erased_at <= sent.created_at:
        return ["No copy for this address.", f"The person was {known.erased}, before it was frozen."]
    if known.erased:
        why = f"Why can't be known any more: the person was {known.erased}, and what they had said with it."
        return ["No copy for this address.", why]
    return ["No copy for this address.", _because(conn, known, sent)]


def _because(conn: Connection, known: _Known, sent: Campaign) -> str:
    person, moment = known.standings.get(sent.list), sent.created_at
    said = [one for one in known.consents if one.list == sent.list and one.at <= moment]
    if person is None:
        return f"It is not on the list {sent.list}, and nothing says that it ever was."
    if not said:
        return f"It came onto the list {sent.list} later, on {_day(_first(known, sent))}."
    return _stood(known, said, sent) or _had_it(conn, known, sent) or _left_open(known, sent)


def _stood(known: _Known, said: Sequence[Consent], sent: Campaign) -> str:
    """What kept the person out at that time, as far as it was recorded."""
    moment = sent.created_at
    state, since = state_after(said, moment)
    if state is None:
        return "How it stood at that time can't be known: nothing that was recorded says so."
    if state is not SubscriptionState.ACTIVE:
        return f"At that time it was {state} on the list {sent.list}, since {_day(since)}."
    if known.suppressed is not None and known.suppressed.at <= moment:
        return f"At that time it was suppressed: {_stop(known.suppressed)}."
    return ""


def _had_it(conn: Connection, known: _Known, sent: Campaign) -> str:
    other = history.elsewhere(conn, sent, known.key)
    return f"Another campaign of the issue had it already: {other.label}." if other else ""


def _first(known: _Known, sent: Campaign) -> datetime:
    later = [one.at for one in known.consents if one.list == sent.list]
    return min(later, default=known.standings[sent.list].since)


def _left_open(known: _Known, sent: Campaign) -> str:
    """Active as far as anybody can tell, and no row: only what leaves no trace is left."""
    if any(one.act == "address changed" and one.at > sent.created_at for one in known.consents):
        return "The address was changed after that: look at the old one as well."
    perhaps = "It was active at that time, as far as the consents say."
    rehearsal = " A rehearsal goes to the allowlist only, and what that held then is not recorded."
    lifted = " Perhaps the address was suppressed, and that was lifted since: nothing is kept of it."
    return perhaps + (rehearsal if sent.kind is Kind.REHEARSAL and sent.transport != "folder" else lifted)


# What a consent's act made of a person. Other acts (an edition, another address) change nothing of that.
_STATES = {
    "imported": SubscriptionState.ACTIVE,
    "added": SubscriptionState.ACTIVE,
    "confirmed": SubscriptionState.ACTIVE,
    "resumed": SubscriptionState.ACTIVE,
    "pause ended": SubscriptionState.ACTIVE,
    "unsubscribed": SubscriptionState.UNSUBSCRIBED,
    "erased": SubscriptionState.UNSUBSCRIBED,
}
_PAUSED = re.compile(r"paused until (\d{4}-\d{2}-\d{2})")


def state_after(said: Sequence[Consent], moment: datetime) -> tuple[SubscriptionState | None, datetime]:
    """Where these consents, oldest first, left a person at ``moment``, and since when; None if none of them says."""
    state, since = None, moment
    for one in said:
        now = _STATES.get(one.act)
        if _PAUSED.fullmatch(one.act):
            now = SubscriptionState.PAUSED
        elif one.act == "asked" and state is None:  # who asks again stays what they were until they confirm
            now = SubscriptionState.PENDING
        if now is not None and now is not state:
            state, since = now, one.at
    return state, since


def _day(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d}"


def _minute(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"

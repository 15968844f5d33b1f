"""Who may come onto a list, and what is written when they do: the rules of an import and of adding one person.

One rule stands above all others: nothing in here brings back a person who left. A subscription that was
unsubscribed, a suppressed address and an erased person stay as they are, whatever a file or an operator says.

``decide`` is pure; ``judge`` and ``act`` look up and write many people in a few statements.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from newsletter import addresses
from newsletter.model import SubscriptionState
from newsletter.people import Entry, Status
from newsletter.store import subscribers as store
from newsletter.store.subscribers import Newcomer, Standing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection


class Verdict(StrEnum):
    """What becomes of an entry."""

    NEW = "new"
    CHANGED = "changed"
    STOPPED = "stopped"  # suppressed, and unsubscribed where the person said so
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    REPEATED = "repeated"
    BAD = "bad"


class Decision(NamedTuple):
    """A verdict on an entry, with what it was based on."""

    entry: Entry
    known: Standing | None
    verdict: Verdict
    why: str = ""
    suppressed: bool = False

    @property
    def on_list(self) -> bool:
        """Whether the person has a subscription to this list already."""
        return self.known is not None and self.known.subscription_id is not None


def decide(entry: Entry, known: Standing | None, suppressed: str) -> Decision:
    """What is to become of an entry, given the person's standing and the reason of a suppression ("" for none)."""
    if entry.status is not Status.ACTIVE:
        return _decide_stop(entry, known, suppressed)
    if suppressed:
        return Decision(entry, known, Verdict.REFUSED, f"suppressed: {suppressed}")
    if known is None:
        return Decision(entry, known, Verdict.NEW)
    if known.state in _NOT_OURS_TO_CHANGE:
        return Decision(entry, known, Verdict.REFUSED, _NOT_OURS_TO_CHANGE[known.state])
    why = _difference(entry, known)
    if known.state is None:  # on another list
        return Decision(entry, known, Verdict.NEW, why)
    return Decision(entry, known, Verdict.CHANGED if why else Verdict.UNCHANGED, why)


def _decide_stop(entry: Entry, known: Standing | None, suppressed: str) -> Decision:
    active = known is not None and known.state not in {None, SubscriptionState.UNSUBSCRIBED}
    leaves = active and entry.status.state is SubscriptionState.UNSUBSCRIBED
    nothing_new = suppressed and not leaves and not store.is_graver(entry.status.reason, suppressed)
    verdict = Verdict.UNCHANGED if nothing_new else Verdict.STOPPED
    return Decision(entry, known, verdict, entry.status.reason, suppressed=bool(suppressed))


def _difference(entry: Entry, known: Standing) -> str:
    """What the entry says otherwise; an empty cell says nothing.

    Reports are mailed around. So no custom field is quoted, which may be about somebody's health, and no address that
    stands in the column of names.
    """
    if entry.name in {"", known.name} and not entry.fields:
        return ""
    said = []
    if entry.name and entry.name != known.name:
        said.append(f"name: {_shown(known.name)} → {_shown(entry.name)}")
    said += [f"other {name}" for name, text in entry.fields.items() if known.fields.get(name) != text]
    return ", ".join(said)


def _shown(name: str) -> str:
    return addresses.mask(name) if "@" in name else name or "(none)"


def judge(conn: Connection, list_id: int | None, entries: Sequence[Entry]) -> list[Decision]:
    """What is to become of each; ``list_id`` is None for a list that there is not yet."""
    keys = [entry.key for entry in entries]
    known = store.standings(conn, list_id, keys)
    stopped = store.suppressed(conn, keys)
    reasons = {key: found.reason for key, found in stopped.items()}
    return [decide(entry, known.get(entry.key), reasons.get(entry.key, "")) for entry in entries]


def act(
    conn: Connection, list_id: int, decisions: Sequence[Decision], said: str, source: str, now: datetime
) -> None:
    """Do what was decided in the same transaction; ``said`` is the consent of those who are new."""
    # An address that is suppressed and not on the list is not put there: perhaps it was erased.
    coming = [d for d in decisions if d.verdict in _COMING and not d.on_list and not d.suppressed]
    elsewhere = {d.known.subscriber_id: d.entry.name for d in coming if d.known is not None}
    if elsewhere:
        store.forget_names_of_strangers(conn, elsewhere)
    store.add_people(conn, list_id, [_newcomer(d.entry, said) for d in coming], source=source, now=now)
    if elsewhere:
        store.share_break(conn, list_id, elsewhere)
    for decision in decisions:
        if decision.known is not None and decision.verdict in _DESCRIBED:
            _describe(conn, decision.entry, decision.known)
    stopping = [d for d in decisions if d.verdict is Verdict.STOPPED]
    if stopping:
        _stop(conn, stopping, source, now)


# Tuples, not sets: to hash an enumeration's member takes longer than to look at two.
_COMING = (Verdict.NEW, Verdict.STOPPED)
_DESCRIBED = (Verdict.NEW, Verdict.CHANGED)
_NOT_OURS_TO_CHANGE = {
    SubscriptionState.UNSUBSCRIBED: "unsubscribed",
    SubscriptionState.PENDING: "asked to join, and has not confirmed yet",
}


def _newcomer(entry: Entry, said: str) -> Newcomer:
    if entry.status is Status.ACTIVE:
        return Newcomer(entry.key, entry.address, SubscriptionState.ACTIVE, said, entry.name, entry.fields)
    state = entry.status.state
    said = "unsubscribed" if state is SubscriptionState.UNSUBSCRIBED else said
    return Newcomer(entry.key, entry.address, state, said, entry.name, entry.fields)


def _describe(conn: Connection, entry: Entry, known: Standing) -> None:
    if _difference(entry, known):
        fields = {**known.fields, **entry.fields}
        store.describe(conn, known.subscriber_id, entry.name or known.name, fields)


def _stop(conn: Connection, stopping: Sequence[Decision], source: str, now: datetime) -> None:
    store.suppress(conn, {d.entry.key: d.entry.status.reason for d in stopping}, source=source, now=now)
    leaving = [d for d in stopping if d.entry.status.state is SubscriptionState.UNSUBSCRIBED]
    ids = [d.known.subscription_id for d in leaving if d.known and d.known.subscription_id is not None]
    store.unsubscribe(conn, ids, source=source, now=now)

"""Who would get an issue, and the freeze that makes a campaign of it.

The campaign is ``preparing`` until its last row is in, and one commit then makes it ``running``: whatever kills the
process before that leaves nothing that can be sent. The compiled email is stored with it, so that the last reader gets
the bytes that the first one got, whatever was edited or upgraded meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy.exc import IntegrityError

from newsletter.errors import Refused
from newsletter.model import CampaignState, Kind
from newsletter.recovery import remove_unfinished
from newsletter.store import campaigns
from newsletter.store.engine import in_chunks, read, write

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy import Connection, Engine

    from newsletter.message import MessageSettings
    from newsletter.model import Campaign, Email
    from newsletter.store.campaigns import Target


@dataclass(frozen=True, slots=True)
class Plan:
    """What a new campaign would be if the person says yes now."""

    target: Target
    recipients: int
    left_out: Mapping[str, int]  # reason → people
    only: frozenset[bytes] | None = None  # allowlist mode: these address keys and nobody else


def plan(engine: Engine, target: Target, *, only: frozenset[bytes] | None = None) -> Plan:
    """Who would get the target now. Raises ``Refused`` when another issue has the period.

    A rehearsal takes the next number that is free, a live campaign has only one.
    """
    if target.kind is Kind.REHEARSAL:
        attempt = read(engine, lambda conn: campaigns.next_attempt(conn, target))
        target = replace(target, attempt=attempt)
    taken = read(engine, lambda conn: campaigns.holder(conn, target))
    if taken is not None and taken.state is not CampaignState.PREPARING:
        raise _period_taken(taken)
    people = read(engine, lambda conn: campaigns.audience(conn, target, only))
    return Plan(target, people.pop("", 0), people, only)


def _period_taken(taken: Campaign) -> Refused:
    return Refused(
        f"the period {taken.period} of the list {taken.list} was used by {taken.label}.",
        hint="A period is sent once. If this issue belongs to another month, set `period` in its issue.toml.",
    )


def freeze(
    engine: Engine, planned: Plan, email: Email, message: MessageSettings, *, transport: str, now: datetime
) -> Campaign:
    """All or nothing in effect, in short transactions; returns the running campaign.

    The campaign is ``preparing`` until its last row is in; one commit then makes it ``running``. A process that dies
    before that leaves nothing that can be sent, and ``recovery.recover`` takes it away. Raises ``Refused`` when more
    people came in than were planned: somebody said yes to a number.
    """
    made = _create(engine, planned.target, email, message, transport=transport, now=now)
    _fill(engine, made, planned)
    if not write(engine, lambda conn: campaigns.start(conn, made, now, at_most=planned.recipients)):
        remove_unfinished(engine)
        raise Refused(
            f"more people joined the list {planned.target.list} than the {planned.recipients} you confirmed.",
            hint="Nothing was sent. Run the same command again to see the new number.",
        )
    return read(engine, lambda conn: campaigns.get(conn, made))


def _create(
    engine: Engine, target: Target, email: Email, message: MessageSettings, *, transport: str, now: datetime
) -> int:
    create = partial(
        campaigns.create,
        target=target,
        compiled=email,
        message=message.to_dict(),
        transport=transport,
        now=now,
    )
    try:
        return write(engine, create)
    except IntegrityError as error:
        taken = read(engine, lambda conn: campaigns.holder(conn, target))
        raise (_period_taken(taken) if taken else error) from error


def _fill(engine: Engine, campaign_id: int, planned: Plan) -> None:
    last = 0

    def page(conn: Connection) -> int:
        nonlocal last
        last = campaigns.add_recipients(conn, campaign_id, planned.target, planned.only, after=last) or 0
        return last

    in_chunks(engine, page)

"""What becomes of unknown deliveries, by a person's word; ``store.doubts`` has the rows.

Only a person or a proof ends a doubt: any guess would be wrong for somebody, who then gets two copies or none.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from newsletter import addresses
from newsletter.errors import Refused, UsageError
from newsletter.model import CampaignState, DeliveryState
from newsletter.store import doubts
from newsletter.store.engine import BREATH_SECONDS, read, write

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Engine

    from newsletter.model import Campaign
    from newsletter.store.doubts import Doubt, HandOver, Standing

T = TypeVar("T")

NAMED = 5
"""How many addresses an error names before it says "and 12 more"."""


class Way(StrEnum):
    """The ways out that are a person's to choose."""

    RESEND = "resend"
    ASSUME_ACCEPTED = "assume-accepted"


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a person is asked to say yes to: these hand-overs, and none that becomes unknown later."""

    campaign: Campaign
    way: Way
    chosen: Sequence[HandOver]
    leavers: int  # of these, who has left or was suppressed since: a resend reaches them with nothing


def listed(engine: Engine, campaign: Campaign) -> Iterator[Doubt]:
    """Every unknown delivery of a campaign, a short read for each page."""
    after = 0
    while found := read(engine, partial(doubts.page, campaign_id=campaign.id, after=after)):
        yield from found
        after = found[-1].seq


def plan_all(engine: Engine, campaign: Campaign, way: Way) -> Resolution:
    """All that are unknown now. Raises ``Refused`` for a resend in a cancelled campaign."""
    _refuse_cancelled(campaign, way)
    chosen: list[HandOver] = []
    after = 0
    while found := read(engine, partial(doubts.hand_overs, campaign_id=campaign.id, after=after)):
        chosen += found
        after = found[-1].seq
    return Resolution(campaign, way, chosen, _leavers(engine, chosen))


def plan_some(engine: Engine, campaign: Campaign, way: Way, keys: Mapping[bytes, str]) -> Resolution:
    """Those of these people (address key → address).

    Raises ``UsageError`` when one of them has no unknown copy here, and ``Refused`` as ``plan_all``.
    """
    _refuse_cancelled(campaign, way)
    standings: dict[bytes, Standing] = {}
    for some in _parts(list(keys)):
        standings |= read(engine, partial(doubts.standings, campaign_id=campaign.id, keys=some))
    _refuse_others(campaign, keys, standings)
    chosen = sorted(standing.hand_over for standing in standings.values())
    return Resolution(campaign, way, chosen, _leavers(engine, chosen))


def _refuse_cancelled(campaign: Campaign, way: Way) -> None:
    if way is Way.RESEND and campaign.state is CampaignState.CANCELLED:
        raise Refused(
            f"{campaign.label} was cancelled, so nothing is sent in it any more.",
            hint="Write to these people yourself, or close their copies with --assume-accepted.",
        )


def _refuse_others(
    campaign: Campaign, keys: Mapping[bytes, str], standings: Mapping[bytes, Standing]
) -> None:
    wrong = [
        f"{addresses.mask(address)} {_stands(standings.get(key))}"
        for key, address in keys.items()
        if key not in standings or standings[key].state is not DeliveryState.UNKNOWN
    ]
    if wrong:
        more = f", and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        raise UsageError(
            f"not unknown in {campaign.label}: {', '.join(wrong[:NAMED])}{more}. Nothing was changed.",
            hint=f"`newsletter resolve {campaign.arguments}` lists those that are.",
        )


def _stands(standing: Standing | None) -> str:
    return f"is {standing.state}" if standing else "has no copy in it"


def _leavers(engine: Engine, chosen: Sequence[HandOver]) -> int:
    parts = _parts([row.seq for row in chosen])
    return sum(read(engine, partial(doubts.leavers, seqs=part)) for part in parts)


def carry_out(engine: Engine, resolution: Resolution, now: datetime) -> int:
    """Does it, in short commits with a breath between; returns how many doubts it has ended.

    Fewer than were chosen means that somebody or something else had ended the others meanwhile. Cut off, it is done
    for some: the rest are still unknown, and the same command ends those.
    """
    changed = 0
    for part in _parts(resolution.chosen):
        changed += write(engine, partial(_change, resolution=resolution, part=part, now=now))
        time.sleep(BREATH_SECONDS)
    return changed


def _change(conn: Connection, resolution: Resolution, part: Sequence[HandOver], now: datetime) -> int:
    if resolution.way is Way.ASSUME_ACCEPTED:
        return doubts.close(conn, part, now)
    return doubts.resend(conn, resolution.campaign.id, part)


def _parts(things: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(things), doubts.PAGE):
        yield things[start : start + doubts.PAGE]

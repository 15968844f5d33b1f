"""See and steer campaigns: how far each has come, what happened to every copy, pause, resume, cancel."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from newsletter.cli import output
from newsletter.errors import Refused, UsageError
from newsletter.model import OPEN_STATES, Campaign, DeliveryState, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Engine

    from newsletter.cli.main import Project
    from newsletter.model import Delivery

list_option = click.option(
    "--list", "list_name", metavar="NAME", help="The list.  [default: the one in newsletter.toml]"
)


def tally(engine: Engine, campaign: Campaign) -> dict[DeliveryState, int]:
    """Deliveries by state."""
    from newsletter.store import campaigns
    from newsletter.store.engine import read

    return read(engine, lambda conn: campaigns.counts(conn, campaign.id))


def summary(counts: Mapping[DeliveryState, int]) -> str:
    """``4 accepted, 1 unknown, 12 waiting``."""
    waiting = sum(counts.get(state, 0) for state in OPEN_STATES)
    ended = [f"{n} {state}" for state, n in counts.items() if state not in OPEN_STATES]
    return ", ".join([*ended, *([f"{waiting} waiting"] if waiting else [])]) or "no deliveries"


@click.command(epilog="Example: newsletter status 2026-12 --json")
@click.argument("slug", required=False)
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.pass_obj
def status(project: Project, slug: str | None, *, as_json: bool) -> None:
    """Show how far each campaign has come."""
    from newsletter.store import campaigns
    from newsletter.store.engine import read

    engine = project.store
    found = read(engine, lambda conn: campaigns.every(conn, slug))
    if slug and not found:
        raise UsageError(
            f"no campaign of {slug} was started.", hint="`newsletter status` lists those there are."
        )
    rows = [(campaign, tally(engine, campaign)) for campaign in found]
    if as_json:
        output.print_json([_campaign_json(campaign, counts) for campaign, counts in rows])
    elif not rows:
        output.say("Nothing was sent yet.")
        output.next_steps("newsletter send SLUG --dry-run")
    else:
        columns = ("campaign", "state", "deliveries", "started")
        output.print_table(columns, [_campaign_row(campaign, counts) for campaign, counts in rows])


def _campaign_row(campaign: Campaign, counts: Mapping[DeliveryState, int]) -> tuple[str, ...]:
    state = f"{campaign.state}: {campaign.reason}" if campaign.reason else str(campaign.state)
    started = f"{campaign.started_at.astimezone():%Y-%m-%d %H:%M}" if campaign.started_at else ""
    return campaign.label, state, summary(counts), started


def _campaign_json(campaign: Campaign, counts: Mapping[DeliveryState, int]) -> dict[str, Any]:
    times = {name: getattr(campaign, name) for name in ("created_at", "started_at", "finished_at")}
    return {
        "issue": campaign.issue,
        "list": campaign.list,
        "period": campaign.period,
        "kind": campaign.kind,
        "attempt": campaign.attempt,
        "state": campaign.state,
        "reason": campaign.reason,
        "transport": campaign.transport,
        "digest": campaign.digest,
        **{name: moment.isoformat() if moment else None for name, moment in times.items()},
        "deliveries": {state.value: counts.get(state, 0) for state in DeliveryState},
    }


@click.command(epilog="Example: newsletter deliveries 2026-12 --state unknown --format address")
@click.argument("slug")
@list_option
@click.option("--state", type=click.Choice([state.value for state in DeliveryState]), help="Only these.")
@click.option(
    "--format", "form", type=click.Choice(["table", "json", "address"]), default="table", show_default=True
)
@click.pass_obj
def deliveries(project: Project, slug: str, list_name: str | None, state: str | None, form: str) -> None:
    """Show what happened to every copy of an issue.

    Of the latest campaign of that issue, live before rehearsal. People of the list who were left out have no copy
    and no row; they are counted below the table.
    """
    from newsletter.store import campaigns
    from newsletter.store.engine import read

    settings = project.settings
    engine = project.store
    campaign = _latest(engine, slug, list_name or settings.newsletter.list)
    wanted = DeliveryState(state) if state else None
    rows = read(engine, lambda conn: list(campaigns.deliveries(conn, campaign.id, wanted)))
    if form == "json":
        output.print_json([_delivery_json(row) for row in rows])
    elif form == "address":
        for row in rows:
            output.say(row.address)
    else:
        output.say(f"{campaign.label}: {summary(Counter(row.state for row in rows))}")
        output.print_table(("address", "name", "state", "why", "copy"), [_delivery_row(row) for row in rows])
        _tell_left_out(engine, campaign)


def _latest(engine: Engine, slug: str, list_name: str) -> Campaign:
    from newsletter.store import campaigns
    from newsletter.store.engine import read

    for kind in (Kind.LIVE, Kind.REHEARSAL):
        found = read(engine, partial(campaigns.find, issue=slug, list_name=list_name, kind=kind))
        if found is not None:
            return found
    raise UsageError(
        f"no campaign of {slug} to the list {list_name} was started.",
        hint="`newsletter status` lists those there are.",
    )


def _delivery_row(row: Delivery) -> tuple[str, ...]:
    again = f" (again at {row.not_before.astimezone():%H:%M:%S})" if row.not_before else ""
    return row.address or "(erased)", row.name, str(row.state), row.reason + again, row.id.hex()


def _delivery_json(row: Delivery) -> dict[str, Any]:
    times = {name: getattr(row, name) for name in ("not_before", "handed_at", "settled_at")}
    return {
        "id": row.id.hex(),
        "address": row.address,
        "name": row.name,
        "state": row.state,
        "tries": row.tries,
        "reason": row.reason,
        "provider_id": row.provider_id,
        **{name: moment.isoformat() if moment else None for name, moment in times.items()},
    }


def _tell_left_out(engine: Engine, campaign: Campaign) -> None:
    from newsletter.store import campaigns
    from newsletter.store.engine import read

    target = campaigns.Target(campaign.issue, campaign.period, campaign.list, campaign.kind, campaign.attempt)
    people = read(engine, lambda conn: campaigns.audience(conn, target, None))
    reasons = [
        f"{n} {reason}"
        for reason, n in sorted(people.items())
        if reason not in {"", "already has this issue"}
    ]
    if reasons:
        output.say(f"Left out, as they stand today: {', '.join(reasons)}.")


@click.command(epilog="Example: newsletter pause 2026-12")
@click.argument("slug")
@list_option
@click.pass_obj
def pause(project: Project, slug: str, list_name: str | None) -> None:
    """Stop a campaign for now; what has left stays recorded."""
    from newsletter.store import campaigns

    _steer(project, slug, list_name, "paused", lambda conn, found: campaigns.pause(conn, found.id, "by hand"))


@click.command(epilog="Example: newsletter resume 2026-12")
@click.argument("slug")
@list_option
@click.pass_obj
def resume(project: Project, slug: str, list_name: str | None) -> None:
    """Lift a pause, so that send can go on."""
    from newsletter.store import campaigns

    _steer(project, slug, list_name, "running again", lambda conn, found: campaigns.resume(conn, found.id))
    output.next_steps(f"newsletter send {slug}")


@click.command(epilog="Example: newsletter cancel 2026-12")
@click.argument("slug")
@list_option
@click.confirmation_option(
    prompt="End it for good? Whoever has no copy gets none, and the period stays used."
)
@click.pass_obj
def cancel(project: Project, slug: str, list_name: str | None) -> None:
    """End a campaign for good; waiting copies are skipped."""
    from newsletter.store import campaigns

    now = datetime.now(UTC)
    _steer(project, slug, list_name, "cancelled", lambda conn, found: campaigns.cancel(conn, found.id, now))


def _steer(
    project: Project, slug: str, list_name: str | None, done: str, act: Callable[[Any, Campaign], bool]
) -> None:
    from newsletter.store.engine import write

    settings = project.settings
    engine = project.store
    campaign = _latest(engine, slug, list_name or settings.newsletter.list)
    if not write(engine, lambda conn: act(conn, campaign)):
        raise Refused(f"{campaign.label} is {campaign.state}, so that can't be done.")
    output.say(f"{campaign.label} is {done}: {summary(tally(engine, campaign))}.")

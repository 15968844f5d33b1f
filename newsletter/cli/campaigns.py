"""See and steer campaigns: how far each has come, what happened to every copy, pause, resume, cancel."""

from __future__ import annotations

import sys
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from newsletter.cli import output
from newsletter.errors import Refused, UsageError
from newsletter.model import OPEN_STATES, Campaign, CampaignState, DeliveryState, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from sqlalchemy import Connection, Engine

    from newsletter.cli.main import Project
    from newsletter.model import Delivery

list_option = click.option(
    "--list", "list_name", metavar="NAME", help="The list.  [default: the one in newsletter.toml]"
)
kind_option = click.option(
    "--kind",
    type=click.Choice([Kind.LIVE.value, Kind.REHEARSAL.value]),
    help="Which one, if there are both.",
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
@kind_option
@click.option("--state", type=click.Choice([state.value for state in DeliveryState]), help="Only these.")
@click.option(
    "--format", "form", type=click.Choice(["table", "json", "address"]), default="table", show_default=True
)
@click.pass_obj
def deliveries(
    project: Project, slug: str, list_name: str | None, kind: str | None, state: str | None, form: str
) -> None:
    """Show what happened to every copy of an issue.

    Of the latest campaign of that issue, live before rehearsal. People of the list who were left out have no copy
    and no row; they are counted below the table.
    """
    from newsletter.store import campaigns
    from newsletter.store.engine import read

    engine = project.store
    campaign = _known(project, slug, list_name, kind)[0]
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


def _known(project: Project, slug: str, list_name: str | None, kind: str | None) -> list[Campaign]:
    """The latest campaign of each kind that is asked for, live first; at least one."""
    from newsletter.store import campaigns
    from newsletter.store.engine import read

    list_name = list_name or project.settings.newsletter.list
    kinds = [Kind(kind)] if kind else [Kind.LIVE, Kind.REHEARSAL]
    find = partial(campaigns.find, issue=slug, list_name=list_name)
    found = [read(project.store, partial(find, kind=each)) for each in kinds]
    if not any(found):
        raise UsageError(
            f"no {kind or 'campaign'} of {slug} to the list {list_name} was started.",
            hint="`newsletter status` lists those there are.",
        )
    return [campaign for campaign in found if campaign]


def _delivery_row(row: Delivery) -> tuple[str, ...]:
    again = ""
    if row.not_before and row.state is DeliveryState.PENDING:
        again = f" (again at {row.not_before.astimezone():%H:%M:%S})"
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

    people = read(engine, lambda conn: campaigns.left_out(conn, campaign))
    reasons = [f"{n} {reason or 'joined since'}" for reason, n in sorted(people.items())]
    if reasons:
        output.say(f"Without a copy, as they stand today: {', '.join(reasons)}.")


@click.command(epilog="Example: newsletter pause 2026-12")
@click.argument("slug")
@list_option
@kind_option
@click.pass_obj
def pause(project: Project, slug: str, list_name: str | None, kind: str | None) -> None:
    """Stop a campaign for now; what has left stays recorded."""
    from newsletter.store import campaigns

    campaign = _steerable(project, slug, list_name, kind, {CampaignState.RUNNING})
    _steer(project, campaign, "paused", lambda conn: campaigns.pause(conn, campaign.id, "by hand"))


@click.command(epilog="Example: newsletter resume 2026-12")
@click.argument("slug")
@list_option
@kind_option
@click.pass_obj
def resume(project: Project, slug: str, list_name: str | None, kind: str | None) -> None:
    """Lift a pause, so that send can go on."""
    from newsletter.store import campaigns

    campaign = _steerable(project, slug, list_name, kind, {CampaignState.PAUSED})
    _steer(project, campaign, "running again", lambda conn: campaigns.resume(conn, campaign.id))
    output.next_steps(campaign.send)


@click.command(epilog="Example: newsletter cancel 2026-12")
@click.argument("slug")
@list_option
@kind_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def cancel(project: Project, slug: str, list_name: str | None, kind: str | None, *, yes: bool) -> None:
    """End a campaign for good; waiting copies are skipped."""
    from newsletter.store import campaigns
    from newsletter.store.engine import in_chunks

    campaign = _steerable(project, slug, list_name, kind, {CampaignState.RUNNING, CampaignState.PAUSED})
    if not yes:
        _ask(
            f"End {campaign.label} for good ({summary(tally(project.store, campaign))})? Its period stays used."
        )
    now = datetime.now(UTC)
    _steer(project, campaign, "cancelled", lambda conn: campaigns.cancel(conn, campaign.id, now), tell=False)
    in_chunks(project.store, partial(campaigns.sweep, now=now))
    output.say(f"{campaign.label} is cancelled: {summary(tally(project.store, campaign))}.")


def _ask(question: str) -> None:
    if not sys.stdin.isatty():
        raise Refused("nobody was there to say yes.", hint="If it is right, add --yes.")
    click.confirm(question, abort=True)


def _steerable(
    project: Project, slug: str, list_name: str | None, kind: str | None, states: Collection[CampaignState]
) -> Campaign:
    """The one campaign that is meant. A live one and a rehearsal may stand side by side: then a person says which."""
    known = _known(project, slug, list_name, kind)
    able = [campaign for campaign in known if campaign.state in states]
    if len(able) > 1:
        labels = " and ".join(campaign.label for campaign in able)
        raise UsageError(f"this could be {labels}.", hint="Add --kind live or --kind rehearsal.")
    if not able:
        standing = ", ".join(f"{campaign.label} is {campaign.state}" for campaign in known)
        raise Refused(f"{standing}, so that can't be done.")
    return able[0]


def _steer(
    project: Project, campaign: Campaign, done: str, act: Callable[[Connection], bool], *, tell: bool = True
) -> None:
    from newsletter.store.engine import write

    if not write(project.store, act):
        raise Refused(
            f"{campaign.label} has changed meanwhile.", hint="`newsletter status` shows how it stands."
        )
    if tell:
        output.say(f"{campaign.label} is {done}: {summary(tally(project.store, campaign))}.")

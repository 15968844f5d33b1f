"""See and steer campaigns: how far each has come, what happened to every copy, pause, resume, cancel."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from newsletter.cli import notifying, output
from newsletter.errors import Refused, UsageError
from newsletter.model import OPEN_STATES, Campaign, CampaignState, DeliveryState, Kind, short

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from sqlalchemy import Connection, Engine

    from newsletter.cli.main import Project
    from newsletter.model import Appointment, Delivery
    from newsletter.notices import Editors
    from newsletter.store.owners import Owner

STALLED = timedelta(minutes=15)
"""A sender that stores no answer for so long is reported. It waits for a next try no longer than that."""

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
    ended = [f"{n:,} {state}" for state, n in counts.items() if state not in OPEN_STATES]
    return ", ".join([*ended, *([f"{waiting:,} waiting"] if waiting else [])]) or "no deliveries"


@click.command(epilog="Example: newsletter status 2026-12 --watch")
@click.argument("slug", required=False)
@click.option("--watch", is_flag=True, help="Show it anew every second, until nobody is sending.")
@click.option("--json", "as_json", is_flag=True, help="For scripts; with --watch, one object to a line.")
@click.pass_obj
def status(project: Project, slug: str | None, *, watch: bool, as_json: bool) -> int | None:
    """Show how far each campaign has come."""
    if watch:
        from newsletter.cli import watching

        return watching.watch(project, slug, as_json=as_json)
    rows = look(project, slug)
    if as_json:
        output.print_json([row.as_json() for row in rows])
        return None
    if slug is None:
        from newsletter.cli import dates

        dates.tell_open(project.settings, project.store)
    print_status(rows, records=slug is not None)
    notifying.print_outbox(project.settings, project.store)
    return None


def _print_record(campaign: Campaign) -> None:
    """What was decided about a campaign before it began, and the bytes it was decided about."""
    output.say(f"{campaign.label}: digest {short(campaign.digest)}.")
    if campaign.approvals:
        output.say(f"    approved  {'; '.join(campaign.approvals)}")
    if campaign.override:
        output.say(f"    period    {campaign.period}, a second issue in it because: {campaign.override}")


def print_status(rows: Sequence[Row], *, records: bool = False) -> None:
    """The table, with ``records`` what was decided before each began, and what to do about unknown copies."""
    if not rows:
        output.say("Nothing was sent yet.")
        output.next_steps("newsletter send SLUG --dry-run")
        return
    output.print_table(("campaign", "state", "deliveries", "started"), [row.as_cells() for row in rows])
    for row in rows if records else ():
        _print_record(row.campaign)
    output.next_steps(*(resolve_command(row.campaign) for row in rows if _doubtful(row.counts)))


def look(project: Project, slug: str | None, *, moving: bool = False) -> list[Row]:
    """Every campaign (of an issue), newest first, as it stands; with ``moving`` only those that somebody is sending.

    Raises ``UsageError`` for an issue of which none was started.
    """
    from newsletter.store import campaigns
    from newsletter.store.engine import read

    senders = at_work(project)
    found = read(project.store, lambda conn: campaigns.every(conn, slug))
    if slug and not found:
        raise UsageError(
            f"no campaign of {slug} was started.",
            hint="`newsletter status` lists those there are, `newsletter schedule` the dates to come.",
        )
    now = datetime.now(UTC)
    works = [(campaign, Work.on(campaign, senders, now)) for campaign in found]
    return [_row(project.store, *one, now) for one in works if one[1].senders or not moving]


def _row(engine: Engine, campaign: Campaign, work: Work, now: datetime) -> Row:
    rate = rate_of(engine, campaign, now) if work.senders else None
    return Row(campaign, tally(engine, campaign), work, rate, now)


def rate_of(engine: Engine, campaign: Campaign, now: datetime) -> float | None:
    """Copies per second over the last seconds, as the ledger shows it; None when nothing moves."""
    from newsletter.store import speed
    from newsletter.store.engine import read

    if campaign.state is not CampaignState.RUNNING:
        return None
    return read(engine, lambda conn: speed.recent(conn, campaign.id, now))


def at_work(project: Project) -> list[Owner]:
    from newsletter import wiring
    from newsletter.store import owners

    return owners.at_work(project.store, wiring.lock_path(project.settings))


def _doubtful(counts: Mapping[DeliveryState, int]) -> bool:
    return counts.get(DeliveryState.UNKNOWN, 0) > 0


def resolve_command(campaign: Campaign) -> str:
    """The command that lists a campaign's unknown copies and says what can be done."""
    return f"newsletter resolve {campaign.arguments}"


@dataclass(frozen=True, slots=True)
class Work:
    """Who is at work on a campaign, and since when nothing has come of it."""

    senders: Sequence[Owner]
    stalled_since: datetime | None = None

    @classmethod
    def on(cls, campaign: Campaign, living: Sequence[Owner], now: datetime) -> Work:
        """Of all living senders, those of this campaign. One that freezes has not written down which it sends."""
        undecided = campaign.state is CampaignState.PREPARING
        theirs = [
            one for one in living if one.campaign_id == campaign.id or (undecided and one.campaign_id is None)
        ]
        last = max((one.settled_at or one.started_at for one in theirs), default=now)
        waits = campaign.canary_until is not None and campaign.canary_until > now
        stalled = campaign.state is CampaignState.RUNNING and now - last >= STALLED and not waits
        return cls(theirs, last if stalled else None)


def standing(campaign: Campaign, work: Work) -> str:
    """The state as it is: a campaign that nobody sends does not look as if somebody did."""
    if campaign.state is CampaignState.PREPARING:
        return f"preparing: {_preparing(campaign, work)}"
    if campaign.state is CampaignState.RUNNING:
        return f"running: {_canary(campaign)}{_running(campaign, work)}"
    return f"{campaign.state}: {campaign.reason}" if campaign.reason else str(campaign.state)


def _preparing(campaign: Campaign, work: Work) -> str:
    if work.senders:
        return f"is being frozen by {_names(work.senders)}; nothing has left"
    return f"the freeze was cut off and nothing has left; `{campaign.send}` goes on with it"


def _canary(campaign: Campaign) -> str:
    """``canary of 10, the rest leaves at 10:05; ``, while there is one."""
    from newsletter.sending import local_time

    if campaign.canary_copies is None:
        return ""
    if campaign.canary_until is None:
        return f"canary of {campaign.canary_copies:,}, the rest waits for its answers; "
    when = local_time(campaign.canary_until, datetime.now(UTC))
    return f"canary of {campaign.canary_copies:,}, the rest leaves at {when}; "


def _running(campaign: Campaign, work: Work) -> str:
    if not work.senders:
        return f"nobody is sending it; `{campaign.send}` goes on"
    who = f"sent by {_names(work.senders)}"
    if work.stalled_since is None:
        return who
    return f"{who}; no progress since {work.stalled_since.astimezone():%Y-%m-%d %H:%M}"


def _names(senders: Sequence[Owner]) -> str:
    return " and ".join(one.name for one in senders)


def left_behind(counts: Mapping[DeliveryState, int]) -> str:
    """Handed over by a process that is no more: they wait for nothing, and the next start will call them unknown."""
    number = counts.get(DeliveryState.HANDED, 0)
    return f" ({number} of them in doubt)" if number else ""


@dataclass(frozen=True, slots=True)
class Row:
    """A campaign, as ``status`` shows it."""

    campaign: Campaign
    counts: Mapping[DeliveryState, int]
    work: Work
    rate: float | None  # copies per second, while it is being sent
    seen_at: datetime

    @property
    def left(self) -> int:
        """Rows that are not at their end."""
        return sum(self.counts.get(state, 0) for state in OPEN_STATES)

    @property
    def estimate(self) -> datetime | None:
        """When it would be done at this speed."""
        return self.seen_at + timedelta(seconds=self.left / self.rate) if self.rate else None

    def as_cells(self) -> tuple[str, ...]:
        """For the table."""
        campaign, doubt = self.campaign, "" if self.work.senders else left_behind(self.counts)
        started = f"{campaign.started_at.astimezone():%Y-%m-%d %H:%M}" if campaign.started_at else ""
        return campaign.label, standing(campaign, self.work), summary(self.counts) + doubt, started

    def as_json(self) -> dict[str, Any]:
        """For scripts."""
        campaign, work = self.campaign, self.work
        return {
            "issue": campaign.issue,
            "list": campaign.list,
            "period": campaign.period,
            "kind": campaign.kind,
            "attempt": campaign.attempt,
            "state": campaign.state,
            "reason": campaign.reason,
            "transport": campaign.transport,
            "canary": campaign.canary_copies
            and {
                "copies": campaign.canary_copies,
                **times(campaign, "canary_until"),
            },
            "digest": campaign.digest,
            "approvals": campaign.approvals,
            "override": campaign.override,
            **times(campaign, "created_at", "started_at", "finished_at"),
            "deliveries": {state.value: self.counts.get(state, 0) for state in DeliveryState},
            "left": self.left,
            "rate": round(self.rate, 3) if self.rate else None,
            **times(self, "estimate", "seen_at"),
            "senders": [
                {"name": one.name, "way": one.way, **times(one, "started_at", "seen_at", "settled_at")}
                for one in work.senders
            ],
            "stalled_since": work.stalled_since.isoformat() if work.stalled_since else None,
        }


def times(holder: object, *names: str) -> dict[str, str | None]:
    """Moments as ISO 8601, for JSON."""
    moments = {name: getattr(holder, name) for name in names}
    return {name: moment.isoformat() if moment else None for name, moment in moments.items()}


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
    from newsletter.cli import streaming

    engine = project.store
    campaign = latest(project, slug, list_name, kind)[0]
    wanted = DeliveryState(state) if state else None
    rows = _deliveries(engine, campaign, wanted)
    if form == "json":
        streaming.print_json_array(map(_delivery_json, rows))
    elif form == "address":
        streaming.print_lines(row.address for row in rows)
    else:
        counts = tally(engine, campaign)
        output.say(f"{campaign.label}: {summary(_only(counts, wanted))}")
        streaming.print_table(("address", "name", "state", "why", "copy"), map(_delivery_row, rows))
        _tell_left_out(engine, campaign)
        if _doubtful(counts):
            output.next_steps(resolve_command(campaign))


def _deliveries(engine: Engine, campaign: Campaign, state: DeliveryState | None) -> Iterator[Delivery]:
    """Row after row, a short read for each page, for whoever prints slowly.

    One read around all of them would show one moment, and would keep the write-ahead log growing for as long as a
    person scrolls. So each row is true at the moment its page was read. None is missing and none stands twice,
    because a row keeps its place; with a state asked for, one that changes meanwhile may be in or out.
    """
    from newsletter.store import listing
    from newsletter.store.engine import read

    after = 0
    while True:
        rows, after = read(engine, partial(listing.page, campaign_id=campaign.id, state=state, after=after))
        if not rows:
            return
        yield from rows


def _only(counts: Mapping[DeliveryState, int], state: DeliveryState | None) -> Mapping[DeliveryState, int]:
    return counts if state is None else {state: counts[state]} if state in counts else {}


def latest(project: Project, slug: str, list_name: str | None, kind: str | None) -> list[Campaign]:
    """The latest campaign of each kind that is asked for, live first; at least one."""
    found = _known(project, slug, list_name, kind)
    if not found:
        what, where = (
            f"{kind} campaign" if kind else "campaign",
            list_name or project.settings.newsletter.list,
        )
        raise UsageError(
            f"no {what} of {slug} to the list {where} was started.",
            hint="`newsletter status` lists those there are.",
        )
    return found


def _known(project: Project, slug: str, list_name: str | None, kind: str | None) -> list[Campaign]:
    from newsletter.store import campaigns
    from newsletter.store.engine import read

    kinds = [Kind(kind)] if kind else [Kind.LIVE, Kind.REHEARSAL]
    find = partial(campaigns.find, issue=slug, list_name=list_name or project.settings.newsletter.list)
    found = [read(project.store, partial(find, kind=each)) for each in kinds]
    return [campaign for campaign in found if campaign]


def _delivery_row(row: Delivery) -> tuple[str, ...]:
    again = ""
    if row.not_before and row.state is DeliveryState.PENDING:
        again = f" (again at {row.not_before.astimezone():%H:%M:%S})"
    return row.address or "(erased)", row.name, str(row.state), row.reason + again, row.id.hex()


def _delivery_json(row: Delivery) -> dict[str, Any]:
    return {
        "id": row.id.hex(),
        "address": row.address,
        "name": row.name,
        "state": row.state,
        "tries": row.tries,
        "reason": row.reason,
        "provider_id": row.provider_id,
        "edition": row.edition,
        **times(row, "not_before", "handed_at", "settled_at"),
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
    output.next_steps(f"newsletter resume {campaign.arguments}")


@click.command(epilog="Example: newsletter resume 2026-12")
@click.argument("slug")
@list_option
@kind_option
@click.pass_obj
def resume(project: Project, slug: str, list_name: str | None, kind: str | None) -> None:
    """Lift a pause, so that send can go on.

    Copies that wait for a later try are due at once: whoever resumes has mended what they wait for.
    """
    from newsletter.store import campaigns
    from newsletter.store.engine import in_chunks

    campaign = _steerable(project, slug, list_name, kind, {CampaignState.PAUSED})
    in_chunks(project.store, lambda conn: campaigns.hurry(conn, campaign.id))
    _steer(project, campaign, "running again", lambda conn: campaigns.resume(conn, campaign.id))
    output.next_steps(campaign.send)


@click.command(epilog="Example: newsletter cancel 2026-12")
@click.argument("slug")
@list_option
@kind_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def cancel(project: Project, slug: str, list_name: str | None, kind: str | None, *, yes: bool) -> None:
    """End a campaign for good; waiting copies are skipped.

    One that waits for its date has not begun: it does not go out by itself any more.
    """
    from newsletter import freezing, wiring
    from newsletter.cli import dates
    from newsletter.store import campaigns
    from newsletter.store.engine import in_chunks

    able = {CampaignState.RUNNING, CampaignState.PAUSED, CampaignState.PREPARING}
    waiting = dates.open_appointments(project, slug, list_name or project.settings.newsletter.list, kind)
    if waiting:
        begun = [one for one in _known(project, slug, list_name, kind) if one.state in able]
        _refuse_two_kinds([*waiting, *begun])
        dates.take_back(project.store, waiting[0])
        return
    campaign = _steerable(project, slug, list_name, kind, able)
    if not yes:
        ask(
            f"End {campaign.label} for good ({summary(tally(project.store, campaign))})? Its period stays used."
        )
    if campaign.state is CampaignState.PREPARING:
        if at_work(project) or not freezing.remove(project.store, campaign):
            raise Refused(
                f"{campaign.label} is being frozen by a living process.", hint="Stop that one first."
            )
        output.say(f"{campaign.label} is taken away; nothing of it had left, and its period is free.")
        return
    now = datetime.now(UTC)
    act = partial(_cancel, campaign=campaign, editors=wiring.editors(project.settings), now=now)
    _steer(project, campaign, "cancelled", act, tell=False)
    in_chunks(project.store, partial(campaigns.sweep, now=now))
    notifying.tell_editors(project.settings, project.store)
    output.say(f"{campaign.label} is cancelled: {summary(tally(project.store, campaign))}.")


def _cancel(conn: Connection, campaign: Campaign, editors: Editors, now: datetime) -> bool:
    from newsletter import notices
    from newsletter.store import campaigns

    done = campaigns.cancel(conn, campaign.id, now)
    if done:
        notices.tell_doubts(conn, editors, campaigns.get(conn, campaign.id), now)
    return done


def ask(question: str) -> None:
    """A yes or no on a terminal. Raises ``Refused`` where there is none."""
    if not sys.stdin.isatty():
        raise Refused("nobody was there to say yes.", hint="If it is right, add --yes.")
    click.confirm(question, abort=True)


def _steerable(
    project: Project, slug: str, list_name: str | None, kind: str | None, states: Collection[CampaignState]
) -> Campaign:
    """The one campaign that is meant. A live one and a rehearsal may stand side by side: then a person says which."""
    known = latest(project, slug, list_name, kind)
    able = [campaign for campaign in known if campaign.state in states]
    _refuse_two_kinds(able)
    if not able:
        states_now = ", ".join(f"{campaign.label} is {campaign.state}" for campaign in known)
        raise Refused(f"{states_now}, so that can't be done.")
    return able[0]


def _refuse_two_kinds(meant: Sequence[Campaign | Appointment]) -> None:
    if len({one.kind for one in meant}) > 1:
        labels = " and ".join(one.label for one in meant)
        raise UsageError(f"this could be {labels}.", hint="Add --kind live or --kind rehearsal.")


def _steer(
    project: Project, campaign: Campaign, done: str, act: Callable[[Connection], bool], *, tell: bool = True
) -> None:
    import logging

    from newsletter.cli import logs
    from newsletter.store.engine import write

    logs.set_up(project.settings, quiet=True)

    if not write(project.store, act):
        raise Refused(
            f"{campaign.label} has changed meanwhile.", hint="`newsletter status` shows how it stands."
        )
    event = "campaign resumed" if done.startswith("running") else f"campaign {done} by hand"
    logging.getLogger(__name__).info(event, extra={"facts": campaign.facts})
    if tell:
        output.say(f"{campaign.label} is {done}: {summary(tally(project.store, campaign))}.")

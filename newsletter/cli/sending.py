"""Send an issue to a list, and say how it ended."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import click

from newsletter.cli import output
from newsletter.cli.campaigns import list_option, summary, tally
from newsletter.errors import ChecksFailed, Occupied, Refused, Unfinished, UnknownDeliveries, UsageError
from newsletter.model import Campaign, CampaignState, DeliveryState, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy import Engine

    from newsletter.cli.main import Project
    from newsletter.config import Settings
    from newsletter.freezing import Plan
    from newsletter.message import MessageSettings
    from newsletter.model import Email
    from newsletter.recovery import Recovered
    from newsletter.sending import Conduct

COUNTDOWN_SECONDS = 10
PREPARING_SECONDS = 0.2  # between two looks at a campaign that another process prepares


@dataclass(frozen=True, slots=True)
class Order:
    """What a person asked for, and where."""

    settings: Settings
    engine: Engine
    slug: str
    list: str
    kind: Kind
    confirm: int | None
    again: bool


@click.command(epilog="Example: newsletter send 2026-12 --dry-run")
@click.argument("slug")
@list_option
@click.option(
    "--confirm",
    type=click.IntRange(min=0),
    metavar="N",
    help="Yes, to N recipients; without it you are asked.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option("--again", is_flag=True, help="Repeat a rehearsal that has ended.")
@click.pass_obj
def send(
    project: Project, slug: str, list_name: str | None, confirm: int | None, *, dry_run: bool, again: bool
) -> None:
    """Send an issue to a list, or go on where it stopped.

    Prints who would get it and asks for the number of recipients before anything leaves. A campaign that stopped
    before its end goes on with those who have no copy yet; one that has ended reaches nobody again.
    """
    from newsletter import recovery, sending, wiring

    settings = project.settings
    list_name = list_name or settings.newsletter.list
    order = Order(settings, project.store, slug, list_name, wiring.kind(settings), confirm, again)
    if dry_run:
        _dry_run(order)
        return
    recovery.check_clock(order.engine, datetime.now(UTC))
    campaign = sending.begun(order.engine, slug, list_name, order.kind, again=again)
    if campaign is not None and campaign.state is CampaignState.FINISHED:
        _tell_sent_before(order.engine, campaign)
        return
    ready = None if campaign else _prepare_unless_begun(order)
    try:
        _send(order, ready)
    except Occupied as busy:
        _follow(order, busy)


def _send(order: Order, ready: Ready | None) -> None:
    """As this process's own work, from here on under the lock."""
    from newsletter import recovery, wiring
    from newsletter.store import owners
    from newsletter.store.engine import write

    lock_path, way = wiring.lock_path(order.settings), _way_out(order.settings, order.slug)
    owner = owners.own(order.engine, lock_path, name=wiring.whoami(), way=way, clock=utc_now)
    with owner as mine:
        _tell_recovered(recovery.recover(order.engine, mine, utc_now()))
        campaign = _begin_or_go_on(order, ready, mine)
        if campaign.state is CampaignState.FINISHED:  # while we waited for a person's word
            _tell_sent_before(order.engine, campaign)
            return
        write(order.engine, lambda conn: owners.takes(conn, mine, campaign.id))
        _run(order, campaign, mine)


def _begin_or_go_on(order: Order, ready: Ready | None, mine: str) -> Campaign:
    from newsletter import freezing, recovery, sending

    told = False
    while (
        campaign := sending.begun(order.engine, order.slug, order.list, order.kind, again=order.again)
    ) is None:
        ready = ready or _prepare(order)
        try:
            return _freeze(order, ready, mine)
        except freezing.InPreparation as busy:  # only where several can send: then this one joins in
            if not told:
                output.say(f"{str(busy)[0].upper()}{str(busy)[1:]} This one joins in as soon as it can.")
            told = True
            time.sleep(PREPARING_SECONDS)
            recovery.recover(order.engine, mine, utc_now())
    if campaign.state is not CampaignState.FINISHED:
        _check_going_on(order, campaign)
        output.say(f"Going on with {campaign.label}: {summary(tally(order.engine, campaign))}.")
    return campaign


def _follow(order: Order, busy: Occupied) -> None:
    """Another process is at it: shows how far it is, and ends as that one does."""
    from newsletter import wiring
    from newsletter.cli import following
    from newsletter.store import campaigns

    find = partial(campaigns.find, issue=order.slug, list_name=order.list, kind=order.kind)
    campaign = following.until_it_ends(order.engine, wiring.lock_path(order.settings), find, busy)
    _report(order, campaign, stopped=False)


def _dry_run(order: Order) -> None:
    from newsletter import sending

    campaign = sending.begun(order.engine, order.slug, order.list, order.kind, again=order.again)
    if campaign is None:
        planned = _plan(order)[0]
        _refuse_nobody(order, planned)
        output.next_steps(f"newsletter send {order.slug} --list {order.list} --confirm {planned.recipients}")
    elif campaign.state is CampaignState.FINISHED:
        _tell_sent_before(order.engine, campaign)
    else:
        output.say(f"{campaign.label} has begun: {summary(tally(order.engine, campaign))}.")
        output.next_steps(campaign.send)


def _plan(order: Order) -> tuple[Plan, Email]:
    """What would be sent now, printed."""
    from newsletter import checks, freezing, subscriptions, wiring
    from newsletter.store.campaigns import Target

    subscriptions.check_list(order.engine, order.list)
    issue, email = wiring.compile_issue(order.settings, order.slug)
    errors = checks.errors(wiring.findings(order.settings, issue, email))
    if errors:
        hint = (
            f"`newsletter check {order.slug}` shows all. Mend them, or waive one with a reason in issue.toml."
        )
        raise ChecksFailed(f"{issue.folder} must not be sent as it is.", errors, hint=hint)
    target = Target(issue=order.slug, period=issue.period, list=order.list, kind=order.kind)
    planned = freezing.plan(order.engine, target, only=wiring.only(order.settings))
    _print_plan(order.settings, planned, email)
    return planned, email


def _print_plan(settings: Settings, planned: Plan, email: Email) -> None:
    from newsletter import merge

    target = planned.target
    left_out = ", ".join(f"{n} {reason}" for reason, n in sorted(planned.left_out.items()))
    now = datetime.now(UTC)
    rows = [
        ("issue", f"{target.issue}, attempt {target.attempt}" if target.attempt > 1 else target.issue),
        ("subject", merge.fill(merge.split(email.subject), {})),
        ("from", f"{settings.newsletter.name} <{settings.newsletter.from_}>"),
        ("through", _way_out(settings, target.issue)),
        ("kind", DESCRIBED[target.kind]),
        ("to", f"list {target.list}: {output.plural(planned.recipients, 'recipient')}"),
        ("left out", left_out or "nobody"),
        ("now", f"{now.astimezone():%A %d %B %Y %H:%M %Z}  ({now:%Y-%m-%d %H:%M} UTC)"),
    ]
    for label, value in rows:
        output.say(f"{label:>10}  {value}")


DESCRIBED = {
    Kind.LIVE: "LIVE: real people get this",
    Kind.REHEARSAL: "REHEARSAL: takes no period, stops no live campaign",
}


def _way_out(settings: Settings, slug: str) -> str:
    from newsletter import wiring

    match settings.sending.transport:
        case "folder":
            return f"folder {wiring.outbox(settings, slug)}"
        case "smtp":
            return f"smtp {settings.smtp.host}:{settings.smtp.port}"
        case _:
            return f"sendgrid {settings.sendgrid.url}"


@dataclass(frozen=True, slots=True)
class Ready:
    """A plan that a person has said yes to, and the bytes it is about."""

    plan: Plan
    email: Email


def _prepare(order: Order) -> Ready:
    """Asks for everything that can be missing before a campaign exists: a frozen one has taken its period."""
    from newsletter import hosting, wiring

    planned, email = _plan(order)
    _refuse_nobody(order, planned)
    wiring.transport(order.settings, order.slug)
    message = wiring.message_settings(order.settings, utc_now())
    _check_message(email, message)
    hosting.verify(email, message)
    _confirm(planned.recipients, order.confirm)
    if order.settings.sending.transport != "folder":
        _count_down()
    return Ready(planned, email)


def _prepare_unless_begun(order: Order) -> Ready | None:
    """None when another process has begun this very campaign meanwhile: two that start at once are one send."""
    from newsletter import sending

    try:
        return _prepare(order)
    except Refused:
        if sending.begun(order.engine, order.slug, order.list, order.kind, again=order.again) is None:
            raise
        return None


def _freeze(order: Order, ready: Ready, mine: str) -> Campaign:
    from newsletter import freezing, wiring

    now = utc_now()
    message = wiring.message_settings(order.settings, now)
    transport = order.settings.sending.transport
    return freezing.freeze(
        order.engine, ready.plan, ready.email, message, transport=transport, now=now, owner=mine
    )


def utc_now() -> datetime:
    """The present."""
    return datetime.now(UTC)


def _refuse_nobody(order: Order, planned: Plan) -> None:
    if planned.recipients:
        return
    hint = "`newsletter lists` shows who is on which list; `newsletter subscribers import` brings people."
    if planned.only is not None:
        hint = (
            "Only addresses in `allowlist` under [sending] that are on the list too get a copy in this mode."
        )
    raise Refused(f"nobody on the list {order.list} would get this issue.", hint=hint)


def _check_message(email: Email, message: MessageSettings) -> None:
    from newsletter.message import Wire

    try:
        Wire(email, message)
    except ValueError as error:
        raise UsageError(f"no message can be made of this: {error}.") from error


def _confirm(recipients: int, confirm: int | None) -> None:
    if confirm is None and sys.stdin.isatty():
        confirm = click.prompt("Type the number of recipients to send", type=int)
    if confirm is None:
        raise Refused(
            "nobody was there to confirm the number of recipients.",
            hint=f"If it is right, run the same command with --confirm {recipients}.",
        )
    if confirm != recipients:
        raise Refused(
            f"you confirmed {confirm}, and {recipients} would get it. Nothing was sent.",
            hint="Read the plan once more; somebody may have joined or left meanwhile.",
        )


def _count_down() -> None:
    if not sys.stdout.isatty():
        return
    for left in range(COUNTDOWN_SECONDS, 0, -1):
        click.echo(f"\rLeaving in {left:2} s. Ctrl-C stops; nothing has left. ", nl=False)
        time.sleep(1)
    click.echo()


def _check_going_on(order: Order, campaign: Campaign) -> None:
    rows = sum(tally(order.engine, campaign).values())
    if order.confirm is not None and order.confirm != rows:
        raise Refused(
            f"you confirmed {order.confirm}, and {campaign.label} has {rows} deliveries. Nothing was sent."
        )
    way = order.settings.sending.transport
    if campaign.transport != way:
        raise Refused(
            f"{campaign.label} was started through {campaign.transport}, not {way}.",
            hint=f'Set `transport = "{campaign.transport}"`, or end it: `newsletter cancel {campaign.arguments}`.',
        )


def _run(order: Order, campaign: Campaign, mine: str) -> None:
    from newsletter import sending, wiring
    from newsletter.desk import SystemClock
    from newsletter.message import MessageSettings, Wire
    from newsletter.store import campaigns
    from newsletter.store.engine import read

    settings = order.settings
    email, message = read(order.engine, lambda conn: campaigns.load_email(conn, campaign.id))
    wire = Wire(email, MessageSettings.from_dict(message))
    clock = SystemClock()
    conduct = sending.Conduct(
        sign=wiring.signer(settings),
        retry=settings.sending.retry,
        owner=mine,
        only=wiring.only(settings),
        clock=clock,
        notice=output.say,
    )
    with _stop_gracefully(conduct, clock.stop):
        ended = sending.run(order.engine, campaign, wiring.transport(settings, campaign.issue), wire, conduct)
    _report(order, ended, stopped=conduct.stopping.is_set())


@contextmanager
def _stop_gracefully(conduct: Conduct, stop_waiting: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) lets copies in flight be settled; the second one ends the process at once."""

    def stop(_signal: int, _frame: object) -> None:
        conduct.stopping.set()
        stop_waiting()
        restore()
        # Speaking comes last and may fail: in `send | tee log` the same Ctrl-C has ended tee, or a line is half out.
        with suppress(OSError, RuntimeError):
            output.say("\nStopping: copies in flight are being settled. Ctrl-C again ends at once.")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        yield
    finally:
        restore()


def _report(order: Order, campaign: Campaign, *, stopped: bool) -> None:
    counts = tally(order.engine, campaign)
    so_far = summary(counts)
    if campaign.state is CampaignState.FINISHED:
        _tell_finished(order, campaign)
        return
    if campaign.state is CampaignState.PAUSED:
        hint = f"When that is mended: `newsletter resume {campaign.arguments}`, then `{campaign.send}`."
        raise Unfinished(f"{campaign.label} is paused: {campaign.reason}\n{so_far}.", hint=hint)
    if campaign.state is CampaignState.CANCELLED:
        _raise_unknown(campaign, counts)
        raise Refused(f"{campaign.label} was cancelled while it was being sent: {so_far}.")
    why = (
        "was stopped as you asked" if stopped else f"waits for its next try, {_when(order.engine, campaign)}"
    )
    raise Unfinished(
        f"{campaign.label} {why}: {so_far}.",
        hint=f"`{campaign.send}` goes on with those who have no copy yet.",
    )


def _when(engine: Engine, campaign: Campaign) -> str:
    from newsletter.store import ledger
    from newsletter.store.engine import read

    due = read(engine, lambda conn: ledger.next_due(conn, campaign.id))
    if due is None or due <= datetime.now(UTC):
        return "due now"
    return f"due {due.astimezone():%Y-%m-%d %H:%M:%S}"


def _tell_finished(order: Order, campaign: Campaign) -> None:
    from newsletter import wiring

    counts = tally(order.engine, campaign)
    output.say(f"{campaign.label} is finished: {summary(counts)}.")
    if campaign.transport == "folder":
        output.say(f"The copies are in {wiring.outbox(order.settings, campaign.issue)}")
    output.next_steps(f"newsletter deliveries {campaign.arguments}")
    _raise_unknown(campaign, counts)


def _tell_sent_before(engine: Engine, campaign: Campaign) -> None:
    counts = tally(engine, campaign)
    when = f" on {campaign.finished_at.astimezone():%Y-%m-%d %H:%M}" if campaign.finished_at else ""
    output.say(f"{campaign.label} was sent before{when}, and nobody gets it twice: {summary(counts)}.")
    if campaign.kind is Kind.REHEARSAL:
        output.next_steps(f"{campaign.send} --again repeats the rehearsal")
    _raise_unknown(campaign, counts)


def _raise_unknown(campaign: Campaign, counts: Mapping[DeliveryState, int]) -> None:
    if number := counts.get(DeliveryState.UNKNOWN, 0):
        raise UnknownDeliveries(
            f"nobody can say whether {'1 copy' if number == 1 else f'{number} copies'} arrived.",
            hint="They are not sent again by themselves. "
            f"`newsletter resolve {campaign.arguments}` lists them and says what you can do.",
        )


def _tell_recovered(found: Recovered) -> None:
    if found.unknown:
        output.warn(
            f"the last sending process died with {found.unknown} copies handed over: they are unknown now."
        )

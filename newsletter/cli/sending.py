"""Send, and say what happened to every copy."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from newsletter.cli import output
from newsletter.cli.campaigns import list_option, summary, tally
from newsletter.errors import ChecksFailed, Refused, Unfinished, UnknownDeliveries, UsageError
from newsletter.model import (
    Accepted,
    Campaign,
    CampaignState,
    DeliveryState,
    Kind,
    NotTaken,
    Recipient,
    Unknown,
)
from newsletter.model import Refused as RefusedCopy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

    from newsletter.cli.main import Project
    from newsletter.config import Settings
    from newsletter.model import Email, Outcome
    from newsletter.sending import Conduct, Plan

COUNTDOWN_SECONDS = 10
SAID = {Accepted: "accepted", RefusedCopy: "refused", NotTaken: "not taken", Unknown: "unknown"}


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
    from newsletter.store import lock

    settings = project.settings
    list_name = list_name or settings.newsletter.list
    kind = wiring.kind(settings)
    engine = project.store
    if dry_run:
        _dry_run(engine, settings, slug, list_name, kind, again=again)
        return
    with lock.hold(wiring.lock_path(settings), wiring.whoami()):
        _tell_recovered(recovery.recover(engine, datetime.now(UTC)))
        campaign = sending.begun(engine, slug, list_name, kind, again=again)
        if campaign is None:
            campaign = _begin(engine, settings, slug, list_name, kind, confirm)
        elif campaign.state is CampaignState.FINISHED:
            _report_finished(engine, campaign, already=True)
            return
        else:
            _go_on(engine, settings, campaign, confirm)
        _run(engine, settings, campaign)


def _dry_run(
    engine: Engine, settings: Settings, slug: str, list_name: str, kind: Kind, *, again: bool
) -> None:
    from newsletter import sending

    campaign = sending.begun(engine, slug, list_name, kind, again=again)
    if campaign is None:
        planned, email = _plan(engine, settings, slug, list_name, kind)
        _print_plan(settings, planned, email)
        output.next_steps(f"newsletter send {slug} --confirm {planned.recipients}")
    elif campaign.state is CampaignState.FINISHED:
        _report_finished(engine, campaign, already=True)
    else:
        output.say(f"{campaign.label} has begun: {summary(tally(engine, campaign))}.")
        output.next_steps(f"newsletter send {slug}")


def _plan(engine: Engine, settings: Settings, slug: str, list_name: str, kind: Kind) -> tuple[Plan, Email]:
    from newsletter import checks, sending, wiring
    from newsletter.store.campaigns import Target

    issue, email = wiring.compile_issue(settings, slug)
    errors = checks.errors(wiring.findings(settings, issue, email))
    if errors:
        hint = f"`newsletter check {slug}` shows all. Mend them, or waive one with a reason in issue.toml."
        raise ChecksFailed(f"{issue.folder} must not be sent as it is.", errors, hint=hint)
    target = Target(issue=slug, period=issue.period, list=list_name, kind=kind)
    return sending.plan(engine, target, only=wiring.only(settings)), email


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
        ("kind", _describe(target.kind)),
        ("to", f"list {target.list}: {output.plural(planned.recipients, 'recipient')}"),
        ("left out", left_out or "nobody"),
        ("now", f"{now.astimezone():%A %d %B %Y %H:%M %Z}  ({now:%Y-%m-%d %H:%M} UTC)"),
    ]
    for label, value in rows:
        output.say(f"{label:>10}  {value}")


def _way_out(settings: Settings, slug: str) -> str:
    from newsletter import wiring

    match settings.sending.transport:
        case "folder":
            return f"folder {wiring.outbox(settings, slug)}"
        case "smtp":
            return f"smtp {settings.smtp.host}:{settings.smtp.port}"
        case _:
            return f"sendgrid {settings.sendgrid.url}"


def _describe(kind: Kind) -> str:
    return (
        "LIVE: real people get this"
        if kind is Kind.LIVE
        else "REHEARSAL: takes no period, stops no live campaign"
    )


def _begin(
    engine: Engine, settings: Settings, slug: str, list_name: str, kind: Kind, confirm: int | None
) -> Campaign:
    from newsletter import hosting, sending, wiring

    planned, email = _plan(engine, settings, slug, list_name, kind)
    _print_plan(settings, planned, email)
    if not planned.recipients:
        hint = "`newsletter lists` shows who is on which list; `newsletter subscribers import` brings people."
        raise Refused(f"nobody on the list {list_name} would get this issue.", hint=hint)
    now = datetime.now(UTC)
    message = wiring.message_settings(settings, now)
    hosting.verify(email, message)
    _confirm(planned.recipients, confirm)
    if settings.sending.transport != "folder":
        _count_down()
    return sending.freeze(engine, planned, email, message, transport=settings.sending.transport, now=now)


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


def _go_on(engine: Engine, settings: Settings, campaign: Campaign, confirm: int | None) -> None:
    rows = sum(tally(engine, campaign).values())
    if confirm is not None and confirm != rows:
        raise Refused(
            f"you confirmed {confirm}, and {campaign.label} has {rows} deliveries. Nothing was sent."
        )
    if campaign.transport != settings.sending.transport:
        raise Refused(
            f"{campaign.label} was started through {campaign.transport}, not {settings.sending.transport}.",
            hint=f'Set `transport = "{campaign.transport}"` again, or end it: `newsletter cancel {campaign.issue}`.',
        )
    output.say(f"Going on with {campaign.label}: {summary(tally(engine, campaign))}.")


def _run(engine: Engine, settings: Settings, campaign: Campaign) -> None:
    from newsletter import sending, wiring
    from newsletter.desk import SystemClock
    from newsletter.message import MessageSettings, Wire
    from newsletter.store import campaigns
    from newsletter.store.engine import read

    email, message = read(engine, lambda conn: campaigns.load_email(conn, campaign.id))
    wire = Wire(email, MessageSettings.from_dict(message))
    clock = SystemClock()
    conduct = sending.Conduct(
        sign=wiring.signer(settings),
        retry=settings.sending.retry,
        only=wiring.only(settings),
        clock=clock,
        notice=output.say,
    )
    with _stop_gracefully(conduct, clock.stop):
        ended = sending.run(engine, campaign, wiring.transport(settings, campaign.issue), wire, conduct)
    _report(engine, settings, ended, stopped=conduct.stopping.is_set())


@contextmanager
def _stop_gracefully(conduct: Conduct, stop_waiting: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) lets copies in flight be settled; the second one ends the process at once."""

    def stop(_signal: int, _frame: object) -> None:
        output.say("\nStopping: copies in flight are being settled. Ctrl-C again ends at once.")
        conduct.stopping.set()
        stop_waiting()
        restore()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        yield
    finally:
        restore()


def _report(engine: Engine, settings: Settings, campaign: Campaign, *, stopped: bool) -> None:
    if campaign.state is CampaignState.FINISHED:
        _report_finished(engine, campaign)
        if campaign.transport == "folder":
            from newsletter import wiring

            output.say(f"The copies are in {wiring.outbox(settings, campaign.issue)}")
        output.next_steps(f"newsletter deliveries {campaign.issue}")
        return
    so_far = summary(tally(engine, campaign))
    if campaign.state is CampaignState.PAUSED:
        hint = f"When that is mended: `newsletter resume {campaign.issue}`, then `newsletter send {campaign.issue}`."
        raise Unfinished(f"{campaign.label} is paused: {campaign.reason}\n{so_far}.", hint=hint)
    if campaign.state is CampaignState.CANCELLED:
        raise Refused(f"{campaign.label} was cancelled while it was being sent: {so_far}.")
    why = "was stopped as you asked" if stopped else f"waits for its next try, {_when(engine, campaign)}"
    go_on = f"`newsletter send {campaign.issue}` goes on with those who have no copy yet."
    raise Unfinished(f"{campaign.label} {why}: {so_far}.", hint=go_on)


def _when(engine: Engine, campaign: Campaign) -> str:
    from newsletter.store import ledger
    from newsletter.store.engine import read

    due = read(engine, lambda conn: ledger.next_due(conn, campaign.id))
    return f"due {due.astimezone():%Y-%m-%d %H:%M:%S}" if due else "due now"


def _report_finished(engine: Engine, campaign: Campaign, *, already: bool = False) -> None:
    counts = tally(engine, campaign)
    when = f" on {campaign.finished_at.astimezone():%Y-%m-%d %H:%M}" if campaign.finished_at else ""
    done = f"was sent before{when}, and nobody gets it twice" if already else "is finished"
    output.say(f"{campaign.label} {done}: {summary(counts)}.")
    if already and campaign.kind is Kind.REHEARSAL:
        output.next_steps(f"newsletter send {campaign.issue} --again repeats the rehearsal")
    if counts.get(DeliveryState.UNKNOWN):
        raise UnknownDeliveries(
            f"of {counts[DeliveryState.UNKNOWN]} copies nobody can say whether they arrived.",
            hint=f"`newsletter deliveries {campaign.issue} --state unknown` names them. They are not sent again.",
        )


def _tell_recovered(found: Any) -> None:
    if found.unknown:
        output.warn(
            f"the last sending process died with {found.unknown} copies handed over: they are unknown now."
        )


@click.command(epilog="Example: newsletter proof 2026-12 --to me@example.org")
@click.argument("slug")
@click.option(
    "--to", "to", required=True, multiple=True, metavar="ADDRESS", help="Where it goes; may be given again."
)
@click.option("--name", default="", help="The name to greet.  [default: none, so that fallbacks show]")
@click.pass_obj
def proof(project: Project, slug: str, to: tuple[str, ...], name: str) -> None:
    """Send a marked test copy to an address of yours.

    It goes the way of the real send, with [Proof] before the subject, and leaves no trace in the ledger. Its
    personal links are examples that change nothing.
    """
    from newsletter import sending, wiring
    from newsletter.message import Wire

    settings = project.settings
    addresses = [_allowed(settings, address) for address in to]
    wiring.refuse_when_off(settings)
    settings.require_keys()
    _, email = wiring.compile_issue(settings, slug)
    marked = replace(email, subject=f"[Proof] {email.subject}")
    wire = Wire(marked, wiring.message_settings(settings, datetime.now(UTC)))
    copies = _proof_copies(settings, addresses, name)
    outcomes = sending.proof(wiring.transport(settings, slug), wire, copies)
    _tell_proof(settings, slug, copies, outcomes)


def _allowed(settings: Settings, address: str) -> str:
    from newsletter import addresses

    try:
        parsed = addresses.parse(address)
    except ValueError as error:
        raise UsageError(f"--to {address}: {error}") from None
    on_list = {addresses.canonical(one) for one in settings.sending.allowlist}
    checked = settings.sending.mode == "allowlist" and settings.sending.transport != "folder"
    if checked and addresses.canonical(parsed) not in on_list:
        raise Refused(
            f"{parsed} is not on the allowlist, so nothing may leave for it.",
            hint="Add it to `allowlist` under [sending] in newsletter.toml.",
        )
    return parsed


def _proof_copies(settings: Settings, addresses: list[str], name: str) -> list[Recipient]:
    import secrets

    from newsletter import wiring

    nobody = wiring.signer(settings)(0)  # no subscription has the id 0: its links open no one's page
    values = {"name": name, **nobody}
    return [Recipient(secrets.token_bytes(16), address, values) for address in addresses]


def _tell_proof(settings: Settings, slug: str, copies: list[Recipient], outcomes: list[Outcome]) -> None:
    said = {outcome.delivery: outcome for outcome in outcomes}
    failed = False
    for copy in copies:
        outcome = said[copy.delivery]
        failed |= not isinstance(outcome, Accepted)
        output.say(f"{copy.address}: {SAID[type(outcome)]} {getattr(outcome, 'reason', '')}".rstrip())
    if settings.sending.transport == "folder":
        from newsletter import wiring

        output.say(f"written to {wiring.outbox(settings, slug)}")
    if failed:
        raise Unfinished("not every proof was accepted.", hint="What the server said stands above.")

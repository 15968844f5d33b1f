"""What a send would be, shown to a person who has to say yes to it."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from newsletter.cli import forecast, output
from newsletter.errors import ChecksFailed, Refused, UsageError
from newsletter.model import Kind, digest, short

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Engine

    from newsletter.config import Settings
    from newsletter.desk import Stop
    from newsletter.freezing import Plan
    from newsletter.limits import Canary
    from newsletter.message import MessageSettings
    from newsletter.model import Appointment, Email, Finding, Issue

COUNTDOWN_SECONDS = 10


def one_line(_: click.Context, option: click.Parameter, why: str | None) -> str:
    """A reason, for ``--override``; one of no words would override for no reason."""
    reason = " ".join((why or "").split())
    if why is not None and not reason:
        raise click.BadParameter("a reason is needed, in words.", param=option)
    return reason


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
    canary: Canary | None = None  # these copies leave first
    override: str = ""  # why a second issue may go in its period
    appointment: Appointment | None = None  # it goes out by itself: nobody is asked
    stop: Stop | None = None  # asked to stop by whoever carries several orders out
    later: bool = False  # it gets a date: until then it can be approved

    @property
    def required(self) -> Sequence[str]:
        """The roles that must have approved it: a rehearsal needs none."""
        return () if self.later or self.kind is Kind.REHEARSAL else self.settings.approval.require


@dataclass(frozen=True, slots=True)
class Ready:
    """A plan that a person has said yes to, and the bytes it is about."""

    plan: Plan
    editions: Sequence[Email]  # the standard one first
    issue: Issue


def plan(order: Order) -> Ready:
    """What would be sent now, printed."""
    ready = look(order)
    _print_plan(order, ready)
    return ready


def look(order: Order) -> Ready:
    """What would be sent now. Raises whatever is in the way of it, such as ``NotApproved``."""
    from newsletter import approval, freezing, subscriptions, wiring
    from newsletter.store.campaigns import Target
    from newsletter.store.engine import read

    subscriptions.check_list(order.engine, order.list)
    issue, editions, _ = sound(order.settings, order.slug)
    presented = wiring.presented(order.settings, issue, editions, order.list)
    read(order.engine, lambda conn: approval.check(conn, presented, order.required))
    target = Target(issue=order.slug, period=issue.period, list=order.list, kind=order.kind)
    only, now = wiring.only(order.settings), datetime.now(UTC)
    planned = freezing.plan(order.engine, target, only=only, now=now, override=order.override)
    return Ready(planned, editions, issue)


def sound(settings: Settings, slug: str) -> tuple[Issue, list[Email], list[Finding]]:
    """The issue as readers would get it, and what was found. Raises ``ChecksFailed`` for errors nobody waived."""
    from newsletter import checks, wiring

    issue, editions = wiring.compile_issue(settings, slug)
    findings = wiring.findings(settings, issue, editions)
    if errors := checks.errors(findings):
        hint = f"`newsletter check {slug}` shows all. Mend them, or waive one with a reason in issue.toml."
        raise ChecksFailed(f"{issue.folder} must not be sent as it is.", errors, hint=hint)
    return issue, editions, findings


def command(order: Order, options: Mapping[str, str | None], recipients: int) -> str:
    """The send that a plan was shown for: without what was asked for besides, it would be another one."""
    import shlex

    given = [f"--{name.replace('_', '-')} {shlex.quote(text)}" for name, text in options.items() if text]
    again = ["--again"] if order.again else []
    start = f"newsletter send {order.slug} --list {order.list}"
    return " ".join([start, *given, *again, f"--confirm {recipients}"])


def _approvals(order: Order, ready: Ready) -> str:
    """``editor: Ann Example, 2026-11-28 10:12 UTC; medical: nobody yet``; empty where nobody has and nobody must."""
    from newsletter import approval, wiring
    from newsletter.store.engine import read

    presented = wiring.presented(order.settings, ready.issue, ready.editions, order.list)
    standings = read(order.engine, lambda conn: approval.look(conn, presented))
    shown = [one for one in standings if one.last or one.role in order.settings.approval.require]
    return "; ".join(one.words for one in shown)


def _print_plan(order: Order, ready: Ready) -> None:
    from newsletter import merge

    planned, editions = ready.plan, ready.editions
    settings, target, email = order.settings, planned.target, editions[0]
    left_out = ", ".join(f"{n} {reason}" for reason, n in sorted(planned.left_out.items()))
    now = datetime.now(UTC)
    rows = [
        ("issue", f"{target.issue}, attempt {target.attempt}" if target.attempt > 1 else target.issue),
        ("period", _override(order, planned)),
        ("subject", merge.fill(merge.split(email.subject), {})),
        ("digest", short(digest(editions))),
        ("approved", _approvals(order, ready)),
        ("from", f"{settings.newsletter.name} <{settings.newsletter.from_}>"),
        ("through", way_out(settings, target.issue) + _connections(settings)),
        ("kind", DESCRIBED[target.kind]),
        ("to", f"list {target.list}: {output.plural(planned.recipients, 'recipient')}"),
        ("left out", left_out or "nobody"),
        ("canary", _canary(order.canary, planned.recipients)),
        ("now", f"{now.astimezone():%A %d %B %Y %H:%M %Z}  ({now:%Y-%m-%d %H:%M} UTC)"),
        ("takes", forecast.of_plan(order, planned, now)),
    ]
    for label, value in rows:
        if value:
            output.say(f"{label:>10}  {value}")


def _override(order: Order, planned: Plan) -> str:
    """Said only where a person has given a reason: everybody else's period is in the issue's name."""
    if planned.override:
        return f"{planned.target.period}, a second issue in it because: {planned.override}"
    return f"{planned.target.period}, which is free: --override is not needed" if order.override else ""


def _connections(settings: Settings) -> str:
    """A folder has one lane, whatever is configured."""
    if settings.sending.transport == "folder":
        return ""
    return f", {output.plural(settings.sending.connections, 'connection')}"


def _canary(canary: Canary | None, recipients: int) -> str:
    """``10 of 1,000 copies leave first, the rest an hour later``; empty when all leave at once."""
    copies = canary.copies(recipients) if canary else 0
    if not canary or not copies:
        return ""
    leave = "leaves" if copies == 1 else "leave"
    return f"{copies:,} of {recipients:,} copies {leave} first, the rest {forecast.exact(canary.wait)} later"


DESCRIBED = {
    Kind.LIVE: "LIVE: real people get this",
    Kind.REHEARSAL: "REHEARSAL: takes no period, stops no live campaign",
}


def way_out(settings: Settings, slug: str) -> str:
    """Where copies would go, as the plan names it; recorded with the process that sends them."""
    from newsletter import wiring

    match settings.sending.transport:
        case "folder":
            return f"folder {wiring.outbox(settings, slug)}"
        case "smtp":
            return f"smtp {settings.smtp.host}:{settings.smtp.port}"
        case _:
            return f"sendgrid {settings.sendgrid.url}"


def prepare(order: Order) -> Ready:
    """Asks for everything that can be missing before a campaign exists: a frozen one has taken its period."""
    from newsletter import hosting, wiring

    ready = plan(order)
    planned, editions = ready.plan, ready.editions
    refuse_nobody(order, planned)
    wiring.transport(order.settings, order.slug)
    message = wiring.message_settings(order.settings, datetime.now(UTC))
    _check_message(editions, message)
    hosting.verify(editions, message)
    if order.appointment is not None:
        # Nobody has said yes to a number, so whoever joins before the last row is in gets the issue too.
        return replace(ready, plan=replace(planned, recipients=sys.maxsize))
    confirm_number(planned.recipients, order.confirm)
    if order.settings.sending.transport != "folder":
        _count_down()
    return ready


def refuse_nobody(order: Order, planned: Plan) -> None:
    """A campaign to nobody would use its period up."""
    if planned.recipients:
        return
    hint = "`newsletter lists` shows who is on which list; `newsletter subscribers import` brings people."
    if planned.only is not None:
        hint = (
            "Only addresses in `allowlist` under [sending] that are on the list too get a copy in this mode."
        )
    raise Refused(f"nobody on the list {order.list} would get this issue.", hint=hint)


def _check_message(editions: Sequence[Email], message: MessageSettings) -> None:
    from newsletter import wiring

    try:
        wiring.wires(editions, message)
    except ValueError as error:
        raise UsageError(f"no message can be made of this: {error}.") from error


def confirm_number(recipients: int, confirm: int | None) -> None:
    """A person says yes to a number of recipients; raises ``Refused`` if nobody does, or to another one."""
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

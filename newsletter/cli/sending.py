"""Send an issue to a list, and say how it ended."""

from __future__ import annotations

import signal
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import click

from newsletter.cli import forecast, notifying, output, planning, progress
from newsletter.cli.campaigns import left_behind, list_option, summary, tally
from newsletter.errors import DatabaseError, Occupied, Refused, Unfinished, UnknownDeliveries
from newsletter.model import OPEN_STATES, Campaign, CampaignState, DeliveryState, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy import Connection, Engine

    from newsletter.approval import Presented
    from newsletter.cli.main import Project
    from newsletter.cli.planning import Order, Ready
    from newsletter.recovery import Recovered
    from newsletter.sending import Conduct

PREPARING_SECONDS = 0.2  # between two looks at a campaign that another process prepares


@click.command(epilog="Example: newsletter send 2026-12 --dry-run")
@click.argument("slug")
@list_option
@click.option(
    "--confirm",
    type=click.IntRange(min=0),
    metavar="N",
    help="Yes, to N recipients; without it you are asked.",
)
@click.option(
    "--at",
    metavar="TIME",
    help='Not now but then, by the clock of [schedule] timezone: "2026-12-01 09:00".',
)
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option("--clock-is-right", is_flag=True, help="Send, although the ledger was written later than now.")
@click.option("--again", is_flag=True, help="Repeat a rehearsal that has ended.")
@click.option(
    "--canary", metavar="SIZE", help="So many copies leave first: a share such as 1%, a number, or off."
)
@click.option("--canary-wait", metavar="SPAN", help="How long the rest waits after them, such as 30m.")
@click.option(
    "--override",
    metavar="WHY",
    callback=planning.one_line,
    help="Send although another issue has used the period; the reason is kept.",
)
@click.pass_obj
def send(
    project: Project,
    slug: str,
    list_name: str | None,
    confirm: int | None,
    at: str | None,
    *,
    dry_run: bool,
    clock_is_right: bool,
    again: bool,
    canary: str | None,
    canary_wait: str | None,
    override: str,
) -> None:
    """Send an issue to a list, or go on where it stopped.

    Prints who would get it and asks for the number of recipients before anything leaves. A campaign that stopped
    before its end goes on with those who have no copy yet; one that has ended reaches nobody again.
    With a canary, a few copies leave first; if too many of them are refused, the campaign pauses before the rest.
    """
    from newsletter import recovery, wiring
    from newsletter.cli import canary as canaries
    from newsletter.cli import dates, logs

    settings = project.settings
    logs.set_up(settings, quiet=True)
    list_name, kind = list_name or settings.newsletter.list, wiring.kind(settings)
    first = canaries.asked(settings, kind, canary, canary_wait)
    engine = project.store if dry_run else project.writable
    order = planning.Order(settings, engine, slug, list_name, kind, confirm, again, first, override)
    options = {"canary": canary, "canary_wait": canary_wait, "override": override or None}
    if at is not None:
        dates.arrange(order, at, options, dry_run=dry_run)
        return
    if dry_run:
        _dry_run(order, options)
        return
    (recovery.trust_clock if clock_is_right else recovery.check_clock)(order.engine, datetime.now(UTC))
    try:
        carry_out(order, canary)
    except Occupied as busy:
        _follow(order, busy)


def carry_out(order: Order, canary: str | None = None) -> None:
    """Starts the campaign or goes on with it, until it ends or rests; raises what a person has to know of its end.

    ``canary`` is what a person has said of it now. Raises ``Occupied`` when another process is sending, on SQLite.
    """
    from newsletter.cli import canary as canaries

    campaign = _begun(order)
    if campaign is not None and campaign.state is CampaignState.FINISHED:
        _tell_sent_before(order.engine, campaign)
        return
    if campaign is not None:
        canaries.going_on(order.engine, campaign, canary)
    _send(order, None if campaign else _prepare_unless_begun(order))


def _begun(order: Order) -> Campaign | None:
    """What is to be gone on with. An appointment has one rehearsal, and whoever finds it begun repeats none."""
    from newsletter import sending
    from newsletter.store import appointments
    from newsletter.store.engine import read

    one, again = order.appointment, order.again
    if again and one is not None:
        again = read(order.engine, lambda conn: appointments.campaign_of(conn, one)) is None
    return sending.begun(order.engine, order.slug, order.list, order.kind, again=again)


def _send(order: Order, ready: Ready | None) -> None:
    """As this process's own work, from here on under the lock."""
    from newsletter import recovery, wiring
    from newsletter.store import owners
    from newsletter.store.engine import write

    lock_path, way = wiring.lock_path(order.settings), planning.way_out(order.settings, order.slug)
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
    from newsletter import freezing, recovery

    told = False
    while (campaign := _begun(order)) is None:
        ready = ready or planning.prepare(order)
        try:
            return _freeze(order, ready, mine)
        except freezing.InPreparation as busy:  # only where several can send: then this one joins in
            started = busy.campaign.state is not CampaignState.PREPARING
            if order.again and order.appointment is None and started:
                raise Refused(
                    f"{busy.campaign.label} was started meanwhile.",
                    hint="Run the same command again to repeat it once more.",
                ) from busy
            if not told:
                output.say(f"{str(busy)[0].upper()}{str(busy)[1:]} This one joins in as soon as it can.")
            told = True
            time.sleep(PREPARING_SECONDS)
            recovery.recover(order.engine, mine, utc_now())
    if campaign.state is not CampaignState.FINISHED:
        _check_going_on(order, campaign)
        _tell_going_on(order, campaign)
    return campaign


def _tell_going_on(order: Order, campaign: Campaign) -> None:
    counts = tally(order.engine, campaign)
    output.say(f"Going on with {campaign.label}: {summary(counts)}.")
    _tell_rest(order, campaign, counts)


def _tell_rest(order: Order, campaign: Campaign, counts: Mapping[DeliveryState, int]) -> None:
    waiting = sum(counts.get(state, 0) for state in OPEN_STATES)
    if takes := forecast.of_rest(order, campaign, waiting, utc_now()):
        output.say(f"The rest takes {takes}.")


def _follow(order: Order, busy: Occupied) -> None:
    """Another process is at it: shows how far it is, and ends as that one does."""
    from newsletter import wiring
    from newsletter.cli import following
    from newsletter.store import campaigns

    find = partial(campaigns.find, issue=order.slug, list_name=order.list, kind=order.kind)
    campaign = following.until_it_ends(order.engine, wiring.lock_path(order.settings), find, busy)
    if campaign.state in {CampaignState.RUNNING, CampaignState.PREPARING}:
        so_far = summary(tally(order.engine, campaign))
        hint = f"`{campaign.send}` goes on with those who have no copy yet."
        raise Unfinished(f"the other process ended before {campaign.label} was done: {so_far}.", hint=hint)
    _report(order, campaign, stopped=False)


def _dry_run(order: Order, options: Mapping[str, str | None]) -> None:
    from newsletter import sending

    campaign = sending.begun(order.engine, order.slug, order.list, order.kind, again=order.again)
    if campaign is None:
        planned = planning.plan(order).plan
        planning.refuse_nobody(order, planned)
        output.next_steps(planning.command(order, options, planned.recipients))
    elif campaign.state is CampaignState.FINISHED:
        _tell_sent_before(order.engine, campaign)
    else:
        counts = tally(order.engine, campaign)
        output.say(f"{campaign.label} has begun: {summary(counts)}.")
        _tell_rest(order, campaign, counts)
        over = " --canary off" if options["canary"] == "off" else ""  # all that still counts
        output.next_steps(f"{campaign.send}{over}")


def _prepare_unless_begun(order: Order) -> Ready | None:
    """None when another process has begun this very campaign meanwhile: two that start at once are one send."""

    try:
        return planning.prepare(order)
    except Refused:
        if _begun(order) is None:
            raise
        return None


def _freeze(order: Order, ready: Ready, mine: str) -> Campaign:
    from newsletter import choosing, freezing, wiring

    # The files as they are now: who saves one while the number is asked for has taken the approval away.
    presented = wiring.presented(order.settings, ready.issue, ready.editions, order.list)
    now = utc_now()
    choosing.wake_all(order.engine, ready.plan.now or now)  # those whom the plan has counted
    message = wiring.message_settings(order.settings, now)
    transport = order.settings.sending.transport
    return freezing.freeze(
        order.engine,
        ready.plan,
        ready.editions,
        message,
        transport=transport,
        now=now,
        owner=mine,
        appointment=order.appointment.id if order.appointment else None,
        canary=order.canary,
        approved=partial(_allowed, order=order, presented=presented),
    )


def _allowed(conn: Connection, order: Order, presented: Presented) -> Sequence[str]:
    """Who has approved it. Raises ``Refused`` when somebody must have and has not, or when its date was taken back."""
    from newsletter import appointments, approval

    if order.appointment is not None:
        appointments.check_unchanged(conn, order.appointment)
    return approval.check(conn, presented, order.required)


def utc_now() -> datetime:
    """The present."""
    return datetime.now(UTC)


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
    from newsletter.message import MessageSettings
    from newsletter.store import campaigns
    from newsletter.store.engine import many_senders, read

    settings = order.settings
    editions, message = read(order.engine, lambda conn: campaigns.load_editions(conn, campaign.id))
    wires = wiring.wires(editions, MessageSettings.from_dict(message))
    shown = progress.Shown(
        campaign.label, partial(tally, order.engine, campaign), shared=many_senders(order.engine)
    )
    conduct = _conduct(order, mine, shown)
    transport = wiring.transport(settings, campaign.issue)
    try:
        with shown, _stop_gracefully(conduct, shown.say):
            ended = sending.run(order.engine, campaign, transport, wires, conduct)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_cut_off(order.engine, campaign)) from None
    stopped = conduct.stopping.is_set()
    if not stopped:  # whoever stops it does not want to wait for a server
        notifying.tell_editors(settings, order.engine)
    _report(order, ended, stopped=stopped)


def _conduct(order: Order, mine: str, shown: progress.Shown) -> Conduct:
    from newsletter import wiring
    from newsletter.desk import Stop, SystemClock
    from newsletter.sending import Conduct

    settings = order.settings
    return Conduct(
        sign=wiring.signer(settings),
        retry=settings.sending.retry,
        owner=mine,
        only=wiring.only(settings),
        limits=wiring.limits(settings),
        stop_refused=settings.sending.stop_refused,
        editors=wiring.editors(settings),
        clock=SystemClock(),
        stopping=order.stop or Stop(),
        notice=shown.notice,
        told=shown.told,
    )


def _cut_off(engine: Engine, campaign: Campaign) -> str:
    """How it stands after a second Ctrl-C: what was on its way is unknown at the next start, and not before."""
    hint = f"\n→ `{campaign.send}` goes on with those who have no copy yet."
    try:
        counts = tally(engine, campaign)
    except DatabaseError:
        return hint
    return f"{campaign.label}: {summary(counts)}{left_behind(counts)}.{hint}"


STOPPING = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


@contextmanager
def _stop_gracefully(conduct: Conduct, say: Callable[[str], None]) -> Iterator[None]:
    """The first Ctrl-C (SIGTERM, or the end of the terminal) lets copies in flight be settled; the next ends at once.

    Under `nohup` the end of the terminal stays ignored. A second one says nothing more: shell and kernel send one each.
    ``say`` must not raise: in `send | tee log` the same Ctrl-C has ended tee, or a line is half out.
    """

    def stop(number: int, _frame: object) -> None:
        if not conduct.stopping.is_set():
            conduct.stopping.set()
            say("\nStopping: copies in flight are being settled. Ctrl-C again ends at once.")
        elif number != getattr(signal, "SIGHUP", None):
            restore()
            signal.raise_signal(number)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    now = {number: signal.getsignal(number) for number in STOPPING}
    before = {number: handler for number, handler in now.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, stop)
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
        output.next_steps(f"{campaign.send} --again")
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

"""Send what is due, whether or not anybody is watching: once, or again and again."""

from __future__ import annotations

import signal
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import click

from newsletter.cli import dates, output, sending
from newsletter.errors import DatabaseError, NewsletterError, Occupied, Refused
from newsletter.model import Appointment, Campaign, CampaignState, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from newsletter.appointments import Tell
    from newsletter.cli.main import Project
    from newsletter.cli.planning import Order
    from newsletter.config import Settings
    from newsletter.desk import Stop

LOOK_SECONDS = 20.0  # between two looks; a date is met to the second
STEP_SECONDS = 0.2  # in which a signal is answered


@click.command(epilog="Example: newsletter run --once")
@click.option("--once", is_flag=True, help="Look once and end: for cron and systemd timers.")
@click.option(
    "--clock-is-right", is_flag=True, help="Go on, although the database was written later than now."
)
@click.pass_obj
def run(project: Project, *, once: bool, clock_is_right: bool) -> int:
    """Send what is due, and tell the editors what is not ready.

    Looks at the dates that `newsletter schedule` shows, and goes on with campaigns of such dates that were cut off. Any
    number of them may be at work, also on several machines: each issue goes out once. Ctrl-C or SIGTERM ends it when
    the copies that are on their way are settled.
    """
    from newsletter.desk import Stop

    stop = Stop()
    if once:
        return _once(project, stop, clock_is_right=clock_is_right)
    project.store.dispose()  # it opens, and has our keys: what is wrong from the start ends the command
    output.say("At work. Ctrl-C ends it.")
    with _until_told(stop):
        _loop(project, stop, clock_is_right=clock_is_right)
    output.say("Stopped.")
    return 0


def _once(project: Project, stop: Stop, *, clock_is_right: bool) -> int:
    settings, engine, now = project.settings, project.store, sending.utc_now()
    code = look(settings, engine, now, stop, clock_is_right=clock_is_right)
    if following := dates.next_one(engine, now):
        output.say(f"Next: {following.label}, {dates.told(following.due_at, settings)}")
    else:
        output.say(f"Nothing is to go out within {settings.schedule.remind.days} days.")
    return code


def _loop(project: Project, stop: Stop, *, clock_is_right: bool) -> None:
    """Settings are read each time: who mends one need not start it again. An error is told once, until it changes."""
    last = ""
    while not stop.is_set():
        wait = LOOK_SECONDS
        try:
            with _opened(project) as (settings, engine):
                look(settings, engine, sending.utc_now(), stop, clock_is_right=clock_is_right)
                wait = _until_next(engine, sending.utc_now())
            last = ""
        except NewsletterError as error:
            if str(error) != last:
                output.print_error(error)
            last = str(error)
        _rest(stop, wait)


@contextmanager
def _opened(project: Project) -> Iterator[tuple[Settings, Engine]]:
    import os

    from newsletter import wiring
    from newsletter.config import load

    settings = load(project.root, os.environ)
    engine = wiring.open_store(settings)
    try:
        yield settings, engine
    finally:
        engine.dispose()


def _until_next(engine: Engine, now: datetime) -> float:
    """Seconds until the next date, ``LOOK_SECONDS`` at most."""
    following = dates.next_one(engine, now)
    return min(LOOK_SECONDS, (following.due_at - now).total_seconds()) if following else LOOK_SECONDS


def _rest(stop: Stop, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not stop.is_set() and (left := until - time.monotonic()) > 0:
        time.sleep(min(STEP_SECONDS, left))


@contextmanager
def _until_told(stop: Stop) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the loop between two looks; while copies leave, ``send`` has its own way with them."""
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in sending.STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def look(
    settings: Settings, engine: Engine, now: datetime, stop: Stop, *, clock_is_right: bool = False
) -> int:
    """Looks once, and does what is due; returns the exit code of the first thing that wants a person."""
    from newsletter import appointments, wiring

    tell = wiring.teller(settings)
    agenda = appointments.look(engine, wiring.rules(settings), now, tell, clock_is_right=clock_is_right)
    codes = [_tell_ended(one) for one in agenda.ended]
    for one in agenda.near:
        _remind(settings, engine, one, now, tell)
    codes += [_attempt(settings, engine, one, now, tell, stop) for one in agenda.due]
    codes += [_go_on(settings, engine, campaign, stop) for campaign in _cut_off(settings, engine, now)]
    return next(filter(None, codes), 0)


def _tell_ended(one: Appointment) -> int:
    output.warn(f"{one.label} is {one.state}: {one.reason.rstrip('.')}.")
    output.next_steps(f"newsletter send {one.issue or one.period} --list {one.list}")
    return Refused.exit_code


def _remind(settings: Settings, engine: Engine, one: Appointment, now: datetime, tell: Tell) -> None:
    """Its time comes near: the editors hear, once, of each kind of thing that is in the way."""
    from newsletter.store.engine import write

    try:
        error = dates.problem(dates.order_of(settings, engine, one, dates.slug_of(settings, one)))
    except NewsletterError as missing:
        error = missing
    if error is None:
        return
    why = _words(error)
    if write(engine, lambda conn: tell(conn, "remind", one, why, now, about=type(error).__name__)):
        output.warn(f"{one.label} is not ready for {dates.told(one.due_at, settings)}: {why}")


def _words(error: NewsletterError) -> str:
    """The error and its advice, in a line or two."""
    return " ".join(filter(None, (str(error), error.hint))).strip()


def _attempt(
    settings: Settings, engine: Engine, one: Appointment, now: datetime, tell: Tell, stop: Stop
) -> int:
    """Its time has come. What can be mended only by a person holds it; what may pass by itself is tried again."""
    from newsletter import appointments, hosting

    if stop.is_set():
        return 0
    try:
        sending.carry_out(_order(settings, engine, one, stop))
    except Occupied as busy:
        output.say(f"{one.label} waits: {busy}")
        return 0
    except (DatabaseError, hosting.NotInPlace):
        raise
    except NewsletterError as error:
        held = appointments.hold(engine, one, _words(error), now, tell)
        output.print_error(error)
        if held is not None:
            _tell_ended(held)
        return error.exit_code
    return 0


def _order(settings: Settings, engine: Engine, one: Appointment, stop: Stop) -> Order:
    from dataclasses import replace

    from newsletter import wiring

    order = dates.order_of(settings, engine, one, dates.slug_of(settings, one))
    if (kind := wiring.kind(settings)) is not one.kind:
        raise Refused(
            f"it was to be a {one.kind} campaign, and what is sent now would be a {kind}.",
            hint="Someone has changed [sending] since.",
        )
    return replace(order, again=kind is Kind.REHEARSAL, stop=stop)


def _cut_off(settings: Settings, engine: Engine, now: datetime) -> list[Campaign]:
    """Campaigns of such dates that nobody is sending, and of which something may leave soon."""
    from newsletter import limits, wiring
    from newsletter.store import appointments, campaigns, ledger, owners
    from newsletter.store.engine import read

    at_work = {one.campaign_id for one in owners.at_work(engine, wiring.lock_path(settings))}
    found = []
    for campaign in read(engine, lambda conn: campaigns.in_state(conn, CampaignState.RUNNING)):
        if campaign.id in at_work or not read(
            engine, partial(appointments.of_campaign, campaign_id=campaign.id)
        ):
            continue
        due = read(engine, partial(ledger.next_due, campaign_id=campaign.id))
        if due is None or due - now <= limits.PATIENCE:
            found.append(campaign)
    return found


def _go_on(settings: Settings, engine: Engine, campaign: Campaign, stop: Stop) -> int:
    from newsletter.cli.planning import Order

    if stop.is_set():
        return 0
    order = Order(
        settings, engine, campaign.issue, campaign.list, campaign.kind, None, again=False, stop=stop
    )
    try:
        sending.carry_out(order)
    except Occupied:
        return 0
    except DatabaseError:
        raise
    except NewsletterError as error:
        output.print_error(error)
        return error.exit_code
    return 0

"""Send what is due, whether or not anybody is watching: once, or again and again."""

from __future__ import annotations

import re
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

import click

from newsletter.cli import dates, forecast, logs, output, sending
from newsletter.cli.planning import Order
from newsletter.errors import DatabaseError, NewsletterError, Occupied, Refused
from newsletter.model import Appointment, Campaign, CampaignState, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import Engine

    from newsletter.appointments import Tell
    from newsletter.cli.main import Project
    from newsletter.config import Settings
    from newsletter.desk import Stop

LOOK_SECONDS = 20.0  # between two looks; a date is met to the second
STEP_SECONDS = 0.2  # in which a signal is answered
TIMES = re.compile(r"\d\d:\d\d(:\d\d)?")


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
    from newsletter import seals
    from newsletter.desk import Stop

    stop = Stop()
    seals.program()  # of the code that is running, also when another version is put in its place meanwhile
    logs.set_up(project.settings, quiet=True)
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
    code = Look(settings, engine, now, stop).work(clock_is_right=clock_is_right)
    waiting = dates.waiting(engine)
    for one in waiting[:1]:
        output.say(f"The next date: {one.label}, {dates.told(one.due_at, settings)}")
    if not waiting:
        output.say(f"Nothing is to go out within {forecast.exact(settings.schedule.remind)}.")
    return code


def _loop(project: Project, stop: Stop, *, clock_is_right: bool) -> None:
    """Settings are read each time: who mends one need not start it again. An error is told once, until it changes."""
    said = Said()
    while not stop.is_set():
        wait = LOOK_SECONDS
        said.next_look()
        try:
            with _opened(project) as (settings, engine):
                Look(settings, engine, sending.utc_now(), stop, said).work(clock_is_right=clock_is_right)
                wait = _until_next(engine, sending.utc_now())
            clock_is_right = False  # that was about the past, which is put right: the next jump counts again
        except NewsletterError as error:
            if said.anew(str(error)):
                output.print_error(error)
        _rest(stop, wait)


class Said:
    """What the last look has said: said again at each, it would fill a log with the same line three times a minute."""

    def __init__(self) -> None:
        self._before, self._now = set[str](), set[str]()

    def next_look(self) -> None:
        """What this look does not say is new at the next one."""
        self._before, self._now = self._now, set()

    def anew(self, words: str) -> bool:
        """Whether the last look has not said it; times of day in it do not make it new."""
        self._now.add(known := TIMES.sub("", words))
        return known not in self._before


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


@dataclass(frozen=True)
class Look:
    """One look at what is due, and all that comes of it."""

    settings: Settings
    engine: Engine
    now: datetime
    stop: Stop
    said: Said = field(default_factory=Said)

    @cached_property
    def _tell(self) -> Tell:
        from newsletter import wiring

        return wiring.teller(self.settings)

    def work(self, *, clock_is_right: bool = False) -> int:
        """Does what is due; returns the exit code of the first thing that wants a person.

        Raises ``DatabaseError``, and ``Refused`` when the clock has jumped back: both may pass.
        """
        from newsletter import appointments, wiring

        rules = wiring.rules(self.settings)
        agenda = appointments.look(self.engine, rules, self.now, self._tell, clock_is_right=clock_is_right)
        codes = [self._tell_ended(one) for one in agenda.ended]
        for one in agenda.near:
            self._remind(one)
        codes.append(self._post())  # before a send, which may last for a day
        codes += self._attempts(agenda.due)
        codes += [self._go_on(campaign) for campaign in self._cut_off()]
        codes.append(self._post())
        return next(filter(None, codes), 0)

    def _post(self) -> int:
        """Sends what waits for the editors. A way out that is not configured right keeps no date from being held."""
        from newsletter import wiring

        if self.stop.is_set():  # whoever stops it does not want to wait for a server
            return 0
        try:
            wiring.post(self.settings, self.engine).work()
        except DatabaseError:
            raise
        except NewsletterError as error:
            if self.said.anew(str(error)):
                output.print_error(error)
            return error.exit_code
        return 0

    def _attempts(self, due: Sequence[Appointment]) -> Iterator[int]:
        """One after the other. Behind one that took long the next look judges anew: the rest may be late by then."""
        began = time.monotonic()
        for one in due:
            yield self._attempt(one)
            yield self._post()  # why it is held, before the next one's send
            if time.monotonic() - began >= LOOK_SECONDS:
                return

    def _remind(self, one: Appointment) -> None:
        """Its time comes near: the editors hear, once, of each kind of thing that is in the way."""
        from newsletter.store.engine import write

        error = self._problem(one)
        if error is None:
            return
        why, about = _words(error), type(error).__name__
        if write(self.engine, lambda conn: self._tell(conn, "remind", one, why, self.now, about=about)):
            output.warn(f"{one.label} is not ready for {dates.told(one.due_at, self.settings)}: {why}")

    def _problem(self, one: Appointment) -> NewsletterError | None:
        try:
            slug = dates.slug_of(self.settings, one)
        except NewsletterError as error:
            return error
        return dates.problem(self.settings, self.engine, one, slug)

    def _attempt(self, one: Appointment) -> int:
        """Its time has come. What needs a person holds it; what may pass by itself is tried at the next look."""
        from newsletter import appointments, hosting

        if self.stop.is_set():
            return 0
        try:
            sending.carry_out(self._order(one))
        except Occupied as busy:
            if self.said.anew(words := f"{one.label} waits: {busy}"):
                output.say(words)
        except appointments.Changed as changed:
            output.say(str(changed))
        except hosting.NotInPlace as missing:
            return self._wait_for(one, missing)
        except DatabaseError:
            raise
        except NewsletterError as error:
            return self._hold(one, error)
        return 0

    def _wait_for(self, one: Appointment, missing: NewsletterError) -> int:
        """It may pass by itself, or not: the editors hear of it once, and other dates do not wait for it."""
        from newsletter.store.engine import write

        about = type(missing).__name__
        tell = partial(self._tell, event="remind", one=one, why=_words(missing), now=self.now, about=about)
        write(self.engine, tell)
        if self.said.anew(f"{one.label}: {missing}"):
            output.warn(f"{one.label} waits, and is tried again:")
            output.print_error(missing)
        return missing.exit_code

    def _hold(self, one: Appointment, error: NewsletterError) -> int:
        """Unless its campaign has begun: then the error is about that."""
        from newsletter import appointments

        held = appointments.hold(self.engine, one, _words(error), self.now, self._tell)
        output.print_error(error)
        if held is not None:
            self._tell_ended(held)
        return error.exit_code

    def _tell_ended(self, one: Appointment) -> int:

        output.warn(f"{one.label} is {one.state}: {one.summary.rstrip('.')}.")
        output.next_steps(f"newsletter send {dates.named(self.settings, one)} --list {one.list}")
        return Refused.exit_code

    def _order(self, one: Appointment) -> Order:
        order = dates.order_of(self.settings, self.engine, one, dates.slug_of(self.settings, one))
        dates.refuse_other_kind(self.settings, one.kind)
        dates.refuse_sent_before(self.engine, one, order.slug)
        return replace(order, again=one.kind is Kind.REHEARSAL, stop=self.stop)

    def _cut_off(self) -> list[Campaign]:
        """Campaigns of such dates that nobody is sending, and of which something may leave soon."""
        from newsletter import wiring
        from newsletter.store import campaigns, owners
        from newsletter.store.engine import read

        running = read(self.engine, lambda conn: campaigns.in_state(conn, CampaignState.RUNNING))
        at_work = {one.campaign_id for one in owners.at_work(self.engine, wiring.lock_path(self.settings))}
        return [one for one in running if one.id not in at_work and self._is_ours_and_due(one)]

    def _is_ours_and_due(self, campaign: Campaign) -> bool:
        from newsletter import limits
        from newsletter.store import appointments, ledger
        from newsletter.store.engine import read

        if not read(self.engine, partial(appointments.of_campaign, campaign_id=campaign.id)):
            return False
        if read(self.engine, partial(ledger.held_by_others, campaign_id=campaign.id, mine="")):
            return True  # in the hands of the dead: nobody waits for a next try of those
        due = read(self.engine, partial(ledger.next_due, campaign_id=campaign.id))
        return due is None or due - sending.utc_now() <= limits.PATIENCE

    def _go_on(self, campaign: Campaign) -> int:
        if self.stop.is_set():
            return 0
        order = Order(
            self.settings,
            self.engine,
            campaign.issue,
            campaign.list,
            campaign.kind,
            None,
            again=False,
            stop=self.stop,
        )
        try:
            # What is switched off sends nothing, and an allowlist would skip everybody else for good.
            dates.refuse_other_kind(self.settings, campaign.kind)
            sending.carry_out(order)
        except Occupied:
            return 0
        except DatabaseError:
            raise
        except Refused as error:
            if self.said.anew(words := f"{campaign.label} does not go on by itself: {_words(error)}"):
                output.warn(words)
            # A rehearsal that was left behind by going live is no alarm, at each look, for months.
            return 0 if campaign.kind is Kind.REHEARSAL else error.exit_code
        except NewsletterError as error:
            output.print_error(error)
            return error.exit_code
        return 0


def _words(error: NewsletterError) -> str:
    """The error and its advice, each in lines of its own: the first one says what it is."""
    return "\n".join(filter(None, (str(error), error.hint)))

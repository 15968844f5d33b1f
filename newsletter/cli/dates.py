"""The dates on which issues go out by themselves: show them, set one, take one back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from newsletter.cli import output, planning
from newsletter.errors import ChecksFailed, ContentError, DatabaseError, NewsletterError, Refused, UsageError
from newsletter.model import Appointment, AppointmentState, CampaignState, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection, Engine

    from newsletter.cli.main import Project
    from newsletter.cli.planning import Order
    from newsletter.config import Settings
    from newsletter.model import Campaign

SHOWN = 12
LOST = timedelta(minutes=15)
"""A scheduler that has not looked for so long is not at work; one that cron starts looks every few minutes."""


@click.command(epilog="Example: newsletter schedule")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.option("--systemd", is_flag=True, help="Print the units to install instead.")
@click.option("--cron", is_flag=True, help="Print the lines for `crontab -e` instead.")
@click.option("--user", default="newsletter", show_default=True, help="Whom the units run as.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write the units into this folder, a file each.",
)
@click.pass_obj
def schedule(
    project: Project, *, as_json: bool, systemd: bool, cron: bool, user: str, out: Path | None
) -> None:
    """Show the next twelve dates, and which issue goes with each.

    Those that people have set by `send` are among them, and those that are held. The dates come from [schedule] in
    newsletter.toml; `newsletter run` sends what is due.
    """
    if as_json + systemd + cron > 1:
        raise UsageError("--json, --systemd and --cron are three answers: ask for one.")
    if out is not None and not systemd:
        raise UsageError("--out is where --systemd writes its units.", hint="Add --systemd.")
    if cron or systemd:
        from newsletter.cli import installing

        installing.print_units(project, user, out) if systemd else installing.print_cron(project)
        return
    now = datetime.now(UTC)
    settings, engine = project.settings, project.store
    dates = list(_dates(settings, engine, now))
    if as_json:
        output.print_json([each.as_json() for each in dates])
        return
    rule = settings.schedule.send
    output.say(
        f"Schedule: {rule or 'none'}, {settings.schedule.timezone}, to the list {settings.newsletter.list}."
    )
    if dates:
        output.print_table(
            ("date", "period", "issue", "how it stands"), [each.as_cells(settings) for each in dates]
        )
    _tell_scheduler(settings, engine, now, dates=bool(dates))
    _tell_next(settings, dates)


def _tell_scheduler(settings: Settings, engine: Engine, now: datetime, *, dates: bool) -> None:
    if words := scheduler_away(settings, engine, now):
        if dates:
            output.warn(words)
    else:
        output.say("`newsletter run` is at work.")


def scheduler_away(settings: Settings, engine: Engine, now: datetime) -> str:
    """What to say when nobody would send what is due; empty when somebody would."""
    from newsletter import appointments

    if _sends_of_a_date(settings, engine):  # it looks again when that is done
        return ""
    seen = appointments.last_seen(engine)
    if seen is None:
        return "nothing goes out by itself before `newsletter run` is at work, and it never was."
    if now - seen > LOST:
        return f"nothing goes out by itself: `newsletter run` was last at work on {seen.astimezone():%Y-%m-%d %H:%M}."
    return ""


def _sends_of_a_date(settings: Settings, engine: Engine) -> bool:
    """A process is at work on what came of an appointment: an hour, where a canary waits."""
    from newsletter import wiring
    from newsletter.store import appointments, owners
    from newsletter.store.engine import read

    at_work = [
        one.campaign_id for one in owners.at_work(engine, wiring.lock_path(settings)) if one.campaign_id
    ]
    return any(read(engine, partial(appointments.of_campaign, campaign_id=each)) for each in at_work)


def _tell_next(settings: Settings, dates: list[Date]) -> None:
    """About what waits for a person, else about the next date."""
    from newsletter import content

    if not dates:
        output.next_steps('in newsletter.toml, under [schedule]: send = "first tuesday 09:00"')
        return
    first = next((each for each in dates if each.is_held), dates[0])
    name = first.slug or next(iter(content.of_period(settings.project, first.period)), "")
    if not name:
        output.next_steps(f"newsletter new {first.period}")
    elif first.is_held:
        output.next_steps(*(f"newsletter {verb} {name} --list {first.list}" for verb in ("send", "cancel")))
    elif not first.slug:  # there are two
        output.next_steps(f"newsletter send {name} --at TIME")
    else:
        output.next_steps(f"newsletter check {name}")


@dataclass(frozen=True, slots=True)
class Date:
    """One line of the list."""

    due_at: datetime
    period: str
    list: str
    slug: str  # empty: there is no issue, or it is not clear which
    standing: str

    @property
    def is_held(self) -> bool:
        """Whether a person has to decide: one of which a campaign has come since is not."""
        return self.standing.startswith(f"{AppointmentState.HELD}: ")

    def as_cells(self, settings: Settings) -> tuple[str, ...]:
        """For the table."""
        here = f" to {self.list}" if self.list != settings.newsletter.list else ""
        return told(self.due_at, settings), self.period, (self.slug or "–") + here, self.standing

    def as_json(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "due_at": self.due_at.isoformat(),
            "period": self.period,
            "list": self.list,
            "issue": self.slug or None,
            "standing": self.standing,
        }


def told(moment: datetime, settings: Settings) -> str:
    """``Tue 01 Dec 2026 09:00 GMT``, by the publication's clock."""
    return f"{moment.astimezone(settings.schedule.timezone):%a %d %b %Y %H:%M %Z}"


def waiting(engine: Engine) -> list[Appointment]:
    """Those that are to go out, the earliest first; the schedule's are known from `remind` before their time on."""
    from newsletter.store import appointments
    from newsletter.store.engine import read

    return [one for one in read(engine, appointments.every) if one.state is AppointmentState.WAITING]


def next_one(engine: Engine, now: datetime) -> Appointment | None:
    """The next whose time has not come."""
    return next((one for one in waiting(engine) if one.due_at > now), None)


def _dates(settings: Settings, engine: Engine, now: datetime) -> Iterator[Date]:
    """What is open, and the schedule's next dates where their period has no other; the earliest first."""
    from newsletter.store import appointments
    from newsletter.store.engine import read

    opened = read(engine, appointments.every)
    further = [
        one for one in _of_schedule(settings, engine, now) if one.id not in {each.id for each in opened}
    ]
    for one in sorted([*opened, *further], key=lambda one: one.due_at):
        yield _date(settings, engine, one)


def _of_schedule(settings: Settings, engine: Engine, now: datetime) -> Iterator[Appointment]:
    """The next dates, as if each had an appointment; one that has keeps what became of it."""
    from newsletter import wiring
    from newsletter.schedule import occurrences
    from newsletter.store.appointments import find
    from newsletter.store.engine import read

    rules = wiring.rules(settings)
    if rules.schedule is None:
        return
    for each in islice(occurrences(rules.schedule, rules.zone, now), SHOWN):
        made = read(engine, partial(find, period=each.period, list_name=rules.list, kind=rules.kind))
        yield made or Appointment(
            0, each.period, rules.list, rules.kind, "", each.at, AppointmentState.WAITING, now
        )


def _date(settings: Settings, engine: Engine, one: Appointment) -> Date:
    try:
        slug = slug_of(settings, one)
    except ContentError as error:
        return Date(one.due_at, one.period, one.list, "", _standing(engine, one) or str(error))
    standing = _standing(engine, one) or _readiness(problem(settings, engine, one, slug))
    return Date(one.due_at, one.period, one.list, slug, standing)


def _standing(engine: Engine, one: Appointment) -> str:
    """What has become of it; empty while it waits."""
    campaign = _campaign(engine, one)
    if campaign is not None:
        by = "" if campaign.issue == one.period else f" as {campaign.issue}"
        return f"{campaign.state}{by}: its period is used"
    if one.state is AppointmentState.WAITING:
        return ""
    return f"{one.state}: {one.summary}"


def _campaign(engine: Engine, one: Appointment) -> Campaign | None:
    from newsletter.store import appointments, campaigns
    from newsletter.store.campaigns import Target
    from newsletter.store.engine import read

    if one.id:
        return read(engine, lambda conn: appointments.campaign_of(conn, one))
    if not one.kind.takes_period:
        return None
    return read(engine, lambda conn: campaigns.holder(conn, Target("", one.period, one.list, one.kind)))


def slug_of(settings: Settings, one: Appointment) -> str:
    """The issue that is to go. Raises ``ContentError`` when there is none, or more than one."""
    from newsletter import content

    found = [one.issue] if one.issue else content.of_period(settings.project, one.period)
    if not found:
        raise ContentError(
            f"there is no issue for {one.period} yet", hint=f"Write it: newsletter new {one.period}"
        )
    if len(found) > 1:
        raise ContentError(
            f"{' and '.join(found)} all have the period {one.period}.",
            hint=f"Say which one: newsletter send {found[0]} --at TIME",
        )
    return found[0]


def named(settings: Settings, one: Appointment) -> str:
    """The issue for a command to paste."""
    from newsletter import content

    return one.issue_of(content.by_period(settings.project))


def order_of(settings: Settings, engine: Engine, one: Appointment, slug: str) -> Order:
    """What a send of it would be. Raises ``UsageError`` when its options fit the settings no more."""
    from newsletter.cli import canary

    first = canary.asked(settings, one.kind, one.options.get("canary"), one.options.get("canary_wait"))
    why = one.options.get("override", "")
    return planning.Order(
        settings, engine, slug, one.list, one.kind, None, False, first, why, appointment=one
    )


def refuse_other_kind(settings: Settings, kind: Kind) -> None:
    """Raises ``Refused`` when what was to be sent, or was begun, is not what would be sent by the present settings."""
    from newsletter import wiring

    if (now := wiring.kind(settings)) is not kind:
        raise Refused(
            f"it was to be a {kind} campaign, and what is sent now would be a {now}.",
            hint="Somebody has changed [sending] since.",
        )


def refuse_sent_before(engine: Engine, one: Appointment, slug: str) -> None:
    """Raises ``Refused`` when the issue has had a campaign that is not of this date: its `period` was changed since."""
    from newsletter.store import appointments, campaigns
    from newsletter.store.engine import read

    def look(conn: Connection) -> Campaign | None:
        found = campaigns.find(conn, slug, one.list, one.kind) if one.kind is Kind.LIVE else None
        known = found is None or found.state is CampaignState.PREPARING or appointments.campaign_of(conn, one)
        return None if known else found

    if earlier := read(engine, look):
        raise Refused(
            f"{earlier.label} has begun before, for the period {earlier.period}, and an issue goes to nobody twice.",
            hint=f"What is to go in {one.period} needs an issue of its own.",
        )


def problem(settings: Settings, engine: Engine, one: Appointment, slug: str) -> NewsletterError | None:
    """What is in the way of sending it now; it is not asked for what needs the network."""
    from newsletter import wiring

    try:
        order = order_of(settings, engine, one, slug)
        refuse_sent_before(engine, one, slug)
        planning.refuse_nobody(order, planning.look(order).plan)
        refuse_other_kind(order.settings, order.kind)
        wiring.transport(order.settings, order.slug)
    except DatabaseError:
        raise
    except NewsletterError as error:
        return error
    return None


def _readiness(error: NewsletterError | None) -> str:
    """For the table; one line."""
    if error is None:
        return "ready"
    if isinstance(error, ChecksFailed):
        return f"not ready: {output.count_findings(error.findings)}"
    return f"not ready: {str(error).splitlines()[0]}"


# One of a person's own


def arrange(order: Order, at: str, options: Mapping[str, str | None], *, dry_run: bool) -> None:
    """``newsletter send --at``: shows what would go if it went now, asks, and writes the date down."""
    from newsletter import appointments, wiring

    now = datetime.now(UTC)
    due_at = _moment(order.settings, at, now)
    planned = planning.plan(replace(order, later=True)).plan
    planning.refuse_nobody(order, planned)
    output.say(f"{'at':>10}  {told(due_at, order.settings)}; who joins or leaves until then is counted then")
    if dry_run:
        output.next_steps(planning.command(order, {"at": at, **options}, planned.recipients))
        return
    wiring.transport(order.settings, order.slug)
    planning.confirm_number(planned.recipients, order.confirm)
    said = {name: text for name, text in options.items() if text is not None}
    made = appointments.arrange(order.engine, planned.target, due_at, said, now)
    output.say(f"{made.label} goes out on {told(due_at, order.settings)}.")
    output.say(f"`newsletter cancel {order.slug} --list {order.list}` takes it back.")
    if away := scheduler_away(order.settings, order.engine, now):
        output.warn(away)
    output.next_steps("newsletter schedule")


def _moment(settings: Settings, text: str, now: datetime) -> datetime:
    from newsletter.schedule import moment

    try:
        found = moment(text, settings.schedule.timezone)
    except ValueError as error:
        raise UsageError(f"--at {text!r} {error}.") from None
    if found <= now:
        raise UsageError(
            f"--at {text!r} is past: it is {told(now, settings)}.", hint="Leave --at out to send now."
        )
    return found


def open_appointments(project: Project, slug: str, list_name: str, kind: str | None) -> list[Appointment]:
    """Those of an issue, by its own date or by that of its period."""
    from newsletter import content
    from newsletter.store import appointments
    from newsletter.store.engine import read

    of_period = content.by_period(project.settings.project)
    here = [one for one in read(project.store, appointments.every) if one.list == list_name]
    named = [[one.issue] if one.issue else [one.period, *of_period.get(one.period, ())] for one in here]
    mine = [one for one, names in zip(here, named, strict=True) if slug in names]
    return [one for one in mine if kind is None or one.kind is Kind(kind)]


def tell_open(settings: Settings, engine: Engine) -> None:
    """For ``newsletter status``: what is held, what is to go out next, and whether anybody is there to send it."""
    from newsletter.store import appointments
    from newsletter.store.engine import read

    found = read(engine, appointments.every)
    for one in found:
        if one.state is AppointmentState.HELD:
            output.warn(f"{one.label}, {told(one.due_at, settings)}, is held: {one.summary}")
    coming = waiting(engine)
    for one in coming[:1]:
        output.say(f"{one.label} is to go out on {told(one.due_at, settings)}.")
    away = scheduler_away(settings, engine, datetime.now(UTC))
    if away and (coming or settings.schedule.send is not None):
        output.warn(away)


def take_back(engine: Engine, one: Appointment) -> None:
    """``newsletter cancel`` of what has not begun."""
    from newsletter import appointments

    if not appointments.cancel(engine, one, datetime.now(UTC)):
        raise Refused(
            f"{one.label} has changed meanwhile.", hint="`newsletter schedule` shows how it stands."
        )
    free = ", and its period is free" if one.kind.takes_period else ""
    output.say(f"{one.label} does not go out by itself any more. Nothing of it had left{free}.")

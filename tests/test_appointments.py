"""What goes out by itself: from the schedule or by a person's word, whoever looks and whatever the clock does."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select

from newsletter import appointments, freezing
from newsletter.appointments import Agenda, Rules
from newsletter.errors import Refused
from newsletter.model import AppointmentState, Kind
from newsletter.schedule import parse
from newsletter.store import appointments as rows
from newsletter.store import campaigns, facts, instance
from newsletter.store.campaigns import Target
from newsletter.store.engine import read, write
from newsletter.store.schema import appointment, campaign
from tests.support import ledgers
from tests.support.ledgers import EMAIL
from tests.support.publication import MESSAGE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from newsletter.model import Appointment, Campaign

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LONDON = ZoneInfo("Europe/London")
RULES = Rules(parse("first tuesday 09:00"), LONDON, 6 * HOUR, "hold", 3 * DAY, "readers", Kind.LIVE)
BEGUN = datetime(2027, 11, 20, 12, tzinfo=UTC)  # when the schedule was first looked at
DECEMBER = datetime(2027, 12, 7, 9, tzinfo=UTC)
JANUARY = datetime(2028, 1, 4, 9, tzinfo=UTC)


@dataclass
class Editors:
    """Who is told, and of what."""

    heard: list[tuple[str, str, str]] = field(default_factory=list)

    def __call__(
        self, _conn: Connection, event: str, one: Appointment, why: str, _now: datetime, about: str = ""
    ) -> bool:
        self.heard.append((event, one.period, why + about))
        return True


@dataclass
class Office:
    """A database with three readers, and editors."""

    engine: Engine
    editors: Editors = field(default_factory=Editors)

    def look(self, now: datetime, rules: Rules = RULES, **more: Any) -> Agenda:
        return appointments.look(self.engine, rules, now, self.editors, **more)

    def send(
        self, issue: str, period: str, one: Appointment | None = None, kind: Kind = Kind.LIVE
    ) -> Campaign:
        """Starts a campaign, as a person by hand or a scheduler for its appointment."""
        planned = freezing.plan(self.engine, Target(issue, period, "readers", kind))
        return freezing.freeze(
            self.engine,
            planned,
            [EMAIL],
            MESSAGE,
            transport="memory",
            now=BEGUN,
            owner="me",
            appointment=one.id if one else None,
        )

    def all(self) -> dict[str, tuple[str, datetime]]:
        """State and date by period."""
        asked = select(appointment.c.period, appointment.c.state, appointment.c.due_at)
        return {
            row.period: (row.state, row.due_at)
            for row in read(self.engine, lambda conn: conn.execute(asked).all())
        }


@pytest.fixture
def office(tmp_path: Path, database_url: str) -> Iterator[Office]:
    engine = ledgers.open_store(tmp_path, people=3, url=database_url)
    made = Office(engine)
    made.look(BEGUN)
    yield made
    engine.dispose()


def periods(found: list[Appointment]) -> list[str]:
    return [one.period for one in found]


# By the schedule


def test_a_date_is_written_down_when_it_comes_near_and_due_at_its_second(office: Office) -> None:
    assert office.all() == {}
    assert periods(office.look(DECEMBER - 3 * DAY).near) == ["2027-12"]
    assert office.all() == {"2027-12": ("waiting", DECEMBER)}
    almost = office.look(DECEMBER - timedelta(seconds=1))
    assert (periods(almost.near), almost.due) == (["2027-12"], [])
    assert periods(office.look(DECEMBER).due) == ["2027-12"]


def test_what_has_begun_is_not_due_any_more_whoever_began_it(office: Office) -> None:
    [due] = office.look(DECEMBER).due
    office.send("2027-12", "2027-12", due)
    assert office.look(DECEMBER + HOUR) == Agenda()

    office.send("2028-01", "2028-01")  # by hand, days before
    assert office.look(JANUARY - DAY) == Agenda()
    assert office.look(JANUARY) == Agenda()
    assert list(office.all()) == ["2027-12"]


def test_a_freeze_that_was_cut_off_leaves_it_due(office: Office) -> None:
    [due] = office.look(DECEMBER).due
    started = office.send("2027-12", "2027-12", due)
    back = campaign.update().where(campaign.c.id == started.id).values(state="preparing", owner="me")
    write(office.engine, lambda conn: conn.execute(back))
    assert periods(office.look(DECEMBER + HOUR).due) == ["2027-12"]


@pytest.mark.parametrize(
    ("late", "state", "due"),
    [("hold", "held", []), ("send", "waiting", ["2027-12"]), ("drop", "dropped", [])],
)
def test_a_machine_that_was_off_over_the_date_does_as_configured_and_says_so(
    office: Office, late: str, state: str, due: list[str]
) -> None:
    agenda = office.look(DECEMBER + 2 * DAY, replace(RULES, late=late))
    assert periods(agenda.due) == due
    assert office.all()["2027-12"] == (state, DECEMBER)
    if not due:
        assert periods(agenda.ended) == ["2027-12"]
        assert office.editors.heard == [(state, "2027-12", appointments.Why.LATE)]
        assert office.look(DECEMBER + 3 * DAY, replace(RULES, late=late)) == Agenda()
        assert len(office.editors.heard) == 1


def test_a_machine_that_was_off_for_less_than_max_lateness_sends(office: Office) -> None:
    assert periods(office.look(DECEMBER + 6 * HOUR).due) == ["2027-12"]


def test_of_several_dates_that_were_missed_only_the_newest_counts(office: Office) -> None:
    office.look(DECEMBER - HOUR)
    agenda = office.look(datetime(2028, 3, 7, 10, tzinfo=UTC))
    assert periods(agenda.due) == ["2028-03"]
    assert [(one.period, one.state) for one in agenda.ended] == [("2027-12", AppointmentState.DROPPED)]
    assert office.editors.heard == [("dropped", "2027-12", appointments.Why.MISSED)]


def test_a_held_one_stays_held_until_a_person_sends_or_cancels(office: Office) -> None:
    [due] = office.look(DECEMBER).due
    held = appointments.hold(office.engine, due, "no issue", DECEMBER, office.editors)
    assert held is not None
    assert (held.state, held.reason) == (AppointmentState.HELD, "no issue")
    assert office.look(DECEMBER + HOUR) == Agenda()
    office.send("2027-12", "2027-12")
    assert read(office.engine, rows.every) == []


def test_what_has_begun_meanwhile_is_not_held(office: Office) -> None:
    [due] = office.look(DECEMBER).due
    office.send("2027-12", "2027-12", due)
    assert appointments.hold(office.engine, due, "too late", DECEMBER, office.editors) is None
    assert office.editors.heard == []


# The schedule changes


def test_a_new_schedule_does_not_ask_for_what_was_before_it(tmp_path: Path) -> None:
    fresh = Office(ledgers.open_store(tmp_path, people=3))
    assert fresh.look(DECEMBER + 7 * HOUR) == Agenda()
    assert fresh.all() == {}
    assert periods(fresh.look(JANUARY).due) == ["2028-01"]
    fresh.engine.dispose()


def test_a_date_that_has_just_passed_when_the_schedule_is_written_is_held(tmp_path: Path) -> None:
    """Whoever writes "09:00" at five past nine may have meant today: a person says."""
    fresh = Office(ledgers.open_store(tmp_path, people=3))
    assert periods(fresh.look(DECEMBER + HOUR / 12).ended) == ["2027-12"]
    assert fresh.editors.heard == [("held", "2027-12", appointments.Why.PASSED)]
    fresh.engine.dispose()


def test_a_date_moves_with_the_schedule_while_it_waits(office: Office) -> None:
    office.look(DECEMBER - DAY)
    moved = replace(RULES, schedule=parse("second tuesday 10:00"))
    office.look(DECEMBER - HOUR, moved)
    assert office.all() == {"2027-12": ("waiting", DECEMBER + 7 * DAY + HOUR)}
    assert office.look(DECEMBER, moved).due == []
    assert periods(office.look(DECEMBER + 7 * DAY + HOUR, moved).due) == ["2027-12"]


@pytest.mark.parametrize("text", ["monthly on the 1st 09:00", "first tuesday 07:00"])
def test_moved_into_the_past_it_is_held(office: Office, text: str) -> None:
    office.look(DECEMBER - HOUR)
    assert periods(office.look(DECEMBER - HOUR / 2, replace(RULES, schedule=parse(text))).ended) == [
        "2027-12"
    ]
    assert office.all()["2027-12"][0] == "held"


def test_without_a_schedule_its_dates_are_gone_and_those_of_people_stay(office: Office) -> None:
    office.look(DECEMBER - HOUR)
    special = Target("special", "2027-11", "readers", Kind.LIVE)
    appointments.arrange(office.engine, special, DECEMBER, {}, BEGUN)
    agenda = office.look(DECEMBER, replace(RULES, schedule=None))
    assert periods(agenda.due) == ["2027-11"]
    assert list(office.all()) == ["2027-11"]
    # Back again, it counts from now on: what was due a minute ago may have been meant.
    assert periods(office.look(DECEMBER + HOUR / 60).ended) == ["2027-12"]


def test_rehearsals_have_dates_of_their_own(office: Office) -> None:
    rehearsal = replace(RULES, kind=Kind.REHEARSAL)
    [due] = office.look(DECEMBER, rehearsal).due
    first = office.send("2027-12", "2027-12", due, Kind.REHEARSAL)
    assert first.attempt == 1
    assert office.look(DECEMBER, rehearsal).due == []
    assert [one.kind for one in office.look(DECEMBER).due] == [Kind.LIVE]
    with pytest.raises(
        freezing.InPreparation
    ):  # one campaign comes of an appointment, also with the next number
        office.send("2027-12", "2027-12", due, Kind.REHEARSAL)


# The clock and the database


def test_a_clock_that_jumps_back_stops_everything_and_sends_nothing_twice(office: Office) -> None:
    [due] = office.look(DECEMBER).due
    office.send("2027-12", "2027-12", due)
    with pytest.raises(Refused, match="the clock says"):
        office.look(DECEMBER - 30 * DAY)
    assert office.look(DECEMBER - 30 * DAY, clock_is_right=True).due == []
    assert office.look(DECEMBER).due == []


def test_after_a_restore_nothing_goes_out_that_was_due_before(office: Office) -> None:
    special = Target("special", "2027-11", "readers", Kind.LIVE)
    appointments.arrange(office.engine, special, DECEMBER - HOUR, {}, BEGUN)
    restored = DECEMBER + HOUR / 60
    write(office.engine, lambda conn: facts.remember(conn, {instance.CLAIMED_AT: restored.isoformat()}))
    agenda = office.look(restored + HOUR / 60)
    assert agenda.due == []
    assert sorted(periods(agenda.ended)) == ["2027-11", "2027-12"]
    assert {state for state, _ in office.all().values()} == {"held"}


def test_the_last_look_is_remembered(office: Office) -> None:
    office.look(DECEMBER)
    assert appointments.last_seen(office.engine) == DECEMBER


# People's own dates


SPECIAL = Target("2027-12", "2027-12", "readers", Kind.LIVE)
THURSDAY = DECEMBER + 2 * DAY


def test_an_issue_with_a_date_of_its_own_goes_then_and_not_by_the_schedule(office: Office) -> None:
    office.look(DECEMBER - DAY)
    made = appointments.arrange(office.engine, SPECIAL, THURSDAY, {"canary": "1%"}, DECEMBER - DAY)
    assert (made.issue, made.due_at, made.options) == ("2027-12", THURSDAY, {"canary": "1%"})
    assert office.look(DECEMBER).due == []
    assert [one.issue for one in office.look(THURSDAY).due] == ["2027-12"]


def test_another_date_takes_the_place_of_the_first_also_of_one_that_is_held(office: Office) -> None:
    made = appointments.arrange(office.engine, SPECIAL, THURSDAY, {}, BEGUN)
    appointments.hold(office.engine, made, "not approved", THURSDAY, office.editors)
    again = appointments.arrange(office.engine, SPECIAL, THURSDAY + DAY, {}, THURSDAY + HOUR)
    assert (again.id, again.state, again.reason) == (made.id, AppointmentState.WAITING, "")


def test_two_issues_can_not_have_the_date_of_one_period(office: Office) -> None:
    appointments.arrange(office.engine, SPECIAL, THURSDAY, {}, BEGUN)
    other = replace(SPECIAL, issue="2027-12-extra")
    with pytest.raises(Refused, match="has a date already, for 2027-12"):
        appointments.arrange(office.engine, other, THURSDAY, {}, BEGUN)
    [made] = read(office.engine, rows.every)
    assert appointments.cancel(office.engine, made, BEGUN)
    assert appointments.arrange(office.engine, other, THURSDAY, {}, BEGUN).issue == "2027-12-extra"


def test_a_period_that_was_sent_gets_no_date(office: Office) -> None:
    made = appointments.arrange(office.engine, SPECIAL, THURSDAY, {}, BEGUN)
    office.send("2027-12", "2027-12")
    with pytest.raises(Refused, match="has the period 2027-12 already"):
        appointments.arrange(office.engine, SPECIAL, THURSDAY, {}, BEGUN)
    assert not appointments.cancel(office.engine, made, BEGUN)


def test_a_cancelled_date_is_skipped(office: Office) -> None:
    office.look(DECEMBER - DAY)
    [made] = read(office.engine, rows.every)
    assert appointments.cancel(office.engine, made, DECEMBER - DAY)
    assert office.look(DECEMBER) == Agenda()
    assert periods(office.look(JANUARY).due) == ["2028-01"]


def test_an_issue_that_was_sent_for_another_period_gets_no_date(office: Office) -> None:
    office.send("2027-12", "2027-11")
    target = Target("2027-12", "2027-12", "readers", Kind.LIVE)
    with pytest.raises(Refused, match="has the period 2027-11 already"):
        appointments.arrange(office.engine, target, JANUARY, {}, BEGUN)
    assert office.all() == {}


def test_an_issue_has_one_date_also_when_its_period_is_another_one_now(office: Office) -> None:
    first = appointments.arrange(office.engine, SPECIAL, THURSDAY, {}, BEGUN)
    appointments.arrange(office.engine, replace(SPECIAL, period="2027-12 (2)"), JANUARY, {}, BEGUN)
    assert [one.period for one in read(office.engine, rows.every)] == ["2027-12 (2)"]
    assert office.all()[first.period][0] == "cancelled"


@pytest.mark.parametrize("key", [appointments.SINCE, instance.CLAIMED_AT])
def test_a_clock_that_was_years_ahead_when_the_schedule_was_seen_holds_nothing_for_years(
    office: Office, key: str
) -> None:
    write(office.engine, lambda conn: facts.remember(conn, {key: "2035-01-01T00:00:00+00:00"}))
    office.look(DECEMBER - DAY)
    assert periods(office.look(DECEMBER).due) == ["2027-12"]
    assert office.editors.heard == []


def test_a_rehearsal_that_has_ended_can_be_given_another_date(office: Office) -> None:
    rehearsal = replace(SPECIAL, kind=Kind.REHEARSAL)
    made = appointments.arrange(office.engine, rehearsal, THURSDAY, {}, BEGUN)
    first = office.send(made.issue, made.period, made, Kind.REHEARSAL)
    with pytest.raises(Refused, match="has not ended: it is running"):
        appointments.arrange(office.engine, rehearsal, JANUARY, {}, BEGUN)
    assert write(office.engine, lambda conn: campaigns.cancel(conn, first.id, BEGUN))
    again = appointments.arrange(office.engine, rehearsal, JANUARY, {}, BEGUN)
    assert [one.due_at for one in read(office.engine, rows.every)] == [JANUARY]
    assert office.send(made.issue, made.period, again, Kind.REHEARSAL).attempt == 2
    assert read(office.engine, rows.every) == []


@pytest.mark.parametrize(("later", "late"), [(2 * HOUR, "hold"), (9 * DAY, "send")])
def test_going_live_after_a_rehearsal_sends_nothing_by_surprise(
    office: Office, later: timedelta, late: str
) -> None:
    rehearsing = replace(RULES, kind=Kind.REHEARSAL)
    office.look(BEGUN, rehearsing)
    [due] = office.look(DECEMBER, rehearsing).due
    office.send("2027-12", "2027-12", due, Kind.REHEARSAL)
    assert office.look(DECEMBER + later, replace(RULES, late=late)).due == []
    assert periods(office.look(JANUARY, replace(RULES, late=late)).due) == ["2028-01"]

"""Appointments: when an issue is to go to a list. Rows only; ``appointments`` decides.

Nothing marks one as done. It is over when its period has a campaign, which the campaign's own unique key decides, so
no crash can come between the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, case, delete, exists, insert, or_, select, update

from newsletter.model import Appointment, AppointmentState, CampaignState, Kind
from newsletter.store import campaigns
from newsletter.store.schema import appointment, campaign

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Row

    from newsletter.model import Campaign

OPEN = frozenset({AppointmentState.WAITING, AppointmentState.HELD})


def _from_row(row: Row[Any]) -> Appointment:
    return Appointment(
        id=row.id,
        period=row.period,
        list=row.audience,
        kind=Kind(row.kind),
        issue=row.issue or "",
        due_at=row.due_at,
        state=AppointmentState(row.state),
        changed_at=row.changed_at,
        options=dict(row.options),
        reason=row.reason,
    )


def _came_of_it() -> ColumnElement[bool]:
    """A campaign has its number or, live, its period: a person may have sent by hand what was to go by itself.

    A date for one issue is over when that issue has begun, in whichever period. Another one's campaign leaves it
    waiting: it may have a reason to override, and without one its editors have to hear that it can't go.
    """
    same = case(
        (appointment.c.issue.is_(None), campaign.c.period == appointment.c.period),
        else_=campaign.c.issue == appointment.c.issue,
    )
    by_hand = and_(
        appointment.c.kind == Kind.LIVE,
        campaign.c.kind == Kind.LIVE,
        campaign.c.audience == appointment.c.audience,
        same,
    )
    its_own = campaign.c.appointment_id == appointment.c.id
    return and_(campaign.c.state != CampaignState.PREPARING, or_(its_own, by_hand))


def every(conn: Connection, states: Collection[AppointmentState] = OPEN) -> list[Appointment]:
    """All that are in one of the states and of which no campaign has come, the earliest first."""
    wanted = appointment.c.state.in_([state.value for state in states])
    rows = select(appointment).where(wanted, ~exists().where(_came_of_it()))
    return [_from_row(row) for row in conn.execute(rows.order_by(appointment.c.due_at, appointment.c.id))]


def find(conn: Connection, period: str, list_name: str, kind: Kind) -> Appointment | None:
    """The one of a period, whatever has become of it."""
    row = conn.execute(select(appointment).where(*_key(period, list_name, kind))).first()
    return _from_row(row) if row else None


def _key(period: str, list_name: str, kind: Kind) -> tuple[ColumnElement[bool], ...]:
    return appointment.c.period == period, appointment.c.audience == list_name, appointment.c.kind == kind


def campaign_of(conn: Connection, one: Appointment) -> Campaign | None:
    """The campaign that has come of it, if any has."""
    found = select(campaign.c.id).select_from(appointment.join(campaign, _came_of_it()))
    number = conn.scalar(found.where(appointment.c.id == one.id).limit(1))
    return None if number is None else campaigns.get(conn, number)


def of_campaign(conn: Connection, campaign_id: int) -> int | None:
    """The number of the appointment that a campaign came of."""
    return conn.scalar(select(campaign.c.appointment_id).where(campaign.c.id == campaign_id))


def make(
    conn: Connection,
    period: str,
    list_name: str,
    kind: Kind,
    due_at: datetime,
    *,
    now: datetime,
    issue: str = "",
    options: Mapping[str, str] | None = None,
) -> None:
    """A new one. The unique key refuses a second one of the period with an ``IntegrityError``."""
    row = {
        "period": period,
        "audience": list_name,
        "kind": kind,
        "issue": issue or None,
        "due_at": due_at,
        "options": dict(options or {}),
        "state": AppointmentState.WAITING,
        "reason": "",
        "created_at": now,
        "changed_at": now,
    }
    conn.execute(insert(appointment).values(row))


def set_again(
    conn: Connection, number: int, due_at: datetime, *, now: datetime, issue: str, options: Mapping[str, str]
) -> None:
    """Another time for one that was made before, whatever had become of it: it waits."""
    values = {
        "issue": issue or None,
        "due_at": due_at,
        "options": dict(options),
        "state": AppointmentState.WAITING,
        "reason": "",
        "changed_at": now,
    }
    conn.execute(update(appointment).where(appointment.c.id == number).values(values))


def part(conn: Connection, number: int) -> bool:
    """A rehearsal that has ended is not its appointment's any more, so that another one can come of it."""
    mine = (campaign.c.appointment_id == number, campaign.c.kind == Kind.REHEARSAL)
    ended = campaign.c.state.in_([CampaignState.FINISHED.value, CampaignState.CANCELLED.value])
    return conn.execute(update(campaign).where(*mine, ended).values(appointment_id=None)).rowcount > 0


def move(conn: Connection, number: int, due_at: datetime) -> None:
    """The schedule was changed: another time for one that it has made and that waits."""
    mine = (appointment.c.id == number, appointment.c.issue.is_(None))
    conn.execute(update(appointment).where(*mine, _in({AppointmentState.WAITING})).values(due_at=due_at))


def forget(conn: Connection, keep: Collection[int] = ()) -> None:
    """The schedule does not want them any more: all that it has made and that wait, but for those to ``keep``.

    One of which a campaign has come stays: it is what stops a second rehearsal.
    """
    its_own = (appointment.c.issue.is_(None), _in({AppointmentState.WAITING}), ~exists().where(_came_of_it()))
    conn.execute(delete(appointment).where(*its_own, appointment.c.id.not_in(list(keep))))


def end(
    conn: Connection,
    number: int,
    state: AppointmentState,
    reason: str,
    now: datetime,
    origins: Collection[AppointmentState] = frozenset({AppointmentState.WAITING}),
) -> bool:
    """``waiting`` → held, dropped or cancelled; False when it is not so any more, or when a campaign has come of it."""
    values = {"state": state, "reason": reason, "changed_at": now}
    free = (appointment.c.id == number, _in(origins), ~exists().where(_came_of_it()))
    return conn.execute(update(appointment).where(*free).values(values)).rowcount == 1


def _in(states: Collection[AppointmentState]) -> ColumnElement[bool]:
    return appointment.c.state.in_([state.value for state in states])

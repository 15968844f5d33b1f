"""The ledger against the book: each kind of lie is called by its name."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from newsletter.drill.book import Copy
from newsletter.drill.verdict import Evidence, Verdict, judge
from newsletter.model import Delivery, DeliveryState

NOW = datetime(2026, 12, 1, 9, tzinfo=UTC)
SOON = NOW + timedelta(seconds=1)
LATER = NOW + timedelta(seconds=2)
ACCEPTED, REFUSED, SKIPPED, UNKNOWN = (
    DeliveryState.ACCEPTED,
    DeliveryState.REFUSED,
    DeliveryState.SKIPPED,
    DeliveryState.UNKNOWN,
)


def address(number: int) -> str:
    return f"reader{number}@example.org"


def row(number: int, state: DeliveryState, handed_at: datetime | None = NOW) -> Delivery:
    return Delivery(
        number.to_bytes(16, "big"),
        address(number),
        "",
        state,
        1,
        None,
        handed_at,
        None if not handed_at else NOW,
    )


def copy(number: int, to: int | None = None, at: datetime = NOW) -> Copy:
    return Copy(number.to_bytes(16, "big").hex(), address(number if to is None else to), at, answered=True)


HONEST = Evidence(
    people=[address(number) for number in range(1, 6)],
    rows=[
        row(1, ACCEPTED),
        row(2, REFUSED),
        row(3, SKIPPED, None),
        row(4, UNKNOWN),
        row(5, UNKNOWN),
    ],
    copies=[copy(1), copy(4)],
    refused=[address(2)],
    left={address(3): NOW},
    kills=1,
    per_kill=2,
)


def found(**lie: object) -> Verdict:
    return judge(replace(HONEST, **lie))


def instead(changed: Delivery) -> list[Delivery]:
    return [changed if one.id == changed.id else one for one in HONEST.rows]


def test_a_true_ledger_has_no_faults() -> None:
    verdict = judge(HONEST)
    assert verdict.faults == []
    assert (verdict.people, verdict.settled, verdict.unknown) == (5, 3, 2)
    assert (verdict.unknown_arrived, verdict.unknown_missing) == (1, 1)


def test_accepted_without_a_copy_is_lost() -> None:
    assert "reader1@example.org is accepted" in found(copies=[copy(4)]).lost[0]


def test_no_row_is_lost() -> None:
    assert found(rows=HONEST.rows[:4]).lost == ["reader5@example.org has no row in the ledger"]


@pytest.mark.parametrize(
    "state", [DeliveryState.PENDING, DeliveryState.CLAIMED, DeliveryState.HANDED, DeliveryState.CLOSED]
)
def test_a_row_that_has_not_ended_is_lost(state: DeliveryState) -> None:
    assert found(rows=instead(row(4, state))).lost == [f"reader4@example.org is still {state} after the end"]


def test_two_copies_are_a_duplicate_even_if_one_is_unknown() -> None:
    verdict = found(copies=[*HONEST.copies, copy(4, at=LATER)])
    assert verdict.duplicated == ["reader4@example.org got 2 copies"]


def test_two_rows_for_one_person_are_a_duplicate() -> None:
    again = replace(row(9, SKIPPED, None), address=address(3))
    assert found(rows=[*HONEST.rows, again]).duplicated == ["reader3@example.org has 2 rows in the ledger"]


@pytest.mark.parametrize("number", [2, 3])
def test_a_copy_of_somebody_who_was_refused_or_skipped_is_misjudged(number: int) -> None:
    [said] = found(copies=[*HONEST.copies, copy(number)]).misjudged
    assert "and the provider took the copy" in said


def test_a_copy_that_is_not_in_the_ledger_is_misjudged() -> None:
    [said] = found(copies=[*HONEST.copies, copy(77)]).misjudged
    assert "which is not in the ledger" in said


def test_a_copy_at_another_address_is_misjudged() -> None:
    said = found(copies=[copy(1), copy(4, to=5)]).misjudged
    assert said == ["reader5@example.org got the copy of reader4@example.org"]


def test_refused_without_a_no_is_misjudged() -> None:
    assert found(refused=[]).misjudged == [
        "reader2@example.org is refused in the ledger, and the provider never said no"
    ]


def test_skipped_without_having_left_is_misjudged() -> None:
    assert found(left={}).misjudged == ["reader3@example.org was skipped and had never left"]


def test_handed_over_after_leaving_is_misjudged_whether_it_arrived_or_not() -> None:
    left = {address(3): NOW, address(5): NOW}
    assert found(rows=instead(row(5, UNKNOWN, SOON)), left=left).misjudged == [
        "reader5@example.org was handed over after leaving"
    ]


def test_handed_over_before_leaving_is_fine() -> None:
    assert found(left={address(3): NOW, address(4): SOON}).faults == []


def test_a_copy_after_leaving_in_peace_is_misjudged_whatever_the_ledger_says() -> None:
    left = {address(3): NOW, address(4): SOON}
    verdict = found(left=left, left_in_peace=[address(4)], copies=[copy(1), copy(4, at=LATER)])
    assert verdict.misjudged == ["reader4@example.org got a copy after leaving"]


def test_more_unknown_than_the_kills_explain_are_a_fault() -> None:
    [said] = found(per_kill=1).faults
    assert said == "2 copies are unknown without a withheld answer, and 1 may be"


def test_withheld_answers_explain_unknown_copies_by_name() -> None:
    assert found(per_kill=1, withheld=[copy(5).delivery]).faults == []
    assert found(per_kill=1, withheld=[copy(1).delivery]).faults


def test_requests_that_were_cut_unread_explain_as_many_as_they_can_have_held() -> None:
    assert found(kills=0, unread=2).faults == []
    assert found(kills=0, unread=1).faults

"""Rows that are next: in their order, those of a limited domain apart, and only as many as there is room for."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from newsletter.limits import ALL, Limits, Rate
from newsletter.store import ahead as module
from newsletter.store.ahead import Ahead, Claimed

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytest

SLOW = Rate(1, 1)
GMAIL, GMX = "domain:gmail.com", "domain:gmx.net"
LIMITS = Limits(SLOW, {"gmail.com": SLOW, "gmx.net": SLOW})
NOTHING: Counter[str] = Counter()


class Room:
    """What the database has left for each scope."""

    def __init__(self, left: Mapping[str, int]) -> None:
        self._left = left

    def left(self, scope: str) -> int:
        return self._left[scope]


def row(seq: int, domain: str = "example.org") -> Claimed:
    address = f"p{seq}@{domain}"
    return Claimed(seq, bytes([seq]), b"", address, "", {}, seq, "full", 0, resent=False)


def filled(*domains: str, limits: Limits = LIMITS) -> Ahead:
    made = Ahead(limits)
    made.add(row(number, domain) for number, domain in enumerate(domains, 1))
    return made


def numbers(rows: list[Claimed]) -> list[int]:
    return [one.seq for one in rows]


def room(all_: int = 99, gmail: int = 99, gmx: int = 99) -> Room:
    return Room({ALL: all_, GMAIL: gmail, GMX: gmx})


def test_without_limits_rows_leave_in_their_order() -> None:
    rows = filled(*["example.org"] * 5, limits=Limits())
    assert numbers(rows.take(2, None, NOTHING)) == [1, 2]
    assert numbers(rows.take(9, None, NOTHING)) == [3, 4, 5]
    assert rows.take(1, None, NOTHING) == []


def test_rows_of_a_domain_that_has_no_room_are_passed_by_and_come_first_when_it_has() -> None:
    rows = filled("gmail.com", "example.org", "gmail.com", "example.org", "gmx.net")
    assert numbers(rows.take(4, room(gmail=1), NOTHING)) == [1, 2, 4, 5]
    assert rows.waiting() == {GMAIL}
    assert rows.take(4, room(gmail=0), NOTHING) == []
    assert numbers(rows.take(4, room(gmail=1), NOTHING)) == [3]
    assert rows.waiting() == set()


def test_the_total_limit_holds_for_all_domains_together() -> None:
    rows = filled("gmail.com", "gmx.net", "example.org", "example.org")
    assert numbers(rows.take(4, room(all_=2), NOTHING)) == [1, 2]
    assert rows.waiting() == {ALL}


def test_what_was_spent_in_this_step_is_no_longer_there() -> None:
    rows = filled("gmail.com", "gmail.com", "example.org")
    assert numbers(rows.take(3, room(all_=5, gmail=2), Counter({GMAIL: 2}))) == [3]
    assert rows.take(1, room(all_=3), Counter({ALL: 3})) == []


def test_more_is_claimed_past_those_who_wait_but_not_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_HELD_BACK", 2)
    rows = filled("gmail.com")
    assert not rows.wants_more
    rows.take(1, room(gmail=0), NOTHING)
    assert rows.wants_more
    rows.add([row(2, "gmail.com")])
    rows.take(1, room(gmail=0), NOTHING)
    assert not rows.wants_more


def test_what_is_put_back_is_next_again() -> None:
    rows = filled(*["example.org"] * 3)
    taken = rows.take(2, room(), NOTHING)
    rows.put_back(taken)
    assert numbers(rows.take(3, room(), NOTHING)) == [1, 2, 3]


domains = st.lists(st.sampled_from(("gmail.com", "gmx.net", "example.org")), max_size=30)
rooms = st.builds(room, st.integers(0, 6), st.integers(0, 3), st.integers(0, 3))


@given(domains, st.lists(st.tuples(st.integers(1, 5), rooms), max_size=20))
def test_nobody_is_lost_nobody_doubled_and_each_domain_keeps_its_order(
    people: list[str], steps: list[tuple[int, Room]]
) -> None:
    rows, left = filled(*people), Counter[str]()
    gone: list[Claimed] = []
    for want, space in steps:
        twin, before = rows.copy(), numbers(gone)
        taken = rows.take(want, space, NOTHING)
        assert twin.take(want, space, NOTHING) == taken, (
            "a copy gives the same rows, and changes nothing in this one"
        )
        left = Counter(LIMITS.scope_of(one.address) for one in taken)
        assert len(taken) <= min(want, space.left(ALL))
        assert all(count <= space.left(scope) for scope, count in left.items() if scope != ALL)
        assert not set(before) & set(numbers(taken))
        gone += taken
    while more := rows.take(5, room(), NOTHING):
        gone += more
    assert sorted(numbers(gone)) == list(range(1, len(people) + 1))
    for scope in (GMAIL, GMX):
        of_it = [one.seq for one in gone if LIMITS.scope_of(one.address) == scope]
        assert of_it == sorted(of_it)

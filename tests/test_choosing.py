"""What a person can do with the link in their mail, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, func, select, update

from newsletter import choosing, freezing, personal_data
from newsletter.joining import Wording
from newsletter.model import DeliveryState, Edition, LetterPurpose, SubscriptionState
from newsletter.store import marks
from newsletter.store.engine import read, write
from newsletter.store.schema import consent, delivery
from tests.support.ledgers import NOW, TARGET, freeze, open_store
from tests.support.readers import SECRET, ZOE, acts, emptied, joins, key, letters, state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

NEVER = 99  # nobody's number
LATEST = datetime.fromisoformat("9000-01-01")  # hypothesis puts the zone to it
SAID = {"source": "their link", "now": NOW}
WORDING = Wording.of("I want this by email.", "en")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One of each kind for all tests of this file."""
    url = request.getfixturevalue("postgresql_server").create() if request.param == "postgresql" else ""
    made = open_store(tmp_path_factory.mktemp("readers"), url=url)
    yield made
    made.dispose()


@pytest.fixture
def engine(database: Engine) -> Engine:
    """A list without anybody on it."""
    return emptied(database)


def do(engine: Engine, act: Callable[..., Any], *args: object, **changes: object) -> Any:
    """One press of a button."""
    return write(engine, lambda conn: act(conn, *args, **(SAID | changes)))


def standing(engine: Engine, number: int) -> choosing.Choices:
    found = read(engine, lambda conn: choosing.standing(conn, number))
    assert found is not None
    return found


def dump(engine: Engine) -> int:
    """How much was ever said."""
    return int(read(engine, lambda conn: conn.scalar(select(func.count()).select_from(consent))))


def test_a_person_leaves_at_once_and_leaving_twice_is_leaving_once(engine: Engine) -> None:
    zoe = joins(engine)
    assert do(engine, choosing.leave, zoe, form="one click") == "left"
    assert do(engine, choosing.leave, zoe) == "already"
    assert do(engine, choosing.leave, NEVER) == "unknown"
    assert state_of(engine, zoe) == SubscriptionState.UNSUBSCRIBED
    assert acts(engine, zoe) == ["added", "unsubscribed"]


def test_many_who_leave_together_cost_three_statements(engine: Engine) -> None:
    crowd = [joins(engine, f"p{number}@example.org") for number in range(20)]
    seen: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *call: seen.append(call[2]))
    found = do(engine, choosing.leave_many, [*crowd, NEVER])
    assert len([text for text in seen if text.split()[0] in {"UPDATE", "INSERT", "SELECT"}]) <= 3 + len(
        [text for text in seen if "sqlite_master" in text or "pg_" in text]
    )
    assert {found[number] for number in crowd} == {"left"}
    assert found[NEVER] == "unknown"
    assert all(acts(engine, number)[-1] == "unsubscribed" for number in crowd[:2])


@pytest.mark.parametrize(
    ("moment", "months", "until"),
    [
        (datetime(2026, 1, 31, 9, tzinfo=UTC), 1, datetime(2026, 2, 28, 9, tzinfo=UTC)),
        (datetime(2027, 8, 31, 9, tzinfo=UTC), 6, datetime(2028, 2, 29, 9, tzinfo=UTC)),
        (datetime(2026, 11, 30, 9, tzinfo=UTC), 3, datetime(2027, 2, 28, 9, tzinfo=UTC)),
        (datetime(2026, 12, 1, 9, tzinfo=UTC), 1, datetime(2027, 1, 1, 9, tzinfo=UTC)),
    ],
)
def test_a_pause_lasts_calendar_months(moment: datetime, months: int, until: datetime) -> None:
    assert choosing.months_later(moment, months) == until


@given(
    st.datetimes(timezones=st.just(UTC), max_value=LATEST),
    st.sampled_from([1, 3, 6]),
)
def test_a_pause_is_never_shorter_than_the_month_or_longer(moment: datetime, months: int) -> None:
    until = choosing.months_later(moment, months)
    assert (until.year * 12 + until.month) - (moment.year * 12 + moment.month) == months
    assert until.day <= moment.day
    assert until.time() == moment.time()


def test_a_person_pauses_sees_until_when_and_ends_it(engine: Engine) -> None:
    zoe = joins(engine)
    until = do(engine, choosing.pause, zoe, 3)
    assert standing(engine, zoe).paused_until == until == choosing.months_later(NOW, 3)
    assert do(engine, choosing.pause, zoe, 3, now=NOW + timedelta(minutes=1)) == until  # pressed twice
    assert do(engine, choosing.pause, zoe, 1) == choosing.months_later(NOW, 1)
    assert do(engine, choosing.resume, zoe)
    assert not do(engine, choosing.resume, zoe)
    assert standing(engine, zoe).paused_until is None
    days = [f"paused until {choosing.months_later(NOW, months):%Y-%m-%d}" for months in (3, 1)]
    assert acts(engine, zoe) == ["added", *days, "resumed"]


def test_a_break_is_a_break_from_every_list_and_is_recorded_on_each(engine: Engine) -> None:
    zoe, also, gone = joins(engine), joins(engine, list_name="carers"), joins(engine, list_name="old")
    asked, bob = joins(engine, list_name="new", state="pending"), joins(engine, "bob@example.org")
    do(engine, choosing.leave, gone)
    until = do(engine, choosing.pause, zoe, 3)
    assert [state_of(engine, number) for number in (zoe, also)] == ["paused", "paused"]
    assert standing(engine, gone).paused_until == until  # whichever mail the link was in
    assert do(engine, choosing.pause, also, 3) == until
    assert do(engine, choosing.resume, also)
    assert [state_of(engine, n) for n in (zoe, also, gone, asked, bob)] == [
        *("active", "active", "unsubscribed", "pending", "active")
    ]
    for number in (zoe, also):
        assert acts(engine, number) == ["added", f"paused until {until:%Y-%m-%d}", "resumed"]
    assert acts(engine, bob) == acts(engine, asked) == ["added"]


def test_a_break_from_one_list_alone_becomes_one_from_all(engine: Engine) -> None:
    zoe = joins(engine)
    until = do(engine, choosing.pause, zoe, 1)
    also = joins(engine, list_name="carers")
    assert do(engine, choosing.pause, zoe, 1) == until
    said = f"paused until {until:%Y-%m-%d}"
    assert (acts(engine, zoe), acts(engine, also)) == (["added", said], ["added", said])


@pytest.mark.parametrize("state", ["pending", "unsubscribed"])
def test_neither_a_pause_nor_its_end_brings_anybody_onto_the_list(engine: Engine, state: str) -> None:
    zoe = joins(engine, state=state)
    assert do(engine, choosing.pause, zoe, 1) is None
    assert not do(engine, choosing.resume, zoe)
    assert do(engine, choosing.pause, NEVER, 1) is None
    assert state_of(engine, zoe) == state


def test_no_other_pause_and_no_other_edition_exist(engine: Engine) -> None:
    zoe = joins(engine)
    with pytest.raises(ValueError, match="1, 3, 6 months"):
        do(engine, choosing.pause, zoe, 2)
    with pytest.raises(ValueError, match="not a valid Edition"):
        do(engine, choosing.choose_edition, zoe, "gold")


def test_a_pause_ends_by_itself_when_its_time_has_come_and_not_before(engine: Engine) -> None:
    short, long = joins(engine, "a@example.org"), joins(engine, "b@example.org")
    ends = do(engine, choosing.pause, short, 1)
    do(engine, choosing.pause, long, 6)
    choosing.wake_all(engine, ends - timedelta(seconds=1))
    assert state_of(engine, short) == SubscriptionState.PAUSED
    assert write(engine, lambda conn: choosing.wake(conn, ends, 10))
    assert not write(engine, lambda conn: choosing.wake(conn, ends, 10))
    assert acts(engine, short)[-1] == "pause ended"
    assert (state_of(engine, short), state_of(engine, long)) == ("active", "paused")


def test_all_who_are_to_wake_wake_though_one_step_takes_only_some(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "CHUNK", 2)
    crowd = [joins(engine, f"p{number}@example.org") for number in range(5)]
    ends = [do(engine, choosing.pause, number, 1) for number in crowd]
    choosing.wake_all(engine, max(ends))
    assert {state_of(engine, number) for number in crowd} == {SubscriptionState.ACTIVE}


def test_plan_and_freeze_agree_on_everybody_whose_pause_is_over(engine: Engine) -> None:
    over, endless, just = (joins(engine, f"{name}@example.org") for name in ("over", "endless", "just"))
    joins(engine)
    ends = do(engine, choosing.pause, over, 1)
    do(engine, choosing.pause, endless, 6)
    do(engine, choosing.pause, just, 1, now=NOW + timedelta(days=1))
    planned = freezing.plan(engine, TARGET, now=ends)
    assert (planned.recipients, dict(planned.left_out)) == (2, {"paused": 2})
    assert planned.now is not None
    choosing.wake_all(engine, planned.now)
    freeze(engine)
    frozen = read(engine, lambda conn: set(conn.scalars(select(delivery.c.subscription_id))))
    assert (len(frozen), over in frozen) == (planned.recipients, True)


def test_another_edition_counts_on_every_list_and_is_recorded_once(engine: Engine) -> None:
    zoe, also = joins(engine), joins(engine, list_name="carers")
    assert do(engine, choosing.choose_edition, zoe, Edition.LARGE)
    assert do(engine, choosing.choose_edition, zoe, Edition.LARGE)
    assert not do(engine, choosing.choose_edition, NEVER, Edition.LARGE)
    assert standing(engine, also).edition is Edition.LARGE
    assert acts(engine, zoe) == ["added", "chose the edition large"]


def test_what_the_page_may_show_has_every_list_and_neither_name_nor_address(engine: Engine) -> None:
    zoe = joins(engine)
    joins(engine, list_name="carers", state="unsubscribed")
    found = standing(engine, zoe)
    assert [(place.list, place.state) for place in found.lists] == [
        ("carers", "unsubscribed"),
        ("readers", "active"),
    ]
    assert not any(word in repr(found) for word in ("zoe", "Zoë", "Leeds", key(ZOE).hex()))
    assert read(engine, lambda conn: choosing.standing(conn, NEVER)) is None


def test_another_list_is_left_at_once_but_only_ones_own(engine: Engine) -> None:
    zoe, also = joins(engine), joins(engine, list_name="carers")
    bob = joins(engine, "bob@example.org")
    assert do(engine, choosing.leave_list, zoe, "carers") == "left"
    assert do(engine, choosing.leave_list, zoe, "friends") == "unknown"
    assert do(engine, choosing.leave_list, bob, "carers") == "unknown"
    assert (state_of(engine, zoe), state_of(engine, also)) == ("active", "unsubscribed")


def test_joining_another_list_takes_a_letter_to_the_address_on_file(engine: Engine) -> None:
    zoe = joins(engine)
    join = {"secret": SECRET, "wording": WORDING}
    assert do(engine, choosing.join_list, zoe, "carers", **join)
    assert not do(engine, choosing.join_list, NEVER, "carers", **join)
    [row] = letters(engine, LetterPurpose.SUBSCRIBE)
    assert (row["address"], row["state"], row["wording"]) == (ZOE, "waiting", WORDING.version)
    assert [place.list for place in standing(engine, zoe).lists] == ["readers"]


def test_nobody_fills_an_inbox_by_pressing_again_and_again(engine: Engine) -> None:
    zoe = joins(engine)
    join = {"secret": SECRET, "wording": WORDING}
    pressed = [do(engine, choosing.join_list, zoe, "carers", **join) for _ in range(20)]
    assert pressed[0]
    assert 1 <= sum(pressed) == len(letters(engine)) <= 4


# In the middle of a campaign


@pytest.mark.parametrize(
    ("act", "left_out"),
    [
        pytest.param(lambda engine, number: do(engine, choosing.leave, number), True, id="leaves"),
        pytest.param(lambda engine, number: do(engine, choosing.pause, number, 1), True, id="pauses"),
        pytest.param(
            lambda engine, number: write(engine, lambda conn: personal_data.erase(conn, key(ZOE), now=NOW)),
            True,
            id="is erased",
        ),
        pytest.param(
            lambda engine, number: do(engine, choosing.choose_edition, number, Edition.TEXT),
            False,
            id="wants another edition",
        ),
    ],
)
def test_whoever_goes_in_the_middle_of_a_campaign_gets_no_copy(
    engine: Engine, act: Callable[[Engine, int], object], *, left_out: bool
) -> None:
    zoe, bob = joins(engine), joins(engine, "bob@example.org")
    made = freeze(engine)
    claimed = update(delivery).values(state=DeliveryState.CLAIMED, owner="me")
    write(engine, lambda conn: conn.execute(claimed))
    query = select(delivery.c.subscription_id, delivery.c.seq)
    seqs = {number: seq for number, seq in read(engine, lambda conn: conn.execute(query).all())}  # noqa: C416
    act(engine, zoe)
    may = write(
        engine, lambda conn: marks.mark(conn, list(seqs.values()), campaign=made.id, owner="me", now=NOW)
    )
    assert may == ({seqs[bob]} if left_out else set(seqs.values()))

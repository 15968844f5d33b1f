"""A database is written where it is at home, and nowhere else; reading goes on everywhere."""

from __future__ import annotations

import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, ClassVar

import pytest
from sqlalchemy import delete, func, select

from newsletter.errors import DatabaseError, NotAtHome
from newsletter.model import CampaignState
from newsletter.store import campaigns, facts, instance, owners
from newsletter.store.engine import (
    create_or_upgrade,
    fence,
    open_engine,
    read,
    refuse_fenced,
    scrub,
    write,
)
from newsletter.store.group import Group
from newsletter.store.instance import BACKUP_AT, BACKUP_OF, CLAIMED_AT, GENERATION, KEY, PLACE, Witness
from newsletter.store.schema import campaign, meta, subscriber
from tests.support import homes, ledgers
from tests.support.databases import put
from tests.support.freezes import cut_off_freeze
from tests.support.homes import LATER, fence_of, home, is_killed, opened
from tests.support.ledgers import NOW, TARGET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Engine

    from newsletter.store.instance import Home


@pytest.fixture
def here(tmp_path: Path) -> Home:
    """Where the database is at home."""
    return home(tmp_path)


@pytest.fixture
def there(tmp_path: Path) -> Home:
    """Another place."""
    return home(tmp_path, "there")


@pytest.fixture
def at_home(database_url: str, here: Home, tmp_path: Path, empty_file: Path) -> Iterator[Engine]:
    """A new database, as its first use leaves it."""
    if database_url.startswith("sqlite"):
        shutil.copy(empty_file, tmp_path / "newsletter.db")
    made = opened(database_url, here)
    yield made
    made.dispose()


@pytest.fixture
def used(at_home: Engine) -> Engine:
    """With a campaign that is running."""
    ledgers.fill(at_home, people=3)
    ledgers.freeze(at_home)
    return at_home


@pytest.fixture
def copy(used: Engine, database_url: str, there: Home) -> Iterator[Engine]:
    """The same rows, opened in another place."""
    made = opened(database_url, there)
    yield made
    made.dispose()


def generation(engine: Engine) -> int:
    return int(read(engine, facts.every)[GENERATION])


def states(engine: Engine) -> list[CampaignState]:
    return [one.state for one in read(engine, campaigns.every)]


# The fence


def test_a_new_database_is_at_home_where_it_was_made(at_home: Engine, here: Home) -> None:
    assert fence(at_home) == ""
    write(at_home, put)
    known = read(at_home, facts.every)
    assert (known[KEY], known[PLACE]) == (here.key, here.place)
    assert here.witness.read() == int(known[GENERATION])


def test_the_witness_is_for_its_owner_only(at_home: Engine, here: Home) -> None:
    assert here.witness.file.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for somebody else")
def test_what_root_does_once_leaves_a_witness_that_the_folder_s_owner_can_read(
    at_home: Engine, here: Home, tmp_path: Path
) -> None:
    os.chown(tmp_path, 12345, 12345)
    instance.advance(at_home, lambda _: None)
    assert here.witness.file.stat().st_uid == 12345


def test_it_is_still_at_home_when_it_is_opened_again(used: Engine, database_url: str, here: Home) -> None:
    assert fence_of(database_url, here) == ""


def test_a_copy_can_be_read_and_not_be_written(copy: Engine) -> None:
    assert states(copy) == [CampaignState.RUNNING]
    with pytest.raises(NotAtHome) as caught:
        write(copy, put)
    assert "it was last at home at the place here, and this is the place there" in str(caught.value)
    assert "newsletter db claim" in caught.value.hint
    assert caught.value.exit_code == 6


def test_whatever_begins_to_write_is_refused(copy: Engine, tmp_path: Path) -> None:
    group = Group(copy)
    with pytest.raises(NotAtHome):
        group.write(put).result(10)
    group.close()
    own = owners.own(copy, tmp_path / "lock", name="me", way="memory", clock=lambda: NOW)
    with pytest.raises(NotAtHome), own:
        pytest.fail("a sender began")
    for act in (scrub, refuse_fenced):
        with pytest.raises(NotAtHome):
            act(copy)


def test_a_database_with_rows_that_names_no_home_is_fenced(
    used: Engine, database_url: str, here: Home
) -> None:
    write(used, lambda conn: conn.execute(delete(meta).where(meta.c.key == KEY)))
    assert "does not say where it is at home" in fence_of(database_url, here)


def test_one_that_was_made_and_never_used_has_its_home_where_it_is_used_first(
    database_url: str, here: Home
) -> None:
    """Whoever made it died before it could say where."""
    open_engine(database_url, create=True).dispose()
    assert fence_of(database_url, here) == ""


class Slow(Witness):
    """The next time it is read, it is asked for before ``meanwhile`` and has its answer after it."""

    meanwhile: ClassVar[list[Callable[[], object]]] = []

    def read(self) -> int | None:
        found = Witness.read(self)
        while self.meanwhile:
            self.meanwhile.pop()()
        return found


def test_two_that_use_a_new_database_first_are_both_at_home(
    database_url: str, here: Home, tmp_path: Path, empty_file: Path
) -> None:
    if database_url.startswith("sqlite"):
        shutil.copy(empty_file, tmp_path / "newsletter.db")
    Slow.meanwhile.append(lambda: opened(database_url, here).dispose())
    slow = replace(here, witness=Slow(here.witness.file, required=True))
    assert fence_of(database_url, slow) == ""


def test_a_backup_that_is_opened_in_its_place_is_fenced(used: Engine, database_url: str, here: Home) -> None:
    marks = {BACKUP_AT: "2026-11-28 03:00:00 UTC", BACKUP_OF: here.place}
    write(used, lambda conn: facts.remember(conn, marks))
    assert "is a backup of the place here, made at 2026-11-28 03:00:00 UTC" in fence_of(database_url, here)


def test_an_upgrade_takes_in_a_database_that_never_knew_a_home(tmp_path: Path, here: Home) -> None:
    url = f"sqlite:///{tmp_path}/newsletter.db"
    homes.make_old(url)
    homes.upgrade(url, here)
    assert fence_of(url, here) == ""


def test_welcome_takes_in_no_database_that_is_at_home_elsewhere(
    copy: Engine, here: Home, there: Home
) -> None:
    write(copy.execution_options(newsletter_fence=""), lambda conn: instance.welcome(conn, there))
    assert read(copy, facts.every)[KEY] == here.key


# Putting back an earlier state


def test_a_file_that_is_put_back_to_an_earlier_state_is_fenced(tmp_path: Path, here: Home) -> None:
    file, earlier = tmp_path / "newsletter.db", tmp_path / "earlier.db"
    engine = opened(f"sqlite:///{file}", here)
    ledgers.fill(engine, people=3)
    engine.dispose()
    shutil.copy(file, earlier)
    engine = opened(f"sqlite:///{file}", here)
    ledgers.freeze(engine)
    engine.dispose()
    shutil.copy(earlier, file)
    again = opened(f"sqlite:///{file}", here)
    assert "was put back to an earlier state" in fence(again)
    assert states(again) == []
    again.dispose()


def test_a_campaign_s_start_raises_the_generation(at_home: Engine, here: Home) -> None:
    ledgers.fill(at_home, people=3)
    before = generation(at_home)
    ledgers.freeze(at_home)
    assert generation(at_home) == here.witness.read() == before + 1


def test_a_sender_that_begins_raises_it_too(at_home: Engine, here: Home, tmp_path: Path) -> None:
    before = generation(at_home)
    with owners.own(at_home, tmp_path / "lock", name="me", way="memory", clock=lambda: NOW):
        assert generation(at_home) == here.witness.read() == before + 1


def test_a_witness_that_is_behind_is_mended(used: Engine, database_url: str, here: Home) -> None:
    """A process died between the commit and its witness: that is no reason to hold the next issue."""
    here.witness.write(1)
    assert fence_of(database_url, here) == ""
    assert here.witness.read() == generation(used)


def test_without_its_witness_a_file_is_fenced(used: Engine, database_url: str, here: Home) -> None:
    here.witness.file.unlink()
    assert "so nobody can say whether the database" in fence_of(database_url, here)


def test_a_machine_that_has_seen_nothing_yet_of_a_shared_database_takes_it_as_it_is(
    database_url: str, tmp_path: Path
) -> None:
    engine = opened(database_url, home(tmp_path / "one", required=False))
    ledgers.fill(engine, people=1)
    second = home(tmp_path / "two", required=False)
    assert fence_of(database_url, second) == ""
    assert second.witness.read() == generation(engine)
    engine.dispose()


def test_a_witness_that_cannot_be_written_holds_no_campaign(at_home: Engine, here: Home) -> None:
    ledgers.fill(at_home, people=3)
    here.witness.file.unlink()
    here.witness.file.mkdir()
    ledgers.freeze(at_home)
    assert states(at_home) == [CampaignState.RUNNING]


def test_nobody_who_looks_while_campaigns_start_sees_a_false_restore(
    used: Engine, database_url: str, here: Home
) -> None:
    looker, over, seen = open_engine(database_url), threading.Event(), set()

    def look() -> None:
        while not over.is_set():
            seen.add(instance.look(looker, here)[0])

    watching = threading.Thread(target=look)
    watching.start()
    for _ in range(60):
        instance.advance(used, lambda _: None)
    over.set()
    watching.join()
    looker.dispose()
    assert seen == {""}


# Taking it over


def test_a_claim_pauses_what_was_running_and_ends_who_was_sending(copy: Engine, there: Home) -> None:
    assert instance.claim(copy, there, LATER)
    [stopped] = read(copy, campaigns.every)
    assert (stopped.state, stopped.reason) == (CampaignState.PAUSED, instance.RESTORED)
    assert read(copy, lambda conn: owners.is_living(conn, "me")) is False
    assert read(copy, facts.every)[CLAIMED_AT] == LATER.isoformat(timespec="seconds")
    write(copy, put)


def test_after_a_claim_the_database_is_at_home_here_and_not_there_any_more(
    copy: Engine, database_url: str, here: Home, there: Home
) -> None:
    instance.claim(copy, there, LATER)
    assert fence_of(database_url, there) == ""
    assert "last at home at the place there" in fence_of(database_url, here)


def test_a_freeze_that_somebody_was_at_counts_as_cut_off(copy: Engine, used: Engine, there: Home) -> None:
    cut_off_freeze(used, people=2, mine="me", target=replace(TARGET, issue="2027-01", period="2027-01"))
    instance.claim(copy, there, LATER)
    assert states(copy) == [CampaignState.PREPARING, CampaignState.PAUSED]
    assert read(copy, lambda conn: set(conn.scalars(select(campaign.c.owner)))) == {None}


def test_what_is_at_home_is_left_alone(used: Engine, here: Home) -> None:
    before = read(used, facts.every)
    assert instance.claim(used, here, LATER) is False
    assert read(used, facts.every) == before
    assert states(used) == [CampaignState.RUNNING]


def test_a_machine_that_was_put_back_as_a_whole_can_be_claimed_all_the_same(used: Engine, here: Home) -> None:
    assert instance.claim(used, here, LATER, again=True)
    assert states(used) == [CampaignState.PAUSED]


def test_of_two_claims_at_once_one_does_it(copy: Engine, database_url: str, there: Home) -> None:
    engines = [copy, opened(database_url, there)]
    with ThreadPoolExecutor(2) as two:
        done = list(two.map(lambda engine: instance.claim(engine, there, LATER), engines))
    assert sorted(done) == [False, True]
    for engine in engines:
        write(engine, lambda conn: conn.scalar(select(func.count()).select_from(subscriber)))
        engine.dispose()


def test_a_claim_without_a_witness_is_no_claim(copy: Engine, there: Home) -> None:
    there.witness.file.mkdir()
    with pytest.raises(DatabaseError, match="can't be written"):
        instance.claim(copy, there, LATER)
    assert states(copy) == [CampaignState.RUNNING]
    assert fence(copy)


# Killed between any two writes


def test_a_first_use_that_is_killed_anywhere_leaves_a_database_that_can_be_used(tmp_path: Path) -> None:
    for step in count(1):
        place = home(tmp_path / str(step))
        killed = is_killed(step, homes.open_new, f"sqlite:///{tmp_path}/{step}.db", place)
        assert fence_of(f"sqlite:///{tmp_path}/{step}.db", place) == ""
        if not killed:
            break
    assert step > 4


def test_an_upgrade_that_is_killed_anywhere_can_be_run_again(tmp_path: Path) -> None:
    for step in count(1):
        place, url = home(tmp_path / str(step)), f"sqlite:///{tmp_path}/{step}.db"
        homes.make_old(url)
        killed = is_killed(step, homes.upgrade, url, place)
        create_or_upgrade(url, lambda conn, place=place: instance.welcome(conn, place))
        assert fence_of(url, place) == ""
        if not killed:
            break
    assert step > 3


def test_a_start_that_is_killed_anywhere_raises_no_false_alarm(
    used: Engine, database_url: str, here: Home
) -> None:
    for step in count(1):
        killed = is_killed(step, homes.advance, database_url, here)
        assert fence_of(database_url, here) == ""
        assert here.witness.read() == generation(used)
        if not killed:
            break
    assert step > 3


def test_a_claim_that_is_killed_anywhere_is_done_or_not(
    copy: Engine, database_url: str, there: Home, here: Home
) -> None:
    """At home with a campaign that runs is what must never be."""
    for step in count(1):
        killed = is_killed(step, homes.claim, database_url, there)
        found = opened(database_url, there)
        free, paused = fence(found) == "", states(found) == [CampaignState.PAUSED]
        found.dispose()
        assert free == paused
        if free:
            break
    assert killed  # after the commit
    assert step > 2

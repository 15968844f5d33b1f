"""The clock, the room on the disk, and who may read the state folder."""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from newsletter.doctor import machine

NOW = datetime(2026, 11, 29, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "level"), [(0, "ok"), (60, "ok"), (-60, "ok"), (61, "error"), (-61, "error")]
)
def test_clocks_may_differ_by_a_minute(seconds, level):
    assert machine.compared(NOW + timedelta(seconds=seconds), NOW, "theirs").level == level


@pytest.fixture
def state(tmp_path):
    folder = tmp_path / ".newsletter"
    folder.mkdir(mode=0o700)
    (folder / "newsletter.db").touch(mode=0o600)
    return folder


def test_room_for_three_databases_and_a_gigabyte_at_least_is_wanted(state):
    database = state / "newsletter.db"
    with database.open("wb") as file:
        file.truncate(10**9)  # without writing any of it
    levels = {
        free: [result.level.value for result in machine.look_at_disk(state, database, free=free)]
        for free in (3 * 10**9, 3 * 10**9 - 1)
    }
    assert levels == {3 * 10**9: ["ok"], 3 * 10**9 - 1: ["warning"]}
    [without] = machine.look_at_disk(state, None, free=10**9 - 1)
    assert without.level == "warning"


def test_the_disk_of_a_database_that_lies_elsewhere_is_asked_too(state):
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == state.stat().st_dev:
        pytest.skip("there is no second disk")
    found = [result.detail for result in machine.look_at_disk(state, elsewhere / "newsletter.db")]
    assert [detail.rpartition(" for ")[2] for detail in found] == [f"{state}.", f"{elsewhere}."]


def test_the_real_disk_is_asked(state):
    [result] = machine.look_at_disk(state, None)
    assert "GB free" in result.detail


def test_what_others_may_read_is_named_with_the_way_to_mend_it(state):
    assert [result.level for result in machine.look_at_files(state)] == ["ok"]
    (state / "newsletter.db").chmod(0o640)
    state.chmod(0o755)
    found = list(machine.look_at_files(state))
    assert [result.level for result in found] == ["warning", "warning"]
    assert [result.hint for result in found] == [f"chmod 700 {state}", f"chmod 600 {state / 'newsletter.db'}"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for somebody else")
def test_what_root_has_left_there_is_an_error_for_whoever_sends(tmp_path):
    with tempfile.TemporaryDirectory() as open_to_all:
        Path(open_to_all).chmod(0o755)
        state = Path(open_to_all) / ".newsletter"
        state.mkdir(mode=0o700)
        (state / "lock").touch(mode=0o600)
        (state / "backups").mkdir(mode=0o700)
        os.chown(state, 65534, 65534)
        os.seteuid(65534)
        try:
            found = [(one.level, one.detail) for one in machine.look_at_files(state)]
        finally:
            os.seteuid(0)
    assert found == [
        ("error", f"{state / name} belongs to another user and can't be used.")
        for name in ("backups", "lock")
    ]


def test_a_folder_that_is_not_there_is_not_looked_at(tmp_path):
    [disk], [files] = machine.look_at_disk(tmp_path / "no", None), machine.look_at_files(tmp_path / "no")
    assert (disk.level, files.level) == ("not looked at", "not looked at")

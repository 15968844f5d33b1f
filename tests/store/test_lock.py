from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from newsletter.errors import DatabaseError, Refused
from newsletter.store import lock

HOLDER = """
import pathlib, sys
from newsletter.store import lock
with lock.hold(pathlib.Path(sys.argv[1]), "process 1 on testhost"):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold_elsewhere(path):
    command = [sys.executable, "-c", HOLDER, str(path)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_second_sender_is_refused_and_told_who_has_the_lock(tmp_path):
    with hold_elsewhere(tmp_path / "lock") as holder:
        with pytest.raises(Refused, match="process 1 on testhost"), lock.hold(tmp_path / "lock", "me"):
            pass
        holder.stdin.close()


def test_a_lock_that_can_not_be_opened_is_no_bug(tmp_path):
    (tmp_path / "lock").mkdir()
    with pytest.raises(DatabaseError, match="can't be opened"), lock.hold(tmp_path / "lock", "me"):
        pass


def test_a_killed_holder_leaves_the_lock_free(tmp_path):
    with hold_elsewhere(tmp_path / "lock") as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with lock.hold(tmp_path / "lock", "me"):
            assert (tmp_path / "lock").read_text() == "me"


def test_asking_whether_it_is_held_takes_it_from_nobody(tmp_path):
    assert not lock.is_held(tmp_path / "lock")
    with lock.hold(tmp_path / "lock", "me"):
        assert lock.is_held(tmp_path / "lock")
    assert not lock.is_held(tmp_path / "lock")
    with lock.hold(tmp_path / "lock", "me"):
        pass

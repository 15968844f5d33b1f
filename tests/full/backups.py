"""Copies and backups in the middle of a large campaign: each function tries one promise and says what was seen."""

from __future__ import annotations

import json
import shutil
import sqlite3
from typing import TYPE_CHECKING

from tests.bench.sinks import sink
from tests.full.freezing import database
from tests.full.serving import SMTP, crowded
from tests.support.publisher import Publisher, publisher
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

PEOPLE = 100_000


def copied(folder: Path) -> str:
    """A sender is killed and its folder copied: the copy sends nothing, before it is claimed and after."""
    with sink("smtp_sink") as taking:
        made = crowded(folder / "press", PEOPLE, SMTP.format(port=taking.port))
        sending = made.start("send", "2026-12", "--confirm", str(PEOPLE))
        wait_for(lambda: accepted(made) > PEOPLE // 10, sending)
        sending.kill()
        sending.communicate()
        copy = Publisher(shutil.copytree(made.root, folder / "copy"))
        had = accepted(copy)
        assert copy.newsletter("send", "2026-12", check=False).returncode == 6
        copy.newsletter("db", "claim", "--yes")
        assert copy.newsletter("send", "2026-12", check=False).returncode == 5
        assert accepted(copy) == had
        assert made.newsletter("send", "2026-12", check=False).returncode in {0, 7}
    shutil.copy(database(copy), database(made))
    assert made.newsletter("send", "2026-12", check=False).returncode == 6
    return f"copied with {had:,} of {PEOPLE:,} accepted: refused, paused once claimed, refused where it was put back"


def while_sending(folder: Path) -> str:
    """The backup shows one moment of the campaign, and the campaign does not notice."""
    with sink("smtp_sink") as taking:
        made = crowded(folder / "press", PEOPLE, SMTP.format(port=taking.port))
        sending = made.start("send", "2026-12", "--confirm", str(PEOPLE))
        wait_for(lambda: accepted(made) > 1_000, sending)
        before = accepted(made)
        said = made.newsletter("db", "backup").stdout
        after = accepted(made)
        assert sending.poll() is None, "the campaign ended before the backup"
        _, errors = sending.communicate()
        assert sending.returncode == 0, errors
    assert accepted(made) == PEOPLE
    [file] = (made.root / ".newsletter" / "backups").iterdir()
    new = publisher(folder / "new")
    new.newsletter("db", "restore", str(file))
    [campaign] = json.loads(new.newsletter("status", "--json").stdout)
    assert sum(campaign["deliveries"].values()) == PEOPLE, campaign
    assert before <= accepted(new) <= after
    size = said.partition("rows in all; ")[2].partition(".\n")[0]
    return (
        f"{PEOPLE:,} deliveries, {accepted(new):,} of them accepted; {size} with its proof, while copies left"
    )


def accepted(made: Publisher) -> int:
    """So many copies; 0 before there is a campaign."""
    conn = sqlite3.connect(database(made))
    try:
        return int(conn.execute("SELECT count(*) FROM delivery WHERE state = 'accepted'").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
    finally:
        conn.close()

"""``newsletter drill`` as a person runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.support.publisher import publisher

if TYPE_CHECKING:
    from pathlib import Path

SMALL = ("drill", "--people", "40", "--kills", "2", "--connections", "2", "--seed", "3")


def test_a_drill_tells_what_it_did_and_leaves_the_project_it_was_started_in_alone(tmp_path: Path) -> None:
    made = publisher(
        tmp_path, environ={"DATABASE_URL": "sqlite:////nowhere/at.db", "SENDGRID_API_KEY": "SG.real"}
    )
    before = sorted(tmp_path.rglob("*"))
    done = made.newsletter(*SMALL, "--transport", "sendgrid", "--json")
    [report] = json.loads(done.stdout)
    assert (report["people"], report["lost"], report["duplicated"], report["misjudged"]) == (40, [], [], [])
    assert sum(report["settled"].values()) + report["unknown"]["all"] == 40
    assert report["seed"] == 3
    assert sorted(tmp_path.rglob("*")) == before


def test_a_drill_prints_its_figures_and_keeps_its_folder_if_asked(tmp_path: Path) -> None:
    made = publisher(tmp_path)
    env = made.env() | {"TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "newsletter", *SMALL, "--transport", "smtp", "--keep"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path, check=True)
    assert "smtp on sqlite: 2 connections, 1 copy at once" in done.stdout
    assert "The ledger told the truth about everybody." in done.stdout
    [folder] = tmp_path.glob("newsletter-drill-*")
    assert str(folder) in done.stderr
    assert (folder / ".newsletter" / "newsletter.db").is_file()


def test_a_drill_on_a_database_of_the_publisher_is_refused(tmp_path: Path) -> None:
    made = publisher(tmp_path)
    made.newsletter("lists")  # makes it
    used = f"sqlite:///{tmp_path}/.newsletter/newsletter.db"
    done = made.newsletter(*SMALL, "--database", used, check=False)
    assert done.returncode == 5
    assert "that database has tables" in done.stderr

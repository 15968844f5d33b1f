"""`send --override`: a second issue in a period, with a reason, and nobody gets any issue twice."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager

import pytest

from tests.support.holding import HoldingServer
from tests.support.publisher import publisher
from tests.support.waiting import wait_for

LIVE = '[sending]\nmode = "live"\ntransport = "smtp"\n[smtp]\nport = {port}\nsecurity = "none"\n'
PEOPLE = ["li@example.org", "zoe@example.org"]
WHY = "the editor’s correction of a dose"


@pytest.fixture
def made(tmp_path):
    return prepared(tmp_path / "press", {})


@pytest.fixture
def anywhere(tmp_path, database_url):
    """On each of the two databases."""
    return prepared(tmp_path / "press", {"DATABASE_URL": database_url})


def prepared(root, environ):
    made = publisher(root, environ=environ)
    for slug in ("2026-12-extra", "2026-12-third"):
        shutil.copytree(made.root / "issues" / "2026-12", made.root / "issues" / slug)
    made.import_people([(address, "") for address in PEOPLE])
    return made


@contextmanager
def live(made, hold_at=10**9):
    with HoldingServer(hold_at) as server:
        made.configure(LIVE.format(port=server.port))
        yield server


def send(made, slug, *more, check=True):
    return made.newsletter("send", slug, "--confirm", "2", *more, check=check)


def campaigns(made):
    return {row["issue"]: row for row in json.loads(made.newsletter("status", "--json").stdout)}


def test_a_second_issue_of_a_period_goes_out_once_a_reason_is_given(anywhere):
    with live(anywhere) as server:
        send(anywhere, "2026-12")
        refused = send(anywhere, "2026-12-extra", check=False)
        assert refused.returncode == 5
        assert '--override "WHY"' in refused.stderr
        said = send(anywhere, "2026-12-extra", "--override", WHY).stdout
        assert f"period  2026-12 (2), a second issue in it because: {WHY}" in said
        send(anywhere, "2026-12-third", "--override", "another one")
        assert sorted(server.recipients()) == sorted(PEOPLE * 3)
    found = campaigns(anywhere)
    assert {slug: (row["period"], row["override"], row["attempt"]) for slug, row in found.items()} == {
        "2026-12": ("2026-12", "", 1),
        "2026-12-extra": ("2026-12 (2)", WHY, 1),
        "2026-12-third": ("2026-12 (3)", "another one", 1),
    }
    assert (
        f"2026-12 (2), a second issue in it because: {WHY}"
        in anywhere.newsletter("status", "2026-12-extra").stdout
    )


def test_the_same_issue_goes_to_nobody_twice_whatever_is_overridden(made):
    with live(made) as server:
        send(made, "2026-12")
        assert "was sent before" in send(made, "2026-12", "--override", WHY).stdout
        issue = made.root / "issues" / "2026-12" / "issue.toml"
        issue.write_text('period = "2027-01"\n' + issue.read_text())
        assert "was sent before" in send(made, "2026-12", "--override", WHY).stdout
        send(made, "2026-12-extra", "--override", WHY)
        assert "was sent before" in send(made, "2026-12-extra", "--override", WHY).stdout
        assert sorted(server.recipients()) == sorted(PEOPLE * 2)


def test_an_override_that_is_not_needed_is_said_and_not_kept(made):
    with live(made):
        said = send(made, "2026-12", "--override", WHY).stdout
        assert "period  2026-12, which is free: --override is not needed" in said
    assert (campaigns(made)["2026-12"]["period"], campaigns(made)["2026-12"]["override"]) == ("2026-12", "")


@pytest.mark.parametrize("why", ["", "  \n "])
def test_a_reason_has_words(made, why):
    refused = send(made, "2026-12", "--override", why, check=False)
    assert refused.returncode == 2
    assert "a reason is needed" in refused.stderr


def test_a_second_issue_that_was_cut_off_goes_on_without_another_reason(made):
    with live(made) as server:
        send(made, "2026-12")
    made.configure(LIVE.format(port=9))  # nothing listens on port 9
    assert send(made, "2026-12-extra", "--override", WHY, check=False).returncode == 8
    made.newsletter("resume", "2026-12-extra")
    with live(made) as server:
        made.newsletter("send", "2026-12-extra")
        assert sorted(server.recipients()) == PEOPLE


def test_of_two_that_override_at_once_one_goes_first_and_the_other_is_told(anywhere):
    with live(anywhere) as server:
        send(anywhere, "2026-12")
    with live(anywhere, hold_at=1) as server:
        calls = [
            anywhere.start("send", slug, "--confirm", "2", "--override", WHY)
            for slug in ("2026-12-extra", "2026-12-third")
        ]
        wait_for(server.holding)
        server.release()
        ends = [(*call.communicate(timeout=60), call.returncode) for call in calls]
        assert {"Traceback" in error for _, error, _ in ends} == {False}
        rows = [row for row in campaigns(anywhere).values() if row["override"]]
        assert sorted(row["period"] for row in rows) == [f"2026-12 ({n})" for n in range(2, 2 + len(rows))]
        done = [code for _, _, code in ends if code == 0]
        assert len(done) == len(rows) >= 1
        assert len(server.recipients()) == 2 * len(rows)
        assert all(code in {0, 5} for _, _, code in ends)

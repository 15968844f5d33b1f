"""What an issue was made of at a commit, out of a real repository."""

from __future__ import annotations

import subprocess

import pytest

from newsletter import revisions
from newsletter.errors import UsageError
from tests.support.publisher import publisher
from tests.support.repository import commit


@pytest.fixture
def made(tmp_path):
    made = publisher(tmp_path / "repository" / "press")
    (made.root / "templates").mkdir()
    (made.root / "templates" / "mine.mjml.j2").write_text("mine")
    (made.root / "secret.txt").write_text("nothing that an issue is made of")
    commit(tmp_path / "repository", "first")
    return made


def taken(made, tmp_path, revision="HEAD", slug="2026-12"):
    folder = tmp_path / "out"
    folder.mkdir()
    revisions.take_out(made.root, slug, revision, folder)
    return {
        file.relative_to(folder).as_posix(): file.read_text() for file in folder.rglob("*") if file.is_file()
    }


def test_issue_templates_and_settings_come_out_and_nothing_else(made, tmp_path):
    assert set(taken(made, tmp_path)) == {
        "newsletter.toml",
        "issues/2026-12/issue.toml",
        "issues/2026-12/lead.md",
        "templates/mine.mjml.j2",
    }


def test_what_was_not_committed_does_not_count(made, tmp_path):
    (made.root / "templates" / "mine.mjml.j2").write_text("edited")
    assert taken(made, tmp_path)["templates/mine.mjml.j2"] == "mine"


def test_the_logo_of_those_days_comes_out(made, tmp_path):
    (made.root / "art").mkdir()
    (made.root / "art" / "logo.txt").write_text("a logo")
    made.configure('[theme]\nlogo = "art/logo.txt"\n')
    commit(made.root.parent, "with a logo")
    made.configure("")
    (made.root / "art" / "logo.txt").unlink()
    assert taken(made, tmp_path)["art/logo.txt"] == "a logo"


@pytest.mark.parametrize("revision", ["nothing", "--output=/tmp/x", "-q", "", "HEAD:press"])
def test_what_is_no_commit_is_told(made, tmp_path, revision):
    with pytest.raises(UsageError, match="There is no commit"):
        taken(made, tmp_path, revision)


def test_an_issue_that_was_not_there_yet_is_told(made, tmp_path):
    with pytest.raises(UsageError, match=r"issues/2027-01 did not exist at HEAD\."):
        taken(made, tmp_path, slug="2027-01")


def test_a_folder_in_no_repository_is_told(tmp_path):
    with pytest.raises(UsageError, match="in no git repository"):
        revisions.take_out(publisher(tmp_path).root, "2026-12", "HEAD", tmp_path)


def test_a_machine_without_git_is_told(made, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="git is not installed"):
        taken(made, tmp_path)


def test_a_link_that_leads_out_of_the_folder_is_refused(made, tmp_path):
    (made.root / "templates" / "out.mjml.j2").symlink_to("/etc/hostname")
    commit(made.root.parent, "a link")
    with pytest.raises(UsageError, match="can't be unpacked"):
        taken(made, tmp_path)


def test_the_repository_stays_as_it_was(made, tmp_path):
    def state():
        call = ["git", "-C", str(made.root), "status", "--porcelain=v2", "--branch"]
        return subprocess.run(call, capture_output=True, check=True).stdout

    before = state()
    taken(made, tmp_path)
    assert state() == before

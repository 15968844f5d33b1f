"""A new folder and a new issue: complete, loadable, and never over somebody's work."""

from __future__ import annotations

import tomllib
from datetime import date
from typing import TYPE_CHECKING

import pytest

from newsletter import config, content, scaffold
from newsletter.config.sections import Sections
from newsletter.errors import ContentError, Refused, UsageError
from newsletter.scaffold import PLACEHOLDER, init_project, new_issue
from tests.support.issues import a_table, write_issue

if TYPE_CHECKING:
    from pathlib import Path

TODAY = date(2026, 11, 22)


def tree(folder: Path) -> dict[str, bytes | None]:
    paths = sorted(folder.rglob("*"))
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in paths
    }


def test_init_makes_a_folder_whose_first_issue_is_ready_to_look_at(tmp_path):
    folder = tmp_path / "deep" / "press"
    made = init_project(folder, today=TODAY)
    assert {path.relative_to(folder).as_posix() for path in made} == {
        "newsletter.toml",
        ".gitignore",
        "issues/closing.md",
        "issues/2026-11/issue.toml",
        "issues/2026-11/lead.md",
    }
    assert list((folder / "templates").iterdir()) == []
    issue = content.load(folder, "2026-11")
    assert (issue.date, issue.number, issue.closing_file) == (TODAY, 1, "issues/closing.md")
    assert PLACEHOLDER not in "".join(path.read_text() for path in made)


def test_the_settings_that_init_writes_are_accepted_and_send_nothing(tmp_path):
    init_project(tmp_path)
    settings = config.load(tmp_path, {})
    assert (settings.sending.mode, settings.sending.transport) == ("off", "folder")


def test_settings_shown_in_comments_are_real_and_hold_what_is_built_in(tmp_path):
    init_project(tmp_path)
    plain = config.load(tmp_path, {})
    file = tmp_path / "newsletter.toml"
    lines = [
        line.removeprefix("# ") for line in file.read_text().split("\n") if not line.startswith("# those")
    ]
    file.write_text(
        "\n".join(line for line in lines if "=" in line.partition("#")[0] or line.startswith("["))
    )
    shown = config.load(tmp_path, {})
    sections = set(Sections.model_fields)
    assert set(tomllib.loads(file.read_text())) == sections
    for section in sections - {"newsletter", "smtp"}:  # nobody's own server is built in
        assert getattr(shown, section) == getattr(plain, section)
    assert shown.smtp.security == plain.smtp.security


def test_secrets_and_state_are_git_ignored(tmp_path):
    init_project(tmp_path)
    assert {".env", ".newsletter/"} <= set((tmp_path / ".gitignore").read_text().split("\n"))


@pytest.mark.parametrize("name", ["newsletter.toml", ".gitignore", "issues/closing.md"])
def test_init_overwrites_nothing_and_leaves_nothing_behind(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(Refused, match=name):
        init_project(tmp_path)
    assert tree(tmp_path) == before


def test_init_beside_other_files_leaves_them_alone(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    init_project(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_new_issue_loads_and_says_what_is_still_to_be_written(tmp_path):
    init_project(tmp_path, today=TODAY)
    made = new_issue(tmp_path, "2027-01")
    assert [path.relative_to(tmp_path).as_posix() for path in made] == [
        "issues/2027-01/issue.toml",
        "issues/2027-01/lead.md",
    ]
    assert (tmp_path / "issues/2027-01/images").is_dir()
    issue = content.load(tmp_path, "2027-01")
    assert (issue.date, issue.period, issue.number) == (date(2027, 1, 1), "2027-01", 2)
    places = [
        issue.subject,
        issue.preheader,
        issue.lead.title,
        *(section.body for section in issue.lead.sections),
    ]
    assert all(PLACEHOLDER in place for place in places)


def test_a_new_issue_whose_name_holds_no_month_is_dated_today(tmp_path):
    new_issue(tmp_path, "extra", today=TODAY)
    text = (tmp_path / "issues/extra/issue.toml").read_text()
    assert tomllib.loads(text)["date"] == TODAY
    with pytest.raises(ContentError) as caught:
        content.load(tmp_path, "extra")
    assert [finding.where for finding in caught.value.findings] == ["period"]


@pytest.mark.parametrize(("newest", "number"), [({"number": 7}, 8), ({}, None), ({"number": "x"}, None)])
def test_issues_are_numbered_on_if_the_newest_is_numbered(tmp_path, newest, number):
    write_issue(tmp_path, a_table(number=3), slug="2026-11")
    write_issue(tmp_path, a_table(**newest), slug="2026-12")
    new_issue(tmp_path, "2027-01")
    assert content.load(tmp_path, "2027-01").number == number


def test_a_broken_newest_issue_does_not_stop_the_next_one(tmp_path):
    write_issue(tmp_path, "no toml")
    new_issue(tmp_path, "2027-01")
    assert content.load(tmp_path, "2027-01").number is None


def test_every_key_an_issue_may_have_is_shown_with_a_comment(tmp_path):
    new_issue(tmp_path, "2027-01")
    path = tmp_path / "issues/2027-01/issue.toml"
    lines = [line.removeprefix("# ") for line in path.read_text().split("\n")[2:]]
    path.write_text(
        "\n".join(lines).replace('doi = "10.…"', 'doi = "10.1371/x"').replace("https://…", "https://x.org")
    )
    (tmp_path / "issues/2027-01/images/scan.png").write_bytes(b"")
    with pytest.raises(ContentError) as caught:
        content.load(tmp_path, "2027-01")
    assert [finding.code for finding in caught.value.findings] == [
        "C153"
    ]  # the empty picture; nothing about keys
    table = tomllib.loads(path.read_text())
    for where, (_, model) in content.shape.TABLES.items():
        inner = table
        for step in where.replace(".#", "").split("."):
            inner = inner[step] if step else inner
        keys = inner[0] if isinstance(inner, list) else inner
        assert set(keys) == set(model.model_fields), where


def test_an_existing_issue_is_never_touched(tmp_path):
    write_issue(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(Refused, match="2026-12"):
        new_issue(tmp_path, "2026-12")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("slug", ["", "..", "../x", "a b", "A"])
def test_a_slug_that_is_no_name_makes_nothing(tmp_path, slug):
    with pytest.raises(UsageError, match="can't be the name"):
        new_issue(tmp_path, slug)
    assert tree(tmp_path) == {}


def test_what_could_not_be_finished_is_taken_away(tmp_path):
    (tmp_path / "keep.txt").write_text("mine")
    files = {"a/b/one.txt": "1", "a/keep.txt/two.txt": "2"}
    (tmp_path / "a").mkdir()
    (tmp_path / "a/keep.txt").write_text("a file where a folder should be")
    before = tree(tmp_path)
    with pytest.raises(UsageError, match="can't be written"):
        scaffold._write(tmp_path, files, empty=())
    assert tree(tmp_path) == before

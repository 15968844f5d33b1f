"""`diff`: what has changed for readers, as a person reads it in a terminal."""

from __future__ import annotations

import json

import pytest

from tests.support.publisher import publisher
from tests.support.repository import commit

A_LOGO = bytes.fromhex(
    "47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b"
)


@pytest.fixture
def made(tmp_path):
    made = publisher(tmp_path / "press")
    made.import_people([("zoe@example.org", "Zoë")])
    return made


def edit(made, name, old, new):
    file = made.root / name
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))


def diff(made, *words, check=True):
    return made.newsletter("diff", "2026-12", *words, check=check)


def approve(made):
    made.newsletter("approve", "2026-12", "--role", "editor", "--by", "Ann")


def test_without_a_commit_it_compares_with_what_was_approved(made):
    approve(made)
    assert "Nothing has changed" in diff(made).stdout
    edit(made, "issues/2026-12/lead.md", "lower", "higher")
    edit(made, "issues/2026-12/issue.toml", "Iron in", "Steel in")
    said = diff(made).stdout
    assert said.startswith("2026-12, against what was approved (editor: Ann, 20")
    assert "Subject\n  [-Iron-]{+Steel+} in the thalamus\n" in said
    assert "Text\n  The level was [-lower.-]{+higher.+}\n" in said
    assert "It comes from\n  issues/2026-12/issue.toml\n  issues/2026-12/lead.md\n" in said


def test_where_nothing_was_approved_it_says_what_to_do(made):
    done = diff(made, check=False)
    assert done.returncode == 2
    assert "newsletter diff 2026-12 HEAD" in done.stderr


def test_against_a_commit_no_database_is_needed(made):
    commit(made.root, "first")
    (made.root / ".env").unlink()
    edit(made, "issues/2026-12/lead.md", "lower", "higher")
    assert "[-lower.-]{+higher.+}" in diff(made, "HEAD").stdout


def test_an_earlier_commit_brings_its_own_templates_settings_and_logo(made):
    (made.root / "logo.gif").write_bytes(A_LOGO)
    made.configure('[theme]\nlogo = "logo.gif"\n')
    made.newsletter("templates", "copy", "closing.mjml.j2")
    commit(made.root, "first")
    made.configure("")
    (made.root / "logo.gif").unlink()
    (made.root / "templates" / "closing.mjml.j2").unlink()
    edit(made, "newsletter.toml", "1 Example Street", "2 Example Street")
    commit(made.root, "second")
    said = diff(made, "HEAD~1").stdout
    for words in (
        "[-1-]{+2+} Example Street, Example Town",
        "logo.gif: [-",
        "newsletter.postal_address in newsletter.toml",
        "templates/closing.mjml.j2 (gone)",
    ):
        assert words in said
    assert "Nothing has changed" in diff(made, "HEAD").stdout


def test_keys_and_certificates_of_this_machine_are_not_needed_for_an_earlier_commit(made):
    commit(made.root, "first")
    made.configure('[dkim.keys]\nspring = "dkim/spring.pem"\n[smtp]\nca_file = "ca.pem"\n')
    commit(made.root, "second")
    made.configure("")
    assert "Nothing has changed" in diff(made, "HEAD").stdout


def test_an_earlier_state_that_does_not_compile_is_told_with_the_commit(made):
    edit(made, "issues/2026-12/lead.md", "## Why it matters", "Why it matters")
    commit(made.root, "broken")
    edit(made, "issues/2026-12/lead.md", "Why it matters", "## Why it matters")
    done = diff(made, "HEAD", check=False)
    assert done.returncode == 3
    assert "As it was at HEAD" in done.stderr
    edit(made, "newsletter.toml", "[newsletter]", "[newsletter]\nnonsense = 1")
    commit(made.root, "broken settings")
    edit(made, "newsletter.toml", "nonsense = 1", "")
    done = diff(made, "HEAD", check=False)
    assert done.returncode == 2
    assert "newsletter.toml as it was at HEAD can't be used" in done.stderr


def test_bytes_that_no_reader_notices_are_named_by_their_file(made):
    made.newsletter("templates", "copy", "colophon.mjml.j2")
    approve(made)
    edit(made, "templates/colophon.mjml.j2", "\n", "\n{# nobody sees this #}\n")
    said = diff(made).stdout
    assert "No word, link or picture has changed" in said
    assert "It comes from\n  templates/colophon.mjml.j2\n" in said


def test_on_a_narrow_terminal_no_line_is_wider_than_it(made, monkeypatch):
    edit(made, "issues/2026-12/lead.md", "The level was lower.", "One two three four five six seven. " * 5)
    approve(made)
    edit(made, "issues/2026-12/lead.md", "four", "five")
    monkeypatch.setitem(made.environ, "COLUMNS", "32")
    _, *rest = diff(made).stdout.splitlines()
    assert max(map(len, rest)) <= 32
    assert "  One two three [-four-]{+five+}" in rest


def test_json_has_every_change_with_both_sides(made):
    approve(made)
    assert json.loads(diff(made, "--json").stdout)["changed"] is False
    edit(made, "issues/2026-12/issue.toml", "Iron in", "Steel in")
    found = json.loads(diff(made, "--json").stdout)
    assert found["changed"] is True
    assert found["changes"][0] == {
        "part": "subject",
        "name": "",
        "before": "Iron in the thalamus",
        "after": "Steel in the thalamus",
    }
    assert found["made_of"] == [{"part": "content", "name": "issues/2026-12/issue.toml"}]


def test_what_an_author_wrote_moves_no_cursor(made):
    approve(made)
    edit(made, "issues/2026-12/issue.toml", "Iron in", "\\u202eIron in")
    assert "\u202e" not in diff(made, check=False).stdout

"""The commands about people, as a person types them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import pytest

from newsletter.cli.main import main
from tests.support.publisher import publisher

if TYPE_CHECKING:
    from pathlib import Path

PEOPLE = (
    "Email Address,Name,Status,Town,Diagnosis\n"
    "zoe@example.org,<b>Zoë</b>,active,Leeds,secret\n"
    "obrien@example.org,O’Brien,active,,\n"
    "lee@example.org,李小龙,active,,\n"
    "nameless@example.org,,active,,\n"
    "left@example.org,Lea,unsubscribed,,\n"
    "nonsense,Nemo,active,,\n"
)


class Done(NamedTuple):
    """What a command said."""

    returncode: int
    stdout: str
    stderr: str


@dataclass
class Place:
    """A publisher's folder whose commands run in this process: starting forty would take most of a minute."""

    root: Path
    capsys: pytest.CaptureFixture[str]

    def newsletter(self, *args: str, check: bool = True) -> Done:
        """Runs a command as `newsletter` does."""
        self.capsys.readouterr()
        code = main(["--project", str(self.root), *args])
        done = Done(code, *self.capsys.readouterr())
        assert not check or code == 0, done
        return done


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Place:
    """A publisher with a file of people that nobody has imported."""
    for secret in ("DATABASE_URL", "NEWSLETTER_SECRET_KEYS", "NEWSLETTER_ADDRESS_KEY"):
        monkeypatch.delenv(secret, raising=False)
    publisher(tmp_path)
    (tmp_path / "people.csv").write_text(PEOPLE, encoding="utf-8")
    return Place(tmp_path, capsys)


def people(place: Place) -> str:
    return str(place.root / "people.csv")


def test_an_import_is_looked_at_first_then_applied_and_then_changes_nothing(place: Place) -> None:
    preview = place.newsletter("subscribers", "import", people(place))
    assert "There is no list readers yet" in preview.stdout
    assert "--apply" in preview.stdout
    assert "There is no list yet" in place.newsletter("lists").stdout
    applied = place.newsletter("subscribers", "import", people(place), "--apply")
    assert "5 changes on readers" in applied.stdout
    assert "? line 7: n…" in applied.stdout
    assert "Columns left out: Town, Diagnosis" in applied.stdout
    again = place.newsletter("subscribers", "import", people(place), "--apply")
    assert "Nothing was changed" in again.stdout


def test_a_report_of_an_import_holds_no_address(place: Place) -> None:
    done = place.newsletter("subscribers", "import", people(place), "--apply")
    for word in ("zoe@", "left@", "example.org", "nonsense"):
        assert word not in done.stdout + done.stderr


def test_lists_and_people_are_shown(place: Place) -> None:
    place.newsletter("subscribers", "import", people(place), "--apply")
    [_, line] = place.newsletter("lists").stdout.splitlines()
    assert line.split() == ["readers", "4", "0", "0", "0", "1"]
    everybody = place.newsletter("subscribers", "list").stdout
    for word in ("zoe@example.org", "<b>Zoë</b>", "O’Brien", "李小龙"):
        assert word in everybody
    only = place.newsletter("subscribers", "list", "--list", "readers", "--state", "unsubscribed").stdout
    assert "left@example.org" in only
    assert "zoe@example.org" not in only


def test_the_example_of_windows_and_another_column_name(place: Place) -> None:
    file = place.root / "old.csv"
    file.write_bytes("Mail;Vorname;Nachname\r\nj@example.org;Jürgen;Groß\r\n".encode("cp1252"))
    args = ("--map", "Mail=email", "--map", "Vorname=first", "--map", "Nachname = Last", "--apply")
    done = place.newsletter("subscribers", "import", str(file), *args)
    assert "Windows-1252" in done.stderr
    assert "Jürgen Groß" in place.newsletter("subscribers", "list").stdout


def test_a_custom_field_is_kept_and_the_setting_for_it_is_named(place: Place) -> None:
    done = place.newsletter("subscribers", "import", people(place), "--field", "Town", "--apply")
    assert 'fields = ["town"]' in done.stderr
    shown = place.newsletter("subscribers", "show", "zoe@example.org").stdout
    assert "town: Leeds" in shown
    assert "secret" not in shown


def test_one_person_comes_and_goes_for_good(place: Place) -> None:
    assert (
        "Added to readers"
        in place.newsletter("subscribers", "add", "zoe@example.org", "--name", "Zoë").stdout
    )
    assert "Already on readers" in place.newsletter("subscribers", "add", "ZOE@example.org").stdout
    assert (
        "Unsubscribed from readers"
        in place.newsletter("subscribers", "unsubscribe", "zoe@example.org").stdout
    )
    assert "already" in place.newsletter("subscribers", "unsubscribe", "zoe@example.org").stdout
    refused = place.newsletter("subscribers", "add", "zoe@example.org", check=False)
    assert refused.returncode == 5
    assert "zoe@" not in refused.stderr
    shown = place.newsletter("subscribers", "show", "zoe@example.org").stdout
    for word in ("Suppressed since", "unsubscribed", "added", "the operator"):
        assert word in shown


def test_what_a_person_was_sent_is_shown(place: Place) -> None:
    place.newsletter("subscribers", "add", "zoe@example.org")
    place.newsletter("send", "2026-12", "--confirm", "1")
    shown = place.newsletter("subscribers", "show", "zoe@example.org").stdout
    assert "2026-12" in shown
    assert "accepted" in shown


def test_nothing_is_known_about_a_stranger(place: Place) -> None:
    assert "Nothing is known" in place.newsletter("subscribers", "show", "who@example.org").stdout
    assert place.newsletter("subscribers", "list").stdout.startswith("Nobody.")


def test_suppressions_are_added_listed_imported_and_removed(place: Place) -> None:
    assert "No address" in place.newsletter("suppressions", "list").stdout
    place.newsletter("suppressions", "add", "zoe@example.org", "--reason", "complained")
    assert "already" in place.newsletter("suppressions", "add", "Zoe@example.org").stdout
    file = place.root / "stop.txt"
    file.write_text("a@example.org\nb@example.org\n", encoding="utf-8")
    assert "2  stopped" in place.newsletter("suppressions", "import", str(file)).stdout
    assert "Nothing was changed" in place.newsletter("suppressions", "import", str(file)).stdout
    listed = place.newsletter("suppressions", "list").stdout
    assert "complained" in listed
    assert "zoe@" not in listed
    lifted = place.newsletter("suppressions", "remove", "zoe@example.org", "--yes").stdout
    assert "complained" in lifted


def test_a_suppression_is_not_lifted_without_a_yes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    place.newsletter("suppressions", "add", "zoe@example.org")
    asked = place.newsletter("suppressions", "remove", "zoe@example.org", check=False)
    assert asked.returncode == 130
    assert "manual" in place.newsletter("suppressions", "list").stdout


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("subscribers", "list", "--list", "raeders"), "no list 'raeders'"),
        (("subscribers", "add", "zoe@example.org", "--list", "friends"), "no list 'friends'"),
        (("subscribers", "add", "zoe"), "is no address"),
        (("subscribers", "unsubscribe", "zoe@example.org"), "not on any list"),
        (("subscribers", "import", "PEOPLE", "--map", "Town"), "has no ="),
        (("subscribers", "import", "PEOPLE", "--map", "Toun=name"), "no column 'Toun'"),
        (("subscribers", "import", "PEOPLE", "--field", "Name"), "has a meaning already"),
        (("suppressions", "remove", "zoe@example.org", "--yes"), "is not suppressed"),
    ],
)
def test_a_wrong_call_is_one_clear_error(place: Place, args: tuple[str, ...], words: str) -> None:
    done = place.newsletter(*(people(place) if arg == "PEOPLE" else arg for arg in args), check=False)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broken_database_is_one_clear_error(place: Place) -> None:
    place.newsletter("lists")
    (place.root / ".newsletter" / "newsletter.db").write_text("a letter, not a database. " * 50)
    done = place.newsletter("lists", check=False)
    assert done.returncode == 6
    assert "not a database" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        *(("subscribers", name) for name in ("import", "list", "show", "add", "unsubscribe")),
        *(("suppressions", name) for name in ("import", "list", "add", "remove")),
        ("lists",),
    ],
)
def test_every_command_has_an_example(place: Place, command: tuple[str, ...]) -> None:
    assert f"Example: newsletter {' '.join(command)}" in place.newsletter(*command, "--help").stdout

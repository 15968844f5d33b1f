"""The commands about people, as a person types them."""

from __future__ import annotations

import io
import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import pytest

from newsletter.cli.main import main
from newsletter.exporting import private_file
from tests.support.publisher import publisher

if TYPE_CHECKING:
    from pathlib import Path

_SUBSCRIBERS = ("import", "list", "show", "add", "unsubscribe", "erase", "export", "explain")
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


def test_an_export_of_all_lists_comes_back_list_by_list(place: Place) -> None:
    file = place.root / "all.csv"
    place.newsletter("subscribers", "import", people(place), "--apply")
    place.newsletter("subscribers", "import", people(place), "--list", "events", "--apply")
    place.newsletter("subscribers", "export", "--out", str(file))
    said = place.newsletter("subscribers", "import", str(file)).stdout
    assert "5  unchanged" in said
    assert "4  of other lists: 4 events; --list brings one of them" in said
    failed = place.newsletter("subscribers", "import", str(file), "--list", "carers", "--apply", check=False)
    assert failed.returncode == 2
    assert "names readers, events" in failed.stderr


def test_the_name_of_a_file_may_be_any_bytes(place: Place) -> None:
    file = place.root / "M\udce4rz.csv"
    file.write_text(PEOPLE, encoding="utf-8")
    place.newsletter("subscribers", "import", str(file), "--apply")
    place.newsletter(
        "subscribers", "import", people(place), "--list", "b", "--source", "M\udce4rz", "--apply"
    )
    said = place.newsletter("subscribers", "show", "zoe@example.org").stdout
    assert "import of M\ufffdrz.csv" in said
    left = place.root / "M\udce4rz.txt"
    left.write_text("gone@example.org\n", encoding="utf-8")
    place.newsletter("suppressions", "import", str(left))


def test_a_list_that_nobody_comes_to_is_not_announced(place: Place) -> None:
    file = place.root / "bad.csv"
    file.write_text("email\nnobody\n", encoding="utf-8")
    said = place.newsletter("subscribers", "import", str(file)).stdout
    assert "it will be made" not in said
    assert "Nothing would be changed" in said


def test_of_many_columns_left_out_the_first_are_named(place: Place) -> None:
    file = place.root / "wide.csv"
    names = [f"c{number}" for number in range(12)]
    file.write_text(f"email,{','.join(names)},,,\n", encoding="utf-8")
    said = place.newsletter("subscribers", "import", str(file)).stdout
    assert f"Columns left out: {', '.join(names[:10])} and 2 more\n" in said


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


# Erasing


def test_an_erased_person_is_nowhere_in_files_and_output(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    place.newsletter("subscribers", "import", people(place), "--field", "Town", "--apply")
    (place.root / "people.csv").unlink()  # the operator's own file is the operator's to remove
    place.newsletter("send", "2026-12", "--confirm", "4")
    done = place.newsletter("subscribers", "erase", "Zoe@example.org", "--yes")
    assert done.stdout == "Erased.\n"
    place.newsletter("subscribers", "export", "--out", str(place.root / "all.csv"))
    files = [file for file in place.root.rglob("*") if file.is_file()]
    assert {".db", ".eml", ".csv"} <= {file.suffix for file in files}
    for file in files:
        held = file.read_bytes()
        assert not any(word in held for word in (b"zoe@", b"Zo\xc3\xab", b"Zo=C3=AB", b"Leeds")), file
    assert "zoe@" not in (done.stdout + done.stderr + caplog.text).lower()
    assert len(list((place.root / ".newsletter" / "outbox").rglob("*.eml"))) == 3


def test_no_file_and_no_operator_brings_an_erased_person_back(place: Place) -> None:
    place.newsletter("subscribers", "import", people(place), "--apply")
    place.newsletter("subscribers", "erase", "zoe@example.org", "--yes")
    again = place.newsletter("subscribers", "import", people(place), "--apply")
    assert "1 suppressed: erased" in again.stdout
    for call in (("subscribers", "add"), ("suppressions", "remove", "--yes")):
        assert place.newsletter(*call, "zoe@example.org", check=False).returncode == 5
    assert "(erased)" in place.newsletter("subscribers", "list").stdout
    assert "zoe@" not in place.newsletter("subscribers", "list").stdout
    explained = place.newsletter("subscribers", "explain", "zoe@example.org").stdout
    assert "Was erased on" in explained


def test_a_complaint_outlives_the_erasure_and_is_not_lifted_either(place: Place) -> None:
    place.newsletter("subscribers", "add", "zoe@example.org")
    place.newsletter("suppressions", "add", "zoe@example.org", "--reason", "complained", "--source", "Zoe S.")
    place.newsletter("subscribers", "erase", "zoe@example.org", "--yes")
    refused = place.newsletter("suppressions", "remove", "zoe@example.org", "--yes", check=False)
    assert (refused.returncode, "was erased" in refused.stderr) == (5, True)
    assert "complained" in place.newsletter("suppressions", "list").stdout


def test_nobody_is_erased_without_a_yes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    place.newsletter("subscribers", "add", "zoe@example.org")
    assert place.newsletter("subscribers", "erase", "zoe@example.org", check=False).returncode == 130
    assert "zoe@" in place.newsletter("subscribers", "list").stdout
    assert "Nobody has" in place.newsletter("subscribers", "erase", "who@example.org", "--yes").stdout


# Exporting


def test_an_export_is_private_and_comes_back_as_it_went(place: Place) -> None:
    formula = "=cmd|x@example.org"
    place.newsletter("subscribers", "import", people(place), "--apply")
    place.newsletter("subscribers", "add", formula, "--name", "=HYPERLINK(1)")
    place.newsletter("suppressions", "add", "lee@example.org", "--reason", "bounced")
    file = place.root / "all.csv"
    assert "6 lines" in place.newsletter("subscribers", "export", "--out", str(file)).stdout
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text("utf-8")
    assert f'"\'{formula}","\'=HYPERLINK(1)"' in text
    assert '"lee@example.org","李小龙","readers","bounced"' in text
    again = place.newsletter("subscribers", "import", str(file), "--apply").stdout
    assert "Nothing was changed" in again
    place.newsletter(
        "subscribers", "import", str(file), "--list", "carers", "--map", "list=ignore", "--apply"
    )
    shown = place.newsletter("subscribers", "show", formula).stdout
    assert "carers" in shown
    assert "=HYPERLINK(1)" in shown


def test_an_export_overwrites_nothing_unless_told_to(place: Place) -> None:
    place.newsletter("subscribers", "add", "zoe@example.org")
    file = place.root / "all.csv"
    file.write_text("mine")
    file.chmod(0o644)
    refused = place.newsletter("subscribers", "export", "--out", str(file), check=False)
    assert (refused.returncode, file.read_text()) == (5, "mine")
    place.newsletter("subscribers", "export", "--out", str(file), "--force")
    assert (file.stat().st_mode & 0o777, "zoe@" in file.read_text()) == (0o600, True)


def test_an_export_can_be_of_one_list_one_state_and_on_standard_output(place: Place) -> None:
    place.newsletter("subscribers", "import", people(place), "--apply")
    lines = place.newsletter("subscribers", "export", "--list", "readers", "--state", "unsubscribed").stdout
    assert [line.split(",")[0] for line in lines.splitlines()] == ['"email"', '"left@example.org"']


def test_one_persons_data_are_json(place: Place) -> None:
    place.newsletter("subscribers", "add", "zoe@example.org", "--name", "Zoë")
    held = json.loads(place.newsletter("subscribers", "export", "zoe@example.org").stdout)
    assert (held["person"]["name"], held["lists"][0]["said"][0]["act"]) == ("Zoë", "added")
    file = place.root / "zoe.json"
    place.newsletter("subscribers", "export", "zoe@example.org", "--out", str(file))
    assert (json.loads(file.read_text("utf-8")), file.stat().st_mode & 0o777) == (held, 0o600)
    assert "Nothing is known" in place.newsletter("subscribers", "export", "who@example.org").stdout


def test_an_export_that_fails_leaves_no_half_file(tmp_path: Path) -> None:
    def fail() -> None:
        with private_file(tmp_path / "half.csv") as file:
            file.write("half")
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fail()
    assert list(tmp_path.iterdir()) == []


# Explaining, and what show says


def test_why_a_person_is_in_a_send_is_said_with_the_send_and_for_now(place: Place) -> None:
    place.newsletter("subscribers", "add", "zoe@example.org")
    place.newsletter("send", "2026-12", "--confirm", "1")
    place.newsletter("subscribers", "add", "bob@example.org")
    zoe = place.newsletter("subscribers", "explain", "zoe@example.org", "2026-12").stdout
    assert "REHEARSAL" in zoe
    assert "Got a copy" in zoe
    assert "\nnow:\n  On the list readers, active since" in zoe
    bob = place.newsletter("subscribers", "explain", "bob@example.org", "2026-12").stdout
    assert "came onto the list readers later" in bob


def test_a_pause_and_the_edition_are_shown(place: Place) -> None:
    place.newsletter("subscribers", "add", "zoe@example.org")
    with closing(sqlite3.connect(place.root / ".newsletter" / "newsletter.db")) as database, database:
        database.execute("UPDATE subscription SET state = 'paused', paused_until = 1798797600000000")
        database.execute("UPDATE subscriber SET edition = 'large'")
    shown = place.newsletter("subscribers", "show", "zoe@example.org").stdout
    assert "paused until 2027-01-01" in shown
    assert "edition: large" in shown


def test_an_address_that_looks_like_another_one_is_told(place: Place) -> None:
    place.newsletter("subscribers", "add", "zoe@p\u0430ypal.com")  # with a Cyrillic a
    place.newsletter("subscribers", "add", "zoe@paypal.com")
    assert "mixes Cyrillic and Latin" in place.newsletter("subscribers", "show", "zoe@p\u0430ypal.com").stderr
    assert place.newsletter("subscribers", "show", "zoe@paypal.com").stderr == ""


def test_a_pause_that_is_over_ends_before_the_freeze_and_its_person_gets_the_issue(place: Place) -> None:
    place.newsletter("subscribers", "add", "zoe@example.org")
    with closing(sqlite3.connect(place.root / ".newsletter" / "newsletter.db")) as database, database:
        database.execute("UPDATE subscription SET state = 'paused', paused_until = 1000000")
    assert "1 recipient" in place.newsletter("send", "2026-12", "--dry-run").stdout
    place.newsletter("send", "2026-12", "--confirm", "1")
    assert "pause ended" in place.newsletter("subscribers", "show", "zoe@example.org").stdout
    assert len(list((place.root / ".newsletter" / "outbox" / "2026-12").glob("*.eml"))) == 1


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("subscribers", "erase", "zoe", "--yes"), "is no address"),
        (("subscribers", "explain", "zoe"), "is no address"),
        (("subscribers", "export", "--list", "raeders"), "no list 'raeders'"),
        (("subscribers", "export", "zoe@example.org", "--list", "readers"), "leave ADDRESS out"),
        (("subscribers", "export", "--out", "/nowhere/at/all.csv"), "can't be written"),
        (("subscribers", "list", "--list", "raeders"), "no list 'raeders'"),
        (("subscribers", "add", "zoe@example.org", "--list", "friends"), "no list 'friends'"),
        (("subscribers", "add", "zoe"), "is no address"),
        (("subscribers", "unsubscribe", "zoe@example.org"), "not on any list"),
        (("subscribers", "import", "PEOPLE", "--map", "Town"), "has no ="),
        (("subscribers", "import", "PEOPLE", "--map", "Toun=name"), "no column 'Toun'"),
        (("subscribers", "import", "PEOPLE", "--map", "Town=first", "--map", "Town=last"), "'Town' twice"),
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
        *(("subscribers", name) for name in _SUBSCRIBERS),
        *(("suppressions", name) for name in ("import", "list", "add", "remove")),
        ("lists",),
    ],
)
def test_every_command_has_an_example(place: Place, command: tuple[str, ...]) -> None:
    assert f"Example: newsletter {' '.join(command)}" in place.newsletter(*command, "--help").stdout

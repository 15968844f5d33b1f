"""The commands about people, as a person types them."""

from __future__ import annotations

import io
import json
import os
import resource
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from newsletter import config, joining, wiring
from newsletter.cli import output, streaming
from newsletter.cli.main import main
from newsletter.errors import Refused, UsageError
from newsletter.exporting import private_file
from newsletter.limits import Rate
from newsletter.store import engine as store_engine
from newsletter.store import subscribers as store
from tests.support.publisher import publisher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO

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
    captured: pytest.CaptureFixture[str]  # of the file descriptors: an export writes to those

    def newsletter(self, *args: str, check: bool = True) -> Done:
        """Runs a command as `newsletter` does."""
        self.captured.readouterr()
        code = main(["--project", str(self.root), *args])
        done = Done(code, *self.captured.readouterr())
        assert not check or code == 0, done
        return done


@pytest.fixture
def place(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Place:
    """A publisher with a file of people that nobody has imported."""
    for secret in ("DATABASE_URL", "NEWSLETTER_SECRET_KEYS", "NEWSLETTER_ADDRESS_KEY"):
        monkeypatch.delenv(secret, raising=False)
    publisher(tmp_path)
    (tmp_path / "people.csv").write_text(PEOPLE, encoding="utf-8")
    return Place(tmp_path, capfd)


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
    assert place.newsletter("subscribers", "list").stdout.startswith(
        "Nobody.\nNext: newsletter subscribers import"
    )
    place.newsletter("subscribers", "add", "zoe@example.org")
    said = place.newsletter("subscribers", "list", "--state", "pending").stdout
    assert said == "Nobody is pending.\nNext: newsletter lists\n"
    both = place.newsletter("subscribers", "list", "--state", "paused", "--list", "readers").stdout
    assert both.startswith("Nobody is paused and on the list readers.")


def test_a_long_list_is_printed_as_it_is_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PAGE", 2)
    monkeypatch.setattr(streaming, "AT_ONCE", 3)
    rows = "".join(f"p{number}@example.org,P\n" for number in range(9))
    (place.root / "people.csv").write_text(f"email,name\n{rows}", encoding="utf-8")
    place.newsletter("subscribers", "import", people(place), "--apply")
    monkeypatch.setattr(output, "print_table", None)  # it would lay out all of them first
    lines = place.newsletter("subscribers", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["address", *(f"p{n}@example.org" for n in range(9))]


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


def test_an_import_of_suppressions_says_only_what_is_so(place: Place) -> None:
    file = place.root / "stop.csv"

    def imported(text: str) -> str:
        file.write_text(text, encoding="utf-8")
        return place.newsletter("suppressions", "import", str(file)).stdout

    for nothing in ("email\n", "email\nnonsense\n"):
        assert imported(nothing).endswith("Nothing was changed: the file has no address that can be used.\n")
    mixed = imported("email\nnonsense\na@example.org\nb@example.org\n")
    assert ("2  stopped" in mixed, "? line 2" in mixed, "more" in mixed) == (True, True, False)
    assert "suppressed before" in imported("email\na@example.org\n")
    many = imported("email\n" + "nonsense\n" * 102 + "c@example.org\n")
    assert "  … and 2 more\n" in many


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
    assert ": erased.\n" in place.newsletter("subscribers", "show", "zoe@example.org").stdout


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


def test_a_sign_up_that_waits_is_shown_and_can_be_erased(place: Place) -> None:
    sign_up(place)
    shown = place.newsletter("subscribers", "show", "new@example.org").stdout
    assert "Somebody asked to put this address on readers, 2026-11-28" in shown
    assert place.newsletter("subscribers", "erase", "new@example.org", "--yes").stdout == "Erased.\n"
    assert "Suppressed since" in place.newsletter("subscribers", "show", "new@example.org").stdout
    export = place.newsletter("subscribers", "export", "new@example.org").stdout
    assert "new@example.org" not in export


def sign_up(place: Place) -> None:
    """On the page, while no letter may leave."""
    settings = config.load(place.root, {})
    wish = joining.SignUp("new@example.org", "readers")
    more: dict[str, Any] = {"network": "203.0.113.9", "limits": Rate(20, 3600)}
    more |= {"wording": joining.Wording.of("I want it.", "en"), "now": datetime(2026, 11, 28, tzinfo=UTC)}
    engine = wiring.open_store(settings)
    store_engine.write(engine, lambda conn: joining.ask(conn, wish, address_key=settings.address_key, **more))
    engine.dispose()


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


def test_of_nobody_no_file_is_written_and_that_is_said(place: Place) -> None:
    file = place.root / "who.json"
    said = place.newsletter("subscribers", "export", "who@example.org", "--out", str(file)).stdout
    assert (said, file.exists()) == ("Nothing is known about this address, so no file was written.\n", False)


def test_an_export_of_several_lists_says_how_each_gets_a_file(place: Place) -> None:
    place.newsletter("subscribers", "add", "zoe@example.org")
    out = ("--force", "--out", str(place.root / "all.csv"))
    assert "--list NAME" not in place.newsletter("subscribers", "export", *out).stdout
    place.newsletter("subscribers", "import", people(place), "--list", "carers", "--apply")
    assert "--list NAME" in place.newsletter("subscribers", "export", *out).stdout
    assert "--list NAME" not in place.newsletter("subscribers", "export", *out, "--list", "carers").stdout


@pytest.mark.parametrize("whose", [(), ("lee@example.org",)])
def test_standard_output_is_utf_8_whatever_the_terminal_has(place: Place, whose: tuple[str, ...]) -> None:
    place.newsletter("subscribers", "import", people(place), "--apply")
    done = subprocess.run(
        [sys.executable, "-m", "newsletter", "--project", place.root, "subscribers", "export", *whose],
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=True,
    )
    assert "李小龙" in done.stdout.decode()


@pytest.mark.parametrize("whose", [(), ("lee@example.org",)])
def test_a_full_disk_behind_standard_output_is_one_clear_error(place: Place, whose: tuple[str, ...]) -> None:
    place.newsletter("subscribers", "import", people(place), "--apply")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "newsletter", "--project", place.root, "subscribers", "export", *whose],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
            text=True,
        )
    assert done.returncode == 2
    assert done.stderr == "Error: Standard output can't be written: No space left on device.\n"


@contextmanager
def no_room() -> Iterator[None]:
    """Files may have 1,000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_clear_error_and_costs_no_older_export(tmp_path: Path) -> None:
    file = tmp_path / "all.csv"
    file.write_text("older")
    with no_room(), pytest.raises(UsageError, match=r"all\.csv can't be written: File too large"):
        write(file, lambda half: half.write("x" * 100_000), force=True)
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("all.csv", "older")]


def write(path: Path, act: Callable[[IO[str]], object], *, force: bool = False) -> None:
    """An export that does this with its file."""
    with private_file(path, force=force) as file:
        act(file)


def test_an_export_that_is_stopped_leaves_no_half_file(tmp_path: Path) -> None:
    def stop(file: IO[str]) -> None:
        file.write("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "half.csv", stop)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_came_meanwhile_is_not_overwritten_either(tmp_path: Path) -> None:
    file = tmp_path / "all.csv"
    with pytest.raises(Refused):
        write(file, lambda _mine: file.write_text("theirs"))
    assert [each.read_text() for each in tmp_path.iterdir()] == ["theirs"]


@pytest.mark.parametrize("kind", ["link", "dangling", "folder", "pipe"])
def test_what_is_no_plain_file_is_never_replaced(place: Place, kind: str) -> None:
    target, other = place.root / "target", place.root / "other"
    if kind == "folder":
        target.mkdir()
    elif kind == "pipe":
        os.mkfifo(target)
    else:
        target.symlink_to(other)
    if kind == "link":
        other.write_text("another's")
    before = target.lstat().st_ino, target.lstat().st_mode
    done = place.newsletter("subscribers", "export", "--out", str(target), "--force", check=False)
    assert (done.returncode, "a link, a folder or a device" in done.stderr) == (5, True)
    assert (target.lstat().st_ino, target.lstat().st_mode) == before
    assert not other.exists() or other.read_text() == "another's"


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


@pytest.mark.parametrize("slug", ["nonsuch", "2026-1\udcff"])
def test_an_issue_that_there_is_not_is_one_clear_error(place: Place, slug: str) -> None:
    done = place.newsletter("subscribers", "explain", "zoe@example.org", slug, check=False)
    assert (done.returncode, "There is no issue" in done.stderr) == (2, True)
    assert "Traceback" not in done.stderr
    assert place.newsletter("subscribers", "explain", "zoe@example.org", "2026-12").returncode == 0


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

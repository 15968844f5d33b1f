"""`approve`, and what `send` makes of it: one byte changed anywhere, and nothing leaves."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path  # noqa: TC003  a fixture's annotation
from typing import TYPE_CHECKING

import pytest

from newsletter.render import templates_dir
from tests.support.holding import HoldingServer
from tests.support.publisher import ROOT, Publisher, publisher
from tests.support.waiting import DEADLINE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

LIVE = """
[sending]
mode = "live"
transport = "smtp"
[smtp]
port = {port}
security = "none"
[approval]
require = {roles}
"""
PEOPLE = [("zoe@example.org", "Zoë"), ("li@example.org", "李小龙")]
GIF = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b")


@pytest.fixture
def made(tmp_path: Path) -> Publisher:
    made = publisher(tmp_path / "p")
    made.import_people(PEOPLE)
    return made


@contextmanager
def live(made: Publisher, *roles: str, more: str = "") -> Iterator[HoldingServer]:
    with HoldingServer() as server:
        made.configure(LIVE.format(port=server.port, roles=list(roles)).replace("'", '"') + more)
        yield server


def approve(made: Publisher, role: str = "editor", name: str = "Ann Example", *more: str) -> str:
    return made.newsletter("approve", "2026-12", "--role", role, "--by", name, *more).stdout


def send(made: Publisher, *more: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return made.newsletter("send", "2026-12", "--confirm", "2", *more, check=check)


def edit(made: Publisher, name: str, old: str, new: str) -> None:
    file = made.root / name
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))


def refused(made: Publisher, server: HoldingServer) -> str:
    """What `send` says; nothing may have left, and nothing may be in the ledger."""
    done = send(made, check=False)
    assert done.returncode == 5, done
    assert server.recipients() == []
    assert made.newsletter("status").stdout.startswith("Nothing was sent yet")
    return done.stderr


def test_a_live_issue_waits_for_every_required_role_and_goes_when_all_have_said_yes(made):
    with live(made, "editor", "medical") as server:
        assert "editor: nobody yet" in refused(made, server)
        assert made.newsletter("send", "2026-12", "--dry-run", check=False).returncode == 5
        said = approve(made)
        assert "Next: newsletter approve 2026-12 --list readers --by NAME --role medical" in said
        missing = refused(made, server)
        assert "medical: nobody yet" in missing
        assert "editor: nobody" not in missing
        assert "--dry-run" in approve(made, "medical", "Ben")
        said = send(made).stdout
        assert "approved  editor: Ann Example, 20" in said
        assert "; medical: Ben, 20" in said
        assert len(server.recipients()) == 2
    (campaign,) = json.loads(made.newsletter("status", "2026-12", "--json").stdout)
    assert [one.partition(",")[0] for one in campaign["approvals"]] == ["editor: Ann Example", "medical: Ben"]
    assert "approved  editor: Ann Example" in made.newsletter("status", "2026-12").stdout


def test_approving_shows_what_is_approved(made):
    edit(made, "issues/2026-12/issue.toml", "[lead]", 'period = "2026-12"\n[lead]')
    said = approve(made)
    for words in (
        "Iron in the thalamus",
        "list readers",
        "digest  ",
        "standard 2",
        "no errors",
        "editor: Ann Example",
    ):
        assert words in said


def test_approving_again_shows_what_has_changed_since(made):
    approve(made)
    edit(made, "issues/2026-12/lead.md", "lower", "higher")
    said = approve(made)
    assert "The level was [-lower.-]{+higher.+}" in said
    assert "issues/2026-12/lead.md" in said


def test_an_issue_with_errors_is_not_approved_and_a_waived_one_shows_the_reason(made):
    edit(made, "issues/2026-12/issue.toml", "Gut bacteria", "TODO")
    done = made.newsletter("approve", "2026-12", "--role", "editor", "--by", "Ann", check=False)
    assert (done.returncode, "W101" in done.stderr) == (4, True)
    assert "Nobody has approved it" in made.newsletter("approve", "2026-12").stdout
    waiver = '[[waive]]\ncode = "W101"\nwhere = "related.1.title"\nbecause = "wanted so"\n'
    file = made.root / "issues" / "2026-12" / "issue.toml"
    file.write_text(file.read_text() + waiver)
    assert "waived because: wanted so" in approve(made)


def test_one_person_in_two_roles_is_allowed_and_said(made):
    approve(made)
    done = made.newsletter("approve", "2026-12", "--role", "medical", "--by", "Ann Example")
    assert "Ann Example has approved it as editor and as medical: nobody else has looked" in done.stderr


# --- one byte


def a_picture(made: Publisher) -> None:
    folder = made.root / "issues" / "2026-12" / "images"
    folder.mkdir()
    (folder / "scan.gif").write_bytes(GIF)
    edit(
        made,
        "issues/2026-12/issue.toml",
        "[lead.source]",
        'image = "images/scan.gif"\nimage_alt = "A scan"\n[lead.source]',
    )


def another_text(made: Publisher) -> str:
    edit(made, "issues/2026-12/lead.md", "lower", "lowen")
    return "1 passage; in issues/2026-12/lead.md\n        text: The level was [-lower.-]{+lowen.+}"


def another_address(made: Publisher) -> str:
    """Refusals may be mailed and logged."""
    edit(made, "issues/2026-12/lead.md", "doctors.", "doctors. Ask someone@example.com.")
    return "text: {+Ask s…@e…com.+}"


def another_picture(made: Publisher) -> str:
    (made.root / "issues" / "2026-12" / "images" / "scan.gif").write_bytes(
        GIF.replace(b"\xff\xff\xff", b"\xff\xff\xfe")
    )
    return "1 picture; in issues/2026-12/images/scan.gif"


def another_template(made: Publisher) -> str:
    edit(made, "templates/colophon.mjml.j2", "\n", "\n\n")
    return "templates/colophon.mjml.j2"


def another_setting(made: Publisher) -> str:
    edit(made, "newsletter.toml", "1 Example Street", "2 Example Street")
    return "newsletter.postal_address in newsletter.toml"


def another_envelope(made: Publisher) -> str:
    """No reader's program shows it, and the compiled mail is the same."""
    edit(made, "newsletter.toml", "[smtp]\n", '[smtp]\nenvelope_from = "bounces@example.org"\n')
    return "void since this changed: smtp.envelope_from in newsletter.toml"


@pytest.mark.parametrize(
    "change",
    [another_text, another_address, another_picture, another_template, another_setting, another_envelope],
)
def test_one_byte_changed_after_the_approval_and_nothing_is_sent_until_it_is_approved_anew(made, change):
    a_picture(made)
    made.newsletter("templates", "copy", "colophon.mjml.j2")
    with live(made, "editor") as server:
        approve(made)
        named = change(made)
        said = refused(made, server)
        assert named in said
        assert "newsletter diff 2026-12 --list readers" in said
        assert "bounces@" not in said
        assert "someone@" not in said
        approve(made)
        send(made)
        assert len(server.recipients()) == 2


def test_an_approval_for_one_list_sends_nothing_to_another(made):
    file = made.root / "carers.csv"
    file.write_text("email,name\ncarer@example.org,Carer\n")
    made.newsletter("subscribers", "import", str(file), "--list", "carers", "--apply")
    with live(made, "editor") as server:
        approve(made)
        done = made.newsletter("send", "2026-12", "--list", "carers", "--confirm", "1", check=False)
        assert done.returncode == 5
        assert "the list (readers, now carers)" in done.stderr
        assert "newsletter approve 2026-12 --list carers --role editor" in done.stderr
        assert server.recipients() == []


def test_one_byte_of_the_program_changed_and_nothing_is_sent(made, tmp_path):
    copy = tmp_path / "program"
    shutil.copytree(ROOT / "newsletter", copy / "newsletter", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(templates_dir(), copy / "templates")
    with live(made, "editor") as server:
        _run_copy(made, copy, "approve", "2026-12", "--role", "editor", "--by", "Ann")
        assert _run_copy(made, copy, "send", "2026-12", "--dry-run").returncode == 0
        module = copy / "newsletter" / "quoted_printable.py"
        module.write_bytes(module.read_bytes() + b"\n")
        done = _run_copy(made, copy, "send", "2026-12", "--confirm", "2")
        assert done.returncode == 5
        assert "void since this changed: the program" in done.stderr
        assert server.recipients() == []


def _run_copy(made: Publisher, copy: Path, *args: str) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "newsletter", "--project", str(made.root), *args]
    env = made.env() | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(call, capture_output=True, text=True, env=env, cwd=copy, check=False)


def test_a_file_saved_while_the_number_is_asked_for_takes_the_approval_away(made):
    """Whoever sees a mistake at the last moment and mends it has stopped the send."""
    with live(made, "editor") as server:
        approve(made)
        master, slave = pty.openpty()
        with subprocess.Popen(
            made.command("send", "2026-12"),
            stdin=slave,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=made.env(),
        ) as process:
            os.close(slave)
            assert process.stdout is not None
            said = b""
            while b"number of recipients" not in said:
                piece = os.read(process.stdout.fileno(), 4096)
                assert piece, said
                said += piece
            edit(made, "issues/2026-12/lead.md", "lower", "higher")
            os.write(master, b"2\n")
            _, error = process.communicate(timeout=60)
        os.close(master)
        assert process.returncode == 5
        assert "void since this changed: issues/2026-12/lead.md" in error.decode()
    assert server.recipients() == []


# --- withdrawn, shown, and what needs none


def test_a_withdrawn_approval_stops_the_send(made):
    with live(made, "editor") as server:
        approve(made)
        made.newsletter("approve", "2026-12", "--role", "editor", "--withdraw")
        assert "withdrawn 20" in refused(made, server)


def test_withdrawing_after_the_start_says_that_it_stops_nothing(made):
    with live(made, "editor"):
        approve(made)
        send(made)
        done = made.newsletter("approve", "2026-12", "--role", "editor", "--withdraw")
        assert "withdrawing does not stop it" in done.stderr
        assert "Next: newsletter status 2026-12" in done.stdout  # a finished one can't be paused


def test_a_campaign_that_has_begun_goes_on_without_another_approval(made):
    made.configure(LIVE.format(port=9, roles='["editor"]'))  # nothing listens on port 9
    approve(made)
    assert send(made, check=False).returncode == 8
    edit(made, "issues/2026-12/lead.md", "lower", "higher")
    made.newsletter("resume", "2026-12")
    with live(made, "editor") as server:
        made.newsletter("send", "2026-12")
        assert len(server.recipients()) == 2
        assert b"lower" in server.messages()[0]


def test_all_approvals_are_listed_with_what_became_of_each(made):
    approve(made)
    approve(made, "editor", "Ben")
    approve(made, "medical", "Cem")
    made.newsletter("approve", "2026-12", "--role", "medical", "--withdraw")
    said = made.newsletter("approve", "2026-12", "--show").stdout
    ann, ben, cem = (
        next(line for line in said.splitlines() if name in line) for name in ("Ann", "Ben", "Cem")
    )
    assert ann.endswith("no: a later one took its place")
    assert ben.endswith("yes")
    assert "no: withdrawn" in cem
    edit(made, "issues/2026-12/lead.md", "lower", "higher")
    assert (
        "no: since then changed 1 passage; in issues/2026-12/lead.md"
        in made.newsletter("approve", "2026-12").stdout
    )


def test_a_rehearsal_and_a_proof_need_no_approval_and_the_plan_says_who_is_missing(made):
    made.configure('[approval]\nrequire = ["editor", "medical"]\n')
    approve(made)
    said = send(made).stdout
    assert "approved  editor: Ann Example, 20" in said
    assert "; medical: nobody yet" in said
    made.newsletter("proof", "2026-12", "--to", "me@example.org")


@pytest.mark.parametrize(
    "words",
    [
        ("--role", "editor"),
        ("--by", "Ann"),
        ("--withdraw",),
        ("--show", "--role", "editor"),
        ("--role", "boss"),
    ],
)
def test_half_an_approval_is_told_and_nothing_is_recorded(made, words):
    done = made.newsletter("approve", "2026-12", *words, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "Nobody has approved it" in made.newsletter("approve", "2026-12").stdout


def test_a_list_that_is_not_there_can_not_be_approved_for(made):
    done = made.newsletter(
        "approve", "2026-12", "--role", "editor", "--by", "Ann", "--list", "reader", check=False
    )
    assert (done.returncode, "Did you mean readers?" in done.stderr) == (2, True)


# --- one hash


def test_previewed_checked_built_approved_planned_and_sent_bytes_have_one_digest(made, tmp_path):
    whole = json.loads(made.newsletter("build", "2026-12", "--out", str(tmp_path / "b"), "--json").stdout)[
        "digest"
    ]
    short = whole[:12]
    assert json.loads(made.newsletter("check", "2026-12", "--json").stdout)["digest"] == whole
    assert f"digest {short}." in made.newsletter("check", "2026-12").stdout
    assert f"digest <code>{short}</code>" in _previewed(made)
    with live(made, "editor"):
        assert f"digest  {short}" in approve(made)
        assert f"digest {short}." in made.newsletter("approve", "2026-12").stdout
        assert f"digest  {short}" in send(made).stdout
    assert f"digest {short}." in made.newsletter("status", "2026-12").stdout
    (campaign,) = json.loads(made.newsletter("status", "2026-12", "--json").stdout)
    assert campaign["digest"] == whole


def _previewed(made: Publisher) -> str:
    """The page of a real preview."""
    process = made.start("preview", "2026-12")
    assert process.stdout is not None
    try:
        url = process.stdout.readline().split()[-1]
        with urllib.request.urlopen(url, timeout=DEADLINE_SECONDS) as answer:
            return answer.read().decode()
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=DEADLINE_SECONDS)

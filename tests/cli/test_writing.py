"""new, check, build and templates, run as people run them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import subprocess
import sys
import zlib
from email import message_from_bytes, policy
from typing import TYPE_CHECKING, NamedTuple

import pytest

from newsletter.cli.main import main
from tests.support.publisher import ISSUE, LEAD, Publisher, publisher

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SLUG = "2026-12"


def png(width: int, height: int, *, noise: bool = False) -> bytes:
    """A picture; with ``noise`` one that can't be packed."""
    row = hashlib.shake_128(b"noise").digest(width * 3) if noise else bytes(width * 3)
    pixels = zlib.compress(b"".join(b"\0" + row for _ in range(height)), 0 if noise else 9)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (
            (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
            (b"IDAT", pixels),
            (b"IEND", b""),
        )
    )


SCAN = png(60, 30)


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


class Desk(Publisher):
    """A publisher who runs the command in this process: a hundred times faster than in one of its own."""

    capture: pytest.CaptureFixture[str]

    def run(self, *args: str, code: int = 0) -> Done:
        self.capture.readouterr()
        done = Done(main(["--project", str(self.root), *args]), *self.capture.readouterr())
        assert done.returncode == code, done
        assert "Traceback" not in done.stderr
        return done


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    made = Desk(publisher(tmp_path / "press").root)
    made.capture = capsys
    return made


@pytest.fixture
def pictured(folder: Desk) -> Desk:
    change(folder, "issue.toml", "[lead]\n", '[lead]\nimage = "images/scan.png"\nimage_alt = "A scan"\n')
    images = folder.root / "issues" / SLUG / "images"
    images.mkdir()
    (images / "scan.png").write_bytes(SCAN)
    return folder


def change(folder: Desk, name: str, old: str, new: str) -> None:
    file = folder.root / "issues" / SLUG / name
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), "utf-8")


def tree(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


# --- build --------------------------------------------------------------------------------------------------------


def test_build_writes_the_mail_of_a_sample_reader(pictured: Desk, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pictured.run("build", SLUG, "--out", str(out))
    picture = f"images/{hashlib.sha256(SCAN).hexdigest()[:16]}.png"
    files = tree(out)
    assert set(files) == {"index.html", "large.html", "index.txt", "message.eml", picture}
    assert files[picture] == SCAN
    assert f'src="{picture}"'.encode() in files["index.html"]
    assert not any(b"@@" in data for data in files.values())


def test_the_page_and_the_text_are_those_of_the_message(pictured: Desk, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pictured.run("build", SLUG, "--out", str(out))
    message = message_from_bytes((out / "message.eml").read_bytes(), policy=policy.default)
    html, text = (message.get_body((kind,)).get_content().replace("\r\n", "\n") for kind in ("html", "plain"))
    page = (out / "index.html").read_text("utf-8")
    assert (
        re.sub(r"cid:[\w@.]+", "PICTURE", html).rstrip()
        == re.sub(r"images/\w+\.png", "PICTURE", page).rstrip()
    )
    assert text.rstrip() == (out / "index.txt").read_text("utf-8").rstrip()
    assert message["To"] == "reader@example.org"


def test_the_same_issue_built_twice_gives_the_same_bytes(pictured: Desk, tmp_path: Path) -> None:
    one, two = (tmp_path / name for name in ("one", "two"))
    for out in (one, two):  # each in a process of its own, so that no order of a set can hide
        pictured.newsletter("build", SLUG, "--out", str(out))
    assert tree(one) == tree(two)


def test_build_tells_scripts_the_sizes_the_digest_and_the_findings(folder: Desk, tmp_path: Path) -> None:
    change(folder, "issue.toml", "2026-11-30", "2026-12-31")
    out = tmp_path / "out"
    told = json.loads(folder.run("build", SLUG, "--out", str(out), "--json").stdout)
    assert told["html_bytes"] == (out / "index.html").stat().st_size
    assert told["text_bytes"] == (out / "index.txt").stat().st_size
    assert told["message_bytes"] == (out / "message.eml").stat().st_size
    assert re.fullmatch("[0-9a-f]{64}", told["digest"])
    assert told["files"] == ["index.html", "index.txt", "large.html", "message.eml"]
    (finding,) = told["findings"]
    assert (finding["code"], finding["level"], finding["where"]) == ("R101", "warning", "related.1")
    assert (finding["file"], finding["line"]) == (f"issues/{SLUG}/issue.toml", 11)


def test_build_without_a_name_takes_the_newest_issue(folder: Desk, tmp_path: Path) -> None:
    older = folder.root / "issues" / "2026-11"
    older.mkdir()
    (older / "issue.toml").write_text(ISSUE)
    (older / "lead.md").write_text(LEAD)
    told = folder.run("build", "--out", str(tmp_path / "out"), "--json").stdout
    assert json.loads(told)["slug"] == SLUG


def test_build_replaces_its_own_files_only(folder: Desk, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (out / "index.html").write_text("old")
    folder.run("build", SLUG, "--out", str(out))
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "index.html").read_text("utf-8").startswith("<!doctype html>")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_hosted_pictures_are_written_as_their_host_needs_them(pictured: Desk, tmp_path: Path) -> None:
    pictured.configure('[images]\nmode = "hosted"\n')
    out = tmp_path / "out"
    pictured.run("build", SLUG, "--out", str(out))
    hosted = f"media/{SLUG}/{hashlib.sha256(SCAN).hexdigest()[:16]}.png"
    assert (out / hosted).read_bytes() == SCAN
    message = message_from_bytes((out / "message.eml").read_bytes(), policy=policy.default)
    assert f"https://news.example.org/{hosted}" in message.get_body(("html",)).get_content()


def test_build_never_refuses_because_of_findings(folder: Desk, tmp_path: Path) -> None:
    change(folder, "issue.toml", "Iron in the thalamus", "TODO")
    done = folder.run("build", SLUG, "--out", str(tmp_path / "out"))
    assert "W101" in done.stderr
    assert (tmp_path / "out" / "index.html").exists()


def test_a_folder_that_can_not_be_written_is_a_usage_error(folder: Desk, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = folder.run("build", SLUG, "--out", str(tmp_path / "file" / "out"), code=2)
    assert "can't be written" in done.stderr


def test_build_and_check_need_no_keys_and_no_database(folder: Desk, tmp_path: Path) -> None:
    (folder.root / ".env").unlink()
    folder.run("build", SLUG, "--out", str(tmp_path / "out"))
    folder.run("check", SLUG)
    assert not (folder.root / ".newsletter").exists()


@pytest.mark.parametrize("command", [("build", SLUG, "--out", "out"), ("check", SLUG), ("templates", "list")])
def test_nothing_of_the_database_is_loaded(command: tuple[str, ...], folder: Desk, tmp_path: Path) -> None:
    script = f"""
import sys
from newsletter.cli.main import main
code = main({["--project", str(folder.root), *command]!r})
heavy = {{"sqlalchemy", "alembic", "sendgrid", "starlette", "uvicorn"}} & set(sys.modules)
sys.exit(f"loaded: {{heavy}}" if heavy else code)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=folder.env(),
        cwd=tmp_path,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("module", ["cli.writing", "cli.building", "checks", "web.server", "scaffold"])
def test_writing_needs_nothing_that_only_posix_has(module: str, folder: Desk) -> None:
    script = f"""
import sys
sys.modules.update(dict.fromkeys(("fcntl", "pwd", "grp", "termios", "resource")))  # as on Windows
import newsletter.{module}
"""
    subprocess.run([sys.executable, "-c", script], env=folder.env(), check=True)


# --- what must be one clear error ---------------------------------------------------------------------------------


def _edit(name: str, old: str, new: str) -> Callable[[Desk], None]:
    return lambda folder: change(folder, name, old, new)


def _template(old: str, new: str) -> Callable[[Desk], None]:
    def broken(folder: Desk) -> None:
        folder.run("templates", "copy", "closing.mjml.j2")
        file = folder.root / "templates" / "closing.mjml.j2"
        text = file.read_text("utf-8")
        assert old in text
        file.write_text(text.replace(old, new, 1), "utf-8")

    return broken


def _picture(data: bytes) -> Callable[[Desk], None]:
    def put(folder: Desk) -> None:
        change(folder, "issue.toml", "[lead]\n", '[lead]\nimage = "images/x.png"\nimage_alt = "A scan"\n')
        file = folder.root / "issues" / SLUG / "images" / "x.png"
        file.parent.mkdir()
        file.write_bytes(data)

    return put


def _linked(name: str) -> Callable[[Desk], None]:
    def link(folder: Desk) -> None:
        inside = folder.root / "issues" / SLUG / name if name else folder.root / "issues" / SLUG
        outside = folder.root.parent / "outside"
        inside.rename(outside)
        inside.symlink_to(outside)

    return link


def _remove(folder: Desk) -> None:
    (folder.root / "issues" / SLUG / "lead.md").unlink()


def _empty(folder: Desk) -> None:
    (folder.root / "issues" / SLUG / "lead.md").write_text("")


BROKEN: dict[str, tuple[Callable[[Desk], None], str]] = {
    "an unknown key": (_edit("issue.toml", "preheader =", "preheder ="), "preheder"),
    "a missing file": (_remove, "lead.md"),
    "an empty lead": (_empty, "lead.md"),
    "a bad date": (_edit("issue.toml", "date = 2026-12-01", 'date = "1.12.2026"'), "date"),
    "a javascript: link": (_edit("lead.md", "The level", "[x](javascript:alert(1)) The level"), "lead.md:3"),
    "a javascript: address": (
        _edit("issue.toml", "https://example.org/gut", "javascript:x()"),
        "related.1.url",
    ),
    "an unknown merge tag": (_edit("lead.md", "The level", "@@naem|reader@@ The level"), "@@name@@"),
    "an unknown MJML tag": (_template("<mj-text", "<mj-txet></mj-txet><mj-text"), "mj-txet"),
    "an unclosed tag": (_template("<mj-text", "<mj-text>x<mj-text"), "closing.mjml.j2"),
    "a picture of 20 MB": (_picture(png(2600, 2600, noise=True)), "images/x.png"),
    "a symbolic link out of the folder": (_linked("lead.md"), "lead.md"),
    "an issue folder that is a link": (_linked(""), SLUG),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_wrong_is_one_clear_error(kind: str, folder: Desk, tmp_path: Path) -> None:
    spoil, named = BROKEN[kind]
    (folder.root / "issues" / "closing.md").write_text("Talk to your team.\n")
    spoil(folder)
    out = tmp_path / "out"
    done = folder.run("build", SLUG, "--out", str(out), code=3)
    assert named in done.stderr
    assert len(re.findall("(?i)^error: ", done.stderr, re.MULTILINE)) == 1
    assert not out.exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert folder.run("check", SLUG, code=3)


@pytest.mark.parametrize("slug", ["../../elsewhere", "/etc", "..", "."])
def test_an_issue_outside_the_project_is_refused(slug: str, folder: Desk, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "issue.toml").write_text(ISSUE)
    (tmp_path / "elsewhere" / "lead.md").write_text(LEAD)
    folder.run("build", slug, "--out", str(tmp_path / "out"), code=3)
    assert not (tmp_path / "out").exists()


def test_a_broken_issue_leaves_an_earlier_build_alone(folder: Desk, tmp_path: Path) -> None:
    out = tmp_path / "out"
    folder.run("build", SLUG, "--out", str(out))
    before = tree(out)
    _empty(folder)
    assert folder.run("build", SLUG, "--out", str(out), code=3)
    assert tree(out) == before


# --- check --------------------------------------------------------------------------------------------------------


def test_a_number_of_five_thousand_digits_is_one_clear_error(folder: Desk) -> None:
    change(folder, "issue.toml", "number = 12", f"number = {'9' * 5000}")
    assert "issue.toml" in folder.run("check", code=3).stderr
    folder.configure(f"[sending]\nconnections = {'9' * 5000}\n")
    assert "newsletter.toml" in folder.run("check", code=2).stderr


def test_a_logo_with_an_impossible_name_is_one_clear_error(folder: Desk) -> None:
    folder.configure(f'[theme]\nlogo = "{"a" * 5000}"\n')
    assert "names a file that is not there" in folder.run("check", code=2).stderr


def test_a_templates_file_is_not_taken_for_no_templates(folder: Desk) -> None:
    (folder.root / "templates").write_text("")
    assert "is not a folder" in folder.run("check", code=3).stderr


def test_a_template_error_is_said_once(folder: Desk) -> None:
    (folder.root / "templates").mkdir()
    (folder.root / "templates" / "colophon.mjml.j2").write_text("<mj-sektion></mj-sektion>")
    told = folder.run("check", code=3).stderr
    assert told.count("there is no <mj-sektion>") == told.count("Did you mean mj-section?") == 1


def test_a_build_that_can_not_write_one_file_writes_none(folder: Desk) -> None:
    (folder.root / "out" / "index.html").mkdir(parents=True)
    folder.run("build", SLUG, "--out", str(folder.root / "out"), code=2)
    assert [path.name for path in (folder.root / "out").iterdir()] == ["index.html"]


def test_new_writes_nothing_through_a_link_out_of_the_project(folder: Desk, tmp_path: Path) -> None:
    (folder.root / "issues").rename(tmp_path / "elsewhere")
    (folder.root / "issues").symlink_to(tmp_path / "elsewhere")
    folder.run("new", "2027-01", code=5)
    assert not (tmp_path / "elsewhere" / "2027-01").exists()


def test_check_is_content_with_a_sound_issue(folder: Desk) -> None:
    done = folder.run("check")
    assert f"{SLUG}: no errors, no warnings" in done.stdout
    assert "newsletter preview 2026-12" in done.stdout


def test_check_ends_with_4_until_an_error_is_waived(folder: Desk) -> None:
    change(folder, "issue.toml", "Gut bacteria", "TODO")
    done = folder.run("check", SLUG, code=4)
    assert f"W101 issues/{SLUG}/issue.toml:12 [related.1.title]" in done.stdout
    waive = '[[waive]]\ncode = "W101"\nwhere = "related.1.title"\nbecause = "the name of a tool"\n'
    change(folder, "issue.toml", "[lead]\n", f"{waive}[lead]\n")
    done = folder.run("check", SLUG)
    assert "waived because: the name of a tool" in done.stdout


def test_check_tells_scripts_everything(folder: Desk) -> None:
    change(folder, "issue.toml", "Gut bacteria", "TODO")
    done = folder.run("check", SLUG, "--json", code=4)
    told = json.loads(done.stdout)
    assert [finding["code"] for finding in told["findings"]] == ["W101"]
    assert told["html_bytes"] > 0


def test_check_tells_scripts_of_content_errors_too(folder: Desk) -> None:
    _empty(folder)
    done = folder.run("check", SLUG, "--json", code=3)
    told = json.loads(done.stdout)
    assert told["findings"][0]["file"] == f"issues/{SLUG}/lead.md"


def test_a_project_without_issues_says_how_to_start_one(folder: Desk) -> None:
    (folder.root / "issues" / SLUG).rename(folder.root / "kept")
    done = folder.run("check", code=2)
    assert "newsletter new" in done.stderr


# --- new and templates --------------------------------------------------------------------------------------------


def test_new_starts_an_issue_and_never_overwrites(folder: Desk) -> None:
    folder.run("new", "2027-01")
    before = tree(folder.root)
    assert "issues/2027-01/issue.toml" in before
    folder.run("new", "2027-01", code=5)
    assert tree(folder.root) == before


def test_a_new_issue_does_not_pass_the_checks_untouched(folder: Desk) -> None:
    folder.run("new", "2027-01")
    done = folder.newsletter("check", "2027-01", check=False)
    assert done.returncode in {3, 4}
    assert "TODO" in done.stdout + done.stderr


def test_templates_are_listed_and_taken_over_once(folder: Desk) -> None:
    assert re.search(r"colophon\.mjml\.j2\s+ours", folder.run("templates", "list").stdout)
    folder.run("templates", "copy", "colophon.mjml.j2")
    own = folder.root / "templates" / "colophon.mjml.j2"
    own.write_text(own.read_text("utf-8") + "<!-- mine -->\n", "utf-8")
    assert re.search(r"colophon\.mjml\.j2\s+yours", folder.run("templates", "list").stdout)
    folder.run("templates", "copy", "colophon.mjml.j2", code=5)
    assert own.read_text("utf-8").endswith("<!-- mine -->\n")


@pytest.mark.parametrize("name", ["colofon.mjml.j2", "../newsletter.toml", "/etc/hosts"])
def test_only_a_template_can_be_taken_over(name: str, folder: Desk) -> None:
    folder.run("templates", "copy", name, code=2)
    assert not (folder.root / "templates").exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a folder this user may not write")
def test_a_template_that_can_not_be_written_is_a_usage_error(folder: Desk) -> None:
    folder.root.chmod(0o500)
    try:
        folder.run("templates", "copy", "colophon.mjml.j2", code=2)
    finally:
        folder.root.chmod(0o700)

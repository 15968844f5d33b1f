"""The command line's frame: what `--help` costs, where commands are found, how every kind of error ends."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
from types import ModuleType
from typing import TYPE_CHECKING

import click
import pytest

from newsletter import errors
from newsletter.cli import main as frame
from newsletter.cli import output
from newsletter.cli.main import COMMANDS, Entry, Project, app, main
from newsletter.model import Finding, Level
from tests.support.publisher import ROOT, publisher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HELP = ["-m", "newsletter", "--help"]


def python(*args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environ}
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, env=env, check=False)


def every_command() -> Iterator[tuple[str, click.Command]]:
    """All commands and commands of groups, by what a person types."""

    def walk(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        yield name, command
        for child, inner in command.commands.items() if isinstance(command, click.Group) else ():
            yield from walk(f"{name} {child}", inner)

    context = click.Context(app)
    for name in COMMANDS:
        command = app.get_command(context, name)
        assert command is not None
        yield from walk(name, command)


# The table of commands


def imported_by_help() -> set[str]:
    code = (
        "import sys; before = set(sys.modules)\n"
        "from newsletter.cli.main import main; main(['--help'])\n"
        "print('IMPORTED', *(set(sys.modules) - before))"
    )
    return set(python("-c", code).stdout.rpartition("IMPORTED ")[2].split())


def test_help_imports_click_and_nothing_else_from_outside() -> None:
    outside = {name.partition(".")[0] for name in imported_by_help()} - sys.stdlib_module_names
    assert {"click", "newsletter"} <= outside <= {"click", "newsletter", "colorama"}


def test_help_does_not_load_the_model_or_what_only_errors_need() -> None:
    unwanted = {"newsletter.model", "newsletter.config", "json", "difflib", "traceback", "fcntl", "pwd"}
    assert not imported_by_help() & unwanted


def test_help_takes_at_most_six_times_as_long_as_python_alone() -> None:
    """Best of several, taken in turn, so that a busy machine slows down both."""
    best = {"pass": 9.0, "help": 9.0}
    for attempt in range(40):
        for name, args in (("pass", ["-c", "pass"]), ("help", HELP)):
            start = time.perf_counter()
            python(*args)
            best[name] = min(best[name], time.perf_counter() - start)
        if attempt >= 5 and best["help"] <= 6 * best["pass"]:
            return
    pytest.fail(f"seconds: {best}")


def test_help_lists_every_command_in_the_order_of_the_story() -> None:
    page = python(*HELP).stdout
    assert re.findall(r"^  ([a-z]+)  ", page, re.MULTILINE) == list(COMMANDS)
    assert [line[:-1] for line in page.splitlines() if re.fullmatch(r"(Write|Readers|Send|Look after):", line)] == [
        "Write", "Readers", "Send", "Look after",
    ]  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_the_same_as_the_command(name: str) -> None:
    command = app.get_command(click.Context(app), name)
    assert command is not None
    assert " ".join((command.help or "").partition("\n\n")[0].split()) == COMMANDS[name].help


def test_every_command_has_an_example_and_takes_a_project() -> None:
    for name, command in every_command():
        if not isinstance(command, click.Group):
            assert f"Example: newsletter {name}" in (command.epilog or ""), name
        assert "--project" in {text for option in command.params for text in option.opts}, name


def test_a_mistyped_command_suggests_the_near_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chek"]) == 2
    assert "There is no command 'chek'. Did you mean check?" in capsys.readouterr().err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert re.fullmatch(r"newsletter, version \d+\.\d+\.\d+\n", capsys.readouterr().out)


# How commands end


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], int]:
    """Runs a function as the command ``try`` and returns the exit code."""

    def run(act: Callable[[], object]) -> int:
        module = ModuleType("newsletter.cli.trying")
        module.__dict__["try"] = click.Command("try", callback=act)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(frame.COMMANDS, "try", Entry("trying", "Try."))
        return main(["try"])

    return run


def raiser(error: BaseException) -> Callable[[], object]:
    def act() -> object:
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("x"), 2),
        (errors.ConfigError("x"), 2),
        (errors.ContentError("x"), 3),
        (errors.TemplateError("x"), 3),
        (errors.ChecksFailed("x"), 4),
        (errors.Refused("x"), 5),
        (errors.DatabaseError("x"), 6),
        (errors.UnknownDeliveries("x"), 7),
        (errors.Unfinished("x"), 8),
        (click.UsageError("x"), 2),
        (click.FileError("x", "y"), 2),
        (click.Abort(), 130),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_kind_of_error_has_its_exit_code_and_no_traceback(
    command: Callable[[Callable[[], object]], int],
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
) -> None:
    assert command(raiser(error)) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err
    assert "Traceback" not in told.err


def test_a_command_may_return_its_exit_code(command: Callable[[Callable[[], object]], int]) -> None:
    assert command(lambda: 7) == 7
    assert command(lambda: None) == 0


def test_an_error_is_one_block_with_findings_and_what_to_do(
    command: Callable[[Callable[[], object]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    finding = Finding(
        "C201", Level.ERROR, "issues/2026-12/issue.toml", "The date is not a date.", "Write it so.", 3, 8
    )
    assert command(raiser(errors.ContentError("The issue can't be read.", [finding], hint="Mend it."))) == 3
    assert capsys.readouterr().err == (
        "Error: The issue can't be read.\n"
        "error C201 issues/2026-12/issue.toml:3:8\n"
        "    The date is not a date.\n"
        "    → Write it so.\n"
        "→ Mend it.\n"
    )


def test_a_bug_shows_its_traceback_and_asks_to_report_it(
    command: Callable[[Callable[[], object]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(raiser(ZeroDivisionError("unlikely"))) == 1
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert "ZeroDivisionError: unlikely" in told
    assert told.rstrip().endswith("take out addresses and names first.")


def test_a_broken_socket_is_a_bug_and_not_a_closed_pipe(
    command: Callable[[Callable[[], object]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(raiser(BrokenPipeError())) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="pipes break otherwise there")
def test_a_reader_that_goes_away_ends_the_command_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, *HELP],
        stdout=writing,
        stderr=subprocess.PIPE,
        env={"PYTHONPATH": str(ROOT)},
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


# What is printed


def on_a_terminal(*args: str, **environ: str) -> str:
    """What the command writes when stdout and stderr are a terminal."""
    theirs, ours = pty.openpty()
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TERM": "xterm", **environ}
    subprocess.run([sys.executable, *args], stdout=ours, stderr=ours, env=env, check=False)
    os.close(ours)
    written = b""
    while True:
        try:
            chunk = os.read(theirs, 65536)
        except OSError:  # Linux says so when the other end is closed
            break
        if not chunk:
            break
        written += chunk
    os.close(theirs)
    return written.decode()


def test_colour_only_on_a_terminal_that_wants_it(tmp_path: Path) -> None:
    asked = ["-m", "newsletter", "--project", str(tmp_path), "config"]
    assert "\x1b[31m" in on_a_terminal(*asked)
    assert "\x1b" not in on_a_terminal(*asked, NO_COLOR="1")
    assert "\x1b" not in python(*asked).stderr


def test_control_characters_never_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b[2Jgone\r\x07\u202e\x9b"
    output.say(evil)
    output.warn(evil)
    output.print_error(errors.Refused(evil, hint=evil))
    output.print_findings([Finding("X", Level.WARNING, evil, evil, evil)])
    output.print_table(("name",), [(evil,)])
    told = capsys.readouterr()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", told.out + told.err)
    assert (told.out + told.err).count("gone") == 8


def test_joiners_and_fixed_spaces_stay(capsys: pytest.CaptureFixture[str]) -> None:
    words = "می\u200cخواهم 👩\u200d🔬 Lisez\u00a0: bien"
    output.say(words)
    assert capsys.readouterr().out == f"{words}\n"


def test_json_keeps_every_character_and_hides_what_would_steer_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    value = {"name": "李小龙\x9b2J\u202e\x1b"}
    output.print_json(value)
    told = capsys.readouterr().out
    assert json.loads(told) == value
    assert "李小龙" in told
    assert not re.search(r"[\x7f-\x9f\u202e\x1b]", told)


def test_a_table_in_a_pipe_is_never_wrapped_and_wide_letters_count_twice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.print_table(
        ("name", "note", "n"), [("李小龙", "x" * 300, 1), ("O’Brien", "[b]not markup[/b]", None)]
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("name     note")
    assert lines[1].startswith("李小龙   xxx")
    assert lines[1].endswith("x  1")
    assert lines[2] == "O’Brien  [b]not markup[/b]"


def test_a_terminal_without_the_letters_is_no_reason_to_fail(tmp_path: Path) -> None:
    made = publisher(tmp_path)
    text = (tmp_path / "newsletter.toml").read_text().replace("Example Street", "李 Street")
    (tmp_path / "newsletter.toml").write_text(text, encoding="utf-8")
    made.environ["PYTHONIOENCODING"] = "latin-1"
    said, _ = made.start("config").communicate()
    assert r"1 \u674e Street" in said


def test_findings_are_counted_without_the_waived_ones() -> None:
    error = Finding("A", Level.ERROR, "f", "m")
    waived = Finding("A", Level.ERROR, "f", "m", waived="known")
    warning = Finding("A", Level.WARNING, "f", "m")
    assert output.count_findings([error, waived, warning, warning]) == "1 error, 2 warnings"
    assert output.count_findings([]) == "no errors, no warnings"


# The project


def test_the_project_is_found_from_a_folder_inside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = publisher(tmp_path)
    monkeypatch.chdir(made.root / "issues" / "2026-12")
    assert Project().root == made.root


@pytest.mark.parametrize("place", ["before", "after"])
def test_the_project_can_be_named_before_and_after_the_command(
    tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = publisher(tmp_path)
    project = ["--project", str(made.root)]
    assert main([*project, "config"] if place == "before" else ["config", *project]) == 0
    assert f"Project: {made.root}" in capsys.readouterr().out


def test_outside_a_project_it_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["config"]) == 2
    assert main(["--project", str(tmp_path), "config"]) == 2
    assert capsys.readouterr().err.count("newsletter init") == 2
    assert main(["--project", str(tmp_path / "missing"), "config"]) == 2


def test_a_warning_of_the_configuration_is_printed_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = publisher(tmp_path)
    (made.root / ".env").chmod(0o644)
    assert main(["--project", str(made.root), "config"]) == 0
    told = capsys.readouterr()
    assert told.err.count("Warning: ") == told.err.count("chmod 600") == 1
    assert "Warning" not in told.out

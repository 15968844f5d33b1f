"""The units and cron lines: what systemd and a shell make of them, not how they look."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from newsletter.deploying import cron_lines, systemd_units
from newsletter.errors import UsageError

NAMES = {
    *("newsletter-run.service", "newsletter-run.timer", "newsletter-serve.service"),
    *("newsletter-backup.service", "newsletter-backup.timer"),
}
SRV = Path("/srv/newsletter")
with_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze: apt-get install systemd"
)


def units(project: Path = SRV, program: Path | None = None, **more) -> dict[str, str]:
    program = program or project / ".venv" / "bin" / "newsletter"
    return dict(systemd_units(project, program, "newsletter", state=project / ".newsletter", **more))


def a_program(folder: Path) -> Path:
    """A command that says how it was called."""
    program = folder / "newsletter"
    program.write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n')
    program.chmod(0o755)
    return program


def analyze(*words: str) -> str:
    done = subprocess.run(
        ["systemd-analyze", *words], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def write(folder: Path, texts: dict[str, str]) -> list[str]:
    """The files, started as root: a user ``newsletter`` does not exist here, and systemd would say so."""
    for name, text in texts.items():
        (folder / name).write_text(text.replace("User=newsletter", "User=root"))
    return [str(folder / name) for name in texts]


@with_systemd
@pytest.mark.parametrize("folder", ["newsletter", "our news", "100% $HOME %i"])
def test_systemd_takes_every_unit_without_a_word(folder, tmp_path):
    project = tmp_path / folder
    project.mkdir()
    program = a_program(project)
    files = write(tmp_path, units(project, program))
    assert {Path(file).name for file in files} == NAMES
    said = analyze("verify", *files)
    assert str(tmp_path) not in said, said


@with_systemd
def test_a_service_may_do_little(tmp_path):
    files = write(tmp_path, units())
    said = analyze("security", "--offline=true", files[0])
    exposure = re.search(r"exposure level for \S+: ([\d.]+)", said)
    assert exposure, said
    assert float(exposure[1]) <= 2.0


def test_a_service_writes_to_the_state_folder_only():
    for name, text in units().items():
        if name.endswith(".service"):
            assert re.findall(r"^ReadWritePaths=(.*)$", text, re.MULTILINE) == ["/srv/newsletter/.newsletter"]
            assert "\nProtectSystem=strict\n" in text


def test_a_database_elsewhere_can_be_written_too():
    text = units(writable=[Path("/var/lib/our news")])["newsletter-run.service"]
    assert 'ReadWritePaths=/srv/newsletter/.newsletter "/var/lib/our news"\n' in text


def test_a_sender_is_given_ten_minutes_for_the_last_reply():
    patience = re.search(r"^TimeoutStopSec=(\d+)$", units()["newsletter-run.service"], re.MULTILINE)
    assert patience
    assert int(patience[1]) > 600


def test_a_time_that_passed_while_the_machine_was_off_is_made_up_for():
    found = units()
    assert all("\nPersistent=true\n" in found[f"newsletter-{name}.timer"] for name in ("run", "backup"))


def test_a_project_in_a_home_can_still_be_read():
    assert "ProtectHome=true" in units()["newsletter-run.service"]
    assert "ProtectHome=read-only" in units(Path("/home/ann/news"))["newsletter-run.service"]
    assert "ProtectHome=read-only" in units(program=Path("/root/bin/newsletter"))["newsletter-run.service"]


def test_so_can_a_python_that_a_virtual_environment_borrows_from_a_home():
    found = units(read=[Path("/home/ann/.pyenv/versions/3.11.7/bin/python3.11")])
    assert "ProtectHome=read-only" in found["newsletter-serve.service"]


@pytest.mark.parametrize("path", ['/srv/a"b', "/srv/a'b", "/srv/a\\b", "/srv/a\nb", "srv/a"])
def test_a_path_that_systemd_could_misread_is_refused(path):
    with pytest.raises(UsageError, match="can't stand in a unit"):
        units(Path(path))


def test_a_user_that_is_none_is_refused():
    with pytest.raises(UsageError, match="system user"):
        systemd_units(SRV, SRV / "newsletter", "ann\nUser=root", state=SRV)


@pytest.mark.parametrize("folder", ["newsletter", "our news", "100% $HOME `id`", "it's"])
def test_cron_calls_the_command_with_the_project_as_it_is_written(folder, tmp_path):
    project = tmp_path / folder
    project.mkdir()
    run, backup = cron_lines(project, a_program(project)).splitlines()
    assert called(run) == ["--project", str(project), "run", "--once"]
    assert called(backup) == ["--project", str(project), "db", "backup", "--keep", "14"]
    assert run.split()[:5] == ["*/5", "*", "*", "*", "*"]


def called(line: str) -> list[str]:
    """What cron's shell runs. To cron a bare percent sign is the end of the command (crontab(5))."""
    command = line.split(maxsplit=5)[5]
    assert not re.search(r"(?<!\\)%", command)
    done = subprocess.run(
        ["/bin/sh", "-c", command.replace(r"\%", "%")], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()

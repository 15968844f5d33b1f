"""What an operator installs so that everything happens by itself: printed, or written into a folder."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from newsletter.cli import output
from newsletter.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from newsletter.cli.main import Project


def print_cron(project: Project) -> None:
    """Lines for ``crontab -e``."""
    from newsletter.deploying import cron_lines

    output.say(cron_lines(project.root, _program()).rstrip())


def print_units(project: Project, user: str, out: Path | None) -> None:
    """systemd's units, one after the other, or a file each in ``out``."""
    units = _units(project, user)
    if out is None:
        for name, unit in units.items():
            output.say(f"# --- /etc/systemd/system/{name}\n{unit}")
        return
    try:
        _write(units, out)
    except OSError as error:
        raise UsageError(f"{out} can't be written: {error.strerror}.", hint="Name another folder.") from error
    output.next_steps(
        f"sudo cp {shlex.quote(str(out))}/newsletter-* /etc/systemd/system/",
        "sudo systemctl daemon-reload",
        "sudo systemctl enable --now newsletter-run.timer newsletter-backup.timer newsletter-serve.service",
    )


def _write(units: Mapping[str, str], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name, unit in units.items():
        (out / name).write_text(unit, encoding="utf-8")
        output.say(f"wrote {out / name}")


def _units(project: Project, user: str) -> Mapping[str, str]:
    from newsletter import wiring
    from newsletter.deploying import systemd_units

    state, database = project.settings.state_dir, wiring.lock_path(project.settings).parent
    writable = [] if database == state else [database]
    # A virtual environment has only a link to its Python, which may be in somebody's home (pyenv, uv).
    read = [Path(sys.executable).resolve(), Path(sys.base_prefix).resolve()]
    return systemd_units(project.root, _program(), user, state=state, writable=writable, read=read)


def _program() -> Path:
    """The command, beside the interpreter that runs it."""
    return Path(sys.executable).with_name("newsletter")

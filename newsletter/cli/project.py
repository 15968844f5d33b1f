"""The commands that look after a publisher's folder: init, config."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from newsletter.cli import output

if TYPE_CHECKING:
    from newsletter.cli.main import Project


@click.command(epilog="Example: newsletter init my-newsletter")
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option("--keys", is_flag=True, help="Only make the keys that are missing, in a folder that exists.")
@click.pass_obj
def init(project: Project, folder: Path | None, *, keys: bool) -> None:
    """Make a publisher's folder, or the keys that sign its links.

    Without DIR, the current folder. Nothing that exists is overwritten, and a key that is set is never replaced: with
    other keys, the links in mails that were sent would die and people who left would be written to again.
    """
    if keys:
        _tell_keys(folder or project.root)
        return
    from newsletter.scaffold import init_project

    root = folder or project.folder or Path.cwd()
    init_project(root)
    output.say(f"Made a publisher's folder in {root}.")
    _tell_keys(root)
    output.next_steps(
        *([f"cd {root}"] if root != Path.cwd() else []), "fill in newsletter.toml", "newsletter preview"
    )


def _tell_keys(root: Path) -> None:
    from newsletter.config import add_keys

    made = add_keys(root, os.environ)
    if made:
        output.say(f"Wrote {' and '.join(made)} into {root / '.env'}. Keep a copy of it in a safe place.")
    else:
        output.say("Both keys are set already: nothing was changed.")


@click.command(epilog="Example: newsletter config --json")
@click.option("--json", "as_json", is_flag=True, help="Print the settings for a script.")
@click.pass_obj
def config(project: Project, *, as_json: bool) -> None:
    """Print every setting in effect and where it came from.

    Secrets are never shown, only whether they are set; a fingerprint tells two keys apart.
    """
    settings = list(project.settings.describe())
    if as_json:
        output.print_json({each.key: {"value": each.value, "from": each.origin} for each in settings})
        return
    output.say(f"Project: {project.root}")
    output.print_table(
        ("setting", "value", "from"), [(each.key, _cell(each.value), each.origin) for each in settings]
    )
    output.next_steps("change newsletter.toml, or secrets in .env", "newsletter check")


def _cell(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list) else value

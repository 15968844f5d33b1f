"""newsletter.toml and the secrets of the environment become one frozen ``Settings``.

All problems are told at once, each with file, line and key, because a person mends a file in one go. Secrets
are read from the environment or ``.env`` only: newsletter.toml is made to be shared, and a secret in it is
refused. This is the only place that reads configuration; ``wiring`` is the only one that hands it on.

``values`` knows what one value may be, ``sections`` which keys there are, ``env`` the secrets, and
``problems`` how to tell a person what is wrong.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from newsletter.config.env import ENV_FILE, SECRETS, add_keys, parse_secret, read_secrets, readable_by_others
from newsletter.config.problems import FILE, Problem, explain, read_text, report
from newsletter.config.sections import STATE_FOLDER, Images, Sections, Setting, Settings, holds, paths
from newsletter.errors import ConfigError
from newsletter.toml_lines import find, key_lines

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["FILES_OF_THIS_MACHINE", "Setting", "Settings", "add_keys", "find_project", "load"]


def find_project(start: Path) -> Path:
    """The nearest folder from ``start`` upwards with a newsletter.toml; ConfigError if there is none."""
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / FILE).is_file():
            return folder
    raise ConfigError(
        f"There is no {FILE} in {start} or in any folder above it.",
        hint="Go into a publisher's folder, name one with --project DIR, or make one: newsletter init DIR",
    )


FILES_OF_THIS_MACHINE = ("dkim.keys", "smtp.ca_file")  # in no commit, and nothing that readers see


def load(project: Path, environ: Mapping[str, str], *, leave_out: Collection[str] = ()) -> Settings:
    """Read newsletter.toml, ``.env`` and ``environ``. Raises one ConfigError with every problem in them.

    A variable of the environment wins over the same one in ``.env``; an empty one counts as not set. What the file says
    of the keys in ``leave_out`` does not count.
    """
    problems: list[Problem] = []
    text, data = _read_toml(project / FILE)
    for path in leave_out:
        section, _, key = path.partition(".")
        if isinstance(table := data.get(section), dict):
            table.pop(key, None)
    problems += _take_out_secrets(data, text)
    sections = _validate(data, text, project, problems)
    secrets = read_secrets(project, environ, problems)
    parsed = {name.lower(): parse_secret(name, secret, problems) for name, secret in secrets.items()}
    if problems or sections is None:
        raise ConfigError(report(problems))
    private = [project / ENV_FILE, *map(Path, sections.dkim.keys.values())]
    known: dict[str, Any] = {
        **dict(sections),
        "images": _with_url(sections),
        "project": project,
        "database_url": f"sqlite:///{(project / STATE_FOLDER / 'newsletter.db').as_posix()}",
        **parsed,
        "origins": {path: FILE if holds(data, path) else "default" for path in paths()}
        | {name: secrets[name].origin if name in secrets else "default" for name in SECRETS},
        "warnings": tuple(filter(None, map(readable_by_others, private))),
    }
    return Settings.model_validate(known)


def _with_url(sections: Sections) -> Images:
    """Hosted pictures are under the publisher's own address unless another place was named."""
    url = sections.images.url or f"{sections.newsletter.base_url}/media"
    return sections.images.model_copy(update={"url": url})


def _read_toml(file: Path) -> tuple[str, dict[str, Any]]:
    text = read_text(file)
    try:
        return text, tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of 5,000 digits
        what, _, place = str(error).partition(" (at ")
        line = re.match(r"line (\d+)", place)
        problem = Problem(
            file.name, int(line[1]) if line else None, f"{what}. The file's format: https://toml.io"
        )
        raise ConfigError(str(problem)) from None


def _take_out_secrets(data: dict[str, Any], text: str) -> list[Problem]:
    """Remove every secret from what the file says and tell where it belongs, without showing any of it."""
    lines = key_lines(text)
    tables = {"": data, **{f"{name}.": table for name, table in data.items() if isinstance(table, dict)}}
    return [
        Problem(FILE, find(lines, f"{prefix}{key}"), _misplaced(f"{prefix}{key}", key, table.pop(key)))
        for prefix, table in tables.items()
        for key, value in list(table.items())
        if _secret_variable(key, value)
    ]


def _misplaced(path: str, key: str, value: object) -> str:
    return (
        f"{path} is a secret, and this file is made to be shared. Write it into {ENV_FILE} instead, as "
        f"{_secret_variable(key, value)}=…, and take a new one if this file ever left the machine."
    )


_NAMES_OF_SECRETS = {
    **{name.lower(): name for name in SECRETS},
    "secret_keys": "NEWSLETTER_SECRET_KEYS",
    "address_key": "NEWSLETTER_ADDRESS_KEY",
    "api_key": "SENDGRID_API_KEY",
    "password": "SMTP_PASSWORD",
}


def _secret_variable(key: str, value: object) -> str:
    """The variable for what is a secret by its name, or by its look: SendGrid's keys begin with ``SG.``."""
    by_look = "SENDGRID_API_KEY" if isinstance(value, str) and value.startswith("SG.") else ""
    return _NAMES_OF_SECRETS.get(key.lower(), by_look)


def _validate(data: dict[str, Any], text: str, project: Path, problems: list[Problem]) -> Sections | None:
    try:
        return Sections.model_validate(data, context={"project": project})
    except ValidationError as error:
        problems += explain(error, text, Sections)
        return None

"""The secrets: from the environment, or from ``.env`` in the project, which is for its owner's eyes alone.

No message in here shows a value, nor a word of a line that could not be read: it may be a pasted key.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import SecretStr

from newsletter import tokens
from newsletter.config.problems import Problem, read_text, report
from newsletter.config.values import one_line
from newsletter.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ENV_FILE = ".env"
SIGNING_KEYS = "NEWSLETTER_SECRET_KEYS"
ADDRESS_KEY = "NEWSLETTER_ADDRESS_KEY"
INSTANCE = "NEWSLETTER_INSTANCE"  # no secret, but of this machine and not of the project, like those
KEY_BYTES = 32

# KEY=value, KEY="value" or KEY='value', and maybe a comment. Nothing is replaced inside a value.
LINE = re.compile(
    r"""([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'#](?:[^#]|(?<!\s)\#)*?)?)\s*(?:(?<=\s)\#.*)?"""
)


class Secret(NamedTuple):
    """A secret as it was found."""

    value: str
    origin: str  # "environment" or ".env"
    line: int | None = None


def read_secrets(project: Path, environ: Mapping[str, str], problems: list[Problem]) -> dict[str, Secret]:
    """Every secret that is set, by its variable; the environment wins. Adds what is wrong to ``problems``."""
    found = read_env(project / ENV_FILE, problems)
    found |= {name: Secret(environ[name], "environment") for name in SECRETS if environ.get(name)}
    return {name: found[name] for name in SECRETS if name in found and found[name].value}


def read_env(file: Path, problems: list[Problem]) -> dict[str, Secret]:
    """The lines of ``.env`` by their variable; none if there is no such file."""
    found: dict[str, Secret] = {}
    for number, line in enumerate(read_text(file).splitlines() if file.exists() else [], 1):
        match = LINE.fullmatch(line.strip())
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not match:
            problems.append(
                Problem(ENV_FILE, number, 'is not a line like KEY=value, KEY="value" or # comment.')
            )
        elif match[1] in found and match[1] in SECRETS:
            problems.append(
                Problem(ENV_FILE, number, f"sets {match[1]} for the second time: keep one of the lines.")
            )
        else:
            value = next((part for part in match.groups()[1:] if part), "")
            found[match[1]] = Secret(value, ENV_FILE, number)
    return found


def parse_secret(name: str, secret: Secret, problems: list[Problem]) -> object:
    """The secret as ``Settings`` holds it."""
    try:
        return SECRETS[name](one_line(secret.value))
    except ValueError as error:
        problems.append(Problem(secret.origin, secret.line, f"{name} {str(error).rstrip('.')}."))
        return None


def _signing_keys(text: str) -> str:
    try:
        tokens.Keyring.parse(text)
    except ValueError as error:
        raise ValueError(f"can't be used: {error}") from None
    return text


def _address_key(text: str) -> bytes:
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) < KEY_BYTES:
        raise ValueError(
            f"must be {KEY_BYTES} random bytes in base64url, as newsletter init --keys makes them"
        )
    return key


SECRETS: Mapping[str, Callable[[str], object]] = {
    SIGNING_KEYS: _signing_keys,
    ADDRESS_KEY: _address_key,
    "SENDGRID_API_KEY": SecretStr,
    "SMTP_PASSWORD": SecretStr,
    "DATABASE_URL": str,
    INSTANCE: str,
}


def readable_by_others(file: Path) -> str:
    """A warning if another user of this machine may read the secrets in it, else an empty text."""
    if os.name == "posix" and file.exists() and file.stat().st_mode & 0o077:
        return f"{file} can be read by other users of this machine. Mend it with: chmod 600 {file}"
    return ""


def add_keys(project: Path, environ: Mapping[str, str]) -> list[str]:
    """Make the keys that are set nowhere and write them into ``.env``; every other line stays as it is.

    Returns the names of the new ones. The file is replaced whole, readable by its owner only.
    """
    file = (project / ENV_FILE).resolve()
    problems: list[Problem] = []
    known = read_env(file, problems)
    if problems:
        raise ConfigError(report(problems))
    missing = [
        name
        for name in (SIGNING_KEYS, ADDRESS_KEY)
        if not environ.get(name) and not (name in known and known[name].value)
    ]
    lines = read_text(file).splitlines() if file.exists() else []
    for name in missing:
        line = f"{name}={'1:' if name == SIGNING_KEYS else ''}{secrets.token_urlsafe(KEY_BYTES)}"
        if name in known:  # an empty one, as in .env.example
            lines[(known[name].line or 1) - 1] = line
        else:
            lines.append(line)
    if missing:
        _replace(file, "\n".join(lines) + "\n")
    return missing


def _replace(file: Path, text: str) -> None:
    """Whole or not at all: half a .env would be a lost key."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".env-")  # its mode is 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise

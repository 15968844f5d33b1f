"""The keys that sign copies: made here, published by a person."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Literal

import click

from newsletter.cli import output
from newsletter.errors import Refused, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from newsletter.cli.main import Project
    from newsletter.config import Settings
    from newsletter.transports.dkim_keys import PrivateKey

SHORT = "{selector} is {described}: receivers begin to distrust so short a key. Make another with: newsletter dkim new"


@click.group(epilog="Example: newsletter dkim records")
def dkim() -> None:
    """Make the keys that sign your mail, and print their DNS records."""


@dkim.command(epilog="Example: newsletter dkim new news2027")
@click.argument("selector")
@click.option("--algorithm", type=click.Choice(["rsa", "ed25519"]), default="rsa", show_default=True)
@click.pass_obj
def new(project: Project, selector: str, algorithm: Literal["rsa", "ed25519"]) -> None:
    """Make a key, and say what to publish and what to write into newsletter.toml.

    SELECTOR names the key in the DNS: small letters, digits and -, such as the year. A key is never overwritten.
    """
    from newsletter import wiring

    settings = project.settings
    _check_selector(settings, selector)
    wiring.require_cryptography()
    from newsletter.transports import dkim_keys

    key = dkim_keys.make(algorithm)
    file = settings.state_dir / "dkim" / f"{selector}.pem"
    _write(file, key)
    described = dkim_keys.describe(key)
    output.say(
        f"Made a key ({described}) in {file}. Keep a copy of it in a safe place, and show it to nobody."
    )
    output.say("\nPublish this record in the DNS of your domain:\n")
    _tell(_record(settings, selector, key))
    output.say("\nWhen everybody can see it, an hour later or so, tell newsletter.toml:\n")
    output.say(_lines(settings, selector, file))
    output.say()
    output.next_steps("newsletter dkim records", "newsletter proof SLUG --to ADDRESS")


def _check_selector(settings: Settings, selector: str) -> None:
    from newsletter.config import values

    try:
        values.selector(selector)
    except ValueError as error:
        raise UsageError(f'the selector "{selector}" {error}.') from None
    if selector in settings.dkim.keys:
        raise Refused(
            f"newsletter.toml names a key of the selector {selector} already.",
            hint="Take another name: receivers remember the old record for a while.",
        )


def _write(file: Path, key: PrivateKey) -> None:
    from newsletter.transports import dkim_keys

    if os.path.lexists(file):
        raise Refused(f"{file} is there already, and was not touched.", hint="Take another selector.")
    try:
        for folder in (file.parent.parent, file.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        dkim_keys.write(file, key)
    except OSError as error:
        raise UsageError(f"{file} can't be written: {error.strerror}.") from None


def _lines(settings: Settings, selector: str, file: Path) -> str:
    name = json.dumps(selector) if "." in selector else selector
    line = f"{name} = {json.dumps(str(file.relative_to(settings.project)))}"
    return f"[dkim.keys]\n{line}" + ("\n\n(The first line is there already.)" if settings.dkim.keys else "")


@dkim.command(epilog="Example: newsletter dkim records --json")
@click.option("--json", "as_json", is_flag=True, help="Print the records for a script.")
@click.pass_obj
def records(project: Project, *, as_json: bool) -> None:
    """Print the DNS record of every key in newsletter.toml."""
    from newsletter import wiring

    settings = project.settings
    keys = wiring.dkim_keys(settings) if settings.dkim.keys else []
    found = [_record(settings, selector, key) for selector, key in keys]
    _warn_of_short(keys)
    if as_json:
        output.print_json(found)
        return
    if not found:
        output.say(
            "newsletter.toml names no key under [dkim.keys], so copies leave without a signature of ours."
        )
        output.next_steps("newsletter dkim new SELECTOR")
        return
    for record in found:
        output.say(f"{record['selector']} ({record['key']})\n")
        _tell(record)
        output.say()
    output.next_steps("newsletter proof SLUG --to ADDRESS")


def _warn_of_short(keys: list[tuple[str, PrivateKey]]) -> None:
    for selector, key in keys:
        from newsletter.transports import dkim_keys

        if dkim_keys.is_short(key):
            output.warn(SHORT.format(selector=selector, described=dkim_keys.describe(key)))


def _record(settings: Settings, selector: str, key: PrivateKey) -> dict[str, Any]:
    from newsletter import wiring
    from newsletter.transports import dkim_keys

    value = dkim_keys.record(key)
    return {
        "selector": selector,
        "key": dkim_keys.describe(key),
        "name": dkim_keys.record_name(selector, wiring.dkim_domain(settings)),
        "type": "TXT",
        "value": value,
        "strings": dkim_keys.strings(value),
    }


def _tell(record: dict[str, Any]) -> None:
    """The value twice where it is long: in one piece, as most forms want it, and in strings, as zone files do."""
    output.say(f"    name   {record['name']}")
    output.say("    type   TXT")
    output.say(f"    value  {record['value']}")
    if len(record["strings"]) > 1:
        output.say("\nIn a zone file, where a string has at most 255 characters:\n")
        output.say("    " + " ".join(f'"{part}"' for part in record["strings"]))

"""The canary as a person asks for it: which copies leave first, and how long the rest waits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from newsletter.cli import output
from newsletter.errors import UsageError

if TYPE_CHECKING:
    from datetime import timedelta

    from sqlalchemy import Engine

    from newsletter.config import Settings
    from newsletter.limits import Canary
    from newsletter.model import Campaign, Kind

OFF = "off"


def asked(settings: Settings, kind: Kind, size: str | None, wait: str | None) -> Canary | None:
    """What the options say, else newsletter.toml. Raises ``UsageError`` with what can be written."""
    from newsletter import wiring
    from newsletter.limits import Canary

    span = _wait(wait) if wait is not None else settings.sending.canary_wait
    if size is not None:
        wanted = _size(size)
        return None if wanted is None else Canary(wanted, span)
    default = wiring.canary(settings, kind)
    if wait is not None and default is None:
        raise UsageError("--canary-wait says how long the rest waits, and no copies leave first.", hint=ADD)
    return replace(default, wait=span) if default else None


ADD = "Add --canary with a share or a number, such as `--canary 1%`."


def _size(text: str) -> float | int | None:
    from newsletter.config import values

    if text.isascii() and text.isdigit() and 0 < int(text) < 10**9:
        return int(text)
    try:
        return values.share(text)
    except ValueError:
        raise UsageError(
            f"--canary {text} is neither a share nor a number of copies.",
            hint="Write `--canary 1%`, `--canary 50`, or `--canary off`.",
        ) from None


def _wait(text: str) -> timedelta:
    from newsletter.config import values

    try:
        return values.duration(text)
    except ValueError:
        raise UsageError(
            f"--canary-wait {text} is no duration from a second to 30 days.",
            hint="Write `--canary-wait 30m`, `90s` or `2h`.",
        ) from None


def going_on(engine: Engine, campaign: Campaign, size: str | None) -> None:
    """A campaign that has begun keeps its canary. Only ``off`` still counts: a person says that the rest may go."""
    from newsletter.store import canaries
    from newsletter.store.engine import write

    if size == OFF and write(engine, lambda conn: canaries.release(conn, campaign.id)):
        output.say("The canary is over by your word: the rest leaves now.")
    elif size not in {None, OFF}:
        output.warn(f"{campaign.label} has begun, and keeps the canary that it began with.")

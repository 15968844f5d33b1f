"""What long-lived commands say while they work: lines on stderr, for people or for machines, without personal data.

No logger of ours is given an address, a name or a link to begin with (``errors.where``, ``personal.codes_only``). The
formatter masks what looks like one all the same: a library may say more than we know, and logs are kept where nobody
looks after them.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from newsletter.errors import where

if TYPE_CHECKING:
    from collections.abc import Mapping

    from newsletter.config import Settings

OURS = "newsletter"
LIKE_AN_ADDRESS = re.compile(r"""(?:"[^"\s]*"|[^\s<>"'(),;:@/=]+)@[^\s<>"'(),;:@/]+""")
LIKE_A_TOKEN = re.compile(r"(/[upca]/)[A-Za-z0-9_-]{30,}")
MASKED = "…"


def set_up(settings: Settings, *, quiet: bool = False) -> None:
    """From now on, what is logged goes to stderr as [logging] says. Calling it again replaces the former call.

    ``quiet`` is for a command that shows a person what it does: in text form, only errors are left for it to say.
    """
    form = settings.logging.format
    handler = _Stderr()
    handler.setFormatter(Objects() if form == "json" else Lines())
    handler.setLevel(logging.ERROR if quiet and form == "text" else logging.INFO)
    root = logging.getLogger()
    for former in [one for one in root.handlers if isinstance(one, _Stderr)]:
        root.removeHandler(former)
    root.addHandler(handler)
    logging.getLogger(OURS).setLevel(logging.INFO)  # of others' loggers, warnings and what is worse


def mask(text: str) -> str:
    """Without what looks like an address, or like a token in a link of ours."""
    return LIKE_A_TOKEN.sub(rf"\1{MASKED}", LIKE_AN_ADDRESS.sub(f"{MASKED}@{MASKED}", text))


class _Stderr(logging.Handler):
    """Writes to whatever is stderr now; one that has gone stops nobody."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError, ValueError):
            print(self.format(record), file=sys.stderr, flush=True)


class Objects(logging.Formatter):
    """One JSON object a line: time (UTC, ISO 8601), level, event, and the facts of the event."""

    def format(self, record: logging.LogRecord) -> str:
        """As one line."""
        known = {"time": _time(record), "level": record.levelname.lower(), "event": _event(record)}
        return json.dumps({key: _safe(value) for key, value in {**known, **_facts(record)}.items()})


class Lines(logging.Formatter):
    """The same for people: ``2026-12-01T08:00:00Z info campaign finished campaign="2026-12 to readers" accepted=9``."""

    def format(self, record: logging.LogRecord) -> str:
        """As one line."""
        facts = [
            f"{key}={json.dumps(_safe(value), ensure_ascii=False)}" for key, value in _facts(record).items()
        ]
        event = mask(" ".join(_event(record).split()))
        return " ".join([_time(record), record.levelname.lower(), event, *facts])


def _time(record: logging.LogRecord) -> str:
    return f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"


def _event(record: logging.LogRecord) -> str:
    """An exception's own words stay unsaid: they may hold anything."""
    error = record.exc_info[1] if record.exc_info else None
    return f"{record.getMessage()}: {where(error)}" if error else record.getMessage()


def _facts(record: logging.LogRecord) -> Mapping[str, Any]:
    found: Mapping[str, Any] = getattr(record, "facts", {})
    return found


def _safe(value: object) -> object:
    return value if isinstance(value, int | float | None) else mask(str(value))

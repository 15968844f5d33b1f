"""What a peer in Python is told to send. Standard library only."""

from __future__ import annotations

import gc
import html
import json
import sys
from itertools import islice
from pathlib import Path
from typing import Any

TOLD: dict[str, Any] = json.loads(sys.argv[1])


def email() -> dict[str, Any]:
    """The message with ``@@name@@``, ``@@unsubscribe_url@@`` and ``@@preferences_url@@`` in it."""
    return json.loads(Path(TOLD["email"]).read_text(encoding="utf-8"))


def people() -> list[dict[str, str]]:
    """As many as there are messages to send. Read before the clock starts."""
    with Path(TOLD["people"]).open(encoding="utf-8") as lines:
        read = [json.loads(line) for line in islice(lines, TOLD["messages"])]
    gc.freeze()  # the collector need not look through them while they are sent to
    return read


def fill(text: str, person: dict[str, str]) -> str:
    """The cheapest merge there is."""
    for name in ("name", "unsubscribe_url", "preferences_url"):
        text = text.replace(f"@@{name}@@", person[name])
    return text


def fill_html(text: str, person: dict[str, str]) -> str:
    """The same, escaped."""
    return fill(text, {key: html.escape(value) for key, value in person.items()})

"""axe, the accessibility rules that browsers themselves are tested with, on the page that a browser shows.

The readers' pages allow no script, so the browser has to be told to let this one in: ``Page.setBypassCSP``.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import axe_core_python

if TYPE_CHECKING:
    from tests.support.browser import Browser

FOUND = """axe.run(%s).then(r => r.violations.concat(r.incomplete)
    .flatMap(rule => rule.nodes.map(node => `${rule.id}: ${node.html.slice(0, 120)}: ${node.failureSummary}`)))"""


def faults(tab: Browser, *rules: str) -> list[str]:
    """What breaks a rule, and what axe could not decide; ``rules`` are the only ones to look at, else all."""
    if not tab.evaluate("'axe' in window"):
        tab.evaluate(f"{_script()}; 0")
    options = {"runOnly": {"type": "rule", "values": rules}} if rules else {}
    return list(tab.evaluate(FOUND % json.dumps(options)))


@cache
def _script() -> str:
    return (Path(axe_core_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")

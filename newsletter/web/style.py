"""The one style sheet of the readers' pages, made of the mail's own colours and fonts.

It stands inside every page, and the page's policy allows just these bytes by their hash: a page is one request, on a
train as well, and nothing else may style it. All sizes are in rem, so that a reader's own text size counts.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from newsletter.render import Theme
    from newsletter.render.theme import Palette

SHEET = Path(__file__).parent / "static" / "reader.css"


def css(theme: Theme) -> str:
    """Variables for both colour schemes, and what uses them."""
    return (
        f":root{{color-scheme:light dark;{_colours(theme.light)}"
        f"--heading:{theme.heading_font};--body:{theme.body_font}}}\n"
        f"@media (prefers-color-scheme:dark){{:root{{{_colours(theme.dark)}}}}}\n"
        + SHEET.read_text(encoding="utf-8")
    )


def _colours(palette: Palette) -> str:
    return "".join(f"--{each.name}:{getattr(palette, each.name)};" for each in fields(palette))


def csp_hash(sheet: str) -> str:
    """How a Content-Security-Policy names the text of a ``<style>``."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode()}'"

"""Contrast and size of every word, from the inlined styles (WCAG 2.2, 1.4.3).

Only what stands in ``style`` and ``bgcolor`` is read: that is all an inbox without style blocks has. Dark
mode lives in a style block, and needs a browser to be judged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from newsletter.model import Edition
from newsletter.render.theme import LARGE_PRINT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lxml.html import HtmlElement

    from newsletter.checks.inspection import Inspection
    from newsletter.model import Finding

COLOUR = re.compile(r"#([0-9a-f]{6}|[0-9a-f]{3})\b", re.IGNORECASE)
PIXELS = re.compile(r"([\d.]+)px")
SMALLEST = 14  # pixels; below it most people pinch
NEUTRAL = re.compile(r"[\W_]+")  # ornaments carry no meaning that contrast could hide
BOLD = frozenset({"b", "strong", "th", "h1", "h2", "h3", "h4", "h5", "h6"})


@dataclass(frozen=True, slots=True)
class Look:
    """How words look at one place of the tree."""

    ink: str = "#000000"
    paper: str = "#ffffff"
    size: float = 16.0  # pixels
    bold: bool = False
    hidden: bool = False

    @property
    def needed(self) -> float:
        """The contrast WCAG AA asks for; large words need less."""
        return 3.0 if self.size >= 24 or (self.bold and self.size >= 18.66) else 4.5


def find(seen: Inspection) -> Iterator[Finding]:
    """Each faint pair of colours once, each small size once, with the first words that have it."""
    body = seen.tree.find("body")
    told: set[object] = set()
    for words, look in _words(body, Look()) if body is not None else ():
        ratio = contrast(look.ink, look.paper)
        if ratio < look.needed and (look.ink, look.paper) not in told:
            told.add((look.ink, look.paper))
            yield _faint(seen, words, look, ratio)
        if look.size < _least(seen) and look.size not in told:
            told.add(look.size)
            yield _small(seen, words, look)


def _faint(seen: Inspection, words: str, look: Look, ratio: float) -> Finding:
    return seen.origin(words, where=f"{look.ink} on {look.paper}").warning(
        "A109",
        f"“{_short(words)}” is {look.ink} on {look.paper}: a contrast of {ratio:.1f}.",
        f"Choose colours in [theme] with a contrast of at least {look.needed:g}.",
    )


def _small(seen: Inspection, words: str, look: Look) -> Finding:
    return seen.origin(words, where=f"{look.size:g}px").warning(
        "A110",
        f"“{_short(words)}” is {look.size:g} pixels high.",
        f"Write it as px({look.size:g}) in the template: large print has nothing below {LARGE_PRINT} then."
        if _least(seen) == LARGE_PRINT
        else f"Use at least {SMALLEST}, and 16 for what people read.",
    )


def _least(seen: Inspection) -> int:
    return LARGE_PRINT if seen.email.edition == Edition.LARGE else SMALLEST


def _short(words: str) -> str:
    return words if len(words) <= 40 else words[:39] + "…"


def _words(element: HtmlElement, outer: Look) -> Iterator[tuple[str, Look]]:
    look = _look(element, outer)
    if look.hidden:
        return
    yield from _spoken(element.text, look)
    for child in element:
        if isinstance(child.tag, str):
            yield from _words(child, look)
        yield from _spoken(child.tail, look)


def _spoken(text: str | None, look: Look) -> Iterator[tuple[str, Look]]:
    words = " ".join((text or "").split())
    if NEUTRAL.sub("", words):
        yield words, look


def _look(element: HtmlElement, outer: Look) -> Look:
    style = _declarations(element.get("style", ""))
    own = replace(outer, bold=outer.bold or element.tag in BOLD)
    paper = COLOUR.search(style.get("background-color", style.get("background", element.get("bgcolor", ""))))
    ink, size = COLOUR.search(style.get("color", "")), PIXELS.fullmatch(style.get("font-size", ""))
    weight = style.get("font-weight", "")
    hidden = style.get("display") == "none" or element.tag in {"style", "script", "title"}
    return replace(
        own,
        paper=paper[0].lower() if paper else own.paper,
        ink=ink[0].lower() if ink else own.ink,
        size=float(size[1]) if size else own.size,
        bold=(weight in {"bold", "bolder", "600", "700", "800", "900"}) if weight else own.bold,
        hidden=own.hidden or hidden,
    )


def _declarations(style: str) -> dict[str, str]:
    pairs = (part.partition(":") for part in style.lower().split(";"))
    return {name.strip(): value.replace("!important", "").strip() for name, _, value in pairs}


def contrast(one: str, other: str) -> float:
    """The WCAG contrast ratio, 1 to 21, of two colours written ``#rrggbb`` or ``#rgb``."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
    channels = (int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue

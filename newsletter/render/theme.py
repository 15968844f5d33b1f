"""Colours, fonts and logo of a publication."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from newsletter.model import Picture

COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
FONTS = re.compile(r"[\w ,'-]+")


@dataclass(frozen=True, slots=True)
class Palette:
    """Six colours as ``#rrggbb``: Outlook reads no shorter form. Raises ``ValueError`` for anything else."""

    background: str  # around the sheet
    surface: str  # the sheet the text stands on
    text: str
    muted: str  # dates, small print
    accent: str  # links, buttons, rules
    border: str  # hairlines

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if not COLOUR.fullmatch(value):
                raise ValueError(f'{each.name} = "{value}" is not a colour like #1a2b3c')

    def in_full_ink(self) -> Palette:
        """Without the paler colour of small print: poor eyesight is mostly too little contrast."""
        return replace(self, muted=self.text)


LIGHT = Palette(
    background="#f4f1ea",
    surface="#fffdf9",
    text="#26231f",
    muted="#645d53",
    accent="#175e63",
    border="#ddd6c8",
)
DARK = Palette(
    background="#161513",
    surface="#201e1b",
    text="#ece6db",
    muted="#b6ad9f",
    accent="#86c9c6",
    border="#3d3933",
)


@dataclass(frozen=True, slots=True)
class Theme:
    """How the mail looks. Fonts are those a device already has: a web font would tell its host who reads.

    Ours need no quotation marks, which in a style attribute are one more thing for an inbox to get wrong.
    """

    light: Palette = field(default=LIGHT)
    dark: Palette = field(default=DARK)
    heading_font: str = "Georgia, Times New Roman, Times, serif"
    body_font: str = "-apple-system, BlinkMacSystemFont, Segoe UI, Roboto, Helvetica, Arial, sans-serif"
    logo: Picture | None = None

    def __post_init__(self) -> None:
        # These go into style sheets as they are; nothing that could end a declaration may pass.
        for name in ("heading_font", "body_font"):
            if not FONTS.fullmatch(getattr(self, name)):
                raise ValueError(f'{name} = "{getattr(self, name)}" is not a list of font names')

    def in_full_ink(self) -> Theme:
        """For large print."""
        return replace(self, light=self.light.in_full_ink(), dark=self.dark.in_full_ink())


LARGER = 3  # pixels
LARGE_PRINT = (
    20  # pixels: running text, and nothing has less, because small print is where poor eyesight gives up
)


def standard_print(size: int) -> str:
    """A size of type in pixels, as the standard edition has it."""
    return f"{size}px"


def large_print(size: int) -> str:
    """The same size in large print. Headings grow no more than text does: on a phone they would fill the screen."""
    return f"{max(size + LARGER, LARGE_PRINT)}px"

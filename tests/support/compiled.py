"""A small, sound issue and its email, written by hand, for tests that need no renderer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from newsletter.model import Email, Issue, Lead, Picture, Publication, Section, Source, Teaser
from tests.support.publication import MESSAGE, PUBLICATION

if TYPE_CHECKING:
    from newsletter.message import MessageSettings

# A transparent picture of one pixel.
GIF = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b")

HTML = """<!doctype html>
<html lang="en" dir="ltr"><head><title>Iron in the thalamus</title><style>a { color: #1f5f5b }</style></head>
<body style="background-color:#ffffff"><table role="presentation"><tr><td style="color:#222222;font-size:16px">
<h1>Less iron, however you look</h1>
<p>Hello @@name|reader@@.</p>
<img src="image:images/scan.gif" alt="A scan of a brain">
<h2>What was found</h2>
<p>The level was lower. <a href="https://example.org/paper">Read the paper</a></p>
<h2>Related reading</h2>
<h3><a href="https://example.org/gut">Gut bacteria</a></h3>
<p>1 Example Street, Example Town. <a href="@@unsubscribe_url@@">Unsubscribe</a></p>
</td></tr></table></body></html>
"""

TEXT = """Less iron, however you look

Hello @@name|reader@@.

1 Example Street,
Example Town
Unsubscribe: @@unsubscribe_url@@
"""


@dataclass(frozen=True)
class Compiled:
    """All that a check looks at."""

    issue: Issue
    email: Email
    publication: Publication
    settings: MessageSettings
    discreet_words: tuple[str, ...] = ("MS", "multiple sclerosis")


def compiled() -> Compiled:
    """An issue with which nothing is wrong."""
    scan = Picture("images/scan.gif", "image/gif", GIF, 1, 1, "A scan of a brain")
    logo = Picture("logo.gif", "image/gif", GIF, 1, 1, "")
    subject, preheader = "Iron in the thalamus", "A finding that held across many methods"
    sections = (
        Section("What was found", "The level was lower.", 1),
        Section("Why it matters", "It may help doctors.", 5),
        Section("What it does not show", "Single people may differ.", 9),
    )
    source = Source("A paper", url="https://example.org/paper", published=date(2025, 11, 14))
    return Compiled(
        issue=Issue(
            slug="2026-12",
            subject=subject,
            preheader=preheader,
            date=date(2026, 12, 1),
            period="2026-12",
            lead=Lead("Less iron, however you look", sections, source, scan),
            related=(
                Teaser("Gut bacteria", "What they may mean.", "https://example.org/gut", date(2026, 11, 30)),
            ),
        ),
        email=Email(
            title="Less iron, however you look",
            subject=subject,
            preheader=preheader,
            html=HTML,
            text=TEXT,
            language="en",
            view_path="/archive/2026-12",
            pictures=(scan, logo),
        ),
        publication=PUBLICATION,
        settings=MESSAGE,
    )

"""An issue to render, without any file: every part filled, and each can be replaced."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from datetime import date
from typing import Any

from newsletter.model import Issue, Lead, Picture, Publication, Section, Source, Teaser

FOUND = """Researchers looked at **iron in the thalamus**, a relay station deep in the brain. In people with the
condition its level was *consistently lower* than in healthy people:

- in every way of analysing the scans,
- and in both groups of [scanners](https://example.org/scanners).

Some methods changed the size of the difference. None changed its direction.
"""
MATTERS = """Iron in the deep grey matter may one day help doctors follow how a disease changes the brain. A measure
that holds whatever software a hospital uses is worth more than one that does not.

> A result that survives 154 ways of calculating it is unlikely to be an accident of one of them.
"""
LIMITS = "These are results of groups; any one person may differ. Not every possible method was tried."
CLOSING = """Not all research is equal: samples are small, and methods evolve. Read the original source, and talk to
your own team before you change anything.
"""
TITLES = (
    "Gut bacteria that can make symptoms worse",
    "A new tool reads chemical marks on DNA, cell by cell",
    "Early eye scans tell two kinds of optic neuritis apart",
    "Recognising a rare brain infection early",
    "TREM2 and the repair mode of the brain’s immune cells",
    "Helping the body make more IL-10",
)


def png(width: int, height: int, colour: tuple[int, int, int] = (96, 125, 120)) -> bytes:
    """A picture of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = (b"\0" + bytes(colour) * width) * height
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def picture(name: str = "images/scan.png", width: int = 1120, height: int = 560, alt: str = "") -> Picture:
    alt = alt or "A scan of a brain from above, with two small egg shapes marked in its middle"
    return Picture(name, "image/png", png(width, height), width, height, alt)


def teasers(count: int) -> tuple[Teaser, ...]:
    return tuple(
        Teaser(
            title=TITLES[index % len(TITLES)],
            text="What was found in the laboratory, and what it may mean for treatment and for daily life.",
            url=f"https://example.org/articles/{index + 1}",
            date=date(2026, 3 + index, 1),
        )
        for index in range(count)
    )


def publication(**changes: Any) -> Publication:
    plain = Publication(
        name="Research Digest",
        full_name="Neurology Research Digest",
        base_url="https://news.example.org",
        postal_address="1 Example Street, Example Town",
        reply_to="editor@example.org",
    )
    return replace(plain, **changes)


def lead(**changes: Any) -> Lead:
    plain = Lead(
        title="Iron in the thalamus: a difference that no method makes go away",
        sections=(
            Section("What they found", FOUND, 1),
            Section("Why it matters", MATTERS, 12),
            Section("What it does not show", LIMITS, 18),
        ),
        source=Source(
            title="Impact of processing and analysis methodology on thalamic susceptibility assessment",
            journal="PLOS ONE",
            doi="10.1371/journal.pone.0332478",
            published=date(2025, 11, 14),
        ),
        picture=picture(),
    )
    return replace(plain, **changes)


def issue(**changes: Any) -> Issue:
    plain = Issue(
        slug="2026-12",
        subject="Iron in the thalamus, and six things to read",
        preheader="A difference that held in 154 ways of looking at the same scans.",
        date=date(2026, 12, 1),
        period="2026-12",
        lead=lead(),
        number=12,
        related=teasers(6),
        closing=CLOSING,
    )
    return replace(plain, **changes)

"""How large the mail is where inboxes cut it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from newsletter.content.picture import ENCODED_PER_BYTE, LARGEST_EMBEDDED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from newsletter.checks.inspection import Inspection
    from newsletter.model import Finding

# Gmail cuts the html at about 102 kB (never published; 99 kB was seen cut after a provider had rewritten
# links), and what goes is the colophon with its unsubscribe link.
NEAR_CLIP = 90_000  # bytes
CLIP = 100_000  # bytes
LARGE_MESSAGE = 500_000  # bytes, as sent


def find(seen: Inspection) -> Iterator[Finding]:
    """All findings of this family. (Style blocks that Gmail would drop are refused when templates are compiled.)"""
    size, place = len(seen.html.encode()), seen.compiled("html")
    told = f"The html has {size:,} bytes; Gmail cuts it off at about 102,000."
    hint = "Shorten the lead, or show fewer related articles."
    if size >= CLIP:
        yield place.error("S102", told, hint)
    elif size >= NEAR_CLIP:
        yield place.warning("S101", told, hint)
    yield from _pictures(seen)
    if len(seen.message) >= LARGE_MESSAGE:
        yield seen.compiled("message").warning(
            "S103", f"The message has {len(seen.message):,} bytes.", "Use smaller pictures, or fewer words."
        )


def _pictures(seen: Inspection) -> Iterator[Finding]:
    """All of them together: content has judged the lead's alone, and the logo comes from elsewhere."""
    size = round(sum(len(picture.data) for picture in seen.email.pictures) * ENCODED_PER_BYTE)
    if size > LARGEST_EMBEDDED and not seen.settings.images_url:
        yield seen.compiled("message").error(
            "S104",
            f"The pictures take {size:,} bytes inside the mail; {LARGEST_EMBEDDED:,} is the most.",
            'Save the picture or the logo smaller, or set [images] mode = "hosted" in newsletter.toml.',
        )

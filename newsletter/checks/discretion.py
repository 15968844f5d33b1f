"""Words that would tell a bystander what the list is about: being on it is health data (GDPR Art. 9)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from newsletter.checks.inspection import Inspection
    from newsletter.model import Finding


def find(seen: Inspection) -> Iterator[Finding]:
    """All findings of this family."""
    for key, words in (("subject", seen.issue.subject), ("preheader", seen.issue.preheader)):
        for told in spoken(words, seen.discreet_words):
            yield seen.key(key).warning(
                "D101", f"The {key} says “{told}”.", "A lock screen shows it to anybody: use other words."
            )
    for told in spoken(seen.publication.name, seen.discreet_words):
        yield seen.config("newsletter.name").warning(
            "D102",
            f"The name says “{told}”.",
            "Inboxes show it beside every mail: keep the telling name for full_name.",
        )


def spoken(text: str, discreet: Sequence[str]) -> list[str]:
    """The discreet words that ``text`` holds, as whole words.

    Letter case is ignored, except in abbreviations: “MS” is not the “ms” of milliseconds.
    """
    return [word for word in discreet if word.strip() and _pattern(word).search(text)]


def _pattern(word: str) -> re.Pattern[str]:
    phrase = r"[\s-]+".join(re.escape(part) for part in word.split())
    return re.compile(rf"(?<!\w){phrase}(?!\w)", 0 if word.isupper() else re.IGNORECASE)

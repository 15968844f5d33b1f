"""What was left over in the text, and the address that the law asks for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from newsletter.checks.inspection import TEMPLATE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from newsletter.checks.inspection import Inspection
    from newsletter.model import Finding

PLACEHOLDER = re.compile(r"\b(?:TODO|TBD|FIXME)\b|(?i:lorem ipsum)")


def find(seen: Inspection) -> Iterator[Finding]:
    """All findings of this family."""
    yield from _placeholders(seen)
    yield from _postal_address(seen)


def _fields(seen: Inspection) -> Iterator[tuple[str, str]]:
    issue = seen.issue
    yield "subject", issue.subject
    yield "preheader", issue.preheader
    yield "lead.title", issue.lead.title
    yield "lead.source.title", issue.lead.source.title
    yield "lead.source.url", issue.lead.source.url
    if issue.lead.picture:
        yield "lead.image_alt", issue.lead.picture.alt
    for section in issue.lead.sections:
        yield section.heading, f"{section.heading}\n{section.body}"
    for number, teaser in enumerate(issue.related, 1):
        yield f"related.{number}.title", teaser.title
        yield f"related.{number}.text", teaser.text
        yield f"related.{number}.url", teaser.url
    yield "closing", issue.closing


def _placeholders(seen: Inspection) -> Iterator[Finding]:
    for where, words in _fields(seen):
        for line in words.splitlines():
            found = PLACEHOLDER.search(line)
            if found:
                yield seen.origin(line, where=where).error(
                    "W101", f"“{found[0]}” was left in the text.", "Write what belongs there, or take it out."
                )


def _postal_address(seen: Inspection) -> Iterator[Finding]:
    wanted = _plain(seen.publication.postal_address)
    for part, words in (("html", " ".join(seen.tree.itertext())), ("text", seen.text)):
        if wanted not in _plain(words):
            yield seen.compiled(part).error(
                "W103",
                f"The {part} part does not hold the postal address.",
                f"Put publication.postal_address into {TEMPLATE[part]}.",
            )


def _plain(words: str) -> str:
    return " ".join(re.findall(r"\w+", words.casefold()))

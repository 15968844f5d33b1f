"""Whether the articles an issue points to fit it: their dates, and the paper of the lead."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

    from newsletter.checks.inspection import Inspection
    from newsletter.model import Finding


def find(seen: Inspection) -> Iterator[Finding]:
    """All findings of this family."""
    issued, source = seen.issue.date, seen.issue.lead.source
    for number, teaser in enumerate(seen.issue.related, 1):
        if teaser.date > issued:
            yield seen.key(f"related.{number}").warning(
                "R101",
                f"“{teaser.title}” is dated {_long(teaser.date)}, after the issue itself ({_long(issued)}).",
                "Check the date; if a journal dates ahead, waive this with that reason.",
            )
        if teaser.url in {source.url, source.link}:
            yield seen.key(f"related.{number}.url").warning(
                "R102", f"“{teaser.title}” is the paper that the lead is about.", "Point to another article."
            )
    if source.published and source.published > issued:
        yield seen.key("lead.source.published").warning(
            "R103",
            f"The source is dated {_long(source.published)}, after the issue itself ({_long(issued)}).",
            "Check both dates.",
        )


def _long(day: date) -> str:
    return f"{day.day} {day:%B %Y}"

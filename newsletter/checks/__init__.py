"""Judge a compiled issue: ``run`` gives every finding, waivers applied.

An error stops a send, a warning informs. Each family is one small module with ``find(seen)``. A new
check is a line in ``codes.CODES``, a function in its family, and two tests: it fires, and it is silent.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from newsletter.checks import accessibility, discretion, headers, legibility, links, related, size, words
from newsletter.checks.codes import CODES
from newsletter.checks.inspection import Inspection
from newsletter.model import Edition, Level

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from newsletter.message import MessageSettings
    from newsletter.model import Email, Finding, Issue, Publication, Waiver

__all__ = ["CODES", "errors", "run"]

IN: dict[str, str] = {Edition.LARGE: "In large print", Edition.TEXT: "Text only"}
FAMILIES = (words, accessibility, legibility, links, size, headers, discretion, related)


def run(
    issue: Issue,
    email: Email,
    publication: Publication,
    settings: MessageSettings,
    *,
    others: Sequence[Email] = (),
    discreet_words: Iterable[str] = (),
    project: Path,
) -> list[Finding]:
    """Every finding about an issue, in the order of file and line; waived ones hold the reason.

    Of the ``others``, further editions of it, only what the first does not have.
    """
    seen = Inspection(issue, email, publication, settings, tuple(discreet_words), project)
    found = _found(seen)
    for other in others:
        found += _new(_found(replace(seen, email=_whole(other, email))), found, other.edition)
    waived = [_waive(finding, issue.waivers) for finding in found]
    return sorted([*waived, *_idle(seen, found)], key=lambda f: (f.file, f.line or 0, f.code, f.where))


def _found(seen: Inspection) -> list[Finding]:
    return [finding for family in FAMILIES for finding in family.find(seen)]


def _whole(edition: Email, standard: Email) -> Email:
    """With something to look at in the place of an html part that it does not have."""
    return edition if edition.html else replace(edition, html=standard.html, pictures=standard.pictures)


def _new(found: Iterable[Finding], known: Iterable[Finding], edition: str) -> list[Finding]:
    """What nothing known says of the same place, with the edition that it is about."""
    told = {(one.code, one.file, one.line, one.where) for one in known}
    new = [one for one in found if (one.code, one.file, one.line, one.where) not in told]
    return [replace(one, message=f"{IN[edition]}: {one.message}") for one in new]


def errors(findings: Sequence[Finding]) -> list[Finding]:
    """The findings that stop a send: errors nobody waived."""
    return [finding for finding in findings if finding.level is Level.ERROR and not finding.waived]


def _matches(waiver: Waiver, finding: Finding) -> bool:
    return (waiver.code, waiver.where) == (finding.code, finding.where)


def _waive(finding: Finding, waivers: Sequence[Waiver]) -> Finding:
    reason = next((waiver.because for waiver in waivers if _matches(waiver, finding)), "")
    return replace(finding, waived=reason)


def _idle(seen: Inspection, found: Sequence[Finding]) -> Iterator[Finding]:
    for number, waiver in enumerate(seen.issue.waivers, 1):
        if not any(_matches(waiver, finding) for finding in found):
            yield seen.key(f"waive.{number}").warning(
                "W102",
                f"The waiver of {waiver.code} at “{waiver.where}” matches nothing.",
                _advice(waiver, found),
            )


def _advice(waiver: Waiver, found: Sequence[Finding]) -> str:
    if waiver.code not in CODES:
        return "There is no such code; `newsletter check` prints it before the place of each finding."
    places = [f'"{finding.where}"' for finding in found if finding.code == waiver.code]
    if places:
        return f"{waiver.code} was found where = {' and '.join(places)}."
    return "Take it out: it would hide a later finding at the same place."

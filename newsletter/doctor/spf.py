"""Whether the domain of the envelope lets servers send for it (SPF, RFC 7208)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from newsletter.doctor.names import Unanswered
from newsletter.doctor.report import error, ok, warning

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from newsletter.doctor.names import Names
    from newsletter.doctor.report import Result

NAME = "SPF"
MOST_LOOKUPS = 10  # section 4.6.4
ASKS = re.compile(r"[+?~-]?(include|a|mx|ptr|exists)(?:[:/].*)?|redirect=.*", re.IGNORECASE)
FOLLOWED = re.compile(r"(?:[+?~-]?include:|(redirect)=)(.+)", re.IGNORECASE)
ALL = re.compile(r"([+?~-]?)all", re.IGNORECASE)
EXAMPLE = '"v=spf1 include:… -all", with what your provider tells you to include'


class _Broken(Exception):
    """Receivers would call it a permanent error. The text says why."""


@dataclass
class _Walk:
    """What is known on the way through a record and all that it includes."""

    names: Names
    lookups: list[str] = field(default_factory=list)

    def record(self, domain: str) -> str:
        """The one record of a domain. Raises ``_Broken``."""
        found = records(self.names, domain)
        if len(found) != 1:
            raise _Broken(f"{domain} has {len(found) or 'no'} SPF records instead of one (section 4.5)")
        return found[0]

    def follow(self, text: str) -> str:
        """Counts what a record makes a receiver ask; returns how it ends: ``-``, ``~``, ``?``, ``+`` or empty."""
        terms = text.split()[1:]
        ends = [match[1] or "+" for term in terms if (match := ALL.fullmatch(term))]
        for term in terms:
            if ASKS.fullmatch(term) and not (ends and term.lower().startswith("redirect=")):
                ends += self._ask(term)
        return ends[0] if ends else ""

    def _ask(self, term: str) -> Sequence[str]:
        self.lookups.append(term)
        if len(self.lookups) > MOST_LOOKUPS:
            raise _Broken(f"it makes receivers ask more than {MOST_LOOKUPS} times (section 4.6.4)")
        followed = FOLLOWED.fullmatch(term)
        if not followed or "%{" in followed[2]:  # a macro is another name for each mail
            return []
        end = self.follow(self.record(followed[2].rstrip(".")))
        return [end] if followed[1] else []  # how an included record ends says nothing (section 5.2)


def records(names: Names, domain: str) -> list[str]:
    """Every TXT record of the domain that is one of SPF (section 4.5)."""
    return [text for text in names.txt(domain) if re.match(r"v=spf1( |\Z)", text, re.IGNORECASE)]


def look(names: Names, domain: str) -> Iterator[Result]:
    """``domain`` is that of the envelope, where mail that can't be delivered comes back to."""
    walk = _Walk(names)
    try:
        if not records(names, domain):
            yield error(
                NAME,
                f"{domain} has no SPF record, so receivers distrust it.",
                f"Publish a TXT record: {EXAMPLE}.",
            )
            return
        end = walk.follow(walk.record(domain))
    except _Broken as why:
        yield error(
            NAME, f"the record of {domain} is broken: {why}.", "Mend it: a broken one counts as a failure."
        )
    except Unanswered as why:
        yield error(NAME, f"nobody can say whether {domain} has a record: {why}.", "Ask your DNS provider.")
    else:
        yield _judged(domain, end, len(walk.lookups))


def _judged(domain: str, end: str, lookups: int) -> Result:
    asked = f"{lookups} of {MOST_LOOKUPS} lookups"
    if end in {"-", "~"}:
        return ok(NAME, f"{domain} has one record, it ends in {end}all and takes {asked}.")
    if end == "+":
        return error(NAME, f"the record of {domain} lets everybody send (+all).", "End it in -all or ~all.")
    said = "?all" if end else "neither -all nor ~all"
    return warning(
        NAME, f"the record of {domain} ends in {said}, so it forbids nobody.", "End it in -all or ~all."
    )

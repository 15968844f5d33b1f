"""Whether receivers find the public halves of the keys that sign (DKIM, RFC 6376, section 3.6)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from newsletter.doctor.names import Unanswered
from newsletter.doctor.report import error, ok, unseen, warning

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from newsletter.doctor.names import Names
    from newsletter.doctor.report import Result

NAME = "DKIM"
PRINT = "Publish what `newsletter dkim records` prints."
SENDGRIDS = ("s1", "s2")  # what SendGrid calls its keys, unless one has chosen another selector


def look(names: Names, expected: Mapping[str, str]) -> Iterator[Result]:
    """``expected``: where a record has to stand → what it has to say."""
    for place, record in expected.items():
        try:
            yield _compared(place, names.txt(place), record)
        except Unanswered as why:
            yield error(NAME, f"nobody can say whether {place} is there: {why}.", "Ask your DNS provider.")


def _compared(place: str, found: Sequence[str], record: str) -> Result:
    if not found:
        return error(NAME, f"there is no {place}, so no signature can be checked.", PRINT)
    if len(found) > 1:
        return error(
            NAME, f"{place} has {len(found)} records instead of one.", "Take out those that are old."
        )
    theirs, ours = tags(found[0]), tags(record)
    if not theirs.get("p"):
        return error(NAME, f"{place} says that the key was revoked.", PRINT)
    if theirs["p"] != ours["p"] or theirs.get("k", "rsa") != ours["k"]:
        return error(NAME, f"{place} holds another key than the file that signs.", PRINT)
    if "y" in theirs.get("t", "").split(":"):
        return warning(NAME, f"{place} says that you are only testing (t=y).", "Take t=y out of the record.")
    return ok(NAME, f"{place} holds the key that signs.")


def look_for_sendgrid(names: Names, domain: str) -> Iterator[Result]:
    """SendGrid signs with keys of its own; only their usual names can be tried."""
    places = [f"{selector}._domainkey.{domain}" for selector in SENDGRIDS]
    try:
        there = [place for place in places if any(tags(text).get("p") for text in names.txt(place))]
    except Unanswered as why:
        yield error(NAME, f"nobody can say whether {places[0]} is there: {why}.", "Ask your DNS provider.")
        return
    if there:
        yield ok(NAME, f"SendGrid's keys are published: {', '.join(there)}.")
    else:
        yield warning(
            NAME,
            f"neither {places[0]} nor {places[1]} is there. You may have chosen another selector.",
            "Authenticate the domain in SendGrid, then look at a received mail: newsletter doctor --seed FILE",
        )


def look_nowhere() -> Iterator[Result]:
    """Copies leave unsigned, and the relay may sign them."""
    yield unseen(
        NAME,
        "[dkim.keys] is empty: your provider has to sign, and only a received mail shows whether it does.",
        "Look at one: newsletter doctor --seed FILE. If it has no signature: newsletter dkim new SELECTOR",
    )


def tags(text: str) -> dict[str, str]:
    """A list of tags (section 3.2), blanks taken out: they mean nothing in what is looked at here."""
    pairs = (part.partition("=") for part in text.split(";"))
    return {name.strip(): re.sub(r"\s+", "", value) for name, equals, value in pairs if equals}

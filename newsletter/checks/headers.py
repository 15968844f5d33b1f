"""The headers of the message as built: one-click unsubscribing (RFC 8058), people, and what inboxes show."""

from __future__ import annotations

import re
from email.utils import getaddresses
from typing import TYPE_CHECKING

from newsletter.checks import sample

if TYPE_CHECKING:
    from collections.abc import Iterator

    from newsletter.checks.inspection import Inspection
    from newsletter.model import Finding

HTTPS_URI = re.compile(r"<(https://[^<>\s]+)>")
LONGEST_URI = 76  # beyond it Python's folding would encode the header, and Gmail ignores an encoded one
LONGEST_SUBJECT = 90  # characters
LONGEST_PREHEADER = 140  # characters
NOBODY = re.compile(r"(no|do[-_.]?not)[-_.]?reply", re.IGNORECASE)


def find(seen: Inspection) -> Iterator[Finding]:
    """All findings of this family."""
    yield from _unsubscribe(seen)
    yield from _one_click(seen)
    yield from _people(seen)
    yield from _lengths(seen)


def _unsubscribe(seen: Inspection) -> Iterator[Finding]:
    values = seen.headers.get_all("List-Unsubscribe", [])
    links = HTTPS_URI.findall(str(values[0])) if len(values) == 1 else []
    place = seen.config("newsletter.base_url")
    if len(links) != 1:
        yield place.error(
            "H101",
            "The message has not exactly one List-Unsubscribe header with one https link.",
            "Let base_url begin with https://.",
        )
    elif len(links[0]) >= LONGEST_URI:
        yield place.error(
            "H103",
            f"The unsubscribe link has {len(links[0])} characters; it must stay under {LONGEST_URI}.",
            "Choose a shorter base_url.",
        )


def _one_click(seen: Inspection) -> Iterator[Finding]:
    if seen.headers.get_all("List-Unsubscribe-Post", []) != ["List-Unsubscribe=One-Click"]:
        yield seen.compiled("List-Unsubscribe-Post").error(
            "H102",
            "The message does not offer one-click unsubscribing (RFC 8058).",
            "Please report this as a bug.",
        )


def _people(seen: Inspection) -> Iterator[Finding]:
    senders = _addresses(seen, "From")
    if len(senders) != 1:
        yield seen.config("newsletter.from").error(
            "H104", f"The message has {len(senders)} senders.", "Give one address in `from`."
        )
    replies = _addresses(seen, "Reply-To") or senders
    if all(NOBODY.search(address) for address in replies):
        yield seen.config("newsletter.reply_to").warning(
            "H105",
            f"Replies go to {', '.join(replies) or 'nobody'}.",
            "Let reply_to be a mailbox that a person reads.",
        )


def _addresses(seen: Inspection, header: str) -> list[str]:
    values = [str(value) for value in seen.headers.get_all(header, [])]
    return [address for _, address in getaddresses(values) if "@" in address]


def _lengths(seen: Inspection) -> Iterator[Finding]:
    base_url = seen.publication.base_url
    for code, key, words, most in (
        ("H106", "subject", sample.subject(seen.email, base_url), LONGEST_SUBJECT),
        ("H107", "preheader", sample.preheader(seen.email, base_url), LONGEST_PREHEADER),
    ):
        if len(words) > most:
            yield seen.key(key).warning(
                code,
                f"The {key} has {len(words)} characters; inboxes show {most} at most.",
                "Say the important part first, and shorten it.",
            )

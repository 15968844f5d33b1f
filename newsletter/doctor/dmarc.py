"""Whether the sender's domain has a policy, and what the mails come with passes under it (DMARC, RFC 7489)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from newsletter.doctor import dkim
from newsletter.doctor.names import Unanswered
from newsletter.doctor.report import error, ok, warning

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from newsletter.doctor.names import Names
    from newsletter.doctor.report import Result

NAME, REPLIES = "DMARC", "MX"
RECORD = re.compile(r"v=DMARC1\s*(;|\Z)")
POLICIES = {"none", "quarantine", "reject"}


@dataclass(frozen=True, slots=True)
class Sender:
    """The domains that a mail names. Empty: it is the provider's, and nobody can say from here."""

    shown: str  # in From, which readers see
    envelope: str
    signing: str


def look(names: Names, sender: Sender) -> Iterator[Result]:
    """The policy, and whether SPF or DKIM counts for the domain that readers see."""
    try:
        found = _policies(names, sender.shown)
    except Unanswered as why:
        yield error(
            NAME, f"nobody can say whether {sender.shown} has a policy: {why}.", "Ask your DNS provider."
        )
        return
    if not found:
        hint = f'Publish a TXT record at _dmarc.{sender.shown}: "v=DMARC1; p=none", and something stricter later.'
        yield error(
            NAME, f"{sender.shown} has no policy. Large receivers refuse newsletters without one.", hint
        )
        return
    place, records = f"_dmarc.{found[0][0]}", found[0][1]
    if len(records) > 1:
        yield error(NAME, f"{place} has {len(records)} records, which counts as none.", "Keep one of them.")
        return
    policy = dkim.tags(records[0])
    yield _judged(place, policy)
    yield _aligned(_organisation(found), policy, sender)


def _policies(names: Names, domain: str) -> list[tuple[str, list[str]]]:
    """The records of the domain and of each one above it that has some, the nearest first: that one counts.

    RFC 7489, section 6.6.3, asks the domain and then its organizational domain, which only a list of all public
    suffixes knows. Going up one by one finds the same record for everybody but who owns such a suffix.
    """
    labels = domain.split(".")
    above = [".".join(labels[start:]) for start in range(len(labels) - 1)]
    found = [(each, [text for text in names.txt(f"_dmarc.{each}") if RECORD.match(text)]) for each in above]
    return [(each, records) for each, records in found if records]


def _organisation(found: Sequence[tuple[str, list[str]]]) -> str:
    """The highest domain with a policy that is not one of a public suffix (psd=y, in DMARC's next version)."""
    own = [domain for domain, records in found if dkim.tags(records[0]).get("psd") != "y"]
    return own[-1] if own else found[0][0]


def _judged(place: str, policy: Mapping[str, str]) -> Result:
    wanted = policy.get("p", "").lower()
    if wanted not in POLICIES:
        return error(NAME, f"{place} names no policy (p=).", 'Make it "v=DMARC1; p=none" at least.')
    if wanted == "none":
        return ok(NAME, f"{place} says p=none: enough to be let in, and forgeries are let in too.")
    return ok(NAME, f"{place} says p={wanted}.")


def _aligned(organisation: str, policy: Mapping[str, str], sender: Sender) -> Result:
    """Section 3.1: one of the two has to count."""
    ways = {
        f"DKIM ({sender.signing})": _counts(sender.signing, sender.shown, policy.get("adkim"), organisation),
        f"SPF ({sender.envelope})": _counts(sender.envelope, sender.shown, policy.get("aspf"), organisation),
    }
    passing = [way for way, counts in ways.items() if counts]
    if passing:
        return ok(NAME, f"for {sender.shown} counts {' and '.join(passing)}.")
    if not (sender.signing and sender.envelope):
        return warning(
            NAME,
            f"what would count for {sender.shown} is up to your provider.",
            "Look at a received mail: newsletter doctor --seed FILE",
        )
    return error(
        NAME,
        f"neither the signature of {sender.signing} nor the envelope of {sender.envelope} counts for {sender.shown}.",
        "Sign with the domain of newsletter.from: leave out dkim.domain.",
    )


def _counts(domain: str, shown: str, mode: str | None, organisation: str) -> bool:
    """Strict: the same domain. Relaxed: one below the other, or both in one organisation."""
    if not domain or (mode or "").lower() == "s":
        return domain == shown
    both = _within(domain, organisation) and _within(shown, organisation)
    return both or _within(domain, shown) or _within(shown, domain)


def _within(domain: str, other: str) -> bool:
    return domain == other or domain.endswith(f".{other}")


def look_for_mailboxes(names: Names, domains: Mapping[str, str]) -> Iterator[Result]:
    """``domains``: domain of an address → its setting. Somebody has to get what is written there."""
    for domain, setting in domains.items():
        try:
            yield _mailbox(names, setting, domain)
        except Unanswered as why:
            yield error(
                REPLIES, f"nobody can say where mail to {domain} goes: {why}.", "Ask your DNS provider."
            )


def _mailbox(names: Names, setting: str, domain: str) -> Result:
    servers = names.mx(domain)
    if servers == ["."]:  # RFC 7505
        return error(
            REPLIES, f"{domain} takes no mail at all ({setting}).", f"Use another address as {setting}."
        )
    if servers:
        return ok(
            REPLIES, f"mail to {domain} ({setting}) goes to {', '.join(s.rstrip('.') for s in servers)}."
        )
    if names.addresses(domain):  # RFC 5321, section 5.1
        return warning(
            REPLIES, f"{domain} has no MX record ({setting}), only an address.", "Publish an MX record."
        )
    return error(
        REPLIES,
        f"mail to {domain} ({setting}) goes nowhere: no MX record and no address.",
        "Publish an MX record.",
    )

"""What an answer of ``mail/send`` means for the copies of its request (the table in ``sendgrid``). Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from newsletter.errors import TransportRejected, TransportUnavailable
from newsletter.model import Accepted, Refused
from newsletter.transports.answers import words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from newsletter.errors import TransportError
    from newsletter.model import Outcome
    from newsletter.transports.sendgrid_http import Reply
    from newsletter.transports.sendgrid_payload import Copy

LONGEST_WAIT = timedelta(days=1)  # quotas are at most daily; what asks for more is nonsense or a wrong clock
# The forms that SendGrid documents and uses: personalizations.3, personalizations.3.to, personalizations.3.to.0.email.
MEMBER = re.compile(r"personalizations\.([0-9]{1,4})(?:\.(\w+))?(?:\..*)?", re.DOTALL)

HINTS = {
    200: "Sandbox mode, or something between us and SendGrid answered; nothing was sent.",
    401: "SENDGRID_API_KEY is wrong or was revoked, or the account's credits are used up.",
    403: "The key needs the Mail Send permission, the sender must be verified, and the account must be active.",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an answer means: what is settled, what to ask again, and whether to stop here.

    ``suspects`` got a 400 although alone, and no word that it is about their address. It may be about the email,
    hence about everybody: whoever knows what became of the others decides.
    """

    outcomes: Sequence[Outcome] = ()
    again: Sequence[Sequence[Copy]] = ()
    suspects: Sequence[Refused] = ()
    stop: TransportError | None = None


def judge(reply: Reply, group: Sequence[Copy], until: datetime | None) -> Verdict:
    """The meaning of a definite answer (200 to 499); ``until`` is what ``come_back`` made of it."""
    match reply.status:
        case 202:
            provider_id = words(reply.headers.get("X-Message-Id", ""))
            return Verdict([Accepted(copy.delivery, provider_id) for copy in group])
        case 400:
            return _bad_request(complaints(reply.body), group)
        case 408:
            # It heard no whole request in time (RFC 9110 §15.5.9): some servers say so to a connection that was
            # silent, in the very moment in which ours is on its way.
            return Verdict(
                again=[group], stop=TransportUnavailable("SendGrid waited too long for our request.")
            )
        case 413 if len(group) > 1:
            return Verdict(again=halves(group))
        case 429:
            return Verdict(again=[group], stop=slow_down(until))
        case status:
            said = "; ".join(message for _, message in complaints(reply.body))
            message = f"SendGrid answered {status}: {words(said) or 'no reason given'}"
            return _rejected(group, message, HINTS.get(status, ""))


def _rejected(group: Sequence[Copy], message: str, hint: str = "") -> Verdict:
    return Verdict(again=[group], stop=TransportRejected(message, hint=hint))


def _bad_request(found: Sequence[tuple[str, str]], group: Sequence[Copy]) -> Verdict:
    """Nothing was taken. Whose address is named is refused, so that one bad address does not stop 49 others."""
    if named := members(found, len(group), to=True):
        refused = [Refused(group[at].delivery, f"400 {words(why)}") for at, why in named.items()]
        return Verdict(refused, again=_without(group, named))
    for place, message in found:
        if place and not place.startswith("personalizations"):
            # Of the sender or the content, the same for everyone: halving would refuse person after person for it.
            return _rejected(group, f"SendGrid takes no such request: {place}: {words(message)}")
    if len(group) == 1:
        reason = words("; ".join(message for _, message in found))
        return Verdict(suspects=[Refused(group[0].delivery, f"400 {reason}".strip())])
    if named := members(found, len(group), to=False):
        # About their headers or values, or their place among the others: the rest first, then each of them alone.
        return Verdict(again=[*_without(group, named), *([group[at]] for at in named)])
    return Verdict(again=halves(group))


def members(found: Sequence[tuple[str, str]], count: int, *, to: bool) -> dict[int, str]:
    """Index → complaint of the members whose ``to`` (or anything else) is named; no index beyond the request."""
    matches = [(match, why) for place, why in found if (match := MEMBER.fullmatch(place))]
    return {
        int(match[1]): why for match, why in matches if (match[2] == "to") is to and int(match[1]) < count
    }


def _without(group: Sequence[Copy], named: dict[int, str]) -> list[Sequence[Copy]]:
    rest = [copy for index, copy in enumerate(group) if index not in named]
    return [rest] if rest else []


def halves(group: Sequence[Copy]) -> list[Sequence[Copy]]:
    """A group of at least two, cut in the middle."""
    middle = len(group) // 2
    return [group[:middle], group[middle:]]


def complaints(body: bytes) -> list[tuple[str, str]]:
    """(field, message) of each error in SendGrid's form; nothing if the body is anything else, e.g. a proxy's page."""
    try:
        found = json.loads(body)["errors"]
        return [(_text(one.get("field")), _text(one.get("message"))) for one in found]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


# --- when to come back -------------------------------------------------------------------------------------------


def slow_down(until: datetime | None) -> TransportUnavailable:
    """What a lane raises that may not send before ``until`` (None: SendGrid did not say when)."""
    if until is None:
        message = "SendGrid asks us to slow down, and does not say until when."
    else:
        message = f"SendGrid takes no more requests until {until:%Y-%m-%d %H:%M:%S} UTC."
    return TransportUnavailable(message, until=until, crowded=True)


def come_back(reply: Reply, now: datetime) -> datetime | None:
    """When the next request may leave, if this answer asks for a pause and says a time that makes sense.

    SendGrid documents ``X-RateLimit-Remaining`` and ``-Reset``, and says 429 when nothing remained. ``Retry-After``
    (RFC 9110 §10.2.3) is what proxies and load balancers in front of it use, with a 429 or a 503.
    """
    refused = reply.status in {429, 503}
    if not refused and reply.headers.get("X-RateLimit-Remaining", "").strip() != "0":
        return None
    moments = [_epoch(reply.headers.get("X-RateLimit-Reset", ""))]
    if refused:
        moments.append(_retry_after(reply.headers.get("Retry-After", ""), now))
    return max((one for one in moments if one and now < one <= now + LONGEST_WAIT), default=None)


def _epoch(text: str) -> datetime | None:
    found = re.fullmatch(r"\s*([0-9]{1,11})\s*", text)
    return datetime.fromtimestamp(int(found[1]), UTC) if found else None


def _retry_after(text: str, now: datetime) -> datetime | None:
    if found := re.fullmatch(r"\s*([0-9]{1,6})\s*", text):
        return now + timedelta(seconds=int(found[1]))
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)

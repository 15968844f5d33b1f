"""Hands copies to SendGrid's ``mail/send``, one request per window: a doubt is about all members of a request.

=====================================  ==================================================================
answer                                 means
=====================================  ==================================================================
202                                    accepted
400 naming members                     those are refused, the others go again at once
400 naming another field               our fault: not taken, the campaign pauses
400 naming nothing, 413                not taken: halved until one is alone
429                                    not taken until ``X-RateLimit-Reset``
200, 3xx, 401, 403, other 4xx          not taken, the campaign pauses
no connection                          not taken, try later
5xx, or no whole answer                unknown, for every member
=====================================  ==================================================================
"""

from __future__ import annotations

import json
import re
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from newsletter.errors import TransportRejected, TransportUnavailable
from newsletter.model import Accepted, Refused, Unknown
from newsletter.transports.answers import not_taken, unsendable, words
from newsletter.transports.sendgrid_http import NoAnswer, NotSent, Reply, client
from newsletter.transports.sendgrid_payload import Payload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from newsletter.errors import TransportError
    from newsletter.message import Wire
    from newsletter.model import Outcome, Recipient
    from newsletter.transports.sendgrid_payload import Copy

MOST_COPIES = 1000  # personalizations in a request, as SendGrid documents
MOST_DOUBTS = 2  # requests without an answer in a row: one is a glitch, two are an outage
LONGEST_RESET = timedelta(hours=1)  # what X-RateLimit-Reset may ask for before we take it for nonsense
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
MEMBER = re.compile(r"personalizations\.(\d{1,4})\b")

HINTS = {
    200: "Sandbox mode, or something between us and SendGrid answered; nothing was sent.",
    401: "SENDGRID_API_KEY is wrong or was revoked.",
    403: "The key needs the Mail Send permission, the sender must be verified, and the account must be active.",
}


@dataclass(frozen=True, slots=True)
class SendGridSettings:
    """``batch`` copies travel in one request; ``timeout`` is seconds for a request in all."""

    api_key: str = field(repr=False)
    url: str = "https://api.sendgrid.com"
    batch: int = 50
    lanes: int = 10
    timeout: float = 30.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an answer means: what is settled, what to ask again, and whether to stop here."""

    outcomes: Sequence[Outcome] = ()
    again: Sequence[Sequence[Copy]] = ()
    stop: TransportError | None = None
    not_before: datetime | None = None


class SendGridTransport:
    """One request at a time per lane."""

    name = "sendgrid"

    def __init__(
        self, settings: SendGridSettings, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.lanes = settings.lanes
        self.window = min(settings.batch, MOST_COPIES)
        self._settings = settings
        self._clock = clock

    def run(
        self,
        wire: Wire,
        copies: Iterator[Sequence[Recipient]],
        settle: Callable[[Sequence[Outcome]], None],
    ) -> None:
        """See ``base.Transport``."""
        _check(self._settings)
        lane = _Lane(self._settings, Payload(wire), self._clock)
        for window in copies:
            ready, refused = lane.compose(window)
            settle(refused)
            lane.send(ready, settle)


def _check(settings: SendGridSettings) -> None:
    """Raises ``TransportRejected`` before anything is pulled, in words that do not hold the key."""
    key, url = settings.api_key, urlsplit(settings.url)
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise TransportRejected("there is no usable SendGrid API key.", hint="Set SENDGRID_API_KEY.")
    if not url.hostname or (url.scheme != "https" and (url.scheme != "http" or url.hostname not in LOOPBACK)):
        raise TransportRejected(
            f"[sendgrid] url {settings.url} is not https: the API key would travel in the clear."
        )


class _Lane:
    """Composes, posts and acts on what comes back."""

    def __init__(self, settings: SendGridSettings, payload: Payload, clock: Callable[[], datetime]) -> None:
        self._api = client(settings.api_key, settings.url.rstrip("/"), settings.timeout)
        self._payload = payload
        self._clock = clock
        self._doubts = 0

    def compose(self, window: Sequence[Recipient]) -> tuple[list[Copy], list[Outcome]]:
        """What can be posted, and the outcome of what can't."""
        ready: list[Copy] = []
        refused: list[Outcome] = []
        for recipient in window:
            try:
                ready.append(self._payload.copy(recipient))
            except ValueError as error:
                refused.append(Refused(recipient.delivery, unsendable(error)))
        return ready, refused

    def send(self, copies: Sequence[Copy], settle: Callable[[Sequence[Outcome]], None]) -> None:
        """Settles all of them. Raises a ``TransportError`` after that if a request could not be made."""
        waiting: deque[Sequence[Copy]] = deque(requests(copies))
        while waiting:
            verdict = self._post(waiting.popleft())
            settle(verdict.outcomes)
            waiting.extendleft(verdict.again[::-1])
            if verdict.stop is not None:
                rest = [copy.delivery for group in waiting for copy in group]
                settle(not_taken(rest, verdict.stop, not_before=verdict.not_before))
                raise verdict.stop

    def _post(self, group: Sequence[Copy]) -> Verdict:
        try:
            answer = self._api.send(self._payload.request(group))
        except NotSent as error:
            return Verdict(again=[group], stop=TransportUnavailable(f"SendGrid can't be reached: {error}"))
        except NoAnswer as error:
            return self._doubt(group, f"no whole answer ({error})")
        if not 200 <= answer.status_code < 500:
            return self._doubt(group, f"SendGrid answered {answer.status_code}")
        self._doubts = 0
        return judge(Reply(answer.status_code, answer.body, answer.headers), group, self._clock())

    def _doubt(self, group: Sequence[Copy], reason: str) -> Verdict:
        self._doubts += 1
        outcomes = [Unknown(copy.delivery, reason) for copy in group]
        if self._doubts < MOST_DOUBTS:
            return Verdict(outcomes)
        stop = TransportUnavailable(
            f"SendGrid gave no usable answer {self._doubts} times in a row: {reason}."
        )
        return Verdict(outcomes, stop=stop)


def requests(copies: Sequence[Copy]) -> list[list[Copy]]:
    """Groups that may travel together: SendGrid takes an address once, else it refuses the whole request."""
    groups: list[dict[str, Copy]] = []
    for copy in copies:
        address = copy.address.casefold()
        group = next((group for group in groups if address not in group and len(group) < MOST_COPIES), None)
        if group is None:
            groups.append(group := {})
        group[address] = copy
    return [list(group.values()) for group in groups]


def judge(reply: Reply, group: Sequence[Copy], now: datetime) -> Verdict:
    """What a definite answer (below 500) means; see the table above."""
    match reply.status:
        case 202:
            provider_id = words(reply.headers.get("X-Message-Id", ""))
            return Verdict([Accepted(copy.delivery, provider_id) for copy in group])
        case 400:
            return _bad_request(complaints(reply.body), group)
        case 413 if len(group) > 1:
            return Verdict(again=halves(group))
        case 429:
            stop = TransportUnavailable("SendGrid asks us to slow down (429).")
            return Verdict(again=[group], stop=stop, not_before=reset(reply, now))
        case status:
            said = "; ".join(message for _, message in complaints(reply.body))
            message = f"SendGrid answered {status}: {words(said) or 'no reason given'}"
            return _rejected(group, message, HINTS.get(status, ""))


def _rejected(group: Sequence[Copy], message: str, hint: str = "") -> Verdict:
    return Verdict(again=[group], stop=TransportRejected(message, hint=hint))


def _bad_request(found: Sequence[tuple[str, str]], group: Sequence[Copy]) -> Verdict:
    """Nothing was taken. Whoever is named is refused, so that one bad address does not stop 49 others."""
    named = {
        int(member[1]): message
        for place, message in found
        if (member := MEMBER.match(place)) and int(member[1]) < len(group)
    }
    if named:
        refused = [Refused(group[at].delivery, f"400 {words(why)}") for at, why in named.items()]
        rest = [copy for index, copy in enumerate(group) if index not in named]
        return Verdict(refused, again=[rest] if rest else [])
    for place, message in found:
        if place and not place.startswith("personalizations"):
            # Of the sender or the content, the same for everyone: halving would refuse person after person for it.
            return _rejected(group, f"SendGrid takes no such request: {place}: {words(message)}")
    if len(group) > 1:
        return Verdict(again=halves(group))
    reason = words("; ".join(message for _, message in found))
    return Verdict([Refused(group[0].delivery, f"400 {reason}".strip())])


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


def reset(reply: Reply, now: datetime) -> datetime | None:
    """When SendGrid will take requests again (``X-RateLimit-Reset``, seconds since 1970), if that makes sense."""
    text = reply.headers.get("X-RateLimit-Reset", "")
    if not re.fullmatch(r"\d{1,11}", text):
        return None
    moment = datetime.fromtimestamp(int(text), UTC)
    return moment if now < moment <= now + LONGEST_RESET else None

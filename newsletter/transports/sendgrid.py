"""Hands copies to SendGrid's ``mail/send``, one request per window: a doubt is about all members of a request.

=====================================  ==================================================================
answer                                 means
=====================================  ==================================================================
202                                    accepted
400 naming the ``to`` of members       those are refused, the others go again at once
400 naming members otherwise           the others go again at once, then each of those alone
400 naming nothing, 413                not taken: halved until one is alone
400 for one alone                      refused, if SendGrid takes this email for others; else the campaign pauses
400 naming another field               our fault: not taken, the campaign pauses
408                                    not taken, try later
429                                    not taken until ``X-RateLimit-Reset`` or ``Retry-After``, and slower then
200, 3xx, 401, 403, other 4xx          not taken, the campaign pauses
no connection                          not taken, try later
5xx, or no whole answer                unknown, for every member
=====================================  ==================================================================

Any answer with ``X-RateLimit-Remaining: 0`` also ends the lanes until the reset it names.

Each lane keeps a connection; what that can and can't lose stands in ``sendgrid_http``.
"""

from __future__ import annotations

import contextlib
import random
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from newsletter.errors import TransportRejected, TransportUnavailable
from newsletter.model import Accepted, Refused, Unknown
from newsletter.transports.answers import not_taken, unsendable
from newsletter.transports.sendgrid_answers import Verdict, come_back, judge, slow_down
from newsletter.transports.sendgrid_http import KeptConnection, NoAnswer, NotSent, Secret, client
from newsletter.transports.sendgrid_payload import Payload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from newsletter.errors import TransportError
    from newsletter.message import Wire, Wires
    from newsletter.model import Outcome, Recipient
    from newsletter.transports.sendgrid_http import Reply
    from newsletter.transports.sendgrid_payload import Copy

MOST_COPIES = 1000  # personalizations in a request, as SendGrid documents
MOST_DOUBTS = 2  # requests without an answer in a row: one is a glitch, two are an outage
MOST_SUSPECTS = 10  # copies alone with a 400 since the last 202: more than that are no accident
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class SendGridSettings:
    """``batch`` copies travel in one request; ``timeout`` is seconds for a request in all."""

    api_key: str = field(repr=False)
    url: str = "https://api.sendgrid.com"
    batch: int = 50
    lanes: int = 10
    timeout: float = 30.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "api_key", Secret(self.api_key))


class SendGridTransport:
    """One request at a time per lane. ``jitter`` gives seconds to add to each wait that SendGrid asks for.

    SendGrid names whole seconds: without jitter all processes that share an account would come back in the same
    instant, and those whose clock is ahead a little too early.
    """

    name = "sendgrid"

    def __init__(
        self,
        settings: SendGridSettings,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.lanes = settings.lanes
        self.window = min(settings.batch, MOST_COPIES)
        self._settings = settings
        self._account = _Account(clock, jitter)

    def run(
        self,
        wire: Wire | Wires,
        copies: Iterator[Sequence[Recipient]],
        settle: Callable[[Sequence[Outcome]], None],
    ) -> None:
        """See ``base.Transport``."""
        _check(self._settings)
        with contextlib.closing(_Lane(self._settings, Payloads(wire), self._account)) as lane:
            while True:
                if until := self._account.closed():
                    raise slow_down(until)
                if (window := next(copies, None)) is None:
                    return
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


class Payloads:
    """A payload for each edition, made when the first of its readers comes."""

    def __init__(self, wires: Wire | Wires) -> None:
        self._wires = wires
        self._made: dict[Wire, Payload] = {}

    def split(self, window: Sequence[Recipient]) -> list[tuple[Payload, list[Recipient]]]:
        """The window's readers by their edition."""
        editions: dict[Wire, list[Recipient]] = {}
        for recipient in window:
            editions.setdefault(self._wires.of(recipient), []).append(recipient)
        return [(self._payload(wire), people) for wire, people in editions.items()]

    def _payload(self, wire: Wire) -> Payload:
        if wire not in self._made:
            self._made[wire] = Payload(wire)
        return self._made[wire]


class _Account:
    """What all lanes know of SendGrid together. Single assignments, so that they need no lock."""

    def __init__(self, clock: Callable[[], datetime], jitter: Callable[[], float]) -> None:
        self._clock = clock
        self._jitter = jitter
        self._until: datetime | None = None
        # Before the first 202 nobody can tell a bad person from a bad email.
        self._suspects = MOST_SUSPECTS

    def heard(self, reply: Reply) -> datetime | None:
        """Notes until when no further request may leave, and returns it; None if this answer sets no limit."""
        now = self._clock()
        if until := come_back(reply, now):
            until += timedelta(seconds=self._jitter())
            self._until = max(until, self._until or now)
        return until

    def closed(self) -> datetime | None:
        """Until when no request may leave; None if it may."""
        return self._until if self._until and self._clock() < self._until else None

    def count(self, verdict: Verdict) -> None:
        """Keeps the number of suspects since SendGrid last took a copy."""
        if any(isinstance(outcome, Accepted) for outcome in verdict.outcomes):
            self._suspects = 0
        self._suspects += len(verdict.suspects)

    def vouches(self) -> bool:
        """Whether SendGrid takes this email, so that a 400 for one person alone is about that person."""
        return self._suspects <= MOST_SUSPECTS


class _Lane:
    """Composes, posts over a connection of its own, and acts on what comes back."""

    def __init__(self, settings: SendGridSettings, payloads: Payloads, account: _Account) -> None:
        url = settings.url.rstrip("/")
        self._connection = KeptConnection(url, settings.timeout)
        self._mail_send = client(Secret(settings.api_key), url, self._connection).mail.send
        self._payloads = payloads
        self._account = account
        self._doubts = 0

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    def compose(self, window: Sequence[Recipient]) -> tuple[list[Copy], list[Outcome]]:
        """What can be posted, and the outcome of what can't."""
        ready: list[Copy] = []
        refused: list[Outcome] = []
        for payload, people in self._payloads.split(window):
            if (whole := payload.window(people)) is not None:
                ready += whole
                continue
            for recipient in people:
                try:
                    ready.append(payload.copy(recipient))
                except ValueError as error:
                    refused.append(Refused(recipient.delivery, unsendable(error)))
        return ready, refused

    def send(self, copies: Sequence[Copy], settle: Callable[[Sequence[Outcome]], None]) -> None:
        """Settles all of them. Raises a ``TransportError`` after that if a request could not be made."""
        waiting: deque[Sequence[Copy]] = deque(requests(copies))
        suspects: list[Refused] = []
        stop: TransportError | None = None
        while waiting and stop is None:
            verdict = self._post(waiting.popleft())
            settle(verdict.outcomes)
            suspects += verdict.suspects
            waiting.extendleft(verdict.again[::-1])
            stop = verdict.stop
        rest = [copy.delivery for group in waiting for copy in group]
        if self._account.vouches():
            settle(suspects)
        elif suspects:
            stop = stop or _nobody_taken(suspects)
            rest += [one.delivery for one in suspects]
        if stop is not None:
            settle(not_taken(rest, stop, not_before=getattr(stop, "until", None)))
            raise stop

    def _post(self, group: Sequence[Copy]) -> Verdict:
        if until := self._account.closed():  # the last answer, or another lane's, said so
            return Verdict(again=[group], stop=slow_down(until))
        try:
            reply = self._mail_send.post(group[0].payload.request(group))
        except NotSent as error:
            return Verdict(again=[group], stop=TransportUnavailable(f"SendGrid can't be reached: {error}"))
        except NoAnswer as error:
            return self._doubt(group, f"no whole answer ({error})")
        verdict = self._judge(reply, group)
        self._account.count(verdict)
        return verdict

    def _judge(self, reply: Reply, group: Sequence[Copy]) -> Verdict:
        until = self._account.heard(reply)  # the next request is held there
        if not 200 <= reply.status < 500:
            return self._doubt(group, f"SendGrid answered {reply.status}")
        self._doubts = 0
        return judge(reply, group, until)

    def _doubt(self, group: Sequence[Copy], reason: str) -> Verdict:
        self._doubts += 1
        outcomes = [Unknown(copy.delivery, reason) for copy in group]
        if self._doubts < MOST_DOUBTS:
            return Verdict(outcomes)
        stop = TransportUnavailable(
            f"SendGrid gave no usable answer {self._doubts} times in a row: {reason}."
        )
        return Verdict(outcomes, stop=stop)


def _nobody_taken(suspects: Sequence[Refused]) -> TransportRejected:
    return TransportRejected(
        f"SendGrid takes none of {len(suspects)} copies and names no address: {suspects[0].reason}.",
        hint="Nothing of these was sent. If it is about one person alone, suppress the address, then resume.",
    )


def requests(copies: Sequence[Copy]) -> list[list[Copy]]:
    """Groups that may travel together: of one edition, and of each address one, else all of a request is refused."""
    first = copies[0].payload if copies else None
    if all(copy.payload is first for copy in copies):
        return _apart(copies)
    editions: dict[int, list[Copy]] = {}
    for copy in copies:
        editions.setdefault(id(copy.payload), []).append(copy)
    return [group for some in editions.values() for group in _apart(some)]


def _apart(copies: Sequence[Copy]) -> list[list[Copy]]:
    if len({copy.address.casefold() for copy in copies}) == len(copies) <= MOST_COPIES:
        return [list(copies)] if copies else []
    groups: list[dict[str, Copy]] = []
    for copy in copies:
        address = copy.address.casefold()
        group = next((group for group in groups if address not in group and len(group) < MOST_COPIES), None)
        if group is None:
            groups.append(group := {})
        group[address] = copy
    return [list(group.values()) for group in groups]

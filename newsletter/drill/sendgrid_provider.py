"""An HTTP server that speaks as much of SendGrid's ``/v3/mail/send`` as a drill needs."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from newsletter.drill.faults import SENDGRID_REQUEST
from newsletter.drill.provider import Provider, Talk

if TYPE_CHECKING:
    from newsletter.drill.book import Copy
    from newsletter.drill.faults import Fault

PHRASES = {
    202: "Accepted",
    400: "Bad Request",
    403: "Forbidden",
    413: "Payload Too Large",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
RESET_SECONDS = 1  # how long a 429 asks for


class SendGridTalk(Talk):
    """One connection."""

    def greet(self) -> None:
        if self.provider.is_ours(self):
            return
        self.fault = self.provider.turns.draw()
        if self.caught("connect"):
            self.book.leave_unread(self.provider.window)
            self.transport.abort()

    def work(self) -> bool:
        head, end, rest = self.buffer.partition(b"\r\n\r\n")
        if not end:
            return False
        size = _length(head)
        if len(rest) < size:
            if rest and self.caught("request"):
                self.book.leave_unread(self.provider.window)
                self.transport.abort()
            return False
        self.buffer = rest[size:]
        self._judge(_members(bytes(rest[:size])))
        self.fault = self.provider.turns.draw()
        return True

    def _judge(self, members: list[tuple[str, str]]) -> None:
        """``members`` are (delivery, address)."""
        if self.fault is not None and self.fault.act == "413" and len(members) == 1:
            self.fault = None  # a single copy that is too large would be the fault
        fault = self.caught("answer")
        copies = [self.book.take(*member) for member in members] if fault is None or fault.taken else []
        if fault is None:
            self._accept(copies)
        elif fault.act == "slow":
            self.delay(lambda: self._accept(copies))
        elif fault.code in range(400, 500):
            self._refuse(fault, members)
        else:
            self.book.withhold(delivery for delivery, _ in members)
            self._spoil(fault)

    def _accept(self, copies: list[Copy]) -> None:
        self._say(202, {"X-Message-Id": "drill"})
        for copy in copies:
            copy.answered = not self.transport.is_closing()

    def _refuse(self, fault: Fault, members: list[tuple[str, str]]) -> None:
        body, headers = b"", {}
        if fault.code == 400:
            number = self.provider.dice.randrange(len(members))
            self.book.refuse([members[number][1]])
            field = f"personalizations.{number}.to.0.email"
            body = json.dumps({"errors": [{"message": "the drill says no", "field": field}]}).encode()
        elif fault.code == 429:
            headers = {"X-RateLimit-Reset": str(int(time.time()) + RESET_SECONDS)}
        self._say(fault.code, headers, body)

    def _spoil(self, fault: Fault) -> None:
        if fault.code:
            self._say(fault.code)
        elif fault.act == "half":
            self.transport.write(b"HTTP/1.1 202 Accepted\r\nContent-Le")
            self.transport.close()
        else:
            self.transport.abort()

    def _say(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        lines = [f"HTTP/1.1 {status} {PHRASES[status]}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)


def _length(head: bytearray) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0


def _members(body: bytes) -> list[tuple[str, str]]:
    """(delivery, address) of each person, also of one who shares a personalization with another."""
    found: Any = json.loads(body)["personalizations"]
    return [(str(one["custom_args"]["delivery"]), str(to["email"])) for one in found for to in one["to"]]


class SendGridProvider(Provider):
    """The server."""

    talk = SendGridTalk
    greeting_faults = ()
    turn_faults = SENDGRID_REQUEST

"""An SMTP server (RFC 5321) that takes every copy, unless a fault was drawn for it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from newsletter.drill.faults import SMTP_COPY, SMTP_GREETING
from newsletter.drill.provider import Provider, Talk

if TYPE_CHECKING:
    from newsletter.drill.book import Copy
    from newsletter.drill.faults import Fault

ENDING = b"\r\n.\r\n"
MESSAGE_ID = re.compile(rb"^Message-ID:\s*<([^@>]*)@", re.IGNORECASE | re.MULTILINE)
ADDRESS = re.compile(rb"<([^>]*)>")
HELLO = b"250-drill\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 33554432\r\n"
GOOD = {
    "connect": b"220 drill\r\n",
    "EHLO": HELLO,
    "MAIL": b"250 2.1.0 ok\r\n",
    "RCPT": b"250 2.1.5 ok\r\n",
    "DATA": b"354 go ahead\r\n",
    "dot": b"250 2.0.0 queued\r\n",
    "RSET": b"250 2.0.0 ok\r\n",
    "NOOP": b"250 2.0.0 ok\r\n",
    "QUIT": b"221 2.0.0 bye\r\n",
}


class SmtpTalk(Talk):
    """One connection."""

    _address = ""
    _expects = (
        "MAIL"  # of a transaction: behind a refusal, the commands that came with it are refused as well
    )
    _in_body = False
    _searched = 0

    def greet(self) -> None:
        if not self.provider.is_ours(self):
            self.fault = self.provider.greetings.draw()
        self._answer("connect")

    def work(self) -> bool:
        return self._read_body() if self._in_body else self._read_command()

    def _read_command(self) -> bool:
        line, end, rest = self.buffer.partition(b"\r\n")
        if not end:
            return False
        self.buffer = rest
        verb = line[:4].decode("ascii", "replace").upper()
        if verb in {"RCPT", "DATA"} and verb != self._expects:
            self.transport.write(b"503 5.5.1 out of turn\r\n")
            return True
        if verb == "MAIL":
            self.fault = self.provider.turns.draw()
        elif verb == "RCPT":
            found = ADDRESS.search(line)
            self._address = found[1].decode() if found else ""
        verb = "EHLO" if verb == "HELO" else verb
        if verb in GOOD:
            self._answer(verb)
        else:
            self.transport.write(b"500 5.5.1 what?\r\n")
        return True

    def _answer(self, step: str) -> None:
        fault = self.caught(step)
        if fault is None:
            self._say(step)
        elif fault.act == "slow":
            self.delay(lambda: self._say(step))
        else:
            self._spoil(step, fault)

    def _say(self, step: str) -> None:
        self.transport.write(GOOD[step])
        self._expects = {"MAIL": "RCPT", "RCPT": "DATA"}.get(step, "MAIL")
        if step == "DATA":
            self._in_body, self._searched = True, 0
        elif step == "QUIT":
            self.transport.close()

    def _spoil(self, step: str, fault: Fault) -> None:
        self._expects = "MAIL"
        if step in {"RCPT", "DATA"}:
            self.book.refuse([self._address])
        if not fault.code:
            self.transport.abort()
            return
        self.transport.write(f"{fault.act} 4.3.0 the drill says no\r\n".encode())
        if fault.code == 421 or step == "connect":
            self.transport.close()

    def _read_body(self) -> bool:
        at = self.buffer.find(ENDING, max(0, self._searched - len(ENDING)))
        if at < 0:
            self._searched = len(self.buffer)
            if self.buffer and self.caught("body"):
                self._cut_body()
            return False
        message, self.buffer = bytes(self.buffer[:at]), self.buffer[at + len(ENDING) :]
        self._in_body = False
        self._end_copy(_delivery(message))
        return True

    def _cut_body(self) -> None:
        """The sender may have written its dot into the broken connection already: then it can't know."""
        self.book.refuse([self._address])
        if delivery := _delivery(bytes(self.buffer)):
            self.book.withhold([delivery])
        else:
            self.book.leave_unread(1)
        self.transport.abort()

    def _end_copy(self, delivery: str) -> None:
        fault = self.caught("dot")
        copy = self.book.take(delivery, self._address) if fault is None or fault.taken else None
        if copy is not None and (fault is None or fault.act == "slow"):
            if fault is None:
                self._accept(copy)
            else:
                self.delay(lambda: self._accept(copy))
        elif fault is not None and fault.code:
            self.book.refuse([self._address])
            self._spoil("dot", fault)
        elif fault is not None:
            self.book.withhold([delivery])
            self._vanish(fault)

    def _accept(self, copy: Copy) -> None:
        self._say("dot")
        copy.answered = not self.transport.is_closing()

    def _vanish(self, fault: Fault) -> None:
        if fault.act == "half":
            self.transport.write(GOOD["dot"][:6])
            self.transport.close()
        else:
            self.transport.abort()


def _delivery(message: bytes) -> str:
    head = message.partition(b"\r\n\r\n")[0]
    found = MESSAGE_ID.search(head)
    return found[1].decode("ascii", "replace") if found else ""


class SmtpProvider(Provider):
    """The server."""

    talk = SmtpTalk
    greeting_faults = SMTP_GREETING
    turn_faults = SMTP_COPY

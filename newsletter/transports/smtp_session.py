"""One SMTP conversation (RFC 5321) whose phase is always known.

``smtplib`` connects, greets, starts TLS and logs in. From MAIL on we drive each step ourselves, because its
``sendmail()`` reports a cut before the final dot (not taken) like one after it (nobody can say), and because it waits
for each answer: with PIPELINING (RFC 2920) a copy takes one round trip, its envelope behind the last one's dot::

    client   body 1 ┄┄┄ . MAIL RCPT DATA ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ body 2 ┄┄┄ . MAIL …
    server   ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ 250 250 250 354 ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄

The dot leaves in a write of its own, so that an error says on which side of it the conversation broke.
"""

from __future__ import annotations

import contextlib
import re
import smtplib
import socket
import ssl
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from newsletter.errors import TransportRejected, TransportUnavailable
from newsletter.model import Accepted, NotTaken, Refused, Unknown
from newsletter.transports.answers import words
from newsletter.transports.deadline import DeadlineReader

if TYPE_CHECKING:
    import io
    from collections.abc import Sequence

    from newsletter.errors import TransportError
    from newsletter.model import Outcome

SERVICE_CLOSING = 421
MUCH = re.compile(r"\b4\.7\.28\b|\brate\b|\btoo (many|fast|much)\b|throttl|slow down", re.IGNORECASE)
TOO_LARGE = 552  # as an answer to MAIL with SIZE (RFC 1870, section 6.2)
SMALLER = 'Make the pictures smaller, or use [images] mode = "hosted".'
# RFC 5321, section 4.2; a bare LF and bytes beyond ASCII are forgiven.
REPLY_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?\r?\n")
GOODBYE_TIMEOUT = 2.0  # seconds for the reply to QUIT, on which nothing depends


@dataclass(frozen=True, slots=True)
class SmtpSettings:
    """Where and how to connect. ``timeout`` is seconds for each step but the dot."""

    host: str
    port: int = 25
    security: Literal["none", "starttls", "tls"] = "starttls"
    username: str = ""
    password: str = field(default="", repr=False)
    ca_file: str = ""
    timeout: float = 30.0
    lanes: int = 10
    window: int = 1  # copies handed at once per lane: the size of one doubt


class Step(StrEnum):
    """Where a copy stood when its answer came."""

    MAIL = "MAIL FROM"
    RCPT = "RCPT TO"
    DATA = "DATA"
    BODY = "the message"
    DOT = "the end of the message"


OPENING = (Step.MAIL, Step.RCPT, Step.DATA)
GOOD = {Step.MAIL: 2, Step.RCPT: 2, Step.DATA: 3}


@dataclass(frozen=True, slots=True)
class Answer:
    """What ended a copy's transaction."""

    step: Step
    code: int  # 0: no answer, or none that makes sense
    said: str

    @property
    def kind(self) -> int:
        """The first digit, which is all a client should act on (RFC 5321 §4.2.1)."""
        return self.code // 100

    @property
    def may_mean_the_connection(self) -> bool:
        """Whether it may be this connection that the server has had enough of, and not the copy."""
        return self.step is Step.MAIL or (
            self.code == SERVICE_CLOSING and self.step in {Step.RCPT, Step.DATA}
        )

    @property
    def crowded(self) -> bool:
        """Whether the server asks to be left alone for a while. Not 4.7.1 and 4.2: those are about one reader."""
        if self.kind != 4 or self.said.startswith("4.2."):
            return False
        return self.code == SERVICE_CLOSING or MUCH.search(self.said) is not None

    def __str__(self) -> str:
        if self.kind in {2, 3, 4, 5}:
            return f"{self.code} {self.said}".strip()
        return f"no usable answer to {self.step} ({self.said or 'the connection ended'})"


def verdict(delivery: bytes, answer: Answer) -> Outcome:
    """What an answer means for the copy; a ``TransportError`` is raised where it is about us instead."""
    match answer.step, answer.kind:
        case Step.MAIL, 5 if answer.code == TOO_LARGE:
            raise TransportRejected(f"a copy is too large for the mail server: {answer}", hint=SMALLER)
        case Step.MAIL, 5:
            raise TransportRejected(f"the mail server refuses us as a sender: {answer}")
        case Step.MAIL, _:
            raise TransportUnavailable(f"the mail server takes no mail now: {answer}", crowded=answer.crowded)
        case Step.DOT, 2:
            return Accepted(delivery, answer.said)
        case _, 5:
            return Refused(delivery, str(answer))
        case Step.DOT, 4:
            return NotTaken(delivery, str(answer), crowded=answer.crowded)
        case Step.DOT, _:
            return Unknown(delivery, str(answer))
        case _:
            return NotTaken(delivery, str(answer), crowded=answer.crowded)


@dataclass(frozen=True, slots=True)
class Envelope:
    """What stands before a copy on the wire: MAIL, RCPT and DATA, each with its line end."""

    commands: tuple[bytes, bytes, bytes]

    @property
    def at_once(self) -> bytes:
        """All of it in one piece."""
        return b"".join(self.commands)


DOT = b".\r\n"
# Longer lists of pieces are joined before they are written: a system takes so many at once (IOV_MAX).
MOST_PIECES = 1000


class Conversation(smtplib.SMTP):
    """A connection that has said hello. Every reply must be complete in time, or the connection has ended."""

    used = False  # whether a copy got past MAIL on it
    out_of_step = False  # it gave an answer that can't be one to that command
    _step: Step = Step.MAIL  # what an error now would be about
    _reader: DeadlineReader
    _patience: float | None = None

    def getreply(self) -> tuple[int, bytes]:
        """A whole reply, in time; on anything else the connection is over.

        ``smtplib`` would believe a line that was cut short: ``250 2.0.0 O`` and then the end.
        """
        try:
            return self._read_reply(self._lines(self._patience or self.timeout))
        except OSError as error:
            self.close()
            raise smtplib.SMTPServerDisconnected(words(error)) from error

    def _lines(self, seconds: float) -> io.BufferedReader:
        """What the server says in that time."""
        if self.sock is None:
            raise ConnectionError("the connection has ended")
        if self.file is None:  # new, or new inside TLS: nothing said before counts in there
            self._reader = DeadlineReader(self.sock)
            self.file = self._reader.makefile()
        self._reader.allow(seconds)
        return self.file

    @staticmethod
    def _read_reply(lines: io.BufferedReader) -> tuple[int, bytes]:
        code, more, text = _reply_line(lines)
        said = [text]
        while more == b"-":
            next_code, more, text = _reply_line(lines)
            if next_code != code:
                raise ConnectionError("the lines of one reply have different codes")
            said.append(text)
        return int(code), b"\n".join(said)

    def send(self, s: bytes | str) -> None:  # type: ignore[override]  # as narrow as we use it
        if self.sock is not None:
            self.sock.settimeout(self.timeout)  # reading has set it to what was left of the last wait
        super().send(s)

    def putcmd(self, cmd: str, args: str = "") -> None:
        """Only in turn: else what the server said too early would be read as its answer to this."""
        self._in_turn()
        super().putcmd(cmd, args)

    def _in_turn(self) -> None:
        if not self.quiet():
            raise ConnectionAbortedError("the server spoke or closed out of turn")

    def quiet(self) -> bool:
        """Still open, and the server has said nothing that nobody asked for."""
        try:
            self._lines(0).peek(1)
        except TimeoutError:
            return True
        except OSError:
            return False
        return False  # the end, a 421, or a server that is out of step

    @property
    def pipelines(self) -> bool:
        """Whether commands may leave before the last one is answered (RFC 2920)."""
        return self.has_extn("pipelining")

    def envelope(self, sender: str, address: str, size: int) -> Envelope:
        """For addresses that are printable."""
        declared = f" SIZE={size}" if self.has_extn("size") else ""
        # Never BODY: all parts are 7-bit, and UTF-8 in a header needs none (RFC 6531 §3.6).
        wide = "" if address.isascii() else " SMTPUTF8"
        mail = f"MAIL FROM:<{sender}>{declared}{wide}"
        rcpt = f"RCPT TO:<{address}>"
        return Envelope((f"{mail}\r\n".encode(), f"{rcpt}\r\n".encode(), b"DATA\r\n"))

    def open(self, envelope: Envelope | None) -> Answer | None:
        """Gets the server to wait for the message; else returns the answer that ended the copy.

        None is for an envelope that has left already, behind the last copy's dot.
        """
        self._step = Step.MAIL
        try:
            if envelope is not None and not self.pipelines:
                return self._open_in_lockstep(envelope)
            if envelope is not None:
                self._in_turn()
                self._write([envelope.at_once])
        except (OSError, smtplib.SMTPException) as error:
            return self._broken(error)
        return self._opened()

    def _open_in_lockstep(self, envelope: Envelope) -> Answer | None:
        for step, command in zip(OPENING, envelope.commands, strict=True):
            self._step = step
            self._in_turn()
            self._write([command])
            answer = self._answer(step)
            if answer.kind != GOOD[step]:
                return answer
            self.used = True
        return None

    def _opened(self) -> Answer | None:
        """Reads the three answers, whatever the first one says: they are all under way."""
        bad: Answer | None = None
        try:
            for step in OPENING:
                self._step = step
                code, said = self.getreply()
                if code // 100 != GOOD[step]:
                    bad = bad or Answer(step, code, words(said))
                elif bad is None:
                    self.used = True
                elif step is Step.DATA:
                    self._send_nothing()
                self.out_of_step = code // 100 not in {GOOD[step], 4, 5}
                if code == SERVICE_CLOSING or self.out_of_step:
                    self.close()  # no further answer comes, or nobody knows to what
                    break
        except (OSError, smtplib.SMTPException) as error:
            # After a time-out an answer is missing, and nobody knows which: the ones that came may belong to others.
            missing = isinstance(error.__cause__, TimeoutError)
            if missing or bad is None:
                return Answer(bad.step if bad else self._step, 0, words(error))
        return bad

    def _send_nothing(self) -> None:
        """Ends a message that has no recipient (RFC 2920 §3.1); what is said of it changes nothing."""
        try:
            self._write([DOT])
            self.getreply()
        except (OSError, smtplib.SMTPException):
            self.close()

    def send_body(self, pieces: Sequence[bytes]) -> Answer | None:
        """Writes the message but its end; an answer if the connection broke. Joined they end with a line end."""
        self._step = Step.BODY
        try:
            self._write(pieces)
        except OSError as error:
            return self._broken(error)
        return None

    def end(self, following: Envelope | None, *, dot_timeout: float) -> Answer:
        """Ends the message, with the next one's envelope right behind, and waits for the word that counts."""
        try:
            # After an error in here the dot has not left whole: the copy was not taken.
            self._in_turn()
            whole = self._write_dot(following.at_once if following else b"")
            self._patience = dot_timeout
            answer = self._answer(Step.DOT)
            self._patience = None
        except (OSError, smtplib.SMTPException) as error:
            return self._broken(error)
        if not whole:
            self.close()
        return answer

    def _write_dot(self, following: bytes) -> bool:
        """The dot, and what follows it in the same write; whether all of that has left.

        Only the dot decides: where the rest breaks off, the server's word on the copy may have come already.
        """
        sock, data = self._ready_to_write(), DOT + following
        left = sock.send(data)
        while left < len(DOT):
            left += sock.send(data[left:])
        self._step = Step.DOT
        try:
            if left < len(data):
                sock.sendall(data[left:])
        except OSError:
            return False
        return True

    def _write(self, pieces: Sequence[bytes]) -> None:
        """All of it, without a copy where the system can gather it itself."""
        sock = self._ready_to_write()
        if len(pieces) == 1 or len(pieces) > MOST_PIECES or isinstance(sock, ssl.SSLSocket):
            sock.sendall(b"".join(pieces))
            return
        sent = sock.sendmsg(pieces)
        if sent < sum(map(len, pieces)):
            sock.sendall(b"".join(pieces)[sent:])

    def _ready_to_write(self) -> socket.socket:
        if self.sock is None:
            raise ConnectionError("the connection has ended")
        self.sock.settimeout(self.timeout)  # reading has set it to what was left of the last wait
        return self.sock

    def _broken(self, error: BaseException) -> Answer:
        return Answer(self._step, 0, words(error))

    def _answer(self, step: Step) -> Answer:
        code, said = self.getreply()
        return Answer(step, code, words(said))

    def ready_for_next(self, answer: Answer) -> bool:
        """Ends the transaction; if that can't be done surely, closes the connection and returns False."""
        known = {2, 4, 5} if answer.step is Step.DOT else {4, 5}
        if answer.code == SERVICE_CLOSING or answer.kind not in known:
            self.close()
        elif answer.step is not Step.DOT:
            self._reset()
        return self.sock is not None

    def _reset(self) -> None:
        try:
            done = self.rset()[0] // 100 == 2
        except (OSError, smtplib.SMTPException):
            done = False
        if not done:
            self.close()

    def leave(self) -> None:
        """Says goodbye, if the server still listens."""
        self._patience = min(GOODBYE_TIMEOUT, self.timeout)
        with contextlib.suppress(OSError, smtplib.SMTPException):
            self.quit()
        self.close()


def _reply_line(lines: io.BufferedReader) -> tuple[bytes, bytes, bytes]:
    """Code, separator and text."""
    if not (line := lines.readline()):
        raise ConnectionError("the connection ended")
    if (found := REPLY_LINE.fullmatch(line)) is None:
        raise ConnectionError(f"what came is no SMTP reply: {words(line)}")
    code, more, text = found.groups(b"")
    return code, more, text.strip()


class TlsConversation(Conversation, smtplib.SMTP_SSL):
    """The same, with TLS from the first byte."""


def connect(settings: SmtpSettings) -> Conversation:
    """A conversation that is open, encrypted and logged in as configured; never one that is less.

    Raises ``TransportUnavailable`` for what may pass (no connection, no such name, a wrong certificate, 4xx) and
    ``TransportRejected`` for what needs a person (5xx, no STARTTLS, no login).
    """
    if settings.username and settings.security == "none":
        raise TransportRejected(
            'the SMTP password would travel in the clear: [smtp] security is "none".',
            hint='Set security = "starttls" or "tls", or remove the username.',
        )
    context = None if settings.security == "none" else tls_context(settings.ca_file)
    try:
        return _greet(settings, context)
    except smtplib.SMTPResponseException as error:
        code, said = error.smtp_code, words(error.smtp_error)
        raise _refusal(
            settings, f"{code} {said}", permanent=code // 100 == 5, crowded=code == SERVICE_CLOSING
        ) from None
    except smtplib.SMTPServerDisconnected as error:
        raise _refusal(settings, words(error), permanent=False) from None
    except smtplib.SMTPException as error:  # STARTTLS or a way to log in is not offered
        raise _refusal(settings, words(error), permanent=True) from None
    # ValueError: a host that can't be a name, such as "mail..org", or a challenge at login that is no base64.
    except (OSError, ValueError) as error:
        raise _refusal(settings, words(error), permanent=False) from error


def _greet(settings: SmtpSettings, context: ssl.SSLContext | None) -> Conversation:
    smtp = _dial(settings, context)
    try:
        assert smtp.sock is not None
        # The dot leaves after the body on its own: without this it would wait for the body's acknowledgement.
        smtp.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _hello(smtp)
        if settings.security == "starttls":
            smtp.starttls(context=context)
            _hello(smtp)
        if settings.username:
            _log_in(smtp, settings)
    except BaseException:
        smtp.close()
        raise
    return smtp


def _log_in(smtp: Conversation, settings: SmtpSettings) -> None:
    try:
        smtp.login(settings.username, settings.password)
    except UnicodeEncodeError:  # from None: the password stands in the original
        raise smtplib.SMTPException("user name or password hold more than ASCII") from None


def _dial(settings: SmtpSettings, context: ssl.SSLContext | None) -> Conversation:
    if settings.security == "tls":
        return TlsConversation(settings.host, settings.port, timeout=settings.timeout, context=context)
    return Conversation(settings.host, settings.port, timeout=settings.timeout)


def _hello(smtp: Conversation) -> None:
    code, said = smtp.ehlo()
    if code in {500, 502}:  # older than EHLO (RFC 5321, section 3.2): without TLS and login that may do
        code, said = smtp.helo()
    if code // 100 != 2:
        raise smtplib.SMTPHeloError(code, said)


def _refusal(settings: SmtpSettings, said: str, *, permanent: bool, crowded: bool = False) -> TransportError:
    place = f"the mail server {settings.host}:{settings.port}"
    if permanent:
        hint = "Compare [smtp] in newsletter.toml and SMTP_PASSWORD with what the server asks for."
        return TransportRejected(f"{place} does not let us send: {said}", hint=hint)
    hint = "Is it running, and are host, port and security in [smtp] right?"
    return TransportUnavailable(f"{place} can't be used now: {said}", hint=hint, crowded=crowded)


def tls_context(ca_file: str) -> ssl.SSLContext:
    """Verifies certificate and host name, against ``ca_file`` if there is one, else the system's authorities."""
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise TransportRejected(
            f"[smtp] ca_file {ca_file} can't be used: {error.strerror or error}"
        ) from error

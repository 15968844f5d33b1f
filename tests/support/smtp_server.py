"""SMTP servers for tests: real ones (aiosmtpd, with TLS and login) and one that misbehaves as told, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import select
import socket
import ssl
import struct
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Arrived:
    """A message that a server took."""

    sender: str
    recipient: str
    content: bytes
    login: str = ""
    encrypted: bool = False
    options: tuple[str, ...] = ()


# --- certificates ------------------------------------------------------------------------------------------------


def make_certificate(folder: Path, *, host: str = "localhost", days: int = 1) -> tuple[Path, Path]:
    """(certificate, key) files for ``host`` and 127.0.0.1, signed by itself: the certificate is its own authority.

    It ends after ``days``, or ended so many days ago.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    addresses = [x509.IPAddress(ipaddress.ip_address(HOST))] if host == "localhost" else []
    now = dt.datetime.now(dt.UTC)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign"), False
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=100))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host), *addresses]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True, key_cert_sign=True, encipher_only=False, decipher_only=False, **usage
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / f"{host}.pem", folder / f"{host}.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return files


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """What a server needs to speak TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


# --- a real server -----------------------------------------------------------------------------------------------


class Mailbox:
    """aiosmtpd's handler: keeps what arrives, refuses whom it is told to, and has moods."""

    def __init__(self) -> None:
        self.messages: list[Arrived] = []
        self.refused: dict[str, str] = {}  # address → the reply to RCPT
        self.port = 0
        self.busy_once = False  # the next MAIL gets a 421
        self.cut_once = False  # the next message is kept, and the connection cut instead of saying so

    async def handle_MAIL(self, _server, _session, envelope, address, options) -> str:  # type: ignore[no-untyped-def]
        if self.busy_once:
            self.busy_once = False
            return "421 4.3.2 busy"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 Ok"

    async def handle_RCPT(self, _server, _session, envelope, address, options) -> str:  # type: ignore[no-untyped-def]
        if address in self.refused:
            return self.refused[address]
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server, session, envelope) -> str:  # type: ignore[no-untyped-def]
        data = session.auth_data
        self.messages.append(
            Arrived(
                envelope.mail_from,
                ", ".join(envelope.rcpt_tos),
                envelope.content,
                login=data.login.decode() if data else "",
                encrypted=server.transport.get_extra_info("ssl_object") is not None,
                options=tuple(envelope.mail_options),
            )
        )
        if self.cut_once:
            self.cut_once = False
            server.transport.abort()
        return f"250 2.0.0 Ok: queued as Q{len(self.messages)}"


@contextlib.contextmanager
def smtp_server(
    *,
    tls: ssl.SSLContext | None = None,
    starttls: ssl.SSLContext | None = None,
    login: tuple[str, str] | None = None,
    smtputf8: bool = False,
    most_bytes: int = 33_554_432,
) -> Iterator[Mailbox]:
    """A mail server on a free port of loopback; ``mailbox.port`` is where."""
    mailbox = Mailbox()

    def authenticate(_server, _session, _envelope, _mechanism, data):  # type: ignore[no-untyped-def]
        good = isinstance(data, LoginPassword) and (data.login.decode(), data.password.decode()) == login
        return AuthResult(success=good, handled=False, auth_data=data)

    def protocol() -> SMTP:
        return SMTP(
            mailbox,
            hostname="mail.example.org",
            tls_context=starttls,
            require_starttls=starttls is not None,
            auth_require_tls=tls is None,  # inside implicit TLS aiosmtpd does not know that it is encrypted
            authenticator=authenticate if login else None,
            enable_SMTPUTF8=smtputf8,
            data_size_limit=most_bytes,
            loop=loop,
        )

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(protocol, HOST, 0, ssl=tls))
    mailbox.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, name="smtp-server")
    thread.start()
    try:
        yield mailbox
    finally:
        asyncio.run_coroutine_threadsafe(_stop(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _stop(server: asyncio.Server) -> None:
    server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def closed_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


# --- a server that does as it is told ----------------------------------------------------------------------------


class Cut:
    """Ends the connection at once (RST): what a crash or a firewall looks like."""


class Close:
    """Ends its half of the connection (FIN), and does nothing more about what the other half says."""


class Hang:
    """Says nothing until the other side gives up."""


class Deaf:
    """Neither speaks nor reads."""


@dataclass(frozen=True)
class Drip:
    """Says this a byte at a time (each in a packet of its own), with ``pause`` seconds between."""

    text: str
    pause: float = 0.0


@dataclass(frozen=True)
class Taken:
    """Keeps the message, and then does this instead of saying so."""

    then: Act


@dataclass(frozen=True)
class Late:
    """Says this and closes: what a server does with a connection it wants to be rid of. Bytes get no line end."""

    text: str | bytes


@dataclass(frozen=True)
class Ahead:
    """Waits until the client has sent this without having been answered."""

    text: bytes


@dataclass(frozen=True)
class After:
    """Waits until the test says so."""

    event: threading.Event


# Text is said as a line, bytes are said as they are; of a tuple one act is done after the other.
Act = str | bytes | type[Cut | Close | Hang | Deaf] | Drip | Taken | Late | Ahead | After | tuple["Act", ...]

USUAL: dict[str, str] = {
    "connect": "220 mail.example.org ready",
    "EHLO": "250-mail.example.org\r\n250 8BITMIME",
    "MAIL": "250 2.1.0 Ok",
    "RCPT": "250 2.1.5 Ok",
    "DATA": "354 go on",
    "body": "",
    "dot": "250 2.0.0 Ok: queued as Q1",
    "RSET": "250 2.0.0 Ok",
    "QUIT": "221 2.0.0 Bye",
    # Steps of their own, since a client that sends ahead comes here by no fault of its own.
    "MAIL within MAIL": "503 5.5.1 nested MAIL",
    "RCPT without MAIL": "503 5.5.1 MAIL first",
    "DATA without RCPT": "554 5.5.1 no valid recipients",
    "dot without RCPT": "554 5.5.1 no valid recipients",
}
PIPELINES = "250-mail.example.org\r\n250-PIPELINING\r\n250 8BITMIME"


class _Gone(Exception):
    """The connection is over."""


@dataclass
class Talk:
    """What a connection brought and was told, and who spoke when, in the order of the server's reading and writing."""

    heard: bytearray = field(default_factory=bytearray)
    said: bytearray = field(default_factory=bytearray)
    turns: list[tuple[str, bytearray]] = field(default_factory=list)

    def add(self, speaker: str, data: bytes) -> None:
        """``heard`` or ``said``; what one side brings without a word of the other's between is one turn."""
        getattr(self, speaker).extend(data)
        if not self.turns or self.turns[-1][0] != speaker:
            self.turns.append((speaker, bytearray()))
        self.turns[-1][1].extend(data)


class _Ears:
    """Reads a connection up to its ``most``th byte."""

    def __init__(self, connection: socket.socket, talk: Talk, most: int | None) -> None:
        self._connection, self._talk, self._most = connection, talk, most
        self._ahead = bytearray()  # received, and not read yet

    @property
    def full(self) -> bool:
        """Whether the last byte that may come has been read."""
        return not self._ahead and self._most is not None and len(self._talk.heard) >= self._most

    def more(self) -> bool:
        """Receives what comes; False when nothing more will."""
        room = 65536 if self._most is None else self._most - len(self._talk.heard)
        came = self._connection.recv(room) if room else b""
        self._talk.add("heard", came)
        self._ahead += came
        return bool(came)

    def line(self) -> bytes:
        """The next line; without its end if nothing follows."""
        while (end := self._ahead.find(b"\n")) < 0:
            if not self.more():
                return self.some(len(self._ahead))
        return self.some(end + 1)

    def some(self, count: int) -> bytes:
        """At most so many bytes."""
        taken = bytes(self._ahead[:count])
        del self._ahead[:count]
        return taken

    def wait_for(self, text: bytes) -> None:
        """Until this has come, and without reading it."""
        while text not in self._ahead:
            if not self.more():
                raise _Gone

    def another_line(self) -> bool:
        """Whether one has come already."""
        if b"\n" not in self._ahead and not self.full and select.select([self._connection], [], [], 0)[0]:
            self.more()
        return b"\n" in self._ahead


Ending = tuple[int, type[Cut | Close]]


@dataclass
class ScriptedServer:
    """``ScriptedServer({"RCPT": ["450 later", Cut]})``: the acts of a step are used up in order, then it is usual.

    ``limit=(3, {"MAIL": "421 enough"})``: on a connection that has brought three messages, these steps go so.
    ``cut=(100, Close)``: the first connection ends after its 100th byte, and what that byte ended is not answered.
    ``cut_reply=(100, Close)``: the first connection ends after the 100th byte that was said on it.
    ``pipelining`` offers it; with ``burst`` replies wait for the next one while further commands have come.
    """

    script: dict[str, Sequence[Act]] = field(default_factory=dict)
    usual: dict[str, Act] = field(default_factory=dict)
    limit: tuple[int, dict[str, Act]] = (0, {})
    cut: Ending | None = None
    cut_reply: Ending | None = None
    tls: ssl.SSLContext | None = None
    pipelining: bool = False
    burst: bool = False

    def __post_init__(self) -> None:
        self.messages: list[Arrived] = []
        self.commands: list[str] = []
        self.connections = self.ended = 0
        self.talks: list[Talk] = []  # one for each connection
        self.refused: dict[str, str] = {}  # address → the reply to RCPT
        self._acts = {step: deque(acts) for step, acts in self.script.items()}
        self._usual = {**USUAL, **({"EHLO": PIPELINES} if self.pipelining else {}), **self.usual}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server((HOST, 0))
        # So that a large message can't hide in the system's buffers, which grow to tens of megabytes.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 262_144)
        self.port = int(self._listener.getsockname()[1])

    @property
    def heard(self) -> list[bytearray]:
        """What each connection brought."""
        return [talk.heard for talk in self.talks]

    def push(self, step: str, act: Act) -> None:
        """One more act for a step."""
        with self._lock:
            self._acts.setdefault(step, deque()).append(act)

    def __enter__(self) -> ScriptedServer:
        self._spawn(self._listen)
        return self

    def __exit__(self, *_error: object) -> None:
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    def _spawn(self, work, *arguments: object) -> None:  # type: ignore[no-untyped-def]
        thread = threading.Thread(target=work, args=arguments, name="scripted-smtp")
        self._threads.append(thread)
        thread.start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                # Else the second of two answers waits for the acknowledgement of the first.
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections += 1
                self._open.add(connection)
                self._spawn(self._serve, connection, self.connections == 1)

    def _serve(self, raw: socket.socket, first: bool) -> None:
        with raw, contextlib.suppress(_Gone, OSError):
            connection = self._secured(raw)
            talk = Talk()
            self.talks.append(talk)
            try:
                _Session(
                    self, connection, talk, self.cut if first else None, self.cut_reply if first else None
                ).converse()
            finally:
                self._open.discard(connection)
                connection.close()
                self.ended += 1

    def _secured(self, raw: socket.socket) -> socket.socket:
        if self.tls is None:
            return raw
        secured = self.tls.wrap_socket(raw, server_side=True)
        self._open.add(secured)
        return secured

    def next(self, step: str, brought: int) -> Act:
        """What is to be done at a step of a connection that has brought so many messages."""
        most, worn = self.limit
        if most and brought >= most and step in worn:
            return worn[step]
        with self._lock:
            acts = self._acts.get(step)
            if acts:
                return acts.popleft()
        return self._usual.get(step, "502 5.5.2 what?")

    def wait(self, seconds: float) -> None:
        """Lets time pass, unless and until the server is stopped."""
        self._stopping.wait(seconds)

    def wait_for(self, event: threading.Event) -> None:
        """Until this happens, or the server is stopped."""
        while not event.wait(0.01) and not self._stopping.is_set():
            pass


class _Session:
    """One connection to a ``ScriptedServer``."""

    def __init__(
        self,
        server: ScriptedServer,
        connection: socket.socket,
        talk: Talk,
        cut: Ending | None,
        cut_reply: Ending | None,
    ) -> None:
        self.server, self.connection, self.talk = server, connection, talk
        self.ears = _Ears(connection, talk, cut[0] if cut else None)
        self.ending = cut[1] if cut else Cut
        self.cut_reply = cut_reply
        self.held = b""  # replies that wait for the next one
        self.brought = 0
        self.sender = self.recipient = ""

    def converse(self) -> None:
        self._do(self.server.next("connect", self.brought))
        while (line := self.ears.line()).endswith(b"\n"):
            command = line.decode("utf-8", "replace").strip()
            self.server.commands.append(command)
            verb = command[:4].upper()
            act = self._act(verb, command)
            self._note(verb, command, good=_text(act)[:1] in {"2", "3"})
            self._do(act)
            if verb == "DATA" and _text(act).startswith("354"):
                self._receive()
            if verb == "QUIT":
                return
        self._end_if_cut()

    def _act(self, verb: str, command: str) -> Act:
        step = verb
        if verb == "MAIL" and self.sender:
            step = "MAIL within MAIL"
        elif verb == "RCPT" and not self.sender:
            step = "RCPT without MAIL"
        elif verb == "DATA" and not self.recipient:
            step = "DATA without RCPT"
        if step == "RCPT" and _bare(command) in self.server.refused:
            return self.server.refused[_bare(command)]
        return self.server.next(step, self.brought)

    def _note(self, verb: str, command: str, *, good: bool) -> None:
        """What the transaction holds so far (RFC 5321, section 3.3)."""
        if verb in {"RSET", "EHLO", "HELO"}:
            self.sender = self.recipient = ""
        elif verb == "MAIL" and good:
            self.sender = command
        elif verb == "RCPT" and good and self.sender:
            self.recipient = command

    def _receive(self) -> None:
        self._flush()
        act = self.server.next("body", self.brought)
        if act is Cut:
            self.ears.more()  # some of it came
        self._do(act)
        body = bytearray()
        while (line := self.ears.line()) != b".\r\n":
            if not line.endswith(b"\n"):
                self._end_if_cut()
                raise _Gone
            body += line.removeprefix(b".")
        self._end_of_message(bytes(body))

    def _end_of_message(self, body: bytes) -> None:
        if not self.recipient:
            self._do(self.server.next("dot without RCPT", self.brought))
        else:
            self.brought += 1
            act = self.server.next("dot", self.brought)
            if isinstance(act, Taken) or (isinstance(act, str) and act.startswith("250 ")):
                self.server.messages.append(Arrived(_bare(self.sender), _bare(self.recipient), body))
            self._do(act.then if isinstance(act, Taken) else act)
        self.sender = self.recipient = ""

    def _end_if_cut(self) -> None:
        if self.ears.full:
            self._do(self.ending)

    def _do(self, act: Act) -> None:
        if self.ears.full:
            act = self.ending
        if act is Cut:
            # Lingering for 0 seconds makes close() send RST.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise _Gone
        if act in {Close, Hang, Deaf}:
            self._end(act)
        elif isinstance(act, tuple):
            for one in act:
                self._do(one)
        elif isinstance(act, Ahead):
            self.ears.wait_for(act.text)
        elif isinstance(act, After):
            self.server.wait_for(act.event)
        else:
            self._say(act)

    def _end(self, act: Act) -> None:
        self._flush()
        if act is Deaf:
            self.server.wait(30)
            raise _Gone
        if act is Close:
            self.connection.shutdown(socket.SHUT_WR)
        while more := self.connection.recv(65536):
            self.talk.add("heard", more)
        raise _Gone

    def _say(self, act: Act) -> None:
        if isinstance(act, Drip):
            for byte in act.text.encode() + b"\r\n":
                self._send(bytes([byte]))
                self.server.wait(act.pause)
            return
        said = act.text if isinstance(act, Late) else act
        assert isinstance(said, str | bytes)
        if said:
            self.held += said if isinstance(said, bytes) else f"{said}\r\n".encode()
        if isinstance(act, Late):
            self._flush()
            raise _Gone
        if not (self.server.burst and self.ears.another_line()):
            self._flush()

    def _flush(self) -> None:
        held, self.held = self.held, b""
        self._send(held)

    def _send(self, data: bytes) -> None:
        room = self.cut_reply[0] - len(self.talk.said) if self.cut_reply else len(data)
        if data[:room]:
            self.connection.sendall(data[:room])
            self.talk.add("said", data[:room])
        if self.cut_reply and room <= len(data):
            ending, self.cut_reply = self.cut_reply[1], None
            self._do(ending)


def _text(act: Act) -> str:
    if isinstance(act, tuple):
        return "".join(map(_text, act))
    said = act.text if isinstance(act, Drip | Late) else act
    if isinstance(said, bytes):
        return said.decode("latin-1")
    return said if isinstance(said, str) else ""


def _bare(command: str) -> str:
    return command[command.index("<") + 1 : command.index(">")]

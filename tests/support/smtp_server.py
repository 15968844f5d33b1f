"""SMTP servers for tests: real ones (aiosmtpd, with TLS and login) and one that misbehaves as told, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import io
import ipaddress
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


def make_certificate(folder: Path, *, host: str = "localhost") -> tuple[Path, Path]:
    """(certificate, key) files for ``host`` and 127.0.0.1, signed by itself: the certificate is its own authority."""
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
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
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


# Text is said as a line, bytes are said as they are.
Act = str | bytes | type[Cut | Close | Hang | Deaf] | Drip | Taken | Late

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
}


class _Gone(Exception):
    """The connection is over."""


class _Heard(io.RawIOBase):
    """What a connection brings, kept in ``book``, up to its ``most``th byte."""

    def __init__(self, connection: socket.socket, book: bytearray, most: int | None) -> None:
        super().__init__()
        self.book = book
        self._connection, self._most = connection, most

    def readable(self) -> bool:
        return True

    @property
    def full(self) -> bool:
        """Whether the last byte that may come has come."""
        return self._most is not None and len(self.book) >= self._most

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        room = len(buffer) if self._most is None else self._most - len(self.book)
        count = self._connection.recv_into(memoryview(buffer)[:room]) if room else 0
        self.book += buffer[:count]
        return count


@dataclass
class ScriptedServer:
    """``ScriptedServer({"RCPT": ["450 later", Cut]})``: the acts of a step are used up in order, then it is usual.

    ``limit=(3, {"MAIL": "421 enough"})``: on a connection that has brought three messages, these steps go so.
    ``cut=(100, Close)``: the first connection ends after its 100th byte, and what that byte ended is not answered.
    """

    script: dict[str, Sequence[Act]] = field(default_factory=dict)
    usual: dict[str, Act] = field(default_factory=dict)
    limit: tuple[int, dict[str, Act]] = (0, {})
    cut: tuple[int, type[Cut | Close]] | None = None
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        self.messages: list[Arrived] = []
        self.commands: list[str] = []
        self.connections = 0
        self.heard: list[bytearray] = []  # what each connection brought
        self.refused: dict[str, str] = {}  # address → the reply to RCPT
        self._acts = {step: deque(acts) for step, acts in self.script.items()}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server((HOST, 0))
        self.port = int(self._listener.getsockname()[1])

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
                self.connections += 1
                self._open.add(connection)
                self._spawn(self._serve, connection, self.cut if self.connections == 1 else None)

    def _serve(self, raw: socket.socket, cut: tuple[int, type[Cut | Close]] | None) -> None:
        with raw, contextlib.suppress(_Gone, OSError):
            connection = self._secured(raw)
            heard = _Heard(connection, bytearray(), cut[0] if cut else None)
            self.heard.append(heard.book)
            lines = io.BufferedReader(heard)
            try:
                _Session(self, connection, heard, lines, cut[1] if cut else Cut).converse()
            finally:
                self._open.discard(connection)
                connection.close()

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
        return self.usual.get(step, USUAL.get(step, "502 5.5.2 what?"))

    def wait(self, seconds: float) -> None:
        """Lets time pass, unless and until the server is stopped."""
        self._stopping.wait(seconds)


@dataclass
class _Session:
    """One connection to a ``ScriptedServer``."""

    server: ScriptedServer
    connection: socket.socket
    heard: _Heard
    lines: io.BufferedReader
    ending: type[Cut | Close]
    brought: int = 0

    def converse(self) -> None:
        self._act("connect")
        sender = recipient = ""
        while (line := self.lines.readline()).endswith(b"\n"):
            command = line.decode("utf-8", "replace").strip()
            self.server.commands.append(command)
            verb = command[:4].upper()
            sender = command if verb == "MAIL" else sender
            recipient = command if verb == "RCPT" else recipient
            if verb == "RCPT" and _bare(command) in self.server.refused:
                self._do(self.server.refused[_bare(command)])
                continue
            said = _text(self._act(verb))
            if verb == "DATA" and said.startswith("354"):
                self._receive(sender, recipient)
            if verb == "QUIT":
                return
        self._end_if_cut()

    def _receive(self, sender: str, recipient: str) -> None:
        act = self.server.next("body", self.brought)
        if act is Cut:
            self.lines.read(1000)  # some of it came
        self._do(act)
        body = b""
        while (line := self.lines.readline()) != b".\r\n":
            if not line.endswith(b"\n"):
                self._end_if_cut()
                raise _Gone
            body += line.removeprefix(b".")
        self.brought += 1
        act = self.server.next("dot", self.brought)
        if isinstance(act, Taken) or (isinstance(act, str) and act.startswith("250 ")):
            self.server.messages.append(Arrived(_bare(sender), _bare(recipient), body))
        self._do(act.then if isinstance(act, Taken) else act)

    def _act(self, step: str) -> Act:
        act = self.server.next(step, self.brought)
        self._do(act)
        return act

    def _end_if_cut(self) -> None:
        if self.heard.full:
            self._do(self.ending)

    def _do(self, act: Act) -> None:
        if self.heard.full:
            act = self.ending
        if act is Cut:
            # Lingering for 0 seconds makes close() send RST.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise _Gone
        if act is Close:
            self.connection.shutdown(socket.SHUT_WR)
        if act in {Close, Hang}:
            while more := self.connection.recv(65536):
                self.heard.book += more
            raise _Gone
        if act is Deaf:
            self.server.wait(30)
            raise _Gone
        self._say(act)

    def _say(self, act: Act) -> None:
        if isinstance(act, Drip):
            for byte in act.text.encode() + b"\r\n":
                self.connection.sendall(bytes([byte]))
                self.server.wait(act.pause)
            return
        said = act.text if isinstance(act, Late) else act
        assert isinstance(said, str | bytes)
        if said:
            self.connection.sendall(said if isinstance(said, bytes) else f"{said}\r\n".encode())
        if isinstance(act, Late):
            raise _Gone


def _text(act: Act) -> str:
    said = act.text if isinstance(act, Drip | Late) else act
    return said.decode("latin-1") if isinstance(said, bytes) else str(said)


def _bare(command: str) -> str:
    return command[command.index("<") + 1 : command.index(">")]

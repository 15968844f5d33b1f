"""SMTP servers for tests: real ones (aiosmtpd, with TLS and login) and one that misbehaves as told, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
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
    """aiosmtpd's handler: keeps what arrives, refuses whom it is told to."""

    def __init__(self) -> None:
        self.messages: list[Arrived] = []
        self.refused: dict[str, str] = {}  # address → the reply to RCPT
        self.port = 0

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


class Hang:
    """Says nothing until the other side gives up."""


class Deaf:
    """Neither speaks nor reads."""


@dataclass(frozen=True)
class Drip:
    """Says this a byte at a time, with ``pause`` seconds between."""

    text: str
    pause: float


@dataclass(frozen=True)
class Taken:
    """Keeps the message, and then does this instead of saying so."""

    then: str | type[Cut | Hang | Deaf] | Drip


@dataclass(frozen=True)
class Late:
    """Says this and closes: what a server does with a connection it wants to be rid of."""

    text: str


Act = str | type[Cut | Hang | Deaf] | Drip | Taken | Late

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


@dataclass
class ScriptedServer:
    """``ScriptedServer({"RCPT": ["450 later", Cut]})``: the acts of a step are used up in order, then it is usual."""

    script: dict[str, Sequence[Act]] = field(default_factory=dict)
    usual: dict[str, Act] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.messages: list[Arrived] = []
        self.commands: list[str] = []
        self.connections = 0
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
                self._spawn(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(_Gone, OSError):
            lines = connection.makefile("rb")
            try:
                self._converse(connection, lines)
            finally:
                self._open.discard(connection)
                with contextlib.suppress(OSError):
                    lines.close()

    def _converse(self, connection: socket.socket, lines) -> None:  # type: ignore[no-untyped-def]
        self._act("connect", connection)
        sender = recipient = ""
        while line := lines.readline():
            command = line.decode("utf-8", "replace").strip()
            with self._lock:
                self.commands.append(command)
            verb = command[:4].upper()
            sender = command if verb == "MAIL" else sender
            recipient = command if verb == "RCPT" else recipient
            if verb == "RCPT" and _bare(command) in self.refused:
                self._do(self.refused[_bare(command)], connection)
                continue
            said = self._act(verb, connection)
            if verb == "DATA" and said.startswith("354"):
                self._receive(connection, lines, sender, recipient)
            if verb == "QUIT":
                return

    def _receive(self, connection: socket.socket, lines, sender: str, recipient: str) -> None:  # type: ignore[no-untyped-def]
        self._act("body", connection, lines)
        body = b""
        while (line := lines.readline()) != b".\r\n":
            if not line:
                raise _Gone
            body += line.removeprefix(b".")
        arrived = Arrived(_bare(sender), _bare(recipient), body)
        act = self._next("dot")
        if isinstance(act, Taken) or (isinstance(act, str) and act.startswith("250")):
            with self._lock:
                self.messages.append(arrived)
        self._do(act.then if isinstance(act, Taken) else act, connection)

    def _next(self, step: str) -> Act:
        with self._lock:
            acts = self._acts.get(step)
            if acts:
                return acts.popleft()
        return self.usual.get(step, USUAL.get(step, "502 5.5.2 what?"))

    def _act(self, step: str, connection: socket.socket, lines=None) -> str:  # type: ignore[no-untyped-def]
        act = self._next(step)
        if step == "body" and act is Cut:
            lines.read(1000)  # some of it came
        return self._do(act, connection)

    def _do(self, act: Act, connection: socket.socket) -> str:
        if act is Cut:
            # Lingering for 0 seconds makes close() send RST.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise _Gone
        if act is Hang:
            while connection.recv(65536):
                pass
            raise _Gone
        if act is Deaf:
            self._stopping.wait(30)
            raise _Gone
        if isinstance(act, Drip):
            for byte in act.text.encode() + b"\r\n":
                connection.sendall(bytes([byte]))
                self._stopping.wait(act.pause)
            return act.text
        if isinstance(act, Late):
            connection.sendall(f"{act.text}\r\n".encode())
            raise _Gone
        assert isinstance(act, str)
        if act:
            connection.sendall(f"{act}\r\n".encode())
        return act


def _bare(command: str) -> str:
    return command[command.index("<") + 1 : command.index(">")]

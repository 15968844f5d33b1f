"""A nameserver on loopback, over UDP and TCP, that knows one zone and fails as told."""

from __future__ import annotations

import socketserver
import struct
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from newsletter.doctor.names import Names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dns.message import Message

HOST = "127.0.0.1"


@dataclass
class Zone:
    """``records[name, kind]`` are the texts of a zone file. What is not in it does not exist."""

    records: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)  # names that get SERVFAIL
    silent: set[str] = field(default_factory=set)  # names that get nothing
    large: set[str] = field(default_factory=set)  # names whose answer is too large for UDP
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # (way, name, kind)
    port: int = 0

    def put(self, name: str, kind: str, *texts: str) -> None:
        """In place of what was there."""
        self.records[name, kind] = list(texts)

    def txt(self, name: str, *values: str) -> None:
        """TXT records, cut into strings as a zone file has to."""
        cut = [[value[start : start + 255] for start in range(0, len(value), 255)] for value in values]
        self.put(name, "TXT", *(" ".join(f'"{part}"' for part in parts) for parts in cut))

    @property
    def nameserver(self) -> str:
        """What `--nameserver` takes."""
        return f"{HOST}:{self.port}"

    def names(self, seconds: float = 3.0) -> Names:
        """Asks this one."""
        return Names(self.nameserver, seconds=seconds)

    def answer(self, query: Message, way: str) -> bytes | None:
        question = query.question[0]
        name, kind = (
            question.name.to_text(omit_final_dot=True).lower(),
            dns.rdatatype.to_text(question.rdtype),
        )
        self.asked.append((way, name, kind))
        if name in self.silent:
            return None
        reply = dns.message.make_response(query)
        if name in self.failing:
            reply.set_rcode(dns.rcode.SERVFAIL)
        elif way == "udp" and name in self.large:
            reply.flags |= dns.flags.TC
        elif texts := self.records.get((name, kind)):
            reply.answer.append(dns.rrset.from_text_list(question.name, 60, "IN", kind, texts))
        elif not any(known == name for known, _ in self.records):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        return reply.to_wire()


class _Udp(socketserver.BaseRequestHandler):
    server: _UdpServer

    def handle(self) -> None:
        data, sock = self.request
        if answer := self.server.zone.answer(dns.message.from_wire(data), "udp"):
            sock.sendto(answer, self.client_address)


class _Tcp(socketserver.StreamRequestHandler):
    server: _TcpServer

    def handle(self) -> None:
        [length] = struct.unpack("!H", self.rfile.read(2))
        if answer := self.server.zone.answer(dns.message.from_wire(self.rfile.read(length)), "tcp"):
            self.wfile.write(struct.pack("!H", len(answer)) + answer)


class _UdpServer(socketserver.ThreadingUDPServer):
    daemon_threads = True
    zone: Zone


class _TcpServer(socketserver.ThreadingTCPServer):
    daemon_threads = allow_reuse_address = True
    zone: Zone


@contextmanager
def dns_server(zone: Zone | None = None) -> Iterator[Zone]:
    """Runs one on a free port."""
    zone = zone or Zone()
    with _TcpServer((HOST, 0), _Tcp) as tcp, _UdpServer(tcp.server_address, _Udp) as udp:
        zone.port = tcp.server_address[1]
        tcp.zone = udp.zone = zone
        threads = [
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="dns")
            for server in (tcp, udp)
        ]
        for thread in threads:
            thread.start()
        try:
            yield zone
        finally:
            for server in (tcp, udp):
                server.shutdown()
            for thread in threads:
                thread.join(10)

"""Asks nameservers, and tells "there is none" from "nobody answered"."""

from __future__ import annotations

import ipaddress
from functools import cache
from typing import TYPE_CHECKING

import dns.exception
import dns.resolver
from dns.rdatatype import RdataType

from newsletter.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dns.rdata import Rdata

SECONDS = 3.0  # for one question
DNS_PORT = 53


class Unanswered(Exception):
    """No nameserver has said whether there is such a record. The text says why, for the end of a sentence."""


class Names:
    """Questions to the system's nameservers, or to one. Each is asked once. Threads may share it."""

    def __init__(self, nameserver: str = "", *, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._nameserver = _address(nameserver) if nameserver else None
        self._find = cache(self._ask)

    def txt(self, name: str) -> Sequence[str]:
        """Every TXT record, its strings put together (RFC 7208, section 3.3). Raises ``Unanswered``."""
        return [
            b"".join(getattr(record, "strings", ())).decode("utf-8", "replace")
            for record in self._find(name, RdataType.TXT)
        ]

    def mx(self, name: str) -> Sequence[str]:
        """The mail servers; ``.`` is one that takes nothing (RFC 7505). Raises ``Unanswered``."""
        return [str(getattr(record, "exchange", "")) for record in self._find(name, RdataType.MX)]

    def addresses(self, name: str) -> Sequence[str]:
        """IPv4 and IPv6. Raises ``Unanswered``."""
        kinds = RdataType.A, RdataType.AAAA
        return [str(record) for kind in kinds for record in self._find(name, kind)]

    def _ask(self, name: str, kind: RdataType) -> tuple[Rdata, ...]:
        try:
            return tuple(self._resolver().resolve(f"{name}.", kind, lifetime=self._seconds, search=False))
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return ()
        except dns.resolver.LifetimeTimeout:
            raise Unanswered(f"no nameserver answered within {self._seconds:g} s") from None
        except dns.resolver.NoNameservers:
            raise Unanswered("the nameservers failed (SERVFAIL or REFUSED)") from None
        except (dns.exception.DNSException, OSError, UnicodeError) as error:
            raise Unanswered(f"it can't be asked for ({type(error).__name__})") from None

    def _resolver(self) -> dns.resolver.Resolver:
        if self._nameserver is None:
            return dns.resolver.Resolver()
        host, port = self._nameserver
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = [host], port
        return resolver


def _address(text: str) -> tuple[str, int]:
    """``127.0.0.1``, ``127.0.0.1:5353``, ``::1`` or ``[::1]:5353``."""
    host, colon, port = text.rpartition(":") if text.count(":") == 1 or "]:" in text else (text, "", "")
    try:
        return str(ipaddress.ip_address(host.strip("[]"))), int(port) if colon else DNS_PORT
    except ValueError:
        raise UsageError(
            f"--nameserver {text!r} is no address of a nameserver.",
            hint="It reads 192.0.2.53 or 192.0.2.53:5353.",
        ) from None

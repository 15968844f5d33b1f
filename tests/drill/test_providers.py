"""The fake providers: a copy is in the book when the provider has it whole, whatever happened to the sender."""

from __future__ import annotations

import json
import random
import socket
import struct
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from newsletter.drill.book import Book
from newsletter.drill.faults import SMTP_COPY, Deck
from newsletter.drill.sendgrid_provider import SendGridProvider
from newsletter.drill.smtp_provider import SmtpProvider

if TYPE_CHECKING:
    from collections.abc import Iterator

    from newsletter.drill.provider import Provider

COPY = b"Message-ID: <0a@example.org>\r\nSubject: hello\r\n\r\nText\r\n"


@contextmanager
def provider(kind: type[Provider], book: Book) -> Iterator[Provider]:
    """One that makes no faults."""
    with kind(book, seed=1, chance=0) as running:
        yield running


def talk(port: int, *parts: bytes) -> bytes:
    """Sends each part when the answer to the one before has come; then dies without a goodbye."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        heard = b""
        for part in parts:
            sock.sendall(part)
            heard = sock.recv(1000) if part is not parts[-1] else heard
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
        return heard


def smtp(port: int, end: bytes) -> None:
    """Hands over one copy, and dies right after ``end``."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock, sock.makefile("rb") as answers:
        assert answers.readline().startswith(b"220")
        for command in (b"MAIL FROM:<d@example.org>", b"RCPT TO:<zoe@example.org>", b"DATA"):
            sock.sendall(command + b"\r\n")
            assert answers.readline()[:1] in {b"2", b"3"}
        sock.sendall(COPY + end)


def test_a_copy_whose_dot_was_sent_is_in_the_book_though_its_sender_died() -> None:
    book = Book()
    with provider(SmtpProvider, book) as running:
        smtp(running.port, b".\r\n")
        assert running.drain()
        assert not running.bugs
    assert [(copy.delivery, copy.address) for copy in book.copies] == [("0a", "zoe@example.org")]


def test_a_copy_without_its_dot_is_not_in_the_book() -> None:
    book = Book()
    with provider(SmtpProvider, book) as running:
        smtp(running.port, b".\r")
        assert running.drain()
    assert not book.copies


def request(length: int | None = None) -> bytes:
    members = [
        {"to": [{"email": f"{name}@example.org"}], "custom_args": {"delivery": name}}
        for name in ("zoe", "li")
    ]
    body = json.dumps({"personalizations": members}).encode()
    head = f"POST /v3/mail/send HTTP/1.1\r\nContent-Length: {length or len(body)}\r\n\r\n"
    return head.encode() + body


def test_a_request_that_came_whole_is_in_the_book_though_its_sender_died() -> None:
    book = Book()
    with provider(SendGridProvider, book) as running:
        talk(running.port, request())
        assert running.drain()
        assert not running.bugs
    assert [copy.delivery for copy in book.copies] == ["zoe", "li"]


def test_a_request_that_is_a_byte_short_is_not_in_the_book() -> None:
    book = Book()
    with provider(SendGridProvider, book) as running:
        talk(running.port, request(length=len(request())))
        assert running.drain()
    assert not book.copies


def test_somebody_who_shares_a_personalization_is_in_the_book_too() -> None:
    shared = {
        "to": [{"email": "a@example.org"}, {"email": "b@example.org"}],
        "custom_args": {"delivery": "0a"},
    }
    body = json.dumps({"personalizations": [shared]}).encode()
    book = Book()
    with provider(SendGridProvider, book) as running:
        talk(running.port, b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        assert running.drain()
    assert [copy.address for copy in book.copies] == ["a@example.org", "b@example.org"]


def test_draining_waits_for_connections_that_are_still_open() -> None:
    with provider(SmtpProvider, Book()) as running:
        with socket.create_connection(("127.0.0.1", running.port)):
            assert not running.drain(0.1)
        assert running.drain()


def test_a_deck_deals_every_kind_of_fault_before_any_comes_again() -> None:
    deck = Deck(SMTP_COPY, 1.0, random.Random(1))
    often = [fault for fault in SMTP_COPY if not fault.rare]
    first = [deck.draw() for _ in SMTP_COPY]
    second = [deck.draw() for _ in often]
    assert Counter(first) == Counter(SMTP_COPY)
    assert Counter(second) == Counter(often)


def test_the_same_seed_deals_the_same_faults() -> None:
    one, other = (Deck(SMTP_COPY, 0.3, random.Random(5)) for _ in range(2))
    assert [one.draw() for _ in range(200)] == [other.draw() for _ in range(200)]

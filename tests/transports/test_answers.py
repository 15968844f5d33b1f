"""A provider's words, as the ledger may keep them."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsletter.transports import deadline
from newsletter.transports.answers import words
from newsletter.transports.deadline import DeadlineReader


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (b"5.1.1 <bob@example.org>: no such user", "5.1.1 … no such user"),
        (b"user=bob@example.org, rejected", "… rejected"),
        ("right to left \u202emark", "right to left mark"),
        (b"line one\r\nline two\x1b[31m red", "line one line two [31m red"),
        (b"\xff\xfe", "��"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (b"", ""),
    ],
)
def test_words_hold_no_address_and_no_control_character(said: object, kept: str) -> None:
    assert words(said) == kept


@given(st.text())
def test_words_are_one_short_line_whatever_was_said(said: str) -> None:
    kept = words(said)
    assert len(kept) <= 300
    assert "@" not in kept
    assert len(kept.splitlines()) <= 1


def test_a_dripping_answer_ends_at_the_deadline() -> None:
    ours, theirs = socket.socketpair()
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(0.02):
            theirs.sendall(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        reader = DeadlineReader(ours)
        reader.allow(0.2)
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            reader.makefile().readline()
        assert time.monotonic() - started < 5
    finally:
        stop.set()
        thread.join()
        ours.close()
        theirs.close()


def test_an_endless_answer_ends_at_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "MOST_BYTES", 1000)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"x" * 20_000)
        reader = DeadlineReader(ours)
        reader.allow(5)
        with pytest.raises(OSError, match="longer than"):
            reader.makefile().read()


def test_without_time_only_what_has_arrived_is_read() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader = DeadlineReader(ours)
        theirs.sendall(b"early")
        reader.allow(0)
        assert reader.makefile().peek(1) == b"early"
        reader.allow(0)
        with pytest.raises(TimeoutError):
            DeadlineReader.readinto(reader, bytearray(10))

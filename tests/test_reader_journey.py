"""A reader's whole way, in a real browser, with a real mail server: join, read, rest, choose, leave, be forgotten."""

from __future__ import annotations

import json
import re
import time
from email import message_from_bytes, policy
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest

from tests.support.browser import Browser, browser
from tests.support.mail import Mail
from tests.support.publisher import publisher
from tests.support.served import Served, serving
from tests.support.smtp_server import Mailbox, smtp_server
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.browser

ANN = "ann@example.net"
SENDING = '[sending]\nmode = "live"\ntransport = "smtp"\n[smtp]\nport = {port}\nsecurity = "none"\n'


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    with browser() as opened:
        opened.width(375, phone=True)
        yield opened


class Reader:
    """Somebody with a phone and an inbox."""

    def __init__(self, tab: Browser, served: Served, inbox: Mailbox) -> None:
        self.tab, self.served, self.inbox = tab, served, inbox
        self.read = 0  # messages

    def open(self, path: str) -> None:
        self.tab.open(f"http://127.0.0.1:{self.served.port}{path}")

    @property
    def heading(self) -> str:
        return str(self.tab.evaluate("document.querySelector('h1').textContent")).strip()

    def press(self, words: str) -> None:
        """Presses the button with these words, and waits for the next page."""
        found = (
            f"[...document.querySelectorAll('button')].find(b => b.textContent.includes({json.dumps(words)}))"
        )
        assert self.tab.evaluate(f"Boolean({found})"), f"no button {words!r} on: {self.heading}"
        self.tab.evaluate(f"{found}.click()")
        self.arrive()

    def arrive(self) -> None:
        while self.tab._receive().get("method") != "Page.loadEventFired":
            pass

    def sign_up(self, address: str) -> None:
        """By keyboard alone. Whoever is faster than a person is asked to press once more, and nothing is lost."""
        self.open("/subscribe")
        self.tab.evaluate("document.querySelector('#email').focus()")
        self.tab.call("Input.insertText", text=address)
        deadline = time.monotonic() + 60
        while self.tab.evaluate("Boolean(document.querySelector('#email'))"):
            assert time.monotonic() < deadline
            self.tab.evaluate("document.querySelector('#email').focus()")
            for kind in ("keyDown", "keyUp"):
                key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
                self.tab.call("Input.dispatchKeyEvent", type=kind, **key)
            self.arrive()

    def next_mail(self, to: str = ANN) -> Mail:
        wait_for(lambda: len(self.inbox.messages) > self.read)
        arrived = self.inbox.messages[self.read]
        self.read += 1
        assert arrived.recipient == to
        return Mail(arrived.content, message_from_bytes(arrived.content, policy=policy.default))  # type: ignore[arg-type]

    def follow(self, mail: Mail, kind: str) -> str:
        """Opens the link of this kind; returns its path."""
        found = re.search(rf"https://news\.example\.org(/{kind}/[\w-]+)", mail.text)
        assert found, mail.text
        self.open(found[1])
        return found[1]


@pytest.fixture
def inbox() -> Iterator[Mailbox]:
    with smtp_server() as server:
        yield server


@pytest.fixture
def reader(tab: Browser, inbox: Mailbox, tmp_path: Path) -> Iterator[Reader]:
    folder = publisher(tmp_path / "press", SENDING.format(port=inbox.port))
    with serving(folder) as running:
        yield Reader(tab, running, inbox)


def join(reader: Reader) -> None:
    reader.sign_up(ANN)
    assert reader.heading == "Please look into your inbox"
    letter = reader.next_mail()
    assert letter.subject == "Please confirm: Research Digest"
    reader.follow(letter, "c")
    assert reader.served.numbers("state = 'pending'"), "looking changes nothing"
    assert "health" in str(reader.tab.evaluate("document.body.textContent"))
    reader.press("Yes, I want to get it")
    assert reader.heading == "You are on the list"


def test_a_reader_joins_reads_rests_chooses_and_leaves(reader: Reader) -> None:
    join(reader)
    press = reader.served.folder
    press.newsletter("send", "2026-12", "--confirm", "1")
    issue = reader.next_mail()
    assert issue.subject == "Iron in the thalamus"
    leave = reader.follow(issue, "u")
    assert reader.served.numbers("state = 'active'"), "looking changes nothing"
    reader.press("Large print")
    assert reader.served.database().execute("SELECT edition FROM subscriber").fetchone() == ("large",)
    reader.open(leave)
    reader.press("3 months")
    assert reader.served.numbers("state = 'paused'")
    reader.follow(issue, "p")
    reader.press("End")
    assert reader.served.numbers("state = 'active'")
    next_issue = press.root / "issues" / "2027-01"
    (press.root / "issues" / "2026-12").rename(next_issue)
    toml = (next_issue / "issue.toml").read_text("utf-8")
    (next_issue / "issue.toml").write_text(toml.replace("2026-12-01", "2027-01-05"), "utf-8")
    press.newsletter("send", "2027-01", "--confirm", "1")
    assert "font-size:20px" in reader.next_mail().html
    reader.open(leave)
    reader.press("Unsubscribe")
    assert reader.served.numbers("state = 'unsubscribed'")
    assert reader.tab.requests
    assert {url.split("/")[2] for url in reader.tab.requests} == {f"127.0.0.1:{reader.served.port}"}


def test_a_reader_sees_their_data_moves_and_is_forgotten(reader: Reader) -> None:
    """The links in the letters are used as they came; what a person may know, a file shows, and once."""
    join(reader)
    [number] = reader.served.numbers()
    ask = {"action": "access"}
    preferences = _preferences(reader, number)
    reader.open(preferences)
    reader.press("Send me the link")
    path = reader.follow(reader.next_mail(), "a")
    status, data = reader.served.ask("POST", path, urlencode({"action": "download"}))
    assert (status, json.loads(data)["person"]["address"]) == (200, ANN)
    assert reader.served.ask("POST", path, urlencode({"action": "download"}))[0] == 410, "a link works once"
    _wait_for_the_throttle(reader)
    reader.served.ask("POST", preferences, urlencode(ask))
    path = reader.follow(reader.next_mail(), "a")
    new = "ann@example.com"
    reader.served.ask("POST", path, urlencode({"action": "change", "email": new}))
    reader.follow(reader.next_mail(new), "c")
    reader.press("Yes, write to me here")
    assert reader.served.database().execute("SELECT address FROM subscriber").fetchone() == (new,)
    _wait_for_the_throttle(reader)
    reader.served.ask("POST", preferences, urlencode(ask))
    path = reader.follow(reader.next_mail(new), "a")
    reader.served.ask("POST", path, urlencode({"action": "erase", "sure": "yes"}))
    row = reader.served.database().execute("SELECT address, address_key, name FROM subscriber").fetchone()
    assert row == (None, None, "")
    database = reader.served.folder.root / ".newsletter" / "newsletter.db"
    left = b"".join(file.read_bytes() for file in database.parent.glob("newsletter.db*"))
    assert ANN.encode() not in left
    assert new.encode() not in left


def _preferences(reader: Reader, number: int) -> str:
    from newsletter.tokens import Keyring, Purpose, make
    from tests.support.publisher import A_KEY

    return f"/p/{make(Purpose.PREFERENCES, number, Keyring.parse(f'1:{A_KEY}'))}"


def _wait_for_the_throttle(reader: Reader) -> None:
    """Ten minutes later: nobody gets letter after letter."""
    with reader.served.database() as conn:
        conn.execute("DELETE FROM throttle")

"""Somebody with a browser, a keyboard and an inbox."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.support.mail import Mail, read
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from tests.support.browser import Browser
    from tests.support.served import Served
    from tests.support.smtp_server import Mailbox

# The words of what has the focus: a button's or link's own, a field's label.
FOCUS = """(() => {
    const at = document.activeElement
    const seen = at === document.body || getComputedStyle(at).outlineStyle !== "none"
    return [((at.labels && at.labels[0]) || at).textContent.trim(), at === document.body, seen]
})()"""


class Reader:
    """Uses pages as people do who see little and have no mouse: with Tab, Enter and the blank."""

    def __init__(self, tab: Browser, served: Served, inbox: Mailbox) -> None:
        self.tab, self.served, self.inbox = tab, served, inbox
        self.read = 0  # messages

    def open(self, path: str) -> None:
        self.tab.open(f"http://127.0.0.1:{self.served.port}{path}")

    @property
    def heading(self) -> str:
        return str(self.tab.evaluate("document.querySelector('h1').textContent")).strip()

    def reach(self, words: str) -> None:
        """Tab after Tab until something with these words has the focus; the focus is always seen."""
        passed = []
        while True:
            self.tab.key("Tab")
            found, nowhere, seen = self.tab.evaluate(FOCUS)
            assert seen, found
            if not nowhere and words in found:
                return
            passed.append(found)
            # The way leads over the browser's own parts and begins again.
            assert passed.count(found) < 3, f"no {words!r} on {self.heading!r}: {passed}"

    def press(self, words: str) -> None:
        """The button or link with these words, and waits for where it leads to."""
        self.reach(words)
        with self.tab.arriving():
            self.tab.key("Enter")

    def fill(self, label: str, text: str) -> None:
        self.reach(label)
        self.tab.evaluate("document.activeElement.select()")
        self.tab.type(text)

    def sign_up(self, address: str, *, label: str, button: str) -> None:
        """Whoever is faster than a person is asked to press once more, and nothing is lost."""
        self.open("/subscribe")
        self.fill(label, address)
        while self.tab.evaluate("Boolean(document.querySelector('#email'))"):
            assert self.tab.evaluate("document.querySelector('#email').value") == address
            self.press(button)

    def next_mail(self, to: str) -> Mail:
        wait_for(lambda: len(self.inbox.messages) > self.read, self.served.process)
        arrived = self.inbox.messages[self.read]
        self.read += 1
        assert arrived.recipient == to
        return read(arrived.content)

    def follow(self, mail: Mail, kind: str) -> str:
        """Opens the mail's link of this kind; returns its path."""
        found = re.search(rf"https://news\.example\.org(/{kind}/[\w-]+)", mail.text)
        assert found, mail.text
        self.open(found[1])
        return found[1]

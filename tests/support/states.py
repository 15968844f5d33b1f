"""Every state in which a reader can see one of our pages, and how a browser comes there."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from newsletter.tokens import Keyring, Purpose, make
from tests.support.publisher import A_KEY
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.support.browser import Browser
    from tests.support.served import Served

RING = Keyring.parse(f"1:{A_KEY}")
PATHS = {Purpose.UNSUBSCRIBE: "u", Purpose.PREFERENCES: "p", Purpose.ACCESS: "a"}
POST = """(() => {
    const form = document.createElement("form"), sent = %s
    form.method = "post"
    form.action = %s
    for (const [name, value] of sent) {
        const field = document.createElement("input")
        field.type = "hidden"
        ;[field.name, field.value] = [name, value]
        form.append(field)
    }
    document.body.append(form)
    form.submit()
})()"""


@dataclass
class Walk:
    """A browser and a server whose list has somebody for every state, so that none comes in another's way."""

    tab: Browser
    served: Served
    people: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.people = self.served.numbers("state = 'active'")

    def somebody(self) -> int:
        return self.people.pop()

    def get(self, path: str) -> None:
        self.tab.open(f"http://127.0.0.1:{self.served.port}{path}")

    def post(self, path: str, sent: Mapping[str, str]) -> None:
        """As a button of the page does."""
        if f"127.0.0.1:{self.served.port}/" not in self.tab.evaluate("location.href"):
            self.get("/subscribe")
        with self.tab.arriving():
            self.tab.evaluate(POST % (json.dumps(list(sent.items())), json.dumps(path)))

    def link(self, purpose: Purpose, number: int, expires: datetime | None = None) -> str:
        expires = expires or (datetime.now(UTC) + timedelta(hours=1) if purpose.expires else None)
        return f"/{PATHS.get(purpose, 'c')}/{make(purpose, number, RING, expires=expires)}"

    def leave(self, **sent: str) -> None:
        self._at(Purpose.UNSUBSCRIBE, sent)

    def choose(self, **sent: str) -> None:
        self._at(Purpose.PREFERENCES, sent)

    def _at(self, purpose: Purpose, sent: Mapping[str, str]) -> None:
        path = self.link(purpose, self.somebody())
        self.post(path, sent) if sent else self.get(path)

    def access(self) -> str:
        """The link of a letter that somebody has asked for."""
        number = self.somebody()
        self.served.ask("POST", self.link(Purpose.PREFERENCES, number), "action=access")
        return self.link(Purpose.ACCESS, number, self._expires("access", f"subscription_id = {number}"))

    def change(self, address: str) -> str:
        """The link of a letter to somebody's new address."""
        self.served.ask("POST", self.access(), f"action=change&email={address.replace('@', '%40')}")
        [number] = self._letters("subscription_id", f"purpose = 'change' AND address = '{address}'")
        return self.link(Purpose.CHANGE, number, self._expires("change", f"subscription_id = {number}"))

    def sign_up(self, address: str) -> int:
        """The new subscription; its letter has left."""
        self.served.ask("POST", "/subscribe", f"email={address.replace('@', '%40')}")
        [letter] = self._letters("id", f"address = '{address}'")
        known = f"id = {letter} AND subscription_id IS NOT NULL"
        wait_for(lambda: bool(self._letters("id", known)), self.served.process)
        return self._letters("subscription_id", f"id = {letter}")[0]

    def confirmation(self, number: int) -> str:
        return self.link(Purpose.CONFIRM, number, self._expires("subscribe", f"subscription_id = {number}"))

    def _expires(self, purpose: str, where: str) -> datetime:
        [moment] = self._letters("expires_at", f"purpose = '{purpose}' AND {where}")
        return datetime.fromtimestamp(moment // 10**6, UTC)

    def _letters(self, column: str, where: str) -> list[int]:
        conn = self.served.database()
        found = [row[0] for row in conn.execute(f"SELECT {column} FROM letter WHERE {where}")]
        conn.close()
        return found


def _pending(walk: Walk) -> None:
    walk.get(walk.link(Purpose.PREFERENCES, walk.sign_up("pending@example.org")))


def _confirm(walk: Walk) -> None:
    walk.post(walk.confirmation(walk.sign_up("new@example.org")), {})


def _used(walk: Walk) -> None:
    link = walk.access()
    walk.served.ask("POST", link, "action=download")
    walk.get(link)


def _hasty(walk: Walk) -> None:
    walk.get("/subscribe")
    started = walk.tab.evaluate("document.querySelector('[name=started]').value")
    walk.post("/subscribe", {"email": "hasty@example.org", "started": started})


STATES: dict[str, Callable[[Walk], None]] = {
    "subscribe": lambda walk: walk.get("/subscribe"),
    "subscribe-no-address": lambda walk: walk.post("/subscribe", {"email": " "}),
    "subscribe-wrong-address": lambda walk: walk.post("/subscribe", {"email": "x" * 60 + " at example.org"}),
    "subscribe-too-fast": _hasty,
    "asked": lambda walk: walk.post("/subscribe", {"email": "asked@example.org"}),
    "confirm": lambda walk: walk.get(walk.link(Purpose.CONFIRM, walk.somebody())),
    "confirmed": _confirm,
    "expired": lambda walk: walk.post(walk.link(Purpose.CONFIRM, walk.somebody()), {}),
    "leave": lambda walk: walk.leave(),
    "left": lambda walk: walk.leave(action="leave"),
    "resting": lambda walk: walk.leave(action="pause", months="6"),
    "chosen": lambda walk: walk.leave(action="edition", edition="large"),
    "preferences": lambda walk: walk.choose(),
    "preferences-pending": _pending,
    "preferences-paused": lambda walk: walk.choose(action="pause", months="3"),
    "preferences-left": lambda walk: walk.choose(action="leave", list="readers"),
    "preferences-joining": lambda walk: walk.choose(action="join", list="events"),
    "preferences-edition": lambda walk: walk.choose(action="edition", edition="text"),
    "preferences-access": lambda walk: walk.choose(action="access"),
    "access": lambda walk: walk.get(walk.access()),
    "access-wrong-address": lambda walk: walk.post(walk.access(), {"action": "change", "email": "x@"}),
    "access-unsure": lambda walk: walk.post(walk.access(), {"action": "erase"}),
    "access-used": _used,
    "change-asked": lambda walk: walk.post(walk.access(), {"action": "change", "email": "a@example.org"}),
    "change": lambda walk: walk.get(walk.change("b@example.org")),
    "changed": lambda walk: walk.post(walk.change("c@example.org"), {}),
    "taken": lambda walk: walk.post(walk.change("reader00000@example.org"), {}),
    "erased": lambda walk: walk.post(walk.access(), {"action": "erase", "sure": "yes"}),
    "invalid": lambda walk: walk.get("/u/nothing"),
    "missing": lambda walk: walk.get("/nothing"),
    "refused": lambda walk: walk.post("/subscribe", {str(number): "" for number in range(50)}),
    "large": lambda walk: walk.post("/subscribe", {"email": "x" * 100_000}),
}

"""What sections share while the bench runs: messages, frozen campaigns, keys. Made when first asked for."""

from __future__ import annotations

import functools
import json
import sys
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tests.bench import ours, peers, sample
from tests.bench.measure import Contender

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from newsletter.model import Email
    from tests.bench.ours import Frozen
    from tests.bench.sinks import Sink

MOST_PEOPLE = 20_000  # that peers get


@dataclass(frozen=True)
class Workshop:
    """A folder that ends with the bench."""

    root: Path
    rounds: int = 5
    scale: float = 1.0  # of the numbers of messages: smaller ones only try the bench itself

    def count(self, messages: int) -> int:
        """How many there are to be."""
        return max(10, int(messages * self.scale))

    @functools.cache  # noqa: B019  # one workshop in a process
    def email(self, *, pictures: bool) -> Email:
        """What is sent."""
        return sample.compiled(pictures=pictures)

    @functools.cache  # noqa: B019
    def peers_folder(self, *, pictures: bool) -> Path:
        """The same for peers."""
        folder = self.root / ("peers-pictures" if pictures else "peers")
        folder.mkdir()
        message = sample.settings(peers.ROOT)
        sample.write_for_peers(folder, self.email(pictures=pictures), message, MOST_PEOPLE)
        return folder

    @functools.cache  # noqa: B019
    def frozen(self, people: int, *, pictures: bool) -> Frozen:
        """A campaign of that many, ready to be sent."""
        root = self.root / f"frozen-{people}-{pictures}"
        return ours.frozen(root, self.email(pictures=pictures), people)

    def check(self, who: str, *, pictures: bool) -> Callable[[str], int]:
        """Whether what arrived was the message."""
        return functools.partial(sample.check, who=who, pictures=pictures)

    # --- contenders ---

    def peer(
        self, name: str, messages: int, program: Sequence[str], *, pictures: bool = False, **more: Any
    ) -> Contender:
        """Somebody else's sender; ``more`` is for the program."""

        def command(sink: Sink, count: int) -> list[str]:
            folder = self.peers_folder(pictures=pictures)
            told = {
                "email": str(folder / "email.json"),
                "people": str(folder / "people.jsonl"),
                "message": str(folder / "message.eml"),
                "port": sink.port,
                "ca": sink.authority,
                "messages": count,
                "connections": 10,
            }
            return [*program, json.dumps(told | more)]

        return Contender(name, self.count(messages), command, self.check(name, pictures=pictures))

    def ours(
        self,
        name: str,
        messages: int,
        *,
        pictures: bool = False,
        how: str = "whole",
        window: int = 1,
        extra: str = "",
        check: bool = True,
        env: Mapping[str, str] = MappingProxyType({}),
        **settings: object,
    ) -> Contender:
        """Our sender; ``settings`` and ``extra`` stand in newsletter.toml."""

        def command(sink: Sink, count: int) -> list[str]:
            root = self.root / "run"
            secure = {"security": "tls", "ca": sink.authority} if sink.authority else {}
            made = self.frozen(count, pictures=pictures)
            ours.copied(made, root, extra, **{"port": sink.port} | secure | settings)
            told = {"root": str(root), "how": how, "window": window}
            return [sys.executable, "-m", "tests.bench.ours", json.dumps(told)]

        looks = self.check(name, pictures=pictures) if check else lambda _first: None
        return Contender(name, self.count(messages), command, looks, env)

    def api(self, name: str, messages: int, program: str, *, batch: int, env: Mapping[str, str]) -> Contender:
        """Somebody else's way to SendGrid, with four threads."""

        def command(sink: Sink, count: int) -> list[str]:
            folder = self.peers_folder(pictures=False)
            told = {
                "email": str(folder / "email.json"),
                "people": str(folder / "people.jsonl"),
                "port": sink.port,
                "ca": sink.authority,
                "messages": count,
                "connections": 4,
                "batch": batch,
            }
            return [*python(program), json.dumps(told)]

        return Contender(name, self.count(messages), command, env=env)


def python(program: str) -> list[str]:
    """A program of ours on the product's interpreter."""
    return [sys.executable, str(peers.PROGRAMS / f"{program}.py")]


def peers_python(program: str) -> list[str]:
    """A program of ours on the peers' interpreter."""
    return [peers.python(), str(peers.PROGRAMS / f"{program}.py")]


def nodemailer() -> list[str]:
    """The program that drives it."""
    peers.node("nodemailer")
    return ["node", str(peers.PROGRAMS / "nodemailer.js")]

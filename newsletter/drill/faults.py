"""What a fake provider does wrong, and how it chooses.

Every fault is about one step of one conversation. A deck deals all kinds equally often, in an order that the seed
decides: drawing each by chance would leave some kinds out of a short drill.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

RARELY = 3  # a refusal of the sender pauses the campaign: one such card for this many decks


@dataclass(frozen=True, slots=True)
class Fault:
    """At ``step`` do ``act``: ``cut``, ``slow``, ``half`` an answer, or a status code."""

    step: str
    act: str
    taken: bool = False  # at the end of a copy: the provider has it nevertheless
    rare: bool = False

    def __str__(self) -> str:
        return f"{self.step} {self.act}{' (taken)' if self.taken else ''}"

    @property
    def code(self) -> int:
        """The status, 0 where the fault is no answer."""
        return int(self.act) if self.act.isdecimal() else 0


SMTP_GREETING = (
    Fault("connect", "cut"),
    Fault("connect", "421"),
    Fault("connect", "554", rare=True),
    Fault("connect", "slow"),
    Fault("EHLO", "cut"),
    Fault("EHLO", "421"),
)
"""Drawn for each connection."""

SMTP_COPY = (
    Fault("MAIL", "cut"),
    Fault("MAIL", "451"),
    Fault("MAIL", "421"),
    Fault("MAIL", "550", rare=True),
    Fault("RCPT", "cut"),
    Fault("RCPT", "450"),
    Fault("RCPT", "421"),
    Fault("RCPT", "550"),
    Fault("RCPT", "slow"),
    Fault("DATA", "cut"),
    Fault("DATA", "451"),
    Fault("DATA", "421"),
    Fault("DATA", "554"),
    Fault("body", "cut"),
    Fault("dot", "cut"),
    Fault("dot", "cut", taken=True),
    Fault("dot", "half", taken=True),
    Fault("dot", "slow", taken=True),
    Fault("dot", "452"),
    Fault("dot", "421"),
    Fault("dot", "554"),
)
"""Drawn for each copy."""

SENDGRID_REQUEST = (
    Fault("connect", "cut"),
    Fault("request", "cut"),
    Fault("answer", "cut"),
    Fault("answer", "cut", taken=True),
    Fault("answer", "half", taken=True),
    Fault("answer", "slow", taken=True),
    Fault("answer", "400"),  # names one member
    Fault("answer", "413"),
    Fault("answer", "429"),
    Fault("answer", "500"),
    Fault("answer", "503", taken=True),
    Fault("answer", "403", rare=True),
)
"""Drawn for each connection, which is one request."""


class Deck:
    """Deals faults: ``chance`` (0 to 1) says how often there is one at all."""

    def __init__(self, cards: Sequence[Fault], chance: float, dice: random.Random) -> None:
        self._cards = cards
        self._chance = chance
        self._dice = dice
        self._left: list[Fault] = []
        self._round = 0

    def draw(self) -> Fault | None:
        """The next one, or None."""
        if self._dice.random() >= self._chance:
            return None
        if not self._left:
            self._left = self._shuffled()
        return self._left.pop()

    def _shuffled(self) -> list[Fault]:
        rare = self._round % RARELY == 0
        self._round += 1
        cards = [card for card in self._cards if rare or not card.rare]
        self._dice.shuffle(cards)
        return cards

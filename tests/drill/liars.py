"""Senders that lie about one thing, as children of a drill: it must notice each of them.

``python liars.py LIE newsletter …`` and ``python liars.py LIE sender …`` are the two programs that a drill starts.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from sqlalchemy import update

from newsletter.model import Accepted, DeliveryState, Unknown
from newsletter.store import ledger, marks
from newsletter.store.engine import write
from newsletter.store.ledger import Ledger
from newsletter.store.schema import delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from sqlalchemy import Connection

honest_step, honest_orphaned = Ledger.step, ledger.orphaned
HANDED = delivery.c.state == DeliveryState.HANDED


def say(self: Any, ids: Collection[bytes], state: DeliveryState) -> None:
    """Writes something that nobody knows into the ledger."""
    lie = update(delivery).where(delivery.c.id.in_(ids)).values(state=state)
    write(self._engine, lambda conn: conn.execute(lie))


def send_again_what_was_handed_over() -> None:
    """What most systems do after a crash: begin again where the last known answer stands."""

    def orphaned(conn: Connection, *args: Any) -> Any:
        conn.execute(update(delivery).where(HANDED).values(state=DeliveryState.PENDING, owner=None))
        return honest_orphaned(conn, *args)

    ledger.orphaned = orphaned


def accept_before_handing_over() -> None:
    """What the others do: record "sent" first, so that nobody gets it twice."""

    def step(self: Any, settled: Any, want: int, now: Any) -> Any:
        handed = honest_step(self, settled, want, now)
        say(self, [row.id for row in handed], DeliveryState.ACCEPTED)
        return handed

    Ledger.step = step


def hand_over_without_a_mark() -> None:
    """The mark is stored together with the answer: half the commits, and no trace of what was in flight."""

    def step(self: Any, settled: Any, want: int, now: Any) -> Any:
        say(self, [outcome.delivery for outcome in settled], DeliveryState.HANDED)
        handed = honest_step(self, settled, want, now)
        say(self, [row.id for row in handed], DeliveryState.CLAIMED)
        return handed

    Ledger.step = step


def take_silence_for_a_yes() -> None:
    """The answer was cut; it will have been a good one."""

    def step(self: Any, settled: Any, want: int, now: Any) -> Any:
        guessed = [Accepted(one.delivery) if isinstance(one, Unknown) else one for one in settled]
        return honest_step(self, guessed, want, now)

    Ledger.step = step


def give_up_on_everything_in_doubt() -> None:
    """Unknown without a reason: true of each copy, and useless."""

    def step(self: Any, settled: Any, want: int, now: Any) -> Any:
        return honest_step(self, [Unknown(one.delivery, "who knows") for one in settled], want, now)

    Ledger.step = step


def not_listen_to_people_who_leave() -> None:
    """The list is what it was when the campaign was frozen."""
    for dialect, (mark, *others) in marks._TEXTS.items():
        conditions = [line for line in mark.splitlines() if not re.search("subscription|suppression", line)]
        assert len(conditions) == len(mark.splitlines()) - 2
        marks._TEXTS[dialect] = ("\n".join(conditions), *others)


LIES: dict[str, Callable[[], None]] = {
    lie.__name__: lie
    for lie in (
        send_again_what_was_handed_over,
        accept_before_handing_over,
        hand_over_without_a_mark,
        take_silence_for_a_yes,
        give_up_on_everything_in_doubt,
        not_listen_to_people_who_leave,
    )
}


def main(lie: str, program: str, arguments: list[str]) -> int:
    """Tells the lie in place of an honest program."""
    LIES[lie]()
    if program == "sender":
        from newsletter.drill import sender

        return sender.main(arguments)
    from newsletter.cli.main import main as newsletter

    return newsletter(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))

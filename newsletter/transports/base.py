"""The seam between the ledger and a provider: pulling is the hand-over.

A transport never sees the database. ``next(copies)`` returns when one commit has stored what this lane settled
and has marked its next window *handed*; copies whose condition failed meanwhile (unsubscribed, paused, cancelled)
are not in it. So whatever a transport holds may leave, and whatever it has not pulled can't have left.

The contract, which one suite (tests/transports/test_contract.py) checks on every transport:

- An empty window says that nothing more may leave yet: finish what was begun, settle it, and pull again.
- Each copy pulled is settled exactly once. One that was pulled but never reached the wire is ``NotTaken``.
- What is unsettled when ``run`` returns or raises becomes ``Unknown``: the ledger assumes the worst.
- ``TransportUnavailable`` means try later, ``TransportRejected`` pauses the campaign; both may be raised only
  after everything whose fate is known was settled.
- ``run`` may be called again, on the same object and from several threads at once (one call per lane).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from newsletter.message import Wire, Wires
    from newsletter.model import Outcome, Recipient


class Transport(Protocol):
    """How copies reach a provider."""

    @property
    def name(self) -> str:
        """``memory``, ``folder``, ``smtp`` or ``sendgrid``; recorded on the campaign."""

    @property
    def lanes(self) -> int:
        """Connections or requests at once; ``sending`` starts one thread per lane."""

    @property
    def window(self) -> int:
        """Copies handed at once per lane: the size of one doubt."""

    def run(
        self,
        wire: Wire | Wires,
        copies: Iterator[Sequence[Recipient]],
        settle: Callable[[Sequence[Outcome]], None],
    ) -> None:
        """Work one lane, over one connection, until ``copies`` ends."""

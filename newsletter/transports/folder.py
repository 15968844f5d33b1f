"""Writes each copy as ``<delivery>.eml``: what a rehearsal leaves to look at, one file a person."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from newsletter.errors import TransportUnavailable
from newsletter.model import Accepted, Refused
from newsletter.transports.answers import compose, not_taken, unsendable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from newsletter.message import Wire, Wires
    from newsletter.model import Outcome, Recipient


class FolderTransport:
    """A copy is accepted once its file is whole, on disk and under its name; ``provider_id`` is that name.

    A file that is already there is the same copy from an earlier try: it is replaced by the same bytes.
    """

    name = "folder"
    lanes = 1
    window = 100

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(
        self,
        wire: Wire | Wires,
        copies: Iterator[Sequence[Recipient]],
        settle: Callable[[Sequence[Outcome]], None],
    ) -> None:
        """See ``base.Transport``. Raises ``TransportUnavailable`` when the folder can't be written."""
        for window in copies:
            settled: list[Outcome] = []
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                for recipient in window:
                    settled.append(self._take(wire, recipient))  # noqa: PERF401 - what was written before an error counts
            except OSError as error:
                rest = (one.delivery for one in window[len(settled) :])
                settle(settled + not_taken(rest, error.strerror or error))
                raise self._unavailable(error) from error
            settle(settled)

    def _take(self, wire: Wire | Wires, recipient: Recipient) -> Outcome:
        try:
            message = compose(wire, recipient)
        except ValueError as error:
            return Refused(recipient.delivery, unsendable(error))
        path = self._folder / f"{recipient.id}.eml"
        # Named after the delivery, so that the next try cleans up what a killed one left half-written.
        unfinished = self._folder / f".{recipient.id}.tmp"
        write_whole(unfinished, message)
        unfinished.replace(path)
        return Accepted(recipient.delivery, path.name)

    def _unavailable(self, error: OSError) -> TransportUnavailable:
        return TransportUnavailable(
            f"can't write copies to {self._folder}: {error.strerror or error}.",
            hint="Make room or correct the permissions; nothing is lost, run the same command again.",
        )


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file only its owner can read (a copy names a reader) and waits until the disk has it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())

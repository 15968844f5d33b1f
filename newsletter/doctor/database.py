"""Whether the database opens, is ours and can be written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from newsletter import recovery
from newsletter.doctor.machine import CLOCK, compared
from newsletter.doctor.report import error, ok, warning
from newsletter.errors import NewsletterError
from newsletter.store import engine as store
from newsletter.store import facts
from newsletter.store.clock import server_time
from newsletter.store.database import CLAIM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from sqlalchemy import Engine

    from newsletter.doctor.report import Result

NAME = "database"
WAIT_SECONDS = 2.0  # for another writer; a sender's transactions take milliseconds


def look(
    url: str,
    signing: Mapping[int, bytes],
    address_key: bytes,
    clock: Callable[[], datetime],
    stranger: Callable[[Engine], str] = lambda _: "",
) -> Iterator[Result]:
    """Opens it and takes the write lock once; what is not there is not made. A new signing key is remembered.

    ``stranger`` says why this database is not at home on this machine; empty if it is.
    """
    try:
        engine = store.open_engine(url)
    except NewsletterError as problem:
        yield error(NAME, str(problem), problem.hint)
        return
    try:
        if why := stranger(engine):
            yield error(NAME, why, CLAIM)
            return
        store.write(engine, lambda _: None, wait=WAIT_SECONDS)
        store.ensure_keys(engine, signing, address_key)
        yield ok(NAME, f"schema {store.SCHEMA}, its keys are ours, and it can be written.")
        if missing := store.missing_key(store.read(engine, facts.every), store.fingerprints(signing, b"")):
            yield warning(NAME, missing, store.NEWEST_ENV)
        yield from _clocks(engine, clock)
    except NewsletterError as problem:
        yield error(NAME, str(problem), problem.hint)
    finally:
        engine.dispose()


def _clocks(engine: Engine, clock: Callable[[], datetime]) -> Iterator[Result]:
    try:
        recovery.check_clock(engine, clock())
        yield ok(CLOCK, "not behind what the ledger has written down.")
    except NewsletterError as problem:
        yield error(CLOCK, str(problem), problem.hint)
    theirs = store.read(engine, server_time)
    if theirs is not None:
        yield compared(theirs, clock(), "the database server")

"""What sends letters to readers and mails to editors: when each is tried again, and a loop that no error ends."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from newsletter import limits
from newsletter.errors import NewsletterError, where

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from logging import Logger
    from threading import Event

RETRY = tuple(timedelta(seconds=seconds) for seconds in (15, 60, 300, 900))
LATER = timedelta(hours=1)  # from then on
LOOK_SECONDS = 1.0  # how often it is looked for new ones
REST_SECONDS = 30.0  # … after something went wrong with all of them


def next_try(failures: int, now: datetime) -> datetime:
    """When one that was not taken so many times is tried again; it is for others to say when to give up."""
    return limits.retry_at(failures, RETRY, now) or now + LATER


def keep_at(work: Callable[[], int], closing: Event, what: str, logger: Logger) -> None:
    """Works until ``closing`` is set, at once again while there is work.

    What goes wrong is logged, without addresses, and tried again.
    """
    while not closing.is_set():
        rest = LOOK_SECONDS
        try:
            if work():
                continue
        except NewsletterError as error:
            logger.warning("%s wait: %s", what, error)
            rest = REST_SECONDS
        except Exception as error:
            logger.error("%s wait, because of %s", what, where(error))  # noqa: TRY400 - its words may hold an address
            rest = REST_SECONDS
        closing.wait(rest)

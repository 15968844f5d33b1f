"""The editors' mails, as the commands see them: one try at the end of a send, and a line in ``status``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from newsletter.cli import output
from newsletter.errors import NewsletterError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from newsletter.config import Settings

REMEMBERED = timedelta(days=14)
"""How long ``status`` speaks of a notice that never left: until the next campaign at least, mostly."""


def tell_editors(settings: Settings, engine: Engine) -> None:
    """One try to send what waits. What goes wrong is a warning: the command has done its work, and ends as it did."""
    from newsletter import wiring

    try:
        wiring.post(settings, engine).work()
        print_outbox(settings, engine)
    except NewsletterError as error:
        output.warn(f"the editors could not be told: {error}")


def print_outbox(settings: Settings, engine: Engine) -> None:
    """Says on stderr that mails to editors wait, or could not be sent; nothing when all is well."""
    from newsletter.store import notices
    from newsletter.store.engine import read

    now = datetime.now(UTC)
    found = read(engine, lambda conn: notices.outbox(conn, now - REMEMBERED))
    if found.waiting:
        off = settings.sending.mode == "off" and settings.sending.transport != "folder"
        why = "sending.mode is off" if off else found.why or "not tried yet"
        output.warn(f"{output.plural(found.waiting, 'mail')} to the editors still to be sent: {why}.")
    if found.gave_up:
        output.warn(f"{output.plural(found.gave_up, 'mail')} to the editors could not be sent.")

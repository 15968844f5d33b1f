"""One publisher and the settings of one campaign, as most tests need them."""

from __future__ import annotations

from datetime import UTC, datetime

from newsletter.message import MessageSettings
from newsletter.model import Publication

NINE = datetime(2026, 12, 1, 9, 0, tzinfo=UTC)
PUBLICATION = Publication(
    name="Research Digest",
    full_name="Multiple Sclerosis Research Digest",
    base_url="https://news.example.org",
    postal_address="1 Example Street, Example Town",
    reply_to="editor@example.org",
)
MESSAGE = MessageSettings(
    from_name=PUBLICATION.name,
    from_address="digest@example.org",
    reply_to=PUBLICATION.reply_to,
    list_id="digest.example.org",
    base_url=PUBLICATION.base_url,
    unsubscribe_mailto="",
    date=NINE,
)

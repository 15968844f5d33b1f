"""The reader for whom ``build``, ``preview`` and the checks fill an email: nobody on any list.

The links have the length of real ones, so that what is measured is what leaves; their token signs nothing.
"""

from __future__ import annotations

import hashlib
import html
from datetime import UTC, datetime, time
from typing import TYPE_CHECKING

from newsletter import merge
from newsletter.model import Recipient
from newsletter.pictures import resolve_pictures

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import date

    from newsletter.model import Email

ADDRESS = "reader@example.org"
NAME = "Reader"
TOKEN = "this-link-is-a-sample-for-no-reader"  # noqa: S105  35 characters, as every real token has


def reader(email: Email, base_url: str) -> Recipient:
    """The sample recipient; its delivery id comes from the email, so that two builds give the same bytes."""
    return Recipient(
        delivery=hashlib.sha256(email.digest.encode()).digest()[:16],
        address=ADDRESS,
        values={
            "name": NAME,
            "unsubscribe_url": f"{base_url}/u/{TOKEN}",
            "preferences_url": f"{base_url}/p/{TOKEN}",
        },
    )


def date_header(day: date) -> datetime:
    """The Date of a sample message: the issue's day, because a clock would make every build differ."""
    return datetime.combine(day, time(9), tzinfo=UTC)


def page(email: Email, base_url: str, picture_url: Callable[[str], str]) -> str:
    """The html as the sample reader sees it, with each picture's name replaced by ``picture_url(name)``."""
    return resolve_pictures(_filled(email.html, email, base_url, html.escape), picture_url)


def text(email: Email, base_url: str) -> str:
    """The text part as the sample reader gets it."""
    return _filled(email.text, email, base_url, str)


def subject(email: Email, base_url: str) -> str:
    """The subject as the sample reader sees it."""
    return _filled(email.subject, email, base_url, str)


def preheader(email: Email, base_url: str) -> str:
    """The preheader as the sample reader sees it."""
    return _filled(email.preheader, email, base_url, str)


def _filled(template: str, email: Email, base_url: str, escape: Callable[[str], str]) -> str:
    values = {
        **reader(email, base_url).values,
        "issue_title": email.title,
        "view_url": base_url + email.view_path,
    }
    return merge.fill(merge.split(template), values, escape)

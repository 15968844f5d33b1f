"""Hosted pictures: are they where the mail will look for them?

A mail can't be mended once it has left, so each hosted picture is fetched once before a campaign is frozen.
"""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from newsletter.errors import Refused
from newsletter.message import picture_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from newsletter.message import MessageSettings
    from newsletter.model import Email

TIMEOUT_SECONDS = 10
MOST_BYTES = 10_000_000


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect costs every reader a second request and tells a second host who opened the mail."""

    def redirect_request(self, *_args: object) -> None:
        return None


class NotInPlace(Refused):
    """Hosted pictures can't be fetched as readers would: perhaps in a minute."""


def verify(editions: Sequence[Email], message: MessageSettings) -> None:
    """Fetches each picture and compares its bytes; raises ``NotInPlace`` naming all that are missing or different."""
    if not message.images_url:
        return
    # An empty ProxyHandler: a proxy's copy would say nothing about what readers get.
    opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
    wrong = []
    shown = {picture_url(email, message, one): one.sha256 for email in editions for one in email.pictures}
    for url, sha256 in shown.items():
        problem = _problem(opener, url, sha256)
        if problem:
            wrong.append(f"{url}: {problem}")
    if wrong:
        listed = "\n".join(wrong)
        hint = "Upload the files that `newsletter build` writes under media/, then send again."
        raise NotInPlace(f"hosted pictures are not in place:\n{listed}", hint=hint)


def _problem(opener: urllib.request.OpenerDirector, url: str, sha256: str) -> str:
    try:
        with opener.open(url, timeout=TIMEOUT_SECONDS) as answer:
            data = answer.read(MOST_BYTES)
    except urllib.error.HTTPError as error:
        return f"the server answers {error.code}"
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))
    return "" if hashlib.sha256(data).hexdigest() == sha256 else "other bytes than the picture in the issue"

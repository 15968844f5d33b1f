"""What the preview's pages share: the issues on disk, each compiled at most once between two saves."""

from __future__ import annotations

import asyncio
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyio import to_thread

from newsletter import config, content, wiring
from newsletter.checks import sample
from newsletter.errors import NewsletterError
from newsletter.message import picture_path
from newsletter.model import Edition, digest, short
from newsletter.pictures import reference
from newsletter.web.emulation import in_scheme

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from newsletter.model import Email, Finding, Issue, Picture, Publication


@dataclass(frozen=True)
class Sheet:
    """One issue as the sample reader gets it, and what the checks say of it."""

    issue: Issue
    email: Email
    publication: Publication
    findings: Sequence[Finding]
    digest: str  # of all editions together, short

    @property
    def subject(self) -> str:
        """The subject line, merge tags filled."""
        return sample.subject(self.email, self.publication.base_url)

    @property
    def preheader(self) -> str:
        """The preheader, merge tags filled."""
        return sample.preheader(self.email, self.publication.base_url)

    @property
    def text(self) -> str:
        """The text part."""
        return sample.text(self.email, self.publication.base_url)

    @property
    def html_bytes(self) -> int:
        """The size that inboxes count before they cut a mail off."""
        return len(sample.page(self.email, self.publication.base_url, reference).encode())

    def html(self, scheme: str) -> str:
        """The html part for ``light`` or ``dark``, its pictures served by this server."""
        paths = {
            picture.name: f"/pictures/{picture_path(self.email, picture)}" for picture in self.email.pictures
        }
        return in_scheme(sample.page(self.email, self.publication.base_url, paths.__getitem__), scheme)

    def picture(self, file: str) -> Picture | None:
        """The picture that is served under this file name."""
        return next(
            (p for p in self.email.pictures if picture_path(self.email, p).endswith(f"/{file}")), None
        )


class Studio:
    """Compiles on demand, remembers until a file changes, and wakes whoever waits for a change."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self.closing = False
        self._changes = 0
        self._start = secrets.token_hex(4)  # a page of an earlier run must not look up to date
        self._compiled: dict[str, Mapping[str, Sheet] | NewsletterError] = {}
        self._busy = asyncio.Lock()
        self._change = asyncio.Event()

    @property
    def version(self) -> str:
        """Another text after every change."""
        return f"{self._start}-{self._changes}"

    def changed(self) -> None:
        """Forget what was compiled, and wake the waiting pages."""
        self._changes += 1
        self._compiled.clear()
        self._wake()

    def close(self) -> None:
        """End the waiting for good: a server can't stop while pages hold a connection."""
        self.closing = True
        self._wake()

    def _wake(self) -> None:
        self._change.set()
        self._change = asyncio.Event()

    async def next_change(self) -> None:
        """Return when a file was saved, or when the server closes."""
        if not self.closing:
            await self._change.wait()

    def slugs(self) -> list[str]:
        """Every issue, the newest first."""
        return content.slugs(self.project)[::-1]

    async def sheet(self, slug: str, edition: Edition = Edition.STANDARD) -> Sheet:
        """The issue, compiled in a thread. Raises ``NewsletterError`` when it can't be."""
        async with self._busy:
            version = self.version
            made = self._compiled.get(slug)
            if made is None:
                made = await to_thread.run_sync(self._compile, slug)
            if version == self.version:  # else a file was saved meanwhile
                self._compiled[slug] = made
        if isinstance(made, NewsletterError):
            raise made
        return made[edition]

    def _compile(self, slug: str) -> Mapping[str, Sheet] | NewsletterError:
        try:
            settings = config.load(self.project, os.environ)
            issue, editions = wiring.compile_issue(settings, slug)
            publication, found = wiring.publication(settings), wiring.findings(settings, issue, editions)
            known_by = short(digest(editions))
            return {email.edition: Sheet(issue, email, publication, found, known_by) for email in editions}
        except NewsletterError as error:
            return error

"""What every check looks at: the issue, what it compiled to, and the message a sample reader would get."""

from __future__ import annotations

from dataclasses import dataclass
from email import message_from_bytes
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from lxml import html as lxml_html

from newsletter import toml_lines
from newsletter.checks import sample
from newsletter.message import Wire
from newsletter.model import Finding, Level
from newsletter.pictures import reference

if TYPE_CHECKING:
    from email.message import Message
    from pathlib import Path

    from newsletter.message import MessageSettings
    from newsletter.model import Email, Issue, Publication

TEMPLATE = {
    "html": "colophon.mjml.j2",
    "text": "issue.txt.j2",
}  # where each part says who sends it and how to leave


class Place(NamedTuple):
    """Where a person can mend something."""

    file: str  # relative to the project
    line: int | None = None  # 1-based
    where: str = ""  # key path, or whatever tells it from others: a waiver names it

    def error(self, code: str, message: str, hint: str) -> Finding:
        """A finding here that stops a send."""
        return Finding(code, Level.ERROR, self.file, message, hint, self.line, where=self.where)

    def warning(self, code: str, message: str, hint: str) -> Finding:
        """A finding here that informs."""
        return Finding(code, Level.WARNING, self.file, message, hint, self.line, where=self.where)


@dataclass(frozen=True)
class Inspection:
    """One issue under inspection. Everything derived is made once, when the first check asks for it."""

    issue: Issue
    email: Email
    publication: Publication
    settings: MessageSettings
    discreet_words: tuple[str, ...]
    project: Path

    @cached_property
    def html(self) -> str:
        """The html with merge tags filled; pictures stand as ``image:NAME``."""
        return sample.page(self.email, self.publication.base_url, reference)

    @cached_property
    def text(self) -> str:
        """The text part with merge tags filled."""
        return sample.text(self.email, self.publication.base_url)

    @cached_property
    def tree(self) -> lxml_html.HtmlElement:
        """The filled html, entities decoded."""
        parser = lxml_html.HTMLParser(encoding="utf-8")
        return lxml_html.document_fromstring(self.html.encode(), parser=parser)

    @cached_property
    def message(self) -> bytes:
        """The very bytes a provider would get for the sample reader."""
        recipient = sample.reader(self.email, self.publication.base_url)
        return b"".join(Wire(self.email, self.settings).pieces(recipient))

    @cached_property
    def headers(self) -> Message:
        """The message's headers, as written: nothing decoded, nothing repaired."""
        return message_from_bytes(self.message)

    # --- places ---

    def key(self, where: str) -> Place:
        """A key of issue.toml, such as ``related.3.url``."""
        return Place(self._toml, toml_lines.find(self._keys, where), where)

    def config(self, where: str) -> Place:
        """A key of newsletter.toml."""
        return Place("newsletter.toml", None, where)

    def compiled(self, where: str) -> Place:
        """A part of the compiled email that no single file of the issue is to blame for."""
        return Place(self.issue.folder, None, where)

    def link(self, target: str) -> Place:
        """Who wrote a link: a key of issue.toml, a line of Markdown, else a template."""
        for number, teaser in enumerate(self.issue.related, 1):
            if teaser.url == target:
                return self.key(f"related.{number}.url")
        if target == self.issue.lead.source.url:
            return self.key("lead.source.url")
        return self.origin(target, where=target or 'href=""')

    def origin(self, words: str, where: str) -> Place:
        """The file of the issue that holds ``words``; what none of them holds came from a template."""
        for file, lines in self._sources:
            for number, line in enumerate(lines, 1):
                if words and words in line:
                    return Place(file, number, where)
        return self.compiled(where)

    @property
    def _toml(self) -> str:
        return f"{self.issue.folder}/issue.toml"

    @cached_property
    def _keys(self) -> dict[str, int]:
        return toml_lines.key_lines(self._read(self._toml))

    @cached_property
    def _sources(self) -> list[tuple[str, list[str]]]:
        files = (self._toml, f"{self.issue.folder}/lead.md", self.issue.closing_file)
        return [(file, self._read(file).splitlines()) for file in files if file]

    def _read(self, file: str) -> str:
        try:
            return (self.project / file).read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError):
            return ""  # the issue was loaded from these files: one that vanished since only costs the line

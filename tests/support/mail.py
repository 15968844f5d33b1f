"""A built message as a mail program would read it, taken apart by the standard library's parser."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email import message_from_bytes, policy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from email.message import EmailMessage


@dataclass(frozen=True)
class Mail:
    """The decoded parts, and the headers as they stand in the bytes."""

    raw: bytes
    parsed: EmailMessage

    @property
    def subject(self) -> str:
        """Decoded."""
        return str(self.parsed["Subject"])

    @property
    def text(self) -> str:
        """The text part, line ends as in the message."""
        return self._body("text/plain")

    @property
    def html(self) -> str:
        """The html part, line ends as in the message."""
        return self._body("text/html")

    @property
    def pictures(self) -> dict[str, bytes]:
        """Content-ID → bytes."""
        found = [part for part in self.parsed.walk() if part.get_content_maintype() == "image"]
        return {part["Content-ID"]: part.get_content() for part in found}

    @property
    def structure(self) -> list[str]:
        """Every part's media type, outermost first."""
        return [part.get_content_type() for part in self.parsed.walk()]

    @property
    def fields(self) -> list[tuple[str, str]]:
        """Name and value of each header as written, unfolded and not decoded."""
        head = self.raw.split(b"\r\n\r\n", 1)[0].decode("utf-8")
        lines = re.sub(r"\r\n(?=[ \t])", "", head).split("\r\n")
        return [(name, value.removeprefix(" ")) for name, _, value in (line.partition(":") for line in lines)]

    def field(self, name: str) -> str:
        """The one header of that name, as written."""
        (value,) = (value for seen, value in self.fields if seen == name)
        return value

    def _body(self, media_type: str) -> str:
        (part,) = (part for part in self.parsed.walk() if part.get_content_type() == media_type)
        return str(part.get_content())


def read(raw: bytes) -> Mail:
    """Take a message apart; a defect that the parser sees fails the test."""
    parsed = message_from_bytes(raw, policy=policy.default)
    defects = [defect for part in parsed.walk() for defect in part.defects]
    assert not defects, defects
    return Mail(raw, parsed)

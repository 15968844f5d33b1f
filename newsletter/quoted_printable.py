"""Text → quoted-printable (RFC 2045, section 6.7), whole or cut at its merge slots.

What all copies share is encoded once. Each slot stands on lines of its own: a soft break ends the text before it, its
value begins at column 0, and a soft break ends the value. So nothing that a value holds can lengthen a line of the text
around it, and a copy costs the encoding of its values. Rendering and encoding each copy as a whole would cost 0.8 ms,
hundreds of times as much.

Two promises besides those of the RFC: no line begins with a dot (so that SMTP has none to double), and the last line
has room for the ``=`` of a soft break. ``binascii.b2a_qp`` keeps neither.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from newsletter import merge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from newsletter.merge import Parts, Slot

SOFT_BREAK = b"=\r\n"
LITERAL = {ord(" "), ord("\t"), ord("\n"), *range(ord("!"), ord("~") + 1)} - {ord("=")}
ESCAPES = {octet: f"={octet:02X}" for octet in range(256) if octet not in LITERAL}
# At most 75 columns that do not end inside an "=XX", and 73 where the first is a dot that will take three.
LINE = re.compile(r"(?:\..{0,72}|[^.].{0,74})(?<!=)(?<!=.)")
# Values as most are: one line, the same in the text, in the html and on the wire (no =, & < > " ', nothing that is not
# ASCII, no dot in front, no blank at the end).
PLAIN = re.compile(r"(?!\.)[ !#-%(-;?-~]{0,74}[!#-%(-;?-~]")


def encode(text: str, what: str = "the text") -> bytes:
    """``text`` in lines of at most 76 columns, the last at most 75; every kind of line end becomes CRLF.

    Raises:
        ValueError: naming ``what``, if it holds half a character.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    try:
        octets = lines.encode("utf-8").decode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"{what} holds half a character (a lone surrogate)") from None
    return "\r\n".join(map(_broken, octets.translate(ESCAPES).split("\n"))).encode("ascii")


def _broken(line: str) -> str:
    """One line of the text as lines of the mail."""
    if line.endswith((" ", "\t")):  # servers may take a blank at the end away
        line = f"{line[:-1]}={ord(line[-1]):02X}"
    return "=\r\n".join(f"=2E{piece[1:]}" if piece[0] == "." else piece for piece in LINE.findall(line))


@dataclass(frozen=True, slots=True)
class Gap:
    """One slot, or several with no text between them: what is encoded for each copy."""

    what: str  # the part that an error names
    parts: Parts
    slot: Slot | None  # the only one, as nearly always
    escape: Callable[[str], str]
    before: bytes  # ends the line of the text before; b"" at column 0
    after: bytes  # leads back to the text; b"" at the end of a part
    joins: bool  # the text after begins with LF: with a CR at the end of a value it is one line end
    missing: bytes = b""  # what stands for its only slot in copies without a value

    def piece(self, values: Mapping[str, str]) -> bytes:
        """What stands here for one person.

        Raises:
            ValueError: naming the part, if a value holds half a character.
        """
        if self.slot is not None:
            value = values.get(self.slot.name)
            if not value:
                return self.missing
            if PLAIN.fullmatch(value):
                return self.before + value.encode("ascii") + self.after
        return self.encoded(merge.fill(self.parts, values, self.escape))

    def encoded(self, text: str) -> bytes:
        """Any text, as it stands here."""
        if self.joins:
            text = text.removesuffix("\r")
        if not text:
            return self.before if self.after else b""
        encoded = encode(text, self.what)
        return self.before + encoded + (b"" if encoded.endswith(b"\n") else self.after)


def splice(what: str, parts: Parts, escape: Callable[[str], str] = str) -> list[bytes | Gap]:
    """Encodes a part of a mail that is cut at its slots. Put together, it decodes to what ``merge.fill`` gives.

    Raises:
        ValueError: naming ``what``, if its text holds half a character.
    """
    spliced: list[bytes | Gap] = []
    for (text, gap), (following, _) in pairwise([*_cut(parts), ("", ())]):
        encoded = encode(text, what)
        spliced += [encoded] if encoded else []
        if gap:
            before = b"" if encoded.endswith(b"\n") or not encoded else SOFT_BREAK
            spliced.append(_gap(what, gap, escape, before, following))
    return spliced


def _cut(parts: Parts) -> Iterator[tuple[str, Parts]]:
    """Each text with the gap behind it."""
    text = ""
    gap: Parts = ()
    for part in parts:
        if isinstance(part, merge.Slot):
            gap += (part,)
            continue
        if text or gap:
            yield _parted(text, gap)
        text, gap = part, ()
    yield _parted(text, gap)


def _parted(text: str, gap: Parts) -> tuple[str, Parts]:
    # A CR before a gap goes to the gap: with an LF at the start of a value it is one line end.
    return (text[:-1], ("\r", *gap)) if gap and text.endswith("\r") else (text, gap)


def _gap(what: str, parts: Parts, escape: Callable[[str], str], before: bytes, following: str) -> Gap:
    slot = parts[0] if len(parts) == 1 and isinstance(parts[0], merge.Slot) else None
    after = SOFT_BREAK if following else b""
    gap = Gap(what, parts, slot, escape, before, after, following.startswith("\n"))
    return replace(gap, missing=gap.encoded(merge.fill(parts, {}, escape)))

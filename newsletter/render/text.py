"""The layout of the text part: 72 columns, headings set off with rules, every address on a line of its own."""

from __future__ import annotations

import re

from newsletter import markdown, merge

WIDTH = 72  # RFC 3676 asks for at most 78; room for the quoting of replies
NON_LATIN = "\u200c"  # zero-width non-joiner


def wrap(text: str) -> str:
    """Broken at spaces, never inside an address or a merge tag."""
    return "\n".join(markdown.wrap(text, WIDTH))


def underlined(text: str, mark: str = "-") -> str:
    """A heading with a rule of its own length under it: a merge tag counts as its fallback."""
    lines = markdown.wrap(text, WIDTH)
    lengths = [len(merge.fill(merge.split(line), {})) for line in lines]
    return "\n".join([*lines, mark * min(WIDTH, max(lengths, default=0))])


def rule(mark: str) -> str:
    """A rule over the whole width."""
    return mark * WIDTH


def finish(text: str) -> str:
    """One blank line at most, none at the ends, no spaces before a line's end.

    The first line ends with an invisible character outside Latin-1: SendGrid would send a Latin-1 body as
    ``iso-8859-1``, which Gmail shows as "[Message clipped]" (sendgrid-nodejs issue 1231).
    """
    lines = "\n".join(line.rstrip(" \t") for line in text.split("\n"))
    tidy = re.sub(r"\n{3,}", "\n\n", lines).strip("\n")
    first, _, rest = tidy.partition("\n")
    return f"{first}{NON_LATIN}\n{rest}\n"

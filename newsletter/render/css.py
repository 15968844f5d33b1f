"""The small CSS of a mail: what the inliner does exactly, what Gmail keeps, and nothing else passes.

Gmail drops a whole block for one thing it can't read (an at-rule inside an at-rule, a parse error); Yahoo
replaces comments by its own selector and so kills the rule after them; premailer lets an existing inline style win
over ``!important``. All of them do it silently.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from newsletter.render.findings import Place, finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from newsletter.model import Finding

COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
RULE = re.compile(r"\s*([^{}]+?)\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
NOT_INLINED = re.compile(r"[*:]")
HINT_INLINE = 'Inline only plain rules; put this one into an <mj-style> without inline="inline".'


class Rule(NamedTuple):
    """``prelude {body}``; the body of an at-rule holds rules again."""

    prelude: str
    body: str

    @property
    def declarations(self) -> list[str]:
        """``property: value``, without empty ones."""
        return [each.strip() for each in self.body.split(";") if each.strip()]


def tidy(css: str) -> str:
    """Without comments and idle white space, in ASCII: mrml panics on ``.é > b``."""
    bare = re.sub(r"[ \t\r\n]+", " ", COMMENT.sub("", css)).strip()
    return re.sub(r"[^\x00-\x7f]", lambda match: f"\\{ord(match[0]):x} ", bare)


def lint(css: str, place: Place, *, inline: bool) -> Iterator[Finding]:
    """Findings about one ``<mj-style>``; ``inline`` says whether it is to be inlined."""
    bare = COMMENT.sub("", css)
    rules = [Rule(*match) for match in RULE.findall(bare)]
    if left := RULE.sub("", bare).strip():
        yield finding("T303", place, f'this CSS can\'t be read: "{left[:40]}"', "Look for a missing brace.")
    if re.search(r"url\(|<", bare, re.IGNORECASE):
        yield finding(
            "T303", place, "url() and < have no place in a mail's CSS", "Use mj-image for pictures."
        )
    for rule in rules:
        yield from _lint_inlined(rule, place) if inline else _lint_kept(rule, place)


def _lint_inlined(rule: Rule, place: Place) -> Iterator[Finding]:
    if "@" in rule.prelude or NOT_INLINED.search(rule.prelude):
        yield finding("T301", place, f'"{rule.prelude}" can\'t be inlined', HINT_INLINE)
    if "!important" in rule.body or "var(" in rule.body:
        yield finding("T301", place, f'"{rule.prelude}" uses !important or var()', HINT_INLINE)
    names = [each.partition(":")[0].strip() for each in rule.declarations]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield finding(
            "T301", place, f'"{rule.prelude}" sets {name} twice', "The inliner keeps the last one only."
        )


def _lint_kept(rule: Rule, place: Place) -> Iterator[Finding]:
    if "@" not in rule.prelude:
        return
    if not rule.prelude.startswith("@media") or rule.prelude.count("@") > 1 or "@" in rule.body:
        yield finding(
            "T303", place, f'"{rule.prelude}" is not kept by Gmail', "Only @media, never nested, is kept."
        )
        return
    for inner in (Rule(*match) for match in RULE.findall(rule.body)):
        if any(not each.endswith("!important") for each in inner.declarations):
            message = f'"{inner.prelude}" in "{rule.prelude}" lacks !important'
            yield finding("T302", place, message, "Without it the inlined style wins.")

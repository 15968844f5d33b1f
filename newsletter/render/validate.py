"""Find everything in MJML that the compiler would accept and spoil, with its place in the template."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING

from newsletter.render import rules
from newsletter.render.css import lint
from newsletter.render.findings import WHOLE, finding
from newsletter.render.markup import MARK, Kind, Token, tokens

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from newsletter.model import Finding

MAX_DEPTH = 100  # mrml ends the process somewhere between 1,000 and 2,000 wrappers
MAX_CHARACTERS = 1_000_000
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff\ud800-\udfff]")
PADDING = re.compile(r"(?:\d+(?:\.\d+)?(?:px)?\s*){1,4}")  # a bare number is mended, not refused
CONDITIONAL = re.compile(r"<!--\[if [^\]>]+\]>.*(?:<!\[endif\]-->|<!-->)|<!--<!\[endif\]-->", re.DOTALL)
PADDED = frozenset({"padding", "inner-padding"})
ROOT = ""


def validate(source: str) -> list[Finding]:
    """All that is wrong with ``source``; an empty list means the compiler may have it."""
    if len(source) > MAX_CHARACTERS:
        return [finding("T212", WHOLE, f"{len(source):,} characters of MJML")]
    return list(Validator(source).run())


class Validator:
    """One walk over the tags of a document."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.open: list[Token] = []
        self.seen: set[str] = set()
        self.header_cells = 0  # since the last <mj-table>

    def run(self) -> Iterator[Finding]:
        """The findings in the order of the document; stops where it can't be followed any further."""
        for token in tokens(self.source):
            if control := CONTROL.search(token.raw):
                yield finding("T213", token.place, f"there is a control character (U+{ord(control[0]):04X})")
            yield from self._token(token)
            if token.kind is Kind.BAD or len(self.open) > MAX_DEPTH:
                return
        for left in self.open:
            yield finding("T206", left.place, f"<{left.name}> is never closed", f"Add </{left.name}>.")
        if not {"mjml", "mj-body"} <= self.seen:
            yield finding("T214", WHOLE, "there is no <mjml> with an <mj-body> in it")

    def _token(self, token: Token) -> Iterator[Finding]:
        match token.kind:
            case Kind.OPEN | Kind.VOID:
                yield from self._opened(token)
            case Kind.CLOSE:
                yield from self._closed(token)
            case Kind.TEXT:
                yield from self._text(token)
            case Kind.CSS:
                yield from lint(
                    token.raw, token.place, inline=dict(self.open[-1].attributes).get("inline") == "inline"
                )
            case Kind.COMMENT:
                yield from _comment(token)
            case Kind.BAD:
                yield _unreadable(token)

    @property
    def _parent(self) -> str:
        return self.open[-1].name if self.open else ROOT

    def _opened(self, token: Token) -> Iterator[Finding]:
        self.seen.add(token.name)
        self.header_cells = 0 if token.name == "mj-table" else self.header_cells + (token.name == "th")
        yield from self._component(token) if token.name.startswith("mj") else self._html(token)
        if token.kind is Kind.OPEN and token.name not in rules.VOID:
            self.open.append(token)
            if len(self.open) > MAX_DEPTH:
                yield finding("T211", token.place, f"tags are nested deeper than {MAX_DEPTH}")

    def _component(self, token: Token) -> Iterator[Finding]:
        name, parent = token.name, self._parent
        if refused := _refused(name):
            yield finding("T202", token.place, f"<{name}> is left out on purpose", rules.REFUSED[refused])
        elif name not in rules.ATTRIBUTES:
            yield finding("T201", token.place, f"there is no <{name}>", _near(name, rules.ATTRIBUTES))
        elif name not in rules.CHILDREN.get(parent, ()) and not _refused(parent):
            yield finding("T203", token.place, f"<{name}> can't stand in {self._where}", _parents(name))
        else:
            yield from _attributes(token)

    def _html(self, token: Token) -> Iterator[Finding]:
        if self._silent(rules.TAKES_HTML):
            message = f"<{token.name}> can't stand in {self._where}"
            yield finding("T203", token.place, message, "Put it into <mj-text>.")

    def _closed(self, token: Token) -> Iterator[Finding]:
        names = [each.name for each in self.open]
        if token.name not in names:
            yield finding("T205", token.place, f"</{token.name}> closes nothing")
            return
        while (last := self.open.pop()).name != token.name:
            line = f" in line {last.place.line}" if last.place.line else ""
            message = f"</{token.name}> comes before <{last.name}>{line} is closed"
            yield finding("T205", token.place, message, f"Add </{last.name}> before it.")
        if last.name == "mj-table" and not self.header_cells:
            yield finding(
                "T215", last.place, "this <mj-table> has no header cells", "Use columns, or add <th scope>."
            )

    def _text(self, token: Token) -> Iterator[Finding]:
        text = token.raw.strip(" \t\r\n\ufeff")
        if text and self._silent(rules.TAKES_TEXT):
            message = f'the text "{text[:40]}" in {self._where} would not be shown'
            yield finding("T208", token.place, message, "Use <mj-text>.")

    def _silent(self, speaking: Collection[str]) -> bool:
        return self._parent == ROOT or (self._parent in rules.ATTRIBUTES and self._parent not in speaking)

    @property
    def _where(self) -> str:
        """What is open here, and since where: a tag in the wrong place often means that one was not closed."""
        if not self.open:
            return "the document by itself"
        place = self.open[-1].place
        since = f" (opened at {place.file}:{place.line})" if place.line else ""
        return f"<{self.open[-1].name}>{since}"


def _refused(name: str) -> str | None:
    return next((each for each in rules.REFUSED if name == each or name.startswith(f"{each}-")), None)


def _near(name: str, known: Collection[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"Did you mean {near[0]}?" if near else ""


def _parents(name: str) -> str:
    places = [
        f"<{parent}>" if parent else "no other tag" for parent, kids in rules.CHILDREN.items() if name in kids
    ]
    return f"It belongs into {' or '.join(places)}."


def _attributes(token: Token) -> Iterator[Finding]:
    known = rules.ATTRIBUTES[token.name]
    names = [name for name, _ in token.attributes]
    for name, value in token.attributes:
        if name not in known:
            yield finding("T204", token.place, f"<{token.name}> has no attribute {name}", _near(name, known))
        elif names.count(name) > 1:
            yield finding("T207", token.place, f"<{token.name}> has {name} twice")
        elif (name in PADDED or name.startswith("padding-")) and not PADDING.fullmatch(value):
            message = f'{name}="{value}" is not in px'
            yield finding(
                "T209", token.place, message, "Outlook would get columns of the wrong width; use px."
            )


def _comment(token: Token) -> Iterator[Finding]:
    conditional = "[if" in token.raw or "[endif" in token.raw
    if conditional and not CONDITIONAL.fullmatch(token.raw):
        message = "this conditional comment is not complete"
        yield finding("T210", token.place, message, "It is <!--[if mso]>…<![endif]-->.")


def _unreadable(token: Token) -> Finding:
    rest = MARK.sub("", token.raw[:200])
    if rest.startswith(("<!--", "<![")):
        hint = "Write <!--[if mso]>…<![endif]--> or <!--[if !mso]><!-->…<!--<![endif]-->."
        return finding("T210", token.place, f'this comment is not complete: "{rest[:40]}"', hint)
    hint = "Write &lt; for the character, and put quotes round the values of attributes."
    return finding("T207", token.place, f'this can\'t be read: "{rest[:40]}"', hint)

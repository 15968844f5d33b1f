"""Markdown to HTML for a mail, to plain text that reads well, and what an author may not write in it.

CommonMark without raw HTML: what merely looks like a tag is text, and stands as such in both forms. Merge
tags are kept whole: no character of theirs is Markdown, and no line is broken inside one.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

from newsletter import merge

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token

WORD = re.compile(rf"(?:{merge.TAG.pattern}|[^ ])+")
# Only these tags hold an address made by us. A custom field here could be `javascript:` from a CSV file.
LINK = re.compile(r"https?://[^\s/?#]|mailto:[^\s?]|@@(?:unsubscribe|preferences|view)_url@@", re.IGNORECASE)
DEEPEST = 10  # token levels: five lists in each other. The parser drops everything below 20 without a word.
NARROWEST = 24  # columns left for words in a deep list; less would put one word on a line


class Problem(NamedTuple):
    """What is wrong in a Markdown text."""

    line: int  # 1-based
    what: str
    todo: str


def _merge_tag(state: StateInline, silent: bool) -> bool:
    match = merge.TAG.match(state.src, state.pos, state.posMax)
    if match is None:
        return False
    if not silent:
        state.pending += match[0]
    state.pos = match.end()
    return True


@cache
def _parser(*, strict: bool) -> MarkdownIt:
    """The strict one makes HTML; the lenient one lets in what ``check`` then reports."""
    parser = MarkdownIt(
        "commonmark", {"html": False, "xhtmlOut": True, "linkify": False, "typographer": False}
    )
    parser.inline.ruler.before("escape", "merge_tag", _merge_tag)
    if strict:
        parser.disable("image")
        parser.validateLink = lambda url: bool(LINK.match(url))  # type: ignore[method-assign]
    else:
        parser.validateLink = lambda url: True  # type: ignore[method-assign]
        parser.normalizeLink = lambda url: url  # type: ignore[method-assign]
    return parser


def headings(text: str) -> list[tuple[int, str, int, int]]:
    """Top-level headings: level, Markdown source of the words, first line and the line after (0-based)."""
    tokens = _parser(strict=True).parse(text)
    return [
        (int(token.tag[1]), tokens[at + 1].content, token.map[0], token.map[1])
        for at, token in enumerate(tokens)
        if token.type == "heading_open" and token.level == 0 and token.map
    ]


def links(text: str) -> list[tuple[int, str]]:
    """Line (1-based) and target of every link, as written."""
    return [
        (line, str(token.attrs.get("href", "")))
        for line, token in _inline_tokens(text)
        if token.type == "link_open"
    ]


def _inline_tokens(text: str) -> Iterator[tuple[int, Token]]:
    for token in _parser(strict=False).parse(text):
        line = token.map[0] + 1 if token.map else 1
        for child in token.children or ():
            yield line, child
            line += child.type in {"softbreak", "hardbreak"}


def check(text: str) -> list[Problem]:
    """Everything a body may not hold, by line (1-based): what is wrong and what to do."""
    return sorted(bad_links(text) + bad_shape(text))


def bad_links(text: str) -> list[Problem]:
    """Links that are neither https, http nor mailto, nor one of our own merge tags."""
    todo = "Write the whole address, beginning with https://, http:// or mailto:."
    return [
        Problem(line, f"The link goes to “{target}”, which a mail can't open.", todo)
        for line, target in links(text)
        if not LINK.match(target)
    ]


def bad_shape(text: str) -> list[Problem]:
    """Headings that belong to the issue, pictures between words, and lists too deep for a phone."""
    return [*_high_headings(text), *_pictures(text), *_too_deep(text)]


def _high_headings(text: str) -> Iterator[Problem]:
    for token in _parser(strict=False).parse(text):
        if token.type == "heading_open" and token.tag in {"h1", "h2"} and token.map:
            yield Problem(
                token.map[0] + 1,
                "A heading inside a text needs three # or more: one and two are the issue's own.",
                "Write ### before it (and no line of = or - under it).",
            )


def _pictures(text: str) -> Iterator[Problem]:
    for line, token in _inline_tokens(text):
        if token.type == "image":
            yield Problem(
                line,
                "A picture between the words is not possible.",
                "Name the one picture of the issue in issue.toml: [lead] image and image_alt.",
            )


def _too_deep(text: str) -> Iterator[Problem]:
    deep = [
        token.map[0] for token in _parser(strict=False).parse(text) if token.level > DEEPEST and token.map
    ]
    if deep:
        yield Problem(
            min(deep) + 1,
            "Lists or quotes are nested too deeply for a small screen.",
            "Use at most four levels.",
        )


def to_html(text: str, *, heading_level: int = 3) -> str:
    """Balanced XHTML. The text's highest headings become ``heading_level``, and no level is skipped below."""
    parser = _parser(strict=True)
    tokens = parser.parse(text)
    _shift_headings(tokens, heading_level)
    return str(parser.renderer.render(tokens, parser.options, {}))


def _shift_headings(tokens: Iterable[Token], first: int) -> None:
    above: list[int] = []
    for token in tokens:
        if token.type == "heading_open":
            level = int(token.tag[1])
            while above and above[-1] >= level:
                above.pop()
            above.append(level)
        if token.type in {"heading_open", "heading_close"}:
            token.tag = f"h{min(first + len(above) - 1, 6)}"


def to_text(text: str, *, width: int = 72) -> str:
    """Plain text in lines of ``width`` (24 or more) characters; only a word, a merge tag or code is longer."""
    return "\n".join(_blocks(SyntaxTreeNode(_parser(strict=True).parse(text)), width))


def inline_text(text: str) -> str:
    """One line of Markdown, a heading for instance, as plain words."""
    tokens = _parser(strict=True).parseInline(text)
    return _words(SyntaxTreeNode(tokens))


def wrap(text: str, width: int) -> list[str]:
    """Lines of whole words. Only plain spaces part words: a no-break space must not break."""
    lines: list[str] = []
    for word in (match[0] for match in WORD.finditer(text)):
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _blocks(node: SyntaxTreeNode, width: int, *, tight: bool = False) -> list[str]:
    lines: list[str] = []
    for child in node.children:
        if lines and not tight:
            lines.append("")
        lines += _block(child, max(width, NARROWEST))
    return lines


def _block(node: SyntaxTreeNode, width: int) -> list[str]:
    if node.type in {"paragraph", "heading"}:
        return [line for part in _words(node).split("\n") for line in wrap(part, width)]
    if node.type in {"fence", "code_block"}:
        return node.content.removesuffix("\n").split("\n")
    if node.type == "blockquote":
        return [f"> {line}".rstrip(" ") for line in _blocks(node, width - 2)]
    if node.type in {"bullet_list", "ordered_list"}:
        return _list(node, width)
    return ["* * *"]  # a thematic break, the only block left


def _list(node: SyntaxTreeNode, width: int) -> list[str]:
    start = int(node.attrs.get("start", 1))
    paragraphs = [child for item in node.children for child in item.children if child.type == "paragraph"]
    tight = all(paragraph.hidden for paragraph in paragraphs)
    lines: list[str] = []
    for number, item in enumerate(node.children, start):
        mark = "- " if node.type == "bullet_list" else f"{number}. "
        if lines and not tight:
            lines.append("")
        body = _blocks(item, width - len(mark), tight=tight) or [""]
        lines += [f"{' ' * len(mark) if at else mark}{line}".rstrip(" ") for at, line in enumerate(body)]
    return lines


def _words(node: SyntaxTreeNode) -> str:
    """The words of inline nodes; a hard break is a line feed."""
    if node.type == "link" and node.markup == "autolink":
        return str(node.attrs["href"]).removeprefix("mailto:")
    if node.type == "link":
        return _link("".join(map(_words, node.children)), str(node.attrs["href"]))
    if node.type in {"softbreak", "hardbreak"}:
        return " " if node.type == "softbreak" else "\n"
    return "".join(map(_words, node.children)) if node.children else _content(node)


def _content(node: SyntaxTreeNode) -> str:
    return node.content if node.type in {"text", "code_inline"} else ""


def _link(words: str, target: str) -> str:
    if target.startswith("mailto:"):
        target = target.removeprefix("mailto:").partition("?")[0]
    return target if words in {target, ""} else f"{words} ({target})"

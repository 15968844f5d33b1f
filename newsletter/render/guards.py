"""Last looks at the finished HTML: what a compiler or an inliner may have lost without a word."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from newsletter import merge
from newsletter.pictures import resolve_pictures
from newsletter.render.findings import WHOLE, fail, finding

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from newsletter.model import Finding

# Gmail keeps 16 kB of styles; its app was seen dropping single blocks above 8 kB.
STYLE_BLOCK_BYTES = 8_192
STYLE_TOTAL_BYTES = 16_384
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
STYLE = re.compile(r"<style\b[^>]*>(.*?)</style>", re.DOTALL)
LOADED = re.compile(r"<(?:link|script|iframe|object|embed)\b|@import|@font-face", re.IGNORECASE)


def check(source: str, compiled: str, html: str, pictures: Collection[str]) -> None:
    """Raise ``TemplateError`` when ``html`` lost something of the MJML or the compiled HTML it came from."""
    findings = [
        *_merge_tags(source, html),
        *_comments(compiled, html),
        *_styles(html),
        *_loaded(html, pictures),
    ]
    if findings:
        fail(findings)


def picture_names(html: str) -> list[str]:
    """The pictures ``html`` shows, in order."""
    names: list[str] = []

    def note(name: str) -> str:
        names.append(name)
        return name

    resolve_pictures(html, note)
    return names


def _count(text: str) -> Counter[str]:
    return Counter(part.name for part in merge.split(text) if isinstance(part, merge.Slot))


def _merge_tags(source: str, html: str) -> Iterator[Finding]:
    # The compiler repeats the title as the label of the mail.
    title = "".join(re.findall(r"<mj-title\b.*?</mj-title\b[^>]*>", source, re.DOTALL))
    before, after = _count(source) + _count(title), _count(html)
    for name in sorted(before.keys() | after.keys()):
        if before[name] != after[name]:
            message = (
                f"@@{name}@@ stands {before[name]} times in the template and {after[name]} times in the mail"
            )
            yield finding("T403", WHOLE, message)


def _comments(compiled: str, html: str) -> Iterator[Finding]:
    if COMMENT.findall(compiled) != COMMENT.findall(html):
        yield finding("T404", WHOLE, "a comment for Outlook was changed while the styles were inlined")


def _styles(html: str) -> Iterator[Finding]:
    sizes = [len(css.encode()) for css in STYLE.findall(COMMENT.sub("", html))]
    hint = "Gmail would drop it; split it, or inline what can be inlined."
    for size in sizes:
        if size > STYLE_BLOCK_BYTES:
            yield finding(
                "T405", WHOLE, f"a style block has {size:,} bytes, more than {STYLE_BLOCK_BYTES:,}", hint
            )
    if sum(sizes) > STYLE_TOTAL_BYTES:
        yield finding("T405", WHOLE, f"all styles together have {sum(sizes):,} bytes", hint)


def _loaded(html: str, pictures: Collection[str]) -> Iterator[Finding]:
    if loaded := LOADED.search(html):
        yield finding(
            "T406", WHOLE, f"the mail would load something: {loaded[0]}", "Mails are read offline too."
        )
    for name in sorted(set(picture_names(html)) - set(pictures)):
        yield finding("T407", WHOLE, f'there is no picture "{name}" in this issue')

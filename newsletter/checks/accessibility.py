"""What a reader with a screen reader would stumble over in the compiled html.

The rules are those of WCAG 2.2 that mail can meet: 1.1.1, 1.3.1, 2.4.2, 2.4.4 and 3.1.1.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from newsletter.pictures import reference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lxml.html import HtmlElement

    from newsletter.checks.inspection import Inspection, Place
    from newsletter.model import Finding

FILE_NAME = re.compile(
    r"\S+\.(png|jpe?g|gif|webp|svg|bmp|tiff?)|(img|image|dsc|screenshot)[-_ ]?\d+", re.IGNORECASE
)
HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")


def find(seen: Inspection) -> Iterator[Finding]:
    """All findings of this family."""
    yield from _pictures(seen)
    yield from _links(seen)
    yield from _document(seen)
    yield from _headings(seen)
    yield from _tables(seen)


def _pictures(seen: Inspection) -> Iterator[Finding]:
    for element in seen.tree.iter("img"):
        source, alt = element.get("src", ""), element.get("alt")
        place = _picture_place(seen, source)
        if alt is None:
            yield place.error(
                "A101",
                f"The picture {source!r} has no alt attribute.",
                'Say what it shows, or write alt="" if it only decorates.',
            )
        elif not alt.strip() and _is_lead_picture(seen, source):
            yield place.error(
                "A102",
                f"The picture {source!r} has an empty alt text.",
                "Say in image_alt what a reader who can't see it should know.",
            )
        elif FILE_NAME.fullmatch(alt.strip()):
            yield place.error(
                "A103", f"The alt text {alt!r} is a file name.", "Say in a few words what the picture shows."
            )


def _is_lead_picture(seen: Inspection, source: str) -> bool:
    picture = seen.issue.lead.picture
    return picture is not None and source == reference(picture.name)


def _picture_place(seen: Inspection, source: str) -> Place:
    if _is_lead_picture(seen, source):
        return seen.key("lead.image_alt")
    return seen.origin(source, where=source)


def _links(seen: Inspection) -> Iterator[Finding]:
    for element in seen.tree.iter("a"):
        target = element.get("href")
        if target is not None and not _words(element):
            yield seen.link(target).error(
                "A104", f"The link to {target} holds no words.", "Write what the reader will find there."
            )


def _words(element: HtmlElement) -> str:
    alts = (picture.get("alt", "") for picture in element.iter("img"))
    return " ".join((element.text_content(), element.get("aria-label", ""), *alts)).strip()


def _document(seen: Inspection) -> Iterator[Finding]:
    root, language, place = seen.tree, seen.publication.language, seen.compiled("html")
    if root.get("lang") != language:
        yield place.error(
            "A105",
            f'The html says lang="{root.get("lang", "")}", the publication is in "{language}".',
            f'Write <mjml lang="{language}"> in the layout template.',
        )
    if root.get("dir") not in {"ltr", "rtl"}:
        yield place.error(
            "A105",
            "The html does not say in which direction it is read.",
            'Write <mjml dir="ltr"> in the layout template, or dir="rtl" for Arabic or Hebrew.',
        )
    if not (root.findtext(".//title") or "").strip():
        yield place.error("A106", "The html has no title.", "Put <mj-title> into the layout template.")


def _headings(seen: Inspection) -> Iterator[Finding]:
    found = [(int(element.tag[1]), _words(element)) for element in seen.tree.iter(*HEADINGS)]
    mains = sum(level == 1 for level, _ in found)
    if mains != 1:
        yield seen.compiled("h1").warning(
            "A107", f"The email has {mains} main headings (h1).", "Have exactly one: the lead's title."
        )
    before = 0
    for level, words in found:
        place = seen.origin(words, where=words or f"h{level}")
        if not words:
            yield place.warning("A107", f"A heading (h{level}) is empty.", "Give it words, or take it out.")
        elif before and level > before + 1:
            yield place.warning(
                "A107", f"The heading “{words}” is h{level} and follows h{before}.", f"Make it h{before + 1}."
            )
        before = level


def _tables(seen: Inspection) -> Iterator[Finding]:
    unmarked = [table for table in seen.tree.iter("table") if not _is_marked(table)]
    if unmarked:
        words = " ".join(unmarked[0].text_content().split())[:40]
        yield seen.compiled("table").error(
            "A108",
            f"{len(unmarked)} layout table(s) without a role; the first holds “{words}”.",
            'Write role="presentation" on it, or <th> for the headings if it is a table of data.',
        )


def _is_marked(table: HtmlElement) -> bool:
    return table.get("role") in {"presentation", "none"} or table.find(".//th") is not None

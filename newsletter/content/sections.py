"""The three sections of lead.md, and what is wrong with any Markdown of an issue."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

from newsletter import markdown
from newsletter.content.files import line_of
from newsletter.model import Section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from newsletter.content.codes import Fault
    from newsletter.content.values import Tags

THREE_SECTIONS = (
    "Write exactly three sections, each with a line “## …” above it: what was found, why it matters, "
    "what it does not show."
)


def split(text: str) -> tuple[list[Section], list[tuple[int, Fault]]]:
    """The sections of a lead, and every fault of its shape with its line."""
    if not text.strip():
        return [], [(1, ("C131", "The file is empty.", THREE_SECTIONS))]
    lines = text.split("\n")
    heads = [(start, end, source) for level, source, start, end in markdown.headings(text) if level == 2]
    faults = _before(lines[: heads[0][0]] if heads else lines)
    if len(heads) != 3:
        faults.append((heads[3][0] + 1 if len(heads) > 3 else 1, _not_three(len(heads))))
    sections = []
    for (start, end, source), (following, _, _) in pairwise([*heads, (len(lines), 0, "")]):
        body = "\n".join(lines[end:following])
        faults += [(line + start, fault) for line, fault in _section_faults(source, body, end - start)]
        sections.append(Section(markdown.inline_text(source), trimmed(body), start + 1))
    return sections, faults or _shared_definitions(text, sections)


def _before(lines: list[str]) -> list[tuple[int, Fault]]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            what = "There is text before the first section."
            hint = "Begin with a line “## …”; the title of the lead stands in issue.toml."
            return [(number, ("C133", what, hint))]
    return []


def _not_three(count: int) -> Fault:
    found = ("no sections", "one section", "two sections")[count] if count < 3 else f"{count} sections"
    return "C132", f"The lead has {found} and needs exactly three.", THREE_SECTIONS


def _section_faults(heading: str, body: str, lines_of_heading: int) -> Iterator[tuple[int, Fault]]:
    """Faults with lines counted from the heading's, which is 1."""
    if not markdown.inline_text(heading).strip():
        yield 1, ("C135", "The section has no heading.", "Write words after the ##.")
    if markdown.links(heading):
        yield 1, ("C134", "A heading can't be a link.", "Move the link into the text below.")
    if not markdown.to_text(body).strip():
        yield 1, ("C135", "The section is empty.", "Write its text below the heading.")
    for problem in markdown.bad_shape(body):
        yield problem.line + lines_of_heading, ("C134", problem.what, problem.todo)


def _shared_definitions(text: str, sections: list[Section]) -> list[tuple[int, Fault]]:
    """Each section is rendered alone, so a link whose ``[1]: https://…`` is in another would be lost."""
    if len(markdown.links(text)) == sum(len(markdown.links(section.body)) for section in sections):
        return []
    what = "A link uses an address that is defined in another section."
    return [(1, ("C134", what, "Write the address into the link: [words](https://…)"))]


def trimmed(text: str) -> str:
    """Without blank lines at both ends. Spaces before the first word stay: they may make it code."""
    return re.sub(r"\A(?:[ \t]*\n)+", "", text).rstrip()


def markdown_faults(text: str, tags: Tags) -> Iterator[tuple[int, Fault]]:
    """What holds for every Markdown file: links and merge tags, by line."""
    for line, what, todo in markdown.bad_links(text):
        yield line, ("C121", what, todo)
    for line, target in markdown.links(text):
        for _, fault in tags.faults(target, in_link=True):
            text = text.replace(target, "-" * len(target))  # told here with the better advice, so not again
            yield line, fault
    for offset, fault in tags.faults(text):
        yield line_of(text, offset), fault

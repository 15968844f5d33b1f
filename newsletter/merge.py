"""Merge tags: ``@@name@@`` and ``@@name|reader@@``, filled per recipient.

Why ``@@``: braces survive neither Markdown (percent-encoded in link targets) nor providers that have braces of
their own; ``@@name@@`` came through Markdown, MJML, premailer and quoted-printable untouched.

A fallback belongs to the text around it: in compiled HTML it is HTML already. So ``fill`` escapes values only.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

ISSUE_TAGS = frozenset({"name", "unsubscribe_url", "preferences_url", "view_url", "issue_title"})
RESERVED = ISSUE_TAGS | {"action_url"}  # no custom field is called so; the last is what a letter is about

# The fallback stops at the next "@@", so that a forgotten end costs one tag and not the rest of the line.
TAG = re.compile(r"@@([a-z][a-z0-9_]*)(?:\|((?:(?!@@)[^\r\n])*))?@@")
STRAY = re.compile(r"@@(?:((?:(?!@@)[^\r\n])*)@@)?")
SHOWN = 40  # characters of a broken tag that a message repeats


class Slot(NamedTuple):
    """A place that is filled per recipient."""

    name: str
    fallback: str | None  # None: none was written; "" was written and means nothing on purpose


Parts = tuple[str | Slot, ...]
Problem = tuple[int, str, str]  # offset in the text, what is wrong, what to do


def split(text: str) -> Parts:
    """Cut ``text`` at its merge tags. What only looks like one stays text; empty pieces of text are left out."""
    return tuple(_cut(text))


def _cut(text: str) -> Iterator[str | Slot]:
    end = 0
    for tag in TAG.finditer(text):
        if tag.start() > end:
            yield text[end : tag.start()]
        yield Slot(tag[1], tag[2])
        end = tag.end()
    if end < len(text):
        yield text[end:]


def names(text: str) -> set[str]:
    """The names of all tags in ``text``."""
    return {tag[1] for tag in TAG.finditer(text)}


def fill(parts: Parts, values: Mapping[str, str], escape: Callable[[str], str] = str) -> str:
    """Put ``parts`` together for one person.

    Values are escaped with ``escape`` and never searched for tags again. A value that is missing or empty
    gives way to the fallback, else to nothing.
    """
    return "".join(part if isinstance(part, str) else _value(part, values, escape) for part in parts)


def _value(slot: Slot, values: Mapping[str, str], escape: Callable[[str], str]) -> str:
    value = values.get(slot.name, "")
    return escape(value) if value else slot.fallback or ""


def bind(parts: Parts, shared: Mapping[str, str], escape: Callable[[str], str] = str) -> Parts:
    """Fill the slots that ``shared`` names, as ``fill`` does; the others stay. No two texts stand side by side."""
    bound: list[str | Slot] = []
    for part in parts:
        if isinstance(part, Slot) and part.name not in shared:
            bound.append(part)
            continue
        text = fill((part,), shared, escape)
        if bound and isinstance(last := bound[-1], str):
            bound[-1] = last + text
        elif text:
            bound.append(text)
    return tuple(bound)


def problems(
    text: str, known: Collection[str], *, optional: Collection[str] = ("name",), in_link: bool = False
) -> list[Problem]:
    """What is wrong with the tags of ``text``: (offset, what is wrong, what to do), in their order.

    ``known`` are all the names there are, ``optional`` those that a person may lack, ``in_link`` says that
    ``text`` is the target of a link.
    """
    found: list[Problem] = []
    end = 0
    for tag in TAG.finditer(text):
        found += _strays(text, end, tag.start(), known)
        wrong = _wrong(Slot(tag[1], tag[2]), known, optional, in_link=in_link)
        found += [(tag.start(), *wrong)] if wrong else []
        end = tag.end()
    return found + list(_strays(text, end, len(text), known))


def _wrong(
    slot: Slot, known: Collection[str], optional: Collection[str], *, in_link: bool
) -> tuple[str, str] | None:
    tag = f"@@{slot.name}@@"
    if slot.name not in known:
        return f"there is no merge tag {tag}", _suggest(slot.name, known)
    if in_link and slot.name in optional:
        return f"{tag} stands in a link, and a reader may have none", "Write the link without it."
    if in_link and slot.fallback is not None:
        return f"the fallback of {tag} stands in a link, where | is encoded", f"Write {tag} in links."
    if slot.name in optional and slot.fallback is None:
        return (
            f"{tag} has no fallback for readers without one",
            f"Write what they see instead: @@{slot.name}|reader@@.",
        )
    return None


def _suggest(word: str, known: Collection[str]) -> str:
    near = get_close_matches(word, sorted(known), n=1)
    return f"Did you mean @@{near[0]}@@?" if near else f"The merge tags are {', '.join(sorted(known))}."


def _strays(text: str, start: int, end: int, known: Collection[str]) -> Iterator[Problem]:
    for stray in STRAY.finditer(text, start, end):
        yield (stray.start(), *_stray(stray[1], known))


def _stray(inside: str | None, known: Collection[str]) -> tuple[str, str]:
    if inside is None:
        return "@@ begins a merge tag that never ends", "Write @@name|reader@@, or a single @."
    shown = f"“@@{inside[:SHOWN]}@@”"
    name, encoded, _ = re.split(r"(%7c|$)", inside, maxsplit=1, flags=re.IGNORECASE)
    if encoded:
        return (
            f"{shown} has a | that a link turned into %7C",
            f"Write @@{name}@@: a link can hold no fallback.",
        )
    word = inside.partition("|")[0].strip().lower()
    rule = "A merge tag is @@name@@ or @@name|fallback@@, in small letters, digits and _."
    return f"{shown} is no merge tag", f"Write @@{word}@@." if word in known else rule

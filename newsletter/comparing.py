"""What readers would get, then and now, compared in their terms: words, links, teasers, pictures. Pure.

::

    snapshot(issue, editions)  →  Snapshot  →  to_json, from_json: kept with each approval
    compare(before, after)     →  Changes   →  marked(change): [-what was-]{+what is+}

Seen backwards, each change is its own mirror image. What only differs in bytes (a style, a template) is no change here:
the seal names the files.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any, TypeVar

from lxml import etree
from lxml import html as lxml_html

from newsletter.model import Edition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from newsletter.model import Email, Issue, Picture, Teaser

T = TypeVar("T")

TEXT_PART = "text"
RULE = re.compile(r"[=\-*_ ]+")  # a line that only draws one
ITEM = re.compile(r"(?:[-*>]|\d+\.) ")  # begins a point of a list, or goes on with a quotation
TARGET = re.compile(r" \(\S+\)")  # of a link, as the text part has it
# What stands behind the preheader, so that inboxes show no more than it.
PADDING = re.compile(r"[\s\u00a0\u00ad\u034f\u200b\u200c\u2007\ufeff]{2,}|\s")
UNSEEN = (etree.Comment, "head", "style", "script")
INLINE = frozenset({"a", "b", "code", "em", "font", "i", "small", "span", "strong", "sub", "sup", "u"})
SENTENCE = re.compile(r"(?<=[.!?…]) |(?<=[。！？])")


@dataclass(frozen=True, slots=True)
class Link:
    """Where some words lead."""

    words: str
    url: str


@dataclass(frozen=True, slots=True)
class Pointer:
    """A teaser."""

    title: str
    text: str
    url: str
    date: str  # ISO


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture."""

    name: str
    alt: str
    width: int  # pixels
    height: int  # pixels
    size: int  # bytes
    sha256: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What readers would get of an issue. Merge tags stand as they are."""

    sender: str
    subject: str
    preheader: str
    texts: Mapping[str, str]  # the text part, and the words of each html
    links: tuple[Link, ...]
    teasers: tuple[Pointer, ...]
    pictures: tuple[Shown, ...]
    sizes: Mapping[str, int]  # edition → bytes of its html

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Snapshot:
        """The inverse of ``to_json``."""
        known = dict(stored)
        for name, kind in (("links", Link), ("teasers", Pointer), ("pictures", Shown)):
            known[name] = tuple(kind(**each) for each in stored[name])
        return cls(**known)


def snapshot(issue: Issue, editions: Sequence[Email], sender: str) -> Snapshot:
    """Of the ``editions`` of an issue, the standard one first."""
    standard, htmls = editions[0], [email for email in editions if email.html]
    return Snapshot(
        sender=sender,
        subject=standard.subject,
        preheader=standard.preheader,
        texts=_texts(editions),
        links=tuple(dict.fromkeys(link for email in htmls for link in _links(email.html))),
        teasers=tuple(map(_pointer, issue.related)),
        pictures=tuple(
            {picture.name: _shown(picture) for email in htmls for picture in email.pictures}.values()
        ),
        sizes={email.edition: len(email.html.encode()) for email in editions},
    )


def _texts(editions: Sequence[Email]) -> dict[str, str]:
    """A template may say in one of them what it does not say in another."""
    parts = {f"text, {email.edition}": email.text for email in editions if email.text != editions[0].text}
    htmls = {f"html, {email.edition}": _words(email.html) for email in editions if email.html}
    return {TEXT_PART: editions[0].text, **parts, **htmls}


def _words(html: str) -> str:
    """What stands on the page, a paragraph for each block."""
    tree = lxml_html.fromstring(html)
    etree.strip_elements(tree, *UNSEEN, with_tail=False)
    found = []
    for event, element in etree.iterwalk(tree, events=("start", "end")):
        gap = "" if element.tag in INLINE else "\n\n"
        found += [gap, (element.text if event == "start" else element.tail) or ""]
    paragraphs = [PADDING.sub(" ", each).strip() for each in "".join(found).split("\n\n")]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def _links(html: str) -> Iterator[Link]:
    for anchor in lxml_html.fromstring(html).iterfind(".//a[@href]"):
        pictured = [image.get("alt", "") for image in anchor.iterfind(".//img")]
        yield Link(" ".join(" ".join([anchor.text_content(), *pictured]).split()), anchor.get("href"))


def _pointer(teaser: Teaser) -> Pointer:
    return Pointer(teaser.title, teaser.text, teaser.url, teaser.date.isoformat())


def _shown(picture: Picture) -> Shown:
    size = len(picture.data)
    return Shown(picture.name, picture.alt, picture.width, picture.height, size, picture.sha256)


# --- comparing -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Change:
    """One difference, as readers would notice it; None where one side has nothing of the kind."""

    part: str  # sender, subject, preheader, text, link, teaser, picture or size
    name: str  # which one, where there are several
    before: str | None
    after: str | None


def compare(before: Snapshot, after: Snapshot) -> list[Change]:
    """Every difference, in the order in which a reader meets them; nothing for equal snapshots."""
    families = (_lines, _text, _link_changes, _teasers, _pictures, _sizes)
    return [change for family in families for change in family(before, after)]


def _lines(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for part in ("sender", "subject", "preheader"):
        yield from _unless_same(part, "", getattr(before, part), getattr(after, part))


def _unless_same(part: str, name: str, before: str | None, after: str | None) -> Iterator[Change]:
    if before != after:
        yield Change(part, name, before, after)


def _text(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    """What the text part says first, then what only an html says: most words stand in all of them."""
    said = set()
    for name in sorted({*before.texts, *after.texts}, key=_rank):
        for old, new in _passages(before.texts.get(name, ""), after.texts.get(name, "")):
            key = (_bare(old), _bare(new))
            if key not in said:
                yield Change("text", "" if name == TEXT_PART else name, old, new)
            said.add(key)


def _rank(name: str) -> tuple[bool, bool, str]:
    """The text part, the standard edition, the others."""
    return name != TEXT_PART, Edition.STANDARD not in name, name


def _passages(before: str, after: str) -> Iterator[tuple[str | None, str | None]]:
    for old, new in _differing(sentences(before), sentences(after)):
        if len(old) == len(new):
            yield from zip(old, new, strict=True)
        else:
            yield " ".join(old) or None, " ".join(new) or None


def _bare(passage: str | None) -> str | None:
    """As an html has it: no marks of a list, and no targets of links."""
    return passage and TARGET.sub("", ITEM.sub("", passage))


def sentences(text: str) -> list[str]:
    """The sentences of a text part. How its lines are broken, and what is drawn under headings, is no part of them."""
    found: list[str] = []
    for paragraph in text.split("\n\n"):
        flow = ""
        for line in paragraph.splitlines():
            if ITEM.match(line.strip()) or RULE.fullmatch(line):
                found += SENTENCE.split(flow)
                flow = ""
            flow = flow if RULE.fullmatch(line) else f"{flow} {line.strip()}".strip()
        found += SENTENCE.split(flow)
    return [sentence for sentence in found if sentence]


def _differing(before: list[str], after: list[str]) -> Iterator[tuple[list[str], list[str]]]:
    for _, old, new in _runs(before, after):
        yield old, new


def _runs(before: list[str], after: list[str]) -> Iterator[tuple[int, list[str], list[str]]]:
    """The runs that differ, with the place in ``before``.

    What ``difflib`` finds depends on which side comes first, so that is always the same one, however it is asked.
    """
    flip = (len(after), after) < (len(before), before)
    first, second = (after, before) if flip else (before, after)
    for kind, a, b, c, d in SequenceMatcher(None, first, second).get_opcodes():
        if kind != "equal":
            yield (c, second[c:d], first[a:b]) if flip else (a, first[a:b], second[c:d])


def _link_changes(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    """A link is the same one while its words or its target stay."""
    keys = (lambda link: link, lambda link: link.url, lambda link: link.words)
    for old, new in _paired(before.links, after.links, *keys):
        if old and new and old.words == new.words:
            yield from _unless_same("link", old.words, old.url, new.url)
        elif old and new:
            yield Change("link", old.url, old.words, new.words)
        else:
            yield Change("link", "", _as_text(old), _as_text(new))


def _as_text(link: Link | None) -> str | None:
    return f"{link.words} ({link.url})" if link else None


def _paired(
    before: Iterable[T], after: Iterable[T], *keys: Callable[[T], object]
) -> Iterator[tuple[T | None, T | None]]:
    """Each thing beside what it has become: the same by the first key, else by the next; in their order."""
    old, new = list(before), list(after)
    for key in keys:
        for one in tuple(old):
            same = next((other for other in new if key(other) == key(one)), None)
            if same is not None:
                old.remove(one)
                new.remove(same)
                yield one, same
    yield from ((one, None) for one in old)
    yield from ((None, one) for one in new)


def _teasers(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    """A teaser is the same one while its address or its title stays."""
    keys = (lambda placed: placed[1].url, lambda placed: placed[1].title)
    pairs = list(_paired(enumerate(before.teasers, 1), enumerate(after.teasers, 1), *keys))
    for old, new in pairs:
        if old and new:
            yield from _reworded(old[1], new[1])
        else:
            yield Change("teaser", "", old and old[1].title, new and new[1].title)
    yield from _moved([(old, new) for old, new in pairs if old and new])


def _reworded(old: Pointer, new: Pointer) -> Iterator[Change]:
    for name in ("title", "text", "url", "date"):
        yield from _unless_same(
            "teaser", f"{_name(old, new)}: {name}", getattr(old, name), getattr(new, name)
        )


def _name(old: Pointer, new: Pointer) -> str:
    return old.title if old.title == new.title else old.url


def _moved(both: list[tuple[tuple[int, Pointer], tuple[int, Pointer]]]) -> Iterator[Change]:
    """Those that were lifted out and put elsewhere; not those that they have passed."""
    then, now = (sorted(both, key=lambda pair: pair[side][0]) for side in (0, 1))
    lifted = {one for old, _ in _differing([*map(_key, then)], [*map(_key, now)]) for one in old}
    for pair in both:
        (was, old), (is_, new) = pair
        if _key(pair) in lifted and was != is_:
            yield Change("teaser", f"{_name(old, new)}: place", str(was), str(is_))


def _key(pair: tuple[tuple[int, Pointer], tuple[int, Pointer]]) -> str:
    """The same from either side."""
    return " ".join(sorted(f"{teaser.url} {teaser.title}" for _, teaser in pair))


def _pictures(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    then, now = ({each.name: each for each in side.pictures} for side in (before, after))
    for name in dict.fromkeys((*then, *now)):
        old, new = then.get(name), now.get(name)
        if old and new:
            yield from _unless_same("picture", f"{name}: described as", old.alt, new.alt)
            yield from _unless_same("picture", name, _measures(old), _measures(new))
        else:
            yield Change("picture", name, _described(old), _described(new))


def _described(picture: Shown | None) -> str | None:
    return f"{picture.alt} ({_measures(picture)})" if picture else None


def _measures(picture: Shown) -> str:
    """``600 × 400 pixels, 81.2 kB, 1a2b3c4d5e6f``: two pictures of the same size can differ too."""
    return f"{picture.width} × {picture.height} pixels, {picture.size / 1000:,.1f} kB, {picture.sha256[:12]}"


def _sizes(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for edition in dict.fromkeys((*before.sizes, *after.sizes)):
        old, new = before.sizes.get(edition), after.sizes.get(edition)
        yield from _unless_same("size", edition, _bytes(old), _bytes(new))


def _bytes(size: int | None) -> str | None:
    return None if size is None else f"{size:,} bytes of html"


# --- saying it -----------------------------------------------------------------------------------------------------


def marked(change: Change, *, near: int = sys.maxsize) -> str:
    """Word by word, to be read without colour: ``The level was [-lower-]{+higher+}.``

    Of every run of words that is longer, only the first and the last ``near`` are shown.
    """
    old, new, at, words = (change.before or "").split(), (change.after or "").split(), 0, []
    for a, gone, come in _runs(old, new):
        words += [*_ends(old[at:a], near), _mark("[-", gone, "-]", near) + _mark("{+", come, "+}", near)]
        at = a + len(gone)
    return " ".join([*words, *_ends(old[at:], near)])


def _mark(begin: str, words: list[str], end: str, near: int) -> str:
    return f"{begin}{' '.join(_ends(words, near))}{end}" if words else ""


def _ends(words: list[str], near: int) -> list[str]:
    return words if len(words) <= 2 * near else [*words[:near], "…", *words[-near:]]


def brief(changes: Iterable[Change]) -> list[str]:
    """For a refusal: the subject in full, of everything else how much. Sizes are no news of their own."""
    found, counted = [], Counter(change.part for change in changes if change.part in COUNTED)
    for change in changes:
        if change.part == "subject":
            found.append(f"the subject (“{change.before}”, now “{change.after}”)")
        elif change.part in {"sender", "preheader"}:
            found.append(f"the {change.part}")
    many = [f"{number} {COUNTED[part]}{'' if number == 1 else 's'}" for part, number in counted.items()]
    return found + many


COUNTED = {"text": "passage", "link": "link", "teaser": "teaser", "picture": "picture"}

"""What the values of issue.toml say: alone, and beside each other.

Rules take what ``tomllib`` read and never trust its shape, which ``shape`` judges: so one wrong key hides nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from newsletter import merge
from newsletter.content import shape
from newsletter.content.files import CONTROL
from newsletter.headers import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from newsletter.content.codes import Fault

    Rule = Callable[[str], Fault | None]

SLUG = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
LONGEST_SLUG = 40  # characters: it stands in links and file names
LINE_BREAK = re.compile("[\n\u2028\u2029]")
ALT_HINT = 'Say in a sentence what it shows: image_alt = "…" under [lead].'


def is_slug(slug: str) -> bool:
    """Small letters and digits in groups joined by single dashes, such as ``2026-12``."""
    return len(slug) <= LONGEST_SLUG and SLUG.fullmatch(slug) is not None


class Tags:
    """The merge tags that may be used, and those a person may not have."""

    def __init__(self, fields: Collection[str]) -> None:
        self.known = merge.ISSUE_TAGS | set(fields)
        self.optional = {"name", *fields}

    def faults(self, text: str, *, in_link: bool = False) -> list[tuple[int, Fault]]:
        """Offset and fault of every merge tag that would not come out right."""
        found = merge.problems(text, self.known, optional=self.optional, in_link=in_link)
        return [(offset, ("C141", f"{what[0].upper()}{what[1:]}.", todo)) for offset, what, todo in found]


def faults(data: dict[str, Any], slug: str, tags: Tags) -> Iterator[tuple[str, Fault]]:
    """Key path and fault of everything the values say wrongly."""
    for where, value in _texts(data):
        for fault in _value_faults(where, value, tags):
            yield where, fault
    yield from _repeated_subject(data)
    yield from _articles(data)
    yield from _source(data)
    yield from _period_faults(data, slug)
    yield from _wordless_picture(data)


def _value_faults(where: str, value: str, tags: Tags) -> list[Fault]:
    rules, place = RULES.get(shape.pattern(where), ((), None))
    for rule in rules:
        if fault := rule(value):
            code, what, todo = fault
            return [(code, f"“{where}” {what}.", todo)]
    return [fault for _, fault in tags.faults(value, in_link=place == "link")] if place else []


def _texts(data: object, where: str = "") -> Iterator[tuple[str, str]]:
    """Every text in the file with its key path, whatever the shape around it."""
    if isinstance(data, str):
        yield where, data
    elif isinstance(data, dict):
        for key, value in data.items():
            yield from _texts(value, f"{where}.{key}" if where else key)
    elif isinstance(data, list):
        for number, value in enumerate(data, 1):
            yield from _texts(value, f"{where}.{number}")


def get(data: object, *keys: str) -> Any:
    """A value deep in tables, or None if anything on the way is no table."""
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def _filled(value: str) -> Fault | None:
    return None if value.strip() else ("C115", "is empty", "Write something between the quotes.")


def _clean(value: str) -> Fault | None:
    found = CONTROL.search(value)
    return found and (
        "C107",
        f"holds a control character (U+{ord(found[0]):04X})",
        "Write a space or nothing.",
    )


def _one_line(value: str) -> Fault | None:
    if LINE_BREAK.search(value.strip()):
        return "C116", "runs over several lines and must fit one", "Put it on one line."
    if "\t" in value.strip():
        return "C107", "holds a tab", "Write spaces."
    return _clean(value.strip())


def _header(value: str) -> Fault | None:
    """Fit for a header: some mail programs decode what looks like an encoded word, and a line break with it."""
    try:
        clean("it", value)
    except ValueError:
        return "C107", "hides a control character in an encoded word (=?…?=)", "Write the words themselves."
    return None


def _link(value: str) -> Fault | None:
    """An http or https address with a host."""
    try:
        parts = urlsplit(value)
    except ValueError:
        parts = urlsplit("")
    if (
        parts.scheme in {"http", "https"}
        and parts.hostname
        and not re.search(r"[\s\x00-\x20\x7f-\x9f\\<>\"]", value)
    ):
        return None
    hint = "Write the whole address, beginning with https://"
    if re.fullmatch(r"[\w-]+(\.[\w-]+)+(/\S*)?", value):
        hint = f"Write https://{value}"
    return "C121", f"is “{value}”, which is not a web address", hint


def _doi(value: str) -> Fault | None:
    if re.fullmatch(r"10\.[0-9]{4,9}/[!-~]+", value):
        return None
    hint = "Write it from the 10. on: 10.1371/journal.pone.0332478"
    return "C124", f"is “{value}”, which is not a bare DOI", hint


def _untagged(value: str) -> Fault | None:
    """The title also heads the web page and fills @@issue_title@@, where nothing is filled in."""
    if "@@" not in value:
        return None
    hint = "Greet the reader in the text instead."
    return "C141", "holds a merge tag, and a title is the same for everyone", hint


def _period(value: str) -> Fault | None:
    if is_slug(value):
        return None
    return "C113", f"is “{value}”, which is not a period", 'Write year and month: period = "2026-12"'


def _if_given(rule: Rule) -> Rule:
    return lambda value: rule(value) if value else None


LINE = (_filled, _one_line)
# Rules in order, of which the first that fails speaks; then where merge tags stand: in text, in a link, nowhere.
RULES: dict[str, tuple[tuple[Rule, ...], str | None]] = {
    "subject": ((*LINE, _header), "text"),
    "preheader": (LINE, "text"),
    "period": ((_if_given(_period),), None),
    "lead.title": ((*LINE, _header, _untagged), None),
    "lead.image": ((_one_line,), None),
    "lead.image_alt": ((_one_line,), "text"),
    "lead.topics.#": (LINE, None),
    "lead.source.title": (LINE, "text"),
    "lead.source.journal": ((_one_line,), "text"),
    "lead.source.doi": ((_if_given(_doi),), None),
    "lead.source.url": ((_if_given(_link),), "link"),
    "related.#.title": (LINE, "text"),
    "related.#.text": ((_filled, _clean), "text"),
    "related.#.url": ((_link,), "link"),
    "related_options.ban.#": ((_link,), None),
    "waive.#.code": (LINE, None),
    "waive.#.where": ((_one_line,), None),
    "waive.#.because": (LINE, None),
}


def _wordless_picture(data: dict[str, Any]) -> Iterator[tuple[str, Fault]]:
    image, alt = get(data, "lead", "image"), get(data, "lead", "image_alt")
    if image and not (isinstance(alt, str) and alt.strip()):
        yield "lead.image", ("C154", "The picture has no words for those who can't see it.", ALT_HINT)


def _repeated_subject(data: dict[str, Any]) -> Iterator[tuple[str, Fault]]:
    subject, preheader = data.get("subject"), data.get("preheader")
    if isinstance(subject, str) and isinstance(preheader, str) and _same(subject, preheader):
        hint = "Say what the subject leaves open: inboxes show one after the other."
        yield "preheader", ("C117", "The preheader says the same as the subject.", hint)


def _same(one: str, other: str) -> bool:
    return bool(one.strip()) and one.strip().casefold() == other.strip().casefold()


def _source(data: dict[str, Any]) -> Iterator[tuple[str, Fault]]:
    source = get(data, "lead", "source")
    if isinstance(source, dict) and not source.get("doi") and not source.get("url"):
        hint = 'Add under [lead.source]: doi = "10.…" or url = "https://…"'
        yield "lead.source", ("C112", "The source has neither “doi” nor “url”: nobody could read it.", hint)


def _period_faults(data: dict[str, Any], slug: str) -> Iterator[tuple[str, Fault]]:
    if not data.get("period") and not month(slug):
        hint = 'Add at the top, before the first [table]: period = "2026-12"'
        yield "period", ("C112", "“period” is missing, and the folder's name holds no month.", hint)


def month(slug: str) -> str:
    """The YYYY-MM that a slug begins with, or nothing."""
    found = re.match(r"\d{4}-(?:0[1-9]|1[0-2])(?![0-9])", slug)
    return found[0] if found else ""


def _articles(data: dict[str, Any]) -> Iterator[tuple[str, Fault]]:
    """Related articles that lead to one place twice, or to a banned one."""
    banned = {_place(url) for url in _list(get(data, "related_options", "ban")) if isinstance(url, str)}
    first: dict[str, str] = {}
    for number, entry in enumerate(_list(data.get("related")), 1):
        url, where = get(entry, "url"), f"related.{number}.url"
        if not isinstance(url, str):
            continue
        other = first.setdefault(_place(url), where)
        if other != where:
            what = f"“{where}” leads to the same place as “{other}”."
            yield where, ("C122", what, "Remove one of the two.")
        if _place(url) in banned:
            what = f"“{where}” is banned under [related_options]."
            yield where, ("C123", what, "Take it out of one of the two.")


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _place(url: str) -> str:
    """The address without what does not change where it leads: scheme, case of the host, # and last slash."""
    host, slash, path = url.strip().partition("://")[2].partition("/")
    return f"{host.lower()}{slash}{path.partition('#')[0]}".rstrip("/")

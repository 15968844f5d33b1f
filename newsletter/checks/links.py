"""Links that are unsafe, lead nowhere or were left out, and merge tags that would stay unfilled."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from newsletter import merge
from newsletter.checks import sample
from newsletter.checks.inspection import TEMPLATE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from newsletter.checks.inspection import Inspection
    from newsletter.model import Finding

# Browsers drop tabs, line ends and leading controls before they read a scheme (WHATWG URL), so that
# "java\nscript:" runs: take out what they would, and more.
IGNORED = re.compile(r"[\x00-\x20\x7f-\xa0\u200b-\u200f\u2028-\u202f\u2060\ufeff]")
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*(?=:)", re.IGNORECASE)
ALLOWED = frozenset({"https", "http", "mailto"})
ACTIVE = ("script", "iframe", "object", "embed", "form", "input", "button", "base", "link")
COMMENT_OR_STYLE = re.compile(r"<!--.*?-->|<style\b.*?</style>", re.DOTALL | re.IGNORECASE)
UNSEEN_ATTRIBUTE = re.compile(r"\b(?:src|class|id|style)=\"([^\"]*)\"")


def find(seen: Inspection) -> Iterator[Finding]:
    """All findings of this family."""
    for target in dict.fromkeys(_targets(seen)):
        yield from _target(seen, target)
    yield from _remote_pictures(seen)
    yield from _active(seen)
    yield from _unfilled(seen)
    yield from _misplaced(seen)
    yield from _unsubscribe(seen)


def _targets(seen: Inspection) -> Iterator[str]:
    for element in seen.tree.iter("a", "area"):
        if "href" in element.attrib:
            yield element.get("href")


def _target(seen: Inspection, target: str) -> Iterator[Finding]:
    bare = IGNORED.sub("", target)
    scheme = SCHEME.match(bare)
    place = seen.link(target)
    if bare in {"", "#"}:
        yield place.error("L102", "A link leads nowhere.", "Give it an address, or take it out.")
    elif scheme is None or scheme[0].lower() not in ALLOWED:
        yield place.error(
            "L101",
            f"The link {target!r} is not https, http or mailto.",
            "Write the whole address, beginning with https://.",
        )
    elif scheme[0].lower() == "http":
        yield place.warning(
            "L103",
            f"The link {target} is http: anybody on the way can read and change it.",
            "Use https if the site has it.",
        )


def _remote_pictures(seen: Inspection) -> Iterator[Finding]:
    for element in seen.tree.iter("img"):
        source = element.get("src", "")
        if not source.startswith("image:"):
            yield seen.origin(source, where=source[:80]).error(
                "L106",
                f"The picture {source[:80]!r} is not the issue's own: to load it tells who opened the mail.",
                "Put the picture into the issue's folder, or into [theme] logo.",
            )


def _active(seen: Inspection) -> Iterator[Finding]:
    tags = (f"<{element.tag}>" for element in seen.tree.iter(*ACTIVE))
    handlers = (
        f"{name}=" for element in seen.tree.iter() for name in element.attrib if name.startswith("on")
    )
    for what in dict.fromkeys((*tags, *handlers)):
        yield seen.compiled(what).error(
            "L107",
            f"The html holds {what}, which inboxes remove or take for an attack.",
            "Take it out of the template.",
        )


def _unfilled(seen: Inspection) -> Iterator[Finding]:
    for part, filled in (("html", seen.html), ("text", seen.text)):
        at = filled.find("@@")
        if at >= 0:
            words = " ".join(filled[max(0, at - 20) : at + 30].split())
            yield seen.compiled(part).error(
                "L104",
                f"An unfilled merge tag stays in the {part} part: “{words}”.",
                "Write @@name|reader@@: small letters, digits and _ in the name.",
            )


def _misplaced(seen: Inspection) -> Iterator[Finding]:
    hidden = [*COMMENT_OR_STYLE.findall(seen.email.html), *UNSEEN_ATTRIBUTE.findall(seen.email.html)]
    # Outlook's buttons rightly keep their link in a conditional comment.
    tags = {name for part in hidden for name in merge.names(part) if not name.endswith("_url")}
    for name in sorted(tags):
        yield seen.compiled(name).warning(
            "M101",
            f"The merge tag @@{name}@@ stands in a style, a comment or a picture's address.",
            "Use merge tags in words and links only.",
        )


def _unsubscribe(seen: Inspection) -> Iterator[Finding]:
    link = f"{seen.publication.base_url}/u/{sample.TOKEN}"
    for part, links in (("html", _targets(seen)), ("text", seen.text.split())):
        if not any(link in target for target in links):
            yield seen.compiled(part).error(
                "L105",
                f"The {part} part has no link to unsubscribe.",
                f"Put @@unsubscribe_url@@ into {TEMPLATE[part]}.",
            )

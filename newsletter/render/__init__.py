"""An ``Issue`` becomes an ``Email``: Jinja2 → MJML → HTML with inlined styles, and a text part of its own.

::

    templates   issue.mjml.j2 with the issue's values, every tag marked with its place
    validate    everything the compiler would accept and spoil, with file, line and column
    mjml        made safe for mrml, compiled, finished
    inline      our CSS into style attributes
    guards      nothing lost on the way
    text        issue.txt.j2, laid out in 72 columns

The same issue gives the same bytes. Pictures stand as ``image:NAME``, merge tags as ``@@name@@``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from markupsafe import Markup

from newsletter import markdown
from newsletter.model import Edition, Email
from newsletter.pictures import reference
from newsletter.render import guards
from newsletter.render import text as layout
from newsletter.render.findings import CODES
from newsletter.render.inline import inline
from newsletter.render.mjml import compile_mjml
from newsletter.render.templates import Templates, template_files, templates_dir
from newsletter.render.theme import Palette, Theme, large_print, standard_print

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from newsletter.model import Issue, Picture, Publication
    from newsletter.texts import Texts

__all__ = [
    "CODES",
    "Palette",
    "Theme",
    "reading_minutes",
    "render",
    "render_editions",
    "render_letter",
    "template_context",
    "template_files",
    "templates_dir",
]

WORDS_PER_MINUTE = 210  # unhurried reading of unfamiliar matter
PREHEADER_COLUMNS = 200  # as many as a wide inbox shows; the rest is padded, or body text would follow
WORD = re.compile(r"\w+(?:['’.-]\w+)*")


def _markdown(text: str, level: int = 3) -> Markup:
    return Markup(markdown.to_html(text, heading_level=level))  # noqa: S704 – raw HTML is off in it


def _markdown_text(text: str) -> str:
    return markdown.to_text(text, width=layout.WIDTH)


def _image(picture: Picture) -> str:
    return reference(picture.name)


FILTERS: dict[str, Callable[..., object]] = {
    "markdown": _markdown,
    "markdown_text": _markdown_text,
    "css": Markup,  # for values of Theme, which checked them
    "image": _image,
    "wrap": layout.wrap,
    "underlined": layout.underlined,
}


def render(
    issue: Issue,
    *,
    publication: Publication,
    theme: Theme,
    texts: Texts,
    overrides: Path | None = None,
    edition: Edition = Edition.STANDARD,
) -> Email:
    """Compile one edition of an issue, once. ``overrides``, the publisher's ``templates/``, wins file by file.

    Raises ``TemplateError`` with findings (``CODES``): file, line, column, what is wrong and what to do.
    """
    templates = Templates(overrides, FILTERS)
    return _edition(templates, issue, publication=publication, theme=theme, texts=texts, edition=edition)


def render_editions(
    issue: Issue,
    *,
    publication: Publication,
    theme: Theme,
    texts: Texts,
    overrides: Path | None = None,
) -> list[Email]:
    """Compile all editions, the standard one first. Raises as ``render`` does.

    They share the templates: reading them takes three times as long as filling them in.
    """
    templates = Templates(overrides, FILTERS)
    return [
        _edition(templates, issue, publication=publication, theme=theme, texts=texts, edition=edition)
        for edition in Edition
    ]


def _edition(
    templates: Templates,
    issue: Issue,
    *,
    publication: Publication,
    theme: Theme,
    texts: Texts,
    edition: Edition,
) -> Email:
    context = template_context(issue, publication=publication, theme=theme, texts=texts, edition=edition)
    pictures = [picture for picture in (theme.logo, issue.lead.picture) if picture]
    html = ""
    if edition is not Edition.TEXT:
        html = _compiled(templates.render("issue.mjml.j2", context), pictures)
    shown = guards.picture_names(html)
    return Email(
        title=issue.lead.title,
        subject=issue.subject,
        preheader=issue.preheader,
        html=html,
        text=layout.finish(templates.render("issue.txt.j2", context)),
        language=texts.language,
        view_path=f"/archive/{issue.slug}",
        pictures=tuple(picture for picture in pictures if picture.name in shown),
        edition=edition,
    )


def render_letter(
    kind: str,
    *,
    publication: Publication,
    theme: Theme,
    texts: Texts,
    edition: Edition = Edition.STANDARD,
    list_title: str = "",
    overrides: Path | None = None,
) -> Email:
    """Compile a letter: a mail to one person, whose one link is ``@@action_url@@``. ``kind`` is a key of the texts.

    ``list_title`` is what it is about, left out: the publication. Its subject holds the short name and nothing that the
    person who asked has typed. Raises as ``render`` does.
    """
    templates = Templates(overrides, FILTERS)
    words = {name: texts.get(f"letter.{kind}.{name}") for name in ("heading", "button", "otherwise")}
    words["subject"] = texts.get(f"letter.{kind}.subject", publication=publication.name)
    words["text"] = texts.get(f"letter.{kind}.text", list=list_title or publication.full_name)
    context = {
        "letter": words,
        **_surroundings(publication, theme, texts, edition),
    }
    plain = edition is Edition.TEXT
    pictures = [theme.logo] if theme.logo and not plain else []
    return Email(
        title=words["heading"],
        subject=words["subject"],
        preheader="",
        html="" if plain else _compiled(templates.render("letter.mjml.j2", context), pictures),
        text=layout.finish(templates.render("letter.txt.j2", context)),
        language=texts.language,
        view_path="/",
        pictures=tuple(pictures),
        edition=edition,
    )


def _compiled(source: str, pictures: Sequence[Picture]) -> str:
    compiled = compile_mjml(source)
    html = inline(compiled.html, compiled.css)
    guards.check(source, compiled.html, html, [picture.name for picture in pictures])
    return html


def template_context(
    issue: Issue,
    *,
    publication: Publication,
    theme: Theme,
    texts: Texts,
    edition: Edition = Edition.STANDARD,
) -> dict[str, object]:
    """Every name a template can use."""
    return {
        "issue": issue,
        "minutes": reading_minutes(issue),
        "padding": max(0, PREHEADER_COLUMNS - len(issue.preheader)),
        **_surroundings(publication, theme, texts, edition),
    }


def _surroundings(
    publication: Publication, theme: Theme, texts: Texts, edition: Edition
) -> dict[str, object]:
    """What issues and letters have in common."""
    large = edition is Edition.LARGE
    return {
        "publication": publication,
        "theme": theme.in_full_ink() if large else theme,
        "texts": texts,
        "edition": edition,
        "px": large_print if large else standard_print,
        "rule": layout.rule,
    }


def reading_minutes(issue: Issue) -> int:
    """Whole minutes for the lead, at least one."""
    parts = [issue.lead.title, *(f"{section.heading} {section.body}" for section in issue.lead.sections)]
    return max(1, round(sum(len(WORD.findall(part)) for part in parts) / WORDS_PER_MINUTE))

"""The readers' pages: templates, words and style, all in the publication's language. No script is in any of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse

from newsletter.web import style

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from newsletter.model import Publication
    from newsletter.render import Theme
    from newsletter.texts import Texts

TEMPLATES = Path(__file__).parent / "templates"
PROBLEMS = {400: "refused", 404: "missing", 405: "refused", 408: "slow", 410: "expired", 413: "large"}


class Pages:
    """Makes answers of templates."""

    def __init__(
        self, texts: Texts, theme: Theme, publication: Publication, *, root: str = "", privacy_url: str = ""
    ) -> None:
        self.texts, self.publication, self.root = texts, publication, root
        self.sheet = style.css(theme)
        self._templates = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._templates.globals |= {
            "texts": texts,
            "words": self.words,
            "publication": publication,
            "root": root,
            "privacy_url": privacy_url,
            "sheet": Markup(self.sheet),  # noqa: S704 - made of checked colours and fonts
        }

    def words(self, key: str, **values: object) -> str:
        """The words of a page."""
        return self.texts.get(f"page.{key}", **values)

    def show(self, template: str, heading: str, *, status: int = 200, **shown: object) -> HTMLResponse:
        """A page. ``heading`` is its one h1 and its title, which stays discreet: the short name and no other."""
        page = self._templates.get_template(f"reader/{template}.html.j2")
        return HTMLResponse(page.render(heading=heading, **shown), status_code=status)

    def message(
        self,
        about: str,
        paragraphs: Sequence[str],
        links: Mapping[str, str] | None = None,
        *,
        status: int = 200,
    ) -> HTMLResponse:
        """A page of a few sentences; ``links`` are targets and their labels."""
        heading = self.words(f"{about}.heading")
        return self.show("message", heading, status=status, paragraphs=paragraphs, links=links or {})

    def problem(self, status: int) -> HTMLResponse:
        """What tells a reader that it did not work."""
        about = PROBLEMS.get(status, "trouble")
        return self.message(about, [self.words(f"{about}.text")], status=status)

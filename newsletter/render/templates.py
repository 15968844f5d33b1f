"""From template files to MJML and text: Jinja2, with the place of every tag kept for whoever finds it wrong."""

from __future__ import annotations

import os
import re
import traceback
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from jinja2 import (
    Environment,
    FileSystemLoader,
    StrictUndefined,
    TemplateNotFound,
    TemplateSyntaxError,
    UndefinedError,
)
from jinja2 import (
    TemplateError as JinjaError,
)

from newsletter.errors import TemplateError
from newsletter.render.findings import Place, fail, finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

OURS = Path(__file__).parent.parent / "templates"  # in a wheel
JINJA = re.compile(r"(\{#.*?#\}|\{\{.*?\}\}|\{%.*?%\})", re.DOTALL)
TAG = re.compile(r"</?[A-Za-z][\w:.-]*")


def templates_dir() -> Path:
    """Where the product's own templates are: inside the package in a wheel, beside it in a checkout."""
    return OURS if OURS.is_dir() else OURS.parent.parent / "templates"


def template_files(overrides: Path | None) -> dict[str, Path]:
    """Every template that a mail may be made of, as messages name it: the publisher's own files, and those of ours that
    none of them takes the place of. Hidden files are none; some systems put one into every folder.
    """
    own = dict(_below(overrides)) if overrides else {}
    ours = {f"newsletter/templates/{name}": path for name, path in _below(templates_dir()) if name not in own}
    return {f"templates/{name}": path for name, path in own.items()} | ours


def _below(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            yield name.as_posix(), path


def mark(source: str, label: str) -> str:
    """Give every tag of a template a ``data-at="file:line:column"``, for messages; the normaliser removes it.

    Jinja gives back one long text in which no line belongs to a file any more, and the MJML compiler names at most
    a byte offset in that. A map of offsets would have to survive loops, includes and filters; an attribute does.
    """
    parts, offset = [], 0
    for index, part in enumerate(JINJA.split(source)):
        parts.append(part if index % 2 else _mark_markup(part, source, offset, escape(label)))
        offset += len(part)
    return "".join(parts)


def _mark_markup(part: str, source: str, offset: int, label: str) -> str:
    def place(match: re.Match[str]) -> str:
        at = offset + match.start()
        line, column = source.count("\n", 0, at) + 1, at - source.rfind("\n", 0, at)
        return f'{match[0]} data-at="{label}:{line}:{column}"'

    return TAG.sub(place, part)


class Loader(FileSystemLoader):
    """The publisher's folder first, then ours. Remembers how messages name each file."""

    def __init__(self, overrides: Path | None) -> None:
        ours = templates_dir()
        folders = [overrides, ours] if overrides else [ours]
        super().__init__(folders)
        self.overrides = overrides
        self.labels: dict[str, str] = {}  # path as Jinja's tracebacks have it → as messages name it

    def label(self, name: str, filename: str) -> str:
        """``templates/x`` for the publisher's own file, ``newsletter/templates/x`` for ours."""
        own = self.overrides is not None and Path(filename).is_relative_to(self.overrides)
        return f"templates/{name}" if own else f"newsletter/templates/{name}"

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
        if self.overrides is not None:
            _refuse_odd(self.overrides / template, self.overrides.parent)
        try:
            source, filename, uptodate = super().get_source(environment, template)
        except UnicodeDecodeError as error:
            files = (Path(folder, template) for folder in self.searchpath)
            place = Place(self.label(template, str(next(file for file in files if file.is_file()))))
            fail([finding("T105", place, f"byte {error.start} is not UTF-8", "Save the file as UTF-8.")])
        label = self.labels[filename] = self.label(template, filename)
        return (mark(source, label) if ".mjml" in template else source), filename, uptodate


def _refuse_odd(path: Path, home: Path) -> None:
    """An override must be a plain file of the project: else ours would be used in silence, or somebody else's file."""
    if not os.path.lexists(path):
        return
    place = Place(f"templates/{path.name}")
    real = path.resolve()
    if not real.is_relative_to(home.resolve()):
        fail(
            [finding("T105", place, "leads out of the project", "Copy the file here instead of linking it.")]
        )
    if not real.is_file():
        fail([finding("T105", place, "is not a file", "Put a template there, or take it away to use ours.")])


class Templates:
    """The templates of one project."""

    def __init__(self, overrides: Path | None, filters: Mapping[str, Callable[..., object]]) -> None:
        if overrides is not None and not overrides.is_dir():
            todo = "Make it a folder, or take it away."
            fail([finding("T105", Place("templates/"), "is not a folder", todo)])
        self.loader = Loader(overrides)
        # Everything is escaped but the text part: `select_autoescape` would leave `*.mjml.j2` alone.
        self.environment = Environment(
            loader=self.loader,
            autoescape=lambda name: not (name or "").endswith(".txt.j2"),  # noqa: S701
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        self.environment.filters.update(filters)

    def render(self, name: str, context: Mapping[str, object]) -> str:
        """The text of one template. Raises ``TemplateError`` with the file and line of whatever goes wrong."""
        try:
            return self.environment.get_template(name).render(context)
        except TemplateError:
            raise
        except Exception as error:
            self._report(error, name)

    def _report(self, error: Exception, name: str) -> NoReturn:
        code, message, hint = _explain(error)
        fail([finding(code, self._place(error, name), message, hint)])

    def _place(self, error: Exception, name: str) -> Place:
        if isinstance(error, TemplateSyntaxError):
            return Place(self.loader.labels.get(error.filename or "", error.name or name), error.lineno)
        frames = traceback.extract_tb(error.__traceback__)
        known = [frame for frame in frames if frame.filename in self.loader.labels]
        if not known:
            return Place(f"templates/{name}")
        return Place(self.loader.labels[known[-1].filename], known[-1].lineno or 0)


def _explain(error: Exception) -> tuple[str, str, str]:
    match error:
        case RecursionError():
            return (
                "T104",
                "a template includes itself, directly or through another",
                "Take one of the includes out.",
            )
        case TemplateNotFound():
            return (
                "T103",
                f'there is no template "{error.name}"',
                "`newsletter templates list` shows what there is.",
            )
        case UndefinedError():
            return "T102", f"{error.message}", "See docs/templates.md for the names a template can use."
        case TemplateSyntaxError():
            return "T101", f"{error.message}", ""
        case JinjaError():
            return "T101", f"{error.message}", ""
        case _:
            return "T104", f"{type(error).__name__}: {error}", ""

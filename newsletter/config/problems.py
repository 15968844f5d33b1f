"""What is wrong with the configuration: file, line and key, in words that need no library's manual."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple, TypeGuard

from pydantic import BaseModel

from newsletter.errors import ConfigError
from newsletter.toml_lines import find, key_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pydantic import ValidationError
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

FILE = "newsletter.toml"


class Problem(NamedTuple):
    """One thing that is wrong in one place."""

    file: str
    line: int | None
    sentence: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.sentence}"


def report(problems: Sequence[Problem]) -> str:
    """All problems in the order of the files."""
    if len(problems) == 1:
        return str(problems[0])
    ordered = sorted(problems, key=lambda problem: (problem.file != FILE, problem.file, problem.line or 0))
    return f"The configuration has {len(problems)} problems:" + "".join(f"\n  {each}" for each in ordered)


def read_text(file: Path) -> str:
    """A file of the configuration; ConfigError if it is not there or not text."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not UTF-8 text.", hint="Save it as UTF-8 in your editor.") from None
    except OSError as error:
        raise ConfigError(f"{file} can't be read: {error.strerror}.") from error


SENTENCES = {
    "string_type": "must be text in quotes",
    "int_type": "must be a whole number without quotes",
    "greater_than_equal": "must be {ge} or more",
    "less_than_equal": "must be {le} or less",
    "literal_error": "must be {expected}",
    "tuple_type": 'must be a list, such as ["one", "two"]',
    "model_type": "must be a section of its own: a line [{key}] and its settings below it",
    "dict_type": "must be a section of its own: a line [{key}] and its settings below it",
}


def explain(error: ValidationError, text: str, sections: type[BaseModel]) -> Iterator[Problem]:
    """One problem per mistake that ``sections`` found in ``text``."""
    lines = key_lines(text)
    for detail in error.errors(include_url=False, include_input=False):
        # A default made from another setting: what is wrong with that one says it all.
        if detail["type"] != "default_factory_not_called":
            path = [part for part in detail["loc"] if isinstance(part, str)]
            yield Problem(FILE, find(lines, ".".join(path)), _sentence(detail, path, sections))


def _sentence(detail: ErrorDetails, path: list[str], sections: type[BaseModel]) -> str:
    key = ".".join(path)
    if detail["type"] == "missing":
        return f"{key} is missing. {_how_to_add(path, sections)}"
    if detail["type"] == "extra_forbidden":
        return f"{key} is not a setting. {_suggestion(path, sections)}"
    context = detail.get("ctx", {})
    what = (
        str(context["error"]) if "error" in context else SENTENCES[detail["type"]].format(key=key, **context)
    )
    last = detail["loc"][-1]
    entry = f" (entry {last + 1})" if isinstance(last, int) else ""
    return f"{key}{entry} {what}."


def _how_to_add(path: list[str], sections: type[BaseModel]) -> str:
    if len(path) == 1:
        return f"Add a line [{path[0]}] and its settings below it."
    field = fields_of(sections, path[:-1])[path[-1]]
    return f'Add under [{path[0]}]: {path[-1]} = "{(field.examples or [""])[0]}"'


def _suggestion(path: list[str], sections: type[BaseModel]) -> str:
    """The section that has this very key, or the near key of the same section."""
    if elsewhere := [other for other in fields_of(sections, []) if path[-1] in fields_of(sections, [other])]:
        return f"Did you mean {elsewhere[0]}.{path[-1]}?"
    known = fields_of(sections, path[:-1])
    if near := get_close_matches(path[-1], known, n=1):
        return f"Did you mean {'.'.join([*path[:-1], near[0]])}?"
    return f"What can stand here: {', '.join(known)}."


def fields_of(section: type[BaseModel], path: Sequence[str]) -> dict[str, FieldInfo]:
    """The keys below ``path`` as newsletter.toml writes them; empty below a plain value."""
    fields = {field.alias or name: field for name, field in section.model_fields.items()}
    if not path:
        return fields
    kind = fields[path[0]].annotation
    return fields_of(kind, path[1:]) if is_section(kind) else {}


def is_section(kind: object) -> TypeGuard[type[BaseModel]]:
    """Whether a field is a section of its own."""
    return isinstance(kind, type) and issubclass(kind, BaseModel)

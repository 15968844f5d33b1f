"""Every fixed word of mails and pages, and the way a date is written, one TOML file per language.

A translation is one file beside this one: copy ``en.toml``, translate the values, keep the ``{braces}`` and the
``@@merge tags@@``. Nothing else in the package has to know about it.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from newsletter.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import date

FOLDER = Path(__file__).parent

Direction = Literal["ltr", "rtl"]


@dataclass(frozen=True)
class Texts:
    """The words of one language. A key that is not there is a ``KeyError``: a gap must never reach a reader."""

    language: str
    direction: Direction
    months: tuple[str, ...]
    date_form: str
    words: Mapping[str, str]

    def __getitem__(self, key: str) -> str:
        return self.words[key]

    def get(self, key: str, **values: object) -> str:
        """The words of ``key`` with its ``{braces}`` filled."""
        return self.words[key].format(**values) if values else self.words[key]

    def date(self, day: date) -> str:
        """A date with its month written out: 12/1/2026 is December here and January there."""
        return self.date_form.format(day=day.day, month=self.months[day.month - 1], year=day.year)

    def reading_time(self, minutes: int) -> str:
        """How long the lead takes, in whole minutes."""
        return self.get("mail.reading_time", minutes=minutes)


def languages(folder: Path | None = None) -> list[str]:
    """The languages there are words for."""
    return sorted(path.stem for path in (folder or FOLDER).glob("*.toml"))


def load(language: str, folder: Path | None = None) -> Texts:
    """Read ``<language>.toml``; a region falls back to its language (``de-AT`` reads ``de.toml``).

    Raises ``ConfigError`` when there is no such file.
    """
    data = tomllib.loads(file(language, folder).read_text(encoding="utf-8"))
    return Texts(
        language=language,
        direction=data["direction"],
        months=tuple(data["date"]["months"]),
        date_form=data["date"]["form"],
        words=dict(_flatten(data)),
    )


def file(language: str, folder: Path | None = None) -> Path:
    """Where the words of a language are. Raises as ``load`` does."""
    known = languages(folder)
    name = next((name for name in (language, language.split("-", 1)[0]) if name in known), None)
    if name is None:
        raise ConfigError(
            f'language = "{language}": there are no words for this language',
            hint=f"Use one of {', '.join(known)}, or translate newsletter/texts/en.toml.",
        )
    return (folder or FOLDER) / f"{name}.toml"


def _flatten(table: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        elif isinstance(value, str):
            yield f"{prefix}{key}", value

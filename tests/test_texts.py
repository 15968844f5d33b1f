"""The words of every language: all there, all with the same blanks, and dates nobody can misread."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

from newsletter import merge, texts
from newsletter.errors import ConfigError

SAMPLES = Path(__file__).parent / "data" / "texts"
ALL = [*((language, None) for language in texts.languages()), ("ar", SAMPLES)]


def test_english_and_one_more_language_are_there() -> None:
    assert {"en", "de"} <= set(texts.languages())


@pytest.mark.parametrize("language", texts.languages())
def test_every_language_has_the_words_of_the_english_one_and_no_others(language: str) -> None:
    assert texts.load(language).words.keys() == texts.load("en").words.keys()


def test_the_right_to_left_sample_has_the_words_of_the_mail_and_no_others() -> None:
    mail = {key for key in texts.load("en").words if key.startswith("mail.")}
    assert {key for key in texts.load("ar", SAMPLES).words if key.startswith("mail.")} == mail


@pytest.mark.parametrize(("language", "folder"), ALL)
def test_a_translation_keeps_the_blanks_and_the_merge_tags(language: str, folder: Path) -> None:
    english, other = texts.load("en").words, texts.load(language, folder).words
    for key, words in english.items():
        if folder is SAMPLES and key not in other:
            continue
        assert set(re.findall(r"\{\w+\}", other[key])) == set(re.findall(r"\{\w+\}", words)), key
        assert merge.names(other[key]) == merge.names(words), key


@pytest.mark.parametrize(("language", "folder"), ALL)
def test_every_language_has_twelve_different_months(language: str, folder: Path) -> None:
    assert len(set(texts.load(language, folder).months)) == 12


@pytest.mark.parametrize(
    ("language", "folder", "written"),
    [
        ("en", None, "31 December 2026"),
        ("de", None, "31. Dezember 2026"),
        ("ar", SAMPLES, "31 ديسمبر 2026"),
    ],
)
def test_a_date_is_written_out(language: str, folder: Path, written: str) -> None:
    assert texts.load(language, folder).date(date(2026, 12, 31)) == written


def test_a_language_that_nobody_translated_is_an_error_that_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match='"tlh"') as caught:
        texts.load("tlh")
    assert "de, en" in caught.value.hint


def test_a_region_reads_the_words_of_its_language_and_keeps_its_own_name() -> None:
    austrian = texts.load("de-AT")
    assert (austrian.language, austrian["mail.unsubscribe"]) == ("de-AT", "Abbestellen")


def test_a_missing_key_is_an_error_and_never_an_empty_string() -> None:
    with pytest.raises(KeyError):
        texts.load("en")["mail.nothing"]


def test_the_direction_is_one_a_browser_knows() -> None:
    assert {texts.load(*each).direction for each in ALL} == {"ltr", "rtl"}

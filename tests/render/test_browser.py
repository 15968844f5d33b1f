"""The email as a browser shows it: widths, sizes, contrast and touch targets, measured and not assumed."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from newsletter import texts
from newsletter.model import Edition
from newsletter.pictures import resolve_pictures
from newsletter.render import Theme, render
from tests.render.samples import issue, lead, picture, publication, teasers
from tests.support.browser import Browser, browser

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.browser

SAMPLES = Path(__file__).parents[1] / "data" / "texts"


def page(
    language: str = "en", theme: Theme | None = None, edition: Edition = Edition.STANDARD, **changes: Any
) -> str:
    """The HTML part with its pictures in it."""
    words, publisher = texts.load(language, SAMPLES if language == "ar" else None), publication()
    email = render(
        issue(**changes), publication=publisher, theme=theme or Theme(), texts=words, edition=edition
    )
    data = {p.name: base64.b64encode(p.data).decode() for p in email.pictures}
    return resolve_pictures(email.html, lambda name: f"data:image/png;base64,{data[name]}")


@pytest.fixture(scope="module")
def running() -> Iterator[Browser]:
    with browser() as tab:
        yield tab


@pytest.fixture
def tab(running: Browser) -> Browser:
    running.dark(False)
    running.width(1280)
    return running


@pytest.fixture(scope="module")
def sample() -> str:
    return page()


# Everything that shows text of its own, with what is computed for it.
TEXTS = """[...document.querySelectorAll("body *")]
    .filter(e => e.checkVisibility() && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
    .map(e => {
        const style = getComputedStyle(e);
        let behind = e, paper = "rgba(0, 0, 0, 0)";
        while (behind && paper === "rgba(0, 0, 0, 0)") {
            paper = getComputedStyle(behind).backgroundColor;
            behind = behind.parentElement;
        }
        return {text: e.textContent.trim().slice(0, 40), size: parseFloat(style.fontSize), ink: style.color, paper,
                line: parseFloat(style.lineHeight), heading: /^H/.test(e.tagName) || !!e.closest("h1,h2,h3"),
                small: !!e.closest(".small"), title: !!e.closest(".name,.title,.button")};
    })"""
WIDTHS = "[innerWidth, document.documentElement.scrollWidth]"
# As an inbox with larger text: every size doubled, as it stands, after layout.
DOUBLE = """[...document.querySelectorAll("body *")]
    .map(e => [e, parseFloat(getComputedStyle(e).fontSize)])
    .forEach(([e, size]) => e.style.setProperty("font-size", `${size * 2}px`, "important"))"""
OVER_THE_EDGE = """[...document.querySelectorAll("h1, h2, h3, p, a, li, img")]
    .filter(e => e.checkVisibility() && e.getBoundingClientRect().right > innerWidth + 0.5)
    .map(e => e.textContent.trim().slice(0, 40))"""
ALONE = """[...document.querySelectorAll("a")].filter(a => a.closest("h3, .more, .links, .button")).map(a => {
    const {width, height} = a.getBoundingClientRect();
    return [a.textContent.trim(), width, height];
})"""
TEASERS = """[...document.querySelectorAll("h3")].map(e => {
    const {left, top} = e.getBoundingClientRect();
    return [Math.round(left), Math.round(top)];
})"""


def luminance(colour: str) -> float:
    """Relative luminance of ``rgb(r, g, b)``, as WCAG 2.2 defines it."""
    linear = []
    for part in re.findall(r"\d+", colour)[:3]:
        value = int(part) / 255
        linear.append(value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4)
    red, green, blue = linear
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_a_long_line_of_code_does_not_widen_the_mail(tab: Browser) -> None:
    first, *others = lead().sections
    body = "```\n" + "x" * 300 + "\n```"
    tab.width(375, phone=True)
    tab.open(page(lead=lead(sections=(replace(first, body=body), *others))))
    assert tab.evaluate("document.documentElement.scrollWidth") <= 375


def test_contrast_is_measured_as_wcag_does() -> None:
    assert contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)") == pytest.approx(21)
    assert contrast("rgb(118, 118, 118)", "rgb(255, 255, 255)") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("width", [320, 375, 1280])
@pytest.mark.parametrize("language", ["en", "de", "ar"])
def test_nothing_is_wider_than_the_window(tab: Browser, width: int, language: str) -> None:
    logo = picture("logo.png", 480, 120, "Logo")
    tab.width(width, phone=width < 500)
    tab.open(page(language, Theme(logo=logo), related=teasers(9)))
    assert tab.evaluate(WIDTHS) == [width, width]
    assert tab.evaluate(OVER_THE_EDGE) == []


def test_text_twice_as_large_still_fits_a_small_phone(tab: Browser, sample: str) -> None:
    tab.width(320, phone=True)
    tab.open(sample)
    tab.evaluate(DOUBLE)
    assert tab.evaluate("parseFloat(getComputedStyle(document.querySelector('h1')).fontSize)") == 58
    assert tab.evaluate(WIDTHS) == [320, 320]
    assert tab.evaluate(OVER_THE_EDGE) == []


@pytest.mark.parametrize("width", [375, 1280])
def test_text_is_large_enough_with_room_between_the_lines(tab: Browser, sample: str, width: int) -> None:
    tab.width(width, phone=width < 500)
    tab.open(sample)
    seen = tab.evaluate(TEXTS)
    assert len(seen) > 40
    for text in seen:
        assert text["size"] >= (14 if text["small"] or text["heading"] else 16), text
        if not text["heading"] and not text["title"]:
            assert text["line"] / text["size"] >= 1.5, text


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_has_the_contrast_of_wcag_aa(tab: Browser, sample: str, dark: bool) -> None:
    tab.dark(dark)
    tab.open(sample)
    seen = tab.evaluate(TEXTS)
    for text in seen:
        assert contrast(text["ink"], text["paper"]) >= 4.5, text
    button = next(text["paper"] for text in seen if text["text"] == "Read the original study")
    papers = {text["paper"] for text in seen} - {button}  # dark on light, light on dark
    assert all((luminance(paper) < 0.2) is dark for paper in papers)


def test_in_the_dark_nothing_light_shows_round_the_page(tab: Browser, sample: str) -> None:
    tab.dark()
    tab.width(1280, height=6000)
    tab.open(sample)
    assert luminance(tab.evaluate("getComputedStyle(document.body).backgroundColor")) < 0.05


@pytest.mark.parametrize("width", [375, 1280])
def test_links_that_stand_alone_are_large_enough_for_a_thumb(tab: Browser, sample: str, width: int) -> None:
    tab.width(width, phone=width < 500)
    tab.open(sample)
    links = tab.evaluate(ALONE)
    assert len(links) == 6 + 6 + 3 + 1
    assert [link for link in links if min(link[1:]) < 44] == []


def test_related_articles_stand_in_two_columns_on_a_desktop(tab: Browser, sample: str) -> None:
    tab.open(sample)
    places = tab.evaluate(TEASERS)
    assert len({left for left, _ in places}) == 2
    assert len({top for _, top in places}) == 3


def test_related_articles_stand_in_one_column_on_a_phone(tab: Browser, sample: str) -> None:
    tab.width(375, phone=True)
    tab.open(sample)
    places = tab.evaluate(TEASERS)
    assert {left for left, _ in places} == {20}
    assert len({top for _, top in places}) == 6


def test_the_first_article_stands_on_the_right_where_people_read_from_there(tab: Browser) -> None:
    tab.open(page("ar"))
    (first, _), (second, _) = tab.evaluate(TEASERS)[:2]
    assert first > second


def test_without_pictures_their_words_are_shown_in_reading_size(tab: Browser, sample: str) -> None:
    tab.open(re.sub(r'src="data:[^"]*"', 'src=""', sample))
    size, colour, height = tab.evaluate(
        "(e => [getComputedStyle(e).fontSize, getComputedStyle(e).color, e.getBoundingClientRect().height])"
        "(document.querySelector('img'))"
    )
    assert size == "16px"
    assert contrast(colour, "rgb(255, 253, 249)") >= 4.5
    assert height >= 16


def test_the_preheader_takes_no_room(tab: Browser, sample: str) -> None:
    tab.open(sample)
    assert (
        tab.evaluate(
            "document.querySelector('[lang] > div, body > div > div').getBoundingClientRect().height"
        )
        == 0
    )


def test_the_page_is_laid_out_by_the_standard_and_asks_the_network_for_nothing(
    tab: Browser, sample: str
) -> None:
    tab.open(sample)
    assert tab.evaluate("document.compatMode") == "CSS1Compat"
    assert [url for url in tab.requests if not url.startswith(("file:", "data:"))] == []


# --- large print -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large() -> str:
    return page(edition=Edition.LARGE, related=teasers(6))


@pytest.mark.parametrize("width", [320, 1280])
def test_large_print_has_20_pixels_and_nothing_has_less(tab: Browser, large: str, width: int) -> None:
    tab.width(width, phone=width < 500)
    tab.open(large)
    seen = tab.evaluate(TEXTS)
    assert len(seen) > 40
    assert min(text["size"] for text in seen) == 20
    assert sum(text["size"] == 20 for text in seen) > 10
    assert tab.evaluate(WIDTHS) == [width, width]
    assert tab.evaluate(OVER_THE_EDGE) == []


@pytest.mark.parametrize("dark", [False, True])
def test_large_print_is_in_full_ink(tab: Browser, large: str, dark: bool) -> None:
    """WCAG's AAA for what is read; links have the publisher's colour, which the checks hold to AA."""
    tab.dark(dark)
    tab.open(large)
    links = set(
        tab.evaluate("[...document.querySelectorAll('p a, .button a')].map(e => getComputedStyle(e).color)")
    )
    read = [text for text in tab.evaluate(TEXTS) if text["ink"] not in links]
    assert len(read) > 20
    for text in read:
        assert contrast(text["ink"], text["paper"]) >= 7, text


def test_large_print_has_one_column_on_a_desktop_too(tab: Browser, large: str) -> None:
    tab.open(large)
    places = tab.evaluate(TEASERS)
    assert len({left for left, _ in places}) == 1
    assert len({top for _, top in places}) == 6


def test_large_print_twice_as_large_still_fits_a_small_phone(tab: Browser, large: str) -> None:
    tab.width(320, phone=True)
    tab.open(large)
    tab.evaluate(DOUBLE)
    assert tab.evaluate(WIDTHS) == [320, 320]
    assert tab.evaluate(OVER_THE_EDGE) == []


def test_large_print_has_large_targets(tab: Browser, large: str) -> None:
    tab.width(375, phone=True)
    tab.open(large)
    assert [link for link in tab.evaluate(ALONE) if min(link[1:]) < 48] == []

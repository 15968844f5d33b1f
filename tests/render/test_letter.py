"""Letters as emails: one thing to do, readable on a small phone, and nothing in them that says too much."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

import axe_core_python
import pytest
from lxml import html as lxml_html

from newsletter import texts
from newsletter.errors import TemplateError
from newsletter.letters import LetterKind
from newsletter.merge import names
from newsletter.model import Edition
from newsletter.pictures import resolve_pictures
from newsletter.render import Theme, render_letter
from tests.render.samples import picture, publication
from tests.render.test_browser import DOUBLE, OVER_THE_EDGE, TEXTS, WIDTHS, contrast
from tests.support.browser import Browser, browser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from newsletter.model import Email

LINK = "https://news.example.org/c/EwEAAAAAAAAAB2prbG1ub3BxcnN0dXZ3eHl6MDEyMzQ1Njc4OTA"
AXE = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
LOGO = Theme(logo=picture("logo.png", 480, 120, "Logo"))
EACH = [(kind, language) for kind in LetterKind for language in ("en", "de")]


def letter(kind: str = "confirm", language: str = "en", theme: Theme | None = None, **known: Any) -> Email:
    return render_letter(
        kind, publication=publication(), theme=theme or Theme(), texts=texts.load(language), **known
    )


def as_shown(email: Email) -> str:
    data = {one.name: base64.b64encode(one.data).decode() for one in email.pictures}
    page = resolve_pictures(email.html, lambda name: f"data:image/png;base64,{data[name]}")
    return page.replace("@@action_url@@", LINK)


# --- what stands in them -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "language"), EACH)
def test_there_is_one_thing_to_do_and_its_link_is_also_written_out(kind: str, language: str) -> None:
    email = letter(kind, language)
    page = lxml_html.fromstring(email.html)
    button, written = page.xpath("//a")
    assert [link.get("href") for link in (button, written)] == ["@@action_url@@"] * 2
    assert written.text_content() == "@@action_url@@"
    assert email.text.count("@@action_url@@") == 1
    assert "\n@@action_url@@\n" in email.text, "on a line of its own: a mail program finds where it ends"
    assert len(page.xpath("//h1")) == 1


@pytest.mark.parametrize(("kind", "language"), EACH)
def test_a_letter_says_who_writes_why_and_what_happens_if_one_does_nothing(kind: str, language: str) -> None:
    email, words = letter(kind, language), texts.load(language)
    read = " ".join(lxml_html.fromstring(email.html).text_content().split())
    for part in (read, " ".join(email.text.split())):
        assert publication().full_name in part
        assert publication().postal_address in part
        assert words["letter.reason"] in part
        assert words[f"letter.{kind}.otherwise"] in part


@pytest.mark.parametrize(("kind", "language"), EACH)
def test_a_locked_screen_shows_the_short_name_and_nothing_of_the_list(kind: str, language: str) -> None:
    email = letter(kind, language, list_title="News for people with multiple sclerosis")
    assert publication().name in email.subject
    assert "sclerosis" not in email.subject.lower()
    assert email.preheader == ""


def test_a_letter_names_the_list_that_it_is_about() -> None:
    email = letter(list_title="Events & <friends>")
    assert "get Events & <friends> by email" in " ".join(email.text.split())
    assert "Events &amp; &lt;friends&gt;" in email.html


@pytest.mark.parametrize(("kind", "language"), EACH)
def test_only_the_link_differs_from_letter_to_letter(kind: str, language: str) -> None:
    email = letter(kind, language)
    assert names(email.html) == names(email.text) == {"action_url"}
    assert names(email.subject) == set()


def test_the_logo_stands_in_a_letter_as_in_an_issue() -> None:
    email = letter(theme=LOGO)
    assert [one.name for one in email.pictures] == ["logo.png"]
    assert 'alt="Logo"' in email.html


def test_a_publisher_may_write_the_letter_their_own_way(tmp_path: Path) -> None:
    (tmp_path / "letter.txt.j2").write_text("Hello!\n@@action_url@@\n", encoding="utf-8")
    assert letter(overrides=tmp_path).text.splitlines()[1:] == ["@@action_url@@"]


def test_a_mistake_in_an_own_letter_is_told_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "letter.mjml.j2").write_text("<mjml><mj-body>{{ nobody }}</mj-body></mjml>", encoding="utf-8")
    with pytest.raises(TemplateError) as caught:
        letter(overrides=tmp_path)
    [finding] = caught.value.findings
    assert (finding.file, finding.line) == ("templates/letter.mjml.j2", 1)
    assert "nobody" in finding.message


# --- as a browser shows them -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.mark.browser
@pytest.mark.parametrize("edition", [Edition.STANDARD, Edition.LARGE])
def test_a_letter_fits_a_small_phone_with_text_twice_as_large(tab: Browser, edition: Edition) -> None:
    tab.width(320, phone=True)
    for kind, language in EACH:
        tab.open(as_shown(letter(kind, language, LOGO, edition=edition)))
        for script in ("0", DOUBLE):
            tab.evaluate(script)
            assert tab.evaluate(WIDTHS) == [320, 320]
            assert tab.evaluate(OVER_THE_EDGE) == []


@pytest.mark.browser
@pytest.mark.parametrize("kind", list(LetterKind))
def test_a_letter_in_large_print_has_nothing_smaller_than_20_pixels(tab: Browser, kind: str) -> None:
    tab.width(375, phone=True)
    tab.open(as_shown(letter(kind, theme=LOGO, edition=Edition.LARGE)))
    assert min(text["size"] for text in tab.evaluate(TEXTS)) == 20


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True])
def test_a_letter_can_be_read_by_everybody(tab: Browser, dark: bool) -> None:
    tab.dark(dark)
    tab.width(375, phone=True)
    tab.open(as_shown(letter(theme=LOGO)))
    for text in tab.evaluate(TEXTS):
        assert contrast(text["ink"], text["paper"]) >= 4.5, text
        assert text["size"] >= (14 if text["small"] else 16), text
    width, height = tab.evaluate(
        "(box => [box.width, box.height])(document.querySelector('.button a').getBoundingClientRect())"
    )
    assert min(width, height) >= 44
    tab.evaluate(f"{AXE}; 0")
    # Not those that are about web pages: a mail is a part of the page of whoever shows it.
    rules = "{runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']}"
    found = f"axe.run({rules}).then(r => r.violations.map(v => [v.id, v.nodes.map(n => n.html)]))"
    assert tab.evaluate(found) == []

"""The compiled email: its structure, its words, what a screen reader gets, and the text part."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import html as lxml_html

from newsletter import merge, texts
from newsletter.errors import TemplateError
from newsletter.model import Email, Source
from newsletter.render import Palette, Theme, reading_minutes, render
from newsletter.render.guards import STYLE_BLOCK_BYTES, check
from tests.render.samples import TITLES, issue, lead, picture, publication, teasers

SAMPLES = Path(__file__).parents[1] / "data" / "texts"
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)


def rendered(language: str = "en", *, theme: Theme | None = None, **changes: object) -> Email:
    words = texts.load(language, SAMPLES if language == "ar" else None)
    return render(issue(**changes), publication=publication(), theme=theme or Theme(), texts=words)


def page(email: Email) -> lxml_html.HtmlElement:
    return lxml_html.document_fromstring(email.html)


def shown(text: str) -> str:
    """Text as a reader sees it: white space folded."""
    return " ".join(re.split(r"[ \t\r\n]+", text)).strip()


@pytest.fixture(scope="module")
def email() -> Email:
    return rendered()


class TestTheWhole:
    def test_the_same_issue_gives_the_same_bytes(self, email: Email) -> None:
        assert rendered().digest == email.digest

    def test_another_word_gives_another_digest(self, email: Email) -> None:
        assert rendered(closing="Another closing.").digest != email.digest

    def test_it_carries_what_the_issue_says(self, email: Email) -> None:
        assert (email.subject, email.title) == (issue().subject, issue().lead.title)
        assert (email.language, email.view_path) == ("en", "/archive/2026-12")

    def test_it_is_small(self, email: Email) -> None:
        assert len(email.html.encode()) < 60_000

    def test_both_parts_hold_a_character_outside_latin_1(self, email: Email) -> None:
        assert "\u200c" in email.html
        assert "\u200c" in email.text

    def test_the_merge_tags_a_mail_needs_are_in_both_parts(self, email: Email) -> None:
        needed = {"name", "unsubscribe_url", "preferences_url", "view_url"}
        assert merge.names(email.html) == merge.names(email.text) == needed

    def test_nothing_is_loaded_from_anywhere(self, email: Email) -> None:
        assert not re.findall(r"<(?:link|script|iframe)|@import|url\(|src=\"http", email.html)

    @pytest.mark.parametrize("count", [0, 1, 2, 3, 9])
    def test_any_number_of_teasers_fits(self, count: int) -> None:
        email = rendered(related=teasers(count))
        assert len(page(email).xpath("//h3")) == count
        assert ("Related reading" in email.text) == bool(count)

    def test_only_pictures_that_are_shown_travel(self) -> None:
        logo = picture("logo.png", 240, 60, "Research Digest")
        assert [p.name for p in rendered(theme=Theme(logo=logo)).pictures] == ["logo.png", "images/scan.png"]
        assert rendered(lead=lead(picture=None)).pictures == ()

    def test_a_picture_is_never_shown_larger_than_it_is_nor_wider_than_the_page(self) -> None:
        small = picture(width=300, height=100)
        assert page(rendered(lead=lead(picture=small))).xpath("//img/@width") == ["300"]
        assert page(rendered()).xpath("//img/@width") == ["560"]

    def test_a_picture_name_with_spaces_and_umlauts_is_found_again(self) -> None:
        odd = picture("images/ein Bild für ü.png")
        assert rendered(lead=lead(picture=odd)).pictures == (odd,)

    def test_a_source_may_lack_everything_but_its_title(self) -> None:
        email = rendered(lead=lead(source=Source(title="A sample without a paper")))
        assert "A sample without a paper" in email.text
        assert "None" not in email.text.split("A sample without a paper")[1]
        assert "DOI" not in email.text
        assert not page(email).xpath("//p[not(node()) and not(contains(@style, 'border-top'))]")

    def test_reading_time_grows_with_the_words(self) -> None:
        long = replace(issue().lead.sections[0], body="word " * 2100)
        sections = (long, *issue().lead.sections[1:])
        assert (reading_minutes(issue()), reading_minutes(issue(lead=lead(sections=sections)))) == (1, 10)


class TestTheHtml:
    def test_the_title_is_the_discreet_name_with_the_date(self, email: Email) -> None:
        assert page(email).xpath("//title/text()") == ["Research Digest, 1 December 2026"]

    @pytest.mark.parametrize(("language", "direction"), [("en", "ltr"), ("ar", "rtl")])
    def test_language_and_direction_stand_on_the_page_and_on_what_webmail_keeps_of_it(
        self, language: str, direction: str
    ) -> None:
        html = page(rendered(language))
        for element in (html, html.xpath("/html/body/*[1]")[0]):
            assert (element.get("lang"), element.get("dir")) == (language, direction)

    def test_headings_are_in_order_with_one_title(self, email: Email) -> None:
        levels = [int(heading.tag[1]) for heading in page(email).xpath("//h1|//h2|//h3|//h4")]
        assert levels.count(1) == 1
        assert levels[0] == 1
        assert all(below <= above + 1 for above, below in pairwise(levels))

    def test_every_layout_table_says_so_also_the_ones_for_outlook(self, email: Email) -> None:
        tables = re.findall(r"<table\b[^>]*>", email.html)
        assert len(tables) > 50
        assert [table for table in tables if 'role="presentation"' not in table] == []

    def test_every_picture_has_an_alt(self) -> None:
        html = page(rendered(theme=Theme(logo=picture("logo.png", 240, 60, "Research Digest"))))
        assert html.xpath("//img/@alt") == ["Research Digest", picture().alt]

    def test_no_two_links_of_one_name_go_to_different_places(self, email: Email) -> None:
        names: dict[str, set[str]] = {}
        for link in page(email).xpath("//a"):
            name = link.get("aria-label") or shown(link.text_content())
            assert name
            names.setdefault(name, set()).add(link.get("href"))
        assert {name for name, targets in names.items() if len(targets) > 1} == set()

    def test_the_name_of_a_link_begins_with_the_words_on_it(self, email: Email) -> None:
        labelled = page(email).xpath("//a[@aria-label]")
        assert len(labelled) == 6
        assert all(link.get("aria-label").startswith(link.text_content()) for link in labelled)

    def test_the_preheader_is_the_first_text_and_nothing_of_the_body_follows_it_in_an_inbox(
        self, email: Email
    ) -> None:
        first = next(text for text in page(email).xpath("/html/body")[0].itertext() if text.strip())
        assert first.startswith(email.preheader)
        assert len(first.replace("\u034f", "").replace("\u200c", "")) >= 200

    def test_it_declares_both_colour_schemes(self, email: Email) -> None:
        assert page(email).xpath("//meta[@name='color-scheme']/@content") == ["light dark"]
        assert "@media (prefers-color-scheme: dark)" in email.html

    def test_it_keeps_the_conditional_comments_for_outlook_in_pairs(self, email: Email) -> None:
        comments = COMMENT.findall(email.html)
        opened = [c for c in comments if c.startswith("<!--[if") and not c.endswith("<!-->")]
        assert all(c.endswith("<![endif]-->") for c in opened)
        markup = Counter(re.findall(r"<(/?(?:table|tr|td))\b", "".join(opened)))
        assert markup["table"] == markup["/table"] > 10
        assert markup["td"] == markup["/td"]

    def test_essentials_are_inlined_for_inboxes_without_style_sheets(self, email: Email) -> None:
        html = page(email)
        for path in ("//h1", "//h2", "//p", "//a", "//img"):
            assert all(element.get("style") for element in html.xpath(path)), path

    def test_colours_and_fonts_come_from_the_theme(self) -> None:
        palette = Palette("#111111", "#222222", "#333333", "#444444", "#abcdef", "#555555")
        html = rendered(theme=Theme(light=palette, heading_font="Palatino, serif")).html
        assert {f"#{digit * 6}" for digit in "12345"} | {"#abcdef"} <= set(re.findall(r"#\w{6}", html))
        assert "font-family:Palatino, serif" in html
        assert "Georgia" not in html

    def test_the_words_come_from_the_language(self) -> None:
        email = rendered("de")
        for words in ("Zum Weiterlesen", "1. Dezember 2026", "Abbestellen", "Zur Originalstudie"):
            assert words in email.html
        assert "Unsubscribe" not in email.html + email.text
        assert "December" not in email.html + email.text

    def test_right_to_left_turns_the_alignment_round(self) -> None:
        html = rendered("ar").html
        assert "text-align:left" not in re.sub(r'class="mj-outlook[^>]*>', "", html)
        assert "border-right:3px solid" in html
        assert "padding-right:24px" in html


class TestTheText:
    def test_lines_fit_in_72_columns_but_for_addresses(self, email: Email) -> None:
        long = [line for line in email.text.splitlines() if len(line) > 73 and "://" not in line]
        assert long == []

    def test_every_address_of_an_article_stands_on_its_own_line(self, email: Email) -> None:
        lines = email.text.splitlines()
        for teaser in issue().related:
            assert teaser.url in lines
        assert "https://doi.org/10.1371/journal.pone.0332478" in lines
        assert {"@@unsubscribe_url@@", "@@preferences_url@@", "@@view_url@@"} <= set(lines)

    def test_a_teaser_has_date_title_text_and_address_in_this_order(self, email: Email) -> None:
        first = email.text[email.text.index("Related reading") :]
        parts = ["1 March 2026", TITLES[0], "What was found", "https://example.org/articles/1"]
        assert sorted(parts, key=first.index) == parts

    def test_headings_are_set_off_with_rules_of_their_length(self, email: Email) -> None:
        lines = email.text.splitlines()
        at = lines.index("What they found")
        assert lines[at + 1] == "-" * len("What they found")

    def test_it_holds_no_markup_and_no_idle_lines(self, email: Email) -> None:
        assert not re.search(r"</?\w+[ >]|&\w+;|\*\*", email.text)
        assert "\n\n\n" not in email.text
        assert not re.search(r"[ \t]\n", email.text)

    def test_the_invisible_character_touches_no_address(self, email: Email) -> None:
        assert re.findall(r".*\u200c.*", email.text) == ["Neurology Research Digest\u200c"]


# Words as people write them: no control characters, no merge tags, no line breaks; Markdown has tests of its own.
WORDS = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"), exclude_characters="@\ufffe\uffff"), min_size=1
).filter(lambda text: bool(shown(text)))


@settings(max_examples=40)
@given(title=WORDS, teaser=WORDS, alt=WORDS)
def test_any_words_arrive_in_both_parts_intact(title: str, teaser: str, alt: str) -> None:
    email = rendered(
        lead=lead(title=title, picture=picture(alt=alt, width=2, height=2)),
        related=(replace(teasers(1)[0], text=teaser),),
    )
    html = page(email)
    assert shown(html.xpath("//h1")[0].text_content()) == shown(title)
    assert shown(html.xpath("//p[@class='teaser']")[0].text_content()) == shown(teaser)
    assert html.xpath("//img/@alt") == [alt]
    assert shown(title) in shown(email.text)
    assert shown(teaser) in shown(email.text)


class TestTheGuards:
    """What each of them finds; a mail of ours passes them all, or there would be no mail."""

    PLAIN = "<p>@@name|reader@@</p>"

    @pytest.mark.parametrize(
        ("html", "code"),
        [
            ("<p></p>", "T403"),
            (f"{PLAIN}{PLAIN}", "T403"),
            (f"{PLAIN}<!-- changed -->", "T404"),
            (f"{PLAIN}<style>{'a' * (STYLE_BLOCK_BYTES + 1)}</style>", "T405"),
            (f"{PLAIN}{'<style>' + 'a' * 6000 + '</style>'}" + f"<style>{'a' * 6000}</style>" * 2, "T405"),
            (f'{PLAIN}<link rel="stylesheet" href="https://x.example">', "T406"),
            (f"{PLAIN}<style>@font-face {{}}</style>", "T406"),
            (f'{PLAIN}<img src="image:nothing.png">', "T407"),
        ],
    )
    def test_it_finds(self, html: str, code: str) -> None:
        with pytest.raises(TemplateError) as caught:
            check(self.PLAIN, self.PLAIN, html, ["there.png"])
        assert [finding.code for finding in caught.value.findings] == [code]

    def test_it_lets_a_sound_mail_pass(self) -> None:
        html = f'{self.PLAIN}<img src="image:there.png"><p>an author wrote "image:x" here</p>'
        check(self.PLAIN, self.PLAIN, html, ["there.png"])


class TestTheTheme:
    def test_a_colour_that_outlook_can_not_read_is_refused(self) -> None:
        with pytest.raises(ValueError, match="accent"):
            Palette("#111111", "#222222", "#333333", "#444444", "red", "#555555")

    def test_a_font_can_not_smuggle_css(self) -> None:
        with pytest.raises(ValueError, match="body_font"):
            Theme(body_font="Arial; } body { display: none")

"""The compiler's traps, one test each: every one of these fails without the mend it is about.

What mrml does by itself is measured in the first group; when a new version mends it, those tests say so, and the
mend can go.
"""

from __future__ import annotations

import mjml
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import html as lxml_html
from markupsafe import escape

from newsletter.errors import TemplateError
from newsletter.render.mjml import compile_mjml, finish, normalise
from newsletter.render.templates import mark


def document(content: str, head: str = "") -> str:
    return (
        f'<mjml lang="en" dir="ltr"><mj-head>{head}</mj-head><mj-body><mj-section><mj-column>'
        f"{content}</mj-column></mj-section></mj-body></mjml>"
    )


def bare(source: str) -> str:
    """What mrml makes of it without us."""
    return str(mjml.mjml2html(source))


def compiled(content: str, head: str = "") -> str:
    return compile_mjml(mark(document(content, head), "templates/x.mjml.j2")).html


def panics(source: str) -> bool:
    try:
        bare(source)
    except BaseException as error:  # the class can't be imported
        return type(error).__name__ == "PanicException"
    return False


class TestTheCompilerByItself:
    """Why the mends are there."""

    def test_writes_attributes_in_a_debug_format(self) -> None:
        assert r"\u{fe0f}" in bare(document('<mj-image src="a.png" alt="I ❤️ you" />'))

    def test_lets_a_quotation_mark_end_an_attribute(self) -> None:
        assert r'aria-label="Hi \"you\""' in bare(document("", '<mj-title>Hi "you"</mj-title>'))

    def test_panics_on_a_greater_than_sign_after_an_accent(self) -> None:
        assert panics(document("<mj-text>Café > Bar</mj-text>"))

    def test_does_not_inline_what_it_should(self) -> None:
        style = '<mj-style inline="inline">.a { color: #123456; }</mj-style>'
        assert 'style="color' not in bare(document('<mj-text><p class="a">x</p></mj-text>', style))

    def test_says_nothing_about_an_unknown_tag(self) -> None:
        assert bare(document("<mj-text>a</mj-text><mj-txt>b</mj-txt>"))

    def test_says_nothing_about_the_wrong_closing_tag(self) -> None:
        assert bare(document("<mj-text>a</mj-button>"))

    def test_lets_tags_through(self) -> None:
        assert "<mj-button" in bare(document("<mj-text><mj-button>a</mj-button></mj-text>"))

    def test_asks_google_for_a_font(self) -> None:
        assert "fonts.googleapis.com" in bare(document("<mj-text>a</mj-text>"))


AWKWARD = [
    "I ❤️ you ✔️ 1️⃣",
    "👩‍👩‍👧 family",
    "non\u00a0breaking and narrow\u202fspace",
    "zero\u200cwidth, soft\u00adhyphen",
    "नमस्ते สวัสดี",
    "e\u0301 combined",
    "C:\\new\\table",
    "He said \"no\" and 'yes'",
    "<script>alert(1)</script> & more &amp; &nbsp;",
    "{{ 7 * 7 }} {% raw %} ${x} {x}",
    "Café > Bar",
    "Prix – > 3, “a”> b, 🎉 > x",
    "مرحبا بالعالم",
    "李小龙",
]


@pytest.mark.parametrize("words", AWKWARD)
def test_words_come_through_text_alt_title_and_links_unharmed(words: str) -> None:
    safe = escape(words)
    html = compiled(
        f'<mj-text><p title="{safe}">{safe}</p></mj-text><mj-image src="image:a" alt="{safe}" />'
        f'<mj-button href="https://example.org/?q={safe}">{safe}</mj-button>',
        f"<mj-title>{safe}</mj-title>",
    )
    page = lxml_html.document_fromstring(html)
    assert page.xpath("//p/text()") == [words]
    assert page.xpath("//p/@title") == page.xpath("//img/@alt") == [words]
    assert page.xpath("//title/text()") == page.xpath("//@aria-label") == [words]
    assert page.xpath("//a/@href") == [f"https://example.org/?q={words}"]


# Everything XML may hold but C1 controls, which HTML reads as Windows-1252, and white space, which it folds.
CHARACTERS = st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"), exclude_characters="\ufffe\uffff")


@given(st.text(CHARACTERS, min_size=1))
def test_any_text_comes_through_an_attribute(words: str) -> None:
    html = compiled(f'<mj-image src="image:a" alt="{escape(words)}" />')
    assert lxml_html.document_fromstring(html).xpath("//img/@alt") == [words]


def test_a_line_break_or_tab_in_an_attribute_becomes_a_space() -> None:
    assert 'alt="a b c"' in compiled('<mj-image src="image:a" alt="a\nb\tc" />')


def test_a_single_quoted_value_may_hold_quotation_marks() -> None:
    page = lxml_html.document_fromstring(compiled("<mj-image src='image:a' alt='say \"a\"' />"))
    assert page.xpath("//img/@alt") == ['say "a"']


def test_nbsp_and_other_entities_just_work() -> None:
    html = compiled("<mj-text><p>a&nbsp;b &copy; &mdash; &#8203;</p></mj-text>")
    assert lxml_html.document_fromstring(html).xpath("//p/text()") == ["a\u00a0b © — \u200b"]


def test_a_panic_is_a_template_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "newsletter.render.mjml.normalise", lambda source: source
    )  # else nothing panics any more
    with pytest.raises(TemplateError) as caught:
        compile_mjml(document("<mj-text>Café > Bar</mj-text>"))
    assert caught.value.findings[0].code == "T401"
    assert "gave up" in caught.value.findings[0].message


def test_a_person_can_still_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(source: str, **options: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(mjml, "mjml2html", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compile_mjml(document(""))


def test_bare_numbers_in_paddings_count_for_outlook() -> None:
    source = (
        "<mjml><mj-body width='600px'><mj-section padding='0 20'><mj-column><mj-text>a</mj-text></mj-column>"
        "<mj-column><mj-text>b</mj-text></mj-column></mj-section></mj-body></mjml>"
    )
    assert "width:300px" in bare(source)
    assert "width:280px" in compile_mjml(source).html


def test_styles_to_inline_are_taken_out_of_the_document() -> None:
    style = '<mj-style inline="inline">.a { color: #123456; }</mj-style><mj-style>.b { color: #654321; }</mj-style>'
    result = compile_mjml(mark(document("<mj-text>a</mj-text>", style), "x"))
    assert result.css.strip() == ".a { color: #123456; }"
    assert "#123456" not in result.html
    assert ".b { color: #654321; }" in result.html


def test_comments_in_styles_are_dropped_because_yahoo_lets_them_kill_the_next_rule() -> None:
    html = compiled("", "<mj-style>/* é > b */ .a { content: '→'; }</mj-style>")
    assert "<style type=\"text/css\">.a { content: '\\2192 '; }</style>" in html


def test_no_font_and_no_icon_is_loaded() -> None:
    html = compiled('<mj-text font-family="Roboto, sans-serif">a</mj-text>')
    assert "googleapis" not in html
    assert "@import" not in html


def test_a_picture_without_words_gets_an_empty_alt() -> None:
    assert '<img alt=""' in compiled('<mj-image src="image:a" />')
    assert compiled('<mj-image src="image:a" alt="x" />').count("alt=") == 1


def test_comments_for_outlook_keep_their_pictures_as_they_are() -> None:
    html = finish("<body ><!--[if mso]><img src='a'><![endif]--><img src='b'></body>")
    assert "<!--[if mso]><img src='a'><![endif]-->" in html


def test_short_colours_are_written_out_for_outlook_also_in_its_comments() -> None:
    html = compiled('<mj-text color="#1bc">a</mj-text><mj-button background-color="#1bc">b</mj-button>')
    assert "#1bc;" not in html
    assert 'bgcolor="#11bbcc"' in html


def test_a_colour_in_words_or_addresses_is_left_alone() -> None:
    html = compiled('<mj-text><a href="https://example.org/#abc">#abc</a></mj-text>')
    assert '<a href="https://example.org/#abc">#abc</a>' in html


def test_a_reference_that_an_author_wrote_as_text_stays_text() -> None:
    html = compiled(f"<mj-text><p>{escape('&#8203; &#233;')}</p></mj-text>")
    assert lxml_html.document_fromstring(html).xpath("//p/text()") == ["&#8203; &#233;"]


def test_a_tag_that_is_left_over_is_an_error() -> None:
    with pytest.raises(TemplateError) as caught:
        finish("<body><mj-thing></mj-thing></body>")
    assert "<mj-thing> was left over" in caught.value.findings[0].message


def test_outlook_gets_its_conditional_comments() -> None:
    raw = "<mj-raw><!--[if mso]><p>für Outlook</p><![endif]--><!--[if !mso]><!--><b>x</b><!--<![endif]--></mj-raw>"
    html = compiled(raw)
    assert "<!--[if mso]><p>für Outlook</p><![endif]-->" in html
    assert "<!--[if !mso]><!--><b>x</b><!--<![endif]-->" in html


def test_ordinary_comments_stay_in_the_template() -> None:
    assert "note to self" not in compiled("<mj-text>a<!-- note to self --></mj-text>")


def test_the_private_marks_are_gone() -> None:
    raw = "<mj-raw><!--[if mso]><p>a</p><![endif]--></mj-raw>"
    assert "data-at" not in compiled(
        f"<mj-text><p>a</p></mj-text>{raw}", "<mj-style>.a { color: #fff; }</mj-style>"
    )


def test_what_the_compiler_gets_is_plain_ascii() -> None:
    assert normalise(document('<mj-text><p title="é">ü > ö</p></mj-text>')).isascii()


def test_an_error_names_the_template_and_the_next_step() -> None:
    with pytest.raises(TemplateError, match="1 error") as caught:
        compiled("<mj-txt>a</mj-txt>")
    found = caught.value.findings[0]
    assert found.place.startswith("templates/x.mjml.j2:1:")
    assert (found.message, found.hint) == ("there is no <mj-txt>", "Did you mean mj-text?")

"""Inlining changes ``style`` attributes and nothing else."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path

import css_inline
import pytest
from lxml import html as lxml_html
from premailer import Premailer

from newsletter import texts
from newsletter.render import FILTERS, Theme, template_context
from newsletter.render.inline import inline
from newsletter.render.mjml import Compiled, compile_mjml
from newsletter.render.templates import Templates
from tests.render.samples import issue, publication
from tests.support.browser import browser

COMMENTS = re.compile(r"<!--.*?-->", re.DOTALL)
STYLES = re.compile(r"<style\b.*?</style>", re.DOTALL)


@pytest.fixture(scope="module")
def sample() -> Compiled:
    """The sample issue, compiled and not yet inlined."""
    context = template_context(issue(), publication=publication(), theme=Theme(), texts=texts.load("en"))
    return compile_mjml(Templates(None, FILTERS).render("issue.mjml.j2", context))


@pytest.fixture(scope="module")
def inlined(sample: Compiled) -> str:
    return inline(sample.html, sample.css)


def test_premailer_by_itself_drops_what_a_mail_needs(sample: Compiled) -> None:
    plain = Premailer(
        sample.html, css_text=sample.css, allow_network=False, cssutils_logging_level=logging.CRITICAL
    ).transform()
    assert "<!doctype html>" not in plain.lower()
    assert "[data-ogsc]" not in plain
    assert plain.count("!important") < sample.html.count("!important")


def test_the_doctype_stays(sample: Compiled, inlined: str) -> None:
    assert sample.html.startswith("<!doctype html><html")
    assert re.match(r"<!doctype html>\s*<html", inlined)


def test_every_comment_for_outlook_stays_byte_for_byte(sample: Compiled, inlined: str) -> None:
    assert len(COMMENTS.findall(sample.html)) > 40
    assert COMMENTS.findall(inlined) == COMMENTS.findall(sample.html)


def test_style_blocks_media_queries_and_dark_rules_stay_byte_for_byte(sample: Compiled, inlined: str) -> None:
    before = STYLES.findall(COMMENTS.sub("", sample.html))
    assert STYLES.findall(COMMENTS.sub("", inlined)) == before
    kept = "".join(before)
    assert "@media (prefers-color-scheme: dark)" in kept
    assert "[data-ogsc] .ink div" in kept
    assert "@media (max-width: 480px)" in kept


def test_merge_tags_in_links_stay(inlined: str) -> None:
    assert 'href="@@unsubscribe_url@@"' in inlined


def test_a_rule_reaches_its_element() -> None:
    page = lxml_html.document_fromstring(
        inline("<!doctype html><p class='a'>x</p>", ".a { color: #123456; }")
    )
    assert page.xpath("//p/@style") == ["color:#123456"]


def test_no_attribute_is_added() -> None:
    html = inline("<!doctype html><table class='a'></table>", ".a { width: 50%; text-align: center; }")
    assert "width=" not in html
    assert "align=" not in html.replace("text-align", "")


def test_a_style_sheet_on_the_network_is_not_asked_for() -> None:
    html = '<!doctype html><head><link rel="stylesheet" href="http://127.0.0.1:9/a.css"></head><p>x</p>'
    assert "127.0.0.1:9" in inline(html, "p { margin: 0; }")  # an attempt would raise: nothing listens there


def test_nothing_is_logged(capfd: pytest.CaptureFixture[str], sample: Compiled) -> None:
    inline(sample.html, sample.css + " p { unknown-property: 1; }")
    assert capfd.readouterr() == ("", "")


def test_premailer_is_not_imported_before_it_is_needed() -> None:
    script = (
        "import sys, newsletter.render; print({'premailer', 'requests', 'sqlalchemy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == "set()"


COMPUTED = """[...document.querySelectorAll("body *")].map(element => {
    const style = getComputedStyle(element);
    return [element.tagName, ...[...style].map(name => `${name}: ${style[name]}`)].join("; ");
})"""


@pytest.mark.browser
def test_another_inliner_gives_a_page_that_looks_the_same(sample: Compiled, inlined: str) -> None:
    html = re.sub(r"<style\b", '<style data-css-inline="ignore"', sample.html)
    other = css_inline.CSSInliner(
        extra_css=sample.css, load_remote_stylesheets=False, keep_style_tags=True, keep_link_tags=True
    ).inline(html)
    with browser() as tab:
        for width, dark in ((1280, False), (375, False), (1280, True)):
            tab.width(width)
            tab.dark(dark)
            tab.open(inlined)
            ours = tab.evaluate(COMPUTED)
            tab.open(other)
            assert tab.evaluate(COMPUTED) == ours
            assert len(ours) > 200

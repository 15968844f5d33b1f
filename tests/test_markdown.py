"""Markdown in both of its forms, and what may not stand in it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree
from lxml import html as lxml_html

from newsletter import markdown

# What an author may type: ``content`` refuses control characters before Markdown is ever read.
CHARACTERS = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")
PROSE = st.text(CHARACTERS, min_size=1).filter(lambda text: text.strip())
TAG = "@@name|dear reader of *all* our_mails_@@"


def escaped(text: str) -> str:
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text)


def visible(html: str) -> str:
    return "".join(lxml_html.fragment_fromstring(html, create_parent=True).itertext())


def squeezed(text: str) -> str:
    return re.sub(r"[ \n]+", " ", text).strip()


@given(PROSE)
def test_any_text_survives_in_both_forms(text):
    source = escaped(text)
    assert squeezed(visible(markdown.to_html(source))) == squeezed(text)
    assert squeezed(markdown.to_text(source)) == squeezed(text)


@given(st.text(CHARACTERS | st.sampled_from("\n#*_`[]()<>!-+=>1.&;\\ @|")))
def test_no_source_breaks_the_markup_or_the_checks(source):
    html = markdown.to_html(source)
    etree.fromstring(f"<div>{html}</div>".encode())
    assert not re.search(r"<(script|img|iframe|style)\b", html)
    markdown.to_text(source)
    for line, what, todo in markdown.check(source):
        assert 1 <= line <= source.count("\n") + 1
        assert what.endswith(".")
        assert todo.endswith(".")


@given(PROSE, st.integers(min_value=24, max_value=90))
def test_lines_are_no_wider_than_asked_unless_a_word_is(text, width):
    for line in markdown.to_text(escaped(text), width=width).split("\n"):
        assert len(line) <= width or " " not in line


def test_what_looks_like_html_is_shown_as_written():
    source = "Write <b>bold</b> and &lt;i&gt; or <!-- nothing -->.\n\n<script>alert(1)</script>"
    shown = "Write <b>bold</b> and <i> or <!-- nothing -->."
    assert shown in visible(markdown.to_html(source))
    assert "<script>" not in markdown.to_html(source)
    assert markdown.to_text(source) == f"{shown}\n\n<script>alert(1)</script>"


def test_empty_elements_are_closed():
    assert markdown.to_html("one  \ntwo\n\n***\n") == "<p>one<br />\ntwo</p>\n<hr />\n"


@pytest.mark.parametrize("source", [TAG, f"Hello {TAG}!", f"**{TAG}**", f"- {TAG}"])
def test_a_merge_tag_is_never_taken_for_markdown(source):
    assert TAG in markdown.to_html(source)
    assert any(TAG in line for line in markdown.to_text(source, width=30).split("\n"))


def test_a_merge_tag_can_be_a_link():
    source = "You can [leave](@@unsubscribe_url@@) at any time."
    assert '<a href="@@unsubscribe_url@@">leave</a>' in markdown.to_html(source)
    assert markdown.to_text(source) == "You can leave (@@unsubscribe_url@@) at any time."
    assert markdown.check(source) == []


@pytest.mark.parametrize(
    ("source", "tags"),
    [
        ("### A\n\n#### B\n\n### C", ["h3", "h4", "h3"]),
        ("#### A\n\n###### B\n\n##### C\n\n### D", ["h3", "h4", "h4", "h3"]),
        ("###### A", ["h3"]),
    ],
)
def test_heading_levels_are_shifted_so_that_none_is_skipped(source, tags):
    assert re.findall(r"<(h\d)>", markdown.to_html(source)) == tags


def test_headings_start_at_the_level_asked_for_and_end_at_six():
    source = "### A\n\n#### B\n\n##### C"
    assert re.findall(r"<(h\d)>", markdown.to_html(source, heading_level=5)) == ["h5", "h6", "h6"]


READING = """\
Some **strong** and *soft* words, `code`, and a [link](https://example.org/a?b=c&d=e) that make the line long enough.
Hard  \nbreak.

- one
- two two two two two two two two two two two two two two two two two two two two two
  1. first
  2. second

7. seven

   more
8. eight

> A quote of words.
>
> - with a list

```
code   as <is>
```

***

Write to [editor@example.org](mailto:editor@example.org) or see <https://example.org/%C3%BC>.
"""
TEXT = """\
Some strong and soft words, code, and a link
(https://example.org/a?b=c&d=e) that make the line long enough. Hard
break.

- one
- two two two two two two two two two two two two two two two two two
  two two two two
  1. first
  2. second

7. seven

   more

8. eight

> A quote of words.
>
> - with a list

code   as <is>

* * *

Write to editor@example.org or see https://example.org/%C3%BC."""


def test_the_text_form_is_good_reading():
    assert markdown.to_text(READING, width=70) == TEXT


def test_an_address_is_never_broken():
    address = "https://example.org/" + "a" * 200
    assert f"({address})" in markdown.to_text(f"See [this]({address}).").split()[-1]


def test_tables_and_bare_addresses_stay_text():
    assert "<table" not in markdown.to_html("| a | b |\n|---|---|\n| 1 | 2 |")
    assert "<a" not in markdown.to_html("https://example.org")


@pytest.mark.parametrize(
    "target", ["javascript:alert(1)", "JaVaScRiPt:x", "data:text/html,x", "example.org/x", "/x", "#x", "file:///etc/passwd",
               "https:", "https:///x", "@@name@@", "@@clinic_url@@"],
)  # fmt: skip
def test_links_that_a_mail_cant_open_are_found_and_never_made(target):
    source = f"One line.\n\nA [link]({target}) here."
    (problem,) = markdown.check(source)
    assert problem[0] == 3
    assert target in problem[1]
    assert "<a" not in markdown.to_html(source)
    assert "link" in visible(markdown.to_html(source))


@pytest.mark.parametrize(
    "target", ["https://example.org", "HTTP://example.org/x", "mailto:a@example.org", "@@view_url@@"]
)
def test_links_that_a_mail_can_open_are_fine(target):
    assert markdown.check(f"A [link]({target}).") == []


def test_a_bad_link_in_a_definition_or_a_later_line_is_found_where_it_is_used():
    source = "First\nline with [this][1]\n\n[1]: ftp://example.org"
    assert [problem[0] for problem in markdown.check(source)] == [2]


@pytest.mark.parametrize("source", ["# One", "## Two", "One\n===", "Two\n---", "> ## Two", "- # One"])
def test_high_headings_are_found(source):
    (problem,) = markdown.check(f"### Fine\n\n{source}")
    assert problem[0] == 3
    assert "heading" in problem[1]


def test_a_picture_between_the_words_is_found():
    ((line, what, todo),) = markdown.check("Look:\n![a cat](https://example.org/cat.png)")
    assert line == 2
    assert "picture" in what
    assert "image_alt" in todo


@pytest.mark.parametrize("mark", ["> ", "- "])
def test_nesting_is_refused_long_before_the_parser_drops_text(mark):
    assert markdown.check(mark * 4 + "x") == []
    assert ["nested" in what for _, what, _ in markdown.check(mark * 40 + "x")] == [True]
    assert "deep" in markdown.to_text(mark * 4 + "deep")


def test_headings_tells_level_words_and_lines():
    source = "## One\n\ntext\n\nTwo *2*\n---\n\n> ## not top\n"
    assert markdown.headings(source) == [(2, "One", 0, 1), (2, "Two *2*", 4, 6)]


def test_a_heading_as_plain_words():
    assert markdown.inline_text("What *they* `found` &amp; \\*why\\* <b>") == "What they found & *why* <b>"

"""What the compiler would accept and spoil is found before it gets it, with its place in the template."""

from __future__ import annotations

import pytest

from newsletter.render.findings import CODES
from newsletter.render.templates import mark
from newsletter.render.validate import MAX_CHARACTERS, MAX_DEPTH, validate

GOOD = """<mjml lang="en" dir="ltr">
  <mj-head><mj-title>T</mj-title><mj-style>.a { color: #fff; }</mj-style></mj-head>
  <mj-body>
    <mj-section padding="0 10px">
      <mj-column>
        <mj-text><p>one<br>two</p></mj-text>
        <mj-raw><!--[if mso]><p>Outlook</p><![endif]--></mj-raw>
        <mj-image src="image:a.png" alt="" />
      </mj-column>
    </mj-section>
  </mj-body>
</mjml>"""


def column(content: str) -> str:
    """A document whose only column holds ``content``, which begins in line 1, column 55."""
    return f"<mjml><mj-body><mj-section><mj-column>{content}</mj-column></mj-section></mj-body></mjml>"


def head(content: str) -> str:
    return f"<mjml><mj-head>{content}</mj-head><mj-body></mj-body></mjml>"


def found(source: str) -> list[str]:
    return [finding.code for finding in validate(mark(source, "templates/x.mjml.j2"))]


def test_a_sound_document_has_no_findings() -> None:
    assert validate(mark(GOOD, "templates/x.mjml.j2")) == []


BAD = {
    "an unknown tag": ("T201", column("<mj-txt>a</mj-txt>")),
    "an include, which the compiler would read by itself": (
        "T202",
        head('<mj-include path="/etc/passwd" />'),
    ),
    "a hero": ("T202", "<mjml><mj-body><mj-hero></mj-hero></mj-body></mjml>"),
    "a child of a component that is left out": ("T202", column('<mj-social-element name="facebook" />')),
    "a button in a text": ("T203", column('<mj-text><mj-button href="https://a">b</mj-button></mj-text>')),
    "a section in a column": ("T203", column("<mj-section></mj-section>")),
    "a paragraph in a column": ("T203", column("<p>a</p>")),
    "an attribute of another component": ("T204", column('<mj-text href="https://a">b</mj-text>')),
    "a closing tag of another component": ("T205", column("<mj-text>a</mj-button></mj-text>")),
    "a closing tag too many": ("T205", column("<mj-text>a</p></mj-text>")),
    "a tag that is never closed": ("T206", "<mjml><mj-body><mj-section></mj-section>"),
    "a bare less-than sign": ("T207", column("<mj-text>1 < 2</mj-text>")),
    "a value without quotes": ("T207", column("<mj-text align=left>a</mj-text>")),
    "an attribute given twice": ("T207", column('<mj-text align="left" align="right">a</mj-text>')),
    "words in a column": ("T208", column("hello")),
    "words outside": ("T208", f"{column('')} hello"),
    "a padding in per cent": ("T209", column('<mj-text padding="4%">a</mj-text>')),
    "a padding in em": ("T209", column('<mj-button inner-padding="1em 2em">a</mj-button>')),
    "a conditional comment cut short": ("T210", column("<mj-raw><!--[if mso]</mj-raw>")),
    "a conditional comment without its end": ("T210", column("<mj-raw><!--[if mso]><b>a</b>--></mj-raw>")),
    "a conditional comment of the revealed kind": (
        "T210",
        column("<mj-raw><![if !mso]>a<![endif]></mj-raw>"),
    ),
    "a control character": ("T213", column("<mj-text>a\x08b</mj-text>")),
    "no body": ("T214", "<mjml><mj-head></mj-head></mjml>"),
    "nothing at all": ("T214", ""),
    "a table for layout": ("T215", column("<mj-table><tr><td>a</td></tr></mj-table>")),
    "a pseudo-class to inline": (
        "T301",
        head('<mj-style inline="inline">a:hover { color: #fff; }</mj-style>'),
    ),
    "a star to inline": ("T301", head('<mj-style inline="inline">* { color: #fff; }</mj-style>')),
    "a media query to inline": (
        "T301",
        head('<mj-style inline="inline">@media print { a { color: #fff; } }</mj-style>'),
    ),
    "an important rule to inline": (
        "T301",
        head('<mj-style inline="inline">a { color: #fff !important; }</mj-style>'),
    ),
    "a property twice in a rule": (
        "T301",
        head('<mj-style inline="inline">a { color: #fff; color: #eee; }</mj-style>'),
    ),
    "a media query that inlined styles would beat": (
        "T302",
        head("<mj-style>@media print { a { color: #fff; } }</mj-style>"),
    ),
    "an at-rule in an at-rule": (
        "T303",
        head("<mj-style>@media print { @media screen { a { color: #fff !important; } } }</mj-style>"),
    ),
    "a font from the network": (
        "T303",
        head("<mj-style>@import url(https://f.example); a { b: c; }</mj-style>"),
    ),
    "a brace too few": ("T303", head("<mj-style>a { color: #fff;</mj-style>")),
}


@pytest.mark.parametrize("name", BAD)
def test_it_finds(name: str) -> None:
    code, source = BAD[name]
    assert code in found(source)


def test_every_finding_about_the_document_has_a_test_here() -> None:
    tested = {code for code, _ in BAD.values()} | {"T211", "T212"}
    assert tested == {code for code in CODES if code.startswith(("T2", "T3"))}


def test_a_finding_names_file_line_and_column_of_the_tag() -> None:
    source = GOOD.replace("<mj-text>", '<mj-text colour="#fff">')
    (one,) = validate(mark(source, "templates/lead.mjml.j2"))
    assert (one.file, one.line, one.column) == ("templates/lead.mjml.j2", 6, 9)
    assert one.hint == "Did you mean color?"


def test_the_place_counts_the_lines_of_the_template_and_not_of_what_jinja_puts_in() -> None:
    source = "{% for a in b %}\n{{ a }}\n  <mj-txt>\n{% endfor %}"
    assert '  <mj-txt data-at="x:3:3">' in mark(source, "x")


def test_all_findings_are_reported_at_once() -> None:
    assert found(column("<mj-txt>a</mj-txt>words<mj-spacer colour='red' />")) == ["T201", "T208", "T204"]


def test_a_mismatch_says_which_tag_is_still_open() -> None:
    (one,) = validate(mark(column("<mj-text><b>a</mj-text>"), "x"))
    assert one.message == "</mj-text> comes before <b> in line 1 is closed"


def test_nesting_that_would_end_the_process_is_refused() -> None:
    deep = column(f"<mj-text>{'<div>' * 2_000}{'</div>' * 2_000}</mj-text>")
    assert found(deep) == ["T211"]


def test_nesting_up_to_the_limit_is_allowed() -> None:
    inside = MAX_DEPTH - 5  # mjml, body, section, column, text
    assert found(column(f"<mj-text>{'<div>' * inside}{'</div>' * inside}</mj-text>")) == []


def test_a_document_beyond_a_megabyte_is_refused() -> None:
    assert found(column(f"<mj-text>{'a' * MAX_CHARACTERS}</mj-text>")) == ["T212"]


def test_a_tag_that_never_ends_is_found_at_once() -> None:
    assert found(column("<mj-text " + 'a="b" ' * 50_000)) == ["T207"]

"""Merge tags: what is one, what fills it, and what an author is told about one that is wrong."""

from __future__ import annotations

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsletter.merge import ISSUE_TAGS, Slot, bind, fill, names, problems, split

KNOWN = ISSUE_TAGS | {"town"}
OPTIONAL = ("name", "town")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ()),
        ("plain", ("plain",)),
        ("@@name@@", (Slot("name", None),)),
        ("Dear @@name|reader@@,", ("Dear ", Slot("name", "reader"), ",")),
        ("@@name|@@", (Slot("name", ""),)),
        ("@@name|a | b@@", (Slot("name", "a | b"),)),
        ("@@a@@@@b@@", (Slot("a", None), Slot("b", None))),
        ("@@@@name@@", ("@@", Slot("name", None))),
        ("@@name|a@b@@@", (Slot("name", "a@b"), "@")),
        ("@@name|<b>you</b>@@", (Slot("name", "<b>you</b>"),)),
        ("@@field_2@@", (Slot("field_2", None),)),
        ("@@lost @@name@@", ("@@lost ", Slot("name", None))),
    ],
)
def test_a_text_is_cut_at_its_tags(text, parts):
    assert split(text) == parts


@pytest.mark.parametrize(
    "text",
    [
        "@@Name@@",
        "@@2@@",
        "@@ name@@",
        "@@na me@@",
        "@@name",
        "name@@",
        "@@name|a\nb@@",
        "@@name|a\rb@@",
        "@@é@@",
        "a@b",
        "@@@@",
    ],
)
def test_what_only_looks_like_a_tag_stays_text(text):
    assert "".join(split(text)) == text


@given(st.text(alphabet="@|ab_ \n<é"))
def test_splitting_loses_no_character(text):
    parts = split(text)
    written = [part if isinstance(part, str) else tag(part) for part in parts]
    assert "".join(written) == text
    assert "" not in parts


def tag(slot):
    return f"@@{slot.name}@@" if slot.fallback is None else f"@@{slot.name}|{slot.fallback}@@"


def test_names_are_those_of_all_tags():
    assert names("@@name|reader@@ @@view_url@@ @@Wrong@@ @@name@@") == {"name", "view_url"}


@pytest.mark.parametrize(
    ("values", "filled"),
    [
        ({"name": "Zoë"}, "Dear Zoë, "),
        ({"name": ""}, "Dear reader, "),
        ({}, "Dear reader, "),
        ({"name": "0"}, "Dear 0, "),
        ({"town": "York"}, "Dear reader, York"),
    ],
)
def test_a_missing_or_empty_value_gives_way_to_the_fallback(values, filled):
    assert fill(split("Dear @@name|reader@@, @@town@@"), values) == filled


def test_values_are_escaped_and_fallbacks_are_not_because_they_are_part_of_the_text():
    parts = split("@@name|you &amp; yours@@")
    assert fill(parts, {"name": "<b>&"}, html.escape) == "&lt;b&gt;&amp;"
    assert fill(parts, {}, html.escape) == "you &amp; yours"


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("@@issue@@", ("<b>",)),
        ("a @@issue@@ b @@name@@", ("a <b> b ", Slot("name", None))),
        ("@@name@@@@issue@@@@name@@", (Slot("name", None), "<b>", Slot("name", None))),
        ("a@@empty@@b@@empty|-@@", ("ab-",)),
        ("@@empty@@", ()),
        ("@@tag@@", ("@@name@@",)),
    ],
)
def test_what_all_copies_share_becomes_text(text, bound):
    shared = {"issue": "<b>", "empty": "", "tag": "@@name@@"}
    assert bind(split(text), shared) == bound


def test_what_all_copies_share_is_escaped():
    assert bind(split("a<@@issue|<i>@@"), {"issue": "<b>"}, html.escape) == ("a<&lt;b&gt;",)
    assert bind(split("a<@@issue|<i>@@"), {"issue": ""}, html.escape) == ("a<<i>",)


def test_a_value_is_never_searched_for_tags():
    values = {"name": "@@unsubscribe_url@@", "unsubscribe_url": "https://example.org/u/x"}
    assert fill(split("@@name@@"), values) == "@@unsubscribe_url@@"


def test_tags_in_order_are_fine():
    assert problems("Dear @@name|reader@@ from @@town|afar@@: @@view_url@@", KNOWN, optional=OPTIONAL) == []
    assert problems("@@view_url@@?from=mail", KNOWN, optional=OPTIONAL, in_link=True) == []
    assert problems("me@example.org, @ and nothing else", KNOWN) == []


@pytest.mark.parametrize(
    ("text", "offset", "wrong", "mend"),
    [
        ("Dear @@nmae|you@@", 5, "there is no merge tag @@nmae@@", "Did you mean @@name@@?"),
        ("@@zzz@@", 0, "there is no merge tag @@zzz@@", "The merge tags are issue_title, name,"),
        ("Dear @@name@@", 5, "@@name@@ has no fallback", "@@name|reader@@"),
        ("@@town@@", 0, "@@town@@ has no fallback", "@@town|reader@@"),
        ("Dear @@name", 5, "never ends", "Write @@name|reader@@"),
        ("@@view_url@@ and @@", 17, "never ends", "a single @"),
        ("Dear @@ Name @@", 5, "“@@ Name @@” is no merge tag", "Write @@name@@."),
        ("Dear @@NAME|you@@", 5, "“@@NAME|you@@” is no merge tag", "Write @@name@@."),
        ("x @@first-name@@", 2, "“@@first-name@@” is no merge tag", "small letters"),
        ("@@name%7Creader@@", 0, "a | that a link turned into %7C", "Write @@name@@"),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_its_mend(text, offset, wrong, mend):
    ((at, said, hint),) = problems(text, KNOWN, optional=OPTIONAL)
    assert at == offset
    assert wrong in said
    assert mend in hint


@pytest.mark.parametrize("text", ["https://example.org/@@name@@", "https://example.org/@@name|x@@"])
def test_what_a_reader_may_lack_can_not_stand_in_a_link(text):
    ((at, said, _),) = problems(text, KNOWN, optional=OPTIONAL, in_link=True)
    assert (at, "stands in a link" in said) == (20, True)


def test_a_fallback_can_not_stand_in_a_link():
    ((at, said, hint),) = problems("@@view_url|https://example.org@@", KNOWN, in_link=True)
    assert (at, hint) == (0, "Write @@view_url@@ in links.")
    assert "fallback" in said


def test_all_problems_of_a_text_are_told_in_their_order():
    text = "@@ a @@name@@ b @@nmae@@\nc @@"
    assert [offset for offset, _, _ in problems(text, KNOWN)] == [0, 5, 16, 27]


@given(st.text(alphabet="@|ab_ \n%7C"))
def test_a_text_without_problems_leaves_no_at_signs_behind(text):
    if not problems(text, {"a", "b", "ab"}, optional=()):
        assert "@@" not in fill(split(text), {"a": "1", "b": "2", "ab": "3"})

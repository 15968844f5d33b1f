"""What has changed for readers: found, said word by word, and the same seen from either side."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsletter.comparing import (
    Change,
    Link,
    Pointer,
    Shown,
    Snapshot,
    brief,
    compare,
    marked,
    sentences,
    snapshot,
)
from tests.support.compiled import compiled

# Few words, so that two snapshots have much in common and a little not.
WORD = st.sampled_from(["iron", "brain", "may", "help.", "It", "differs.", "- one", "https://example.org/a"])
WORDS = st.lists(WORD, max_size=6).map(" ".join)
PARAGRAPHS = st.lists(WORDS, max_size=5).map("\n\n".join)
POINTER = st.builds(
    Pointer, WORD, WORD, st.sampled_from("abcd"), st.sampled_from(["2026-11-30", "2026-11-29"])
)
SNAPSHOT = st.builds(
    Snapshot,
    sender=WORD,
    subject=WORDS,
    preheader=WORDS,
    texts=st.dictionaries(st.sampled_from(["text", "html, standard"]), PARAGRAPHS),
    links=st.lists(st.builds(Link, WORD, st.sampled_from("abc")), max_size=5).map(tuple),
    teasers=st.lists(POINTER, max_size=5).map(tuple),
    pictures=st.lists(
        st.builds(Shown, WORD, WORD, st.just(1), st.integers(1, 2), st.integers(1, 2), st.sampled_from("ab")),
        max_size=3,
        unique_by=lambda picture: picture.name,
    ).map(tuple),
    sizes=st.dictionaries(st.sampled_from(["standard", "large"]), st.integers(1, 2)),
)


def now() -> Snapshot:
    known = compiled()
    return snapshot(known.issue, [known.email], "Research Digest <digest@example.org>")


def only(before: Snapshot, after: Snapshot) -> Change:
    (change,) = compare(before, after)
    return change


# --- whatever stands in them


@given(SNAPSHOT)
def test_equal_snapshots_have_no_changes(one):
    assert compare(one, one) == []


@given(SNAPSHOT, SNAPSHOT)
def test_seen_backwards_every_change_is_its_mirror_image(before, after):
    there, back = compare(before, after), compare(after, before)
    mirrored = (replace(change, before=change.after, after=change.before) for change in there)
    assert Counter(mirrored) == Counter(back)


@given(SNAPSHOT)
def test_a_snapshot_comes_back_from_json_as_it_was(one):
    assert Snapshot.from_json(json.loads(json.dumps(one.to_json()))) == one


@given(SNAPSHOT, SNAPSHOT)
def test_no_change_says_that_something_became_itself(before, after):
    assert [change for change in compare(before, after) if change.before == change.after] == []


@given(WORDS, WORDS)
def test_both_sides_can_be_read_out_of_the_marks(before, after):
    said = marked(Change("text", "", f"a {before}", f"a {after}"))
    old = new = said
    for mark, keep_old in (("[-", True), ("{+", False)):
        close = "-]" if keep_old else "+}"
        while mark in old:
            begin, end = old.index(mark), old.index(close)
            old = old[:begin] + (old[begin + 2 : end] + " " if keep_old else "") + old[end + 2 :]
        while mark in new:
            begin, end = new.index(mark), new.index(close)
            new = new[:begin] + ("" if keep_old else new[begin + 2 : end]) + new[end + 2 :]
    assert old.split() == f"a {before}".split()
    assert new.split() == f"a {after}".split()


# --- one thing at a time


@pytest.mark.parametrize("part", ["sender", "subject", "preheader"])
def test_a_line_that_changed_is_named(part):
    assert only(now(), replace(now(), **{part: "Other"})).part == part


def test_a_word_that_changed_stands_in_its_sentence():
    then = replace(now(), texts={"text": "The level was lower in one\ngroup. It may help.\n"})
    today = replace(now(), texts={"text": "The level was higher in one\ngroup. It may help.\n"})
    assert marked(only(then, today)) == "The level was [-lower-]{+higher+} in one group."


def test_for_a_message_long_runs_of_words_are_cut_in_their_middle():
    change = Change("text", "", "a b c d e one f g h i j k l", "a b c d e two f g h i j k l")
    assert marked(change, near=2) == "a b … d e [-one-]{+two+} f g … k l"
    assert marked(Change("link", "", None, "a b c d e f"), near=2) == "{+a b … e f+}"


def test_where_lines_are_broken_is_no_change():
    then = replace(now(), texts={"text": "One two\nthree four.\n\nHeading\n=======\n"})
    assert compare(then, replace(then, texts={"text": "One two three\nfour.\n\nHeading\n-------\n"})) == []


def test_what_only_an_html_says_is_named_with_its_edition():
    known = compiled()
    louder = replace(
        known.email,
        html=known.email.html.replace("Read the paper</a>", "Read the paper</a> Please <b>give</b>."),
    )
    today = snapshot(known.issue, [louder], "Research Digest <digest@example.org>")
    said = [marked(one) for one in compare(now(), today) if one.part == "text"]
    assert said == ["Read the paper {+Please give.+}"]
    assert [one.name for one in compare(now(), today) if one.part == "text"] == ["html, standard"]


def test_what_text_part_and_html_both_say_is_told_once():
    then = replace(now(), texts={"text": "- A thing (https://example.org/a).", "html, standard": "A thing."})
    today = replace(
        now(), texts={"text": "- No thing (https://example.org/a).", "html, standard": "No thing."}
    )
    assert only(then, today).name == ""


def test_colours_comments_and_the_padding_behind_the_preheader_are_no_words():
    head = "<html><head><title>t</title></head><body><!--[if mso]>x<![endif]--><style>a{}</style>"
    known = compiled()
    email = replace(
        known.email,
        html=f"{head}<div>One&#847;&zwnj;&nbsp; &#847;</div><p>two <b>three</b></p></body></html>",
    )
    assert snapshot(known.issue, [email], "x").texts["html, standard"] == "One\n\ntwo three"


def test_points_of_a_list_are_sentences_of_their_own():
    assert sentences("Two things:\n- one\n- two, and\n  more\n\nEnd. Of it。好") == [
        "Two things:",
        "- one",
        "- two, and more",
        "End.",
        "Of it。",
        "好",
    ]


def test_a_link_that_leads_elsewhere_keeps_its_words():
    then, today = now(), now()
    today = replace(today, links=(replace(today.links[0], url="https://example.org/other"), *today.links[1:]))
    assert only(then, today) == Change(
        "link", "Read the paper", "https://example.org/paper", "https://example.org/other"
    )


def test_a_teaser_that_was_put_first_is_the_one_that_moved():
    one, two, three = (Pointer(f"T{n}", "text", f"https://example.org/{n}", "2026-11-30") for n in (1, 2, 3))
    then, today = (replace(now(), teasers=order) for order in ((one, two, three), (three, one, two)))
    assert only(then, today) == Change("teaser", "T3: place", "3", "1")


def test_a_teaser_that_is_new_gone_or_reworded_is_named():
    one, two = (Pointer(f"T{n}", "text", f"https://example.org/{n}", "2026-11-30") for n in (1, 2))
    then = replace(now(), teasers=(one,))
    assert only(then, replace(then, teasers=(one, two))) == Change("teaser", "", None, "T2")
    assert only(then, replace(then, teasers=())) == Change("teaser", "", "T1", None)
    reworded = replace(then, teasers=(replace(one, text="other text"),))
    assert only(then, reworded) == Change("teaser", "T1: text", "text", "other text")


def test_a_picture_of_the_same_size_with_other_bytes_is_another_picture():
    then = now()
    other = replace(then.pictures[0], sha256="f" * 64)
    change = only(then, replace(then, pictures=(other, *then.pictures[1:])))
    assert change.name == "images/scan.gif"
    assert change.after == "1 × 1 pixels, 0.0 kB, ffffffffffff"


def test_an_alternative_text_that_changed_is_named():
    then = now()
    other = replace(then.pictures[0], alt="Two scans")
    change = only(then, replace(then, pictures=(other, *then.pictures[1:])))
    assert marked(change) == "[-A scan of a brain-]{+Two scans+}"


def test_a_refusal_says_the_subject_in_full_and_of_the_rest_how_much():
    then = now()
    today = replace(
        then, subject="Steel", texts={**then.texts, "text": f"New. {then.texts['text']}"}, sizes={}
    )
    assert brief(compare(then, today)) == ["the subject (“Iron in the thalamus”, now “Steel”)", "1 passage"]


def test_a_long_text_that_is_another_one_altogether_is_compared_within_a_moment():
    then = replace(now(), texts={"text": " ".join(f"word{n % 50}" for n in range(20_000))})
    today = replace(now(), texts={"text": " ".join(f"word{n % 49}" for n in range(20_000))})
    assert marked(only(then, today))

"""The issues that come with the repository: sound, discreet, honest about what is a sample, and light."""

from __future__ import annotations

import csv
import re
import tomllib
from datetime import date
from typing import TYPE_CHECKING

import pytest

from newsletter import config, content
from tests.support.publisher import ROOT

if TYPE_CHECKING:
    from newsletter.model import Issue

SLUGS = ["2026-10", "2026-11", "2026-12"]


def issue(slug: str) -> Issue:
    return content.load(ROOT, slug)


def words(of: Issue) -> str:
    teasers = (f"{teaser.title} {teaser.text}" for teaser in of.related)
    bodies = (f"{section.heading} {section.body}" for section in of.lead.sections)
    return " ".join([of.lead.title, *bodies, *teasers, of.closing])


def test_the_newest_is_december():
    assert content.slugs(ROOT) == SLUGS


def test_each_kind_of_issue_is_there():
    assert [len(issue(slug).related) for slug in SLUGS] == [0, 9, 6]
    assert [issue(slug).number for slug in SLUGS] == [10, 11, 12]
    assert {issue(slug).closing_file for slug in SLUGS} == {"issues/closing.md"}


@pytest.mark.parametrize("slug", SLUGS)
def test_an_inbox_shows_no_illness(slug):
    found = issue(slug)
    for word in config.load(ROOT, {}).newsletter.discreet_words:
        assert not re.search(rf"\b{re.escape(word)}\b", f"{found.subject} {found.preheader}", re.IGNORECASE)
    assert len(found.subject) <= 50
    assert len(found.preheader) <= 90


@pytest.mark.parametrize("slug", ["2026-11", "2026-12"])
def test_pictures_are_light_and_described(slug):
    picture = issue(slug).lead.picture
    assert picture is not None
    assert len(picture.data) < 60_000
    assert picture.width == 1200
    assert len(picture.alt) > 60


def test_the_december_issue_tells_the_study_and_its_limits():
    found = issue("2026-12")
    source = found.lead.source
    assert (source.journal, source.doi, source.published) == (
        "PLOS ONE",
        "10.1371/journal.pone.0332478",
        date(2025, 11, 14),
    )
    assert source.title.startswith("Impact of processing and analysis methodology on thalamic susceptibility")
    text = words(found)
    # No figure that the study does not give.
    assert set(re.findall(r"(?<!IL-)\b\d{2,}\b", text)) == {"83", "44", "154"}
    assert [teaser.date for teaser in found.related] == [date(2026, 12, 31), date(2026, 12, 1)] + [
        date(2026, 3, 1)
    ] * 4
    for name in ("Gut bacteria", "CEAM", "MOGAD", "ocrelizumab", "TREM2", "IL-10"):
        assert name in text
    assert all(teaser.url.startswith("https://example.org/") for teaser in found.related)


@pytest.mark.parametrize("slug", ["2026-10", "2026-11"])
def test_made_up_issues_say_so_and_invent_no_source(slug):
    found = issue(slug)
    assert "This is a sample issue" in found.lead.sections[0].body
    assert (found.lead.source.doi, found.lead.source.journal) == ("", "")
    links = [found.lead.source.url, *(teaser.url for teaser in found.related)]
    links += re.findall(r"\]\((\S+?)\)", " ".join(section.body for section in found.lead.sections))
    assert all(link.startswith("https://example.org/") for link in links)


@pytest.mark.parametrize("slug", SLUGS)
def test_sentences_are_short_and_calm(slug):
    text = words(issue(slug))
    sentences = [
        len(sentence.split()) for sentence in re.split(r"(?<=[.?!])\s+|\n+", text) if sentence.strip()
    ]
    assert sum(sentences) / len(sentences) < 14
    assert max(sentences) <= 30
    assert not re.search(r"breakthrough|miracle|revolution|cure\b|amazing|!", text, re.IGNORECASE)


def test_the_sample_subscribers_are_the_awkward_five():
    with (ROOT / "docs/sample-subscribers.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["Siobhán O’Brien", "<b>Zoë</b>", "李小龙", "", "Marta Nowak"]
    assert [row["status"] for row in rows] == ["active"] * 4 + ["unsubscribed"]
    assert all(row["email"].endswith("@example.org") for row in rows)


def test_a_finding_that_stays_has_its_reason():
    (waiver,) = issue("2026-12").waivers
    assert (waiver.code, waiver.where) == ("R101", "related.1")
    assert issue("2026-12").related[0].date > issue("2026-12").date


def test_dates_are_iso_in_files():
    for slug in SLUGS:
        table = tomllib.loads((ROOT / "issues" / slug / "issue.toml").read_text(encoding="utf-8"))
        assert type(table["date"]) is date

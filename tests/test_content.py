"""From a folder to an issue, or to everything that is wrong with it."""

from __future__ import annotations

import os
import re
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsletter import content
from newsletter.content import CODES, load, slugs
from newsletter.errors import ContentError
from newsletter.model import Level, Section, Waiver
from tests.support.issues import LEAD, Raw, a_table, jpeg, png, write_issue

if TYPE_CHECKING:
    from newsletter.model import Finding

SLUG = "2026-12"
CODE = re.compile(r'"(C\d{3})"')
TOML = "issues/2026-12/issue.toml"
LEAD_MD = "issues/2026-12/lead.md"


def findings(project: Path, slug: str = SLUG, **options: Any) -> list[Finding]:
    with pytest.raises(ContentError) as caught:
        load(project, slug, **options)
    assert caught.value.exit_code == 3
    for finding in caught.value.findings:
        assert finding.code in CODES
        assert finding.level is Level.ERROR
        assert finding.message.endswith((".", "”."))
        assert finding.hint
        assert "pydantic" not in f"{finding.message}{finding.hint}".lower()
    return list(caught.value.findings)


def one(project: Path, **options: Any) -> Finding:
    (finding,) = findings(project, **options)
    return finding


def a_teaser(number: int = 1, **changes: Any) -> dict[str, Any]:
    teaser = {
        "title": "T",
        "text": "Words.",
        "url": f"https://example.org/{number}",
        "date": Raw("2026-11-30"),
    }
    return teaser | changes


def lead_table(**changes: Any) -> dict[str, Any]:
    return {**a_table()["lead"], **changes}


# What is read


def test_a_whole_issue_is_read(tmp_path):
    source = {"title": "A paper", "journal": "PLOS ONE", "doi": "10.1371/j", "published": Raw("2025-11-14")}
    table = a_table(
        number=12,
        lead=lead_table(topics=["iron"], source=source, image="images/scan.png", image_alt="A scan."),
        related=[a_teaser(1, pin=True), a_teaser(2)],
        related_options={"ban": ["https://example.org/no"]},
        waive=[{"code": "R101", "where": "related.1", "because": "it is fine"}],
    )
    folder = write_issue(tmp_path, table)
    (folder / "images/scan.png").write_bytes(png(30, 20))
    issue = load(tmp_path, SLUG)
    assert (issue.slug, issue.period, issue.number, issue.date) == (SLUG, "2026-12", 12, date(2026, 12, 1))
    assert (issue.subject, issue.preheader) == ("A steady finding", "Many ways, one answer.")
    assert issue.lead.sections[1] == Section("Why it matters", "It may help one day.", 5)
    assert issue.lead.source.link == "https://doi.org/10.1371/j"
    assert issue.lead.source.published == date(2025, 11, 14)
    assert issue.lead.picture is not None
    assert (issue.lead.picture.name, issue.lead.picture.width, issue.lead.picture.alt) == (
        "images/scan.png",
        30,
        "A scan.",
    )
    assert [(teaser.url, teaser.pin) for teaser in issue.related] == [
        ("https://example.org/1", True),
        ("https://example.org/2", False),
    ]
    assert issue.banned == ("https://example.org/no",)
    assert issue.waivers == (Waiver("R101", "related.1", "it is fine"),)
    assert (issue.closing, issue.closing_file) == ("", "")


def test_closing_notes_are_the_issues_own_else_the_projects(tmp_path):
    folder = write_issue(tmp_path)
    (tmp_path / "issues/closing.md").write_text("Shared.\n")
    assert (load(tmp_path, SLUG).closing, load(tmp_path, SLUG).closing_file) == (
        "Shared.",
        "issues/closing.md",
    )
    (folder / "closing.md").write_text("Own.\n")
    assert (load(tmp_path, SLUG).closing, load(tmp_path, SLUG).closing_file) == (
        "Own.",
        f"issues/{SLUG}/closing.md",
    )


def test_a_period_can_be_given_and_else_comes_from_the_slug(tmp_path):
    write_issue(tmp_path, a_table(period="2027-01"), slug="special")
    write_issue(tmp_path, slug="2026-12-extra")
    write_issue(tmp_path, slug="extra")
    assert load(tmp_path, "special").period == "2027-01"
    assert load(tmp_path, "2026-12-extra").period == "2026-12"
    assert [(f.code, f.where) for f in findings(tmp_path, "extra")] == [("C112", "period")]


def test_slugs_are_sorted_and_other_folders_left_out(tmp_path):
    assert slugs(tmp_path) == []
    for slug in ("2026-12", "2026-02", "2025-12"):
        write_issue(tmp_path, slug=slug)
    (tmp_path / "issues/pictures").mkdir()
    (tmp_path / "issues/closing.md").write_text("x")
    assert slugs(tmp_path) == ["2025-12", "2026-02", "2026-12"]


def test_windows_line_ends_and_a_byte_order_mark_are_read(tmp_path):
    folder = write_issue(tmp_path)
    for name in ("issue.toml", "lead.md"):
        path = folder / name
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert load(tmp_path, SLUG).lead.sections[0].body == "The level was **lower** in one group."


def test_underlined_headings_count_and_hashes_in_code_do_not(tmp_path):
    lead = "One\n---\n\n```\n## no\n```\n\nTwo *2*\n------\nb\n\n## Three\n\n    code first\n"
    write_issue(tmp_path, lead=lead)
    sections = load(tmp_path, SLUG).lead.sections
    assert [(section.heading, section.line) for section in sections] == [
        ("One", 1),
        ("Two 2", 8),
        ("Three", 12),
    ]
    assert sections[0].body == "```\n## no\n```"
    assert sections[2].body == "    code first"


@pytest.mark.parametrize("link", [False, True])
def test_a_project_or_a_folder_inside_it_may_be_reached_through_a_link(tmp_path, link):
    real = tmp_path / "real"
    write_issue(real)
    (real / "issues/2027-01").symlink_to(real / "issues" / SLUG)
    project = real
    if link:
        project = tmp_path / "linked"
        project.symlink_to(real)
    assert load(project, "2027-01").slug == "2027-01"


PLAIN = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="@\ufffe\uffff"), min_size=1
)
WORDS = PLAIN.filter(lambda text: text.strip())


@given(subject=WORDS, title=WORDS, teaser=WORDS, alt=WORDS, because=WORDS)
def test_any_text_comes_through_unharmed(tmp_path_factory, subject, title, teaser, alt, because):
    project = tmp_path_factory.mktemp("project")
    table = a_table(
        subject=subject,
        preheader=f"{subject} and more",
        lead=lead_table(title=title, image="images/a.png", image_alt=alt),
        related=[a_teaser(title=title, text=f"{teaser}\n{teaser}")],
        waive=[{"code": "R101", "because": because}],
    )
    folder = write_issue(project, table)
    (folder / "images/a.png").write_bytes(png())
    issue = load(project, SLUG)
    assert (issue.subject, issue.lead.title) == (subject.strip(), title.strip())
    assert issue.lead.picture is not None
    assert issue.lead.picture.alt == alt.strip()
    assert (issue.related[0].title, issue.related[0].text) == (title.strip(), f"{teaser}\n{teaser}".strip())
    assert issue.waivers[0].because == because.strip()


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_no_bytes_in_the_files_do_more_than_be_refused(tmp_path_factory, toml, lead):
    project = tmp_path_factory.mktemp("project")
    folder = write_issue(project)
    (folder / "issue.toml").write_bytes(toml)
    (folder / "lead.md").write_bytes(lead)
    assert findings(project)


TOML_VALUES = st.recursive(
    st.sampled_from(
        [Raw("true"), Raw("7"), Raw("1.5"), Raw("2026-12-01"), Raw("10:00:00"), "", "x", "@@x@@", "\x07"]
    ),
    lambda values: st.lists(values, max_size=3),
)
KEYS = [
    "subject",
    "preheader",
    "date",
    "number",
    "period",
    "lead",
    "related",
    "related_options",
    "waive",
    "surprise",
]


@given(
    st.dictionaries(st.sampled_from(KEYS), TOML_VALUES),
    st.dictionaries(st.sampled_from(["title", "url"]), TOML_VALUES),
)
def test_no_shape_of_values_does_more_than_be_refused(tmp_path_factory, changes, teaser):
    project = tmp_path_factory.mktemp("project")
    write_issue(project, a_table(**({"related": [teaser]} | changes)))
    assert findings(project) if changes.get("related") != [] else True


# The folder


@pytest.mark.parametrize(
    "slug", ["", "..", "../2026-12", "a/b", "/etc", "2026 12", "Ä", "a--b", "2026-12\n", "x" * 41, ".git"]
)
def test_a_slug_that_is_no_name_is_refused_before_anything_is_opened(tmp_path, slug):
    write_issue(tmp_path)
    assert [f.code for f in findings(tmp_path, slug)] == ["C101"]


def test_an_issue_that_is_not_there_is_told_with_those_that_are(tmp_path):
    write_issue(tmp_path)
    write_issue(tmp_path, slug="2026-11")
    (finding,) = findings(tmp_path, "2026-13")
    assert finding.code == "C102"
    assert "2026-11, 2026-12" in finding.hint


@pytest.mark.parametrize("name", ["issue.toml", "lead.md"])
def test_a_missing_file_is_named(tmp_path, name):
    (write_issue(tmp_path) / name).unlink()
    finding = one(tmp_path)
    assert (finding.code, finding.file) == ("C103", f"issues/{SLUG}/{name}")


def test_a_folder_that_leads_out_of_the_project_is_refused(tmp_path):
    write_issue(tmp_path / "elsewhere")
    project = tmp_path / "project"
    (project / "issues").mkdir(parents=True)
    (project / "issues" / SLUG).symlink_to(tmp_path / "elsewhere/issues" / SLUG)
    assert one(project).code == "C104"


@pytest.mark.parametrize("name", ["issue.toml", "lead.md", "closing.md"])
@pytest.mark.parametrize("there", [True, False])
def test_a_file_that_leads_out_of_the_project_is_refused(tmp_path, name, there):
    project = tmp_path / "project"
    path = write_issue(project) / name
    path.unlink(missing_ok=True)
    if there:
        (tmp_path / "secret").write_text("secret words")
    path.symlink_to(tmp_path / "secret")
    finding = one(project)
    assert (finding.code, finding.file) == ("C104", f"issues/{SLUG}/{name}")


def test_a_picture_that_leads_out_of_the_project_is_refused(tmp_path):
    project = tmp_path / "project"
    table = a_table(lead=lead_table(image="images/a.png", image_alt="A."))
    folder = write_issue(project, table)
    (tmp_path / "secret.png").write_bytes(png())
    (folder / "images/a.png").symlink_to(tmp_path / "secret.png")
    assert one(project).code == "C104"
    table["lead"]["image"] = "../../../secret.png"
    write_issue(project, table)
    assert one(project).code == "C104"


def test_a_folder_or_a_pipe_in_place_of_a_file_is_refused(tmp_path):
    folder = write_issue(tmp_path)
    (folder / "lead.md").unlink()
    os.mkfifo(folder / "lead.md")
    (folder / "issue.toml").unlink()
    (folder / "issue.toml").mkdir()
    assert [(f.code, f.file) for f in findings(tmp_path)] == [("C105", TOML), ("C105", LEAD_MD)]


def test_a_huge_text_is_refused_unread(tmp_path):
    os.truncate(write_issue(tmp_path) / "lead.md", 3_000_000_000)
    assert (one(tmp_path).code, "3000.0 MB" in one(tmp_path).message) == ("C105", True)


def test_text_that_is_not_utf_8_is_told_with_its_line(tmp_path):
    (write_issue(tmp_path) / "lead.md").write_bytes(LEAD.replace("may help", "m\xe4y help").encode("latin-1"))
    finding = one(tmp_path)
    assert (finding.code, finding.file, finding.line) == ("C106", LEAD_MD, 7)


@pytest.mark.parametrize("character", ["\0", "\x07", "\x1b", "\x7f", "\x85", "\uffff"])
def test_control_characters_are_told_with_their_line(tmp_path, character):
    write_issue(tmp_path, lead=LEAD.replace("may help", f"may{character} help"))
    finding = one(tmp_path)
    assert (finding.code, finding.line, f"U+{ord(character):04X}" in finding.message) == ("C107", 7, True)


# issue.toml


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ('subject = "unclosed', "C108", "TOML"),
        ('subject = "again"', "C108", "overwrite"),
        ("no equals", "C108", "TOML"),
        ("date = 2026-02-30", "C114", "2026-02-30"),
        ("date = 1.12.2026", "C114", "1.12.2026"),
        ("date = 2026-13-01  # no such month", "C114", "2026-13-01 is"),
    ],
)
def test_broken_toml_is_told_with_its_line(tmp_path, line, code, words):
    write_issue(tmp_path, f'subject = "A"\n{line}\n[lead]\ntitle = "T"\n')
    finding = one(tmp_path)
    assert (finding.code, finding.file, finding.line) == (code, TOML, 2)
    assert words in finding.message


def test_a_section_that_stands_twice_is_named(tmp_path):
    write_issue(tmp_path, 'subject = "A"\n[lead]\ntitle = "T"\n[lead]\n')
    finding = one(tmp_path)
    assert (finding.code, finding.line, finding.message) == ("C108", 4, "The section [lead] stands twice.")


def test_a_file_nested_beyond_reason_is_refused(tmp_path):
    write_issue(tmp_path, "a = " + "[" * 20_000)
    assert one(tmp_path).code == "C108"


@pytest.mark.parametrize(
    ("changes", "code", "where", "words"),
    [
        ({"subjekt": "x"}, "C111", "subjekt", "“subject”"),
        ({"zebra": "x"}, "C111", "zebra", "The keys here are"),
        ({"title": "x"}, "C111", "title", "under [lead]"),
        ({"subject": None}, "C112", "subject", 'subject = "…"'),
        ({"lead": None}, "C112", "lead", "[lead]"),
        ({"subject": 5}, "C113", "subject", ""),
        ({"number": "12"}, "C113", "number", ""),
        ({"number": Raw("0")}, "C113", "number", ""),
        ({"number": Raw("true")}, "C113", "number", ""),
        ({"related": "none"}, "C113", "related", ""),
        ({"period": "Dec 2026"}, "C113", "period", '"2026-12"'),
        ({"date": "2026-12-01"}, "C114", "date", "without quotes"),
        ({"date": Raw("2026-12-01T10:00:00")}, "C114", "date", "2026-12-31"),
        ({"subject": " "}, "C115", "subject", ""),
        ({"preheader": ""}, "C115", "preheader", ""),
        ({"subject": "a\nBcc: b"}, "C116", "subject", "one line"),
        ({"subject": "a\u2028b"}, "C116", "subject", ""),
        ({"subject": "a\rb"}, "C107", "subject", ""),
        ({"subject": "a\0b"}, "C107", "subject", ""),
        ({"subject": "a\tb"}, "C107", "subject", "spaces"),
        ({"subject": "=?utf-8?q?a=0ABcc:_x?="}, "C107", "subject", "the words themselves"),
        ({"preheader": "a STEADY finding "}, "C117", "preheader", ""),
        ({"subject": "@@nme|x@@"}, "C141", "subject", "@@name@@"),
        ({"subject": "Hello @@name@@"}, "C141", "subject", "@@name|reader@@"),
        ({"subject": "Hello @@"}, "C141", "subject", ""),
        ({"lead": lead_table(title="@@name|x@@")}, "C141", "lead.title", ""),
        ({"lead": lead_table(titel="x")}, "C111", "lead.titel", "“title”"),
        ({"lead": lead_table(number=5)}, "C111", "lead.number", "before the first"),
        ({"lead": lead_table(topics=[5])}, "C113", "lead.topics.1", ""),
        ({"lead": lead_table(source={"title": "x"})}, "C112", "lead.source", "doi"),
        ({"lead": lead_table(source={"title": "x", "doi": "doi.org/10.1/x"})}, "C124", "lead.source.doi", "10."),
        ({"lead": lead_table(source={"title": "x", "url": "javascript:x"})}, "C121", "lead.source.url", "https://"),
        ({"related": [a_teaser(1), a_teaser(2, url="x.org/a")]}, "C121", "related.2.url", "https://x.org/a"),
        ({"related": [a_teaser(url="data:text/html,x")]}, "C121", "related.1.url", ""),
        ({"related": [a_teaser(url="https://")]}, "C121", "related.1.url", ""),
        ({"related": [a_teaser(url="https://[::1")]}, "C121", "related.1.url", ""),
        ({"related": [a_teaser(url="https://x.org/a b")]}, "C121", "related.1.url", ""),
        ({"related": [a_teaser(url="mailto:a@example.org")]}, "C121", "related.1.url", ""),
        ({"related": [a_teaser(url="https://x.org/@@name|you@@")]}, "C141", "related.1.url", ""),
        ({"related": [a_teaser(text="\n")]}, "C115", "related.1.text", ""),
        ({"related": [a_teaser(1), a_teaser(2, url="http://EXAMPLE.org/1/#top")]}, "C122", "related.2.url", ""),
        ({"related": [a_teaser()], "related_options": {"ban": ["https://example.org/1"]}}, "C123", "related.1.url", ""),
        ({"related_options": {"ban": ["example"]}}, "C121", "related_options.ban.1", ""),
        ({"waive": [{"code": "R101"}]}, "C112", "waive.1.because", ""),
        ({"waive": [{"code": "R101", "because": " "}]}, "C115", "waive.1.because", ""),
        ({"lead": lead_table(image="images/no.png", image_alt="x")}, "C151", "lead.image", ""),
        ({"lead": lead_table(image="images/" + "x" * 300, image_alt="x")}, "C105", "lead.image", ""),
    ],
)  # fmt: skip
def test_each_mistake_has_its_code_its_place_and_its_advice(tmp_path, changes, code, where, words):
    write_issue(tmp_path, a_table(**changes))
    finding = one(tmp_path)
    assert (finding.code, finding.file, finding.where) == (code, TOML, where)
    assert words in finding.hint


def test_a_name_that_no_file_can_have_is_no_crash(tmp_path):
    write_issue(tmp_path, a_table(lead=lead_table(image="images/a\0.png", image_alt="x")))
    assert [f.code for f in findings(tmp_path)] == ["C107", "C151"]


PLACES = """\
subject = "A"
preheader = "B" # lead.title = "not here"
date = 2026-12-01
[lead]
title = '''
a
number = 5
'''
source = { title = "x", url = "ftp://x" }
[[related]]
title = "T"
text = \"\"\"
url = "not here"
\"\"\"
url = "https://example.org/1"
date = 2026-12-01

  [[ related ]]
title = "T"
  "url" = "x"
text = "t"
date = 5
"""


def test_findings_stand_at_the_line_of_their_key(tmp_path):
    write_issue(tmp_path, PLACES)
    assert [(f.where, f.line) for f in findings(tmp_path)] == [
        ("lead.title", 5),
        ("lead.source.url", 9),
        ("related.2.url", 20),
        ("related.2.date", 22),
    ]


def test_a_missing_key_is_told_at_its_table(tmp_path):
    write_issue(tmp_path, a_table(related=[a_teaser(1), {"title": "T", "url": "https://x.org"}]))
    lines = (tmp_path / TOML).read_text().split("\n")
    found = findings(tmp_path)
    assert [f.where for f in found] == ["related.2.text", "related.2.date"]
    assert {lines[f.line - 1] for f in found if f.line} == {"[[related]]"}


def test_custom_fields_are_merge_tags_and_need_a_fallback(tmp_path):
    write_issue(tmp_path, a_table(subject="News for @@town|your town@@"))
    assert load(tmp_path, SLUG, fields=["town"]).subject == "News for @@town|your town@@"
    assert one(tmp_path).code == "C141"
    write_issue(tmp_path, a_table(subject="News for @@town@@"))
    assert "fallback" in one(tmp_path, fields=["town"]).message


# lead.md and closing notes


@pytest.mark.parametrize(
    ("lead", "code", "line"),
    [
        ("", "C131", 1),
        (" \n\n", "C131", 1),
        (LEAD.replace("## Why it matters\n", ""), "C132", 1),
        (f"{LEAD}\n## Four\n\nx\n\n## Five\n\nx\n", "C132", 13),
        (f"\nHello.\n\n{LEAD}", "C133", 2),
        (f"# Title\n\n{LEAD}", "C133", 1),
        (f"{LEAD}\n# Late\n", "C134", 13),
        (LEAD.replace("It may", "![x](y.png) It may"), "C134", 7),
        (LEAD.replace("## Why it matters", "## [Why](https://example.org)"), "C134", 5),
        (LEAD.replace("It may", "[It][1] may") + "\n[1]: https://example.org\n", "C134", 1),
        (LEAD.replace("It may help one day.", ""), "C135", 5),
        (LEAD.replace("Why it matters", ""), "C135", 5),
        (LEAD.replace("It may", "[It](javascript:x) may"), "C121", 7),
        (LEAD.replace("It may", "It\n[may](x.org)"), "C121", 8),
        (LEAD.replace("It may", "@@nme@@ may"), "C141", 7),
        (LEAD.replace("It may", "[It](@@nme@@) may"), "C121", 7),
        (LEAD.replace("It may", "[It](https://x.org/@@name|x@@) may"), "C141", 7),
        (LEAD.replace("It may", "@@name@@ may"), "C141", 7),
    ],
)  # fmt: skip
def test_each_mistake_in_the_lead_has_its_code_and_line(tmp_path, lead, code, line):
    write_issue(tmp_path, lead=lead)
    found = findings(tmp_path)
    assert (found[0].code, found[0].file, found[0].line) == (code, LEAD_MD, line)


def test_a_tag_in_a_link_is_told_once(tmp_path):
    write_issue(tmp_path, lead=LEAD.replace("It may", "[It](https://x.org/@@nme@@) may @@other@@"))
    assert ["@@nme@@" in f.message for f in findings(tmp_path)] == [True, False]


def test_closing_notes_are_judged_too(tmp_path):
    write_issue(tmp_path)
    (tmp_path / "issues/closing.md").write_text("# High\n\n[x](ftp://x) @@nme@@ ![a](b)\n")
    found = [(f.code, f.file, f.line) for f in findings(tmp_path)]
    assert {code for code, _, _ in found} == {"C134", "C121", "C141"}
    assert {file for _, file, _ in found} == {"issues/closing.md"}
    assert [line for _, _, line in found] == sorted(line for _, _, line in found if line)


# The picture


def with_picture(
    project: Path, data: bytes, *, alt: str | None = "A scan.", name: str = "images/a.png"
) -> None:
    lead = lead_table(image=name) if alt is None else lead_table(image=name, image_alt=alt)
    folder = write_issue(project, a_table(lead=lead))
    (folder / name).write_bytes(data)


@pytest.mark.parametrize("alt", [None, "", "  "])
def test_a_picture_needs_words(tmp_path, alt):
    with_picture(tmp_path, png(), alt=alt)
    assert one(tmp_path).code == "C154"


def test_words_without_a_picture_are_harmless(tmp_path):
    write_issue(tmp_path, a_table(lead=lead_table(image_alt="A scan.")))
    assert load(tmp_path, SLUG).lead.picture is None


def test_a_picture_with_a_misspelt_name_is_found(tmp_path):
    with_picture(tmp_path, png(), name="images/scan.png")
    table = a_table(lead=lead_table(image="images/scna.png", image_alt="x"))
    write_issue(tmp_path, table)
    assert (one(tmp_path).code, "images/scan.png" in one(tmp_path).hint) == ("C151", True)


@pytest.mark.parametrize("embed", [True, False])
def test_a_20_mb_picture_is_refused_without_being_read(tmp_path, embed):
    with_picture(tmp_path, b"")
    path = tmp_path / "issues" / SLUG / "images/a.png"
    os.truncate(path, 20_000_000)
    path.chmod(0)  # who opens it now gets an error of another kind, unless root
    finding = one(tmp_path, embed=embed)
    assert (finding.code, "20.0 MB" in finding.message) == ("C152", True)


def test_a_file_that_is_no_picture_is_refused(tmp_path):
    with_picture(tmp_path, b"<svg/>")
    assert one(tmp_path).code == "C153"


def test_pictures_over_200_kb_inside_the_mail_are_refused_with_the_size_to_make(tmp_path):
    with_picture(tmp_path, png(2000, 1000, padding=600_000))
    finding = one(tmp_path)
    assert finding.code == "C155"
    assert "146 kB" in finding.hint
    assert "× 49" in finding.hint  # half of each side is a quarter of the bytes
    assert 'mode = "hosted"' in finding.hint
    assert load(tmp_path, SLUG, embed=False).lead.picture


def test_the_limit_counts_what_the_mail_carries(tmp_path):
    with_picture(tmp_path, png(padding=145_000))
    assert load(tmp_path, SLUG).lead.picture
    with_picture(tmp_path, png(padding=147_000))
    assert one(tmp_path).code == "C155"


def test_a_picture_may_be_a_jpeg_under_any_name(tmp_path):
    with_picture(tmp_path, jpeg(40, 30), name="images/ein Bild – ü.png")
    picture = load(tmp_path, SLUG).lead.picture
    assert picture is not None
    assert (picture.name, picture.media_type) == ("images/ein Bild – ü.png", "image/jpeg")


# Everything at once


def test_all_mistakes_of_all_files_are_told_at_once(tmp_path):
    table = a_table(
        subject="",
        preheader=None,
        surprise=1,
        lead=lead_table(image="images/no.png"),
        related=[a_teaser(1, url="javascript:x"), a_teaser(2, date="soon")],
    )
    write_issue(tmp_path, table, lead="Before.\n\n## Only\n\n[x](ftp://x) @@nme@@\n")
    (tmp_path / "issues/closing.md").write_text("# High\n")
    found = findings(tmp_path)
    assert sorted(f.code for f in found) == sorted(
        ["C115", "C112", "C111", "C151", "C154", "C121", "C114", "C133", "C132", "C121", "C141", "C134"]
    )
    assert found == sorted(found, key=lambda f: (f.file, f.line or 0))
    with pytest.raises(ContentError, match="2026-12 can't be used as it is: 12 errors"):
        load(tmp_path, SLUG)


def test_a_broken_issue_toml_does_not_hide_what_is_wrong_with_the_lead(tmp_path):
    write_issue(tmp_path, "subject", lead="x")
    assert {f.file for f in findings(tmp_path)} == {TOML, LEAD_MD}


def test_every_code_is_explained_and_every_explanation_is_used():
    folder = Path(content.__file__).parent
    used = {
        code
        for path in folder.glob("*.py")
        if path.name != "codes.py"
        for code in CODE.findall(path.read_text())
    }
    assert used == set(CODES)
    assert all(meaning.endswith(".") for meaning in CODES.values())

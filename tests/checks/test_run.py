"""Waivers, places and order."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from newsletter import checks
from newsletter.model import Level, Waiver
from tests.support.compiled import Compiled, compiled

if TYPE_CHECKING:
    from newsletter.model import Finding

NOWHERE = Path("no-such-project")  # places without lines
LATE = date(2026, 12, 31)


def late(*waivers: Waiver) -> Compiled:
    """An issue with an article dated after it."""
    scene = compiled()
    related = (replace(scene.issue.related[0], date=LATE),)
    return replace(scene, issue=replace(scene.issue, related=related, waivers=waivers))


def run(scene: Compiled, project: Path = NOWHERE) -> list[Finding]:
    return checks.run(scene.issue, scene.email, scene.publication, scene.settings, project=project)


def test_a_waiver_leaves_the_finding_with_its_reason() -> None:
    (finding,) = run(late(Waiver("R101", "related.1", "the journal dates ahead")))
    assert finding.code == "R101"
    assert finding.waived == "the journal dates ahead"


def test_a_waived_error_does_not_stop_a_send() -> None:
    scene = compiled()
    broken = replace(
        scene, email=replace(scene.email, html=scene.email.html.replace("<title>", "<title hidden>"))
    )
    broken = replace(
        broken, email=replace(broken.email, html=broken.email.html.replace('lang="en"', 'lang="xx"'))
    )
    waived = replace(broken, issue=replace(broken.issue, waivers=(Waiver("A105", "html", "a dialect"),)))
    assert [finding.code for finding in checks.errors(run(broken))] == ["A105"]
    assert checks.errors(run(waived)) == []


def test_a_waiver_holds_for_its_code_and_place_only() -> None:
    found = run(late(Waiver("R101", "related.2", "x"), Waiver("R102", "related.1", "y")))
    assert [(f.code, f.where, f.waived) for f in found] == [
        ("R101", "related.1", ""),
        ("W102", "waive.1", ""),
        ("W102", "waive.2", ""),
    ]
    assert found[1].hint == 'R101 was found where = "related.1".'


def test_a_waiver_of_an_unknown_code_says_so() -> None:
    (_, idle) = run(late(Waiver("R999", "related.1", "x")))
    assert "no such code" in idle.hint
    assert idle.level is Level.WARNING


def test_findings_name_the_line_that_is_to_be_mended(tmp_path: Path) -> None:
    scene = late()
    folder = tmp_path / "issues" / "2026-12"
    folder.mkdir(parents=True)
    (folder / "issue.toml").write_text(
        'subject = "x"\n\n[[related]]\ntitle = "Gut bacteria"\nurl = "https://example.org/gut"\ndate = 2026-12-31\n'
    )
    (folder / "lead.md").write_text("## Found\n\nSee [the site](http://old.example.org).\n")
    old = scene.email.html.replace("https://example.org/paper", "http://old.example.org")
    found = run(replace(scene, email=replace(scene.email, html=old)), tmp_path)
    assert [(f.code, f.place) for f in found] == [
        ("R101", "issues/2026-12/issue.toml:3 [related.1]"),
        ("L103", "issues/2026-12/lead.md:3 [http://old.example.org]"),
    ]


def test_an_entity_in_a_link_is_decoded_before_it_is_judged() -> None:
    scene = compiled()
    html = scene.email.html.replace("https://example.org/paper", "&#106;avascript&colon;alert(1)")
    (finding,) = run(replace(scene, email=replace(scene.email, html=html)))
    assert finding.code == "L101"
    assert "javascript:alert(1)" in finding.message


def test_a_readers_name_can_not_bring_a_finding_with_it() -> None:
    """The sample reader's values are escaped as every reader's are."""
    scene = compiled()
    title = replace(
        scene.email,
        title="<script>x</script>",
        html=scene.email.html.replace("@@name|reader@@", "@@issue_title@@"),
    )
    assert run(replace(scene, email=title)) == []

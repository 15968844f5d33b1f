"""Each check fires on what it is about, and is silent on what only looks like it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from newsletter import checks
from newsletter.checks import headers
from newsletter.checks.inspection import Inspection
from newsletter.model import Waiver
from tests.support.compiled import HTML, TEXT, Compiled, compiled

if TYPE_CHECKING:
    from collections.abc import Callable

    from newsletter.model import Finding

    Change = Callable[[Compiled], Compiled]

NOWHERE = Path("no-such-project")  # places without lines
HERE = "https://news.example.org"


def run(scene: Compiled) -> list[Finding]:
    return checks.run(
        scene.issue,
        scene.email,
        scene.publication,
        scene.settings,
        discreet_words=scene.discreet_words,
        project=NOWHERE,
    )


def html(old: str, new: str) -> Change:
    assert old in HTML
    return lambda scene: replace(scene, email=replace(scene.email, html=HTML.replace(old, new, 1)))


def text(old: str, new: str) -> Change:
    assert old in TEXT
    return lambda scene: replace(scene, email=replace(scene.email, text=TEXT.replace(old, new, 1)))


def logo(size: int) -> Change:
    """A logo of that many bytes, beside the picture that was there."""

    def change(scene: Compiled) -> Compiled:
        picture, old = scene.email.pictures
        return replace(scene, email=replace(scene.email, pictures=(picture, replace(old, data=bytes(size)))))

    return change


def hosted(change: Change) -> Change:
    settings = {"images_url": f"{HERE}/media"}
    return lambda scene: change(replace(scene, settings=replace(scene.settings, **settings)))


def issue(**fields: object) -> Change:
    return lambda scene: replace(scene, issue=replace(scene.issue, **fields))


def head(**fields: str) -> Change:
    """The subject or preheader, in the issue and in the email."""
    return lambda scene: replace(
        scene, issue=replace(scene.issue, **fields), email=replace(scene.email, **fields)
    )


def teaser(**fields: object) -> Change:
    return lambda scene: issue(related=(replace(scene.issue.related[0], **fields),))(scene)


def lead(**fields: object) -> Change:
    return lambda scene: issue(lead=replace(scene.issue.lead, **fields))(scene)


def source(**fields: object) -> Change:
    return lambda scene: lead(source=replace(scene.issue.lead.source, **fields))(scene)


def publication(**fields: str) -> Change:
    return lambda scene: replace(scene, publication=replace(scene.publication, **fields))


def settings(**fields: str) -> Change:
    return lambda scene: replace(scene, settings=replace(scene.settings, **fields))


def all_of(*changes: Change) -> Change:
    def change(scene: Compiled) -> Compiled:
        for one in changes:
            scene = one(scene)
        return scene

    return change


PAPER = 'href="https://example.org/paper"'
PARAGRAPH = "<p>The level was lower."
ALT = 'alt="A scan of a brain"'
END = "</td></tr></table></body>"

FIRES: dict[str, list[Change]] = {
    "A101": [html(ALT, "")],
    "A102": [html(ALT, 'alt=" "')],
    "A103": [html(ALT, 'alt="scan-final.PNG"'), html(ALT, 'alt="IMG_2041"')],
    "A104": [html(">Read the paper<", "> <"), html(">Read the paper<", '><img src="image:images/scan.gif" alt=""><')],
    "A105": [html('lang="en"', 'lang="de"'), html('lang="en" ', ""), html('dir="ltr"', 'dir="auto"')],
    "A106": [html("<title>Iron in the thalamus<", "<title> <"), html("<title>Iron in the thalamus</title>", "")],
    "A107": [
        html("<h1>Less iron, however you look</h1>", ""),
        html(END, "<h1>Another</h1>" + END),
        html("<h2>What was found</h2>", "<h4>What was found</h4>"),
        html("<h2>What was found</h2>", "<h2> </h2>"),
    ],
    "A108": [html('<table role="presentation">', "<table>"), html(END, "<table><tr><td>x</td></tr></table>" + END)],
    "A109": [
        html("color:#222222", "color:#999999"),
        html("background-color:#ffffff", "background:#222222"),
        html(PARAGRAPH, '<p style="color: #AAA !important">The level was lower.'),
    ],
    "A110": [html("font-size:16px", "font-size:13px")],
    "D101": [head(subject="News about MS"), head(preheader="Living with Multiple-Sclerosis today")],
    "D102": [publication(name="MS Digest")],
    "H105": [settings(reply_to="no-reply@example.org"), settings(reply_to="do_not_reply@example.org")],
    "H106": [head(subject="word " * 19)],
    "H107": [head(preheader="word " * 29)],
    "L101": [
        html(PAPER, 'href="javascript:alert(1)"'),
        html(PAPER, 'href="java&#10;script:alert(1)"'),
        html(PAPER, 'href="&#1;data:text/html,x"'),
        html(PAPER, 'href="/paper"'),
        html(PAPER, 'href="example.org/paper"'),
    ],
    "L102": [html(PAPER, 'href=""'), html(PAPER, 'href="#"'), html(PAPER, 'href="@@no_such_tag@@"')],
    "L103": [html(PAPER, 'href="http://example.org/paper"')],
    "L104": [html("@@name|reader@@", "@@Name|reader@@"), text("@@name|reader@@", "@@name")],
    "L105": [html("@@unsubscribe_url@@", HERE), text("@@unsubscribe_url@@", HERE)],
    "L106": [
        html("image:images/scan.gif", "https://cdn.example.org/scan.gif"),
        html("image:images/scan.gif", "data:image/gif;base64,R0lGOD"),
    ],
    "L107": [
        html("</body>", "<script>x()</script></body>"),
        html("<h1>", '<h1 onclick="x()">'),
        html("</head>", '<link rel="stylesheet" href="https://example.org/x.css"></head>'),
    ],
    "M101": [html("a { color", "/* @@name@@ */ a { color"), html("<h1>", '<h1 class="@@name@@">')],
    "R101": [teaser(date=date(2026, 12, 31))],
    "R102": [teaser(url="https://example.org/paper")],
    "R103": [source(published=date(2026, 12, 2))],
    "S101": [html(PARAGRAPH, "<p>" + "é" * 45_000)],
    "S102": [html(PARAGRAPH, "<p>" + "x" * 100_000)],
    "S103": [html(PARAGRAPH, "<p>" + "x" * 500_000)],
    "S104": [logo(149_000)],
    "W101": [
        head(subject="TODO: a subject"), teaser(text="Lorem ipsum dolor"),
        teaser(url="https://example.org/TODO"), issue(closing="Not all\nTBD"),
    ],
    "W102": [issue(waivers=(Waiver("R101", "related.1", "dated ahead"),))],
    "W103": [html("1 Example Street", "One Street"), text("Example Town", "")],
}  # fmt: skip

SILENT: dict[str, list[Change]] = {
    "A101": [html(ALT, 'alt=""')],
    "A102": [html(END, '<img src="image:logo.gif" alt="">' + END)],
    "A103": [html(ALT, 'alt="Version 2.0 of the scan.png file"')],
    "A104": [
        html(">Read the paper<", '><img src="image:images/scan.gif" alt="The paper"><'),
        html(">Read the paper<", ' aria-label="The paper"><'),
        html("<h1>", '<a id="top"></a><h1>'),
    ],
    "A105": [all_of(html('lang="en"', 'lang="de"'), publication(language="de")), html('"ltr"', '"rtl"')],
    "A107": [html("<h3>", "<h3><span></span>")],
    "A108": [html(END, "<table><tr><th>Year</th></tr><tr><td>2026</td></tr></table>" + END)],
    "A109": [
        html(PARAGRAPH, '<p style="color:#999999;display:none">The level was lower.'),
        html("<h1>", '<h1 style="color:#8a8a8a;font-size:28px">'),
        html(PARAGRAPH, '<p style="background-color:#123456;color:#ffffff">The level was lower.'),
        html(PARAGRAPH, '<p style="color:#cccccc"> — </p><p>The level was lower.'),
    ],
    "A110": [html(PARAGRAPH, '<p style="display:none;font-size:1px">hidden</p><p>The level was lower.')],
    "D101": [head(subject="It took 300 ms"), head(preheader="MSc students")],
    "D102": [publication(full_name="MS Digest")],
    "H105": [settings(reply_to="noreen@example.org")],
    "H106": [head(subject="word " * 17)],
    "H107": [head(preheader="word " * 27)],
    "L101": [html(PAPER, 'href="mailto:team@example.org"'), html(PAPER, 'href=" HTTPS://example.org/paper"')],
    "L102": [html(PAPER, 'href="@@view_url@@"')],
    "L103": [html(PAPER, 'href="https://example.org/http://old"')],
    "L104": [html("Hello", "Write to me@@example"[:12] + "Hello")],
    "L107": [html("<h1>", "<h1>&lt;script&gt; ")],
    "M101": [html("<h1>", '<!--[if mso]><a href="@@view_url@@">View</a><![endif]--><h1>')],
    "R101": [teaser(date=date(2026, 12, 1))],
    "R102": [teaser(url="https://example.org/paper/2"), source(url="")],
    "R103": [source(published=date(2026, 12, 1)), source(published=None)],
    "S101": [html(PARAGRAPH, "<p>" + "x" * 88_000)],
    "S102": [html(PARAGRAPH, "<p>" + "x" * 98_000)],
    "S104": [logo(140_000), hosted(logo(149_000))],
    "W101": [head(subject="Todo el mundo"), teaser(text="TBDs were not counted")],
    "W103": [html("1 Example Street, Example Town", "1 Example Street<br>Example&nbsp;Town")],
}  # fmt: skip

BY_MESSAGE = {"H101", "H102", "H103", "H104"}  # no message of ours can be made like that


def cases(table: dict[str, list[Change]]) -> list[object]:
    return [
        pytest.param(code, change, id=f"{code}-{number}")
        for code, changes in table.items()
        for number, change in enumerate(changes, 1)
    ]


def test_a_sound_issue_has_no_findings() -> None:
    assert run(compiled()) == []


@pytest.mark.parametrize(("code", "change"), cases(FIRES))
def test_a_check_fires(code: str, change: Change) -> None:
    assert code in {finding.code for finding in run(change(compiled()))}


@pytest.mark.parametrize(("code", "change"), cases(SILENT))
def test_a_check_is_silent(code: str, change: Change) -> None:
    assert code not in {finding.code for finding in run(change(compiled()))}


def test_every_code_is_shown_to_fire() -> None:
    assert FIRES.keys() | BY_MESSAGE == checks.CODES.keys()


def test_every_finding_says_where_it_is_and_what_to_do() -> None:
    for _, change in ((code, one) for code, changes in FIRES.items() for one in changes):
        for finding in run(change(compiled())):
            assert finding.file, finding
            assert finding.where, finding
            assert finding.message.endswith((".", "”.", "!”.")), finding
            assert finding.hint, finding


MESSAGE = """From: Research Digest <digest@example.org>
Reply-To: editor@example.org
List-Unsubscribe: <https://news.example.org/u/x>, <mailto:off@example.org>
List-Unsubscribe-Post: List-Unsubscribe=One-Click

Hello
"""


def header_codes(message: str) -> set[str]:
    scene = compiled()
    seen = Inspection(scene.issue, scene.email, scene.publication, scene.settings, (), NOWHERE)
    vars(seen)["message"] = message.encode()  # as if another builder had made it
    return {finding.code for finding in headers.find(seen)}


@pytest.mark.parametrize(
    ("old", "new", "codes"),
    [
        ("", "", set()),
        ("<https://news.example.org/u/x>, ", "", {"H101"}),
        ("List-Unsubscribe: ", "List-Unsubscribe: <https://example.org>\nList-Unsubscribe: ", {"H101"}),
        ("<mailto:off@example.org>", "<https://example.org/u>", {"H101"}),
        ("<https://news", "=?utf-8?q?=3Chttps=3A//news?= <", {"H101"}),
        ("/u/x>", f"/u/{'x' * 75}>", {"H103"}),
        ("/u/x>", f"/u/{'x' * 48}>", set()),
        ("/u/x>", f"/u/{'x' * 49}>", {"H103"}),
        ("List-Unsubscribe-Post: List-Unsubscribe=One-Click\n", "", {"H102"}),
        ("One-Click", "one-click", {"H102"}),
        ("From: Research Digest <digest@example.org>\n", "", {"H104"}),
        ("<digest@example.org>", "<digest@example.org>, other@example.org", {"H104"}),
        ("Reply-To: editor@example.org\n", "", set()),
        ("Reply-To: editor", "Reply-To: noreply", {"H105"}),
    ],
)
def test_headers_are_judged_as_they_are_written(old: str, new: str, codes: set[str]) -> None:
    assert header_codes(MESSAGE.replace(old, new, 1)) == codes

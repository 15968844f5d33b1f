"""Whatever is wrong with a template file is an error with its file and line; nothing is evaluated twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from newsletter import texts
from newsletter.errors import TemplateError
from newsletter.render import Theme, render, templates_dir
from newsletter.render.findings import CODES
from tests.render.samples import issue, lead, publication

if TYPE_CHECKING:
    from pathlib import Path

    from newsletter.model import Email, Finding


def rendered(overrides: Path | None = None) -> Email:
    return render(
        issue(), publication=publication(), theme=Theme(), texts=texts.load("en"), overrides=overrides
    )


def finding(folder: Path, name: str, source: str | bytes) -> Finding:
    """What is found when the publisher's folder holds this one file."""
    (folder / name).write_bytes(source if isinstance(source, bytes) else source.encode())
    with pytest.raises(TemplateError) as caught:
        rendered(folder)
    return caught.value.findings[0]


SECTION = "<mj-section>\n  <mj-column>\n    <mj-text>{}</mj-text>\n  </mj-column>\n</mj-section>\n"
WRONG = {
    "a tag of Jinja's that does not exist": ("T101", SECTION.format("{% iff x %}"), 3),
    "a block that is not closed": ("T101", SECTION.format("{% if issue %}"), 3),
    "a name that does not exist": ("T102", SECTION.format("{{ isue.date }}"), 3),
    "a field that does not exist": ("T102", SECTION.format("{{ issue.dato }}"), 3),
    "a word that does not exist": ("T102", SECTION.format('{{ texts["mail.bye"] }}'), 3),
    "a file that does not exist": ("T103", SECTION.format('{% include "nothing.mjml.j2" %}'), 3),
    "a call that fails": ("T104", SECTION.format('{{ texts.get("mail.number") / 2 }}'), 3),
    "a filter that does not exist": ("T101", SECTION.format("{{ issue.closing | markdwon }}"), 3),
    "an unknown tag of MJML": ("T201", SECTION.format("a</mj-text><mj-txt>b</mj-txt><mj-text>"), 3),
    "a tag that is not closed": ("T205", SECTION.format("<b>bold"), 3),
}


@pytest.mark.parametrize("name", WRONG)
def test_it_names_file_and_line_of(name: str, tmp_path: Path) -> None:
    code, source, line = WRONG[name]
    found = finding(tmp_path, "closing.mjml.j2", source)
    assert found.code == code
    assert (found.file, found.line) == ("templates/closing.mjml.j2", line)


def test_a_file_that_is_not_utf8_is_an_error_that_names_it(tmp_path: Path) -> None:
    found = finding(tmp_path, "closing.mjml.j2", "é".encode("latin-1"))
    assert (found.code, found.file) == ("T105", "templates/closing.mjml.j2")


def odd(tmp_path: Path) -> Finding:
    with pytest.raises(TemplateError) as caught:
        rendered(tmp_path / "templates")
    return caught.value.findings[0]


def test_a_template_that_is_a_link_out_of_the_project_is_refused(tmp_path: Path) -> None:
    (tmp_path / "project" / "templates").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("<mj-section></mj-section>")
    (tmp_path / "project" / "templates" / "closing.mjml.j2").symlink_to(tmp_path / "secret.txt")
    found = odd(tmp_path / "project")
    assert (found.code, found.place) == ("T105", "templates/closing.mjml.j2")
    assert "out of the project" in found.message


def test_a_templates_folder_that_is_a_link_out_of_the_project_is_refused(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "closing.mjml.j2").write_text("<mj-section></mj-section>")
    (tmp_path / "project" / "templates").symlink_to(tmp_path / "elsewhere")
    assert "out of the project" in odd(tmp_path / "project").message


def test_a_template_that_is_no_file_is_never_passed_over_in_silence(tmp_path: Path) -> None:
    (tmp_path / "templates" / "closing.mjml.j2").mkdir(parents=True)
    assert odd(tmp_path).message == "is not a file"
    (tmp_path / "templates" / "closing.mjml.j2").rmdir()
    (tmp_path / "templates" / "closing.mjml.j2").symlink_to("nowhere")
    assert odd(tmp_path).message == "is not a file"


def test_a_templates_folder_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "templates").write_text("")
    assert odd(tmp_path).message == "is not a folder"


def test_a_template_that_includes_itself_is_told_so(tmp_path: Path) -> None:
    found = finding(tmp_path, "closing.mjml.j2", '{% include "closing.mjml.j2" %}')
    assert (found.code, found.message) == ("T104", "a template includes itself, directly or through another")


def test_a_tag_left_open_in_one_file_is_named_where_the_next_file_does_not_fit(tmp_path: Path) -> None:
    found = finding(tmp_path, "closing.mjml.j2", "\n<mj-section>\n")
    assert "(opened at templates/closing.mjml.j2:2)" in found.message


def test_a_mistake_in_the_text_template_is_found_too(tmp_path: Path) -> None:
    found = finding(tmp_path, "issue.txt.j2", "one\ntwo {{ nobody }}\n")
    assert (found.code, found.file, found.line) == ("T102", "templates/issue.txt.j2", 2)


def test_a_template_of_ours_is_told_apart_from_the_publishers(tmp_path: Path) -> None:
    (tmp_path / "masthead.mjml.j2").write_text("{% set theme = 1 %}")
    found = finding(tmp_path, "issue.mjml.j2", '{% set theme = 1 %}{% include "style.mjml.j2" %}')
    assert found.file == "newsletter/templates/style.mjml.j2"


def test_the_publishers_file_wins_and_the_others_stay(tmp_path: Path) -> None:
    (tmp_path / "closing.mjml.j2").write_text(SECTION.format("<h2>Our own closing</h2>"))
    html = rendered(tmp_path).html
    assert "Our own closing" in html
    assert "Related reading" in html
    assert "Our own closing" not in rendered().html


def test_a_template_can_be_split_into_more_files(tmp_path: Path) -> None:
    (tmp_path / "closing.mjml.j2").write_text('{% include "extra.mjml.j2" %}')
    (tmp_path / "extra.mjml.j2").write_text(SECTION.format("an extra file"))
    assert "an extra file" in rendered(tmp_path).html


def test_a_template_can_not_read_files_outside(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "templates"
    folder.mkdir()
    assert finding(folder, "closing.mjml.j2", '{% include "../secret" %}').code == "T103"


def test_what_an_author_writes_is_never_run() -> None:
    words = "{{ 7 * 7 }} {% raw %} {# gone #}"
    email = render(
        issue(lead=lead(title=words)), publication=publication(), theme=Theme(), texts=texts.load("en")
    )
    assert words in email.html
    assert words in email.text
    assert "49" not in email.text.split(words)[1][:20]


def test_markup_in_an_authors_words_is_shown_and_not_obeyed() -> None:
    words = '<mj-button href="https://evil.example">x</mj-button><img src=x>'
    email = render(
        issue(lead=lead(title=words)), publication=publication(), theme=Theme(), texts=texts.load("en")
    )
    assert "&lt;img src=x&gt;" in email.html
    assert words in email.text.replace("\n", " ")


def test_the_templates_are_where_the_package_says() -> None:
    assert (templates_dir() / "issue.mjml.j2").is_file()
    assert (templates_dir() / "issue.txt.j2").is_file()


def test_every_finding_about_the_language_has_a_test_here() -> None:
    tested = {code for code, _, _ in WRONG.values()} | {"T105"}
    assert {code for code in CODES if code.startswith("T1")} <= tested

"""What an approval covers: each part by itself, and every setting decided about."""

from __future__ import annotations

import pytest

from newsletter import config, seals, wiring
from newsletter.config.sections import paths
from tests.support.publisher import publisher

# Settings that no approval covers, each because it changes neither what a copy says nor whom a live copy reaches.
NOT_COVERED = (
    *("newsletter.editors", "newsletter.list", "newsletter.discreet_words"),  # the list itself is in the seal
    *("sending.", "sendgrid.", "dkim.", "schedule.", "approval.", "web.", "logging."),
    *("smtp.host", "smtp.port", "smtp.security", "smtp.username", "smtp.ca_file", "smtp.timeout"),
)


@pytest.fixture
def made(tmp_path):
    return publisher(tmp_path)


def sealed(made, list_name="readers"):
    settings = config.load(made.root, {})
    return wiring.seal(settings, *wiring.compile_issue(settings, "2026-12"), list_name)


def parts(before, after):
    return {(one.part, one.name) for one in seals.breaks(before, after)}


def test_every_setting_is_covered_or_left_out_on_purpose():
    covered = {path for path in paths() if path in wiring.IN_EACH_COPY or path.startswith("theme.")}
    whole = tuple(name for name in NOT_COVERED if name.endswith("."))
    left_out = {path for path in paths() if path in NOT_COVERED or path.startswith(whole)}
    assert covered | left_out == set(paths())
    assert covered & left_out == set()
    assert set(wiring.IN_EACH_COPY) <= set(paths())


def test_nothing_changed_breaks_nothing(made):
    assert seals.breaks(sealed(made), sealed(made)) == []


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("issues/2026-12/lead.md", "content"),
        ("issues/2026-12/issue.toml", "content"),
        ("issues/2026-12/closing.md", "content"),
        ("issues/closing.md", "content"),
        ("templates/lead.mjml.j2", "templates"),
        ("templates/of-my-own.mjml.j2", "templates"),
    ],
)
def test_a_file_that_comes_in_or_loses_a_byte_is_named(made, file, part):
    before = sealed(made)
    path = made.root / file
    path.parent.mkdir(exist_ok=True)
    _write_one(made, path)
    after = sealed(made)
    assert (part, file) in parts(before, after)
    path.write_bytes(path.read_bytes() + b"\n")
    assert parts(after, sealed(made)) == {(part, file)}


def _write_one(made, path):
    if path.name == "lead.mjml.j2":
        made.newsletter("templates", "copy", path.name)
    elif not path.exists():
        path.write_text("Research has limits.\n")
    else:
        path.write_bytes(path.read_bytes() + b"\n")


def test_the_closing_notes_that_are_not_used_are_not_covered(made):
    (made.root / "issues" / "2026-12" / "closing.md").write_text("Ours.\n")
    before = sealed(made)
    (made.root / "issues" / "closing.md").write_text("Everybody's.\n")
    assert sealed(made) == before


def test_a_file_that_a_system_hides_in_a_folder_is_not_covered(made):
    (made.root / "templates").mkdir()
    before = sealed(made)
    (made.root / "templates" / ".DS_Store").write_bytes(b"x")
    assert sealed(made) == before


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("[newsletter]", "newsletter.full_name"),
        ("[unsubscribe]\nmailto = 'leave@example.org'", "unsubscribe.mailto"),
        ("[images]\nmode = 'hosted'", "images.mode"),
        ("[smtp]\nenvelope_from = 'bounces@example.org'", "smtp.envelope_from"),
    ],
)
def test_a_setting_that_readers_get_is_named_and_its_value_is_not_in_the_seal(made, section, key):
    before = sealed(made)
    if section.startswith("[newsletter]"):
        file = made.root / "newsletter.toml"
        file.write_text(file.read_text().replace("Multiple Sclerosis Research Digest", "Another"))
    else:
        made.configure(section + "\n")
    found = seals.breaks(before, sealed(made))
    assert [one.words for one in found if one.part == "sender"] == [f"{key} in newsletter.toml"]
    assert "@" not in str(found)


def test_switching_the_sending_on_breaks_nothing(made):
    before = sealed(made)
    made.configure(
        '[sending]\nmode = "live"\ntransport = "smtp"\nrate = "1/s"\n[approval]\nrequire = ["editor"]\n'
        '[smtp]\nhost = "smtp.example.org"\n'
    )
    assert sealed(made) == before


def test_a_colour_and_the_logo_are_covered(made):
    before = sealed(made)
    made.configure('[theme.light]\naccent = "#112233"\n')
    assert parts(before, sealed(made)) == {("templates", "[theme] in newsletter.toml")}


def test_another_list_is_named_with_both(made):
    (one,) = seals.breaks(sealed(made), sealed(made, "carers"))
    assert one.words == "the list (readers, now carers)"


def test_another_version_of_the_program_is_named_with_both(made):
    before = sealed(made)
    after = {**before, "program": {"version": "9.9", "files": "other"}}
    said = [one.words for one in seals.breaks(before, after)]
    assert said == [f"the program ({before['program']['version']}, now 9.9)", "the program"]


def test_that_only_the_compiled_mail_differs_is_said_when_nothing_else_does(made):
    before = sealed(made)
    after = {**before, "compiled": {"digest": "other"}}
    assert [one.words for one in seals.breaks(before, after)] == ["the compiled mail"]


def test_a_part_that_a_later_version_adds_breaks_the_seals_of_the_earlier_one(made):
    before = sealed(made)
    assert parts(before, {**before, "weather": {"today": "fog"}}) == {("weather", "today")}


def test_a_file_that_is_gone_is_like_no_other(tmp_path):
    assert seals.of_files({"x": tmp_path / "x"}) == {"x": seals.MISSING}

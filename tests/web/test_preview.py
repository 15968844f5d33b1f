"""The preview over real HTTP, in a process of its own, and in a real browser."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support.browser import browser
from tests.support.publisher import Publisher, publisher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SLUG = "2026-12"
DEADLINE = 20.0  # seconds; only ever reached by a failure


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: str


class Preview:
    """A running preview."""

    def __init__(self, folder: Publisher, port: int) -> None:
        self.folder = folder
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str = "/", host: str = "") -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            connection.request("GET", path, headers={"Host": host or f"127.0.0.1:{self.port}"})
            answer = connection.getresponse()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, headers, answer.read().decode("utf-8", "replace"))
        finally:
            connection.close()

    @contextmanager
    def versions(self) -> Iterator[Callable[[], str]]:
        """The event stream; call it to wait for the next version."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        connection.request("GET", "/events")
        answer = connection.getresponse()
        assert answer.headers["content-type"].startswith("text/event-stream")

        def following() -> str:
            line = answer.readline().decode().strip()
            while not line.startswith("data: "):
                line = answer.readline().decode().strip()
            return line

        try:
            yield following
        finally:
            connection.close()

    def edit(self, name: str, old: str, new: str) -> None:
        file = self.folder.root / name
        text = file.read_text("utf-8")
        assert old in text
        file.write_text(text.replace(old, new, 1), "utf-8")


@contextmanager
def previewing(folder: Publisher, *args: str) -> Iterator[Preview]:
    process = folder.start("preview", *args)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        assert found, line + process.communicate(timeout=DEADLINE)[1]
        yield Preview(folder, int(found[1]))
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, errors
    assert errors == ""


@pytest.fixture
def preview(tmp_path: Path) -> Iterator[Preview]:
    with previewing(publisher(tmp_path / "press")) as running:
        yield running


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Preview]:
    """A preview for tests that change nothing."""
    with previewing(publisher(tmp_path_factory.mktemp("steady") / "press")) as running:
        yield running


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_page_shows_the_newest_issue_in_both_widths(steady: Preview) -> None:
    page = steady.get()
    assert page.status == 200
    assert "<h1>Iron in the thalamus</h1>" in page.body
    assert page.body.count("<iframe") == 2
    assert "Nothing to mend" in page.body


def test_the_mail_is_whole_and_filled(steady: Preview) -> None:
    mail = steady.get(f"/mail/{SLUG}")
    assert mail.status == 200
    assert mail.body.startswith("<!doctype html>")
    assert "@@" not in mail.body
    assert "The level was lower." in mail.body


def test_the_text_part_is_shown_as_text(preview: Preview) -> None:
    preview.edit(f"issues/{SLUG}/lead.md", "The level was lower.", "The level was <b>lower</b>.")
    with preview.versions() as following:
        following()
    until(lambda: "&lt;b&gt;lower&lt;/b&gt;" in preview.get("/?view=text").body)


def test_large_print_is_shown_and_the_other_choices_stay(steady: Preview) -> None:
    page = steady.get("/?view=phone&colours=dark&print=large").body
    assert f'src="/mail/{SLUG}?colours=dark&amp;print=large"' in page
    assert 'href="?view=desktop&amp;colours=dark&amp;print=large"' in page
    assert "font-size:20px" in steady.get(f"/mail/{SLUG}?print=large").body
    assert "font-size:20px" not in steady.get(f"/mail/{SLUG}").body


def test_a_save_is_told_to_the_page_and_changes_the_mail(preview: Preview) -> None:
    with preview.versions() as following:
        before = following()
        preview.edit(f"issues/{SLUG}/lead.md", "The level was lower.", "The level was much lower.")
        assert following() != before
    assert "much lower" in preview.get(f"/mail/{SLUG}").body


def test_settings_and_new_templates_are_noticed_too(preview: Preview) -> None:
    with preview.versions() as following:
        following()
        preview.folder.configure('[theme]\naccent = "not-a-colour"\n')
        following()
        until(lambda: preview.get().status == 422)
        preview.folder.configure("")
        following()
        until(lambda: preview.get().status == 200)
        preview.folder.newsletter("templates", "copy", "closing.mjml.j2")
        following()
        until(lambda: preview.get().status == 200)
        template = preview.folder.root / "templates" / "colophon.mjml.j2"

        def told() -> bool:
            # The folder is new: it is watched from the moment its coming was noticed.
            template.write_text("<mj-section><mj-txet></mj-txet></mj-section>\n")
            return "mj-txet" in preview.get().body

        until(told)


def test_an_error_is_shown_with_its_place_and_goes_away_when_mended(preview: Preview) -> None:
    name = f"issues/{SLUG}/issue.toml"
    preview.edit(name, "preheader =", "preheder =")
    until(lambda: preview.get().status == 422)
    page = preview.get().body
    assert f"<code>{name}:3 [preheder]</code>" in page
    assert "Did you mean" in page
    assert "Traceback" not in page
    assert preview.get(f"/mail/{SLUG}").status == 422
    preview.edit(name, "preheder =", "preheader =")
    until(lambda: preview.get().status == 200)


def test_findings_are_shown_with_what_to_do(preview: Preview) -> None:
    preview.edit(f"issues/{SLUG}/issue.toml", "2026-11-30", "2026-12-31")
    until(lambda: "1 warning" in preview.get().body)
    assert f"<code>issues/{SLUG}/issue.toml:11 [related.1]</code>" in preview.get().body


def test_another_issue_can_be_chosen(preview: Preview) -> None:
    preview.folder.newsletter("new", "2027-01")
    until(lambda: 'href="/2027-01' in preview.get(f"/{SLUG}").body)
    assert preview.get(f"/{SLUG}").status == 200
    assert preview.get("/2027-01").body.count('aria-current="page">2027-01') == 1


def test_an_issue_may_go_away_and_come_back(preview: Preview) -> None:
    folder, kept = preview.folder.root / "issues", preview.folder.root / "kept"
    folder.rename(kept)
    until(lambda: preview.get().status == 404)
    assert "There are no issues yet" in preview.get().body
    kept.rename(folder)
    until(lambda: preview.get().status == 200)

    def told() -> bool:
        preview.edit(f"issues/{SLUG}/lead.md", "The level was", "The level was much")
        return "much" in preview.get(f"/mail/{SLUG}").body

    until(told)


@pytest.mark.parametrize(
    "path", ["/2030-01", "/..%2f..", "/mail", "/pictures/2026-12/x.png", "/static/../preview.py"]
)
def test_what_is_not_there_is_404(steady: Preview, path: str) -> None:
    assert steady.get(path).status == 404


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80"])
def test_another_host_name_gets_nothing(steady: Preview, host: str) -> None:
    for path in ("/", f"/mail/{SLUG}", "/events"):
        answer = steady.get(path, host)
        assert answer.status == 400
        assert "Iron" not in answer.body


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST:8400"])
def test_this_machines_names_are_answered(steady: Preview, host: str) -> None:
    assert steady.get("/", host).status == 200


def test_nothing_can_be_loaded_from_elsewhere_and_no_script_runs_in_a_mail(steady: Preview) -> None:
    page, mail = (steady.get(path).headers["content-security-policy"] for path in ("/", f"/mail/{SLUG}"))
    assert "default-src 'none'" in page
    assert "unsafe" not in page
    assert "default-src 'none'" in mail
    assert re.search("sandbox(?! [^;]*allow-scripts)", mail)
    assert "script-src" not in mail


def test_the_port_that_was_asked_for_must_be_free(tmp_path: Path) -> None:
    folder = publisher(tmp_path / "press")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = folder.newsletter("preview", "--port", str(port), check=False)
    assert done.returncode == 2
    assert f"Port {port} is taken" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_port_two_previews_stand_side_by_side(steady: Preview) -> None:
    with previewing(steady.folder) as second:
        assert second.port != steady.port
        assert second.get().status == 200


def test_an_issue_that_does_not_exist_is_a_usage_error(tmp_path: Path) -> None:
    done = publisher(tmp_path / "press").newsletter("preview", "2026-11", check=False)
    assert done.returncode == 2
    assert "Did you mean 2026-12?" in done.stderr


# --- in a browser -------------------------------------------------------------------------------------------------

CONTRAST = """
(() => {
  const small = [...document.querySelectorAll('header a, summary')].filter(e => e.offsetParent);
  return {
    wide: document.documentElement.scrollWidth <= innerWidth,
    targets: small.every(e => e.getBoundingClientRect().height >= 44),
    names: [...document.querySelectorAll('iframe')].every(f => f.title),
    scheme: getComputedStyle(document.body).backgroundColor,
  };
})()
"""


@pytest.mark.browser
@pytest.mark.parametrize("width", [375, 1280])
def test_the_page_fits_phone_and_desktop_in_light_and_dark(steady: Preview, width: int) -> None:
    with browser() as tab:
        tab.width(width, phone=width == 375)
        papers = []
        for dark in (False, True):
            tab.dark(dark)
            tab.open(steady.url)
            seen = tab.evaluate(CONTRAST)
            assert seen["wide"], "the page scrolls sideways"
            assert seen["targets"], "a touch target is lower than 44 pixels"
            assert seen["names"]
            papers.append(seen["scheme"])
        assert papers[0] != papers[1]
        assert [url for url in tab.requests if not url.startswith(steady.url)] == []


INSIDE = """
(async () => {
  const frame = document.querySelector('.phone iframe');
  const tall = () => frame.getBoundingClientRect().height;
  while (Math.abs(tall() - frame.contentDocument.documentElement.getBoundingClientRect().height) > 1)
    await new Promise(resolve => setTimeout(resolve, 20));
  return {
    width: frame.contentWindow.innerWidth,
    paper: frame.contentWindow.getComputedStyle(frame.contentDocument.querySelector('h1')).color,
  };
})()
"""


@pytest.mark.browser
def test_the_phone_frame_is_a_phone_and_dark_is_dark(steady: Preview) -> None:
    with browser() as tab:
        tab.width(1280)
        tab.open(steady.url)
        light = tab.evaluate(INSIDE)
        tab.open(f"{steady.url}/?colours=dark")
        dark = tab.evaluate(INSIDE)
    assert light["width"] == dark["width"] == 375
    assert light["paper"] != dark["paper"]


@pytest.mark.browser
def test_a_save_reloads_the_page_by_itself(preview: Preview) -> None:
    with browser() as tab:
        tab.open(preview.url)
        until(lambda: tab.evaluate("document.getElementById('live').textContent") == "Live")
        preview.edit(f"issues/{SLUG}/issue.toml", "Iron in the thalamus", "Iron in the brain")
        until(lambda: tab.evaluate("document.querySelector('h1')?.textContent") == "Iron in the brain")


RAN = """
(() => {
  const mail = document.querySelector('.phone iframe').contentDocument;
  return { there: Boolean(mail.querySelector('img[onerror]')), ran: document.title === 'ran' };
})()
"""


@pytest.mark.browser
def test_a_script_in_a_mail_does_not_run(preview: Preview) -> None:
    preview.folder.newsletter("templates", "copy", "colophon.mjml.j2")
    script = (
        """<mj-text><p><img src="data:," alt="" onerror="parent.document.title = 'ran'" /></p></mj-text>"""
    )
    preview.edit("templates/colophon.mjml.j2", "<mj-text", f"{script}<mj-text")
    until(lambda: "onerror=" in preview.get(f"/mail/{SLUG}").body)
    with browser() as tab:
        tab.open(preview.url)
        assert tab.evaluate(RAN) == {"there": True, "ran": False}

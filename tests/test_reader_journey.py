"""A reader's whole way, in a real browser, with a real mail server: join, read, rest, choose, leave, be forgotten.

All of it by keyboard, and where people see little also with large text on a narrow dark screen, and without scripts.
"""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest

from tests.support.browser import Browser, browser
from tests.support.publisher import publisher
from tests.support.reader import Reader
from tests.support.served import serving
from tests.support.smtp_server import Mailbox, smtp_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.publisher import Publisher

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[1]
ANN, NEW = "ann@example.net", "ann@example.com"
HIDDEN = '<input type="hidden" name="source" value="footer">'
SENDING = '[sending]\nmode = "live"\ntransport = "smtp"\n[smtp]\nport = {port}\nsecurity = "none"\n'
TOO_WIDE = "document.documentElement.scrollWidth - window.innerWidth"


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture
def inbox() -> Iterator[Mailbox]:
    with smtp_server() as server:
        yield server


@contextmanager
def reading(tab: Browser, inbox: Mailbox, folder: Path, *, language: str = "en") -> Iterator[Reader]:
    press = publisher(folder, SENDING.format(port=inbox.port))
    press.set(language=language)
    with serving(press) as running:
        yield Reader(tab, running, inbox)


def test_a_reader_joins_reads_rests_chooses_and_leaves(tab: Browser, inbox: Mailbox, tmp_path: Path) -> None:
    tab.width(375, phone=True)
    with reading(tab, inbox, tmp_path / "press") as reader:
        reader.sign_up(ANN, label="Your email address", button="Subscribe")
        assert reader.heading == "Please look into your inbox"
        letter = reader.next_mail(ANN)
        assert letter.subject == "Please confirm: Research Digest"
        reader.follow(letter, "c")
        assert reader.served.numbers("state = 'pending'"), "looking changes nothing"
        assert "health" in str(tab.evaluate("document.body.textContent"))
        reader.press("Yes, I want to get it")
        assert reader.heading == "You are on the list"

        press = reader.served.folder
        press.newsletter("send", "2026-12", "--confirm", "1")
        issue = reader.next_mail(ANN)
        assert issue.subject == "Iron in the thalamus"
        leave = reader.follow(issue, "u")
        assert reader.served.numbers("state = 'active'"), "looking changes nothing"
        reader.press("Large print")
        assert reader.served.database().execute("SELECT edition FROM subscriber").fetchone() == ("large",)
        reader.open(leave)
        reader.press("3 months")
        assert reader.served.numbers("state = 'paused'")
        reader.press("See all settings")
        reader.press("End the break")
        assert reader.served.numbers("state = 'active'")

        send_the_next_issue(press, "2026-12", "2027-01")
        assert "font-size:20px" in reader.next_mail(ANN).html
        reader.follow(issue, "p")
        reader.press("Text only")
        send_the_next_issue(press, "2027-01", "2027-02")
        assert reader.next_mail(ANN).structure == ["text/plain"]
        reader.open(leave)
        reader.press("Unsubscribe")
        assert reader.served.numbers("state = 'unsubscribed'")
        assert {url.split("/")[2] for url in tab.requests} == {f"127.0.0.1:{reader.served.port}"}


def send_the_next_issue(press: Publisher, last: str, slug: str) -> None:
    """The same words a month later."""
    folder = press.root / "issues" / slug
    (press.root / "issues" / last).rename(folder)
    toml = (folder / "issue.toml").read_text("utf-8")
    dated = re.sub(r"^date = .*", f"date = {slug}-05", toml, flags=re.MULTILINE)
    (folder / "issue.toml").write_text(dated, "utf-8")
    press.newsletter("send", slug, "--confirm", "1")


def test_a_form_of_another_website_brings_somebody_onto_the_list(
    tab: Browser, inbox: Mailbox, tmp_path: Path
) -> None:
    """The form of docs/readers.md, in a page from elsewhere."""
    form = re.findall(r"```html\n(.*?)```", (ROOT / "docs" / "readers.md").read_text("utf-8"), re.DOTALL)[0]
    with reading(tab, inbox, tmp_path / "press") as reader:
        here = form.replace("https://news.example.org", f"http://127.0.0.1:{reader.served.port}")
        tab.open(f"<!doctype html>{here.replace('<button', HIDDEN + '<button')}")
        reader.fill("Your email address", ANN)
        reader.press("Subscribe")
        assert reader.heading == "Please look into your inbox"
        reader.follow(reader.next_mail(ANN), "c")
        reader.press("Yes, I want to get it")
        conn = reader.served.database()
        said = (
            "SELECT act, form, consent.source, language, text FROM consent JOIN wording ON wording = version"
        )
        asked, confirmed = conn.execute(f"{said} ORDER BY at").fetchall()
        conn.close()
    assert asked[:3] == ("asked", "website", "footer")
    assert confirmed[:2] == ("confirmed", "/c")
    assert asked[3:] == confirmed[3:]
    assert "my health" in asked[4]


def test_a_reader_sees_their_data_moves_and_is_forgotten(
    tab: Browser, inbox: Mailbox, tmp_path: Path
) -> None:
    """In German, at 200 % on a narrow dark screen, and without scripts. The letters' links are used as they came."""
    tab.width(320)
    tab.dark()
    tab.scripts(False)
    with reading(tab, inbox, tmp_path / "press", language="de") as reader:
        reader.sign_up(ANN, label="Ihre E-Mail-Adresse", button="Anmelden")
        reader.follow(reader.next_mail(ANN), "c")
        reader.press("Ja, ich möchte das bekommen")
        reader.press("Alle Einstellungen ansehen")
        preferences = tab.evaluate("location.pathname")

        path = ask_for_the_link(reader, preferences, ANN)
        downloaded = reader.served.ask("POST", path, urlencode({"action": "download"}))
        assert json.loads(downloaded[1])["person"]["address"] == ANN
        reader.open(path)
        assert reader.heading == "Dieser Link ist zu alt", "it works once"

        ask_for_the_link(reader, preferences, ANN)
        reader.fill("Ihre neue E-Mail-Adresse", "ann@")
        reader.press("Meine Adresse ändern")
        reader.reach("sollte aussehen wie")
        tab.key("Enter")
        assert tab.evaluate("document.activeElement.id") == "email", "the mistake leads to its field"
        tab.evaluate("document.activeElement.select()")
        tab.type(NEW)
        reader.press("Meine Adresse ändern")
        assert reader.heading == "Bitte sehen Sie in Ihr neues Postfach"
        reader.follow(reader.next_mail(NEW), "c")
        assert the_person(reader) == (ANN,), "looking changes nothing"
        reader.press("Ja, schreiben Sie mir hierher")
        assert the_person(reader) == (NEW,)

        ask_for_the_link(reader, preferences, NEW)
        reader.press("Meine Daten löschen")
        assert the_person(reader) == (NEW,), "nothing without the tick"
        reader.reach("Ja, löschen Sie alles über mich")
        tab.key(" ")
        assert tab.evaluate(TOO_WIDE) <= 0
        reader.press("Meine Daten löschen")
        assert reader.heading == "Ihre Daten sind gelöscht"
        assert the_person(reader) == (None,)
        database = reader.served.folder.root / ".newsletter" / "newsletter.db"
        left = b"".join(file.read_bytes() for file in database.parent.glob("newsletter.db*"))
        assert ANN.encode() not in left
        assert NEW.encode() not in left
    tab.scripts(True)
    tab.dark(False)


def ask_for_the_link(reader: Reader, preferences: str, to: str) -> str:
    """Ten minutes after the last one: nobody gets letter after letter."""
    with reader.served.database() as conn:
        conn.execute("DELETE FROM throttle")
    conn.close()
    reader.open(preferences)
    reader.press("Schicken Sie mir den Link")
    path = reader.follow(reader.next_mail(to), "a")
    reader.tab.evaluate("document.documentElement.style.fontSize = '200%'")
    return path


def the_person(reader: Reader) -> tuple[str | None]:
    conn = reader.served.database()
    [row] = conn.execute("SELECT address FROM subscriber")
    conn.close()
    return tuple(row)

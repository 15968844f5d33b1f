"""What readers can do on their pages, and what nobody can."""

from __future__ import annotations

import json
import quopri
import re
import sqlite3
from contextlib import closing
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest
from sqlalchemy import event

from newsletter import joining, wiring
from newsletter.tokens import Purpose, make
from newsletter.web import start
from tests.support.site import FORM, Site, site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.site import Answer

LONG = start.SHORTEST * 5
KNOWN = "reader00000@example.org"
MULTIPART = "multipart/form-data; boundary=x"


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path / "press") as made:
        yield made


def state(pages: Site, number: int = 0) -> object:
    found = pages.subscriptions()[number]
    return pages.one(f"SELECT state FROM subscription WHERE id = {found}")


def heading(answer: Answer) -> str:
    found = re.findall(r"<h1>(.*?)</h1>", answer.text)
    assert len(found) == 1, answer.text
    return str(found[0])


def multipart(**fields: str) -> bytes:
    parts = [f'--x\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items()]
    return ("".join(parts) + "--x--\r\n").encode()


def started(answer: Answer) -> str:
    return re.findall(r'name="started" value="([^"]+)"', answer.text)[0]


# Signing up


def sign_up(pages: Site, **sent: str) -> Answer:
    stamp = started(pages.get("/subscribe"))
    pages.now += LONG
    return pages.post("/subscribe", {"started": stamp, **sent})


def test_the_front_page_leads_to_the_form(pages: Site) -> None:
    answer = pages.get("/")
    assert (answer.status, answer.header("location")) == (303, "/subscribe")


def test_whoever_signs_up_gets_a_letter_later_and_is_told_to_look_for_it(pages: Site) -> None:
    answer = sign_up(pages, email="new@example.org", name="Zoë")
    assert (answer.status, heading(answer)) == (200, "Please look into your inbox")
    row = pages.one("SELECT address, name, form, state, purpose FROM letter")
    assert row == ("new@example.org", "Zoë", "page", "waiting", "subscribe")


def test_nobody_learns_from_the_answer_who_is_on_the_list(pages: Site) -> None:
    statements: list[str] = []
    event.listen(pages.engine, "before_cursor_execute", lambda _c, _u, sql, *_: statements.append(sql))
    pages.post("/subscribe", {"email": "warm@example.org"})  # the first one makes the wording's row
    told = []
    for address in ("stranger@example.org", KNOWN):
        statements.clear()
        answer = pages.post("/subscribe", {"email": address})
        told.append((answer, list(statements)))
    assert told[0] == told[1]


def test_the_same_answer_comes_when_there_were_too_many(pages: Site) -> None:
    answers = [pages.post("/subscribe", {"email": "often@example.org"}) for _ in range(8)]
    assert len({answer.body for answer in answers}) == 1
    assert 0 < int(str(pages.one("SELECT count(*) FROM letter WHERE state = 'waiting'"))) < 8


def test_an_address_that_can_not_be_one_is_told_beside_the_field_and_nothing_is_lost(pages: Site) -> None:
    answer = sign_up(pages, email="zoë at example.org", name="Zoë & Co")
    assert answer.status == 422
    assert 'aria-describedby="email-error"' in answer.text
    assert 'href="#email"' in answer.text  # the summary leads to the field
    assert 'value="zoë at example.org"' in answer.text
    assert 'value="Zoë &amp; Co"' in answer.text
    assert pages.one("SELECT count(*) FROM letter") == 0


def test_whoever_is_faster_than_a_person_is_asked_to_press_once_more(pages: Site) -> None:
    stamp = started(pages.get("/subscribe"))
    pages.now += start.SHORTEST / 2
    sent = {"started": stamp, "email": "quick@example.org", "name": "Zoë"}
    answer = pages.post("/subscribe", sent)
    assert "press the button once more" in answer.text
    assert 'value="quick@example.org"' in answer.text
    assert pages.one("SELECT count(*) FROM letter") == 0
    pages.now += start.SHORTEST / 2
    assert pages.post("/subscribe", {**sent, "started": started(answer)}).status == 200
    assert pages.one("SELECT count(*) FROM letter") == 1


def test_a_program_that_fills_in_every_field_is_told_the_same_and_nothing_happens(pages: Site) -> None:
    answer = sign_up(pages, email="bot@example.org", website="https://example.com")
    assert answer == sign_up(pages, email="person@example.org")
    assert pages.one("SELECT address FROM letter") == "person@example.org"


def test_another_websites_form_needs_only_an_address(pages: Site) -> None:
    headers = {"content-type": MULTIPART, "origin": "https://elsewhere.example"}
    sent = multipart(email="there@example.org", list="events", source="footer")
    assert pages.ask("POST", "/subscribe", sent, headers).status == 200
    row = pages.one("SELECT address, form, source, list.name FROM letter JOIN list ON list.id = list_id")
    assert row == ("there@example.org", "website", "footer", "events")


def test_only_public_lists_can_be_joined(pages: Site) -> None:
    pages.post("/subscribe", {"email": "there@example.org", "list": "editors"})
    assert pages.one("SELECT list.name FROM letter JOIN list ON list.id = list_id") == "readers"


@pytest.mark.parametrize("name", ["a\nBcc: x@example.org", "=?utf-8?q?a=0Ab?=", "x" * 500, "\x00\u202e"])
def test_a_name_that_no_mail_could_hold_does_not_stop_anybody(pages: Site, name: str) -> None:
    assert pages.post("/subscribe", {"email": "there@example.org", "name": name}).status == 200
    assert "\n" not in str(pages.one("SELECT name FROM letter"))


# Confirming


def test_a_confirmation_that_nobody_asked_for_opens_nothing(pages: Site) -> None:
    answer = pages.post(pages.link(Purpose.CONFIRM))
    assert answer.status == 410
    assert heading(answer) == "This link is too old"


def test_the_confirmation_is_a_question_with_the_words_one_agrees_to(pages: Site) -> None:
    answer = pages.get(pages.link(Purpose.CONFIRM))
    assert heading(answer) == "Do you want to get Research Digest?"
    assert pages.deeds.consent in answer.text


# Leaving


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"List-Unsubscribe=One-Click", "application/x-www-form-urlencoded"),
        (multipart(**{"List-Unsubscribe": "One-Click"}), MULTIPART),
        (b"", ""),
        (b"action=leave", "application/x-www-form-urlencoded"),
        (b"List-Unsubscribe=One-Click&action=pause&months=3", "application/x-www-form-urlencoded"),
        (b"--x\r\nbroken", MULTIPART),
        (b"\xff\x00", "text/plain"),
    ],
)
def test_a_post_to_the_unsubscribe_link_unsubscribes_at_once(pages: Site, body: bytes, kind: str) -> None:
    link = pages.link(Purpose.UNSUBSCRIBE)
    answer = pages.ask("POST", link, body, {"content-type": kind} if kind else {})
    assert (answer.status, heading(answer)) == (200, "You are unsubscribed")
    assert not {"location", "set-cookie"} & {name for name, _ in answer.headers}
    assert [state(pages, 0), state(pages, 1)] == ["unsubscribed", "active"]
    before = pages.rows()
    assert pages.ask("POST", link, body, {"content-type": kind} if kind else {}) == answer  # the second time
    assert pages.rows() == before
    assert heading(pages.get(link)) == "You are unsubscribed"


def test_a_link_for_a_subscription_that_is_gone_still_unsubscribes(pages: Site) -> None:
    link = f"/u/{make(Purpose.UNSUBSCRIBE, 2**40, pages.ring)}"
    assert pages.post(link, {"List-Unsubscribe": "One-Click"}).status == 200
    assert pages.get(link).status == 200


def test_the_first_button_of_the_page_unsubscribes(pages: Site) -> None:
    answer = pages.get(pages.link(Purpose.UNSUBSCRIBE))
    first = re.findall(r"<form.*?</form>", answer.text, re.DOTALL)[0]
    assert 'value="leave"' in first
    assert "big" in first


@pytest.mark.parametrize("months", [1, 3, 6])
def test_a_pause_is_one_tap(pages: Site, months: int) -> None:
    link = pages.link(Purpose.UNSUBSCRIBE)
    assert f'name="months" value="{months}"' in pages.get(link).text
    answer = pages.post(link, {"action": "pause", "months": str(months)})
    assert heading(answer) == "Enjoy your break"
    assert state(pages) == "paused"


@pytest.mark.parametrize("edition", ["large", "text"])
def test_another_edition_is_one_tap(pages: Site, edition: str) -> None:
    link = pages.link(Purpose.UNSUBSCRIBE)
    assert pages.post(link, {"action": "edition", "edition": edition}).status == 200
    assert pages.one(f"SELECT count(*) FROM subscriber WHERE edition = '{edition}'") == 1
    assert state(pages) == "active"


@pytest.mark.parametrize("sent", [{"action": "pause", "months": "2"}, {"action": "edition", "edition": "x"}])
def test_a_choice_that_there_is_not_changes_nothing(pages: Site, sent: dict[str, str]) -> None:
    before = pages.rows()
    assert pages.post(pages.link(Purpose.UNSUBSCRIBE), sent).status == 422
    assert pages.rows() == before


def test_a_link_that_is_not_ours_says_how_else_to_leave(pages: Site) -> None:
    for link in ("/u/x", f"/u/{pages.token(Purpose.PREFERENCES)}", f"/u/{'A' * 35}"):
        answer = pages.post(link, {"List-Unsubscribe": "One-Click"})
        assert answer.status == 404
        assert "mailto:editor@example.org" in answer.text
    assert state(pages) == "active"


# Choosing


def choose(pages: Site, **sent: str) -> Answer:
    answer = pages.post(pages.link(Purpose.PREFERENCES), sent)
    assert answer.status == 200
    return answer


def test_no_page_behind_a_mails_link_shows_a_name_or_an_address(pages: Site) -> None:
    for link in (pages.link(Purpose.UNSUBSCRIBE), pages.link(Purpose.PREFERENCES)):
        text = pages.get(link).text
        assert "Reader 0" not in text
        assert KNOWN not in text


def test_preferences_leave_a_list_and_ask_before_another_is_joined(pages: Site) -> None:
    assert "An email is on its way to you." in choose(pages, action="join", list="events").text
    assert pages.one("SELECT address FROM letter") == KNOWN
    assert "That is saved." in choose(pages, action="leave", list="readers").text
    assert state(pages) == "unsubscribed"


@pytest.mark.parametrize("asked", [{"action": "join", "list": "events"}, {"action": "access"}])
def test_whoever_asks_for_more_letters_than_leave_is_told_so(pages: Site, asked: dict[str, str]) -> None:
    for _ in range(2):
        assert "is on its way to you." in choose(pages, **asked).text
    text = choose(pages, **asked).text
    assert "We have written to you several times already." in text
    assert "is on its way to you." not in text
    assert pages.one("SELECT count(*) FROM letter") == 2


def test_a_pause_can_be_ended_by_a_tap(pages: Site) -> None:
    assert "You are on a break until" in choose(pages, action="pause", months="3").text
    assert "You are on a break until" not in choose(pages, action="resume").text
    assert state(pages) == "active"


def test_the_settings_of_each_list_show_a_break_and_offer_one_where_something_is_sent(pages: Site) -> None:
    def join(name: str) -> None:
        with closing(sqlite3.connect(str(pages.engine.url.database))) as database, database:
            database.execute("INSERT INTO list (name, created_at) VALUES (?, 0)", [name])
            database.execute(
                "INSERT INTO subscription (subscriber_id, list_id, state, since, source)"
                " SELECT subscriber_id, (SELECT id FROM list WHERE name = ?), 'active', 0, ''"
                " FROM subscription WHERE id = ?",
                [name, pages.subscriptions()[0]],
            )

    join("events")
    text = choose(pages, action="pause", months="3").text
    assert (text.count("<p>You are on a break.</p>"), "Break of" in text) == (2, False)
    choose(pages, action="leave", list="readers")
    text = pages.get(pages.link(Purpose.PREFERENCES)).text  # from a mail of the list that was left
    assert "You are on a break until" in text
    join("friends")
    text = pages.get(pages.link(Purpose.PREFERENCES)).text
    assert ("End the break now" in text, "Break of 1 month" in text) == (True, True)
    assert "You are on a break" not in choose(pages, action="resume").text


def test_the_edition_that_one_has_is_not_offered(pages: Site) -> None:
    text = choose(pages, action="edition", edition="large").text
    assert "Now you get: Large print." in text
    assert 'value="large"' not in text


@pytest.mark.parametrize(
    "sent",
    [{}, {"action": "x"}, {"action": "leave", "list": "editors"}, {"action": "pause", "months": "-1"},
     {"action": "join", "list": "editors"}, {"action": "edition", "edition": "\0"}],
)  # fmt: skip
def test_a_button_that_there_is_not_does_nothing(pages: Site, sent: dict[str, str]) -> None:
    before = pages.rows()
    choose(pages, **sent)
    assert pages.rows() == before


# One's own data


def access(pages: Site) -> str:
    """The link that the letter would hold, once it was asked for."""
    assert "An email with a link is on its way to you." in choose(pages, action="access").text
    seconds = int(str(pages.one("SELECT expires_at FROM letter WHERE purpose = 'access'"))) // 10**6
    lasts = timedelta(seconds=seconds) - (pages.now - start.EPOCH)
    return f"/a/{pages.token(Purpose.ACCESS, lasts=lasts)}"


def test_ones_data_can_be_downloaded_once(pages: Site) -> None:
    link = access(pages)
    assert heading(pages.get(link)) == "Your data"
    answer = pages.post(link, {"action": "download"})
    assert answer.header("content-disposition") == 'attachment; filename="my-data.json"'
    assert KNOWN in json.dumps(json.loads(answer.body))
    assert pages.post(link, {"action": "download"}).status == 410
    assert pages.get(link).status == 410


@pytest.fixture
def change_link(pages: Site) -> str:
    """What the letter to a new address holds."""
    assert pages.post(access(pages), {"action": "change", "email": "other@example.org"}).status == 200
    seconds = int(str(pages.one("SELECT expires_at FROM letter WHERE purpose = 'change'"))) // 10**6
    return f"/c/{pages.token(Purpose.CHANGE, lasts=timedelta(seconds=seconds) - (pages.now - start.EPOCH))}"


CLICK = {"List-Unsubscribe": "One-Click"}
NOS = [
    (FORM, urlencode(CLICK).encode()),
    (MULTIPART, multipart(**CLICK)),
    (FORM, urlencode(CLICK | {"action": "change"}).encode()),
    ("", b""),
    ("text/plain", b"List-Unsubscribe=One-Click"),
    (FORM, b"list-unsubscribe=One-Click"),
    ("multipart/form-data", multipart(**CLICK)),
    (MULTIPART, multipart(**CLICK).replace(b"\r\n", b"\n")),
]


@pytest.mark.parametrize(("kind", "body"), NOS, ids=range(len(NOS)))
def test_what_is_not_our_own_button_in_the_letter_to_a_new_address_calls_the_change_off(
    pages: Site, change_link: str, kind: str, body: bytes
) -> None:
    for _ in range(2):
        answer = pages.ask("POST", change_link, body, {"content-type": kind} if kind else {})
        assert (answer.status, heading(answer)) == (200, "Nothing has changed")
    assert state(pages) == "active"
    assert pages.post(change_link, {"action": "change"}).status == 410
    assert pages.one("SELECT count(*) FROM subscriber WHERE address = 'other@example.org'") == 0


def test_it_is_never_too_late_to_say_no_to_a_new_address(pages: Site, change_link: str) -> None:
    pages.now += timedelta(days=2)
    assert pages.post(change_link, CLICK).status == 200
    assert pages.post(change_link, {"action": "change"}).status == 410


def test_after_a_new_address_was_confirmed_one_click_in_that_letter_leaves(
    pages: Site, change_link: str
) -> None:
    assert heading(pages.post(change_link, {"action": "change"})) == "Your address is changed"
    pages.now += timedelta(days=20)
    assert heading(pages.post(change_link, CLICK)) == "You are unsubscribed"
    assert state(pages) == "unsubscribed"


def test_an_access_link_ends_after_an_hour(pages: Site) -> None:
    link = access(pages)
    pages.now += timedelta(hours=1, seconds=1)
    assert pages.get(link).status == pages.post(link, {"action": "erase", "sure": "yes"}).status == 410
    assert "open your settings" in pages.get(link).text


def test_a_wrong_new_address_or_an_empty_box_does_not_use_the_link_up(pages: Site) -> None:
    link = access(pages)
    assert pages.post(link, {"action": "change", "email": "x@"}).status == 422
    assert pages.post(link, {"action": "erase"}).status == 422
    assert pages.post(link, {}).status == 422
    assert pages.get(link).status == 200
    assert pages.post(link, {"action": "change", "email": "other@example.org"}).status == 200
    assert pages.get(link).status == 410


def test_whoever_erases_themselves_is_gone_and_their_links_still_unsubscribe(pages: Site) -> None:
    link = access(pages)
    assert heading(pages.post(link, {"action": "erase", "sure": "yes"})) == "Your data is erased"
    assert KNOWN not in repr(pages.rows())
    for method in (pages.get, pages.post):
        assert method(pages.link(Purpose.UNSUBSCRIBE)).status == 200
        assert method(pages.link(Purpose.PREFERENCES)).status == 200


# Looking


def mailed(pages: Site) -> set[str]:
    """The links in all letters that have left by now."""
    wiring.office(pages.settings, pages.engine).work()
    folder = Path(str(pages.engine.url.database)).parent / "outbox" / "letters"
    texts = (
        quopri.decodestring(letter.read_bytes()).decode("utf-8", "replace") for letter in folder.glob("*.eml")
    )
    return {
        link for text in texts for link in re.findall(r"https://news\.example\.org(/[ac]/[\w-]{40})", text)
    }


def test_to_look_at_a_link_that_was_mailed_changes_nothing_and_does_not_use_it_up(pages: Site) -> None:
    """Mail programs and scanners follow every link. Each of these would do something if it was a POST."""
    pages.post("/subscribe", {"email": "fresh@example.org"})
    pages.post(pages.link(Purpose.PREFERENCES, 1), {"action": "access"})
    [confirm, other] = sorted(mailed(pages), reverse=True)
    assert pages.post(other, {"action": "change", "email": "moved@example.org"}).status == 200
    pages.post(pages.link(Purpose.PREFERENCES, 0), {"action": "access"})
    [change] = {link for link in mailed(pages) if link.startswith("/c/")} - {confirm}
    [access] = {link for link in mailed(pages) if link.startswith("/a/")} - {other}
    before = pages.rows()
    said = [b"", b"action=download", b"action=change&email=b@example.org", b"action=erase&sure=yes"]
    for link, method, sent in product((confirm, change, access), ("GET", "HEAD", "OPTIONS", "PUT"), said):
        answer = pages.ask(method, link, sent, {"content-type": FORM}, query=sent)
        assert answer.status == (200 if method in {"GET", "HEAD"} else 405)
        assert pages.rows() == before, (method, link[:3], sent)
    buttons = [{"action": "confirm"}, {"action": "change"}, {"action": "erase", "sure": "yes"}]
    headings = [
        heading(pages.post(link, sent)) for link, sent in zip((confirm, change, access), buttons, strict=True)
    ]
    assert headings == ["You are on the list", "Your address is changed", "Your data is erased"]


# Where a sign-up comes from: newsletter.toml names this machine as the proxy


def letters_after(pages: Site, peer: str, said_before: list[str]) -> int:
    """How many of these sign-ups get a letter: each with an ``X-Forwarded-For`` of its own."""
    pages.peer = peer
    for number, text in enumerate(said_before):
        headers = [("content-type", FORM), *(("x-forwarded-for", line) for line in text.split("\n") if line)]
        body = f"email=person{number}@example.net".encode()
        assert pages.ask("POST", "/subscribe", body, headers).status == 200
    return int(str(pages.one("SELECT count(*) FROM letter WHERE state = 'waiting'")))


MORE = joining.AT_ONCE + 3
ELSEWHERE = [f"203.0.{number}.9" for number in range(MORE)]


def test_a_network_that_asks_for_too_many_letters_gets_no_more_by_naming_others(pages: Site) -> None:
    assert letters_after(pages, "198.51.100.7", ELSEWHERE) == joining.AT_ONCE


def test_a_proxy_says_for_each_network_that_it_is_another(pages: Site) -> None:
    assert letters_after(pages, "127.0.0.1", ELSEWHERE) == MORE


@pytest.mark.parametrize("between", [", ", "\n"])
def test_what_a_client_writes_before_the_proxys_own_word_counts_for_nothing(
    pages: Site, between: str
) -> None:
    forged = [f"{made_up}{between}198.51.100.7" for made_up in ELSEWHERE]
    assert letters_after(pages, "127.0.0.1", forged) == joining.AT_ONCE


def test_behind_two_proxies_the_last_that_is_none_counts(tmp_path: Path) -> None:
    with site(tmp_path / "press", '[web]\nproxies = ["127.0.0.1", "10.0.0.0/8"]\n') as made:
        forged = [f"{made_up}, 198.51.100.7, 10.1.2.3" for made_up in ELSEWHERE]
        assert letters_after(made, "127.0.0.1", forged) == joining.AT_ONCE


# For machines


def test_the_numbers_for_prometheus_name_no_token_and_stay_on_this_side_of_the_proxy(pages: Site) -> None:
    pages.post(pages.link(Purpose.UNSUBSCRIBE))
    pages.get("/nowhere/reader@example.org")
    text = pages.get("/metrics", host="127.0.0.1:8080").text
    assert 'newsletter_http_requests_total{route="/u",status="200"} 1' in text
    assert 'newsletter_http_requests_total{route="other",status="404"} 1' in text
    assert 'newsletter_subscriptions{state="unsubscribed"} 1' in text
    assert 'newsletter_letters{state="waiting"} 0' in text
    assert "@" not in text


@pytest.mark.parametrize(
    "name", ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "Via"]
)
@pytest.mark.parametrize("value", ["203.0.113.9", "for=203.0.113.9", "1.1 proxy", ""])
def test_there_are_no_numbers_for_who_comes_through_a_proxy(pages: Site, name: str, value: str) -> None:
    for method in ("GET", "HEAD"):
        assert pages.ask(method, "/metrics").status == 200
        assert pages.ask(method, "/metrics", headers={name.lower(): value}).status == 404


def test_health_says_ok(pages: Site) -> None:
    assert pages.get("/healthz", host="anything").body == b"ok\n"


def test_a_database_that_can_not_be_used_is_a_503_with_a_page(pages: Site) -> None:
    pages.group.close()
    answer = pages.post(pages.link(Purpose.UNSUBSCRIBE))
    assert (answer.status, heading(answer)) == (503, "Something went wrong here")


# Languages and places


def test_the_pages_speak_the_publications_language(tmp_path: Path) -> None:
    with site(tmp_path / "press", newsletter='language = "de-AT"') as made:
        text = made.get("/subscribe").text
        assert '<html lang="de-AT" dir="ltr">' in text
        assert "Ihre E-Mail-Adresse" in text
        assert heading(made.get("/nichts")) == "Hier ist nichts"


def test_below_a_path_the_pages_answer_whether_the_proxy_takes_it_away_or_not(tmp_path: Path) -> None:
    with site(tmp_path / "press", newsletter='base_url = "https://ex.org/mail"') as made:
        for path in ("/subscribe", "/mail/subscribe"):
            answer = made.get(path, host="ex.org")
            assert answer.status == 200
            assert 'action="/mail/subscribe"' in answer.text
        assert made.get("/mail", host="ex.org").header("location") == "/mail/subscribe"
        assert made.get("/mailing", host="ex.org").status == 404

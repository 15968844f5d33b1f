"""The readers' pages in a real browser, in every state: rules of accessibility, small screens, large text, keyboard.

In German, whose words are longer.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from newsletter.tokens import Purpose
from tests.support import axe
from tests.support.browser import Browser, browser
from tests.support.publisher import crowd, publisher
from tests.support.served import serving
from tests.support.site import WEB
from tests.support.states import STATES, Walk

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.browser

TARGETS = """[...document.querySelectorAll("a, button, input:not([type=hidden]), label.tick")]
    .filter(e => !e.closest(".tick") || e.matches("label"))
    .map(e => [e.outerHTML.slice(0, 60), e.getBoundingClientRect()])
    .filter(([_, box]) => box.width && (box.height < 44 || box.width < 44)).map(([html]) => html)"""
TOO_WIDE = "document.documentElement.scrollWidth - window.innerWidth"
# What a reader's own style sheet may ask for (WCAG 2.2, 1.4.12), and everything still has to be there.
SPACED = """document.body.insertAdjacentHTML("beforeend", `<style>* {
    line-height: 1.5 !important; letter-spacing: .12em !important; word-spacing: .16em !important}</style>`)"""
REACHABLE = "document.querySelectorAll('a, button, input:not([type=hidden], [tabindex])').length"
FOCUS = """(() => {
    const [at, style] = [document.activeElement, getComputedStyle(document.activeElement)]
    const box = at.getBoundingClientRect()
    const seen = style.outlineStyle === "solid" && parseFloat(style.outlineWidth) >= 2 &&
        box.top > -1 && box.bottom < innerHeight + 1
    return [at.outerHTML, seen]
})()"""


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    folder = publisher(tmp_path_factory.mktemp("pages") / "press", WEB)
    folder.set(language="de")
    folder.import_people(crowd(50))
    with serving(folder) as running, browser() as tab:
        tab.call("Page.setBypassCSP", enabled=True)  # for axe only: another test looks at the policy itself
        yield Walk(tab, running)


@pytest.mark.parametrize("state", STATES)
def test_a_page_in_any_state_is_accessible_and_discreet(walk: Walk, state: str) -> None:
    tab = walk.tab
    tab.width(375, phone=True)
    tab.dark(False)
    STATES[state](walk)
    assert axe.faults(tab) == []
    tab.dark()
    assert axe.faults(tab, "color-contrast") == []
    assert tab.evaluate("document.documentElement.lang") == "de"
    assert tab.evaluate("document.querySelectorAll('h1').length") == 1
    assert "Research Digest" in tab.evaluate("document.title")
    assert "Multiple" not in tab.evaluate(
        "document.title"
    )  # what a history and a screen reader's first words hold
    for width, size in ((320, 100), (320, 200), (640, 200)):
        tab.width(width)
        tab.evaluate(f"document.documentElement.style.fontSize = '{size}%'")
        assert tab.evaluate(TOO_WIDE) <= 0, (width, size)
        assert tab.evaluate(TARGETS) == [], (width, size)
    reached = reached_by_keyboard(tab)
    assert len(reached) == tab.evaluate(REACHABLE)
    tab.evaluate(SPACED)
    assert tab.evaluate(TOO_WIDE) <= 0
    asked = {url.split("/")[2] for url in tab.requests}
    assert asked == {f"127.0.0.1:{walk.served.port}"}
    assert tab.call("Network.getCookies")["cookies"] == []


def reached_by_keyboard(tab: Browser) -> list[str]:
    """What Tab comes to, each of it once; the focus is always seen."""
    found: list[str] = []
    for _ in range(tab.evaluate(REACHABLE)):
        tab.key("Tab")
        html, seen = tab.evaluate(FOCUS)
        assert seen, html
        found.append(html)
    return found


def test_with_the_keyboard_leaving_comes_first(walk: Walk) -> None:
    tab = walk.tab
    walk.leave()
    first, *_ = reached_by_keyboard(tab)
    assert first == tab.evaluate("document.querySelector('button').outerHTML")
    assert "leave" in tab.evaluate("document.querySelector('button').form.outerHTML")


def test_a_mistake_is_told_beside_the_field_and_led_to(walk: Walk) -> None:
    tab = walk.tab
    STATES["subscribe-wrong-address"](walk)
    tab.key("Tab")
    tab.key("Enter")  # the first link of the page
    assert tab.evaluate("document.activeElement.id") == "email"
    assert tab.evaluate("document.activeElement.getAttribute('aria-invalid')") == "true"
    told = tab.evaluate(
        "document.getElementById(document.activeElement.getAttribute('aria-describedby')).textContent"
    )
    assert "name@example.org" in told


def test_a_page_is_one_request_and_its_policy_holds(walk: Walk) -> None:
    tab = walk.tab
    tab.call("Page.setBypassCSP", enabled=False)
    try:
        walk.leave()
        asked = [url for url in tab.requests if not url.endswith("/favicon.ico")]
        assert asked == [tab.evaluate("location.href")]
        assert tab.evaluate("getComputedStyle(document.querySelector('button.big')).minHeight") == "56px"
        tab.evaluate("document.body.insertAdjacentHTML('beforeend', '<p id=x style=\"color:#f00\">x</p>')")
        assert tab.evaluate("getComputedStyle(document.querySelector('#x')).color") != "rgb(255, 0, 0)"
    finally:
        tab.call("Page.setBypassCSP", enabled=True)


def test_the_field_for_programs_is_hidden_from_people_and_from_screen_readers(walk: Walk) -> None:
    tab = walk.tab
    walk.get("/subscribe")
    assert tab.evaluate("document.querySelector('#website').offsetParent === null")
    tree = tab.call("Accessibility.getFullAXTree")["nodes"]
    names = {node.get("name", {}).get("value") for node in tree if not node["ignored"]}
    assert "Ihre E-Mail-Adresse" in names
    assert "Lassen Sie dieses Feld leer" not in names


def test_everything_works_without_scripts(walk: Walk) -> None:
    tab = walk.tab
    tab.scripts(False)
    try:
        walk.get(walk.link(Purpose.UNSUBSCRIBE, walk.somebody()))
        button = json.dumps("input[value='3'] ~ button")
        with tab.arriving():
            tab.evaluate(f"document.querySelector({button}).click()")
        assert tab.evaluate("document.querySelector('h1').textContent") == "Gute Pause!"
    finally:
        tab.scripts(True)

"""The readers' pages in a real browser: rules of accessibility, small screens, large text, the keyboard, no script."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import axe_core_python
import pytest

from newsletter.tokens import Keyring, Purpose, make
from tests.support.browser import Browser, browser
from tests.support.publisher import A_KEY, crowd, publisher
from tests.support.served import Served, serving
from tests.support.site import WEB

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.browser

AXE = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
FOUND = "axe.run().then(r => r.violations.concat(r.incomplete).map(v => [v.id, v.nodes.map(n => n.html)]))"
TARGETS = """[...document.querySelectorAll("a, button, input:not([type=hidden]), label.tick")]
    .filter(e => !e.closest(".tick") || e.matches("label"))
    .map(e => [e.outerHTML.slice(0, 60), e.getBoundingClientRect()])
    .filter(([_, box]) => box.width && (box.height < 44 || box.width < 44)).map(([html]) => html)"""
TOO_WIDE = "document.documentElement.scrollWidth - window.innerWidth"
PAGES = ("subscribe", "leave", "preferences", "confirm", "change", "access", "missing")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = publisher(tmp_path_factory.mktemp("pages") / "press", WEB)
    folder.import_people(crowd(1))
    with serving(folder) as running:
        yield running


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    with browser() as opened:
        opened.call(
            "Page.setBypassCSP", enabled=True
        )  # for axe only: another test looks at the policy itself
        yield opened


def link(served: Served, page: str) -> str:
    [number, *_] = served.numbers()
    soon = datetime.now(UTC) + timedelta(hours=1)
    ring = Keyring.parse(f"1:{A_KEY}")
    if page == "access":
        return f"http://127.0.0.1:{served.port}{_access(served, number)}"
    paths = {
        "subscribe": "/subscribe",
        "leave": f"/u/{make(Purpose.UNSUBSCRIBE, number, ring)}",
        "preferences": f"/p/{make(Purpose.PREFERENCES, number, ring)}",
        "confirm": f"/c/{make(Purpose.CONFIRM, number, ring, expires=soon)}",
        "change": f"/c/{make(Purpose.CHANGE, number, ring, expires=soon)}",
        "missing": "/nothing",
    }
    return f"http://127.0.0.1:{served.port}{paths[page]}"


def _access(served: Served, number: int) -> str:
    """The link of a letter that has been asked for."""
    ring = Keyring.parse(f"1:{A_KEY}")
    asked = "SELECT expires_at FROM letter WHERE purpose = 'access'"
    with served.database() as conn:
        found = conn.execute(asked).fetchone()
        if found is None:
            served.ask("POST", f"/p/{make(Purpose.PREFERENCES, number, ring)}", "action=access")
            found = conn.execute(asked).fetchone()
    conn.close()
    expires = datetime.fromtimestamp(found[0] // 10**6, UTC)
    return f"/a/{make(Purpose.ACCESS, number, ring, expires=expires)}"


def press(tab: Browser, button: str) -> None:
    tab.call("Runtime.evaluate", expression=f"document.querySelector({json.dumps(button)}).click()")
    while tab._receive().get("method") != "Page.loadEventFired":
        pass


def faults(tab: Browser) -> object:
    tab.evaluate(f"{AXE}; 0")
    return tab.evaluate(FOUND)


@pytest.mark.parametrize("page", PAGES)
def test_pages_keep_the_rules_of_accessibility_in_light_and_dark(
    served: Served, tab: Browser, page: str
) -> None:
    for dark in (False, True):
        tab.width(375, phone=True)
        tab.dark(dark)
        tab.open(link(served, page))
        assert faults(tab) == []
        assert tab.evaluate("document.querySelectorAll('h1').length") == 1


def test_a_form_with_a_mistake_keeps_them_too(served: Served, tab: Browser) -> None:
    tab.open(link(served, "subscribe"))
    tab.evaluate("document.querySelector('#email').value = 'no address'")
    press(tab, "main button")
    assert tab.evaluate("document.querySelector('#email').getAttribute('aria-invalid')") == "true"
    assert "name@example.org" in tab.evaluate("document.querySelector('#email-error').textContent")
    assert faults(tab) == []


@pytest.mark.parametrize("page", PAGES)
def test_pages_fit_a_small_screen_and_large_text_and_fingers(served: Served, tab: Browser, page: str) -> None:
    for width, size in ((320, "100%"), (640, "200%"), (320, "200%")):
        tab.width(width)
        tab.open(link(served, page))
        tab.evaluate(f"document.documentElement.style.fontSize = '{size}'")
        assert tab.evaluate(TOO_WIDE) <= 0, (width, size)
        assert tab.evaluate(TARGETS) == [], (width, size)


def test_everything_can_be_reached_and_seen_with_the_keyboard(served: Served, tab: Browser) -> None:
    tab.width(640)
    tab.open(link(served, "leave"))
    wanted = tab.evaluate("document.querySelectorAll('a, button').length")
    seen = []
    for _ in range(wanted):
        for kind in ("keyDown", "keyUp"):
            tab.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        seen.append(
            tab.evaluate(
                "[document.activeElement.outerHTML, getComputedStyle(document.activeElement).outlineStyle]"
            )
        )
    assert "leave" in tab.evaluate("document.querySelector('button').form.outerHTML")
    assert seen[0][0] == tab.evaluate("document.querySelector('button').outerHTML")  # leaving comes first
    assert {outline for _, outline in seen} == {"solid"}


def test_a_page_is_one_request_and_its_policy_holds(served: Served, tab: Browser) -> None:
    tab.call("Page.setBypassCSP", enabled=False)
    try:
        tab.open(link(served, "leave"))
        asked = [url for url in tab.requests if not url.endswith("/favicon.ico")]
        assert asked == [link(served, "leave")]
        assert tab.evaluate("getComputedStyle(document.querySelector('button.big')).minHeight") == "56px"
        tab.evaluate("document.body.insertAdjacentHTML('beforeend', '<p id=x style=\"color:#f00\">x</p>')")
        assert tab.evaluate("getComputedStyle(document.querySelector('#x')).color") != "rgb(255, 0, 0)"
    finally:
        tab.call("Page.setBypassCSP", enabled=True)


def test_the_field_for_programs_is_hidden_from_people_and_from_screen_readers(
    served: Served, tab: Browser
) -> None:
    tab.open(link(served, "subscribe"))
    assert tab.evaluate("document.querySelector('#website').offsetParent === null")
    tree = tab.call("Accessibility.getFullAXTree")["nodes"]
    names = {node.get("name", {}).get("value") for node in tree if not node["ignored"]}
    assert "Your email address" in names
    assert "Leave this field empty" not in names


def test_everything_works_without_scripts(served: Served, tab: Browser) -> None:
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open(link(served, "leave"))
        press(tab, "input[value='3'] ~ button")
        assert tab.evaluate("document.querySelector('h1').textContent") == "Enjoy your break"
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)

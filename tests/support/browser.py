"""Headless Chromium over its DevTools protocol: open HTML, measure what it really looks like, take pictures.

No driver package is needed for the ten commands used here. Tests that use it carry ``@pytest.mark.browser`` and
are skipped, with the reason, where there is no Chromium.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from websockets.sync.client import ClientConnection, connect

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--remote-debugging-port=0",
)
DEADLINE = 60.0  # seconds; a cold start on a busy machine has taken ten
KEYS = {"Tab": (9, "Tab", ""), "Enter": (13, "Enter", "\r"), " ": (32, "Space", " ")}


class BrowserError(AssertionError):
    """The page threw, or the browser did not answer."""


class Browser:
    """One tab of a running Chromium."""

    def __init__(self, socket: ClientConnection, folder: Path) -> None:
        self._socket = socket
        self._folder = folder
        self._ids = count(1)
        self._files = count(1)
        self.requests: list[str] = []  # every URL the page asked for
        self._loads = 0
        for domain in ("Page", "Runtime", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One DevTools command and its result."""
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = self._receive()
            if message.get("id") == number:
                if "error" in message:
                    raise BrowserError(f"{method}: {message['error']['message']}")
                return dict(message["result"])

    def _receive(self) -> dict[str, Any]:
        message = dict(json.loads(self._socket.recv(timeout=DEADLINE)))
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        if message.get("method") == "Page.loadEventFired":
            self._loads += 1
        return message

    def open(self, page: str) -> None:
        """Show a page: a URL, or HTML as text. Returns when it is loaded."""
        if page.startswith(("http://", "https://", "file://")):
            url = page
        else:
            file = self._folder / f"{next(self._files)}.html"
            file.write_text(page, encoding="utf-8")
            url = file.as_uri()
        self.requests.clear()
        with self.arriving():
            self.call("Page.navigate", url=url)

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """For what leads to another page: goes on when that one is loaded."""
        before = self._loads
        yield
        while self._loads == before:
            self._receive()

    def evaluate(self, script: str) -> Any:
        """The JSON value of a JavaScript expression; promises are awaited."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise BrowserError(details.get("exception", {}).get("description") or details["text"])
        return answer["result"].get("value")

    def key(self, name: str) -> None:
        """A key is pressed and let go: Tab, Enter or a blank."""
        number, code, text = KEYS[name]
        pressed = {"key": name, "code": code, "windowsVirtualKeyCode": number}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **pressed)
        self.call("Input.dispatchKeyEvent", type="keyUp", **pressed)

    def type(self, text: str) -> None:
        """Into the field that has the focus."""
        self.call("Input.insertText", text=text)

    def scripts(self, on: bool) -> None:
        """Whether pages may run any; ``evaluate`` always may."""
        self.call("Emulation.setScriptExecutionDisabled", value=not on)

    def width(self, pixels: int, *, height: int = 900, phone: bool = False) -> None:
        """The size of the window; ``phone`` also obeys ``<meta name=viewport>`` as phones do."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=pixels,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )

    def dark(self, on: bool = True) -> None:
        """What ``prefers-color-scheme`` answers."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if on else "light"}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))


def chromium() -> str | None:
    """The path of an installed Chromium or Chrome."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


@contextmanager
def browser() -> Iterator[Browser]:
    """A fresh Chromium with a profile of its own, ended and removed afterwards; skips where there is none."""
    program = chromium()
    if program is None:
        pytest.skip("no Chromium found (Debian: apt-get install chromium)")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        profile = Path(folder) / "profile"
        process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with connect(_page_url(process, profile), max_size=None, open_timeout=DEADLINE) as socket:
                yield Browser(socket, Path(folder))
        finally:
            process.terminate()
            process.wait(timeout=DEADLINE)


def _page_url(process: subprocess.Popen[bytes], profile: Path) -> str:
    """The address of the first tab; Chromium writes its port into the profile once it listens."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BrowserError(f"Chromium ended with {process.returncode} before it listened")
        try:
            port = (profile / "DevToolsActivePort").read_text().split("\n")[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=DEADLINE) as answer:
                tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
            if tabs:
                return str(tabs[0]["webSocketDebuggerUrl"])
        except (OSError, ValueError):
            pass
        time.sleep(0.05)
    raise BrowserError(f"Chromium did not listen within {DEADLINE:.0f} seconds")

"""What stands before every route: limits for what comes in, headers for what goes out, and an answer in any case.

No route sets a cookie and none reads one. So there is nothing another website could use behind a reader's back
(cross-site request forgery), forms need no secret against it, and sign-up may come from any website's form.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from newsletter.errors import where

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from newsletter.web.counting import Counts

    Problem = Callable[[int], Response]
    """Status → the page that tells a reader."""

LARGEST_BODY = 16 * 1024  # bytes
BODY_SECONDS = 10.0  # for all of it
ANY_HOST = {"/healthz", "/metrics"}  # asked for by machines, by whatever name these know ours

HEADERS = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
OPEN = {"/", "/subscribe", "/robots.txt"}  # what search engines may show

logger = logging.getLogger(__name__)


def policy(style: str) -> str:
    """The Content-Security-Policy: our own style sheet and our own forms, and nothing else."""
    return (
        f"default-src 'none'; style-src {style}; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


class Guarded:
    """Puts the headers on every answer, counts it, and turns an error of ours into a page without its words.

    What an exception says may hold an address, and a path holds a token: neither is logged.
    """

    def __init__(self, app: ASGIApp, *, headers: Mapping[str, str], counts: Counts, problem: Problem) -> None:
        self.app, self.counts, self.problem = app, counts, problem
        self.headers = [(name.encode(), value.encode()) for name, value in {**HEADERS, **headers}.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *self._missing(scope["path"], message)]
                self.counts.add(scope["path"], status, time.perf_counter() - began)
            await send(message)

        try:
            await self.app(scope, receive, guarded)
        except Exception as error:
            logger.error("%s", where(error))  # noqa: TRY400 - its own words stay unsaid
            if not status:
                await self.problem(500)(scope, receive, guarded)

    def _missing(self, path: str, message: Message) -> list[tuple[bytes, bytes]]:
        known = {name for name, _ in message["headers"]}
        hidden = [] if path in OPEN else [(b"x-robots-tag", b"noindex, nofollow")]
        return [pair for pair in (*self.headers, *hidden) if pair[0] not in known]


class Below:
    """The routes below a path, where ``base_url`` has one; proxies may pass it on or take it away."""

    def __init__(self, app: ASGIApp, *, root: str) -> None:
        self.app, self.root = app, root

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if self.root and f"{path}/".startswith(f"{self.root}/"):
            scope = {**scope, "path": path.removeprefix(self.root) or "/"}
        await self.app(scope, receive, send)


class Hosts:
    """Answers to the name in ``base_url`` and to this machine itself, and to no other."""

    def __init__(self, app: ASGIApp, *, hosts: Collection[str], problem: Problem) -> None:
        self.app, self.hosts, self.problem = app, hosts, problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in ANY_HOST and _host(scope) not in self.hosts:
            await self.problem(400)(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _host(scope: Scope) -> str:
    named = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1")
    name, _, port = named.lower().rpartition(":")
    return name if port.isdecimal() and name else named.lower()


class Bounded:
    """Reads the whole body before anything else looks at it: a small one, in a short time."""

    def __init__(self, app: ASGIApp, *, problem: Problem, seconds: float = BODY_SECONDS) -> None:
        self.app, self.problem, self.seconds = app, problem, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = b""
        status = 413 if _announced(scope) > LARGEST_BODY else 0
        if not status:
            try:
                async with asyncio.timeout(self.seconds):
                    body = await _read(receive)
            except TimeoutError:
                status = 408
            except EOFError:
                return  # nobody is left to answer
        if status or len(body) > LARGEST_BODY:
            page = self.problem(status or 413)
            page.headers["connection"] = "close"  # what else they send is not read
            await page(scope, receive, send)
            return
        await self.app(scope, _again(body, receive), send)


def _announced(scope: Scope) -> int:
    """The Content-Length; h11 has made sure that it is a number."""
    return int(next((value for name, value in scope["headers"] if name == b"content-length"), b"0"))


async def _read(receive: Receive) -> bytes:
    """Up to one byte more than there may be. Raises ``EOFError`` when the other side is gone."""
    body = bytearray()
    more = True
    while more and len(body) <= LARGEST_BODY:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise EOFError
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    told = False

    async def again() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again

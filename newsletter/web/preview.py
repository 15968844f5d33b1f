"""The preview: an issue in the browser while it is written, reloaded at every save.

What a mail may do here is what it may do in an inbox: show itself. It stands in a sandboxed frame without scripts,
nothing is loaded from elsewhere, and another site can't reach this server through the browser: only requests to
localhost by name are answered, so that a hostile name that resolves to 127.0.0.1 (DNS rebinding) gets nothing.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from newsletter.errors import NewsletterError
from newsletter.model import Edition
from newsletter.web.studio import Studio
from newsletter.web.watching import watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HERE = Path(__file__).parent
HOSTS = ["127.0.0.1", "localhost", "[::1]"]

VIEWS = {"both": "Both", "phone": "Phone", "desktop": "Desktop", "text": "Text"}
SCHEMES = {"light": "Light", "dark": "Dark"}
PRINTS = {"standard": "Standard", "large": "Large print"}

PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; frame-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# allow-same-origin lets the page measure the frame's height; without allow-scripts nothing in it can use that.
SANDBOX = "allow-same-origin allow-popups allow-popups-to-escape-sandbox"
MAIL_POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; form-action 'none'; frame-ancestors 'self'; "
    f"sandbox {SANDBOX}"
)
HEADERS = {
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

pages = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def create_app(project: Path, slug: str | None = None) -> Starlette:
    """The preview of ``project``; ``/`` shows ``slug``, or else the newest issue."""
    studio = Studio(project)
    preview = Preview(studio, slug)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        stop = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(watch, project, studio.changed, stop)
            yield
            stop.set()

    app = Starlette(
        routes=[
            Route("/", preview.page),
            Route("/events", preview.events),
            Route("/mail/{slug}", preview.mail),
            Route("/pictures/{slug}/{file}", preview.picture),
            Mount("/static", StaticFiles(directory=HERE / "static")),
            Route("/{slug}", preview.page),
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False),
            Middleware(_Guarded),
        ],
        lifespan=lifespan,
    )
    app.state.studio = studio
    return app


class _Guarded:
    """Puts the guarding headers on every answer that does not bring its own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                known = {name for name, _ in message["headers"]}
                wanted = {**HEADERS, "content-security-policy": PAGE_POLICY}
                pairs = [(name.encode(), value.encode()) for name, value in wanted.items()]
                message["headers"] = [*message["headers"], *(pair for pair in pairs if pair[0] not in known)]
            await send(message)

        await self.app(scope, receive, guarded)


class Preview:
    """The answers."""

    def __init__(self, studio: Studio, slug: str | None) -> None:
        self.studio = studio
        self.slug = slug

    async def page(self, request: Request) -> Response:
        """An issue with everything around it; an error in its place if it can't be shown."""
        slug = request.path_params.get("slug") or self.slug or ""
        shown: dict[str, object] = {
            "view": _choice(request, "view", VIEWS),
            "colours": _choice(request, "colours", SCHEMES),
            "print": _choice(request, "print", PRINTS),
            "views": VIEWS,
            "schemes": SCHEMES,
            "prints": PRINTS,
            "sandbox": SANDBOX,
            "version": self.studio.version,  # taken before compiling: a save in between must reload this page
        }
        slugs = self.studio.slugs()
        slug = slug or next(iter(slugs), "")
        shown |= {"slug": slug, "slugs": slugs}
        if slug not in slugs:
            return _render("missing.html.j2", shown, status=404)
        try:
            sheet = await self.studio.sheet(slug, _edition(request))
        except NewsletterError as error:
            return _render("error.html.j2", {**shown, "error": error}, status=422)
        return _render("issue.html.j2", {**shown, "sheet": sheet})

    async def mail(self, request: Request) -> Response:
        """The html part alone, for the frames."""
        try:
            sheet = await self.studio.sheet(request.path_params["slug"], _edition(request))
        except NewsletterError as error:
            return Response(str(error), status_code=422, media_type="text/plain")
        html = sheet.html(_choice(request, "colours", SCHEMES))
        return HTMLResponse(html, headers={"content-security-policy": MAIL_POLICY})

    async def picture(self, request: Request) -> Response:
        """A picture of an issue."""
        try:
            sheet = await self.studio.sheet(request.path_params["slug"])
        except NewsletterError:
            return Response(status_code=404)
        picture = sheet.picture(request.path_params["file"])
        return Response(picture.data, media_type=picture.media_type) if picture else Response(status_code=404)

    async def events(self, _: Request) -> Response:
        """Server-sent events: the version now, and again after every save."""
        return StreamingResponse(self._versions(), media_type="text/event-stream")

    async def _versions(self) -> AsyncIterator[str]:
        while not self.studio.closing:
            yield f"data: {self.studio.version}\n\n"
            await self.studio.next_change()


def _choice(request: Request, name: str, known: Mapping[str, str]) -> str:
    wanted = request.query_params.get(name, "")
    return wanted if wanted in known else next(iter(known))


def _edition(request: Request) -> Edition:
    return Edition(_choice(request, "print", PRINTS))


def _render(template: str, shown: Mapping[str, object], *, status: int = 200) -> HTMLResponse:
    return HTMLResponse(pages.get_template(template).render(shown), status_code=status)

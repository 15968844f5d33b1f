"""The pages that readers see: sign up, confirm, leave, choose. Only a POST changes anything, on any route.

Whoever has a mail has its links, and mails are forwarded. So these pages show no name and no address; whoever wants
their data gets a link by mail, at the address that we have.
"""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from newsletter import addresses, tokens, wiring
from newsletter.errors import DatabaseError
from newsletter.headers import CONTROL
from newsletter.model import Edition, SubscriptionState
from newsletter.personal_data import CALLED_OFF, GONE, LEFT, TAKEN
from newsletter.tokens import BadToken, Expired, Purpose
from newsletter.web import counting, forms, guard, start, style
from newsletter.web.deeds import LEAVE, PREFERENCES
from newsletter.web.origin import client, networks
from newsletter.web.pages import Pages

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from starlette.requests import Request

    from newsletter.config import Settings
    from newsletter.web.counting import Counts
    from newsletter.web.deeds import Deeds

LOCAL = ("127.0.0.1", "localhost", "[::1]")  # to look at the pages before there is a proxy
MONTHS = (1, 3, 6)
LONGEST_ADDRESS, LONGEST_NAME = 320, 100  # characters
SOURCE = re.compile(r"[a-z0-9-]{1,40}")
SHOWN = {
    SubscriptionState.ACTIVE: "on",
    SubscriptionState.PAUSED: "paused",
    SubscriptionState.PENDING: "waiting",
}
FORWARDED = ("x-forwarded-", "forwarded", "via")  # how the names of headers begin that proxies add

logger = logging.getLogger(__name__)


def create_app(settings: Settings, deeds: Deeds, counts: Counts) -> Starlette:
    """All routes. They answer under the name in ``base_url``, and under the path in it if it has one."""
    readers = Readers(settings, deeds, counts)
    own = urlsplit(settings.newsletter.base_url)
    headers = {"content-security-policy": guard.policy(style.csp_hash(readers.pages.sheet))}
    problem = readers.pages.problem
    app = Starlette(
        routes=readers.routes(),
        middleware=[
            Middleware(guard.Below, root=own.path),
            Middleware(guard.Guarded, headers=headers, counts=counts, problem=problem),
            Middleware(guard.Hosts, hosts={own.hostname or "", *LOCAL}, problem=problem),
            Middleware(guard.Bounded, problem=problem),
        ],
        exception_handlers={
            HTTPException: readers.failed,
            DatabaseError: readers.no_database,
            Expired: readers.expired,
            BadToken: readers.invalid,
        },
    )
    # Starlette would send /u/TOKEN/ to http://HOST/u/TOKEN: a link in clear text, under any name that was asked for.
    app.router.redirect_slashes = False
    return app


class Readers:
    """The answers."""

    def __init__(self, settings: Settings, deeds: Deeds, counts: Counts) -> None:
        self.settings, self.deeds, self.counts = settings, deeds, counts
        self.ring = wiring.keyring(settings)
        self.lists = settings.public_lists
        self.proxies = networks(settings.web.proxies)
        self.publication = wiring.publication(settings)
        self.root = urlsplit(settings.newsletter.base_url).path
        self.pages = Pages(
            wiring.texts(settings),
            wiring.theme(settings),
            self.publication,
            root=self.root,
            privacy_url=settings.web.privacy_url,
        )
        self.words = self.pages.words
        self._asked, self._left = self._asked_page(), self._left_page()

    def routes(self) -> list[Route]:
        """Every route that there is."""
        both = ["GET", "POST"]
        return [
            Route("/", self.front),
            Route("/subscribe", self.subscribe, methods=both),
            Route("/c/{token}", self.confirm, methods=both),
            Route("/u/{token}", self.leave, methods=both),
            Route("/p/{token}", self.preferences, methods=both),
            Route("/a/{token}", self.access, methods=both),
            Route("/healthz", self.health),
            Route("/metrics", self.metrics),
            Route("/robots.txt", self.robots),
            Route("/favicon.ico", self.icon),
        ]

    # Signing up

    async def front(self, _: Request) -> Response:
        """To the form."""
        return RedirectResponse(f"{self.root}/subscribe", status_code=303)

    async def subscribe(self, request: Request) -> Response:
        """The form; a POST may come from any website. What it answers does not tell who is on the list."""
        if request.method != "POST":
            return self._form({"list": request.query_params.get("list", "")})
        sent = await _fields(request)
        age = start.age(sent.get("started", ""), self.ring, self.deeds.clock())
        if sent.get("website"):  # no person sees this field
            return _copy(self._asked)
        try:
            address = _address(sent.get("email", ""))
        except ValueError:
            missing = not sent.get("email", "").strip()
            wrong = self.words("subscribe.no_address" if missing else "subscribe.wrong_address")
            return self._form(sent, {"email": wrong})
        if age is not None and age < start.SHORTEST:
            return self._form(sent, too_fast=True)
        await self.deeds.sign_up(
            address,
            name=_plain(sent.get("name", ""))[:LONGEST_NAME],
            list=self._list(sent.get("list", "")),
            form="website" if age is None else "page",
            source=sent["source"] if SOURCE.fullmatch(sent.get("source", "")) else "",
            network=client(request, self.proxies),
        )
        return _copy(self._asked)

    def _form(
        self, sent: Mapping[str, str], found: Mapping[str, str] | None = None, *, too_fast: bool = False
    ) -> HTMLResponse:
        """With what was sent before. The time of the first form stays: its second try is not too fast."""
        now = self.deeds.clock()
        kept = sent.get("started", "")
        return self.pages.show(
            "subscribe",
            self.words("subscribe.heading", publication=self.publication.name),
            status=422 if found or too_fast else 200,
            found=found or {},
            too_fast=too_fast,
            email=_plain(sent.get("email", ""))[:LONGEST_ADDRESS],
            name=_plain(sent.get("name", ""))[:LONGEST_NAME],
            list=self._list(sent.get("list", "")),
            started=kept if start.age(kept, self.ring, now) is not None else start.stamp(now, self.ring),
            consent=self.deeds.consent,
        )

    def _list(self, wanted: str) -> str:
        return wanted if wanted in self.lists else next(iter(self.lists))

    def _asked_page(self) -> HTMLResponse:
        return self.pages.message("asked", [self.words("asked.text"), self.words("asked.nothing")])

    async def confirm(self, request: Request) -> Response:
        """The question that a sign-up's letter leads to, or that about a new address."""
        try:
            subscription, expires = self._dated(request, Purpose.CONFIRM)
        except Expired:
            raise
        except BadToken:
            return await self._change(request)
        if request.method != "POST":
            heading = self.words("confirm.heading", publication=self.publication.name)
            return self._question(heading, self.deeds.consent, "confirm")
        if not await self.deeds.confirm(subscription, expires):
            return self._too_old()
        links = {self._settings(subscription): self.words("settings")}
        return self.pages.message("confirmed", [self.words("confirmed.text")], links)

    async def _change(self, request: Request) -> Response:
        """Only our own button says yes: any other POST is a mail program's, and its "unsubscribe" means no."""
        sent = await _fields_if_any(request) if request.method == "POST" else {}
        if request.method == "POST" and (sent.get("action") != "change" or "List-Unsubscribe" in sent):
            return await self._refuse_change(request)
        subscription, expires = self._dated(request, Purpose.CHANGE)
        if request.method != "POST":
            return self._question(self.words("change.heading"), self.words("change.text"), "change")
        found = await self.deeds.change(subscription, expires)
        if found == GONE:
            return self._too_old(about_data=True)
        if found == TAKEN:
            return self.pages.message("taken", [self.words("taken.text")])
        return self.pages.message("changed", [self.words("changed.text")])

    async def _refuse_change(self, request: Request) -> Response:
        """It is never too late for that: a mail program's "unsubscribe" is pressed weeks later too."""
        token = request.path_params["token"]
        subscription, expires = tokens.read_dated(token, Purpose.CHANGE, self.ring, now=None)
        found = await self.deeds.refuse_change(subscription, expires)
        if found == LEFT:
            return _copy(self._left)
        if found == CALLED_OFF:
            return self.pages.message("called_off", [self.words("called_off.text")])
        return self._too_old(about_data=True)

    def _question(self, heading: str, question: str, about: str) -> HTMLResponse:
        button, not_you = self.words(f"{about}.button"), self.words(f"{about}.not_you")
        return self.pages.show(
            "confirm", heading, question=question, button=button, action=about, not_you=not_you
        )

    # Leaving

    async def leave(self, request: Request) -> Response:
        """One click of a mail program (RFC 8058), or the page with the button. A POST that says nothing else leaves."""
        subscription = self._undated(request, Purpose.UNSUBSCRIBE)
        if request.method != "POST":
            return await self._leave_page(subscription)
        sent = await _fields_if_any(request)
        one_click, action = "List-Unsubscribe" in sent, sent.get("action")
        if not one_click and action == "pause":
            return await self._pause(subscription, sent)
        if not one_click and action == "edition":
            return await self._choose_edition(subscription, sent)
        await self.deeds.leave(subscription, one_click=one_click)
        return _copy(self._left)

    async def _leave_page(self, subscription: int, status: int = 200) -> Response:
        standing = await self.deeds.standing(subscription)
        if standing is None or standing.state not in SHOWN:
            return _copy(self._left)
        return self.pages.show(
            "leave",
            self.words("leave.heading"),
            status=status,
            months=MONTHS,
            all_editions=[each.value for each in Edition],
            edition=standing.edition,
            settings=self._settings(subscription),
        )

    async def _pause(self, subscription: int, sent: Mapping[str, str]) -> Response:
        months = sent.get("months", "")
        if months not in map(str, MONTHS):
            return await self._leave_page(subscription, status=422)
        until = await self.deeds.pause(subscription, int(months), LEAVE)
        if until is None:
            return _copy(self._left)
        links = {self._settings(subscription): self.words("settings")}
        return self.pages.message("resting", [self.words("resting.text", date=self._date(until))], links)

    async def _choose_edition(self, subscription: int, sent: Mapping[str, str]) -> Response:
        wanted = sent.get("edition", "")
        if wanted not in set(Edition):
            return await self._leave_page(subscription, status=422)
        if not await self.deeds.choose_edition(subscription, Edition(wanted), LEAVE):
            return _copy(self._left)
        chosen = self.words("chosen.text", edition=self.words(f"edition_{wanted}"))
        return self.pages.message("chosen", [chosen], {self._settings(subscription): self.words("settings")})

    def _left_page(self) -> HTMLResponse:
        said = [self.words("left.text", publication=self.publication.name), self.words("left.again")]
        return self.pages.message("left", said, {f"{self.root}/subscribe": self.words("left.link")})

    # Choosing

    async def preferences(self, request: Request) -> Response:
        """Lists, edition, pause, and the way to one's own data."""
        subscription = self._undated(request, Purpose.PREFERENCES)
        notice = ""
        if request.method == "POST":
            notice = await self._act(subscription, await _fields(request))
        standing = await self.deeds.standing(subscription)
        if standing is None or standing.erased:
            return _copy(self._left)
        states = {place.list: SHOWN.get(place.state, "off") for place in standing.lists}
        lists = [
            {"name": name, "title": title, "state": states.get(name, "off")}
            for name, title in self.lists.items()
        ]
        return self.pages.show(
            "preferences",
            self.words("preferences.heading"),
            notice=notice,
            lists=lists,
            active=any(place.state == SubscriptionState.ACTIVE for place in standing.lists),
            paused_until=self._date(standing.paused_until) if standing.paused_until else "",
            months=MONTHS,
            all_editions=[each.value for each in Edition],
            edition=standing.edition,
        )

    async def _act(self, subscription: int, sent: Mapping[str, str]) -> str:
        """Does what one button asks for; returns what to say. An unknown button does nothing."""
        name = sent.get("list", "")
        match sent.get("action"):
            case "leave" if name in self.lists:
                await self.deeds.leave_list(subscription, name)
            case "join" if name in self.lists:
                asked = await self.deeds.join_list(subscription, name)
                return self.words("preferences.asked" if asked else "preferences.too_many")
            case "pause" if sent.get("months", "") in map(str, MONTHS):
                await self.deeds.pause(subscription, int(sent["months"]), PREFERENCES)
            case "resume":
                await self.deeds.resume(subscription)
            case "edition" if sent.get("edition") in set(Edition):
                await self.deeds.choose_edition(subscription, Edition(sent["edition"]), PREFERENCES)
            case "access":
                asked = await self.deeds.ask_access(subscription)
                return self.words("preferences.sent" if asked else "preferences.too_many")
            case _:
                return ""
        return self.words("preferences.saved")

    async def access(self, request: Request) -> Response:
        """One's own data, behind a link that was mailed a moment ago. Each button uses it up."""
        subscription, expires = self._dated(request, Purpose.ACCESS)
        if request.method != "POST":
            if not await self.deeds.access_is_open(subscription, expires):
                return self._too_old(about_data=True)
            return self._access_page({})
        sent = await _fields(request)
        match sent.get("action"):
            case "download":
                return await self._download(subscription, expires)
            case "change":
                return await self._ask_change(subscription, expires, sent)
            case "erase":
                return await self._erase(subscription, expires, sent)
        return self._access_page({}, status=422)

    def _access_page(self, found: Mapping[str, str], *, email: str = "", status: int = 200) -> HTMLResponse:
        heading = self.words("access.heading")
        return self.pages.show("access", heading, status=status, found=found, email=email)

    async def _download(self, subscription: int, expires: datetime) -> Response:
        found = await self.deeds.download(subscription, expires)
        if found is None:
            return self._too_old(about_data=True)
        text = json.dumps(found, indent=2, ensure_ascii=False, default=str)
        named = {"content-disposition": 'attachment; filename="my-data.json"'}
        return Response(text, media_type="application/json", headers=named)

    async def _ask_change(self, subscription: int, expires: datetime, sent: Mapping[str, str]) -> Response:
        given = sent.get("email", "")
        try:
            address = _address(given)
        except ValueError:
            wrong = self.words("subscribe.wrong_address" if given.strip() else "subscribe.no_address")
            return self._access_page({"email": wrong}, email=_plain(given)[:LONGEST_ADDRESS], status=422)
        if not await self.deeds.ask_change(subscription, expires, address):
            return self._too_old(about_data=True)
        return self.pages.message("change_asked", [self.words("change_asked.text")])

    async def _erase(self, subscription: int, expires: datetime, sent: Mapping[str, str]) -> Response:
        if sent.get("sure") != "yes":
            return self._access_page({"sure": self.words("access.erase_unsure")}, status=422)
        if not await self.deeds.erase(subscription, expires):
            return self._too_old(about_data=True)
        return self.pages.message("erased", [self.words("erased.text")])

    # For machines

    async def health(self, _: Request) -> Response:
        """Whether pages can be served; a database that can't be read is a 503."""
        await self.deeds.look()
        return PlainTextResponse("ok\n")

    async def metrics(self, request: Request) -> Response:
        """For Prometheus, on this side of the proxy only."""
        if any(name.startswith(FORWARDED) for name in request.headers):
            raise HTTPException(404)
        lines = [*self.counts.lines(), *await self._gauges()]
        return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")

    async def _gauges(self) -> list[str]:
        letters, subscriptions = await self.deeds.tallies()
        return [
            *counting.gauges("letters", "Mails to single people, by state.", letters),
            *counting.gauges("subscriptions", "Places on lists, by state.", subscriptions),
        ]

    async def robots(self, _: Request) -> Response:
        """All may be fetched: only so do search engines see that pages behind tokens are not to be shown."""
        return PlainTextResponse("User-agent: *\nDisallow:\n")

    async def icon(self, _: Request) -> Response:
        """None; browsers ask for it in any case."""
        return Response(status_code=204)

    # What went wrong

    async def failed(self, _: Request, error: Exception) -> Response:
        """404, 405 and 400 as pages."""
        assert isinstance(error, HTTPException)
        page = self.pages.problem(error.status_code)
        page.headers.update(error.headers or {})
        return page

    async def no_database(self, _: Request, error: Exception) -> Response:
        """Locked for long, full, or gone: for the operator to mend."""
        logger.error("%s", error)
        return self.pages.problem(503)

    async def expired(self, request: Request, _: Exception) -> Response:
        """A link of ours that is too old."""
        return self._too_old(about_data=request.scope["path"].startswith("/a/"))

    async def invalid(self, _: Request, __: Exception) -> Response:
        """No link of ours, and how else to leave."""
        write = {f"mailto:{self.publication.reply_to}": self.publication.reply_to}
        said = [self.words("invalid.text"), self.words("invalid.leave")]
        return self.pages.message("invalid", said, write, status=404)

    def _too_old(self, *, about_data: bool = False) -> Response:
        said = [self.words("expired.text"), self.words("expired.settings" if about_data else "expired.again")]
        links = {} if about_data else {f"{self.root}/subscribe": self.words("subscribe.button")}
        return self.pages.message("expired", said, links, status=410)

    # Links

    def _undated(self, request: Request, purpose: Purpose) -> int:
        return tokens.read(request.path_params["token"], purpose, self.ring, now=self.deeds.clock())

    def _dated(self, request: Request, purpose: Purpose) -> tuple[int, datetime]:
        return tokens.read_dated(request.path_params["token"], purpose, self.ring, now=self.deeds.clock())

    def _settings(self, subscription: int) -> str:
        return f"{self.root}/p/{tokens.make(Purpose.PREFERENCES, subscription, self.ring)}"

    def _date(self, moment: datetime) -> str:
        return self.pages.texts.date(moment.date())


async def _fields_if_any(request: Request) -> Mapping[str, str]:
    try:
        return await forms.fields(request)
    except forms.Unreadable:
        return {}


async def _fields(request: Request) -> Mapping[str, str]:
    try:
        return await forms.fields(request)
    except forms.Unreadable:
        raise HTTPException(400) from None


def _address(text: str) -> str:
    """Raises ``ValueError``."""
    if len(text) > LONGEST_ADDRESS:
        raise ValueError("longer than an address may be")
    return addresses.parse(text)


def _plain(text: str) -> str:
    return CONTROL.sub("", text).strip()


def _copy(page: HTMLResponse) -> Response:
    return Response(page.body, page.status_code, media_type="text/html")

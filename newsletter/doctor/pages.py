"""Whether readers find their pages at ``base_url``: above all, whether they can leave (RFC 8058)."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from newsletter.doctor.http import NoAddress, NoAnswer, ask, certificate
from newsletter.doctor.machine import compared
from newsletter.doctor.report import error, ok, unseen, warning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from newsletter.doctor.http import Answer, Lookup
    from newsletter.doctor.report import Result

PAGES, LEAVING, CLICK, HTTP = "pages", "unsubscribe page", "one-click unsubscribe", "plain http"
START = "Start `newsletter serve` behind a proxy: docs/serving.md."
ONE_CLICK = b"List-Unsubscribe=One-Click"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
KEYS = "Does `newsletter serve` run there, from this folder and with these NEWSLETTER_SECRET_KEYS?"


def look(base_url: str, link: str, lookup: Lookup, clock: Callable[[], datetime]) -> Iterator[Result]:
    """``link`` is an unsubscribe link that is signed and nobody's: the POST finds nobody and changes nothing."""
    try:
        answer = ask("GET", f"{base_url}/healthz", lookup)
    except NoAnswer as why:
        yield error(PAGES, f"{base_url} can't be reached: {why}.", START)
        yield from (unseen(name, "nothing answers at base_url.") for name in (LEAVING, CLICK))
        return
    now = clock()
    yield _healthy(base_url, answer)
    yield certificate(PAGES, answer.expires, now)
    yield _clock(answer, now)
    for name, check in ((LEAVING, _leaving), (CLICK, _click)):
        try:
            yield check(link, lookup)
        except NoAnswer as why:
            yield error(name, f"the link got no answer: {why}.", START)


def _healthy(base_url: str, answer: Answer) -> Result:
    if answer.status == 200 and answer.body.strip() == b"ok":
        return ok(PAGES, f"{base_url}/healthz answers ok.")
    if 300 <= answer.status < 400:
        return error(
            PAGES,
            f"{base_url} leads elsewhere ({answer.status}), so mail programs can't unsubscribe anybody (RFC 8058).",
            "Set newsletter.base_url to where it leads.",
        )
    return error(PAGES, f"{base_url}/healthz answers {answer.status}, and not our ok.", START)


def _clock(answer: Answer, now: datetime) -> Result:
    try:
        theirs = parsedate_to_datetime(answer.headers.get("Date", ""))
        return compared(theirs, now, "the server of the pages")
    except (ValueError, TypeError):  # TypeError: a date without a zone
        return unseen("clock", "the server of the pages does not say the time.")


def _leaving(link: str, lookup: Lookup) -> Result:
    """The page, and as a counterproof the same link with another signature, which must open nothing."""
    answer = ask("GET", link, lookup)
    if answer.status != 200:
        return error(LEAVING, f"a link of ours gets {answer.status}.", KEYS)
    if answer.headers.get("Referrer-Policy") != "no-referrer":
        return error(
            LEAVING,
            "the answer has no `Referrer-Policy: no-referrer`, so it is not ours, or a proxy took it out.",
            KEYS,
        )
    if answer.headers.get("Set-Cookie"):
        return error(LEAVING, "something between sets a cookie.", "Turn it off in the proxy: ours sets none.")
    if ask("GET", forged(link), lookup).status != 404:
        return error(LEAVING, "a link that we never signed opens a page too.", KEYS)
    return ok(LEAVING, "a link opens our page, a forged one does not.")


def forged(link: str) -> str:
    """The same link with one letter of its signature changed, and not the last one, some of whose bits mean nothing."""
    place, letter, end = link[:-8], link[-8], link[-7:]
    return f"{place}{'B' if letter == 'A' else 'A'}{end}"


def _click(link: str, lookup: Lookup) -> Result:
    answer = ask("POST", link, lookup, headers=FORM, body=ONE_CLICK)
    if answer.status == 200 and not answer.headers.get("Set-Cookie"):
        return ok(CLICK, "a POST is answered with 200 at once.")
    return error(
        CLICK,
        f"a POST is answered with {answer.status}, and mail programs take only 200 (RFC 8058, section 3.1).",
        "Let the proxy pass POST on, without a redirect, a login or a cookie.",
    )


def look_for_plain_http(base_url: str, lookup: Lookup, port: int = 80) -> Iterator[Result]:
    """A link in clear text would show its reader's token on the way."""
    place = urlsplit(base_url)
    if place.port not in {None, 443}:
        yield unseen(HTTP, "base_url names a port, which speaks https only.")
        return
    url = f"http://{place.hostname}:{port}" if port != 80 else f"http://{place.hostname}"
    try:
        answer = ask("GET", f"{url}{place.path}/healthz", lookup)
    except NoAddress as why:
        yield unseen(HTTP, f"{place.hostname} can't be asked: {why}.")
        return
    except NoAnswer as why:
        yield ok(HTTP, f"nothing answers there ({why}).")
        return
    target = answer.headers.get("Location", "")
    if 300 <= answer.status < 400 and target.startswith(f"https://{place.hostname}"):
        yield ok(HTTP, "leads to https.")
    else:
        yield warning(
            HTTP,
            f"{url} answers {answer.status} in clear text.",
            "Let the proxy redirect all of it to https.",
        )

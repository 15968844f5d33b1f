"""What no request can do, whatever is in it: change anything but by POST, get a cookie, break a page, be logged."""

from __future__ import annotations

import logging
import re
from itertools import product
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import HTMLResponse

from newsletter.tokens import Purpose
from newsletter.web import guard, start
from newsletter.web.origin import client, networks
from tests.support.site import FORM, Site, site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import Receive, Scope, Send

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get"]
SAFE = [method for method in METHODS if method != "POST"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("press") / "press") as made:
        yield made


def every_path(pages: Site) -> list[str]:
    """Each route, with links that work where it has any, and what there is no route for."""
    links = [pages.link(purpose) for purpose in Purpose]
    plain = [route.path for route in pages.app.routes if "{" not in route.path]  # type: ignore[attr-defined]
    routes = {path.rpartition("/")[0] for path in links} | set(plain)
    known = {route.path.removesuffix("/{token}") for route in pages.app.routes}  # type: ignore[attr-defined]
    assert known == routes  # a new route has to be added here
    return [*plain, *links, "/u/nothing", "/nothing", "/static/reader.css", "//example.com", "/u/../metrics"]


def test_only_a_post_changes_anything_on_any_route(pages: Site) -> None:
    before = pages.rows()
    queries = [b"", b"List-Unsubscribe=One-Click", b"action=erase&sure=yes", b"email=a@example.org"]
    for path in every_path(pages):
        for method in SAFE:
            for query in queries:
                answer = pages.ask(method, path, query, {"content-type": FORM}, query=query)
                assert answer.status < 500, (method, path)
    assert pages.rows() == before


def test_every_answer_has_the_guarding_headers_and_no_cookie(pages: Site) -> None:
    wanted = {*guard.HEADERS, "content-security-policy"}
    for path in every_path(pages):
        for method in METHODS:
            answer = pages.ask(method, path, headers={"cookie": "a=b"})
            names = [name for name, _ in answer.headers]
            assert wanted <= set(names), (method, path, answer.status)
            assert "set-cookie" not in names
            assert len(names) == len(set(names))
            assert answer.header("cache-control") == "no-store"
            assert ("noindex" in answer.header("x-robots-tag")) == (path not in guard.OPEN)


def test_the_policy_allows_our_style_and_our_forms_and_nothing_else(pages: Site) -> None:
    answer = pages.get("/subscribe")
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[\w+/]{43}='; form-action 'self'; base-uri 'none'; "
        r"frame-ancestors 'none'",
        answer.header("content-security-policy"),
    )
    assert not re.search(r"<script|\son\w+=|\sstyle=|javascript:|<img|@import|url\(", answer.text)


def test_a_method_that_a_page_has_not_is_told_in_its_look(pages: Site) -> None:
    answer = pages.ask("DELETE", "/subscribe")
    assert (answer.status, "<h1>" in answer.text) == (405, True)
    assert set(answer.header("allow").split(", ")) == {"GET", "HEAD", "POST"}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("news.example.org", 200),
        ("NEWS.example.org:443", 200),
        ("localhost:8080", 200),
        ("[::1]:8080", 200),
        ("example.com", 400),
        ("news.example.org.example.com", 400),
        ("", 400),
        ("news.example.org@example.com", 400),
    ],
)
def test_the_pages_answer_to_their_own_name_only(pages: Site, host: str, status: int) -> None:
    assert pages.get("/subscribe", host=host).status == status


def test_no_host_is_ever_repeated(pages: Site) -> None:
    for path in ("/", "/subscribe", "//example.com/", "/\\example.com"):
        answer = pages.get(path, x_forwarded_host="example.com", host="localhost")
        assert "example.com" not in answer.text.replace("example.com/", "") + answer.header("location")


def test_no_answer_leads_to_another_address_but_the_front_page_to_the_form(pages: Site) -> None:
    hosts = ["news.example.org", "localhost:8080", "example.com", "news.example.org@example.com", "", "[::1"]
    for path in every_path(pages):
        for written in {path, f"{path}/", f"{path.rstrip('/')}//", f"/{path}"}:
            for host, method in product(hosts, ["GET", "HEAD", "POST"]):
                answer = pages.ask(method, written, headers={"host": host, "x-forwarded-host": "example.com"})
                leads = "/subscribe" if written == "/" and method != "POST" and answer.status == 303 else ""
                assert answer.header("location") == leads, (method, written, host)
                assert not 300 <= answer.status < 400 or leads


# Odd input

TEXT = st.text(max_size=40) | st.sampled_from(
    ["\0", "=cmd|' /C calc'!A0@example.org", "a@b\r\nBcc: c@example.org", "a@xn--e1afmkfd.example", "ａ@ｅxample.org",
     "<script>alert(1)</script>", "a" * 3000, "zoë@müller.example", "@@name|x@@", "{{ 7 * 7 }}", "%00", "../../etc"]
)  # fmt: skip
FIELDS = st.sampled_from(
    ["email", "name", "website", "started", "list", "source", "action", "months", "edition", "sure", "List-Unsubscribe"]
)  # fmt: skip
BODIES = st.binary(max_size=300) | st.lists(st.tuples(FIELDS, TEXT), max_size=30).map(
    lambda pairs: "&".join(f"{name}={text}" for name, text in pairs).encode("utf-8", "replace")
)
KINDS = st.sampled_from(
    [FORM, f"{FORM}; charset=utf-7", "multipart/form-data", "multipart/form-data; boundary=x",
     "multipart/form-data; boundary=x; charset=idna", "multipart/form-data; boundary=x; charset=utf-16", "text/plain",
     "application/json", "", "multipart/form-data; boundary=" + "y" * 300]
)  # fmt: skip
PATHS = st.sampled_from(["/subscribe", "/c/", "/u/", "/p/", "/a/"])


@given(method=st.sampled_from(METHODS), path=PATHS, token=TEXT, kind=KINDS, body=BODIES, real=st.booleans())
def test_nothing_that_anybody_sends_is_an_error_of_ours(
    pages: Site, method: str, path: str, token: str, kind: str, body: bytes, real: bool
) -> None:
    purposes = {"/c/": Purpose.CONFIRM, "/u/": Purpose.UNSUBSCRIBE, "/p/": Purpose.PREFERENCES}
    if real and path != "/subscribe":
        path = pages.link(purposes.get(path, Purpose.ACCESS), 2)
    elif path != "/subscribe":
        path += token
    kinds = {"content-type": kind} if kind else {}
    before = None if method == "POST" else pages.rows()
    answer = pages.ask(method, path, body, kinds)
    assert answer.status < 500
    assert before is None or pages.rows() == before


@given(
    body=BODIES,
    kind=st.sampled_from(
        ["multipart/form-data; boundary=x", "multipart/form-data; boundary=x; charset=idna"]
    ),
)
def test_a_part_with_anything_in_it_is_read_or_refused(pages: Site, body: bytes, kind: str) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="email"\r\n\r\n' + body + b"\r\n--x--\r\n"
    assert pages.ask("POST", "/subscribe", part, {"content-type": kind}).status in {200, 400, 422}


# Half of a character, as each of these codecs would have it. With `started` it was an error of ours.
CHARSETS = ["unicode_escape", "raw_unicode_escape", "utf_7", "utf-16", "idna", "nothing", "utf-8"]
HALVES = [b"\\ud800", b"+2AA-", b"\xd8\x00", b"\xed\xa0\x80", b"%ED%A0%80", b"\xff"]


def one_part(name: str, value: bytes) -> bytes:
    return b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), value)


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize(
    "extra", [f"; charset={name}" for name in CHARSETS] + ["", '; boundary="x\\"; charset=utf_7; y=\\""']
)
def test_half_a_character_in_any_field_is_no_error_of_ours(pages: Site, half: bytes, extra: str) -> None:
    fields = {"started": half, "email": half + b"@example.org", "name": half, "source": half, "list": half}
    parts = b"".join(one_part(name, value) for name, value in fields.items()) + b"--x--\r\n"
    urlencoded = b"&".join(name.encode() + b"=" + value for name, value in fields.items())
    links = [pages.link(purpose, 1) for purpose in Purpose]
    for path in ("/subscribe", *links):
        for kind, body in (
            (f"multipart/form-data; boundary=x{extra}", parts),
            (f"{FORM}{extra}", urlencoded),
        ):
            assert pages.ask("POST", path, body, {"content-type": kind}).status < 500, (path, kind)


@pytest.mark.parametrize("charset", CHARSETS)
def test_a_form_is_utf_8_whatever_its_charset_says(pages: Site, charset: str) -> None:
    name = "Zo\u00eb \\u00eb +AOs-"
    urlencoded = b"email=wrong&name=" + name.replace("+", "%2B").encode()
    parts = one_part("email", b"wrong") + one_part("name", name.encode()) + b"--x--\r\n"
    for kind, body in (("multipart/form-data; boundary=x", parts), (FORM, urlencoded)):
        answer = pages.ask("POST", "/subscribe", body, {"content-type": f"{kind}; charset={charset}"})
        assert (answer.status, f'value="{name}"' in answer.text) == (422, True), kind


@given(text=st.text(st.characters(), max_size=80) | st.just("1.\ud800") | st.just("\ud800.1"))
def test_what_we_did_not_sign_is_no_time_of_a_form(pages: Site, text: str) -> None:
    assert start.age(text, pages.ring, pages.now) is None
    assert start.age(start.stamp(pages.now, pages.ring) + text, pages.ring, pages.now) is None or not text


@pytest.mark.parametrize(
    "body",
    [b"nonsense", b"--x", b"--x\r\nreader@example.org\r\n\r\n", one_part("a", b"1") + b"--x--\r\nmore"],
)
def test_of_a_body_that_is_no_form_nothing_is_logged(
    pages: Site, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    pages.ask("POST", "/subscribe", body, {"content-type": "multipart/form-data; boundary=x"})
    assert caplog.text == ""


def test_too_many_fields_or_parts_or_any_file_are_refused(pages: Site) -> None:
    assert pages.ask("POST", "/subscribe", b"a=1&" * 100, {"content-type": FORM}).status == 400
    part = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    kind = {"content-type": "multipart/form-data; boundary=x"}
    assert pages.ask("POST", "/subscribe", part * 100 + b"--x--\r\n", kind).status == 400
    file = part.replace(b'"a"', b'"a"; filename="x.exe"')
    assert pages.ask("POST", "/subscribe", file + b"--x--\r\n", kind).status == 400


def test_of_a_field_that_comes_twice_the_first_counts(pages: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "peer", "198.51.100.7")  # a network from which nobody has asked before
    pages.ask(
        "POST", "/subscribe", b"email=first@example.org&email=second@example.org", {"content-type": FORM}
    )
    assert pages.one("SELECT address FROM letter ORDER BY id DESC") == "first@example.org"


def test_what_is_announced_as_too_large_is_not_even_read(pages: Site) -> None:
    headers = {"content-type": FORM, "content-length": str(10**12)}
    answer = pages.ask("POST", "/subscribe", b"", headers)
    assert (answer.status, answer.header("connection")) == (413, "close")
    answer = pages.ask("POST", "/subscribe", b"x" * (guard.LARGEST_BODY + 1), {"content-type": FORM})
    assert answer.status == 413


# What is said about it


def test_an_error_of_ours_is_a_page_and_a_log_line_without_anything_personal(
    pages: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("reader@example.org")

    def problem(status: int) -> HTMLResponse:
        return HTMLResponse("<h1>Something went wrong here</h1>", status)

    guarded = guard.Guarded(broken, headers={}, counts=pages.counts, problem=problem)
    app, pages.app = pages.app, guarded
    try:
        with caplog.at_level(logging.DEBUG):
            answer = pages.get("/u/SECRET-TOKEN")
    finally:
        pages.app = app
    assert (answer.status, "Something went wrong here" in answer.text) == (500, True)
    assert "RuntimeError" in caplog.text
    assert "reader@example.org" not in caplog.text
    assert "SECRET-TOKEN" not in caplog.text


# Where it came from


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),  # not one of our proxies: anybody can write this
        ("127.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", ["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", ["1.1.1.1", "198.51.100.1, 10.1.2.3"], "198.51.100.1"),  # two proxies of ours
        ("127.0.0.1", ["junk@example.org"], "127.0.0.1"),
        ("127.0.0.1", ["1.1.1.1, junk, 10.1.2.3"], "10.1.2.3"),
        ("127.0.0.1", [""], "127.0.0.1"),
        ("::ffff:127.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("not an address", ["198.51.100.1"], "0.0.0.0"),
    ],
)
def test_the_client_is_the_last_one_that_no_proxy_of_ours_is(
    peer: str, forwarded: list[str], found: str
) -> None:
    headers = [(b"x-forwarded-for", each.encode()) for each in forwarded]
    request = Request({"type": "http", "headers": headers, "client": (peer, 1)})
    assert client(request, networks(["127.0.0.1", "::1", "10.0.0.0/8"])) == found


@given(peer=st.text(max_size=20), forwarded=st.text(max_size=60))
def test_whatever_a_header_says_the_client_has_an_address(peer: str, forwarded: str) -> None:
    headers = [(b"x-forwarded-for", forwarded.encode("utf-8", "replace"))]
    request = Request({"type": "http", "headers": headers, "client": (peer, 1)})
    assert re.fullmatch(r"[0-9a-f.:]+(%\S+)?", client(request, networks(["0.0.0.0/0"])))

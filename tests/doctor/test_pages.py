"""The readers' pages as the world sees them: the real `newsletter serve` behind a proxy that is wrong in one way."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from newsletter.doctor import pages
from newsletter.tokens import Keyring, Purpose, maker
from tests.support.https_server import Said, front
from tests.support.publisher import A_KEY, publisher
from tests.support.served import serving
from tests.support.smtp_server import closed_port, make_certificate, server_context

HOST = "news.example.org"
TOKEN = maker(Purpose.UNSUBSCRIBE, Keyring.parse(f"1:{A_KEY}"))(0)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = publisher(tmp_path_factory.mktemp("pages") / "press")
    folder.import_people([("ann@example.org", "Ann")])
    with serving(folder) as running:
        yield running


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"), host=HOST, days=30)


@pytest.fixture(autouse=True)
def _trusted(certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))


@pytest.fixture
def proxy(served, certificate):
    with front(server_context(*certificate), behind=served.port) as running:
        yield running


def lookup(_host: str) -> list[str]:
    return ["127.0.0.1"]


def look(port: int, *, path: str = "", clock=lambda: datetime.now(UTC)) -> dict[str, list[tuple[str, str]]]:
    base = f"https://{HOST}:{port}{path}"
    found: dict[str, list[tuple[str, str]]] = {}
    for result in pages.look(base, f"{base}/u/{TOKEN}", lookup, clock):
        assert result.level in {"ok", "not looked at"} or result.hint
        assert TOKEN not in result.detail + result.hint
        found.setdefault(result.name, []).append((result.level.value, result.detail))
    return found


def levels(port: int, name: str) -> list[str]:
    return [level for level, _ in look(port)[name]]


def test_pages_behind_a_proper_proxy_are_right(proxy):
    assert {name: [level for level, _ in said] for name, said in look(proxy.port).items()} == {
        "pages": ["ok", "ok"],
        "clock": ["ok"],
        "unsubscribe page": ["ok"],
        "one-click unsubscribe": ["ok"],
    }


def test_looking_changes_nothing_in_the_database(proxy, served):
    with served.database() as conn:
        before = list(conn.iterdump())
        look(proxy.port)
        assert list(conn.iterdump()) == before
    conn.close()
    assert ("POST", f"/u/{TOKEN}") in proxy.asked


def test_nobody_there_is_an_error_and_the_rest_is_not_looked_at():
    found = look(closed_port())
    assert found["pages"][0][0] == "error"
    assert found["unsubscribe page"][0][0] == found["one-click unsubscribe"][0][0] == "not looked at"


def test_a_name_without_an_address_is_an_error():
    results = list(pages.look(f"https://{HOST}", f"https://{HOST}/u/{TOKEN}", lambda _: [], lambda: None))
    assert "the name has no address" in results[0].detail


@pytest.mark.parametrize("wrong", ["host", "expired", "authority"])
def test_a_certificate_that_is_not_valid_is_an_error(wrong, served, tmp_path, monkeypatch):
    files = make_certificate(
        tmp_path, host="other.example" if wrong == "host" else HOST, days=-2 if wrong == "expired" else 30
    )
    if wrong != "authority":
        monkeypatch.setenv("SSL_CERT_FILE", str(files[0]))
    with front(server_context(*files), behind=served.port) as proxy:
        [(level, detail)] = look(proxy.port)["pages"]
    assert level == "error"
    assert "certificate is not valid" in detail


def test_a_certificate_that_ends_soon_is_told(served, tmp_path, monkeypatch):
    files = make_certificate(tmp_path, host=HOST, days=13)
    monkeypatch.setenv("SSL_CERT_FILE", str(files[0]))
    with front(server_context(*files), behind=served.port) as proxy:
        assert levels(proxy.port, "pages") == ["ok", "warning"]


def test_a_server_that_speaks_plain_http_there_is_an_error(served):
    [(level, _)] = look(served.port)["pages"]
    assert level == "error"


def test_a_base_url_that_leads_elsewhere_is_an_error(proxy):
    proxy.acts["GET", "/healthz"] = Said(301, {"Location": f"https://www.{HOST}/healthz"})
    assert "leads elsewhere (301)" in look(proxy.port)["pages"][0][1]


@pytest.mark.parametrize("said", [Said(503), Said(200, {}, b"It works!")])
def test_a_server_that_is_not_ours_is_an_error(proxy, said):
    proxy.acts["GET", "/healthz"] = said
    assert levels(proxy.port, "pages")[0] == "error"


def test_another_clock_than_the_servers_is_an_error(proxy):
    assert "ok" in levels(proxy.port, "clock")
    proxy.date = format_datetime(datetime.now(UTC) + timedelta(minutes=5), usegmt=True)
    assert levels(proxy.port, "clock") == ["error"]
    proxy.date = "some day"
    assert levels(proxy.port, "clock") == ["not looked at"]


def test_other_signing_keys_there_are_an_error(proxy):
    other = maker(Purpose.UNSUBSCRIBE, Keyring.parse(f"1:{A_KEY[:-2]}QQ"))(0)
    base = f"https://{HOST}:{proxy.port}"
    found = {
        result.name: result
        for result in pages.look(base, f"{base}/u/{other}", lookup, lambda: datetime.now(UTC))
    }
    assert found["unsubscribe page"].level == "error"
    assert "404" in found["unsubscribe page"].detail


def test_a_site_that_answers_everything_is_not_ours(proxy):
    proxy.acts["GET", "/u/"] = Said(200, {"Referrer-Policy": "no-referrer"}, b"Welcome!")
    assert "never signed" in look(proxy.port)["unsubscribe page"][0][1]


def test_a_proxy_that_takes_the_policy_out_is_an_error(proxy):
    proxy.dropped.add("referrer-policy")
    assert "Referrer-Policy" in look(proxy.port)["unsubscribe page"][0][1]


def test_a_proxy_that_sets_a_cookie_is_an_error(proxy):
    proxy.added["Set-Cookie"] = "lb=1"
    assert levels(proxy.port, "unsubscribe page") == levels(proxy.port, "one-click unsubscribe") == ["error"]


@pytest.mark.parametrize("status", [301, 303, 401, 403, 405])
def test_a_proxy_that_lets_no_post_through_is_an_error(proxy, status):
    proxy.acts["POST", "/u/"] = Said(status, {"Location": f"https://{HOST}/"})
    found = look(proxy.port)
    assert found["unsubscribe page"][0][0] == "ok"
    assert re.search(rf"with {status}", found["one-click unsubscribe"][0][1])


# In clear text


def plain(port: int, base_url: str = f"https://{HOST}") -> str:
    [result] = pages.look_for_plain_http(base_url, lookup, port)
    return result.level.value


def test_plain_http_leads_to_https_or_is_closed():
    assert plain(closed_port()) == "ok"
    with front(None) as server:
        server.acts["GET", "/healthz"] = Said(308, {"Location": f"https://{HOST}/healthz"})
        assert plain(server.port) == "ok"


@pytest.mark.parametrize(
    "said", [Said(200, {}, b"ok"), Said(301, {"Location": "http://elsewhere.example/"}), Said(404)]
)
def test_pages_in_clear_text_are_told(said):
    with front(None) as server:
        server.acts["GET", "/healthz"] = said
        assert plain(server.port) == "warning"


def test_a_name_that_leads_nowhere_was_not_asked():
    [result] = pages.look_for_plain_http(f"https://{HOST}", lambda _: [])
    assert result.level == "not looked at"


def test_a_base_url_with_a_port_has_no_plain_http():
    assert plain(closed_port(), f"https://{HOST}:8443") == "not looked at"

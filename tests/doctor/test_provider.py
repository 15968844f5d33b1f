"""The way out: real servers, each wrong in one way. No mail may leave."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from newsletter.doctor import provider
from newsletter.doctor.http import system_lookup
from newsletter.errors import TransportError
from newsletter.transports.smtp_session import SmtpSettings
from tests.support.sendgrid_server import KEY, Say, sendgrid_server
from tests.support.smtp_server import Deaf, ScriptedServer, make_certificate, server_context, smtp_server

LOGIN = ("digest", "s3cret-words")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("mail"), days=30)


def settings(port: int, **more) -> SmtpSettings:
    known = {"host": "localhost", "port": port, "timeout": 3.0, "security": "none"}
    return SmtpSettings(**known | more)


def look(known: SmtpSettings) -> list[tuple[str, str]]:
    found = list(provider.look_at_smtp(known, datetime.now(UTC)))
    return [(result.level.value, result.detail) for result in found]


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_tls_and_login_are_tried_and_nothing_is_sent(security, certificate):
    context = server_context(*certificate)
    way = {"starttls": context} if security == "starttls" else {"tls": context}
    with smtp_server(**way, login=LOGIN) as mailbox:
        known = {"security": security, "ca_file": str(certificate[0])}
        known |= {"username": LOGIN[0], "password": LOGIN[1]}
        found = look(settings(mailbox.port, **known))
        assert [level for level, _ in found] == ["ok", "ok"]
        assert "TLSv1.3" in found[0][1]
        assert "(29 days)" in found[1][1]
        assert mailbox.messages == []
    assert LOGIN[1] not in str(found)


def test_a_wrong_password_is_an_error_that_does_not_show_it(certificate):
    with smtp_server(starttls=server_context(*certificate), login=LOGIN) as mailbox:
        known = {"username": LOGIN[0], "password": "wr0ng-words", "ca_file": str(certificate[0])}
        with pytest.raises(TransportError) as caught:
            look(settings(mailbox.port, security="starttls", **known))
    assert "wr0ng" not in str(caught.value) + caught.value.hint
    assert caught.value.hint


def test_a_certificate_that_nobody_vouches_for_is_an_error(certificate):
    with (
        smtp_server(starttls=server_context(*certificate)) as mailbox,
        pytest.raises(TransportError, match="certificate"),
    ):
        look(settings(mailbox.port, security="starttls"))


def test_a_server_without_starttls_is_an_error(certificate):
    with smtp_server() as mailbox, pytest.raises(TransportError, match="STARTTLS"):
        look(settings(mailbox.port, security="starttls", ca_file=str(certificate[0])))


def test_a_certificate_that_ends_soon_is_told(tmp_path):
    files = make_certificate(tmp_path, days=13)
    with smtp_server(tls=server_context(*files)) as mailbox:
        found = look(settings(mailbox.port, security="tls", ca_file=str(files[0])))
    assert [level for level, _ in found] == ["ok", "warning"]


def test_clear_text_is_right_on_this_machine_only():
    with smtp_server() as mailbox:
        assert [level for level, _ in look(settings(mailbox.port))] == ["ok"]
        # A way to write loopback that the doctor does not take for it.
        assert [level for level, _ in look(settings(mailbox.port, host="127.1"))] == ["warning"]


def test_a_server_that_says_nothing_is_left_in_time():
    with ScriptedServer(script={"connect": [Deaf]}) as server, pytest.raises(TransportError):
        look(settings(server.port, timeout=0.3))


# SendGrid


def scopes(server, key: str = KEY) -> tuple[str, str]:
    [result] = provider.look_at_sendgrid(server.url, key, system_lookup)
    assert result.level == "ok" or result.hint
    assert key not in result.detail + result.hint
    return result.level.value, result.detail


def test_a_key_that_may_only_send_is_right_and_nothing_is_sent():
    with sendgrid_server() as server:
        assert scopes(server)[0] == "ok"
        assert server.requests == []


def test_a_key_that_may_do_more_is_told():
    with sendgrid_server() as server:
        server.scopes.append("marketing_campaigns.read")
        level, detail = scopes(server)
    assert (level, "marketing_campaigns.read" in detail) == ("warning", True)


def test_a_key_that_may_not_send_is_an_error():
    with sendgrid_server() as server:
        server.scopes.remove("mail.send")
        assert scopes(server) == ("error", "the key may not send mail.")


def test_a_key_that_is_not_taken_is_an_error():
    with sendgrid_server() as server:
        assert scopes(server, "SG.another-key") == ("error", "the key is not taken (401).")


@pytest.mark.parametrize(
    "act",
    [
        Say(500, "oops"),
        Say(302, "", {"Location": "https://elsewhere.example/v3/scopes"}),
        Say(200, json.dumps(["mail.send"])),
        Say(200, json.dumps({"scopes": None})),
        Say(200, "\x00"),
    ],
)
def test_what_is_no_list_of_permissions_is_an_error(act):
    with sendgrid_server(act) as server:
        assert scopes(server)[0] == "error"


def test_an_api_that_is_not_there_is_an_error():
    with sendgrid_server() as server:
        url = server.url
    [result] = provider.look_at_sendgrid(url, KEY, system_lookup)
    assert "can't be reached" in result.detail

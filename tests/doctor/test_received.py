"""A mail that has arrived: signed by dkimpy, checked against a real nameserver, and wrong in one way."""

from __future__ import annotations

import dkim
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from newsletter.doctor import received
from newsletter.transports import dkim_keys
from tests.support.dkim_keys import rsa
from tests.support.dns_server import dns_server

BASE = "https://news.example.org"
TOKEN = "EQEAAAAAAAAAAG8secret8signature8here"
HEADERS = {
    "From": "Digest <digest@example.org>",
    "To": "ann.reader@example.net",
    "Subject": "Iron",
    "List-Unsubscribe": f"<{BASE}/u/{TOKEN}>",
    "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
}
COVERED = [b"from", b"to", b"subject", b"list-unsubscribe", b"list-unsubscribe-post"]


@pytest.fixture
def zone():
    selector, key = rsa()
    with dns_server() as running:
        for domain in ("example.org", "relay.example", "mail.example.org"):
            running.txt(dkim_keys.record_name(selector, domain), dkim_keys.record(key))
        yield running


def mail(*extra: str, drop: str = "", **changes: str) -> bytes:
    headers = {**HEADERS, **{name.replace("_", "-"): text for name, text in changes.items()}}
    lines = [f"{name}: {text}" for name, text in headers.items() if name != drop]
    return "\r\n".join([*extra, *lines, "", "Words.", ""]).encode()


def signed(raw: bytes, *, domain: str = "example.org", covering: list[bytes] = COVERED) -> bytes:
    selector, key = rsa()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    return dkim.sign(raw, selector.encode(), domain.encode(), pem, include_headers=covering) + raw


def look(raw: bytes, zone, tmp_path) -> list[tuple[str, str]]:
    file = tmp_path / "received.eml"
    file.write_bytes(raw)
    found = list(received.look(file, BASE, zone.names(seconds=0.5) if zone else None))
    said = "".join(result.detail + result.hint for result in found)
    assert TOKEN not in said
    assert "ann.reader@" not in said
    assert all(result.level in {"ok", "not looked at"} or result.hint for result in found)
    return [(result.level.value, result.detail) for result in found]


def test_a_mail_that_arrived_whole_is_right(zone, tmp_path):
    assert [level for level, _ in look(signed(mail()), zone, tmp_path)] == ["ok", "ok"]


def test_line_ends_may_have_been_changed_by_saving(zone, tmp_path):
    assert look(signed(mail()).replace(b"\r\n", b"\n"), zone, tmp_path)[1][0] == "ok"


def test_what_the_mailbox_said_is_shown_without_addresses(zone, tmp_path):
    said = "Authentication-Results: mx.example.net; dkim=pass header.i=@example.org;\r\n smtp.rcptto="
    found = look(f"{said}ann.reader@example.net\r\n".encode() + signed(mail()), zone, tmp_path)
    assert "dkim=pass" in found[2][1]


@pytest.mark.parametrize("name", ["list-unsubscribe", "list-unsubscribe-post"])
def test_a_signature_has_to_cover_both_headers(name, zone, tmp_path):
    covering = [each for each in COVERED if each != name.encode()]
    [_, (level, detail)] = look(signed(mail(), covering=covering), zone, tmp_path)
    assert level == "error"
    assert f"does not cover {name}" in detail.lower()


def test_one_signature_that_counts_is_enough(zone, tmp_path):
    both = signed(signed(mail()), domain="relay.example", covering=[b"from"])
    assert look(both, zone, tmp_path)[1][0] == "ok"


@pytest.mark.parametrize("domain", ["mail.example.org", "relay.example"])
def test_a_signature_counts_for_the_organisation_of_the_sender_only(domain, zone, tmp_path):
    level, detail = look(signed(mail(), domain=domain), zone, tmp_path)[1]
    assert level == ("ok" if domain == "mail.example.org" else "error"), detail


def test_a_mail_that_was_changed_on_the_way_does_not_verify(zone, tmp_path):
    changed = signed(mail()).replace(b"Words.", b"Words!")
    assert "does not verify" in look(changed, zone, tmp_path)[1][1]


def test_a_key_that_is_not_in_the_dns_does_not_verify(zone, tmp_path):
    zone.records.clear()
    assert "does not verify" in look(signed(mail()), zone, tmp_path)[1][1]


def test_a_nameserver_that_fails_is_told_as_that(zone, tmp_path):
    zone.failing.update(name for name, _ in zone.records)
    level, detail = look(signed(mail()), zone, tmp_path)[1]
    assert level == "error"
    assert "nobody can say" in detail


def test_no_signature_is_an_error(zone, tmp_path):
    assert look(mail(), zone, tmp_path)[1] == ("error", "it has no DKIM signature.")


@pytest.mark.parametrize(
    "field", [b"", b"v=1; a=rsa-sha256; d=example.org; s=news2027; h=from; bh=AA==; b=!", b"\xff=1"]
)
def test_a_signature_that_is_none_is_no_bug_of_ours(field, zone, tmp_path):
    level, _ = look(b"DKIM-Signature: " + field + b"\r\n" + mail(), zone, tmp_path)[1]
    assert level == "error"


@pytest.mark.parametrize(
    "raw",
    [
        mail(drop="List-Unsubscribe"),
        mail(drop="List-Unsubscribe-Post"),
        mail("List-Unsubscribe: <mailto:leave@relay.example>"),
        mail("List-Unsubscribe-Post: List-Unsubscribe=One-Click"),
        mail(List_Unsubscribe=f"<http://news.example.org/u/{TOKEN}>"),
        mail(List_Unsubscribe=f"<https://track.relay.example/u/{TOKEN}>"),
        mail(List_Unsubscribe_Post="One-Click"),
    ],
)
def test_exactly_one_way_to_leave_with_one_click_is_wanted(raw, zone, tmp_path):
    assert look(signed(raw), zone, tmp_path)[0][0] == "error"


@pytest.mark.parametrize("raw", [b"", b"\x00\xff\xfe", b"Subject: only\r\n\r\n"])
def test_a_file_that_is_no_mail_is_told(raw, zone, tmp_path):
    assert [level for level, _ in look(raw, zone, tmp_path)] == ["error"]


def test_without_the_network_only_the_headers_are_looked_at(tmp_path):
    assert [level for level, _ in look(signed(mail()), None, tmp_path)] == ["ok", "not looked at"]


def test_without_a_mail_it_says_how_to_get_one():
    [result] = received.look_nowhere()
    assert result.level == "not looked at"
    assert "newsletter proof" in result.hint

"""The public keys in the DNS beside the private ones that sign."""

from __future__ import annotations

import pytest

from newsletter.doctor import dkim
from newsletter.transports import dkim_keys
from tests.support.dkim_keys import ed25519, rsa
from tests.support.dns_server import dns_server

PLACE = "news2027._domainkey.example.org"


@pytest.fixture
def zone():
    with dns_server() as running:
        yield running


def look(zone, *records: str) -> tuple[str, str]:
    if records:
        zone.txt(PLACE, *records)
    [result] = dkim.look(zone.names(seconds=1), {PLACE: ours()})
    assert result.level == "ok" or result.hint
    return result.level.value, result.detail


def ours() -> str:
    return dkim_keys.record(rsa()[1])


def test_the_record_that_we_print_is_right(zone):
    assert look(zone, ours())[0] == "ok"


def test_a_record_with_other_blanks_and_no_kind_says_the_same(zone):
    value = dkim_keys.record(rsa()[1]).split("p=")[1]
    assert look(zone, f"p={value[:100]} {value[100:]} ;")[0] == "ok"


def test_an_ed25519_record_is_compared_too(zone):
    record = dkim_keys.record(ed25519()[1])
    zone.txt(PLACE, record)
    [result] = dkim.look(zone.names(), {PLACE: record})
    assert result.level == "ok"


@pytest.mark.parametrize(
    ("change", "level", "said"),
    [
        (lambda _: dkim_keys.record(dkim_keys.make("rsa")), "error", "another key"),
        (lambda _: dkim_keys.record(ed25519()[1]), "error", "another key"),
        (lambda ours: ours[:-8], "error", "another key"),
        (lambda ours: ours.split("p=")[0] + "p=", "error", "revoked"),
        (lambda ours: "t=y; " + ours, "warning", "testing"),
    ],
)
def test_a_record_that_is_wrong_is_told(zone, change, level, said):
    found = look(zone, change(ours()))
    assert found[0] == level
    assert said in found[1]


def test_no_record_two_records_and_no_answer_are_errors(zone):
    assert "there is no" in look(zone)[1]
    assert "2 records" in look(zone, ours(), ours() + ";")[1]
    zone.failing.add(PLACE)
    level, detail = look(zone)
    assert level == "error"
    assert "nobody can say" in detail


def test_sendgrids_keys_are_looked_for_under_their_usual_names(zone):
    [nothing] = dkim.look_for_sendgrid(zone.names(), "example.org")
    assert nothing.level == "warning"
    zone.txt("s1._domainkey.example.org", ours())
    [found] = dkim.look_for_sendgrid(zone.names(), "example.org")
    assert (found.level, "s1._domainkey" in found.detail) == ("ok", True)
    zone.failing.add("s1._domainkey.example.org")
    [failed] = dkim.look_for_sendgrid(zone.names(), "example.org")
    assert failed.level == "error"

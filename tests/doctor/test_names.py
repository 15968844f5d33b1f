"""Names are asked of a real nameserver, and "there is none" is not "nobody answered"."""

from __future__ import annotations

import pytest

from newsletter.doctor.names import Names, Unanswered
from newsletter.errors import UsageError
from tests.support.dns_server import dns_server
from tests.support.smtp_server import closed_port


@pytest.fixture
def zone():
    with dns_server() as running:
        yield running


def test_a_long_text_is_put_together_from_its_strings(zone):
    value = "v=DKIM1; p=" + "A" * 600
    zone.txt("news._domainkey.example.org", value)
    assert zone.names().txt("news._domainkey.example.org") == [value]


def test_what_is_too_large_for_udp_is_fetched_over_tcp(zone):
    zone.txt("example.org", "v=spf1 -all")
    zone.large.add("example.org")
    assert zone.names().txt("example.org") == ["v=spf1 -all"]
    assert [way for way, *_ in zone.asked] == ["udp", "tcp"]


def test_a_name_that_is_not_there_and_one_without_such_a_record_have_none(zone):
    zone.put("example.org", "A", "192.0.2.1")
    assert zone.names().txt("example.org") == []
    assert zone.names().txt("nobody.example.org") == []
    assert zone.names().addresses("example.org") == ["192.0.2.1"]


def test_a_server_that_fails_has_not_said_that_there_is_none(zone):
    zone.failing.add("example.org")
    with pytest.raises(Unanswered, match="SERVFAIL"):
        zone.names().txt("example.org")


def test_a_server_that_is_silent_is_waited_for_no_longer_than_said(zone):
    zone.silent.add("example.org")
    with pytest.raises(Unanswered, match=r"within 0\.3 s"):
        zone.names(seconds=0.3).txt("example.org")


def test_a_server_that_is_not_there_has_said_nothing():
    with pytest.raises(Unanswered):
        Names(f"127.0.0.1:{closed_port()}", seconds=0.3).mx("example.org")


def test_each_question_is_asked_once(zone):
    names = zone.names()
    zone.txt("example.org", "v=spf1 -all")
    assert names.txt("example.org") == names.txt("example.org")
    assert len(zone.asked) == 1


@pytest.mark.parametrize("text", ["ns.example.org", "127.0.0.1:dns", "1.2.3", "[::1]:x"])
def test_what_is_no_address_is_told_at_once(text):
    with pytest.raises(UsageError, match="no address of a nameserver"):
        Names(text)


@pytest.mark.parametrize("text", ["127.0.0.1", "127.0.0.1:5353", "::1", "[::1]:5353"])
def test_an_address_may_have_a_port(text):
    assert Names(text)

"""The policy of the sender's domain, what counts under it, and where replies go."""

from __future__ import annotations

import pytest

from newsletter.doctor import dmarc
from newsletter.doctor.dmarc import Sender
from tests.support.dns_server import dns_server

OURS = Sender(shown="example.org", envelope="example.org", signing="example.org")


@pytest.fixture
def zone():
    with dns_server() as running:
        yield running


def look(zone, sender: Sender = OURS) -> list[tuple[str, str]]:
    found = list(dmarc.look(zone.names(seconds=1), sender))
    assert all(result.level == "ok" or result.hint for result in found)
    return [(result.level.value, result.detail) for result in found]


def levels(zone, sender: Sender = OURS) -> list[str]:
    return [level for level, _ in look(zone, sender)]


@pytest.mark.parametrize("policy", ["none", "quarantine", "reject"])
def test_a_policy_and_a_domain_of_ones_own_are_right(zone, policy):
    zone.txt("_dmarc.example.org", f"v=DMARC1; p={policy}; rua=mailto:d@example.org")
    assert levels(zone) == ["ok", "ok"]
    assert f"p={policy}" in look(zone)[0][1]


def test_no_policy_is_an_error(zone):
    zone.txt("_dmarc.example.org", "v=DMARC10; p=none")
    assert levels(zone) == ["error"]


def test_two_policies_count_as_none(zone):
    zone.txt("_dmarc.example.org", "v=DMARC1; p=none", "v=DMARC1; p=reject")
    assert levels(zone) == ["error"]


@pytest.mark.parametrize("record", ["v=DMARC1", "v=DMARC1; p=", "v=DMARC1; p=maybe"])
def test_a_record_without_a_policy_is_an_error(zone, record):
    zone.txt("_dmarc.example.org", record)
    assert levels(zone)[0] == "error"


def test_a_subdomain_obeys_the_policy_above_it(zone):
    zone.txt("_dmarc.example.org", "v=DMARC1; p=reject")
    below = Sender("news.example.org", "news.example.org", "example.org")
    assert levels(zone, below) == ["ok", "ok"]


def test_a_policy_of_its_own_comes_first(zone):
    zone.txt("_dmarc.example.org", "v=DMARC1; p=reject")
    zone.txt("_dmarc.news.example.org", "v=DMARC1; p=none")
    assert "p=none" in look(zone, Sender("news.example.org", "news.example.org", ""))[0][1]


def test_a_policy_of_the_subdomain_alone_takes_what_stands_above_it(zone):
    zone.txt("_dmarc.news.example.org", "v=DMARC1; p=none")
    assert levels(zone, Sender("news.example.org", "", "example.org")) == ["ok", "ok"]


def test_neighbours_count_in_one_organisation_and_not_below_a_public_suffix(zone):
    neighbours = Sender("news.example.org", "bounces.example.org", "")
    zone.txt("_dmarc.news.example.org", "v=DMARC1; p=none")
    zone.txt("_dmarc.example.org", "v=DMARC1; p=reject")
    assert levels(zone, neighbours) == ["ok", "ok"]
    zone.txt("_dmarc.example.org", "v=DMARC1; p=reject; psd=y")
    assert levels(zone, neighbours) == ["ok", "warning"]


def test_a_strict_policy_wants_the_very_domain(zone):
    zone.txt("_dmarc.example.org", "v=DMARC1; p=reject; adkim=s; aspf=s")
    above = Sender(shown="news.example.org", envelope="bounces.example.org", signing="example.org")
    [_, (level, said)] = look(zone, above)
    assert level == "error"
    assert "neither" in said
    zone.txt("_dmarc.example.org", "v=DMARC1; p=reject; aspf=s")
    assert "counts DKIM (example.org)." in look(zone, above)[1][1]


def test_an_envelope_of_another_organisation_does_not_count(zone):
    zone.txt("_dmarc.example.org", "v=DMARC1; p=reject")
    [_, (level, _)] = look(zone, Sender("example.org", "badexample.org", "relay.example"))
    assert level == "error"


def test_what_is_up_to_the_provider_is_left_to_a_received_mail(zone):
    zone.txt("_dmarc.example.org", "v=DMARC1; p=reject")
    assert levels(zone, Sender("example.org", "", "")) == ["ok", "warning"]


def test_a_nameserver_that_fails_is_not_taken_for_no_policy(zone):
    zone.failing.add("_dmarc.example.org")
    [(level, detail)] = look(zone)
    assert level == "error"
    assert "nobody can say" in detail


def mailbox(zone) -> str:
    [result] = dmarc.look_for_mailboxes(zone.names(seconds=1), {"example.org": "reply_to"})
    assert "reply_to" in result.detail or "nobody can say" in result.detail
    return result.level.value


def test_replies_need_a_server_that_takes_them(zone):
    assert mailbox(zone) == "error"
    zone.put("example.org", "A", "192.0.2.1")
    assert mailbox(zone) == "warning"
    zone.put("example.org", "MX", "10 mail.example.org.")
    assert mailbox(zone) == "ok"
    zone.put("example.org", "MX", "0 .")
    assert mailbox(zone) == "error"
    zone.failing.add("example.org")
    assert mailbox(zone) == "error"

"""What the doctor says of SPF records, each wrong in one way."""

from __future__ import annotations

import pytest

from newsletter.doctor import spf
from tests.support.dns_server import dns_server


@pytest.fixture
def zone():
    with dns_server() as running:
        yield running


def look(zone, *records: str) -> tuple[str, str]:
    """(level, detail) of the one thing that is said."""
    if records:
        zone.txt("example.org", *records)
    [result] = spf.look(zone.names(seconds=1), "example.org")
    assert result.level == "ok" or result.hint
    return result.level.value, result.detail


def test_a_record_that_ends_in_a_no_is_right(zone):
    zone.txt("_spf.relay.example", "v=spf1 ip4:192.0.2.0/24 a mx:relay.example -all")
    level, detail = look(zone, "v=spf1 include:_spf.relay.example ~all", "some-site-verification=1")
    assert level == "ok"
    assert "3 of 10 lookups" in detail
    assert "~all" in detail


def test_no_record_is_an_error(zone):
    level, detail = look(zone, "v=spf10 -all", "google-site-verification=1")
    assert (level, "no SPF record" in detail) == ("error", True)


def test_a_domain_that_is_not_there_is_an_error(zone):
    assert look(zone)[0] == "error"


def test_two_records_are_as_bad_as_a_broken_one(zone):
    level, detail = look(zone, "v=spf1 -all", "v=spf1 mx ~all")
    assert level == "error"
    assert "2 SPF records instead of one" in detail


def test_ten_lookups_are_allowed_and_eleven_are_not(zone):
    ten = " ".join(f"exists:{number}.example.org" for number in range(10))
    assert look(zone, f"v=spf1 {ten} -all")[0] == "ok"
    level, detail = look(zone, f"v=spf1 {ten} a -all")
    assert level == "error"
    assert "more than 10 times" in detail


def test_lookups_are_counted_in_what_is_included_too(zone):
    for number in range(4):
        zone.txt(f"s{number}.example", "v=spf1 a mx ptr -all")
    level, detail = look(zone, "v=spf1 " + " ".join(f"include:s{n}.example" for n in range(4)) + " -all")
    assert level == "error"
    assert "more than 10 times" in detail


def test_a_record_that_includes_itself_comes_to_an_end(zone):
    assert look(zone, "v=spf1 include:example.org -all")[0] == "error"


def test_an_include_that_leads_nowhere_breaks_the_record(zone):
    level, detail = look(zone, "v=spf1 include:gone.example -all")
    assert level == "error"
    assert "gone.example has no SPF records" in detail


def test_a_redirect_ends_as_its_target_does(zone):
    zone.txt("other.example", "v=spf1 mx -all")
    assert look(zone, "v=spf1 redirect=other.example")[0] == "ok"
    zone.txt("other.example", "v=spf1 mx")
    assert look(zone, "v=spf1 redirect=other.example")[0] == "warning"


def test_how_an_included_record_ends_says_nothing(zone):
    zone.txt("other.example", "v=spf1 mx -all")
    assert look(zone, "v=spf1 include:other.example")[0] == "warning"


def test_a_macro_is_counted_and_not_followed(zone):
    assert look(zone, "v=spf1 include:%{i}._spf.example.org -all")[0] == "ok"


@pytest.mark.parametrize(
    ("end", "level"), [("+all", "error"), ("all", "error"), ("?all", "warning"), ("", "warning")]
)
def test_a_record_that_forbids_nobody_is_told(zone, end, level):
    assert look(zone, f"v=spf1 mx {end}".strip())[0] == level


def test_a_nameserver_that_fails_is_not_taken_for_no_record(zone):
    zone.failing.add("example.org")
    level, detail = look(zone)
    assert level == "error"
    assert "nobody can say" in detail

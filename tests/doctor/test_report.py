"""Checks run side by side, and one that hangs or breaks keeps no other back."""

from __future__ import annotations

import threading
import time

from newsletter.doctor.report import Check, error, examine, ok
from newsletter.errors import Refused


def good(name: str) -> Check:
    return Check(name, lambda: [ok(name, "fine.")])


def test_results_come_in_the_order_of_the_checks():
    held = threading.Event()

    def late():
        assert held.wait(5)
        yield ok("first", "fine.")

    def early():
        held.set()
        yield ok("second", "fine.")
        yield error("second", "broken.", "Mend it.")

    found = examine([Check("first", late), Check("second", early)], 5)
    assert [result.name for result in found] == ["first", "second", "second"]


def test_a_check_that_hangs_is_an_error_when_the_time_is_up():
    held = threading.Event()
    begun = time.monotonic()
    found = examine([Check("slow", lambda: [ok("slow", str(held.wait(20)))]), good("quick")], 0.2)
    held.set()
    assert time.monotonic() - begun < 5
    assert [(result.name, result.level) for result in found] == [("slow", "error"), ("quick", "ok")]
    assert "0.2 s" in found[0].detail


def test_an_error_of_ours_is_a_result_with_its_hint():
    def refuse():
        raise Refused("no.", hint="Ask nicely.")

    [result] = examine([Check("it", refuse)], 5)
    assert (result.level, result.detail, result.hint) == ("error", "no.", "Ask nicely.")


def test_a_bug_says_where_it_is_and_nothing_of_what_it_saw():
    def break_down():
        raise ValueError("ann@example.org")

    [broken, fine] = examine([Check("it", break_down), good("other")], 5)
    assert (broken.level, fine.level) == ("error", "ok")
    assert "break_down" in broken.detail
    assert "ann@" not in broken.detail

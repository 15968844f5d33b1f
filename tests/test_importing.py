"""Large files: killed anywhere an import can be gone on with, keys are told apart in little room, progress is told."""

from __future__ import annotations

import io
import random
import signal
import sys
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select

from newsletter import addresses, admission
from newsletter.cli.reading import Shown
from newsletter.intake import _Seen
from newsletter.store.engine import open_engine, read
from newsletter.store.schema import consent, subscriber, subscription, suppression
from tests.support.publisher import Publisher, publisher
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SECRET = b"0123456789abcdef0123456789abcdef"
PEOPLE = 3_000


def people_file(folder: Path) -> Path:
    """A shuffled file with people who left, repeated rows and rows that can't be read."""
    rows = [
        f"reader{n}@example.org,Reader {n},{'unsubscribed' if n % 50 == 0 else 'active'}\n"
        for n in range(PEOPLE)
    ]
    rows += ["nobody,,active\n", "reader7@example.org,Again,active\n", "READER8@example.org,,bounced\n"]
    random.Random(7).shuffle(rows)
    file = folder / "people.csv"
    file.write_text("email,name,status\n" + "".join(rows), encoding="utf-8")
    return file


def book(press: Publisher) -> dict[str, object]:
    """Who is on the list and how, without the numbers that rows have by accident."""
    engine = open_engine(f"sqlite:///{press.root}/.newsletter/newsletter.db")
    who = select(subscriber.c.address, subscriber.c.name, subscription.c.state).join_from(
        subscription, subscriber
    )
    try:
        people = read(engine, lambda conn: sorted(tuple(row) for row in conn.execute(who)))
        acts = select(consent.c.act, func.count()).group_by(consent.c.act)
        said = read(engine, lambda conn: sorted(tuple(row) for row in conn.execute(acts)))
        stopped = read(engine, lambda conn: conn.scalar(select(func.count()).select_from(suppression)))
        return {"people": people, "said": said, "stopped": stopped}
    finally:
        engine.dispose()


def importing(press: Publisher, file: Path) -> tuple[str, ...]:
    return ("subscribers", "import", str(file), "--list", "readers", "--source", "a test", "--apply")


def test_an_import_that_is_killed_anywhere_is_finished_by_the_same_command(tmp_path: Path) -> None:
    """SIGKILL at random moments, again and again: in the end everything is as after one undisturbed import."""
    (tmp_path / "calm").mkdir()
    (tmp_path / "killed").mkdir()
    calm, press = publisher(tmp_path / "calm"), publisher(tmp_path / "killed")
    file, chance = people_file(tmp_path), random.Random(11)
    calm.newsletter(*importing(calm, file))
    database = press.root / ".newsletter" / "newsletter.db-wal"
    for _ in range(3):
        before = database.stat().st_size if database.exists() else 0
        process = press.start(*importing(press, file))
        more = before + chance.randrange(50_000, 600_000)
        wait_for(lambda more=more, process=process: process.poll() is not None or _size(database) > more)  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        process.communicate()
    done = press.newsletter(*importing(press, file))
    assert book(press) == book(calm)
    assert "1  not understood" in done.stdout
    again = press.newsletter(*importing(press, file))
    assert "Nothing was changed: the file has nothing new for readers." in again.stdout
    assert book(press) == book(calm)


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


# --- what is fast is what is right -------------------------------------------------------------------------------

KEYS = st.lists(
    st.binary(min_size=16, max_size=16) | st.sampled_from([bytes(16), bytes(15) + b"\1"]), max_size=60
)


@given(KEYS)
def test_a_key_is_new_once_and_only_once(keys: list[bytes]) -> None:
    seen, known = _Seen(), set[bytes]()
    for key in keys + keys:
        assert seen.add(key) is (key not in known)
        known.add(key)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=80))
def test_keys_that_begin_alike_are_told_apart_wherever_one_ends(parts: list[tuple[int, int]]) -> None:
    """All in one row, of a few bytes only: what is found may lie across two of them."""
    seen, known = _Seen(), set[bytes]()
    for one, other in parts:
        key = bytes(2) + bytes([one]) * 7 + bytes([other]) * 7
        assert seen.add(key) is (key not in known)
        known.add(key)


LOCAL = st.from_regex(r"[A-Za-z0-9._+-]{1,20}", fullmatch=True)
DOMAIN = st.sampled_from(
    ["example.org", "Example.ORG", "bücher.example", "xn--bcher-kva.example", "mail.gmx.de"]
)


@given(LOCAL | st.text(min_size=1, max_size=12), DOMAIN)
def test_the_short_way_to_a_key_gives_the_same_key(local: str, domain: str) -> None:
    import hashlib
    import hmac

    try:
        form = addresses.canonical(f"{local}@{domain}")
        wanted = hmac.digest(SECRET, form.encode(), hashlib.sha256)[:16]
    except ValueError:
        return
    assert addresses.key(f"{local}@{domain}", SECRET) == wanted


@given(st.text(max_size=30) | st.from_regex(r"[A-Za-zÀ-ɏ .,'’&()-]{0,30}", fullmatch=True))
def test_the_short_way_lets_no_name_pass_that_the_long_one_refuses(text: str) -> None:
    if admission.PLAIN_TEXT.fullmatch(text):
        assert not admission.TURNING.search(text)
        assert text.isprintable()
        assert "=?" not in text


# --- how far it is -----------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_in_a_log_lines_tell_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    told = io.StringIO()
    monkeypatch.setattr(sys, "stderr", told)
    with Shown(seconds=0, quiet=0) as shown:
        shown.told(500, 1_000_000)
        shown.told(1000, 1_000_000)
    assert told.getvalue() == "read 500 of 1,000,000 lines\nread 1,000 of 1,000,000 lines\n"


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Terminal()
    monkeypatch.setattr(sys, "stderr", told)
    with Shown(quiet=0) as shown:
        shown.told(250_000, 1_000_000)
        shown.told(500_000, 1_000_000)
    assert "Reading" in told.getvalue()
    assert "500000/1000000" in told.getvalue()


def test_a_short_file_needs_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Terminal()
    monkeypatch.setattr(sys, "stderr", told)
    with Shown() as shown:
        shown.told(4, 4)
    assert told.getvalue() == ""

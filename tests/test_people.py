"""A file's people: each once, told apart in little room, and what is fast is what is right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from newsletter import addresses, people
from newsletter.people import _Seen
from newsletter.rows import choose_columns, open_sheet

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from newsletter.people import Chunk

SECRET = b"0123456789abcdef0123456789abcdef"


def chunks(folder: Path, rows: str) -> list[Chunk]:
    file = folder / "people.csv"
    file.write_text("email,name,status\n" + rows, encoding="utf-8")
    sheet = open_sheet(file)
    return list(people.in_chunks(sheet, choose_columns(sheet, {}, ()), SECRET))


def test_everybody_is_in_one_chunk_in_the_order_of_the_file(tmp_path: Path) -> None:
    rows = "".join(f"r{number}@example.org,,active\n" for number in range(2 * people.CHUNK + 1))
    found = chunks(tmp_path, rows)
    assert [len(chunk.entries) for chunk in found] == [people.CHUNK, people.CHUNK, 1, 0]
    lines = [entry.line for chunk in found for entry in chunk.entries]
    assert lines == list(range(2, 2 * people.CHUNK + 3))


def test_people_of_a_large_file_come_in_the_order_of_their_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(people, "WINDOW", 700)
    rows = "".join(f"r{number}@example.org,,active\n" for number in range(1_000))
    keys = [entry.key for chunk in chunks(tmp_path, rows) for entry in chunk.entries]
    assert len(set(keys)) == 1_000
    assert keys[:700] == sorted(keys[:700])
    assert keys[700:] == sorted(keys[700:])


def test_what_is_found_on_the_way_is_told_once_and_at_the_latest_at_the_end(tmp_path: Path) -> None:
    rows = "nobody,,active\n" + "a@example.org,,active\n" * 3 + "b@example.org,,who knows\n"
    found = chunks(tmp_path, rows)
    assert sum(chunk.repeated for chunk in found) == 2
    unread = [(row.line, row.address) for chunk in found for row in chunk.unread]
    assert unread == [(2, "nobody"), (6, "b@example.org")]
    assert [chunk.unread[0].line for chunk in chunks(tmp_path, "nobody,,active\n")] == [2]


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
    if people.PLAIN_TEXT.fullmatch(text):
        assert not people.TURNING.search(text)
        assert text.isprintable()
        assert "=?" not in text

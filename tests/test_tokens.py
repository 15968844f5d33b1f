"""Tokens in links: only ours are read, and each in one spelling only."""

from __future__ import annotations

import base64
import string
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsletter.tokens import BadToken, Expired, Keyring, Purpose, make, maker, read, read_dated

NOW = datetime(2026, 12, 1, 9, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
RING = Keyring({1: b"k" * 32, 2: b"q" * 32}, 1)
LASTING = [Purpose.UNSUBSCRIBE, Purpose.PREFERENCES]
ENDING = [Purpose.CONFIRM, Purpose.ACCESS, Purpose.CHANGE]
IDS = st.integers(min_value=0, max_value=2**64 - 1)
LETTERS = string.ascii_letters + string.digits + "-_"


def key(byte, size=32):
    return base64.urlsafe_b64encode(bytes([byte]) * size).decode().rstrip("=")


@given(st.sampled_from(LASTING), IDS)
def test_a_link_in_a_newsletter_has_35_characters_and_never_ends(purpose, subscription):
    token = make(purpose, subscription, RING)
    assert len(token) == 35
    assert set(token) <= set(LETTERS)
    assert read(token, purpose, RING, now=NOW + timedelta(days=36500)) == subscription


@given(st.sampled_from(ENDING), IDS)
def test_a_link_mailed_on_request_ends(purpose, subscription):
    token = make(purpose, subscription, RING, expires=NOW + HOUR)
    assert read(token, purpose, RING, now=NOW + HOUR - timedelta(seconds=1)) == subscription
    with pytest.raises(BadToken, match="expired"):
        read(token, purpose, RING, now=NOW + HOUR)


def test_the_form_is_that_of_every_link_ever_sent():
    # These links are in people's mailboxes: if this fails, do not change the expectation (made with openssl).
    assert make(Purpose.UNSUBSCRIBE, 7, RING) == "EQEAAAAAAAAAB5IzPRzMhINHuWQz9gfKhkM"
    assert make(Purpose.CONFIRM, 7, RING, expires=NOW) == "EwEAAAAAAAAAB2sOjJB1tSnpzxwB30FfxN3Nzj-Z"


@given(st.data())
def test_a_changed_character_makes_it_invalid(data):
    token = make(Purpose.UNSUBSCRIBE, data.draw(IDS), RING)
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from(LETTERS.replace(token[at], "")))
    with pytest.raises(BadToken):
        read(token[:at] + other + token[at + 1 :], Purpose.UNSUBSCRIBE, RING, now=NOW)


def test_another_spelling_of_the_same_bytes_is_not_the_token():
    token = make(Purpose.UNSUBSCRIBE, 7, RING)
    raw = base64.urlsafe_b64decode(token + "=")
    twins = [
        token[:-1] + last for last in LETTERS if base64.urlsafe_b64decode(token[:-1] + last + "=") == raw
    ]
    assert len(twins) == 4  # two bits of the last character carry nothing
    spellings = {
        *twins,
        token + "=",
        token.replace("-", "+").replace("_", "/") + "=",
        f" {token}",
        f"{token}\n",
    }
    for spelling in spellings - {token}:
        with pytest.raises(BadToken):
            read(spelling, Purpose.UNSUBSCRIBE, RING, now=NOW)


@pytest.mark.parametrize("made", Purpose)
@pytest.mark.parametrize("asked", Purpose)
def test_a_token_serves_its_purpose_only(made, asked):
    token = make(made, 7, RING, expires=NOW + HOUR if made.expires else None)
    if made is asked:
        assert read(token, asked, RING, now=NOW) == 7
    else:
        with pytest.raises(BadToken):
            read(token, asked, RING, now=NOW)


@given(st.text() | st.text(alphabet=LETTERS, min_size=30, max_size=45))
def test_no_other_text_is_a_token(text):
    for purpose in Purpose:
        with pytest.raises(BadToken):
            read(text, purpose, RING, now=NOW)


@pytest.mark.parametrize(
    "ring",
    [Keyring({1: b"x" * 32}, 1), Keyring({2: b"k" * 32}, 2)],
    ids=["another key of that id", "the id is unknown"],
)
def test_a_foreign_key_signs_nothing(ring):
    with pytest.raises(BadToken, match="not valid"):
        read(make(Purpose.UNSUBSCRIBE, 7, RING), Purpose.UNSUBSCRIBE, ring, now=NOW)


def test_links_outlive_the_rotation_of_the_key_that_signed_them():
    old = Keyring.parse(f"1:{key(7)}")
    new = Keyring.parse(f"2:{key(8)},1:{key(7)}")
    assert new.signing == 2
    assert read(make(Purpose.UNSUBSCRIBE, 7, old), Purpose.UNSUBSCRIBE, new, now=NOW) == 7
    assert make(Purpose.UNSUBSCRIBE, 7, new) != make(Purpose.UNSUBSCRIBE, 7, old)


def test_what_is_refused_says_nothing_about_why():
    bad = [
        "",
        "x",
        make(Purpose.PREFERENCES, 7, RING),
        make(Purpose.UNSUBSCRIBE, 7, Keyring({9: b"k" * 32}, 9)),
    ]
    said = set()
    for token in bad:
        with pytest.raises(BadToken) as error:
            read(token, Purpose.UNSUBSCRIBE, RING, now=NOW)
        said.add(str(error.value))
    assert said == {"This link is not valid."}


def test_a_forged_token_does_not_even_learn_that_it_has_expired():
    token = make(Purpose.ACCESS, 7, Keyring({1: b"x" * 32}, 1), expires=NOW - HOUR)
    with pytest.raises(BadToken, match="not valid"):
        read(token, Purpose.ACCESS, RING, now=NOW)


def test_the_zone_of_a_moment_does_not_matter():
    expires = (NOW + HOUR).astimezone(timezone(timedelta(hours=9)))
    token = make(Purpose.ACCESS, 7, RING, expires=expires)
    assert token == make(Purpose.ACCESS, 7, RING, expires=NOW + HOUR)


@pytest.mark.parametrize(
    ("purpose", "subscription", "expires", "said"),
    [
        (Purpose.UNSUBSCRIBE, 7, NOW, "has no expiry"),
        (Purpose.ACCESS, 7, None, "needs expiry"),
        (Purpose.ACCESS, 7, NOW.replace(tzinfo=None), "without a zone"),
        (Purpose.ACCESS, 7, NOW.replace(year=2200), "out of range"),
        (Purpose.UNSUBSCRIBE, -1, None, "out of range"),
        (Purpose.UNSUBSCRIBE, 2**64, None, "out of range"),
    ],
)
def test_a_token_that_could_not_be_read_is_not_made(purpose, subscription, expires, said):
    with pytest.raises(ValueError, match=said):
        make(purpose, subscription, RING, expires=expires)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Key 1 is not written as ID:KEY"),
        (key(1), "Key 1 is not written as ID:KEY"),
        (f"a:{key(1)}", "Key 1 is not written as ID:KEY"),
        (f"²:{key(1)}", "Key 1 is not written as ID:KEY"),
        (f"1:{key(1)},", "Key 2 is not written as ID:KEY"),
        (f"256:{key(1)}", "Key id 256 is not a number from 0 to 255"),
        (f"1:{key(1, 31)}", "Key 1 has 31 bytes and needs 32"),
        (f"1:{key(1)},1:{key(2)}", "Two keys have the id 1"),
        (f"1:{key(1)[:-1]}!", "Key 1 is not base64url"),
        (f"1:{key(1)}é", "Key 1 is not base64url"),
    ],
)
def test_keys_that_can_not_be_used_are_named_and_not_shown(text, said):
    with pytest.raises(ValueError, match=said) as error:
        Keyring.parse(text)
    assert key(1)[:8] not in str(error.value)


def test_keys_may_be_padded_and_spaced():
    assert Keyring.parse(f" 1:{key(7)}= , 2:{key(8)}") == Keyring({1: bytes([7]) * 32, 2: bytes([8]) * 32}, 1)


def test_a_keyring_that_is_printed_shows_no_key():
    assert "kkk" not in repr(RING)


@given(IDS)
def test_a_campaigns_tokens_are_those_that_are_made_one_by_one(subscription: int) -> None:
    for purpose in LASTING:
        assert maker(purpose, RING)(subscription) == make(purpose, subscription, RING)


def test_a_token_that_expires_is_not_made_for_a_whole_campaign() -> None:
    with pytest.raises(ValueError, match="needs expiry"):
        maker(Purpose.CONFIRM, RING)


def test_a_token_says_when_it_expires() -> None:
    for purpose in ENDING:
        token = make(purpose, 7, RING, expires=NOW + HOUR)
        assert read_dated(token, purpose, RING, now=NOW) == (7, NOW + HOUR)
        with pytest.raises(Expired):
            read_dated(token, purpose, RING, now=NOW + HOUR)


def test_a_forged_token_is_never_called_expired() -> None:
    token = make(Purpose.ACCESS, 7, RING, expires=NOW)
    forged = ("B" if token[0] == "A" else "A") + token[1:]
    with pytest.raises(BadToken) as error:
        read(forged, Purpose.ACCESS, RING, now=NOW)
    assert not isinstance(error.value, Expired)

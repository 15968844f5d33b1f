"""Header fields on the wire: nothing gets in, nothing is cut where it must not be."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.message import EmailMessage

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from newsletter.headers import (
    CONTROL,
    clean,
    fixed,
    fold,
    mailbox,
    plain_line,
    unstructured,
    with_phrase,
)

ENCODED_BREAK = "=?utf-8?q?a=0ABcc:_v=40example.org?="  # CVE-2024-6923
LINES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]))
WORDS = LINES | st.text(alphabet='ab =?_",.\\<>@:;()é李', max_size=90) | st.text(alphabet="ab ", max_size=300)
BREAKS = [
    "\r",
    "\n",
    "\r\n",
    "\0",
    "\t",
    "\x0b",
    "\x0c",
    "\x1b",
    "\x7f",
    "\x85",
    "\u2028",
    "\u2029",
    "\ud800",
]


def parse(header):
    message = message_from_bytes(fold(header) + b"\r\n", policy=policy.default)
    assert message.keys() == [header.name]
    assert not message.defects
    return message[header.name]


def check_lines(raw):
    assert raw.isascii()
    assert raw.endswith(b"\r\n")
    lines = raw[:-2].split(b"\r\n")
    assert not any(b"\r" in line or b"\n" in line for line in lines)
    assert all(line[:1] == b" " and line.strip() for line in lines[1:])
    assert max(map(len, lines)) <= 76
    assert all(len(word) <= 75 for line in lines for word in line.split(b" ") if b"=?" in word)


@given(WORDS)
@example("  two  spaces  ")
@example("=?utf-8?q?shown_as_it_is?=")
@example("x" * 2000)
@example("x" * 68)
@example("李" * 500)
@example("👩‍👩‍👧‍👦" * 40)
def test_a_subject_is_read_as_it_was_written(text):
    raw = fold(unstructured("Subject", text))
    check_lines(raw)
    assert str(parse(unstructured("Subject", text))) == text


@given(WORDS | st.text(alphabet="abc ", min_size=60, max_size=75))
@example("")
@example(f"{'x' * 33} {'x' * 33}")
@example(f"{'x' * 33} {'x' * 34}")
@example("x" * 61)
@example("=?utf-8?q?a?=")
def test_the_short_way_for_a_plain_line_ends_where_the_careful_one_does(text):
    assert plain_line("Subject", text) in {None, fold(unstructured("Subject", text))}


def test_most_subjects_are_plain_lines():
    assert plain_line("Subject", "Less iron, Ann") == b"Subject: Less iron, Ann\r\n"


@given(WORDS)
@example('<b>Zoë</b>, "the" \\ reader')
@example("李小龙")
@example("Zoë, die Leserin aus Überlingen am schönen Bodensee, und ihre Freundinnen")
@example("O’Brien")
@example("Digest, The; (monthly)")
@example("a@b <c@d>")
@example("=?utf-8?q?a?=")
def test_a_sender_is_read_as_it_was_written(name):
    header = with_phrase("From", name, "digest@example.org")
    check_lines(fold(header))
    (address,) = parse(header).addresses
    assert address.addr_spec == "digest@example.org"
    assert display_name(header) == " ".join(name.split())


def display_name(header):
    phrase = fold(header).decode().replace("\r\n", "").removeprefix("From: ").rpartition("<")[0].rstrip()
    if "=?" in phrase:
        # Python 3.11's address parser puts a blank between encoded words; RFC 2047, section 6.2, does not.
        return str(make_header(decode_header(phrase)))
    return parse(header).addresses[0].display_name


@given(WORDS)
def test_the_decoded_form_of_a_sender_is_one_that_programs_can_read(name):
    oracle = EmailMessage()
    oracle["From"] = with_phrase("From", name, "digest@example.org").text
    (address,) = oracle["From"].addresses
    assert address.addr_spec == "digest@example.org"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("Iron in the thalamus", "Subject: Iron in the thalamus"),
        ("", "Subject:"),
        ("Café", "Subject: =?utf-8?b?Q2Fmw6k=?="),
        ("=?utf-8?q?a?=", "Subject: =?utf-8?b?PT91dGYtOD9xP2E/PQ==?="),
        ("a " * 60 + "a", "Subject: " + "a " * 33 + "a\r\n " + "a " * 26 + "a"),
    ],
)
def test_a_subject_is_plain_where_it_can_be(text, written):
    assert fold(unstructured("Subject", text)) == written.encode() + b"\r\n"


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("Research Digest", "From: Research Digest <a@b.org>"),
        ("Digest, The", 'From: "Digest, The" <a@b.org>'),
        ('"M" \\ S', 'From: "\\"M\\" \\\\ S" <a@b.org>'),
        ("Zoë", "From: =?utf-8?q?Zo=C3=AB?= <a@b.org>"),
        ("", "From: <a@b.org>"),
    ],
)
def test_a_name_is_quoted_or_encoded_only_where_it_must_be(name, written):
    assert fold(with_phrase("From", name, "a@b.org")) == written.encode() + b"\r\n"


@pytest.mark.parametrize("bad", BREAKS)
@pytest.mark.parametrize("make", [unstructured, lambda name, text: with_phrase(name, text, "a@b.org")])
def test_a_control_character_is_an_error_that_names_the_header(make, bad):
    with pytest.raises(ValueError, match=rf"From holds .* U\+{ord(bad[0]):04X}"):
        make("From", f"a{bad}Bcc: v@example.org")


@pytest.mark.parametrize(
    "text",
    [
        ENCODED_BREAK,
        f"Hello {ENCODED_BREAK}",
        ENCODED_BREAK.upper().replace("UTF", "utf"),
        "=?utf-8?b?YQpCY2M6IHZAZXhhbXBsZS5vcmc=?=",
        "=?utf-16?b?AGEACgBi?=",
        "=?unknown?q?a=0D=0Ab?=",
        "=?utf-8?q?a=00?=",
        "=?utf-8?q?=E2=80=A8?=",
        "=?utf-8?q?a?= =?utf-8?q?=0A?=",
    ],
)
def test_a_line_break_inside_an_encoded_word_is_an_error(text):
    with pytest.raises(ValueError, match="Subject holds the control character"):
        unstructured("Subject", text)


@pytest.mark.parametrize(
    "text",
    [
        "=?",
        "?=",
        "=?utf-8?b?%%%?=",
        "=?utf-8?b?A?=",
        "=?x?q??=",
        "=?utf-8?b?李?=",
        "=?utf-8?q?李?=",
        "a =? b ?= c",
    ],
)
def test_half_an_encoded_word_is_text(text):
    assert clean("subject", text) == text
    assert str(parse(unstructured("Subject", text))) == text


@given(st.text())
def test_what_is_clean_can_be_folded_and_what_is_not_is_refused(text):
    try:
        clean("subject", text)
    except ValueError:
        assert CONTROL.search(text)
    else:
        check_lines(fold(unstructured("Subject", text)))


@pytest.mark.parametrize("bad", BREAKS)
def test_the_last_guard_stops_what_a_caller_forgot(bad):
    with pytest.raises(ValueError, match="X-Any holds a character"):
        fold(fixed("X-Any", f"a{bad}Bcc:v@example.org"))


def test_a_uri_stays_whole_however_long():
    uri = f"<https://example.org/{'x' * 300}>"
    assert fold(fixed("List-Unsubscribe", uri)) == f"List-Unsubscribe: {uri}\r\n".encode()


def test_a_line_that_no_server_has_to_take_is_an_error():
    most = 998 - len("X-Any: ")
    assert len(fold(fixed("X-Any", "x" * most))) == 1000
    with pytest.raises(ValueError, match=r"X-Any .* too long"):
        fold(fixed("X-Any", "x" * (most + 1)))


@pytest.mark.parametrize(
    ("address", "wired"),
    [
        ("zoe@example.org", "zoe@example.org"),
        ("zoe@müller.de", "zoe@xn--mller-kva.de"),
        ("zoë@müller.de", "zoë@xn--mller-kva.de"),
        ("=cmd|'/c'!a1@example.org", "=cmd|'/c'!a1@example.org"),
    ],
)
def test_a_mailbox_has_its_domain_in_ascii(address, wired):
    assert mailbox("to", address) == wired


@pytest.mark.parametrize(
    "address",
    [
        "",
        "zoe",
        "a b@c.org",
        "a@b.org, c@d.org",
        "a@b.org c@d.org",
        "<a@b.org>",
        '"a"@b.org',
        "a\\@b.org",
        "a(c)@b.org",
        "a@b.org\n",
        "a\0@b.org",
        "a\u2028@b.org",
        "=?utf-8?q?a?=@b.org",
        f"{ENCODED_BREAK}@b.org",
        "a@[192.0.2.1]",
        "a@b@c.org",
        "a@",
    ],
)
def test_what_is_no_plain_address_is_an_error_that_does_not_show_it(address):
    with pytest.raises(ValueError, match=r"^to (is|holds)") as error:
        mailbox("to", address)
    assert "b.org" not in str(error.value)

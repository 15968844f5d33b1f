"""Quoted-printable: what stands in the lines, and that nothing is lost in them or between them."""

from __future__ import annotations

import binascii
import html
import re
from quopri import decodestring

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from newsletter import merge
from newsletter.quoted_printable import PLAIN, Gap, encode, splice

TEXT = st.text() | st.text(alphabet="ab=._ \t\r\n<&'é李\u2028", max_size=300)
TAGS = ["@@name|reader@@", "@@town@@", "@@town|@@", "@@name|<b>you</b> &amp; .@@"]
TEMPLATE = st.lists(TEXT | st.sampled_from([*TAGS, "\r", "\n", ".", " "]), max_size=8).map("".join)
VALUES = st.dictionaries(
    st.sampled_from(["name", "town"]), TEXT | st.sampled_from(["\r", "\n", ".", " ", "From "])
)


def crlf(text):
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n")


def check_lines(encoded):
    """What every encoded text must be, whatever is in it."""
    assert not re.search(rb"[^\t\r\n -~]|(?<!\r)\n|\r(?!\n)", encoded)
    lines = encoded.split(b"\r\n")
    assert max(map(len, lines)) <= 76
    assert not any(line.startswith(b".") or line.endswith((b" ", b"\t")) for line in lines)
    assert b"=" not in lines  # a soft break after nothing


def decode(encoded):
    """As two decoders read it."""
    read = binascii.a2b_qp(encoded)
    assert read == decodestring(encoded)
    return read.decode()


# --- a whole text ---


@given(TEXT)
@example("trailing blank \n \t\n.\n\nFrom here\r\rlast ")
@example("." * 400)
@example("=" * 400)
@example("李" * 400)
@example("a\r\nb\rc\n")
def test_a_text_is_read_as_it_was_written_with_crlf_line_ends(text):
    check_lines(encode(text))
    assert decode(encode(text)) == crlf(text)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("", b""),
        ("Dear reader,\n", b"Dear reader,\r\n"),
        ("1 = 1", b"1 =3D 1"),
        ("Zoë", b"Zo=C3=AB"),
        ("a\0b\x7f", b"a=00b=7F"),
        ("\tend \n end\t", b"\tend=20\r\n end=09"),
        ("a  \n", b"a =20\r\n"),
        (".\n..\na.b", b"=2E\r\n=2E.\r\na.b"),
        ("From here", b"From here"),
        ("x" * 75, b"x" * 75),
        ("x" * 77, b"x" * 75 + b"=\r\nxx"),
    ],
)
def test_only_what_must_be_encoded_is(text, written):
    assert encode(text) == written


@pytest.mark.parametrize("length", range(60, 90))
@pytest.mark.parametrize("end", ["", ".", "..", " ", "=", "é", "李.", ".\n.", "x" * 80])
def test_wherever_a_line_ends_no_line_begins_with_a_dot_or_cuts_an_octet(length, end):
    for text in ("x" * length + end, "." * length + end, "=" * (length // 3) + "x" * (length % 3) + end):
        check_lines(encode(text))
        assert decode(encode(text)) == crlf(text)
        assert not re.search(rb"=(?![0-9A-F]{2}|\r\n)", encode(text))


def test_a_long_line_of_a_text_with_crlf_breaks_with_crlf():
    # binascii.b2a_qp looks for a line end to learn which kind to use, and breaks with a bare LF where it finds none.
    assert encode("x" * 100) == b"x" * 75 + b"=\r\n" + b"x" * 25
    check_lines(encode("x" * 100 + "\r\n" + "y" * 100))


@pytest.mark.parametrize("length", range(70, 160))
def test_the_last_line_has_room_for_a_soft_break(length):
    # binascii.b2a_qp fills it up to column 76: with an = behind it, 77.
    for text in ("x" * length, "é" * length, "." * length, "x" * length + " "):
        assert len(encode(text).split(b"\r\n")[-1]) <= 75


def test_half_a_character_is_an_error_that_names_the_part():
    with pytest.raises(ValueError, match=r"^the lead holds half a character"):
        encode("a\ud800b", "the lead")


# --- a text that is cut at its slots ---


def spliced(template, escape=str):
    return splice("the part", merge.split(template), escape)


def together(template, values, escape=str):
    pieces = spliced(template, escape)
    return b"".join(piece.piece(values) if isinstance(piece, Gap) else piece for piece in pieces)


@given(TEMPLATE, VALUES, st.sampled_from([str, html.escape]))
@example("a\r@@name|@@\nb", {}, str)
@example("a\r@@name@@\nb", {"name": "\n"}, str)
@example("a\r@@name@@\nb", {"name": "\r"}, str)
@example("\r@@name|@@@@town@@\n", {"town": "\n\r"}, str)
@example("@@name@@\r@@town|@@\n@@name@@", {"name": "\r"}, str)
@example("a@@name@@@@town@@b", {"name": "\r", "town": "\n"}, str)
@example("a@@name|@@@@town|@@", {}, str)
@example("a @@name@@\n.@@town@@.", {"name": ".", "town": " "}, html.escape)
def test_a_spliced_text_is_read_as_the_filled_text_would_be(template, values, escape):
    encoded = together(template, values, escape)
    check_lines(encoded)
    assert decode(encoded) == crlf(merge.fill(merge.split(template), values, escape))
    assert not encoded.endswith(b"=\r\n")


@pytest.mark.parametrize(
    ("template", "value", "written"),
    [
        ("Dear @@name@@, hello", "Ann", b"Dear=20=\r\nAnn=\r\n, hello"),
        ("Dear @@name@@, hello", "", b"Dear=20=\r\n, hello"),
        ("Dear @@name|reader@@, hello", "", b"Dear=20=\r\nreader=\r\n, hello"),
        ("Dear\n@@name@@, hello", "Ann", b"Dear\r\nAnn=\r\n, hello"),
        ("Dear\n@@name@@, hello", "", b"Dear\r\n, hello"),
        ("@@name@@\nhello", "Ann", b"Ann=\r\n\r\nhello"),
        ("Dear @@name@@", "Ann", b"Dear=20=\r\nAnn"),
        ("Dear @@name@@", "Ann ", b"Dear=20=\r\nAnn=20"),
        ("Dear@@name|@@", "", b"Dear"),
        ("Dear @@name@@ and", "a\n", b"Dear=20=\r\na\r\n and"),
        ("@@name@@@@name@@!", "Ann", b"AnnAnn=\r\n!"),
        ("(@@name@@)", ".x", b"(=\r\n=2Ex=\r\n)"),
        ("(@@name@@)", "x" * 75, b"(=\r\n" + b"x" * 75 + b"=\r\n)"),
        ("(@@name@@)", "x" * 76, b"(=\r\n" + b"x" * 75 + b"=\r\nx=\r\n)"),
    ],
)
def test_a_value_stands_on_lines_of_its_own(template, value, written):
    assert together(template, {"name": value}) == written


@given(st.from_regex(PLAIN, fullmatch=True))
def test_a_plain_value_is_the_same_in_the_text_in_the_html_and_on_the_wire(value):
    assert html.escape(value) == value
    assert encode(value) == value.encode()


@pytest.mark.parametrize(
    "value", ["", ".a", "a ", "a=", "a&", "<", ">", '"', "'", "é", "a\n", "\t", "x" * 76]
)
def test_what_has_to_be_encoded_or_escaped_is_not_plain(value):
    assert not PLAIN.fullmatch(value)


def test_what_stands_for_a_missing_value_is_made_once():
    (_, gap, _) = spliced("Dear @@name|reader@@, hello")
    assert gap.piece({}) is gap.piece({"name": ""})


@pytest.mark.parametrize("template", ["a\ud800 @@name@@", "@@name|\ud800@@"])
def test_half_a_character_in_the_text_is_an_error_before_any_copy(template):
    with pytest.raises(ValueError, match=r"^the part holds half a character"):
        spliced(template)


def test_half_a_character_in_a_value_is_an_error_that_names_the_part():
    with pytest.raises(ValueError, match=r"^the part holds half a character"):
        together("Dear @@name@@", {"name": "a\udfff"})

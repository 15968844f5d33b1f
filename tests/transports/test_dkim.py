"""Signatures, read by somebody else's program (dkimpy), and the keys they are made with."""

from __future__ import annotations

import base64
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from newsletter.message import Message, Wire
from newsletter.model import Accepted, Edition, Email, Picture
from newsletter.transports import dkim_keys
from newsletter.transports.dkim import SEALED, Signer
from newsletter.transports.smtp import SmtpTransport
from newsletter.transports.smtp_session import SmtpSettings
from tests.support import dkim_keys as keys
from tests.support.copies import HTML, TEXT, hand_over, people, recipient
from tests.support.publication import MESSAGE
from tests.support.smtp_server import smtp_server

# A date in the past, because receivers doubt a signature from the future.
SETTINGS = replace(MESSAGE, date=datetime(2024, 5, 7, 9, tzinfo=UTC))
EMAIL = Email(
    title="Iron & more",
    subject="Iron for @@name|reader@@",
    preheader="A finding",
    html=HTML,
    text=TEXT,
    language="en",
    view_path="/archive/2026-12",
)
SCAN = Picture("images/scan.png", "image/png", b"\x89PNG scan \r\n\0" * 400, 600, 400, "A scan")
READER = recipient(7)


@cache
def signer():
    return Signer(keys.DOMAIN, [keys.rsa(), keys.ed25519()])


def verdicts(raw):
    """Of the RSA signature and of the Ed25519 one, which stands below it."""
    return keys.verdicts(raw, keys.published([keys.rsa(), keys.ed25519()]))


def copy(email=EMAIL, settings=SETTINGS, reader=READER):
    return Wire(email, settings).message(reader)


def joined(message, fields=()):
    return b"".join([*fields, *message.headers, b"\r\n", *message.body])


def signed(*args, **kwargs):
    message = copy(*args, **kwargs)
    return joined(message, signer().fields(message))


def tags(field):
    """Tag → value, without the blanks that folding brings."""
    pairs = field.partition(b":")[2].decode("ascii").split(";")
    return {
        name.strip(): re.sub(r"\s", "", value) for name, _, value in (pair.partition("=") for pair in pairs)
    }


# --- what is signed can be verified ---

LINE = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=200)
PART = st.lists(
    st.text(alphabet="ab=.-_ \t\r\n<>é李", max_size=200)
    | st.sampled_from(["@@name|reader@@", "@@town@@", "\n\n\n", "   ", " \n", ".\n", "From me\n"]),
    max_size=6,
).map("".join)
PICTURES = st.sampled_from([(), (SCAN,)])


@st.composite
def copies(draw, editions=(Edition.STANDARD, Edition.TEXT)):
    edition = draw(st.sampled_from(editions))
    pictures = draw(PICTURES) if edition is Edition.STANDARD else ()
    shown = '<img src="image:images/scan.png">' if pictures else ""
    written = LINE.filter(lambda text: "@@" not in text and "=?" not in text)
    email = replace(
        EMAIL,
        subject=draw(written) + draw(st.sampled_from(["", " @@name|reader@@"])),
        text=draw(PART),
        html=draw(PART) + shown if edition is Edition.STANDARD else "",
        pictures=pictures,
        edition=edition,
    )
    from_name = draw(written.filter(str.strip))
    return copy(
        email,
        replace(SETTINGS, from_name=from_name),
        recipient(draw(st.integers(0, 9)), name=draw(written), town=draw(PART)),
    )


@given(copies())
@settings(max_examples=40)
def test_whatever_is_written_both_signatures_are_good(message):
    assert verdicts(joined(message, signer().fields(message))) == [True, True]


@given(copies([Edition.STANDARD]))
def test_the_simple_form_of_a_body_is_the_body(message):
    body = b"".join(message.body)
    assert re.sub(rb"(\r\n)*\Z", b"\r\n", body, count=1) == body  # RFC 6376, section 3.4.3


@pytest.mark.parametrize("kind", [keys.rsa, keys.ed25519], ids=["rsa", "ed25519"])
def test_one_key_makes_one_signature(kind):
    message = copy()
    fields = Signer(keys.DOMAIN, [kind()]).fields(message)
    assert len(fields) == 1
    assert keys.verdicts(joined(message, fields), keys.published([kind()])) == [True]


def test_a_domain_above_that_of_the_sender_can_sign():
    message = copy(settings=replace(SETTINGS, from_address="digest@news.example.org"))
    fields = signer().fields(message)
    assert tags(fields[0])["d"] == "example.org"
    assert verdicts(joined(message, fields)) == [True, True]


@pytest.mark.parametrize("address", ["zoë@example.net", "zoe@bücher.example"])
def test_a_copy_for_an_address_that_is_not_ascii_is_signed_as_well(address):
    assert verdicts(signed(reader=recipient(1, address))) == [True, True]


def test_long_headers_that_are_folded_are_signed_as_one_line():
    email = replace(EMAIL, subject="Ein ganz langer Betreff über Eisen im Thalamus " * 6)
    message = copy(email, replace(SETTINGS, from_name="Die Nachrichten für alle, die Langes mögen " * 4))
    assert sum(field.count(b"\r\n ") for field in message.headers) > 8
    assert verdicts(joined(message, signer().fields(message))) == [True, True]


# --- what a signature says ---


def test_a_signature_says_whose_it_is_and_when_and_nothing_that_weakens_it():
    said = tags(signer().fields(copy())[0])
    assert list(said) == ["v", "a", "c", "d", "s", "t", "h", "bh", "b"]  # no l=, no x=
    assert said["t"] == str(int(SETTINGS.date.timestamp()))
    assert (said["a"], said["c"], said["d"], said["s"]) == (
        "rsa-sha256", "relaxed/simple", "example.org", "news2027",
    )  # fmt: skip


def test_both_unsubscribe_headers_and_all_that_readers_see_are_covered():
    named = tags(signer().fields(copy())[1])["h"].split(":")
    assert set(SEALED) | {"list-id", "list-help", "list-post"} == set(named)
    assert {name for name in named if named.count(name) == 2} == set(SEALED)
    assert {"list-unsubscribe", "list-unsubscribe-post"} <= set(SEALED)  # RFC 8058, section 4


def test_a_signature_stays_within_its_lines():
    for field in signer().fields(copy()):
        assert field.startswith(b"DKIM-Signature: v=1;")
        assert field.endswith(b"\r\n")
        lines = field.removesuffix(b"\r\n").split(b"\r\n")
        assert max(map(len, lines)) <= 76
        assert all(line.startswith(b" ") and line.strip() for line in lines[1:])
        assert field.isascii()


def test_the_second_try_of_a_copy_is_the_same_bytes():
    again = Signer(keys.DOMAIN, [keys.rsa(), keys.ed25519()])
    assert signer().fields(copy()) == again.fields(copy())


def test_a_message_without_a_date_is_signed_without_a_time():
    message = copy()
    undated = Message([field for field in message.headers if not field.startswith(b"Date:")], message.body)
    fields = signer().fields(undated)
    assert "t" not in tags(fields[0])
    assert verdicts(joined(undated, fields)) == [True, True]


def test_threads_may_share_a_signer():
    wire = Wire(EMAIL, SETTINGS)
    messages = [wire.message(reader) for reader in people(40)]
    alone = [signer().fields(message) for message in messages]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(signer().fields, messages * 3)) == alone * 3


@pytest.mark.parametrize("end", [b"", b"no line end"])
def test_a_body_without_a_line_end_is_a_bug(end):
    with pytest.raises(AssertionError, match="simple form"):
        signer().fields(Message(copy().headers, [b"text\r\n", end]))


@pytest.mark.parametrize("end", [b"\r\n", b"text\r\n\r\n", b"=\r\n\r\n\r\n"])
def test_a_plain_text_may_end_in_empty_lines(end):
    message = Message(copy().headers, [b"text=\r\n", end])
    assert verdicts(joined(message, signer().fields(message))) == [True, True]


# --- what is changed on the way ---


def changed(raw, old, new):
    assert raw.count(old) == 1, old
    return raw.replace(old, new)


def test_what_servers_do_on_the_way_breaks_nothing():
    raw = signed()
    head, _, body = raw.partition(b"\r\n\r\n")
    head = b"Return-Path: <a@example.org>\r\nReceived: from a by b\r\nX-Spam: no\r\n" + head
    head = changed(head, b"\r\nSubject: Iron for", b"\r\nSUBJECT:  Iron\r\n\t for ")
    head = changed(head, b";\r\n boundary", b"; boundary")
    assert verdicts(head + b"\r\n\r\n" + body + b"\r\n\r\n") == [True, True]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Dear=20=\r\nReader 7=", b"Dear=20=\r\nReader 8="),
        (b"--\r\n", b"--\r\nOne line more.\r\n"),
        (b"\r\nList-Unsubscribe: <https://news", b"\r\nList-Unsubscribe: <https://mews"),
        (b"List-Unsubscribe=One-Click", b"List-Unsubscribe=Two-Click"),
        (b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n", b""),
        (b"To: reader7@example.net", b"To: reader8@example.net"),
        (b"Iron for Reader 7", b"Lead for Reader 7"),
        (b"List-ID: Research", b"List-ID: Other"),
    ],
    ids=lambda value: value.decode()[:24].strip() if isinstance(value, bytes) else None,
)
def test_a_change_breaks_the_signature(old, new):
    raw = signed()
    place = raw.rindex(old) if old == b"--\r\n" else raw.index(old)
    assert verdicts(raw[:place] + new + raw[place + len(old) :]) == [False, False]


def test_without_its_list_unsubscribe_a_copy_is_not_what_was_signed():
    assert verdicts(re.sub(rb"\r\nList-Unsubscribe: [^\r]*", b"", signed())) == [False, False]


@pytest.mark.parametrize("name", SEALED)
@pytest.mark.parametrize("first", [True, False])
def test_a_second_field_of_a_name_breaks_the_signature(name, first):
    second = name.encode() + b": <https://elsewhere.example>\r\n"
    head, _, body = signed().partition(b"\r\n\r\n")
    raw = second + head + b"\r\n\r\n" + body if first else head + b"\r\n" + second + b"\r\n" + body
    assert verdicts(raw) == [False, False]


@pytest.mark.parametrize("name", ["Reply-To", "List-Unsubscribe", "List-Unsubscribe-Post"])
def test_a_name_that_was_not_there_can_not_be_added_either(name):
    message = copy()
    fewer = Message(
        [field for field in message.headers if not field.startswith(f"{name}:".encode())], message.body
    )
    fields = signer().fields(fewer)
    assert verdicts(joined(fewer, fields)) == [True, True]
    assert verdicts(joined(message, fields)) == [False, False]


# --- the whole way ---


def test_what_arrives_through_a_mail_server_can_be_verified():
    shown = replace(
        EMAIL, html=HTML.replace("<body>", '<body><img src="image:images/scan.png">'), pictures=(SCAN,)
    )
    with smtp_server() as server:
        known = SmtpSettings(host="127.0.0.1", port=server.port, security="none", lanes=2)
        transport = SmtpTransport(known, signer=signer())
        report = hand_over(transport, people(12), Wire(shown, SETTINGS), lanes=2)
    assert {type(outcome) for outcome in report.outcomes.values()} == {Accepted}
    assert len(server.messages) == 12
    assert all(verdicts(arrived.content) == [True, True] for arrived in server.messages)
    assert all(arrived.content.startswith(b"DKIM-Signature: ") for arrived in server.messages)


# --- keys ---

PKCS8, PKCS1 = PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL


def saved(folder, key, form=PKCS8, encryption=None):
    file = folder / "key.pem"
    file.write_bytes(key.private_bytes(Encoding.PEM, form, encryption or NoEncryption()))
    return file


@pytest.mark.parametrize(
    ("kind", "form"),
    [(keys.rsa, PKCS8), (keys.rsa, PKCS1), (keys.ed25519, PKCS8)],
    ids=["rsa", "rsa of old", "ed25519"],
)
def test_a_key_is_read_from_either_kind_of_pem_file(tmp_path, kind, form):
    key = kind()[1]
    assert dkim_keys.record(dkim_keys.read(saved(tmp_path, key, form))) == dkim_keys.record(key)


@pytest.mark.parametrize("algorithm", ["rsa", "ed25519"])
def test_a_new_key_is_for_its_owner_only_and_never_written_over_another(tmp_path, algorithm):
    key, file = dkim_keys.make(algorithm), tmp_path / "key.pem"
    dkim_keys.write(file, key)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    written = file.read_bytes()
    with pytest.raises(FileExistsError):
        dkim_keys.write(file, dkim_keys.make("ed25519"))
    assert file.read_bytes() == written
    assert dkim_keys.record(dkim_keys.read(file)) == dkim_keys.record(key)


@pytest.mark.parametrize(
    ("words", "make"),
    [
        ("511 bits", lambda: keys.rsa_of(2**255 - 19, 2**256 - 189)),
        pytest.param("4484 bits", lambda: keys.rsa_of(2**2203 - 1, 2**2281 - 1), marks=pytest.mark.full),
        ("a kind that DKIM does not know", lambda: ec.generate_private_key(ec.SECP256R1())),
    ],
    ids=["short", "long", "another kind"],
)
def test_a_key_that_receivers_would_not_take_is_refused(tmp_path, words, make):
    with pytest.raises(ValueError, match=words):
        dkim_keys.read(saved(tmp_path, make()))


def test_a_key_with_a_password_is_refused(tmp_path):
    locked = saved(tmp_path, keys.ed25519()[1], encryption=BestAvailableEncryption(b"sesame"))
    with pytest.raises(ValueError, match="password"):
        dkim_keys.read(locked)


def test_what_holds_no_private_key_is_refused_and_not_shown(tmp_path):
    file = tmp_path / "key.pem"
    public = keys.rsa()[1].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    whole = saved(tmp_path, keys.rsa()[1]).read_bytes()
    for content in (b"", b"\xff\0", public, whole[:400], whole[100:]):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"^holds no private key in PEM form$") as error:
            dkim_keys.read(file)
        assert error.value.__suppress_context__


def test_an_ed25519_record_is_that_of_the_rfc():
    """RFC 8463, appendix A."""
    secret = base64.b64decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
    record = dkim_keys.record(Ed25519PrivateKey.from_private_bytes(secret))
    assert record == "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="


def test_a_record_of_an_rsa_key_is_cut_into_strings_that_a_zone_can_hold():
    record = dkim_keys.record(keys.rsa()[1])
    pieces = dkim_keys.strings(record)
    assert record.startswith("v=DKIM1; k=rsa; p=MII")
    assert (len(pieces), "".join(pieces)) == (2, record)
    assert max(map(len, pieces)) <= 255


def test_a_key_is_short_below_2048_bits():
    mersenne = keys.rsa_of(2**521 - 1, 2**607 - 1)
    assert dkim_keys.describe(mersenne) == "RSA, 1128 bits"
    assert dkim_keys.is_short(mersenne)
    assert not dkim_keys.is_short(keys.rsa()[1])
    assert not dkim_keys.is_short(keys.ed25519()[1])

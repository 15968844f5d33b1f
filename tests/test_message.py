"""The message: what a reader's program finds in it, and what stands in its very bytes."""

from __future__ import annotations

import html
import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from email.message import EmailMessage

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from newsletter import merge
from newsletter.headers import PLAIN_MAILBOX, fixed, fold, unstructured
from newsletter.message import PLAIN_LINK, MessageSettings, Wire, needs_smtputf8, picture_path, picture_url
from newsletter.model import Email, Picture, Recipient
from tests.support import mail
from tests.support.publication import MESSAGE as SETTINGS

LINK = "https://news.example.org/u/EQEAAAAAAAAAB5IzPRzMhINHuWQz9gfKhkM"
SCAN = Picture("images/scan.png", "image/png", b"\x89PNG scan \r\n\0" * 40, 600, 400, "A scan")
CHART = Picture("images/a chart.jpg", "image/jpeg", b"\xff\xd8\xff chart", 300, 200, "A chart")
EMAIL = Email(
    title="Less iron & more",
    subject="Iron, @@name|reader@@",
    preheader="Held across many methods",
    html='<p>Dear @@name|reader@@, <i>@@issue_title@@</i></p><a href="@@unsubscribe_url@@">leave</a> @@view_url@@',
    text="Dear @@name|reader@@, @@issue_title@@\n\nLeave: @@unsubscribe_url@@\nView: @@view_url@@\n",
    language="en",
    view_path="/archive/2026-12",
)
READER = Recipient(bytes(range(16)), "zoe@example.org", {"name": "Zoë", "unsubscribe_url": LINK})
FIELDS = [
    *("From", "Reply-To", "To", "Subject", "Date", "Message-ID", "List-ID", "List-Help", "List-Post"),
    *("List-Unsubscribe", "List-Unsubscribe-Post", "Auto-Submitted", "X-Auto-Response-Suppress"),
    *("MIME-Version", "Content-Type"),
]
TEXT = st.text() | st.text(alphabet="ab=.-_ \t\r\n@|<>&\"'é李\u2028", max_size=300)
LINE = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]))
BREAKS = ["a\r\nBcc: v@example.org", "a\nb", "a\0b", "a\x85b", "a\u2028b", "=?utf-8?q?a=0ABcc:_v=40x?="]


def build(email=EMAIL, settings=SETTINGS, recipient=READER):
    return b"".join(Wire(email, settings).pieces(recipient))


def read(email=EMAIL, settings=SETTINGS, recipient=READER):
    return mail.read(build(email, settings, recipient))


def to(recipient=READER, *, address=None, **values):
    return replace(recipient, address=address or recipient.address, values={**recipient.values, **values})


def check_bytes(raw):
    """What every message must be, whatever is in it."""
    assert raw.isascii()
    assert raw.endswith(b"\r\n")
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)|\0", raw)
    assert not re.search(rb"^\.", raw, re.MULTILINE)  # nobody has to double a dot (RFC 5321, section 4.5.2)
    head, _, body = raw.partition(b"\r\n\r\n")
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    assert max(map(len, body.split(b"\r\n"))) <= 76
    assert [line.partition(b":")[0].decode() for line in head.split(b"\r\n") if line[:1] != b" "] == FIELDS


def crlf(text):
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n")


# --- what a reader finds ---


def test_a_reader_finds_their_own_words_in_every_part():
    found = read()
    assert found.subject == "Iron, Zoë"
    assert found.text == crlf(
        f"Dear Zoë, Less iron & more\n\nLeave: {LINK}\nView: https://news.example.org/archive/2026-12\n"
    )
    assert "Dear Zoë, <i>Less iron &amp; more</i>" in found.html
    assert f'href="{LINK}"' in found.html
    check_bytes(found.raw)


@pytest.mark.parametrize(
    "name",
    ["O’Brien", "<b>Zoë</b>", "李小龙", '"Q", \\', "=?utf-8?q?x?=", "@@view_url@@", "a,b;c:d", "ب\u200f"],
)
def test_an_awkward_name_is_only_a_name(name):
    found = read(recipient=to(name=name))
    assert found.subject == f"Iron, {name}"
    assert f"Dear {name}, " in found.text
    assert f"<p>Dear {html.escape(name)}, <i>" in found.html
    assert found.field("To") == "zoe@example.org"
    check_bytes(found.raw)


@pytest.mark.parametrize("recipient", [to(name=""), replace(READER, values={"unsubscribe_url": LINK})])
def test_a_reader_without_a_name_gets_the_fallback(recipient):
    found = read(recipient=recipient)
    assert found.subject == "Iron, reader"
    assert "Dear reader, " in found.text
    assert "Dear reader, " in found.html


def test_what_all_copies_share_can_not_be_overruled_by_a_recipient():
    found = read(recipient=to(issue_title="mine", view_url="https://elsewhere.example"))
    assert "mine" not in found.text
    assert "elsewhere" not in found.text


TAGS = [
    *("@@name|reader@@", "@@town@@", "@@town|@@", "@@long|<b>you</b>@@"),
    *("@@issue_title@@", "@@view_url@@", "@@unsubscribe_url@@", "\r", "\n", ".", " "),
]
TEMPLATE = st.lists(TEXT | st.sampled_from(TAGS), max_size=8).map("".join)
SUBJECT = st.lists(LINE | st.sampled_from(["@@name|reader@@", "@@issue_title@@", " "]), max_size=4).map(
    "".join
)
AWKWARD = st.sampled_from(
    [".", "..a", "From me", "=", "a ", "\t", "\r", "\n", "\r\n.\r\n", "x" * 75, "x" * 76]
)
values = st.fixed_dictionaries(
    {"name": LINE | st.sampled_from([".", " ", "a=b"])},
    optional={"town": TEXT | AWKWARD, "long": st.text(min_size=200) | AWKWARD},
)


@given(subject=SUBJECT, body=TEMPLATE, page=TEMPLATE, values=values, title=LINE)
@example(subject="", body=" ", page="\r", values={"name": "", "town": "\n.\n", "long": "."}, title="")
@example(
    subject="@@name@@ @@issue_title@@",
    body="trailing \nand\t\n@@town@@",
    page="x" * 76 + " @@town@@@@long@@",
    values={"name": "n", "town": " ", "long": "=" * 99},
    title="t",
)
@example(
    subject="a",
    body="a\r@@town@@\nb",
    page="@@town|@@\r@@town@@",
    values={"name": "", "town": "\r"},
    title=".",
)
def test_whatever_is_written_is_found_again_as_an_email_package_would_have_put_it(
    subject, body, page, values, title
):
    assume("=?" not in subject + values["name"] + title)  # test_headers has those
    assume("@@" not in title)
    email = replace(EMAIL, title=title, subject=subject, text=body, html=page)
    recipient = to(**values)
    found = read(email, recipient=recipient)
    check_bytes(found.raw)
    known = {**recipient.values, "issue_title": title, "view_url": "https://news.example.org/archive/2026-12"}
    expected = oracle(
        subject=merge.fill(merge.split(subject), known),
        text=merge.fill(merge.split(body), known),
        page=merge.fill(merge.split(page), known, html.escape),
    )
    assert found.subject == expected.subject
    # EmailMessage ends every part with a line end; we add nothing.
    assert found.text == without_end(crlf(expected.text), found.text)
    assert found.html == without_end(crlf(expected.html), found.html)
    assert found.structure == expected.structure


def oracle(subject, text, page):
    """The same content through the standard library, which does it slowly and unsafely, but independently."""
    message = EmailMessage()
    message["Subject"] = subject
    message.set_content(text, cte="base64")
    message.add_alternative(page, subtype="html", cte="base64")
    return mail.Mail(b"", message)


def without_end(expected, found):
    return expected if found.endswith("\r\n") else expected.removesuffix("\r\n")


@given(TEXT)
@example("trailing blank \n \t\n.\n\nFrom here\r\rlast ")
def test_a_text_keeps_every_blank_and_every_line(text):
    assume("@@" not in text)
    assert read(replace(EMAIL, text=text)).text == crlf(text)
    assert read(replace(EMAIL, html=text)).html == crlf(text)


@pytest.mark.parametrize("end", ["", ".", " ", "é"])
def test_a_value_of_any_length_fits_in_its_lines(end):
    for length in (0, 1, *range(70, 80), *range(148, 154)):
        name = "x" * length + end
        found = read(recipient=to(name=name))
        check_bytes(found.raw)
        assert f"Dear {name or 'reader'}, " in found.text
        assert f"<p>Dear {name or 'reader'}, <i>" in found.html


def test_a_line_that_begins_with_from_or_a_dot_arrives_as_it_was():
    town = "From the sea\n.\n..\n.hidden\n"
    found = read(replace(EMAIL, text="@@town@@.\n@@town@@"), recipient=to(town=town))
    assert found.text == crlf(f"{town}.\n{town}")
    assert b"\r\nFrom the sea\r\n=2E\r\n=2E.\r\n=2Ehidden\r\n=2E\r\n" in found.raw
    check_bytes(found.raw)


def test_a_value_that_holds_a_boundary_ends_no_part():
    email = replace(EMAIL, text="@@town@@ end")
    boundary = read(email).parsed.get_boundary()
    found = read(email, recipient=to(town=f"\r\n--{boundary}--\r\n"))
    assert found.structure == ["multipart/alternative", "text/plain", "text/html"]
    assert found.text.endswith(f"--{boundary}--\r\n end")


# --- pictures ---

SHOWN = (
    '<img src="image:images/scan.png" alt="A scan"><td background="image:images/a%20chart.jpg">@@name@@</td>'
)
ILLUSTRATED = replace(EMAIL, html=SHOWN, pictures=(SCAN, CHART))


def test_a_mail_without_pictures_has_two_parts():
    assert read().structure == ["multipart/alternative", "text/plain", "text/html"]


def test_pictures_travel_beside_the_html_that_shows_them():
    found = read(ILLUSTRATED)
    related = ["multipart/related", "text/html", "image/png", "image/jpeg"]
    assert found.structure == ["multipart/alternative", "text/plain", *related]
    assert found.pictures == {f"<{cid(SCAN)}>": SCAN.data, f"<{cid(CHART)}>": CHART.data}
    assert found.html == f'<img src="cid:{cid(SCAN)}" alt="A scan"><td background="cid:{cid(CHART)}">Zoë</td>'
    assert all(part.get_content_disposition() in {None, "inline"} for part in found.parsed.walk())
    check_bytes(found.raw)


def cid(picture):
    return Wire(EMAIL, SETTINGS).content_id(picture)


def test_a_content_id_comes_from_the_bytes():
    assert cid(SCAN) == cid(replace(SCAN, name="images/other.png"))
    assert cid(SCAN) != cid(CHART)
    assert cid(SCAN).endswith("@example.org")


def test_a_picture_travels_once_however_often_it_is_shown_and_not_at_all_if_it_is_not():
    twin = replace(SCAN, name="images/twin.png")
    page = (
        '<img src="image:images/scan.png"><img src="image:images/twin.png"><img src="image:images/scan.png">'
    )
    found = read(replace(EMAIL, html=page, pictures=(SCAN, twin, CHART)))
    assert found.pictures == {f"<{cid(SCAN)}>": SCAN.data}
    assert found.html.count(f"cid:{cid(SCAN)}") == 3


def test_hosted_pictures_do_not_travel():
    settings = replace(SETTINGS, images_url="https://news.example.org/media")
    found = read(ILLUSTRATED, settings)
    assert found.structure == ["multipart/alternative", "text/plain", "text/html"]
    assert (
        picture_url(EMAIL, settings, SCAN) == f"https://news.example.org/media/2026-12/{SCAN.sha256[:16]}.png"
    )
    assert picture_path(EMAIL, CHART) == f"2026-12/{CHART.sha256[:16]}.jpg"
    assert f'<img src="{picture_url(EMAIL, settings, SCAN)}"' in found.html
    assert f'background="{picture_url(EMAIL, settings, CHART)}"' in found.html


def test_a_picture_that_is_not_there_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"does not bring: images/scan\.png"):
        Wire(replace(ILLUSTRATED, pictures=(CHART,)), SETTINGS)


@given(st.binary(min_size=1, max_size=500))
def test_a_picture_arrives_byte_for_byte(data):
    picture = replace(SCAN, data=data)
    found = read(replace(EMAIL, html='<img src="image:images/scan.png">', pictures=(picture,)))
    assert list(found.pictures.values()) == [data]
    check_bytes(found.raw)


# --- headers, in the very bytes ---


def test_the_headers_are_these_and_no_others():
    settings = replace(SETTINGS, unsubscribe_mailto="leave@example.org")
    assert read(settings=settings).fields[:-2] == [
        ("From", "Research Digest <digest@example.org>"),
        ("Reply-To", "editor@example.org"),
        ("To", "zoe@example.org"),
        ("Subject", "=?utf-8?q?Iron=2C_Zo=C3=AB?="),
        ("Date", "Tue, 01 Dec 2026 09:00:00 +0000"),
        ("Message-ID", "<000102030405060708090a0b0c0d0e0f@example.org>"),
        ("List-ID", "Research Digest <digest.example.org>"),
        ("List-Help", "<mailto:editor@example.org>"),
        ("List-Post", "NO"),
        ("List-Unsubscribe", f"<{LINK}>,<mailto:leave@example.org?subject={LINK[-35:]}>"),
        ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
        ("Auto-Submitted", "auto-generated"),
        ("X-Auto-Response-Suppress", "OOF, AutoReply"),
    ]


def test_a_provider_that_writes_its_own_mime_gets_the_same_headers_decoded():
    recipient, settings = to(name="李小龙"), replace(SETTINGS, from_name="Zoë’s, Digest")
    wire = Wire(EMAIL, settings)
    told = dict(wire.headers(recipient))
    assert list(told) == FIELDS[:-2]
    assert told["Subject"] == "Iron, 李小龙"
    assert told["From"] == '"Zoë’s, Digest" <digest@example.org>'
    assert told["List-ID"] == '"Zoë’s, Digest" <digest.example.org>'
    found = mail.read(b"".join(wire.pieces(recipient)))
    assert found.parsed["From"].addresses[0].display_name == "Zoë’s, Digest"
    assert {
        name: told[name] for name in ("To", "Date", "Message-ID", "List-Unsubscribe", "List-Help")
    }.items() <= dict(found.fields).items()


def test_a_provider_that_fills_tags_itself_gets_them_with_pictures_in_place():
    wire = Wire(ILLUSTRATED, SETTINGS)
    assert f'src="cid:{cid(SCAN)}"' in wire.html()
    assert "@@name@@" in wire.html()
    assert wire.text() == EMAIL.text


@pytest.mark.parametrize("length", [60, 77, 78, 200, 900])
def test_an_unsubscribe_link_is_neither_encoded_nor_folded_however_long(length):
    link = "https://news.example.org/u/".ljust(length, "x")
    raw = build(recipient=to(unsubscribe_url=link))
    assert f"\r\nList-Unsubscribe: <{link}>\r\n".encode() in raw


def test_every_address_and_link_stands_in_ascii_and_in_one_piece():
    sender = f"{'d' * 60}@{'long-label.' * 12}müller.example.org"
    settings = replace(
        SETTINGS, from_name="Zoë " * 30, from_address=sender, reply_to=sender, unsubscribe_mailto=sender
    )
    raw = build(settings=settings, recipient=to(address=sender))
    wired = sender.replace("müller", "xn--mller-kva").encode()
    assert raw.count(b"<%b>\r\n" % wired) == 1  # From
    assert b"\r\nReply-To: %b\r\n" % wired in raw
    assert b"\r\nTo: %b\r\n" % wired in raw
    assert b",<mailto:%b?subject=" % wired in raw
    assert b"@%b>\r\n" % wired.partition(b"@")[2] in raw  # Message-ID
    check_bytes(raw)


def test_without_a_reply_address_replies_go_to_the_sender():
    assert read(settings=replace(SETTINGS, reply_to="")).field("Reply-To") == "digest@example.org"


def test_a_mailto_link_quotes_what_a_link_can_not_hold():
    settings = replace(SETTINGS, unsubscribe_mailto="a&b?c@example.org")
    assert "<mailto:a%26b%3Fc@example.org?subject=" in read(settings=settings).field("List-Unsubscribe")


ADDRESSES = (
    st.emails()
    | st.from_regex(PLAIN_MAILBOX, fullmatch=True)
    | st.sampled_from(["李@müller.de", "a=?b@c.org", "x" * 990 + "@b.org", "a@" + "b" * 990, "a@b\n", "a @b"])
)
LINKS = (
    st.text(alphabet="ab/?=&%,;:~._-<>\"' é\n", max_size=40).map("https://".__add__)
    | st.from_regex(PLAIN_LINK, fullmatch=True)
    | st.sampled_from([LINK, "", "http://a/b", "https://a/" + "b" * 950, "https://a/" + "b" * 990])
    | st.sampled_from([f"https://a{bad}b/c" for bad in ',<>"é'])
)


@given(
    ADDRESSES,
    LINKS,
    LINE | st.text(alphabet="ab =?", max_size=90),
    st.sampled_from(["", "leave&x@example.org"]),
)
@example("zoe@example.org", LINK, "Ann  B", "")
@example("zoe@example.org", LINK, "=?utf-8?q?a=0Ab?=", "")
@example("zoe@example.org", "https://a,b/c", "Ann", "")
@example("zoe@example.org", LINK, "x" * 59, "")
@example("zoe@example.org", LINK, "x" * 61, "")
def test_the_short_way_to_a_header_ends_where_the_careful_one_does(address, link, name, leave):
    wire = Wire(EMAIL, replace(SETTINGS, unsubscribe_mailto=leave))
    recipient = to(address=address, unsubscribe_url=link, name=name)
    assert outcome(lambda: wire.message(recipient).headers[:13]) == outcome(
        lambda: carefully(wire, recipient)
    )


def carefully(wire, recipient):
    written = {
        "Subject": unstructured
    }  # who sends holds no more than ASCII here, so that its text is what is written
    return [fold(written.get(name, fixed)(name, text)) for name, text in wire.headers(recipient)]


def outcome(build):
    try:
        return build()
    except ValueError:
        return None  # which of several reasons comes first does not matter


# --- what can't stand in a message ---


@pytest.mark.parametrize("bad", BREAKS)
def test_a_value_that_could_end_the_subject_is_an_error_that_names_its_tag(bad):
    with pytest.raises(ValueError, match=r"^the value of @@name@@ holds the control character U\+"):
        build(recipient=to(name=bad))


def test_an_encoded_word_put_together_from_two_pieces_is_an_error_too():
    with pytest.raises(ValueError, match="Subject holds the control character"):
        build(replace(EMAIL, subject="=?utf-8?q?@@name@@?="), recipient=to(name="a=0AB"))


def test_the_same_value_is_harmless_where_no_header_shows_it():
    for bad in BREAKS:
        found = read(replace(EMAIL, subject="Iron"), recipient=to(name=bad))
        assert crlf(f"Dear {bad}, ") in found.text
        check_bytes(found.raw)


@pytest.mark.parametrize("bad", BREAKS)
@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("from_name", "From"),
        ("from_address", "from_address"),
        ("reply_to", "reply_to"),
        ("list_id", "list_id"),
        ("envelope_from", "envelope_from"),
        ("unsubscribe_mailto", "unsubscribe_mailto"),
    ],
)
def test_a_setting_that_could_end_a_header_is_an_error_that_names_it(field, said, bad):
    with pytest.raises(ValueError, match=f"^{said} "):
        Wire(EMAIL, replace(SETTINGS, **{field: bad}))


@pytest.mark.parametrize("bad", BREAKS)
def test_a_subject_that_could_end_its_header_is_an_error_before_any_copy(bad):
    with pytest.raises(ValueError, match=r"^the subject holds"):
        Wire(replace(EMAIL, subject=bad), SETTINGS)


@pytest.mark.parametrize("bad", BREAKS)
def test_a_title_that_could_end_the_subject_is_an_error_before_any_copy(bad):
    with pytest.raises(ValueError, match=r"^the value of @@issue_title@@ holds the control character"):
        Wire(replace(EMAIL, subject="@@issue_title@@, @@name@@", title=bad), SETTINGS)


@pytest.mark.parametrize("field", ["from_address", "reply_to", "envelope_from", "unsubscribe_mailto"])
def test_a_sender_that_most_servers_would_refuse_is_an_error(field):
    with pytest.raises(ValueError, match=f"^{field} is not ASCII before the @-sign"):
        Wire(EMAIL, replace(SETTINGS, **{field: "zoë@example.org"}))


def test_a_date_without_a_zone_is_an_error():
    with pytest.raises(ValueError, match="date has no time zone"):
        Wire(EMAIL, replace(SETTINGS, date=SETTINGS.date.replace(tzinfo=None)))


@pytest.mark.parametrize(
    "address", ["", "zoe", "zoe@b.org, ann@b.org", "zoe@b.org\r\nBcc: ann@b.org", '"z q"@b.org']
)
def test_a_recipient_is_one_address(address):
    with pytest.raises(ValueError, match=r"^the recipient's address") as error:
        build(recipient=replace(READER, address=address))
    assert "b.org" not in str(error.value)


@pytest.mark.parametrize(
    "link",
    [
        "",
        "http://example.org/u/x",
        "https://",
        "https://example.org/u/x y",
        "https://example.org/u/é",
        "https://example.org/u/x>,<mailto:x@y.org",
        "https://example.org/u/x\r\nBcc: v@example.org",
        "https://a.b/u/x,y",
    ],
)
def test_a_copy_without_a_link_to_leave_is_not_built(link):
    with pytest.raises(ValueError, match=r"^the value of @@unsubscribe_url@@ is no https address"):
        build(recipient=to(unsubscribe_url=link))


def test_half_a_character_is_an_error_that_names_the_part():
    for part, shown in (("text", "text"), ("html", "html")):
        email = replace(EMAIL, **{"subject": "Iron", "text": "a", "html": "b", part: "Dear @@name@@"})
        with pytest.raises(ValueError, match=f"^the {shown} part holds half a character"):
            build(email, recipient=to(name="a\ud800b"))
        with pytest.raises(ValueError, match=f"^the {shown} part holds half a character"):
            Wire(replace(email, **{part: "a\ud800b"}), SETTINGS)


# --- one message, one form ---


def test_the_same_inputs_give_the_same_bytes_in_any_thread():
    wire = Wire(ILLUSTRATED, SETTINGS)
    people = [to(name=f"Reader {number}", address=f"r{number}@example.org") for number in range(50)]
    with ThreadPoolExecutor(4) as threads:
        built = list(threads.map(lambda one: b"".join(wire.pieces(one)), people))
    assert built == [build(ILLUSTRATED, recipient=one) for one in people]
    assert len(set(built)) == 50


def test_what_all_copies_share_is_encoded_once():
    wire = Wire(replace(ILLUSTRATED, subject="Iron"), SETTINGS)
    one, other = wire.message(READER), wire.message(to(name="Ann", address="ann@example.org"))
    differ = [a for a, b in zip(one.headers, other.headers, strict=True) if a is not b]
    assert [field.partition(b":")[0] for field in differ] == [b"To", b"Message-ID", b"List-Unsubscribe"]
    # The name and the link in the text, the name in the html.
    assert [a is b for a, b in zip(one.body, other.body, strict=True)].count(False) == 3


def test_a_message_is_its_fields_an_empty_line_and_its_body():
    wire = Wire(EMAIL, replace(SETTINGS, from_name="Zoë " * 40))
    headers, body = wire.message(READER)
    assert [field.partition(b":")[0].decode() for field in headers] == FIELDS
    assert all(field.endswith(b"\r\n") for field in headers)
    assert body[-1].endswith(b"--\r\n")
    assert wire.pieces(READER) == [*headers, b"\r\n", *body]


def test_a_list_of_pieces_belongs_to_who_asked_for_it():
    wire = Wire(EMAIL, SETTINGS)
    before = wire.pieces(READER)
    for pieces in wire.message(READER):
        pieces.clear()
    assert wire.pieces(READER) == before


def test_a_restart_with_the_stored_settings_gives_the_same_bytes():
    settings = replace(SETTINGS, envelope_from="bounces@example.org", images_url="https://example.org/media")
    stored = json.loads(json.dumps(settings.to_dict()))
    assert MessageSettings.from_dict(stored) == settings
    assert build(settings=MessageSettings.from_dict(stored)) == build(settings=settings)


def test_bounces_go_to_an_address_that_names_the_delivery():
    settings = replace(SETTINGS, envelope_from="bounces@müller.example.org")
    bounces = Wire(EMAIL, settings).envelope_from(READER)
    assert bounces == f"bounces+{READER.id}@xn--mller-kva.example.org"
    assert Wire(EMAIL, SETTINGS).envelope_from(READER) == "digest@example.org"


# --- internationalised addresses ---


def test_an_international_domain_needs_nothing_of_the_server():
    recipient = to(address="zoe@müller.example.org")
    assert not needs_smtputf8(recipient)
    assert read(recipient=recipient).field("To") == "zoe@xn--mller-kva.example.org"


def test_an_international_local_part_stays_as_it_is_and_is_announced():
    recipient = to(address="李小龙@müller.example.org")
    assert needs_smtputf8(recipient)
    raw = build(recipient=recipient)
    assert "\r\nTo: 李小龙@xn--mller-kva.example.org\r\n".encode() in raw
    assert raw.replace("李小龙".encode(), b"").isascii()

"""Pictures: what they are, how large, and the references that stand for them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import html as lxml_html

from newsletter.pictures import measure, reference, resolve_pictures
from tests.support.issues import gif, jpeg, png

FRAME_MARKERS = [0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF]


@pytest.mark.parametrize(
    ("data", "media_type"),
    [(png(640, 480), "image/png"), (jpeg(640, 480), "image/jpeg"), (gif(640, 480), "image/gif"),
     (gif(640, 480, version=b"GIF87a"), "image/gif")],
)  # fmt: skip
def test_kind_and_size_come_from_the_bytes(data, media_type):
    assert measure(data) == (media_type, 640, 480)


@pytest.mark.parametrize("marker", FRAME_MARKERS)
def test_every_kind_of_jpeg_frame_is_known(marker):
    assert measure(jpeg(31, 17, marker=marker)) == ("image/jpeg", 31, 17)


@pytest.mark.parametrize(
    "before",
    [
        b"\xff\xc4" + struct.pack(">H", 9) + b"\x07\x07\x07\x07\x07\x07\x07",  # a Huffman table, no frame
        b"\xff\xff\xff\xfe" + struct.pack(">H", 6) + b"note",  # fill bytes, then a comment
        b"\xff\xd0",  # a restart marker has no length
        b"\xff\xe1" + struct.pack(">H", 6) + b"\xff\xc0\x00\x00",  # what looks like a frame inside a segment
    ],
)
def test_jpeg_segments_before_the_frame_are_skipped(before):
    assert measure(jpeg(31, 17, before=before)) == ("image/jpeg", 31, 17)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a PNG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a PNG"),
        (b"RIFF\0\0\0\0WEBP", "not a PNG"),
        (png()[:20], "cut short"),
        (jpeg()[:24], "cut short"),
        (gif()[:8], "cut short"),
        (png(0, 5), "no width"),
        (gif(5, 0), "no height"),
        (png().replace(b"IHDR", b"JUNK"), "damaged"),
        (b"\xff\xd8\xff\xd9", "damaged"),
        (b"\xff\xd8\xff\xe0\0\4ab\0\0\0\0", "damaged"),
    ],
)
def test_what_is_no_picture_is_refused_in_words(data, words):
    with pytest.raises(ValueError, match=words):
        measure(data)


@given(st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a"]), st.binary(max_size=60))
def test_no_bytes_do_more_than_be_refused(signature, rest):
    try:
        _, width, height = measure(signature + rest)
    except ValueError:
        return
    assert width > 0
    assert height > 0


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)


@given(NAMES)
def test_any_name_survives_its_reference(name):
    asked = []
    html = f'<img alt="" src="{reference(name)}" />'
    assert (
        resolve_pictures(html, lambda found: asked.append(found) or "cid:x") == '<img alt="" src="cid:x" />'
    )
    assert asked == [name]


@pytest.mark.parametrize(
    ("html", "resolved"),
    [
        ('<td background="image:a.png">', '<td background="URL">'),
        ("<img src='image:a.png'>", "<img src='URL'>"),
        (
            "<td style=\"background:url('image:a.png') no-repeat\">",
            "<td style=\"background:url('URL') no-repeat\">",
        ),
        ('<td style="background:url(image:a.png)">', '<td style="background:url(URL)">'),
        (
            '<td style="background:url(&quot;image:a.png&quot;)">',
            '<td style="background:url(&quot;URL&quot;)">',
        ),
        (
            '<!--[if mso]><v:fill src="image:a.png" /><![endif]-->',
            '<!--[if mso]><v:fill src="URL" /><![endif]-->',
        ),
        ('<img alt="5 > 3" src="image:a.png">', '<img alt="5 > 3" src="URL">'),
    ],
)
def test_references_are_found_wherever_a_template_may_put_them(html, resolved):
    assert resolve_pictures(html, lambda name: "URL") == resolved


@pytest.mark.parametrize(
    "html",
    [
        '<p>Write "image:a.png" and (image:a.png) and src="image:a.png".</p>',
        '<img alt="image:a.png" src="cid:1">',
        '<img alt=\'src="image:a.png"\' src="cid:1">',
        '<a title="image:a.png" href="https://example.org/?x=image:a.png">x</a>',
        '<meta content="image:a.png">',
        "<" * 2000 + '"',
    ],
)
def test_an_authors_words_are_never_taken_for_a_reference(html):
    assert resolve_pictures(html, lambda name: "URL") == html


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_text_around_a_picture_stays_as_it_is(text):
    page = lxml_html.fragment_fromstring("<div><p></p></div>")
    page[0].text = text
    page.append(lxml_html.Element("img", alt=text, src=reference("images/a b.png")))
    page.append(lxml_html.Element("img", src="image:", alt=text))
    resolved = lxml_html.fromstring(
        resolve_pictures(lxml_html.tostring(page, encoding="unicode"), lambda name: "cid:1")
    )
    assert (resolved[0].text or "") == text
    assert resolved[1].get("alt") == text
    assert resolved[1].get("src") == "cid:1"

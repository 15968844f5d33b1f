"""The straight line as a property: whatever an author writes, readers find it again, intact, in both parts."""

from __future__ import annotations

import tomllib
from email import message_from_bytes, policy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from lxml import html as lxml_html

from newsletter.content import load
from newsletter.message import Wire
from newsletter.model import Recipient
from newsletter.render import Theme, render
from newsletter.texts import load as load_texts
from tests.support.publication import MESSAGE, PUBLICATION

if TYPE_CHECKING:
    from email.message import EmailMessage

LINKS = {"unsubscribe_url": "https://news.example.org/u/x", "preferences_url": "https://news.example.org/p/x"}

# Control characters are refused by content; @@ begins a merge tag. Everything else is an author's good right.
CHARACTERS = st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="\u2028\u2029")
WORDS = st.text(CHARACTERS, min_size=1, max_size=60).filter(lambda text: "@@" not in text and text.strip())
AWKWARD = st.sampled_from(
    [
        "<b>\"Zoë\" & 'co'</b>",
        "I ❤️ you",
        "Café > Bar",
        "{{ x }} {% y %} {#",
        "a\\b",
        "नमस्ते 👩‍👩‍👧",
        "=?utf-8?q?ab?=",
        "--x--",
    ]
)
TEXT = st.one_of(WORDS, AWKWARD)
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


def toml(text: str) -> str:
    """A TOML string that means exactly this text."""
    quoted = "".join(f"\\U{ord(c):08X}" if c in '"\\' or not c.isprintable() else c for c in text)
    assert tomllib.loads(f'x = "{quoted}"')["x"] == text
    return f'"{quoted}"'


def markdown(text: str) -> str:
    """A paragraph that shows exactly this text."""
    return "".join(f"\\{c}" if c in PUNCTUATION else c for c in text.strip())


def write(folder: Path, title: str, teaser: str, body: str, subject: str) -> None:
    issue = folder / "issues" / "2026-12"
    issue.mkdir(parents=True)
    (issue / "issue.toml").write_text(
        f"subject = {toml(subject)}\npreheader = 'What was found'\ndate = 2026-12-01\n"
        f"[lead]\ntitle = {toml(title)}\n[lead.source]\ntitle = 'A paper'\nurl = 'https://example.org/p'\n"
        f"[[related]]\ntitle = 'Gut'\ntext = {toml(teaser)}\nurl = 'https://example.org/gut'\ndate = 2026-11-30\n",
        encoding="utf-8",
    )
    sections = f"## Found\n\nx{markdown(body)}x\n\n## Why\n\nBecause.\n\n## Limits\n\nMany.\n"
    (issue / "lead.md").write_text(sections, encoding="utf-8")


def send_one(folder: Path, name: str) -> EmailMessage:
    """Content → render → message → what a mail program reads."""
    email = render(load(folder, "2026-12"), publication=PUBLICATION, theme=Theme(), texts=load_texts("en"))
    recipient = Recipient(bytes(16), "reader@example.org", {"name": name, **LINKS})
    return message_from_bytes(b"".join(Wire(email, MESSAGE).pieces(recipient)), policy=policy.default)


def plain(text: str) -> str:
    """White space as a reader sees it: wrapping and indenting are no part of what was written."""
    return " ".join(text.split())


@given(title=TEXT, teaser=TEXT, body=TEXT, subject=TEXT, name=TEXT)
def test_what_was_written_is_what_is_read(title, teaser, body, subject, name):
    with TemporaryDirectory() as folder:
        write(Path(folder), title, teaser, body, subject)
        message = send_one(Path(folder), name)
    html = message.get_body(("html",)).get_content()
    shown = plain(lxml_html.document_fromstring(html).text_content())
    text = plain(message.get_body(("plain",)).get_content())
    for written in (title, teaser, f"x{body.strip()}x", name):
        assert plain(written) in shown
        assert plain(written) in text
    assert message["Subject"].strip() == subject.strip()

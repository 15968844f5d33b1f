"""The message that all contenders send, and its readers: the newest sample issue, 46 kB as multipart/alternative."""

from __future__ import annotations

import base64
import email
import email.policy
import hashlib
import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from newsletter import wiring
from newsletter.config import load
from newsletter.content import load as load_issue
from newsletter.content import slugs
from newsletter.message import Wire
from newsletter.model import Recipient
from newsletter.render import render

if TYPE_CHECKING:
    from collections.abc import Iterator

    from newsletter.message import MessageSettings
    from newsletter.model import Email

ROOT = Path(__file__).resolve().parents[2]
NOON = datetime(2026, 12, 1, 12, 0, tzinfo=UTC)
DOMAIN = "example.org"
WIRE_BYTES = range(45_000, 49_000)
PICTURES_BYTES = 100_000
NAMES = ("Anna Weiß", "José Ñúñez", "Zoë O’Brien", "Иван Петров", "Łukasz Żak", "山田 花子", "Reader", "Ann")
LINK = "https://news.example.org/{}/AQEAAAAA{:08}{}"
PERSONAL = {"To", "Subject", "From", "Message-ID", "List-Unsubscribe"}


class Person(NamedTuple):
    """A reader, as the peers get one: with the links made beforehand."""

    address: str
    name: str
    message_id: str
    unsubscribe_url: str
    preferences_url: str


def people(count: int) -> Iterator[Person]:
    """Readers of six domains, whose names are of several scripts."""
    for number in range(1, count + 1):
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        links = (LINK.format(kind, number, digest[:19]) for kind in "up")
        yield Person(address(number), name(number), f"<{digest[:32]}@{DOMAIN}>", *links)


def address(number: int) -> str:
    """Of reader ``number``."""
    return f"reader{number}@{number % 6}.{DOMAIN}"


def name(number: int) -> str:
    """Of reader ``number``."""
    return NAMES[number % len(NAMES)]


def compiled(*, pictures: bool) -> Email:
    """The email, without its pictures or with ``PICTURES_BYTES`` of them."""
    found = _newest()
    data = [os.urandom(PICTURES_BYTES // len(found.pictures)) for _ in found.pictures]
    shown = tuple(replace(one, data=bytes_) for one, bytes_ in zip(found.pictures, data, strict=True))
    return replace(found, pictures=shown if pictures else (), html=found.html if pictures else _hosted(found))


def _newest() -> Email:
    """The newest sample issue, with four of its teasers: that makes it 46 kB."""
    settings = load(ROOT, {})
    issue = load_issue(ROOT, slugs(ROOT)[-1])
    return render(
        replace(issue, related=issue.related[:4]),
        publication=wiring.publication(settings),
        theme=wiring.theme(settings),
        texts=wiring.texts(settings),
    )


def _hosted(found: Email) -> str:
    html = found.html
    for one in found.pictures:
        html = html.replace(f"image:{one.name}", f"https://news.example.org/media/{one.name}")
    return html


def settings(project: Path) -> MessageSettings:
    """What every copy says of its sender."""
    return wiring.message_settings(load(project, {}), NOON)


def write_for_peers(folder: Path, what: Email, message: MessageSettings, count: int) -> None:
    """``email.json``, ``people.jsonl``, the pictures, and one copy as it travels in ``message.eml``."""
    wire = Wire(what, message)
    first = next(people(1))
    copy = Recipient(bytes(16), first.address, {"name": first.name, **_links(first)})
    headers = {name: value for name, value in wire.headers(copy) if name not in PERSONAL}
    own = {name: value for name, value in headers.items() if name not in {"Date", "Reply-To"}}
    told = {
        "from": f"{message.from_name} <{message.from_address}>",
        "subject": what.subject,
        "headers": headers,
        "own_headers": own,
        "text": _for_peers(wire.text(), wire, copy),
        "html": _for_peers(wire.html(), wire, copy),
        "pictures": _write_pictures(folder, what, wire),
    }
    (folder / "email.json").write_text(json.dumps(told), encoding="utf-8")
    lines = (json.dumps(one._asdict()) + "\n" for one in people(count))
    (folder / "people.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "message.eml").write_bytes(b"".join(wire.pieces(copy)))


def _links(person: Person) -> dict[str, str]:
    return {"unsubscribe_url": person.unsubscribe_url, "preferences_url": person.preferences_url}


def _for_peers(text: str, wire: Wire, copy: Recipient) -> str:
    """What all readers share is filled in beforehand, and everybody has a name: three plain replacements are left."""
    text = text.replace("@@name|reader@@", "@@name@@")
    for tag in ("view_url", "issue_title"):
        text = text.replace(f"@@{tag}@@", wire.values(copy)[tag])
    return text


def _write_pictures(folder: Path, what: Email, wire: Wire) -> list[dict[str, str]]:
    found = []
    for number, one in enumerate(what.pictures):
        file = folder / f"picture{number}"
        file.write_bytes(one.data)
        found.append(
            {"cid": wire.content_id(one), "type": one.media_type, "name": file.name, "file": str(file)}
        )
    return found


def check(arrived: str, who: str, *, pictures: bool) -> int:
    """Raises ``AssertionError`` unless this (base64) is the message that was meant; returns its size."""
    raw = base64.b64decode(arrived)
    found: Any = email.message_from_bytes(raw, policy=email.policy.default)
    text, html = found.get_body(("plain",)), found.get_body(("html",))
    assert found.get_content_type() == "multipart/alternative", f"{who}: {found.get_content_type()}"
    for part in (text, html):
        assert part["Content-Transfer-Encoding"] == "quoted-printable", f"{who}: {part.items()}"
        assert "https://news.example.org/u/" in part.get_content(), f"{who}: no unsubscribe link"
        assert "@@" not in part.get_content(), f"{who}: a merge tag is left"
    assert found["List-Unsubscribe"].strip().startswith("<https://"), f"{who}: {found['List-Unsubscribe']}"
    assert found["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click", who
    if not pictures:
        assert len(raw) in WIRE_BYTES, f"{who}: {len(raw)} bytes"
    return len(raw)

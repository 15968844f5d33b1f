"""Editions: one issue in three variants, chosen by each reader, fixed at the freeze, through every way out."""

from __future__ import annotations

import json
from dataclasses import replace
from email import message_from_bytes, policy
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select, update

from newsletter import freezing, sending
from newsletter.message import Wire, Wires
from newsletter.model import Accepted, Edition, Recipient, digest
from newsletter.store import campaigns
from newsletter.store.engine import open_engine, read, write
from newsletter.store.schema import campaign, delivery, email, subscriber
from newsletter.transports.memory import MemoryTransport
from newsletter.transports.sendgrid import SendGridSettings, SendGridTransport
from tests.support import ledgers
from tests.support.copies import hand_over, people
from tests.support.ledgers import EMAIL, NOW, TARGET
from tests.support.mail import Mail
from tests.support.publication import MESSAGE
from tests.support.publisher import Publisher, publisher
from tests.support.sendgrid_server import KEY, Fault, Say, errors, sendgrid_server
from tests.support.smtp_server import smtp_server

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sqlalchemy import Engine

LARGE = replace(EMAIL, edition=Edition.LARGE, html="<p>LARGE @@name|reader@@</p>")
PLAIN = replace(EMAIL, edition=Edition.TEXT, html="", text="PLAIN @@name|reader@@\n@@unsubscribe_url@@\n")
EDITIONS = (EMAIL, LARGE, PLAIN)
CHOICES = {"ann@example.org": "large", "zoe@example.org": "text", "max@example.org": "standard"}


def wires(editions: Sequence[Any] = EDITIONS) -> Wires:
    return Wires([Wire(one, MESSAGE) for one in editions])


def crowd(count: int) -> list[Recipient]:
    """Every third has another edition; the last one's is unknown to this program."""
    names = [*Edition, "braille"]
    return [replace(one, edition=names[number % 4]) for number, one in enumerate(people(count))]


def mail(content: bytes) -> Mail:
    return Mail(content, message_from_bytes(content, policy=policy.default))  # type: ignore[arg-type]


def choose(engine: Engine, choices: dict[str, str]) -> None:
    for address, edition in choices.items():
        who = update(subscriber).where(subscriber.c.address == address)
        write(engine, lambda conn, who=who, edition=edition: conn.execute(who.values(edition=edition)))


@pytest.fixture
def press(tmp_path: Path) -> Publisher:
    """A publisher with three readers who have chosen differently."""
    made = publisher(tmp_path)
    made.import_people([(address, address[:3].title()) for address in CHOICES])
    engine = open_engine(f"sqlite:///{tmp_path}/.newsletter/newsletter.db")
    choose(engine, CHOICES)
    engine.dispose()
    return made


def judge(found: dict[str, Mail]) -> None:
    """Each reader has what they have chosen."""
    assert found["zoe@example.org"].structure == ["text/plain"]
    assert "Dear Zoe," in found["zoe@example.org"].text
    assert "font-size:20px" in found["ann@example.org"].html
    assert "font-size:20px" not in found["max@example.org"].html
    assert "font-size:17px" in found["max@example.org"].html
    texts = {one.text.split("Unsubscribe\r\n")[0].split("Dear ")[1][3:] for one in found.values()}
    assert len(texts) == 1, "the words are the same for everybody"


def test_each_reader_gets_the_edition_they_chose(press: Publisher) -> None:
    press.newsletter("send", "2026-12", "--confirm", "3")
    found = [mail(file.read_bytes()) for file in press.outbox.glob("*.eml")]
    judge({str(one.parsed["To"]): one for one in found})
    rows = json.loads(press.newsletter("deliveries", "2026-12", "--format", "json").stdout)
    assert {row["address"]: row["edition"] for row in rows} == CHOICES


def test_each_reader_gets_it_by_smtp_too(press: Publisher) -> None:
    with smtp_server() as server:
        press.configure(
            f'[sending]\nmode = "live"\ntransport = "smtp"\n[smtp]\nport = {server.port}\nsecurity = "none"\n'
        )
        press.newsletter("send", "2026-12", "--confirm", "3")
        judge({one.recipient: mail(one.content) for one in server.messages})


def test_what_was_chosen_after_the_freeze_counts_from_the_next_issue_on(tmp_path: Path) -> None:
    engine = ledgers.open_store(tmp_path, 2)
    planned = freezing.plan(engine, TARGET)
    made = freezing.freeze(engine, planned, EDITIONS, MESSAGE, transport="memory", now=NOW, owner="me")
    write(engine, lambda conn: conn.execute(update(subscriber).values(edition="text")))
    transport = MemoryTransport()
    sending.run(engine, made, transport, wires(), ledgers.conduct())
    assert len(transport.messages) == 2
    assert not any(b"PLAIN" in message for message in transport.messages)
    engine.dispose()


# --- the freeze --------------------------------------------------------------------------------------------------


def test_every_edition_is_stored_and_one_hash_covers_them(tmp_path: Path) -> None:
    engine = ledgers.open_store(tmp_path, 4)
    write(
        engine,
        lambda conn: conn.execute(update(subscriber).where(subscriber.c.id == 1).values(edition="large")),
    )
    planned = freezing.plan(engine, TARGET)
    made = freezing.freeze(engine, planned, EDITIONS, MESSAGE, transport="memory", now=NOW, owner="me")
    stored, _ = read(engine, lambda conn: campaigns.load_editions(conn, made.id))
    assert stored == [EMAIL, LARGE, PLAIN]
    chosen = read(
        engine, lambda conn: list(conn.scalars(select(delivery.c.edition).order_by(delivery.c.seq)))
    )
    assert chosen[0] == "large"
    assert set(chosen[1:]) == {"standard"}
    for position in range(3):
        other = list(EDITIONS)
        other[position] = replace(other[position], text="another")
        assert digest(other) != made.digest
    engine.dispose()


def test_a_campaign_of_an_older_version_goes_on_with_its_one_edition(tmp_path: Path) -> None:
    engine = ledgers.open_store(tmp_path, 3)
    made = ledgers.freeze(engine)
    assert made.digest == EMAIL.digest
    write(engine, lambda conn: conn.execute(update(delivery).values(edition="large")))
    editions, _ = read(engine, lambda conn: campaigns.load_editions(conn, made.id))
    transport = MemoryTransport()
    sending.run(engine, made, transport, wires(editions), ledgers.conduct())
    assert len(transport.messages) == 3
    engine.dispose()


def test_a_freeze_that_is_adopted_takes_the_editions_of_today(tmp_path: Path) -> None:
    from tests.support.freezes import CONTENT, cut_off_freeze

    engine = ledgers.open_store(tmp_path, 3)
    cut_off_freeze(engine, people=2, content=replace(CONTENT, editions=EDITIONS))
    made = ledgers.freeze(engine)
    rows = read(engine, lambda conn: conn.execute(select(email.c.edition)).all())
    assert [tuple(row) for row in rows] == [("standard",)]
    assert read(engine, lambda conn: conn.scalar(select(campaign.c.digest))) == made.digest == EMAIL.digest
    engine.dispose()


# --- SendGrid ----------------------------------------------------------------------------------------------------


def send(acts: Sequence[Say | Fault], count: int = 12, bad: Sequence[str] = ()) -> tuple[Any, Any]:
    with sendgrid_server(*acts) as server:
        server.bad = set(bad)
        transport = SendGridTransport(
            SendGridSettings(KEY, server.url, batch=50, lanes=1), jitter=lambda: 0.0
        )
        report = hand_over(transport, crowd(count), wires())  # type: ignore[arg-type]
        return report, server


def test_sendgrid_gets_one_request_for_each_edition_of_a_window() -> None:
    report, server = send([])
    assert len(server.requests) == 3
    kinds = [[part["type"] for part in request["content"]] for request in server.requests]
    assert sorted(map(len, kinds)) == [1, 2, 2]
    assert {type(one) for one in report.outcomes.values()} == {Accepted}
    shown = {written.address: written.html[:8] + written.text[:5] for written in server.book}
    wanted = {"standard": "<p>Dear ", "large": "<p>LARGE", "text": "", "braille": "<p>Dear "}
    for one in crowd(12):
        assert shown[one.address].startswith(wanted[one.edition]), one.edition


@pytest.mark.parametrize(
    "act",
    [
        Fault("cut"),
        Fault("cut", taken=True),
        Say(500),
        Say(401),
        Say(429, headers={"X-RateLimit-Reset": "9999999999"}),
        Say(400, errors(("personalizations.1.to.0.email", "bad"))),
        Say(413),
    ],
)
@pytest.mark.parametrize("turn", range(3))
def test_whatever_happens_to_one_editions_request_every_copy_is_settled_once(
    act: Say | Fault, turn: int
) -> None:
    """``hand_over`` keeps the book: a copy that is settled twice, or not at all, fails there."""
    report, server = send([*[Say(202)] * turn, act])
    assert len(report.outcomes) == 12
    book = server.addresses()
    assert len(book) == len(set(book))
    unknown = [one for one in report.outcomes.values() if type(one).__name__ == "Unknown"]
    assert len(unknown) <= 6, "the doubt is no larger than the request that failed"


# --- building, proofs and the preview ----------------------------------------------------------------------------


def test_a_build_shows_large_print_beside_the_standard_one(press: Publisher, tmp_path: Path) -> None:
    press.newsletter("build", "2026-12", "--out", str(tmp_path / "out"))
    standard, large = ((tmp_path / "out" / f"{name}.html").read_text() for name in ("index", "large"))
    assert "font-size:20px" in large
    assert "font-size:20px" not in standard


@pytest.mark.parametrize(("edition", "sign"), [("large", "font-size:20px"), ("text", "")])
def test_a_proof_can_be_of_any_edition(press: Publisher, edition: str, sign: str) -> None:
    press.newsletter("proof", "2026-12", "--to", "me@example.org", "--edition", edition)
    [file] = press.outbox.glob("*.eml")
    found = mail(file.read_bytes())
    assert (found.structure == ["text/plain"]) is (edition == "text")
    assert edition == "text" or sign in found.html


def test_the_digest_of_a_build_is_that_of_the_campaign_whichever_editions_people_get(
    press: Publisher, tmp_path: Path
) -> None:
    built = press.newsletter("build", "2026-12", "--out", str(tmp_path / "out"), "--json")
    press.newsletter("send", "2026-12", "--confirm", "3")
    [sent] = json.loads(press.newsletter("status", "2026-12", "--json").stdout)
    assert json.loads(built.stdout)["digest"] == sent["digest"]


# --- checks ------------------------------------------------------------------------------------------------------


def override(press: Publisher, name: str, old: str, new: str) -> None:
    press.newsletter("templates", "copy", name)
    file = press.root / "templates" / name
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def findings(press: Publisher) -> list[dict[str, str]]:
    told = json.loads(press.newsletter("check", "2026-12", "--json", check=False).stdout)
    return list(told["findings"])


def test_what_only_one_edition_has_wrong_is_found_and_stops_a_send(press: Publisher) -> None:
    address = "{{ publication.postal_address }}"
    override(press, "colophon.mjml.j2", address, f'{{% if edition != "large" %}}{address}{{% endif %}}')
    [message] = [one["message"] for one in findings(press) if one["code"] == "W103"]
    assert message == "In large print: The html part does not hold the postal address."
    done = press.newsletter("send", "2026-12", "--confirm", "3", check=False)
    assert done.returncode == 4
    assert "W103" in done.stderr


def test_what_text_only_has_wrong_is_found_too(press: Publisher) -> None:
    override(
        press,
        "issue.txt.j2",
        "@@unsubscribe_url@@",
        '{{ "-" if edition == "text" else "@@unsubscribe_url@@" }}',
    )
    assert [one["message"] for one in findings(press) if one["code"] == "L105"] == [
        "Text only: The text part has no link to unsubscribe."
    ]


def test_a_template_of_their_own_with_fixed_sizes_works_and_is_warned_of(press: Publisher) -> None:
    override(press, "style.mjml.j2", "p.small { font-size: {{ px(15) }}", "p.small { font-size: 15px")
    [small] = [one for one in findings(press) if one["code"] == "A110"]
    assert small["level"] == "warning"
    assert small["message"].startswith("In large print: ")
    assert "px(15)" in small["hint"]


def test_what_all_editions_have_wrong_is_told_once(press: Publisher) -> None:
    override(press, "colophon.mjml.j2", "{{ publication.postal_address }}", "")
    assert [one["message"] for one in findings(press) if one["code"] == "W103"] == [
        "The html part does not hold the postal address."
    ]

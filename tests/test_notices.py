"""Mails to the editors: each thing told once to each of them, at least once, through real servers on both databases."""

from __future__ import annotations

import logging
import signal
import threading
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from newsletter import config, wiring
from newsletter.model import NOT_ALLOWED
from newsletter.notices import KEEPS_TRYING, ClosedPost, Post
from newsletter.posting import RETRY
from newsletter.store import notices
from newsletter.store.engine import open_engine, read, write
from newsletter.store.schema import notice
from newsletter.transports import dkim_keys
from tests.support import dkim_keys as dkim
from tests.support.databases import python
from tests.support.mail import Mail
from tests.support.publisher import TOML, publisher
from tests.support.sendgrid_server import KEY, sendgrid_server
from tests.support.served import serving
from tests.support.smtp_server import Cut, Hang, ScriptedServer, Taken, smtp_server
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from newsletter.config import Settings

ANN, BOB = "ann@example.org", "bob@example.org"
NOW = datetime.now(UTC).replace(microsecond=0)
SMTP = (
    '[sending]\nmode = "live"\ntransport = "smtp"\n[smtp]\nport = {port}\nsecurity = "none"\ntimeout = "1s"\n'
)


class Place:
    """A publisher with two editors, their database, and a post whose clock a test sets."""

    def __init__(self, root: Path, url: str) -> None:
        self.now, self.root, self.environ = NOW, root, {"DATABASE_URL": url}
        publisher(root)
        self.configure("")
        self.engine = open_engine(url, create=True)

    def configure(self, extra: str) -> None:
        """newsletter.toml with two editors, and these sections."""
        toml = f'{TOML}editors = ["{ANN}", "{BOB}"]\n{extra}'
        (self.root / "newsletter.toml").write_text(toml, encoding="utf-8")

    @property
    def settings(self) -> Settings:
        return config.load(self.root, self.environ)

    @property
    def post(self) -> Post:
        made = wiring.post(self.settings, self.engine)
        assert isinstance(made, Post)
        made._clock = lambda: self.now
        return made

    def tell(self, key: str = "a", text: str = "Something happened.\n\nnewsletter status\n") -> bool:
        editors = self.settings.newsletter.editors
        return write(
            self.engine,
            lambda conn: notices.queue(conn, key, editors, subject="Digest: look", text=text, now=NOW),
        )

    def rows(self) -> list[tuple[str, str, int]]:
        query = select(notice.c.state, notice.c.reason, notice.c.tries).order_by(notice.c.id)
        return [tuple(row) for row in read(self.engine, lambda conn: conn.execute(query).all())]

    def states(self) -> list[str]:
        return [row[0] for row in self.rows()]


@pytest.fixture
def place(tmp_path: Path, database_url: str) -> Iterator[Place]:
    made = Place(tmp_path, database_url)
    yield made
    made.engine.dispose()


def mail(content: bytes) -> Mail:
    return Mail(content, message_from_bytes(content, policy=policy.default))  # type: ignore[arg-type]


# --- what they are -----------------------------------------------------------------------------------------------


def test_each_editor_gets_a_plain_mail_of_no_list(place: Place) -> None:
    with smtp_server() as server:
        place.configure(SMTP.format(port=server.port))
        place.tell()
        assert place.post.work() == 2
        assert [one.recipient for one in server.messages] == [ANN, BOB]
        sent = mail(server.messages[0].content)
    fields = dict(sent.fields)
    assert (sent.subject, sent.structure) == ("Digest: look", ["text/plain"])
    assert sent.text.split() == ["Something", "happened.", "newsletter", "status"]
    assert (fields["To"], fields["Auto-Submitted"]) == (ANN, "auto-generated")  # RFC 3834
    assert fields["From"].endswith("<digest@example.org>")
    assert not [name for name in fields if name.startswith("List-")]
    assert place.rows() == [("sent", "", 1)] * 2


def test_through_sendgrid_as_well_with_all_tracking_off(place: Place) -> None:
    place.environ["SENDGRID_API_KEY"] = KEY
    with sendgrid_server() as server:
        place.configure(
            f'[sending]\nmode = "live"\ntransport = "sendgrid"\n[sendgrid]\nurl = "{server.url}"\n'
        )
        place.tell()
        assert place.post.work() == 2
        assert [one.address for one in server.book] == [ANN, BOB]
        body = server.requests[0]
    assert not any(entry["enable"] for entry in body["tracking_settings"].values())
    headers = {**body["headers"], **body["personalizations"][0]["headers"]}
    assert not [name for name in headers if name.startswith("List-")]
    assert headers["Message-ID"]
    assert [part["type"] for part in body["content"]] == ["text/plain"]


def test_into_a_folder_beside_the_issues(place: Place) -> None:
    place.tell()
    assert place.post.work() == 2
    files = list((place.root / ".newsletter" / "outbox" / "notices").glob("*.eml"))
    assert {str(mail(file.read_bytes()).parsed["To"]) for file in files} == {ANN, BOB}


def test_they_are_signed_like_campaigns(place: Place) -> None:
    selector, key = dkim.ed25519()
    dkim_keys.write(place.root / "dkim.pem", key)
    with smtp_server() as server:
        place.configure(SMTP.format(port=server.port) + f'[dkim.keys]\n{selector} = "dkim.pem"\n')
        place.tell()
        place.post.work()
        assert dkim.verdicts(server.messages[0].content, dkim.published([(selector, key)])) == [True]


def test_what_looks_like_a_merge_tag_is_said_and_not_filled(place: Place) -> None:
    place.tell(text="The issue says @@name@@.\n")
    assert place.post.work() == 2


# --- once --------------------------------------------------------------------------------------------------------


def test_a_thing_is_told_once_and_the_next_one_again(place: Place) -> None:
    assert place.tell()
    assert not place.tell(), "the same key"
    assert place.tell("b")
    assert place.post.work() == 4
    assert place.post.work() == 0


def test_two_processes_share_the_work_and_send_nothing_twice(place: Place) -> None:
    with smtp_server() as server:
        place.configure(SMTP.format(port=server.port))
        for number in range(8):
            place.tell(str(number))
        both = [threading.Thread(target=place.post.work) for _ in range(2)]
        for one in both:
            one.start()
        for one in both:
            one.join()
        assert len({mail(one.content).parsed["Message-ID"] for one in server.messages}) == 16
        assert len(server.messages) == 16


def test_a_process_that_is_killed_with_one_in_hand_costs_two_minutes_and_no_notice(
    place: Place, tmp_path: Path
) -> None:
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from newsletter import config, wiring\n"
        "from newsletter.store.engine import open_engine\n"
        "settings = config.load(Path(sys.argv[1]), {'DATABASE_URL': sys.argv[2]})\n"
        "post = wiring.post(settings, open_engine(sys.argv[2]))\n"
        "post._transport.run = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "post.work()\n"
    )
    place.tell()
    url = place.environ["DATABASE_URL"]
    with python(script, str(tmp_path), url) as killed:
        assert killed.wait(30) == -signal.SIGKILL
    place.now = datetime.now(UTC)  # a lease is by the clock of whoever took it
    assert place.post.work() == 1, "the other editor's; the first is still the dead process's"
    place.now += notices.LEASE
    assert place.post.work() == 1
    assert place.states() == ["sent", "sent"]


# --- when it does not work ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["450 4.2.1 <ann@example.org> later", Cut, Hang])
def test_what_was_not_taken_is_tried_again_and_comes(place: Place, act: Any) -> None:
    with ScriptedServer({"RCPT": [act]}) as server:
        place.configure(SMTP.format(port=server.port))
        place.tell()
        assert place.post.work() == 1, "what was said of Ann is not said of Bob"
        state, reason, tries = place.rows()[0]
        assert (state, tries) == ("waiting", 1)
        assert "ann" not in reason
        place.now += RETRY[0]
        place.post.work()
        assert {one.recipient for one in server.messages} == {ANN, BOB}
    assert place.states() == ["sent", "sent"]


def test_a_second_try_is_the_same_mail(place: Place) -> None:
    with ScriptedServer({"dot": [Taken(Cut)]}) as server:
        place.configure(SMTP.format(port=server.port))
        place.tell()
        place.post.work()
        place.now += RETRY[0]
        place.post.work()
        first, *_, second = sorted(one.content for one in server.messages if one.recipient == ANN)
    assert first == second


def test_a_refusal_for_good_ends_it_and_its_words_are_not_kept(place: Place) -> None:
    with ScriptedServer() as server:
        server.refused[ANN] = "550 5.1.1 <ann@example.org> unknown"
        place.configure(SMTP.format(port=server.port))
        place.tell()
        assert place.post.work() == 1
    assert place.rows() == [("gave-up", "550 5.1.1", 1), ("sent", "", 1)]


def test_a_server_that_is_down_is_asked_once_and_for_three_days(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.configure(SMTP.format(port=1))
    place.tell()
    place.post.work()
    assert place.rows() == [("waiting", "not taken", 1), ("waiting", "", 0)], (
        "the second one only waits with it"
    )
    assert "notices wait" in caplog.text
    assert "ann" not in caplog.text
    place.now += KEEPS_TRYING
    place.post.work()
    place.post.work()
    assert place.states() == ["gave-up", "gave-up"]


def test_where_nothing_may_leave_they_wait(place: Place) -> None:
    place.configure('[sending]\nmode = "off"\ntransport = "smtp"\n')
    place.tell()
    post, closing = wiring.post(place.settings, place.engine), threading.Event()
    assert isinstance(post, ClosedPost)
    assert post.work() == 0
    closing.set()
    post.run(closing)
    assert place.states() == ["waiting", "waiting"]


def test_in_allowlist_mode_only_editors_on_the_allowlist_hear(place: Place) -> None:
    with smtp_server() as server:
        only = SMTP.format(port=server.port).replace('"live"', f'"allowlist"\nallowlist = ["{BOB}"]')
        place.configure(only)
        place.tell()
        assert place.post.work() == 1
        assert [one.recipient for one in server.messages] == [BOB]
    assert place.rows() == [("gave-up", NOT_ALLOWED, 1), ("sent", "", 1)]


def test_a_post_works_until_it_is_closed(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="newsletter")
    closing = threading.Event()
    thread = threading.Thread(target=place.post.run, args=(closing,))
    thread.start()
    place.tell()
    wait_for(lambda: place.states() == ["sent", "sent"])
    closing.set()
    thread.join(10)
    assert not thread.is_alive()


def test_the_outbox_counts_what_waits_and_what_was_given_up_since(place: Place) -> None:
    place.configure(SMTP.format(port=1))
    place.tell()
    place.post.work()
    seen = read(place.engine, lambda conn: notices.outbox(conn, NOW))
    assert (seen.waiting, seen.gave_up, seen.why) == (2, 0, "not taken")
    place.now += KEEPS_TRYING
    place.post.work()
    place.post.work()
    for since, gave_up in ((NOW, 2), (place.now + timedelta(days=1), 0)):
        seen = read(place.engine, lambda conn, since=since: notices.outbox(conn, since))
        assert (seen.waiting, seen.gave_up) == (0, gave_up)


def test_the_pages_process_sends_what_waits(tmp_path: Path) -> None:
    made = publisher(tmp_path)
    made.import_people([])
    with serving(made) as running:
        act = lambda conn: notices.queue(conn, "a", [ANN], subject="Look", text="Now.", now=NOW)  # noqa: E731
        engine = open_engine(f"sqlite:///{tmp_path}/.newsletter/newsletter.db")
        write(engine, act)
        wait_for(
            lambda: read(engine, lambda conn: conn.scalar(select(notice.c.state))) == "sent", running.process
        )
        engine.dispose()

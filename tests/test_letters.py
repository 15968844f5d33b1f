"""Letters: to one person, about one thing, at least once; through real mail servers and SendGrid's interface."""

from __future__ import annotations

import re
import signal
import threading
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select, update

from newsletter import addresses, choosing, config, joining, personal_data, tokens, wiring
from newsletter.letters import ClosedOffice, Links, Office
from newsletter.limits import Rate
from newsletter.model import LetterState
from newsletter.posting import RETRY
from newsletter.store import choices, letters, subscribers
from newsletter.store.engine import open_engine, read, write
from newsletter.store.schema import letter, subscriber
from newsletter.tokens import Purpose
from newsletter.transports import dkim_keys
from tests.support import dkim_keys as dkim
from tests.support.databases import python
from tests.support.mail import Mail
from tests.support.publisher import A_KEY, TOML, publisher
from tests.support.sendgrid_server import KEY, sendgrid_server
from tests.support.smtp_server import Cut, Hang, ScriptedServer, Taken, smtp_server
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from newsletter.config import Settings

ZOE = "zoe@example.org"
NOW = datetime.now(UTC).replace(microsecond=0)
SMTP = (
    '[sending]\nmode = "live"\ntransport = "smtp"\n[smtp]\nport = {port}\nsecurity = "none"\ntimeout = "5s"\n'
)


class Place:
    """A publisher, their database, and an office whose clock a test sets."""

    def __init__(self, root: Path, url: str, extra: str = "", environ: dict[str, str] | None = None) -> None:
        self.now = NOW
        self.root = root
        self.environ = {"DATABASE_URL": url, **(environ or {})}
        if not (root / ".env").exists():
            publisher(root)
        self.configure(extra)
        self.engine = open_engine(url, create=True)

    def configure(self, extra: str) -> None:
        (self.root / "newsletter.toml").write_text(TOML + extra, encoding="utf-8")

    @property
    def settings(self) -> Settings:
        return config.load(self.root, self.environ)

    @property
    def office(self) -> Office:
        made = wiring.office(self.settings, self.engine)
        assert isinstance(made, Office)
        made._clock = lambda: self.now
        return made

    def ask(self, address: str = ZOE, *, list: str = "readers", **said: str) -> None:
        wish = joining.SignUp(address, list, form="page", **said)
        agreed = joining.Wording.of("I want to get it.", "en")
        act = lambda conn: joining.ask(  # noqa: E731
            conn,
            wish,
            address_key=self.settings.address_key,
            network=address,
            limits=Rate(99, 1),
            wording=agreed,
            now=self.now,
        )
        assert write(self.engine, act)

    def key(self, address: str = ZOE) -> bytes:
        return addresses.key(address, self.settings.address_key)

    def rows(self) -> list[Any]:
        query = select(letter.c.state, letter.c.reason, letter.c.tries, letter.c.address).order_by(
            letter.c.id
        )
        return [tuple(row) for row in read(self.engine, lambda conn: conn.execute(query).all())]

    def states(self) -> list[str]:
        return [row[0] for row in self.rows()]

    def join(self, address: str = ZOE) -> int:
        """A person on the list."""

        def act(conn: Any) -> int:
            list_id = subscribers.ensure_list(conn, "readers", NOW)
            newcomer = subscribers.Newcomer(self.key(address), address, "active", "imported", "Zoë")  # type: ignore[arg-type]
            subscribers.add_people(conn, list_id, [newcomer], source="", now=NOW)
            return subscribers.person(conn, self.key(address))[0][0]

        return write(self.engine, act)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Any]:
    """Makes a place; its database is closed at the end."""
    made: list[Place] = []

    def make(extra: str = "", environ: dict[str, str] | None = None, url: str = "") -> Place:
        made.append(Place(tmp_path, url or f"sqlite:///{tmp_path}/newsletter.db", extra, environ))
        return made[-1]

    yield make
    for one in made:
        one.engine.dispose()


def mail(content: bytes) -> Mail:
    return Mail(content, message_from_bytes(content, policy=policy.default))  # type: ignore[arg-type]


def link(text: str) -> str:
    found = re.findall(r"https://news\.example\.org/\S+", text)
    assert len(set(found)) == 1, found
    return found[0]


def files(where: Place) -> list[Mail]:
    folder = where.root / ".newsletter" / "outbox" / "letters"
    return [mail(file.read_bytes()) for file in sorted(folder.glob("*.eml"))]


# --- what they say -----------------------------------------------------------------------------------------------


def test_a_new_person_is_asked_to_confirm_and_the_letter_repeats_nothing_they_typed(place: Any) -> None:
    here = place()
    here.ask(name="Buy cheap pills at evil.example", source="https://evil.example/form")
    assert here.office.work() == 1
    [sent] = files(here)
    assert sent.subject == "Please confirm: Research Digest"
    assert "evil" not in sent.text + sent.html
    assert sent.parsed["To"] == ZOE
    token = link(sent.text).rpartition("/c/")[2]
    ring = tokens.Keyring.parse(f"1:{A_KEY}")
    number, expires = tokens.read_dated(token, Purpose.CONFIRM, ring, now=NOW)
    assert expires == NOW + joining.CONFIRM_LASTS
    assert read(here.engine, lambda conn: choices.owner(conn, number)).address == ZOE
    assert f'href="{link(sent.text)}"' in sent.html


def test_the_subject_and_the_sender_are_discreet_and_one_click_takes_the_address_out(place: Any) -> None:
    here = place()
    here.ask()
    here.office.work()
    [sent] = files(here)
    fields = dict(sent.fields)
    assert "Sclerosis" not in sent.subject + fields["From"] + fields["List-ID"]
    assert re.fullmatch(r"<https://news\.example\.org/u/[\w-]{35}>", fields["List-Unsubscribe"])
    assert fields["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert fields["Auto-Submitted"] == "auto-generated"


def test_who_is_on_the_list_gets_the_link_to_their_choices(place: Any) -> None:
    here = place()
    here.join()
    here.ask("ZOE@example.org")
    here.office.work()
    [sent] = files(here)
    assert sent.subject == "You are on the list: Research Digest"
    assert sent.parsed["To"] == ZOE, "as on file, not as somebody typed it"
    assert "/p/" in link(sent.text)


def test_a_link_to_ones_own_data_goes_to_the_address_on_file(place: Any) -> None:
    here = place()
    number = here.join()
    write(
        here.engine,
        lambda conn: personal_data.ask_access(conn, number, secret=here.settings.address_key, now=here.now),
    )
    here.office.work()
    [sent] = files(here)
    assert sent.subject == "Your link: Research Digest"
    assert "/a/" in link(sent.text)


def test_a_letter_names_the_list_that_was_asked_for(place: Any) -> None:
    here = place('[web.lists]\nreaders = "The digest"\nevents = "News of meetings"\n')
    here.join()
    here.ask("ann@example.org", list="events")
    here.ask("bob@example.org")
    here.ask()
    assert here.office.work() == 3
    said = {str(sent.parsed["To"]): " ".join(sent.text.split()) for sent in files(here)}
    assert "get News of meetings by email" in said["ann@example.org"]
    assert "get The digest by email" in said["bob@example.org"]
    assert "You get The digest already" in said[ZOE]


def test_letters_come_in_the_edition_that_their_reader_chose(place: Any) -> None:
    here = place()
    chosen = {ZOE: "large", "ann@example.org": "standard", "max@example.org": "text"}
    for address, edition in chosen.items():
        number = here.join(address)
        write(
            here.engine,
            partial(choosing.choose_edition, subscription_id=number, edition=edition, source="", now=NOW),
        )
        here.ask(address)
    assert here.office.work() == 3
    sent = {str(one.parsed["To"]): one for one in files(here)}
    sizes = {address: smallest(one) for address, one in sent.items()}
    assert sizes == {ZOE: 20, "ann@example.org": 15, "max@example.org": None}
    assert sent["max@example.org"].structure == ["text/plain"]
    assert len({link(one.text) for one in sent.values()}) == 3


def smallest(one: Mail) -> int | None:
    """The smallest type, in pixels."""
    if "text/html" not in one.structure:
        return None
    return min(int(size) for size in re.findall(r"font-size: ?(\d\d)px", one.html))


def test_letters_speak_the_publications_language(place: Any) -> None:
    here = place('language = "de"\n')
    here.ask()
    here.office.work()
    [sent] = files(here)
    assert sent.subject == "Bitte bestätigen: Research Digest"
    assert '<html lang="de"' in sent.html


def test_the_subjects_of_letters_are_lines_that_a_mail_can_hold(place: Any) -> None:
    here = place()
    here.ask("zoë@exämple.org")
    here.office.work()
    assert here.states() == ["sent"]
    [sent] = files(here)
    assert max(map(len, sent.raw.split(b"\r\n"))) < 998


# --- ways out ----------------------------------------------------------------------------------------------------


def test_letters_leave_by_smtp(place: Any) -> None:
    with smtp_server() as server:
        here = place(SMTP.format(port=server.port))
        here.ask()
        here.ask("ann@example.org")
        assert here.office.work() == 2
        assert [one.recipient for one in server.messages] == [ZOE, "ann@example.org"]
    assert here.rows() == [("sent", "", 1, None)] * 2


def test_letters_leave_by_sendgrid(place: Any) -> None:
    with sendgrid_server() as server:
        extra = f'[sending]\nmode = "live"\ntransport = "sendgrid"\n[sendgrid]\nurl = "{server.url}"\n'
        here = place(extra, {"SENDGRID_API_KEY": KEY})
        here.ask()
        here.office.work()
        [sent] = server.book
    assert (sent.address, sent.subject) == (ZOE, "Please confirm: Research Digest")
    assert "/c/" in link(sent.text)
    assert here.states() == ["sent"]


def test_letters_are_signed_like_campaigns(place: Any) -> None:
    selector, key = dkim.ed25519()
    with smtp_server() as server:
        here = place(SMTP.format(port=server.port) + f'[dkim.keys]\n{selector} = "dkim.pem"\n')
        dkim_keys.write(here.root / "dkim.pem", key)
        here.ask()
        here.office.work()
        [sent] = server.messages
    assert dkim.verdicts(sent.content, dkim.published([(selector, key)])) == [True]
    signed = dict(mail(sent.content).fields)["DKIM-Signature"].lower()
    assert "list-unsubscribe:" in signed
    assert "list-unsubscribe-post:" in signed


def test_where_nothing_may_leave_letters_wait(place: Any) -> None:
    here = place('[sending]\nmode = "off"\ntransport = "smtp"\n')
    here.ask()
    office, closing = wiring.office(here.settings, here.engine), threading.Event()
    assert isinstance(office, ClosedOffice)
    closing.set()
    office.run(closing)
    assert here.states() == ["waiting"]


def test_in_allowlist_mode_others_get_none_and_nothing_is_stored_of_them(place: Any) -> None:
    with smtp_server() as server:
        here = place(
            SMTP.format(port=server.port).replace('"live"', '"allowlist"\nallowlist = ["ann@example.org"]')
        )
        here.ask()
        here.ask("ann@example.org")
        here.office.work()
        assert [one.recipient for one in server.messages] == ["ann@example.org"]
    assert [row[:2] for row in here.rows()] == [("dropped", "not on the allowlist"), ("sent", "")]
    assert read(here.engine, lambda conn: subscribers.person(conn, here.key())) == []


# --- when it does not work ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["450 4.2.1 zoe@example.org later", Cut, Hang])
def test_what_was_not_taken_is_tried_again_and_comes(place: Any, act: Any) -> None:
    with ScriptedServer({"RCPT": [act]}) as server:
        here = place(SMTP.format(port=server.port).replace("5s", "1s"))
        here.ask()
        here.office.work()
        [(state, reason, tries, address)] = here.rows()
        assert (state, tries, address) == ("waiting", 1, ZOE)
        assert "zoe" not in reason
        assert here.office.work() == 0, "not at once"
        here.now += RETRY[0]
        assert here.office.work() == 1
        assert len(server.messages) == 1
    assert here.states() == ["sent"]


def test_an_answer_that_was_lost_is_no_reason_to_leave_somebody_waiting(place: Any) -> None:
    with ScriptedServer({"dot": [Taken(Cut)]}) as server:
        here = place(SMTP.format(port=server.port))
        here.ask()
        here.office.work()
        here.now += RETRY[0]
        here.office.work()
        first, second = (one.content for one in server.messages)
    ids = [dict(mail(content).fields)["Message-ID"] for content in (first, second)]
    assert ids[0] == ids[1]
    assert here.states() == ["sent"]


def test_a_refusal_for_good_ends_it_and_its_words_are_not_kept(place: Any) -> None:
    with ScriptedServer() as server:
        server.refused[ZOE] = "550 5.1.1 <zoe@example.org> unknown"
        here = place(SMTP.format(port=server.port))
        here.ask()
        here.office.work()
    assert here.rows() == [("gave-up", "550 5.1.1", 1, None)]


def test_a_server_that_is_down_costs_nobody_anything_and_no_address_is_logged(
    place: Any, caplog: pytest.LogCaptureFixture
) -> None:
    here = place(SMTP.format(port=1))
    here.ask()
    here.office.work()
    assert here.states() == ["waiting"]
    assert "letters wait" in caplog.text
    assert "zoe" not in caplog.text


def test_a_broken_template_keeps_letters_back_until_it_is_mended(
    place: Any, caplog: pytest.LogCaptureFixture
) -> None:
    here = place()
    template = here.root / "templates" / "letter.txt.j2"
    template.parent.mkdir(exist_ok=True)
    template.write_text("{{ nobody }}", encoding="utf-8")
    here.ask()
    office = here.office
    office.work()
    assert here.states() == ["waiting"]
    assert "letters wait" in caplog.text
    template.unlink()
    here.now += RETRY[0]
    office.work()
    assert here.states() == ["sent"]


def test_an_edition_that_this_version_does_not_know_is_the_standard_one(place: Any) -> None:
    here = place()
    here.join()
    braille = update(subscriber).values(edition="braille")
    write(here.engine, lambda conn: conn.execute(braille))
    here.ask()
    here.office.work()
    [sent] = files(here)
    assert "You are on the list" in sent.subject


def test_a_letter_that_can_not_be_made_keeps_back_no_other(
    place: Any, caplog: pytest.LogCaptureFixture
) -> None:
    here = place()
    zoes = here.join()
    here.ask()
    here.ask("ann@example.org")
    office = here.office
    made = office._links.action

    def action(kind: Any, number: int, expires: datetime) -> str:
        if number == zoes:
            raise ValueError(f"nobody had thought of {ZOE}")
        return str(made(kind, number, expires))

    office._links = Links(action, office._links.lasting)
    assert office.work() == 2
    assert here.states() == ["waiting", "sent"]
    assert "a letter waits" in caplog.text
    assert "zoe" not in caplog.text
    assert office.work() == 0, "it does not come round again at once"


def test_a_new_address_gets_no_link_to_the_readers_own_pages_before_it_is_confirmed(place: Any) -> None:
    here = place()
    number, new = here.join(), "zoe.new@example.net"
    secret = here.settings.address_key
    write(here.engine, lambda conn: personal_data.ask_access(conn, number, secret=secret, now=here.now))
    expires = (here.now + personal_data.ACCESS_LASTS).replace(microsecond=0)
    write(
        here.engine,
        lambda conn: personal_data.ask_change(conn, number, expires, new, secret=secret, now=here.now),
    )
    here.office.work()
    [sent] = [one for one in files(here) if one.parsed["To"] == new]
    assert {found.rpartition(b"/")[0] for found in re.findall(rb"https://[^>\s\"]+", sent.raw)} <= {
        b"https://news.example.org/c"
    }
    assert sent.field("List-Unsubscribe") == f"<{link(sent.text)}>"


@pytest.mark.parametrize("step", ["RCPT", "dot"])
def test_what_a_server_quotes_or_paints_reaches_no_log(
    place: Any, caplog: pytest.LogCaptureFixture, step: str
) -> None:
    caplog.set_level("DEBUG")
    with ScriptedServer({step: ["421 4.7.0 \x1b[2J<zoe@example.org> zoe@example.org is slow"]}) as server:
        here = place(SMTP.format(port=server.port))
        here.ask()
        here.office.work()
        [(state, reason, *_)] = here.rows()
    assert state == "waiting"
    assert "zoe" not in caplog.text + reason
    assert "\x1b" not in caplog.text + reason


@pytest.mark.parametrize("reason", ["complained", "manual"])
def test_who_was_suppressed_since_gets_none_whatever_was_asked_for(place: Any, reason: str) -> None:
    here = place()
    number = here.join()
    secret = here.settings.address_key
    write(here.engine, lambda conn: personal_data.ask_access(conn, number, secret=secret, now=here.now))
    here.ask()
    write(here.engine, lambda conn: subscribers.suppress(conn, {here.key(): reason}, source="", now=here.now))
    here.office.work()
    assert files(here) == []
    assert here.rows() == [("dropped", f"suppressed: {reason}", 1, None)] * 2


def test_a_letter_whose_link_has_expired_does_not_leave(place: Any) -> None:
    here = place()
    here.ask()
    here.now += joining.CONFIRM_LASTS
    here.office.work()
    assert files(here) == []
    assert here.rows() == [("gave-up", "expired before it could be sent", 1, None)]


def test_who_is_erased_before_it_leaves_gets_none(place: Any) -> None:
    here = place()
    number = here.join()
    write(
        here.engine,
        lambda conn: personal_data.ask_access(conn, number, secret=here.settings.address_key, now=here.now),
    )
    write(here.engine, lambda conn: personal_data.erase(conn, here.key(), now=here.now))
    here.office.work()
    assert files(here) == []


# --- several processes, and ones that die ------------------------------------------------------------------------


def test_while_one_office_has_a_letter_no_other_takes_it(place: Any, database_url: str) -> None:
    here = place(url=database_url)
    here.ask()
    claimed = write(here.engine, lambda conn: letters.claim(conn, here.now))
    assert len(claimed) == 1
    assert here.office.work() == 0
    here.now += letters.LEASE
    assert here.office.work() == 1
    assert here.states() == [LetterState.SENT]


def test_two_offices_share_the_work_and_send_each_letter_once(place: Any, database_url: str) -> None:
    with smtp_server() as server:
        here = place(SMTP.format(port=server.port), url=database_url)
        for number in range(50):
            here.ask(f"reader{number}@example.org")
        other = open_engine(database_url)
        offices = [wiring.office(here.settings, engine) for engine in (here.engine, other)]
        closing = threading.Event()
        threads = [threading.Thread(target=one.run, args=(closing,)) for one in offices]
        for thread in threads:
            thread.start()
        wait_for(lambda: set(here.states()) == {"sent"})
        closing.set()
        for thread in threads:
            thread.join(30)
        other.dispose()
        assert sorted(one.recipient for one in server.messages) == sorted(
            f"reader{number}@example.org" for number in range(50)
        )


WORK = """
import os, sys
from pathlib import Path
from newsletter import config, wiring
from newsletter.store.engine import open_engine
settings = config.load(Path(sys.argv[1]), os.environ)
engine = open_engine(sys.argv[2])
print("at work", flush=True)
wiring.office(settings, engine).work()
"""


def test_a_letter_survives_the_process_that_was_sending_it(
    place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL while the server has the whole letter and has not answered: it is sent again with the same id."""
    with ScriptedServer({"dot": [Taken(Hang)]}) as server:
        here = place(SMTP.format(port=server.port))
        here.ask()
        url = str(here.environ["DATABASE_URL"])
        for name, value in here.environ.items():
            monkeypatch.setenv(name, value)
        process = python(WORK, str(here.root), url)
        wait_for(lambda: len(server.messages) == 1, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert here.states() == ["waiting"]
        assert here.office.work() == 0
        here.now = datetime.now(UTC) + letters.LEASE + timedelta(seconds=1)
        assert here.office.work() == 1
        ids = {dict(mail(one.content).fields)["Message-ID"] for one in server.messages}
        assert len(server.messages) == 2
        assert len(ids) == 1
    assert here.states() == ["sent"]


def test_the_office_goes_on_after_an_error_and_ends_when_it_is_told_to(place: Any) -> None:
    with smtp_server() as server:
        here = place(SMTP.format(port=server.port))
        closing = threading.Event()
        thread = threading.Thread(target=wiring.office(here.settings, here.engine).run, args=(closing,))
        thread.start()
        here.ask()
        wait_for(lambda: len(server.messages) == 1)
        closing.set()
        thread.join(30)
        assert not thread.is_alive()

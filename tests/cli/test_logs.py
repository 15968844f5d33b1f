"""What long-lived commands log: one line an event, for people or for machines, and nothing about anybody."""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING, Any

import pytest

from newsletter.cli.logs import Lines, Objects, mask
from newsletter.store import campaigns
from newsletter.store.engine import open_engine, write
from newsletter.tokens import Keyring, Purpose, maker
from tests.support.publisher import A_KEY, Publisher, crowd, publisher
from tests.support.served import Served, serving
from tests.support.smtp_server import ScriptedServer
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = maker(Purpose.UNSUBSCRIBE, Keyring.parse(f"1:{A_KEY}"))(7)
SECTIONS = """
[sending]
mode = "live"
transport = "smtp"
connections = 1
[smtp]
port = {port}
security = "none"
[logging]
format = "{form}"
"""


def record(event: str, *values: object, error: BaseException | None = None, **facts: object) -> Any:
    info = (type(error), error, error.__traceback__) if error else None
    made = logging.LogRecord("newsletter.x", logging.WARNING, "x.py", 1, event, values, info)
    made.created, made.facts = 1796112000.25, facts
    return made


def test_an_object_says_when_how_bad_what_and_the_facts() -> None:
    said = json.loads(Objects().format(record("campaign %s", "paused", reason="canary", refused=2)))
    assert said == {
        "time": "2026-12-01T08:00:00.250Z",
        "level": "warning",
        "event": "campaign paused",
        "reason": "canary",
        "refused": 2,
    }


def test_a_line_says_the_same_to_people() -> None:
    line = Lines().format(record("campaign paused", campaign="2026-12 to readers", refused=2))
    assert line == '2026-12-01T08:00:00.250Z warning campaign paused campaign="2026-12 to readers" refused=2'


@pytest.mark.parametrize("form", [Objects(), Lines()])
def test_an_event_is_one_line_whatever_it_holds(form: logging.Formatter) -> None:
    assert "\n" not in form.format(record("two\nlines\r\n", why="and\nmore"))


@pytest.mark.parametrize("form", [Objects(), Lines()])
def test_the_last_guard_masks_addresses_and_tokens_wherever_they_stand(form: logging.Formatter) -> None:
    link, error = f"https://x.org/u/{TOKEN}", ValueError("zoe@example.org")
    line = form.format(record("for %s", "<zoe@example.org>", error=error, why=link))
    assert "zoe" not in line
    assert TOKEN not in line
    assert "ValueError" in line


@pytest.mark.parametrize(
    "text",
    [
        "550 <zoe@example.org> unknown",
        "zoe+news@exämple.org",
        '"zoe"@example.org',
        "mailto:zoe@example.org?subject=x",
        "postgresql://zoe:zoe@host/db",
    ],
)
def test_whatever_has_an_at_sign_is_masked(text: str) -> None:
    assert "zoe@" not in mask(text)
    assert not re.search(r'zoe"?@|news@', mask(text))


@pytest.mark.parametrize("path", "upca")
def test_tokens_are_masked_in_every_kind_of_link_and_other_paths_are_not(path: str) -> None:
    assert TOKEN not in mask(f"GET /{path}/{TOKEN} 200")
    assert mask("/usr/lib/python3/site-packages/newsletter/web/guard.py:78") == (
        "/usr/lib/python3/site-packages/newsletter/web/guard.py:78"
    )


# --- a whole publisher ---------------------------------------------------------------------------------------------


@pytest.fixture
def made(tmp_path: Path) -> Publisher:
    made = publisher(tmp_path)
    made.import_people([*crowd(19), ("zoe@example.org", "Zoë Quartermaine")])
    return made


def events(stderr: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stderr.splitlines()]


def personal(made: Publisher) -> list[str]:
    """What must stand in no log: addresses, names, keys, and the links' tokens."""
    tokens = [maker(Purpose.UNSUBSCRIBE, Keyring.parse(f"1:{A_KEY}"))(number) for number in range(1, 22)]
    return ["@", "example.org", "Zoë", "Quartermaine", "Reader", "fresh", A_KEY, *tokens]


def test_a_send_and_the_pages_beside_it_log_what_happens_and_nobody(made: Publisher) -> None:
    with ScriptedServer() as server:
        server.refused["zoe@example.org"] = "550 5.1.1 <zoe@example.org> Zoë Quartermaine unknown"
        made.configure(SECTIONS.format(port=server.port, form="json"))
        sent = made.start("send", "2026-12", "--confirm", "20", "--canary", "2", "--canary-wait", "1s")
        out, logged = sent.communicate(timeout=60)
        assert sent.returncode == 0, out + logged
        said = [(one["event"], one["level"]) for one in events(logged)]
        assert said == [
            ("campaign started", "info"),
            ("canary released", "info"),
            ("campaign finished", "info"),
        ]
        finished = events(logged)[-1]
        assert (finished["campaign"], finished["list"]) == ("2026-12 to readers", "readers")
        assert (finished["accepted"], finished["refused"]) == (19, 1)
        served = _serve_and_sign_up(made, server)
    for word in personal(made):
        assert word not in logged
        assert word not in served
    assert "letter sent" in {one["event"] for one in events(served)}


def _serve_and_sign_up(made: Publisher, server: ScriptedServer) -> str:
    process = made.start("serve", "--port", "0")
    assert process.stdout is not None
    found = re.search(r"http://127\.0\.0\.1:(\d+)/", process.stdout.readline())
    assert found
    running = Served(made, process, int(found[1]), "")
    assert running.ask("POST", "/subscribe", "email=fresh%40example.org&name=Zo%C3%AB")[0] == 200
    running.ask("GET", f"/u/{TOKEN}")
    running.ask("POST", "/subscribe", "\x00not-a-form")
    wait_for(lambda: running.letters("sent") == 1, process)
    running.stop()
    return str(process.communicate(timeout=60)[1])


def test_a_pause_is_logged_with_a_code_and_without_the_servers_words(made: Publisher) -> None:
    with ScriptedServer() as server:
        for number in range(19):
            server.refused[f"reader{number:05}@example.org"] = "550 5.7.1 <zoe@example.org> is blocked"
        made.configure(SECTIONS.format(port=server.port, form="json"))
        done = made.newsletter("send", "2026-12", "--confirm", "20", check=False)
    logged = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    [paused] = [one for one in logged if one["event"] == "campaign paused"]
    assert paused["reason"] == "refused"
    assert "zoe" not in json.dumps(logged)


def test_in_text_form_a_send_says_nothing_beside_what_it_shows(made: Publisher) -> None:
    with ScriptedServer() as server:
        made.configure(SECTIONS.format(port=server.port, form="text"))
        done = made.newsletter("send", "2026-12", "--confirm", "20")
    assert done.stderr == ""


def test_steering_by_hand_is_logged_too(made: Publisher) -> None:
    made.configure('[logging]\nformat = "json"\n')
    made.newsletter("send", "2026-12", "--confirm", "20")
    engine = open_engine(f"sqlite:///{made.root}/.newsletter/newsletter.db")
    write(engine, lambda conn: conn.exec_driver_sql("UPDATE campaign SET state = 'running'"))
    write(engine, lambda conn: campaigns.pause(conn, 1, "by hand"))
    engine.dispose()
    assert events(made.newsletter("resume", "2026-12").stderr)[-1]["event"] == "campaign resumed"


def test_serving_in_text_form_says_that_a_letter_was_sent_and_no_more(made: Publisher) -> None:
    with serving(made) as running:
        running.ask("POST", "/subscribe", "email=fresh%40example.org")
        wait_for(lambda: running.letters("sent") == 1)

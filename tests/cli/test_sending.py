"""`send`, `proof`, `status`, `deliveries` and steering, each as a person types it."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import time
from contextlib import contextmanager
from email import message_from_bytes, policy
from typing import TYPE_CHECKING

import pytest

from tests.support.holding import HoldingServer
from tests.support.publisher import A_KEY, Publisher, publisher

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PEOPLE = [
    ("siobhan@example.org", "O’Brien"),
    ("zoe@example.org", "<b>Zoë</b>"),
    ("li@example.org", "李小龙"),
    ("nameless@example.org", ""),
]

LIVE = """
[sending]
mode = "{mode}"
allowlist = ["zoe@example.org"]
transport = "smtp"
connections = 2
[smtp]
port = {port}
security = "none"
"""


@pytest.fixture
def made(tmp_path: Path) -> Publisher:
    made = publisher(tmp_path)
    made.import_people(PEOPLE)
    made.newsletter("subscribers", "add", "gone@example.org", "--list", "readers")
    made.newsletter("subscribers", "unsubscribe", "gone@example.org")
    return made


@contextmanager
def smtp(made: Publisher, mode: str = "live") -> Iterator[HoldingServer]:
    with HoldingServer() as server:
        made.configure(LIVE.format(port=server.port, mode=mode))
        yield server


def states(made: Publisher) -> dict[str, str]:
    found = made.newsletter("deliveries", "2026-12", "--format", "json").stdout
    return {row["address"]: row["state"] for row in json.loads(found)}


def test_a_rehearsal_writes_one_file_for_each_person_who_is_on_the_list(made):
    said = made.newsletter("send", "2026-12", "--confirm", "4").stdout
    assert "REHEARSAL" in said
    assert "1 unsubscribed" in said
    copies = [
        message_from_bytes(file.read_bytes(), policy=policy.default) for file in made.outbox.glob("*.eml")
    ]
    assert {copy["To"].addresses[0].addr_spec for copy in copies} == {address for address, _ in PEOPLE}
    assert set(states(made).values()) == {"accepted"}


def test_each_copy_has_both_parts_the_right_name_its_own_link_and_no_merge_tag(made):
    made.newsletter("send", "2026-12", "--confirm", "4")
    links = set()
    for file in made.outbox.glob("*.eml"):
        copy = message_from_bytes(file.read_bytes(), policy=policy.default)
        text = copy.get_body(("plain",)).get_content()
        html = copy.get_body(("html",)).get_content()
        name = dict(PEOPLE)[copy["To"].addresses[0].addr_spec]
        assert (name or "reader") in text
        assert (name or "reader").replace("<", "&lt;").replace(">", "&gt;") in html
        assert "@@" not in str(copy) + text + html
        link = re.search(r"<(https://news\.example\.org/u/[\w-]{35})>", copy["List-Unsubscribe"])[1]
        assert link in html
        assert link in text
        links.add(link)
    assert len(links) == 4


def test_sending_again_reaches_nobody_and_says_so(made):
    made.newsletter("send", "2026-12", "--confirm", "4")
    before = {file.name: file.stat().st_mtime_ns for file in made.outbox.iterdir()}
    again = made.newsletter("send", "2026-12", "--confirm", "4")
    assert "was sent before" in again.stdout
    assert {file.name: file.stat().st_mtime_ns for file in made.outbox.iterdir()} == before


def test_a_rehearsal_through_the_folder_leaves_the_live_send_whole(made):
    made.newsletter("send", "2026-12", "--confirm", "4")
    with smtp(made) as server:
        assert "LIVE" in made.newsletter("send", "2026-12", "--confirm", "4").stdout
        assert sorted(server.recipients()) == sorted(address for address, _ in PEOPLE)
        made.newsletter("send", "2026-12", "--confirm", "4")
        assert len(server.recipients()) == 4


def test_a_rehearsal_can_be_repeated_a_live_campaign_can_not(made):
    made.newsletter("send", "2026-12", "--confirm", "4")
    made.newsletter("send", "2026-12", "--again", "--confirm", "4")
    assert len(list(made.outbox.glob("*.eml"))) == 8
    with smtp(made):
        made.newsletter("send", "2026-12", "--confirm", "4")
        refused = made.newsletter("send", "2026-12", "--again", "--confirm", "4", check=False)
        assert refused.returncode == 5
        assert "goes to nobody twice" in refused.stderr


@pytest.mark.parametrize("confirm", [(), ("--confirm", "5")])
def test_nothing_leaves_without_the_right_number(made, confirm):
    refused = made.newsletter("send", "2026-12", *confirm, check=False)
    assert refused.returncode == 5
    assert "Nothing was sent" in refused.stderr or "--confirm 4" in refused.stderr
    assert not made.outbox.exists()
    assert made.newsletter("status").stdout.startswith("Nothing was sent yet")


def test_a_dry_run_prints_the_plan_and_sends_nothing(made):
    said = made.newsletter("send", "2026-12", "--dry-run").stdout
    assert "4 recipients" in said
    assert "UTC" in said
    assert not made.outbox.exists()


def test_mode_off_refuses_and_names_the_two_lines_to_change(made):
    with smtp(made, mode="off") as server:
        for command in (
            ("send", "2026-12", "--confirm", "4"),
            ("proof", "2026-12", "--to", "zoe@example.org"),
        ):
            refused = made.newsletter(*command, check=False)
            assert refused.returncode == 5
            assert 'mode = "allowlist"' in refused.stderr
            assert 'transport = "smtp"' in refused.stderr
        assert server.recipients() == []


def test_allowlist_mode_reaches_only_those_on_it_and_is_a_rehearsal(made):
    with smtp(made, mode="allowlist") as server:
        said = made.newsletter("send", "2026-12", "--confirm", "1").stdout
        assert "REHEARSAL" in said
        assert "3 not on the allowlist" in said
        assert server.recipients() == ["zoe@example.org"]


def test_a_rehearsal_begun_through_the_folder_does_not_go_on_by_smtp(made):
    made.newsletter("send", "2026-12", "--confirm", "4")
    made.newsletter("send", "2026-12", "--again", "--dry-run")
    with smtp(made, mode="allowlist") as server:
        said = made.newsletter("send", "2026-12", "--confirm", "1").stdout
        assert "was sent before" in said
        assert server.recipients() == []


def test_an_issue_with_errors_is_not_sent(made):
    issue = made.root / "issues" / "2026-12" / "issue.toml"
    issue.write_text(issue.read_text().replace("https://example.org/gut", "javascript:alert(1)"))
    refused = made.newsletter("send", "2026-12", "--confirm", "4", check=False)
    assert refused.returncode == 3
    assert "javascript" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_proof_is_marked_stays_outside_the_ledger_and_goes_the_same_way(made):
    with smtp(made) as server:
        made.newsletter("proof", "2026-12", "--to", "editor@example.org", "--name", "李小龙")
        (message,) = server.messages()
        copy = message_from_bytes(message, policy=policy.default)
        assert copy["Subject"].startswith("[Proof] ")
        assert "李小龙" in copy.get_body(("plain",)).get_content()
        assert copy["List-Unsubscribe"]
    assert made.newsletter("status").stdout.startswith("Nothing was sent yet")


def test_a_proof_in_allowlist_mode_goes_to_nobody_else(made):
    with smtp(made, mode="allowlist") as server:
        refused = made.newsletter("proof", "2026-12", "--to", "stranger@example.org", check=False)
        assert (refused.returncode, server.recipients()) == (5, [])
        made.newsletter("proof", "2026-12", "--to", "ZOE@example.org")
        assert len(server.recipients()) == 1


def test_a_proof_that_no_server_takes_says_why_and_what_to_look_at(made):
    made.configure(LIVE.format(port=9, mode="live"))  # nothing listens on port 9
    refused = made.newsletter("proof", "2026-12", "--to", "editor@example.org", check=False)
    assert refused.returncode == 8
    assert "127.0.0.1:9 can't be used now: Connection refused" in refused.stderr
    assert "[smtp]" in refused.stderr


def test_a_wrong_proof_address_is_one_clear_error(made):
    refused = made.newsletter("proof", "2026-12", "--to", "not an address", check=False)
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr


def test_a_paused_campaign_is_refused_until_it_is_resumed(made):
    made.configure(LIVE.format(port=9, mode="live"))  # nothing listens on port 9
    stopped = made.newsletter("send", "2026-12", "--confirm", "4", check=False)
    assert stopped.returncode == 8
    assert (
        "is paused: the mail server 127.0.0.1:9 can't be used now: Connection refused. Is it"
        in stopped.stderr
    )
    refused = made.newsletter("send", "2026-12", check=False)
    assert refused.returncode == 5
    assert "newsletter resume 2026-12" in refused.stderr
    made.newsletter("resume", "2026-12")
    with smtp(made) as server:
        made.newsletter("send", "2026-12")
        assert len(server.recipients()) == 4


def test_a_live_campaign_and_a_rehearsal_are_never_mixed_up(made):
    made.configure(LIVE.format(port=9, mode="live"))  # nothing listens on port 9
    made.newsletter("send", "2026-12", "--confirm", "4", check=False)
    made.configure(LIVE.format(port=9, mode="allowlist"))
    made.newsletter("send", "2026-12", "--confirm", "1", check=False)
    unclear = made.newsletter("cancel", "2026-12", "--yes", check=False)
    assert unclear.returncode == 2
    assert "--kind live or --kind rehearsal" in unclear.stderr
    hint = made.newsletter("send", "2026-12", check=False).stderr
    assert "newsletter resume 2026-12 --list readers --kind rehearsal" in hint
    made.newsletter("cancel", "2026-12", "--kind", "rehearsal", "--yes")
    assert set(states(made).values()) == {"pending"}  # of the live one
    made.newsletter("resume", "2026-12")  # only one is left that could be meant


def test_cancelling_asks_and_without_a_person_does_nothing(made):
    made.configure(LIVE.format(port=9, mode="live"))
    made.newsletter("send", "2026-12", "--confirm", "4", check=False)
    refused = made.newsletter("cancel", "2026-12", check=False)
    assert refused.returncode == 5
    assert "--yes" in refused.stderr


def test_a_missing_secret_is_told_before_a_campaign_exists(made):
    made.configure('[sending]\nmode = "live"\ntransport = "sendgrid"\n')
    refused = made.newsletter("send", "2026-12", "--confirm", "4", check=False)
    assert refused.returncode == 2
    assert "SENDGRID_API_KEY" in refused.stderr
    assert made.newsletter("status").stdout.startswith("Nothing was sent yet")


def test_a_list_that_is_not_there_is_named(made):
    refused = made.newsletter("send", "2026-12", "--list", "reader", "--dry-run", check=False)
    assert refused.returncode == 2
    assert "Did you mean readers?" in refused.stderr


def test_who_has_no_list_yet_is_told_how_to_make_one(tmp_path):
    refused = publisher(tmp_path).newsletter("send", "2026-12", "--dry-run", check=False)
    assert refused.returncode == 2
    assert "newsletter subscribers import FILE --list readers" in refused.stderr


def test_an_empty_allowlist_reaches_nobody_and_says_where_it_is(made):
    made.configure('[sending]\nmode = "allowlist"\ntransport = "smtp"\n')
    refused = made.newsletter("send", "2026-12", "--dry-run", check=False)
    assert refused.returncode == 5
    assert "`allowlist` under [sending]" in refused.stderr


def test_someone_who_leaves_after_getting_a_copy_is_not_counted_as_left_out(made):
    made.newsletter("send", "2026-12", "--confirm", "4")
    made.newsletter("subscribers", "unsubscribe", "zoe@example.org")
    assert "as they stand today: 1 unsubscribed." in made.newsletter("deliveries", "2026-12").stdout


def test_a_cancelled_campaign_stays_cancelled(made):
    made.configure(LIVE.format(port=9, mode="live"))
    made.newsletter("send", "2026-12", "--confirm", "4", check=False)
    made.newsletter("cancel", "2026-12", "--yes")
    assert set(states(made).values()) == {"skipped"}
    assert made.newsletter("send", "2026-12", check=False).returncode == 5
    assert made.newsletter("pause", "2026-12", check=False).returncode == 5


def test_status_and_deliveries_speak_json(made):
    made.newsletter("send", "2026-12", "--confirm", "4")
    (campaign,) = json.loads(made.newsletter("status", "2026-12", "--json").stdout)
    assert (campaign["kind"], campaign["state"], campaign["deliveries"]["accepted"]) == (
        "rehearsal",
        "finished",
        4,
    )
    addresses = made.newsletter("deliveries", "2026-12", "--state", "accepted", "--format", "address").stdout
    assert set(addresses.split()) == {address for address, _ in PEOPLE}


def test_an_unknown_campaign_is_one_clear_error(made):
    for command in ("status", "deliveries", "pause"):
        refused = made.newsletter(command, "2020-01", check=False)
        assert refused.returncode == 2
        assert "2020-01" in refused.stderr


def test_another_key_than_the_databases_is_refused(made):
    made.newsletter("status")
    env = made.root / ".env"
    env.write_text(env.read_text().replace(f"ADDRESS_KEY={A_KEY}", f"ADDRESS_KEY={A_KEY[::-1]}"))
    refused = made.newsletter("send", "2026-12", "--confirm", "4", check=False)
    assert refused.returncode == 2
    assert A_KEY[::-1] not in refused.stderr


def test_missing_keys_are_named_with_the_command_that_makes_them(made):
    (made.root / ".env").unlink()
    refused = made.newsletter("send", "2026-12", "--confirm", "4", check=False)
    assert refused.returncode == 2
    assert "newsletter init --keys" in refused.stderr


def test_on_a_terminal_the_number_is_asked_for_and_a_countdown_can_be_stopped(made):
    with smtp(made) as server, on_a_terminal(made, "send", "2026-12") as (process, terminal):
        read_until(terminal, "Type the number")
        os.write(terminal, b"4\n")
        seen = read_until(terminal, "nothing has left")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130, seen
        assert server.recipients() == []
    assert made.newsletter("status").stdout.startswith("Nothing was sent yet")


@contextmanager
def on_a_terminal(made: Publisher, *args: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    terminal, side = pty.openpty()
    process = subprocess.Popen(made.command(*args), stdin=side, stdout=side, stderr=side, env=made.env())
    os.close(side)
    try:
        yield process, terminal
    finally:
        process.kill()
        process.wait()
        os.close(terminal)


def read_until(terminal: int, words: str) -> str:
    seen, deadline = "", time.monotonic() + 30
    while words not in seen:
        assert time.monotonic() < deadline, seen
        seen += os.read(terminal, 1000).decode("utf-8", "replace")
    return seen

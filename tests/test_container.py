"""docs/container/: never built here, so what can be checked without an engine is."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from newsletter.config.env import SECRETS
from newsletter.deploying import LAST_REPLY_SECONDS
from tests.support.publisher import ROOT, publisher
from tests.support.served import serving
from tests.support.smtp_server import closed_port

FOLDER = ROOT / "docs" / "container"
TEXT = (FOLDER / "Containerfile").read_text(encoding="utf-8")
COMPOSE = (FOLDER / "compose.yaml").read_text(encoding="utf-8")


def instructions() -> list[tuple[str, str]]:
    """Each with its arguments, lines that go on put together."""
    lines = [line for line in TEXT.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split()[0], line.partition(" ")[2]) for line in joined.splitlines()]


def given(name: str) -> str:
    return [text for known, text in instructions() if known == name][-1]


def test_it_runs_as_somebody_whom_also_a_cluster_knows_not_to_be_root():
    assert given("USER") == "${UID}:${UID}"
    assert int(given("ARG").removeprefix("UID=")) > 1000
    assert [name for name, _ in instructions()].index("USER") < [name for name, _ in instructions()].index(
        "ENTRYPOINT"
    )


def test_everything_is_installed_by_its_hash_or_from_here():
    installs = re.findall(r"pip install ([^&]*)", TEXT.replace("\\\n", " "))
    assert installs
    assert all(
        "--require-hashes" in words or "--no-index --no-deps" in words or "--no-deps --no-index" in words
        for words in installs
    )


def test_no_secret_and_nothing_but_the_wheel_gets_in():
    assert not any(name in TEXT for name in SECRETS)
    copied = [text for name, text in instructions() if name in {"COPY", "ADD"}]
    assert copied == [
        "requirements.txt dist/newsletter_press-*.whl ./",
        "--from=build /opt/newsletter /opt/newsletter",
    ]
    ignored = (FOLDER / "Containerfile.dockerignore").read_text().splitlines()
    assert ignored[1:] == ["*", "!requirements.txt", "!dist/newsletter_press-*.whl"]


def test_what_we_depend_on_is_pinned_with_all_extras():
    pinned = (ROOT / "requirements.txt").read_text()
    assert all(
        re.search(rf"^{name}==", pinned, re.MULTILINE) for name in ("psycopg", "dkimpy", "cryptography")
    )


@pytest.fixture
def probe() -> list[str]:
    found = re.search(r"CMD (\[.*\])", given("HEALTHCHECK"))
    assert found
    return [sys.executable, *json.loads(found[1])[1:]]


def ask(probe: list[str], port: int) -> int:
    command = [word.replace(":8080/", f":{port}/") for word in probe]
    return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode


def test_the_health_check_tells_a_server_that_answers_from_one_that_does_not(probe, tmp_path):
    with serving(publisher(tmp_path / "press")) as served:
        assert ask(probe, served.port) == 0
    assert ask(probe, closed_port()) == 1


def test_a_sender_has_time_for_the_last_reply_and_every_service_the_same_home():
    [seconds] = [int(minutes) * 60 for minutes in re.findall(r"stop_grace_period: (\d+)m #", COMPOSE)]
    assert seconds >= LAST_REPLY_SECONDS
    assert COMPOSE.count("NEWSLETTER_INSTANCE") == 1
    assert COMPOSE.count("<<: *newsletter") == 2

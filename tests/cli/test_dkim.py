"""`dkim new`, `dkim records`, and what a key in newsletter.toml does to mail, as a person types it."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from newsletter.transports import dkim_keys
from tests.support import dkim_keys as keys
from tests.support.publisher import Publisher, publisher
from tests.support.smtp_server import smtp_server

if TYPE_CHECKING:
    from pathlib import Path

SMTP = """
[sending]
mode = "allowlist"
allowlist = ["zoe@example.org"]
transport = "smtp"
[smtp]
port = {port}
security = "none"
"""


@pytest.fixture
def made(tmp_path: Path) -> Publisher:
    return publisher(tmp_path)


def with_key(made: Publisher, kind: str = "rsa", selector: str = "news2027", extra: str = "") -> None:
    """As if somebody had done what `dkim new` told."""
    made.newsletter("dkim", "new", selector, "--algorithm", kind)
    made.configure(f'{extra}\n[dkim.keys]\n{selector} = ".newsletter/dkim/{selector}.pem"\n')


def secret_lines(made: Publisher) -> list[str]:
    pem = "".join(file.read_text() for file in made.root.rglob("*.pem"))
    return [line for line in pem.splitlines() if len(line) > 20 and not line.startswith("-----")]


# new


@pytest.mark.parametrize(("kind", "words"), [("rsa", "RSA, 2048 bits"), ("ed25519", "Ed25519")])
def test_a_new_key_is_made_and_its_record_and_setting_are_told(made, kind, words):
    done = made.newsletter("dkim", "new", "news2027", "--algorithm", kind)
    file = made.root / ".newsletter" / "dkim" / "news2027.pem"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (file, file.parent)] == [0o600, 0o700]
    assert stat.S_IMODE(file.parent.parent.stat().st_mode) == 0o700
    assert words in done.stdout
    assert "name   news2027._domainkey.example.org\n" in done.stdout
    assert f"value  {dkim_keys.record(dkim_keys.read(file))}\n" in done.stdout
    assert '[dkim.keys]\nnews2027 = ".newsletter/dkim/news2027.pem"\n' in done.stdout
    assert not [line for line in secret_lines(made) if line in done.stdout + done.stderr]


def test_the_setting_that_is_told_works_as_it_stands(made):
    said = made.newsletter("dkim", "new", "a.2027").stdout
    lines = said[said.index("[dkim.keys]") : said.index("Next:")]
    made.configure(lines)
    assert "a.2027._domainkey.example.org" in made.newsletter("dkim", "records").stdout
    assert "is there already" in made.newsletter("dkim", "new", "b").stdout


def test_a_key_is_never_overwritten(made):
    made.newsletter("dkim", "new", "news2027")
    file = made.root / ".newsletter" / "dkim" / "news2027.pem"
    before = file.read_bytes()
    refused = made.newsletter("dkim", "new", "news2027", check=False)
    assert refused.returncode == 5
    assert "Take another selector." in refused.stderr
    made.configure('[dkim.keys]\nnews2027 = ".newsletter/dkim/news2027.pem"\n')
    assert made.newsletter("dkim", "new", "news2027", check=False).returncode == 5
    assert file.read_bytes() == before


@pytest.mark.parametrize("selector", ["News", "a b", "../x", "a..b", "-a", "a" * 101, "zoë"])
def test_a_selector_that_is_no_name_makes_nothing(made, selector):
    refused = made.newsletter("dkim", "new", "--", selector, check=False)
    assert refused.returncode == 2
    assert "small letters, digits and -" in refused.stderr
    assert not (made.root / ".newsletter").exists()


def test_a_folder_that_can_not_be_written_is_one_clear_error(made):
    (made.root / ".newsletter").mkdir()
    (made.root / ".newsletter" / "dkim").write_text("a file where a folder should be")
    refused = made.newsletter("dkim", "new", "news2027", check=False)
    assert refused.returncode == 2
    assert "news2027.pem can't be written: File exists." in refused.stderr


# records


def test_every_key_has_its_record(made):
    with_key(made, "rsa", "one")
    made.newsletter("dkim", "new", "two", "--algorithm", "ed25519")
    made.configure('[dkim.keys]\none = ".newsletter/dkim/one.pem"\ntwo = ".newsletter/dkim/two.pem"\n')
    told = made.newsletter("dkim", "records")
    found = json.loads(made.newsletter("dkim", "records", "--json").stdout)
    assert [record["name"] for record in found] == [
        "one._domainkey.example.org",
        "two._domainkey.example.org",
    ]
    for record in found:
        assert record["type"] == "TXT"
        assert "".join(record["strings"]) == record["value"]
        assert max(map(len, record["strings"])) <= 255
        assert record["value"] in told.stdout
    assert " ".join(f'"{part}"' for part in found[0]["strings"]) in told.stdout
    assert not [line for line in secret_lines(made) if line in told.stdout + told.stderr]


def test_without_a_key_it_says_how_to_make_one(made):
    assert "newsletter dkim new SELECTOR" in made.newsletter("dkim", "records").stdout
    assert json.loads(made.newsletter("dkim", "records", "--json").stdout) == []


def test_a_record_stands_at_the_domain_that_signs(made):
    file = made.root / "newsletter.toml"
    with_key(made, extra='[dkim]\ndomain = "Example.org"')
    file.write_text(file.read_text().replace('"digest@example.org"', '"digest@news.example.org"', 1))
    assert "news2027._domainkey.example.org" in made.newsletter("dkim", "records").stdout
    made.configure('[dkim.keys]\nnews2027 = ".newsletter/dkim/news2027.pem"\n')
    file.write_text(file.read_text().replace('"digest@example.org"', '"digest@news.example.org"', 1))
    assert "news2027._domainkey.news.example.org" in made.newsletter("dkim", "records").stdout


def test_a_short_key_is_warned_of(made):
    dkim_keys.write(made.root / "short.pem", keys.rsa_of(2**521 - 1, 2**607 - 1))
    made.configure('[dkim.keys]\nnews2027 = "short.pem"\n')
    assert "Warning: news2027 is RSA, 1128 bits" in made.newsletter("dkim", "records").stderr


def test_a_key_that_others_can_read_is_warned_of(made):
    with_key(made)
    assert made.newsletter("dkim", "records").stderr == ""
    file = made.root / ".newsletter" / "dkim" / "news2027.pem"
    file.chmod(0o640)
    assert f"chmod 600 {file}" in made.newsletter("dkim", "records").stderr


@pytest.mark.parametrize("command", [("dkim", "records"), ("proof", "2026-12", "--to", "zoe@example.org")])
def test_a_file_that_holds_no_key_is_one_clear_error_that_shows_nothing_of_it(made, command):
    (made.root / "key.pem").touch(0o600)
    (made.root / "key.pem").write_text("-----BEGIN PRIVATE KEY-----\nc2VjcmV0IHRoaW5ncw==\n")
    made.configure(SMTP.format(port=9) + '[dkim.keys]\nnews2027 = "key.pem"\n')
    refused = made.newsletter(*command, check=False)
    assert refused.returncode == 2
    assert (
        f"[dkim.keys] news2027: {made.root / 'key.pem'} holds no private key in PEM form." in refused.stderr
    )
    assert "c2Vj" not in refused.stdout + refused.stderr


WITHOUT_PACKAGE = """
import sys
sys.modules["cryptography"] = None
from newsletter.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("dkim", "records"), 2),
        (("dkim", "new", "other"), 2),
        (("proof", "2026-12", "--to", "zoe@example.org"), 2),
        (("config",), 0),
    ],
)
def test_without_the_package_the_extra_is_named(made, command, code):
    with_key(made, extra=SMTP.format(port=9))
    call = [sys.executable, "-c", WITHOUT_PACKAGE, "--project", str(made.root), *command]
    done = subprocess.run(call, capture_output=True, text=True, env=made.env(), check=False)
    assert done.returncode == code
    assert ("pip install 'newsletter-press[dkim]'" in done.stderr) == (code == 2)
    assert "Traceback" not in done.stderr


# what leaves


def test_a_proof_and_a_campaign_are_signed(made):
    made.import_people([("zoe@example.org", "Zoë")])
    with smtp_server() as server:
        with_key(made, extra=SMTP.format(port=server.port))
        made.newsletter("proof", "2026-12", "--to", "zoe@example.org")
        made.newsletter("send", "2026-12", "--confirm", "1")
    key = dkim_keys.read(made.root / ".newsletter" / "dkim" / "news2027.pem")
    lookup = keys.published([("news2027", key)])
    assert [keys.verdicts(arrived.content, lookup) for arrived in server.messages] == [[True], [True]]


def test_copies_in_a_folder_are_not_signed(made):
    made.import_people([("zoe@example.org", "Zoë")])
    with_key(made)
    made.newsletter("send", "2026-12", "--confirm", "1")
    (file,) = made.outbox.glob("*.eml")
    assert b"DKIM-Signature" not in file.read_bytes()

"""`newsletter doctor`: a publisher whose everything is right, and what is told when it is not."""

from __future__ import annotations

import json
import time

import pytest
from sqlalchemy import make_url

from newsletter.transports import dkim_keys
from tests.support.dkim_keys import rsa
from tests.support.dns_server import dns_server
from tests.support.https_server import front
from tests.support.publisher import Publisher, publisher
from tests.support.sendgrid_server import KEY, sendgrid_server
from tests.support.served import serving
from tests.support.smtp_server import make_certificate, server_context, smtp_server

HOST = "news.example.org"
LOGIN = ("digest", "s3cret-words")
SECRETS = (LOGIN[1], KEY)


def found(folder, *words: str) -> tuple[int, list[dict[str, str]]]:
    """Exit code and results. Nothing in them may be a secret or an address of a reader."""
    done = folder.newsletter("doctor", "--json", *words, check=False)
    assert not any(secret in done.stdout + done.stderr for secret in (*SECRETS, "ann@"))
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)


def of(results: list[dict[str, str]], name: str) -> list[str]:
    return [result["level"] for result in results if result["name"] == name]


@pytest.fixture
def zone():
    with dns_server() as running:
        running.put(HOST, "A", "127.0.0.1")
        running.put("example.org", "MX", "10 mail.example.org.")
        running.txt("example.org", "v=spf1 ip4:192.0.2.1 -all")
        running.txt("_dmarc.example.org", "v=DMARC1; p=reject")
        yield running


@pytest.fixture
def folder(tmp_path):
    made = publisher(tmp_path / "press")
    made.import_people([("ann@example.org", "Ann")])
    return made


@pytest.fixture
def sound(folder, zone, tmp_path):
    """A publisher who may send: real pages behind https, a real mail server with TLS and login, and a DNS."""
    selector, key = rsa()
    zone.txt(dkim_keys.record_name(selector, "example.org"), dkim_keys.record(key))
    dkim_keys.write(folder.root / "key.pem", key)
    pages, mail = make_certificate(tmp_path, host=HOST, days=90), make_certificate(tmp_path, days=90)
    folder.environ = {"SSL_CERT_FILE": str(pages[0]), "SMTP_PASSWORD": LOGIN[1]}
    with (
        serving(folder) as served,
        front(server_context(*pages), behind=served.port) as proxy,
        smtp_server(starttls=server_context(*mail), login=LOGIN) as mailbox,
    ):
        folder.configure(f"""
[sending]
mode = "live"
transport = "smtp"
[smtp]
host = "localhost"
port = {mailbox.port}
username = "{LOGIN[0]}"
ca_file = "{mail[0]}"
[dkim.keys]
{selector} = "key.pem"
[schedule]
send = "first tuesday 09:00"
timezone = "Europe/Berlin"
""")
        file = folder.root / "newsletter.toml"
        file.write_text(file.read_text().replace(f"https://{HOST}", f"https://{HOST}:{proxy.port}"))
        folder.mailbox = mailbox
        yield folder


def test_everything_is_right_also_a_proof_that_has_arrived(sound, zone, tmp_path):
    sound.newsletter("proof", "2026-12", "--to", "me@example.net")
    [arrived] = sound.mailbox.messages
    seed = tmp_path / "received.eml"
    seed.write_bytes(arrived.content)
    code, results = found(sound, "--nameserver", zone.nameserver, "--seed", str(seed))
    wrong = [result for result in results if result["level"] != "ok"]
    assert [result["name"] for result in wrong] == [
        "plain http"
    ]  # base_url has a port, which real ones have not
    assert code == 0
    assert len(sound.mailbox.messages) == 1
    [schedule] = [result["detail"] for result in results if result["name"] == "schedule"]
    assert "Tuesday" in schedule
    assert "09:00 Europe/Berlin" in schedule


def test_a_person_gets_a_line_each_and_what_to_do_next(sound, zone):
    done = sound.newsletter("doctor", "--nameserver", zone.nameserver)
    assert "ok             mail server: localhost:" in done.stdout
    assert "Ready: no errors, no warnings" in done.stdout
    assert "Next: newsletter proof" in done.stdout
    assert done.stderr == ""


def test_an_error_is_told_with_its_remedy_and_ends_with_nine(sound, zone):
    zone.txt("_dmarc.example.org", "v=DMARC1; p=perhaps")
    done = sound.newsletter("doctor", "--nameserver", zone.nameserver, check=False)
    assert done.returncode == 9
    assert "error          DMARC: _dmarc.example.org names no policy (p=).\n               → " in done.stdout
    assert "1 error, no warnings" in done.stderr


def test_offline_asks_nobody(folder, zone):
    code, results = found(folder, "--offline", "--nameserver", zone.nameserver)
    assert (code, zone.asked) == (0, [])
    assert of(results, "database") == ["ok"]
    names = {"provider", "SPF", "DKIM", "DMARC", "MX", "pages", "plain http"}
    assert {result["name"] for result in results if result["level"] == "not looked at"} >= names


def test_it_ends_in_time_when_nobody_answers(folder, zone):
    zone.silent |= {HOST, "example.org", "_dmarc.example.org"}
    begun = time.monotonic()
    code, results = found(folder, "--nameserver", zone.nameserver)
    assert time.monotonic() - begun < 15
    assert code == 9
    assert of(results, "SPF") == of(results, "DMARC") == of(results, "pages") == ["error"]


def test_settings_that_cannot_be_read_are_the_only_thing_that_is_told(folder):
    folder.configure("[sending]\nmode = 'loud'\n")
    code, results = found(folder, "--offline")
    assert code == 9
    assert [result["level"] for result in results] == ["error", "not looked at"]
    assert "sending.mode" in results[0]["detail"]


def test_a_folder_that_is_no_publishers_is_told_as_by_any_command(tmp_path):
    done = Publisher(tmp_path).newsletter("doctor", "--offline", check=False)
    assert done.returncode == 2
    assert "newsletter.toml" in done.stderr


def test_missing_keys_are_told_and_the_rest_is_looked_at_all_the_same(folder):
    (folder.root / ".env").write_text("")
    code, results = found(folder, "--offline")
    assert code == 9
    assert of(results, "keys") == of(results, "database") == ["error"]
    assert of(results, "disk") == ["ok"]


@pytest.mark.parametrize(
    ("section", "missing"),
    [
        ('[sending]\ntransport = "sendgrid"\n', "SENDGRID_API_KEY"),
        ('[sending]\ntransport = "smtp"\n[smtp]\nusername = "digest"\n', "SMTP_PASSWORD"),
    ],
)
def test_a_missing_secret_of_the_provider_is_an_error(folder, section, missing):
    folder.configure(section)
    code, results = found(folder, "--offline")
    assert code == 9
    [sending] = [result for result in results if result["name"] == "sending"]
    assert missing in sending["detail"]


@pytest.mark.parametrize("mode", ["off", "allowlist"])
def test_a_mode_that_does_not_reach_everybody_is_told(folder, mode):
    folder.configure(f'[sending]\nmode = "{mode}"\ntransport = "smtp"\n')
    _, results = found(folder, "--offline")
    assert of(results, "sending") == ["warning"]


def test_secrets_that_others_may_read_are_told_with_the_way_to_mend_it(folder):
    (folder.root / ".env").chmod(0o644)
    _, results = found(folder, "--offline")
    [said] = [
        result for result in results if result["name"] == "configuration" and result["level"] == "warning"
    ]
    assert said["hint"] == f"chmod 600 {folder.root / '.env'}"


def test_sendgrid_is_asked_what_the_key_may_do(folder, zone):
    with sendgrid_server() as server:
        folder.configure(
            f'[sending]\nmode = "live"\ntransport = "sendgrid"\n[sendgrid]\nurl = "{server.url}"\n'
        )
        folder.environ["SENDGRID_API_KEY"] = KEY
        _, results = found(folder, "--nameserver", zone.nameserver)
        assert of(results, "SendGrid") == ["ok"]
        assert of(results, "SPF") == ["not looked at"]
        assert of(results, "DKIM") == ["warning"]
        assert server.requests == []


def test_a_password_of_the_database_is_not_shown(folder, postgresql_url):
    address = make_url(postgresql_url).set(password="pw-in-the-url", database="gone")
    folder.environ["DATABASE_URL"] = address.render_as_string(hide_password=False)
    done = folder.newsletter("doctor", "--offline", check=False)
    assert done.returncode == 9
    assert "pw-in-the-url" not in done.stdout + done.stderr
    assert "error          database: " in done.stdout


def test_a_nameserver_that_is_none_is_told_at_once(folder):
    done = folder.newsletter("doctor", "--nameserver", "dns.example.org", check=False)
    assert done.returncode == 2
    assert "--nameserver" in done.stderr

"""newsletter.toml, .env and the environment: what is read, what wins, and how every mistake is told."""

from __future__ import annotations

import json
import os
import re
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from newsletter import tokens
from newsletter.config import Settings, add_keys, find_project, load
from newsletter.config.problems import explain
from newsletter.config.sections import Sections, paths
from newsletter.config.values import LONGEST_BASE_URL, duration, duration_text, share, share_text
from newsletter.errors import ConfigError
from newsletter.limits import Limits, Rate

NEWSLETTER = {
    "name": "Research Digest",
    "from": "digest@example.org",
    "reply_to": "editor@example.org",
    "base_url": "https://news.example.org",
    "postal_address": "1 Example Street, Example Town",
    "list_id": "digest.example.org",
}
KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE"  # 32 bytes in base64url
SECRETS = {
    "NEWSLETTER_SECRET_KEYS": f"1:{KEY}",
    "NEWSLETTER_ADDRESS_KEY": KEY,
    "SENDGRID_API_KEY": "SG.quite-secret-one",
    "SMTP_PASSWORD": "correct horse battery",
    "DATABASE_URL": "postgresql://user:open-sesame@db.example.org/news",
}


def toml(extra: str = "", **newsletter: object) -> str:
    """A file that is right but for what the test adds; a value of None leaves a key out."""
    values = {key: value for key, value in {**NEWSLETTER, **newsletter}.items() if value is not None}
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return "\n".join(["[newsletter]", *lines, extra, ""])


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "newsletter.toml").write_text(toml())
    return tmp_path


def settings(project: Path, text: str | None = None, **environ: str) -> Settings:
    if text is not None:
        (project / "newsletter.toml").write_text(text, encoding="utf-8")
    return load(project, environ)


def told(project: Path, text: str | None = None, **environ: str) -> str:
    """The one message of the one error."""
    with pytest.raises(ConfigError) as error:
        settings(project, text, **environ)
    return f"{error.value}\n{error.value.hint}"


def dotenv(project: Path, text: str, mode: int = 0o600) -> None:
    file = project / ".env"
    file.touch()
    file.chmod(mode)
    file.write_text(text, encoding="utf-8")


# What is read


def test_what_is_left_out_has_the_documented_default(project: Path) -> None:
    found = settings(project)
    assert found.newsletter.full_name == "Research Digest"
    assert found.newsletter.editors == ("editor@example.org",)
    assert (found.sending.mode, found.sending.transport, found.sending.connections) == ("off", "folder", 10)
    assert found.sending.retry[0] == timedelta(seconds=15)
    assert (found.sending.limits, found.sending.stop_refused) == (Limits(), 0.05)
    assert (found.smtp.security, found.smtp.timeout) == ("starttls", timedelta(seconds=30))
    assert found.sendgrid.batch == 50
    assert found.database_url == f"sqlite:///{project}/.newsletter/newsletter.db"
    assert found.state_dir == project / ".newsletter"


def test_hosted_pictures_are_under_the_publishers_address_unless_named(project: Path) -> None:
    assert settings(project).images.url == "https://news.example.org/media"
    elsewhere = '[images]\nmode = "hosted"\nurl = "https://cdn.example.org/a"'
    assert settings(project, toml(elsewhere)).images.url == "https://cdn.example.org/a"


def test_without_lists_of_its_own_the_web_shows_the_publications_one_list(project: Path) -> None:
    assert settings(project).public_lists == {"readers": "Research Digest"}
    assert settings(project, toml(list="digest")).public_lists == {"digest": "Research Digest"}


def test_every_section_is_read(project: Path) -> None:
    (project / "logo.png").write_bytes(b"")
    text = toml(
        """
        [sending]
        mode = "allowlist"
        allowlist = ["me@example.org"]
        retry = ["1s", "3d"]
        rate = "2000/h"
        stop_refused = "off"
        [sending.domains]
        "Gmail.com" = "20/s"
        "bücher.example" = "100/m"
        [smtp]
        port = 587
        username = "digest"
        security = "tls"
        [sendgrid]
        url = "http://127.0.0.1:8025/"
        [unsubscribe]
        mailto = "leave@example.org"
        [web]
        host = "::1"
        port = 8081
        workers = 4
        proxies = ["10.0.0.0/8", "::1"]
        privacy_url = "https://example.org/privacy"
        network_limit = "5/m"
        [web.lists]
        readers = "Research Digest"
        events = "Events near you"
        [theme]
        logo = "logo.png"
        body_font = "Georgia, 'Times New Roman', serif"
        [theme.dark]
        accent = "#86C9C6"
        """,
        fields=["town"],
    )
    found = settings(project, text)
    assert found.sending.allowlist == ("me@example.org",)
    assert found.sending.retry == (timedelta(seconds=1), timedelta(days=3))
    assert found.sending.stop_refused is None
    domains = {"gmail.com": Rate(20, 1), "xn--bcher-kva.example": Rate(100, 60)}  # as addresses have them
    assert found.sending.limits == Limits(Rate(2000, 3600), domains)
    assert (found.smtp.port, found.smtp.username) == (587, "digest")
    assert found.sendgrid.url == "http://127.0.0.1:8025"
    assert found.unsubscribe.mailto == "leave@example.org"
    assert (found.web.host, found.web.port, found.web.workers) == ("::1", 8081, 4)
    assert found.web.proxies == ("10.0.0.0/8", "::1")
    assert found.web.privacy_url == "https://example.org/privacy"
    assert found.web.network_limit == Rate(5, 60)
    assert list(found.public_lists.items()) == [
        ("readers", "Research Digest"),
        ("events", "Events near you"),
    ]
    assert found.theme.model_dump(exclude_unset=True) == {
        "logo": "logo.png",
        "body_font": "Georgia, 'Times New Roman', serif",
        "dark": {"accent": "#86C9C6"},
    }
    assert found.newsletter.fields == ("town",)


def test_a_certificate_is_found_wherever_the_program_is_started(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "ca.pem").touch()
    (project / "issues").mkdir()
    monkeypatch.chdir(project / "issues")
    found = settings(Path(".."), toml('[smtp]\nca_file = "ca.pem"'))
    assert found.smtp.ca_file == str(project / "ca.pem")


def test_a_file_from_windows_is_read(project: Path) -> None:
    (project / "newsletter.toml").write_bytes(b"\xef\xbb\xbf" + toml().replace("\n", "\r\n").encode())
    assert load(project, {}).newsletter.name == "Research Digest"


def test_settings_can_not_be_changed(project: Path) -> None:
    found = settings(project)
    with pytest.raises(ValueError, match="frozen"):
        found.sending.mode = "live"


def test_the_project_is_the_nearest_folder_with_a_newsletter_toml(project: Path, tmp_path: Path) -> None:
    inner = project / "issues" / "2026-12"
    inner.mkdir(parents=True)
    assert find_project(inner) == project
    (project / "newsletter.toml").rename(project / "other.toml")
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path))) as error:
        find_project(inner)
    assert "newsletter init" in error.value.hint


@given(st.integers(1, 30 * 86400))
def test_a_duration_is_written_as_it_is_read(seconds: int) -> None:
    span = timedelta(seconds=seconds)
    assert duration(duration_text(span)) == span


@given(st.integers(1, 10_000))
def test_a_share_is_written_as_it_is_read(hundredths: int) -> None:
    found = share(f"{hundredths / 100:.2f}%")
    assert found is not None
    assert share(share_text(found)) == found


def test_limits_are_shown_as_the_file_writes_them(project: Path) -> None:
    shown = {each.key: each.value for each in settings(project).describe()}
    assert (shown["sending.rate"], shown["sending.stop_refused"]) == ("unlimited", "5%")
    text = toml('[sending]\nrate = "50/s"\nstop_refused = "off"\n[sending.domains]\n"gmail.com" = "20/m"')
    shown = {each.key: each.value for each in settings(project, text).describe()}
    assert (shown["sending.rate"], shown["sending.stop_refused"]) == ("50/s", "off")
    assert shown["sending.domains"] == ["gmail.com = 20/m"]


# What is refused


@pytest.mark.parametrize(
    ("section", "line", "place", "words"),
    [
        ("newsletter", 'name = ""', "newsletter.name", "is empty"),
        ("newsletter", 'name = "A @@name|x@@"', "newsletter.name", "merge tag"),
        ("newsletter", r'name = "a\nb"', "newsletter.name", "one line"),
        ("newsletter", r'name = "a\u0085b"', "newsletter.name", "control"),
        ("newsletter", r'postal_address = "a\u001bb"', "newsletter.postal_address", "control"),
        ("newsletter", "name = 7", "newsletter.name", "text in quotes"),
        ("newsletter", 'name = "=?utf-8?q?a=0ABcc:x?="', "newsletter.name", "control"),
        ("newsletter", 'from = "digest"', "newsletter.from", "must be an address"),
        ("newsletter", 'from = "zoë@example.org"', "newsletter.from", "before the @"),
        ("newsletter", 'reply_to = "zoë@example.org"', "newsletter.reply_to", "before the @"),
        ("smtp", 'envelope_from = "zoë@example.org"', "smtp.envelope_from", "before the @"),
        ("newsletter", 'reply_to = "a@@b"', "newsletter.reply_to", "must be an address"),
        (
            "newsletter",
            'editors = ["a@example.org", "b"]',
            "newsletter.editors (entry 2)",
            "must be an address",
        ),
        ("newsletter", 'editors = "a@example.org"', "newsletter.editors", "must be a list"),
        ("newsletter", 'base_url = "http://news.example.org"', "newsletter.base_url", "https://"),
        ("newsletter", 'base_url = "https://news.example.org/"', "newsletter.base_url", "slash"),
        ("newsletter", 'base_url = "https://a.org/?x=1"', "newsletter.base_url", "must be a web address"),
        ("newsletter", 'base_url = "https://me:pw@a.org"', "newsletter.base_url", "must be a web address"),
        ("newsletter", 'base_url = "https://a.org:99999"', "newsletter.base_url", "must be a web address"),
        ("newsletter", 'base_url = "https://[a.org"', "newsletter.base_url", "must be a web address"),
        ("newsletter", 'base_url = "https://"', "newsletter.base_url", "must be a web address"),
        ("newsletter", 'base_url = "https://müller.example"', "newsletter.base_url", "xn--"),
        ("newsletter", f'base_url = "https://{"a" * 29}"', "newsletter.base_url", "shorter"),
        ("newsletter", 'language = "xx"', "newsletter.language", "de, en"),
        ("newsletter", 'language = "../en"', "newsletter.language", "de, en"),
        ("newsletter", 'list = "My Readers"', "newsletter.list", "small letters"),
        ("newsletter", 'list_id = "digest"', "newsletter.list_id", "dot"),
        ("newsletter", 'list_id = "a.b>"', "newsletter.list_id", "dot"),
        ("newsletter", 'discreet_words = ["MS", ""]', "newsletter.discreet_words (entry 2)", "is empty"),
        ("newsletter", 'fields = ["name"]', "newsletter.fields (entry 1)", "meaning of its own"),
        ("newsletter", 'fields = ["Home Town"]', "newsletter.fields (entry 1)", "small letters"),
        ("sending", 'mode = "on"', "sending.mode", "'off', 'allowlist' or 'live'"),
        ("sending", "connections = 0", "sending.connections", "1 or more"),
        ("sending", "connections = 101", "sending.connections", "100 or less"),
        ("sending", "connections = true", "sending.connections", "whole number"),
        ("sending", 'connections = "10"', "sending.connections", "whole number"),
        ("sending", 'retry = ["15"]', "sending.retry (entry 1)", "duration"),
        ("sending", 'retry = ["0s"]', "sending.retry (entry 1)", "duration"),
        ("sending", 'retry = ["31d"]', "sending.retry (entry 1)", "30 days"),
        ("sending", "retry = [15]", "sending.retry (entry 1)", "duration"),
        ("sending", 'rate = "50"', "sending.rate", '"50/s"'),
        ("sending", 'rate = "0/s"', "sending.rate", 'or "unlimited"'),
        ("sending", "rate = 50", "sending.rate", "copies per second"),
        ("sending", 'stop_refused = "5"', "sending.stop_refused", '"5%"'),
        ("sending", 'stop_refused = "101%"', "sending.stop_refused", "share"),
        ("sending", 'stop_refused = "0%"', "sending.stop_refused", '"off"'),
        ("sending", "stop_refused = 5", "sending.stop_refused", "share"),
        ("sending", 'domains = "gmail.com"', "sending.domains", "section of its own"),
        ("sending.domains", '"gmail.com" = "20"', "sending.domains.gmail.com", '"50/s"'),
        ("sending.domains", '"gmail.com" = "unlimited"', "sending.domains.gmail.com", "left out"),
        ("dkim", 'domain = "example"', "dkim.domain", "must be a domain"),
        ("dkim", 'keys = "key.pem"', "dkim.keys", "section of its own"),
        ("dkim.keys", "a = 7", "dkim.keys.a", "text in quotes"),
        ("dkim.keys", 'a = ""', "dkim.keys.a", "none that is there"),
        ("smtp", "port = 65536", "smtp.port", "65535 or less"),
        ("smtp", 'security = "ssl"', "smtp.security", "'none', 'starttls' or 'tls'"),
        ("smtp", 'security = "none"\nusername = "me"', "smtp.username", "login"),
        ("smtp", 'ca_file = "no.pem"', "smtp.ca_file", "not there"),
        ("smtp", "timeout = 30", "smtp.timeout", "duration"),
        ("sendgrid", "batch = 1001", "sendgrid.batch", "1000 or less"),
        ("sendgrid", 'url = "http://api.example.org"', "sendgrid.url", "https://"),
        ("sendgrid", 'url = "http://127.0.0.1.example.org"', "sendgrid.url", "https://"),
        ("images", 'mode = "link"', "images.mode", "'embed' or 'hosted'"),
        ("images", 'url = "ftp://a"', "images.url", "https://"),
        ("unsubscribe", 'mailto = "mailto:a@example.org"', "unsubscribe.mailto", "must be an address"),
        ("web", 'host = "127.0.0.1:8080"', "web.host", "without a port"),
        ("web", 'host = ""', "web.host", "IP address"),
        ("web", "port = 0", "web.port", "1 or more"),
        ("web", "workers = 65", "web.workers", "64 or less"),
        ("web", 'proxies = ["*"]', "web.proxies (entry 1)", "network"),
        ("web", 'proxies = ["10.0.0.1/8"]', "web.proxies (entry 1)", "network"),
        ("web", 'proxies = "127.0.0.1"', "web.proxies", "must be a list"),
        ("web", 'privacy_url = "http://example.org"', "web.privacy_url", "https://"),
        ("web", 'network_limit = "unlimited"', "web.network_limit", '"20/h"'),
        ("web", "network_limit = 20", "web.network_limit", '"20/h"'),
        ("web", 'lists = "readers"', "web.lists", "section of its own"),
        ("web.lists", 'readers = ""', "web.lists.readers", "is empty"),
        ("theme", 'body_font = "serif; x"', "theme.body_font", "font names"),
        ("theme", 'logo = "no.png"', "theme.logo", "not there"),
        ("theme.light", 'accent = "#fff"', "theme.light.accent", "six digits"),
        ("theme.dark", 'accent = "red"', "theme.dark.accent", "six digits"),
    ],
)
def test_a_wrong_value_is_told_with_its_line_key_and_remedy(
    project: Path, section: str, line: str, place: str, words: str
) -> None:
    key = line.partition(" =")[0]
    text = toml(line, **{key: None}) if section == "newsletter" else toml(f"[{section}]\n{line}")
    number = text[: text.index(line)].count("\n") + line.count("\n") + 1
    message = told(project, text)
    assert message.startswith(f"newsletter.toml:{number}: {place} "), message
    assert words in message


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("nmae = 1", "newsletter.toml:8: newsletter.nmae is not a setting. Did you mean newsletter.name?"),
        ("batch = 1", "newsletter.toml:8: newsletter.batch is not a setting. Did you mean sendgrid.batch?"),
        ("[sendin]", "newsletter.toml:8: sendin is not a setting. Did you mean sending?"),
        ("[images]\nzzz = 1", "newsletter.toml:9: images.zzz is not a setting. What can stand here: mode, url."),
        ("[theme.light]\nacent = 1", "newsletter.toml:9: theme.light.acent is not a setting. Did you mean theme"),
        ("[webhooks]", "newsletter.toml:8: webhooks is not a setting."),
    ],
)  # fmt: skip
def test_an_unknown_key_suggests_the_near_one(project: Path, extra: str, message: str) -> None:
    assert told(project, toml(extra)).startswith(message)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('gmail.com = "20/s"', "sending.domains.gmail must be a domain in quotes, because of its dots"),
        ('"a b.org" = "20/s"', 'sending.domains names "a b.org", which is no domain of an address'),
        ('"a.org" = "1/s"\n"A.org" = "2/s"', 'sending.domains names the domain "a.org" twice'),
    ],
)
def test_a_wrong_domain_is_named(project: Path, lines: str, message: str) -> None:
    assert told(project, toml(f"[sending.domains]\n{lines}")).startswith(f"newsletter.toml:8: {message}")


def test_a_public_list_has_the_name_of_a_list(project: Path) -> None:
    message = told(project, toml('[web.lists]\n"My Readers" = "A"'))
    assert message.startswith('newsletter.toml:8: web.lists names the list "My Readers", which must be made')


@pytest.mark.parametrize("domain", ["other.org", "news.example.org", "ple.org"])
def test_only_the_senders_domain_or_one_above_it_can_sign(project: Path, domain: str) -> None:
    message = told(project, toml(f'[dkim]\ndomain = "{domain}"'))
    assert message.startswith(f"newsletter.toml:8: dkim can't sign with domain {domain}: it must be that of")
    sender = "digest@mail.news.example.org"
    assert settings(project, toml('[dkim]\ndomain = "news.Example.org"', **{"from": sender}))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('News = "key.pem"', 'dkim.keys has the selector "News", which must be made of small letters'),
        ('a.b = "key.pem"', "dkim.keys.a must be a selector in quotes, because of its dots"),
    ],
)
def test_a_wrong_selector_is_named(project: Path, line: str, message: str) -> None:
    (project / "key.pem").touch(0o600)
    assert told(project, toml(f"[dkim.keys]\n{line}")).startswith(f"newsletter.toml:8: {message}")


@pytest.mark.parametrize(
    "pasted", ['"MC4CAQAwBQYDK2VwBCIEIJ1h"', '"""-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1h\n"""']
)
def test_a_key_that_was_pasted_where_its_file_belongs_is_never_shown(project: Path, pasted: str) -> None:
    message = told(project, toml(f"[dkim.keys]\na = {pasted}"))
    assert message.startswith("newsletter.toml:9: dkim.keys.a must be")
    assert "MC4C" not in message


def test_keys_are_found_wherever_the_program_is_started(project: Path) -> None:
    (project / "key.pem").touch(0o600)
    found = settings(project, toml('[dkim.keys]\n"a.2027" = "key.pem"'))
    assert found.dkim.keys == {"a.2027": str(project / "key.pem")}
    assert {each.key: each.value for each in found.describe()}["dkim.keys"] == [
        f"a.2027 = {project / 'key.pem'}"
    ]
    assert found.warnings == ()
    (project / "key.pem").chmod(0o644)
    assert "chmod 600" in load(project, {}).warnings[0]


@pytest.mark.parametrize("key", NEWSLETTER)
def test_a_missing_key_is_told_with_the_line_to_add(project: Path, key: str) -> None:
    message = told(project, toml(**{key: None}))
    assert message.startswith(
        f"newsletter.toml:1: newsletter.{key} is missing. Add under [newsletter]: {key} = "
    )


def test_without_the_section_it_says_which_one_to_add(project: Path) -> None:
    assert "newsletter is missing. Add a line [newsletter]" in told(project, "")
    assert "newsletter must be a section of its own" in told(project, 'newsletter = "x"')


def test_all_problems_of_all_files_come_at_once(project: Path) -> None:
    dotenv(project, "what is this\nNEWSLETTER_ADDRESS_KEY=short\n")
    text = toml('[sending]\nmode = "on"\nconnections = 0\nrat = "1/s"\n[smtp]\npassword = "pw"', name=None)
    lines = told(project, text, NEWSLETTER_SECRET_KEYS="nonsense").splitlines()
    assert lines[0] == "The configuration has 8 problems:"
    places = [line.split()[0] for line in lines[1:9]]
    assert places == [
        "newsletter.toml:1:",
        "newsletter.toml:8:",
        "newsletter.toml:9:",
        "newsletter.toml:10:",
        "newsletter.toml:12:",
        ".env:1:",
        ".env:2:",
        "environment:",
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[newsletter\nname = 1", "newsletter.toml:1: "),
        (b'[newsletter]\nname = "a"\nname = "b"\n', "newsletter.toml:3: "),
        ("[newsletter]\nname = 'Müller'".encode("latin-1"), "not UTF-8"),
    ],
)
def test_a_file_that_is_no_toml_is_told_with_its_line(project: Path, content: bytes, words: str) -> None:
    (project / "newsletter.toml").write_bytes(content)
    assert words in told(project)


def test_a_base_url_of_the_longest_kind_keeps_the_unsubscribe_header_in_one_line(project: Path) -> None:
    longest = "https://" + "a" * (LONGEST_BASE_URL - len("https://.org")) + ".org"
    base = settings(project, toml(base_url=longest)).newsletter.base_url
    token = tokens.make(tokens.Purpose.UNSUBSCRIBE, 1, tokens.Keyring.parse(f"1:{KEY}"))
    assert len(f"<{base}/u/{token}>") == 76


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(),
    st.lists(st.text(max_size=5) | st.integers(), max_size=3),
    st.dictionaries(st.sampled_from(["mode", "url", "name"]), st.text(max_size=3), max_size=2),
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(paths()), VALUES, min_size=1, max_size=6))
def test_whatever_stands_in_the_file_no_library_jargon_reaches_a_person(values: dict[str, object]) -> None:
    data: dict[str, Any] = {}
    for path, value in values.items():
        *sections, key = path.split(".")
        table = data
        for name in sections:
            table = table.setdefault(name, {})
        table[key] = value
    try:
        Sections.model_validate(data, context={"project": Path()})
    except ValidationError as error:
        for problem in explain(error, "", Sections):
            assert not re.search(r"Input|pydantic|\[type|validat|_error|tuple|Field", str(problem)), problem


# Secrets


def test_the_environment_wins_over_the_file_and_an_empty_variable_is_not_set(project: Path) -> None:
    dotenv(project, "SMTP_PASSWORD=from-file\nSENDGRID_API_KEY=SG.from-file\n")
    found = settings(project, SMTP_PASSWORD="from-environ", SENDGRID_API_KEY="")
    assert found.smtp_password.get_secret_value() == "from-environ"
    assert found.sendgrid_api_key.get_secret_value() == "SG.from-file"
    assert found.origins["SMTP_PASSWORD"] == "environment"
    assert found.origins["SENDGRID_API_KEY"] == ".env"
    assert found.origins["DATABASE_URL"] == "default"


def test_the_origin_of_every_setting_is_known(project: Path) -> None:
    found = settings(project, toml('[theme.light]\naccent = "#123456"'))
    assert found.origins["newsletter.from"] == "newsletter.toml"
    assert found.origins["newsletter.full_name"] == "default"
    assert found.origins["theme.light.accent"] == "newsletter.toml"
    assert found.origins["theme.dark.accent"] == "default"
    assert set(found.origins) == {each.key for each in found.describe()}


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("SMTP_PASSWORD=plain", "plain"),
        ("  SMTP_PASSWORD = spaced out  ", "spaced out"),
        ('SMTP_PASSWORD="in quotes # no comment"  # comment', "in quotes # no comment"),
        ("SMTP_PASSWORD='$HOME \"x\"'", '$HOME "x"'),
        ("SMTP_PASSWORD=a#b # comment", "a#b"),
        ("SMTP_PASSWORD=${HOME}=x==", "${HOME}=x=="),
        ("SMTP_PASSWORD=ends'in\"quotes'", "ends'in\"quotes'"),
        ("SMTP_PASSWORD= # nothing", ""),
        ('SMTP_PASSWORD=""', ""),
        ("# SMTP_PASSWORD=no", ""),
    ],
)
def test_lines_of_the_env_file(project: Path, line: str, value: str) -> None:
    dotenv(project, f"\ufeff# the secrets\n\n{line}\r\nOTHER_PROGRAM='x'\n")
    assert settings(project).smtp_password.get_secret_value() == value


@pytest.mark.parametrize(
    "line",
    [
        "hunter2hunter2",
        "export SMTP_PASSWORD=hunter2hunter2",
        'SMTP_PASSWORD="hunter2hunter2',
        "=hunter2hunter2",
    ],
)
def test_a_line_that_can_not_be_read_is_named_but_never_shown(project: Path, line: str) -> None:
    dotenv(project, f"# first\n{line}\n")
    message = told(project)
    assert message.startswith(".env:2: is not a line like KEY=value")
    assert "hunter2" not in message


def test_a_secret_given_twice_is_refused(project: Path) -> None:
    dotenv(project, "SMTP_PASSWORD=hunter2\nSMTP_PASSWORD=hunter3\n")
    message = told(project)
    assert message.startswith(".env:2: sets SMTP_PASSWORD for the second time")
    assert "hunter" not in message


@pytest.mark.parametrize(
    ("line", "variable"),
    [
        ('[smtp]\npassword = "hunter2"', "SMTP_PASSWORD"),
        ('[smtp]\nSMTP_PASSWORD = "hunter2"', "SMTP_PASSWORD"),
        ('[sendgrid]\napi_key = "hunter2"', "SENDGRID_API_KEY"),
        ('[sendgrid]\nurl = "SG.hunter2"', "SENDGRID_API_KEY"),
        ('secret_keys = "1:hunter2"', "NEWSLETTER_SECRET_KEYS"),
        ('[keys]\nNEWSLETTER_ADDRESS_KEY = "hunter2"', "NEWSLETTER_ADDRESS_KEY"),
        ('[sending]\ndatabase_url = "postgresql://a:hunter2@b/c"', "DATABASE_URL"),
    ],
)
def test_a_secret_in_newsletter_toml_is_refused_and_not_shown(
    project: Path, line: str, variable: str
) -> None:
    message = told(project, toml(line))
    number = 8 + line.count("\n")
    assert re.search(rf"newsletter\.toml:{number}: \S+ is a secret.*as {variable}=…", message), message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("NEWSLETTER_SECRET_KEYS", "hunter2hunter2"),
        ("NEWSLETTER_SECRET_KEYS", "1:hunter2"),
        ("NEWSLETTER_ADDRESS_KEY", "hunter2"),
        ("NEWSLETTER_ADDRESS_KEY", "hunter2 hunter2 hunter2 hunter2 hunter2 hunter2 hunter2"),
        ("SMTP_PASSWORD", "hunter2\r\nhunter2"),
        ("SENDGRID_API_KEY", "hunter2\x00"),
    ],
)
def test_a_secret_of_the_wrong_form_is_named_and_not_shown(project: Path, variable: str, value: str) -> None:
    message = told(project, **{variable: value})
    assert message.startswith(f"environment: {variable} ")
    assert "hunter2" not in message


def test_no_part_of_a_secret_is_ever_printed(project: Path) -> None:
    found = settings(project, **SECRETS)
    printed = f"{found!r} {found} {list(found.describe())} {found.smtp_password!r}"
    for value in [*SECRETS.values(), KEY[:8], "open-sesame", "battery", "quite"]:
        assert value not in printed
    shown = {each.key: each.value for each in found.describe()}
    assert re.fullmatch(r"set \(fingerprint [0-9a-f]{8}\)", str(shown["NEWSLETTER_ADDRESS_KEY"]))
    assert shown["SMTP_PASSWORD"] == shown["DATABASE_URL"] == "set"
    assert found.address_key == b"01234567890123456789012345678901"
    assert found.secret_keys == f"1:{KEY}"


def test_missing_keys_matter_only_when_they_are_needed(project: Path) -> None:
    found = settings(project, NEWSLETTER_SECRET_KEYS=f"1:{KEY}")
    with pytest.raises(ConfigError, match=r"^NEWSLETTER_ADDRESS_KEY is not set") as error:
        found.require_keys()
    assert "newsletter init --keys" in error.value.hint
    with pytest.raises(ConfigError, match=r"^NEWSLETTER_SECRET_KEYS and NEWSLETTER_ADDRESS_KEY are not set"):
        settings(project).require_keys()
    with pytest.raises(ConfigError, match=r"^SENDGRID_API_KEY is not set"):
        found.require("SENDGRID_API_KEY")
    settings(project, **SECRETS).require_keys()


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such modes")
def test_an_env_file_that_others_can_read_is_a_warning(project: Path) -> None:
    dotenv(project, "SMTP_PASSWORD=x\n", mode=0o640)
    assert "chmod 600" in settings(project).warnings[0]
    dotenv(project, "SMTP_PASSWORD=x\n", mode=0o600)
    assert settings(project).warnings == ()


# Making keys


def test_made_keys_can_be_used_and_stay_what_they_are(project: Path) -> None:
    assert add_keys(project, {}) == ["NEWSLETTER_SECRET_KEYS", "NEWSLETTER_ADDRESS_KEY"]
    before = (project / ".env").read_bytes()
    found = settings(project)
    found.require_keys()
    assert len(found.address_key) == 32
    assert stat.S_IMODE((project / ".env").stat().st_mode) == 0o600 or os.name != "posix"
    assert add_keys(project, {}) == []
    assert (project / ".env").read_bytes() == before


def test_only_what_is_missing_is_written_and_every_other_line_stays(project: Path) -> None:
    dotenv(project, f"# mine\nOTHER='x'\nNEWSLETTER_SECRET_KEYS=\nNEWSLETTER_ADDRESS_KEY={KEY}", mode=0o644)
    assert add_keys(project, {}) == ["NEWSLETTER_SECRET_KEYS"]
    lines = (project / ".env").read_text().splitlines()
    assert (lines[0], lines[1], lines[3], len(lines)) == (
        "# mine",
        "OTHER='x'",
        f"NEWSLETTER_ADDRESS_KEY={KEY}",
        4,
    )
    assert re.fullmatch(r"NEWSLETTER_SECRET_KEYS=1:[\w-]{43}", lines[2])
    assert settings(project).warnings == ()


def test_keys_of_the_environment_are_not_made_again(project: Path) -> None:
    assert add_keys(project, SECRETS) == []
    assert not (project / ".env").exists()


def test_an_env_file_that_can_not_be_read_is_left_alone(project: Path) -> None:
    dotenv(project, "nonsense\n")
    with pytest.raises(ConfigError, match=r"\.env:1"):
        add_keys(project, {})
    assert (project / ".env").read_text() == "nonsense\n"


def test_the_example_file_names_every_secret_and_holds_none(project: Path) -> None:
    example = Path(__file__).parents[1] / ".env.example"
    dotenv(project, example.read_text(encoding="utf-8"))
    assert {each.value for each in settings(project).describe() if each.key in SECRETS} >= {"not set"}
    assert all(f"\n{name}=\n" in example.read_text(encoding="utf-8") for name in SECRETS)
    assert len(add_keys(project, {})) == 2
    settings(project).require_keys()

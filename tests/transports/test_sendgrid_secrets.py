"""Whatever goes wrong, the API key and the readers' addresses are in no log, no output, no error and no repr."""

from __future__ import annotations

import contextlib
import http.client
import logging
import threading
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from newsletter.transports.sendgrid import SendGridSettings, SendGridTransport
from newsletter.transports.sendgrid_http import (
    GuardedClient,
    KeptConnection,
    NoAnswer,
    NotSent,
    Secret,
    client,
)
from newsletter.transports.sendgrid_payload import Copy, Payload
from tests.support.copies import Report, hand_over, people, wire
from tests.support.sendgrid_server import KEY, Cut, Fault, Say, butcher, errors, sendgrid_server
from tests.support.smtp_server import HOST, closed_port, make_certificate, server_context, smtp_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ADDRESS = "example.net"
ECHO = f"You sent: Authorization: Bearer {KEY}, and you wrote to reader1@{ADDRESS}"


@pytest.fixture(autouse=True)
def _everything_is_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """As loud as an application can make it."""
    caplog.set_level(logging.DEBUG)
    for name in ("python_http_client", "python_http_client.client", "sendgrid", "urllib3", "http.client"):
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "level", logging.DEBUG)
        monkeypatch.setattr(logger, "disabled", False)
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 9)
    monkeypatch.setattr(http.client.HTTPResponse, "debuglevel", 9, raising=False)


def answers(*acts: Say | Fault, count: int = 2) -> Callable[[Path], Report]:
    """A run against a server that does this."""

    def run(_folder: Path) -> Report:
        with sendgrid_server(*acts) as server:
            settings = SendGridSettings(KEY, url=server.url, batch=2, timeout=0.5)
            return hand_over(SendGridTransport(settings), people(count))

    return run


def at(url: str, key: str = KEY) -> Callable[[Path], Report]:
    """A run against an address."""
    return lambda _folder: hand_over(SendGridTransport(SendGridSettings(key, url=url, timeout=5)), people(2))


def untrusted(folder: Path) -> Report:
    with smtp_server(tls=server_context(*make_certificate(folder))) as mailbox:
        return at(f"https://localhost:{mailbox.port}")(folder)


CASES: dict[str, Callable[[Path], Report]] = {
    "accepted": answers(Say(202, ECHO)),
    "person": answers(Say(400, errors(("personalizations.0.to", ECHO)))),
    "nobody": answers(*[Say(400, errors(("", ECHO)))] * 3),
    "sender": answers(Say(400, errors(("from.email", ECHO)))),
    "key": answers(Say(401, errors(("", ECHO)))),
    "permission": answers(Say(403, errors(("", ECHO)))),
    "size": answers(*[Say(413, ECHO)] * 3),
    "slow down": answers(Say(429, errors(("", ECHO)))),
    "redirect": answers(Say(302, ECHO, {"Location": f"http://{HOST}:1/"})),
    "sandbox": answers(Say(200, ECHO)),
    "outage": answers(Say(503, ECHO), Say(503, ECHO), count=4),
    "cut": answers(Fault("cut"), Fault("cut"), count=4),
    "half": answers(Fault("half"), Fault("half"), count=4),
    "noise": answers(Fault("noise"), Fault("noise"), count=4),
    "silence": answers(Fault("hang"), Fault("drip"), count=4),
    "nobody there": at(f"http://{HOST}:{closed_port()}"),
    "no such host": at("https://nowhere.invalid"),
    "certificate": untrusted,
    "in the clear": at("http://192.0.2.1"),
    "pasted with a space": at("https://192.0.2.1", f"{KEY} "),
    "pasted with a line": at("https://192.0.2.1", f"{KEY}\n"),
}


@pytest.mark.parametrize("case", CASES)
def test_no_failure_shows_the_key_or_a_reader(
    case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    report = CASES[case](tmp_path)
    said = [repr(report), *(str(outcome) for outcome in report.outcomes.values())]
    said += ["".join(traceback.format_exception(error)) for error in report.errors]
    seen = "\n".join([caplog.text, *capfd.readouterr(), *said])
    assert KEY not in seen
    assert ADDRESS not in seen
    assert not [record for record in caplog.records if record.name.startswith("python_http_client")]
    assert KEY not in "".join(with_locals(error) for error in report.errors)


def with_locals(error: BaseException) -> str:
    """The longest traceback there is: with every local variable, and all that led to it."""
    shown = traceback.TracebackException.from_exception(error, capture_locals=True, compact=False)
    return "".join(shown.format())


@contextlib.contextmanager
def mail_send(url: str, timeout: float = 0.5) -> Iterator[GuardedClient]:
    """The package's client for this address, and in the end no connection of it."""
    with contextlib.closing(KeptConnection(url, timeout)) as connection:
        yield client(Secret(KEY), url, connection).mail.send


@pytest.mark.parametrize("act", [Fault("cut"), Fault("half"), Fault("noise"), Fault("hang"), Say(202, ECHO)])
def test_even_inside_the_client_a_traceback_with_locals_does_not_show_the_key(act: Say | Fault) -> None:
    payload = Payload(wire())
    with (
        sendgrid_server(act) as server,
        mail_send(server.url) as posting,
        contextlib.suppress(NoAnswer),
    ):
        try:
            posting.post(payload.request([payload.copy(one) for one in people(2)]))
        except NoAnswer as error:
            shown = with_locals(error)
            assert "_connection.post(" in shown
            assert KEY not in shown
            assert ADDRESS not in shown
            raise


def test_nor_does_one_from_amid_a_request_that_nobody_reads() -> None:
    over = threading.Event()
    payload = Payload(wire(text="x" * 8_000_000 + " @@unsubscribe_url@@"))
    with butcher() as server:
        server.cuts.put(Cut(100, after=over))
        with mail_send(server.url, 0.3) as posting, pytest.raises(NoAnswer) as caught:
            posting.post(payload.request([payload.copy(people(1)[0])]))
        over.set()
    shown = with_locals(caught.value)
    assert KEY not in shown
    assert ADDRESS not in shown


def test_nor_does_one_from_before_the_connection() -> None:
    with mail_send(f"http://{HOST}:{closed_port()}", 5) as posting, pytest.raises(NotSent) as caught:
        posting.post(memoryview(b"{}"))
    assert KEY not in with_locals(caught.value)


def test_no_request_leaves_by_the_way_of_the_package() -> None:
    with sendgrid_server() as server, mail_send(server.url) as posting:
        for method in ("get", "put", "patch", "delete"):
            with pytest.raises(NotImplementedError):
                getattr(posting, method)(request_body={})
        assert server.connections == 0


def attributes(thing: Any, depth: int = 6) -> Iterator[str]:
    """The repr of everything in it."""
    yield repr(thing)
    if depth and isinstance(thing, (dict, list, tuple)):
        for one in thing.values() if isinstance(thing, dict) else thing:
            yield from attributes(one, depth - 1)
    elif depth and (known := getattr(thing, "__dict__", None)) and not isinstance(thing, type):
        yield from attributes(dict(known), depth - 1)


def test_no_repr_shows_the_key_or_a_reader() -> None:
    settings = SendGridSettings(KEY)
    shown = [*attributes(settings), *attributes(SendGridTransport(settings))]
    with sendgrid_server() as server, mail_send(server.url) as posting:
        body = Payload(wire()).request([Payload(wire()).copy(one) for one in people(1)])
        assert posting.post(body).status == 202
        shown += [*attributes(posting), repr(body)]
    assert KEY not in "".join(shown)
    assert ADDRESS not in "".join(shown)
    copy = Payload(wire()).copy(people(1)[0])
    assert isinstance(copy, Copy)
    assert ADDRESS not in repr(copy)
    assert "/u/" not in repr(copy)


def test_a_secret_is_its_text_to_who_uses_it() -> None:
    secret = Secret("word")
    assert (secret, f"{secret}", repr(secret)) == ("word", "word", "'…'")


def test_neither_the_environment_nor_a_netrc_file_changes_what_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    with sendgrid_server() as proxy, sendgrid_server() as server:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        monkeypatch.setenv("SENDGRID_API_KEY", "SG.another")
        for name in ("http_proxy", "https_proxy", "all_proxy", "ftp_proxy"):
            monkeypatch.setenv(name, proxy.url)
            monkeypatch.setenv(name.upper(), proxy.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, "nothing.example")
        report = hand_over(SendGridTransport(SendGridSettings(KEY, url=server.url)), people(1))
    assert report.kinds() == {1: "Accepted"}
    assert server.authorizations == [f"Bearer {KEY}"]
    assert proxy.requests == []


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 305, 307, 308])
@pytest.mark.parametrize("where", ["/v3/mail/send", "//{host}/v3/mail/send", "http://{host}/"])
def test_no_redirect_is_followed(status: int, where: str) -> None:
    with sendgrid_server() as elsewhere:
        location = where.format(host=f"{HOST}:{elsewhere.server_port}")
        with sendgrid_server(Say(status, "", {"Location": location})) as server:
            report = hand_over(SendGridTransport(SendGridSettings(KEY, url=server.url, timeout=5)), people(2))
    assert (len(server.requests), elsewhere.requests, elsewhere.authorizations) == (1, [], [])
    assert set(report.kinds().values()) == {"NotTaken"}
    assert f"SendGrid answered {status}" in str(report.error)

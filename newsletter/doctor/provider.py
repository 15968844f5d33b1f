"""Whether the way out is open: connects as a send would, and leaves before a mail begins."""

from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING

from newsletter.doctor.http import NoAnswer, ask, certificate, expiry
from newsletter.doctor.report import error, ok, warning
from newsletter.transports import smtp_session
from newsletter.transports.answers import words

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from newsletter.doctor.http import Lookup
    from newsletter.doctor.report import Result
    from newsletter.transports.smtp_session import SmtpSettings

SMTP, SENDGRID = "mail server", "SendGrid"
NEEDED = "mail.send"
REPLACE = "Make a key whose only permission is Mail Send, and put it into SENDGRID_API_KEY."


def look_at_smtp(settings: SmtpSettings, now: datetime) -> Iterator[Result]:
    """EHLO, TLS and login as configured, then QUIT. Raises ``TransportError`` for what stands in the way."""
    session = smtp_session.connect(settings)
    try:
        where = f"{settings.host}:{settings.port}"
        login = f" and lets {settings.username} in" if settings.username else ""
        if isinstance(session.sock, ssl.SSLSocket):
            yield ok(SMTP, f"{where} speaks {session.sock.version()}{login}.")
            yield certificate(SMTP, expiry(session.sock), now)
        else:
            yield _plain(settings, where)
    finally:
        session.leave()


def _plain(settings: SmtpSettings, where: str) -> Result:
    if settings.host in {"127.0.0.1", "::1", "localhost"}:
        return ok(SMTP, f"{where} answers, without TLS: it is this machine.")
    hint = 'Set [smtp] security = "starttls", or "tls".'
    return warning(SMTP, f"{where} answers, and mails travel there in clear text.", hint)


def look_at_sendgrid(url: str, api_key: str, lookup: Lookup) -> Iterator[Result]:
    """What the key may do: the API says so without sending anything."""
    try:
        answer = ask("GET", f"{url}/v3/scopes", lookup, headers={"Authorization": f"Bearer {api_key}"})
    except NoAnswer as why:
        yield error(
            SENDGRID, f"{url} can't be reached: {why}.", "Is the network up, and [sendgrid] url right?"
        )
        return
    if answer.status in {401, 403}:
        yield error(SENDGRID, f"the key is not taken ({answer.status}).", REPLACE)
        return
    try:
        scopes = set(json.loads(answer.body)["scopes"])
    except (ValueError, KeyError, TypeError):
        yield error(
            SENDGRID, f"{url} answers {answer.status}, and not with a list of permissions.", "Try later."
        )
        return
    yield _scopes(scopes)


def _scopes(scopes: set[str]) -> Result:
    """Names without a dot are facts about the account, which every key has; those below mail. belong to sending."""
    if NEEDED not in scopes:
        return error(SENDGRID, "the key may not send mail.", REPLACE)
    more = sorted(scope for scope in scopes if "." in scope and not scope.startswith("mail."))
    if more:
        said = f"the key may send, and do {len(more)} other things, such as {words(more[0])}."
        return warning(SENDGRID, said, REPLACE)
    return ok(SENDGRID, "the key may send mail, and nothing else.")

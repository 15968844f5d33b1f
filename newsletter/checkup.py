"""Settings → what `newsletter doctor` looks at. Part of ``wiring``, kept apart because only that command needs it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from newsletter import limits, schedule, wiring
from newsletter.doctor import database, dkim, dmarc, machine, pages, provider, received, spf
from newsletter.doctor.http import system_lookup
from newsletter.doctor.names import Names
from newsletter.doctor.report import Check, ok, unseen, warning
from newsletter.store import instance
from newsletter.store.engine import read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from sqlalchemy import Engine

    from newsletter.config import Settings
    from newsletter.doctor.http import Lookup
    from newsletter.doctor.report import Result

SECONDS = 15.0  # for all checks together
STEP_SECONDS = 3.0  # for a step of the conversation with the mail server
OFFLINE = "it needs the network."


@dataclass(frozen=True, slots=True)
class Asked:
    """How far to look. ``nameserver``: in place of the system's, ``192.0.2.53`` or ``192.0.2.53:5353``."""

    seed: Path | None = None
    nameserver: str = ""
    offline: bool = False


def checks(
    settings: Settings, asked: Asked, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> list[Check]:
    """Everything there is to look at. Raises ``UsageError`` for a nameserver that is none."""
    names = Names(asked.nameserver)
    near = [
        Check("configuration", partial(_configuration, settings)),
        Check("keys", partial(_keys, settings)),
        Check("sending", partial(_sending, settings)),
        Check("schedule", partial(_schedule, settings, clock)),
        Check(database.NAME, partial(_database, settings, clock)),
        Check(
            machine.DISK, partial(machine.look_at_disk, settings.state_dir, wiring.database_file(settings))
        ),
        Check(machine.FILES, partial(machine.look_at_files, settings.state_dir)),
    ]
    far = [
        Check("provider", partial(_provider, settings, clock)),
        Check(spf.NAME, partial(_spf, settings, names)),
        Check(dkim.NAME, partial(_dkim, settings, names)),
        Check(dmarc.NAME, partial(dmarc.look, names, _sender(settings))),
        Check(dmarc.REPLIES, partial(dmarc.look_for_mailboxes, names, _mailboxes(settings))),
        *_pages(settings, names.addresses if asked.nameserver else system_lookup, clock),
    ]
    if asked.offline:
        far = [Check(check.name, partial(_offline, check.name)) for check in far]
    return [*near, *far, _received(settings, asked, names)]


def _offline(name: str) -> Iterator[Result]:
    yield unseen(name, OFFLINE)


# --- what the settings say -----------------------------------------------------------------------------------------


def _configuration(settings: Settings) -> Iterator[Result]:
    yield ok("configuration", f"{settings.project} can be read.")
    for said in settings.warnings:
        what, _, hint = said.partition(" Mend it with: ")
        yield warning("configuration", what, hint)
    count = len(settings.newsletter.editors)
    default = settings.origins["newsletter.editors"] == "default"
    whose = "whoever reads reply_to" if default else f"{count} address{'' if count == 1 else 'es'}"
    yield ok("editors", f"{whose} will be told when something needs a person.")


def _keys(settings: Settings) -> Iterator[Result]:
    """Raises ConfigError, which is a result too."""
    settings.require_keys()
    yield ok("keys", f"signing key {wiring.keyring(settings).signing} and the address key are set.")


def _sending(settings: Settings) -> Iterator[Result]:
    sending = settings.sending
    if sending.transport == "sendgrid":
        settings.require("SENDGRID_API_KEY")
    if sending.transport == "smtp" and settings.smtp.username:
        settings.require("SMTP_PASSWORD")
    if sending.transport == "folder":
        yield warning("sending", "the transport is a folder: nothing reaches anybody.", _go_live("smtp"))
    elif sending.mode != "live":
        yield warning(
            "sending",
            f"the mode is {sending.mode}: an issue reaches {_reach(settings)}.",
            _go_live(sending.transport),
        )
    else:
        yield ok("sending", f"the mode is live, through {sending.transport}.")


def _reach(settings: Settings) -> str:
    return "nobody" if settings.sending.mode == "off" else "the allowlist only"


def _go_live(transport: str) -> str:
    return wiring.GO_LIVE.format(mode="live", transport=transport)


def _schedule(settings: Settings, clock: Callable[[], datetime]) -> Iterator[Result]:
    known = settings.schedule
    if known.send is None:
        yield unseen("schedule", "none is set: issues leave when you send them.")
        return
    found = next(schedule.occurrences(known.send, known.timezone, clock()))
    local = found.at.astimezone(known.timezone)
    yield ok(
        "schedule",
        f"next: {local:%A} {local.day} {local:%B %Y %H:%M} {known.timezone}, period {found.period}.",
    )


# --- this machine --------------------------------------------------------------------------------------------------


def _database(settings: Settings, clock: Callable[[], datetime]) -> Iterator[Result]:
    settings.require_keys()
    return database.look(
        settings.database_url,
        wiring.keyring(settings).keys,
        settings.address_key,
        clock,
        partial(_stranger, settings),
    )


def _stranger(settings: Settings, engine: Engine) -> str:
    """Why the database is not at home here; empty if it is."""
    return instance.look(engine, read(engine, partial(wiring.home, settings)))[0]


# --- the way out ---------------------------------------------------------------------------------------------------


def _provider(settings: Settings, clock: Callable[[], datetime]) -> Iterator[Result]:
    match settings.sending.transport:
        case "smtp":
            known = wiring.smtp_settings(settings)
            return provider.look_at_smtp(replace(known, timeout=min(STEP_SECONDS, known.timeout)), clock())
        case "sendgrid":
            key = settings.sendgrid_api_key.get_secret_value()
            return provider.look_at_sendgrid(settings.sendgrid.url, key, system_lookup)
    return iter([unseen("provider", "copies go into a folder.")])


# --- what the DNS says ---------------------------------------------------------------------------------------------


def _sender(settings: Settings) -> dmarc.Sender:
    shown = limits.domain_of(settings.newsletter.from_)
    through = settings.sending.transport
    return dmarc.Sender(
        shown=shown,
        envelope=_envelope(settings) if through != "sendgrid" else "",
        signing=wiring.dkim_domain(settings) if settings.dkim.keys and through != "sendgrid" else "",
    )


def _envelope(settings: Settings) -> str:
    return limits.domain_of(settings.smtp.envelope_from or settings.newsletter.from_)


def _spf(settings: Settings, names: Names) -> Iterator[Result]:
    if settings.sending.transport == "sendgrid":
        said = "SendGrid's envelopes have a domain that it makes for you, and its record with it."
        return iter([unseen(spf.NAME, said)])
    return spf.look(names, _envelope(settings))


def _dkim(settings: Settings, names: Names) -> Iterator[Result]:
    if settings.sending.transport == "sendgrid":
        return dkim.look_for_sendgrid(names, limits.domain_of(settings.newsletter.from_))
    if not settings.dkim.keys:
        return dkim.look_nowhere()
    return dkim.look(names, wiring.dkim_records(settings))


def _mailboxes(settings: Settings) -> Mapping[str, str]:
    known = settings.newsletter
    return {limits.domain_of(known.from_): "from", limits.domain_of(known.reply_to): "reply_to"}


# --- what readers see ----------------------------------------------------------------------------------------------


def _pages(settings: Settings, lookup: Lookup, clock: Callable[[], datetime]) -> list[Check]:
    base_url = settings.newsletter.base_url
    return [
        Check(pages.PAGES, lambda: pages.look(base_url, _nobodys_link(settings), lookup, clock)),
        Check(pages.HTTP, partial(pages.look_for_plain_http, base_url, lookup)),
    ]


def _nobodys_link(settings: Settings) -> str:
    """Signed like all others; no subscription has the number 0. Raises ConfigError without keys."""
    settings.require_keys()
    return wiring.signer(settings)(0)["unsubscribe_url"]


def _received(settings: Settings, asked: Asked, names: Names) -> Check:
    if asked.seed is None:
        return Check(received.NAME, received.look_nowhere)
    known = None if asked.offline else names
    return Check(received.NAME, partial(received.look, asked.seed, settings.newsletter.base_url, known))

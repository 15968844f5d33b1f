"""Settings → the things that do the work. The only place that builds any.

Everything below gets what it needs as values; nothing below reads configuration or the environment. Imports stand
inside the functions: `build` and `check` must not load the database, and `--help` nothing at all.
"""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from newsletter.errors import ConfigError, Refused
from newsletter.message import MessageSettings
from newsletter.model import Kind, LetterState, Picture, Publication

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection, Engine

    from newsletter.appointments import Rules, Tell
    from newsletter.approval import Presented
    from newsletter.config import Settings
    from newsletter.letters import ClosedOffice, LetterKind, Office
    from newsletter.limits import Canary, Limits
    from newsletter.message import NoticeWire, Wire, Wires
    from newsletter.model import Appointment, Edition, Email, Finding, Issue
    from newsletter.notices import ClosedPost, Editors, Post
    from newsletter.personal_data import Erased
    from newsletter.render import Theme
    from newsletter.seals import Seal
    from newsletter.store.group import Group
    from newsletter.store.instance import Home
    from newsletter.store.notices import Notice
    from newsletter.texts import Texts
    from newsletter.tokens import Keyring
    from newsletter.transports.base import Transport
    from newsletter.transports.dkim import Signer
    from newsletter.transports.dkim_keys import PrivateKey
    from newsletter.transports.smtp_session import SmtpSettings

# --- content and email ---------------------------------------------------------------------------------------------


def publication(settings: Settings) -> Publication:
    """What templates and checks may know about the publisher."""
    known = settings.newsletter
    return Publication(
        name=known.name,
        full_name=known.full_name,
        base_url=known.base_url,
        postal_address=known.postal_address,
        reply_to=known.reply_to,
        language=known.language,
    )


def texts(settings: Settings) -> Texts:
    """The fixed words in the publication's language."""
    from newsletter.texts import load

    return load(settings.newsletter.language)


def theme(settings: Settings) -> Theme:
    """Colours, fonts and the logo; what newsletter.toml leaves out is ours."""
    from newsletter.render import Theme
    from newsletter.render.theme import DARK, LIGHT

    known = settings.theme
    given = known.model_dump(include={"heading_font", "body_font"}, exclude_none=True)
    return Theme(
        light=replace(LIGHT, **known.light.model_dump(exclude_none=True)),
        dark=replace(DARK, **known.dark.model_dump(exclude_none=True)),
        logo=_logo(settings) if known.logo else None,
        **given,
    )


def _logo(settings: Settings) -> Picture:
    from newsletter import pictures
    from newsletter.content.picture import LARGEST_PICTURE

    name = settings.theme.logo
    path = (settings.project / name).resolve()
    if not path.is_relative_to(settings.project.resolve()):
        raise ConfigError(
            f"newsletter.toml [theme.logo] leads out of the project: {name}", hint="Copy the file into it."
        )
    try:
        if path.stat().st_size > LARGEST_PICTURE:
            raise ConfigError(f"newsletter.toml [theme.logo] {name} has more than {LARGEST_PICTURE:,} bytes.")
        data = path.read_bytes()
        media_type, width, height = pictures.measure(data)
    except (OSError, ValueError) as error:
        raise ConfigError(f"newsletter.toml [theme.logo] {name} can't be used: {error}") from None
    return Picture(
        name, media_type, data, width, height, settings.theme.logo_alt or settings.newsletter.full_name
    )


def message_settings(settings: Settings, date: datetime) -> MessageSettings:
    """What stands in every copy's headers; frozen with the campaign."""
    return MessageSettings(
        from_name=settings.newsletter.name,
        from_address=settings.newsletter.from_,
        reply_to=settings.newsletter.reply_to,
        list_id=settings.newsletter.list_id,
        base_url=settings.newsletter.base_url,
        unsubscribe_mailto=settings.unsubscribe.mailto,
        envelope_from=settings.smtp.envelope_from,
        images_url=settings.images.url if settings.images.mode == "hosted" else "",
        date=date,
    )


def compile_issue(settings: Settings, slug: str) -> tuple[Issue, list[Email]]:
    """An issue folder → the issue and what readers will get of it: every edition, the standard one first."""
    from newsletter.content import load
    from newsletter.render import render_editions

    embed = settings.images.mode == "embed"
    issue = load(settings.project, slug, fields=settings.newsletter.fields, embed=embed)
    editions = render_editions(
        issue,
        publication=publication(settings),
        theme=theme(settings),
        texts=texts(settings),
        overrides=overrides(settings),
    )
    return issue, editions


def overrides(settings: Settings) -> Path | None:
    """The publisher's own templates, if there are any."""
    folder = settings.project / "templates"
    return folder if os.path.lexists(folder) else None


def wires(editions: Sequence[Email], message: MessageSettings) -> Wires:
    """What makes the copies of all editions. Raises ``ValueError`` as ``Wire`` does."""
    from newsletter.message import Wire, Wires

    return Wires([Wire(edition, message) for edition in editions])


def findings(settings: Settings, issue: Issue, editions: Sequence[Email]) -> list[Finding]:
    """What the checks say of an issue in all its editions, waivers applied."""
    from newsletter import checks

    moment = datetime(issue.date.year, issue.date.month, issue.date.day, tzinfo=UTC)
    return checks.run(
        issue,
        editions[0],
        publication(settings),
        message_settings(settings, moment),
        others=editions[1:],
        discreet_words=settings.newsletter.discreet_words,
        project=settings.project,
    )


# --- approval ------------------------------------------------------------------------------------------------------

IN_EACH_COPY = (
    *("newsletter.name", "newsletter.full_name", "newsletter.from", "newsletter.reply_to"),
    *("newsletter.base_url", "newsletter.postal_address", "newsletter.language", "newsletter.list_id"),
    *("newsletter.fields", "images.mode", "images.url", "unsubscribe.mailto", "smtp.envelope_from"),
)
"""The settings that readers get with every copy. Not the mode, the way out and its speed: people approve before those
are switched on, and whom a copy reaches does not follow from them."""


def seal(settings: Settings, issue: Issue, editions: Sequence[Email], list_name: str) -> Seal:
    """Everything that an approval of these very bytes for this list covers."""
    from newsletter import content, seals
    from newsletter.model import digest

    return {
        "content": seals.of_files(content.files(settings.project, issue)),
        "templates": _sealed_templates(settings),
        "audience": {"list": list_name},
        "sender": {path: seals.of_value(settings.value(path)) for path in IN_EACH_COPY},
        "program": seals.program(),
        "compiled": {"digest": digest(editions)},
    }


def _sealed_templates(settings: Settings) -> dict[str, str]:
    from newsletter import render, seals, texts

    words = texts.file(settings.newsletter.language)
    files = render.template_files(overrides(settings)) | {f"newsletter/texts/{words.name}": words}
    if logo := settings.theme.logo:
        files[logo] = settings.project / logo
    return seals.of_files(files) | {"[theme] in newsletter.toml": seals.of_value(settings.theme.model_dump())}


def presented(settings: Settings, issue: Issue, editions: Sequence[Email], list_name: str) -> Presented:
    """What somebody approves who approves it now."""
    from newsletter import approval, comparing
    from newsletter.model import digest

    sender = f"{settings.newsletter.name} <{settings.newsletter.from_}>"
    return approval.Presented(
        issue=issue.slug,
        list=list_name,
        digest=digest(editions),
        seal=seal(settings, issue, editions, list_name),
        snapshot=comparing.snapshot(issue, editions, sender),
    )


# --- the store -----------------------------------------------------------------------------------------------------


def open_store(settings: Settings) -> Engine:
    """The database, made at first use; refused when the keys are not those it was made with.

    One that is not at home here can be read and not be written: ``store.instance``.
    """
    from newsletter.store import instance
    from newsletter.store.engine import ensure_keys, open_engine, read

    settings.require_keys()
    engine = open_engine(settings.database_url, create=True)
    instance.settle(engine, read(engine, partial(home, settings)))
    ensure_keys(engine, keyring(settings).keys, settings.address_key)
    return engine


def home(settings: Settings, conn: Connection) -> Home:
    """This very place, as a home for the database: the machine and the file, or the server and the database on it.

    NEWSLETTER_INSTANCE stands for the machine, or for the server.
    """
    from newsletter import machine
    from newsletter.store.engine import whereabouts
    from newsletter.store.instance import Home, Witness

    named, here = settings.newsletter_instance, whereabouts(conn)
    key = machine.seal(named or here.server or machine.number(), here.number)
    if here.file is None:
        # Several machines may use it, so one that has seen nothing of it yet is no reason to worry.
        return Home(
            key,
            _called(here.place, named),
            Witness(settings.state_dir / f"generation-{key[:12]}", required=False),
        )
    file = here.file.with_name(f"{here.file.name}.generation")
    return Home(key, _called(here.place, named or socket.gethostname()), Witness(file, required=True))


def _called(place: str, machine: str) -> str:
    return f"{place} on {machine}" if machine else place


def lock_path(settings: Settings) -> Path:
    """Beside the database file, wherever that is: two projects that share one must not send at once.

    PostgreSQL has locks of its own, and the file is never made.
    """
    file = database_file(settings)
    return file.with_name("lock") if file else settings.state_dir / "lock"


def database_file(settings: Settings) -> Path | None:
    """That of SQLite; None with PostgreSQL."""
    from sqlalchemy import make_url

    url = make_url(settings.database_url)
    if url.get_backend_name() != "sqlite":
        return None
    name = url.database or str(settings.state_dir / "newsletter.db")
    return Path(name.removeprefix("file:").partition("?")[0]).resolve()


def keyring(settings: Settings) -> Keyring:
    """The keys that sign links."""
    from newsletter.tokens import Keyring

    try:
        return Keyring.parse(settings.secret_keys)
    except ValueError as error:
        raise ConfigError(
            f"NEWSLETTER_SECRET_KEYS: {error}", hint="It reads `1:KEY` or `2:KEY,1:KEY`."
        ) from None


def signer(settings: Settings) -> Callable[[int], Mapping[str, str]]:
    """Subscription id → the two personal links, as merge values."""
    from newsletter.tokens import Purpose, maker

    ring = keyring(settings)
    base = settings.newsletter.base_url
    unsubscribe, preferences = maker(Purpose.UNSUBSCRIBE, ring), maker(Purpose.PREFERENCES, ring)

    def sign(subscription: int) -> Mapping[str, str]:
        return {
            "unsubscribe_url": f"{base}/u/{unsubscribe(subscription)}",
            "preferences_url": f"{base}/p/{preferences(subscription)}",
        }

    return sign


# --- sending -------------------------------------------------------------------------------------------------------

GO_LIVE = 'In newsletter.toml, under [sending]:\n    mode = "{mode}"\n    transport = "{transport}"'


def kind(settings: Settings) -> Kind:
    """What a campaign sent now would be; refuses when nothing may leave."""
    if settings.sending.transport == "folder":
        return Kind.REHEARSAL
    refuse_when_off(settings)
    return Kind.LIVE if settings.sending.mode == "live" else Kind.REHEARSAL


def rules(settings: Settings) -> Rules:
    """What goes out by itself. Where nothing may leave now, it is a live campaign that is meant."""
    from newsletter.appointments import Rules

    known, sends = settings.schedule, settings.sending
    rehearses = sends.transport == "folder" or sends.mode == "allowlist"
    return Rules(
        schedule=known.send,
        zone=known.timezone,
        max_lateness=known.max_lateness,
        late=known.late,
        remind=known.remind,
        list=settings.newsletter.list,
        kind=Kind.REHEARSAL if rehearses else Kind.LIVE,
    )


def teller(settings: Settings) -> Tell:
    """Tells the editors by mail what needs them about an appointment."""
    from newsletter import content
    from newsletter.appointments import Why

    told, zone = editors(settings), settings.schedule.timezone
    # Read here: what tells is a transaction that others wait for.
    issues = content.by_period(settings.project)

    def tell(
        conn: Connection, event: str, one: Appointment, why: str, now: datetime, about: str = ""
    ) -> bool:
        here = one.due_at.astimezone(zone)
        slug = one.issue_of(issues)
        return told.tell(
            conn,
            f"{event}:{one.id}:{one.due_at:%Y-%m-%dT%H:%M}:{about}",
            event,
            now,
            issue=told.texts.get(f"notice.label.{one.kind}", issue=slug, list=one.list),
            slug=slug,
            list=one.list,
            date=f"{told.texts.date(here.date())}, {here:%H:%M %Z}",
            why=told.texts[f"notice.why.{why.name.lower()}"] if isinstance(why, Why) else why,
        )

    return tell


def refuse_when_off(settings: Settings) -> None:
    """Raises ``Refused`` in mode off, naming the two lines to change; writing to a folder is always allowed."""
    if settings.sending.mode != "off" or settings.sending.transport == "folder":
        return
    raise Refused(
        "sending is switched off, so nothing may leave.",
        hint=GO_LIVE.format(mode="allowlist", transport=settings.sending.transport)
        + '\nand list the addresses that may get it in `allowlist`. `mode = "live"` reaches everyone.',
    )


def only(settings: Settings) -> frozenset[bytes] | None:
    """In allowlist mode the keys of the addresses that may get a copy, else None."""
    from newsletter import addresses

    if settings.sending.mode != "allowlist" or settings.sending.transport == "folder":
        return None
    return frozenset(addresses.key(address, settings.address_key) for address in settings.sending.allowlist)


def limits(settings: Settings) -> Limits:
    """How fast copies may leave; a folder takes them as they come."""
    from newsletter.limits import Limits

    return Limits() if settings.sending.transport == "folder" else settings.sending.limits


def canary(settings: Settings, kind: Kind) -> Canary | None:
    """Which copies leave first, as newsletter.toml has it: of a live campaign, and never of a rehearsal."""
    from newsletter.limits import Canary

    known = settings.sending
    if known.canary is None or kind is not Kind.LIVE:
        return None
    return Canary(known.canary, known.canary_wait)


def transport(settings: Settings, slug: str) -> Transport:
    """The configured way out."""
    makers = {"folder": _folder, "smtp": _smtp, "sendgrid": _sendgrid}
    return makers[settings.sending.transport](settings, slug)


def outboxes(settings: Settings) -> Path:
    """A folder for each issue, one for letters and one for notices."""
    return settings.state_dir / "outbox"


def outbox(settings: Settings, slug: str) -> Path:
    """Where ``folder`` puts copies."""
    return outboxes(settings) / slug


def _folder(settings: Settings, slug: str) -> Transport:
    from newsletter.transports.folder import FolderTransport

    return FolderTransport(outbox(settings, slug))


def _smtp(settings: Settings, _slug: str) -> Transport:
    from newsletter.transports.smtp import SmtpTransport

    return SmtpTransport(smtp_settings(settings), signer=dkim_signer(settings))


def smtp_settings(settings: Settings) -> SmtpSettings:
    """How to reach the mail server. Raises ConfigError if its password is missing."""
    from newsletter.transports.smtp_session import SmtpSettings

    known = settings.smtp
    if known.username:
        settings.require("SMTP_PASSWORD")
    return SmtpSettings(
        host=known.host,
        port=known.port,
        security=known.security,
        username=known.username,
        password=settings.smtp_password.get_secret_value(),
        ca_file=known.ca_file,
        timeout=known.timeout.total_seconds(),
        lanes=settings.sending.connections,
    )


def dkim_signer(settings: Settings) -> Signer | None:
    """Signs copies for SMTP; None without keys. SendGrid and most relays sign themselves."""
    if not settings.dkim.keys:
        return None
    require_cryptography()
    from newsletter.transports.dkim import Signer

    return Signer(dkim_domain(settings), dkim_keys(settings))


def dkim_domain(settings: Settings) -> str:
    """For which signatures vouch."""
    from newsletter.limits import domain_of

    return settings.dkim.domain or domain_of(settings.newsletter.from_)


def dkim_keys(settings: Settings) -> list[tuple[str, PrivateKey]]:
    """The private keys by their selectors. Raises ConfigError with the selector, and nothing of what is in the file."""
    require_cryptography()
    from newsletter.transports import dkim_keys

    found = []
    for selector, file in settings.dkim.keys.items():
        try:
            found.append((selector, dkim_keys.read(Path(file))))
        except (ValueError, OSError) as error:
            why = f"can't be read: {error.strerror}" if isinstance(error, OSError) else str(error)
            raise ConfigError(
                f"newsletter.toml [dkim.keys] {selector}: {file} {why}.",
                hint="Make a key with: newsletter dkim new SELECTOR",
            ) from None
    return found


def dkim_records(settings: Settings) -> Mapping[str, str]:
    """Where in the DNS a record has to stand for each key, and what it has to say. Raises ConfigError."""
    keys, domain = dkim_keys(settings), dkim_domain(settings)
    from newsletter.transports.dkim_keys import record, record_name

    return {record_name(selector, domain): record(key) for selector, key in keys}


def require_cryptography() -> None:
    """Raises ConfigError if DKIM can't work here."""
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise ConfigError(
            "DKIM needs the package cryptography, which is not installed.",
            hint="Run `pip install 'newsletter-press[dkim]'`.",
        ) from None


def _sendgrid(settings: Settings, _slug: str) -> Transport:
    from newsletter.transports.sendgrid import SendGridSettings, SendGridTransport

    settings.require("SENDGRID_API_KEY")
    return SendGridTransport(
        SendGridSettings(
            api_key=settings.sendgrid_api_key.get_secret_value(),
            url=settings.sendgrid.url,
            batch=settings.sendgrid.batch,
            lanes=settings.sending.connections,
        )
    )


def whoami() -> str:
    """How this process names itself to the next one that wants to send."""
    return f"process {os.getpid()} on {socket.gethostname()}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"


# --- mails to the editors ------------------------------------------------------------------------------------------


def editors(settings: Settings) -> Editors:
    """Whom to tell when something needs a person."""
    from newsletter.notices import Editors

    known = settings.newsletter
    return Editors(known.editors, known.name, texts(settings))


def post(settings: Settings, engine: Engine) -> Post | ClosedPost:
    """What sends mails to the editors, through the configured transport and on connections of its own."""
    from newsletter import addresses, notices

    if settings.sending.mode == "off" and settings.sending.transport != "folder":
        return notices.ClosedPost()
    allowlist = only(settings)
    language = texts(settings).language

    def compose(notice: Notice) -> NoticeWire:
        # One date for all tries, so that a second one is the same mail.
        return notices.wire(notice, message_settings(settings, notice.created_at), language)

    def allowed(address: str) -> bool:
        return allowlist is None or addresses.key(address, settings.address_key) in allowlist

    return notices.Post(engine, transport(settings, "notices"), compose, allowed=allowed)


# --- the pages for readers -----------------------------------------------------------------------------------------

CHUNK = 200  # rows in one transaction of the housekeeping


def group(engine: Engine) -> Group:
    """The one writer of a serving process."""
    from newsletter.store.group import Group

    return Group(engine)


def office(settings: Settings, engine: Engine) -> Office | ClosedOffice:
    """What sends letters to readers, through the configured transport and on connections of its own."""
    from newsletter.letters import ClosedOffice, Links, Office

    if settings.sending.mode == "off" and settings.sending.transport != "folder":
        return ClosedOffice()
    links = Links(letter_link(settings), signer(settings))
    return Office(engine, transport(settings, "letters"), letter_wires(settings), links, only=only(settings))


def letter_wires(settings: Settings) -> Callable[[LetterKind, str, Edition, datetime], Wire]:
    """What letters are made of: kind, list, edition, time. Each is compiled when the first like it is asked for."""
    from functools import cache

    from newsletter.message import Wire
    from newsletter.render import render_letter

    @cache
    def compiled(kind: LetterKind, list_name: str, edition: Edition) -> Email:
        return render_letter(
            kind,
            publication=publication(settings),
            theme=theme(settings),
            texts=texts(settings),
            edition=edition,
            list_title=settings.web.lists.get(list_name, ""),
            overrides=overrides(settings),
        )

    # The logo travels inside, also where an issue's pictures are hosted: nothing has put it there for a letter.
    def wire(kind: LetterKind, list_name: str, edition: Edition, now: datetime) -> Wire:
        return Wire(
            compiled(kind, list_name, edition), replace(message_settings(settings, now), images_url="")
        )

    return wire


def letter_link(settings: Settings) -> Callable[[LetterKind, int, datetime], str]:
    """Letter, subscription and when it expires → the one link that the letter is about."""
    from newsletter.letters import LetterKind
    from newsletter.tokens import Purpose, make

    ring, base = keyring(settings), settings.newsletter.base_url
    paths = {
        LetterKind.CONFIRM: ("c", Purpose.CONFIRM),
        LetterKind.ALREADY: ("p", Purpose.PREFERENCES),
        LetterKind.ACCESS: ("a", Purpose.ACCESS),
        LetterKind.CHANGE: ("c", Purpose.CHANGE),
    }

    def link(kind: LetterKind, subscription: int, expires: datetime) -> str:
        path, purpose = paths[kind]
        token = make(purpose, subscription, ring, expires=expires if purpose.expires else None)
        return f"{base}/{path}/{token}"

    return link


def tallies(conn: Connection) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """Letters and subscriptions by state."""
    from newsletter.store import letters, tallies

    found = letters.counts(conn)
    return {state.value: found.get(state, 0) for state in LetterState}, tallies.subscriptions(conn)


def housekeeping(engine: Engine) -> Callable[[], None]:
    """What a serving process does once a minute: pauses end, and what has had its time goes."""
    import logging

    from newsletter import choosing, joining, personal_data
    from newsletter.store import letters, personal, throttles
    from newsletter.store.engine import in_chunks

    def keep_house() -> None:
        now = datetime.now(UTC)
        choosing.wake_all(engine, now)
        for step in (joining.forget_unconfirmed, throttles.sweep, letters.forget_names, letters.sweep):
            in_chunks(engine, partial(_chunk, step, now))
        in_chunks(engine, personal.cut_answers)
        if not personal_data.finish_overwriting(engine):
            logging.getLogger(__name__).warning(
                "an erased person may still be in the database's free space: it is in use"
            )

    return keep_house


def _chunk(step: Callable[[Connection, datetime, int], bool], now: datetime, conn: Connection) -> bool:
    return step(conn, now, CHUNK)


def clear_up(settings: Settings, engine: Engine) -> Callable[[Erased], bool]:
    """Removes the files of an erased person's mails."""
    from newsletter import personal_data

    return partial(personal_data.clear_up, engine, settings.state_dir / "outbox")

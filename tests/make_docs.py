"""Write the generated parts of docs/: `python -m tests.make_docs`. tests/test_docs.py fails while one is stale.

A generated part stands between two comments, ``<!-- generated: NAME -->`` and ``<!-- end -->``, in a page that is
otherwise written by hand. What each thing means is a sentence in here: a setting, key, tag or template without one is
a KeyError, and so is a sentence for something that is gone.
"""

from __future__ import annotations

import inspect
import re
from collections import abc
from datetime import timedelta
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Literal, get_args, get_origin
from zoneinfo import ZoneInfo

import click

from newsletter import checks, content, errors, merge, render
from newsletter.cli.main import BUG, COMMANDS, INTERRUPTED, PIPE_CLOSED, SECTIONS, app
from newsletter.config.env import SECRETS
from newsletter.config.problems import fields_of
from newsletter.config.sections import WITHOUT, Sections, paths
from newsletter.config.values import duration_text, share_text
from newsletter.content import shape
from newsletter.limits import Rate
from newsletter.render.theme import DARK, LIGHT, Theme

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from pydantic.fields import FieldInfo

ROOT = Path(__file__).resolve().parents[1]
PART = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

SETTINGS = {
    "newsletter.name": "What an inbox shows as the sender. Short, and silent about what readers may live with.",
    "newsletter.full_name": "The telling name. It stands inside the mail only.",
    "newsletter.from": "The address that sends: one of your own domain.",
    "newsletter.reply_to": "Where replies go. A person should read it.",
    "newsletter.editors": "Who gets a mail when something needs a person.",
    "newsletter.base_url": "Where the links in the mail lead: https, no slash at the end, short.",
    "newsletter.postal_address": "Stands in every mail; the law of many countries wants it.",
    "newsletter.language": "Of the fixed words and the dates: `en` or `de`, maybe with a region (`de-AT`).",
    "newsletter.list": "The list that is meant when a command names none.",
    "newsletter.list_id": "Names the list to mail programs (RFC 2919). Choose it once and never change it.",
    "newsletter.discreet_words": "Words that must not show on a lock screen: a check warns when one does.",
    "newsletter.fields": "Columns of your subscriber file that issues may use as merge tags.",
    "sending.mode": "`off`: nothing leaves. `allowlist`: only to the addresses below. `live`: to everyone.",
    "sending.allowlist": "Who may get mail in mode `allowlist`.",
    "sending.transport": "How copies leave: into files, through a mail server, through SendGrid's API.",
    "sending.connections": "How many connections or requests at once, 1 to 100.",
    "sending.rate": "How many copies may leave, from all sending processes together: "
    '`"50/s"`, `"30/m"`, `"2000/h"`, `"100000/d"`.',
    "sending.retry": "How long to wait before each new try of a copy that was not taken. Then it is refused.",
    "sending.stop_refused": "The campaign is paused when more than this share of its copies was refused, ten at least. "
    '`"off"`: never.',
    "sending.canary": 'A share of the copies that leaves first: `"1%"`, one at least. Then the rest waits.',
    "sending.canary_wait": "From the last answer to the canary until the rest leaves, unless too many were refused.",
    "sending.domains": 'The same as `rate` for what stands after the @: `[sending.domains]`, `"gmail.com" = "20/s"`.',
    "smtp.host": "The mail server that takes your copies.",
    "smtp.port": "587 is usual with `starttls`, 465 with `tls`, 25 for a relay of your own.",
    "smtp.security": "Both kinds of TLS verify the certificate and never fall back to sending in the clear.",
    "smtp.username": "With a user name the server gets a login, over TLS only.",
    "smtp.envelope_from": "Where mail that can't be delivered comes back to. Each copy gets its own `+` form of it.",
    "smtp.ca_file": "The certificates to trust, for a relay with its own authority; left out, the usual ones.",
    "smtp.timeout": "For each step of the conversation but the last, which gets ten minutes (RFC 5321).",
    "dkim.domain": "The domain that signs: that of your From address, or one above it.",
    "dkim.keys": 'Private keys in PEM files, by their selectors: `[dkim.keys]`, `news2027 = "key.pem"`. '
    "[DKIM](dkim.md) says when you need it.",
    "sendgrid.batch": "Copies in one request, 1 to 1000. When no answer comes, all of them are unknown.",
    "sendgrid.url": "The API's address. Another one only for SendGrid's EU region, or for tests.",
    "images.mode": "`embed`: pictures travel inside the mail. `hosted`: their host sees who opens it, and when.",
    "images.url": "Where hosted pictures lie.",
    "unsubscribe.mailto": "A second way to unsubscribe, by mail. Only with a mailbox that somebody reads.",
    "schedule.send": 'When an issue goes out by itself: `"first tuesday 09:00"`, `"last weekday 17:00"`, '
    '`"monthly on the 15th 08:30"`. Day 31 is the last day of a shorter month.',
    "schedule.timezone": "Whose clock is meant, there and by `send --at`: a name of the IANA database.",
    "schedule.max_lateness": "How late it may become, when the machine was off or something failed.",
    "schedule.late": "Later than that: `hold` it for a person, `send` it all the same, or `drop` it.",
    "schedule.remind": "How long before its time the editors are told that an issue is not ready.",
    "approval.require": "Who must [approve](approval.md) a live issue before it goes: `editor`, `medical`, or both.",
    "web.host": "Where `newsletter serve` listens. Only a proxy on the same machine should reach it.",
    "web.port": "The same. The proxy passes requests on to it.",
    "web.workers": "How many processes answer, 1 to 64. More than one needs PostgreSQL.",
    "web.proxies": "Whose word counts on where a request came from (`X-Forwarded-For`): addresses or networks.",
    "web.privacy_url": "Your privacy notice. The pages link to it.",
    "web.network_limit": "How many sign-ups one network may ask for. A network is a /24 or, with IPv6, a /48.",
    "web.lists": 'The lists that readers may choose, each with its title: `[web.lists]`, `readers = "Digest"`. '
    "The first one is joined at `/subscribe`.",
    "logging.format": "How `serve` and the senders say on stderr what they do: lines for people, or JSON objects.",
    "theme.light.background": "Around the sheet.",
    "theme.light.surface": "The sheet that the text stands on.",
    "theme.light.text": "The words.",
    "theme.light.muted": "What is said quietly: dates, small print.",
    "theme.light.accent": "Links, buttons, rules.",
    "theme.light.border": "Hairlines.",
    "theme.heading_font": "Fonts that devices have: a web font would tell its host who reads.",
    "theme.body_font": "The same for everything else.",
    "theme.logo": "A PNG, JPEG or GIF in your folder; it is shown at half its width, for sharp screens.",
    "theme.logo_alt": "What the logo says to those who can't see it.",
}
DERIVED = {
    "newsletter.full_name": "the same as `name`",
    "newsletter.editors": "`reply_to`",
    "images.url": "`base_url` + `/media`",
    "sending.domains": "no limits",
    "dkim.domain": "that of `from`",
    "dkim.keys": "no signatures",
    "web.lists": "`newsletter.list` with the name of the publication",
    "theme.logo_alt": "`full_name`",
}
TABLES = {
    "sending.domains": "table of rates",
    "dkim.keys": "table of files",
    "web.lists": "table of titles",
}
ENVIRONMENT = {
    "NEWSLETTER_SECRET_KEYS": "Sign the links in mails: `1:KEY`. To change the key, put a new number in front "
    "(`2:NEW,1:OLD`) and keep the old one: links in sent mails live as long as it does.",
    "NEWSLETTER_ADDRESS_KEY": "Turns addresses into the keys by which the ledger and the suppressions know them. "
    "Never change it, and keep a copy of it in a safe place.",
    "SENDGRID_API_KEY": 'For `transport = "sendgrid"`. Its only permission should be Mail Send.',
    "SMTP_PASSWORD": "For `[smtp] username`.",
    "DATABASE_URL": "Where the database is. Left out: SQLite in `.newsletter/newsletter.db`. For PostgreSQL: "
    "`postgresql://USER:PASSWORD@HOST/NAME`.",
    "NEWSLETTER_INSTANCE": "A name for this machine, in place of its own number, by which the database knows "
    "[where it is at home](backup.md#a-database-knows-where-it-lives). For containers; no two machines have the same.",
}
ISSUE_KEYS = {
    "subject": "The subject. Up to about 50 characters are shown everywhere.",
    "preheader": "The line that inboxes show after the subject. It says something new.",
    "date": "Of the issue, not of the study: year, month and day, without quotes.",
    "number": "Of the issue, from 1 on. Left out, the mail shows the date only.",
    "period": "The month it counts for. Left out, the one in the folder's name. A list gets one issue a period.",
    "lead.title": "The finding in one plain sentence; the mail's main heading.",
    "lead.image": "The issue's one picture: a PNG, JPEG or GIF in its folder.",
    "lead.image_alt": "What the picture shows, in a sentence. Needed with a picture.",
    "lead.topics": "What the lead is about. Not used yet.",
    "lead.source.title": "The title of the paper.",
    "lead.source.journal": "Where it appeared.",
    "lead.source.doi": "From the `10.` on. Either this or `url` is needed; the DOI wins.",
    "lead.source.url": "Where the original can be read, if it has no DOI.",
    "lead.source.published": "The day on which the paper appeared.",
    "related.title": "The title of the article.",
    "related.text": "Two or three sentences.",
    "related.url": "Where it can be read: http or https. Each address stands once in an issue.",
    "related.date": "Of the article.",
    "related.pin": "`true` will keep it, whatever is suggested in its place. Not used yet.",
    "related_options.ban": "Addresses that must not be among the related articles.",
    "waive.code": "The code of a finding.",
    "waive.where": "Its place, as `newsletter check` prints it in square brackets.",
    "waive.because": "Your reason.",
}
TAGS = {
    "name": ("The reader's name. A fallback is needed.", "words"),
    "unsubscribe_url": ("The reader's own link to unsubscribe.", "links"),
    "preferences_url": ("The reader's own link to change what they receive.", "links"),
    "view_url": ("The issue on the web; the same for everyone.", "links"),
    "issue_title": ("The title of the lead; the same for everyone.", "words"),
}
TEMPLATES = {
    "closing.mjml.j2": "The closing notes.",
    "colophon.mjml.j2": "Why you get this mail; unsubscribe, preferences, view; full name and postal address.",
    "issue.mjml.j2": "The frame: which parts there are, and in which order.",
    "issue.txt.j2": "The whole text part.",
    "lead.mjml.j2": "Greeting, title, picture and the three sections.",
    "letter.mjml.j2": "A letter: a mail to one person who has just asked for something. Its link is `@@action_url@@`.",
    "letter.txt.j2": "The whole text part of a letter.",
    "masthead.mjml.j2": "Logo, full name, number and date.",
    "preheader.mjml.j2": "The line after the subject, hidden in the mail itself.",
    "related.mjml.j2": "Related reading in two columns, one on a phone and in large print.",
    "source.mjml.j2": "The box with the study behind the lead.",
    "style.mjml.j2": "Colours, sizes and what changes on a phone and in the dark.",
}


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    head = list(columns)
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


# The command line


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by what a person types after ``newsletter``."""
    context = click.Context(app)
    for name in COMMANDS:
        command = app.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from ((f"{name} {child}", inner) for child, inner in command.commands.items())
        else:
            yield name, command


def cli() -> str:
    """Every command with its arguments, options and an example, in the order of the story."""
    pages = [_options("Every command takes:", [option for option in app.params if option.name == "project"])]
    entries = list(commands())
    for title, section in SECTIONS.items():
        pages.append(f"## {title}\n")
        pages += [_page(name, command) for name, command in entries if name.split()[0] in section]
    return "\n".join(pages)


def _page(name: str, command: click.Command) -> str:
    example = (command.epilog or "").removeprefix("Example: ")
    said = inspect.cleandoc(command.help or "")
    return f"""### newsletter {name}

    {_usage(name, command)}

{said}

{_options("", _own(command))}For example:

    {example}
"""


def _usage(name: str, command: click.Command) -> str:
    needed = [f"{one.opts[0]} {one.metavar}" for one in _own(command) if one.required]
    free = ["[OPTIONS]"] if len(_own(command)) > len(needed) else []
    pieces = command.collect_usage_pieces(click.Context(command))
    return " ".join(["newsletter", name, *needed, *free, *pieces[1:]])


def _own(command: click.Command) -> list[click.Option]:
    return [one for one in command.params if isinstance(one, click.Option) and one.name != "project"]


def _options(words: str, options: Iterable[click.Parameter]) -> str:
    records = [one.get_help_record(click.Context(app)) for one in options]
    lines = [f"- `{record[0]}`: {record[1].replace('  [', ' [')}" for record in records if record]
    head = f"{words}\n\n" if words else ""
    return f"{head}{chr(10).join(lines)}\n\n" if lines else ""


def exits() -> str:
    """Exit codes with the errors behind them."""
    kinds = [kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, Exception)]
    told = [kind for kind in kinds if kind.exit_code != BUG]
    rows = [("0", "", "Done."), (str(BUG), "", "A bug in the program. Please report it.")]
    rows += [(str(kind.exit_code), f"`{kind.__name__}`", _first_line(kind)) for kind in told]
    rows += [
        (str(INTERRUPTED), "", "Interrupted with Ctrl-C before anything was decided."),
        (str(PIPE_CLOSED), "", "Whoever read the output went away, as `| head` does."),
    ]
    return table(("code", "error", "meaning"), rows)


def transport_errors() -> str:
    """The errors that end no command: they steer a campaign."""
    kinds = (errors.TransportError, *errors.TransportError.__subclasses__())
    return table(("error", "meaning"), ((f"`{kind.__name__}`", _first_line(kind)) for kind in kinds))


def _first_line(thing: object) -> str:
    return inspect.cleandoc(thing.__doc__ or "").partition("\n")[0].replace("``", "`")


# Configuration


def settings() -> str:
    """A table for each section of newsletter.toml."""
    known = paths()
    sections = dict.fromkeys(path.rpartition(".")[0] for path in known)
    meanings = SETTINGS | {
        path: SETTINGS[path.replace("dark", "light")] for path in known if ".dark." in path
    }
    _no_leftovers(meanings, known)
    return "\n".join(
        f"### [{section}]\n\n"
        + table(
            ("key", "values", "when left out", "meaning"),
            (_setting(path, meanings[path]) for path in known if path.rpartition(".")[0] == section),
        )
        for section in sections
    )


def _setting(path: str, meaning: str) -> tuple[str, str, str, str]:
    *sections, key = path.split(".")
    field = fields_of(Sections, sections)[key]
    return f"`{key}`", _values(path, field), _default(path, field), meaning


def _values(path: str, field: FieldInfo) -> str:
    kind = field.annotation
    if get_origin(kind) is UnionType:
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        return ", ".join(f'`"{each}"`' for each in get_args(kind))
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        return "list of durations" if timedelta in (inner, *get_args(inner)) else "list of texts"
    if get_origin(kind) is abc.Mapping:
        return TABLES[path]
    known = {
        int: "number",
        str: "text",
        timedelta: "duration",
        Rate: "rate",
        float: "share",
        ZoneInfo: "time zone",
    }
    return known.get(kind, "text")


def _default(path: str, field: FieldInfo) -> str:
    if path in DERIVED:
        return DERIVED[path]
    if field.is_required():
        return "**needed**"
    value = _without(path) if field.default is None else field.default
    if isinstance(value, float):
        value = share_text(value)
    if isinstance(value, timedelta):
        value = duration_text(value)
    if isinstance(value, Rate | ZoneInfo):
        value = str(value)
    if isinstance(value, tuple):
        inside = ", ".join(
            f'"{duration_text(each) if isinstance(each, timedelta) else each}"' for each in value
        )
        return f"`[{inside}]`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def _without(path: str) -> object:
    return WITHOUT.get(path) or _themed(path)


def _themed(path: str) -> object:
    _, *mode, key = path.split(".")
    return getattr({"light": LIGHT, "dark": DARK}[mode[0]], key) if mode else getattr(Theme(), key)


def environment() -> str:
    """The variables that hold secrets."""
    _no_leftovers(ENVIRONMENT, SECRETS)
    return table(("variable", "meaning"), ((f"`{name}`", ENVIRONMENT[name]) for name in SECRETS))


# Writing


def issue_keys() -> str:
    """A table for each table of issue.toml."""
    parts = []
    found = {
        f"{name.removesuffix('.#')}.{key}".lstrip("."): field
        for name, (_, kind) in shape.TABLES.items()
        for key, field in kind.model_fields.items()
        if not _is_table(name, key)
    }
    _no_leftovers(ISSUE_KEYS, found)
    for name, (place, _) in shape.TABLES.items():
        prefix = f"{name.removesuffix('.#')}." if name else ""
        mine = [path for path in found if path.rpartition(".")[0] == prefix.rstrip(".")]
        rows = (
            (f"`{_key(path)}`", "yes" if found[path].is_required() else "", ISSUE_KEYS[path]) for path in mine
        )
        parts.append(f"{place[0].upper()}{place[1:]}:\n\n" + table(("key", "needed", "meaning"), rows))
    return "\n".join(parts)


def _key(path: str) -> str:
    return path.rpartition(".")[2]


def _is_table(name: str, key: str) -> bool:
    return any(other.removesuffix(".#") == f"{name}.{key}".lstrip(".") for other in shape.TABLES)


def merge_tags() -> str:
    """The tags that every issue may use."""
    _no_leftovers(TAGS, merge.ISSUE_TAGS)
    return table(("tag", "meaning", "stands in"), ((f"`@@{tag}@@`", *TAGS[tag]) for tag in TAGS))


def templates() -> str:
    """The templates there are."""
    names = [file.name for file in sorted(render.templates_dir().glob("*.j2"))]
    _no_leftovers(TEMPLATES, names)
    return table(("template", "makes"), ((f"`{name}`", TEMPLATES[name]) for name in names))


# Findings


def content_codes() -> str:
    """What is wrong with an issue's files."""
    return table(("code", "meaning"), content.CODES.items())


def template_codes() -> str:
    """What is wrong with a template."""
    return table(("code", "meaning"), render.CODES.items())


def check_codes() -> str:
    """What the checks say, and whether it stops a send."""
    folder = Path(checks.__file__).parent
    source = "".join(file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.py")))
    # Read from the source: a level is chosen where a finding is made, and some depend on more than their code.
    stops = set(re.findall(r'\.error\(\s*"([A-Z]\d+)"', source))
    rows = ((code, "error" if code in stops else "warning", said) for code, said in checks.CODES.items())
    return table(("code", "level", "meaning"), rows)


def _no_leftovers(described: Mapping[str, object], known: Iterable[str]) -> None:
    if different := set(described) ^ set(known):
        raise KeyError(f"described but not there, or there and not described: {sorted(different)}")


PARTS: Mapping[str, Callable[[], str]] = {
    "cli": cli,
    "exits": exits,
    "transport-errors": transport_errors,
    "settings": settings,
    "environment": environment,
    "issue-keys": issue_keys,
    "merge-tags": merge_tags,
    "templates": templates,
    "content-codes": content_codes,
    "template-codes": template_codes,
    "check-codes": check_codes,
}


def pages() -> dict[Path, str]:
    """Every page of docs/ with a generated part, as it should be."""
    found = {file: file.read_text(encoding="utf-8") for file in sorted((ROOT / "docs").rglob("*.md"))}
    return {file: PART.sub(_fresh, text) for file, text in found.items() if PART.search(text)}


def _fresh(match: re.Match[str]) -> str:
    return f"{match[1]}\n{PARTS[match[2]]().rstrip()}\n\n{match[3]}"


def main() -> None:
    """Rewrite what is stale."""
    for file, text in pages().items():
        if file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
            print(f"wrote {file.relative_to(ROOT)}")


if __name__ == "__main__":
    main()

"""What one value of newsletter.toml may be.

Each rule takes what the file says and returns what the program uses, or raises ``ValueError`` with the rest
of a sentence that begins with the key: "newsletter.base_url must not end with a slash …".
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, ValidationInfo

from newsletter import addresses, limits, merge, schedule, texts
from newsletter.headers import clean
from newsletter.model import Role

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LONGEST = timedelta(days=30)
OFF = "off"
SELECTOR = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
LONGEST_SELECTOR = 100  # characters, so that the name of the DNS record has room for most domains

# The `<https://…/u/` + a token of 35 characters + `>` of List-Unsubscribe has to fit into a line of 76:
# Python folds a longer one into encoded words, which Gmail ignores.
LONGEST_BASE_URL = 76 - len("<") - len("/u/") - 35 - len(">")


def one_line(text: str) -> str:
    """Text that may stand in a mail's header: one line, no control characters, no blanks around it."""
    if "@@" in text:
        raise ValueError("must not hold @@, which begins a merge tag")
    try:
        return clean("it", text).strip()
    except ValueError:
        raise ValueError("must be one line without control characters") from None


def some_line(text: str) -> str:
    """One line that says something."""
    if not one_line(text):
        raise ValueError("is empty: write something between the quotes")
    return one_line(text)


def duration(text: object) -> timedelta:
    """``"15s"``, ``"2m"``, ``"1h"`` or ``"1d"``: from a second to thirty days."""
    if isinstance(text, timedelta):
        return text
    match = re.fullmatch(r"([0-9]{1,7})([smhd])", text) if isinstance(text, str) else None
    span = timedelta(seconds=int(match[1]) * SECONDS[match[2]]) if match else timedelta()
    if not timedelta() < span <= LONGEST:
        raise ValueError(
            'must be a duration in quotes, of 30 days at most, such as "15s", "2m", "1h" or "1d"'
        )
    return span


def duration_text(span: timedelta) -> str:
    """The inverse of ``duration``, in the largest unit that is exact."""
    total = int(span.total_seconds())
    unit = next(unit for unit in "dhms" if total % SECONDS[unit] == 0)
    return f"{total // SECONDS[unit]}{unit}"


def rate(text: object) -> limits.Rate | None:
    """``"50/s"``, ``"2000/h"``; None for ``"unlimited"``."""
    try:
        return limits.Rate.parse(str(text))
    except ValueError as error:
        raise ValueError(f'{error}, or "{limits.UNLIMITED}"') from None


def domain_rate(given: object) -> limits.Rate:
    """The limit of one domain."""
    without_quotes = isinstance(given, dict)  # gmail.com = "20/s" is a table `gmail` with a key `com`
    if without_quotes:
        raise ValueError('must be a domain in quotes, because of its dots, such as "gmail.com" = "20/s"')
    found = limits.Rate.parse(str(given))
    if found is None:
        raise ValueError("must be a rate: a domain without one is left out")
    return found


def domain_rates(given: Mapping[str, limits.Rate]) -> Mapping[str, limits.Rate]:
    """Domains as addresses have them: A-labels in small letters."""
    found: dict[str, limits.Rate] = {}
    for domain, limit in given.items():
        try:
            name = limits.domain_of(addresses.parse(f"a@{domain}"))
        except ValueError:
            raise ValueError(f'names "{domain}", which is no domain of an address') from None
        if name in found:
            raise ValueError(f'names the domain "{name}" twice')
        found[name] = limit
    return found


def share(text: object) -> float | None:
    """``"5%"`` as 0.05; None for ``"off"``."""
    match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,2})?)%", text) if isinstance(text, str) else None
    if text == OFF:
        return None
    if not match or not 0 < float(match[1]) <= 100:
        raise ValueError(f'must be a share in quotes, such as "5%" or "0.5%", or "{OFF}"')
    return float(match[1]) / 100


def share_text(found: float) -> str:
    """The inverse of ``share``."""
    return f"{found * 100:.4g}%"


def a_schedule(text: object) -> schedule.Schedule | None:
    """``"first tuesday 09:00"``; None for ``"off"``."""
    if text is None or isinstance(text, schedule.Schedule):
        return text
    if text == OFF:
        return None
    return schedule.parse(str(text))


def zone(name: object) -> ZoneInfo:
    """A time zone by its name in the IANA database."""
    if isinstance(name, ZoneInfo):
        return name
    try:
        return ZoneInfo(str(name))
    except (ValueError, OSError, LookupError):
        raise ValueError(
            'must be the name of a time zone, such as "Europe/London" or "UTC"; '
            "https://en.wikipedia.org/wiki/List_of_tz_database_time_zones has them all"
        ) from None


ROLES = tuple(role.value for role in Role)


def roles(given: tuple[str, ...]) -> tuple[str, ...]:
    """Each once."""
    unknown = [role for role in given if role not in ROLES]
    if unknown:
        raise ValueError(f'names "{unknown[0]}", and the roles are {" and ".join(ROLES)}')
    return tuple(dict.fromkeys(given))


def own_address(text: str) -> str:
    """An address of the publisher: in every copy's header, where most servers take ASCII only."""
    if not text.isascii() and not text.rpartition("@")[0].isascii():
        raise ValueError(
            "must have only a-z, digits and punctuation before the @: most servers refuse other letters"
        )
    return address(text)


def address(text: str) -> str:
    """An address that mail can be sent to."""
    try:
        return addresses.parse(text)
    except ValueError as error:
        raise ValueError(f"must be an address like editor@example.org: {str(error).rstrip('.')}") from None


def web_address(text: str) -> str:
    """An https address to which a path can be added."""
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError(
            "may hold only ASCII letters: write a name like müller.example as xn--mller-kva.example"
        )
    if not text.startswith("https://") or not _is_plain(text):
        raise ValueError(
            'must be a web address that begins with https://, such as "https://news.example.org"'
        )
    if text.endswith("/"):
        raise ValueError("must not end with a slash: paths are added to it")
    return text


def _is_plain(url: str) -> bool:
    """Scheme, host, maybe port and path; no user, query or fragment, nothing a header has to escape."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # both raise for what can't be one
    except ValueError:
        return False
    return bool(host) and re.fullmatch(r"https?://[\w.:\[\]-]+(/[\w.~%-]+)*/?", url, re.ASCII) is not None


def base_url(text: str) -> str:
    """A web address so short that a signed unsubscribe link fits into one line of a header."""
    if len(web_address(text)) > LONGEST_BASE_URL:
        raise ValueError(
            f"has {len(text)} characters and may have {LONGEST_BASE_URL}, or the unsubscribe link would not "
            "fit into one line of the mail's header: use a shorter host name or path"
        )
    return text


def api_url(text: str) -> str:
    """An https address; plain http only on this machine, where a test's server listens."""
    if text.startswith("http://") and _is_plain(text) and _is_here(urlsplit(text).hostname or ""):
        return text.rstrip("/")
    return web_address(text)


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def optional(rule: Callable[[str], str]) -> Callable[[str], str]:
    """``rule``, but an empty text means: not set."""
    return lambda text: rule(text) if text else ""


def list_id(text: str) -> str:
    """RFC 2919, section 2: dot-separated labels, at least two, 255 characters at most."""
    if len(text) > 255 or not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+", text):
        raise ValueError('must look like a host name with a dot in it, such as "digest.example.org"')
    return text


def list_name(text: str) -> str:
    """A name that can stand on a command line."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", text):
        raise ValueError('must be made of small letters, digits, - and _, such as "readers"')
    return text


def language(text: str) -> str:
    """A language, maybe with a region (``de-AT``), whose fixed words ship with the program."""
    known = texts.languages()
    if not re.fullmatch(rf"({'|'.join(known)})(-[A-Za-z0-9]+)*", text):
        raise ValueError(f"must be a language there are texts for: {', '.join(known)}")
    return text


def field_name(text: str) -> str:
    """The name of a column that issues may use as a merge tag, such as ``town``."""
    if text in merge.RESERVED:
        raise ValueError(f'must not be "{text}": that merge tag has a meaning of its own')
    if merge.names(f"@@{text}@@") != {text}:
        raise ValueError("must be made of small letters, digits and _, and begin with a letter")
    return text


def colour(text: str) -> str:
    """Six digits: Outlook reads neither the short form nor names."""
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        raise ValueError('must be a colour of six digits, such as "#175e63"')
    return text


def fonts(text: str) -> str:
    """Names for a style sheet; nothing that could end a declaration."""
    if not re.fullmatch(r"[\w ,'-]+", text):
        raise ValueError("must be a list of font names, such as \"Georgia, 'Times New Roman', serif\"")
    return text


def login_only_over_tls(username: str, info: ValidationInfo) -> str:
    """A password never crosses the wire in the clear."""
    if username and info.data.get("security") == "none":
        raise ValueError(
            'needs smtp.security = "starttls" or "tls": a login in the clear gives the password away'
        )
    return username


def existing_file(text: str, info: ValidationInfo) -> str:
    """A file that is there, named from the project's folder."""
    project: Path = (info.context or {})["project"]
    try:
        there = not text or (project / text).is_file()
    except (OSError, ValueError):  # no file can have such a name
        there = False
    if not there:
        raise ValueError(f"names a file that is not there: {project / text}")
    return text


def in_full(text: str, info: ValidationInfo) -> str:
    """The same file wherever the program is started."""
    project: Path = (info.context or {})["project"]
    return str((project / text).resolve()) if text else ""


def domain(text: str) -> str:
    """A domain that can stand behind an @, as A-labels in small letters."""
    try:
        return limits.domain_of(addresses.parse(f"a@{text}"))
    except ValueError:
        raise ValueError('must be a domain, such as "example.org"') from None


def holds_sender(name: str, sender: str) -> None:
    """Raises ``ValueError`` unless the address ``sender`` is in the domain ``name`` or below it."""
    own = limits.domain_of(sender)
    if not f".{own}".endswith(f".{name}"):
        raise ValueError(
            f"can't sign with domain {name}: it must be that of newsletter.from, {own}, or above it"
        )


def selector(text: str) -> str:
    """A name in the DNS, below which a public key is looked up (RFC 6376, section 3.1)."""
    if len(text) > LONGEST_SELECTOR or not SELECTOR.fullmatch(text):
        raise ValueError("must be made of small letters, digits and -, such as news2027")
    return text


def key_file(name: object) -> object:
    """Says nothing of what it was given: somebody may have put the key itself there."""
    without_quotes = isinstance(name, dict)  # a.b = "…" is a table `a` with a key `b`
    if without_quotes:
        raise ValueError('must be a selector in quotes, because of its dots, such as "a.b" = "key.pem"')
    return name


def private_file(text: str, info: ValidationInfo) -> str:
    """A file that is there, in full."""
    try:
        existing_file(text or "?", info)
    except ValueError:
        raise ValueError(
            "must be the name of a file with a key in it, and names none that is there"
        ) from None
    return in_full(text, info)


def key_files(given: Mapping[str, str]) -> Mapping[str, str]:
    """By their selectors."""
    for name in given:
        try:
            selector(name)
        except ValueError as error:
            raise ValueError(f'has the selector "{name}", which {error}') from None
    return given


def host(text: str) -> str:
    """What a server can listen on: an IP address, or a name of this machine."""
    if _is_ip(text) or re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", text):
        return text
    raise ValueError('must be an IP address or a host name without a port, such as "127.0.0.1"')


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def network(text: str) -> str:
    """An IP address, or a network of them."""
    try:
        ipaddress.ip_network(text)
    except ValueError:
        raise ValueError('must be an IP address or a network, such as "127.0.0.1" or "10.0.0.0/8"') from None
    return text


def asking_rate(given: object) -> limits.Rate:
    """How often strangers may ask; never unlimited, because each time a mail may go to somebody."""
    found = None
    with contextlib.suppress(ValueError):
        found = given if isinstance(given, limits.Rate) else limits.Rate.parse(str(given))
    if found is None:
        raise ValueError('must be a number per second, minute, hour or day in quotes, such as "20/h"')
    return found


def list_titles(given: Mapping[str, str]) -> Mapping[str, str]:
    """Titles by the names of their lists."""
    for name in given:
        try:
            list_name(name)
        except ValueError as error:
            raise ValueError(f'names the list "{name}", which {error}') from None
    return given


def frozen(value: object) -> object:
    """TOML has lists, frozen settings have tuples."""
    return tuple(value) if isinstance(value, list) else value


Text = Annotated[str, AfterValidator(one_line)]
Line = Annotated[str, AfterValidator(some_line)]
Lines = Annotated[tuple[Line, ...], BeforeValidator(frozen)]
Address = Annotated[str, AfterValidator(address)]
OwnAddress = Annotated[str, AfterValidator(own_address)]
OptionalAddress = Annotated[str, AfterValidator(optional(own_address))]
Addresses = Annotated[tuple[Address, ...], BeforeValidator(frozen)]
BaseUrl = Annotated[str, AfterValidator(base_url)]
OptionalUrl = Annotated[str, AfterValidator(optional(web_address))]
ApiUrl = Annotated[str, AfterValidator(api_url)]
ListId = Annotated[str, AfterValidator(list_id)]
ListName = Annotated[str, AfterValidator(list_name)]
Language = Annotated[str, AfterValidator(language)]
FieldNames = Annotated[tuple[Annotated[str, AfterValidator(field_name)], ...], BeforeValidator(frozen)]
Duration = Annotated[timedelta, BeforeValidator(duration)]
Durations = Annotated[tuple[Duration, ...], BeforeValidator(frozen)]
Rate = Annotated[limits.Rate | None, BeforeValidator(rate)]
DomainRate = Annotated[limits.Rate, BeforeValidator(domain_rate)]
DomainRates = Annotated[Mapping[str, DomainRate], AfterValidator(domain_rates)]
OptionalSchedule = Annotated[schedule.Schedule | None, BeforeValidator(a_schedule)]
Zone = Annotated[ZoneInfo, BeforeValidator(zone)]
Roles = Annotated[tuple[str, ...], BeforeValidator(frozen), AfterValidator(roles)]
Share = Annotated[float | None, BeforeValidator(share)]
Colour = Annotated[str, AfterValidator(colour)]
Fonts = Annotated[str, AfterValidator(fonts)]
FileName = Annotated[str, AfterValidator(one_line), AfterValidator(existing_file)]
FullPath = Annotated[FileName, AfterValidator(in_full)]
OptionalDomain = Annotated[str, AfterValidator(optional(domain))]
KeyFile = Annotated[str, BeforeValidator(key_file), AfterValidator(one_line), AfterValidator(private_file)]
KeyFiles = Annotated[Mapping[str, KeyFile], AfterValidator(key_files)]
Host = Annotated[str, AfterValidator(host)]
Networks = Annotated[tuple[Annotated[str, AfterValidator(network)], ...], BeforeValidator(frozen)]
AskingRate = Annotated[limits.Rate, BeforeValidator(asking_rate)]
Titles = Annotated[Mapping[str, Line], AfterValidator(list_titles)]

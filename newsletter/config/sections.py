"""Which keys newsletter.toml has, what each means when it is left out, and the ``Settings`` they become."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path  # noqa: TC003  pydantic reads the annotations
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationInfo

from newsletter import limits, schedule
from newsletter.config import values
from newsletter.config.env import ADDRESS_KEY, ENV_FILE, INSTANCE, SECRETS, SIGNING_KEYS
from newsletter.config.problems import fields_of, is_section
from newsletter.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

STATE_FOLDER = ".newsletter"
BUILT_IN = "built in"
WITHOUT = {
    "sending.rate": limits.UNLIMITED,
    "sending.stop_refused": values.OFF,
    "sending.canary": values.OFF,
    "schedule.send": values.OFF,
}
"""What the file says for no limit; other settings without a value have one that is built in."""


class Section(BaseModel):
    """A part of newsletter.toml. Unknown keys are errors; nothing is converted behind a person's back."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class Newsletter(Section):
    """Who publishes, and how it is called."""

    name: Annotated[values.Line, Field(examples=["Research Digest"])]
    full_name: values.Line = Field(default_factory=lambda given: given["name"])
    from_: Annotated[values.OwnAddress, Field(alias="from", examples=["digest@example.org"])]
    reply_to: Annotated[values.OwnAddress, Field(examples=["editor@example.org"])]
    editors: values.Addresses = Field(default_factory=lambda given: (given["reply_to"],))
    base_url: Annotated[values.BaseUrl, Field(examples=["https://news.example.org"])]
    postal_address: Annotated[values.Line, Field(examples=["1 Example Street, Example Town"])]
    language: values.Language = "en"
    list: values.ListName = "readers"
    list_id: Annotated[values.ListId, Field(examples=["digest.example.org"])]
    discreet_words: values.Lines = ()
    fields: values.FieldNames = ()  # columns of the subscribers' file that issues may use as merge tags


class Sending(Section):
    """Whether anything may leave, through what, and how hard to try."""

    mode: Literal["off", "allowlist", "live"] = "off"
    allowlist: values.Addresses = ()
    transport: Literal["folder", "smtp", "sendgrid"] = "folder"
    connections: Annotated[int, Field(ge=1, le=100)] = 10
    rate: values.Rate = None  # copies, from all processes together
    retry: values.Durations = tuple(values.duration(each) for each in ("15s", "2m", "10m", "1h", "4h"))
    stop_refused: values.Share = 0.05
    canary: values.Share = None  # of the copies of a live campaign: they leave first
    canary_wait: values.Duration = timedelta(hours=1)
    domains: values.DomainRates = Field(default_factory=dict)

    @property
    def limits(self) -> limits.Limits:
        """How fast copies may leave."""
        return limits.Limits(self.rate, self.domains)


class Smtp(Section):
    """A relay. Its password is SMTP_PASSWORD in the environment."""

    host: values.Line = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 25
    security: Literal["none", "starttls", "tls"] = "starttls"
    username: Annotated[values.Text, AfterValidator(values.login_only_over_tls)] = ""
    envelope_from: values.OptionalAddress = ""
    ca_file: values.FullPath = ""
    timeout: values.Duration = timedelta(seconds=30)


class Dkim(Section):
    """Signatures of copies that leave through ``smtp``. The private keys are in files of their own."""

    domain: values.OptionalDomain = ""  # left out: that of newsletter.from
    keys: values.KeyFiles = Field(default_factory=dict)


class SendGrid(Section):
    """SendGrid's API. Its key is SENDGRID_API_KEY in the environment."""

    batch: Annotated[int, Field(ge=1, le=1000)] = 50  # copies in one request: the size of one doubt
    url: values.ApiUrl = "https://api.sendgrid.com"


class Images(Section):
    """Whether pictures travel inside the mail: a hosted one tells its host who opened the mail, and when."""

    mode: Literal["embed", "hosted"] = "embed"
    url: values.OptionalUrl = ""  # where hosted pictures are; left out: base_url/media


class Unsubscribe(Section):
    """A second way to unsubscribe, by mail."""

    mailto: values.OptionalAddress = ""


class Schedule(Section):
    """When the next issue goes out by itself."""

    send: values.OptionalSchedule = None
    timezone: values.Zone = ZoneInfo("UTC")
    max_lateness: values.Duration = timedelta(hours=6)
    late: Literal["hold", "send", "drop"] = "hold"
    remind: values.Duration = timedelta(days=3)


class Approval(Section):
    """Who must have said yes to the very bytes before a live campaign starts."""

    require: values.Roles = ()


class Web(Section):
    """What `newsletter serve` listens on, and what readers may choose there."""

    host: values.Host = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8080
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    proxies: values.Networks = ("127.0.0.1", "::1")
    privacy_url: values.OptionalUrl = ""
    network_limit: values.AskingRate = limits.Rate(20, 3600)  # sign-ups from one network
    lists: values.Titles = Field(default_factory=dict)


class Logging(Section):
    """How the commands that run for long say what they do, on stderr."""

    format: Literal["text", "json"] = "text"


class Palette(Section):
    """Colours of one mode; what is left out stays as ``newsletter.render.theme`` has it."""

    background: values.Colour | None = None
    surface: values.Colour | None = None
    text: values.Colour | None = None
    muted: values.Colour | None = None
    accent: values.Colour | None = None
    border: values.Colour | None = None


class Theme(Section):
    """How the mail looks; what is left out stays as ``newsletter.render.theme`` has it."""

    light: Palette = Palette()
    dark: Palette = Palette()
    heading_font: values.Fonts | None = None
    body_font: values.Fonts | None = None
    logo: values.FileName = ""
    logo_alt: values.Text = ""


def _signs_for_sender(dkim: Dkim, info: ValidationInfo) -> Dkim:
    """DMARC counts a signature only of the domain that readers see, or of one above it (RFC 7489, section 3.1.1)."""
    if dkim.domain and "newsletter" in info.data:
        values.holds_sender(dkim.domain, info.data["newsletter"].from_)
    return dkim


class Sections(Section):
    """All of newsletter.toml."""

    newsletter: Newsletter
    sending: Sending = Sending()
    smtp: Smtp = Smtp()
    dkim: Annotated[Dkim, AfterValidator(_signs_for_sender)] = Dkim()
    sendgrid: SendGrid = SendGrid()
    images: Images = Images()
    unsubscribe: Unsubscribe = Unsubscribe()
    schedule: Schedule = Schedule()
    approval: Approval = Approval()
    web: Web = Web()
    logging: Logging = Logging()
    theme: Theme = Theme()


class Setting(NamedTuple):
    """One effective value as ``newsletter config`` shows it, with secrets masked."""

    key: str
    value: object  # text, a number or a list of them
    origin: str


class Settings(Sections):
    """Everything that can be configured, validated. Printing it never shows a secret."""

    project: Path
    database_url: Annotated[str, Field(repr=False)]  # may hold a password
    newsletter_secret_keys: Annotated[str, Field(repr=False)] = ""
    newsletter_address_key: Annotated[bytes, Field(repr=False)] = b""
    sendgrid_api_key: SecretStr = SecretStr("")
    smtp_password: SecretStr = SecretStr("")
    newsletter_instance: str = ""  # stands for the machine; left out: its own number
    origins: Mapping[str, str]  # key path or variable → newsletter.toml, .env, environment or default
    warnings: tuple[str, ...] = ()

    @property
    def secret_keys(self) -> str:
        """What ``tokens.Keyring.parse`` reads; empty if not set."""
        return self.newsletter_secret_keys

    @property
    def address_key(self) -> bytes:
        """Makes address keys; empty if not set."""
        return self.newsletter_address_key

    @property
    def public_lists(self) -> Mapping[str, str]:
        """The lists that readers see, each with its title: [web.lists], else the publication's one list."""
        return self.web.lists or {self.newsletter.list: self.newsletter.name}

    @property
    def state_dir(self) -> Path:
        """Where the database, the outbox and the sender's lock live."""
        return self.project / STATE_FOLDER

    def require_keys(self) -> None:
        """Raise ConfigError unless the signing keys and the address key are set."""
        self.require(
            SIGNING_KEYS,
            ADDRESS_KEY,
            hint="Make what is missing with: newsletter init --keys. If this newsletter was sent before, put "
            "the old keys back: new ones break the links in sent mails and forget who wants no more mail.",
        )

    def require(self, *variables: str, hint: str = "") -> None:
        """Raise one ConfigError that names every secret of ``variables`` that is not set."""
        missing = [name for name in variables if self.origins[name] == "default"]
        if missing:
            verb = "is" if len(missing) == 1 else "are"
            raise ConfigError(
                f"{' and '.join(missing)} {verb} not set.",
                hint=hint
                or f"Write {missing[0]}=… into {self.project / ENV_FILE}, or set it in the environment.",
            )

    def describe(self) -> Iterator[Setting]:
        """Every effective value and where it came from. No part of a secret is in it."""
        for path in paths():
            value = self.value(path)
            shown = WITHOUT.get(path, BUILT_IN) if value is None else _shown(value)
            yield Setting(path, shown, self.origins[path])
        for variable in SECRETS:
            yield Setting(variable, self._masked(variable), self.origins[variable])

    def value(self, path: str) -> Any:
        """What is in effect for a key of newsletter.toml such as ``newsletter.from``."""
        value: Any = self
        for name in path.split("."):
            value = getattr(value, "from_" if name == "from" else name)
        return value

    def _masked(self, variable: str) -> str:
        """A password that a person chose could be guessed from its hash, so only random keys get one."""
        if self.origins[variable] == "default":
            return self.database_url if variable == "DATABASE_URL" else "not set"
        if variable == INSTANCE:
            return self.newsletter_instance
        random = {
            SIGNING_KEYS: self.secret_keys.encode(),
            ADDRESS_KEY: self.address_key,
            "SENDGRID_API_KEY": self.sendgrid_api_key.get_secret_value().encode(),
        }
        return f"set (fingerprint {fingerprint(random[variable])})" if variable in random else "set"


def _shown(value: object) -> object:
    if isinstance(value, tuple):
        return [_shown(item) for item in value]
    if isinstance(value, Mapping):
        return [f"{name} = {each}" for name, each in value.items()]
    if isinstance(value, limits.Rate | schedule.Schedule | ZoneInfo):
        return str(value)
    if isinstance(value, float):
        return values.share_text(value)
    return values.duration_text(value) if isinstance(value, timedelta) else value


def fingerprint(secret: bytes) -> str:
    """Eight hex digits that tell two random keys apart and nothing else about them."""
    return hashlib.sha256(secret).hexdigest()[:8]


def paths(section: type[BaseModel] = Sections, prefix: str = "") -> list[str]:
    """Every key newsletter.toml may have, as ``section.key``."""
    found = []
    for key, field in fields_of(section, ()).items():
        path, kind = f"{prefix}{key}", field.annotation
        found += paths(kind, f"{path}.") if is_section(kind) else [path]
    return found


def holds(data: Mapping[str, Any], path: str) -> bool:
    """Whether the file says something about ``path``."""
    table: Any = data
    *sections, key = path.split(".")
    for name in sections:
        table = table.get(name, {})
    return key in table

"""Every error the product raises on purpose. Each branch means one next step and has one exit code.

::

    NewsletterError                 (never raised itself)
    ├── UsageError            2     the call or the configuration is wrong: change it, run again
    │   └── ConfigError       2     … newsletter.toml, .env or the environment, with the key
    ├── ContentError          3     an issue can't be read: it carries every Finding of the folder
    │   └── TemplateError     3     … a template can't be compiled, with file, line and column
    ├── ChecksFailed          4     the issue can be read and must not be sent as it is
    ├── Refused               5     the product will not do this now: mode, count, paused
    │   ├── Occupied          5     … because another process is sending: `send` follows that one
    │   └── NotApproved       5     … because a role that must has not approved these very bytes
    ├── DatabaseError         6     the database can't be used: locked, full, older or newer schema
    │   └── NotAtHome         6     … it is a copy, or was put back to an earlier state: claim it, or use the other one
    ├── UnknownDeliveries     7     the campaign ended and nobody can say what became of some copies
    ├── Unfinished            8     stopped before the end: run the same command again
    ├── NotReady              9     `newsletter doctor` found what must be mended before anything leaves by itself
    ├── DrillFailed           1     a crash drill found the ledger lying: report it, it is a bug of ours
    └── TransportError        8     raised by transports only; ``sending`` makes it a pause, a proof shows it
        ├── TransportUnavailable    the provider can't be reached: try later, nobody is charged
        └── TransportRejected       the provider refuses us (key, sender, policy): pause the campaign

Anything else that escapes is a bug and exits 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from newsletter.model import Finding


class NewsletterError(Exception):
    """What went wrong (``str(error)``) and, in ``hint``, the one thing to do next."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(NewsletterError):
    """The command was called in a way it can't serve."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting or a secret is missing or wrong; the message names the file and the key."""


class ContentError(NewsletterError):
    """An issue folder that can't become an ``Issue``. All its findings are reported at once."""

    exit_code = 3

    def __init__(self, message: str, findings: Sequence[Finding] = (), *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.findings = tuple(findings)


class TemplateError(ContentError):
    """A template that can't be rendered or compiled."""


class ChecksFailed(NewsletterError):
    """Checks found errors that nobody waived."""

    exit_code = 4

    def __init__(self, message: str, findings: Sequence[Finding] = (), *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.findings = tuple(findings)


class Refused(NewsletterError):
    """A deliberate no. Nothing was changed and nothing left the machine."""

    exit_code = 5


class Occupied(Refused):
    """Another process is sending from this database."""


class NotApproved(Refused):
    """A role that must approve has not approved these very bytes, or not any more."""


class DatabaseError(NewsletterError):
    """The database can't be opened, read or written as it is."""

    exit_code = 6


class NotAtHome(DatabaseError):
    """The database may be a copy of another one, or be behind what was done here: nothing is written to it."""


class UnknownDeliveries(NewsletterError):
    """A campaign ended with copies of which nobody can say whether they arrived."""

    exit_code = 7


class Unfinished(NewsletterError):
    """A campaign or an import stopped before its end; the database holds where, and the same command goes on."""

    exit_code = 8


class NotReady(NewsletterError):
    """The doctor found something that must be mended before an issue can go out by itself."""

    exit_code = 9


class DrillFailed(NewsletterError):
    """After a crash drill the ledger said of somebody what was not so."""


class TransportError(NewsletterError):
    """A lane could not do its work. Never about one recipient: those are ``Outcome`` values."""

    exit_code = 8


class TransportUnavailable(TransportError):
    """The provider can't be reached or asks us to come back later.

    ``until`` is when, if it said so (aware); ``crowded`` says that it has had enough of us for now.
    """

    def __init__(
        self, message: str, *, hint: str = "", until: datetime | None = None, crowded: bool = False
    ) -> None:
        super().__init__(message, hint=hint)
        self.until = until
        self.crowded = crowded


class TransportRejected(TransportError):
    """The provider refuses us as a sender; trying again without a person would not help."""


def where(error: BaseException) -> str:
    """The kind of an error and the way to it, without what it says: that may hold an address. For logs."""
    import traceback  # noqa: PLC0415 - only errors need it, and `--help` has none

    frames = traceback.extract_tb(error.__traceback__)
    way = " > ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-8:])
    cause = f", because of {type(error.__cause__).__name__}" if error.__cause__ else ""
    return f"an error that is a bug of ours: {type(error).__name__}{cause} at {way}"

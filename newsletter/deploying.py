"""What an operator installs so that everything happens by itself: units for systemd, or lines for cron. Only text.

The services may do what they need and nothing else (systemd.exec(5)): one that was broken into can't read other
users' files, can't change the program or the settings, and can't become root. Not in it: ``PrivateUsers=``,
``RootDirectory=`` and ``ProcSubset=``, which fail on many machines or hide what tells one machine from another.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from newsletter.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

BACKUPS = 14  # kept, one a day
LAST_REPLY_SECONDS = (
    660  # ten minutes for the reply to a message's end (RFC 5321, section 4.5.3.2.6), and one more
)
PAGES_SECONDS = 60
UNWRITABLE = re.compile(r'["\'\\\x00-\x1f\x7f]')
HOMES = ("home", "root", "run")

# `UMask`: what is made is the service's own. `LimitNOFILE`: `newsletter serve` holds 2,000 connections.
SERVICE = """\
# Written by newsletter. Make it anew after the project or the program was moved.
[Unit]
Description={description}
Documentation=https://www.freedesktop.org/software/systemd/man/systemd.exec.html
After=network-online.target postgresql.service
Wants=network-online.target

[Service]
{behaviour}
User={user}
WorkingDirectory={project}
ExecStart=:{command}
KillSignal=SIGTERM
TimeoutStopSec={patience}
UMask=0077
LimitNOFILE=4096
ReadWritePaths={writable}
NoNewPrivileges=true
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome={home}
PrivateTmp=true
PrivateDevices=true
ProtectClock=true
ProtectHostname=true
ProtectKernelLogs=true
ProtectKernelModules=true
ProtectKernelTunables=true
ProtectControlGroups=true
ProtectProc=invisible
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=true
RestrictRealtime=true
RestrictSUIDSGID=true
RemoveIPC=true
LockPersonality=true
MemoryDenyWriteExecute=true
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
"""
INSTALL = "\n[Install]\nWantedBy=multi-user.target\n"

# `Persistent`: a time that passed while the machine was off is made up for at once.
TIMER = """\
# Written by newsletter.
[Unit]
Description={description}, by the clock

[Timer]
OnCalendar={when}
AccuracySec=10s
RandomizedDelaySec={delay}
Persistent=true

[Install]
WantedBy=timers.target
"""


def systemd_units(
    project: Path,
    program: Path,
    user: str,
    *,
    state: Path,
    writable: Sequence[Path] = (),
    read: Sequence[Path] = (),
) -> Mapping[str, str]:
    """File name → text of every unit: sending by schedule, the readers' pages, and a daily backup.

    ``program`` is the command ``newsletter``, ``state`` the folder that the services may write to, ``writable`` any
    others, such as that of an SQLite file elsewhere, ``read`` what else has to be seen, such as the interpreter. All
    paths are absolute. Raises ``UsageError`` for a path that can't stand in a unit.
    """
    units = _Units(project, program, user, [state, *writable], read)
    oneshot = "Type=oneshot"  # no end is set to it: a large list takes hours
    again = "Type=exec\nRestart=on-failure\nRestartSec=2s"
    run, backup = "Send what is due", "Back the newsletter's database up"
    keep = ("db", "backup", "--keep", str(BACKUPS))
    return {
        "newsletter-run.service": units.service(run, oneshot, ("run", "--once"), LAST_REPLY_SECONDS),
        "newsletter-run.timer": TIMER.format(description=run, when="*:0/5", delay=0),
        "newsletter-serve.service": units.service(
            "Pages for the newsletter's readers", again, ("serve",), PAGES_SECONDS
        )
        + INSTALL,
        "newsletter-backup.service": units.service(backup, oneshot, keep, LAST_REPLY_SECONDS),
        "newsletter-backup.timer": TIMER.format(description=backup, when="*-*-* 03:00", delay="30min"),
    }


class _Units:
    """What all services of one project share, as systemd.syntax(7) wants it written."""

    def __init__(
        self, project: Path, program: Path, user: str, writable: Sequence[Path], read: Sequence[Path]
    ) -> None:
        if not re.fullmatch(r"[a-z_][a-z0-9_-]*\$?", user):
            raise UsageError(f"{user!r} can't be the name of a system user.", hint="Name it with --user.")
        self._project, self._program, self._user = _checked(project), _checked(program), user
        self._writable = " ".join(_quoted(_checked(path)) for path in writable)
        seen = (project, program, *writable, *read)
        inside = any(path.parts[1:2] and path.parts[1] in HOMES for path in seen)
        self._home = "read-only" if inside else "true"

    def service(self, description: str, behaviour: str, words: Sequence[str], patience: int) -> str:
        """One service; ``words`` follow the program, ``patience`` is in seconds."""
        return SERVICE.format(
            description=description,
            behaviour=behaviour,
            user=self._user,
            project=_literal(self._project),  # to the end of the line, without quotation marks
            command=" ".join([_quoted(self._program), *words]),
            patience=patience,
            writable=self._writable,
            home=self._home,
        )


def _checked(path: Path) -> str:
    """Its text. systemd reads a quotation mark or a backslash in a path differently from setting to setting."""
    text = str(path)
    if UNWRITABLE.search(text) or not path.is_absolute():
        raise UsageError(
            f"{text!r} can't stand in a unit: it needs to be a full path without quotation marks and backslashes.",
            hint="Move the folder, for instance to /srv/newsletter.",
        )
    return text


def _literal(text: str) -> str:
    """A percent sign begins a specifier (systemd.unit(5)). The colon of ``ExecStart=:`` keeps dollars as they are."""
    return text.replace("%", "%%")


def _quoted(text: str) -> str:
    return f'"{_literal(text)}"' if re.search(r"[^\w/.%+@:,~-]", text) else _literal(text)


def cron_lines(project: Path, program: Path) -> str:
    """The same two times for ``crontab -e``; cron mails what goes wrong to MAILTO. Paths are absolute.

    Pages are not in it: cron starts nothing again that has died.
    """
    call = f"{shlex.quote(str(program))} --project {shlex.quote(str(project))}"
    call = call.replace("%", r"\%")  # which would be a line end (crontab(5))
    return f"*/5 * * * * {call} run --once\n17 3 * * * {call} db backup --keep {BACKUPS}\n"

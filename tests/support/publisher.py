"""A publisher's folder for a test: settings, keys, one issue, and people."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import delete

from newsletter import config, wiring
from newsletter.cli.main import main
from newsletter.store import instance
from newsletter.store.engine import open_engine, write
from newsletter.store.schema import meta

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sqlalchemy import Connection

ROOT = Path(__file__).resolve().parents[2]

TOML = """
[newsletter]
name = "Research Digest"
full_name = "Multiple Sclerosis Research Digest"
from = "digest@example.org"
reply_to = "editor@example.org"
base_url = "https://news.example.org"
postal_address = "1 Example Street, Example Town"
list_id = "digest.example.org"
"""

ISSUE = """
subject = "Iron in the thalamus"
preheader = "A finding that held across many methods"
date = 2026-12-01
number = 12
[lead]
title = "Less iron, however you look"
[lead.source]
title = "A paper"
url = "https://example.org/paper"
[[related]]
title = "Gut bacteria"
text = "What they may mean for daily life."
url = "https://example.org/gut"
date = 2026-11-30
"""

LEAD = """## What was found

The level was lower.

## Why it matters

It may help doctors.

## What it does not show

Single people may differ.
"""

KEYS = "NEWSLETTER_SECRET_KEYS=1:{signing}\nNEWSLETTER_ADDRESS_KEY={address}\n"
A_KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE"  # 32 bytes, base64url


@contextmanager
def environment(extra: Mapping[str, str]) -> Iterator[None]:
    """Only these settings in the environment: no secret of the person who runs the tests may leak in."""
    ours = ("NEWSLETTER_", "SENDGRID_", "SMTP_", "DATABASE_URL")
    before = dict(os.environ)
    for name in [name for name in before if name.startswith(ours)]:
        del os.environ[name]
    os.environ.update(extra)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@dataclass
class Publisher:
    """A project folder and the command run in it."""

    root: Path
    environ: dict[str, str] = field(default_factory=dict)

    def newsletter(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs the real command, here: a process of its own would cost a second of imports each time."""
        out, err = io.StringIO(), io.StringIO()
        call = ["--project", str(self.root), *args]
        with redirect_stdout(out), redirect_stderr(err), environment(self.environ):
            code = main(call)
        done = subprocess.CompletedProcess(call, code, out.getvalue(), err.getvalue())
        assert not check or code == 0, f"{args}: {code}\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, *args: str, within: str = "") -> subprocess.Popen[str]:
        """Starts the real command and lets it run; ``within`` are the shell's words for its limits."""
        pipe, call = subprocess.PIPE, self.command(*args)
        if within:
            call = ["sh", "-c", f'{within} && exec "$@"', "sh", *call]
        return subprocess.Popen(call, stdout=pipe, stderr=pipe, text=True, env=self.env())

    def command(self, *args: str) -> list[str]:
        """The call, with this folder as the project."""
        return [sys.executable, "-m", "newsletter", "--project", str(self.root), *args]

    def env(self) -> dict[str, str]:
        """A clean environment: no secret of the person who runs the tests may leak in."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return kept | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"} | self.environ

    def configure(self, extra: str) -> None:
        """newsletter.toml with these sections behind [newsletter]."""
        (self.root / "newsletter.toml").write_text(TOML + extra, encoding="utf-8")

    def set(self, **values: str) -> None:
        """More in newsletter.toml's first section."""
        file = self.root / "newsletter.toml"
        lines = "".join(f'{name} = "{text}"\n' for name, text in values.items())
        toml = file.read_text(encoding="utf-8")
        file.write_text(toml.replace("[newsletter]\n", f"[newsletter]\n{lines}", 1), encoding="utf-8")

    def import_people(self, people: Iterable[tuple[str, str]], *args: str) -> None:
        """Brings (address, name) pairs onto the list."""
        file = self.root / "people.csv"
        rows = "".join(f'{address},"{name}"\n' for address, name in people)
        file.write_text("email,name\n" + rows, encoding="utf-8")
        self.newsletter("subscribers", "import", str(file), "--list", "readers", "--apply", *args)

    def move_in(self) -> None:
        """Makes the database at home in this folder: for a copy that stands for the original."""
        settings = config.load(self.root, self.environ)
        engine = open_engine(settings.database_url)

        def forget(conn: Connection) -> None:
            conn.execute(delete(meta).where(meta.c.key == instance.KEY))
            instance.welcome(conn, wiring.home(settings, conn))

        write(engine, forget)
        engine.dispose()

    @property
    def outbox(self) -> Path:
        """Where the folder transport puts the issue's copies."""
        return self.root / ".newsletter" / "outbox" / "2026-12"


def publisher(root: Path, extra: str = "", environ: Mapping[str, str] | None = None) -> Publisher:
    """Makes the folder."""
    made = Publisher(root, dict(environ or {}))
    folder = root / "issues" / "2026-12"
    folder.mkdir(parents=True)
    made.configure(extra)
    env = root / ".env"
    env.touch(0o600)
    env.write_text(KEYS.format(signing=A_KEY, address=A_KEY))
    (folder / "issue.toml").write_text(ISSUE)
    (folder / "lead.md").write_text(LEAD)
    return made


def crowd(count: int) -> list[tuple[str, str]]:
    """That many people."""
    return [(f"reader{number:05}@example.org", f"Reader {number}") for number in range(count)]

"""The command ``newsletter``: the table of commands, the folder they work in, and how errors are told.

Only click and a little of the standard library are imported here. A command's module is imported when the command
is called, so that ``newsletter --help`` answers at once and ``build`` never loads the database.
"""

from __future__ import annotations

import gc
import os
import select
import sys
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import click

from newsletter import __version__
from newsletter.cli import output
from newsletter.errors import ConfigError, NewsletterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sqlalchemy import Engine

    from newsletter.config import Settings

INTERRUPTED = 130  # what shells report for Ctrl-C
PIPE_CLOSED = 141  # … and for a reader that went away: `newsletter deliveries 2026-12 | head -1`
BUG = 1
USAGE = 2


class Entry(NamedTuple):
    """Where a command lives, and its line in ``newsletter --help``."""

    module: str  # in newsletter.cli; the command has its own name there
    help: str  # the first sentence of the command's docstring; a test compares the two


# In the order of the story, which is also the order of the help page.
SECTIONS: Mapping[str, Mapping[str, Entry]] = {
    "Write": {
        "init": Entry("project", "Make a publisher's folder, or the keys that sign its links."),
        "new": Entry("writing", "Start the next issue, with comments that explain each field."),
        "preview": Entry("writing", "Show an issue in the browser while you write it."),
        "check": Entry("writing", "Say what must be mended before an issue can be sent."),
        "build": Entry("writing", "Write an issue as index.html, large.html, index.txt and message.eml."),
        "templates": Entry("writing", "List the templates, or take one over to change it."),
    },
    "Readers": {
        "subscribers": Entry(
            "readers", "Import, export, list, show, add, unsubscribe, erase and explain readers."
        ),
        "suppressions": Entry("readers", "Manage the addresses that never get mail again."),
        "lists": Entry("readers", "Show the lists and how many readers each has."),
        "serve": Entry("serving", "Serve the pages where readers sign up, choose and leave."),
    },
    "Send": {
        "proof": Entry("proof", "Send a marked test copy to an address of yours."),
        "diff": Entry("differences", "Show what has changed for readers since an approval or a commit."),
        "approve": Entry("approving", "Say that these very bytes may go, or show who has."),
        "send": Entry("sending", "Send an issue to a list, or go on where it stopped."),
        "schedule": Entry("dates", "Show the next twelve dates, and which issue goes with each."),
        "run": Entry("running", "Send what is due, and tell the editors what is not ready."),
        "status": Entry("campaigns", "Show how far each campaign has come."),
        "deliveries": Entry("campaigns", "Show what happened to every copy of an issue."),
        "pause": Entry("campaigns", "Stop a campaign for now; what has left stays recorded."),
        "resume": Entry("campaigns", "Lift a pause, so that send can go on."),
        "cancel": Entry("campaigns", "End a campaign for good; waiting copies are skipped."),
        "resolve": Entry("resolving", "Decide what becomes of unknown copies."),
    },
    "Look after": {
        "doctor": Entry(
            "doctor", "Look at everything that must be right before an issue goes out by itself."
        ),
        "config": Entry("project", "Print every setting in effect and where it came from."),
        "drill": Entry(
            "drill", "Kill a throw-away sender again and again, and see whether the ledger is true."
        ),
        "dkim": Entry("dkim", "Make the keys that sign your mail, and print their DNS records."),
        "db": Entry("database", "Create, upgrade, check, back up, restore or claim the database."),
    },
}
COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


class Project:
    """The publisher's folder a command works in. Nothing is searched or read before it is asked for."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder  # what --project said; None: look for it from the current folder upwards

    @cached_property
    def root(self) -> Path:
        """The folder that holds newsletter.toml. Raises ConfigError if there is none."""
        from pathlib import Path

        from newsletter.config import find_project

        if self.folder is None:
            return find_project(Path.cwd())
        if not (self.folder / "newsletter.toml").is_file():
            raise ConfigError(
                f"{self.folder} has no newsletter.toml, so it is not a publisher's folder.",
                hint=f"Name the folder that holds it, or make one: newsletter init {self.folder}",
            )
        return self.folder.resolve()

    @cached_property
    def settings(self) -> Settings:
        """newsletter.toml and the secrets. Raises ConfigError with every problem at once."""
        from newsletter.config import load

        settings = load(self.root, os.environ)
        for warning in settings.warnings:
            output.warn(warning)
        return settings

    @cached_property
    def _opened(self) -> Engine:
        """The database, made at first use and closed when the command ends. Raises ConfigError or DatabaseError."""
        from newsletter.wiring import open_store

        engine = open_store(self.settings)
        click.get_current_context().call_on_close(engine.dispose)
        return engine

    @cached_property
    def store(self) -> Engine:
        """The database, for reading at least: one that is not at home here is warned of."""
        from newsletter.store.engine import fence

        if why := fence(self._opened):
            output.warn(f"{why} It can be read here, and nothing is written to it.")
        return self._opened

    @property
    def writable(self) -> Engine:
        """The same, for what should refuse before it asks anything. Raises ``NotAtHome``."""
        from newsletter.store.engine import refuse_fenced

        refuse_fenced(self._opened)
        return self._opened


def _use_folder(ctx: click.Context, _: click.Parameter, folder: str | None) -> None:
    if folder is not None:
        from pathlib import Path

        ctx.ensure_object(Project).folder = Path(folder)


def _project_option() -> click.Option:
    return click.Option(
        ["--project"],
        type=click.Path(exists=True, file_okay=False),
        metavar="DIR",
        help="The publisher's folder.  [default: the nearest one upwards with a newsletter.toml]",
        callback=_use_folder,
        expose_value=False,
    )


def _accept_project(command: click.Command) -> None:
    """Let ``--project`` stand after the command too: that is where people add it to a line they have."""
    if not any(option.name == "project" for option in command.params):
        command.params.append(_project_option())
    for child in command.commands.values() if isinstance(command, click.Group) else ():
        _accept_project(child)


class LazyGroup(click.Group):
    """A group that knows its commands' names and help from a table and imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"newsletter.cli.{COMMANDS[cmd_name].module}")
        command: click.Command = getattr(module, cmd_name)
        _accept_project(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"There is no command {args[0]!r}.{output.did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, COMMANDS))
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), entry.help) for name, entry in section.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    params=[_project_option()],
    epilog="Start with: newsletter init my-newsletter",
)
@click.version_option(__version__, prog_name="newsletter")
@click.pass_context
def app(ctx: click.Context) -> None:
    """Write an issue in plain files, see what inboxes make of it, and send everyone their own copy."""
    ctx.ensure_object(Project)


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (docs/cli.md); a command may return one itself.

    click's own ``main`` would end with 1 when the reader of a pipe goes away, and 1 means a bug here.
    """
    output.accept_any_text()
    try:
        return _invoke(sys.argv[1:] if args is None else list(args))
    except NewsletterError as error:
        output.print_error(error)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return USAGE
    except (KeyboardInterrupt, EOFError, click.Abort) as stopped:
        how_it_stands = f" {output.safe(str(stopped))}" if isinstance(stopped, KeyboardInterrupt) else ""
        click.echo(f"\nInterrupted.{how_it_stands.rstrip()}", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        return _after_broken_pipe()
    except Exception:  # the last line of defence: nothing may end without a word
        return _bug()


def _invoke(args: list[str]) -> int:
    try:
        with app.make_context("newsletter", args) as ctx:
            result: Any = app.invoke(ctx)
    except click.exceptions.Exit as ended:
        result = ended.exit_code
    sys.stdout.flush()
    return result if isinstance(result, int) else 0


def _after_broken_pipe() -> int:
    """Tell a reader that went away from a socket that broke: only the first is no bug."""
    if not _reader_is_gone():
        return _bug()
    _write_nowhere()
    return PIPE_CLOSED


def _write_nowhere() -> None:
    """The interpreter flushes once more at exit, would complain and end with 120: give it somewhere to write."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _reader_is_gone() -> bool:
    """Asks the system: writing again would not tell, because the failed write may have emptied the buffer."""
    try:
        poller = select.poll()
        poller.register(sys.stdout.fileno(), 0)
    except (AttributeError, OSError):  # no poll on Windows; no file behind a captured stdout
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poller.poll(0))


def _bug() -> int:
    import traceback

    traceback.print_exc()
    output.print_error(
        NewsletterError(
            "This is a bug in newsletter, not something you did.",
            hint="Please report it with the lines above; take out addresses and names first.",
        )
    )
    return BUG


def run() -> NoReturn:
    """The entry point of the command."""
    # Importing makes objects by the ten thousand and no garbage: looking for some took a tenth of a build.
    gc.set_threshold(100_000)
    code = main()
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # the command has ended with a code of its own, which scripts need
        _write_nowhere()
    sys.exit(code)

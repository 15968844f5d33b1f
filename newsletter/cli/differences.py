"""What has changed in an issue, in readers' terms: since it was approved, or since a commit."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from newsletter.cli import output
from newsletter.cli.campaigns import list_option
from newsletter.cli.writing import JSON
from newsletter.errors import ConfigError, ContentError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from newsletter.approval import Difference, Presented
    from newsletter.cli.main import Project
    from newsletter.comparing import Change
    from newsletter.config import Settings

TITLES = {
    "sender": "From",
    "subject": "Subject",
    "preheader": "Preheader",
    "text": "Text",
    "link": "Links",
    "teaser": "Teasers",
    "picture": "Pictures",
    "size": "Size",
}
MARKS = re.compile(r"(\[-.*?-\])|(\{\+.*?\+\})", re.DOTALL)
WIDEST = 100  # columns; longer lines are hard to read


@click.command(epilog="Example: newsletter diff 2026-12 HEAD")
@click.argument("slug")
@click.argument("rev", required=False)
@list_option
@JSON
@click.pass_obj
def diff(project: Project, slug: str, rev: str | None, list_name: str | None, *, as_json: bool) -> None:
    """Show what has changed for readers since an approval or a commit.

    Without REV, since it was last approved for the list. REV is a commit of git: its issue, templates and settings are
    rendered with the program of today. What was stands in [-…-], what is in {+…+}. Nothing is changed by looking.
    """
    from newsletter import wiring

    settings = project.settings
    list_name = list_name or settings.newsletter.list
    now = wiring.presented(settings, *wiring.compile_issue(settings, slug), list_name)
    if rev is None:
        since, difference = _since_approval(project, now)
    else:
        since, difference = _since_commit(settings, now, rev)
    if as_json:
        output.print_json(_plain(slug, since, difference))
        return
    output.say(f"{slug}, against {since}:")
    for line in lines(difference):
        output.say(line)


def _since_approval(project: Project, now: Presented) -> tuple[str, Difference]:
    from newsletter import approval

    given = approval.last(project.store, now.issue, now.list)
    return f"what was approved ({given.words})", now.since(given)


def _since_commit(settings: Settings, now: Presented, revision: str) -> tuple[str, Difference]:
    from newsletter import revisions

    with TemporaryDirectory(prefix="newsletter-") as folder:
        commit = revisions.take_out(settings.project, now.issue, revision, Path(folder))
        then = _rendered(Path(folder), now, revision)
    return f"{revision} (commit {commit[:12]})", now.against(then)


def _rendered(folder: Path, now: Presented, revision: str) -> Presented:
    """What was in git, through today's program. Its secrets and this machine's files are not needed for that."""
    from newsletter import config, wiring

    try:
        settings = config.load(folder, {}, leave_out=config.FILES_OF_THIS_MACHINE)
        return wiring.presented(settings, *wiring.compile_issue(settings, now.issue), now.list)
    except ContentError as error:
        raise ContentError(f"As it was at {revision}: {error}", error.findings, hint=error.hint) from None
    except ConfigError as error:
        raise UsageError(
            f"newsletter.toml as it was at {revision} can't be used: {error}", hint=error.hint
        ) from None


def lines(difference: Difference) -> Iterator[str]:
    """Everything, in readers' terms first; then the files and settings that it comes from."""
    part = ""
    for change in difference.changes:
        if change.part != part:
            part = change.part
            yield f"\n{TITLES[part]}"
        yield from _wrapped(change)
    if difference and not difference.changes:
        yield "No word, link or picture has changed: only how it looks, or how it is made."
    if not difference:
        yield "Nothing has changed: the bytes are the same."
        return
    yield "\nIt comes from"
    yield from (f"  {one.words}" for one in difference.breaks)


def _wrapped(change: Change) -> Iterator[str]:
    from newsletter.comparing import marked

    said = f"{change.name}: {marked(change)}" if change.name else marked(change)
    width = max(24, min(shutil.get_terminal_size().columns, WIDEST))
    text = textwrap.fill(
        output.safe(said),
        width,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    yield MARKS.sub(_coloured, text)


def _coloured(mark: re.Match[str]) -> str:
    return output.styled(mark[0], sys.stdout, fg="red" if mark[1] else "green")


def _plain(slug: str, since: str, difference: Difference) -> dict[str, Any]:
    return {
        "slug": slug,
        "since": since,
        "changed": bool(difference),
        "changes": [asdict(change) for change in difference.changes],
        "made_of": [{"part": one.part, "name": one.name} for one in difference.breaks],
    }

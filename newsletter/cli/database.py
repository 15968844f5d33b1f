"""Look after the database: create, upgrade and check it, back it up, restore a backup, take one over."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from newsletter.cli import output
from newsletter.cli.campaigns import ask
from newsletter.errors import DatabaseError, UsageError
from newsletter.model import CampaignState
from newsletter.store.database import RUNBOOK

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Engine

    from newsletter.cli.main import Project
    from newsletter.store.instance import Home

SHOWN = {
    "subscriber": "subscribers",
    "subscription": "subscriptions",
    "suppression": "suppressions",
    "campaign": "campaigns",
    "delivery": "deliveries",
}


@click.group(epilog="Example: newsletter db backup")
def db() -> None:
    """Create, upgrade, check, back up, restore or claim the database."""


@contextmanager
def _opened(project: Project) -> Iterator[tuple[Engine, Home]]:
    """The database as it is, and this place: nothing is made, claimed or fenced."""
    from newsletter import wiring
    from newsletter.store.engine import open_engine, read

    engine = open_engine(project.settings.database_url)
    try:
        yield engine, read(engine, partial(wiring.home, project.settings))
    finally:
        engine.dispose()


@db.command(epilog="Example: newsletter db upgrade")
@click.pass_obj
def upgrade(project: Project) -> None:
    """Bring the database to the form this version needs; make it if there is none."""
    from newsletter import wiring
    from newsletter.store import instance
    from newsletter.store.engine import SCHEMA, create_or_upgrade

    settings = project.settings
    before = create_or_upgrade(
        settings.database_url, lambda conn: instance.welcome(conn, wiring.home(settings, conn))
    )
    if before == SCHEMA:
        output.say(f"The database is up to date (schema {SCHEMA}): nothing was changed.")
    elif before:
        output.say(f"Upgraded the database from schema {before} to {SCHEMA}.")
    else:
        output.say(f"Made the database (schema {SCHEMA}).")
    output.next_steps("newsletter db check")


@db.command(epilog="Example: newsletter db check")
@click.pass_obj
def check(project: Project) -> None:
    """Look for damage in the database, and say where it is at home; changes nothing."""
    from newsletter.store import instance, promises
    from newsletter.store.engine import SCHEMA, health, read

    with _opened(project) as (engine, home):
        found = health(engine)
        damage = found.damage or read(engine, promises.broken)  # what is damaged may not even be counted
        why, generation = instance.look(engine, home)
    if damage:
        raise DatabaseError(
            "The database is damaged:" + "".join(f"\n  {line}" for line in damage),
            hint="Keep a copy of it as it is, and restore the last backup.",
        )
    for doubt in found.doubts:
        output.say(doubt)
    output.say(f"The database is sound: schema {SCHEMA}, {found.checked} checked.")
    if why:
        output.warn(f"{why} It can be read here, and nothing is written to it.")
        output.next_steps(f"read {RUNBOOK}", "newsletter db claim")
        return
    output.say(f"It is at home here: {home.place}, generation {generation}.")
    output.next_steps("newsletter status")


@db.command(epilog="Example: newsletter db backup --keep 30")
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    metavar="N",
    help="Then remove all but the newest N of .newsletter/backups/.",
)
@click.pass_obj
def backup(project: Project, file: Path | None, keep: int | None) -> None:
    """Write the whole database into one file, and prove it by restoring it.

    Nobody has to stop meanwhile, not even a campaign. Without FILE it goes into .newsletter/backups/, named after the
    time. From PostgreSQL, too, it is a SQLite file. The keys in .env are not in it: they need a copy of their own.
    """
    from newsletter import backup as backups

    if file and keep:
        raise UsageError("--keep is for .newsletter/backups/ only: leave FILE out.")
    engine, settings, now = project.store, project.settings, datetime.now(UTC)
    folder = settings.state_dir / "backups"
    made = backups.make(engine, file or folder / now.strftime(backups.NAME), now)
    output.say(
        f"Backed up into {made.file}: {_tell(made.counts)}; {made.size / 1e6:,.1f} MB in {made.seconds:.1f} s."
    )
    output.say("It was restored into a throw-away database, and every row was there.")
    for old in backups.prune(folder, keep, made.file) if keep else ():
        output.say(f"Removed {old.name}.")
    output.next_steps("copy it to another machine, and .env once: the keys are not in the backup")


def _tell(counts: Mapping[str, int]) -> str:
    """``3 subscribers, 3 subscriptions, …``."""
    known = ", ".join(f"{counts[one]:,} {one if counts[one] == 1 else many}" for one, many in SHOWN.items())
    return f"{known}; {sum(counts.values()):,} rows in all"


@db.command(epilog="Example: newsletter db restore 2026-11-29T030000Z.db")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.pass_obj
def restore(project: Project, file: Path) -> None:
    """Put a backup into an empty database.

    Into the one of DATABASE_URL, of whichever kind; it must have no rows yet, and .env the keys of the backup. Until
    `newsletter db claim` nothing is written to it.
    """
    from newsletter import backup as backups
    from newsletter import wiring
    from newsletter.store.engine import NEWEST_ENV, fingerprints, missing_key

    settings = project.settings
    settings.require_keys()
    keys = fingerprints(wiring.keyring(settings).keys, settings.address_key)
    # There, so that the next backup clears away what a restore that was killed has left: a copy of everybody.
    done = backups.restore(file, settings.database_url, settings.state_dir / "backups", keys=keys)
    output.say(f"Restored {file}: {_tell(done.counts)}.")
    output.say(
        f"It is what {done.facts['backup_of']} was at {done.facts['backup_at']}. What came later is not in it."
    )
    if missing := missing_key(done.facts, keys):
        output.warn(f"{missing} {NEWEST_ENV}")
    output.next_steps(f"read {RUNBOOK}", "newsletter status", "newsletter db claim")


@db.command(epilog="Example: newsletter db claim")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--put-back",
    is_flag=True,
    help="Also if it seems at home: the whole machine was put back to an earlier moment.",
)
@click.pass_obj
def claim(project: Project, *, yes: bool, put_back: bool) -> None:
    """Take over a database that was copied, moved or restored.

    Until then nothing is written to it, because what it was made from may have sent more since. Campaigns that were
    running are paused, and nothing that was due is sent by itself.
    """
    from newsletter.store import instance
    from newsletter.store.engine import name_of

    with _opened(project) as (engine, home):
        why, _ = instance.look(engine, home)
        if not why and not put_back:
            output.say(f"The database is at home here, {home.place}: nothing was changed.")
            return
        output.say(why or f"The database {name_of(engine)} seems to be at home here.")
        _tell_what_it_holds(engine)
        if not yes:
            ask("Is the other one switched off for good, and is this one to go on in its place?")
        if not instance.claim(engine, home, datetime.now(UTC), again=put_back):
            output.say("Another process has just claimed it: nothing was changed.")
            return
    _tell_claimed(home)


def _tell_what_it_holds(engine: Engine) -> None:
    from newsletter.store import campaigns, owners
    from newsletter.store.engine import read

    every = read(engine, campaigns.every)
    running, paused = (
        sum(one.state is state for one in every) for state in (CampaignState.RUNNING, CampaignState.PAUSED)
    )
    if every:
        output.say(
            f"Its last campaign: {every[0].label}, {every[0].state}, frozen {every[0].created_at:%Y-%m-%d %H:%M} UTC."
        )
    if last := read(engine, owners.newest):
        output.say(f"A sender wrote to it last at {last:%Y-%m-%d %H:%M:%S} UTC.")
    output.say(f"Campaigns that are running, and will be paused: {running}. Paused already: {paused}.")


def _tell_claimed(home: Home) -> None:
    output.say(f"The database is at home here now: {home.place}.")
    output.say("Every campaign that was running is paused. The other installation must never send again.")
    output.say("Who has left or was erased since this state of the database is not known here.")
    output.next_steps(f"read {RUNBOOK}, which says how to bring both right", "newsletter status")

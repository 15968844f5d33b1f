"""Where a database is at home. A copy, or a database that was put back, must never send what was sent already.

``meta`` holds the one place where the database may be written, and its *generation*: a number that is raised whenever
a sender begins, a campaign starts or ends, and after a backup. A second copy of the number, the *witness*, is a file
that putting the database back does not bring back. If it holds a higher number, the database is behind what was done
here.

An engine on a database that is not at home is fenced: ``engine.write`` raises ``NotAtHome``, and reading goes on.

The order of writes is what makes a kill harmless: the generation is committed first and witnessed after it, so that a
process that dies in between leaves a witness that is behind, and the next one to open the database mends that. Only
whoever takes a database over writes the witness first: killed in between, it leaves the fence as it was.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import delete, select, update

from newsletter.errors import DatabaseError
from newsletter.model import CampaignState
from newsletter.store import facts, ledger
from newsletter.store.database import FENCE
from newsletter.store.engine import name_of, read, unfenced, write
from newsletter.store.schema import campaign, meta, owner, subscriber

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from sqlalchemy import Connection, Engine

T = TypeVar("T")

HOME = "newsletter_home"  # execution option of an engine: the Home that it was opened in

KEY, PLACE, GENERATION = "instance", "instance_place", "generation"
BACKUP_AT, BACKUP_OF = "backup_at", "backup_of"  # what marks a backup, until it is claimed
CLAIMED_AT = "claimed_at"  # the scheduler sends nothing that was due before

RESTORED = "the database was restored or moved: see what became of its copies before you go on"


@dataclass(frozen=True, slots=True)
class Witness:
    """The second copy of the generation."""

    file: Path
    required: bool  # whether it has to be there once the database is at home

    def read(self) -> int | None:
        """None if there is none, or none that can be read."""
        try:
            return int(self.file.read_text("ascii"))
        except (OSError, ValueError):
            return None

    def write(self, generation: int) -> None:
        """Whole or not at all, and on the disk before it has its name: an empty one would be a false alarm."""
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=self.file.parent, prefix=f".{self.file.name}-"
        )  # its mode is 0600
        try:
            with os.fdopen(handle, "w", encoding="ascii") as out:
                out.write(f"{generation}\n")
                out.flush()
                os.fsync(out.fileno())
                self._give_to_its_folder_s_owner(out.fileno())
            Path(name).replace(self.file)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _give_to_its_folder_s_owner(self, descriptor: int) -> None:
        """One `sudo newsletter send` must not leave a witness that the service itself can't read."""
        folder = self.file.parent.stat()
        with suppress(OSError):  # whoever is not root may only keep what is theirs
            os.fchown(descriptor, folder.st_uid, folder.st_gid)


@dataclass(frozen=True, slots=True)
class Home:
    """A place where a database may be at home."""

    key: str  # a hash: the machine's number is not for showing, machine-id(5)
    place: str  # for people: /srv/digest/.newsletter/newsletter.db on mailer
    witness: Witness


def settle(engine: Engine, home: Home) -> None:
    """Says once, when a database is opened, whether it may be written; a new one is at home where it was made."""
    why, generation = look(engine, home)
    if why and read(engine, _is_new):
        write(engine, partial(welcome, home=home))
        why, generation = look(engine, home)
    engine.update_execution_options(**{HOME: home, FENCE: why})
    if not why:
        _bear_witness(home.witness, generation)


def look(engine: Engine, home: Home) -> tuple[str, int]:
    """Why the database is not at home here, empty if it is; and its generation. Changes nothing.

    What looks wrong is looked at once more: at the first use of a new database another process may have made it at
    home in between, and then the first look found no witness yet.
    """
    found = _look(engine, home)
    return _look(engine, home) if found[0] else found


def _look(engine: Engine, home: Home) -> tuple[str, int]:
    # In this order: read the other way round, a campaign that starts in between would look like a false restore.
    witnessed = home.witness.read()
    known = read(engine, facts.every)
    return _why_not(known, home, witnessed, name_of(engine)), _generation(known)


def _why_not(known: Mapping[str, str], home: Home, witnessed: int | None, name: str) -> str:
    if BACKUP_AT in known:
        return f"The database {name} is a backup of {known.get(BACKUP_OF)}, made at {known[BACKUP_AT]}."
    if KEY not in known:
        return f"The database {name} does not say where it is at home."
    if known[KEY] != home.key:
        was = known.get(PLACE, "another place")
        other = "another one of that name" if was == home.place else home.place
        return (
            f"The database {name} is a copy, or was moved: it was last at home at {was}, and this is {other}."
        )
    return _why_behind(known, home.witness, witnessed, name)


def _why_behind(known: Mapping[str, str], witness: Witness, witnessed: int | None, name: str) -> str:
    if witnessed is None and witness.required:
        return (
            f"The file {witness.file} is gone or can't be read, so nobody can say whether the database {name} "
            "was put back to an earlier state."
        )
    if _generation(known) < (witnessed or 0):
        return (
            f"The database {name} was put back to an earlier state: "
            f"it is in generation {_generation(known)}, and this place has seen generation {witnessed}."
        )
    return ""


def _generation(known: Mapping[str, str]) -> int:
    return int(known.get(GENERATION, 0))


def _is_new(conn: Connection) -> bool:
    """Nobody has said where it is at home, and there is nothing in it that could be sent twice."""
    if conn.scalar(select(meta.c.value).where(meta.c.key.in_([KEY, BACKUP_AT]))) is not None:
        return False
    return all(conn.execute(select(table.c.id).limit(1)).first() is None for table in (campaign, subscriber))


def welcome(conn: Connection, home: Home) -> None:
    """The database is at home here, if nobody has said otherwise. For a new one, or one that never knew a home."""
    known = facts.every(conn)
    if KEY not in known and BACKUP_AT not in known:
        _move_in(conn, home, known)


def _move_in(conn: Connection, home: Home, known: Mapping[str, str]) -> None:
    generation = max(_generation(known), home.witness.read() or 0) + 1
    try:
        home.witness.write(generation)
    except OSError as error:
        raise DatabaseError(
            f"{home.witness.file} can't be written: {error.strerror}.", hint="Check its folder, and the disk."
        ) from error
    said = {KEY: home.key, PLACE: home.place, GENERATION: str(generation)}
    facts.remember(conn, said)


def advance(engine: Engine, fn: Callable[[Connection], T]) -> T:
    """``write`` for what must not be undone unnoticed: raises the generation in the same transaction."""

    def act(conn: Connection) -> tuple[T, int]:
        done = fn(conn)
        return done, _raise_generation(conn)

    done, generation = write(engine, act)
    home: Home | None = engine.get_execution_options().get(HOME)
    if home is not None:
        _bear_witness(home.witness, generation)
    return done


def _raise_generation(conn: Connection) -> int:
    """Every writer but the senders' shared ones has the database for itself, so nobody counts at the same time."""
    generation = _generation(facts.every(conn)) + 1
    conn.execute(update(meta).where(meta.c.key == GENERATION).values(value=str(generation)))
    return generation


def _bear_witness(witness: Witness, generation: int) -> None:
    """A full disk is no reason to hold a campaign: a witness that is behind is mended when the database is opened."""
    if (witness.read() or 0) < generation:
        with suppress(OSError):
            witness.write(generation)


def claim(engine: Engine, home: Home, now: datetime, *, again: bool = False) -> bool:
    """Takes a database over, in one transaction; False, and nothing done, if it is at home here and not ``again``.

    No campaign goes on by itself: those that run are paused, for a person who knows what has left since. Senders that
    the database takes for living are ended, and the scheduler sends nothing that was due before ``now``. ``again`` is
    for what leaves no trace: a whole machine, or a whole server, that was put back to an earlier moment.
    """

    def take(conn: Connection) -> bool:
        known = facts.every(conn)
        if not again and not _why_not(known, home, home.witness.read(), ""):
            return False
        _stop_everything(conn, now)
        conn.execute(delete(meta).where(meta.c.key.in_([BACKUP_AT, BACKUP_OF])))
        facts.remember(conn, {CLAIMED_AT: now.isoformat(timespec="seconds")})
        _move_in(conn, home, known)
        return True

    taken = write(unfenced(engine), take)
    engine.update_execution_options(**{HOME: home, FENCE: ""})
    return taken


def _stop_everything(conn: Connection, now: datetime) -> None:
    running = campaign.c.state == CampaignState.RUNNING
    conn.execute(update(campaign).where(running).values(state=CampaignState.PAUSED, reason=RESTORED))
    preparing = campaign.c.state == CampaignState.PREPARING
    conn.execute(update(campaign).where(preparing).values(owner=None))
    conn.execute(update(owner).where(owner.c.ended_at.is_(None)).values(ended_at=now))
    ledger.orphaned(
        conn, now
    )  # at once, so that the waiting and the unknown can be listed before anybody sends

"""Who has approved the very bytes that are to go, and whether that still counts.

An approval is kept with its seal. It counts while the issue, compiled now, has the same one: any byte of it, of the
templates, of the program, of what copies say of their sender, or another list, voids it (docs/decisions/0032). A role's
last word counts and none before it, so that who withdraws does not fall back on what was approved earlier.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from newsletter import addresses, comparing, seals
from newsletter.comparing import Snapshot
from newsletter.errors import NotApproved, Refused, UsageError
from newsletter.model import Approval, CampaignState, Kind, Role
from newsletter.store import approvals, campaigns
from newsletter.store.engine import read, write

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Engine

    from newsletter.comparing import Change
    from newsletter.model import Campaign
    from newsletter.seals import Break, Seal

NAMED = 6  # things that changed, in a refusal; `newsletter diff` shows all
EXCERPTS = 3  # changes that a refusal shows
NEAR = 5  # words at both ends of each run in them
ADDRESS = re.compile(r"[^\s@(\[{]+@[\w-]+(?:\.[\w-]+)*")
LONGEST_NAME = 100


@dataclass(frozen=True, slots=True)
class Presented:
    """What a person says yes to: an issue as it is compiled now, for a list."""

    issue: str
    list: str
    digest: str
    seal: Seal
    snapshot: Snapshot

    def since(self, given: Approval) -> Difference:
        """What has changed since it was approved."""
        return self._since(given.seal, Snapshot.from_json(given.snapshot))

    def against(self, earlier: Presented) -> Difference:
        """What has changed since it was like this."""
        return self._since(earlier.seal, earlier.snapshot)

    def _since(self, seal: Seal, snapshot: Snapshot) -> Difference:
        breaks = seals.breaks(seal, self.seal)
        return Difference(breaks, comparing.compare(snapshot, self.snapshot) if breaks else ())

    def to(self, list_name: str) -> Presented:
        """The same for another list."""
        return replace(self, list=list_name, seal={**self.seal, "audience": {"list": list_name}})


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs between two states of an issue: in what it is made of, and in what readers get."""

    breaks: Sequence[Break] = ()
    changes: Sequence[Change] = ()

    def __bool__(self) -> bool:
        return bool(self.breaks)

    @property
    def words(self) -> str:
        """In one line: ``the subject (“A”, now “B”), 2 passages; in issues/2026-12/issue.toml``."""
        seen, made_of = comparing.brief(self.changes), [one.words for one in self.breaks]
        if len(made_of) > NAMED:
            made_of[NAMED - 1 :] = [f"{len(made_of) - NAMED + 1} more"]
        return f"{', '.join(seen)}; in {', '.join(made_of)}" if seen else ", ".join(made_of)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a role stands to what is presented."""

    role: str
    last: Approval | None
    difference: Difference

    @property
    def counts(self) -> bool:
        """Whether this role has approved just this."""
        return self.last is not None and self.last.withdrawn_at is None and not self.difference

    @property
    def words(self) -> str:
        """``editor: Ann Example, 2026-11-28 10:12 UTC``, and why that does not count if it does not."""
        if self.last is None:
            return f"{self.role}: nobody yet"
        if self.last.withdrawn_at is not None:
            return f"{self.last.words}, withdrawn {self.last.withdrawn_at:%Y-%m-%d %H:%M} UTC"
        return (
            f"{self.last.words}, void since this changed: {self.difference.words}"
            if self.difference
            else self.last.words
        )


def look(conn: Connection, presented: Presented) -> list[Standing]:
    """Every role's standing."""
    given = approvals.of_issue(conn, presented.issue)
    return [_standing(role, [one for one in given if one.role == role], presented) for role in Role]


def _standing(role: Role, given: Sequence[Approval], presented: Presented) -> Standing:
    """An approval for another list is named only where there is none for this one."""
    mine = [one for one in given if one.list == presented.list]
    valid = [one for one in given if one.withdrawn_at is None]
    last = next(reversed(mine or valid), None)
    return Standing(role, last, presented.since(last) if last and last.withdrawn_at is None else Difference())


def check(conn: Connection, presented: Presented, required: Collection[str]) -> list[str]:
    """Who has approved just this, in words. Raises ``NotApproved`` if a required role has not."""
    standings = look(conn, presented)
    missing = [one for one in standings if one.role in required and not one.counts]
    if missing:
        raise _not_approved(presented, missing)
    return [one.words for one in standings if one.counts]


def _not_approved(presented: Presented, missing: Sequence[Standing]) -> NotApproved:
    issue = f"{presented.issue} --list {presented.list}"
    reasons = "".join(f"\n    {line}" for one in missing for line in (one.words, *_excerpts(one.difference)))
    commands = [f"`newsletter approve {issue} --role {one.role} --by NAME`" for one in missing]
    look_first = (
        f"`newsletter diff {issue}` shows what changed; " if any(one.difference for one in missing) else ""
    )
    return NotApproved(
        f"issues/{presented.issue} is not approved for the list {presented.list}, and nothing was sent.{reasons}",
        hint=f"{look_first}{' and '.join(commands)} approve{'s' if len(missing) == 1 else ''} it.",
    )


def _excerpts(difference: Difference) -> list[str]:
    """The first changes that are not named in full already, in readers' words, for a message that may be mailed."""
    shown = [one for one in difference.changes if one.part in comparing.COUNTED][:EXCERPTS]
    said = [f"{one.part}: {comparing.marked(one, near=NEAR)}" for one in shown]
    return [f"    {ADDRESS.sub(lambda found: addresses.mask(found[0]), line)}" for line in said]


def approve(engine: Engine, presented: Presented, role: Role, name: str, now: datetime) -> Approval:
    """Records a person's yes. Raises ``Refused`` once the campaign has begun: its bytes are frozen."""
    given = Approval(
        issue=presented.issue,
        list=presented.list,
        role=role,
        name=name,
        at=now,
        digest=presented.digest,
        seal=presented.seal,
        snapshot=presented.snapshot.to_json(),
    )
    write(engine, lambda conn: _approve(conn, given))
    return given


def _approve(conn: Connection, given: Approval) -> None:
    if begun := _begun(conn, given.issue, given.list):
        raise Refused(
            f"{begun.label} has begun, so there is nothing left to approve.",
            hint=f"`newsletter status {given.issue}` shows who had approved it.",
        )
    approvals.add(conn, given)


def _begun(conn: Connection, issue: str, list_name: str) -> Campaign | None:
    found = campaigns.find(conn, issue, list_name, Kind.LIVE)
    return found if found and found.state is not CampaignState.PREPARING else None


def withdraw(
    engine: Engine, issue: str, list_name: str, role: Role, now: datetime, *, by: str = ""
) -> tuple[Approval, Campaign | None]:
    """Takes a role's last approval back; returns it, and the campaign that it comes too late for.

    With ``by`` only if it is that person's. Raises ``Refused`` if there is none to take back.
    """
    return write(engine, lambda conn: _withdraw(conn, (issue, list_name, role), now, by))


def _withdraw(
    conn: Connection, which: tuple[str, str, Role], now: datetime, by: str
) -> tuple[Approval, Campaign | None]:
    issue, list_name, role = which
    given = [one for one in approvals.of_issue(conn, issue) if (one.issue, one.list, one.role) == which]
    if not given or not approvals.withdraw(conn, given[-1].id, now):
        raise Refused(f"{issue} has no approval as {role} for the list {list_name} that could be withdrawn.")
    if by and by != given[-1].name:
        raise Refused(f"the last approval is {given[-1].words}, and not that of {by}.")
    return given[-1], _begun(conn, issue, list_name)


def last(engine: Engine, issue: str, list_name: str) -> Approval:
    """The newest approval that nobody has withdrawn, whoever gave it. Raises ``UsageError`` if there is none."""
    given: Iterable[Approval] = read(engine, lambda conn: approvals.of_issue(conn, issue))
    valid = [one for one in given if one.list == list_name and one.withdrawn_at is None]
    if not valid:
        raise UsageError(
            f"{issue} has no approval for the list {list_name}, so there is nothing to compare with.",
            hint=f"`newsletter diff {issue} HEAD` compares with the last commit.",
        )
    return valid[-1]


def name_of(text: str) -> str:
    """A person's name in one line. Raises ``UsageError`` for none, and for an address: names are shown to others."""
    name = " ".join(text.split())
    if not name or len(name) > LONGEST_NAME or "@" in name:
        raise UsageError(
            f"--by takes the name of a person, not empty, of at most {LONGEST_NAME} characters and no address.",
            hint='For instance: --by "Ann Example"',
        )
    return name

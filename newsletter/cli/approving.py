"""A person says that an issue may go, takes that back, or looks who has said so."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import click

from newsletter.cli import output, planning
from newsletter.cli.campaigns import list_option
from newsletter.errors import UsageError
from newsletter.model import CampaignState, Role, short

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from newsletter.approval import Presented
    from newsletter.cli.main import Project
    from newsletter.model import Approval, Email, Finding


@click.command(epilog='Example: newsletter approve 2026-12 --by "Ann Example" --role medical')
@click.argument("slug")
@click.option("--by", metavar="NAME", help="Who says so; it is kept, and shown to others.")
@click.option("--role", type=click.Choice([role.value for role in Role]), help="As what.")
@list_option
@click.option("--withdraw", is_flag=True, help="Take the role's last approval back.")
@click.option("--show", is_flag=True, help="Show who has approved it, and whether that still counts.")
@click.pass_obj
def approve(
    project: Project,
    slug: str,
    by: str | None,
    role: str | None,
    list_name: str | None,
    *,
    withdraw: bool,
    show: bool,
) -> None:
    """Say that these very bytes may go, or show who has.

    An approval covers the compiled issue, everything it is made of, what copies say of their sender, and the list. When
    a byte of any of it changes, it does not count any more. Without --by and --role, shows all approvals of the issue.
    """
    from newsletter import approval

    list_name = list_name or project.settings.newsletter.list
    given = by is not None or role is not None or withdraw
    if show and given:
        raise UsageError("--show only shows, and takes none of --by, --role and --withdraw.")
    if not given:
        _show(project, slug, list_name)
        return
    if role is None or (by is None and not withdraw):
        raise UsageError("an approval needs --by NAME and --role, to withdraw one --role.")
    name = "" if by is None else approval.name_of(by)
    if withdraw:
        _withdraw(project, (slug, list_name, Role(role)), name)
    else:
        _approve(project, (slug, list_name, Role(role)), name)


def _approve(project: Project, which: tuple[str, str, Role], name: str) -> None:
    from newsletter import approval, subscriptions, wiring
    from newsletter.store import approvals
    from newsletter.store.engine import read

    slug, list_name, role = which
    subscriptions.check_list(project.store, list_name)
    issue, editions, findings = planning.sound(project.settings, slug)
    presented = wiring.presented(project.settings, issue, editions, list_name)
    before = read(project.store, partial(approvals.of_issue, issue=slug))
    _tell_issue(presented, editions, findings)
    _tell_changes(presented, [one for one in before if (one.issue, one.list, one.role) == which])
    given = approval.approve(project.store, presented, role, name, datetime.now(UTC))
    output.say(f"Approved for the list {list_name}. {given.words}")
    _tell_what_is_missing(project, presented, given)


def _tell_issue(presented: Presented, editions: Sequence[Email], findings: Sequence[Finding]) -> None:
    sizes = ", ".join(f"{edition} {size:,}" for edition, size in presented.snapshot.sizes.items() if size)
    rows = [
        ("issue", presented.issue),
        ("to", f"list {presented.list}"),
        ("subject", presented.snapshot.subject),
        ("digest", short(presented.digest)),
        ("html", f"{sizes} bytes"),
        ("text", f"{len(editions[0].text.encode()):,} bytes"),
        ("found", output.count_findings(findings)),
    ]
    for label, value in rows:
        output.say(f"{label:>10}  {value}")
    output.print_findings(finding for finding in findings if finding.waived)


def _tell_changes(presented: Presented, earlier: Sequence[Approval]) -> None:
    from newsletter.cli import differences

    if not earlier:
        return
    output.say(f"Since it was approved last ({earlier[-1].words}):")
    for line in differences.lines(presented.since(earlier[-1])):
        output.say(line)
    output.say()


def _tell_what_is_missing(project: Project, presented: Presented, given: Approval) -> None:
    from newsletter import approval
    from newsletter.store.engine import read

    standings = read(project.store, partial(approval.look, presented=presented))
    same = [one.role for one in standings if one.counts and one.last and one.last.name == given.name]
    if len(same) > 1:
        output.warn(f"{given.name} has approved it as {' and as '.join(same)}: nobody else has looked at it.")
    missing = [
        one.role for one in standings if one.role in project.settings.approval.require and not one.counts
    ]
    approve_too = f"newsletter approve {presented.issue} --list {presented.list} --by NAME --role"
    send = f"newsletter send {presented.issue} --list {presented.list} --dry-run"
    output.next_steps(*([f"{approve_too} {role}" for role in missing] or [send]))


def _withdraw(project: Project, which: tuple[str, str, Role], name: str) -> None:
    from newsletter import approval

    slug, list_name, role = which
    taken, begun = approval.withdraw(project.store, slug, list_name, role, datetime.now(UTC), by=name)
    output.say(f"Withdrawn for the list {list_name}. {taken.words}")
    if begun is None:
        output.next_steps(f"newsletter approve {slug} --list {list_name}")
        return
    output.warn(f"{begun.label} has begun already (it is {begun.state}), and withdrawing does not stop it.")
    running = begun.state is CampaignState.RUNNING
    output.next_steps(f"newsletter pause {begun.arguments}" if running else f"newsletter status {slug}")


def _show(project: Project, slug: str, list_name: str) -> None:
    from newsletter import approval, wiring
    from newsletter.store import approvals
    from newsletter.store.engine import read

    presented = wiring.presented(project.settings, *wiring.compile_issue(project.settings, slug), list_name)
    given = read(project.store, partial(approvals.of_issue, issue=slug))
    output.say(f"{slug} as it is now: digest {short(presented.digest)}.")
    if given:
        rows = [(one.list, one.role, one.name, f"{one.at:%Y-%m-%d %H:%M} UTC") for one in given]
        counts = _counts(given, presented)
        output.print_table(
            ("list", "role", "name", "approved", "digest", "counts"),
            [(*row, short(one.digest), count) for row, one, count in zip(rows, given, counts, strict=True)],
        )
    else:
        output.say("Nobody has approved it.")
    standings = read(project.store, partial(approval.look, presented=presented))
    for one in standings:
        if one.role in project.settings.approval.require and not one.counts:
            output.say(f"Needed for the list {list_name}: {one.words}.")
    output.next_steps(f"newsletter approve {slug} --list {list_name} --by NAME --role ROLE")


def _counts(given: Sequence[Approval], presented: Presented) -> Iterator[str]:
    """``yes``, or why not; a role's last word about a list is the one that counts."""
    last = {(one.list, one.role): one.id for one in given}
    for one in given:
        if one.withdrawn_at is not None:
            yield f"no: withdrawn {one.withdrawn_at:%Y-%m-%d %H:%M} UTC"
        elif last[one.list, one.role] != one.id:
            yield "no: a later one took its place"
        else:
            difference = presented.to(one.list).since(one)
            yield f"no: since then changed {difference.words}" if difference else "yes"

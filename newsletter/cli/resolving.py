"""Unknown copies: list what is known of each, and do what a person decides."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from newsletter.cli import output, streaming
from newsletter.cli.campaigns import kind_option, latest, list_option, summary, tally, times
from newsletter.errors import Occupied, Refused, UnknownDeliveries, UsageError
from newsletter.model import CampaignState, DeliveryState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from newsletter.cli.main import Project
    from newsletter.model import Campaign
    from newsletter.resolving import Resolution, Way
    from newsletter.store.doubts import Doubt

WAYS_OUT = """
Search your provider's log for the copy's id: it is the left part of its Message-ID. The id alone proves nothing (some
log it before they have the whole copy); a line that says queued or delivered does. Then decide:
  --resend           The copy leaves once more, with the same Message-ID. Who got the first one may get two.
  --assume-accepted  Nothing leaves, and the doubt is closed. Who did not get the first one gets none."""

OUTBOX_TELLS = """
A copy in a folder leaves its file behind. Where there is one, --assume-accepted is right; where there is none,
--resend is, and writes it under the same name."""


@click.command(epilog="Example: newsletter resolve 2026-12 zoe@example.org --resend")
@click.argument("slug")
@click.argument("chosen", nargs=-1, metavar="[ADDRESS]...")
@click.option("--all", "everyone", is_flag=True, help="Every unknown copy of this campaign.")
@click.option("--resend", is_flag=True, help="Send these copies once more.")
@click.option("--assume-accepted", is_flag=True, help="Send nothing, and close the doubt.")
@click.option(
    "--confirm", type=click.IntRange(min=0), metavar="N", help="Yes, to N copies; without it you are asked."
)
@list_option
@kind_option
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.pass_obj
def resolve(
    project: Project,
    slug: str,
    chosen: tuple[str, ...],
    list_name: str | None,
    kind: str | None,
    confirm: int | None,
    *,
    everyone: bool,
    resend: bool,
    assume_accepted: bool,
    as_json: bool,
) -> int:
    """Decide what becomes of unknown copies.

    Without --resend or --assume-accepted, lists them with all that is known, and ends with exit code 7 when there is
    one. Of the latest campaign of that issue, live before rehearsal.
    """
    way = _way(resend=resend, assume_accepted=assume_accepted)
    _check_call(way, chosen, everyone=everyone, confirm=confirm)
    campaign = latest(project, slug, list_name, kind)[0]
    _bury_the_dead(project, campaign)
    if way is None:
        return _list(project, campaign, as_json=as_json)
    _decide(project, _plan(project, campaign, way, chosen), confirm, as_json=as_json)
    return 0


def _way(*, resend: bool, assume_accepted: bool) -> Way | None:
    from newsletter.resolving import Way

    if resend and assume_accepted:
        raise UsageError("a copy is either resent or assumed accepted.", hint="Give one of the two.")
    if not resend and not assume_accepted:
        return None
    return Way.RESEND if resend else Way.ASSUME_ACCEPTED


def _check_call(way: Way | None, chosen: Sequence[str], *, everyone: bool, confirm: int | None) -> None:
    if way is None and (chosen or everyone or confirm is not None):
        raise UsageError(
            "nothing says what should become of these copies.",
            hint="Add --resend or --assume-accepted. Without addresses, --all and --confirm, the unknown are listed.",
        )
    if way is not None and everyone == bool(chosen):
        raise UsageError(
            "which copies are meant? Give addresses, or --all, and not both."
            if everyone
            else "no copy is named.",
            hint=f"newsletter resolve SLUG ADDRESS --{way}, or newsletter resolve SLUG --all --{way}",
        )


def _bury_the_dead(project: Project, campaign: Campaign) -> None:
    """What a dead process had handed over is unknown too, and says so only once somebody has looked.

    A process that is at work has looked when it began, and only its own copies are still handed.
    """
    from newsletter import recovery, wiring
    from newsletter.store import owners

    counts = tally(project.store, campaign)
    if not counts.get(DeliveryState.HANDED) and not counts.get(DeliveryState.CLAIMED):
        return
    lock_path = wiring.lock_path(project.settings)
    owner = owners.own(project.store, lock_path, name=wiring.whoami(), way="", clock=_now)
    try:
        with owner as mine:
            recovery.recover(project.store, mine, _now())
    except Occupied:
        pass


def _list(project: Project, campaign: Campaign, *, as_json: bool) -> int:
    """The exit code is that of ``send``, so that a script can tell."""
    from newsletter import resolving

    doubts = resolving.listed(project.store, campaign)
    unknown = _unknown(project, campaign)
    outbox = _outbox(project, campaign)
    if as_json:
        streaming.print_json_array(_json(doubt, _evidence(doubt, outbox)) for doubt in doubts)
    elif not unknown:
        _tell_nothing_unknown(campaign)
    else:
        output.say(f"{campaign.label}: nobody can say whether {_copies(unknown)} arrived.\n")
        rows = (_row(doubt, _evidence(doubt, outbox)) for doubt in doubts)
        streaming.print_table(("address", "copy", "handed", "on its way to", "why", "evidence"), rows)
        output.say(WAYS_OUT if outbox is None else OUTBOX_TELLS)
        output.next_steps(
            f"newsletter resolve {campaign.arguments} ADDRESS --resend",
            f"newsletter resolve {campaign.arguments} --all --assume-accepted",
        )
    return UnknownDeliveries.exit_code if unknown else 0


def _unknown(project: Project, campaign: Campaign) -> int:
    return tally(project.store, campaign).get(DeliveryState.UNKNOWN, 0)


def _tell_nothing_unknown(campaign: Campaign) -> None:
    output.say(f"{campaign.label}: nothing to resolve, no copy is unknown.")


def _copies(count: int) -> str:
    return "1 copy" if count == 1 else f"{count} copies"


def _outbox(project: Project, campaign: Campaign) -> Path | None:
    """Where the copies of a folder's campaign lie; None for those of the others, which nobody can look at."""
    from newsletter import wiring

    return wiring.outbox(project.settings, campaign.issue) if campaign.transport == "folder" else None


def _evidence(doubt: Doubt, outbox: Path | None) -> str:
    if doubt.receipt:
        return f"reported as {doubt.receipt}: it was accepted"
    if outbox is None:
        return "none"
    written = (outbox / f"{doubt.id.hex()}.eml").is_file()
    return "its file was written" if written else "no file was written"


def _row(doubt: Doubt, evidence: str) -> tuple[str, ...]:
    handed = f"{doubt.handed_at.astimezone():%Y-%m-%d %H:%M:%S}" if doubt.handed_at else ""
    return doubt.address or "(erased)", doubt.id.hex(), handed, doubt.server, doubt.reason, evidence


def _json(doubt: Doubt, evidence: str) -> dict[str, Any]:
    return {
        "id": doubt.id.hex(),
        "address": doubt.address,
        "name": doubt.name,
        **times(doubt, "handed_at"),
        "server": doubt.server,
        "sender": doubt.sender,
        "reason": doubt.reason,
        "receipt": doubt.receipt,
        "evidence": evidence,
    }


# What a person decides


def _plan(project: Project, campaign: Campaign, way: Way, chosen: Sequence[str]) -> Resolution:
    from newsletter import addresses, resolving

    if not chosen:
        return resolving.plan_all(project.store, campaign, way)
    try:
        keys = {addresses.key(address, project.settings.address_key): address for address in chosen}
    except ValueError as error:
        raise UsageError(str(error)) from None
    return resolving.plan_some(project.store, campaign, way, keys)


def _decide(project: Project, plan: Resolution, confirm: int | None, *, as_json: bool) -> None:
    from newsletter import resolving

    count = len(plan.chosen)
    if count and not as_json:
        _print_plan(plan)
    if count:
        _confirm(count, confirm)
    changed = resolving.carry_out(project.store, plan, _now())
    if as_json:
        left = _unknown(project, plan.campaign)
        output.print_json({"done": plan.way, "copies": changed, "left": plan.leavers, "still_unknown": left})
    elif not count:
        _tell_nothing_unknown(plan.campaign)
    else:
        _tell_done(project, plan, changed)


def _print_plan(plan: Resolution) -> None:
    copies, label = _copies(len(plan.chosen)), plan.campaign.label
    if not _is_resend(plan):
        output.say(f"{copies} of {label}: assumed accepted. Nothing leaves; who did not get one gets none.")
        return
    output.say(f"{copies} of {label}: sent once more, with the same Message-ID. Who got one may get two.")
    if plan.leavers:
        output.say(f"Left or suppressed since: {plan.leavers}. They are skipped and get nothing more.")


def _is_resend(plan: Resolution) -> bool:
    from newsletter.resolving import Way

    return plan.way is Way.RESEND


def _confirm(count: int, confirm: int | None) -> None:
    if confirm is None and sys.stdin.isatty():
        confirm = click.prompt("Type the number of copies", type=int)
    if confirm is None:
        raise Refused(
            "nobody was there to confirm the number of copies.",
            hint=f"If it is right, run the same command with --confirm {count}.",
        )
    if confirm != count:
        raise Refused(
            f"you confirmed {confirm}, and it would be {_copies(count)}. Nothing was changed.",
            hint="Look at them once more: without --resend and --assume-accepted, they are listed.",
        )


def _tell_done(project: Project, plan: Resolution, changed: int) -> None:
    from newsletter.store import campaigns
    from newsletter.store.engine import read

    if changed < len(plan.chosen):
        output.say(f"{_copies(len(plan.chosen) - changed)} had changed meanwhile and stayed as they are.")
    now = read(project.store, lambda conn: campaigns.get(conn, plan.campaign.id))
    if not _is_resend(plan):
        output.say(f"{_copies(changed)} closed. {now.label}: {summary(tally(project.store, now))}.")
        output.next_steps(f"newsletter deliveries {now.arguments}")
        return
    output.say(
        f"{_copies(changed)} pending again. {now.label} is {now.state}: {summary(tally(project.store, now))}."
    )
    paused = now.state is CampaignState.PAUSED
    output.next_steps(*([f"newsletter resume {now.arguments}"] if paused else []), now.send)


def _now() -> datetime:
    return datetime.now(UTC)

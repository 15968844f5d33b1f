"""A proof: a marked test copy to an address of one's own, outside the ledger."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from newsletter.cli import output
from newsletter.errors import Refused, Unfinished, UsageError
from newsletter.model import Accepted, Edition, NotTaken, Recipient, Unknown
from newsletter.model import Refused as RefusedCopy

if TYPE_CHECKING:
    from newsletter.cli.main import Project
    from newsletter.config import Settings
    from newsletter.model import Outcome

SAID = {Accepted: "accepted", RefusedCopy: "refused", NotTaken: "not taken", Unknown: "unknown"}


@click.command(epilog="Example: newsletter proof 2026-12 --to me@example.org")
@click.argument("slug")
@click.option(
    "--to", "to", required=True, multiple=True, metavar="ADDRESS", help="Where it goes; may be given again."
)
@click.option("--name", default="", help="The name to greet.  [default: none, so that fallbacks show]")
@click.option(
    "--edition",
    type=click.Choice([edition.value for edition in Edition]),
    default=Edition.STANDARD.value,
    show_default=True,
    help="Which variant of the issue.",
)
@click.pass_obj
def proof(project: Project, slug: str, to: tuple[str, ...], name: str, edition: str) -> None:
    """Send a marked test copy to an address of yours.

    It goes the way of the real send, with [Proof] before the subject, and leaves no trace in the ledger. Its
    personal links are examples that change nothing.
    """
    from newsletter import sending, wiring
    from newsletter.message import Wire

    settings = project.settings
    addresses = [_allowed(settings, address) for address in to]
    wiring.refuse_when_off(settings)
    settings.require_keys()
    email = next(one for one in wiring.compile_issue(settings, slug)[1] if one.edition == edition)
    marked = replace(email, subject=f"[Proof] {email.subject}")
    wire = Wire(marked, wiring.message_settings(settings, datetime.now(UTC)))
    copies = _proof_copies(settings, addresses, name)
    outcomes = sending.proof(wiring.transport(settings, slug), wire, copies)
    _tell_proof(settings, slug, copies, outcomes)


def _allowed(settings: Settings, address: str) -> str:
    from newsletter import addresses

    try:
        parsed = addresses.parse(address)
    except ValueError as error:
        raise UsageError(f"--to {address}: {error}") from None
    on_list = {addresses.canonical(one) for one in settings.sending.allowlist}
    checked = settings.sending.mode == "allowlist" and settings.sending.transport != "folder"
    if checked and addresses.canonical(parsed) not in on_list:
        raise Refused(
            f"{parsed} is not on the allowlist, so nothing may leave for it.",
            hint="Add it to `allowlist` under [sending] in newsletter.toml.",
        )
    return parsed


def _proof_copies(settings: Settings, addresses: list[str], name: str) -> list[Recipient]:
    from newsletter import wiring

    nobody = wiring.signer(settings)(0)  # no subscription has the id 0: its links open no one's page
    values = {"name": name, **nobody}
    return [Recipient(secrets.token_bytes(16), address, values) for address in addresses]


def _tell_proof(settings: Settings, slug: str, copies: list[Recipient], outcomes: list[Outcome]) -> None:
    said = {outcome.delivery: outcome for outcome in outcomes}
    failed = False
    for copy in copies:
        outcome = said[copy.delivery]
        failed |= not isinstance(outcome, Accepted)
        output.say(f"{copy.address}: {SAID[type(outcome)]} {getattr(outcome, 'reason', '')}".rstrip())
    if settings.sending.transport == "folder":
        from newsletter import wiring

        output.say(f"written to {wiring.outbox(settings, slug)}")
    if failed:
        raise Unfinished("not every proof was accepted.", hint="What the server said stands above.")

"""The people: who is on which list, who must not be mailed, and what is known about one of them.

`list`, `show` and `export` print addresses in full, because that is what was asked for. Everything else masks them: a
report of an import is mailed around, and an error ends in a log.
"""

from __future__ import annotations

from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from newsletter.cli import importing, output
from newsletter.cli.importing import list_option, now, source_option
from newsletter.errors import UsageError
from newsletter.model import LetterPurpose, SubscriptionState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from datetime import datetime
    from typing import IO

    from sqlalchemy import Connection, Engine

    from newsletter.cli.main import Project
    from newsletter.model import Subscriber
    from newsletter.personal_data import Erased
    from newsletter.subscriptions import Person

ASKED = {
    LetterPurpose.SUBSCRIBE: "Somebody asked to put this address",
    LetterPurpose.CHANGE: "Somebody asked to use this address from now on",
    LetterPurpose.ACCESS: "Somebody asked for a link to their data",
}
BY_HAND = "the operator"  # the source of what nobody gave a source for
STATES = click.Choice([state.value for state in SubscriptionState])


@click.group()
def subscribers() -> None:
    """Import, export, list, show, add, unsubscribe, erase and explain readers."""


subscribers.add_command(importing.import_)


@subscribers.command("list", epilog="Example: newsletter subscribers list --list readers --state active")
@click.option("--list", "list_name", metavar="NAME", help="Only this list.")
@click.option("--state", type=STATES, help="Only people in this state.")
@click.pass_obj
def list_(project: Project, list_name: str | None, state: str | None) -> None:
    """Print everybody: address, name, list and state."""
    from newsletter.cli import streaming
    from newsletter.subscriptions import check_list

    if list_name:
        check_list(project.store, list_name)
    people = _everybody(project.store, list_name, SubscriptionState(state) if state else None)
    first = next(people, None)
    if first is None:
        _tell_nobody(list_name, state)
        return
    columns = ("address", "name", "list", "state", "since", "source")
    streaming.print_table(columns, map(_cells, chain([first], people)))


def _tell_nobody(list_name: str | None, state: str | None) -> None:
    if list_name or state:
        what = " and ".join(part for part in (state, list_name and f"on the list {list_name}") if part)
        output.say(f"Nobody is {what}.")
        output.next_steps("newsletter lists")
    else:
        output.say("Nobody.")
        output.next_steps("newsletter subscribers import FILE")


def _everybody(
    engine: Engine, list_name: str | None, state: SubscriptionState | None
) -> Iterator[Subscriber]:
    """A short read for each page: one around all would keep the database's log growing while a person scrolls."""
    from newsletter.store import subscribers as store
    from newsletter.store.engine import read

    after = 0

    def page(conn: Connection) -> list[tuple[int, Subscriber]]:
        return list(islice(store.people(conn, list_name, state, after=after), store.PAGE))

    while some := read(engine, page):
        yield from (person for _, person in some)
        after = some[-1][0]


def _cells(person: Subscriber) -> tuple[str, ...]:
    until = f" until {_day(person.paused_until)}" if person.paused_until else ""
    stop = f", suppressed: {person.suppressed}" if person.suppressed else ""
    state = f"{person.state}{until}{stop}"
    return (
        person.address or "(erased)",
        person.name,
        person.list,
        state,
        _day(person.since),
        person.source,
    )


@subscribers.command(epilog="Example: newsletter subscribers show zoe@example.org")
@click.argument("address")
@click.pass_obj
def show(project: Project, address: str) -> None:
    """Print all that is known about an address: lists, consents, suppression, copies."""
    from newsletter.subscriptions import look_up

    found = look_up(project.store, address, project.settings.address_key)
    if not found.standings and not found.suppressed and not found.asked:
        output.say("Nothing is known about this address.")
        return
    _print_person(found)


def _print_person(found: Person) -> None:
    from newsletter.lookalikes import mixed_scripts

    if found.suppressed:
        stop = found.suppressed
        source = f" ({stop.source})" if stop.source not in {"", stop.reason} else ""
        output.say(f"Suppressed since {_day(stop.at)}: {stop.reason}{source}.\n")
    for purpose, list_name, at in found.asked:
        output.say(f"{ASKED[purpose]} on {list_name}, {_minute(at)}; nobody has confirmed it.")
    if found.standings:
        output.print_table(
            ("address", "name", "list", "state", "since", "source"), map(_cells, found.standings)
        )
        if scripts := mixed_scripts(found.standings[0].address):
            output.warn(f"this address mixes {scripts} letters, so it looks like another one than it is")
        output.say(f"edition: {found.standings[0].edition}")
        for name, text in found.standings[0].fields.items():
            output.say(f"{name}: {text}")
    if found.consents:
        output.say()
        rows = [
            (_minute(said.at), said.list, said.act, said.source, said.form, said.wording)
            for said in found.consents
        ]
        output.print_table(("said", "list", "what", "source", "form", "wording"), rows)
    if found.copies:
        output.say()
        copies = [
            (copy.issue, copy.kind, copy.state, copy.receipt, _minute(copy.at), copy.reason)
            for copy in found.copies
        ]
        output.print_table(("issue", "kind", "state", "receipt", "at", "reason"), copies)


@subscribers.command(
    epilog="Example: newsletter subscribers add zoe@example.org --name Zoë --source 'asked by letter'"
)
@click.argument("address")
@list_option
@click.option("--name", default="", help="How mails address them.")
@source_option
@click.pass_obj
def add(project: Project, address: str, list_name: str | None, name: str, source: str) -> None:
    """Put one person on a list; you must have their consent.

    Refused for an address that is suppressed or was unsubscribed: they come back by their own act only.
    """
    from newsletter import subscriptions

    settings = project.settings
    engine = project.store
    chosen = list_name or settings.newsletter.list
    if chosen != settings.newsletter.list:
        subscriptions.check_list(engine, chosen)
    decision = subscriptions.add(
        engine, address, chosen, settings.address_key, name=name, source=source or BY_HAND, now=now()
    )
    words = {"new": "Added to", "changed": "Changed on", "unchanged": "Already on"}
    output.say(f"{words[decision.verdict]} {chosen}.")


@subscribers.command(epilog="Example: newsletter subscribers unsubscribe zoe@example.org")
@click.argument("address")
@click.option(
    "--list", "list_name", metavar="NAME", help="Only from this list.  [default: from all, for good]"
)
@source_option
@click.pass_obj
def unsubscribe(project: Project, address: str, list_name: str | None, source: str) -> None:
    """Take a person off all lists and suppress the address, or off one list.

    It counts at once, also for a campaign that is being sent.
    """
    from newsletter import subscriptions

    engine = project.store
    if list_name:
        subscriptions.check_list(engine, list_name)
    secret = project.settings.address_key
    left = subscriptions.unsubscribe(engine, address, list_name, secret, source=source or BY_HAND, now=now())
    output.say(f"Unsubscribed from {', '.join(left)}." if left else "Was unsubscribed already.")


@subscribers.command(epilog="Example: newsletter subscribers erase zoe@example.org")
@click.argument("address")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def erase(project: Project, address: str, *, yes: bool) -> None:
    """Take everything about a person away, for good.

    Name, address, fields, edition and the sources of their consents go, and the files of their mails. The numbers of
    every campaign stay right. The address is suppressed by its key, so that no old file brings it back; only they
    themselves can, by subscribing anew. Backups that were made before still hold the person.
    """
    from newsletter import personal_data, subscriptions, wiring
    from newsletter.store.engine import write

    engine, settings = project.store, project.settings
    key = subscriptions.key_of(address, settings.address_key)
    if not yes:
        click.confirm("Nobody can undo this. Erase everything about this address?", abort=True)
    erased = write(engine, lambda conn: personal_data.erase(conn, key, now=now()))
    if erased is None:
        output.say("Nobody has this address, so there is nothing to erase.")
        output.next_steps(f"newsletter suppressions add {address}")
        return
    emptied = personal_data.clear_up(engine, wiring.outboxes(settings), erased)
    output.say("Erased.")
    _tell_what_is_left(erased, emptied=emptied)


def _tell_what_is_left(erased: Erased, *, emptied: bool) -> None:
    if erased.on_the_way:
        output.warn("a copy is being handed over at this moment: run the same command again when it has left")
    if not emptied:
        output.warn(
            "another program keeps the database in use, so its free space may still hold the person:\n"
            "run the same command again when that has ended (`newsletter serve` does so by itself)"
        )


@subscribers.command(epilog="Example: newsletter subscribers export --list readers --out readers.csv")
@click.argument("address", required=False)
@click.option("--list", "list_name", metavar="NAME", help="Only this list.")
@click.option("--state", type=STATES, help="Only people in this state.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Where to write it.  [default: here]"
)
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@click.pass_obj
def export(
    project: Project,
    address: str | None,
    list_name: str | None,
    state: str | None,
    out: Path | None,
    *,
    force: bool,
) -> None:
    """Write everybody as CSV, or all that is held about one ADDRESS as JSON.

    The file is its owner's alone. In a CSV file, cells that a spreadsheet would take for a formula begin with an
    apostrophe, which the import takes off again.
    """
    from newsletter import subscriptions

    if address is not None:
        if list_name or state:
            raise UsageError(
                "--list and --state choose among all people: leave them out, or leave ADDRESS out."
            )
        _export_one(project, address, out, force=force)
        return
    if list_name:
        subscriptions.check_list(project.store, list_name)
    _export_list(project, list_name, SubscriptionState(state) if state else None, out, force=force)


def _export_one(project: Project, address: str, out: Path | None, *, force: bool) -> None:
    from newsletter import personal_data, subscriptions
    from newsletter.store.engine import read

    key = subscriptions.key_of(address, project.settings.address_key)
    held = read(project.store, lambda conn: personal_data.export_by_key(conn, key))
    if held is None:
        output.say(f"Nothing is known about this address{', so no file was written' if out else ''}.")
        return
    with _target(out, force=force) as file:
        file.write(f"{output.as_json(held)}\n")
    if out:
        output.say(f"Written to {out}. It holds all about one person: send it only to them.")


def _target(out: Path | None, *, force: bool) -> AbstractContextManager[IO[str]]:
    from newsletter.exporting import private_file

    return private_file(out, force=force) if out else output.as_file()


def _export_list(
    project: Project, list_name: str | None, state: SubscriptionState | None, out: Path | None, *, force: bool
) -> None:
    from newsletter.exporting import write_csv
    from newsletter.store.engine import read
    from newsletter.store.subscribers import list_names

    fields = project.settings.newsletter.fields
    with _target(out, force=force) as file:
        written = read(
            project.store,
            lambda conn: write_csv(conn, file, list_name=list_name, state=state, fields=fields),
        )
    if out:
        output.say(
            f"Written to {out}: {output.plural(written, 'line')}. Being on this list is health data: keep it safe."
        )
    if out and not list_name and len(read(project.store, list_names)) > 1:
        output.say("It holds all lists; one file for each is made with --list NAME.")


@subscribers.command(epilog="Example: newsletter subscribers explain zoe@example.org 2026-12")
@click.argument("address")
@click.argument("slug", required=False)
@click.pass_obj
def explain(project: Project, address: str, slug: str | None) -> None:
    """Say why a person is or is not in the send of an issue: then, and now.

    Without SLUG, only whether they would get the next one.
    """
    from newsletter import content, explaining, subscriptions
    from newsletter.store.engine import read

    key, issues = subscriptions.key_of(address, project.settings.address_key), content.slugs(project.root)
    for part in read(
        project.store, lambda conn: explaining.explain(conn, key, slug, issues=issues, now=now())
    ):
        output.say(f"{part.about}:")
        for sentence in part.sentences:
            output.say(f"  {sentence}")


@click.group()
def suppressions() -> None:
    """Manage the addresses that never get mail again."""


suppressions.add_command(importing.import_suppressions)


@suppressions.command("list", epilog="Example: newsletter suppressions list")
@click.pass_obj
def list_suppressions(project: Project) -> None:
    """Print every suppression; the address only where somebody on a list has it."""
    from newsletter.cli import streaming
    from newsletter.store.engine import read
    from newsletter.store.subscribers import suppressions as every

    rows = read(
        project.store,
        lambda conn: [(s.address or "(not kept)", s.reason, _day(s.at), s.source) for s in every(conn)],
    )
    if not rows:
        output.say("No address is suppressed.")
        return
    streaming.print_table(("address", "reason", "since", "source"), rows)


@suppressions.command(
    "add", epilog="Example: newsletter suppressions add zoe@example.org --source 'asked by phone'"
)
@click.argument("address")
@click.option(
    "--reason",
    type=click.Choice(["manual", "unsubscribed", "bounced", "complained"]),
    default="manual",
    show_default=True,
)
@source_option
@click.pass_obj
def add_suppression(project: Project, address: str, reason: str, source: str) -> None:
    """Never mail an address again. Nothing but its key is kept."""
    from newsletter.subscriptions import suppress

    secret = project.settings.address_key
    engine = project.store
    fresh = suppress(engine, address, secret, reason=reason, source=source or BY_HAND, now=now())
    output.say("Suppressed." if fresh else "Was suppressed already.")


@suppressions.command("remove", epilog="Example: newsletter suppressions remove zoe@example.org")
@click.argument("address")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def remove_suppression(project: Project, address: str, *, yes: bool) -> None:
    """Let an address be mailed again.

    Who unsubscribed stays unsubscribed. An erased address can't be brought back.
    """
    from newsletter.subscriptions import unsuppress

    engine = project.store
    if not yes:
        click.confirm("This address will be mailed again where it is on a list. Go on?", abort=True)
    lifted = unsuppress(engine, address, project.settings.address_key)
    output.say(f"No longer suppressed (it was since {_day(lifted.at)}: {lifted.reason}).")
    output.next_steps(f"newsletter subscribers show {address}")


@click.command(epilog="Example: newsletter lists")
@click.pass_obj
def lists(project: Project) -> None:
    """Show the lists and how many readers each has."""
    from newsletter.store.engine import read
    from newsletter.store.subscribers import counts

    found = read(project.store, counts)
    if not found:
        output.say("There is no list yet; the first import makes one.")
        output.next_steps("newsletter subscribers import FILE")
        return
    columns = ("active", "suppressed", "paused", "pending", "unsubscribed")
    rows = [(name, *(states.get(column, 0) for column in columns)) for name, states in found.items()]
    output.print_table(("list", *columns), rows)


def _day(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d}"


def _minute(moment: datetime | None) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M}" if moment else ""

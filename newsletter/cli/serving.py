"""Serve the pages for readers, and send the letters that they ask for."""

from __future__ import annotations

import gc
import threading
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import product
from typing import TYPE_CHECKING, Any

import click

from newsletter.cli import output
from newsletter.errors import ConfigError, NewsletterError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from multiprocessing.synchronize import Event
    from pathlib import Path

    from sqlalchemy import Engine

    from newsletter.cli.main import Project
    from newsletter.config import Settings
    from newsletter.web.counting import Counts

CHORE_SECONDS = 60.0
STOP_SECONDS = 10.0


@click.command(epilog="Example: newsletter serve")
@click.option(
    "--port", type=click.IntRange(0, 65535), metavar="N", help="In place of [web] port; 0 is any free one."
)
@click.pass_obj
def serve(project: Project, port: int | None) -> None:
    """Serve the pages where readers sign up, choose and leave.

    Sends the letters that they ask for as well, and ends breaks whose time has come. It speaks plain HTTP, so a proxy
    such as nginx or Caddy has to stand before it. Ctrl-C or SIGTERM stops it when all requests are answered.
    """
    from newsletter.cli import logs
    from newsletter.web import counting
    from newsletter.web.serving import listen

    settings = project.settings
    logs.set_up(settings)
    workers = settings.web.workers
    _refuse_several_on_sqlite(project, workers)
    project.writable.dispose()  # it opens, so it is there and has our keys; children open it for themselves
    table = counting.shared(workers)
    with listen(settings.web.host, settings.web.port if port is None else port) as listening:
        announce = _announcement(settings, listening)
        if workers == 1:
            run_one(settings, listening, counting.Counts(table), announce)
        else:
            _run_several(project, listening, table, workers, announce)
    output.say("Stopped. Every request that had come was answered.")


def _refuse_several_on_sqlite(project: Project, workers: int) -> None:
    from newsletter.store.engine import many_senders

    if workers > 1 and not many_senders(project.writable):
        raise ConfigError(
            f"newsletter.toml has web.workers = {workers}, and SQLite takes one process only.",
            hint="Leave it out, or use PostgreSQL: one process answers hundreds of readers a second.",
        )


def _announcement(settings: Settings, listening: socket.socket) -> Callable[[], None]:
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    letters = _letters(settings)

    def announce() -> None:
        output.say(f"Serving {settings.newsletter.base_url} from http://{shown}:{port}/")
        output.say(letters)

    return announce


def _letters(settings: Settings) -> str:
    """Whether letters leave: who signs up and hears nothing believes that we are broken.

    A template of the publisher's that can't be compiled keeps letters back, and never the pages: leaving must work.
    """
    from newsletter import wiring
    from newsletter.letters import LetterKind
    from newsletter.model import Edition

    compose = wiring.letter_wires(settings)
    try:
        for kind, edition in product(LetterKind, Edition):
            compose(kind, settings.newsletter.list, edition, datetime.now(UTC))
    except NewsletterError as error:
        return f"Letters to readers wait: {error}"
    if settings.sending.transport == "folder":
        return "Letters to readers are written to .newsletter/outbox/letters/ and reach nobody."
    if settings.sending.mode == "off":
        return "Letters to readers wait: nothing may leave while sending.mode is off."
    if settings.sending.mode == "allowlist":
        return "Letters leave to the addresses of sending.allowlist only; all others are dropped."
    return f"Letters to readers leave through {settings.sending.transport}."


def run_one(
    settings: Settings, listening: socket.socket, counts: Counts, started: Callable[[], None], number: int = 0
) -> None:
    """One process until it is told to stop. The first one also sends letters and keeps house."""
    from newsletter import wiring
    from newsletter.web import serving
    from newsletter.web.deeds import Deeds
    from newsletter.web.readers import create_app

    with ExitStack() as stack:
        engine = wiring.open_store(settings)
        stack.callback(engine.dispose)
        group = wiring.group(engine)
        stack.callback(group.close)
        if number == 0:
            _start_beside(settings, engine, stack)
        deeds = Deeds(group, settings, clear_up=wiring.clear_up(settings, engine))
        app = create_app(settings, deeds, counts)
        gc.freeze()  # what is imported stays: nobody has to wait while it is looked through
        serving.make(app, started).run(sockets=[listening])


def _start_beside(settings: Settings, engine: Engine, stack: ExitStack) -> None:
    """The letters, and what has to be done now and then."""
    from newsletter import wiring
    from newsletter.web.serving import Chore

    house = Chore("housekeeping", wiring.housekeeping(engine), CHORE_SECONDS)
    house.start()
    stack.callback(house.stop)
    closing = threading.Event()
    beside = {"letters": wiring.office(settings, engine).run, "notices": wiring.post(settings, engine).run}
    for name, work in beside.items():
        thread = threading.Thread(target=work, args=(closing,), name=name, daemon=True)
        thread.start()
        stack.callback(thread.join, STOP_SECONDS)  # a letter that is still on its way is sent once more
    stack.callback(closing.set)


def _run_several(
    project: Project, listening: socket.socket, table: Any, workers: int, announce: Callable[[], None]
) -> None:
    from newsletter.web.workers import Crew

    if not Crew(_member, (project.root, listening, table), workers).run(announce):
        raise NewsletterError(
            "A process of the server could not begin.", hint="The lines above say why. Then run it again."
        )


def _member(number: int, begun: Event, root: Path, listening: socket.socket, table: Any) -> None:
    """What each of several processes does."""
    import os

    from newsletter.cli import logs
    from newsletter.config import load
    from newsletter.web.counting import Counts

    try:
        settings = load(root, os.environ)
        logs.set_up(settings)
        run_one(settings, listening, Counts(table, number), begun.set, number)
    except NewsletterError as error:
        output.print_error(error)
        raise SystemExit(error.exit_code) from None

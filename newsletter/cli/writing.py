"""The commands of somebody who writes: new, check, build, preview, templates. None needs the database or a key."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from newsletter.cli import output
from newsletter.errors import ChecksFailed, ContentError, Refused, UsageError
from newsletter.model import short

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from newsletter.cli.main import Project
    from newsletter.config import Settings
    from newsletter.model import Finding

JSON = click.option("--json", "as_json", is_flag=True, help="Print the result for a script.")


# --- new ----------------------------------------------------------------------------------------------------------


@click.command(epilog="Example: newsletter new 2027-01")
@click.argument("slug")
@click.pass_obj
def new(project: Project, slug: str) -> None:
    """Start the next issue, with comments that explain each field.

    SLUG names the folder under issues/, such as 2027-01. Nothing that exists is overwritten.
    """
    from newsletter.scaffold import new_issue

    new_issue(project.root, slug)
    output.say(f"Made issues/{slug}.")
    output.next_steps(f"fill in issues/{slug}/issue.toml and lead.md", f"newsletter preview {slug}")


# --- check and build ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Built:
    """An issue, compiled and judged."""

    slug: str
    digest: str
    files: Mapping[str, bytes]
    findings: Sequence[Finding]

    @property
    def stopped(self) -> bool:
        """Whether a live send would be refused."""
        from newsletter.checks import errors

        return bool(errors(self.findings))

    def facts(self) -> dict[str, Any]:
        """What ``--json`` prints. Sizes are in bytes; the names are an interface that scripts rely on."""
        return {
            "slug": self.slug,
            "digest": self.digest,
            "html_bytes": len(self.files["index.html"]),
            "text_bytes": len(self.files["index.txt"]),
            "message_bytes": len(self.files["message.eml"]),
            "findings": _plain(self.findings),
        }

    def summary(self) -> str:
        """One line for a person."""
        sizes = self.facts()
        html, text, message = (f"{sizes[f'{part}_bytes']:,}" for part in ("html", "text", "message"))
        found = output.count_findings(self.findings)
        measured = f"html {html} bytes, text {text}, whole message {message}"
        return f"{self.slug}: {found}; {measured}; digest {short(self.digest)}."


def _build(settings: Settings, slug: str | None) -> Built:
    from newsletter import wiring
    from newsletter.checks import sample
    from newsletter.cli import building
    from newsletter.model import digest

    slug = slug or newest(settings)
    issue, editions = wiring.compile_issue(settings, slug)
    message = wiring.message_settings(settings, sample.date_header(issue.date))
    findings = wiring.findings(settings, issue, editions)
    return Built(slug, digest(editions), building.files(editions, message), findings)


def newest(settings: Settings) -> str:
    """The issue that is meant when none is named."""
    from newsletter.content import slugs

    known = slugs(settings.project)
    if not known:
        raise UsageError(f"{settings.project} has no issues yet.", hint="Start one: newsletter new 2027-01")
    return known[-1]


def _plain(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    return [asdict(finding) for finding in findings]


@click.command(epilog="Example: newsletter check 2026-12")
@click.argument("slug", required=False)
@JSON
@click.pass_obj
def check(project: Project, slug: str | None, *, as_json: bool) -> int:
    """Say what must be mended before an issue can be sent.

    Without SLUG, the newest issue. Ends with 3 if the issue can't be read or compiled, and with 4 if a check found
    an error for which no [[waive]] in issue.toml gives a reason.
    """
    try:
        built = _build(project.settings, slug)
    except ContentError as error:
        if not as_json:
            raise
        output.print_json({"slug": slug, "error": str(error), "findings": _plain(error.findings)})
        return error.exit_code
    if as_json:
        output.print_json(built.facts())
    else:
        _tell_check(built)
    return ChecksFailed.exit_code if built.stopped else 0


def _tell_check(built: Built) -> None:
    output.print_findings(built.findings)
    output.say(built.summary())
    if built.stopped:
        output.next_steps(
            "mend the errors above, or give a reason with [[waive]] in issue.toml",
            f"newsletter check {built.slug}",
        )
    else:
        output.next_steps(f"newsletter preview {built.slug}", f"newsletter send {built.slug}")


@click.command(epilog="Example: newsletter build 2026-12 --out build/2026-12")
@click.argument("slug", required=False)
@click.option(
    "--out", required=True, metavar="DIR", type=click.Path(file_okay=False, path_type=Path),
    help="The folder to write into; files of the same names there are overwritten.",
)  # fmt: skip
@JSON
@click.pass_obj
def build(project: Project, slug: str | None, *, out: Path, as_json: bool) -> None:
    """Write an issue as index.html, large.html, index.txt and message.eml.

    They show what a sample reader would get, pictures beside them. large.html is the large print; who has chosen
    text only gets index.txt. Without SLUG, the newest issue. Findings of the checks are told and never stop a build.
    """
    from newsletter.cli.building import write

    built = _build(project.settings, slug)
    write(out, built.files)
    if as_json:
        output.print_json({**built.facts(), "files": sorted(built.files)})
        return
    output.print_findings(built.findings, err=True)
    output.say(built.summary())
    output.say(f"Wrote {', '.join(sorted(built.files))} into {out}.")
    output.next_steps(f"open {out / 'index.html'} in a browser", f"newsletter check {built.slug}")


# --- preview ------------------------------------------------------------------------------------------------------


@click.command(epilog="Example: newsletter preview 2026-12")
@click.argument("slug", required=False)
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Where to listen.  [default: the first free one from 8400]"
)
@click.pass_obj
def preview(project: Project, slug: str | None, port: int | None) -> None:
    """Show an issue in the browser while you write it.

    Without SLUG, the newest issue. The page shows phone and desktop width, light and dark, large print, the text
    part and what the checks found; it reloads when a file is saved. Only this machine can see it.
    """
    from newsletter.web.server import serve

    slug = _known(project.settings, slug) if slug else newest(project.settings)

    def announce(url: str) -> None:
        output.say(f"Preview of {slug}: {url}")
        output.say("It reloads when you save. Ctrl-C stops it.")

    try:
        serve(project.root, slug, port, announce)
    except KeyboardInterrupt:  # the documented way to end it, so nothing was interrupted
        output.say("Stopped.")


def _known(settings: Settings, slug: str) -> str:
    from newsletter.content import slugs

    known = slugs(settings.project)
    if slug not in known:
        near = output.did_you_mean(slug, known)
        raise UsageError(f"There is no issue {slug!r}.{near}", hint=f"Start it: newsletter new {slug}")
    return slug


# --- templates ----------------------------------------------------------------------------------------------------


@click.group(epilog="Example: newsletter templates copy colophon.mjml.j2")
def templates() -> None:
    """List the templates, or take one over to change it.

    A file of the same name in your templates/ folder is used in place of ours; the others stay up to date.
    """


@templates.command("list", epilog="Example: newsletter templates list")
@click.pass_obj
def list_templates(project: Project) -> None:
    """Show every template and whether yours or ours is used."""
    own = project.root / "templates"
    rows = [(name, "yours" if (own / name).is_file() else "ours") for name in _templates()]
    output.print_table(("template", "used"), rows)
    output.next_steps("newsletter templates copy NAME")


@templates.command(epilog="Example: newsletter templates copy colophon.mjml.j2")
@click.argument("name")
@click.pass_obj
def copy(project: Project, name: str) -> None:
    """Put one of our templates into templates/, for you to change. Never overwrites."""
    known = _templates()
    if name not in known:
        raise UsageError(
            f"There is no template {name!r}.{output.did_you_mean(name, known)}",
            hint="See them all: newsletter templates list",
        )
    _copy_new(known[name], project.root / "templates" / name)
    output.say(f"Made templates/{name}: it is used from now on, and no longer upgraded.")
    output.next_steps("newsletter preview")


def _templates() -> dict[str, Path]:
    from newsletter.render import templates_dir

    root = templates_dir()
    return {file.relative_to(root).as_posix(): file for file in sorted(root.rglob("*.j2"))}


def _copy_new(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:  # x: two people at once can't overwrite each other either
            file.write(source.read_bytes())
    except FileExistsError:
        raise Refused(
            f"{target} exists already, and nothing was changed.", hint="Edit it, or move it away."
        ) from None
    except OSError as error:
        raise UsageError(f"{target} can't be written: {error.strerror or error}.") from None

"""From an issue folder to an ``Issue``, or to everything that is wrong with it.

Whoever writes an issue mends it in one go, so nothing in here stops at the first mistake: every file is read as
far as it can be, and each finding says which file and line, what is wrong, and what to do. Text is taken as it
is: only line ends and outer white space are evened out.
"""

from __future__ import annotations

import os
import tomllib
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from newsletter import markdown, toml_lines
from newsletter.content import picture, sections, shape, values
from newsletter.content.codes import CODES
from newsletter.content.files import FOLDER, Folder, leads_out
from newsletter.content.toml_errors import toml_fault
from newsletter.content.values import is_slug, month
from newsletter.errors import ContentError
from newsletter.model import Issue, Lead, Picture, Section, Source, Teaser, Waiver

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from newsletter.content.codes import Fault

__all__ = ["CODES", "files", "is_slug", "load", "month", "of_period", "slugs"]


def slugs(project: Path) -> list[str]:
    """The issues of a project, sorted; the last is the newest."""
    folder = project / FOLDER
    entries = folder.iterdir() if folder.is_dir() else ()
    return sorted(entry.name for entry in entries if _is_issue(entry))


def of_period(project: Path, period: str) -> list[str]:
    """The issues that count for a period, by what their files say; one that can't be read counts by its name."""
    return by_period(project).get(period, [])


def by_period(project: Path) -> dict[str, list[str]]:
    """The same for every period that there are issues for."""
    found: dict[str, list[str]] = {}
    for slug in slugs(project):
        found.setdefault(_period(project / FOLDER / slug), []).append(slug)
    return found


def _period(folder: Path) -> str:
    try:
        said = tomllib.loads((folder / "issue.toml").read_text(encoding="utf-8")).get("period")
    except (OSError, ValueError, RecursionError):
        said = None
    return said if isinstance(said, str) and said else month(folder.name)


def _is_issue(entry: Path) -> bool:
    return is_slug(entry.name) and any((entry / name).is_file() for name in ("issue.toml", "lead.md"))


def load(project: Path, slug: str, *, fields: Collection[str] = (), embed: bool = True) -> Issue:
    """Read and validate ``issues/SLUG``.

    Args:
        project: the folder that holds ``newsletter.toml``.
        slug: the name of the issue's folder.
        fields: custom merge tags that subscribers may have, beside the product's own.
        embed: pictures travel inside the mail, so their size together is limited.

    Raises:
        ContentError: with every finding of the folder, in the order of files and lines.
    """
    folder = Folder(project, slug)
    issue = _read(folder, values.Tags(fields), embed=embed) if _is_there(folder) else None
    if issue is None or folder.findings:
        findings = sorted(folder.findings, key=lambda finding: (finding.file, finding.line or 0))
        count = "1 error" if len(findings) == 1 else f"{len(findings)} errors"
        raise ContentError(f"The issue {slug} can't be used as it is: {count}.", findings)
    return issue


def files(project: Path, issue: Issue) -> dict[str, Path]:
    """Every file that an issue was made of, under the name that messages give it."""
    picture = issue.lead.picture
    own = ["issue.toml", "lead.md", *([picture.name] if picture else [])]
    names = [f"{issue.folder}/{name}" for name in own]
    return {name: project / name for name in (*names, *([issue.closing_file] if issue.closing_file else []))}


def _is_there(folder: Folder) -> bool:
    place = f"{FOLDER}/{folder.slug}"
    if not is_slug(folder.slug):
        folder.add(_bad_slug(folder.slug), FOLDER)
    elif not folder.path.is_dir():
        folder.add(_no_such_issue(folder.slug, slugs(folder.project)), place)
    elif folder.outside(folder.path):
        folder.add(leads_out(f"The folder {place}"), place)
    return not folder.findings


def _bad_slug(slug: str) -> Fault:
    what = f"{slug!r} can't be the name of an issue."
    return (
        "C101",
        what,
        f"Use small letters, digits and single dashes, at most {values.LONGEST_SLUG}: 2026-12",
    )


def _no_such_issue(slug: str, existing: list[str]) -> Fault:
    if not existing:
        return "C102", f"There is no issue {slug}, and no other one.", f"Make it: newsletter new {slug}"
    near = get_close_matches(slug, existing, n=1)
    meant = f"Did you mean {near[0]}? " if near else ""
    return "C102", f"There is no issue {slug}.", f"{meant}There are: {', '.join(existing)}."


def _read(folder: Folder, tags: values.Tags, *, embed: bool) -> Issue | None:
    lead = _lead(folder, tags)
    closing, closing_file = _closing(folder, tags)
    data, lines = _toml(folder)
    if data is None:
        return None

    def add(where: str, fault: Fault) -> None:
        folder.add(fault, folder.file("issue.toml"), line=toml_lines.find(lines, where), where=where)

    table = shape.read(data)
    for misfit in table if isinstance(table, list) else ():
        add(misfit.where, (misfit.code, misfit.what, misfit.todo))
    for where, fault in values.faults(data, folder.slug, tags):
        add(where, fault)
    scan = _picture(folder, data, embed=embed)
    if isinstance(scan, tuple):
        add("lead.image", scan)
    if folder.findings or isinstance(table, list) or isinstance(scan, tuple):
        return None
    return _assemble(folder.slug, table, lead, scan, closing, closing_file)


def _toml(folder: Folder) -> tuple[dict[str, Any] | None, dict[str, int]]:
    """What issue.toml holds and where its keys stand."""
    text = folder.text(folder.path / "issue.toml")
    if text is None:
        return None, {}
    try:
        return tomllib.loads(text), toml_lines.key_lines(text)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of 5,000 digits
        line, fault = toml_fault(str(error), text)
        folder.add(fault, folder.file("issue.toml"), line=line)
        return None, {}


def _lead(folder: Folder, tags: values.Tags) -> list[Section]:
    text = folder.text(folder.path / "lead.md")
    if text is None:
        return []
    found, faults = sections.split(text)
    for line, fault in (*faults, *sections.markdown_faults(text, tags)):
        folder.add(fault, folder.file("lead.md"), line=line)
    return found


def _closing(folder: Folder, tags: values.Tags) -> tuple[str, str]:
    """The closing notes and where they came from: the issue's own, else the project's, else none."""
    for path in (folder.path / "closing.md", folder.path.parent / "closing.md"):
        if os.path.lexists(path):
            text = folder.text(path) or ""
            for problem in markdown.bad_shape(text):
                folder.add(("C134", problem.what, problem.todo), folder.name(path), line=problem.line)
            for line, fault in sections.markdown_faults(text, tags):
                folder.add(fault, folder.name(path), line=line)
            return sections.trimmed(text), folder.name(path)
    return "", ""


def _picture(folder: Folder, data: dict[str, Any], *, embed: bool) -> Picture | Fault | None:
    name, alt = values.get(data, "lead", "image"), values.get(data, "lead", "image_alt")
    if not isinstance(name, str) or not name:
        return None
    return picture.load(folder, name, alt if isinstance(alt, str) else "", embed=embed)


def _assemble(
    slug: str,
    table: shape.IssueTable,
    lead: list[Section],
    scan: Picture | None,
    closing: str,
    closing_file: str,
) -> Issue:
    """The issue, from parts that have no faults left."""
    found, matters, limits = lead
    source = table.lead.source
    return Issue(
        slug=slug,
        subject=table.subject.strip(),
        preheader=table.preheader.strip(),
        date=table.date,
        period=table.period or month(slug),
        number=table.number,
        lead=Lead(
            title=table.lead.title.strip(),
            sections=(found, matters, limits),
            source=Source(
                source.title.strip(), source.journal.strip(), source.doi, source.url, source.published
            ),
            picture=scan,
            topics=tuple(topic.strip() for topic in table.lead.topics),
        ),
        related=tuple(
            Teaser(entry.title.strip(), entry.text.strip(), entry.url, entry.date, entry.pin)
            for entry in table.related
        ),
        banned=tuple(table.related_options.ban),
        closing=closing,
        closing_file=closing_file,
        waivers=tuple(
            Waiver(entry.code.strip(), entry.where.strip(), entry.because.strip()) for entry in table.waive
        ),
    )

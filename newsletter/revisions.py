"""What an issue was made of at an earlier commit, taken out of git into a folder. Nothing in the repository changes."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tomllib
from typing import TYPE_CHECKING

from newsletter.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TIMEOUT = 60  # seconds; git answers in a tenth of one
SETTINGS = "newsletter.toml"


def take_out(project: Path, slug: str, revision: str, into: Path) -> str:
    """Put the issue, its templates and its settings as of ``revision`` into ``into``; returns the commit's full name.

    Raises ``UsageError`` when there is no git, no repository, no such commit, or no such issue in it.
    """
    commit = _commit(project, revision)
    issue = f"issues/{slug}"
    there = _names(project, commit, [SETTINGS, "templates", "issues/closing.md", issue])
    for needed in (SETTINGS, issue):
        if needed not in there:
            raise UsageError(
                f"{needed} did not exist at {revision}.",
                hint=f"`git log --oneline -- {needed}` lists the commits that changed it.",
            )
    _extract(project, commit, there, into)
    _extract(project, commit, _names(project, commit, _logo(into)), into)
    return commit


def _commit(project: Path, revision: str) -> str:
    if _git(project, "rev-parse", "--git-dir").returncode:
        raise UsageError(
            f"{project} is in no git repository, so there is no earlier state to compare with.",
            hint="Without a commit, `newsletter diff SLUG` compares with what was approved last.",
        )
    option = revision.startswith("-")
    found = None if option else _git(project, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if found is None or found.returncode:
        raise UsageError(
            f"There is no commit {revision!r}.",
            hint="`git log --oneline` lists the commits; HEAD is the last one.",
        )
    return found.stdout.decode().strip()


def _names(project: Path, commit: str, wanted: Sequence[str]) -> list[str]:
    """Those of the ``wanted`` paths that are in the commit; for one that is not, git archive would refuse all."""
    if not wanted:
        return []
    listed = _done(_git(project, "ls-tree", "-z", "--name-only", commit, "--", *wanted))
    return [name for name in listed.decode().split("\0") if name]


def _extract(project: Path, commit: str, names: Sequence[str], into: Path) -> None:
    if not names:
        return
    packed = _done(_git(project, "archive", "--format=tar", commit, "--", *names))
    try:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            for member in archive:
                _unpack(archive, member, into.resolve())
    except (tarfile.TarError, OSError) as error:
        raise UsageError(f"What git gave can't be unpacked: {error}") from None


def _unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, into: Path) -> None:
    """Folders, files, and links that stay inside. tarfile's own filters came with Python 3.11.4."""
    place = into / member.name
    leads_to = place.parent / member.linkname if member.issym() else place
    if not leads_to.resolve().is_relative_to(into):
        raise tarfile.TarError(f"{member.name} leads out of the folder")
    place.parent.mkdir(parents=True, exist_ok=True)
    if member.isdir():
        place.mkdir(exist_ok=True)
    elif member.issym():
        place.symlink_to(member.linkname)
    elif (file := archive.extractfile(member)) is not None:
        place.write_bytes(file.read())


def _logo(folder: Path) -> list[str]:
    """The logo of those days, if the settings name one; whoever reads them next says what is wrong with them."""
    try:
        theme = tomllib.loads((folder / SETTINGS).read_text(encoding="utf-8")).get("theme", {})
    except (ValueError, OSError):
        return []
    name = theme.get("logo") if isinstance(theme, dict) else None
    return [name] if isinstance(name, str) and name else []


def _done(call: subprocess.CompletedProcess[bytes]) -> bytes:
    if call.returncode:
        raise UsageError(f"git can't do this: {call.stderr.decode(errors='replace').strip()}")
    return call.stdout


def _git(project: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(  # noqa: S603  no shell, and no word of it is an option that somebody else chose
            ["git", "-C", str(project), *words],  # noqa: S607  the person's own git, as their PATH has it
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
    except FileNotFoundError:
        raise UsageError(
            "git is not installed.", hint="On Debian and Ubuntu: sudo apt-get install git"
        ) from None
    except subprocess.TimeoutExpired:
        raise UsageError(f"git has not answered for {TIMEOUT} seconds.") from None

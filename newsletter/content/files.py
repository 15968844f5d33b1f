"""Read the files of an issue folder safely, and gather what is wrong with them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from newsletter.model import Finding, Level

if TYPE_CHECKING:
    from newsletter.content.codes import Fault

FOLDER = "issues"
LARGEST_TEXT = 1_000_000  # bytes: ten times what Gmail shows of a mail
# C0, DEL and C1 but for tab and line feed, and the two that XML, which pages and mails are made of, can't hold.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff]")


class Folder:
    """An issue's folder and the findings gathered about it."""

    def __init__(self, project: Path, slug: str) -> None:
        self.project = Path(os.path.realpath(project))
        self.slug = slug
        self.path = self.project / FOLDER / slug
        self.findings: list[Finding] = []

    def file(self, name: str) -> str:
        """One of the issue's own files as messages call it."""
        return f"{FOLDER}/{self.slug}/{name}"

    def name(self, path: Path) -> str:
        """A file as messages call it: relative to the project, with forward slashes."""
        return path.relative_to(self.project).as_posix()

    def add(self, fault: Fault, file: str, *, line: int | None = None, where: str = "") -> None:
        """Remember one thing that is wrong."""
        code, message, hint = fault
        self.findings.append(Finding(code, Level.ERROR, file, message, hint, line=line, where=where))

    def outside(self, path: Path) -> bool:
        """Whether a path, with all its symbolic links followed, leaves the project."""
        return not Path(os.path.realpath(path)).is_relative_to(self.project)

    def text(self, path: Path) -> str | None:
        """The file's text with plain line ends, or None after saying why there is none."""
        file = self.name(path)
        try:
            fault = self._unreadable(path)
            data = b"" if fault else path.read_bytes()
        except OSError as error:
            fault, data = (
                ("C105", f"The file can't be read: {error.strerror}.", "Let this user read it."),
                b"",
            )
        if fault:
            self.add(fault, file)
            return None
        return self._decoded(data, file)

    def _decoded(self, data: bytes, file: str) -> str | None:
        try:
            text = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError as error:
            hint = "Save it as UTF-8: in most editors under “Save as”, “Encoding”."
            line = data.count(b"\n", 0, error.start) + 1
            self.add(("C106", "The text is not UTF-8 from this line on.", hint), file, line=line)
            return None
        for match in CONTROL.finditer(text):
            what = f"The text holds a control character (U+{ord(match[0]):04X})."
            hint = "Delete it; it may have come along with pasted text and be invisible."
            self.add(("C107", what, hint), file, line=line_of(text, match.start()))
        return CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)

    def _unreadable(self, path: Path) -> Fault | None:
        if self.outside(path):
            return leads_out("The file")
        if not path.exists():
            return "C103", "The file is missing.", "Make it; “newsletter new” shows what it looks like."
        if not path.is_file():
            return "C105", "This is not a plain file.", "Put a text file in its place."
        if (size := path.stat().st_size) > LARGEST_TEXT:
            return (
                "C105",
                f"The file has {readable_size(size)}, and no text is that long.",
                "Keep the text only.",
            )
        return None


def leads_out(what: str) -> Fault:
    """For a path that is, or passes, a symbolic link to elsewhere."""
    return (
        "C104",
        f"{what} leads out of the project.",
        "Put a copy inside the project, not a link to elsewhere.",
    )


def line_of(text: str, offset: int) -> int:
    """The line, 1-based, of a character."""
    return text.count("\n", 0, offset) + 1


def readable_size(size: float) -> str:
    """A size as people say it, in thousands of bytes."""
    return f"{int(size / 1000):,} kB" if size < 1_000_000 else f"{size / 1_000_000:.1f} MB"

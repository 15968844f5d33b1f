"""Every kind of mistake in an issue folder, by its code."""

from __future__ import annotations

# Stable: people waive, search and script by them. docs/findings.md explains each one.
CODES = {
    "C101": "The name of the issue can't be used as a folder and in a link.",
    "C102": "There is no issue of this name.",
    "C103": "A file of the issue is missing.",
    "C104": "A file or folder leads out of the project.",
    "C105": "A file can't be read, is not a plain file, or is far too large.",
    "C106": "A text file is not UTF-8.",
    "C107": "A text holds a control character.",
    "C108": "issue.toml is not valid TOML.",
    "C111": "There is no such key in issue.toml.",
    "C112": "A key is missing from issue.toml.",
    "C113": "A value in issue.toml is of the wrong kind.",
    "C114": "A date is wrong or not written as a date.",
    "C115": "A text is empty.",
    "C116": "A text that must fit one line has several.",
    "C117": "The preheader repeats the subject.",
    "C121": "A link does not lead to a place that a mail can open.",
    "C122": "Two related articles lead to the same place.",
    "C123": "A related article is banned in the same file.",
    "C124": "A DOI is not written as a bare DOI.",
    "C131": "lead.md is empty.",
    "C132": "lead.md does not have exactly three sections.",
    "C133": "lead.md has text before its first section.",
    "C134": "Markdown that a mail can't carry: a heading too high, a picture, a list too deep.",
    "C135": "A section of lead.md is empty.",
    "C141": "A merge tag is unknown, incomplete or in the wrong place.",
    "C151": "The picture is not there.",
    "C152": "The picture's file is far too large.",
    "C153": "The picture is not a PNG, JPEG or GIF, or is damaged.",
    "C154": "The picture has no words for those who can't see it.",
    "C155": "The pictures are too large to travel inside the mail.",
}


# Code, what is wrong, what to do.
Fault = tuple[str, str, str]

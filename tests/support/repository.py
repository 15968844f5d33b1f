"""Real git repositories."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# Nothing of the person who runs the tests: neither their name nor their settings.
NOBODY = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
AUTHOR = ("-c", "user.name=A Test", "-c", "user.email=test@example.org")


def commit(folder: Path, message: str) -> None:
    """Everything in ``folder``, which becomes a repository if it is none."""
    if not (folder / ".git").exists():
        _git(folder, "init", "--quiet")
    _git(folder, "add", "--all", "--force")
    _git(folder, *AUTHOR, "commit", "--quiet", "--message", message)


def _git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-C", str(folder), *words], check=True, env=os.environ | NOBODY)

"""The wheel works in any folder, far from the checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.support.publisher import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (made,) = out.glob("newsletter_press-*.whl")
    return made


@pytest.fixture
def installed(wheel, tmp_path):
    """The wheel's own files, in front of the checkout that the tests' environment knows."""
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)

    def newsletter(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        env = {"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        command = [sys.executable, "-P", "-m", "newsletter", *args]
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)

    return newsletter


def test_the_wheel_holds_templates_texts_starter_and_migrations(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for needed in (
        "newsletter/templates/issue.mjml.j2",
        "newsletter/templates/issue.txt.j2",
        "newsletter/texts/en.toml",
        "newsletter/texts/de.toml",
        "newsletter/starter/newsletter.toml",
        "newsletter/store/migrations/env.py",
    ):
        assert needed in names
    assert not [name for name in names if name.startswith(("tests/", "issues/"))]


def test_an_installed_wheel_can_init_new_check_and_build_in_any_folder(installed, tmp_path):
    made = installed("init", "press", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    press = tmp_path / "press"
    for args in (("check",), ("new", "2027-01"), ("build", "2027-01", "--out", "out")):
        done = installed(*args, cwd=press)
        assert done.returncode == 0, (args, done.stdout, done.stderr)
    assert {file.name for file in (press / "out").iterdir()} >= {"index.html", "index.txt", "message.eml"}


def test_an_installed_wheel_can_send(installed, tmp_path):
    installed("init", "press", cwd=tmp_path)
    press = tmp_path / "press"
    assert installed("subscribers", "add", "me@example.org", "--name", "Me", cwd=press).returncode == 0
    (slug,) = (folder.name for folder in (press / "issues").iterdir() if folder.is_dir())
    done = installed("send", slug, "--confirm", "1", cwd=press)
    assert done.returncode == 0, done.stderr
    assert "1 accepted" in done.stdout

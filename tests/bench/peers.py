"""What others use, installed beside the checkout at first use: `.bench/` holds npm packages and a virtual environment.

Nothing of it is a dependency of ours. `make clean` takes it away.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support import smtp_sink

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(__file__).parent / "programs"
PLACE = ROOT / ".bench"
NPM = ("mjml@4.18.0", "nodemailer@10.6.0")
PYPI = (
    "aiosmtplib==5.1.3",
    "django==5.2.19",
    "dkimpy==1.1.8",
    "dnspython==2.9.2",  # dkimpy asks for it, and for the next one to sign with Ed25519
    "pynacl==1.6.2",
    "uvloop==0.23.0",
)


class Missing(Exception):
    """Something that a section measures against is not on this machine; says how to get it."""


def version(package: str) -> str:
    """``nodemailer 10.6.0``, as it is pinned here."""
    pinned = next(pin for pin in (*NPM, *PYPI) if pin.startswith((f"{package}@", f"{package}==")))
    return pinned.replace("@", " ").replace("==", " ")


def node(package: str) -> Path:
    """The folder of an npm package."""
    folder = PLACE / "node_modules" / package
    if not _is_done("npm", NPM):
        if shutil.which("npm") is None:
            raise Missing("npm is not here, so there is no peer to measure against: apt-get install npm")
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(PLACE), *NPM]
        PLACE.mkdir(exist_ok=True)
        subprocess.run(command, check=True)
        _done("npm", NPM)
    return folder


def python() -> str:
    """The interpreter of the peers' environment; the sinks run on it as well."""
    venv = PLACE / "venv"
    interpreter = venv / "bin" / "python"
    pins = (
        *PYPI,
        sys.version,
    )  # all that is compared runs on one interpreter: builds differ by a tenth and more
    if not _is_done("venv", pins):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        pip = [str(interpreter), "-m", "pip", "--disable-pip-version-check", "--quiet"]
        subprocess.run([*pip, "install", *PYPI], check=True)
        _done("venv", pins)
    return str(interpreter)


def smtp_source() -> list[str]:
    """Postfix's load generator with what it needs; empty where `.ci/smtp-sink` could not fetch Postfix's tools."""
    sink = smtp_sink.found()
    if not sink or not (source := Path(sink).with_name("smtp-source")).exists():
        return []
    return ["env", f"LD_LIBRARY_PATH={smtp_sink._libraries()}", str(source)]


def environment() -> dict[str, str]:
    """For every process that is measured: no secret, no proxy and no setting of the person at the machine."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | {"PYTHONPATH": str(ROOT), "NODE_PATH": str(PLACE / "node_modules")}


def _is_done(what: str, pins: tuple[str, ...]) -> bool:
    stamp = PLACE / f"{what}.done"
    return stamp.exists() and stamp.read_text(encoding="utf-8") == "\n".join(pins)


def _done(what: str, pins: tuple[str, ...]) -> None:
    (PLACE / f"{what}.done").write_text("\n".join(pins), encoding="utf-8")

"""`make prove`: every "must be true" at its full size; the results go to docs/proof.md.

Absolute figures are the best of five here and are never asserted in `make test`: machines differ, promises do not.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.full import backups, freezing, importing, scheduling, serving
from tests.support import postgresql

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "docs" / "proof.md"
CLEAN = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}


class Proof(NamedTuple):
    """A promise, and what shows it. ``show`` returns what was seen and raises when it is not so."""

    promise: str
    show: Callable[[], str]


def run(*command: str, cwd: Path = ROOT, env: dict[str, str] | None = None) -> str:
    """The output of a command that must succeed."""
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def newsletter(*args: str, cwd: Path = ROOT, seed: str = "random") -> str:
    """The real command."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed}
    return run(sys.executable, "-m", "newsletter", *args, cwd=cwd, env=env)


def passing(*selection: str, profile: str = "prove") -> str:
    """pytest's last line, with all examples and with the tests that are too long for `make test`."""
    env = os.environ | {"HYPOTHESIS_PROFILE": profile}
    output = run(
        sys.executable, "-m", "pytest", "-q", "-o", "addopts=--import-mode=importlib", *selection, env=env
    )
    last = output.strip().splitlines()[-1]
    assert " passed" in last, last
    return re.sub(r" in [\d.]+s.*", "", last).strip("= ")


def fresh_clone_demo() -> str:
    """README's first command on a clone, twice, with a clean environment."""
    with tempfile.TemporaryDirectory() as home:
        clone = Path(home) / "clone"
        run("git", "clone", "-q", str(ROOT), str(clone))
        env = CLEAN | {"HOME": home}
        first = run("make", "demo", cwd=clone, env=env)
        second = run("make", "demo", cwd=clone, env=env)
    assert "4 accepted" in first, first
    assert "1 unsubscribed" in first, first
    assert "nobody gets it twice" in second, second
    return "4 accepted, 1 left out (unsubscribed); the second run sent nothing and said so"


def same_bytes() -> str:
    """Every sample issue, five processes with different hash seeds, every file."""
    slugs = sorted(folder.name for folder in (ROOT / "issues").iterdir() if folder.is_dir())
    for slug in slugs:
        seen = {build_digest(slug, seed) for seed in ("0", "1", "2", "3", "random")}
        assert len(seen) == 1, f"{slug}: {len(seen)} different builds"
    return f"{len(slugs)} issues, 5 builds each: identical"


def build_digest(slug: str, seed: str) -> str:
    """One hash over all files of a build."""
    with tempfile.TemporaryDirectory() as folder:
        newsletter("build", slug, "--out", f"{folder}/out", seed=seed)
        files = sorted(path for path in Path(folder, "out").rglob("*") if path.is_file())
        return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()


def help_is_quick() -> str:
    """Best of five, against an interpreter that does nothing."""
    nothing, helped = [sys.executable, "-c", "pass"], [sys.executable, "-m", "newsletter", "--help"]
    pairs = [(seconds(nothing), seconds(helped)) for _ in range(6)][1:]
    floor, ours = (min(side) for side in zip(*pairs, strict=True))
    assert ours <= 6 * floor, f"{ours / floor:.1f}× `python -c pass`"
    return f"{ours / floor:.1f}× `python -c pass` (bound: 6×)"


def seconds(command: Sequence[str]) -> float:
    """Wall time of one process."""
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return time.perf_counter() - began


def wheel_in_an_empty_environment() -> str:
    """Built, installed with its dependencies from the package index, used far from the checkout."""
    with tempfile.TemporaryDirectory() as home:
        run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", home)
        (wheel,) = Path(home).glob("*.whl")
        run(sys.executable, "-m", "venv", f"{home}/venv")
        run(f"{home}/venv/bin/pip", "install", "-q", str(wheel))
        env = CLEAN | {"HOME": home}
        run(f"{home}/venv/bin/newsletter", "init", "press", cwd=Path(home), env=env)
        run(f"{home}/venv/bin/newsletter", "new", "2027-01", cwd=Path(home, "press"), env=env)
        run(
            f"{home}/venv/bin/newsletter",
            "build",
            "2027-01",
            "--out",
            "out",
            cwd=Path(home, "press"),
            env=env,
        )
        assert Path(home, "press", "out", "message.eml").is_file()
    return "`init`, `new` and `build` in an empty folder"


KILLED = ("--people", "20000", "--kills", "200", "--connections", "10", "--seed", "2026", "--json")


def drill(*options: str) -> str:
    """`newsletter drill` with its last word; every kill that was wanted has happened."""
    (report,) = json.loads(newsletter("drill", *KILLED, *options))
    kills, doubt = sum(report["kills"].values()), report["unknown"]
    assert kills == report["kills_wanted"] == 200, report["kills"]
    assert not report["lost"] + report["duplicated"] + report["misjudged"]
    most = kills * (report["window"] + 1) * report["connections"] + report["withheld_answers"]
    assert doubt["all"] <= most
    return (
        f"{report['people']:,} people, {kills} kills, {sum(report['faults'].values())} faults: {doubt['all']} unknown"
        f" (bound {most:,}), nobody lost, nobody twice"
    )


def drill_on_postgresql(*options: str) -> str:
    """Three senders share the campaign, on a server that waits for its disk."""
    with postgresql.server(fsync=True) as server:
        url = server.create(empty=True)
        return drill("--database", url, "--processes", "3", *options)


def machine() -> str:
    """On each database."""
    return passing("tests/store/test_ledger_machine.py", profile="histories") + ", 400 histories each"


def a_million(promise: Callable[[Path, int], str]) -> str:
    """A sentence with figures."""
    with tempfile.TemporaryDirectory() as folder:
        return promise(Path(folder), 1_000_000)


def frozen() -> str:
    """In two minutes, beside another writer."""
    seen = a_million(freezing.beside_another_writer)
    assert int(re.findall(r"frozen in (\d+) s", seen)[0]) <= 120, seen
    return seen


def going_on() -> str:
    """Within five seconds."""
    seen = a_million(freezing.after_kills)
    assert all(float(seconds) <= 5 for seconds in re.findall(r"after ([\d.]+) s", seen)[::2]), seen
    return seen


def in_a_folder(promise: Callable[[Path], str]) -> Callable[[], str]:
    """Shows a promise that needs a place of its own."""

    def show() -> str:
        with tempfile.TemporaryDirectory() as folder:
            return promise(Path(folder) / "place")

    return show


def bounds() -> str:
    """The whole bench, which ends with 1 when one is missed."""
    subprocess.run([sys.executable, "-m", "tests.bench"], check=True, cwd=ROOT)
    return "all"


PROOFS = (
    Proof(
        "`make demo` on a fresh clone reaches four people and leaves one out; a second run reaches nobody",
        fresh_clone_demo,
    ),
    Proof("The same issue built again gives the same bytes", same_bytes),
    Proof(
        "Arbitrary text goes through content, rendering and message and is found again in both parts",
        lambda: passing("tests/test_whole_line.py") + ", 3,000 examples each",
    ),
    Proof(
        "Every compiler trap is mended; arbitrary text survives the compiler",
        lambda: passing("tests/render", "-m", "not browser"),
    ),
    Proof(
        "Headers can't be injected, every line keeps its length, and what was spliced is what `EmailMessage` gives",
        lambda: passing("tests/test_message.py", "tests/test_quoted_printable.py") + ", 3,000 examples each",
    ),
    Proof(
        "Bad input gives one clear error, its exit code, no traceback and no file",
        lambda: passing("tests/cli"),
    ),
    Proof("The four transports keep one contract", lambda: passing("tests/transports")),
    Proof(
        "An SMTP conversation cut at every byte, in either direction, tells the truth about every copy",
        lambda: passing("tests/transports/test_smtp_cuts.py", "-m", "full"),
    ),
    Proof(
        "Signatures are right in the eyes of dkimpy, and nothing that they cover can be changed",
        lambda: passing("tests/transports/test_dkim.py"),
    ),
    Proof(
        "Limits hold for all processes together, in any history",
        lambda: passing("tests/test_limits.py", "tests/store/test_allowances.py"),
    ),
    Proof(
        "A sender killed at random moments loses nobody, mails nobody twice and names every doubt",
        lambda: passing("tests/test_kill.py"),
    ),
    Proof(
        "200 random SIGKILLs over 20,000 people on SQLite, by SMTP: nobody lost, nobody twice, every doubt named",
        lambda: drill("--transport", "smtp"),
    ),
    Proof("… on SQLite, by SendGrid's API", lambda: drill("--transport", "sendgrid")),
    Proof(
        "… on PostgreSQL with three sending processes, by SMTP",
        lambda: drill_on_postgresql("--transport", "smtp"),
    ),
    Proof(
        "… on PostgreSQL with three sending processes, by SendGrid's API",
        lambda: drill_on_postgresql("--transport", "sendgrid"),
    ),
    Proof("The drill finds every liar out", lambda: passing("tests/drill", "tests/cli/test_drill.py")),
    Proof("The ledger keeps its fifteen invariants in any history, on both databases", machine),
    Proof(
        "A million are frozen within two minutes, in transactions of about 10 ms, while another process writes",
        frozen,
    ),
    Proof("After a kill, freezing and sending a million go on within 5 s", going_on),
    Proof(
        "A freeze that is killed anywhere is all or nothing",
        lambda: passing("tests/test_freezing.py", "-k", "not million"),
    ),
    Proof(
        "A full, read-only, locked or damaged database and a clock that jumps: a sentence, and nothing sent unseen",
        lambda: passing("tests/test_trouble.py"),
    ),
    Proof(
        "A database that was copied, restored or put back is read only until it is claimed, wherever it is killed",
        lambda: passing("tests/store/test_instance.py", "tests/cli/test_database.py"),
    ),
    Proof(
        "A copied database of 100,000 readers sends nothing until it is claimed, and then nothing by itself",
        in_a_folder(backups.copied),
    ),
    Proof(
        "A backup is the same database again, from SQLite and PostgreSQL into either",
        lambda: passing("tests/test_backup.py"),
    ),
    Proof(
        "A backup of 100,000 readers, made while they get their copies, is whole",
        in_a_folder(backups.while_sending),
    ),
    Proof(
        "What other senders were reported to do wrong does not happen",
        lambda: passing("tests/test_reported_failures.py"),
    ),
    Proof(
        "Pausing and resuming again and again repeats nobody", lambda: passing("tests/cli/test_campaigns.py")
    ),
    Proof(
        "An import applied twice is an import applied once; nobody is revived; one that is killed can be gone on with",
        lambda: passing("tests/test_intake.py", "tests/test_subscriptions.py", "tests/test_importing.py"),
    ),
    Proof(
        "A million are imported in 160 MB, twice as fast as `sqlite-utils insert`; the same file again changes nothing",
        in_a_folder(importing.a_million),
    ),
    Proof(
        "500 readers a second leave by one click, on SQLite, and nobody who was told so is lost",
        in_a_folder(serving.five_hundred),
    ),
    Proof("… nor when the server is killed in the middle", in_a_folder(serving.killed)),
    Proof(
        "… nor with three processes on PostgreSQL, two killed, while others sign up and confirm",
        in_a_folder(serving.several_processes),
    ),
    Proof("At 200 a second 99 of 100 have their answer within 50 ms", in_a_folder(serving.quick)),
    Proof(
        "… and within 100 ms while a campaign of 100,000 leaves", in_a_folder(serving.quick_beside_a_campaign)
    ),
    Proof(
        "A reader joins, reads, rests, chooses, moves and is forgotten, by keyboard in a real browser; each page in "
        "each state is accessible",
        lambda: passing("tests/test_reader_journey.py", "tests/web/test_pages.py"),
    ),
    Proof(
        "Nothing that anybody sends to any page is an error of ours, and no GET or HEAD changes anything",
        lambda: passing("tests/web/test_guard.py", "tests/web/test_readers.py"),
    ),
    Proof(
        "A sign-up does the same for every address, in the same time; a letter survives the process that sends it",
        lambda: passing("tests/test_joining.py", "tests/test_letters.py", "tests/store/test_letters.py"),
    ),
    Proof(
        "An erased person is gone from database, log and files",
        lambda: passing("tests/test_personal_data.py", "tests/store/test_scrub.py"),
    ),
    Proof(
        "Two schedulers race for a thousand dates on SQLite: each issue goes out once",
        in_a_folder(scheduling.races),
    ),
    Proof("… on PostgreSQL", in_a_folder(scheduling.races_on_postgresql)),
    Proof(
        "A scheduler killed before and after each of its writes is followed by one that ends what it began, on SQLite",
        in_a_folder(scheduling.kills),
    ),
    Proof("… also on PostgreSQL", in_a_folder(scheduling.kills_on_postgresql)),
    Proof(
        "An approved issue of whose words, pictures, templates, settings, list or program one byte changed is not sent",
        lambda: passing("tests/test_seals.py", "tests/test_approval.py", "tests/cli/test_approving.py"),
    ),
    Proof(
        "Ten years of schedules in all zones have each month once; a machine that was off holds or sends as configured",
        lambda: passing("tests/test_schedule.py", "tests/test_appointments.py", "tests/cli/test_running.py"),
    ),
    Proof("The bounds of speed and memory are kept (docs/performance.md)", bounds),
    Proof("`newsletter --help` answers at once", help_is_quick),
    Proof("The wheel works in an empty environment", wheel_in_an_empty_environment),
)


def main() -> int:
    """Shows every proof; ends with 1 if one fails. Words on the command line choose some; the others' rows stay."""
    words = [word.lower() for word in sys.argv[1:]]
    chosen = [proof for proof in PROOFS if not words or any(word in proof.promise.lower() for word in words)]
    failed = False
    for proof in chosen:
        began = time.monotonic()
        try:
            seen = proof.show()
        except Exception:  # one failing proof must not hide the others
            traceback.print_exc()
            seen, failed = "**FAILED**", True
        took = time.monotonic() - began
        print(f"{took:6.0f} s  {proof.promise}: {seen}", flush=True)
        write_row(proof.promise, f"| {proof.promise} | {seen} | {took:.0f} s |")
    return int(failed)


def write_row(promise: str, row: str) -> None:
    """Into the report, in the order of the proofs; rows of promises that are no more go."""
    text = REPORT.read_text(encoding="utf-8") if REPORT.exists() else ""
    known = {
        line.split(" | ")[0].removeprefix("| "): line for line in text.splitlines() if line.startswith("| ")
    }
    known[promise] = row
    rows = [known[proof.promise] for proof in PROOFS if proof.promise in known]
    REPORT.write_text(report(rows), encoding="utf-8")


def report(rows: list[str]) -> str:
    """docs/proof.md."""
    machine = f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    head = [
        "# What was proved",
        "",
        f"Made by `make prove` on {machine}. Each row is a promise at its full size; the last column is how long",
        "showing it took, which says nothing about the product's speed.",
        "",
        "| promise | seen | took |",
        "|---|---|---|",
    ]
    return "\n".join([*head, *rows]) + "\n"


if __name__ == "__main__":
    sys.exit(main())

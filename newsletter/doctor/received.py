"""A mail that has arrived: whether receivers can check its signature, and whether that covers the way to leave.

RFC 8058, section 4: both List-Unsubscribe headers have to be covered by a DKIM signature, or one click does nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from email import message_from_bytes
from email.utils import parseaddr
from typing import TYPE_CHECKING, Any

from newsletter.doctor import dkim as records
from newsletter.doctor.names import Unanswered
from newsletter.doctor.report import error, ok, unseen
from newsletter.transports.answers import words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from email.message import Message
    from pathlib import Path

    from newsletter.doctor.names import Names
    from newsletter.doctor.report import Result

NAME = "received mail"
LINK, POST = "List-Unsubscribe", "List-Unsubscribe-Post"
HOW = (
    "Send one to a mailbox elsewhere: newsletter proof SLUG --to you@… Save its original there (Gmail: Show original), "
    "and give the file: newsletter doctor --seed FILE"
)
MOST_BYTES = 30_000_000
MOST_SIGNATURES = 8


@dataclass(frozen=True, slots=True)
class _Signature:
    """One DKIM-Signature, and what is wrong with it; empty if it counts."""

    domain: str
    wrong: str


def look_nowhere() -> Iterator[Result]:
    """Nobody has given one."""
    yield unseen(NAME, "whether its signature arrives whole shows only there.", HOW)


def look(file: Path, base_url: str, names: Names | None) -> Iterator[Result]:
    """The original of a mail of ours, as a mailbox has saved it. Without ``names`` its signature is not looked at."""
    try:
        with file.open("rb") as opened:
            raw = opened.read(MOST_BYTES)
    except OSError as problem:
        yield error(NAME, f"{file} can't be read: {problem.strerror}.", HOW)
        return
    mail = message_from_bytes(raw)
    if not mail["From"]:
        yield error(NAME, f"{file} is no mail: it has no From.", HOW)
        return
    yield _link(mail, base_url)
    yield _signed(raw, mail, names) if names else unseen(NAME, "its signature: the key is in the DNS.")
    for said in mail.get_all("Authentication-Results", [])[:1]:  # the first is of the mailbox itself
        yield ok(NAME, f"its mailbox said: {words(said)}")


def _link(mail: Message, base_url: str) -> Result:
    for name in (LINK, POST):
        count = len(mail.get_all(name, []))
        if count != 1:
            return error(
                NAME, f"it has {count or 'no'} {name} headers instead of one.", "Who on the way changes it?"
            )
    uris = [part.strip().strip("<>") for part in str(mail[LINK]).split(",")]
    if not any(uri.startswith(f"{base_url}/u/") for uri in uris):
        return error(
            NAME, f"its {LINK} does not lead to {base_url}.", "Is it one of ours, and of this folder?"
        )
    if str(mail[POST]).strip() != "List-Unsubscribe=One-Click":
        return error(NAME, f"its {POST} is not List-Unsubscribe=One-Click.", "Who on the way changes it?")
    return ok(NAME, f"one {LINK} to base_url, and one {POST}.")


def _signed(raw: bytes, mail: Message, names: Names) -> Result:
    try:
        import dkim  # noqa: PLC0415 - an optional dependency
    except ImportError:
        return unseen(NAME, "checking signatures needs dkimpy.", "pip install 'newsletter-press[dkim]'")
    verifier = dkim.DKIM(raw, minkey=1024, timeout=3)
    fields = mail.get_all("DKIM-Signature", [])[:MOST_SIGNATURES]
    shown = parseaddr(str(mail["From"]))[1].rpartition("@")[2].lower()
    found = [_checked(verifier, number, str(field), shown, names) for number, field in enumerate(fields)]
    return _judged(found, shown)


def _judged(found: Sequence[_Signature], shown: str) -> Result:
    good = [signature.domain for signature in found if not signature.wrong]
    if good:
        said = f"the signature of {', '.join(good)} is whole, counts for {shown} and covers both headers."
        return ok(NAME, said)
    if not found:
        return error(
            NAME, "it has no DKIM signature.", "Let your provider sign, or: newsletter dkim new SELECTOR"
        )
    said = "; ".join(f"{signature.domain or '?'}: {signature.wrong}" for signature in found)
    hint = f"A provider that signs has to cover {LINK} and {POST}; or sign here: newsletter dkim new SELECTOR"
    return error(NAME, f"no signature makes one click work. {words(said)}.", hint)


def _checked(verifier: Any, number: int, text: str, shown: str, names: Names) -> _Signature:
    tags = records.tags(text)
    domain = tags.get("d", "").lower()
    covered = {name.lower() for name in tags.get("h", "").split(":")}
    missing = [name for name in (LINK, POST) if name.lower() not in covered]
    if fault := _fault(verifier, number, names):
        return _Signature(domain, fault)
    if not (shown == domain or shown.endswith(f".{domain}") or domain.endswith(f".{shown}")):
        return _Signature(domain, f"it is not for {shown}")
    return _Signature(domain, f"it does not cover {' and '.join(missing)}" if missing else "")


def _fault(verifier: Any, number: int, names: Names) -> str:
    """Why a signature is none; empty if it verifies."""

    def txt(name: bytes, **_: object) -> bytes | None:
        found = names.txt(name.decode("ascii", "replace").rstrip("."))
        return found[0].encode() if found else None

    try:
        good = verifier.verify(number, dnsfunc=txt)
    except Unanswered as why:
        return f"nobody can say whether it verifies: {why}"
    # dkimpy has a dozen kinds of errors for what a mail may hold, and passes those of its helpers on.
    except Exception:
        good = False
    return "" if good else "it does not verify"

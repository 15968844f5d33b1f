"""DKIM signatures alone: ours against dkimpy, over the same message, with the same keys, one thread each."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from newsletter import config, wiring
from newsletter.message import Wire
from newsletter.model import Recipient
from tests.bench import ours, peers, sample
from tests.bench.measure import Cost, Rounds
from tests.bench.programs.measured import measured

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

    from tests.bench.workshop import Workshop

DOMAIN, SELECTOR = "example.org", "bench"
KINDS = {"rsa": "RSA-2048", "ed25519": "Ed25519"}
# What stands in newsletter.toml for a key in a file.
SECTION = """
[dkim]
domain = "{domain}"
[dkim.keys]
{selector} = "{file}"
"""


@dataclass(frozen=True)
class Keys:
    """One of each kind, in files; made when it is made."""

    folder: Path

    def __post_init__(self) -> None:
        if not hasattr(wiring, "dkim_signer"):
            raise peers.Missing("this version signs nothing: there is no newsletter/transports/dkim.py")
        self.folder.mkdir(exist_ok=True)
        self._write("rsa", rsa.generate_private_key(65537, 2048))
        edwards = ed25519.Ed25519PrivateKey.generate()
        self._write("ed25519", edwards)
        seed = edwards.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        self.for_dkimpy("ed25519").write_bytes(base64.b64encode(seed))

    def _write(self, kind: str, key: PrivateKeyTypes) -> None:
        self.file(kind).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self.file(kind).chmod(0o600)

    def file(self, kind: str) -> Path:
        """PEM."""
        return self.folder / f"{kind}.pem"

    def section(self, kind: str) -> str:
        """For newsletter.toml."""
        return SECTION.format(domain=DOMAIN, selector=SELECTOR, file=self.file(kind))

    def for_dkimpy(self, kind: str) -> Path:
        """It wants Ed25519 keys bare, in base64."""
        return self.file(kind) if kind == "rsa" else self.folder / "ed25519.seed"

    def for_nodemailer(self) -> dict[str, str]:
        """Its option ``dkim``; RSA is all it knows."""
        return {"domain": DOMAIN, "selector": SELECTOR, "key": str(self.file("rsa"))}


def rounds_of(shop: Workshop, keys: Keys, kind: str) -> Rounds:
    """``newsletter`` and ``dkimpy`` in turn; messages are signatures."""
    root = shop.root / f"signing-{kind}"
    root.mkdir()
    ours.configure(root, keys.section(kind))
    message = shop.peers_folder(pictures=False) / "message.eml"
    algorithm = {"rsa": "rsa-sha256", "ed25519": "ed25519-sha256"}[kind]
    told: dict[str, Any] = {"message": str(message), "algorithm": algorithm, "root": str(root)}
    told["key"] = str(keys.for_dkimpy(kind))
    commands = {
        f"newsletter, {KINDS[kind]}": ([sys.executable, "-m", "tests.bench.signing"], 2000),
        f"dkimpy, {KINDS[kind]}": ([peers.python(), str(peers.PROGRAMS / "dkimpy_sign.py")], 100),
    }
    costs: Rounds = {name: [] for name in commands}
    for number in range(shop.rounds + 1):
        for name, (command, count) in commands.items():
            cost = _run(command, told | {"messages": shop.count(count)})
            costs[name] += [cost] if number else []  # the first warms the caches
    return costs


def _run(command: Sequence[str], told: Mapping[str, Any]) -> Cost:
    done = subprocess.run(
        [*command, json.dumps(told)],
        capture_output=True,
        text=True,
        cwd=peers.ROOT,
        env=peers.environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    took = json.loads(done.stdout)
    return Cost(told["messages"], took["wall"], took["cpu"], took["cpu"], took["memory"], 0.0, 0.0)


def main() -> None:
    """Signs copies for as many readers as told, built beforehand."""
    told = json.loads(sys.argv[1])
    settings = config.load(Path(told["root"]), {})
    signer = wiring.dkim_signer(settings)
    wire = Wire(sample.compiled(pictures=False), wiring.message_settings(settings, sample.NOON))
    people = sample.people(told["messages"])
    copies = [wire.message(_recipient(number, person)) for number, person in enumerate(people)]
    with measured():
        for copy in copies:
            signer.fields(copy)


def _recipient(number: int, person: sample.Person) -> Recipient:
    links = {"unsubscribe_url": person.unsubscribe_url, "preferences_url": person.preferences_url}
    return Recipient(number.to_bytes(16, "big"), person.address, {"name": person.name, **links})


if __name__ == "__main__":
    main()

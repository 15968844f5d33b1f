"""dkimpy: one message signed again and again, over the headers that we sign."""

from __future__ import annotations

from pathlib import Path

import dkim
from measured import measured
from order import TOLD

MESSAGE = Path(TOLD["message"]).read_bytes()
KEY = Path(TOLD["key"]).read_bytes()
RELAXED = (b"relaxed", b"relaxed")
NAMES = [line.partition(b":")[0].lower() for line in MESSAGE.partition(b"\r\n\r\n")[0].split(b"\r\n")]
SIGNED = [name for name in NAMES if not name.startswith(b" ") and name != b"x-auto-response-suppress"]

with measured():
    for _ in range(TOLD["messages"]):
        dkim.sign(
            MESSAGE,
            b"bench",
            b"example.org",
            KEY,
            canonicalize=RELAXED,
            include_headers=SIGNED,
            signature_algorithm=TOLD["algorithm"].encode(),
        )

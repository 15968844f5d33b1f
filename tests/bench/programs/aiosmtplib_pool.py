"""aiosmtplib, as many connections as told, each with a task that takes the next reader."""

from __future__ import annotations

import asyncio
import ssl

import aiosmtplib
from measured import measured
from mime import message
from order import TOLD, email, people


async def send(left: list[dict[str, str]], what: dict[str, object]) -> None:
    """All of them."""
    secure = {"use_tls": False, "start_tls": False}
    if TOLD.get("ca"):
        secure = {"use_tls": True, "tls_context": ssl.create_default_context(cafile=TOLD["ca"])}

    async def one() -> None:
        async with aiosmtplib.SMTP(hostname="127.0.0.1", port=TOLD["port"], timeout=120, **secure) as smtp:
            while left:
                await smtp.send_message(message(what, left.pop()))

    await asyncio.gather(*(one() for _ in range(TOLD["connections"])))


to, email_ = people()[::-1], email()
with measured():
    asyncio.run(send(to, email_))

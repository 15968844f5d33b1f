"""smtplib, one connection, one message after the other: what most scripts do."""

from __future__ import annotations

import smtplib

from measured import measured
from mime import message
from order import TOLD, email, people

to, what = people(), email()
with measured(), smtplib.SMTP("127.0.0.1", TOLD["port"]) as smtp:
    for person in to:
        smtp.send_message(message(what, person))

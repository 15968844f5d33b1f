"""The message as a user of Python's ``email`` package writes it."""

from __future__ import annotations

from email.message import EmailMessage
from pathlib import Path
from typing import Any

from order import fill, fill_html


def message(email: dict[str, Any], person: dict[str, str]) -> EmailMessage:
    """One copy."""
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = email["from"], person["address"], email["subject"]
    for name, value in (email["headers"] | personal(person)).items():
        made[name] = value
    made.set_content(fill(email["text"], person), cte="quoted-printable")
    made.add_alternative(fill_html(email["html"], person), subtype="html", cte="quoted-printable")
    html = made.get_payload()[1]
    for picture in email["pictures"]:
        main, _, sub = picture["type"].partition("/")
        data = Path(picture["file"]).read_bytes()
        html.add_related(data, main, sub, cid=f"<{picture['cid']}>", filename=picture["name"])
    return made


def personal(person: dict[str, str]) -> dict[str, str]:
    """The headers that differ from reader to reader."""
    return {"Message-ID": person["message_id"], "List-Unsubscribe": f"<{person['unsubscribe_url']}>"}

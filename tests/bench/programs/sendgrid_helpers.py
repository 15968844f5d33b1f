"""The sendgrid package's ``Mail`` helpers, as its documentation shows them; a client for each thread."""

from __future__ import annotations

import html
import threading

from measured import measured
from order import TOLD, email, fill, fill_html, people
from sendgrid import SendGridAPIClient
from sendgrid.helpers.mail import (
    Content,
    CustomArg,
    From,
    Header,
    Mail,
    Personalization,
    ReplyTo,
    Subject,
    Substitution,
    To,
)

FIELDS = ("name", "unsubscribe_url", "preferences_url")
what, readers = email(), people()
sender = From(*reversed(what["from"].rstrip(">").split(" <")))
html_part = what["html"].replace("@@name@@", "@@html_name@@")
batches = [readers[first : first + TOLD["batch"]] for first in range(0, len(readers), TOLD["batch"])][::-1]


def one(person: dict[str, str]) -> Mail:
    """Filled in here."""
    mail = Mail(sender, To(person["address"]), Subject(what["subject"]))
    mail.content = [
        Content("text/plain", fill(what["text"], person)),
        Content("text/html", fill_html(what["html"], person)),
    ]
    mail.header = Header("List-Unsubscribe", f"<{person['unsubscribe_url']}>")
    mail.custom_arg = CustomArg("delivery", person["message_id"])
    return mail


def many(group: list[dict[str, str]]) -> Mail:
    """Filled in by SendGrid: literally and in both parts alike, so the html gets a name of its own, escaped."""
    mail = Mail(sender, None, Subject(what["subject"]))
    mail.content = [Content("text/plain", what["text"]), Content("text/html", html_part)]
    for person in group:
        each = Personalization()
        each.add_to(To(person["address"]))
        each.add_header(Header("List-Unsubscribe", f"<{person['unsubscribe_url']}>"))
        each.add_header(Header("Message-ID", person["message_id"]))
        for field in FIELDS:
            each.add_substitution(Substitution(f"@@{field}@@", person[field]))
        each.add_substitution(Substitution("@@html_name@@", html.escape(person["name"])))
        each.add_custom_arg(CustomArg("delivery", person["message_id"]))
        mail.add_personalization(each)
    return mail


def work() -> None:
    """Until no batch is left."""
    client = SendGridAPIClient("SG.bench", host=f"https://127.0.0.1:{TOLD['port']}")
    while batches:
        try:
            group = batches.pop()
        except IndexError:  # another thread was quicker
            return
        mail = many(group) if TOLD["batch"] > 1 else one(group[0])
        mail.reply_to = ReplyTo(what["headers"]["Reply-To"])
        for name in ("List-Unsubscribe-Post", "Auto-Submitted", "List-Help", "List-Post"):
            mail.header = Header(name, what["headers"][name])
        assert client.send(mail).status_code == 202


with measured():
    threads = [threading.Thread(target=work) for _ in range(TOLD["connections"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

"""Django's mail backend: ``send_messages`` with a list of ``EmailMultiAlternatives``, over one connection."""

from __future__ import annotations

from django.conf import settings
from django.core.mail import EmailMultiAlternatives, get_connection
from django.core.mail.message import utf8_charset_qp
from measured import measured
from mime import personal
from order import TOLD, email, fill, fill_html, people

settings.configure(EMAIL_HOST="127.0.0.1", EMAIL_PORT=TOLD["port"])
to, what = people(), email()


def message(person: dict[str, str]) -> EmailMultiAlternatives:
    """One copy."""
    text, html = fill(what["text"], person), fill_html(what["html"], person)
    headers = what["headers"] | personal(person)
    made = EmailMultiAlternatives(what["subject"], text, what["from"], [person["address"]], headers=headers)
    made.encoding = utf8_charset_qp  # as the others: it would write 8-bit
    made.attach_alternative(html, "text/html")
    return made


with measured():
    get_connection("django.core.mail.backends.smtp.EmailBackend").send_messages([message(one) for one in to])

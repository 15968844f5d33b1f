"""How a mail looks to somebody whose device asks for light or for dark, on a device that may ask for the other.

A page can't tell a frame which colour scheme to prefer, so the question itself is answered in the mail's html.
"""

from __future__ import annotations

import re

QUESTION = re.compile(r"\(\s*prefers-color-scheme\s*:\s*(light|dark)\s*\)", re.IGNORECASE)
ALWAYS, NEVER = "(min-width:0)", "(max-width:0)"
OFFER = re.compile(
    r"""(color-scheme["']?\s*(?::|content=["'])\s*)(?:light dark|dark light|light|dark)\b""", re.IGNORECASE
)
HEAD = re.compile(r"<head\b[^>]*>", re.IGNORECASE)


def in_scheme(html: str, scheme: str) -> str:
    """``html`` as seen where ``scheme`` (``light`` or ``dark``) is preferred; its links open beside the preview."""
    answered = QUESTION.sub(lambda asked: ALWAYS if asked[1].lower() == scheme else NEVER, html)
    offered = OFFER.sub(rf"\g<1>{scheme}", answered)
    return HEAD.sub(lambda head: head[0] + '<base target="_blank">', offered, count=1)

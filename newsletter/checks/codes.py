"""Every code a check can report. The reference page of the documentation is made from this table."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

CODES: Mapping[str, str] = {
    "A101": "A picture has no alt attribute.",
    "A102": "A picture of the issue has an empty alt text.",
    "A103": "An alt text is a file name.",
    "A104": "A link holds no words that a screen reader could say.",
    "A105": "The html does not say its language or its writing direction.",
    "A106": "The html has no title.",
    "A107": "The headings skip a level, are empty, or there is not exactly one main heading.",
    "A108": "A layout table is not marked as such, so a screen reader would announce rows and columns.",
    "A109": "Words have too little contrast with what is behind them.",
    "A110": "Words are smaller than 14 pixels, or than 20 in large print.",
    "D101": "The subject or the preheader holds a word that says what the list is about.",
    "D102": "The name that inboxes show holds a word that says what the list is about.",
    "H101": "The message has not exactly one List-Unsubscribe header with an https link.",
    "H102": "The message does not offer one-click unsubscribing (RFC 8058).",
    "H103": "The unsubscribe link is too long for one header line.",
    "H104": "The message has not exactly one sender.",
    "H105": "Replies would reach nobody.",
    "H106": "The subject is longer than inboxes show.",
    "H107": "The preheader is longer than inboxes show.",
    "L101": "A link is not https, http or mailto.",
    "L102": "A link leads nowhere.",
    "L103": "A link is http, which anybody on the way can read and change.",
    "L104": "A merge tag was not filled and would be seen by readers.",
    "L105": "A part of the email has no unsubscribe link.",
    "L106": "A picture is loaded from elsewhere, which tells that place who opened the mail.",
    "L107": "The html holds something that inboxes remove or distrust, such as a script or a form.",
    "M101": "A merge tag stands where no reader sees it filled: in a style, a comment or a picture's name.",
    "R101": "A related article is dated after the issue.",
    "R102": "A related article is the very paper that the lead is about.",
    "R103": "The source is dated after the issue.",
    "S101": "The html comes near the size at which Gmail cuts a mail off.",
    "S102": "The html is so large that Gmail would cut it off and hide the unsubscribe link.",
    "S103": "The whole message is large.",
    "S104": "The pictures, logo included, are too large to travel inside the mail.",
    "W101": "A placeholder was left in the text.",
    "W102": "A waiver matches no finding.",
    "W103": "A part of the email lacks the postal address.",
}

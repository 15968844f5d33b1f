"""Put CSS into ``style`` attributes, and change nothing else.

premailer's defaults destroy a compiled mail: they strip ``!important`` from media queries, drop the doctype, remove
dark-mode rules and fetch style sheets from the network. With live style blocks marked to be left alone and only our
own CSS given to it, it is exact. ``css_inline.CSSInliner`` would fit behind the same function and checks this one
in the tests.
"""

from __future__ import annotations

import logging
import re
import sys
from types import ModuleType
from typing import Any

COMMENT = re.compile(r"(<!--.*?-->)", re.DOTALL)
LIVE_STYLE = re.compile(
    r"<style\b(?![^>]*\smedia=)"
)  # one with media= is skipped anyway and would keep the mark
DOCTYPE = re.compile(r"\A<!doctype html>", re.IGNORECASE)


def inline(html: str, css: str) -> str:
    """``html`` with the rules of ``css`` in its ``style`` attributes; comments and style blocks byte for byte."""
    result: str = _premailer()(
        _marked(html),
        css_text=css,
        allow_network=False,
        strip_important=False,
        keep_style_tags=False,
        exclude_pseudoclasses=True,
        include_star_selectors=False,
        disable_validation=True,
        align_floating_images=False,
        remove_unset_properties=False,
        remove_classes=False,
        disable_link_rewrites=True,
        preserve_handlebar_syntax=False,
        disable_basic_attributes=["align", "valign", "bgcolor", "width", "height"],
        cssutils_logging_level=logging.CRITICAL,
    ).transform(pretty_print=False)
    return DOCTYPE.sub("<!doctype html>", result)


def _premailer() -> Any:
    """The class, imported when it is first needed and without what it would only waste a quarter of a second on."""
    loaded = sys.modules.get("requests")
    # It wants requests for fetching style sheets, which it must never do here; with a name without contents it can't.
    sys.modules["requests"] = ModuleType("requests")
    try:
        import cssutils  # noqa: PLC0415
        from premailer import Premailer  # noqa: PLC0415
    finally:
        del sys.modules["requests"]
        if loaded is not None:
            sys.modules["requests"] = loaded
    # It validates each value although told not to, and nothing in the result depends on that. Without profiles to
    # compare with, cssutils compiles no patterns for it.
    cssutils.profile.removeProfile(all=True)
    return Premailer


def _marked(html: str) -> str:
    # libxml2 keeps only the upper-case doctype; without one, every inbox that shows a page falls to quirks mode.
    html = DOCTYPE.sub("<!DOCTYPE html>", html)
    parts = COMMENT.split(html)
    mark = '<style data-premailer="ignore"'
    return "".join(part if index % 2 else LIVE_STYLE.sub(mark, part) for index, part in enumerate(parts))

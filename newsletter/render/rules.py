"""What MJML allows where, as data: the compiler accepts anything and drops what it does not know.

Taken from the components' documentation at https://documentation.mjml.io, less what mrml 6.0.1 ignores.
"""

from __future__ import annotations


def _sides(name: str) -> frozenset[str]:
    return frozenset({name, *(f"{name}-{side}" for side in ("top", "right", "bottom", "left"))})


PADDING = _sides("padding")
BORDER = _sides("border") | {"border-radius"}
COMMON = frozenset({"css-class", "mj-class"})
FONT = frozenset(
    {"color", "font-family", "font-size", "font-style", "font-weight", "letter-spacing", "line-height"}
)
TEXT = FONT | {"align", "height", "text-decoration", "text-transform", "vertical-align"}
LINK = frozenset({"href", "name", "rel", "target"})
SECTION = (
    PADDING
    | BORDER
    | {"background-color", "background-position", "background-position-x", "background-position-y"}
    | {"background-repeat", "background-size", "background-url", "direction", "full-width", "text-align"}
)
COLUMN = (
    PADDING
    | BORDER
    | _sides("inner-border")
    | {
        "background-color",
        "direction",
        "inner-background-color",
        "inner-border-radius",
        "vertical-align",
        "width",
    }
)

BODY_COMPONENTS: dict[str, frozenset[str]] = {
    "mj-body": COMMON | {"background-color", "width"},
    "mj-wrapper": COMMON | SECTION,
    "mj-section": COMMON | SECTION,
    "mj-group": COMMON | {"background-color", "direction", "vertical-align", "width"},
    "mj-column": COMMON | COLUMN,
    "mj-text": COMMON | TEXT | PADDING | {"container-background-color"},
    "mj-image": COMMON
    | PADDING
    | BORDER
    | LINK
    | {
        "align",
        "alt",
        "container-background-color",
        "fluid-on-mobile",
        "font-size",
        "height",
        "max-height",
        "src",
    }
    | {"srcset", "title", "usemap", "width"},
    "mj-button": COMMON
    | TEXT
    | PADDING
    | BORDER
    | LINK
    | {"background-color", "container-background-color", "inner-padding", "text-align", "width"},
    "mj-divider": COMMON
    | PADDING
    | {"align", "border-color", "border-style", "border-width", "container-background-color", "width"},
    "mj-spacer": COMMON | PADDING | {"container-background-color", "height"},
    "mj-table": COMMON
    | PADDING
    | FONT
    | {
        "align",
        "border",
        "cellpadding",
        "cellspacing",
        "container-background-color",
        "table-layout",
        "width",
    },
}
ANY_BODY_ATTRIBUTE = frozenset().union(*BODY_COMPONENTS.values())

ATTRIBUTES: dict[str, frozenset[str]] = BODY_COMPONENTS | {
    "mjml": frozenset({"dir", "lang"}),
    "mj-head": frozenset(),
    "mj-title": frozenset(),
    "mj-preview": frozenset(),
    "mj-attributes": frozenset(),
    "mj-all": ANY_BODY_ATTRIBUTE,
    "mj-class": ANY_BODY_ATTRIBUTE | {"name"},
    "mj-breakpoint": frozenset({"width"}),
    "mj-style": frozenset({"inline"}),
    "mj-raw": frozenset(),
}

CONTENT = frozenset(BODY_COMPONENTS) - {"mj-body", "mj-wrapper", "mj-section", "mj-group", "mj-column"}
CHILDREN: dict[str, frozenset[str]] = {
    "": frozenset({"mjml"}),
    "mjml": frozenset({"mj-head", "mj-body"}),
    "mj-head": frozenset({"mj-title", "mj-preview", "mj-attributes", "mj-breakpoint", "mj-style", "mj-raw"}),
    "mj-attributes": frozenset(BODY_COMPONENTS) | {"mj-all", "mj-class"},
    "mj-body": frozenset({"mj-wrapper", "mj-section", "mj-raw"}),
    "mj-wrapper": frozenset({"mj-section", "mj-raw"}),
    "mj-section": frozenset({"mj-column", "mj-group", "mj-raw"}),
    "mj-group": frozenset({"mj-column", "mj-raw"}),
    "mj-column": CONTENT | {"mj-raw"},
}

TAKES_HTML = frozenset({"mj-text", "mj-button", "mj-table", "mj-raw"})
TAKES_TEXT = TAKES_HTML | {"mj-title", "mj-preview", "mj-style"}

REFUSED = {
    "mj-include": "Use Jinja: {% include %}.",
    "mj-font": "A web font tells its host who opened the mail; name fonts that devices have.",
    "mj-hero": "The compiler gets its paddings and heights wrong; use mj-section with a background.",
    "mj-accordion": "Most inboxes can't open one; show the text.",
    "mj-carousel": "Most inboxes show its first picture only; use mj-image.",
    "mj-navbar": "Its menu works in few inboxes; use links in mj-text.",
    "mj-social": "Its icons are loaded from another host; use links in mj-text.",
    "mj-html-attributes": "The compiler does not know it; write the attribute where it belongs.",
}

VOID = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
)

"""MJML → HTML by mrml, with what it gets wrong taken out of its way before and put right after.

mrml 6.0.1 (the engine of mjml-python 1.4.2) writes every attribute in Rust's debug format, so that a reader would
see ``❤\\u{fe0f}`` and a quotation mark would end the attribute; it panics on ``Café > Bar``; it reads only paddings
in px. ASCII sources with decimal references and quoted values pass through it unharmed, so that is what it gets.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from newsletter.render.css import tidy
from newsletter.render.findings import WHOLE, fail, finding
from newsletter.render.markup import MARK, Kind, Token, tokens
from newsletter.render.validate import validate

if TYPE_CHECKING:
    from collections.abc import Callable

INLINED = re.compile(r'<mj-style\b[^>]*\sinline="inline"[^>]*>(.*?)</mj-style\b[^>]*>', re.DOTALL)
BARE_NUMBER = re.compile(r"\b(\d+(?:\.\d+)?)(?=\s|$)")
LEAKED = re.compile(r"</?mj-[a-z-]+")
REFERENCE = re.compile(r"&#(\d+);")
COMMENT = re.compile(r"(<!--.*?-->)", re.DOTALL)
STYLE = re.compile(r"(<style\b.*?</style>)", re.DOTALL)
IMAGE_WITHOUT_ALT = re.compile(r"<img\b(?![^>]*\salt=)")
COLOURED = re.compile(r'\s(?:style|bgcolor)="[^"]*"')
SHORT_COLOUR = re.compile(r"(?<!&)#([0-9a-fA-F])([0-9a-fA-F])([0-9a-fA-F])(?![0-9a-fA-F])")


class Compiled(NamedTuple):
    """HTML, and the CSS that is still to be inlined: mjml-python silently would not."""

    html: str
    css: str


def compile_mjml(source: str) -> Compiled:
    """MJML as our templates give it → HTML. Raises ``TemplateError`` with everything that is wrong with it."""
    if findings := validate(source):
        fail(findings)
    css = "\n".join(INLINED.findall(source))
    return Compiled(finish(_compile(normalise(INLINED.sub("", source)))), css)


def normalise(source: str) -> str:
    """Validated MJML as the compiler can't spoil it: ASCII, values quoted and on one line, paddings in px."""
    out, title = [], False
    for token in tokens(source):
        piece = _normal(token)
        # The compiler copies the title into an attribute.
        out.append(re.sub(r"\s+", " ", piece) if title else piece)
        title = token.kind is Kind.OPEN and token.name == "mj-title"
    return "".join(out)


def _normal(token: Token) -> str:
    match token.kind:
        case Kind.OPEN | Kind.VOID | Kind.CLOSE:
            return _normal_tag(token)
        case Kind.CSS:
            return tidy(token.raw)
        case Kind.TEXT:
            return _ascii(token.raw)
        case _:
            return MARK.sub("", token.raw).encode("ascii", "xmlcharrefreplace").decode()


def _normal_tag(token: Token) -> str:
    attributes = "".join(f' {name}="{_value(token.name, name, value)}"' for name, value in token.attributes)
    start, end = "/" if token.kind is Kind.CLOSE else "", " /" if token.kind is Kind.VOID else ""
    return f"<{start}{token.name}{attributes}{end}>"


def _value(tag: str, name: str, value: str) -> str:
    if tag.startswith("mj-") and "padding" in name:
        value = BARE_NUMBER.sub(r"\1px", value)
    return _ascii(re.sub(r"[\t\r\n]", " ", value))


def _ascii(text: str) -> str:
    quoted = text.replace('"', "&#34;").replace("\\", "&#92;")
    return quoted.encode("ascii", "xmlcharrefreplace").decode()


def _compile(source: str) -> str:
    import mjml  # noqa: PLC0415 – a native module; `newsletter --help` does not wait for it

    try:
        # No fonts: its default loads one from Google. The origin is for social icons, which we refuse.
        html: str = mjml.mjml2html(source, disable_comments=True, fonts={}, social_icon_origin="image:")
    except Exception as error:
        fail([finding("T401", WHOLE, f"the MJML compiler says: {error}")])
    except BaseException as error:
        # A Rust panic arrives as a BaseException of a class nobody can import; the module works on after it.
        if type(error).__name__ != "PanicException":
            raise
        fail(
            [
                finding(
                    "T401",
                    WHOLE,
                    f"the MJML compiler gave up: {error}",
                    "Please report it with the template.",
                )
            ]
        )
    return html


def finish(html: str) -> str:
    """What mrml leaves undone: alt texts, colours Outlook can read, characters instead of references."""
    if leaked := LEAKED.search(html):
        fail([finding("T402", WHOLE, f"{leaked[0]}> was left over in the HTML")])
    html = _outside(COMMENT, html, lambda part: IMAGE_WITHOUT_ALT.sub('<img alt=""', part))
    html = COLOURED.sub(lambda match: SHORT_COLOUR.sub(r"#\1\1\2\2\3\3", match[0]), html)
    # One class for what lies behind everything, so that dark mode needs no `body` selector, which Outlook.com
    # turns into `div`.
    html = html.replace("<body ", '<body class="page" ', 1)
    return _outside(STYLE, html, lambda part: REFERENCE.sub(_character, part))


def _outside(pattern: re.Pattern[str], html: str, change: Callable[[str], str]) -> str:
    parts = pattern.split(html)
    return "".join(part if index % 2 else change(part) for index, part in enumerate(parts))


def _character(match: re.Match[str]) -> str:
    code = int(match[1])
    return chr(code) if code >= 160 else match[0]

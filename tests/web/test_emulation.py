"""Light and dark are answered in the mail's own html."""

from __future__ import annotations

from newsletter.web.emulation import in_scheme

MAIL = """<html><head><meta name="color-scheme" content="light dark"><style>
:root { color-scheme: light dark; }
@media (prefers-color-scheme: dark) { p { color: #fff } }
@media (max-width:480px) and ( prefers-color-scheme:light ) { p { color: #000 } }
</style></head><body>color-scheme</body></html>"""


def test_the_asked_scheme_holds_whatever_the_device_prefers() -> None:
    dark = in_scheme(MAIL, "dark")
    assert "@media (min-width:0) { p { color: #fff } }" in dark
    assert "@media (max-width:480px) and (max-width:0) { p { color: #000 } }" in dark
    assert '<meta name="color-scheme" content="dark">' in dark
    assert ":root { color-scheme: dark; }" in dark


def test_the_other_scheme_is_the_mirror_image() -> None:
    light = in_scheme(MAIL, "light")
    assert "@media (max-width:0) { p { color: #fff } }" in light
    assert "and (min-width:0) { p { color: #000 } }" in light
    assert '<meta name="color-scheme" content="light">' in light


def test_links_open_beside_the_preview() -> None:
    assert in_scheme(MAIL, "light").startswith('<html><head><base target="_blank">')


def test_a_mail_without_colour_schemes_is_left_alone() -> None:
    plain = "<html><body><p>prefers-color-scheme: dark</p></body></html>"
    assert in_scheme(plain, "dark") == plain

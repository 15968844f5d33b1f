"""The picture of a lead: looked at from the outside first, so that a huge file is never read."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from newsletter import pictures
from newsletter.content.files import leads_out, readable_size
from newsletter.model import Picture

if TYPE_CHECKING:
    from pathlib import Path

    from newsletter.content.codes import Fault
    from newsletter.content.files import Folder

LARGEST_PICTURE = 5_000_000  # bytes, hosted; more is never needed on a screen
LARGEST_EMBEDDED = 200_000  # bytes of all pictures as the mail carries them (base64 with its line ends)
ENCODED_PER_BYTE = 4 / 3 * 78 / 76  # RFC 2045, 6.8: four characters for three bytes, CRLF after 76
LARGEST_EMBEDDED_FILE = int(LARGEST_EMBEDDED / ENCODED_PER_BYTE)


def load(folder: Folder, name: str, alt: str, *, embed: bool) -> Picture | Fault:
    """The picture ``name`` of the issue's folder, or what is wrong with it."""
    path = folder.path / name
    try:
        fault = _outer_fault(folder, path, name, LARGEST_EMBEDDED_FILE if embed else LARGEST_PICTURE)
        data = b"" if fault else path.read_bytes()
    except ValueError:  # a name that no file can have
        return _no_picture(folder.path, name)
    except OSError as error:
        return (
            "C105",
            f"The picture {name} can't be read: {error.strerror}.",
            "Let this user read it, or rename it.",
        )
    if fault:
        return fault
    try:
        media_type, width, height = pictures.measure(data)
    except ValueError as error:
        return "C153", str(error), f"Save {name} as PNG, JPEG or GIF again."
    if embed and len(data) > LARGEST_EMBEDDED_FILE:
        return _too_large_inside(name, len(data), width, height)
    return Picture(name, media_type, data, width, height, alt.strip())


def _outer_fault(folder: Folder, path: Path, name: str, limit: int) -> Fault | None:
    if folder.outside(path):
        return leads_out(f"The picture {name}")
    if not path.is_file():
        return _no_picture(folder.path, name)
    size = path.stat().st_size
    if size <= LARGEST_PICTURE:
        return None
    hint = f"Save it with at most {readable_size(limit)}: 1200 pixels wide, as JPEG if it is a photo."
    return "C152", f"The picture {name} has {readable_size(size)}.", hint


def _no_picture(folder: Path, name: str) -> Fault:
    there = sorted(path.relative_to(folder).as_posix() for path in folder.glob("images/*"))
    near = get_close_matches(name, there, n=1)
    hint = f"Did you mean “{near[0]}”?" if near else "Put the file there, or remove image and image_alt."
    return "C151", f"There is no picture {name} in the issue's folder.", hint


def _too_large_inside(name: str, size: int, width: int, height: int) -> Fault:
    scale = (LARGEST_EMBEDDED_FILE / size) ** 0.5
    taken, allowed = readable_size(size * ENCODED_PER_BYTE), readable_size(LARGEST_EMBEDDED)
    return (
        "C155",
        f"The pictures take {taken} inside the mail; {allowed} is the most.",
        f"Save {name} with {readable_size(LARGEST_EMBEDDED_FILE)} or less (it has {readable_size(size)}), for "
        f"instance with {int(width * scale)} × {int(height * scale)} pixels, or set [images] "
        'mode = "hosted" in newsletter.toml.',
    )

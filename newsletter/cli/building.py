"""What ``newsletter build`` writes, and how it is put in place: all of it or nothing."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from newsletter.checks import sample
from newsletter.errors import UsageError
from newsletter.message import Wire, picture_path
from newsletter.model import Edition

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from newsletter.message import MessageSettings
    from newsletter.model import Email, Picture


PAGES = {Edition.STANDARD: "index.html", Edition.LARGE: "large.html"}


def files(editions: Sequence[Email], settings: MessageSettings) -> dict[str, bytes]:
    """Relative path → bytes of everything one issue is built into. The same issue gives the same bytes."""
    standard = editions[0]
    built = {
        "message.eml": b"".join(Wire(standard, settings).pieces(sample.reader(standard, settings.base_url))),
        "index.txt": sample.text(standard, settings.base_url).encode(),
    }
    for email in editions:
        if email.edition in PAGES:
            paths = {picture.name: _path(email, settings, picture) for picture in email.pictures}
            built |= {paths[picture.name]: picture.data for picture in email.pictures}
            page = sample.page(email, settings.base_url, paths.__getitem__)
            built[PAGES[Edition(email.edition)]] = page.encode()
    return built


def _path(email: Email, settings: MessageSettings, picture: Picture) -> str:
    hosted = picture_path(email, picture)
    if settings.images_url:
        return f"media/{hosted}"  # as its host needs it: the folder can be uploaded as it is
    return f"images/{hosted.rpartition('/')[2]}"


def write(folder: Path, built: Mapping[str, bytes]) -> None:
    """Put the files into ``folder``, over those of an earlier build; other files there are left alone.

    They are written beside it first: a full disk or a power cut leaves the earlier build as it was.

    Raises:
        UsageError: if something there can't be written.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100  resolve() would follow a link that is to be kept
    staging = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        for name, data in built.items():
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).write_bytes(data)
        _move(staging, folder, built)
    except OSError as error:
        raise UsageError(
            f"{folder} can't be written: {error.strerror or error}.", hint="Name another folder with --out."
        ) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _move(staging: Path, folder: Path, names: Mapping[str, bytes]) -> None:
    if not folder.exists():
        staging.rename(folder)
        return
    for name in names:  # before the first is moved: all of them or none
        if (folder / name).is_dir():
            raise IsADirectoryError(errno.EISDIR, f"{name} there is a folder")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (staging / name).replace(folder / name)

"""The folder transport: whole files, private, and honest about a full disk."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from newsletter.errors import TransportUnavailable
from newsletter.model import Accepted, NotTaken
from newsletter.transports.folder import FolderTransport
from tests.support.copies import hand_over, people, wire

if TYPE_CHECKING:
    from pathlib import Path


def test_each_copy_is_one_file_with_the_bytes_of_the_wire(tmp_path: Path) -> None:
    message = wire()
    report = hand_over(FolderTransport(tmp_path / "a" / "b"), people(3), message)
    files = sorted((tmp_path / "a" / "b").iterdir())
    assert [file.name for file in files] == [f"{copy.id}.eml" for copy in people(3)]
    assert [file.read_bytes() for file in files] == [b"".join(message.pieces(copy)) for copy in people(3)]
    assert report.outcomes[1] == Accepted(people(1)[0].delivery, files[0].name)


def test_a_second_try_replaces_the_file_by_the_same_bytes(tmp_path: Path) -> None:
    hand_over(FolderTransport(tmp_path), people(1))
    (file,) = tmp_path.iterdir()
    first = file.read_bytes()
    file.write_bytes(first[:10])
    hand_over(FolderTransport(tmp_path), people(1))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [first]


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_only_the_owner_can_read_what_was_written(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        hand_over(FolderTransport(tmp_path / "outbox"), people(1))
    finally:
        os.umask(before)
    (file,) = (tmp_path / "outbox").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_a_full_disk_keeps_what_was_written_and_charges_nobody(tmp_path: Path) -> None:
    copies = people(5)
    (tmp_path / f".{copies[2].id}.tmp").symlink_to("/dev/full")
    report = hand_over(FolderTransport(tmp_path), copies)
    assert isinstance(report.error, TransportUnavailable)
    assert "No space left" in str(report.error)
    assert report.kinds() == {1: "Accepted", 2: "Accepted", 3: "NotTaken", 4: "NotTaken", 5: "NotTaken"}
    assert report.outcomes[3] == NotTaken(copies[2].delivery, "No space left on device", charged=False)
    assert sorted(path.name for path in tmp_path.glob("*.eml")) == [f"{copy.id}.eml" for copy in copies[:2]]


def test_what_a_killed_run_left_half_written_is_not_taken_for_a_copy(tmp_path: Path) -> None:
    (copy,) = people(1)
    (tmp_path / f".{copy.id}.tmp").write_bytes(b"half")
    hand_over(FolderTransport(tmp_path), [copy])
    assert [path.name for path in tmp_path.iterdir()] == [f"{copy.id}.eml"]

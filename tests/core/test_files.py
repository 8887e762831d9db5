"""Files that others may have put there: read within limits, written past no link, for their owner alone."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from tale_core.errors import InvalidValueError
from tale_core.files import read_file, replace_file

if TYPE_CHECKING:
    from pathlib import Path

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX file modes and devices")


@posix
def test_only_the_owner_can_read_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    path.write_text("old")
    path.chmod(0o644)
    replace_file(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == b"new"


@posix
def test_a_link_is_replaced_and_what_it_points_to_left_alone(tmp_path: Path) -> None:
    victim, link = tmp_path / "victim", tmp_path / "report.md"
    victim.write_text("precious")
    link.symlink_to(victim)
    replace_file(link, b"new")
    assert victim.read_text() == "precious"
    assert not link.is_symlink()


def test_a_file_within_its_limit_is_read_and_one_beyond_it_is_not(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_file(path, "file", most=5, fix="check it") == b"12345"
    with pytest.raises(InvalidValueError, match=r"larger than 4 bytes, .*; check it"):
        read_file(path, "file", most=4, fix="check it")


@posix
def test_devices_pipes_and_folders_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", tmp_path / "pipe", tmp_path):
        with pytest.raises(InvalidValueError, match=r"no regular file|Is a directory"):
            read_file(path, "file", most=5, fix="check it")


def test_a_path_that_cannot_be_one_is_a_clear_error() -> None:
    with pytest.raises(InvalidValueError, match="cannot read file"):
        read_file("a\0b", "file", most=5, fix="check it")

"""What was written is flushed once per file system, and faults come out."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from dm.errors import MachineFailed
from dm.plumbing.fs import flush
from dm.plumbing.fs.flush import flush_file_systems, flush_folder
from tests.fixtures.machine import MakeTmpfs


def test_files_and_folders_and_links_are_flushed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"1")
    (tmp_path / "link").symlink_to("nowhere")
    flush_file_systems([tmp_path / "a", tmp_path / "a" / "x", tmp_path / "link"])


def test_nothing_to_flush_is_fine() -> None:
    flush_file_systems([])


@pytest.mark.needs_root
def test_one_flush_is_made_for_each_file_system(
    tmp_path: Path, small_tmpfs: MakeTmpfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = small_tmpfs(1 << 20)
    paths = []
    for folder in (tmp_path, other):
        for number in range(5):
            paths.append(folder / f"x{number}")
            paths[-1].write_bytes(b"1")
    flushed: list[int] = []

    def syncfs(descriptor: int) -> int:
        flushed.append(os.fstat(descriptor).st_dev)
        return 0

    monkeypatch.setattr(flush, "_syncfs", syncfs)
    flush_file_systems(paths)
    assert flushed == [os.stat(tmp_path).st_dev, os.stat(other).st_dev]


def test_without_syncfs_every_file_and_folder_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a"
    (folder / "b").mkdir(parents=True)
    (folder / "b" / "x").write_bytes(b"1")
    (folder / "y").write_bytes(b"2")
    (folder / "link").symlink_to("y")
    flushed: set[int] = set()
    monkeypatch.setattr(flush, "_syncfs_missing", True)
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.add(os.fstat(descriptor).st_ino))
    flush_file_systems([folder])
    assert flushed == {os.stat(path).st_ino for path in (folder, folder / "b", folder / "b" / "x", folder / "y")}


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(MachineFailed) as caught:
        flush_file_systems([tmp_path / "absent"])
    assert str(caught.value) == f"cannot flush '{tmp_path}/absent': no such file or folder"


def test_a_write_that_failed_earlier_is_told_at_the_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    (tmp_path / "x").write_bytes(b"1")
    monkeypatch.setattr(flush, "_syncfs_missing", True)
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(MachineFailed) as caught:
        flush_file_systems([tmp_path / "x"])
    assert caught.value.code == "io-error"


def test_a_folder_that_cannot_be_flushed_by_its_file_system_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", fsync)
    flush_folder(tmp_path)

"""Removing takes all of a folder and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dm.plumbing.fs import remove
from dm.plumbing.fs.remove import remove_tree


def test_a_folder_is_removed_with_everything_in_it(tmp_path: Path) -> None:
    top = tmp_path / "top"
    for name in ("a/b/c", "d", "e/f"):
        (top / name).mkdir(parents=True)
        (top / name / "x").write_bytes(b"1")
    (top / os.fsdecode(b"\xff\n")).write_bytes(b"2")
    remove_tree(top)
    assert os.listdir(tmp_path) == []


def test_nothing_there_is_fine(tmp_path: Path) -> None:
    remove_tree(tmp_path / "absent")


def test_a_file_and_a_dangling_link_are_removed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "link").symlink_to("nowhere")
    remove_tree(tmp_path / "file")
    remove_tree(tmp_path / "link")
    assert os.listdir(tmp_path) == []


def test_links_are_removed_and_never_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "x").write_bytes(b"1")
    top = tmp_path / "top"
    top.mkdir()
    (top / "folder").symlink_to(precious)
    (top / "file").symlink_to(precious / "x")
    remove_tree(top)
    (tmp_path / "link").symlink_to(precious)
    remove_tree(tmp_path / "link")
    assert (precious / "x").read_bytes() == b"1"
    assert os.listdir(tmp_path) == ["precious"]


def test_read_only_folders_are_removed(tmp_path: Path) -> None:
    inner = tmp_path / "top" / "inner"
    inner.mkdir(parents=True)
    (inner / "x").write_bytes(b"1")
    (inner / "x").chmod(0o444)
    inner.chmod(0o000)
    inner.parent.chmod(0o555)
    remove_tree(tmp_path / "top")
    assert os.listdir(tmp_path) == []


def test_a_folder_deeper_than_the_limit_of_open_files_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remove, "_REMOVE_DEPTH_MAX", 5)
    for branch in ("a", "b"):
        deep = tmp_path / "top" / "/".join(branch * 60)
        deep.mkdir(parents=True)
        (deep / "x").write_bytes(b"1")
    remove_tree(tmp_path / "top")
    assert os.listdir(tmp_path) == []


def test_a_folder_with_many_sub_folders_is_removed(tmp_path: Path) -> None:
    for number in range(2000):
        (tmp_path / "top" / f"{number}" / "x").mkdir(parents=True)
    remove_tree(tmp_path / "top")
    assert os.listdir(tmp_path) == []

"""Two names change places in one step, or nothing happens."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dm.plumbing.fs.exchange import exchange
from tests.fixtures.machine import MakeTmpfs


def make_things(folder: Path) -> None:
    (folder / "file").write_text("a file")
    (folder / "folder").mkdir()
    (folder / "folder" / "below").write_text("below")
    (folder / "link").symlink_to("nowhere")


@pytest.mark.needs_root
def test_files_folders_and_links_change_places(small_tmpfs: MakeTmpfs) -> None:
    folder = small_tmpfs(64 << 10)
    make_things(folder)
    assert exchange(folder / "file", folder / "folder")
    assert exchange(os.fsencode(folder / "file"), os.fsencode(folder / "link"))
    assert "a file" == (folder / "folder").read_text()
    assert "below" == (folder / "link" / "below").read_text()
    assert "nowhere" == os.readlink(folder / "file")


@pytest.mark.needs_root
def test_nothing_happens_across_file_systems_and_where_something_is_not_there(
    tmp_path: Path, small_tmpfs: MakeTmpfs
) -> None:
    folder = small_tmpfs(64 << 10)
    make_things(folder)
    (tmp_path / "other").write_text("other")
    assert not exchange(folder / "file", tmp_path / "other")
    with pytest.raises(FileNotFoundError):
        exchange(folder / "file", folder / "gone")
    assert ("a file", "other") == ((folder / "file").read_text(), (tmp_path / "other").read_text())
    assert ["file", "folder", "link"] == sorted(os.listdir(folder))

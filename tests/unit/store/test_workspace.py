"""Workspaces: private, several at once, and nothing of a killed one stays."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from dm.plumbing.store.layout import Layout
from dm.plumbing.store.workspace import Workspace


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def test_a_workspace_is_empty_and_gone_afterwards(layout: Layout) -> None:
    with Workspace(layout) as workspace:
        assert os.listdir(workspace.folder) == []
        Path(workspace.new_path()).write_bytes(b"x")
        Path(workspace.new_path()).mkdir()
        assert len(os.listdir(workspace.folder)) == 2
    assert list(layout.partial.iterdir()) == []


def test_an_error_in_the_work_leaves_nothing_and_is_told(layout: Layout) -> None:
    with pytest.raises(KeyError), Workspace(layout) as workspace:
        Path(workspace.new_path()).write_bytes(b"x")
        raise KeyError("the work")
    assert list(layout.partial.iterdir()) == []


def test_two_at_once_have_folders_of_their_own(layout: Layout) -> None:
    with Workspace(layout) as first, Workspace(layout) as second:
        assert first.folder != second.folder
        Path(first.new_path()).write_bytes(b"x")
        assert os.listdir(second.folder) == []


def test_what_a_dead_one_left_is_cleared_whichever_folder_it_had(layout: Layout) -> None:
    layout.prepare()
    for slot in (0, 3, 12):
        folder = layout.partial / f"work-{slot}"
        (folder / "1").mkdir(parents=True)
        (folder / "1/half").write_bytes(b"half")
    with Workspace(layout) as workspace:
        assert [path.name for path in layout.partial.iterdir()] == [os.path.basename(workspace.folder)]
        assert os.listdir(workspace.folder) == []


def test_what_a_living_one_works_on_is_left_alone(layout: Layout) -> None:
    layout.prepare()
    (layout.partial / "work-0").mkdir()
    (layout.partial / "work-0/1").write_bytes(b"half")
    with open(layout.locks / "work-0", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with Workspace(layout) as workspace:
            assert os.path.basename(workspace.folder) == "work-1"
        assert (layout.partial / "work-0/1").exists()


def test_folders_to_resume_from_are_left_alone(layout: Layout) -> None:
    layout.prepare()
    layout.partial_folder("a download").mkdir()
    with Workspace(layout):
        pass
    assert layout.partial_folder("a download").is_dir()


def test_where_there_is_no_flock_a_folder_is_cleared_after_a_day(layout: Layout) -> None:
    layout.prepare()
    for name in ("work-17-abcdef", "work-18-abcdef", ".dm-1-ab.tmp"):
        (layout.partial / name).mkdir()
    for name in ("work-17-abcdef", ".dm-1-ab.tmp"):
        os.utime(layout.partial / name, (1, 1))
    with Workspace(layout):
        pass
    assert [path.name for path in layout.partial.iterdir()] == ["work-18-abcdef"]

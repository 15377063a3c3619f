"""The walk tells every entry once, in an order that does not depend on the file system."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from dm.errors import MachineFailed, Refused
from dm.plumbing.fs.remove import remove_tree
from dm.plumbing.fs.walk import scan_tree, walk_tree
from tests.fixtures.users import let_others_in, run_as_other_user


def test_entries_come_depth_first_sorted_by_their_bytes(tmp_path: Path) -> None:
    for name in ("b/x", "b.txt", "a", "é", "Z", "b/x-y/1"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == "b/x":
            path.mkdir()
        else:
            path.touch()
    (tmp_path / os.fsdecode(b"\xff")).touch()
    names = [entry.name for entry in scan_tree(tmp_path)]
    assert names == [b"Z", b"a", b"b", b"b/x", b"b/x-y", b"b/x-y/1", b"b.txt", "é".encode(), b"\xff"]


def test_an_entry_has_the_stat_data_of_lstat(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "file").chmod(0o751)
    (tmp_path / "link").symlink_to("folder")
    os.link(tmp_path / "file", tmp_path / "second")
    for entry in scan_tree(tmp_path):
        status = os.lstat(tmp_path / os.fsdecode(entry.name))
        expected = (
            status.st_mode,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
            status.st_ino,
            status.st_dev,
            status.st_nlink,
        )
        assert entry[2:] == expected
    assert {entry.name: entry.kind for entry in scan_tree(tmp_path)} == {
        b"folder": "folder",
        b"file": "file",
        b"link": "link",
        b"second": "file",
    }


def test_a_walk_is_the_sequence_of_its_entries(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").symlink_to("y")
    (tmp_path / "a").touch()
    walk, entries = walk_tree(tmp_path), scan_tree(tmp_path)
    assert walk == entries
    assert entries == walk == walk_tree(tmp_path)
    assert walk != entries[:2]
    assert [entries[0], entries[1:], entries, 3] == [walk[0], walk[1:], list(walk), len(walk)]


def test_links_to_folders_are_not_entered(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").touch()
    (tmp_path / "folder" / "loop").symlink_to("..")
    assert [entry.name for entry in scan_tree(tmp_path)] == [b"folder", b"folder/loop", b"folder/x"]


def test_an_empty_folder_has_no_entries(tmp_path: Path) -> None:
    assert scan_tree(tmp_path) == []


@pytest.mark.parametrize("kind", ["a fifo", "a socket", "a device"])
def test_special_files_are_refused_with_their_path(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    if kind == "a fifo":
        os.mkfifo(folder / "odd")
    elif kind == "a socket":
        monkeypatch.chdir(folder)  # a socket's path is short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("odd")
    elif os.geteuid() == 0:
        os.mknod(folder / "odd", 0o020600, os.makedev(1, 3))
    else:
        pytest.skip("only root can make a device")
    with pytest.raises(Refused) as caught:
        scan_tree(tmp_path)
    assert str(caught.value) == f"cannot take in '{folder}/odd': it is {kind}"
    assert caught.value.hint == "datasets hold files, folders and links only; move it elsewhere"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MachineFailed) as caught:
        scan_tree(tmp_path / "absent")
    assert str(caught.value) == f"cannot read the folder '{tmp_path}/absent': no such file or folder"


@pytest.mark.parametrize(("mode", "fault"), [(0o700, "read the folder '{}'"), (0o744, "look at '{}/file'")])
@pytest.mark.other_users
def test_a_folder_further_in_that_may_not_be_read_is_named(tmp_path: Path, mode: int, fault: str) -> None:
    closed = tmp_path / "a" / "closed"
    closed.mkdir(parents=True)
    (closed / "file").touch()
    closed.chmod(mode)
    let_others_in(tmp_path)
    tmp_path.chmod(0o755)
    script = """
try:
    dm.plumbing.fs.walk.scan_tree(pathlib.Path(sys.argv[1]))
except dm.errors.MachineFailed as error:
    print(error)
"""
    told = run_as_other_user(script, str(tmp_path), modules="sys, pathlib, dm.plumbing.fs.walk")
    assert (f"cannot {fault.format(closed)}: permission denied\n", "") == told


def test_a_deep_folder_is_walked_and_removed_without_recursion(tmp_path: Path) -> None:
    depth = 1500
    top = tmp_path / "top"
    top.mkdir()
    try:
        here = os.open(top, os.O_RDONLY)
        for _ in range(depth):
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(here)
        assert len(scan_tree(top)) == depth
    finally:
        remove_tree(top)  # pytest's own clean-up recurses and would fail
    assert os.listdir(tmp_path) == []

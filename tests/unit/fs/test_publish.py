"""What becomes visible does so whole, or not at all."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest
from pyfakefs.fake_filesystem import FakeFilesystem

from dm.errors import DmError, MachineFailed, Refused
from dm.plumbing.fs.publish import ensure_folder, is_temporary, place, replace, temporary_name, write_file
from tests.fixtures.machine import MakeTmpfs


def test_write_file_makes_the_file_and_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "document.toml"
    write_file(path, b"x = 1\n")
    assert path.read_bytes() == b"x = 1\n"
    assert os.listdir(path.parent) == ["document.toml"]


def test_write_file_puts_a_new_file_in_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "document.toml"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        write_file(path, b"new", durable=False)
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"


def test_write_file_sets_the_mode_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "document.toml"
    write_file(path, b"x", mode=0o640)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_write_file_keeps_the_mode_and_the_owner_of_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "document.toml"
    path.write_bytes(b"old")
    path.chmod(0o604)
    if os.geteuid() == 0:
        os.chown(path, 1234, 5678)
    before = path.stat()
    write_file(path, b"new", like=before)
    after = path.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino


def test_write_file_replaces_a_link_and_leaves_its_target_alone(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "link").symlink_to("target")
    write_file(tmp_path / "link", b"new")
    assert (tmp_path / "target").read_bytes() == b"precious"
    assert not (tmp_path / "link").is_symlink()


def test_write_file_refuses_a_folder_in_the_way_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(Refused) as caught:
        write_file(tmp_path / "folder", b"x")
    assert str(caught.value) == f"cannot put anything at '{tmp_path}/folder': something else is in the way"
    assert (caught.value.code, caught.value.hint) == ("in-the-way", "look at what lies there and move it aside")
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.needs_root
def test_write_file_keeps_the_old_file_when_the_disk_is_full(small_tmpfs: MakeTmpfs) -> None:
    folder = small_tmpfs(64 << 10)
    path = folder / "document.toml"
    path.write_bytes(b"old")
    with pytest.raises(MachineFailed) as caught:
        write_file(path, b"x" * (1 << 20))
    assert str(caught.value) == f"cannot write '{path}': disk full"
    assert caught.value.code == "disk-full"
    assert path.read_bytes() == b"old"
    assert os.listdir(folder) == ["document.toml"]


@pytest.mark.parametrize("call", ["fsync", "close"])
def test_write_file_keeps_the_old_file_when_the_disk_says_only_later_that_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "document.toml"
    path.write_bytes(b"old")
    real_close = os.close

    def full(descriptor: int) -> None:
        if call == "close":
            real_close(descriptor)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(MachineFailed) as caught:
            write_file(path, b"new")
    assert caught.value.code == "disk-full"
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["document.toml"]


def test_write_file_flushes_the_bytes_before_the_rename_and_the_folder_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "document.toml"
    seen: list[tuple[bool, bool]] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        seen.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), path.exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_file(path, b"x")
    assert seen == [(False, False), (True, True)]


def test_temporary_names_are_unique_and_known() -> None:
    first, second = temporary_name(), temporary_name()
    assert first != second
    assert is_temporary(first)
    assert is_temporary(os.fsencode(second))
    assert not is_temporary("data.tmp")


def test_replace_renames_over_the_old_file_and_makes_folders(tmp_path: Path) -> None:
    staged, target = tmp_path / "staged", tmp_path / "a" / "b" / "target"
    staged.write_bytes(b"one")
    replace(staged, target)
    staged.write_bytes(b"two")
    replace(staged, target)
    assert target.read_bytes() == b"two"
    assert not staged.exists()


def test_replace_refuses_a_folder_that_holds_something(tmp_path: Path) -> None:
    staged, target = tmp_path / "staged", tmp_path / "target"
    staged.mkdir()
    target.mkdir()
    (target / "precious").touch()
    with pytest.raises(Refused) as caught:
        replace(staged, target)
    assert caught.value.code == "in-the-way"
    assert (target / "precious").exists()
    assert staged.exists()


def test_replace_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MachineFailed) as caught:
        replace(tmp_path / "absent", tmp_path / "new" / "target")
    assert str(caught.value) == f"cannot put in place '{tmp_path}/new/target': no such file or folder"
    assert os.listdir(tmp_path) == []


@pytest.mark.needs_root
@pytest.mark.parametrize("move", [replace, place])
def test_moving_across_file_systems_is_a_bug_that_says_so(tmp_path: Path, small_tmpfs: MakeTmpfs, move: object) -> None:
    other = small_tmpfs(1 << 20)
    (tmp_path / "staged").write_bytes(b"x")
    with pytest.raises(DmError) as caught:
        move(tmp_path / "staged", other / "target")  # type: ignore[operator]
    expected = f"cannot rename '{tmp_path}/staged' to '{other}/target': not one file system"
    assert (str(caught.value), caught.value.exit_status) == (expected, 70)
    assert (tmp_path / "staged").exists()


def test_place_moves_a_file_into_a_new_folder(tmp_path: Path) -> None:
    staged, target = tmp_path / "staged", tmp_path / "a" / "target"
    staged.write_bytes(b"x")
    assert place(staged, target) is True
    assert target.read_bytes() == b"x"
    assert target.stat().st_nlink == 1
    assert not staged.exists()


@pytest.mark.parametrize("occupant", ["file", "folder", "empty folder", "dangling link"])
@pytest.mark.parametrize("staged_kind", ["file", "folder"])
def test_place_never_overwrites(tmp_path: Path, staged_kind: str, occupant: str) -> None:
    staged, target = tmp_path / "staged", tmp_path / "target"
    if staged_kind == "file":
        staged.write_bytes(b"new")
    else:
        staged.mkdir()
    if occupant == "file":
        target.write_bytes(b"old")
    elif occupant == "dangling link":
        target.symlink_to("nowhere")
    else:
        target.mkdir()
        if occupant == "folder":
            (target / "precious").touch()
    before = os.lstat(target)
    assert place(staged, target) is False
    assert os.lstat(target) == before
    assert staged.exists()


def test_place_moves_a_folder_with_its_contents(tmp_path: Path) -> None:
    (tmp_path / "staged").mkdir()
    (tmp_path / "staged" / "x").write_bytes(b"1")
    assert place(tmp_path / "staged", tmp_path / "a" / "target") is True
    assert (tmp_path / "a" / "target" / "x").read_bytes() == b"1"


def test_place_moves_a_link_as_a_link(tmp_path: Path) -> None:
    (tmp_path / "staged").symlink_to("nowhere")
    assert place(tmp_path / "staged", tmp_path / "target") is True
    assert os.readlink(tmp_path / "target") == "nowhere"


def test_of_many_threads_that_place_one_wins(tmp_path: Path) -> None:
    count = 16
    for number in range(count):
        (tmp_path / f"staged{number}").write_bytes(b"%d" % number)
    barrier = threading.Barrier(count)
    results: dict[int, bool] = {}

    def run(number: int) -> None:
        barrier.wait()
        results[number] = place(tmp_path / f"staged{number}", tmp_path / "target")

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [number for number, won in results.items() if won]
    assert len(winners) == 1
    assert (tmp_path / "target").read_bytes() == b"%d" % winners[0]
    assert len(os.listdir(tmp_path)) == count


def test_place_works_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(source: Path, target: Path, **options: bool) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))  # what vfat answers

    monkeypatch.setattr(os, "link", link)
    (tmp_path / "one").write_bytes(b"1")
    (tmp_path / "two").write_bytes(b"2")
    assert place(tmp_path / "one", tmp_path / "a" / "target") is True
    assert place(tmp_path / "two", tmp_path / "a" / "target") is False
    assert (tmp_path / "a" / "target").read_bytes() == b"1"


def test_ensure_folder_returns_what_it_made(tmp_path: Path) -> None:
    assert ensure_folder(tmp_path / "a" / "b") == [tmp_path / "a", tmp_path / "a" / "b"]
    assert ensure_folder(tmp_path / "a" / "b") == []


def test_ensure_folder_accepts_a_link_to_a_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert ensure_folder(tmp_path / "link" / "b") == [tmp_path / "link" / "b"]


@pytest.mark.parametrize("below", ["", "/b", "/b/c"])
def test_ensure_folder_refuses_a_file_in_the_way(tmp_path: Path, below: str) -> None:
    (tmp_path / "a").write_bytes(b"precious")
    with pytest.raises(Refused) as caught:
        ensure_folder(Path(f"{tmp_path}/a{below}"))
    assert str(caught.value) == f"cannot put anything at '{tmp_path}/a': something else is in the way"


def test_a_file_system_that_makes_no_folders_and_says_that_there_is_none_is_told() -> None:
    with pytest.raises(MachineFailed, match="cannot make the folder '/proc/x/y': no such file or folder"):
        ensure_folder(Path("/proc/x/y"))


def test_new_folders_of_a_shared_store_can_be_written_by_the_group(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir()
    root.chmod(0o2775)
    before = os.umask(0o077)
    try:
        ensure_folder(root / "a" / "b", root=root)
        ensure_folder(tmp_path / "other", root=root)
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((root / name).stat().st_mode) for name in ("a", "a/b")]
    assert modes == [0o2770, 0o2770]
    assert stat.S_IMODE((tmp_path / "other").stat().st_mode) == 0o700


def test_new_folders_of_a_private_store_follow_the_umask(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir(mode=0o700)
    ensure_folder(root / "a", root=root)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o777 & ~umask


@pytest.mark.needs_root
def test_ensure_folder_says_that_the_disk_has_no_room_for_it(small_tmpfs: MakeTmpfs) -> None:
    folder = small_tmpfs(64 << 10, inodes=2)
    with pytest.raises(MachineFailed) as caught:
        ensure_folder(folder / "a" / "b")
    assert caught.value.code == "disk-full"
    assert str(caught.value) == f"cannot make the folder '{folder}/a/b': disk full"


# The same without root, on a file system that is made up (pyfakefs tells the truth about these two) -------------------


def test_a_full_disk_is_told_and_the_old_file_kept_without_root(fs: FakeFilesystem) -> None:
    fs.add_mount_point("/data", total_size=100)
    path = Path("/data/document.toml")
    path.write_bytes(b"old")
    with pytest.raises(MachineFailed) as caught:
        write_file(path, b"x" * 200)
    assert str(caught.value) == "cannot write '/data/document.toml': disk full"
    assert path.read_bytes() == b"old"
    assert os.listdir("/data") == ["document.toml"]


def test_another_file_system_is_told_without_root(fs: FakeFilesystem) -> None:
    fs.add_mount_point("/data")
    fs.create_file("/other/staged")
    with pytest.raises(DmError) as caught:
        replace(Path("/other/staged"), Path("/data/target"))
    assert str(caught.value) == "cannot rename '/other/staged' to '/data/target': not one file system"
    assert Path("/other/staged").exists()

"""The link ladder: which rung is used, what it leaves, what it remembers."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dm.errors import MachineFailed, Refused
from dm.plumbing.fs.link import LinkMode, find_working_modes, forget_impossible_modes, link_file
from tests.fixtures.machine import MakeImage, MakeTmpfs, needs_root
from tests.fixtures.users import OTHER_USER, let_others_in, run_as_other_user

LADDER: tuple[LinkMode, ...] = ("reflink", "hardlink", "copy")


@pytest.fixture(autouse=True)
def _fresh_memory() -> Iterator[None]:
    forget_impossible_modes()
    yield
    forget_impossible_modes()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(os.urandom(100_000))
    return path


def _fail(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _no_reflinks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []

    def ioctl(descriptor: int, request: int, argument: int) -> int:
        calls.append(request)
        raise _fail(errno.EOPNOTSUPP)

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    return calls


@pytest.mark.needs_root
@pytest.mark.parametrize("kind", ["btrfs", "xfs"])
def test_a_reflink_is_a_file_of_its_own_with_the_same_bytes(image_file_system: MakeImage, kind: str) -> None:
    folder = image_file_system(kind)
    (folder / "source").write_bytes(b"x" * 1_000_000)
    assert link_file(folder / "source", folder / "target", modes=LADDER) == "reflink"
    assert (folder / "target").read_bytes() == b"x" * 1_000_000
    assert (folder / "target").stat().st_nlink == 1
    assert find_working_modes(folder) == {"reflink": "works", "hardlink": "works", "copy": "works"}


def test_a_hard_link_is_the_next_rung(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _no_reflinks(monkeypatch)
    assert link_file(source, tmp_path / "target", modes=LADDER) == "hardlink"
    assert os.path.samefile(source, tmp_path / "target")


@pytest.mark.parametrize("number", [errno.EPERM, errno.EMLINK, errno.EXDEV, errno.EOPNOTSUPP])
def test_a_copy_is_the_last_rung(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def link(*arguments: object, **options: object) -> None:
        raise _fail(number)

    _no_reflinks(monkeypatch)
    monkeypatch.setattr(os, "link", link)
    assert link_file(source, tmp_path / "target", modes=LADDER) == "copy"
    assert (tmp_path / "target").read_bytes() == source.read_bytes()
    assert (tmp_path / "target").stat().st_ino != source.stat().st_ino


@pytest.mark.parametrize(("executable", "bits"), [(False, 0o444), (True, 0o555)])
def test_new_files_are_read_only_less_the_umask(source: Path, tmp_path: Path, executable: bool, bits: int) -> None:
    before = os.umask(0o027)
    try:
        link_file(source, tmp_path / "target", modes=("copy",), executable=executable)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "target").stat().st_mode) == bits & ~0o027


def test_an_executable_file_is_never_hard_linked(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _no_reflinks(monkeypatch)
    assert link_file(source, tmp_path / "target", modes=LADDER, executable=True) == "copy"
    with pytest.raises(MachineFailed) as caught:
        link_file(source, tmp_path / "other", modes=("hardlink",), executable=True)
    assert str(caught.value) == (
        f"cannot link '{source}' to '{tmp_path}/other': hardlink: an executable file is never hard-linked"
    )


def test_when_no_rung_works_every_reason_is_told_and_nothing_is_left(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*arguments: object, **options: object) -> None:
        raise _fail(errno.EMLINK)

    _no_reflinks(monkeypatch)
    monkeypatch.setattr(os, "link", link)
    with pytest.raises(MachineFailed) as caught:
        link_file(source, tmp_path / "target", modes=("reflink", "hardlink"))
    assert str(caught.value) == (
        f"cannot link '{source}' to '{tmp_path}/target': reflink: operation not supported; hardlink: too many links"
    )
    assert caught.value.code == "link-failed"
    assert caught.value.hint == (
        'allow copies (link = ["reflink", "hardlink", "copy"]) or keep both in one file system'
    )
    assert os.listdir(tmp_path) == ["source"]


def test_what_file_systems_cannot_do_is_asked_once(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = _no_reflinks(monkeypatch)
    for number in range(10):
        assert link_file(source, tmp_path / f"target{number}", modes=LADDER) == "hardlink"
    assert len(calls) == 1
    with pytest.raises(MachineFailed) as caught:
        link_file(source, tmp_path / "last", modes=("reflink",))
    assert str(caught.value) == (
        f"cannot link '{source}' to '{tmp_path}/last': reflink: not between these file systems"
    )


def test_a_full_link_count_says_nothing_about_the_next_file(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def link(origin: Path, target: Path, **options: bool) -> None:
        if origin == source:
            raise _fail(errno.EMLINK)
        real(origin, target, **options)

    monkeypatch.setattr(os, "link", link)
    (tmp_path / "other").write_bytes(b"1")
    assert link_file(source, tmp_path / "a", modes=("hardlink", "copy")) == "copy"
    assert link_file(tmp_path / "other", tmp_path / "b", modes=("hardlink", "copy")) == "hardlink"


def test_a_reflink_that_leaves_an_empty_file_is_not_believed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "ioctl", lambda *arguments: 0)
    assert link_file(source, tmp_path / "target", modes=("reflink", "copy")) == "copy"
    assert (tmp_path / "target").read_bytes() == source.read_bytes()


def test_something_at_the_target_is_refused_and_left_alone(source: Path, tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"precious")
    for mode in LADDER:
        with pytest.raises(Refused) as caught:
            link_file(source, tmp_path / "target", modes=(mode,))
        assert str(caught.value) == f"cannot put anything at '{tmp_path}/target': something else is in the way"
    assert (tmp_path / "target").read_bytes() == b"precious"


def test_a_missing_source_is_told(tmp_path: Path) -> None:
    with pytest.raises(MachineFailed) as caught:
        link_file(tmp_path / "absent", tmp_path / "target", modes=LADDER)
    assert str(caught.value) == f"cannot link or copy to '{tmp_path}/target': no such file or folder"


@pytest.mark.parametrize("mode", ["reflink", "copy"])
def test_a_folder_is_refused_as_a_source(tmp_path: Path, mode: LinkMode) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(Refused) as caught:
        link_file(tmp_path / "folder", tmp_path / "target", modes=(mode,))
    assert str(caught.value) == f"cannot link '{tmp_path}/folder': it is not a regular file"
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.parametrize("missing", [True, False])
def test_a_copy_is_whole_with_and_without_copy_file_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: bool
) -> None:
    if missing:
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    for size in (0, 1, 1 << 20, (3 << 20) + 7):
        data = os.urandom(size)
        (tmp_path / "source").write_bytes(data)
        link_file(tmp_path / "source", tmp_path / f"target{size}", modes=("copy",))
        assert (tmp_path / f"target{size}").read_bytes() == data


def test_a_copy_goes_on_by_reading_where_copy_file_range_cannot(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy_file_range(*arguments: int) -> int:
        raise _fail(errno.EXDEV)

    monkeypatch.setattr(os, "copy_file_range", copy_file_range, raising=False)
    link_file(source, tmp_path / "target", modes=("copy",))
    assert (tmp_path / "target").read_bytes() == source.read_bytes()


@pytest.mark.needs_root
def test_a_full_disk_leaves_no_part_of_a_copy(source: Path, small_tmpfs: MakeTmpfs) -> None:
    folder = small_tmpfs(16 << 10)
    with pytest.raises(MachineFailed) as caught:
        link_file(source, folder / "target", modes=LADDER)
    assert str(caught.value) == f"cannot link or copy to '{folder}/target': disk full"
    assert os.listdir(folder) == []


@pytest.mark.needs_root
def test_another_file_system_gets_a_copy(source: Path, small_tmpfs: MakeTmpfs) -> None:
    folder = small_tmpfs(1 << 20)
    assert link_file(source, folder / "target", modes=LADDER) == "copy"
    assert link_file(os.fsencode(source), os.fsencode(folder / "second"), modes=LADDER) == "copy"


@pytest.mark.needs_root
@pytest.mark.other_users
def test_another_users_file_under_protected_hard_links_is_copied(tmp_path: Path) -> None:
    needs_root()
    if Path("/proc/sys/fs/protected_hardlinks").read_text().strip() != "1":
        pytest.skip("hard links are not protected on this machine")
    let_others_in(tmp_path)
    (tmp_path / "source").write_bytes(b"bytes of root")
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", OTHER_USER, OTHER_USER)
    script = """
import sys
from dm.plumbing.fs.link import link_file
print(link_file(sys.argv[1], sys.argv[2], modes=("hardlink", "copy")))
"""
    paths = (str(tmp_path / "source"), str(tmp_path / "theirs" / "target"))
    output = run_as_other_user(script, *paths, modules="dm.plumbing.fs.link, fcntl")
    assert output == ("copy\n", "")


def test_the_working_modes_of_a_folder_are_told_with_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _no_reflinks(monkeypatch)
    assert find_working_modes(tmp_path) == {
        "reflink": "operation not supported",
        "hardlink": "works",
        "copy": "works",
    }
    assert os.listdir(tmp_path) == []


def test_the_working_modes_of_a_folder_that_is_not_there_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(MachineFailed) as caught:
        find_working_modes(tmp_path / "absent")
    assert str(caught.value) == f"cannot make a probe file in '{tmp_path}/absent': no such file or folder"


def test_two_mounts_of_one_device_do_not_end_hard_links_elsewhere_on_it(tmp_path: Path) -> None:
    needs_root()
    inside, bound = tmp_path / "inside", tmp_path / "bound"
    inside.mkdir()
    bound.mkdir()
    source = tmp_path / "source"
    source.write_bytes(b"bytes")
    subprocess.run(["mount", "--bind", str(inside), str(bound)], check=True)
    try:
        assert "copy" == link_file(source, bound / "copy", modes=("hardlink", "copy"))
    finally:
        subprocess.run(["umount", str(bound)], check=True)
    assert "hardlink" == link_file(source, tmp_path / "link", modes=("hardlink", "copy"))

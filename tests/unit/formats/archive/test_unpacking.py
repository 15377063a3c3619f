"""An archive becomes a folder, whole or not at all."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from dm.errors import MachineFailed, Refused, SourceFailed
from dm.plumbing.formats.archive import ArchiveLimits, Unpacked, unpack
from dm.progress import SilentTask
from tests.fixtures.archives import (
    COMPRESS,
    FORMATS,
    TAR_FORMATS,
    Yard,
    make_archive,
    make_tar,
    make_zip,
    read_tree,
    tar_member,
    zip_member,
)
from tests.fixtures.machine import MakeImage, MakeTmpfs

_OFF = ArchiveLimits(ratio=None, total_bytes=None, members=None)
_HINT = "it may be a bomb; where it can be trusted, raise '{}' in your own config"


@pytest.mark.parametrize("archive_format", FORMATS)
def test_a_bomb_is_refused_by_its_ratio(yard: Yard, archive_format: str) -> None:
    data = make_archive(archive_format, [("harmless", b"x"), ("zeros", bytes(40 << 20))])
    if archive_format == "tar":
        assert yard.unpack(data, archive_format) == Unpacked(2, (40 << 20) + 1)
        return
    error = yard.fail(Refused, data, archive_format)
    assert (error.message, error.hint, error.code) == (
        f"cannot unpack 'data.{archive_format}': it unpacks to more than 250 times its size",
        _HINT.format("archive_max_ratio"),
        "archive-limit",
    )


@pytest.mark.parametrize("archive_format", FORMATS)
def test_a_small_archive_may_unpack_to_many_times_its_size(yard: Yard, archive_format: str) -> None:
    assert yard.unpack(make_archive(archive_format, [("mask", bytes(30 << 20))]), archive_format).files == 1


@pytest.mark.parametrize("archive_format", FORMATS)
def test_the_total_is_counted_over_all_members_while_writing(yard: Yard, archive_format: str) -> None:
    data = make_archive(archive_format, [(str(number), os.urandom(1000)) for number in range(100)])
    error = yard.fail(Refused, data, archive_format, limits=_OFF._replace(total_bytes=99_999))
    assert (error.message, error.hint, error.code) == (
        f"cannot unpack 'data.{archive_format}': it unpacks to more than 99999 bytes",
        _HINT.format("archive_max_bytes"),
        "archive-limit",
    )


@pytest.mark.parametrize("archive_format", FORMATS)
def test_members_are_counted_with_the_folders_they_imply(yard: Yard, archive_format: str) -> None:
    data = make_archive(archive_format, [("a/b/c", b""), ("a/d", b"")])  # a, a/b, a/b/c, a/d
    error = yard.fail(Refused, data, archive_format, limits=_OFF._replace(members=3))
    assert (error.message, error.hint, error.code) == (
        f"cannot unpack 'data.{archive_format}': it holds more than 3 files and folders",
        _HINT.format("archive_max_files"),
        "archive-limit",
    )
    assert yard.unpack(data, archive_format, limits=_OFF._replace(members=4)) == Unpacked(2, 0)


@pytest.mark.parametrize("archive_format", FORMATS)
def test_limits_that_are_off_let_everything_through(yard: Yard, archive_format: str) -> None:
    data = make_archive(archive_format, [("zeros", bytes(40 << 20))])
    assert yard.unpack(data, archive_format, limits=_OFF) == Unpacked(1, 40 << 20)


def test_copies_that_hard_links_ask_for_count_as_well(yard: Yard) -> None:
    links = [tar_member(f"again-{number}", kind=tarfile.LNKTYPE, target="big") for number in range(20)]
    data = make_tar(tar_member("big", os.urandom(100_000)), *links)
    error = yard.fail(Refused, data, "tar", limits=_OFF._replace(total_bytes=1_000_000))
    assert error.message == "cannot unpack 'data.tar': it unpacks to more than 1000000 bytes"


def test_holes_of_a_sparse_file_count_as_well(yard: Yard) -> None:
    member, data = tar_member("s")
    member.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(1 << 60), "GNU.sparse.name": "s"}
    error = yard.fail(Refused, make_tar((member, data)), "tar")
    assert error.message == "cannot unpack 'data.tar': it unpacks to more than 250 times its size"


@pytest.mark.parametrize("archive_format", TAR_FORMATS)
def test_zeros_after_the_end_count_as_well(yard: Yard, archive_format: str) -> None:
    data = COMPRESS[archive_format](make_archive("tar", [("a", b"x")]) + bytes(1_000_000))
    error = yard.fail(Refused, data, archive_format, limits=_OFF._replace(total_bytes=500_000))
    assert error.message == f"cannot unpack 'data.{archive_format}': it unpacks to more than 500000 bytes"


class _Interrupting(SilentTask):
    """A task during which the user presses Ctrl-C."""

    def advance(self, amount: int) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("archive_format", FORMATS)
def test_an_interrupt_leaves_nothing(yard: Yard, tmp_path: Path, archive_format: str) -> None:
    archive = tmp_path / f"a.{archive_format}"
    archive.write_bytes(make_archive(archive_format, [(f"d/{number}", os.urandom(100_000)) for number in range(10)]))
    with pytest.raises(KeyboardInterrupt):
        unpack(archive, archive_format, yard.destination, task=_Interrupting())
    yard.check_untouched()


class _Counting(SilentTask):
    def __init__(self) -> None:
        self.amounts: list[int] = []

    def advance(self, amount: int) -> None:
        self.amounts.append(amount)


@pytest.mark.parametrize("archive_format", FORMATS)
def test_progress_advances_by_the_bytes_of_the_archive(yard: Yard, tmp_path: Path, archive_format: str) -> None:
    archive = tmp_path / f"a.{archive_format}"
    archive.write_bytes(make_archive(archive_format, [(f"d/{number}", os.urandom(100_000)) for number in range(10)]))
    task = _Counting()
    unpack(archive, archive_format, yard.destination, task=task)
    assert sum(task.amounts) == archive.stat().st_size
    assert 4 <= len(task.amounts) <= 6


def test_a_destination_that_exists_is_left_alone(yard: Yard, tmp_path: Path) -> None:
    yard.destination.mkdir()
    (yard.destination / "mine").write_bytes(b"x")
    archive = tmp_path / "a.tar"
    archive.write_bytes(make_archive("tar", [("a", b"x")]))
    with pytest.raises(MachineFailed) as caught:
        unpack(archive, "tar", yard.destination)
    assert caught.value.message == f"cannot unpack into '{yard.destination}': file exists"
    assert yard.tree() == {"mine": ("100644", b"x")}


def test_an_unknown_format_names_the_known_ones(yard: Yard, tmp_path: Path) -> None:
    error = yard.fail(SourceFailed, b"Rar!", "rar")
    assert (error.message, error.hint, error.code) == (
        "cannot unpack 'data.rar': unknown archive format 'rar'",
        "known are tar, tar.bz2, tar.gz, tar.xz, tar.zst, zip",
        "archive-unsupported",
    )


def test_a_missing_archive_is_this_machines_fault(yard: Yard, tmp_path: Path) -> None:
    with pytest.raises(MachineFailed) as caught:
        unpack(tmp_path / "none.zip", "zip", yard.destination)
    assert caught.value.message == f"cannot read '{tmp_path / 'none.zip'}': no such file or folder"
    yard.check_untouched()


@pytest.mark.parametrize("spelling", ["tgz", "TAR.GZ", ".tar.gz"])
def test_a_format_may_be_spelled_as_manifests_do(yard: Yard, tmp_path: Path, spelling: str) -> None:
    archive = tmp_path / "a"
    archive.write_bytes(make_archive("tar.gz", [("a", b"x")]))
    assert unpack(archive, spelling, yard.destination) == Unpacked(1, 1)


def test_umask_is_respected(yard: Yard) -> None:
    previous = os.umask(0o077)
    try:
        yard.unpack(make_tar(tar_member("d/run", b"x", mode=0o755), tar_member("d/a", b"x")), "tar")
    finally:
        os.umask(previous)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in yard.destination.rglob("*")}
    assert modes == {"d": "0o700", "run": "0o700", "a": "0o600"}


@pytest.mark.needs_root
def test_a_full_disk_leaves_nothing(small_tmpfs: MakeTmpfs, tmp_path: Path) -> None:
    small = small_tmpfs(1 << 20)
    archive = tmp_path / "a.zip"
    archive.write_bytes(make_archive("zip", [(str(number), os.urandom(200_000)) for number in range(10)]))
    with pytest.raises(MachineFailed) as caught:
        unpack(archive, "zip", small / "tree")
    assert (caught.value.message, caught.value.code) == (
        f"cannot unpack into '{small / 'tree'}': disk full",
        "disk-full",
    )
    assert read_tree(small) == {}


@pytest.mark.needs_root
def test_names_that_differ_by_case_are_refused_where_the_file_system_folds_it(
    image_file_system: MakeImage, tmp_path: Path
) -> None:
    folder = image_file_system("vfat")
    archive = tmp_path / "a.zip"
    archive.write_bytes(make_zip(zip_member("sst.nc"), zip_member("SST.nc")))
    with pytest.raises(Refused) as caught:
        unpack(archive, "zip", folder / "tree")
    assert caught.value.message == (
        "cannot unpack 'a.zip': member 'SST.nc' comes twice, but for Unicode's forms or upper and lower case"
    )
    assert read_tree(folder) == {}

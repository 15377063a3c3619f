"""tar in its compressions: what it becomes, and what is refused."""

from __future__ import annotations

import lzma
import os
import struct
import subprocess
import tarfile
import tracemalloc
import zlib
from pathlib import Path

import pytest
import zstandard

from dm.errors import Refused, SourceFailed
from dm.plumbing.formats.archive import ArchiveLimits, Unpacked
from tests.fixtures.archives import COMPRESS, TAR_FORMATS, Yard, make_archive, make_tar, read_tree, tar_member
from tests.fixtures.machine import needs

_BY_HAND = "nothing of it was kept; where it can be trusted, unpack it by hand and add the folder"

_UNLIMITED = ArchiveLimits(ratio=None, total_bytes=None, members=None)


def _folder(name: str, mode: int = 0o755) -> tuple[tarfile.TarInfo, bytes]:
    return tar_member(name, kind=tarfile.DIRTYPE, mode=mode)


def _link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return tar_member(name, kind=tarfile.SYMTYPE, target=target)


def _hard_link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return tar_member(name, kind=tarfile.LNKTYPE, target=target)


@pytest.mark.parametrize("archive_format", TAR_FORMATS)
def test_files_folders_and_links_come_as_recorded(yard: Yard, archive_format: str) -> None:
    data = make_tar(
        _folder("./"),
        _folder("./empty"),
        tar_member("./a/b/sst.nc", b"warm" * 100_000),
        tar_member("./run.sh", b"#!/bin/sh\n", mode=0o755),
        tar_member("./nothing"),
        _link("./a/latest", "b/sst.nc"),
        _link("./to-a", "a"),
        archive_format=archive_format,
    )
    unpacked = yard.unpack(data, archive_format)
    assert unpacked == Unpacked(files=5, size_bytes=400_000 + 10 + len("b/sst.nc") + len("a"))
    assert yard.tree() == {
        "a": ("040000", None),
        "a/b": ("040000", None),
        "a/b/sst.nc": ("100644", b"warm" * 100_000),
        "a/latest": ("120000", "b/sst.nc"),
        "empty": ("040000", None),
        "nothing": ("100644", b""),
        "run.sh": ("100755", b"#!/bin/sh\n"),
        "to-a": ("120000", "a"),
    }


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names_survive_every_form_of_tar(yard: Yard, tar_format: int) -> None:
    name = "/".join(["a" * 60] * 3) + "/Ébène.txt"
    yard.unpack(make_tar(tar_member(name, b"x"), tar_format=tar_format), "tar")
    assert yard.tree()[name] == ("100644", b"x")


def test_a_name_that_is_not_utf8_keeps_its_bytes(yard: Yard) -> None:
    name = os.fsdecode(b"latin\xe9")
    yard.unpack(make_tar(tar_member(name, b"x"), tar_format=tarfile.GNU_FORMAT), "tar")
    assert [b"latin\xe9"] == os.listdir(os.fsencode(yard.destination))


def test_modes_are_reduced_and_set_uid_is_dropped(yard: Yard) -> None:
    previous = os.umask(0o022)
    try:
        yard.unpack(
            make_tar(
                _folder("d", mode=0o7000),
                tar_member("suid", b"x", mode=0o6777),
                tar_member("sticky", b"x", mode=0o1666),
                tar_member("closed", b"x", mode=0o000),
            ),
            "tar",
        )
    finally:
        os.umask(previous)
    modes = {path.name: oct(path.stat().st_mode & 0o7777) for path in yard.destination.iterdir()}
    assert modes == {"d": "0o755", "suid": "0o755", "sticky": "0o644", "closed": "0o644"}


def test_a_hard_link_becomes_a_copy_of_its_own(yard: Yard) -> None:
    unpacked = yard.unpack(
        make_tar(
            tar_member("./run", b"same", mode=0o755), _hard_link("sub/again", "run"), _hard_link("more", "sub/again")
        ),
        "tar",
    )
    assert unpacked == Unpacked(files=3, size_bytes=12)
    assert yard.tree() == {
        "more": ("100755", b"same"),
        "run": ("100755", b"same"),
        "sub": ("040000", None),
        "sub/again": ("100755", b"same"),
    }
    assert [1, 1, 1] == [(yard.destination / name).stat().st_nlink for name in ("run", "sub/again", "more")]


def test_a_folder_may_be_named_again(yard: Yard) -> None:
    yard.unpack(make_tar(tar_member("a/b", b"x"), _folder("a"), _folder("a/")), "tar")
    assert yard.tree() == {"a": ("040000", None), "a/b": ("100644", b"x")}


def test_an_empty_marker_at_the_top_is_dropped_and_one_below_is_data(yard: Yard) -> None:
    unpacked = yard.unpack(make_tar(tar_member(".complete"), tar_member("a/.complete", b"x")), "tar")
    assert unpacked == Unpacked(files=1, size_bytes=1)
    assert yard.tree() == {"a": ("040000", None), "a/.complete": ("100644", b"x")}


def test_an_old_tar_that_names_folders_by_a_slash_is_read(yard: Yard) -> None:
    yard.unpack(make_tar(tar_member("old/", kind=tarfile.AREGTYPE), tar_member("new/", kind=tarfile.REGTYPE)), "tar")
    assert yard.tree() == {"old": ("040000", None), "new": ("040000", None)}


@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_a_sparse_file_of_gnu_tar_is_whole(yard: Yard, tmp_path: Path, form: str) -> None:
    tar = needs("tar")
    source = tmp_path / "source"
    source.mkdir()
    with open(source / "sparse", "wb") as file:
        file.write(b"head" * 1024)
        file.seek(3_000_000)
        file.write(b"tail" * 1024)
        file.truncate(5_000_000)
    (source / "after").write_bytes(b"after")
    result = tmp_path / "sparse.tar"
    subprocess.run([tar, f"--format={form}", "-S", "-C", source, "-cf", result, "sparse", "after"], check=True)
    data = result.read_bytes()
    assert len(data) < 100_000  # tar has found the holes
    unpacked = yard.unpack(data, "tar")
    assert unpacked == Unpacked(files=2, size_bytes=5_000_005)
    assert read_tree(source) == yard.tree()


def test_a_label_of_a_volume_is_no_member(yard: Yard) -> None:
    yard.unpack(make_tar(tar_member("label", kind=b"V"), tar_member("a", b"x")), "tar")
    assert yard.tree() == {"a": ("100644", b"x")}


def test_several_compressed_streams_one_after_another_are_one(yard: Yard) -> None:
    whole = make_archive("tar", [("a", b"x" * 5000), ("b", b"y")])
    data = COMPRESS["tar.gz"](whole[:4000]) + COMPRESS["tar.gz"](whole[4000:]) + bytes(512)
    yard.unpack(data, "tar.gz")
    assert yard.tree() == {"a": ("100644", b"x" * 5000), "b": ("100644", b"y")}


@pytest.mark.parametrize(
    ("members", "member", "reason"),
    [
        ([tar_member("../escape", b"x")], "../escape", "has '..' in its name"),
        ([tar_member("/etc/cron.d/x", b"x")], "/etc/cron.d/x", "has an absolute name"),
        ([_folder("../escape")], "../escape", "has '..' in its name"),
        ([tar_member("C:\\x", b"x")], "C:\\x", "has an absolute name"),
        ([tar_member("a\nb", b"x")], "a\\nb", "has a control character in its name"),
        ([tar_member("x" * 300, b"x")], "x" * 200 + "…", "has a name longer than 255 bytes"),
        ([tar_member(".dm/format", b"x")], ".dm/format", "has the name '.dm', which is the store's own folder"),
        ([tar_member(".", b"x")], ".", "has no name"),
        (
            [tar_member(".complete", b"x")],
            ".complete",
            "is not empty, but '.complete' is the name of an empty marker",
        ),
        (
            [_link(".complete", "a")],
            ".complete",
            "is a link, but '.complete' is the name of an empty marker",
        ),
        (
            [_folder(".complete")],
            ".complete",
            "lies in a folder '.complete', but that is the name of an empty marker",
        ),
        (
            [tar_member(".complete/x", b"x")],
            ".complete/x",
            "lies in a folder '.complete', but that is the name of an empty marker",
        ),
        ([_link("out", "/etc")], "out", "is a link to an absolute path"),
        ([_link("out", "")], "out", "is a link to nothing"),
        ([_link("out", "../secret")], "out", "is a link that leads outside the folder"),
        ([_link("a/out", "../../secret")], "a/out", "is a link that leads outside the folder"),
        ([_link("out", "x/" * 1500)], "out", "is a link to a path of more than 2048 bytes or 100 folders"),
        ([_link("up", "."), _link("out", "up/..")], "out", "is a link that leads outside the folder"),
        ([_link("out", "up/.."), _link("up", ".")], "out", "is a link that leads outside the folder"),
        ([_link("a", "b"), tar_member("a/x", b"x")], "a/x", "has a link of the archive in its path"),
        ([_link("a", "."), _folder("a/x")], "a/x", "has a link of the archive in its path"),
        ([_link("a", "b"), tar_member("a", b"x")], "a", "comes twice"),
        ([_folder("a"), _link("a", "b")], "a", "comes twice, as a folder too"),
        ([_link("a", "b"), _folder("a")], "a", "has a link of the archive in its path"),
        ([tar_member("a", b"x"), tar_member("a/b", b"x")], "a/b", "has a file of the archive in its path"),
        ([tar_member("a/b", b"x"), tar_member("a", b"x")], "a", "comes twice, as a folder too"),
        ([tar_member("a", b"x"), tar_member("./a", b"y")], "./a", "comes twice"),
        ([tar_member(".complete"), tar_member(".complete")], ".complete", "comes twice"),
        ([tar_member("\u00e9", b"x"), tar_member("e\u0301", b"y")], "e\u0301", "comes twice, but for Unicode's forms"),
        (
            [tar_member("\u00e9/a", b"x"), tar_member("e\u0301/b", b"y")],
            "e\u0301/b",
            "comes twice, but for Unicode's forms",
        ),
        (
            [_hard_link("a", "../../secret")],
            "../../secret",
            "has '..' in its name",
        ),
        ([_hard_link("a", "/etc/passwd")], "/etc/passwd", "has an absolute name"),
        (
            [_hard_link("a", "missing")],
            "a",
            "is a hard link to something that is not a file before it in the archive",
        ),
        (
            [_folder("d"), _hard_link("a", "d")],
            "a",
            "is a hard link to something that is not a file before it in the archive",
        ),
        (
            [_link("l", "x"), _hard_link("a", "l")],
            "a",
            "is a hard link to something that is not a file before it in the archive",
        ),
        (
            [_link("l", "."), tar_member("x", b"x"), _hard_link("a", "l/x")],
            "a",
            "is a hard link to something that is not a file before it in the archive",
        ),
        (
            [tar_member(".complete"), _hard_link("a", ".complete")],
            "a",
            "is a hard link to something that is not a file before it in the archive",
        ),
        (
            [tar_member("\u00e9", b"x"), _hard_link("a", "e\u0301")],
            "a",
            "is a hard link to a name that is spelled in another way",
        ),
        ([tar_member("a", b"x"), _hard_link("a", "a")], "a", "comes twice"),
        ([tar_member("pipe", kind=tarfile.FIFOTYPE)], "pipe", "is a fifo"),
        ([tar_member("null", kind=tarfile.CHRTYPE)], "null", "is a device"),
        ([tar_member("sda", kind=tarfile.BLKTYPE)], "sda", "is a device"),
        ([tar_member("dump", kind=b"D")], "dump", "is of the unknown kind 'D'"),
        ([tar_member("a/", b"x")], "a/", "is a folder by its name and a file by its bytes"),
    ],
)
def test_a_hostile_member_is_refused_and_nothing_remains(
    yard: Yard, members: list[tuple[tarfile.TarInfo, bytes]], member: str, reason: str
) -> None:
    data = make_tar(tar_member("first", b"harmless"), *members, tar_member("zlast", b"harmless"))
    error = yard.fail(Refused, data, "tar")
    assert (error.message, error.hint, error.code) == (
        f"cannot unpack 'data.tar': member '{member}' {reason}",
        _BY_HAND,
        "archive-unsafe",
    )


def test_names_that_differ_by_case_are_two_where_the_file_system_says_so(yard: Yard) -> None:
    yard.unpack(make_tar(tar_member("sst.nc", b"x"), tar_member("SST.nc", b"y"), tar_member(".COMPLETE", b"z")), "tar")
    assert yard.tree() == {".COMPLETE": ("100644", b"z"), "SST.nc": ("100644", b"y"), "sst.nc": ("100644", b"x")}


@pytest.mark.parametrize("archive_format", TAR_FORMATS)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99])
def test_one_that_was_cut_short_is_refused_wherever_it_was_cut(yard: Yard, archive_format: str, share: float) -> None:
    files = [(f"d/{number}", os.urandom(3000)) for number in range(20)]
    data = make_archive(archive_format, files)
    if archive_format == "tar":
        data = data[: 20 * (512 + 3072)]  # what pads it to a full record is no loss
    error = yard.fail(SourceFailed, data[: int(len(data) * share)], archive_format)
    assert (error.message.startswith(f"cannot unpack 'data.{archive_format}': it "), error.code) == (
        True,
        "archive-broken",
    )


@pytest.mark.parametrize("archive_format", ["tar.gz", "tar.bz2", "tar.xz", "tar.zst"])
def test_a_compressed_one_without_its_last_bytes_is_refused(yard: Yard, archive_format: str) -> None:
    # All members are whole, only the check sum of the compression is not.
    data = make_archive(archive_format, [("a", b"x")])
    assert (
        f"cannot unpack 'data.{archive_format}': it ends in the middle: its compressed data are cut short"
        == yard.fail(SourceFailed, data[:-3], archive_format).message
    )


@pytest.mark.parametrize("archive_format", ["tar.gz", "tar.bz2", "tar.xz", "tar.zst"])
def test_a_flipped_bit_in_the_compressed_bytes_is_found(yard: Yard, archive_format: str) -> None:
    data = bytearray(make_archive(archive_format, [("a", os.urandom(100_000))]))
    data[len(data) // 2] ^= 0x10
    message = yard.fail(SourceFailed, bytes(data), archive_format).message
    assert message.startswith(f"cannot unpack 'data.{archive_format}': ")


@pytest.mark.parametrize("archive_format", ["tar.gz", "tar.bz2", "tar.xz", "tar.zst"])
def test_what_follows_the_compressed_bytes_is_refused(yard: Yard, archive_format: str) -> None:
    data = make_archive(archive_format, [("a", b"x")]) + b"<html>"
    assert (
        f"cannot unpack 'data.{archive_format}': what follows its first compressed stream is cut short, corrupt or "
        "something else" == yard.fail(SourceFailed, data, archive_format).message
    )


def test_a_second_tar_after_the_first_is_not_lost_in_silence(yard: Yard) -> None:
    data = make_archive("tar", [("a", b"x")]) + make_archive("tar", [("b", b"y")])
    message = yard.fail(SourceFailed, data, "tar").message
    assert message == "cannot unpack 'data.tar': something else follows the tar's end, such as a second tar"


@pytest.mark.parametrize("data", [b"", bytes(10240)])
def test_an_empty_file_and_one_of_zeros_are_no_empty_folder(yard: Yard, data: bytes) -> None:
    message = yard.fail(SourceFailed, data, "tar").message
    assert message in (
        "cannot unpack 'data.tar': it ends without the marker of a tar's end: it was cut short",
        "cannot unpack 'data.tar': it holds nothing",
    )


def test_a_corrupt_header_in_the_middle_does_not_end_it_quietly(yard: Yard) -> None:
    data = bytearray(make_archive("tar", [("a", b"x"), ("b", b"y")]))
    data[1024 + 10] ^= 0xFF
    message = yard.fail(SourceFailed, bytes(data), "tar").message
    assert message == "cannot unpack 'data.tar': a header of it is corrupt (bad checksum)"


@pytest.mark.parametrize(
    ("data", "archive_format", "what"),
    [
        (b"<!DOCTYPE html><html>log in</html>" * 50, "tar", "a web page or XML"),
        (b"<!DOCTYPE html><html>log in</html>" * 50, "tar.gz", "a web page or XML"),
        (make_archive("tar.gz", [("a", b"x")]), "tar", "gzip"),
        (make_archive("zip", [("a", b"x")]), "tar.xz", "zip"),
        (make_archive("tar.zst", [("a", b"x")]), "tar.bz2", "zstd"),
    ],
)
def test_another_kind_of_file_is_named_in_the_hint(yard: Yard, data: bytes, archive_format: str, what: str) -> None:
    error = yard.fail(SourceFailed, data, archive_format)
    expected = f"the file begins like {what}; fetch it again, or set 'format' when it is another kind of archive"
    assert error.hint == expected


def _sign(header: bytearray) -> bytes:
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header)


def test_a_size_below_zero_does_not_lead_backwards(yard: Yard) -> None:
    header = bytearray(make_tar(tar_member("a", b"x"), tar_format=tarfile.GNU_FORMAT)[:512])
    header[124:136] = b"\xff" + (2**88 - 1024).to_bytes(11, "big")
    message = yard.fail(SourceFailed, _sign(header) + bytes(10240), "tar").message
    assert message == "cannot unpack 'data.tar': a header of it is corrupt (it points backwards)"


def test_headers_that_would_fill_the_memory_are_refused(yard: Yard) -> None:
    member, _ = tar_member("a")
    member.pax_headers = {"comment": "x" * (2 << 20)}
    message = yard.fail(SourceFailed, make_tar((member, b"")), "tar").message
    assert message == "cannot unpack 'data.tar': the headers of one member take more than 1 MiB"


def test_a_long_name_of_size_below_zero_is_refused(yard: Yard) -> None:
    header = bytearray(make_tar(tar_member("n" * 200), tar_format=tarfile.GNU_FORMAT)[:512])
    header[124:136] = b"\xff" + (2**88 - 1024).to_bytes(11, "big")
    message = yard.fail(SourceFailed, _sign(header) + bytes(10240), "tar").message
    assert message == "cannot unpack 'data.tar': it has a header of impossible size"


def test_headers_upon_headers_do_not_exhaust_the_stack(yard: Yard) -> None:
    long_name = make_tar(tar_member("n" * 200, b"x"), tar_format=tarfile.GNU_FORMAT)[:1024]
    message = yard.fail(SourceFailed, long_name * 900, "tar").message
    assert message == "cannot unpack 'data.tar': a header of it is corrupt"


def test_a_map_of_holes_that_contradicts_itself_is_refused(yard: Yard) -> None:
    member, _ = tar_member("s")
    member.pax_headers = {"GNU.sparse.map": "0,512,100,512", "GNU.sparse.size": "4096", "GNU.sparse.name": "s"}
    message = yard.fail(SourceFailed, make_tar((member, b"x" * 1024)), "tar").message
    assert message == "cannot unpack 'data.tar': a map of a sparse file is corrupt"


def test_compression_that_needs_more_memory_than_is_sensible_is_not_read(yard: Yard) -> None:
    # The dictionary's size is one byte of the block's header (xz-file-format 1.2.1, 5.3.1): 37 is 1.5 GiB.
    data = bytearray(lzma.compress(make_archive("tar", [("a", b"x")]), filters=[{"id": lzma.FILTER_LZMA2}]))
    header_bytes = (data[12] + 1) * 4
    data[12 + 4] = 37
    data[12 + header_bytes - 4 : 12 + header_bytes] = struct.pack("<I", zlib.crc32(data[12 : 12 + header_bytes - 4]))
    error = yard.fail(SourceFailed, bytes(data), "tar.xz")
    assert (error.message, error.code, error.hint) == (
        "cannot unpack 'data.tar.xz': its compression needs more than 512 MiB of memory",
        "archive-unsupported",
        _BY_HAND,
    )


def test_a_zstd_window_of_more_than_its_default_is_not_read(yard: Yard) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=28)
    data = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    compressed = data.compress(make_archive("tar", [("a", b"x")])) + data.flush()
    message = yard.fail(SourceFailed, compressed, "tar.zst").message
    assert message == "cannot unpack 'data.tar.zst': its compression needs more than 128 MiB of memory"


def test_a_tar_of_the_real_tar_comes_out_as_it_went_in(yard: Yard, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "deep" / "er" / "sst.nc").write_bytes(os.urandom(100_000))
    (source / "run").write_bytes(b"#!/bin/sh")
    (source / "run").chmod(0o755)
    (source / "link").symlink_to("deep/er")
    os.link(source / "run", source / "run2")
    result = tmp_path / "real.tar.gz"
    subprocess.run([needs("tar"), "-C", source, "-czf", result, "."], check=True)
    yard.unpack(result.read_bytes(), "tar.gz")
    assert read_tree(source) == yard.tree()


def test_members_are_streamed_not_read_whole(yard: Yard) -> None:
    size = 64 << 20
    data = make_tar(tar_member("big", bytes(size)), archive_format="tar.gz")
    tracemalloc.start()
    try:
        unpacked = yard.unpack(data, "tar.gz", limits=_UNLIMITED)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert unpacked == Unpacked(1, size)
    assert peak < 8 << 20

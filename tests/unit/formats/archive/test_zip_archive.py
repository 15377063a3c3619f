"""zip: what it becomes, and what is refused."""

from __future__ import annotations

import io
import os
import stat
import struct
import subprocess
import zipfile
from pathlib import Path

import pytest

from dm.errors import Refused, SourceFailed
from dm.plumbing.formats.archive import Unpacked
from tests.fixtures.archives import Yard, make_archive, make_zip, read_tree, zip_member
from tests.fixtures.machine import needs

_BY_HAND = "nothing of it was kept; where it can be trusted, unpack it by hand and add the folder"
_LOCAL = b"PK\3\4"
_CENTRAL = b"PK\1\2"


def _link(name: str, target: bytes) -> tuple[zipfile.ZipInfo, bytes]:
    return zip_member(name, target, mode=stat.S_IFLNK | 0o777)


def _patch(data: bytes, signature: bytes, offset: int, form: str, *values: int) -> bytes:
    """Overwrite fields of the first header of a kind."""
    patched = bytearray(data)
    struct.pack_into(form, patched, patched.index(signature) + offset, *values)
    return bytes(patched)


def test_files_folders_and_links_come_as_recorded(yard: Yard) -> None:
    data = make_zip(
        zip_member("empty/", mode=stat.S_IFDIR | 0o700),
        zip_member("a/b/sst.nc", b"warm" * 100_000, mode=stat.S_IFREG | 0o600),
        zip_member("run.sh", b"#!/bin/sh\n", mode=stat.S_IFREG | 0o4755),
        zip_member("nothing"),
        _link("a/latest", b"b/sst.nc"),
    )
    assert yard.unpack(data, "zip") == Unpacked(files=4, size_bytes=400_010 + len("b/sst.nc"))
    assert yard.tree() == {
        "a": ("040000", None),
        "a/b": ("040000", None),
        "a/b/sst.nc": ("100644", b"warm" * 100_000),
        "a/latest": ("120000", "b/sst.nc"),
        "empty": ("040000", None),
        "nothing": ("100644", b""),
        "run.sh": ("100755", b"#!/bin/sh\n"),
    }
    assert not (yard.destination / "run.sh").stat().st_mode & stat.S_ISUID


def test_a_member_without_unix_mode_is_a_plain_file(yard: Yard) -> None:
    mode = stat.S_IFLNK | 0o777
    yard.unpack(make_zip(zip_member("dos", b"x", mode=mode, system=0), zip_member("bare", b"y")), "zip")
    assert yard.tree() == {"bare": ("100644", b"y"), "dos": ("100644", b"x")}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_every_common_compression_is_read(yard: Yard, method: int, size: int) -> None:
    content = os.urandom(size // 2) + b"x" * (size - size // 2)
    yard.unpack(make_zip(zip_member("a", content, method=method), zip_member("b", b"after")), "zip")
    assert yard.tree() == {"a": ("100644", content), "b": ("100644", b"after")}


def test_what_dos_calls_a_folder_is_one(yard: Yard) -> None:
    data = make_zip(zip_member("data\\deep\\a", b"x", system=0), zip_member("data\\b\\", system=0))
    yard.unpack(data, "zip")
    assert yard.tree() == {
        "data": ("040000", None),
        "data/b": ("040000", None),
        "data/deep": ("040000", None),
        "data/deep/a": ("100644", b"x"),
    }


def test_a_name_in_utf8_without_its_flag_is_read_as_utf8_and_any_other_as_code_page_437(yard: Yard) -> None:
    flagged = make_zip(zip_member("Ébène", b"x"))
    utf8_unflagged = _patch(_patch(flagged, _LOCAL, 6, "<H", 0), _CENTRAL, 8, "<H", 0)
    yard.unpack(utf8_unflagged, "zip")
    assert list(yard.tree()) == ["Ébène"]


def test_a_name_in_code_page_437_is_read(yard: Yard) -> None:
    data = make_zip(zip_member("Xb", b"x")).replace(b"Xb", b"\x82b")
    yard.unpack(data, "zip")
    assert list(yard.tree()) == ["éb"]


def test_members_in_another_order_than_the_directory_and_bytes_before_them_are_fine(yard: Yard) -> None:
    data = b"#!/bin/sh self-extracting\n" + make_archive("zip", [("b", b"y"), ("a", b"x")])
    yard.unpack(data, "zip")
    assert yard.tree() == {"a": ("100644", b"x"), "b": ("100644", b"y")}


def test_sizes_after_the_bytes_are_read(yard: Yard) -> None:
    class Pipe:
        def __init__(self) -> None:
            self.data = b""

        def write(self, data: bytes) -> int:
            self.data += data
            return len(data)

        def flush(self) -> None:
            pass

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[call-overload]
        archive.writestr("a", b"x" * 1000)
        archive.writestr("b", b"y")
    yard.unpack(pipe.data, "zip")
    assert yard.tree() == {"a": ("100644", b"x" * 1000), "b": ("100644", b"y")}


def test_a_zip_of_the_real_zip_comes_out_as_it_went_in(yard: Yard, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "deep" / "er" / "sst.nc").write_bytes(os.urandom(100_000))
    (source / "run").write_bytes(b"#!/bin/sh")
    (source / "run").chmod(0o755)
    (source / "link").symlink_to("deep/er")
    subprocess.run([needs("zip"), "-q", "-y", "-r", tmp_path / "real.zip", "."], cwd=source, check=True)
    yard.unpack((tmp_path / "real.zip").read_bytes(), "zip")
    assert read_tree(source) == yard.tree()


@pytest.mark.parametrize(
    ("members", "member", "reason"),
    [
        ([zip_member("../escape", b"x")], "../escape", "has '..' in its name"),
        ([zip_member("../escape/")], "../escape/", "has '..' in its name"),
        ([zip_member("/etc/cron.d/x", b"x")], "/etc/cron.d/x", "has an absolute name"),
        ([zip_member("..\\escape", b"x")], "..\\escape", "has '..' in its name"),
        ([zip_member("..\\escape", b"x", system=0)], "../escape", "has '..' in its name"),
        ([zip_member("C:\\x", b"x", system=0)], "C:/x", "has an absolute name"),
        ([zip_member("C:\\x", b"x")], "C:\\x", "has an absolute name"),
        ([zip_member("a\x1bb", b"x")], "a\\x1bb", "has a control character in its name"),
        ([zip_member(".Dm/x", b"x")], ".Dm/x", "has the name '.dm', which is the store's own folder"),
        ([zip_member(".complete", b"x")], ".complete", "is not empty, but '.complete' is the name of an empty marker"),
        ([_link("out", b"/etc")], "out", "is a link to an absolute path"),
        ([_link("out", b"../secret")], "out", "is a link that leads outside the folder"),
        ([_link("out", b"a\0b")], "out", "is a link to nothing"),
        ([_link("out", b"x" * 3000)], "out", "is a link to a path of more than 2048 bytes"),
        ([_link("a", b"."), zip_member("a/x", b"x")], "a/x", "has a link of the archive in its path"),
        ([zip_member("a", b"x"), zip_member("a/b", b"x")], "a/b", "has a file of the archive in its path"),
        ([zip_member("a/b", b"x"), zip_member("a", b"x")], "a", "comes twice, as a folder too"),
        ([zip_member("a/", b"x")], "a/", "is a folder by its name and a file by its bytes"),
        ([zip_member("pipe", mode=stat.S_IFIFO | 0o644)], "pipe", "is a device, fifo or socket"),
        ([zip_member("null", mode=stat.S_IFCHR | 0o644)], "null", "is a device, fifo or socket"),
        ([zip_member("sock", mode=stat.S_IFSOCK | 0o644)], "sock", "is a device, fifo or socket"),
    ],
)
def test_a_hostile_member_is_refused_and_nothing_remains(
    yard: Yard, members: list[tuple[zipfile.ZipInfo, bytes]], member: str, reason: str
) -> None:
    data = make_zip(zip_member("first", b"harmless"), *members, zip_member("zlast", b"harmless"))
    error = yard.fail(Refused, data, "zip")
    assert (error.message, error.hint, error.code) == (
        f"cannot unpack 'data.zip': member '{member}' {reason}",
        _BY_HAND,
        "archive-unsafe",
    )


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_comes_twice_is_refused(yard: Yard) -> None:
    error = yard.fail(Refused, make_archive("zip", [("a", b"x"), ("a", b"y")]), "zip")
    assert error.message == "cannot unpack 'data.zip': member 'a' comes twice"


def test_a_nul_in_a_name_does_not_shorten_it(yard: Yard) -> None:
    data = make_zip(zip_member("sst.ncXexe", b"x")).replace(b"sst.ncXexe", b"sst.nc\0exe")
    error = yard.fail(Refused, data, "zip")
    assert error.message == "cannot unpack 'data.zip': member 'sst.nc\\x00exe' has a control character in its name"


def test_an_encrypted_member_is_refused(yard: Yard) -> None:
    data = make_zip(zip_member("a", b"x"))
    data = _patch(_patch(data, _LOCAL, 6, "<H", 1), _CENTRAL, 8, "<H", 1)
    assert yard.fail(Refused, data, "zip").message == "cannot unpack 'data.zip': member 'a' is encrypted"


def test_a_member_with_two_names_is_refused(yard: Yard) -> None:
    data = make_zip(zip_member("good", b"x")).replace(b"good", b"evil", 1)
    error = yard.fail(Refused, data, "zip")
    expected = "cannot unpack 'data.zip': member 'good' has another name in its own header than in the directory"
    assert error.message == expected


@pytest.mark.parametrize(("method", "name"), [(9, "deflate64"), (99, "AES"), (77, "number 77")])
def test_a_compression_that_is_not_known_is_named(yard: Yard, method: int, name: str) -> None:
    data = _patch(make_zip(zip_member("a", b"x")), _CENTRAL, 10, "<H", method)
    error = yard.fail(SourceFailed, data, "zip")
    assert (error.message, error.hint, error.code) == (
        f"cannot unpack 'data.zip': it is compressed by a method that is not known here: {name}",
        _BY_HAND,
        "archive-unsupported",
    )


def test_patches_are_not_taken_for_files(yard: Yard) -> None:
    data = _patch(make_zip(zip_member("a", b"x")), _CENTRAL, 8, "<H", 0x20)
    assert yard.fail(SourceFailed, data, "zip").message == "cannot unpack 'data.zip': it holds patches instead of files"


def test_a_zip_for_a_newer_zip_is_not_read(yard: Yard) -> None:
    data = _patch(make_zip(zip_member("a", b"x")), _CENTRAL, 6, "<H", 99)
    message = yard.fail(SourceFailed, data, "zip").message
    assert message == "cannot unpack 'data.zip': it is made for a newer zip (zip file version 9.9)"


def test_members_that_share_their_bytes_are_refused(yard: Yard) -> None:
    """The overlapping bomb: many directory entries, one local member."""
    archive = make_zip(zip_member("a", b"x" * 1000))
    directory_at = archive.index(_CENTRAL)
    end_at = archive.index(b"PK\5\6")
    entry = archive[directory_at:end_at]
    end = bytearray(archive[end_at:])
    struct.pack_into("<HHL", end, 8, 2, 2, 2 * len(entry))
    error = yard.fail(Refused, archive[:directory_at] + entry * 2 + bytes(end), "zip")
    assert error.message == "cannot unpack 'data.zip': member 'a' shares its bytes with another member, as bombs do"


def test_a_member_that_reaches_into_the_next_is_refused(yard: Yard) -> None:
    """The quoted bomb: what is compressed in one member is the header of the next."""
    data = make_zip(zip_member("a", b"x" * 10, method=zipfile.ZIP_STORED), zip_member("b", b"y"))
    data = _patch(_patch(data, _CENTRAL, 20, "<LL", 40, 40), _LOCAL, 18, "<LL", 40, 40)
    error = yard.fail(Refused, data, "zip")
    assert error.message == "cannot unpack 'data.zip': member 'a' shares its bytes with another member, as bombs do"


@pytest.mark.parametrize(
    ("method", "declared", "reason"),
    [
        (zipfile.ZIP_DEFLATED, 10, "member 'a' is longer than it says"),
        (zipfile.ZIP_DEFLATED, 5000, "member 'a' is shorter than it says"),
        (zipfile.ZIP_STORED, 10, "member 'a' is longer than it says"),
        (zipfile.ZIP_LZMA, 5000, "member 'a' is shorter than it says"),
    ],
)
def test_a_member_that_lies_about_its_size_is_refused(yard: Yard, method: int, declared: int, reason: str) -> None:
    data = _patch(make_zip(zip_member("a", b"x" * 1000, method=method)), _CENTRAL, 24, "<L", declared)
    error = yard.fail(SourceFailed, data, "zip")
    assert (error.message, error.code) == (f"cannot unpack 'data.zip': {reason}", "archive-broken")


def test_a_wrong_crc_is_refused(yard: Yard) -> None:
    data = _patch(make_zip(zip_member("a", b"x" * 1000)), _CENTRAL, 16, "<L", 1)
    assert yard.fail(SourceFailed, data, "zip").message == "cannot unpack 'data.zip': member 'a' does not have its CRC"


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_bytes_that_are_too_few_or_too_many_are_refused(yard: Yard, method: int) -> None:
    data = make_zip(zip_member("a", os.urandom(1000), method=method), zip_member("b", b"y"))
    size = zipfile.ZipFile(io.BytesIO(data)).getinfo("a").compress_size
    yard.fail(SourceFailed, _patch(data, _CENTRAL, 20, "<L", size - 30), "zip")
    archive = make_zip(zip_member("a", b"x" * 1000, method=method))
    at = archive.index(_CENTRAL)
    size = zipfile.ZipFile(io.BytesIO(archive)).getinfo("a").compress_size
    longer = bytearray(_patch(archive[:at] + b"hidden" + archive[at:], _CENTRAL, 20, "<L", size + 6))
    struct.pack_into("<L", longer, longer.index(b"PK\5\6") + 16, at + 6)
    yard.fail(SourceFailed, bytes(longer), "zip")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_one_that_was_cut_short_is_refused_wherever_it_was_cut(yard: Yard, share: float) -> None:
    data = make_archive("zip", [(f"d/{number}", os.urandom(3000)) for number in range(20)])
    error = yard.fail(SourceFailed, data[: int(len(data) * share)], "zip")
    assert (error.message.startswith("cannot unpack 'data.zip': it is cut short or no zip ("), error.code) == (
        True,
        "archive-broken",
    )


def test_one_whose_first_half_is_missing_is_refused(yard: Yard) -> None:
    data = make_archive("zip", [(f"d/{number}", os.urandom(3000)) for number in range(20)])
    message = yard.fail(SourceFailed, data[len(data) // 2 :], "zip").message
    assert message == "cannot unpack 'data.zip': its beginning is missing"


def test_a_directory_that_points_elsewhere_is_refused(yard: Yard) -> None:
    data = _patch(make_archive("zip", [("a", b"x" * 100)]), _CENTRAL, 42, "<L", 7)
    message = yard.fail(SourceFailed, data, "zip").message
    assert message == "cannot unpack 'data.zip': its directory points to something that is no member"


def test_an_empty_zip_is_no_empty_folder(yard: Yard) -> None:
    assert yard.fail(SourceFailed, make_zip(), "zip").message == "cannot unpack 'data.zip': it holds nothing"

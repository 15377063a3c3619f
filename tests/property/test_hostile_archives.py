"""Archives that nobody makes on purpose: whatever they hold, nothing lands outside and nothing half remains."""

from __future__ import annotations

import errno
import os
import tarfile
import tempfile
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dm.errors import DmError, Refused, SourceFailed
from dm.plumbing.formats.archive.faults import UnsafeMember
from dm.plumbing.formats.archive.names import clean_member_name, fold_name
from tests.fixtures.archives import FORMATS, Yard, make_archive, make_tar, make_zip, read_tree, tar_member, zip_member

# Parts that mean something to somebody, and others.
_PARTS = st.one_of(
    st.sampled_from(
        ["", ".", "..", "a", "b", "A", "é", "e\u0301", ".dm", ".DM", ".complete", "C:", "x.lock", "a\\b", "..\\..", "~"]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=5),
)
_NAMES = st.lists(_PARTS, min_size=1, max_size=5).map("/".join)
_KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])


@given(_NAMES.map(os.fsencode) | st.binary(max_size=20))
def test_a_clean_name_stays_below_its_folder_and_is_clean_already(name: bytes) -> None:
    try:
        path = clean_member_name(name)
    except UnsafeMember:
        return
    parts = path.split(b"/") if path else []
    assert not {b"", b".", b"..", b".dm"} & {part.lower() for part in parts}
    assert b"\0" not in path
    assert os.path.normpath(b"/root/" + path).startswith(b"/root")
    assert clean_member_name(path) == path


@given(_NAMES.map(os.fsencode) | st.binary(max_size=20))
def test_folding_twice_is_folding_once(name: bytes) -> None:
    for ignore_case in (False, True):
        folded = fold_name(name, ignore_case=ignore_case)
        assert fold_name(folded, ignore_case=ignore_case) == folded


def _check_inside(root: Path) -> None:
    """No link of an unpacked tree, followed to its end, leads above it; nothing but files, folders and links."""
    inside = os.path.realpath(root)
    for path in root.rglob("*"):
        assert path.is_symlink() or path.is_dir() or path.is_file()
        try:
            resolved = os.path.realpath(path, strict=True)
        except FileNotFoundError:
            resolved = os.path.realpath(path)
        except OSError as error:  # a circle; `realpath` makes '/' of some
            assert error.errno == errno.ELOOP
            continue
        assert resolved == inside or resolved.startswith(inside + "/")


def _unpack_anything(data: bytes, archive_format: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        yard = Yard(Path(folder))
        try:
            unpacked = yard.unpack(data, archive_format)
        except (Refused, SourceFailed) as error:
            assert "\n" not in error.message
            yard.check_untouched()
            return
        _check_inside(yard.destination)
        tree = yard.tree()
        leaves = [content for _, content in tree.values() if content is not None]
        assert (len(leaves), sum(len(os.fsencode(content)) for content in leaves)) == unpacked


@given(st.lists(st.tuples(_KINDS, _NAMES, _NAMES, st.binary(max_size=3)), min_size=1, max_size=6))
@example([(tarfile.SYMTYPE, "a", "..", b""), (tarfile.REGTYPE, "a/x", "", b"x")])
@example([(tarfile.SYMTYPE, "a", ".", b""), (tarfile.SYMTYPE, "b", "a/..", b"")])
@example([(tarfile.SYMTYPE, "b", "a/../..", b""), (tarfile.SYMTYPE, "a", "c/d", b"")])
@example([(tarfile.SYMTYPE, "a", "a//", b"")])
@example([(tarfile.REGTYPE, "a", "", b"x"), (tarfile.LNKTYPE, "b", "../../secret", b"")])
def test_no_tar_of_any_members_reaches_outside(members: list[tuple[bytes, str, str, bytes]]) -> None:
    data = make_tar(
        *(
            tar_member(name, content if kind == tarfile.REGTYPE else b"", kind=kind, target=target)
            for kind, name, target, content in members
        )
    )
    _unpack_anything(data, "tar")


@given(
    st.lists(
        st.tuples(_NAMES, st.binary(max_size=3) | _NAMES.map(os.fsencode), st.sampled_from([0, 0o100644, 0o120777])),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([0, 3]),
)
def test_no_zip_of_any_members_reaches_outside(members: list[tuple[str, bytes, int]], system: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # duplicate names: that is the point
        data = make_zip(*(zip_member(name, content, mode=mode, system=system) for name, content, mode in members))
    _unpack_anything(data, "zip")


_SAMPLE = [("a/b.txt", b"some text " * 30), ("a/c", b""), ("d", bytes(range(256)) * 3), ("e/f/g.csv", b"1,2\n" * 50)]
_SAMPLES = {archive_format: make_archive(archive_format, _SAMPLE) for archive_format in FORMATS}
_WHOLE = {"a/b.txt", "a/c", "d", "e/f/g.csv"}


@pytest.mark.parametrize("archive_format", FORMATS)
@given(data=st.data())
def test_damage_is_an_error_in_one_line_or_harmless(archive_format: str, data: st.DataObject) -> None:
    damaged = bytearray(_SAMPLES[archive_format])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    _unpack_anything(bytes(damaged), archive_format)


def _make_tar_of_every_header() -> bytes:
    sparse, content = tar_member("s", b"x" * 1024)
    sparse.pax_headers = {"GNU.sparse.map": "0,512,1024,512", "GNU.sparse.size": "4096", "GNU.sparse.name": "s"}
    members = [tar_member("n" * 120, b"1"), tar_member("l", kind=tarfile.SYMTYPE, target="n" * 120), (sparse, content)]
    gnu = make_tar(*members[:2], tar_format=tarfile.GNU_FORMAT).rstrip(b"\0")
    return gnu + bytes(-len(gnu) % 512) + make_tar(*members[1:], tar_member("é" * 60, b"2"))


_EVERY_HEADER = _make_tar_of_every_header()
_BLOCKS = len(_EVERY_HEADER) // 512


@given(
    st.lists(
        st.tuples(st.integers(0, _BLOCKS - 1), st.integers(0, 511), st.binary(min_size=1, max_size=12)),
        min_size=1,
        max_size=3,
    )
)
def test_a_header_that_lies_under_a_right_check_sum_is_an_error_or_harmless(lies: list[tuple[int, int, bytes]]) -> None:
    damaged = bytearray(_EVERY_HEADER)
    for block, at, lie in lies:
        begin = block * 512
        damaged[begin + at : begin + min(at + len(lie), 512)] = lie[: 512 - at]
        if damaged[begin + 257 : begin + 262] == b"ustar":
            damaged[begin + 148 : begin + 156] = b" " * 8
            damaged[begin + 148 : begin + 156] = b"%06o\0 " % sum(damaged[begin : begin + 512])
    _unpack_anything(bytes(damaged), "tar")


@pytest.mark.parametrize("archive_format", FORMATS)
@given(data=st.data())
def test_a_part_is_never_taken_for_the_whole(archive_format: str, data: st.DataObject) -> None:
    whole = _SAMPLES[archive_format]
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with tempfile.TemporaryDirectory() as folder:
        yard = Yard(Path(folder))
        try:
            yard.unpack(cut, archive_format)
        except SourceFailed:
            yard.check_untouched()
        else:  # only the zeros that fill the last record of a plain tar may be missing
            assert archive_format == "tar"
            assert {name for name, (_, content) in read_tree(yard.destination).items() if content is not None} == _WHOLE


@given(st.binary(max_size=600), st.sampled_from(FORMATS))
def test_noise_is_no_archive(noise: bytes, archive_format: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        yard = Yard(Path(folder))
        with pytest.raises(DmError):
            yard.unpack(noise, archive_format)
        yard.check_untouched()


@given(st.dictionaries(st.text("abcé/ .", min_size=1, max_size=12), st.binary(max_size=50), min_size=1, max_size=8))
def test_zip_and_tar_of_the_same_files_become_the_same_folder(files: dict[str, bytes]) -> None:
    results = []
    for archive_format in ("zip", "tar", "tar.zst"):
        with tempfile.TemporaryDirectory() as folder:
            yard = Yard(Path(folder))
            members = [(name, content) for name, content in files.items() if not name.endswith("/")]
            if not members:
                return
            try:
                yard.unpack(make_archive(archive_format, members), archive_format)
            except Refused as error:
                results.append(error.message.replace(archive_format, "?"))
            else:
                results.append(repr(yard.tree()))
    assert results[0] == results[1] == results[2]


def test_zipfile_and_tarfile_agree_with_us_on_the_sample(tmp_path: Path) -> None:
    for archive_format in FORMATS:
        if archive_format == "tar.zst":
            continue  # tarfile of this Python cannot
        root = tmp_path / archive_format
        root.mkdir()
        yard = Yard(root)
        yard.unpack(_SAMPLES[archive_format], archive_format)
        archive = root / f"data.{archive_format}"
        if archive_format == "zip":
            with zipfile.ZipFile(archive) as opened:
                opened.extractall(root / "theirs")
        else:
            with tarfile.open(archive) as opened_tar:
                # Not the argument: Python before 3.11.4 has none, and nothing to choose from.
                opened_tar.extraction_filter = getattr(tarfile, "data_filter", None)
                opened_tar.extractall(root / "theirs")
        assert read_tree(root / "theirs") == yard.tree()

"""What a member may be called."""

from __future__ import annotations

import pytest

from dm.plumbing.formats.archive.faults import UnsafeMember
from dm.plumbing.formats.archive.names import clean_member_name, fold_name


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (b"sst.nc", b"sst.nc"),
        (b"./a/./b//c", b"a/b/c"),
        (b"folder/", b"folder"),
        (b"./", b""),
        (b"", b""),
        (b"..a/...", b"..a/..."),
        (b"with blank/\xc3\xa9.txt", b"with blank/\xc3\xa9.txt"),
        (b"latin\xe9", b"latin\xe9"),
        (b"dev-disk-by\\x2duuid.swap", b"dev-disk-by\\x2duuid.swap"),
        (b"T:2m.nc", b"T:2m.nc"),
        (b".dmg", b".dmg"),
        (b"n" * 255, b"n" * 255),
    ],
)
def test_a_name_becomes_a_relative_path(name: bytes, path: bytes) -> None:
    assert clean_member_name(name) == path


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (b"../x", "has '..' in its name"),
        (b"a/../../x", "has '..' in its name"),
        (b"a/..", "has '..' in its name"),
        (b"..", "has '..' in its name"),
        (b"..\\x", "has '..' in its name"),
        (b"a\\..\\..\\x", "has '..' in its name"),
        (b"/etc/passwd", "has an absolute name"),
        (b"//server/share", "has an absolute name"),
        (b"\\\\server\\share", "has an absolute name"),
        (b"\\windows", "has an absolute name"),
        (b"C:\\x", "has an absolute name"),
        (b"c:/x", "has an absolute name"),
        (b"a\0b", "has a control character in its name"),
        (b"a\nb", "has a control character in its name"),
        (b"\x1b[31m", "has a control character in its name"),
        (b"a\x7f", "has a control character in its name"),
        (b"a\xc2\x9bb", "has a control character in its name"),
        (b".dm", "has the name '.dm', which is the store's own folder"),
        (b"a/.DM/format", "has the name '.dm', which is the store's own folder"),
        (b"n" * 256, "has a name longer than 255 bytes"),
        (b"/".join([b"n" * 200] * 11), "has a path longer than 2048 bytes"),
        (b"/".join([b"n"] * 101), "lies more than 100 folders deep"),
    ],
)
def test_an_unsafe_name_is_refused_with_its_reason(name: bytes, reason: str) -> None:
    with pytest.raises(UnsafeMember) as caught:
        clean_member_name(name)
    assert (caught.value.member, caught.value.reason) == (name, reason)


def test_names_are_one_by_unicode_form_and_by_case_where_it_is_ignored() -> None:
    composed, decomposed = "Ébène".encode(), "E\u0301be\u0300ne".encode()
    assert fold_name(composed, ignore_case=False) == fold_name(decomposed, ignore_case=False)
    assert fold_name(b"SST.nc", ignore_case=True) == fold_name(b"sst.NC", ignore_case=True)
    assert fold_name(b"SST.nc", ignore_case=False) != fold_name(b"sst.NC", ignore_case=False)
    assert fold_name("ÉBÈNE".encode(), ignore_case=True) == fold_name(decomposed, ignore_case=True)


def test_bytes_that_are_no_text_stand_for_themselves() -> None:
    assert fold_name(b"\xff\xfe", ignore_case=True) == b"\xff\xfe"

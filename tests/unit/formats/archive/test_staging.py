"""The folder that members are written into, where letter case is ignored: macOS does, pyfakefs can say that it does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pyfakefs.fake_filesystem import FakeFilesystem

from dm.plumbing.formats.archive.faults import UnsafeMember
from dm.plumbing.formats.archive.limits import DEFAULT_LIMITS, Meter
from dm.plumbing.formats.archive.staging import Staging, Unpacked

_METER = Meter(DEFAULT_LIMITS, 1000)


@pytest.mark.parametrize(
    ("first", "second"), [("sst.nc", "SST.nc"), ("d/a", "D/b"), (".complete", ".COMPLETE"), ("é.nc", "É.nc")]
)
def test_names_that_differ_by_case_are_refused_where_the_file_system_folds_it(
    tmp_path: Path, first: str, second: str
) -> None:
    with Staging(tmp_path, _METER, ignores_case=True) as staging:
        staging.add_file(first.encode(), [], executable=False)
        with pytest.raises(UnsafeMember) as caught:
            staging.add_file(second.encode(), [], executable=False)
    assert (caught.value.member, caught.value.reason) == (
        second.encode(),
        "comes twice, but for Unicode's forms or upper and lower case",
    )


@pytest.mark.parametrize("ignores_case", [True, False])
def test_it_is_found_out_whether_the_file_system_folds_case(fs: FakeFilesystem, ignores_case: bool) -> None:
    fs.is_case_sensitive = not ignores_case
    root = Path("/tree")
    root.mkdir()
    with Staging(root, _METER) as staging:
        staging.add_link(b"a", b"x")
        if ignores_case:
            with pytest.raises(UnsafeMember):
                staging.add_link(b"A", b"y")
        else:
            staging.add_link(b"A", b"y")
    assert os.listdir(root) == []


def test_a_marker_is_known_in_any_case_where_the_file_system_folds_it(tmp_path: Path) -> None:
    with Staging(tmp_path, _METER, ignores_case=True) as staging:
        staging.add_file(b".Complete", [b""], executable=False)
        with pytest.raises(UnsafeMember) as caught:
            staging.add_file(b".COMPLETE/x", [], executable=False)
        assert staging.finish() == Unpacked(0, 0)
    assert caught.value.reason == "lies in a folder '.complete', but that is the name of an empty marker"
    assert os.listdir(tmp_path) == []


def test_a_link_is_followed_in_any_case_where_the_file_system_folds_it(tmp_path: Path) -> None:
    with Staging(tmp_path, _METER, ignores_case=True) as staging:
        staging.add_link(b"Up", b".")
        staging.add_link(b"out", b"uP/..")
        with pytest.raises(UnsafeMember) as caught:
            staging.finish()
    assert (caught.value.member, caught.value.reason) == (b"out", "is a link that leads outside the folder")


def test_what_the_file_system_takes_for_one_name_is_refused_though_we_took_it_for_two(tmp_path: Path) -> None:
    with Staging(tmp_path, _METER) as staging:
        for name in ("a", "d", "l"):
            (tmp_path / name).touch()
        with pytest.raises(UnsafeMember) as of_file:
            staging.add_file(b"a", [b"x"], executable=False)
        with pytest.raises(UnsafeMember) as of_folder:
            staging.add_folder(b"d")
        staging.add_link(b"l", b"x")
        with pytest.raises(UnsafeMember) as of_link:
            staging.finish()
    reasons = {caught.value.reason for caught in (of_file, of_folder, of_link)}
    assert reasons == {"is another member's name on this file system"}
    assert (tmp_path / "a").read_bytes() == b""

"""Which archive format a file name speaks of."""

from __future__ import annotations

import pytest

from dm.plumbing.formats.archive import ARCHIVE_SUFFIXES, find_archive_format
from dm.plumbing.formats.archive.suffixes import normalise_archive_format


@pytest.mark.parametrize(
    ("name", "archive_format"),
    [
        ("sst.zip", "zip"),
        ("sst.tar", "tar"),
        ("sst.tar.gz", "tar.gz"),
        ("sst.tgz", "tar.gz"),
        ("sst.tar.bz2", "tar.bz2"),
        ("sst.tar.xz", "tar.xz"),
        ("sst.tar.zst", "tar.zst"),
        ("example.org/data/SST.ZIP", "zip"),
        ("v1.2.Tar.Gz", "tar.gz"),
    ],
)
def test_a_name_with_an_archive_suffix_names_its_format(name: str, archive_format: str) -> None:
    assert find_archive_format(name) == archive_format


@pytest.mark.parametrize(
    "name", ["sst.nc", "sst.gz", "zip", ".zip", "folder/.tar.gz", "a.zip/b", "a.zip#2", "", "atar"]
)
def test_a_name_without_one_names_none(name: str) -> None:
    assert find_archive_format(name) is None


@pytest.mark.parametrize("text", ["tgz", ".tgz", "tar.gz", " TAR.GZ "])
def test_spellings_of_a_format_are_one(text: str) -> None:
    assert normalise_archive_format(text) == "tar.gz"


def test_each_format_is_a_spelling_of_itself() -> None:
    assert {name: name for name in ARCHIVE_SUFFIXES.values()} == {
        name: normalise_archive_format(name) for name in ARCHIVE_SUFFIXES.values()
    }

"""What is known of copies outside any store root."""

from __future__ import annotations

from pathlib import Path

import pytest

from dm.errors import Refused
from dm.plumbing.records.copy_notes import merge_copy_notes, read_copy_notes
from dm.plumbing.records.toml import read_toml

LINE = f"blake3:{'ab' * 32} 12 1 2026-01-31T12:00:00Z -"


class Warnings:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def start(self, label: str, *, total: int | None = None, unit: str = "bytes") -> object:
        raise AssertionError(label)

    def note(self, text: str) -> None:
        raise AssertionError(text)

    def warn(self, text: str) -> None:
        self.texts.append(text)


def test_notes_are_merged_by_path_and_kept_relative_below_the_project(tmp_path: Path) -> None:
    inside, outside = tmp_path / "data" / "x.nc", Path("/elsewhere/y.nc")
    assert read_copy_notes(tmp_path) == ({}, {})
    merge_copy_notes(tmp_path, {inside: LINE + "\n"})
    assert merge_copy_notes(tmp_path, {outside: LINE}).copies == {inside: LINE, outside: LINE}
    assert read_copy_notes(tmp_path).copies == {inside: LINE, outside: LINE}
    document = read_toml((tmp_path / ".datamanifest" / "dm.toml").read_bytes())
    assert document == {"_META": {"schema": 1}, "copies": {"data/x.nc": LINE, "/elsewhere/y.nc": LINE}}
    assert merge_copy_notes(tmp_path, {}, [inside]).copies == {outside: LINE}


def test_commits_of_repositories_are_noted_and_forgotten_by_path(tmp_path: Path) -> None:
    here, there = tmp_path / "data" / "r.git", Path("/elsewhere/r.git")
    merge_copy_notes(tmp_path, {here: LINE}, revisions={here: "a" * 40, there: "b" * 40})
    assert read_copy_notes(tmp_path) == ({here: LINE}, {here: "a" * 40, there: "b" * 40})
    document = read_toml((tmp_path / ".datamanifest" / "dm.toml").read_bytes())
    assert document["revisions"] == {"data/r.git": "a" * 40, "/elsewhere/r.git": "b" * 40}
    merge_copy_notes(tmp_path, {}, revisions={here: None})
    assert read_copy_notes(tmp_path) == ({here: LINE}, {there: "b" * 40})


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("[_META]\nschema = 2\n", "{path}: schema 2 is not 1; it is made again"),
        ("[copies\n", "{path}:1: "),
        ('[copies]\n"x" = "y"\n', "{path}: schema None is not 1; it is made again"),
    ],
)
def test_a_file_that_is_not_understood_is_told_and_made_again(tmp_path: Path, text: str, warning: str) -> None:
    path = tmp_path / ".datamanifest" / "dm.toml"
    path.parent.mkdir()
    path.write_text(text)
    told = Warnings()
    assert read_copy_notes(tmp_path, progress=told) == ({}, {})  # type: ignore[arg-type]
    assert [text.startswith(warning.format(path=path)) for text in told.texts] == [True]
    assert told.texts[0].endswith("; it is made again")
    merge_copy_notes(tmp_path, {tmp_path / "x": LINE})
    assert read_copy_notes(tmp_path).copies == {tmp_path / "x": LINE}


def test_a_path_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        merge_copy_notes(tmp_path, {tmp_path / "d\udcff": LINE})
    assert caught.value.message == "cannot record 'd\\udcff': it is not UTF-8"


def test_a_link_that_leads_out_of_the_project_is_not_written_through(tmp_path: Path) -> None:
    root, profile = tmp_path / "project", tmp_path / "profile"
    (root / ".datamanifest").mkdir(parents=True)
    (root / ".datamanifest" / "dm.toml").symlink_to(profile)
    with pytest.raises(Refused, match="is a link that leads out of the project, to "):
        merge_copy_notes(root, {root / "a": LINE})
    assert not profile.exists()

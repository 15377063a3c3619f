"""What a record becomes in a manifest, where no service is needed to tell."""

from __future__ import annotations

import pytest

from dm.errors import SourceFailed
from dm.plumbing.records.manifest import Manifest
from dm.plumbing.transport.catalogues import CatalogueRecord, RecordFile
from dm.porcelain.record_entries import Choice, make_entries, suggest_record_name


def make_record(*files: RecordFile, title: str = "Sea ice", doi: str | None = "10.1/ice.7") -> CatalogueRecord:
    return CatalogueRecord("Zenodo", "https://zenodo.org/records/7", doi, title, None, files)


def make_file(name: str, **fields: object) -> RecordFile:
    return RecordFile(name, f"https://zenodo.org/records/7/files/{name}")._replace(**fields)


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Sea ice", "sea-ice"),
        ("Supplementary data for: \"Sea ice (1979–2020)\" by many authors", "supplementary-data-for-sea-ice-1979-2020"),
        ("Donaudampfschifffahrtselektrizitätenhauptbetriebswerk", "donaudampfschifffahrtselektrizitätenhaup"),
        ("海氷の面積", "海氷の面積"),
        ("…", "ice.7"),
        ("", "ice.7"),
    ],
)
def test_a_name_is_the_first_words_of_the_title(title: str, name: str) -> None:
    assert name == suggest_record_name(make_record(title=title))
    assert len(name) <= 40


def test_a_record_without_title_and_doi_is_called_after_its_service() -> None:
    assert "zenodo" == suggest_record_name(make_record(title="", doi=None))


@pytest.mark.parametrize(
    ("sizes", "notes"),
    [
        ([5], ()),
        ([5, 7], ("2 files, 12 B in all",)),
        ([5, None], ("2 files, 5 B in all, 1 of unknown size",)),
        ([200 << 20], ("1 file, 200.0 MiB in all",)),
    ],
)
def test_the_size_of_all_is_told_before_a_big_download(sizes: list[int | None], notes: tuple[str, ...]) -> None:
    files = [make_file(f"{number}.csv", size_bytes=size) for number, size in enumerate(sizes)]
    plan = make_entries(make_record(*files), Choice())
    assert notes == plan.notes
    assert plan.entries[0].size_bytes == (None if None in sizes else sum(size for size in sizes if size))


def test_the_names_of_a_folder_are_those_of_the_record() -> None:
    files = [make_file("grid/mask.nc"), make_file("grid/area.nc")]
    (entry,) = make_entries(make_record(*files), Choice(name="grid")).entries
    dataset = Manifest.of_tables({entry.name: entry.table}).datasets["grid"]
    assert ("zenodo.org/records/7/files/grid", ("mask.nc", "area.nc")) == (dataset.key.text, dataset.file_names)


def test_a_single_restricted_file_has_no_others_to_pick() -> None:
    with pytest.raises(SourceFailed) as caught:
        make_entries(make_record(make_file("a.csv", restricted=True)), Choice())
    assert "ask for access at https://zenodo.org/records/7" == caught.value.hint


def test_many_names_in_an_error_are_cut_short() -> None:
    files = [make_file(f"{number}.csv", restricted=True) for number in range(20)]
    with pytest.raises(SourceFailed, match=r"20 of 20 files .*'7\.csv' and 12 more(\n|$)"):
        make_entries(make_record(*files), Choice())

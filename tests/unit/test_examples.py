"""The examples are what their pages say."""

from __future__ import annotations

from pathlib import Path

from dm.plumbing.formats.archive import unpack
from dm.plumbing.records.manifest import Manifest
from dm.plumbing.records.schema import validate
from tests.fixtures.archives import read_tree

_EXAMPLES = Path(__file__).parents[2] / "examples"
_DATA = _EXAMPLES / "data"


def test_the_archive_holds_the_folder_beside_it(tmp_path: Path) -> None:
    unpack(_DATA / "yearly-records.tar.gz", "tar.gz", tmp_path / "tree")
    assert read_tree(_DATA / "yearly-records") == read_tree(tmp_path / "tree")


def test_every_file_of_data_has_its_source_in_the_readme() -> None:
    readme = (_EXAMPLES / "README.md").read_text(encoding="utf-8")
    files = {str(path.relative_to(_DATA)) for path in _DATA.rglob("*") if path.is_file()}
    assert {name for name in files if f"`{name}`" not in readme} == {"yearly-records/README.md"}


def test_the_manifest_of_public_sources_is_in_order() -> None:
    path = _EXAMPLES / "datamanifest.toml"
    manifest = Manifest.read(path)
    assert validate("manifest", path.read_text(encoding="utf-8"), path) == []
    assert manifest.find_collisions() == {}
    assert {name: dataset.key.text for name, dataset in manifest.datasets.items() if dataset.checksum is not None} == {}
    for dataset in manifest.datasets.values():
        assert all(uri.startswith("https://") for uri in dataset.uris)
        assert dataset.key.parts[0] in dataset.uris[0]

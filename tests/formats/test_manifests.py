"""Manifests as they lie in projects today: what reading them gives stays the same, and edits leave them as they are."""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from dm.errors import Refused
from dm.plumbing.records.manifest import Dataset, Manifest
from dm.plumbing.records.schema import validate
from dm.plumbing.records.toml import dump_canonical
from dm.plumbing.records.toml_edit import edit_tables

FOLDER = Path(__file__).parent / "manifests"
SAMPLES = sorted(FOLDER.glob("*.toml"))
each_sample = pytest.mark.parametrize("path", SAMPLES, ids=[path.stem for path in SAMPLES])
NEW = "sha256:" + "9" * 64


def describe(dataset: Dataset) -> dict[str, Any]:
    """What a dataset means, as the frozen ``.json`` beside the sample holds it."""
    try:
        key, landing = dataset.key.text, dataset.landing.text
    except Refused:
        key = landing = ""
    meaning = {
        "uris": list(dataset.uris),
        "key": key,
        "landing": landing if landing != key else "",
        "file_names": list(dataset.file_names) if dataset.is_list else [],
        "version": dataset.version,
        "format": dataset.format,
        "checksum": str(dataset.checksum or ""),
        "digest": str(dataset.digest or ""),
        "aliases": list(dataset.aliases),
        "requires": list(dataset.requires),
        "source_id": dataset.source_id,
    }
    meaning |= {
        name: getattr(dataset, name) for name in ("branch", "doi", "shell", "store", "storage_path", "local_path")
    }
    flags = [name for name in ("extract", "skip_download", "skip_checksum", "lazy_access") if getattr(dataset, name)]
    meaning = {name: value for name, value in {**meaning, "flags": flags}.items() if value}
    return meaning if dataset.scope is None else {**meaning, "scope": dataset.scope}


@each_sample
def test_a_sample_means_what_it_always_meant(path: Path) -> None:
    expected = json.loads(path.with_suffix(".json").read_text())
    assert expected == {name: describe(dataset) for name, dataset in Manifest.read(path).datasets.items()}


@each_sample
def test_a_sample_has_no_findings(path: Path) -> None:
    assert [] == validate("manifest", path.read_bytes(), path)


@each_sample
def test_pinning_each_dataset_keeps_every_other_line(path: Path) -> None:
    text = path.read_bytes().decode()
    for name in Manifest.read(path).datasets:
        edited = edit_tables(text, {name: {"checksum": NEW}}).text
        before, after = text.split("\n"), edited.split("\n")
        kept = [line for line in before if line in after]
        assert len(before) - len(kept) <= 1
        assert kept == [line for line in after if line in kept]


@each_sample
def test_removing_each_dataset_keeps_the_others_and_what_is_structural(path: Path) -> None:
    text = path.read_bytes().decode()
    document = tomllib.loads(text)
    for name in Manifest.read(path).datasets:
        expected = {other: table for other, table in document.items() if other != name}
        assert expected == tomllib.loads(edit_tables(text, {name: None}).text)


@each_sample
def test_the_canonical_form_is_the_python_peers(path: Path, peer_executable: Path) -> None:
    peer = subprocess.run([peer_executable, "format", path], capture_output=True, check=True, timeout=60)
    assert peer.stdout == dump_canonical(tomllib.loads(path.read_bytes().decode()))


@each_sample
def test_the_python_peer_derives_the_same_keys(path: Path, peer_executable: Path, tmp_path: Path) -> None:
    program = """
import json, sys
from datamanifest.database import Database
print(json.dumps({name: entry.key for name, entry in Database(sys.argv[1], persist=False).datasets.items()}))
"""
    copy = tmp_path / "datamanifest.toml"
    copy.write_bytes(path.read_bytes())
    result = subprocess.run(
        [peer_executable.parent / "python", "-c", program, copy], capture_output=True, text=True, check=True, timeout=60
    )
    ours = {name: describe(dataset)["key"] for name, dataset in Manifest.read(path).datasets.items() if dataset.uris}
    assert ours == {name: key for name, key in json.loads(result.stdout).items() if name in ours}

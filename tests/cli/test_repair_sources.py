"""Where `dm verify --repair` finds sound bytes: each place that may hold them, with nothing else in reach."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from blake3 import blake3

from tests.cli.test_repair import break_link
from tests.cli.test_verify import copy_of, fetched, overwrite, store_folder
from tests.fixtures.archives import read_tree
from tests.fixtures.commands import NO_RETRIES, Answer, Ask, snapshot, store_root, write_manifest
from tests.fixtures.homes import Home, RunDm
from tests.fixtures.servers import HttpServer

GOOD = b"a" * 100
KEY = "127.0.0.1/a.bin"


@pytest.fixture
def damaged(home: Home, project: Path, http_server: HttpServer, run_dm: RunDm) -> Path:
    """A dataset whose copy and object are bad, and whose source is gone; returns its copy."""
    fetched(project, http_server, run_dm, "a")
    http_server.routes.pop("/a.bin")
    overwrite(copy_of(home, "a"), b"X")
    return copy_of(home, "a")


def put(path: Path, data: bytes = GOOD) -> Path:
    """A file of somebody's, without marker, ref and object; its folder cannot be told from one never touched."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def repair(ask: Ask, *words: str | Path, **variables: str) -> Answer:
    return ask("verify", "--repair", *words, env={**NO_RETRIES, **variables})


def assert_mended(answer: Answer, copy: Path) -> None:
    assert (0, "mended") == (answer.status, answer.only["code"]), answer
    assert answer.only["message"].startswith("mended 1 path from sound copies")
    assert copy.read_bytes() == GOOD


def test_without_any_other_place_it_cannot_be_mended(damaged: Path, ask: Ask) -> None:
    answer = repair(ask)
    assert 4 == answer.status
    assert "no sound copy is in reach" in answer.only["message"]


def test_a_read_only_pool_without_marker_or_objects_serves_and_is_left_alone(
    damaged: Path, tmp_path: Path, ask: Ask
) -> None:
    pool = tmp_path / "pool"
    put(pool / KEY)
    before = snapshot(pool)
    assert_mended(repair(ask, DATAMANIFEST_DATASETS_POOLS=os.fspath(pool)), damaged)
    assert before == snapshot(pool)
    assert damaged.stat().st_ino != (pool / KEY).stat().st_ino


def test_a_pool_that_is_another_store_serves_from_its_objects_and_shares_no_bytes(
    damaged: Path, tmp_path: Path, run_dm: RunDm, ask: Ask
) -> None:
    other = tmp_path / "other"
    good = put(tmp_path / "good")
    assert 0 == run_dm("hash-object", "-w", good, "--root", other).returncode
    (other / "datasets").mkdir()
    before = snapshot(other)
    assert_mended(repair(ask, DATAMANIFEST_DATASETS_POOLS=os.fspath(other / "datasets")), damaged)
    assert before == snapshot(other)
    raw = blake3(GOOD).hexdigest()
    assert 1 == (other / ".dm" / "objects" / raw[:2] / raw[2:]).stat().st_nlink


def test_a_pool_with_wrong_bytes_is_no_help(damaged: Path, tmp_path: Path, ask: Ask) -> None:
    put(tmp_path / "pool" / KEY, b"Y" + GOOD[1:])
    answer = repair(ask, DATAMANIFEST_DATASETS_POOLS=os.fspath(tmp_path / "pool"))
    assert 4 == answer.status
    assert damaged.read_bytes().startswith(b"X")


@pytest.mark.parametrize("place", ["paper/datasets", "projects/thesis/datasets"])
def test_another_scope_serves_without_marker_or_ref(damaged: Path, home: Home, place: str, ask: Ask) -> None:
    put(store_root(home) / place / KEY)
    assert_mended(repair(ask), damaged)


def test_another_built_in_root_serves(damaged: Path, home: Home, ask: Ask) -> None:
    put(home.cache / "datamanifest" / "paper" / "datasets" / KEY)
    assert_mended(repair(ask), damaged)


def test_a_place_of_the_user_that_another_dataset_names_serves(
    damaged: Path, project: Path, tmp_path: Path, ask: Ask
) -> None:
    mine = put(tmp_path / "mine.bin")
    manifest = project / "datamanifest.toml"
    checksum = f"sha256:{hashlib.sha256(GOOD).hexdigest()}"
    manifest.write_text(
        f'{manifest.read_text()}\n[mine]\nstorage_path = "{mine}"\nskip_download = true\nchecksum = "{checksum}"\n'
    )
    assert_mended(repair(ask, "a"), damaged)
    assert GOOD == mine.read_bytes()


def test_without_ref_and_alias_a_copy_is_proven_by_the_checksum(
    damaged: Path, home: Home, tmp_path: Path, ask: Ask
) -> None:
    shutil.rmtree(store_root(home) / ".dm")
    put(tmp_path / "pool" / KEY)
    assert_mended(repair(ask, DATAMANIFEST_DATASETS_POOLS=os.fspath(tmp_path / "pool")), damaged)


def test_a_file_inside_a_folder_is_mended_from_a_pool_under_whatever_name(
    home: Home, tmp_path: Path, project: Path, run_dm: RunDm, ask: Ask
) -> None:
    write_manifest(project)
    folder = store_folder(home, run_dm, tmp_path)
    good = read_tree(folder)
    for name in ("a", "sub/b"):
        overwrite(folder / name, b"X")
    pool = tmp_path / "pool"
    put(pool / "folder" / "a", b"content of a")
    put(pool / "folder" / "renamed", b"content of sub/b")
    before = snapshot(pool)
    answer = repair(ask, folder, DATAMANIFEST_DATASETS_POOLS=os.fspath(pool))
    assert (0, "mended") == (answer.status, answer.only["code"]), answer
    assert (good, before) == (read_tree(folder), snapshot(pool))
    assert 0 == ask("verify", "--all").status


def test_a_folder_whose_trees_are_lost_is_mended_from_a_pool_that_has_it_whole(
    home: Home, tmp_path: Path, project: Path, run_dm: RunDm, ask: Ask
) -> None:
    write_manifest(project)
    folder = store_folder(home, run_dm, tmp_path)
    good = read_tree(folder)
    pool = tmp_path / "pool"
    shutil.copytree(folder, pool / "folder", ignore=shutil.ignore_patterns(".complete"))
    shutil.rmtree(store_root(home) / ".dm" / "objects")
    break_link(folder / "sub" / "b", b"wrong")
    (folder / "a").unlink()
    answer = repair(ask, folder, DATAMANIFEST_DATASETS_POOLS=os.fspath(pool))
    assert (0, "mended") == (answer.status, answer.only["code"]), answer
    assert good == read_tree(folder)


def test_all_mends_an_object_from_a_pool(
    home: Home, tmp_path: Path, project: Path, run_dm: RunDm, ask: Ask
) -> None:
    write_manifest(project)
    folder = store_folder(home, run_dm, tmp_path)
    good = read_tree(folder)
    overwrite(folder / "sub" / "c", b"X")
    put(tmp_path / "pool" / "folder" / "sub" / "c", b"content of sub/c")
    answer = repair(ask, "--all", DATAMANIFEST_DATASETS_POOLS=os.fspath(tmp_path / "pool"))
    assert 0 == answer.status, answer
    assert good == read_tree(folder)


@pytest.mark.parametrize("where", ['storage_path = "data/$key.bin"', 'storage_path = "data/mine.bin"'])
def test_a_copy_in_no_store_is_mended_from_a_pool_and_stays_private(
    project: Path, tmp_path: Path, ask: Ask, where: str
) -> None:
    checksum = f"sha256:{hashlib.sha256(GOOD).hexdigest()}"
    write_manifest(project, f'[a]\nkey = "a"\n{where}\nchecksum = "{checksum}"\n')
    copy = put(project / "data" / ("a.bin" if "key" in where else "mine.bin"), b"bad")
    if "key" in where:
        copy.with_name(f"{copy.name}.complete").touch()
        (project / ".datamanifest-state.toml").write_text(
            '[_META]\nschema = 5\n[datasets.a]\nstorage_path = "data/a.bin"\n'
        )
    pool = tmp_path / "pool"
    put(pool / "a")
    before = snapshot(pool)
    answer = repair(ask, "a", DATAMANIFEST_DATASETS_POOLS=os.fspath(pool))
    assert (0, "mended") == (answer.status, answer.only["code"]), answer
    assert (GOOD, before) == (copy.read_bytes(), snapshot(pool))
    assert (1, 0o200) == (copy.stat().st_nlink, copy.stat().st_mode & 0o200)
    kept = [path for path in (project / ".datamanifest").rglob("*") if path.is_file() and path.read_bytes() == b"bad"]
    assert 1 == len(kept)
    assert 0 == ask("verify", "a").status


def test_an_entry_at_fault_with_the_same_contract_does_not_keep_from_mending(
    damaged: Path, project: Path, home: Home, ask: Ask
) -> None:
    manifest = project / "datamanifest.toml"
    checksum = f"sha256:{hashlib.sha256(GOOD).hexdigest()}"
    other = f'\n[other]\nuri = "https://example.org/other"\nstore = "$nowhere"\nchecksum = "{checksum}"\n'
    manifest.write_text(manifest.read_text() + other)
    put(store_root(home) / "paper" / "datasets" / KEY)
    assert_mended(repair(ask, "a"), damaged)

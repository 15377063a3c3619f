"""The examination of a store finds each fault, names it, and reports nothing else."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

import pytest

from dm.errors import MachineFailed
from dm.plumbing.store.disk import DiskStore
from dm.plumbing.store.examine import Finding
from dm.plumbing.store.measure import measure_copy
from tests.fixtures.stores import blob_id, make_small_store, publish


def examine(store: DiskStore) -> list[Finding]:
    examiner = store.examiner()
    objects = examiner.read_objects()
    return [*examiner.find_object_faults(objects), *examiner.find_ref_faults(), *examiner.find_place_faults()]


def kinds(store: DiskStore) -> list[str]:
    return [finding.kind for finding in examine(store)]


def overwrite(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


def test_a_sound_store_has_no_findings_and_every_byte_was_read(tmp_path: Path) -> None:
    store = make_small_store(tmp_path)
    assert [] == examine(store)
    objects = store.examiner().read_objects()
    assert {digest.raw for digest, _ in store.list_objects()} == set(objects.sound)
    assert sum(size for _, size in store.list_objects()) == objects.read_bytes
    assert 2 == len(objects.trees)


def test_a_store_that_is_not_there_has_none(tmp_path: Path) -> None:
    assert [] == examine(DiskStore(tmp_path / "none"))


def test_a_damaged_blob_is_named_with_the_copies_that_need_it(tmp_path: Path) -> None:
    store = make_small_store(tmp_path)
    overwrite(store.object_path(blob_id(b"22")), b"2x")
    [finding] = examine(store)
    assert ("object-damaged", blob_id(b"22"), ("folder",)) == (finding.kind, finding.digest, finding.copies)


def test_a_truncated_tree_is_named_as_a_tree(tmp_path: Path) -> None:
    store = make_small_store(tmp_path)
    ref = store.read_ref("folder")
    assert ref is not None and ref.digest is not None
    path = store.object_path(ref.digest)
    overwrite(path, path.read_bytes()[:-5])
    [finding] = examine(store)
    assert ("object-damaged", ref.digest, ("folder",)) == (finding.kind, finding.digest, finding.copies)


def test_an_object_that_a_tree_names_and_that_is_gone_is_missing(tmp_path: Path) -> None:
    store = make_small_store(tmp_path)
    store.object_path(blob_id(b"1")).unlink()
    [finding] = examine(store)
    assert ("object-missing", blob_id(b"1"), ("folder",)) == (finding.kind, finding.digest, finding.copies)


def test_a_copy_that_stands_alone_misses_no_object(tmp_path: Path) -> None:
    store = make_small_store(tmp_path)
    store.object_path(blob_id(b"file")).unlink()
    assert [] == examine(store)


def test_a_file_among_the_objects_that_is_none_is_named(tmp_path: Path) -> None:
    store = make_small_store(tmp_path)
    (store.meta / "objects" / "notes.txt").write_text("mine")
    (next((store.meta / "objects").glob("??")) / "short").write_text("mine")
    assert ["object-stray", "object-stray"] == kinds(store)


def test_a_ref_that_cannot_be_read_is_named_and_the_rest_is_examined(tmp_path: Path) -> None:
    store = make_small_store(tmp_path)
    (store.meta / "refs" / "file.bin").write_text("nonsense\n")
    (store.root / "folder" / ".complete").unlink()
    assert {"ref-malformed", "marker-missing"} == set(kinds(store))


def test_refs_that_cannot_be_listed_are_an_error_and_not_taken_for_none(tmp_path: Path) -> None:
    store = make_small_store(tmp_path)
    shutil.rmtree(store.meta / "refs")
    (store.meta / "refs").write_bytes(b"no folder")
    with pytest.raises(MachineFailed, match="cannot list the refs in"):
        kinds(store)


def test_a_ref_to_nothing_is_named(tmp_path: Path) -> None:
    store = make_small_store(tmp_path)
    (store.root / "file.bin").unlink()
    (store.root / "file.bin.complete").unlink()
    assert [("copy-missing", store.root / "file.bin")] == [(each.kind, each.path) for each in examine(store)]


def test_a_marker_without_a_copy_is_named(tmp_path: Path) -> None:
    store = make_small_store(tmp_path)
    (store.root / "gone.nc.complete").touch()
    assert [("marker-stray", store.root / "gone.nc.complete")] == [(each.kind, each.path) for each in examine(store)]


def test_a_marked_copy_without_a_ref_is_named_file_and_folder(tmp_path: Path) -> None:
    store = make_small_store(tmp_path)
    store.remove_ref("file.bin")
    store.remove_ref("folder")
    found = {(each.kind, each.path.name) for each in examine(store)}
    assert {("ref-missing", "file.bin"), ("ref-missing", "folder")} == found


def test_work_that_a_dead_process_left_is_named_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    store = make_small_store(tmp_path)
    (store.partials() / "work-0").mkdir()
    (store.partials() / "work-1").mkdir()
    (store.meta / "locks" / "work-0").touch()
    with (store.meta / "locks" / "work-1").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert ["work-0"] == [each.path.name for each in examine(store) if each.kind == "leftover"]


def test_a_store_further_in_is_left_to_itself(tmp_path: Path) -> None:
    store = make_small_store(tmp_path)
    inner = DiskStore(store.root / "inner")
    publish(inner, "own.bin", b"inner")
    (store.root / "inner" / "stray.complete").touch()
    assert [] == examine(store)


def test_the_users_own_files_below_a_root_are_no_findings(tmp_path: Path) -> None:
    store = make_small_store(tmp_path)
    (store.root / "README").write_text("hello")
    (store.root / "with.complete").write_text("content: no marker")
    (store.root / "sub").mkdir()
    (store.root / "sub" / "link").symlink_to("nowhere")
    assert [] == examine(store)


def test_a_hard_linked_copy_is_not_read_again(tmp_path: Path) -> None:
    store = make_small_store(tmp_path)
    if (store.root / "file.bin").stat().st_nlink == 1:
        return  # reflinks here: nothing is shared that stat data could tell
    objects = store.examiner().read_objects()
    for name in ("file.bin", "folder"):
        assert 0 == measure_copy(store.root / name, seen=objects.seen).read_bytes
    os.utime(store.root / "file.bin")
    assert 4 == measure_copy(store.root / "file.bin", seen=objects.seen).read_bytes

"""A copy held against a digest: every path that differs is named."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dm.errors import Malformed
from dm.plumbing.store.measure import build_trees, measure_copy
from dm.plumbing.store.memory import MemoryStore
from dm.plumbing.store.objects import TreeEntry
from dm.plumbing.store.statcache import StatCache
from dm.plumbing.store.verify import Comparison, _find_file_system, compare_checksum, compare_copy
from dm.values import Difference, Digest
from tests.fixtures.machine import MakeImage

LONG_AGO_NS = 10**18


def make_folder(root: Path) -> Path:
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "a.txt").write_bytes(b"alpha")
    (root / "run.sh").write_bytes(b"#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "sub" / "b.bin").write_bytes(b"beta")
    (root / "sub" / "deep" / "c").write_bytes(b"gamma")
    (root / "link").symlink_to("a.txt")
    for entry in root.rglob("*"):
        os.utime(entry, ns=(LONG_AGO_NS, LONG_AGO_NS), follow_symlinks=False)
    return root


def store_trees(path: Path) -> tuple[Digest, MemoryStore]:
    """The id of a folder and a store that has its tree objects."""
    measured = measure_copy(path)
    store = MemoryStore()
    for tree in build_trees(measured.entries, measured.ids).values():
        store.put_tree(tree.entries)
    return measured.digest, store


def differences(path: Path, expected: Digest, store: MemoryStore | None) -> list[tuple[str, str]]:
    return [tuple(each) for each in compare_copy(path, expected, store).differences]


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[StatCache]:
    cache = StatCache(tmp_path / "cache" / "stat-v1.db")
    yield cache
    cache.close()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "copy")


def test_an_unchanged_folder_is_equal_and_read_whole(copy: Path) -> None:
    digest, store = store_trees(copy)
    found = compare_copy(copy, digest, store)
    assert found == Comparison((), digest, 29, 5, 29, 0, 0)
    assert found.equal


def test_an_equal_folder_needs_no_tree_objects(copy: Path) -> None:
    assert compare_copy(copy, measure_copy(copy).digest).equal


def test_every_kind_of_difference_is_named(copy: Path) -> None:
    digest, store = store_trees(copy)
    (copy / "a.txt").write_bytes(b"ALPHA")
    (copy / "run.sh").chmod(0o644)
    (copy / "sub" / "b.bin").unlink()
    (copy / "sub" / "new").write_bytes(b"new")
    (copy / "link").unlink()
    (copy / "link").write_bytes(b"a.txt")
    found = compare_copy(copy, digest, store)
    assert found.differences == (
        Difference("a.txt", "changed"),
        Difference("link", "type"),
        Difference("run.sh", "mode"),
        Difference("sub/b.bin", "lost"),
        Difference("sub/new", "added"),
    )
    assert found.digest == measure_copy(copy).digest
    assert not found.equal


def test_one_flipped_bit_is_named(copy: Path) -> None:
    digest, store = store_trees(copy)
    (copy / "sub" / "deep" / "c").write_bytes(b"gamm\x60")
    assert differences(copy, digest, store) == [("sub/deep/c", "changed")]


def test_a_changed_link_is_named(copy: Path) -> None:
    digest, store = store_trees(copy)
    (copy / "link").unlink()
    (copy / "link").symlink_to("b.txt")
    assert differences(copy, digest, store) == [("link", "changed")]


def test_a_file_with_other_bytes_and_another_mode_is_changed(copy: Path) -> None:
    digest, store = store_trees(copy)
    (copy / "a.txt").write_bytes(b"other")
    (copy / "a.txt").chmod(0o755)
    assert differences(copy, digest, store) == [("a.txt", "changed")]


def test_a_renamed_file_is_lost_and_added(copy: Path) -> None:
    digest, store = store_trees(copy)
    (copy / "a.txt").rename(copy / "z.txt")
    assert differences(copy, digest, store) == [("a.txt", "lost"), ("z.txt", "added")]


def test_a_lost_folder_is_named_by_what_it_held(copy: Path) -> None:
    digest, store = store_trees(copy)
    shutil.rmtree(copy / "sub")
    (copy / "empty").rmdir()
    assert differences(copy, digest, store) == [("empty", "lost"), ("sub/b.bin", "lost"), ("sub/deep/c", "lost")]


def test_an_added_folder_is_named_by_what_it_holds(copy: Path) -> None:
    digest, store = store_trees(copy)
    (copy / "more" / "void").mkdir(parents=True)
    (copy / "more" / "deep").mkdir()
    (copy / "more" / "deep" / "x").touch()
    assert differences(copy, digest, store) == [("more/deep/x", "added"), ("more/void", "added")]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_something_else_in_the_place_of_a_folder_is_one_path(copy: Path, kind: str) -> None:
    digest, store = store_trees(copy)
    shutil.rmtree(copy / "sub")
    if kind == "file":
        (copy / "sub").touch()
    else:
        (copy / "sub").symlink_to("empty")
    assert differences(copy, digest, store) == [("sub", "type")]


def test_a_folder_in_the_place_of_a_file_is_one_path(copy: Path) -> None:
    digest, store = store_trees(copy)
    (copy / "a.txt").unlink()
    (copy / "a.txt").mkdir()
    (copy / "a.txt" / "inside").touch()
    assert differences(copy, digest, store) == [("a.txt", "type")]


def test_a_marker_with_bytes_is_an_added_file(copy: Path) -> None:
    digest, store = store_trees(copy)
    (copy / ".complete").touch()
    assert differences(copy, digest, store) == []
    (copy / ".complete").write_bytes(b"x")
    assert differences(copy, digest, store) == [(".complete", "added")]


def test_names_that_are_not_utf_8_are_named(copy: Path) -> None:
    digest, store = store_trees(copy)
    Path(os.fsdecode(os.fsencode(copy) + b"/\xff")).touch()
    assert differences(copy, digest, store) == [(os.fsdecode(b"\xff"), "added")]


def test_without_tree_objects_the_copy_itself_is_what_differs(copy: Path) -> None:
    digest, _ = store_trees(copy)
    (copy / "a.txt").write_bytes(b"other")
    assert differences(copy, digest, None) == [(".", "changed")]
    assert differences(copy, digest, MemoryStore()) == [(".", "changed")]


def test_a_folder_whose_tree_object_is_missing_is_what_differs(copy: Path) -> None:
    digest, whole = store_trees(copy)
    store = MemoryStore()
    store.put_tree(whole.read_tree(digest))
    (copy / "a.txt").write_bytes(b"other")
    (copy / "sub" / "b.bin").write_bytes(b"other")
    assert differences(copy, digest, store) == [("a.txt", "changed"), ("sub", "changed")]
    shutil.rmtree(copy / "sub")
    assert differences(copy, digest, store) == [("a.txt", "changed"), ("sub", "lost")]


def test_a_damaged_tree_object_does_not_stop_the_comparison(copy: Path) -> None:
    class Damaged(MemoryStore):
        def read_tree(self, digest: Digest) -> list[TreeEntry]:
            raise Malformed("malformed tree")

    digest, _ = store_trees(copy)
    (copy / "a.txt").write_bytes(b"other")
    assert differences(copy, digest, Damaged()) == [(".", "changed")]


def test_a_tree_with_untrue_sizes_is_not_taken_for_equal(copy: Path) -> None:
    digest, store = store_trees(copy)
    entries = [entry._replace(size=99) if entry.name == b"a.txt" else entry for entry in store.read_tree(digest)]
    assert differences(copy, store.put_tree(entries), store) == [(".", "changed")]


def test_a_file_is_compared_with_its_id(tmp_path: Path) -> None:
    path = tmp_path / "sst.nc"
    path.write_bytes(b"one")
    digest = measure_copy(path).digest
    assert compare_copy(path, digest) == Comparison((), digest, 3, 1, 3)
    path.write_bytes(b"two")
    assert compare_copy(path, digest).differences == (Difference(".", "changed"),)


def test_a_copy_that_is_not_there_is_lost(tmp_path: Path, copy: Path) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    for path in (tmp_path / "none", tmp_path / "dangling", copy / "a.txt" / "below"):
        assert compare_copy(path, measure_copy(copy).digest) == Comparison((Difference(".", "lost"),))
        assert compare_checksum(path, Digest("md5", "0" * 32)) == Comparison((Difference(".", "lost"),))


def test_a_file_for_a_folder_and_a_folder_for_a_file_differ_in_type(copy: Path) -> None:
    folder, file = measure_copy(copy).digest, measure_copy(copy / "a.txt").digest
    assert compare_copy(copy, file) == Comparison((Difference(".", "type"),))
    assert compare_copy(copy / "a.txt", folder) == Comparison((Difference(".", "type"),))


def test_quick_says_how_much_was_not_read(copy: Path, cache: StatCache) -> None:
    digest, store = store_trees(copy)
    assert compare_copy(copy, digest, store, stat_cache=cache).read_bytes == 29
    assert compare_copy(copy, digest, store, stat_cache=cache, quick=True) == Comparison((), digest, 29, 5, 0, 29, 5)
    (copy / "a.txt").write_bytes(b"other")
    found = compare_copy(copy, digest, store, stat_cache=cache, quick=True)
    assert found.differences == (Difference("a.txt", "changed"),)
    assert (found.read_bytes, found.trusted_bytes, found.trusted_files) == (5, 24, 4)


def test_quick_names_what_differs_though_nothing_need_be_read(copy: Path, cache: StatCache) -> None:
    digest, store = store_trees(copy)
    (copy / "a.txt").write_bytes(b"other")
    os.utime(copy / "a.txt", ns=(LONG_AGO_NS, LONG_AGO_NS))
    compare_copy(copy, digest, store, stat_cache=cache)
    found = compare_copy(copy, digest, store, stat_cache=cache, quick=True)
    assert (found.differences, found.read_bytes) == ((Difference("a.txt", "changed"),), 0)


def test_a_contract_in_a_plain_algorithm_is_compared(tmp_path: Path, cache: StatCache) -> None:
    path = tmp_path / "sst.nc"
    path.write_bytes(b"one")
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    expected = Digest("sha256", hashlib.sha256(b"one").hexdigest())
    assert compare_copy(path, expected, stat_cache=cache) == Comparison((), expected, 3, 1, 3)
    assert compare_checksum(path, expected, stat_cache=cache, quick=True) == Comparison((), expected, 3, 1, 0, 3, 1)
    path.write_bytes(b"two")
    found = compare_checksum(path, expected, stat_cache=cache, quick=True)
    assert found.differences == (Difference(".", "changed"),)
    assert found.digest == Digest("sha256", hashlib.sha256(b"two").hexdigest())


def test_a_folder_is_compared_with_the_peers_checksum(copy: Path) -> None:
    # a.txt, link (to a.txt), run.sh, then sub/b.bin, then sub/deep/c
    expected = Digest("sha256", hashlib.sha256(b"alphaalpha#!/bin/sh\nbetagamma").hexdigest())
    assert compare_checksum(copy, expected).equal
    (copy / "sub" / "b.bin").write_bytes(b"BETA")
    assert compare_checksum(copy, expected).differences == (Difference(".", "changed"),)


def test_a_blake3_contract_of_a_folder_is_not_taken_for_a_blobs_id(tmp_path: Path) -> None:
    """The contents of a folder with one file hash to the id of that file."""
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "only").write_bytes(b"one")
    blob = measure_copy(tmp_path / "copy" / "only").digest
    assert compare_checksum(tmp_path / "copy", blob).equal
    assert compare_copy(tmp_path / "copy", blob).differences == (Difference(".", "type"),)


def test_modes_are_not_asked_on_a_file_system_without_them(copy: Path, image_file_system: MakeImage) -> None:
    (copy / "link").unlink()
    digest, store = store_trees(copy)
    there = image_file_system("vfat") / "copy"
    shutil.copytree(copy, there)
    found = compare_copy(there, digest, store)
    assert (found.differences, found.digest) == ((), digest)
    (there / "a.txt").write_bytes(b"other")
    assert compare_copy(there, digest, store).differences == (Difference("a.txt", "changed"),)


def test_a_file_system_is_found_by_its_device() -> None:
    mounts = (
        b"21 98 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n"
        b"33 21 8:17 / /media/my\\040stick rw,nosuid shared:2 master:1 - vfat /dev/sdb1 rw,fmask=0022\n"
    )
    found = [_find_file_system(mounts, os.makedev(*each)) for each in ((254, 0), (8, 17), (8, 1))]
    assert found == ["ext4", "vfat", None]

"""Prune removes what no ref reaches, and nothing else."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from dm.environment import read_clock_ns
from dm.errors import ContentMismatch, Malformed
from dm.plumbing.store.disk import DiskStore
from dm.plumbing.store.prune import Unreached
from dm.plumbing.store.publication import Publication
from dm.values import Digest
from tests.fixtures.sinks import RecordingProgress
from tests.fixtures.stores import blob_id, publish


def make_store(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path / "root")


def find(store: DiskStore, *, quarantine: bool = False, gone: bool = False) -> list[Unreached]:
    return store.find_unreached(before_ns=read_clock_ns() + 1_000_000_000, quarantine=quarantine, gone=gone)


def objects(store: DiskStore) -> set[str]:
    return {str(digest) for digest, _ in store.list_objects()}


def test_an_object_without_a_ref_goes_and_one_with_a_ref_stays(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    kept = publish(store, "kept.bin", b"kept")
    lone = store.put_blob(b"nobody names this")
    found = find(store)
    assert [(str(lone), 17)] == [(item.name, item.freed_bytes) for item in found]
    assert {str(kept), str(lone)} == objects(store)
    removed = store.remove_unreached(found)
    assert [str(lone)] == [each.item.name for each in removed]
    assert {str(kept)} == objects(store)


def test_everything_below_a_tree_that_a_ref_names_stays(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    publish(store, "folder", {"a": b"1", "sub/b": b"2", "sub/deeper/c": b"3"})
    before = objects(store)
    assert [] == find(store)
    assert 6 == len(before)


def test_what_a_removed_ref_reached_goes_whole_and_what_another_shares_stays(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    publish(store, "one", {"shared": b"shared", "own": b"own"})
    publish(store, "two", {"shared": b"shared"})
    store.remove_ref("one")
    names = {each.item.name for each in store.remove_unreached(find(store))}
    assert 2 == len(names)
    assert str(store.find_by_digest(blob_id(b"shared"))) in objects(store)
    assert b"own" == (store.root / "one" / "own").read_bytes()


def test_bytes_that_a_copy_still_shares_by_a_hard_link_are_not_counted_as_freed(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    publish(store, "copy.bin", b"x" * 100)
    store.remove_ref("copy.bin")
    [item] = find(store)
    shares = (store.root / "copy.bin").stat().st_nlink > 1
    assert (0 if shares else 100) == item.freed_bytes


def test_what_was_touched_within_the_grace_time_stays(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.put_blob(b"young")
    assert [] == store.find_unreached(before_ns=read_clock_ns() - 3600 * 1_000_000_000)


def test_an_object_that_was_named_since_it_was_found_stays(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    digest = store.put_blob(b"soon named")
    found = find(store)
    store.publish_object(digest, store.root / "copy.bin")
    assert [] == store.remove_unreached(found)
    assert b"soon named" == (store.root / "copy.bin").read_bytes()


def test_a_damaged_tree_stops_prune_since_what_it_needs_is_not_known(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    digest = publish(store, "folder", {"a": b"1"})
    path = store.object_path(digest)
    path.chmod(0o644)
    path.write_bytes(b"100644 " + b"0" * 64 + b" 1\tz\0")
    with pytest.raises(ContentMismatch, match="cannot tell what 'folder' needs"):
        find(store)


def test_a_ref_that_cannot_be_read_stops_prune(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    publish(store, "a.bin", b"1")
    (store.meta / "refs" / "a.bin").write_text("nonsense\n")
    with pytest.raises(Malformed):
        find(store)


def test_an_alias_goes_with_its_object(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    staged = store.partials() / "staged"
    staged.write_bytes(b"data")
    alias = Digest("md5", "8d777f385d3dfec8815d20f7496026dc")
    store.publish([Publication(staged, store.root / "a.bin", aliases=(alias,))])
    store.remove_ref("a.bin")
    kinds = [each.item.kind for each in store.remove_unreached(find(store))]
    assert ["object", "alias"] == kinds
    assert None is store.find_by_digest(alias)


def test_partial_work_stays_while_a_copy_is_locked(tmp_path: Path) -> None:
    told = RecordingProgress()
    store = DiskStore(tmp_path / "root", progress=told)
    half = store.partials() / "ab12"
    half.write_bytes(b"half")
    lone = str(store.put_blob(b"nobody names this"))
    with store.lock_copy(store.root / "one"):
        assert [lone] == [each.name for each in find(store)]
    found = find(store)
    assert {lone, "partial/ab12"} == {each.name for each in found}
    with store.lock_copy(store.root / "two"):  # since it was looked for
        assert [lone] == [each.item.name for each in store.remove_unreached(found)]
    assert half.exists()
    assert 2 == sum("partial work there stays" in note for note in told.notes)
    assert ["partial/ab12"] == [each.item.name for each in store.remove_unreached(find(store))]


def test_an_old_partial_download_goes_and_a_workspace_stays(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    (store.partials() / "ab12").write_bytes(b"half")
    (store.partials() / "work-0").mkdir()
    assert ["partial"] == [each.item.kind for each in store.remove_unreached(find(store))]
    assert ["work-0"] == os.listdir(store.partials())


def test_the_quarantine_goes_only_when_asked(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.prepare()
    (store.root / "bad.bin").write_bytes(b"bad")
    store.quarantine(store.root / "bad.bin", "why")
    assert [] == find(store)
    assert ["aside"] == [each.item.kind for each in store.remove_unreached(find(store, quarantine=True))]
    assert [] == os.listdir(store.meta / "quarantine")


def test_a_ref_whose_copy_is_gone_keeps_its_objects_unless_it_is_to_be_forgotten(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    digest = publish(store, "a.bin", b"data")
    (store.root / "a.bin").unlink()
    assert [] == find(store)
    kinds = {each.item.kind: each.item.name for each in store.remove_unreached(find(store, gone=True))}
    assert {"ref": "refs/a.bin", "object": str(digest)} == kinds
    assert None is store.read_ref("a.bin")


def test_a_copy_that_came_back_keeps_its_ref(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    publish(store, "a.bin", b"data")
    (store.root / "a.bin").unlink()
    found = find(store, gone=True)
    (store.root / "a.bin").write_bytes(b"data")
    assert [] == store.remove_unreached(found)
    assert None is not store.read_ref("a.bin")


def test_prune_beside_publishers_never_takes_what_they_name(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    stop = threading.Event()
    faults: list[Exception] = []

    def publish_on() -> None:
        own = DiskStore(store.root)
        try:
            for number in range(60):
                name = f"copy-{number % 6}"
                for path in (own.root / name, own.root / f"{name}.complete"):
                    path.unlink(missing_ok=True)
                own.remove_ref(name)
                staged = own.partials() / "one"
                staged.write_bytes(b"content %d" % (number % 3))
                own.publish([Publication(staged, own.root / name)])
        except Exception as error:  # noqa: BLE001 - told below
            faults.append(error)
        finally:
            stop.set()

    publisher = threading.Thread(target=publish_on)
    publisher.start()
    pruner = DiskStore(store.root)
    while not stop.is_set():
        pruner.remove_unreached([item for item in find(pruner) if item.kind == "object"])
    publisher.join()
    assert [] == faults
    for name, ref in store.list_refs():
        assert ref.digest is not None and store.has(ref.digest), name
        with store.open_blob(ref.digest) as file:
            assert (store.root / name).read_bytes() == file.read()


@pytest.mark.parametrize("name", ["", "objects", "refs", "aliases", "locks", "partial", "quarantine", "unlocked"])
def test_what_lies_outside_a_store_is_not_pruned_through_a_link(tmp_path: Path, name: str) -> None:
    """A store may come with a clone, links and all."""
    outside = DiskStore(tmp_path / "outside")
    lone = outside.put_blob(b"another store's")
    root = tmp_path / "root"
    if name:
        DiskStore(root).prepare()
        folder = root / ".dm" / name
        if folder.is_dir():
            folder.rmdir()
    else:
        root.mkdir()
        folder = root / ".dm"
    folder.symlink_to(outside.meta / name)
    store = DiskStore(root)
    for attempt in (lambda: find(store, quarantine=True, gone=True), lambda: store.put_blob(b"new"), store.prepare):
        with pytest.raises(Malformed) as caught:
            attempt()
        assert f"{folder}: it is a symbolic link" in str(caught.value)
    assert {str(lone)} == objects(outside)


@pytest.mark.parametrize("name", ["objects/{}", "aliases/sha256", "aliases/sha256/ab"])
def test_links_further_in_are_not_pruned_through(tmp_path: Path, name: str) -> None:
    outside = DiskStore(tmp_path / "outside")
    lone = outside.put_blob(b"another store's")
    store = make_store(tmp_path)
    store.prepare()
    name = name.format(lone.hex[:2])
    (store.meta / name).parent.mkdir(parents=True, exist_ok=True)
    (store.meta / name).symlink_to(outside.meta / f"objects/{lone.hex[:2]}")
    with pytest.raises(Malformed, match="symbolic link"):
        find(store)
    assert {str(lone)} == objects(outside)

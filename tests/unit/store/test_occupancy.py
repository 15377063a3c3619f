"""What a copy takes for itself: shared bytes count with no copy, a copy's own with it alone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from dm.plumbing.store.disk import DiskStore, StoreOptions
from dm.plumbing.store.occupancy import count_own_bytes
from dm.plumbing.store.publication import Publication
from tests.fixtures.machine import MakeImage, needs
from tests.fixtures.stores import write_content

DATA = os.urandom(100_000)


def publish(store: DiskStore, name: str, staged: Path, model: dict[str, bytes] | bytes) -> Path:
    write_content(staged, model)
    store.publish([Publication(staged, store.root / name)])
    return store.root / name


def own(store: DiskStore, copy: Path, *others: DiskStore) -> int:
    ref = store.read_ref(copy)
    assert ref is not None
    return count_own_bytes(copy, ref.digest, stores=[store, *others])


@pytest.mark.parametrize("link", ["hardlink", "copy"])
def test_a_copy_alone_takes_all_its_bytes(tmp_path: Path, link: str) -> None:
    store = DiskStore(tmp_path / "root", options=StoreOptions(link=(link,)))  # type: ignore[arg-type]
    file = publish(store, "file", tmp_path / "staged", DATA)
    folder = publish(store, "folder", tmp_path / "staged2", {"a": DATA[1:], "sub/b": DATA[2:], "twice": DATA[1:]})
    assert len(DATA) == own(store, file)
    once = 1 if link == "hardlink" else 2
    assert once * (len(DATA) - 1) + len(DATA) - 2 == own(store, folder)


def test_what_another_copy_shares_by_hard_links_is_not_its_own(tmp_path: Path) -> None:
    store = DiskStore(tmp_path / "root", options=StoreOptions(link=("hardlink",)))
    one = publish(store, "one", tmp_path / "staged", DATA)
    two = publish(store, "two", tmp_path / "staged2", {"a": DATA, "b": DATA[1:]})
    assert (0, len(DATA) - 1) == (own(store, one), own(store, two))
    one.unlink()
    assert 2 * len(DATA) - 1 == own(store, two)


def test_an_object_of_another_store_is_no_copy(tmp_path: Path) -> None:
    options = StoreOptions(link=("hardlink",))
    store, other = DiskStore(tmp_path / "root", options=options), DiskStore(tmp_path / "other", options=options)
    copy = publish(store, "copy", tmp_path / "staged", DATA)
    ref = store.read_ref(copy)
    assert ref is not None and ref.digest is not None
    other.share_object(ref.digest, store.object_path(ref.digest))
    assert 3 == copy.stat().st_nlink
    assert (len(DATA), 0) == (own(store, copy, other), own(store, copy))


@pytest.mark.needs_root
@pytest.mark.parametrize("kind", ["btrfs", "xfs"])
def test_what_another_copy_shares_in_the_same_blocks_is_not_its_own(
    image_file_system: MakeImage, tmp_path: Path, kind: str
) -> None:
    store = DiskStore(image_file_system(kind) / "root", options=StoreOptions(link=("reflink",)))
    one = publish(store, "one", tmp_path / "staged", DATA)
    assert len(DATA) == own(store, one)
    two = publish(store, "two", tmp_path / "staged2", {"a": DATA, "b": DATA[1:]})
    assert (0, len(DATA) - 1) == (own(store, one), own(store, two))
    one.unlink()
    assert 2 * len(DATA) - 1 == own(store, two)


def test_a_damaged_ref_or_tree_and_a_copy_that_is_gone_are_no_fault_of_this_look(tmp_path: Path) -> None:
    store = DiskStore(tmp_path / "root", options=StoreOptions(link=("hardlink",)))
    folder = publish(store, "folder", tmp_path / "staged", {"a": DATA})
    ref = store.read_ref(folder)
    assert ref is not None and ref.digest is not None
    tree = store.object_path(ref.digest)
    tree.chmod(0o644)
    tree.write_bytes(b"nonsense")
    (store.meta / "refs" / "bad").write_text("nonsense\n")
    assert 0 == count_own_bytes(folder, ref.digest, stores=[store]), "its object may be anything's"
    assert 0 == count_own_bytes(tmp_path / "gone", None, stores=[store])


@pytest.mark.needs_root
def test_clones_in_one_copy_count_once(image_file_system: MakeImage, tmp_path: Path) -> None:
    store = DiskStore(image_file_system("xfs") / "root", options=StoreOptions(link=("reflink",)))
    copy = publish(store, "one", tmp_path / "staged", {"a": DATA, "b": DATA, "c": DATA[1:]})
    assert 2 * len(DATA) - 1 == own(store, copy)
    publish(store, "two", tmp_path / "staged2", DATA)
    assert len(DATA) - 1 == own(store, copy)


@pytest.mark.needs_root
def test_compressed_blocks_are_shared_too(image_file_system: MakeImage, tmp_path: Path) -> None:
    root = image_file_system("btrfs") / "root"
    root.mkdir()
    subprocess.run([needs("chattr"), "+c", str(root)], check=True)
    store = DiskStore(root, options=StoreOptions(link=("reflink",)))
    text = DATA.hex().encode()
    one, two = (publish(store, name, root / "staged", text) for name in ("one", "two"))
    assert (0, 0) == (own(store, one), own(store, two))
    two.unlink()
    assert len(text) == own(store, one)

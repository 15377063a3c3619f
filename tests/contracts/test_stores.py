"""What every store does (dm.plumbing.store.protocol), run for each of them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from dm.errors import Malformed, NotFound, Refused
from dm.plumbing.hashing import blake3_of
from dm.plumbing.store.disk import DiskStore
from dm.plumbing.store.memory import MemoryStore
from dm.plumbing.store.objects import TreeEntry
from dm.plumbing.store.protocol import Store
from dm.plumbing.store.refs import Ref
from dm.plumbing.store.statcache import StatCache
from dm.values import Digest

HELLO = Digest("blake3", "8e4c7c1b99dbfd50e7a95185fead5ee1448fa904a2fdd778eaf5f2dbfd629a99")
ONE_FILE = Digest("blake3-tree", "e68e843112bbdc8009691b11a45e307261fc0c16f5ea2c6e224f5479d4c1f54b")
EMPTY_TREE = Digest("blake3-tree", "42a9d4e17ba598ba95f869757e8f035162b73be23b5e23d1a8973ad1ea886e05")


@pytest.fixture(params=["disk", "disk with a stat cache", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory":
        return MemoryStore()
    cache = StatCache(tmp_path / "cache.db") if request.param == "disk with a stat cache" else None
    return DiskStore(tmp_path, stat_cache=cache)


def hello_entry(name: bytes = b"hello.txt") -> TreeEntry:
    return TreeEntry(name, "100644", HELLO.raw, 6)


def test_an_empty_store_has_nothing(store: Store) -> None:
    assert not store.has(HELLO)
    assert list(store.list_objects()) == []
    assert list(store.list_refs()) == []
    assert store.read_ref("datasets/a") is None


def test_a_blob_is_read_as_it_was_put(store: Store) -> None:
    assert store.put_blob(b"hello\n") == HELLO
    assert store.has(HELLO)
    assert store.size(HELLO) == 6
    with store.open_blob(HELLO) as file:
        assert file.read() == b"hello\n"


def test_a_stream_is_put_from_where_it_stands(store: Store) -> None:
    stream = io.BytesIO(b"head hello\n")
    stream.seek(5)
    assert store.put_blob(stream) == HELLO


def test_a_stream_of_many_pieces_is_put_whole(store: Store) -> None:
    data = bytes(range(256)) * 20_000
    digest = store.put_blob(io.BytesIO(data))
    assert digest == Digest.of_blob(blake3_of(data))
    with store.open_blob(digest) as file:
        assert file.read() == data


def test_putting_what_is_there_changes_nothing(store: Store) -> None:
    store.put_blob(b"hello\n")
    before = list(store.list_objects())
    assert store.put_blob(b"hello\n") == store.put_blob(io.BytesIO(b"hello\n")) == HELLO
    assert list(store.list_objects()) == before


def test_a_tree_is_read_as_it_was_put(store: Store) -> None:
    assert store.put_tree([hello_entry()]) == ONE_FILE
    assert store.has(ONE_FILE)
    assert store.read_tree(ONE_FILE) == [hello_entry()]


def test_a_trees_size_is_the_sum_below_it(store: Store) -> None:
    folder = TreeEntry(b"sub", "040000", ONE_FILE.raw, 6)
    assert store.size(store.put_tree([hello_entry(), folder])) == 12


def test_entries_come_in_the_order_of_their_names_bytes(store: Store) -> None:
    names = [b"b", b"a.b", b"a", b"\xff", "é".encode()]
    digest = store.put_tree([hello_entry(name) for name in names])
    assert [entry.name for entry in store.read_tree(digest)] == sorted(names)


def test_an_empty_folder_is_a_tree_and_an_empty_file_a_blob(store: Store) -> None:
    tree, blob = store.put_tree([]), store.put_blob(b"")
    assert tree == EMPTY_TREE
    assert store.read_tree(tree) == []
    assert store.size(tree) == store.size(blob) == 0
    assert sorted(store.list_objects()) == sorted([(tree, 0), (blob, 0)])


def test_objects_are_listed_in_the_order_of_their_hex_each_as_what_it_is(store: Store) -> None:
    tree = store.put_tree([hello_entry()])
    # Looks like a tree from the outside, and is a file.
    alike = store.put_blob(f"100644 {HELLO.hex} 6\tb\0".encode())
    blob = store.put_blob(b"hello\n")
    listed = list(store.list_objects())
    assert [digest.hex for digest, _ in listed] == sorted([tree.hex, alike.hex, blob.hex])
    assert dict(listed) == {tree: 84, alike: 76, blob: 6}


@pytest.mark.parametrize("digest", [HELLO, ONE_FILE])
def test_an_object_that_is_not_there_is_not_found(store: Store, digest: Digest) -> None:
    for question in (store.size, store.open_blob, store.read_tree):
        with pytest.raises(NotFound) as caught:
            question(digest)
        assert str(digest) in caught.value.message


def test_a_tree_is_no_blob_and_a_blob_no_tree(store: Store) -> None:
    store.put_blob(b"hello\n")
    store.put_tree([hello_entry()])
    with pytest.raises(NotFound):
        store.open_blob(ONE_FILE)
    with pytest.raises(NotFound):
        store.read_tree(HELLO)


def test_digests_in_other_algorithms_are_never_had(store: Store) -> None:
    store.put_blob(b"hello\n")
    assert not store.has(Digest("sha256", HELLO.hex))


def test_what_is_no_folder_is_not_put(store: Store) -> None:
    with pytest.raises(Malformed):
        store.put_tree([hello_entry(), hello_entry()])
    with pytest.raises(Malformed):
        store.put_tree([hello_entry(b"a/b")])
    with pytest.raises(Refused):
        store.put_tree([hello_entry("é".encode()), hello_entry("e\u0301".encode())])
    with pytest.raises(Refused):
        store.put_tree([hello_entry(b".dm")])
    assert list(store.list_objects()) == []


def test_a_ref_is_read_as_it_was_written_and_replaced(store: Store) -> None:
    store.write_ref("datasets/a/b.nc", Ref(HELLO, 6, 1, "2026-01-31T12:00:00Z", "ab" * 32))
    assert store.read_ref("datasets/a/b.nc") == Ref(HELLO, 6, 1, "2026-01-31T12:00:00Z", "ab" * 32)
    store.write_ref("datasets/a/b.nc", Ref(None, 7, 1))
    assert store.read_ref("datasets/a/b.nc") == Ref(None, 7, 1)


def test_a_removed_ref_is_unknown_and_may_be_removed_again(store: Store) -> None:
    store.write_ref("a", Ref(HELLO, 6, 1))
    store.remove_ref("a")
    store.remove_ref("a")
    assert store.read_ref("a") is None


def test_refs_are_listed_in_the_order_of_their_parts(store: Store) -> None:
    names = ["b", "a/c", "a-", "a.b/c", "a/b/c"]
    for name in names:
        store.write_ref(name, Ref(HELLO, 6, 1))
    assert [name for name, _ in store.list_refs()] == ["a/b/c", "a/c", "a-", "a.b/c", "b"]


def test_names_that_leave_the_store_or_touch_its_own_files_are_refused(store: Store) -> None:
    for name in ("../a", "/a", ".dm/format", "a.complete", ""):
        with pytest.raises(Refused):
            store.write_ref(name, Ref(HELLO, 6, 1))
        with pytest.raises(Refused):
            store.read_ref(name)
        with pytest.raises(Refused):
            store.remove_ref(name)

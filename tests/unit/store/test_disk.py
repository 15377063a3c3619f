"""The disk store's face: made on the first write, its format, copies it owns, adoption, quarantine."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from dm.errors import ContentMismatch, Malformed, NotFound, Refused
from dm.plumbing.hashing import blake3_of
from dm.plumbing.store.disk import DiskStore, StoreOptions
from dm.plumbing.store.layout import find_store_root
from dm.plumbing.store.measure import measure_copy
from dm.plumbing.store.objects import FOLDER_MODE, TreeEntry
from dm.plumbing.store.publication import Publication
from dm.plumbing.store.refs import Ref
from dm.plumbing.store.statcache import StatCache
from dm.values import Digest
from tests.fixtures.machine import MakeImage, MakeTmpfs

HELLO = Digest.of_blob(blake3_of(b"hello\n"))


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    root = tmp_path / "root"
    root.mkdir()
    return DiskStore(root, options=StoreOptions(link=("hardlink",)), host_name="here", process_id=17)


def damage(path: Path, data: bytes) -> None:
    status = path.stat()
    path.chmod(0o644)
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_reading_makes_nothing(store: DiskStore) -> None:
    assert not store.exists()
    assert not store.has(HELLO)
    assert store.read_ref(store.root / "a") is None
    assert list(store.list_objects()) == list(store.list_refs()) == []
    assert store.find_by_digest(Digest("sha256", "00" * 32)) is None
    store.remove_ref("a")
    assert list(store.root.iterdir()) == []


def test_the_first_write_makes_the_stores_folder(store: DiskStore) -> None:
    store.put_blob(b"hello\n")
    assert (store.meta / "format").read_bytes() == b"dm store 1\n"
    assert (store.meta / ".gitignore").read_bytes() == b"*\n"
    assert (store.meta / "objects" / HELLO.hex[:2] / HELLO.hex[2:]).read_bytes() == b"hello\n"
    assert store.exists()


def test_a_store_that_was_half_made_is_finished(store: DiskStore) -> None:
    store.meta.mkdir()
    (store.meta / "objects").mkdir()
    assert not store.exists()
    store.put_blob(b"hello\n")
    assert DiskStore(store.root).has(HELLO)


@pytest.mark.parametrize("write", [True, False])
def test_a_newer_format_is_refused(store: DiskStore, write: bool) -> None:
    store.meta.mkdir()
    (store.meta / "format").write_bytes(b"dm store 2\n")
    with pytest.raises(Malformed) as caught:
        store.put_blob(b"x") if write else store.has(HELLO)
    assert caught.value.message == f"{store.meta / 'format'}: the store has format 2, this dm knows formats up to 1"
    assert caught.value.hint == "use a newer dm for this store"
    assert sorted(path.name for path in store.meta.iterdir()) == ["format"]


@pytest.mark.parametrize("text", [b"", b"dm store\n", b"dm store one\n", b"something else\n", b"\xff\xfe"])
def test_a_format_that_is_none_is_refused(store: DiskStore, text: bytes) -> None:
    store.meta.mkdir()
    (store.meta / "format").write_bytes(text)
    with pytest.raises(Malformed) as caught:
        store.has(HELLO)
    assert caught.value.message == f"{store.meta / 'format'}: it does not say 'dm store 1'"
    assert caught.value.hint == "this is no store of dm's, or a damaged one; look at what lies there"


# Which copies are its own


def test_the_name_of_a_ref_is_the_copys_path_below_the_root(store: DiskStore, tmp_path: Path) -> None:
    assert store.ref_name(store.root / "datasets/a b.nc") == "datasets/a b.nc"
    assert store.ref_name(store.root / "x/../datasets/a") == "datasets/a"
    (tmp_path / "other").symlink_to(store.root)
    assert store.ref_name(tmp_path / "other/datasets/a") == "datasets/a"


def test_a_copy_that_is_a_link_is_not_followed(store: DiskStore, tmp_path: Path) -> None:
    (store.root / "a").symlink_to(tmp_path)
    assert store.ref_name(store.root / "a") == "a"


@pytest.mark.parametrize("place", ["..", "../elsewhere", ".", "a/../.."])
def test_a_place_outside_the_root_is_refused(store: DiskStore, place: str) -> None:
    with pytest.raises(Refused) as caught:
        store.ref_name(store.root / place)
    assert caught.value.message == f"'{store.root / place}' is not below the store root '{store.root}'"
    assert caught.value.hint == "name a path below it, or another --root"


@pytest.mark.parametrize("place", [".dm/format", "a/.DM/b", "a.lock", "a.complete/b", "a.tmp"])
def test_the_stores_own_files_are_no_places_for_copies(store: DiskStore, place: str) -> None:
    with pytest.raises(Refused) as caught:
        store.lock_copy(store.root / place)
    assert caught.value.message.startswith(f"unsafe place '{place}' in a store: ")
    assert list(store.root.iterdir()) == []


def test_of_nested_stores_the_innermost_owns_a_copy(store: DiskStore) -> None:
    inner = DiskStore(store.root / "sub")
    store.write_ref("sub/b", Ref(HELLO, 6, 1))
    inner.put_blob(b"x")
    fresh = DiskStore(store.root)
    with pytest.raises(Refused) as caught:
        fresh.ref_name(store.root / "sub/deeper/a")
    assert caught.value.message == f"'{inner.root}' is a store of its own inside '{store.root}'"
    assert caught.value.hint == f"use --root {inner.root}"
    assert inner.ref_name(store.root / "sub/deeper/a") == "deeper/a"
    assert find_store_root(store.root / "sub/deeper/a") == inner.root
    assert find_store_root(store.root / "beside") == store.root
    assert find_store_root(store.root.parent / "x", above=store.root.parent) is None


# Refs


def test_a_ref_lies_at_the_copys_path(store: DiskStore) -> None:
    store.write_ref(store.root / "datasets/a.nc", Ref(HELLO, 6, 1, "2026-01-31T12:00:00Z", "ab" * 32))
    line = f"{HELLO} 6 1 2026-01-31T12:00:00Z {'ab' * 32}\n"
    assert (store.meta / "refs/datasets/a.nc").read_text() == line
    assert store.read_ref(store.root / "datasets/a.nc") == store.read_ref("datasets/a.nc")


def test_a_ref_that_cannot_be_read_is_named_and_an_empty_one_is_unknown(store: DiskStore) -> None:
    store.write_ref("a", Ref(HELLO, 6, 1))
    (store.meta / "refs/a").write_bytes(b"nonsense\n")
    with pytest.raises(Malformed) as caught:
        store.read_ref("a")
    assert caught.value.message.startswith(f"{store.meta / 'refs/a'}: 'nonsense\\n' is not a ref")
    (store.meta / "refs/a").write_bytes(b"")
    assert store.read_ref("a") is None
    assert list(store.list_refs()) == []


def test_names_that_are_not_utf8_are_kept(store: DiskStore) -> None:
    copy = store.root / os.fsdecode(b"caf\xe9.nc")
    store.write_ref(copy, Ref(HELLO, 6, 1))
    assert [os.fsencode(name) for name, _ in store.list_refs()] == [b"caf\xe9.nc"]
    assert store.read_ref(copy) == Ref(HELLO, 6, 1)


# Objects are verified before use


@pytest.mark.parametrize("cached", [True, False])
def test_a_damaged_object_is_not_handed_out(tmp_path: Path, cached: bool) -> None:
    cache = StatCache(tmp_path / "cache.db") if cached else None
    store = DiskStore(tmp_path / "root", stat_cache=cache)
    store.put_blob(b"hello\n")
    path = store.object_path(HELLO)
    damage(path, b"jello\n")
    with pytest.raises(ContentMismatch) as caught:
        store.open_blob(HELLO)
    assert caught.value.message == f"damaged object '{path}': its bytes are not those of {HELLO.short}"
    assert caught.value.hint == "fetch or publish what it belongs to again: a sound one then takes its place"
    damage(path, b"longer than before\n")
    with pytest.raises(ContentMismatch):
        store.open_blob(HELLO)


def test_a_damaged_tree_is_not_handed_out(store: DiskStore) -> None:
    digest = store.put_tree([])
    damage(store.object_path(digest), b"x")
    with pytest.raises(ContentMismatch):
        store.read_tree(digest)


def test_a_fifo_for_a_ref_or_a_tree_is_not_waited_for(store: DiskStore) -> None:
    digest = store.put_tree([TreeEntry(b"empty", FOLDER_MODE, store.put_tree([]).raw, 0)])
    store.write_ref("a", Ref(HELLO, 6, 1))
    for path in (store.object_path(digest), store.root / ".dm" / "refs" / "a"):
        path.unlink()
        os.mkfifo(path)
    with pytest.raises(ContentMismatch):
        store.read_tree(digest)
    assert store.read_ref("a") is None


def test_an_object_that_the_cache_vouches_for_is_not_read(tmp_path: Path) -> None:
    cache = StatCache(tmp_path / "cache.db")
    store = DiskStore(tmp_path / "root", stat_cache=cache)
    store.put_blob(b"hello\n")
    path = store.object_path(HELLO)
    os.utime(path, (1, 1))
    store.open_blob(HELLO).close()
    inode = path.stat().st_ino
    # Same inode, size, mtime; a second link hides the ctime: all that a guess can see.
    os.link(path, tmp_path / "second")
    damage(path, b"jello\n")
    os.utime(path, (1, 1))
    assert path.stat().st_ino == inode
    with store.open_blob(HELLO) as file:
        assert file.read() == b"jello\n"
    cache.close()
    (tmp_path / "cache.db").unlink()
    with pytest.raises(ContentMismatch):
        DiskStore(tmp_path / "root", stat_cache=StatCache(tmp_path / "cache.db")).open_blob(HELLO)


def test_objects_are_read_only(store: DiskStore) -> None:
    umask = os.umask(0o027)
    try:
        store.put_blob(b"hello\n")
    finally:
        os.umask(umask)
    assert stat.S_IMODE(store.object_path(HELLO).stat().st_mode) == 0o440


# Adoption


def make_unmarked(store: DiskStore) -> Path:
    copy = store.root / "datasets/a.nc"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"hello\n")
    return copy


def test_an_adopted_file_gets_its_marker_and_ref_and_is_left_as_it_is(store: DiskStore) -> None:
    copy = make_unmarked(store)
    before = copy.stat()
    assert store.state_of(copy) == "unmarked"
    ref = store.adopt(copy, HELLO, "ab" * 32)
    assert ref == store.read_ref(copy)
    assert ref._replace(verified=None) == Ref(HELLO, 6, 1, None, "ab" * 32)
    assert store.state_of(copy) == "complete"
    after = copy.stat()
    assert (after.st_ino, after.st_mode, after.st_nlink) == (before.st_ino, before.st_mode, 1)
    assert not store.has(HELLO)


def test_an_adopted_folder_is_marked_inside(store: DiskStore) -> None:
    copy = store.root / "a.d"
    copy.mkdir()
    (copy / "x").write_bytes(b"hello\n")
    (copy / "link").symlink_to("x")
    digest = measure_copy(copy).digest
    ref = store.adopt(copy, digest)
    assert (ref.size_bytes, ref.files) == (7, 2)
    assert (copy / ".complete").read_bytes() == b""
    assert measure_copy(copy).digest == digest


def test_a_folder_is_not_adopted_as_a_file(store: DiskStore) -> None:
    copy = make_unmarked(store)
    tree = Digest("blake3-tree", "00" * 32)
    with pytest.raises(Refused) as caught:
        store.adopt(copy, tree)
    assert caught.value.message == f"cannot adopt the file '{copy}' as {tree.short}"
    with pytest.raises(Refused) as caught:
        store.adopt(copy.parent, HELLO)
    assert caught.value.message == f"cannot adopt the folder '{copy.parent}' as {HELLO.short}"


def test_where_reflinks_cost_nothing_an_adopted_copy_gets_objects(image_file_system: MakeImage) -> None:
    store = DiskStore(image_file_system("btrfs") / "root")
    copy = make_unmarked(store)
    store.adopt(copy, HELLO)
    assert store.has(HELLO)
    assert copy.stat().st_nlink == 1


def test_the_state_of_a_place_is_told_by_its_marker(store: DiskStore) -> None:
    place = store.root / "a"
    assert store.state_of(place) == "absent"
    place.symlink_to("nowhere")
    assert store.state_of(place) == "unmarked"
    place.unlink()
    place.mkdir()
    assert store.state_of(place) == "unmarked"
    Path(f"{place}.complete").touch()
    assert store.state_of(place) == "unmarked"
    (place / ".complete").write_bytes(b"data, no marker")
    assert store.state_of(place) == "unmarked"
    (place / ".complete").write_bytes(b"")
    assert store.state_of(place) == "complete"
    assert store.state_of(place / "x/y") == "absent"


# Quarantine


def test_what_is_put_aside_is_kept_with_its_marker_and_a_note(store: DiskStore) -> None:
    copy = store.root / "datasets/a.nc"
    staged = store.partial_folder("x") / "data"
    staged.write_bytes(b"hello\n")
    store.publish([Publication(staged, copy)])
    kept = store.quarantine(copy, "it was not what the manifest says")
    assert kept.read_bytes() == b"hello\n"
    assert kept.name == "a.nc"
    assert kept.parent.parent == store.meta / "quarantine"
    assert (kept.parent / "a.nc.complete").exists()
    note = (kept.parent / "note.tmp").read_text().splitlines()
    assert (note[0], note[2]) == (str(copy), "it was not what the manifest says")
    assert list((store.root / "datasets").iterdir()) == []


def test_two_things_of_one_name_are_both_kept(store: DiskStore) -> None:
    kept = []
    for number in range(2):
        (store.root / "a").mkdir()
        (store.root / "a/data").write_bytes(b"%d" % number)
        kept.append(store.quarantine(store.root / "a", "again"))
    assert [(path / "data").read_bytes() for path in kept] == [b"0", b"1"]


def test_many_things_are_put_aside_in_a_few_looks_each(store: DiskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    lexists = os.path.lexists
    monkeypatch.setattr(os.path, "lexists", lambda path: looks.append(path) or lexists(path))
    for number in range(100):
        store.root.joinpath("bad").write_bytes(b"%d" % number)
        kept = store.quarantine(store.root / "bad", "for a test")
        assert b"%d" % number == kept.read_bytes()
    assert 100 == len(list((store.meta / "quarantine").iterdir()))
    assert len(looks) < 100 * 20


def test_a_dangling_link_is_put_aside_as_it_is(store: DiskStore) -> None:
    (store.root / "a").symlink_to("nowhere")
    assert os.readlink(store.quarantine(store.root / "a", "why")) == "nowhere"


def test_data_beside_a_file_that_is_no_marker_stays(store: DiskStore) -> None:
    (store.root / "a").write_bytes(b"x")
    (store.root / "a.complete").write_bytes(b"not empty")
    store.quarantine(store.root / "a", "why")
    assert (store.root / "a.complete").read_bytes() == b"not empty"


def test_nothing_cannot_be_put_aside(store: DiskStore) -> None:
    with pytest.raises(NotFound) as caught:
        store.quarantine(store.root / "a", "why")
    assert caught.value.message == f"nothing lies at '{store.root / 'a'}'"
    assert list(store.root.iterdir()) == []


@pytest.mark.needs_root
def test_what_is_replaced_by_an_object_is_there_at_every_moment(
    small_tmpfs: MakeTmpfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between any two renames a kill would find the old bytes, or the new ones."""
    store = DiskStore(small_tmpfs(1 << 20), options=StoreOptions(link=("hardlink",)))
    store.put_blob(b"hello\n")
    copy = store.root / "a"
    copy.write_bytes(b"bad")
    rename, seen = os.rename, []

    def look(source: Path | str, target: Path | str) -> None:
        rename(source, target)
        seen.append(copy.read_bytes())

    monkeypatch.setattr(os, "rename", look)
    kept = store.replace(HELLO, copy, "it was bad")
    assert {b"bad"} == set(seen)
    assert kept is not None
    assert (b"bad", b"hello\n") == (kept.read_bytes(), copy.read_bytes())
    assert [] == [path for path in (store.meta / "partial").iterdir() if any(path.iterdir())]


# Locks and staging


def test_a_copy_is_locked_for_the_other_tools(store: DiskStore) -> None:
    copy = store.root / "datasets/a.nc"
    with store.lock_copy(copy):
        assert Path(f"{copy}.lock").read_text() == "17 here"
        name = blake3_of(b"datasets/a.nc").hex()
        assert (store.meta / "locks" / name).exists()
    assert not Path(f"{copy}.lock").exists()


def test_the_partial_folder_of_an_identity_is_always_the_same(store: DiskStore) -> None:
    folder = store.partial_folder("https://example.com/a")
    assert folder == store.meta / "partial" / blake3_of(b"https://example.com/a").hex()
    assert folder.is_dir()
    assert store.partial_folder("https://example.com/a") == folder
    assert store.partial_folder("https://example.com/b") != folder

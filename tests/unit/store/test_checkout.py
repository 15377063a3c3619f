"""Checkout: from objects back to files."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from dm.errors import ContentMismatch, MachineFailed, NotFound, Refused
from dm.plumbing.hashing import blake3_of
from dm.plumbing.store.disk import DiskStore, StoreOptions
from dm.plumbing.store.measure import measure_copy
from dm.plumbing.store.objects import TreeEntry
from dm.plumbing.store.publication import Publication, Published
from dm.plumbing.store.statcache import StatCache
from dm.values import Digest
from tests.fixtures.machine import MakeTmpfs
from tests.fixtures.users import let_others_in, run_as_other_user

UMASK = os.umask(0)
os.umask(UMASK)
HELLO = Digest.of_blob(blake3_of(b"hello\n"))


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path / "root", options=StoreOptions(link=("hardlink",)))


def make_folder(path: Path) -> Path:
    (path / "sub/deeper").mkdir(parents=True)
    (path / "empty").mkdir()
    (path / "hello.txt").write_bytes(b"hello\n")
    (path / "sub/deeper/data").write_bytes(b"data")
    (path / "run").write_bytes(b"#!/bin/sh\n")
    (path / "run").chmod(0o755)
    (path / "link").symlink_to("../outside")
    return path


def test_a_blob_is_checked_out_as_a_link_of_its_object(store: DiskStore, tmp_path: Path) -> None:
    store.put_blob(b"hello\n")
    assert store.checkout(HELLO, tmp_path / "new/hello.txt") == "hardlink"
    assert (tmp_path / "new/hello.txt").samefile(store.object_path(HELLO))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["hello.txt"]


def test_a_tree_is_checked_out_as_it_was_taken_in(store: DiskStore, tmp_path: Path) -> None:
    digest = store.ingest(make_folder(tmp_path / "own")).digest
    assert store.checkout(digest, tmp_path / "new") == "hardlink"
    assert measure_copy(tmp_path / "new").digest == digest
    assert (tmp_path / "new/empty").is_dir()
    assert os.readlink(tmp_path / "new/link") == "../outside"
    assert stat.S_IMODE((tmp_path / "new/run").stat().st_mode) == 0o555 & ~UMASK
    assert (tmp_path / "new/run").stat().st_nlink == 1
    assert stat.S_IMODE((tmp_path / "new/hello.txt").stat().st_mode) == 0o444 & ~UMASK
    assert stat.S_IMODE((tmp_path / "new/sub").stat().st_mode) & 0o700 == 0o700


def test_an_empty_tree_is_an_empty_folder(store: DiskStore, tmp_path: Path) -> None:
    store.checkout(store.put_tree([]), tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_tree_of_one_file_is_a_folder(store: DiskStore, tmp_path: Path) -> None:
    store.put_blob(b"hello\n")
    digest = store.put_tree([TreeEntry(b"a", "100644", HELLO.raw, 6)])
    store.checkout(digest, tmp_path / "new")
    assert (tmp_path / "new/a").read_bytes() == b"hello\n"


@pytest.mark.parametrize("cached", [True, False])
def test_nothing_is_made_of_damaged_objects(tmp_path: Path, cached: bool) -> None:
    cache = StatCache(tmp_path / "cache.db") if cached else None
    store = DiskStore(tmp_path / "root", stat_cache=cache)
    digest = store.ingest(make_folder(tmp_path / "own")).digest
    if cached:
        store.checkout(digest, tmp_path / "before")
    path = store.object_path(HELLO)
    path.chmod(0o644)
    path.write_bytes(b"jello\n")
    with pytest.raises(ContentMismatch) as caught:
        store.checkout(digest, tmp_path / "new")
    assert caught.value.message == f"damaged object '{path}': its bytes are not those of {HELLO.short}"
    assert not (tmp_path / "new").exists()


def test_the_second_checkout_of_a_tree_does_not_read_what_the_cache_vouches_for(tmp_path: Path) -> None:
    cache = StatCache(tmp_path / "cache.db")
    store = DiskStore(tmp_path / "root", options=StoreOptions(link=("hardlink",)), stat_cache=cache)
    digest = store.ingest(make_folder(tmp_path / "own")).digest
    for path in (store.meta / "objects").rglob("*/*"):
        os.utime(path, (1, 1))
    store.checkout(digest, tmp_path / "first")
    path = store.object_path(HELLO)
    path.chmod(0o644)
    path.write_bytes(b"jello\n")
    os.utime(path, (1, 1))
    store.checkout(digest, tmp_path / "second")
    assert (tmp_path / "second/hello.txt").read_bytes() == b"jello\n"


def test_an_object_that_is_missing_is_named_and_nothing_is_made(store: DiskStore, tmp_path: Path) -> None:
    digest = store.put_tree([TreeEntry(b"a", "100644", HELLO.raw, 6)])
    with pytest.raises(NotFound) as caught:
        store.checkout(digest, tmp_path / "new")
    assert caught.value.message == f"no blob {HELLO} in '{store.root}'"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("own", [True, False])
def test_what_lies_there_is_never_overwritten(store: DiskStore, tmp_path: Path, own: bool) -> None:
    store.put_blob(b"hello\n")
    place = (store.root if own else tmp_path) / "there"
    for make in (lambda: place.write_bytes(b"mine"), place.mkdir, lambda: place.symlink_to("nowhere")):
        make()
        with pytest.raises(Refused) as caught:
            store.checkout(HELLO, place)
        assert caught.value.message == f"cannot check out to '{place}': something lies there"
        assert caught.value.hint == "name another place, or move it away"
        place.rmdir() if place.is_dir() else place.unlink()
    assert [path.name for path in place.parent.iterdir() if path.name.startswith(".dm-")] == []


@pytest.mark.parametrize("name", [b".complete", b".DM"])
def test_a_tree_that_holds_a_stores_own_name_at_its_top_is_not_checked_out(
    store: DiskStore, tmp_path: Path, name: bytes
) -> None:
    from dm.plumbing.hashing import tree_id_of
    from dm.plumbing.store.objects import encode_tree

    store.put_blob(b"hello\n")
    data = encode_tree([TreeEntry(name, "100644", HELLO.raw, 6)])
    digest = Digest.of_tree(tree_id_of(data))
    path = store.object_path(digest)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    with pytest.raises(Refused) as caught:
        store.checkout(digest, tmp_path / "new")
    message = f"cannot check out {digest.short}: it holds '{name.decode()}', which is a store's own"
    assert caught.value.message == message
    assert caught.value.hint == "dm cat-object shows its files one by one"
    assert not (tmp_path / "new").exists()


def test_a_mode_that_was_asked_for_and_does_not_work_is_an_error(
    store: DiskStore, small_tmpfs: MakeTmpfs
) -> None:
    store.put_blob(b"hello\n")
    elsewhere = small_tmpfs(1 << 20)
    with pytest.raises(MachineFailed) as caught:
        store.checkout(HELLO, elsewhere / "a", modes=("hardlink",))
    assert caught.value.code == "link-failed"
    assert list(elsewhere.iterdir()) == []


def test_without_a_wish_what_cannot_be_linked_is_copied(store: DiskStore, small_tmpfs: MakeTmpfs) -> None:
    digest = store.ingest(make_folder(small_tmpfs(1 << 20) / "own")).digest
    elsewhere = small_tmpfs(1 << 20)
    assert store.checkout(digest, elsewhere / "a") == "copy"
    assert measure_copy(elsewhere / "a").digest == digest


def test_an_object_with_as_many_links_as_it_can_have_is_copied_and_the_others_are_linked(
    small_tmpfs: MakeTmpfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = small_tmpfs(4 << 20)  # where there are no reflinks
    store = DiskStore(place / "root", options=StoreOptions(link=("reflink", "hardlink")))
    names = ("a", "b", "c", "d")
    (place / "own").mkdir()
    for name in names:
        (place / "own" / name).write_text(name)
    digest = store.ingest(place / "own").digest
    objects = {name: store.object_path(Digest.of_blob(blake3_of(name.encode()))) for name in names}
    real = os.link

    def link(source: str, target: str, **options: bool) -> None:
        if os.fsdecode(source) == os.fspath(objects["b"]):
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        real(source, target, **options)

    monkeypatch.setattr(os, "link", link)
    assert store.checkout(digest, place / "new") == "copy"
    assert measure_copy(place / "new").digest == digest
    linked = [name for name in names if (place / "new" / name).samefile(objects[name])]
    assert linked == ["a", "c", "d"]


def test_an_object_becomes_a_working_copy_with_ref_and_marker(store: DiskStore, tmp_path: Path) -> None:
    digest = store.ingest(make_folder(tmp_path / "own")).digest
    copy = store.root / "datasets/a.d"
    assert store.publish_object(digest, copy, "ab" * 32) == Published(copy, digest, 30, 4, "hardlink")
    assert store.state_of(copy) == "complete"
    ref = store.read_ref(copy)
    assert ref is not None
    assert (ref.digest, ref.size_bytes, ref.files, ref.source_id) == (digest, 30, 4, "ab" * 32)
    assert (copy / "hello.txt").samefile(store.object_path(HELLO))
    assert [path for path in (store.meta / "partial").rglob("*") if not path.is_dir()] == []


def test_a_working_copy_of_a_blob_is_marked_beside_it(store: DiskStore) -> None:
    store.put_blob(b"hello\n")
    copy = store.root / "datasets/hello.txt"
    store.publish_object(HELLO, copy)
    assert Path(f"{copy}.complete").read_bytes() == b""
    with pytest.raises(Refused) as caught:
        store.publish_object(HELLO, copy)
    assert caught.value.code == "occupied"


def test_a_store_that_cannot_be_written_to_is_checked_out_from(store: DiskStore, tmp_path: Path) -> None:
    import subprocess

    from dm.plumbing.fs.link import forget_impossible_modes
    from tests.fixtures.machine import needs_root

    needs_root()
    digest = store.ingest(make_folder(tmp_path / "own")).digest
    subprocess.run(["mount", "--bind", str(store.root), str(store.root)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(store.root)], check=True)
        reader = DiskStore(store.root, stat_cache=StatCache(tmp_path / "cache.db"))
        reader.checkout(digest, tmp_path / "new")
        assert reader.read_tree(digest)
        with pytest.raises(MachineFailed) as caught:
            reader.put_blob(b"new")
        assert caught.value.code == "read-only"
    finally:
        subprocess.run(["umount", str(store.root)], check=True)
        # Two mounts of one file system: no links between them, but within each.
        forget_impossible_modes()
    assert measure_copy(tmp_path / "new").digest == digest


@pytest.mark.parametrize("mode", [0o755, 0o644])
def test_what_is_linked_to_an_object_whose_mode_somebody_changed_is_read_only(
    store: DiskStore, tmp_path: Path, mode: int
) -> None:
    first = tmp_path / "root/datasets/hello.txt"
    store.put_blob(b"hello\n")
    store.publish_object(HELLO, first)
    digest = store.ingest(make_folder(tmp_path / "own")).digest
    checked_out, published = tmp_path / "new", tmp_path / "root/datasets/published"

    first.chmod(mode)  # the object's too: it is the same file
    store.checkout(digest, checked_out)
    first.chmod(mode)
    store.publish([Publication(make_folder(tmp_path / "root/staged"), published)])

    assert [digest, digest] == [measure_copy(copy).digest for copy in (checked_out, published)]
    names = [store.object_path(HELLO), first, checked_out / "hello.txt", published / "hello.txt"]
    assert {0o444 & ~UMASK} == {stat.S_IMODE(path.stat().st_mode) for path in names}
    assert all(path.samefile(first) for path in names)


@pytest.mark.other_users
def test_a_file_is_no_link_to_an_object_whose_mode_only_another_user_may_mend(
    store: DiskStore, tmp_path: Path
) -> None:
    store.put_blob(b"hello\n")
    store.object_path(HELLO).chmod(0o777)
    let_others_in(tmp_path)
    tmp_path.chmod(0o777)
    modules = "sys, stat, pathlib, mmap, dm.plumbing.store.disk, dm.plumbing.store.delivery, dm.values"
    script = """
from dm.plumbing.store.disk import DiskStore, StoreOptions
store = DiskStore(pathlib.Path(sys.argv[1]), options=StoreOptions(link=("hardlink",)))
print(store.checkout(dm.values.Digest.parse(sys.argv[2]), pathlib.Path(sys.argv[3])))
"""

    copy = tmp_path / "copy"
    told, errors = run_as_other_user(script, str(store.root), str(HELLO), str(copy), modules=modules)

    assert "copy\n" == told, errors
    assert 0o444 & ~UMASK == stat.S_IMODE(copy.stat().st_mode)
    assert 0o777 == stat.S_IMODE(store.object_path(HELLO).stat().st_mode)


@pytest.mark.other_users
def test_objects_that_another_user_stored_are_not_pruned_while_they_are_read(
    store: DiskStore, tmp_path: Path
) -> None:
    store.put_blob(b"hello\n")
    let_others_in(tmp_path)
    modules = "sys, fcntl, pathlib, dm.plumbing.store.layout, dm.plumbing.store.workshop, dm.progress"
    script = """
layout = dm.plumbing.store.layout.Layout(pathlib.Path(sys.argv[1]))
workshop = dm.plumbing.store.workshop.Workshop(layout, link=("copy",), progress=dm.progress.SILENT)
with workshop.read(), open(layout.format) as another:
    try:
        fcntl.flock(another, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("held")
"""
    assert ("held\n", "") == run_as_other_user(script, str(store.root), modules=modules)

"""Publishing: objects, ref, copy, marker; what lies there stays; the user's own files stay as they are."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from dm.errors import MachineFailed, Refused
from dm.plumbing.fs.link import LinkMode
from dm.plumbing.hashing import blake3_of
from dm.plumbing.store.disk import DiskStore, StoreOptions
from dm.plumbing.store.measure import measure_copy
from dm.plumbing.store.publication import Publication, Published
from dm.plumbing.store.refs import Ref
from dm.plumbing.store.statcache import StatCache
from dm.values import Digest
from tests.fixtures.machine import MakeImage, MakeTmpfs

SOURCE = "ab" * 32
UMASK = os.umask(0)
os.umask(UMASK)


class Notes:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def start(self, label: str, *, total: int | None = None, unit: str = "bytes") -> object:
        from dm.progress import SilentTask

        return SilentTask()

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def make_store(root: Path, *, link: Sequence[LinkMode] = ("hardlink",), progress: Notes | None = None) -> DiskStore:
    options = StoreOptions(link=tuple(link))
    return DiskStore(root, options=options, **({} if progress is None else {"progress": progress}))  # type: ignore[arg-type]


def stage_file(store: DiskStore, data: bytes, name: str = "data") -> Path:
    path = store.partial_folder("a file") / name
    path.write_bytes(data)
    return path


def stage_folder(store: DiskStore, name: str = "tree") -> Path:
    """A folder with a file, an executable, a link, an empty folder and a file further down."""
    top = store.partial_folder("a folder") / name
    (top / "sub").mkdir(parents=True)
    (top / "empty").mkdir()
    (top / "hello.txt").write_bytes(b"hello\n")
    (top / "sub" / "data").write_bytes(b"data")
    (top / "run").write_bytes(b"#!/bin/sh\n")
    (top / "run").chmod(0o755)
    (top / "link").symlink_to("hello.txt")
    return top


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def object_of(store: DiskStore, data: bytes) -> Path:
    return store.object_path(Digest.of_blob(blake3_of(data)))


def leftovers(store: DiskStore) -> list[str]:
    """All that is half-done: files below .dm/partial, temporary names anywhere."""
    below = [str(path) for path in (store.meta / "partial").rglob("*") if not path.is_dir()]
    return below + [str(path) for path in store.root.rglob("*") if path.name.startswith(".dm-")]


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    return make_store(tmp_path / "root")


def test_a_published_file_has_its_object_ref_copy_and_marker(store: DiskStore) -> None:
    copy = store.root / "datasets/example.com/hello.txt"
    staged = stage_file(store, b"hello\n")
    [published] = store.publish([Publication(staged, copy, SOURCE)])
    digest = Digest.of_blob(blake3_of(b"hello\n"))
    assert published == Published(copy, digest, 6, 1, "hardlink")
    assert copy.read_bytes() == object_of(store, b"hello\n").read_bytes() == b"hello\n"
    assert copy.samefile(object_of(store, b"hello\n"))
    assert (store.root / "datasets/example.com/hello.txt.complete").read_bytes() == b""
    assert store.state_of(copy) == "complete"
    ref = store.read_ref(copy)
    assert ref is not None
    assert ref._replace(verified=None) == Ref(digest, 6, 1, None, SOURCE)
    assert ref.verified is not None and ref.verified.endswith("Z")
    assert not staged.exists()
    assert leftovers(store) == []


def test_a_published_folder_is_its_tree_and_the_marker_lies_inside(store: DiskStore) -> None:
    copy = store.root / "datasets/a.d"
    expected = measure_copy(stage_folder(store)).digest
    [published] = store.publish([Publication(store.partial_folder("a folder") / "tree", copy, SOURCE)])
    assert published == Published(copy, expected, 29, 4, "hardlink")
    assert sorted(path.name for path in copy.iterdir()) == [".complete", "empty", "hello.txt", "link", "run", "sub"]
    assert (copy / ".complete").read_bytes() == b""
    assert measure_copy(copy).digest == expected
    assert store.state_of(copy) == "complete"
    assert [entry.name for entry in store.read_tree(expected)] == [b"empty", b"hello.txt", b"link", b"run", b"sub"]
    assert leftovers(store) == []


def test_files_of_a_folder_are_read_only_links_of_their_objects_and_folders_can_be_written(store: DiskStore) -> None:
    top = stage_folder(store)
    (top / "sub").chmod(0o555)
    store.publish([Publication(top, store.root / "a.d")])
    copy = store.root / "a.d"
    assert mode_of(copy / "hello.txt") == mode_of(object_of(store, b"hello\n")) == 0o444 & ~UMASK
    assert (copy / "hello.txt").samefile(object_of(store, b"hello\n"))
    assert mode_of(copy / "sub") & 0o700 == 0o700


def test_an_executable_is_never_a_hard_link_of_its_object(store: DiskStore) -> None:
    store.publish([Publication(stage_folder(store), store.root / "a.d")])
    copy, source = store.root / "a.d/run", object_of(store, b"#!/bin/sh\n")
    assert not copy.samefile(source)
    assert mode_of(copy) == 0o555 & ~UMASK
    assert mode_of(source) == 0o444 & ~UMASK


def test_a_link_is_a_blob_of_its_target(store: DiskStore) -> None:
    store.publish([Publication(stage_folder(store), store.root / "a.d")])
    assert os.readlink(store.root / "a.d/link") == "hello.txt"
    assert object_of(store, b"hello.txt").read_bytes() == b"hello.txt"


def test_equal_files_share_one_object(store: DiskStore) -> None:
    top = store.partial_folder("a folder") / "tree"
    top.mkdir()
    for name in ("a", "b", "c"):
        (top / name).write_bytes(b"the same")
    store.publish([Publication(top, store.root / "a.d"), Publication(stage_file(store, b"the same"), store.root / "f")])
    assert object_of(store, b"the same").stat().st_nlink == 5
    assert (store.root / "a.d/a").samefile(store.root / "f")


def test_a_batch_publishes_all_and_reports_in_order(store: DiskStore) -> None:
    folder = store.partial_folder("many")
    publications = []
    for number in range(30):
        (folder / f"f{number}").write_bytes(b"content %d" % number)
        publications.append(Publication(folder / f"f{number}", store.root / f"datasets/f{number}.nc"))
    published = store.publish(publications)
    assert [each.copy.name for each in published] == [f"f{number}.nc" for number in range(30)]
    assert {name for name, _ in store.list_refs()} == {f"datasets/f{number}.nc" for number in range(30)}
    assert all(store.state_of(each.copy) == "complete" for each in published)


def test_a_known_id_is_not_computed_again(store: DiskStore) -> None:
    # A wrong one shows that it was believed.
    [published] = store.publish([Publication(stage_file(store, b"x"), store.root / "f", blob_id=bytes(32))])
    assert published.digest == Digest("blake3", "00" * 32)


def test_a_measured_folder_is_measured_again_only_when_it_changed(store: DiskStore) -> None:
    top = stage_folder(store)
    measured = measure_copy(top)
    # Wrong ids show whether they were believed.
    wrong = measured._replace(ids=[bytes(32)] * len(measured.ids))
    (top / "sub/data").write_bytes(b"other")
    [published] = store.publish([Publication(top, store.root / "a.d", measured=wrong)])
    assert published.digest == measure_copy(store.root / "a.d").digest
    top = store.partial_folder("plain") / "tree"
    top.mkdir()
    (top / "a").write_bytes(b"a")
    measured = measure_copy(top)
    wrong = measured._replace(ids=[bytes(32)])
    [published] = store.publish([Publication(top, store.root / "b.d", measured=wrong)])
    assert published.digest != measured.digest


def test_other_digests_of_a_file_lead_to_its_id(store: DiskStore) -> None:
    sha256 = Digest("sha256", "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03")
    assert store.find_by_digest(sha256) is None
    store.publish([Publication(stage_file(store, b"hello\n"), store.root / "f", aliases=(sha256,))])
    blob = Digest.of_blob(blake3_of(b"hello\n"))
    assert store.find_by_digest(sha256) == store.find_by_digest(blob) == blob
    alias = store.meta / "aliases/sha256/58" / sha256.hex[2:]
    assert alias.read_bytes() == f"{blob}\n".encode()
    alias.write_bytes(b"nonsense")
    assert store.find_by_digest(sha256) is None
    alias.write_bytes(b"blake3:" + b"00" * 32)
    assert store.find_by_digest(sha256) is None


def test_an_equal_copy_that_lies_there_is_unchanged_and_gets_its_ref_and_marker(store: DiskStore) -> None:
    copy = store.root / "hello.txt"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"hello\n")
    inode = copy.stat().st_ino
    [published] = store.publish([Publication(stage_file(store, b"hello\n"), copy, SOURCE)])
    assert published == Published(copy, Digest.of_blob(blake3_of(b"hello\n")), 6, 1, None, unchanged=True)
    assert copy.stat().st_ino == inode
    assert mode_of(copy) == 0o666 & ~UMASK
    assert store.state_of(copy) == "complete"
    assert store.read_ref(copy) is not None
    assert leftovers(store) == []


def test_an_equal_folder_that_lies_there_is_unchanged(store: DiskStore) -> None:
    store.publish([Publication(stage_folder(store), store.root / "a.d")])
    [again] = store.publish([Publication(stage_folder(store), store.root / "a.d")])
    assert again.unchanged
    assert store.state_of(store.root / "a.d") == "complete"


@pytest.mark.parametrize("marked", [True, False])
def test_other_content_that_lies_there_is_refused_and_stays(store: DiskStore, marked: bool) -> None:
    copy = store.root / "hello.txt"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"the user's own")
    if marked:
        Path(f"{copy}.complete").touch()
    staged = stage_file(store, b"hello\n")
    with pytest.raises(Refused) as caught:
        store.publish([Publication(staged, copy)])
    assert caught.value.message == f"cannot publish to '{copy}': other content lies there"
    assert caught.value.hint == "look at it, then move it away; dm fetch --force keeps it in .dm/quarantine"
    assert copy.read_bytes() == b"the user's own"
    assert store.read_ref(copy) is None
    assert staged.exists()


def test_one_that_is_refused_does_not_stop_the_others(store: DiskStore) -> None:
    folder = store.partial_folder("two")
    (folder / "a").write_bytes(b"a")
    (folder / "b").write_bytes(b"b")
    (store.root / "a").write_bytes(b"the user's own")
    publications = [Publication(folder / name, store.root / name) for name in ("a", "b")]
    results = store.publish_each(publications)
    assert isinstance(results[0], Refused)
    assert isinstance(results[1], Published)
    assert store.state_of(store.root / "b") == "complete"


@pytest.mark.parametrize("old", ["file", "folder"])
@pytest.mark.parametrize("new", ["file", "folder"])
def test_other_content_gives_way_when_it_is_to_be_replaced(store: DiskStore, old: str, new: str) -> None:
    copy = store.root / "a"
    first = stage_file(store, b"old") if old == "file" else stage_folder(store)
    store.publish([Publication(first, copy)])
    second = stage_file(store, b"new") if new == "file" else stage_folder(store)
    if new == "folder":
        (second / "more").write_bytes(b"more")
    expected = measure_copy(second).digest
    [published] = store.publish([Publication(second, copy, replace=True)])
    assert published.digest == expected == measure_copy(copy).digest
    assert not published.unchanged
    assert store.state_of(copy) == "complete"
    assert (Path(f"{copy}.complete")).exists() == (new == "file")
    assert leftovers(store) == []


def test_a_file_of_the_users_is_copied_and_left_as_it_is(store: DiskStore, tmp_path: Path) -> None:
    own = tmp_path / "own.nc"
    own.write_bytes(b"mine")
    own.chmod(0o640)
    before = own.stat()
    store.publish([Publication(own, store.root / "f.nc", owned=False)])
    after = own.stat()
    assert (after.st_ino, after.st_mode, after.st_nlink, after.st_mtime_ns) == (
        before.st_ino, before.st_mode, 1, before.st_mtime_ns,
    )  # fmt: skip
    assert (store.root / "f.nc").samefile(object_of(store, b"mine"))


def test_a_folder_of_the_users_is_copied_and_left_as_it_is(store: DiskStore, tmp_path: Path) -> None:
    own = stage_folder(make_store(tmp_path / "other"))
    before = {path: path.lstat() for path in own.rglob("*")}
    [published] = store.publish([Publication(own, store.root / "a.d", owned=False)])
    after = {path: path.lstat() for path in own.rglob("*")}
    assert {path: (s.st_ino, s.st_mode, s.st_nlink) for path, s in after.items()} == {
        path: (s.st_ino, s.st_mode, s.st_nlink) for path, s in before.items()
    }
    assert published.digest == measure_copy(own).digest


def test_a_copy_that_stands_alone_has_no_digest_no_object_and_keeps_its_modes(store: DiskStore) -> None:
    top = stage_folder(store)
    [published] = store.publish([Publication(top, store.root / "a.d", SOURCE, stand_alone=True)])
    assert published == Published(store.root / "a.d", None, 29, 4, None)
    assert list(store.list_objects()) == []
    assert store.read_ref(store.root / "a.d") == Ref(None, 29, 4, None, SOURCE)
    assert mode_of(store.root / "a.d/run") == 0o755
    assert store.state_of(store.root / "a.d") == "complete"


def test_nothing_is_compared_for_a_copy_that_stands_alone(store: DiskStore) -> None:
    (store.root).mkdir()
    (store.root / "f").write_bytes(b"same")
    with pytest.raises(Refused):
        store.publish([Publication(stage_file(store, b"same"), store.root / "f", stand_alone=True)])


def test_where_no_link_mode_works_the_copy_stands_alone_and_the_ref_is_written(tmp_path: Path) -> None:
    notes = Notes()
    store = make_store(tmp_path / "root", link=(), progress=notes)
    for name in ("f", "g"):
        [published] = store.publish([Publication(stage_file(store, b"hello\n"), store.root / name)])
        assert published.mode is None
    assert list(store.list_objects()) == []
    ref = store.read_ref(store.root / "f")
    assert ref is not None and ref.digest == Digest.of_blob(blake3_of(b"hello\n"))
    assert notes.notes == [f"copies in '{store.root}' stand alone, without objects: none of  works there"]


def test_copies_are_made_only_when_asked_for(tmp_path: Path) -> None:
    store = make_store(tmp_path / "root", link=("copy",))
    [published] = store.publish([Publication(stage_file(store, b"hello\n"), store.root / "f")])
    assert published.mode == "copy"
    assert not (store.root / "f").samefile(object_of(store, b"hello\n"))
    assert mode_of(store.root / "f") == 0o444 & ~UMASK


def test_an_existing_object_with_wrong_bytes_is_set_aside_and_replaced(tmp_path: Path) -> None:
    notes = Notes()
    store = make_store(tmp_path / "root", progress=notes)
    store.publish([Publication(stage_file(store, b"hello\n"), store.root / "f")])
    damaged = object_of(store, b"hello\n")
    damaged.chmod(0o644)
    damaged.write_bytes(b"jello\n")
    [published] = store.publish([Publication(stage_file(store, b"hello\n"), store.root / "g")])
    assert object_of(store, b"hello\n").read_bytes() == (store.root / "g").read_bytes() == b"hello\n"
    assert published.mode == "hardlink"
    [kept] = [path for path in (store.meta / "quarantine").rglob("*") if path.name == damaged.name]
    assert kept.read_bytes() == b"jello\n"
    assert notes.warnings == [f"a damaged object was found and replaced; it is kept at '{kept}'"]


def test_a_damaged_tree_object_is_set_aside_and_replaced(store: DiskStore) -> None:
    [first] = store.publish([Publication(stage_folder(store), store.root / "a.d")])
    assert first.digest is not None
    path = store.object_path(first.digest)
    path.chmod(0o644)
    path.write_bytes(b"")
    store.publish([Publication(stage_folder(store), store.root / "b.d")])
    assert len(store.read_tree(first.digest)) == 5


def test_a_marker_in_the_source_is_dropped_when_empty_and_refused_when_not(store: DiskStore) -> None:
    top = stage_folder(store)
    expected = measure_copy(top).digest
    (top / ".complete").touch()
    [published] = store.publish([Publication(top, store.root / "a.d")])
    assert published.digest == expected
    top = stage_folder(store)
    (top / ".complete").write_bytes(b"data")
    with pytest.raises(Refused) as caught:
        store.publish([Publication(top, store.root / "b.d")])
    assert caught.value.message == f"cannot store '{top}': it holds a '.complete' that is not an empty file"
    assert caught.value.hint == "an empty '.complete' at the top of a folder marks it as complete; rename this one"
    assert not (store.root / "b.d").exists()


def test_a_marker_further_down_is_a_file_like_any_other(store: DiskStore) -> None:
    top = stage_folder(store)
    (top / "sub/.complete").touch()
    [published] = store.publish([Publication(top, store.root / "a.d")])
    assert published.files == 5
    assert (store.root / "a.d/sub/.complete").exists()


def test_data_where_the_marker_belongs_is_not_overwritten(store: DiskStore) -> None:
    store.root.mkdir()
    (store.root / "f.complete").write_bytes(b"the user's own")
    with pytest.raises(Refused) as caught:
        store.publish([Publication(stage_file(store, b"x"), store.root / "f")])
    copy = store.root / "f"
    assert caught.value.message == f"cannot mark '{copy}' as complete: '{copy}.complete' is not an empty file"
    assert caught.value.hint == "move it away"
    assert (store.root / "f.complete").read_bytes() == b"the user's own"


def test_a_marker_without_a_copy_does_not_vouch_for_the_next_one(store: DiskStore) -> None:
    store.root.mkdir()
    (store.root / "f.complete").touch()
    assert store.state_of(store.root / "f") == "absent"
    store.publish([Publication(stage_file(store, b"x"), store.root / "f")])
    assert store.state_of(store.root / "f") == "complete"


def test_fifos_and_links_are_not_published(store: DiskStore) -> None:
    folder = store.partial_folder("odd")
    (folder / "link").symlink_to("nowhere")
    with pytest.raises(Refused) as caught:
        store.publish([Publication(folder / "link", store.root / "f")])
    assert caught.value.message == f"cannot publish '{folder / 'link'}': it is neither a file nor a folder"
    (folder / "tree").mkdir()
    os.mkfifo(folder / "tree/pipe")
    with pytest.raises(Refused) as caught:
        store.publish([Publication(folder / "tree", store.root / "f")])
    assert "it is a fifo" in caught.value.message


def test_names_that_clash_are_refused_before_anything_is_seen(store: DiskStore) -> None:
    top = stage_folder(store)
    (top / "sub" / "é").write_bytes(b"1")
    (top / "sub" / "e\u0301").write_bytes(b"2")
    with pytest.raises(Refused) as caught:
        store.publish([Publication(top, store.root / "a.d")])
    assert "the names are equal in Unicode NFC" in caught.value.message
    assert not (store.root / "a.d").exists()
    assert list(store.list_objects()) == []


def test_a_folder_that_brings_a_store_of_its_own_is_refused(store: DiskStore) -> None:
    top = stage_folder(store)
    (top / "sub/.dm").mkdir()
    with pytest.raises(Refused) as caught:
        store.publish([Publication(top, store.root / "a.d")])
    assert caught.value.message == "cannot store 'sub/.dm': '.dm' is the store's own folder"


def test_the_old_file_stays_when_the_disk_is_full(small_tmpfs: MakeTmpfs) -> None:
    store = make_store(small_tmpfs(4 << 20, inodes=60) / "root")
    copy = store.root / "f"
    store.publish([Publication(stage_file(store, b"old"), copy)])
    staged = stage_file(store, b"new")
    taken = []
    with pytest.raises(OSError, match="No space"):
        for number in range(1000):
            taken.append(store.partial_folder("fill") / str(number))
            taken[-1].touch()
    with pytest.raises(MachineFailed) as caught:
        store.publish([Publication(staged, copy, replace=True)])
    assert caught.value.code == "disk-full"
    assert caught.value.exit_status == 8
    assert copy.read_bytes() == b"old"
    for path in taken[:-1]:
        path.unlink()
    store.publish([Publication(staged, copy, replace=True)])
    assert copy.read_bytes() == b"new"


def test_a_ref_of_a_copy_that_is_gone_makes_room(store: DiskStore) -> None:
    store.publish([Publication(stage_file(store, b"x"), store.root / "a")])
    (store.root / "a").unlink()
    (store.root / "a.complete").unlink()
    store.publish([Publication(stage_file(store, b"y"), store.root / "a/b")])
    assert [name for name, _ in store.list_refs()] == ["a/b"]
    (store.root / "a/b").unlink()
    (store.root / "a/b.complete").unlink()
    (store.root / "a").rmdir()
    store.publish([Publication(stage_file(store, b"x"), store.root / "a")])
    assert [name for name, _ in store.list_refs()] == ["a"]


def test_a_copy_inside_another_is_refused(store: DiskStore) -> None:
    store.publish([Publication(stage_folder(store), store.root / "a.d")])
    with pytest.raises(Refused) as caught:
        store.publish([Publication(stage_file(store, b"y"), store.root / "a.d/more")])
    assert caught.value.message == (
        f"cannot publish '{store.root / 'a.d/more'}': the copy '{store.root / 'a.d'}' is in the way"
    )
    assert caught.value.hint == "one copy cannot lie inside another; set a 'key' of its own for one of them"
    assert not (store.root / "a.d/more").exists()


def test_folders_of_a_shared_store_can_be_written_by_its_group(store: DiskStore) -> None:
    store.root.mkdir()
    store.root.chmod(0o2775)
    store.publish([Publication(stage_folder(store), store.root / "datasets/a.d")])
    for folder in ("datasets", "datasets/a.d", "datasets/a.d/sub", ".dm", ".dm/objects", ".dm/refs/datasets"):
        assert mode_of(store.root / folder) & 0o2070 == 0o2070, folder


def test_what_is_known_of_a_shared_store_is_its_groups_whatever_the_umask(store: DiskStore) -> None:
    store.root.mkdir()
    store.root.chmod(0o2775)
    before = os.umask(0o077)
    try:
        sha256 = Digest("sha256", "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03")
        store.publish([Publication(stage_file(store, b"hello\n"), store.root / "datasets/a", aliases=(sha256,))])
        store.write_ref(store.root / "datasets/b", Ref())
    finally:
        os.umask(before)
    known = [store.root / ".dm" / "format"]
    for folder in ("locks", "refs", "aliases"):
        known += [path for path in (store.root / ".dm" / folder).rglob("*") if path.is_file()]
    assert {"format", "a", "b", "work-0", sha256.hex[2:]} <= {path.name for path in known}
    assert {0o660} == {mode_of(path) & 0o777 for path in known}


def test_the_format_of_a_store_of_ones_own_has_the_mode_that_the_umask_says(store: DiskStore) -> None:
    before = os.umask(0o077)
    try:
        store.put_blob(b"hello\n")
    finally:
        os.umask(before)
    assert 0o600 == mode_of(store.root / ".dm" / "format") & 0o777


def test_what_was_published_need_not_be_read_again(tmp_path: Path) -> None:
    cache = StatCache(tmp_path / "cache.db")
    store = DiskStore(tmp_path / "root", options=StoreOptions(link=("hardlink",)), stat_cache=cache)
    top, file = stage_folder(store), stage_file(store, b"hello\n")
    for path in [*top.rglob("*"), file]:
        os.utime(path, (1, 1), follow_symlinks=False)
    store.publish([Publication(top, store.root / "a.d"), Publication(file, store.root / "f")])
    folder = measure_copy(store.root / "a.d", stat_cache=cache, quick=True)
    assert folder.read_bytes < 29
    single = measure_copy(store.root / "f", stat_cache=cache, quick=True)
    assert (single.read_bytes, single.digest) == (0, Digest.of_blob(blake3_of(b"hello\n")))


def test_on_a_file_system_without_modes_executables_are_those_the_source_names(
    image_file_system: MakeImage,
) -> None:
    store = make_store(image_file_system("vfat") / "root", link=("hardlink", "copy"))
    top = store.partial_folder("a folder") / "tree"
    top.mkdir()
    (top / "run").write_bytes(b"#!/bin/sh\n")
    (top / "data").write_bytes(b"data")
    [published] = store.publish([Publication(top, store.root / "a.d", executables=frozenset([b"run"]))])
    assert published.mode == "copy"
    assert published.digest is not None
    assert [entry.mode for entry in store.read_tree(published.digest)] == ["100644", "100755"]
    assert store.state_of(store.root / "a.d") == "complete"


@pytest.mark.parametrize("kind", ["btrfs", "xfs"])
def test_objects_and_copies_are_reflinks_where_the_file_system_has_them(
    image_file_system: MakeImage, kind: str
) -> None:
    store = make_store(image_file_system(kind) / "root", link=("reflink", "hardlink"))
    [published] = store.publish([Publication(stage_folder(store), store.root / "a.d")])
    assert published.mode == "reflink"
    copy, source = store.root / "a.d/hello.txt", object_of(store, b"hello\n")
    assert not copy.samefile(source)
    assert copy.read_bytes() == source.read_bytes() == b"hello\n"
    assert mode_of(copy) == mode_of(source) == 0o444 & ~UMASK
    assert mode_of(store.root / "a.d/run") == 0o555 & ~UMASK


def test_a_copys_place_may_be_a_file_system_of_its_own(store: DiskStore, tmp_path: Path) -> None:
    import subprocess

    from tests.fixtures.machine import needs_root

    needs_root()
    mount = store.root / "datasets"
    mount.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(mount)], check=True)
    try:
        for _ in range(2):
            [published] = store.publish([Publication(stage_folder(store), mount / "a.d", replace=True)])
            (store.root / "datasets/a.d/hello.txt").unlink()
        assert published.mode == "copy"
        assert store.state_of(mount / "a.d") == "complete"
        assert sorted(path.name for path in mount.iterdir()) == ["a.d"]
        assert published.digest is not None and store.has(published.digest)
        kept = store.quarantine(mount / "a.d", "why not")
        assert (kept / "sub/data").read_bytes() == b"data"
        assert list(mount.iterdir()) == []
    finally:
        subprocess.run(["umount", str(mount)], check=True)


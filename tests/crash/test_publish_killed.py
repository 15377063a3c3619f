"""Killed while publishing, at any moment: never a marked copy with other bytes, no litter after the next run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dm.plumbing.fs.publish import remove_tree
from dm.plumbing.store.disk import DiskStore, StoreOptions
from dm.plumbing.store.measure import measure_copy
from dm.plumbing.store.publication import Publication
from dm.values import Digest
from tests.fixtures.commands import kill_when, list_paths
from tests.fixtures.homes import CHECKOUT
from tests.fixtures.machine import MakeTmpfs, needs
from tests.fixtures.stores import write_content

_FILES = 120
_ROUNDS = 15

# Stages what it publishes, as the store's user would, then says that it begins.
_PROGRAM = """
import os, sys
from pathlib import Path
from dm.plumbing.fs.publish import remove_tree
from dm.plumbing.store.disk import DiskStore, StoreOptions
from dm.plumbing.store.publication import Publication

root, version, link = Path(sys.argv[1]), sys.argv[2].encode(), sys.argv[3]
store = DiskStore(root, options=StoreOptions(link=(link,), durable=False))
folder = store.partial_folder("everything")
remove_tree(folder)
tree = folder / "tree"
(tree / "sub").mkdir(parents=True)
for number in range(FILES):
    (tree / "sub" / f"f{number}").write_bytes(b"%d of version %b" % (number, version))
publications = [Publication(tree, root / "datasets/folder.d", replace=True)]
for number in range(FILES // 3):
    path = folder / f"single{number}"
    path.write_bytes(b"single %d of version %b" % (number, version))
    publications.append(Publication(path, root / f"datasets/single{number}", replace=True))
print("begin", flush=True)
store.publish(publications)
print("done", flush=True)
""".replace("FILES", str(_FILES))


def publish_and_kill(root: Path, version: str, link: str, chance: random.Random | None) -> bool:
    """Publish in a process of its own, with a ``chance`` killed at some moment of it: while files are staged, or when
    names appear. Whether it was killed; else it was done.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(root), version, link],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    assert process.stdout is not None
    before = count(root, "objects/*/*")
    assert process.stdout.readline() == "begin\n"
    if chance is None:
        assert ("done\n", None) == process.communicate()
        return False
    if chance.random() < 0.5:
        staged = chance.randrange(1, _FILES // 3)
        return kill_when(process, lambda: count(root, "partial/work-*/*") >= staged)
    placed = before + chance.randrange(1, _FILES)
    return kill_when(process, lambda: count(root, "objects/*/*") >= placed)


def count(root: Path, pattern: str) -> int:
    """How many paths of a store's own match."""
    return len(list_paths(root / ".dm", pattern))


def list_copies(root: Path) -> Iterator[Path]:
    for path in (root / "datasets").iterdir():
        if path.suffix not in (".complete", ".lock"):
            yield path


def check(root: Path) -> None:
    store = DiskStore(root)
    for digest, _ in store.list_objects():
        if digest.is_tree:
            store.read_tree(digest)
        else:
            store.open_blob(digest).close()
    for copy in list_copies(root):
        if store.state_of(copy) != "complete":
            continue
        ref = store.read_ref(copy)
        assert ref is not None and ref.digest is not None, f"{copy} is marked and has no ref"
        assert measure_copy(copy).digest == ref.digest, f"{copy} is marked and is not what its ref says"
        assert ref.digest.is_tree == copy.is_dir()
    # What is half-done lies in .dm/partial, under names that the next run clears.
    assert [path for path in root.rglob(".dm-*") if store.meta not in path.parents] == []


@pytest.mark.parametrize("link", ["hardlink", "copy"])
def test_a_kill_at_any_moment_leaves_whole_copies_or_none(tmp_path: Path, link: str) -> None:
    root = tmp_path / "root"
    assert not publish_and_kill(root, "0", link, None)
    chance = random.Random(link)
    killed = 0
    for number in range(1, _ROUNDS + 1):
        killed += publish_and_kill(root, str(number), link, chance)
        check(root)
    assert killed, "no run was killed"
    assert not publish_and_kill(root, "last", link, None)
    check(root)
    store = DiskStore(root)
    assert {store.state_of(copy) for copy in list_copies(root)} == {"complete"}
    assert (root / "datasets/single7").read_bytes() == b"single 7 of version last"
    assert (root / "datasets/folder.d/sub/f7").read_bytes() == b"7 of version last"
    assert [path.name for path in (store.meta / "partial").iterdir() if path.name.startswith("work-")] == []


def test_what_a_killed_run_left_is_used_and_never_changed_by_the_next(tmp_path: Path) -> None:
    # A staged file that survives a kill may be written to again: it must not be an object's second name.
    root = tmp_path / "root"
    store = DiskStore(root, options=StoreOptions(link=("hardlink",), durable=False))
    chance = random.Random(7)
    killed = 0
    for number in range(_ROUNDS):
        killed += publish_and_kill(root, str(number), "hardlink", chance)
        for path in store.partial_folder("everything").rglob("*"):
            assert path.is_dir() or path.stat().st_nlink == 1, path
    assert killed, "no run was killed"
    copy = root / "datasets/again"
    staged = store.partial_folder("again") / "data"
    staged.write_bytes(b"whole")
    [published] = store.publish([Publication(staged, copy)])
    assert isinstance(published.digest, Digest)
    check(root)


# Stopped before each change of names -----------------------------------------------------------------------------

_CHANGES = frozenset(("open", "os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "ctypes.dlsym"))


def die_at(moment: int, near: str, work: Callable[[], object]) -> bool:
    """Do some work in a process of its own that is killed right before its so manieth change, counted from the first
    that names ``near``; False: it was done.
    """
    process_id = os.fork()
    if process_id:
        _, status = os.waitpid(process_id, 0)
        assert status in (0, signal.SIGKILL), status
        return status == signal.SIGKILL
    done = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal done
        if event in _CHANGES and (done or near in repr(arguments)):
            done += 1
            if done == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    status = 1
    try:
        sys.addaudithook(count)
        work()
        status = 0
    finally:
        os._exit(status)


def read_all(path: Path) -> dict[str, bytes]:
    """The bytes of a file, or of the files of a folder, but for markers."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return {each.relative_to(path).as_posix(): each.read_bytes() for each in files if each.name != ".complete"}


@pytest.mark.needs_root
@pytest.mark.parametrize(
    ("old", "new", "keeps", "far"),
    [
        ("file", "file", True, False),
        ("folder", "folder", True, False),
        ("folder", "folder", False, False),
        ("folder", "folder", True, True),
        ("file", "folder", True, True),
    ],
)
def test_what_gives_way_to_a_new_copy_is_there_until_the_new_one_is(
    tmp_path: Path, small_tmpfs: MakeTmpfs, old: str, new: str, keeps: bool, far: bool
) -> None:
    contents = {
        "file": {".": b"a file"},
        "folder": {f"sub/{number}": b"%d" % number for number in range(3)},
        "bad file": {".": b"bad"},
        "bad folder": {"sub/0": b"bad", "more": b"more"},
    }
    root = tmp_path / "root"
    place = root / "datasets" / "mount"
    place.mkdir(parents=True)
    if far:
        subprocess.run([needs("mount"), "--bind", small_tmpfs(4 << 20), place], check=True, timeout=60)
    copy = place / "copy"

    def put(name: str) -> Path:
        staged = DiskStore(root).partial_folder("test") / "staged"
        remove_tree(staged)
        write_content(staged, contents[name].get(".") or contents[name])
        return staged

    def publish(name: str) -> None:
        [done] = DiskStore(root, options=StoreOptions(durable=False)).publish_each(
            [Publication(put(name), copy, aside="it had to go" if keeps else None, replace=not keeps)]
        )
        assert not isinstance(done, Exception), done

    try:
        publish(new)  # once its objects are there, every run makes the same changes
        moments = 0
        killed = True
        while killed:
            publish(f"bad {old}")
            moments += 1
            killed = die_at(moments, "mount/copy", lambda: publish(new))
            found = read_all(copy)
            assert found in (contents[new], contents[f"bad {old}"]), (moments, found)
            kept = [read_all(each) for each in (root / ".dm" / "quarantine").glob("*/copy")]
            assert not keeps or contents[f"bad {old}"] in [found, *kept], moments
            store = DiskStore(root)
            ref = store.read_ref(copy)
            assert store.state_of(copy) != "complete" or (ref and ref.digest == measure_copy(copy).digest), moments
        assert moments > 4
        assert (contents[new], "complete") == (read_all(copy), DiskStore(root).state_of(copy))
        assert [] == list(place.rglob(".dm-*"))
    finally:
        if far:
            subprocess.run(["umount", "--lazy", place], check=True, timeout=60)

"""Killed while publishing, at any moment: never a marked copy with other bytes, no litter after the next run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dm.plumbing.store.disk import DiskStore, StoreOptions
from dm.plumbing.store.measure import measure_copy
from dm.plumbing.store.publication import Publication
from dm.values import Digest
from tests.fixtures.homes import CHECKOUT

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


def publish_and_kill(root: Path, version: str, link: str, *, after_s: float | None) -> bool:
    """Publish in a process of its own, killed so long after it began; whether it was done all the same."""
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(root), version, link],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begin\n"
    if after_s is not None:
        time.sleep(after_s)
        process.send_signal(signal.SIGKILL)
    rest = process.stdout.read()
    process.stdout.close()
    process.wait()
    return rest == "done\n"


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
    assert publish_and_kill(root, "0", link, after_s=None)
    began = time.monotonic()
    assert publish_and_kill(root, "00", link, after_s=None)
    span_s = time.monotonic() - began
    chance = random.Random(link)
    done = 0
    for number in range(1, _ROUNDS + 1):
        done += publish_and_kill(root, str(number), link, after_s=chance.uniform(0, span_s / 2))
        check(root)
    assert done < _ROUNDS, "no run was killed"
    assert publish_and_kill(root, "last", link, after_s=None)
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
    for number in range(_ROUNDS):
        publish_and_kill(root, str(number), "hardlink", after_s=chance.uniform(0, 0.15))
        for path in store.partial_folder("everything").rglob("*"):
            assert path.is_dir() or path.stat().st_nlink == 1, path
    copy = root / "datasets/again"
    staged = store.partial_folder("again") / "data"
    staged.write_bytes(b"whole")
    [published] = store.publish([Publication(staged, copy)])
    assert isinstance(published.digest, Digest)
    check(root)

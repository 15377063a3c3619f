"""Objects are read within a time: what was not come to is never called missing or damaged; the next look goes on."""

from __future__ import annotations

import os
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from dm.environment import read_monotonic_s
from dm.plumbing.store.disk import DiskStore
from dm.plumbing.store.layout import Layout
from dm.plumbing.store.look_record import LookRecord, read_look, write_look
from dm.plumbing.store.object_look import ObjectLook
from dm.plumbing.store.publication import Publication
from dm.plumbing.store.statcache import StatCache
from dm.porcelain.verifying.objects import read_objects
from dm.porcelain.verifying.options import VerifyOptions
from dm.progress import SILENT
from tests.fixtures.stores import blob_id, make_small_store
from tests.fixtures.users import let_others_in, run_as_other_user


class Slow:
    """A progress that lets time pass until a deadline, once something was read."""

    def __init__(self, until_s: float) -> None:
        self._until_s = until_s

    def start(self, label: str, **options: Any) -> Any:
        task, until_s = SILENT.start(label, **options), self._until_s

        class SlowTask(type(task)):  # type: ignore[misc]
            def advance(self, amount: int) -> None:
                while read_monotonic_s() < until_s:
                    time.sleep(0.01)

        return SlowTask()

    def note(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...


class Interrupted:
    """A progress at which somebody presses Ctrl-C, once so many bytes were read."""

    def __init__(self, after_bytes: int) -> None:
        self.left = after_bytes

    def start(self, label: str, **options: Any) -> Any:
        task, outer = SILENT.start(label, **options), self

        class InterruptedTask(type(task)):  # type: ignore[misc]
            def advance(self, amount: int) -> None:
                if outer.left <= 0:
                    raise KeyboardInterrupt
                outer.left -= amount

        return InterruptedTask()

    def note(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...


def break_object(store: DiskStore, raw: bytes, *, same_stat: bool = False) -> None:
    path = Path(Layout(store.root).object_path(raw))
    about = path.stat()
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    if same_stat:
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def test_looks_that_are_cut_short_read_each_object_once_between_them(tmp_path: Path) -> None:
    store = DiskStore(tmp_path / "root")
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(1500):
        (folder / str(number)).write_bytes(b"%d" % number)
    store.ingest(folder)
    expected = {digest.raw for digest, _ in store.list_objects()}
    for patience_s in (0.3, 3.0, 30.0):  # a busy machine may not come to the first object within the shortest
        deadline_s = read_monotonic_s() + patience_s
        first = store.examiner(progress=Slow(deadline_s)).read_objects(ObjectLook(deadline_s=deadline_s))
        if first.sound:
            break
    assert first.next is not None and 0 < first.left < 1501
    assert (1501, first.left) == (len(first.present), 1501 - len(first.sound))
    assert first.left_bytes == sum(size for raw, size in first.present.items() if raw not in first.sound)
    second = store.examiner().read_objects(ObjectLook(start=first.next))
    assert (None, 0) == (second.next, second.left)
    assert expected == first.sound.keys() | second.sound.keys()
    assert not first.sound.keys() & second.sound.keys()


def test_an_object_that_was_not_come_to_is_neither_missing_nor_damaged(tmp_path: Path) -> None:
    store = make_small_store(tmp_path)
    for digest, _ in store.list_objects():
        if not digest.is_tree:
            break_object(store, digest.raw)
    examiner = store.examiner()
    nothing = examiner.read_objects(ObjectLook(deadline_s=read_monotonic_s() - 1))
    assert [] == list(examiner.find_object_faults(nothing))
    assert (0, len(nothing.present)) == (nothing.read_bytes, nothing.left)


@pytest.mark.parametrize("before", [False, True])
def test_copies_of_a_damaged_object_are_named_whichever_trees_were_read(tmp_path: Path, before: bool) -> None:
    store = make_small_store(tmp_path)
    bad = blob_id(b"22")
    start = bad.raw if before else None
    break_object(store, bad.raw)
    examiner = store.examiner()
    [finding] = examiner.find_object_faults(examiner.read_objects(ObjectLook(start=start)))
    assert ("object-damaged", bad, ("folder",), 2) == (finding.kind, finding.digest, finding.copies, finding.size_bytes)


def test_quick_reads_what_changed_and_says_what_it_believed(tmp_path: Path) -> None:
    store = make_small_store(tmp_path)
    publish_two(store, tmp_path)
    cache = StatCache(tmp_path / "stat.db")
    whole = store.examiner().read_objects(ObjectLook(stat_cache=cache))
    assert 0 == whole.trusted_bytes
    # What was written within the clock's tick is not believed: that the times are older is the test's own doing.
    for raw in whole.present:
        os.utime(Layout(store.root).object_path(raw), ns=(1, 1))
    store.examiner().read_objects(ObjectLook(stat_cache=cache))
    again = store.examiner().read_objects(ObjectLook(quick=True, stat_cache=cache))
    trees = sum(whole.present[raw] for raw in whole.trees)
    assert (trees, sum(whole.present.values()) - trees) == (again.read_bytes, again.trusted_bytes)
    assert (whole.sound, whole.trees) == (again.sound, again.trees)
    [bad, *_] = [raw for raw in whole.sound if raw not in whole.trees]
    break_object(store, bad)
    changed = store.examiner().read_objects(ObjectLook(quick=True, stat_cache=cache))
    assert {bad} == changed.damaged.keys()


def publish_two(store: DiskStore, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(name.encode() * 100)
        store.publish([Publication(tmp_path / name, store.root / name)])


@pytest.mark.parametrize(
    "look",
    [
        LookRecord(),
        LookRecord("2026-01-02T03:04:05Z"),
        LookRecord("2026-01-02T03:04:05Z", "2026-02-02T03:04:05Z", b"\x12" * 32),
        LookRecord(None, None, b"\x00" * 32),
    ],
)
def test_what_is_written_of_a_look_is_read_again(tmp_path: Path, look: LookRecord) -> None:
    store = make_small_store(tmp_path)
    write_look(Layout(store.root), look)
    assert look == read_look(Layout(store.root))


@pytest.mark.parametrize("text", ["", "nonsense", "a b c d", "- - zz", "- - 1234", "\xff"])
def test_a_record_that_is_none_says_nothing(tmp_path: Path, text: str) -> None:
    store = make_small_store(tmp_path)
    (store.meta / "looked").write_text(text)
    assert LookRecord() == read_look(Layout(store.root))._replace(whole=None)


def test_a_large_damaged_object_is_not_held_in_memory(tmp_path: Path) -> None:
    store = make_small_store(tmp_path)
    path = store.object_path(blob_id(b"22"))
    path.chmod(0o644)
    os.truncate(path, 128 << 20)
    tracemalloc.start()
    try:
        examined = store.examiner().read_objects()
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [path] == list(examined.damaged.values())
    assert peak_bytes < 96 << 20


@pytest.mark.other_users
def test_an_object_that_may_not_be_read_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    store = make_small_store(tmp_path)
    bad = blob_id(b"22")
    store.object_path(bad).chmod(0)
    let_others_in(tmp_path)
    script = """
import sys
examiner = DiskStore(Path(sys.argv[1])).examiner()
examined = examiner.read_objects()
print(len(examined.present) - len(examined.sound), [each.message for each in examiner.find_object_faults(examined)])
"""
    modules = "dm.plumbing.store.examine, dm.plumbing.hashing, resource, mmap, blake3\nfrom pathlib import Path\n"
    modules += "from dm.plumbing.store.disk import DiskStore"
    told, errors = run_as_other_user(script, str(store.root), modules=modules)
    assert f"1 [\"cannot read '{store.object_path(bad)}': permission denied\"]\n" == told, errors


def test_a_look_that_is_interrupted_is_gone_on_with_from_what_is_damaged(tmp_path: Path) -> None:
    store = DiskStore(tmp_path / "root")
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(2200):
        (folder / str(number)).write_bytes(b"%d" % number)
    store.ingest(folder)
    sizes = {digest.raw: size for digest, size in store.list_objects()}
    ids = sorted(sizes)

    def interrupt(options: VerifyOptions, *, begin: int = 0) -> LookRecord:
        stopping = Interrupted(after_bytes=sum(sizes[raw] for raw in ids[begin : begin + 1024]))
        with pytest.raises(KeyboardInterrupt):
            read_objects(store, store.examiner(progress=stopping), options)
        return read_look(Layout(store.root))

    timed = VerifyOptions(deadline_s=read_monotonic_s() + 600)
    first = interrupt(timed)
    assert (ids[1024], None) == (first.next, first.whole)
    second = interrupt(timed, begin=1024)
    assert ids[2048] == second.next
    assert second == interrupt(VerifyOptions())  # a look from the start takes nothing back
    write_look(Layout(store.root), LookRecord())
    break_object(store, ids[30])
    assert ids[30] == interrupt(timed).next

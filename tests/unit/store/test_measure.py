"""The id of what lies at a path, from bytes or from what the stat cache vouches for."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from blake3 import blake3

from dm.errors import MachineFailed, Refused
from dm.plumbing.fs.walk import scan_tree
from dm.plumbing.store.measure import build_trees, measure_checksum, measure_copy
from dm.plumbing.store.stamps import NLINK_UNKNOWN, NO_ID, FolderIndex, Stamp
from dm.plumbing.store.statcache import StatCache
from dm.values import Digest

LONG_AGO_NS = 10**18
LATER = 2**62


def tree_id(root: Path) -> bytes:
    """SCHEMA.md's definition, spelled out once more."""

    def visit(folder: bytes) -> tuple[bytes, int]:
        rows, total = [], 0
        for name in sorted(os.listdir(folder)):
            path = os.path.join(folder, name)
            if os.path.islink(path):
                target = os.readlink(path)
                mode, id, size = b"120000", blake3(target).digest(), len(target)
            elif os.path.isdir(path):
                id, size = visit(path)
                mode = b"040000"
            else:
                data = Path(os.fsdecode(path)).read_bytes()
                mode = b"100755" if os.stat(path).st_mode & 0o100 else b"100644"
                id, size = blake3(data).digest(), len(data)
            rows.append(b"%s %s %d\t%s\0" % (mode, id.hex().encode(), size, name))
            total += size
        return blake3(b"".join(rows), derive_key_context="dm tree v1").digest(), total

    return visit(os.fsencode(root))[0]


def make_folder(root: Path) -> Path:
    """A folder of every kind of entry, last changed long ago."""
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "a.txt").write_bytes(b"alpha")
    (root / "run.sh").write_bytes(b"#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "sub" / "b.bin").write_bytes(bytes(range(256)))
    (root / "sub" / "deep" / "empty.dat").write_bytes(b"")
    (root / "sub.txt").write_bytes(b"sorts between sub and its contents")
    (root / "link").symlink_to("sub/b.bin")
    (root / "dangling").symlink_to("nowhere")
    for entry in root.rglob("*"):
        os.utime(entry, ns=(LONG_AGO_NS, LONG_AGO_NS), follow_symlinks=False)
    return root


def flip_bit(path: Path, *, keep_mtime: bool = True) -> None:
    """Change one bit of a file; size, inode and (unless told) mtime stay, ctime cannot."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    time.sleep(0.02)  # ctime moves with the kernel's tick
    path.write_bytes(data)
    if keep_mtime:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


class CountingTask:
    """Adds up what a task is told."""

    def __init__(self, total: int | None) -> None:
        self.total = total
        self.done = 0
        self.interrupt_at: int | None = None

    def advance(self, amount: int) -> None:
        self.done += amount
        if self.interrupt_at is not None and self.done >= self.interrupt_at:
            raise KeyboardInterrupt

    def resize(self, total: int | None) -> None:
        self.total = total

    def describe(self, text: str) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class CountingProgress:
    """Keeps the tasks that were started."""

    def __init__(self, interrupt_at: int | None = None) -> None:
        self.tasks: list[CountingTask] = []
        self.interrupt_at = interrupt_at

    def start(self, label: str, *, total: int | None = None, unit: str = "bytes") -> CountingTask:
        task = CountingTask(total)
        task.interrupt_at = self.interrupt_at
        self.tasks.append(task)
        return task

    def note(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[StatCache]:
    cache = StatCache(tmp_path / "cache" / "stat-v1.db")
    yield cache
    cache.close()
    assert cache.fault is None


@contextmanager
def old_file(path: Path, data: bytes) -> Iterator[Path]:
    path.write_bytes(data)
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    yield path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sst.nc"
    path.write_bytes(b"sea surface")
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    return path


def test_a_file_is_measured_by_its_bytes(file: Path) -> None:
    measured = measure_copy(file)
    assert measured.digest == Digest("blake3", blake3(b"sea surface").hexdigest())
    assert measured[1:] == (11, 1, 11, 0, 0, None, (), ())


def test_a_folder_is_measured_as_the_specification_says(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "copy")
    measured = measure_copy(root)
    size_bytes = sum(entry.size for entry in scan_tree(root) if entry.kind != "folder")
    assert measured.digest == Digest("blake3-tree", tree_id(root).hex())
    assert (measured.size_bytes, measured.files, measured.read_bytes) == (size_bytes, 7, size_bytes)


def test_an_empty_folder_has_an_id(tmp_path: Path) -> None:
    measured = measure_copy(tmp_path)
    assert measured.digest == Digest.of_tree(blake3(b"", derive_key_context="dm tree v1").digest())
    assert (measured.size_bytes, measured.files) == (0, 0)


def test_a_deep_folder_has_an_id(tmp_path: Path) -> None:
    deep = tmp_path.joinpath("copy", *["d"] * 100)
    deep.mkdir(parents=True)
    (deep / "bottom").write_bytes(b"b")
    assert (measure_copy(tmp_path / "copy").files, measure_copy(tmp_path / "copy").size_bytes) == (1, 1)


def test_names_that_are_not_utf_8_enter_as_their_bytes(tmp_path: Path) -> None:
    root = tmp_path / "copy"
    root.mkdir()
    for name in (b"\xff", b"a\nb", "é".encode(), b"a b\t"):
        Path(os.fsdecode(os.path.join(os.fsencode(root), name))).write_bytes(name)
    assert measure_copy(root).digest == Digest("blake3-tree", tree_id(root).hex())


def test_the_empty_marker_at_the_top_is_no_part_of_a_folder(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "copy")
    before = measure_copy(root)
    (root / ".complete").touch()
    assert measure_copy(root)[:4] == before[:4]


@pytest.mark.parametrize("place", ["top with bytes", "below", "a folder", "a link"])
def test_what_looks_like_a_marker_is_a_part_of_a_folder(tmp_path: Path, place: str) -> None:
    root = make_folder(tmp_path / "copy")
    before = measure_copy(root).digest
    if place == "top with bytes":
        (root / ".complete").write_bytes(b"x")
    elif place == "below":
        (root / "sub" / ".complete").touch()
    elif place == "a folder":
        (root / ".complete").mkdir()
    else:
        (root / ".complete").symlink_to("a.txt")
    assert measure_copy(root).digest not in (before, None)
    assert measure_copy(root).digest == Digest("blake3-tree", tree_id(root).hex())


def test_a_link_at_the_path_is_followed(tmp_path: Path, file: Path) -> None:
    root = make_folder(tmp_path / "copy")
    (tmp_path / "to-folder").symlink_to(root)
    (tmp_path / "to-file").symlink_to(file)
    assert measure_copy(tmp_path / "to-folder").digest == measure_copy(root).digest
    assert measure_copy(tmp_path / "to-file").digest == measure_copy(file).digest


def test_trees_are_built_for_every_folder_what_they_hold_first(tmp_path: Path) -> None:
    measured = measure_copy(make_folder(tmp_path / "copy"))
    built = build_trees(measured.entries, measured.ids)
    assert list(built) == [b"sub/deep", b"empty", b"sub", b""]
    assert {name: Digest.of_tree(tree.id) for name, tree in built.items()} == {
        name: measure_copy(tmp_path / "copy" / os.fsdecode(name)).digest for name in built
    }
    assert [(entry.name, entry.mode) for entry in built[b""].entries] == [
        (b"a.txt", "100644"),
        (b"dangling", "120000"),
        (b"empty", "040000"),
        (b"link", "120000"),
        (b"run.sh", "100755"),
        (b"sub", "040000"),
        (b"sub.txt", "100644"),
    ]
    assert (built[b"sub"].size_bytes, built[b"sub"].files) == (256, 2)


def test_a_missing_path_names_itself(tmp_path: Path) -> None:
    with pytest.raises(MachineFailed) as caught:
        measure_copy(tmp_path / "none")
    assert caught.value.message == f"cannot read '{tmp_path / 'none'}': no such file or folder"


def test_a_fifo_is_refused(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "copy")
    os.mkfifo(root / "pipe")
    with pytest.raises(Refused, match="is a fifo"):
        measure_copy(root)


def test_quick_believes_an_unchanged_file(file: Path, cache: StatCache) -> None:
    digest = measure_copy(file, stat_cache=cache).digest
    again = measure_copy(file, stat_cache=cache, quick=True)
    assert (again.digest, again.read_bytes, again.trusted_bytes, again.trusted_files) == (digest, 0, 11, 1)


def test_quick_believes_an_unchanged_folder(tmp_path: Path, cache: StatCache) -> None:
    root = make_folder(tmp_path / "copy")
    full = measure_copy(root, stat_cache=cache)
    (root / ".complete").touch()
    again = measure_copy(root, stat_cache=cache, quick=True)
    assert again == full._replace(read_bytes=0, trusted_bytes=full.size_bytes, trusted_files=7)


def test_a_full_measurement_reads_what_the_cache_vouches_for(tmp_path: Path, file: Path, cache: StatCache) -> None:
    root = make_folder(tmp_path / "copy")
    measure_copy(root, stat_cache=cache)
    measure_copy(file, stat_cache=cache)
    assert measure_copy(root, stat_cache=cache).trusted_bytes == 0
    assert measure_copy(file, stat_cache=cache).read_bytes == 11


def test_quick_reads_what_changed_and_nothing_else(tmp_path: Path, cache: StatCache) -> None:
    root = make_folder(tmp_path / "copy")
    full = measure_copy(root, stat_cache=cache)
    (root / "a.txt").write_bytes(b"other")
    again = measure_copy(root, stat_cache=cache, quick=True)
    assert again.digest == Digest("blake3-tree", tree_id(root).hex())
    assert (again.read_bytes, again.trusted_bytes, again.trusted_files) == (5, full.size_bytes - 5, 6)


@pytest.mark.parametrize("how", ["add", "remove", "rename", "mode", "folder", "retarget", "swap kinds"])
def test_quick_sees_every_change_of_a_folder(tmp_path: Path, cache: StatCache, how: str) -> None:
    root = make_folder(tmp_path / "copy")
    before = measure_copy(root, stat_cache=cache).digest
    if how == "add":
        (root / "added").touch()
    elif how == "remove":
        (root / "a.txt").unlink()
    elif how == "rename":
        (root / "a.txt").rename(root / "A.txt")
    elif how == "mode":
        (root / "a.txt").chmod(0o744)
    elif how == "folder":
        (root / "empty").rmdir()
    elif how == "retarget":
        (root / "link").unlink()
        (root / "link").symlink_to("sub/c.bin")
    else:
        (root / "empty").rmdir()
        (root / "empty").touch()
    found = measure_copy(root, stat_cache=cache, quick=True).digest
    assert found != before
    assert found == Digest("blake3-tree", tree_id(root).hex())


def test_a_flipped_bit_under_the_same_size_and_mtime_is_always_found_by_a_full_measurement(
    tmp_path: Path, file: Path, cache: StatCache
) -> None:
    root = make_folder(tmp_path / "copy")
    cache.record_file(file, Stamp.of_stat(file.stat())._replace(nlink=NLINK_UNKNOWN), b"x" * 32, clock_ns=LATER)
    measure_copy(root, stat_cache=cache)
    flip_bit(root / "a.txt")
    flip_bit(file)
    assert measure_copy(root, stat_cache=cache).digest == Digest("blake3-tree", tree_id(root).hex())
    assert measure_copy(file, stat_cache=cache).digest.hex == blake3(file.read_bytes()).hexdigest()


def test_a_flipped_bit_under_the_same_size_and_mtime_is_found_by_quick_through_ctime(
    tmp_path: Path, file: Path, cache: StatCache
) -> None:
    root = make_folder(tmp_path / "copy")
    measure_copy(root, stat_cache=cache)
    measure_copy(file, stat_cache=cache)
    flip_bit(root / "a.txt")
    flip_bit(file)
    assert measure_copy(root, stat_cache=cache, quick=True).digest == Digest("blake3-tree", tree_id(root).hex())
    assert measure_copy(file, stat_cache=cache, quick=True).digest.hex == blake3(file.read_bytes()).hexdigest()


def test_quick_believes_files_that_were_linked_since(tmp_path: Path, file: Path, cache: StatCache) -> None:
    root = make_folder(tmp_path / "copy")
    measure_copy(root, stat_cache=cache)
    measure_copy(file, stat_cache=cache)
    time.sleep(0.02)
    os.link(file, tmp_path / "second")
    os.link(root / "sub" / "b.bin", tmp_path / "third")
    assert measure_copy(file, stat_cache=cache, quick=True).read_bytes == 0
    assert measure_copy(root, stat_cache=cache, quick=True).read_bytes == 0


def test_quick_believes_a_file_whose_link_count_was_recorded_as_unknown(file: Path, cache: StatCache) -> None:
    stamp = Stamp.of_stat(file.stat())._replace(nlink=NLINK_UNKNOWN, ctime_ns=0)
    cache.record_file(file, stamp, blake3(b"sea surface").digest(), clock_ns=LATER)
    assert measure_copy(file, stat_cache=cache, quick=True).read_bytes == 0


def test_what_was_believed_without_its_ctime_is_not_recorded_as_read(tmp_path: Path, cache: StatCache) -> None:
    """Linked (ctime not asked), altered under the same mtime, believed, unlinked again: ctime tells at last."""
    root = make_folder(tmp_path / "copy")
    measure_copy(root, stat_cache=cache)
    os.link(root / "a.txt", tmp_path / "second")
    flip_bit(root / "a.txt")
    (root / "sub.txt").unlink()  # so that the quick measurement records anew
    assert measure_copy(root, stat_cache=cache, quick=True).read_bytes == 0
    (tmp_path / "second").unlink()
    assert measure_copy(root, stat_cache=cache, quick=True).digest == Digest("blake3-tree", tree_id(root).hex())


def test_a_file_of_the_clocks_own_tick_is_not_believed(file: Path, cache: StatCache, tmp_path: Path) -> None:
    """Its mtime lies ahead of the file system's clock: a change within that tick could not be seen."""
    ahead = time.time_ns() + 10**12
    os.utime(file, ns=(ahead, ahead))
    root = make_folder(tmp_path / "copy")
    os.utime(root / "a.txt", ns=(ahead, ahead))
    measure_copy(file, stat_cache=cache)
    measure_copy(root, stat_cache=cache)
    assert measure_copy(file, stat_cache=cache, quick=True).read_bytes == 11
    assert measure_copy(root, stat_cache=cache, quick=True).read_bytes == 5


def test_a_change_right_after_the_measurement_is_seen(tmp_path: Path, cache: StatCache) -> None:
    """Git's racy case, on the real clock: written, measured and written again without a pause, the size the same."""
    (tmp_path / "root" / ".dm").mkdir(parents=True)
    for number in range(200):
        path = tmp_path / "root" / f"{number}"
        path.write_bytes(b"one")
        measure_copy(path, stat_cache=cache, ref_root=tmp_path / "root")
        status = path.stat()
        path.write_bytes(b"two")
        # As if ctime were not there to help: it is not asked of a file that was linked.
        record = cache.lookup_file(path)
        if record is not None:
            cache.record_file(path, record.stamp._replace(nlink=NLINK_UNKNOWN), record.id, clock_ns=LATER)
        assert measure_copy(path, stat_cache=cache, quick=True).digest.hex == blake3(b"two").hexdigest(), status


def test_a_file_written_after_the_last_reading_of_the_clock_is_recorded_all_the_same(
    tmp_path: Path, file: Path, cache: StatCache
) -> None:
    measure_copy(file, stat_cache=cache)
    time.sleep(0.02)
    later = tmp_path / "later"
    later.write_bytes(b"later")
    time.sleep(0.02)
    measure_copy(later, stat_cache=cache)
    assert measure_copy(later, stat_cache=cache, quick=True).read_bytes == 0


def test_no_probe_stays_in_the_store_and_none_is_made_beside_a_copy(tmp_path: Path, cache: StatCache) -> None:
    root = tmp_path / "root"
    (root / ".dm").mkdir(parents=True)
    make_folder(root / "copy")
    before = (root.stat().st_mtime_ns, (root / "copy").stat().st_mtime_ns)
    measure_copy(root / "copy", stat_cache=cache, ref_root=root)
    assert list((root / ".dm").iterdir()) == []
    assert (root.stat().st_mtime_ns, (root / "copy").stat().st_mtime_ns) == before


def test_a_cache_that_does_not_work_changes_no_answer(tmp_path: Path, file: Path) -> None:
    (tmp_path / "in the way").touch()
    cache = StatCache(tmp_path / "in the way" / "stat-v1.db")
    root = make_folder(tmp_path / "copy")
    for quick in (False, True):
        assert measure_copy(root, stat_cache=cache, quick=quick).digest.raw == tree_id(root)
        assert measure_copy(file, stat_cache=cache, quick=quick).read_bytes == 11


def test_progress_is_told_of_every_byte_that_is_read(tmp_path: Path, file: Path, cache: StatCache) -> None:
    root = make_folder(tmp_path / "copy")
    links = len("sub/b.bin") + len("nowhere")
    progress = CountingProgress()
    read = [measure_copy(path, stat_cache=cache, progress=progress).read_bytes for path in (root, file)]
    read.append(measure_copy(file, algorithm="md5", progress=progress).read_bytes)
    assert [task.total for task in progress.tasks] == read
    assert [task.done for task in progress.tasks] == [read[0] - links, read[1], read[2]]


def test_nothing_to_read_starts_no_progress(tmp_path: Path, file: Path, cache: StatCache) -> None:
    root = make_folder(tmp_path / "copy")
    measure_copy(root, stat_cache=cache)
    measure_copy(file, stat_cache=cache)
    progress = CountingProgress()
    measure_copy(root, stat_cache=cache, quick=True, progress=progress)
    measure_copy(file, stat_cache=cache, quick=True, progress=progress)
    assert progress.tasks == []


def test_an_interrupted_quick_measurement_goes_on_where_it_was(
    tmp_path: Path, cache: StatCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dm.plumbing.store.measure._ROUND_FILES", 10)
    root = tmp_path / "copy"
    root.mkdir()
    for number in range(100):
        with old_file(root / f"{number:03}", b"%4d" % number):
            pass
    with pytest.raises(KeyboardInterrupt):
        measure_copy(root, stat_cache=cache, quick=True, progress=CountingProgress(interrupt_at=200))
    again = measure_copy(root, stat_cache=cache, quick=True)
    assert again.digest.raw == tree_id(root)
    assert (again.read_bytes, again.trusted_bytes) == (240, 160)
    assert measure_copy(root, stat_cache=cache, quick=True).read_bytes == 0


def test_an_interrupted_full_measurement_keeps_what_was_known(tmp_path: Path, cache: StatCache) -> None:
    root = make_folder(tmp_path / "copy")
    full = measure_copy(root, stat_cache=cache)
    with pytest.raises(KeyboardInterrupt):
        measure_copy(root, stat_cache=cache, progress=CountingProgress(interrupt_at=1))
    assert measure_copy(root, stat_cache=cache, quick=True) == full._replace(
        read_bytes=0, trusted_bytes=full.size_bytes, trusted_files=full.files
    )


_MEASURER = """
import sys
from pathlib import Path
from dm.plumbing.store.measure import measure_copy
from dm.plumbing.store.statcache import StatCache
cache = StatCache(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    measure_copy(Path(sys.argv[2]), stat_cache=cache)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_measurement_that_is_ended_leaves_a_cache_that_tells_the_truth(
    tmp_path: Path, cache: StatCache, number: signal.Signals
) -> None:
    root = make_folder(tmp_path / "copy")
    for _ in range(3):
        command = [sys.executable, "-c", _MEASURER, str(cache.path), str(root)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(0.03)
            process.send_signal(number)
        assert measure_copy(root, stat_cache=cache, quick=True).digest.raw == tree_id(root)


@pytest.mark.parametrize("algorithm", ["sha256", "md5", "sha1", "sha512", "blake2b"])
def test_a_file_is_measured_in_two_algorithms_at_once(file: Path, algorithm: str) -> None:
    measured = measure_copy(file, algorithm=algorithm)
    assert measured.digest.hex == blake3(b"sea surface").hexdigest()
    assert measured.checksum == Digest(algorithm, hashlib.new(algorithm, b"sea surface").hexdigest())
    assert measured.read_bytes == 11


def test_a_file_of_many_buffers_is_measured_in_two_algorithms_at_once(tmp_path: Path) -> None:
    data = os.urandom((5 << 20) + 12345)
    (tmp_path / "large").write_bytes(data)
    measured = measure_copy(tmp_path / "large", algorithm="sha256")
    assert measured.digest.hex == blake3(data).hexdigest()
    assert measured.checksum == Digest("sha256", hashlib.sha256(data).hexdigest())


def test_quick_believes_a_checksum_that_was_measured_and_no_other(file: Path, cache: StatCache) -> None:
    checksum = measure_copy(file, algorithm="sha256", stat_cache=cache).checksum
    again = measure_copy(file, algorithm="sha256", stat_cache=cache, quick=True)
    assert (again.checksum, again.read_bytes) == (checksum, 0)
    assert measure_copy(file, algorithm="md5", stat_cache=cache, quick=True).read_bytes == 11


def test_a_checksum_of_a_file_is_its_hash(file: Path, cache: StatCache) -> None:
    found = measure_checksum(file, "sha256", stat_cache=cache)
    assert found.checksum == Digest("sha256", hashlib.sha256(b"sea surface").hexdigest())
    assert found.digest == measure_copy(file).digest
    assert measure_checksum(file, "sha256", stat_cache=cache, quick=True) == found._replace(
        read_bytes=0, trusted_bytes=11, trusted_files=1
    )


def test_the_blake3_checksum_of_a_file_is_its_id(file: Path) -> None:
    found = measure_checksum(file, "blake3")
    assert found.checksum == found.digest == measure_copy(file).digest


def make_plain_folder(root: Path) -> Path:
    (root / "sub").mkdir(parents=True)
    (root / "z").write_bytes(b"first")
    (root / "sub" / "a").write_bytes(b"second")
    for path in (root / "z", root / "sub" / "a"):
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    return root


@pytest.mark.parametrize("algorithm", ["sha256", "blake3"])
def test_a_checksum_of_a_folder_is_the_peers(tmp_path: Path, algorithm: str) -> None:
    root = make_plain_folder(tmp_path / "copy")
    expected = (hashlib.sha256 if algorithm == "sha256" else blake3)(b"firstsecond").hexdigest()
    found = measure_checksum(root, algorithm)
    assert found == (Digest(algorithm, expected), None, 11, 2, 11, 0, 0)


def test_a_folder_with_a_dangling_link_has_no_checksum(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "copy")
    assert measure_checksum(root, "sha256").checksum is None
    assert measure_copy(root, algorithm="sha256").checksum is None


@pytest.mark.parametrize("target", ["link", "a.txt/below", "x" * 300, "nowhere"])
def test_a_folder_with_a_link_in_a_circle_or_below_a_file_has_no_checksum(tmp_path: Path, target: str) -> None:
    root = make_plain_folder(tmp_path / "copy")
    (root / "a.txt").write_bytes(b"first")
    (root / "link").symlink_to(target)
    assert measure_checksum(root, "sha256").checksum is None


def test_quick_believes_a_folders_checksum_that_was_measured(tmp_path: Path, cache: StatCache) -> None:
    root = make_plain_folder(tmp_path / "copy")
    full = measure_copy(root, algorithm="sha256", stat_cache=cache)
    expected = Digest("sha256", hashlib.sha256(b"firstsecond").hexdigest())
    assert full.checksum == expected
    again = measure_checksum(root, "sha256", stat_cache=cache, quick=True)
    assert again == (expected, full.digest, 11, 2, 0, 11, 2)
    again_too = measure_copy(root, algorithm="sha256", stat_cache=cache, quick=True)
    assert (again_too.checksum, again_too.read_bytes) == (expected, 0)
    assert measure_checksum(root, "md5", stat_cache=cache, quick=True).read_bytes == 11


def test_a_folders_checksum_that_reads_through_links_is_never_believed(tmp_path: Path, cache: StatCache) -> None:
    with old_file(tmp_path / "outside", b"one"):
        root = make_plain_folder(tmp_path / "copy")
        (root / "link").symlink_to("../outside")
        measure_copy(root, algorithm="sha256", stat_cache=cache)
        (tmp_path / "outside").write_bytes(b"two")
    expected = Digest("sha256", hashlib.sha256(b"twofirstsecond").hexdigest())
    assert measure_checksum(root, "sha256", stat_cache=cache, quick=True).checksum == expected
    assert measure_copy(root, algorithm="sha256", stat_cache=cache, quick=True).checksum == expected


def test_what_a_publisher_recorded_of_a_staged_folder_is_believed(tmp_path: Path, cache: StatCache) -> None:
    """The order of a publisher: hash, walk, link, rename; its record says that the link count is not known."""
    staged = make_folder(tmp_path / "staged")
    ids = [NO_ID if id is None else id for id in measure_copy(staged).ids]
    entries = [entry._replace(nlink=NLINK_UNKNOWN) for entry in scan_tree(staged)]
    time.sleep(0.02)
    os.link(staged / "a.txt", tmp_path / "object")
    staged.rename(tmp_path / "copy")
    index = FolderIndex.pack(entries, ids, clock_ns=LATER, id=tree_id(tmp_path / "copy"))
    cache.record_folder(tmp_path / "copy", index)
    assert measure_copy(tmp_path / "copy", stat_cache=cache, quick=True).read_bytes == 0

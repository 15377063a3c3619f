"""Streams and files to digests. The only door of blake3; hashlib is imported when it is needed."""

from __future__ import annotations

import errno
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Protocol, Self

from dm.errors import ContentMismatch, Malformed, Refused
from dm.plumbing.fs.buffer import make_buffer
from dm.plumbing.fs.machine import AnyPath, display_path, machine_errors, machine_failed
from dm.progress import Task
from dm.values import DIGEST_HEX_LENGTHS, Digest

if TYPE_CHECKING:
    from _queue import SimpleQueue

    from blake3 import blake3

#: SCHEMA.md, "Objects": the id of a tree is BLAKE3 in key derivation mode with this context.
TREE_CONTEXT = "dm tree v1"
#: Read at once, in bytes, of files that fit one core; both blake3 and hashlib release the GIL for such a piece.
_BUFFER_BYTES = 1 << 20
#: From this size on, in bytes, one file is hashed on all cores, in pieces of `_LARGE_BUFFER_BYTES`.
_LARGE_FILE_BYTES = 16 << 20
_LARGE_BUFFER_BYTES = 4 << 20
#: What a worker takes at once, and from when on a second worker is worth its start.
_CHUNK_FILES = 64
_CHUNK_BYTES = 4 << 20
_PARALLEL_CHUNKS_MIN = 4
_PARALLEL_BYTES_MIN = 4 << 20
#: Threads while the disk has to be waited for; with everything in memory more than one per core only get in each
#: other's way.
_COLD_WORKERS_MAX = 8
#: From this many bytes `MultiHasher` uses a thread per algorithm.
_THREADED_BYTES_MIN = 64 << 10


class _Hasher(Protocol):
    def update(self, data: memoryview | bytes, /) -> object: ...

    def digest(self) -> bytes: ...


def blake3_of(data: bytes | memoryview) -> bytes:
    """The BLAKE3 of bytes in memory, 32 bytes: the id of a blob that holds them."""
    from blake3 import blake3

    return blake3(data).digest()


def tree_id_of(data: bytes) -> bytes:
    """The id, 32 bytes, of a tree that is encoded as ``data`` (SCHEMA.md, "Objects")."""
    from blake3 import blake3

    return blake3(data, derive_key_context=TREE_CONTEXT).digest()


def _new_hasher(algorithm: str, *, all_cores: bool = False) -> _Hasher:
    if algorithm not in DIGEST_HEX_LENGTHS or algorithm == "blake3-tree":
        known = ", ".join(name for name in DIGEST_HEX_LENGTHS if name != "blake3-tree")
        raise Malformed(
            f"cannot hash a file with '{algorithm}'", hint=f"algorithms for files are {known}", code="digest-unknown"
        )
    if algorithm == "blake3":
        return _new_blake3(all_cores=all_cores)
    import hashlib

    # A data set's md5 is a fact about it, not a signature: allowed also where the machine's policy forbids md5.
    return hashlib.new(algorithm, usedforsecurity=False)


def _new_blake3(*, all_cores: bool) -> blake3:
    from blake3 import blake3

    return blake3(max_threads=blake3.AUTO if all_cores else 1)


def hash_stream(stream: BinaryIO, algorithm: str, task: Task | None = None) -> Digest:
    """The digest of what is left in an open binary stream; memory does not grow with it. Raises `OSError`."""
    hasher = _new_hasher(algorithm)
    buffer = make_buffer(_BUFFER_BYTES)
    readinto: Callable[[memoryview], int] | None = getattr(stream, "readinto", None)
    while True:
        if readinto is not None:
            piece: memoryview | bytes = buffer[: readinto(buffer) or 0]
        else:
            piece = stream.read(_BUFFER_BYTES)
        if not piece:
            return Digest(algorithm, hasher.digest().hex())
        hasher.update(piece)
        if task is not None:
            task.advance(len(piece))


def hash_file(path: AnyPath, algorithm: str, progress_task: Task | None = None) -> Digest:
    """The digest of a file's bytes (links are followed), with any algorithm for files; bounded memory.

    ``progress_task`` is told of every byte read. Raises `Malformed` for an unknown algorithm and ``blake3-tree``,
    `MachineFailed` when the file cannot be read.
    """
    with machine_errors("read", path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            size = os.fstat(descriptor).st_size
            return Digest(algorithm, _hash_descriptor(descriptor, size, algorithm, progress_task)[0].hex())
        finally:
            os.close(descriptor)


def hash_blob(path: AnyPath, progress_task: Task | None = None) -> bytes:
    """The id, 32 bytes, of a file's bytes: their BLAKE3. As `hash_file`."""
    return bytes.fromhex(hash_file(path, "blake3", progress_task).hex)


def _hash_descriptor(descriptor: int, size: int, algorithm: str, task: Task | None) -> tuple[bytes, int]:
    """Digest and length of what an open file holds; ``size`` is a guess that decides on cores and memory."""
    large = size >= _LARGE_FILE_BYTES
    hasher = _new_hasher(algorithm, all_cores=large)
    wanted = _LARGE_BUFFER_BYTES if large and algorithm == "blake3" else min(_BUFFER_BYTES, size + 1)
    buffer = make_buffer(wanted)
    done = 0
    while count := os.readv(descriptor, [buffer]):
        hasher.update(buffer[:count])
        done += count
        if task is not None:
            task.advance(count)
    return hasher.digest(), done


def hash_blobs(
    root: AnyPath | int, names: Sequence[bytes], sizes: Sequence[int], task: Task | None = None
) -> list[bytes]:
    """The ids, 32 bytes each and in order, of the files ``names`` below ``root`` (a path, or an open folder).

    ``sizes`` are the sizes in bytes that were seen when the folder was read: a file that has another one now was
    changed meanwhile and raises `ContentMismatch` (code ``changed-while-read``), so that a size and an id always
    belong together. Small files are shared out among a few threads in chunks, large ones hashed one after the other on
    all cores; memory stays below 50 MiB. ``task`` is told of the bytes read, from any thread. Links are not followed.
    Raises `MachineFailed` with the path of the file that cannot be read.
    """
    ids: list[bytes] = [b""] * len(names)
    if isinstance(root, int):
        return _hash_all(root, str(root), names, sizes, ids, task)
    with machine_errors("read the folder", root):
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return _hash_all(folder, root, names, sizes, ids, task)
    finally:
        os.close(folder)


def _hash_all(
    folder: int, root: AnyPath, names: Sequence[bytes], sizes: Sequence[int], ids: list[bytes], task: Task | None
) -> list[bytes]:
    chunks, large = _share_out(sizes)
    chunks.reverse()  # taken from the end
    failed: list[BaseException] = []
    threads: list[threading.Thread] = []
    starting = threading.Lock()
    read_blocks = _find_block_counter()

    def work() -> None:
        buffer = make_buffer(_BUFFER_BYTES)
        try:
            before = read_blocks()
            while chunks and not failed:
                try:
                    chunk = chunks.pop()
                except IndexError:
                    return
                _hash_chunk(folder, root, names, sizes, chunk, ids, buffer, task)
                after = read_blocks()
                if after != before and len(chunks) > len(threads) < _COLD_WORKERS_MAX - 1:
                    start_worker(_COLD_WORKERS_MAX - 1)
                before = after
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            failed.append(error)

    def start_worker(most: int) -> None:
        with starting:
            if len(threads) < most:
                thread = threading.Thread(target=work, name="dm-hash", daemon=True)
                thread.start()
                threads.append(thread)  # only what was started can be joined

    try:
        count = _count_workers(len(chunks), sum(sizes))
        for _ in range(count):
            start_worker(count)
        if chunks:
            work()
        for index in large:
            if not failed:
                ids[index] = _hash_one(folder, root, names[index], sizes[index], task)
    except BaseException as error:
        failed.append(error)
        raise
    finally:
        for thread in threads:  # a worker that still runs may add another: it is waited for, and then that one
            thread.join()
    if failed:
        raise failed[0]
    return ids


def _find_block_counter() -> Callable[[], int]:
    """What tells a thread how many blocks it had to wait for on a disk; always 0 where the system does not count."""
    if not sys.platform.startswith("linux"):
        return lambda: 0
    from resource import RUSAGE_THREAD, getrusage

    return lambda: getrusage(RUSAGE_THREAD).ru_inblock


def _share_out(sizes: Sequence[int]) -> tuple[list[list[int]], list[int]]:
    """(indices of small files in chunks of about the same work, indices of large ones)"""
    chunks: list[list[int]] = []
    large: list[int] = []
    chunk: list[int] = []
    left_bytes = _CHUNK_BYTES
    for index, size in enumerate(sizes):
        if size >= _LARGE_FILE_BYTES:
            large.append(index)
            continue
        chunk.append(index)
        left_bytes -= size
        if left_bytes <= 0 or len(chunk) == _CHUNK_FILES:
            chunks.append(chunk)
            chunk = []
            left_bytes = _CHUNK_BYTES
    if chunk:
        chunks.append(chunk)
    return chunks, large


def _count_workers(chunks: int, size_bytes: int) -> int:
    """Threads beside the caller's own."""
    if chunks < _PARALLEL_CHUNKS_MIN and size_bytes < _PARALLEL_BYTES_MIN:
        return 0
    return max(0, min(os.cpu_count() or 1, _COLD_WORKERS_MAX, chunks) - 1)


def _hash_chunk(
    folder: int,
    root: AnyPath,
    names: Sequence[bytes],
    sizes: Sequence[int],
    chunk: Sequence[int],
    ids: list[bytes],
    buffer: memoryview,
    task: Task | None,
) -> None:
    from blake3 import blake3

    done = 0
    for index in chunk:
        size = sizes[index]
        descriptor = _open_below(folder, root, names[index])
        try:
            count = os.readv(descriptor, [buffer])
            if count == size and count < _BUFFER_BYTES:
                # A regular file that gave less than it was asked for is at its end: no second read.
                ids[index] = blake3(buffer[:count]).digest()
            else:
                hasher = blake3(buffer[:count])
                seen = count
                while count := os.readv(descriptor, [buffer]):
                    hasher.update(buffer[:count])
                    seen += count
                if seen != size:
                    raise _changed(root, names[index], size, seen)
                ids[index] = hasher.digest()
        except OSError as error:
            raise machine_failed(error, "read", _join(root, names[index])) from error
        finally:
            os.close(descriptor)
        done += size
    if task is not None:
        task.advance(done)


def _hash_one(folder: int, root: AnyPath, name: bytes, size: int, task: Task | None) -> bytes:
    descriptor = _open_below(folder, root, name)
    try:
        with machine_errors("read", _join(root, name)):
            raw, seen = _hash_descriptor(descriptor, size, "blake3", task)
    finally:
        os.close(descriptor)
    if seen != size:
        raise _changed(root, name, size, seen)
    return raw


def _open_below(folder: int, root: AnyPath, name: bytes) -> int:
    try:
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
    except OSError as error:
        raise machine_failed(error, "read", _join(root, name)) from error


def _join(root: AnyPath, name: bytes) -> bytes:
    return os.path.join(os.fsencode(root), name)


def _changed(root: AnyPath, name: bytes, size: int, seen: int) -> ContentMismatch:
    return ContentMismatch(
        f"'{display_path(_join(root, name))}' changed while it was read: {size} bytes before, {seen} now",
        hint="run the command again when nothing writes to it",
        code="changed-while-read",
    )


class MultiHasher:
    """Several digests of one stream in one pass.

    ``algorithms`` are names of algorithms for files; each is computed once. Small buffers are hashed in the caller's
    thread; from 64 KiB on each algorithm beyond the first has its own thread, with the GIL released. Two ways to give
    it bytes, which may be mixed:

    * `update` returns when the buffer has been hashed;
    * `feed` returns at once and hashes behind the caller's back: the buffer must stay as it is until the next call of
      `feed`, `update` or `digests` has returned. Two buffers in turns keep reading and hashing apart.

    The threads end with `close`, the `with` block, or the hasher itself. One thread at a time may call it.
    """

    def __init__(self, algorithms: Iterable[str]) -> None:
        names = tuple(dict.fromkeys(algorithms))
        self._hashers = {name: _new_hasher(name, all_cores=len(names) == 1) for name in names}
        self._workers: list[_Worker] = []
        self.size_bytes = 0

    def update(self, buffer: bytes | bytearray | memoryview) -> None:
        """Hash a buffer; it may be used again when this returns."""
        view = memoryview(buffer)
        self.size_bytes += view.nbytes
        hashers = list(self._hashers.values())
        if len(hashers) < 2 or view.nbytes < _THREADED_BYTES_MIN:
            self._settle()
            for hasher in hashers:
                hasher.update(view)
            return
        workers = self._ensure_workers()
        # The first algorithm is hashed here, after what its own thread may still have to do.
        workers[0].settle()
        for worker in workers[1:]:
            worker.give(view)
        hashers[0].update(view)
        self._settle()

    def feed(self, buffer: bytes | bytearray | memoryview) -> None:
        """Have a buffer hashed meanwhile; waits for the one given before, not for this one."""
        view = memoryview(buffer)
        if view.nbytes < _THREADED_BYTES_MIN:
            self.update(view)
            return
        self._settle()
        self.size_bytes += view.nbytes
        for worker in self._ensure_workers():
            worker.give(view)

    def digests(self) -> dict[str, Digest]:
        """The digest of all that was given so far, by algorithm. More may be given afterwards."""
        self._settle()
        return {name: Digest(name, hasher.digest().hex()) for name, hasher in self._hashers.items()}

    def close(self) -> None:
        """End the threads; the digests can still be read."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.settle()
            worker.end()

    def _settle(self) -> None:
        for worker in self._workers:
            worker.settle()

    def _ensure_workers(self) -> list[_Worker]:
        if not self._workers:
            self._workers = [_Worker(hasher) for hasher in self._hashers.values()]
        return self._workers

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        for worker in getattr(self, "_workers", ()):
            worker.end()


class _Worker:
    """A thread that feeds one hasher, started with its first buffer."""

    __slots__ = ("_hasher", "_idle", "_pending", "_queue", "_started")

    def __init__(self, hasher: _Hasher) -> None:
        from _queue import SimpleQueue

        self._hasher = hasher
        self._queue: SimpleQueue[memoryview | None] = SimpleQueue()
        self._idle: SimpleQueue[BaseException | None] = SimpleQueue()
        self._pending = 0
        self._started = False

    def give(self, view: memoryview) -> None:
        if not self._started:
            self._started = True
            threading.Thread(
                target=_run_worker, args=(self._hasher, self._queue, self._idle), name="dm-hash", daemon=True
            ).start()
        self._pending += 1
        self._queue.put(view)

    def settle(self) -> None:
        while self._pending:
            failure = self._idle.get()
            self._pending -= 1
            if failure is not None:
                raise failure

    def end(self) -> None:
        if self._started:
            self._started = False
            self._queue.put(None)


def _run_worker(
    hasher: _Hasher, queue: SimpleQueue[memoryview | None], idle: SimpleQueue[BaseException | None]
) -> None:
    # Holds no reference to the worker or the MultiHasher, so that dropping that one ends this thread.
    while (view := queue.get()) is not None:
        failure: BaseException | None = None
        try:
            hasher.update(view)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            failure = error
        del view
        idle.put(failure)


def hash_folder_contents(root: AnyPath, algorithm: str, progress_task: Task | None = None) -> Digest | None:
    """The peers' digest of a folder: the hash of its files' contents one after another (SCHEMA.md, "Checksums").

    A folder's own files in the order of their names' bytes, then its sub-folders in that order, depth first; names and
    sizes do not enter. Links to files are read through, linked folders are skipped, and a folder with a link that leads
    nowhere, or in a circle, has no such digest: None. Raises `Refused` for a device, a socket or a fifo and
    `MachineFailed` for what cannot be read.
    """
    hasher = _new_hasher(algorithm)
    buffer = make_buffer(_BUFFER_BYTES)
    folders = [os.fsencode(root)]
    while folders:
        folder = folders.pop()
        with machine_errors("read the folder", folder):
            files, below = _list_contents(folder)
        if files is None:
            return None
        for path in files:
            with machine_errors("read", path):
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    while count := os.readv(descriptor, [buffer]):
                        hasher.update(buffer[:count])
                        if progress_task is not None:
                            progress_task.advance(count)
                finally:
                    os.close(descriptor)
        folders.extend(reversed(below))
    return Digest(algorithm, hasher.digest().hex())


#: What following a link ends with that leads to nothing, to a place below a file, or in a circle.
_LEADS_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


def _list_contents(folder: bytes) -> tuple[list[bytes] | None, list[bytes]]:
    """(files to read, None with a dangling link among them; sub-folders to enter), both in name order"""
    files: list[bytes] = []
    below: list[bytes] = []
    with os.scandir(folder) as entries:
        listed = sorted(entries, key=_by_name)
    for entry in listed:
        if entry.is_dir(follow_symlinks=False):
            below.append(entry.path)
            continue
        if not entry.is_symlink() and entry.is_file(follow_symlinks=False):
            files.append(entry.path)
            continue
        try:
            mode = os.stat(entry.path).st_mode
        except OSError as error:
            if error.errno in _LEADS_NOWHERE:
                return None, below
            raise
        if stat.S_ISREG(mode):
            files.append(entry.path)
        elif not stat.S_ISDIR(mode):
            raise Refused(
                f"cannot hash '{display_path(entry.path)}': it is a device, a socket or a fifo",
                hint="datasets hold files, folders and links only; move it elsewhere",
                code="special-file",
            )
    return files, below


def _by_name(entry: os.DirEntry[bytes]) -> bytes:
    return entry.name

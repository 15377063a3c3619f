"""A file while it arrives: every byte is written once and hashed once, in order, and the size on disk is the truth.

Receiving, writing and hashing overlap: the caller's thread takes bytes in and writes them, the hasher's threads follow
one buffer behind. Space is reserved beyond the end of the file (the size stays what has really arrived), so that a disk
that is too small says so at the start and a killed process leaves no zeros that look like data.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from time import monotonic
from typing import Self

from dm.errors import MachineFailed
from dm.plumbing.fs.buffer import make_buffer
from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.fs.publish import ensure_folder, remove_tree
from dm.plumbing.hashing import MultiHasher
from dm.values import Digest

#: Bytes of one buffer: larger ones gain nothing in hashing and cost cache (techniques.md, "Download of 2 GiB").
BUFFER_BYTES = 1 << 20
#: Bytes of one write: ext4 takes pieces of 1 MiB at a fifth of the speed now and then, these always well (measured).
_WRITE_BYTES = 256 << 10
#: A body of at most this size is taken in at once, without threads.
SMALL_BYTES = 256 << 10
#: The first read of a long body; it grows and shrinks so that one read takes a fraction of a second.
_FIRST_READ_BYTES = 32 << 10
_SHORT_READ_S = 0.05
_LONG_READ_S = 0.5
#: Space is reserved from this size on: below, the file system does well by itself.
_RESERVE_BYTES = 8 << 20
_FALLOC_FL_KEEP_SIZE = 1
_OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

#: Fills a buffer from its beginning and says with how many bytes; 0 is the end.
Read = Callable[[memoryview], int]


class Partial:
    """The file that a transfer writes. Made by `create` or `reopen`; used by one thread; closed by `close`.

    Errors of this machine's disk are raised as `MachineFailed`; what the given ``read`` functions raise passes through
    and leaves the file with exactly the bytes that were counted.
    """

    def __init__(self, path: Path, descriptor: int, algorithms: Iterable[str]) -> None:
        self.path = path
        self.size_bytes = 0
        self._descriptor = descriptor
        self._algorithms = tuple(algorithms)
        self._hasher = MultiHasher(self._algorithms)
        self._buffers: tuple[memoryview, memoryview] | None = None

    @classmethod
    def create(cls, path: Path, algorithms: Iterable[str], *, executable: bool = False) -> Self:
        """Begin with an empty file. What lay at ``path`` is removed, never written to: it may be linked elsewhere."""
        mode = 0o777 if executable else 0o666
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with machine_errors("write", path):
            try:
                descriptor = os.open(path, flags, mode)
            except FileExistsError:
                remove_tree(path)
                descriptor = os.open(path, flags, mode)
            except (FileNotFoundError, NotADirectoryError):
                ensure_folder(path.parent)
                descriptor = os.open(path, flags, mode)
        return cls(path, descriptor, algorithms)

    @classmethod
    def reopen(cls, path: Path, algorithms: Iterable[str], usable: Callable[[int], int]) -> Self | None:
        """Go on with what lies at ``path``: cut to ``usable(size)`` bytes, which are hashed again, once.

        None when there is nothing to go on with: no file, no usable byte, or a file that is not ours alone (another
        name of it may be an object of the store).
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        partial = cls(path, descriptor, algorithms)
        try:
            about = os.fstat(descriptor)
            alone = stat.S_ISREG(about.st_mode) and about.st_nlink == 1
            keep = usable(about.st_size) if alone else 0
            if keep > 0:
                partial._hash_again(keep)
        except BaseException:
            partial.close()
            raise
        if keep > 0:
            return partial
        partial.close()
        return None

    def reserve(self, total_bytes: int) -> None:
        """Reserve room for ``total_bytes`` in all, where the file system can; a disk without it raises now."""
        if total_bytes < _RESERVE_BYTES or not sys.platform.startswith("linux"):
            return
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(libc, "fallocate"):
            return
        length = ctypes.c_longlong(total_bytes)
        failed = libc.fallocate(self._descriptor, _FALLOC_FL_KEEP_SIZE, ctypes.c_longlong(0), length)
        if failed and ctypes.get_errno() in _OUT_OF_SPACE:
            with machine_errors(f"reserve {total_bytes:,} bytes for", self.path):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def take_in(self, read: Read, expected_bytes: int | None, report: Callable[[int], None]) -> int:
        """Take bytes from ``read`` until ``expected_bytes`` have come or it gives 0; return how many came.

        ``report`` is told of every piece as it is written.
        """
        if expected_bytes is not None and expected_bytes <= SMALL_BYTES:
            return self._take_in_small(read, expected_bytes, report)
        return self._take_in_large(read, expected_bytes, report)

    def flush(self) -> None:
        """Have the bytes on the disk when this returns."""
        with machine_errors("write", self.path):
            getattr(os, "fdatasync", os.fsync)(self._descriptor)

    def begin_anew(self) -> None:
        """Forget every byte."""
        with machine_errors("write", self.path):
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
        self.size_bytes = 0
        self._hasher.close()
        self._hasher = MultiHasher(self._algorithms)

    def digests(self) -> dict[str, Digest]:
        """The digests of what has arrived."""
        return self._hasher.digests()

    def close(self) -> None:
        """Close the file. An error that the disk kept back until now is raised (a full disk may speak only here)."""
        self._hasher.close()
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with machine_errors("write", self.path):
                os.close(descriptor)

    def _hash_again(self, keep: int) -> None:
        left = keep

        def read(view: memoryview) -> int:
            nonlocal left
            count = os.readv(self._descriptor, [view[:left]]) if left else 0
            left -= count
            return count

        with machine_errors("read", self.path):
            os.ftruncate(self._descriptor, keep)
            self._take_in_large(read, keep, lambda count: None, write=False)
        if self.size_bytes != keep:
            raise MachineFailed(f"cannot read '{self.path}': it is shorter than it was a moment ago")

    def _take_in_small(self, read: Read, expected_bytes: int, report: Callable[[int], None]) -> int:
        buffer = memoryview(bytearray(expected_bytes))
        count = 0
        while True:
            got = read(buffer[count:])
            count += got
            if not got or count >= expected_bytes:
                break
        if count:
            self._hasher.update(buffer[:count])
            self._write(buffer[:count])
            report(count)
        return count

    def _take_in_large(
        self, read: Read, expected_bytes: int | None, report: Callable[[int], None], *, write: bool = True
    ) -> int:
        taken = 0
        size = _FIRST_READ_BYTES
        while expected_bytes is None or taken < expected_bytes:
            # In turns: what is in one is hashed behind our back while it is written and the other one is filled. Whose
            # turn it is stays from one call to the next, as the hashing of what was fed last does.
            buffer, other = self._ensure_buffers()
            begun = monotonic()
            count = read(buffer[:size])
            if not count:
                break
            size = _next_read_bytes(size, monotonic() - begun)
            self._hasher.feed(buffer[:count])
            self._buffers = other, buffer
            if write:
                self._write(buffer[:count])
            else:
                self.size_bytes += count
            taken += count
            report(count)
        return taken

    def _ensure_buffers(self) -> tuple[memoryview, memoryview]:
        if self._buffers is None:
            self._buffers = make_buffer(BUFFER_BYTES), make_buffer(BUFFER_BYTES)
        return self._buffers

    def _write(self, view: memoryview) -> None:
        with machine_errors("write", self.path):
            while view:
                count = os.write(self._descriptor, view[:_WRITE_BYTES])
                self.size_bytes += count
                view = view[count:]


def _next_read_bytes(size: int, took_s: float) -> int:
    """What a kill may lose and how often progress is told, against the cost of a call: a fraction of a second."""
    if took_s < _SHORT_READ_S:
        return min(size * 4, BUFFER_BYTES)
    if took_s > _LONG_READ_S:
        return max(size // 2, _FIRST_READ_BYTES // 2)
    return size

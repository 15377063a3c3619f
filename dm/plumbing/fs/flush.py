"""Making what was written survive a power cut: one file, one folder, or a whole batch at once."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterable

from dm.plumbing.fs.machine import AnyPath, machine_errors

#: What `fsync` of a folder answers where only files can be flushed (some network and FUSE mounts).
_NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES})


def flush_descriptor(descriptor: int) -> None:
    """Flush one open file to the disk, through the drive's own cache on macOS. Raises `OSError`."""
    if sys.platform == "darwin":
        import fcntl

        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EINVAL):
                raise
    os.fsync(descriptor)


def flush_file(path: AnyPath) -> None:
    """Flush one file to the disk. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        flush_descriptor(descriptor)
    finally:
        os.close(descriptor)


def flush_folder(folder: AnyPath) -> None:
    """Flush a folder's entries; silently nothing where the file system cannot. Raises `OSError` for real faults."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:
        return  # a drop-box folder may be written but not opened
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def flush_file_systems(paths: Iterable[AnyPath]) -> None:
    """Make what was written to ``paths`` (files, or folders with all below them) survive a power cut.

    One `syncfs` per file system where the kernel has it (Linux), so the cost does not grow with the number of paths;
    elsewhere every file and folder is flushed by itself. Missing paths are an error. Raises `MachineFailed`, also
    when an earlier write to that file system failed (Linux ≥ 5.8 says so at `syncfs`).
    """
    by_device: dict[int, list[AnyPath]] = {}
    for path in paths:
        with machine_errors("flush", path):
            by_device.setdefault(os.lstat(path).st_dev, []).append(path)
    for group in by_device.values():
        with machine_errors("flush", group[0]):
            if not _sync_file_system(group[0]):
                for path in group:
                    _flush_tree(os.fsencode(path))


_syncfs: Callable[[int], int] | None = None
_syncfs_missing = not sys.platform.startswith("linux")


def _sync_file_system(path: AnyPath) -> bool:
    """`syncfs` of the file system that holds ``path``; False where there is none."""
    global _syncfs, _syncfs_missing
    if _syncfs_missing:
        return False
    import ctypes

    if _syncfs is None:
        try:
            _syncfs = ctypes.CDLL(None, use_errno=True).syncfs
        except (OSError, AttributeError):
            _syncfs_missing = True
            return False
    folder = path if stat.S_ISDIR(os.lstat(path).st_mode) else os.path.dirname(os.fspath(path)) or "."
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _syncfs(descriptor) == 0:
            return True
        number = ctypes.get_errno()
    finally:
        os.close(descriptor)
    if number in (errno.ENOSYS, errno.EBADF):
        return False
    raise OSError(number, os.strerror(number))


def _flush_tree(path: bytes) -> None:
    status = os.lstat(path)
    if stat.S_ISDIR(status.st_mode):
        with os.scandir(path) as entries:
            for entry in entries:
                _flush_tree(entry.path)
        flush_folder(path)
    elif stat.S_ISREG(status.st_mode):
        flush_file(path)

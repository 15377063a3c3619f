"""Locks: who may change a document or a working copy now.

A document (manifest, state) is `dm`'s own: `DocumentLock`, a `flock`. A working copy is shared with other tools:
`CopyLock`, in two steps.

1. `dm` against `dm`: `flock` on ``<root>/.dm/locks/<name>``, a file that is never unlinked and holds the holder's
   text. The kernel drops it with a killed holder.
2. For the other tools: ``<copy>.lock``, text ``<pid> <hostname>``, made exclusively, touched every half stale age,
   removed only while it is ours.

The second is a hard link to the first wherever the file system has hard links: it appears at once with its text, and
whoever holds the `flock` and finds ``<copy>.lock`` to be that same file knows that its `dm` is dead, with no gap
between creating and recording. Without hard links, and where a link could not be removed again (another user's first
file, in a sticky folder), the file is created exclusively and its identity recorded in the second line of the first
file. Any other ``<copy>.lock`` is judged by the age rules of `marker.Judge`; where `flock` does not work those rules
stand alone.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from dm.plumbing.fs.flock import (
    ExclusiveLock,
    FileLock,
    SharedLock,
    Waiting,
    open_lock_file,
    raise_open_files_limit,
    read_holder,
    try_flock,
    unlock,
    write_holder,
)
from dm.plumbing.fs.machine import display_path, machine_errors
from dm.plumbing.fs.marker import Judge, create_marker, read_marker, remove_marker
from dm.plumbing.fs.publish import ensure_folder
from dm.plumbing.fs.touching import shared_toucher
from dm.progress import SILENT, Progress

#: Seconds after which an untouched lock of a dead process is stale, unless ``lock_stale_age`` says otherwise.
STALE_AGE_S = 30.0
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})

__all__ = ["STALE_AGE_S", "CopyLock", "DocumentLock", "ExclusiveLock", "FileLock", "SharedLock"]


class _HeldMarker:
    """A lock file of ours: kept touched, removed at the end while it is still the same file."""

    __slots__ = ("_descriptor", "_identity", "_own_descriptor", "_path")

    def __init__(
        self, path: str, descriptor: int, stale_age_s: float, progress: Progress, *, own_descriptor: bool
    ) -> None:
        self._path = path
        self._descriptor = descriptor
        self._own_descriptor = own_descriptor
        status = os.fstat(descriptor)
        self._identity = (status.st_dev, status.st_ino)

        def tell(error: OSError) -> None:
            reason = (error.strerror or "").lower()
            progress.warn(f"cannot touch the lock '{display_path(path)}': {reason}; others may take it for stale")

        shared_toucher().add(descriptor, stale_age_s / 2, tell)

    def release(self) -> bool:
        """Remove the file; False when another's file lies in its place, which stays."""
        shared_toucher().remove(self._descriptor)
        try:
            status = os.lstat(self._path)
            if (status.st_dev, status.st_ino) != self._identity:
                return False
            os.unlink(self._path)
        except FileNotFoundError:
            return True
        finally:
            if self._own_descriptor:
                os.close(self._descriptor)
        return True


class DocumentLock:
    """A `with` block that one process (and thread) at a time holds for a document of `dm`'s own.

    ``path`` is the lock's file, made when missing and never unlinked; ``describe`` names the document in messages;
    ``holder`` is the text that those who wait are shown (default: the process number; ``<pid> <hostname>`` is
    better). After a second of waiting `progress.note` names the holder. A killed holder's lock is free at once.
    ``waited`` says whether another was waited for: read the document again. Where the file system has no `flock`, a
    file ``<path>.held`` with the age rules of SCHEMA.md, "Locks", stands in. With ``timeout_s`` the wait ends with
    `MachineFailed` (code ``locked``), with ``should_stop`` (asked at every look) by ``interrupted``. Not re-entrant.
    """

    def __init__(
        self,
        path: Path,
        *,
        progress: Progress = SILENT,
        describe: str | None = None,
        holder: str | None = None,
        timeout_s: float | None = None,
        stale_age_s: float = STALE_AGE_S,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        self.path = path
        self.waited = False
        self._progress = progress
        self._waiting = Waiting(describe or f"'{display_path(path)}'", progress, timeout_s, should_stop)
        self._holder = str(os.getpid()) if holder is None else holder
        self._stale_age_s = stale_age_s
        self._descriptor = -1
        self._marker: _HeldMarker | None = None

    def __enter__(self) -> Self:
        with machine_errors("lock", self.path):
            self._waiting.begin()
            self._descriptor, writable = open_lock_file(self.path)
            try:
                while (taken := try_flock(self._descriptor)) is False:
                    self._waiting.pause(read_holder(self._descriptor))
                if taken is None:
                    self._take_marker()
                elif writable:
                    write_holder(self._descriptor, self._holder.encode(), os.fstat(self._descriptor).st_size)
            except BaseException:
                os.close(self._descriptor)
                raise
        self.waited = self._waiting.waited
        return self

    def _take_marker(self) -> None:
        path = f"{os.fspath(self.path)}.held"
        judge = Judge(self._holder.partition(" ")[2], self._stale_age_s)
        descriptor = _create_or_wait(path, self._holder.encode(), judge, self._waiting)
        self._marker = _HeldMarker(path, descriptor, self._stale_age_s, self._progress, own_descriptor=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        marker, self._marker = self._marker, None
        with machine_errors("unlock", self.path):
            try:
                if marker is not None:
                    marker.release()
            finally:
                unlock(self._descriptor)


def _create_or_wait(path: str, text: bytes, judge: Judge, waiting: Waiting) -> int:
    while True:
        try:
            return create_marker(path, text)
        except FileExistsError:
            seen = read_marker(path)
        if seen is not None:
            if judge.is_stale(seen):
                remove_marker(path, seen)
            else:
                waiting.pause(seen.text)


class CopyLock:
    """A `with` block that one process (and thread) at a time, of `dm` or of the other tools, holds for a working copy.

    ``name`` is the file's name in ``<root>/.dm/locks``: the BLAKE3 hex of the copy's path below the root.
    ``host_name`` and ``process_id`` make the text ``<pid> <hostname>`` of ``<copy>.lock``. The copy need not exist;
    missing folders above it are made, and removed again at the end when nothing was put into them.

    Waiting polls with a back-off of 10 to 250 ms; after a second `progress.note` names the holder. ``waited`` says
    whether another was waited for: look at the copy again, it may be there now. With ``timeout_s`` the wait ends
    with `MachineFailed` (code ``locked``). Any number may be held at once, each costs one descriptor (two where there
    are no hard links); all are touched by one thread. `acquire` and `release` are the block's two ends, for locks that
    are held across functions; any thread may release. Not re-entrant.

    Who holds one copy's lock while waiting for another's can wait for ever on a process that does the same the other
    way round: hold many only after having given each a ``timeout_s``, or ``should_stop``, which is asked at every look
    and ends the wait with `MachineFailed` (code ``interrupted``).

    After a crash the `flock` is free at once and ``<copy>.lock`` is known to be a dead `dm`'s; the other tools see it
    go stale after ``stale_age_s`` seconds.
    """

    def __init__(
        self,
        *,
        root: Path,
        copy: Path,
        name: str,
        host_name: str,
        process_id: int,
        stale_age_s: float = STALE_AGE_S,
        progress: Progress = SILENT,
        timeout_s: float | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        self.copy = copy
        self.waited = False
        self._root = root
        # Text, not `Path`: a batch locks thousands.
        self._private = f"{os.fspath(root)}/.dm/locks/{name}"
        self._path = f"{os.fspath(copy)}.lock"
        text = f"{process_id} {host_name}"
        self._text = text.encode()
        self._stale_age_s = stale_age_s
        self._progress = progress
        self._judge = Judge(host_name, stale_age_s)
        self._waiting = Waiting(f"'{display_path(copy)}'", progress, timeout_s, should_stop, text)
        self._descriptor = -1
        self._recorded = False
        self._marker: _HeldMarker | None = None
        self._made: list[Path] = []

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self) -> None:
        """Wait until the lock is ours. Raises `MachineFailed`; then nothing is held."""
        with machine_errors("lock", self.copy):
            self._waiting.begin()
            linkable, size_bytes = self._take_flock()
            try:
                self._marker = self._take_marker(linkable=linkable, size_bytes=size_bytes)
            except BaseException:
                unlock(self._descriptor)
                self._remove_made_folders()
                raise
        self.waited = self._waiting.waited

    def _take_flock(self) -> tuple[bool, int]:
        """Step one: (whether the private file is locked and can be written, its size in bytes)."""
        while True:
            self._descriptor, writable = open_lock_file(self._private, root=self._root)
            try:
                while (taken := try_flock(self._descriptor)) is False:
                    self._waiting.pause(read_holder(self._descriptor))
                status = os.fstat(self._descriptor)
                if taken is None or status.st_nlink:
                    return writable and taken is True, status.st_size
            except BaseException:
                os.close(self._descriptor)
                raise
            unlock(self._descriptor)  # someone removed the file from .dm/locks: this one guards nothing

    def _take_marker(self, *, linkable: bool, size_bytes: int) -> _HeldMarker:
        """Step two: make ``<copy>.lock``."""
        recorded = self._read_record() if linkable and size_bytes else None
        if linkable:
            write_holder(self._descriptor, self._text, size_bytes)
        link = linkable and self._can_remove_link()
        while True:
            try:
                if link:
                    os.link(self._private, self._path, follow_symlinks=False)
                    return self._hold(self._descriptor, own_descriptor=False)
                descriptor = create_marker(self._path, self._text)
            except FileExistsError:
                if self._meet(recorded, linkable=linkable):
                    return self._hold(self._descriptor, own_descriptor=False)
                continue
            except FileNotFoundError:
                self._made += ensure_folder(self.copy.parent, root=self._root)
                continue
            except OSError as error:
                if link and error.errno in _NO_HARD_LINKS:
                    link = False
                    continue
                if error.errno == errno.EMFILE and raise_open_files_limit():
                    continue
                raise
            if linkable:
                status = os.fstat(descriptor)
                record = b"%s\n%d %d\n" % (self._text, status.st_dev, status.st_ino)
                write_holder(self._descriptor, record, len(self._text))
                self._recorded = True
            return self._hold(descriptor, own_descriptor=True)

    def _can_remove_link(self) -> bool:
        """Not where the private file is another user's and the copy's folder is sticky: the link would stay there."""
        euid = os.geteuid()
        if os.fstat(self._descriptor).st_uid == euid:
            return True
        try:
            folder = os.stat(self.copy.parent)
        except FileNotFoundError:
            return True
        return not folder.st_mode & stat.S_ISVTX or folder.st_uid == euid

    def _meet(self, recorded: tuple[str, int, int] | None, *, linkable: bool) -> bool:
        """There is a ``<copy>.lock``. True when it is a dead `dm`'s link to our own file, which makes it ours."""
        seen = read_marker(self._path)
        if seen is None:
            return False
        if linkable:
            private = os.fstat(self._descriptor)
            if (seen.device, seen.inode) == (private.st_dev, private.st_ino):
                return True
        if recorded == (seen.text, seen.device, seen.inode) or self._judge.is_stale(seen):
            remove_marker(self._path, seen)
        else:
            self._waiting.pause(seen.text)
        return False

    def _read_record(self) -> tuple[str, int, int] | None:
        """Text, device and inode of the ``<copy>.lock`` that the last holder created without a hard link."""
        lines = os.pread(self._descriptor, 1000, 0).split(b"\n")
        numbers = lines[1].split() if len(lines) > 1 else []
        if len(numbers) != 2 or not all(number.isdigit() for number in numbers):
            return None
        return lines[0].decode("utf-8", "replace").strip(), int(numbers[0]), int(numbers[1])

    def _hold(self, descriptor: int, *, own_descriptor: bool) -> _HeldMarker:
        return _HeldMarker(self._path, descriptor, self._stale_age_s, self._progress, own_descriptor=own_descriptor)

    def release(self) -> None:
        """Let it go; nothing when it is not held."""
        marker, self._marker = self._marker, None
        if marker is None:
            return
        with machine_errors("unlock", self.copy):
            try:
                if not marker.release():
                    self._progress.warn(f"another process took over the lock of '{display_path(self.copy)}'")
                if self._recorded:
                    self._recorded = False
                    os.ftruncate(self._descriptor, 0)
            finally:
                unlock(self._descriptor)
            self._remove_made_folders()

    def _remove_made_folders(self) -> None:
        """Take back the folders that were made for the lock alone."""
        made, self._made = self._made, []
        for folder in reversed(made):
            try:
                os.rmdir(folder)
            except OSError:
                return  # in use, as it should be; or no longer there

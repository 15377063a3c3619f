"""Objects are read and held against their names: all of them, or in several runs those that a deadline allows.

Every byte is read, on all cores and in bounded memory, unless ``quick`` lets unchanged stat data stand for bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import starmap
from pathlib import Path
from typing import NamedTuple

from dm.environment import read_monotonic_s
from dm.errors import DmError, MachineFailed
from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.hashing import hash_blob, hash_blobs
from dm.plumbing.store.layout import Layout
from dm.plumbing.store.loose import describe_object, list_object_files, name_object, read_tree_file
from dm.plumbing.store.measure import SeenFile, SeenFiles
from dm.plumbing.store.objects import TreeEntry, decode_tree
from dm.plumbing.store.stamps import FolderIndex
from dm.plumbing.store.statcache import StatCache
from dm.progress import Progress, Task

_ROUND_FILES = 8192
_ROUND_BYTES = 4 << 30
# With a deadline it is asked more often: some seconds of a slow disk.
_TIMED_FILES = 1024
_TIMED_BYTES = 256 << 20


class ObjectLook(NamedTuple):
    """How to read objects. ``start``: those before this id were read by an earlier run. ``deadline_s`` (of
    `read_monotonic_s`): nothing is begun after it. ``quick``: what ``stat_cache`` vouches for is not read. ``stopped``
    is told what was found when Ctrl-C ends the look.
    """

    start: bytes | None = None
    deadline_s: float | None = None
    quick: bool = False
    stat_cache: StatCache | None = None
    stopped: Callable[[ExaminedObjects], None] | None = None


class ExaminedObjects(NamedTuple):
    """What reading objects found.

    ``sound`` are those that are what their names say, by id, with the bytes of their files; ``damaged`` those that are
    not, or that the disk does not give; ``unreadable`` those that may not be read, with the reason. ``trees`` are the
    entries of the trees that were read; ``seen`` what was seen of hard-linked files. ``present`` has all objects of the
    store, read or not. Of the bytes of the objects ``read_bytes`` were read and ``trusted_bytes`` were vouched for.
    Where the time was up, ``next`` is the first that was not looked at, with ``left`` and ``left_bytes`` counting from
    there; else None.
    """

    sound: dict[bytes, int]
    damaged: dict[bytes, Path]
    unreadable: dict[bytes, MachineFailed]
    trees: dict[bytes, list[TreeEntry]]
    seen: SeenFiles
    present: dict[bytes, int]
    read_bytes: int = 0
    trusted_bytes: int = 0
    next: bytes | None = None
    left: int = 0
    left_bytes: int = 0


class ObjectReader:
    """Reads the objects of one store, once."""

    def __init__(self, layout: Layout, look: ObjectLook, progress: Progress) -> None:
        self._layout = layout
        self._look = look
        self._progress = progress
        self._read_bytes = 0
        self._trusted_bytes = 0

    def read(self) -> ExaminedObjects:
        """Read them. Of what cannot be read the others are. Raises `MachineFailed` when they cannot be listed.

        Ctrl-C changes nothing; what was found until then is given to the look's ``stopped``.
        """
        cache, look = self._look.stat_cache, self._look
        clock_ns = 0
        if cache is not None and self._layout.is_there():
            with machine_errors("look at", self._layout.meta):
                clock_ns = cache.read_clock_ns(self._layout.meta, os.stat(self._layout.meta).st_dev)
        with machine_errors("read the objects in", self._layout.objects):
            found = list(list_object_files(self._layout)) if self._layout.is_there() else []
        present = {raw: status.st_size for raw, status in found}
        examined = ExaminedObjects({}, {}, {}, {}, {}, present)
        known = self._recall(found)
        todo = [each for each in found if look.start is None or each[0] >= look.start]
        count = 0
        total = sum(status.st_size for raw, status in todo if known.get(raw) != raw or not look.quick)
        try:
            with self._progress.start("objects", total=total) as task:
                for some in _share_out(todo, timed=look.deadline_s is not None or look.stopped is not None):
                    if look.deadline_s is not None and read_monotonic_s() >= look.deadline_s:
                        break
                    self._read_some(some, known, examined, task)
                    count += len(some)
        except KeyboardInterrupt:
            if look.stopped is not None:
                look.stopped(self._sum_up(examined, todo[count:]))
            raise
        if cache is not None and self._read_bytes:
            ids = [known.get(raw) for raw, _ in found]
            index = FolderIndex.pack(list(starmap(describe_object, found)), ids, clock_ns=clock_ns)
            cache.record_folder(self._layout.objects, index)
        return self._sum_up(examined, todo[count:])

    def _sum_up(self, examined: ExaminedObjects, left: Sequence[tuple[bytes, os.stat_result]]) -> ExaminedObjects:
        return examined._replace(
            read_bytes=self._read_bytes,
            trusted_bytes=self._trusted_bytes,
            next=left[0][0] if left else None,
            left=len(left),
            left_bytes=sum(status.st_size for _, status in left),
        )

    def _recall(self, found: list[tuple[bytes, os.stat_result]]) -> dict[bytes, bytes]:
        """The ids of files' bytes that the stat cache vouches for."""
        cache = self._look.stat_cache
        index = None if cache is None else cache.lookup_folder(self._layout.objects)
        if index is None:
            return {}
        match = index.match(list(starmap(describe_object, found)))
        return {raw: blob_id for (raw, _), blob_id in zip(found, match.ids, strict=True) if blob_id is not None}

    def _read_some(
        self,
        some: list[tuple[bytes, os.stat_result]],
        known: dict[bytes, bytes],
        examined: ExaminedObjects,
        task: Task,
    ) -> None:
        unread = []
        for raw, status in some:
            # A tree's entries are wanted, so that it is read in any case: it is small.
            if self._look.quick and known.get(raw) == raw:
                self._trusted_bytes += status.st_size
                self._note_sound(raw, status, examined)
            else:
                unread.append((raw, status))
        names = [name_object(raw) for raw, _ in unread]
        sizes = [status.st_size for _, status in unread]
        ids: Sequence[bytes | None]
        try:
            ids = hash_blobs(self._layout.objects, names, sizes, task)
        except DmError:
            ids = [self._read_alone(raw, examined) for raw, _ in unread]  # one cannot be read: which?
        self._read_bytes += sum(sizes)
        for (raw, status), blob_id in zip(unread, ids, strict=True):
            if blob_id is not None:
                known[raw] = blob_id
                self._judge(raw, status, blob_id, examined)

    def _read_alone(self, raw: bytes, examined: ExaminedObjects) -> bytes | None:
        """The id of an object's bytes; None where they cannot be read, which is noted."""
        path = self._layout.object_path(raw)
        try:
            return hash_blob(path)
        except MachineFailed as error:
            if error.code == "missing":
                examined.present.pop(raw, None)  # pruned meanwhile
            elif error.code == "io-error":
                examined.damaged[raw] = Path(path)
            else:
                examined.unreadable[raw] = error
            return None

    def _judge(self, raw: bytes, status: os.stat_result, blob_id: bytes, examined: ExaminedObjects) -> None:
        path = self._layout.object_path(raw)
        if blob_id == raw:
            self._note_sound(raw, status, examined)
            return
        try:
            data = read_tree_file(path, raw, status.st_size)
            entries = None if data is None else decode_tree(data)
        except (OSError, DmError):  # whoever wrote a tree that is none hashed nonsense
            entries = None
        if entries is None:
            examined.damaged[raw] = Path(path)
            return
        examined.trees[raw] = entries
        examined.sound[raw] = status.st_size

    def _note_sound(self, raw: bytes, status: os.stat_result, examined: ExaminedObjects) -> None:
        examined.sound[raw] = status.st_size
        if status.st_nlink > 1 and not self._look.quick:
            stamp = SeenFile(status.st_size, status.st_mtime_ns, status.st_ctime_ns, raw)
            examined.seen[status.st_dev, status.st_ino] = stamp


def _share_out(
    found: list[tuple[bytes, os.stat_result]], *, timed: bool
) -> Iterator[list[tuple[bytes, os.stat_result]]]:
    most_files, most_bytes = (_TIMED_FILES, _TIMED_BYTES) if timed else (_ROUND_FILES, _ROUND_BYTES)
    some: list[tuple[bytes, os.stat_result]] = []
    size_bytes = 0
    for each in found:
        some.append(each)
        size_bytes += each[1].st_size
        if len(some) >= most_files or size_bytes >= most_bytes:
            yield some
            some, size_bytes = [], 0
    if some:
        yield some

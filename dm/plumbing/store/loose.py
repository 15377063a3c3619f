"""Objects as loose files: found, verified before use, read, listed.

An object is used only after its bytes were read and found to be those of its name, unless the stat cache vouches for
them: what lies on a disk may have been changed through a hard link, or by the disk.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from dm.errors import ContentMismatch
from dm.plumbing.fs.machine import display_path, machine_errors
from dm.plumbing.fs.walk import Entry
from dm.plumbing.hashing import hash_blob, hash_blobs, tree_id_of
from dm.plumbing.store.layout import Layout
from dm.plumbing.store.objects import TreeEntry, decode_tree, no_object
from dm.plumbing.store.stamps import NLINK_UNKNOWN, FolderIndex, Stamp
from dm.plumbing.store.statcache import StatCache
from dm.progress import SILENT, Progress
from dm.values import Digest

#: Enough of a file to see whether it may be a tree: mode, id, a size of 19 digits, a tab.
_HEAD_BYTES = 6 + 1 + 64 + 1 + 19 + 1
# The stat cache keeps a file's kind; what is executable is said by trees, not by objects.
_OBJECT_MODE = stat.S_IFREG | 0o444
# All but reading: what a file may not be a hard link to.
_EXPOSED_BITS = 0o7777 & ~0o444
_TREE_MODES = (b"100644 ", b"100755 ", b"120000 ", b"040000 ")


class Examined(NamedTuple):
    """Objects that were looked at, by id: those that are ``sound``, that have other bytes, that are not there; and the
    ``exposed``, sound or not, that are not read-only or can be executed: a hard link to one would be so too.
    """

    sound: set[bytes]
    damaged: set[bytes]
    missing: set[bytes]
    exposed: set[bytes]


class LooseObjects:
    """The objects of one store. Reading makes nothing; a store that is not there has none."""

    def __init__(self, layout: Layout, stat_cache: StatCache | None) -> None:
        self._layout = layout
        self._cache = stat_cache

    def has(self, digest: Digest) -> bool:
        """Whether the object is there."""
        if digest.algorithm not in ("blake3", "blake3-tree") or not self._layout.is_there():
            return False
        return os.path.exists(self._layout.object_path(digest.raw))

    def find_object(self, raw: bytes) -> Digest | None:
        """The id of the object that these 32 bytes name, blob or tree as its content tells; None when none is here."""
        blob = Digest.of_blob(raw)
        if not self.has(blob):
            return None
        path = self._layout.object_path(raw)
        with machine_errors("read the object", path):
            try:
                return Digest.of_tree(raw) if _is_tree(path, raw, os.path.getsize(path)) else blob
            except FileNotFoundError:
                return None  # pruned meanwhile

    def size(self, digest: Digest) -> int:
        """The content's bytes; for a tree the sum below it."""
        if digest.is_tree:
            return sum(entry.size for entry in self.read_tree(digest))
        path = self._find(digest)
        with machine_errors("read the object", path):
            return os.stat(path).st_size

    def open_blob(self, digest: Digest) -> BinaryIO:
        """The blob's bytes, verified."""
        if digest.is_tree:
            raise self._missing(digest)
        path = self._find(digest)
        self.require([(digest.raw, None)])
        with machine_errors("read the object", path):
            return open(path, "rb")

    def read_tree(self, digest: Digest) -> list[TreeEntry]:
        """The folder's entries, verified."""
        if not digest.is_tree:
            raise self._missing(digest)
        path = self._find(digest)
        with machine_errors("read the object", path):
            with open(path, "rb", opener=_open_without_waiting) as file:
                data = file.read()
        if tree_id_of(data) != digest.raw:
            raise self._damaged(digest)
        return decode_tree(data)

    def require(
        self,
        wanted: Sequence[tuple[bytes, int | None]],
        *,
        tree: bytes | None = None,
        progress: Progress = SILENT,
    ) -> set[bytes]:
        """Make sure that these blobs (id, and size where known) can be used; return the `Examined.exposed` ones.

        ``tree`` is the tree that they are all of, if there is one: the stat cache keeps them together. Raises
        `NotFound` and `ContentMismatch`.
        """
        examined = self.examine(wanted, tree=tree, progress=progress)
        for raw in sorted(examined.missing):
            raise self._missing(Digest.of_blob(raw))
        for raw in sorted(examined.damaged):
            raise self._damaged(Digest.of_blob(raw))
        return examined.exposed

    def examine(
        self,
        wanted: Iterable[tuple[bytes, int | None]],
        *,
        tree: bytes | None = None,
        anew: bool = False,
        progress: Progress = SILENT,
    ) -> Examined:
        """Look at blobs: are they there, and are their bytes those of their names? What is read is recorded; with
        ``anew`` all are.
        """
        expected = dict(wanted)
        clock_ns = 0
        if self._cache is not None and expected and self._layout.is_there():
            meta = self._layout.meta
            with machine_errors("look at", meta):
                clock_ns = self._cache.read_clock_ns(meta, os.stat(meta).st_dev, fresh=len(expected) > 1)
        seen = self._look_at(sorted(expected), expected)
        raws = seen.raws
        ids: list[bytes | None] = [None] * len(raws)
        if self._cache is not None and not anew:
            ids = self._ask_cache(seen, tree)
        if ids == raws:  # the usual case: all are vouched for
            return Examined(set(raws), seen.damaged, seen.missing, seen.exposed)
        ids = [found if found == raw else None for found, raw in zip(ids, raws, strict=True)]
        unread = [position for position, found in enumerate(ids) if found is None]
        self._read(seen, unread, ids, progress)
        sound = {raw for raw, found in zip(raws, ids, strict=True) if found == raw}
        damaged = seen.damaged.union(raw for raw in raws if raw not in sound)
        if self._cache is not None:
            self._record(seen, ids, tree, clock_ns)
        return Examined(sound, damaged, seen.missing, seen.exposed)

    def protect(self, exposed: Iterable[bytes]) -> set[bytes]:
        """Make objects read-only again, and with them the files that are hard links to them; somebody changed their
        mode. Return those that cannot be (another user's, a read-only file system): no file may be a link to them.
        """
        stay = set()
        for raw in exposed:
            path = self._layout.object_path(raw)
            try:
                os.chmod(path, os.stat(path).st_mode & 0o444)
            except OSError:
                stay.add(raw)
        return stay

    def record_linked(
        self, tree: bytes, entries: Iterable[Entry], ids: Iterable[bytes], *, clock_ns: int
    ) -> None:
        """Record the objects of a tree that were just made by linking the files ``entries``, seen and hashed before."""
        if self._cache is None:
            return
        linked = {
            raw: _make_entry(name_object(raw), entry, nlink=NLINK_UNKNOWN)
            for entry, raw in zip(entries, ids, strict=True)
            if entry.kind == "file" and not entry.mode & 0o100
        }
        ordered = sorted(linked)
        index = FolderIndex.pack([linked[raw] for raw in ordered], ordered, clock_ns=clock_ns)
        self._cache.record_folder(self._layout.root, index, tree=tree)

    def list_objects(self) -> Iterator[tuple[Digest, int]]:
        """Every object in the order of its hex, with the bytes of its file. Other files are passed over."""
        if not self._layout.is_there():
            return
        with machine_errors("list the objects in", self._layout.objects):
            for raw, status in list_object_files(self._layout):
                is_tree = _is_tree(self._layout.object_path(raw), raw, status.st_size)
                yield Digest.of_tree(raw) if is_tree else Digest.of_blob(raw), status.st_size

    # Inside

    def _find(self, digest: Digest) -> str:
        if not self.has(digest):
            raise self._missing(digest)
        return self._layout.object_path(digest.raw)

    def _missing(self, digest: Digest) -> Exception:
        return no_object(digest, f"in '{display_path(self._layout.root)}'")

    def _damaged(self, digest: Digest) -> ContentMismatch:
        path = self._layout.object_path(digest.raw)
        return ContentMismatch(
            f"damaged object '{display_path(path)}': its bytes are not those of {digest.short}",
            hint="fetch or publish what it belongs to again: a sound one then takes its place",
            code="object-damaged",
        )

    def _look_at(self, ids: Sequence[bytes], expected: dict[bytes, int | None]) -> _Seen:
        seen = _Seen([], [], set(), set(), set())
        if not self._layout.is_there():
            seen.missing.update(ids)
            return seen
        object_path, lstat, describe = self._layout.object_path, os.lstat, describe_object
        for raw in ids:
            path = object_path(raw)
            try:
                status = lstat(path)
            except FileNotFoundError:
                seen.missing.add(raw)
                continue
            except OSError as error:
                with machine_errors("look at the object", path):
                    raise error
            size, mode = expected[raw], status.st_mode
            if not stat.S_ISREG(mode) or (size is not None and size != status.st_size):
                seen.damaged.add(raw)
                continue
            if mode & _EXPOSED_BITS:
                seen.exposed.add(raw)
            seen.raws.append(raw)
            seen.entries.append(describe(raw, status))
        return seen

    def _ask_cache(self, seen: _Seen, tree: bytes | None) -> list[bytes | None]:
        cache, layout = self._cache, self._layout
        assert cache is not None
        if tree is not None:
            index = cache.lookup_folder(layout.root, tree=tree)
            return [None] * len(seen.raws) if index is None else index.match(seen.entries).ids
        found: list[bytes | None] = []
        for raw, entry in zip(seen.raws, seen.entries, strict=True):
            record = cache.lookup_file(Path(layout.object_path(raw)))
            vouched = record is not None and record.stamp.vouches_for(Stamp.of_entry(entry))
            found.append(record.id if vouched and record is not None else None)
        return found

    def _read(self, seen: _Seen, unread: Sequence[int], ids: list[bytes | None], progress: Progress) -> None:
        sizes = [seen.entries[position].size for position in unread]
        with progress.start("verifying objects", total=sum(sizes)) as task:
            if len(unread) == 1:
                ids[unread[0]] = hash_blob(self._layout.object_path(seen.raws[unread[0]]), task)
                return
            names = [seen.entries[position].name for position in unread]
            for position, found in zip(unread, hash_blobs(self._layout.objects, names, sizes, task), strict=True):
                ids[position] = found

    def _record(self, seen: _Seen, ids: Sequence[bytes | None], tree: bytes | None, clock_ns: int) -> None:
        cache, layout = self._cache, self._layout
        assert cache is not None
        if tree is not None:
            index = FolderIndex.pack(seen.entries, ids, clock_ns=clock_ns)
            cache.record_folder(layout.root, index, tree=tree)
            return
        with cache.batch():
            for raw, entry, found in zip(seen.raws, seen.entries, ids, strict=True):
                if found is not None:
                    path = Path(layout.object_path(raw))
                    cache.record_file(path, Stamp.of_entry(entry), found, clock_ns=clock_ns)


class _Seen(NamedTuple):
    """A look at objects: ids and stat data, in step, of those that may be sound; the rest as in `Examined`."""

    raws: list[bytes]
    entries: list[Entry]
    damaged: set[bytes]
    missing: set[bytes]
    exposed: set[bytes]


def list_object_files(layout: Layout) -> Iterator[tuple[bytes, os.stat_result]]:
    """The id that each object's file has for its name, in their order, and its stat data. Raises `OSError`."""
    top = os.fspath(layout.objects)
    for folder in _list(top, length=2):
        for name in _list(f"{top}/{folder}", length=62):
            try:
                status = os.lstat(f"{top}/{folder}/{name}")
            except FileNotFoundError:
                continue  # pruned meanwhile
            if stat.S_ISREG(status.st_mode):
                yield bytes.fromhex(folder + name), status


def name_object(raw: bytes) -> bytes:
    """The name of an object's file below the folder of the objects."""
    name = raw.hex()
    return f"{name[:2]}/{name[2:]}".encode()


def describe_object(raw: bytes, status: os.stat_result) -> Entry:
    """An object's file as the stat cache keeps it."""
    # The name and the kind stand for the id; an object's mode says nothing about the files made from it.
    return Entry(
        name_object(raw),
        "file",
        _OBJECT_MODE,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
        status.st_dev,
        status.st_nlink,
    )


def _make_entry(name: bytes, entry: Entry, *, nlink: int) -> Entry:
    _, kind, _, size, mtime_ns, ctime_ns, inode, device, _ = entry
    return Entry(name, kind, _OBJECT_MODE, size, mtime_ns, ctime_ns, inode, device, nlink)


def _list(folder: str, *, length: int) -> list[str]:
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(name for name in names if is_hex(name, length))


def is_hex(name: str, length: int) -> bool:
    """Whether a name is so many lower-case hex digits."""
    return len(name) == length and not name.strip("0123456789abcdef")


def _open_without_waiting(path: str, flags: int) -> int:
    """For `open`: a fifo that lies in an object's place is empty, nobody is waited for."""
    return os.open(path, flags | os.O_NONBLOCK)


def _is_tree(path: str, raw: bytes, size: int) -> bool:
    return read_tree_file(path, raw, size) is not None


def read_tree_file(path: str, raw: bytes, size: int) -> bytes | None:
    """What is in an object's file where that is a tree, which only trees have the id of; else None, and of large files
    no more than their first bytes was read. Raises `OSError`.
    """
    if size == 0:
        return b"" if raw == tree_id_of(b"") else None
    with open(path, "rb", buffering=0) as file:
        head = file.read(_HEAD_BYTES) or b""
        if not head.startswith(_TREE_MODES) or b"\t" not in head:
            return None
        file.seek(0)
        data = file.readall()
        return data if tree_id_of(data) == raw else None

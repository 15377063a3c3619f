"""What lies at a path: the id of the bytes on disk, a blob's or a tree's (SCHEMA.md, "The store").

Every byte is read, on all cores and in chunks, unless ``quick`` is asked for: then what the stat cache vouches for is
believed, and the answer says how many files and bytes were not read. What is read is recorded in the stat cache.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dm.errors import Refused
from dm.plumbing.fs.buffer import make_buffer
from dm.plumbing.fs.machine import display_path, machine_errors
from dm.plumbing.fs.walk import Entry, Walk, walk_tree
from dm.plumbing.store.markers import MARKER_NAME
from dm.plumbing.store.objects import EXECUTABLE_MODE, FILE_MODE, FOLDER_MODE, LINK_MODE, TreeEntry, tree_id
from dm.plumbing.store.stamps import NO_ID, FolderIndex, Stamp
from dm.plumbing.store.statcache import StatCache
from dm.progress import SILENT, Progress, Task
from dm.values import Digest

# The empty file at the top of a folder copy that says that it is complete; no part of the copy.
_MARKER_NAME = MARKER_NAME.encode()
_ID_ALGORITHMS = ("blake3", "blake3-tree")
# Read at once where a file is hashed in two algorithms, twice over.
_BUFFER_BYTES = 1 << 20
# What is hashed between two looks at what is done, so that an interruption costs little of it.
_ROUND_FILES = 8192
_ROUND_BYTES = 4 << 30


class Measured(NamedTuple):
    """What was found at a path.

    ``digest`` is its id: ``blake3`` for a file, ``blake3-tree`` for a folder; ``checksum`` its digest in the other
    algorithm that was asked for, else None. ``size_bytes`` and ``files`` count files and links; ``read_bytes`` is what
    was read, ``trusted_bytes`` and ``trusted_files`` what the stat cache vouched for. For a folder ``entries`` is the
    walk, without the marker, and ``ids`` the id of each entry (32 zero bytes for a folder), for `build_trees`.
    """

    digest: Digest
    size_bytes: int
    files: int
    read_bytes: int
    trusted_bytes: int = 0
    trusted_files: int = 0
    checksum: Digest | None = None
    entries: Sequence[Entry] = ()
    ids: Sequence[bytes] = ()


class Checksummed(NamedTuple):
    """A file's or folder's digest in a plain algorithm.

    ``checksum`` is None for a folder that has none (a dangling link in it); ``digest`` the id, where it is known. The
    rest as in `Measured`.
    """

    checksum: Digest | None
    digest: Digest | None
    size_bytes: int
    files: int
    read_bytes: int
    trusted_bytes: int = 0
    trusted_files: int = 0


class SeenFile(NamedTuple):
    """A file that was read in this run: its size, its times (nanoseconds since the epoch) and the id of its bytes."""

    size: int
    mtime_ns: int
    ctime_ns: int
    id: bytes


#: Files that were read in this run, by device and inode: one that is hard-linked is not read again under another name.
SeenFiles = dict[tuple[int, int], SeenFile]


class BuiltTree(NamedTuple):
    """One folder of a walk as a tree object: id, bytes and number of files below it, entries in their order."""

    id: bytes
    size_bytes: int
    files: int
    entries: list[TreeEntry]


def measure_copy(
    path: Path,
    *,
    algorithm: str = "blake3",
    stat_cache: StatCache | None = None,
    quick: bool = False,
    ref_root: Path | None = None,
    seen: SeenFiles | None = None,
    progress: Progress = SILENT,
) -> Measured:
    """Measure the file or folder at ``path``; a link there is followed, one below it is not.

    With an ``algorithm`` other than blake3 the checksum in it is measured too: for a file in the same pass, for a
    folder (the peers' digest of its contents) in a second one. ``quick`` believes the stat cache. ``ref_root``, the
    store root that ``path`` is in, is where the file system's clock is asked (in its ``.dm``). ``seen`` are files that
    were read in this run, and count as read here too while their stat data are as then.

    Raises `MachineFailed` when something cannot be read or vanishes meanwhile, `Refused` for a device, socket or fifo.
    Interrupting it loses the work of a full measurement; a quick one keeps what it has read of a folder so far.
    """
    other = None if algorithm in _ID_ALGORITHMS else algorithm
    with machine_errors("read", path):
        status = os.stat(path)
    clock_folder = None if ref_root is None else ref_root / ".dm"
    measurement = _Measurement(path, other, stat_cache, quick, clock_folder, progress, seen or {})
    if stat.S_ISDIR(status.st_mode):
        return measurement.measure_folder()
    return measurement.measure_file(status)


def measure_checksum(
    path: Path,
    algorithm: str,
    *,
    stat_cache: StatCache | None = None,
    quick: bool = False,
    ref_root: Path | None = None,
    progress: Progress = SILENT,
) -> Checksummed:
    """Measure what a contract in a plain algorithm speaks of; raises as `measure_copy` does.

    A file's hash, with its blob id from the same pass; the peers' digest of a folder's contents (SCHEMA.md,
    "Checksums"), also for ``blake3``. A folder is read once for it, so that its tree id is not known then; a quick
    measurement of a folder is quick only where `measure_copy` has measured this algorithm before.
    """
    with machine_errors("read", path):
        status = os.stat(path)
    folder = None if ref_root is None else ref_root / ".dm"
    if stat.S_ISDIR(status.st_mode):
        return _Measurement(path, algorithm, stat_cache, quick, folder, progress).measure_contents()
    other = None if algorithm == "blake3" else algorithm
    measured = _Measurement(path, other, stat_cache, quick, folder, progress).measure_file(status)
    return _checksummed(measured, measured.checksum if other else measured.digest)


def recall_file(path: Path, algorithm: str, stat_cache: StatCache) -> Measured | None:
    """What `measure_copy` would say of a file, with its checksum in ``algorithm``, where the stat cache vouches for
    both; else None, also for a folder: nothing is read.
    """
    with machine_errors("read", path):
        stamp = Stamp.of_stat(os.stat(path))
    return _recall(path, stamp, None if algorithm in _ID_ALGORITHMS else algorithm, stat_cache)


def build_trees(entries: Iterable[Entry], ids: Iterable[bytes]) -> dict[bytes, BuiltTree]:
    """Make the tree objects of a walk: one for each folder, found by its name, the walk's root by ``b""``.

    ``ids`` are the blob ids of the entries, in step; those of folders are not looked at. Folders come before what
    holds them, so that objects may be written in the order of the answer.
    """
    inside: dict[bytes, list[TreeEntry]] = {b"": []}
    folders = [b""]
    make = TreeEntry._make
    for entry, id in zip(entries, ids, strict=True):
        name = entry.name
        if entry.kind == "folder":
            folders.append(name)
            inside.setdefault(name, [])
            continue
        parent, _, last = name.rpartition(b"/")
        mode = LINK_MODE if entry.kind == "link" else EXECUTABLE_MODE if entry.mode & 0o100 else FILE_MODE
        inside.setdefault(parent, []).append(make((last, mode, id, entry.size)))
    # The deepest first: a folder's id needs those of the folders in it.
    folders.sort(key=_depth_of, reverse=True)
    built: dict[bytes, BuiltTree] = {}
    files_below = dict.fromkeys(folders, 0)
    for name in folders:
        listed = inside[name]
        listed.sort()
        size = sum([each.size for each in listed])
        files = files_below[name] + sum([each.mode != FOLDER_MODE for each in listed])
        tree = BuiltTree(tree_id(listed), size, files, listed)
        built[name] = tree
        if name:
            parent, _, last = name.rpartition(b"/")
            inside[parent].append(make((last, FOLDER_MODE, tree.id, size)))
            files_below[parent] += files
    return built


def scan_copy(path: Path) -> list[Entry]:
    """Walk a folder copy, leaving out the marker at its top (only where it is an empty file)."""
    return _walk_copy(path).entries


def _walk_copy(path: Path) -> Walk:
    walk = walk_tree(path)
    if _MARKER_NAME in walk.names:
        at = walk.names.index(_MARKER_NAME)
        mode, size, *_ = walk.stats[at]
        if stat.S_ISREG(mode) and not size:
            del walk.names[at], walk.stats[at]
    return walk


class _Measurement:
    """One measurement under way: what was asked, in one place."""

    def __init__(
        self,
        path: Path,
        other: str | None,
        cache: StatCache | None,
        quick: bool,
        clock_folder: Path | None,
        progress: Progress,
        seen: SeenFiles | None = None,
    ) -> None:
        self.seen = seen or {}
        self.path = path
        self.other = other
        self.cache = cache
        self.quick = quick
        self.clock_folder = clock_folder
        self.progress = progress

    def measure_file(self, status: os.stat_result) -> Measured:
        cache, path, other = self.cache, self.path, self.other
        if not stat.S_ISREG(status.st_mode):  # a clone may bring a link to one, which would be read for ever
            message = f"cannot read '{display_path(path)}': it is neither a file nor a folder"
            raise Refused(message, hint="remove it, or the link that leads to it", code="special-file")
        stamp = Stamp.of_stat(status)
        clock_ns = 0
        if cache is not None:
            recalled = _recall(path, stamp, other, cache) if self.quick else None
            if recalled is not None:
                return recalled
            clock_ns = cache.read_clock_ns(self.clock_folder, stamp.device, fresh=False)
            if stamp.is_racy(clock_ns):
                clock_ns = cache.read_clock_ns(self.clock_folder, stamp.device)
            with machine_errors("read", path):
                stamp = Stamp.of_stat(os.stat(path))
        known = self._find_seen(stamp.device, stamp.inode, stamp.size, stamp.mtime_ns, stamp.ctime_ns)
        if known is not None and other is None:
            digest, checksum, read_bytes = Digest.of_blob(known), None, 0
        else:
            read_bytes = stamp.size
            with self.progress.start(path.name, total=stamp.size) as task:
                digests = _hash_file(path, other, task)
            digest, checksum = digests["blake3"], digests[other] if other else None
        if cache is not None:
            checksums = () if checksum is None else (checksum,)
            cache.record_file(path, stamp, digest.raw, clock_ns=clock_ns, checksums=checksums)
        return Measured(digest, stamp.size, 1, read_bytes, checksum=checksum)

    def measure_folder(self) -> Measured:
        cache, path = self.cache, self.path
        index = cache.lookup_folder(path) if cache is not None and self.quick else None
        ids: list[bytes | None] = []
        linked: dict[int, tuple[int, int]] = {}
        if index is not None:
            walk = _walk_copy(path)
            match = index.match(walk)
            checksum = self._find_checksum(index, walk)
            if match.unchanged and (checksum or not self.other):
                return _trusted(index, walk, match.ids, checksum)
        clock_ns = self._read_clock()
        entries = scan_copy(path)
        if index is not None:
            ids, _, linked = index.match(entries)
        else:
            ids = [NO_ID if entry.kind == "folder" else None for entry in entries]
        trusted = [entry.size for entry, id in zip(entries, ids, strict=True) if id is not None and id != NO_ID]
        if self.seen:
            for position, entry in enumerate(entries):
                if entry.nlink > 1 and ids[position] is None:
                    _, _, _, size, mtime_ns, ctime_ns, inode, device, _ = entry
                    ids[position] = self._find_seen(device, inode, size, mtime_ns, ctime_ns)
        unread = [position for position, id in enumerate(ids) if id is None]
        # Where ctime was not asked, what was recorded stays recorded: nothing was read.
        recorded = list(entries)
        for position, (ctime_ns, nlink) in linked.items():
            recorded[position] = recorded[position]._replace(ctime_ns=ctime_ns, nlink=nlink)
        read_bytes = sum([entries[position].size for position in unread])
        try:
            if unread:
                with self.progress.start(path.name, total=read_bytes) as task:
                    _hash_entries(path, entries, unread, ids, task)
        except BaseException:
            if self.quick and cache is not None:
                cache.record_folder(path, FolderIndex.pack(recorded, ids, clock_ns=clock_ns))
            raise
        known = [NO_ID if id is None else id for id in ids]
        root = build_trees(entries, known)[b""]
        checksum = self._hash_contents(root.size_bytes) if self.other else None
        if cache is not None:
            checksums = () if checksum is None else (checksum,)
            packed = FolderIndex.pack(recorded, known, clock_ns=clock_ns, id=root.id, checksums=checksums)
            cache.record_folder(path, packed)
        return Measured(
            Digest.of_tree(root.id),
            root.size_bytes,
            root.files,
            read_bytes,
            sum(trusted),
            len(trusted),
            checksum,
            entries,
            known,
        )

    def measure_contents(self) -> Checksummed:
        """The folder's digest in the other algorithm alone."""
        entries = scan_copy(self.path)
        if self.cache is not None and self.quick:
            index = self.cache.lookup_folder(self.path)
            if index is not None:
                checksum = self._find_checksum(index, entries)
                match = index.match(entries)
                if checksum is not None and match.unchanged:
                    return _checksummed(_trusted(index, entries, match.ids, checksum), checksum)
        sizes = [entry.size for entry in entries if entry.kind != "folder"]
        return Checksummed(self._hash_contents(sum(sizes)), None, sum(sizes), len(sizes), sum(sizes))

    def _find_seen(self, device: int, inode: int, size: int, mtime_ns: int, ctime_ns: int) -> bytes | None:
        """The id of a file that was read in this run under another name and was not touched since."""
        seen = self.seen.get((device, inode))
        return seen.id if seen is not None and seen[:3] == (size, mtime_ns, ctime_ns) else None

    def _read_clock(self) -> int:
        if self.cache is None:
            return 0
        with machine_errors("read the folder", self.path):
            device = os.stat(self.path).st_dev
        return self.cache.read_clock_ns(self.clock_folder, device)

    def _find_checksum(self, index: FolderIndex, entries: Sequence[Entry]) -> Digest | None:
        # The peers read through links, whose targets no stamp of this folder speaks for.
        if self.other is None or any(entry.kind == "link" for entry in entries):
            return None
        return index.find_checksum(self.other)

    def _hash_contents(self, size_bytes: int) -> Digest | None:
        from dm.plumbing.hashing import hash_folder_contents

        assert self.other is not None
        with self.progress.start(f"{self.path.name} ({self.other})", total=size_bytes) as task:
            return hash_folder_contents(self.path, self.other, task)


def _recall(path: Path, stamp: Stamp, other: str | None, cache: StatCache) -> Measured | None:
    record = cache.lookup_file(path)
    if record is None or not record.stamp.vouches_for(stamp):
        return None
    checksum = record.find_checksum(other) if other else None
    if other and checksum is None:
        return None
    return Measured(Digest.of_blob(record.id), stamp.size, 1, 0, stamp.size, 1, checksum)


def _trusted(
    index: FolderIndex, entries: Sequence[Entry], ids: Sequence[bytes | None], checksum: Digest | None
) -> Measured:
    known = [NO_ID if id is None else id for id in ids]
    digest, size_bytes, files = Digest.of_tree(index.id), index.size_bytes, index.files
    return Measured(digest, size_bytes, files, 0, size_bytes, files, checksum, entries, known)


def _checksummed(measured: Measured, checksum: Digest | None) -> Checksummed:
    digest, size_bytes, files, read_bytes, trusted_bytes, trusted_files = measured[:6]
    return Checksummed(checksum, digest, size_bytes, files, read_bytes, trusted_bytes, trusted_files)


def _hash_file(path: Path, other: str | None, task: Task) -> dict[str, Digest]:
    """The blake3 of a file, and its digest in another algorithm from the same pass."""
    from dm.plumbing.hashing import MultiHasher, hash_file

    if other is None:
        return {"blake3": hash_file(path, "blake3", task)}
    # Two buffers in turns: one is read while the other is hashed.
    buffers = [make_buffer(_BUFFER_BYTES), make_buffer(_BUFFER_BYTES)]
    with machine_errors("read", path), open(path, "rb", buffering=0) as file, MultiHasher(["blake3", other]) as hasher:
        while count := file.readinto(buffers[0]):
            hasher.feed(buffers[0][:count])
            buffers.reverse()
            task.advance(count)
        return hasher.digests()


def _hash_entries(
    root: Path, entries: Sequence[Entry], positions: Sequence[int], ids: list[bytes | None], task: Task
) -> None:
    """Fill in the ids of the entries at ``positions``, as they come, so that an interruption loses only the rest."""
    from dm.plumbing.hashing import blake3_of, hash_blobs

    top = os.fsencode(root)
    files = []
    for position in positions:
        entry = entries[position]
        if entry.kind == "file":
            files.append(position)
            continue
        link = os.path.join(top, entry.name)
        with machine_errors("read the link", link):
            ids[position] = blake3_of(os.readlink(link))
    for some in _share_out(files, entries):
        names = [entries[position].name for position in some]
        sizes = [entries[position].size for position in some]
        for position, id in zip(some, hash_blobs(root, names, sizes, task), strict=True):
            ids[position] = id


def _share_out(positions: Sequence[int], entries: Sequence[Entry]) -> Iterator[list[int]]:
    some: list[int] = []
    size_bytes = 0
    for position in positions:
        some.append(position)
        size_bytes += entries[position].size
        if len(some) >= _ROUND_FILES or size_bytes >= _ROUND_BYTES:
            yield some
            some, size_bytes = [], 0
    if some:
        yield some


def _depth_of(name: bytes) -> int:
    # The root is above "a", which has no slash either.
    return name.count(b"/") + 1 if name else 0

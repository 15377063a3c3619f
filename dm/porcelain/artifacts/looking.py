"""Looking at an artifact's folder: is it whole, is it what was asked for, are its bytes those that were published?

A hit needs the marker, a ``config.toml`` whose hash is that of its parameters, the data in the wanted format, and both
of these equal to what the ref's tree says of them (SCHEMA.md, "Hits"). Bytes are read once: those that were checked are
those that are loaded, where a format can be read from memory.

What was proven stays proven while the bytes that prove it are the same: ``config.toml`` and the ref are read at every
look and compared with what was parsed before, so that a hit parses nothing.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dm.environment import read_clock_ns, read_monotonic_s
from dm.errors import ContentMismatch, DmError, MachineFailed, Malformed, NotFound, Refused
from dm.plumbing.fs.machine import machine_failed
from dm.plumbing.hashing import blake3_of, hash_blob
from dm.plumbing.records.sidecars import CONFIG_NAME, SIDECAR_NAMES, decode_config
from dm.plumbing.store.markers import MARKER_NAME
from dm.plumbing.store.objects import FOLDER_MODE, TreeEntry
from dm.values import Digest

if TYPE_CHECKING:
    from dm.plumbing.store.disk import DiskStore
    from dm.plumbing.store.refs import Ref
    from dm.porcelain.artifacts.recipe import Check

_CONFIG = CONFIG_NAME.encode()
#: Files up to this size are read into memory to be checked and loaded at once; larger ones are checked on all cores
#: first and then read by their path.
IN_MEMORY_BYTES_MAX = 64 << 20
#: From this size on the stat cache is asked by ``check="once"``: asking costs as much as reading so much.
_ASK_STAT_CACHE_BYTES = 16 << 20
#: A file that nobody touched for so long, by any clock, cannot have changed unseen within one tick of it.
_OLD_NS = 60 * 1_000_000_000
#: Stat data that were the same for so long on this machine's own clock are no longer racy.
_SETTLED_S = 2.0
#: Formats that peers may have put beside a result without objects, before it counts as damaged.
_NEW_FORMATS_MAX = 2
#: Folders whose proofs are remembered; some kilobytes each.
_KNOWN_MAX = 10_000

#: Faults that belong to one file and do not pass.
_UNREADABLE = frozenset((errno.EACCES, errno.EPERM, errno.EIO, errno.ELOOP, errno.EISDIR, errno.ENXIO))

_Stamp = tuple[int, int, int, int, int]


class Wanted(NamedTuple):
    """What is looked for: an address and the name of the data in it."""

    cachetype: str
    version: str
    hash: str
    name: str
    check: Check


class Place(NamedTuple):
    """A folder in which it may lie. ``store`` has the refs that speak of it (None: nothing vouches for bytes there);
    ``own`` says that it may be written to, ``is_users`` that only this user's own tools put results there.
    """

    folder: str
    store: DiskStore | None
    own: bool
    is_users: bool


class Found(NamedTuple):
    """A whole artifact. ``content`` are the data's bytes where they were read to be checked; ``status`` is the data's;
    ``is_new`` that no ref speaks of the data yet.
    """

    place: Place
    path: str
    status: os.stat_result
    content: bytes | None
    is_new: bool


class Fault(NamedTuple):
    """Something lies there that cannot be used. ``data_only``: the rest of the folder is as it should be.
    ``is_unmarked``: only the marker is missing, all else was not looked at.
    """

    place: Place
    reason: str
    data_only: bool = False
    is_unmarked: bool = False


class _Known:
    """What was proven of one folder."""

    __slots__ = ("config", "config_id", "digest", "entries", "ref_name", "stamps")

    def __init__(self, config: bytes) -> None:
        self.config = config
        self.config_id = b""
        self.ref_name = ""
        self.digest: Digest | None = None
        self.entries: dict[bytes, TreeEntry] = {}
        # name -> stat data when the data was last found right, and when these stat data were first seen (seconds)
        self.stamps: dict[str, tuple[_Stamp, float]] = {}


class Looker:
    """Looks at folders, and remembers what it proved. Threads may share one; nothing is written."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def forget(self, folder: str) -> None:
        """Forget what was proven of a folder."""
        self._known.pop(folder, None)

    def look(self, place: Place, wanted: Wanted, *, in_memory: bool) -> Found | Fault | None:
        """What lies at a place: the artifact, something that cannot be used, or nothing (None; also where only other
        formats lie). ``in_memory``: the data is wanted as bytes, where it is a file of moderate size.

        Raises `MachineFailed` for faults of the machine that say nothing about the data, like too many open files.
        """
        try:
            return self._look(place, wanted, in_memory=in_memory)
        except (FileNotFoundError, NotADirectoryError):
            return None  # replaced or removed meanwhile: whoever holds the lock looks again
        except Refused as error:
            return Fault(place, error.message)
        except OSError as error:
            failed = machine_failed(error, "read", place.folder)
            return _judge(place, failed, error)
        except MachineFailed as error:
            return _judge(place, error, error.__cause__)

    def _look(self, place: Place, wanted: Wanted, *, in_memory: bool) -> Found | Fault | None:
        folder = place.folder
        try:
            marker = os.lstat(f"{folder}/{MARKER_NAME}")
        except (FileNotFoundError, NotADirectoryError):
            if not os.path.lexists(folder):
                return None
            return Fault(place, "it is not marked as complete", is_unmarked=True)
        if marker.st_size or not stat.S_ISREG(marker.st_mode):
            return Fault(place, f"its '{MARKER_NAME}' is not an empty file")
        known = self._prove_config(place, wanted)
        if isinstance(known, Fault):
            return known
        path = f"{folder}/{wanted.name}"
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            status = None
        if status is not None and not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            return Fault(place, f"its '{wanted.name}' is neither a file nor a folder", data_only=True)
        if wanted.check == "never":
            return None if status is None else Found(place, path, status, None, is_new=False)
        if wanted.check == "once" and status is not None and _vouches(known, wanted.name, status):
            return Found(place, path, status, None, is_new=False)
        return self._compare(place, wanted, known, status, in_memory=in_memory)

    def _prove_config(self, place: Place, wanted: Wanted) -> _Known | Fault:
        """Whether ``config.toml`` proves that the folder is what was asked for."""
        path = f"{place.folder}/{CONFIG_NAME}"
        try:
            data = read_file(path)
        except FileNotFoundError:
            return Fault(place, f"its '{CONFIG_NAME}' is lost")
        known = self._known.get(place.folder)
        if known is not None and known.config == data:
            return known
        try:
            config = decode_config(data)
        except DmError as error:
            return Fault(place, f"its '{CONFIG_NAME}' cannot be used: {error.message}")
        if (config.hash, config.cachetype, config.version) != (wanted.hash, wanted.cachetype, wanted.version):
            return Fault(place, f"its '{CONFIG_NAME}' is of another artifact")
        if len(self._known) >= _KNOWN_MAX:
            self._known.clear()
        known = self._known[place.folder] = _Known(data)
        return known

    # Against the ref

    def _compare(
        self, place: Place, wanted: Wanted, known: _Known, status: os.stat_result | None, *, in_memory: bool
    ) -> Found | Fault | None:
        ref = _read_ref(place, known)
        if ref is None or ref.digest is None or not ref.digest.is_tree:
            if status is None:
                return None
            content = self._read_data(place, wanted, status, in_memory=in_memory)[0] if in_memory else None
            return Found(place, f"{place.folder}/{wanted.name}", status, content, is_new=True)
        if ref.digest != known.digest and not self._learn(place, known, ref.digest):
            return Fault(place, "its bytes are not those that were published")
        entry = known.entries.get(_CONFIG)
        if not known.config_id:
            known.config_id = blake3_of(known.config)
        if entry is None or entry.id != known.config_id:
            return Fault(place, f"its '{CONFIG_NAME}' is not the one that was published")
        entry = known.entries.get(os.fsencode(wanted.name))
        if status is None:
            return None if entry is None else Fault(place, f"its '{wanted.name}' is lost", data_only=True)
        if entry is not None and stat.S_ISDIR(status.st_mode) != (entry.mode == FOLDER_MODE):
            return Fault(place, f"its '{wanted.name}' is not what was published", data_only=True)
        content, digest = self._read_data(place, wanted, status, in_memory=in_memory)
        if entry is not None and digest != entry.id:
            return Fault(place, f"the bytes of its '{wanted.name}' are not those that were published", data_only=True)
        if entry is not None:
            _note_stamp(known, wanted.name, status)
        return Found(place, f"{place.folder}/{wanted.name}", status, content, is_new=entry is None)

    def _learn(self, place: Place, known: _Known, digest: Digest) -> bool:
        """Read what a ref's tree says of the folder's files; False where the folder itself has to say it, and differs.

        Without objects (no link works there, or the copy was adopted) the tree is built from what lies there.
        """
        store = place.store
        assert store is not None
        try:
            entries = store.read_tree(digest)
        except (NotFound, ContentMismatch, Malformed):
            found = build_entries(place.folder, digest)
            if found is None:
                return False
            entries = found
        known.digest = digest
        known.entries = {entry.name: entry for entry in entries}
        known.stamps = {}
        return True

    def _read_data(
        self, place: Place, wanted: Wanted, status: os.stat_result, *, in_memory: bool
    ) -> tuple[bytes | None, bytes]:
        """The data's bytes, where they are wanted and moderate, and the id of the data."""
        path = f"{place.folder}/{wanted.name}"
        if stat.S_ISDIR(status.st_mode):
            return None, _measure(place, path, quick=wanted.check == "once")
        if in_memory and status.st_size <= IN_MEMORY_BYTES_MAX:
            content = read_file(path, status.st_size)
            return content, blake3_of(content)
        if wanted.check == "once" and status.st_size >= _ASK_STAT_CACHE_BYTES:
            return None, _recall(place, wanted.name) or hash_blob(path)
        return None, hash_blob(path)


def _read_ref(place: Place, known: _Known) -> Ref | None:
    if place.store is None:
        return None
    try:
        known.ref_name = known.ref_name or place.store.ref_name(Path(place.folder))
        return place.store.read_ref(known.ref_name)
    except Malformed:
        return None  # it is written anew when the artifact is adopted


def build_entries(folder: str, digest: Digest, former: TreeEntry | None = None) -> list[TreeEntry] | None:
    """The entries of the tree with this digest, from what lies in the folder: all of it, or all but what was put there
    since, with ``former`` for what was since put in its place. None when that is not the tree.
    """
    from itertools import combinations

    from dm.plumbing.store.measure import build_trees, measure_copy
    from dm.plumbing.store.objects import tree_id

    measured = measure_copy(Path(folder))
    entries = build_trees(measured.entries, measured.ids)[b""].entries
    if former is not None:
        entries = [former if entry.name == former.name else entry for entry in entries]
    others = [entry for entry in entries if entry.name.decode("utf-8", "replace") not in SIDECAR_NAMES]
    for count in range(min(len(others), _NEW_FORMATS_MAX) + 1):
        for new in combinations(others, count):
            kept = [entry for entry in entries if entry not in new]
            if tree_id(kept) == digest.raw:
                return kept
    return None


def _measure(place: Place, path: str, *, quick: bool) -> bytes:
    from dm.plumbing.store.measure import measure_copy

    store = place.store
    cache = store.stat_cache if store is not None and quick else None
    root = None if store is None else store.root
    return measure_copy(Path(path), stat_cache=cache, quick=quick and cache is not None, ref_root=root).digest.raw


def _recall(place: Place, name: str) -> bytes | None:
    """The id that the stat cache knows of a file in a published folder, where it vouches for it."""
    from dm.plumbing.store.measure import scan_copy

    cache = None if place.store is None else place.store.stat_cache
    index = None if cache is None else cache.lookup_folder(Path(place.folder))
    if index is None:
        return None
    entries = scan_copy(Path(place.folder))
    wanted = os.fsencode(name)
    ids = index.match(entries).ids
    return next((id for entry, id in zip(entries, ids, strict=True) if entry.name == wanted), None)


def read_file(path: str, size: int = 0) -> bytes:
    """A file's bytes, without the cost of a file object; ``size`` is what they should be, 0 when that is not known.

    A fifo that somebody put there is empty: nobody is waited for.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        size = size or os.fstat(descriptor).st_size
        data = os.read(descriptor, size + 1)
        while len(data) < size and (more := os.read(descriptor, size - len(data))):
            data += more
        return data
    finally:
        os.close(descriptor)


def _judge(place: Place, failed: MachineFailed, cause: BaseException | None) -> Fault | None:
    """What a fault of the machine says of an artifact: unreadable, gone meanwhile, or nothing (raised)."""
    if isinstance(cause, FileNotFoundError | NotADirectoryError):
        return None
    if isinstance(cause, OSError) and cause.errno in _UNREADABLE:
        return Fault(place, failed.message)
    raise failed


def _stamp_of(status: os.stat_result) -> _Stamp:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _note_stamp(known: _Known, name: str, status: os.stat_result) -> None:
    """The data was found right: with these stat data it need not be read again, as soon as they are not racy.

    A change within the same tick of the file system's clock would leave them as they are. They count from when they
    are old by any clock, or when the data was found right once more after they had been seen for two seconds.
    """
    stamp, now_s = _stamp_of(status), read_monotonic_s()
    before = known.stamps.get(name)
    first_s = before[1] if before is not None and before[0] == stamp else now_s
    if read_clock_ns() - max(status.st_ctime_ns, status.st_mtime_ns) > _OLD_NS or now_s - first_s > _SETTLED_S:
        first_s = float("-inf")
    known.stamps[name] = (stamp, first_s)


def _vouches(known: _Known, name: str, status: os.stat_result) -> bool:
    noted = known.stamps.get(name)
    return noted is not None and noted[1] == float("-inf") and noted[0] == _stamp_of(status)

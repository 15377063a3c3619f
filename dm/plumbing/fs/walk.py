"""One pass over a folder: every entry below it with its stat data, in a fixed order."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Literal, NamedTuple, overload

from dm.errors import Refused
from dm.plumbing.fs.machine import display_path, machine_failed

Kind = Literal["file", "folder", "link"]


class Entry(NamedTuple):
    """An entry below a folder: ``name`` is its path relative to that folder, ``/``-joined bytes; the rest is `lstat`.

    ``mode`` is the whole ``st_mode``; ``size`` in bytes; times in nanoseconds since the epoch.
    """

    name: bytes
    kind: Kind
    mode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int
    nlink: int


#: What of an `Entry` is stat data: all after ``kind``.
StatData = tuple[int, int, int, int, int, int, int]

_S_IFMT = 0o170000
# In one call, which is quicker than seven attributes.
_read_stat: Callable[[os.stat_result], StatData] = attrgetter(
    "st_mode", "st_size", "st_mtime_ns", "st_ctime_ns", "st_ino", "st_dev", "st_nlink"
)
_KINDS: dict[int, Kind] = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}


class Walk(Sequence[Entry]):
    """What a walk found: ``names`` and ``stats`` in step. The entries are made when one is asked for: a folder in which
    nothing has changed is known by its columns alone, in a quarter less time.
    """

    __slots__ = ("_entries", "names", "stats")

    def __init__(self, names: list[bytes], stats: list[StatData]) -> None:
        self.names = names
        self.stats = stats
        self._entries: list[Entry] | None = None

    @property
    def entries(self) -> list[Entry]:
        """All entries."""
        if self._entries is None:
            make, pairs = tuple.__new__, zip(self.names, self.stats, strict=True)
            self._entries = [make(Entry, (name, _KINDS[data[0] & _S_IFMT], *data)) for name, data in pairs]
        return self._entries

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __eq__(self, other: object) -> bool:
        # A list of the same entries is equal: an answer from the stat cache is compared with one from reading.
        return self.entries == (other.entries if isinstance(other, Walk) else other)

    __hash__ = None  # type: ignore[assignment]  # as a list's

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> list[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | list[Entry]:
        return self.entries[index]


def scan_tree(root: Path) -> list[Entry]:
    """Every entry below ``root``, the folders among them, without ``root`` itself; links are not followed.

    Depth first; each folder's entries sorted by the raw bytes of their names, and a folder is followed at once by what
    it holds. One `lstat` per entry. Raises `Refused` (exit 6) for a device, a socket or a fifo, with its path, and
    `MachineFailed` when a folder cannot be read or an entry vanishes meanwhile, with the path of that one.
    """
    return walk_tree(root).entries


def walk_tree(root: Path) -> Walk:
    """The same, with entries that are made when they are asked for."""
    top = os.fsencode(root)
    try:
        return _walk(top)
    except OSError as error:
        path = top if error.filename is None else error.filename
        is_folder = path == top or path.endswith(b"/")  # entries are asked about without the slash
        raise machine_failed(error, "read the folder" if is_folder else "look at", path.rstrip(b"/") or path) from error


def _walk(top: bytes) -> Walk:
    # An own stack, so that depth costs no Python frames.
    walk = Walk([], [])
    names, stats = walk.names, walk.stats
    stack: list[Iterator[tuple[bytes, StatData]]] = []
    below = _look_at(top + b"/", b"")
    while True:
        for name, data in below:
            kind = _KINDS.get(data[0] & _S_IFMT)
            if kind is None:
                raise _special(top + b"/" + name, data[0])
            names.append(name)
            stats.append(data)
            if kind == "folder":
                stack.append(below)
                below = _look_at(top + b"/" + name + b"/", name + b"/")
                break
        else:
            if not stack:
                return walk
            below = stack.pop()


def _look_at(path: bytes, prefix: bytes) -> Iterator[tuple[bytes, StatData]]:
    """The names in one folder, sorted, after ``prefix``, and their stat data."""
    # `listdir`, and `lstat` relative to the open folder: less processor time than `lstat` by path, and than `scandir`,
    # whose entries cost more than they save when every one of them is asked for its stat.
    names = sorted(os.listdir(path))
    if not names:
        return iter(())
    stats: list[StatData] = []
    look = os.lstat
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names:
            stats.append(_read_stat(look(name, dir_fd=folder)))
    except OSError as error:
        error.filename = path + name
        raise
    finally:
        os.close(folder)
    return zip([prefix + name for name in names] if prefix else names, stats, strict=True)


def _special(path: bytes, mode: int) -> Refused:
    what = {stat.S_IFIFO: "a fifo", stat.S_IFSOCK: "a socket"}.get(stat.S_IFMT(mode), "a device")
    return Refused(
        f"cannot take in '{display_path(path)}': it is {what}",
        hint="datasets hold files, folders and links only; move it elsewhere",
        code="special-file",
    )

"""One pass over a folder: every entry below it with its stat data, in a fixed order."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Literal, NamedTuple

from dm.errors import Refused
from dm.plumbing.fs.machine import display_path, machine_errors

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


_S_IFMT = 0o170000
_KINDS: dict[int, Kind] = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}


def scan_tree(root: Path) -> list[Entry]:
    """Every entry below ``root``, the folders among them, without ``root`` itself; links are not followed.

    Depth first; each folder's entries sorted by the raw bytes of their names, and a folder is followed at once by what
    it holds. One `lstat` per entry. Raises `Refused` (exit 6) for a device, a socket or a fifo, with its path, and
    `MachineFailed` when a folder cannot be read or an entry vanishes meanwhile.
    """
    found: list[Entry] = []
    with machine_errors("read the folder", root):
        _scan(os.fsencode(root), b"", found)
    return found


def _scan(top: bytes, below: bytes, found: list[Entry]) -> None:
    # (path of the folder, its name relative to the root with a trailing slash); an own stack, so that depth costs no
    # Python frames. Entries go to `found` in order because a folder's contents are spliced in when it is met.
    make = tuple.__new__
    stack: list[tuple[bytes, list[tuple[bytes, os.DirEntry[bytes]]], int]] = []
    prefix = below
    entries = _list(top)
    position = 0
    while True:
        while position < len(entries):
            name, entry = entries[position]
            position += 1
            status = entry.stat(follow_symlinks=False)
            mode = status.st_mode
            kind = _KINDS.get(mode & _S_IFMT)
            if kind is None:
                raise _special(entry.path, mode)
            relative = prefix + name
            found.append(
                make(
                    Entry,
                    (
                        relative,
                        kind,
                        mode,
                        status.st_size,
                        status.st_mtime_ns,
                        status.st_ctime_ns,
                        status.st_ino,
                        status.st_dev,
                        status.st_nlink,
                    ),
                )
            )
            if kind == "folder":
                stack.append((prefix, entries, position))
                prefix = relative + b"/"
                entries = _list(entry.path)
                position = 0
        if not stack:
            return
        prefix, entries, position = stack.pop()


def _list(folder: bytes) -> list[tuple[bytes, os.DirEntry[bytes]]]:
    with os.scandir(folder) as entries:
        named = [(entry.name, entry) for entry in entries]
    named.sort(key=_by_name)
    return named


def _by_name(item: tuple[bytes, os.DirEntry[bytes]]) -> bytes:
    return item[0]


def _special(path: bytes, mode: int) -> Refused:
    what = {stat.S_IFIFO: "a fifo", stat.S_IFSOCK: "a socket"}.get(stat.S_IFMT(mode), "a device")
    return Refused(
        f"cannot take in '{display_path(path)}': it is {what}",
        hint="datasets hold files, folders and links only; move it elsewhere",
        code="special-file",
    )

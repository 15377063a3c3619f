"""Where a file's bytes lie on its device: whether two files share them already (a reflink has no other mark)."""

from __future__ import annotations

import fcntl
import os
import struct
import sys

from dm.plumbing.fs.machine import AnyPath

#: linux/fs.h: _IOWR('f', 11, struct fiemap); linux/fiemap.h for the rest.
_FS_IOC_FIEMAP = 0xC020660B
_HEAD = struct.Struct("=QQLLLL")
_EXTENT = struct.Struct("=QQQQQLLLL")
_FLAG_SYNC = 0x1
_LAST = 0x1
_SHARED = 0x2000
_ENCODED = 0x8
_INLINE = 0x200
#: UNKNOWN, DELALLOC, NOT_ALIGNED, DATA_INLINE: no place on the device that two files could have in common.
_NO_PLACE = 0x2 | 0x4 | 0x100 | _INLINE
_EXTENTS_AT_ONCE = 256

#: (logical offset, physical offset, length) in bytes.
Extent = tuple[int, int, int]


def read_extents(path: AnyPath) -> tuple[Extent, ...] | None:
    """The extents of a regular file in the order of its bytes; None where the file system does not tell, or keeps the
    bytes where no other file can share them (inline, not written yet). What btrfs compresses lies where it says, and
    clones share it.
    """
    if not sys.platform.startswith("linux"):
        return None
    found = _read_all(path)
    if found is None or any(
        flags & _NO_PLACE or (flags & _ENCODED and not physical) for _, physical, _, flags in found
    ):
        return None
    return tuple((logical, physical, length) for logical, physical, length, _ in found)


def has_shared_extents(path: AnyPath) -> bool:
    """Whether bytes of a file lie in blocks that another file has too; False where the file system does not tell."""
    if not sys.platform.startswith("linux"):
        return False
    return any(flags & _SHARED for *_, flags in _read_all(path) or ())


def is_inline(path: AnyPath) -> bool:
    """Whether a small file's bytes lie beside its name (btrfs), where a clone of it has its own; False where the file
    system does not tell.
    """
    if not sys.platform.startswith("linux"):
        return False
    return any(flags & _INLINE for *_, flags in _read_all(path) or ())


def _read_all(path: AnyPath) -> list[tuple[int, int, int, int]] | None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return _read(descriptor)
    except OSError:
        return None  # no such call here: nothing is known, which is what None says
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> list[tuple[int, int, int, int]]:
    """(logical offset, physical offset, length, flags) of each extent."""
    found: list[tuple[int, int, int, int]] = []
    start = 0
    while True:
        buffer = bytearray(_HEAD.size + _EXTENTS_AT_ONCE * _EXTENT.size)
        _HEAD.pack_into(buffer, 0, start, (1 << 64) - 1 - start, _FLAG_SYNC, 0, _EXTENTS_AT_ONCE, 0)
        fcntl.ioctl(descriptor, _FS_IOC_FIEMAP, buffer)
        count = _HEAD.unpack_from(buffer)[3]
        for number in range(count):
            logical, physical, length, _, _, flags, *_ = _EXTENT.unpack_from(buffer, _HEAD.size + number * _EXTENT.size)
            found.append((logical, physical, length, flags))
            if flags & _LAST:
                return found
            start = logical + length
        if not count:
            return found


def share_blocks(one: AnyPath, other: AnyPath) -> bool:
    """Whether two files of equal content lie in the same blocks, by a hard link or a reflink; False where the file
    system does not tell.
    """
    if os.path.samefile(one, other):
        return True
    extents = read_extents(one)
    return bool(extents) and extents == read_extents(other)

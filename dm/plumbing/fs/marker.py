"""Lock files that are there or not: ``<pid> <hostname>`` created exclusively, judged by age where no kernel helps.

This is the lock that other tools and other hosts understand (SCHEMA.md, "Locks"). A holder touches it; whoever finds
it decides by the rules in `Judge` whether its holder is gone.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from pathlib import Path
from typing import NamedTuple

from dm.plumbing.fs.flock import HOLDER_BYTES_MAX
from dm.plumbing.fs.publish import write_all
from dm.plumbing.fs.temporary import temporary_name

#: A lock whose holder cannot be shown dead is stale when it stayed untouched for this many times the stale age.
UNKNOWN_HOLDER_FACTOR = 5


class Marker(NamedTuple):
    """A lock file as it was seen: text, identity, and mtime in nanoseconds since the epoch."""

    text: str
    device: int
    inode: int
    mtime_ns: int


def read_marker(path: str | Path) -> Marker | None:
    """Look at a lock file; None when there is none. Raises `OSError`, also for a link (it is not followed)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except PermissionError:
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return None
        return Marker("", status.st_dev, status.st_ino, status.st_mtime_ns)
    try:
        status = os.fstat(descriptor)
        data = os.pread(descriptor, HOLDER_BYTES_MAX, 0) if stat.S_ISREG(status.st_mode) else b""
    finally:
        os.close(descriptor)
    return Marker(data.decode("utf-8", "replace").strip(), status.st_dev, status.st_ino, status.st_mtime_ns)


def create_marker(path: str | Path, text: bytes) -> int:
    """Create a lock file exclusively and return its open descriptor. Raises `FileExistsError` and other `OSError`s."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        write_all(descriptor, text)
    except BaseException:
        os.close(descriptor)
        os.unlink(path)
        raise
    return descriptor


class Judge:
    """Decides whether a lock file that is met again and again is stale. One for each wait.

    Stale is a lock that is older than ``stale_age_s`` and whose process is dead on this host; or one that was not
    touched for five times that. For a holder on another host (or a text that cannot be read) only the time counts
    during which *we* watched it unchanged, by a monotonic clock: its clock may be wrong.
    """

    __slots__ = ("_host_name", "_seen", "_since_s", "_stale_age_s")

    def __init__(self, host_name: str, stale_age_s: float) -> None:
        self._host_name = host_name
        self._stale_age_s = stale_age_s
        self._seen: Marker | None = None
        self._since_s = 0.0

    def is_stale(self, seen: Marker) -> bool:
        """Whether the holder of the lock file, as it looks now, is gone."""
        now_s = time.monotonic()
        if seen != self._seen:
            self._seen = seen
            self._since_s = now_s
        watched_s = now_s - self._since_s
        pid, _, host = seen.text.partition(" ")
        if host != self._host_name or not (pid.isascii() and pid.isdecimal()):
            return watched_s > UNKNOWN_HOLDER_FACTOR * self._stale_age_s
        untouched_s = max(time.time() - seen.mtime_ns / 1e9, watched_s)
        if _is_dead(int(pid)):
            return untouched_s > self._stale_age_s
        return untouched_s > UNKNOWN_HOLDER_FACTOR * self._stale_age_s


def _is_dead(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def remove_marker(path: str | Path, seen: Marker) -> None:
    """Remove the lock file that was judged, and no other: one that took its place meanwhile is put back.

    It is moved aside first, so that of two who judged the same file one gets it. Raises `OSError`.
    """
    aside = os.path.join(os.path.dirname(path), temporary_name())
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return
    status = os.lstat(aside)
    if (status.st_dev, status.st_ino, status.st_mtime_ns) != (seen.device, seen.inode, seen.mtime_ns):
        try:
            os.link(aside, path, follow_symlinks=False)
        except FileExistsError:
            pass  # a third one locked in this moment; the one moved aside learns of it when it looks
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS):
                raise
            os.rename(aside, path)
            return
    os.unlink(aside)

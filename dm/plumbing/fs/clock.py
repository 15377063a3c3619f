"""The file system's own clock, which need not be this machine's (network mounts, coarse time stamps)."""

from __future__ import annotations

import os
import time
from pathlib import Path

from dm.plumbing.fs.temporary import temporary_name

#: Taken off this machine's clock where the file system's cannot be asked: the coarsest time stamps in use (vfat).
_COARSEST_NS = 2_000_000_000
_NAMELESS: int = getattr(os, "O_TMPFILE", 0)  # Linux


def read_file_system_clock_ns(folder: Path) -> int:
    """The time, in nanoseconds since the epoch, that a file written in ``folder`` now would get as its mtime.

    A probe file is made there, without a name where that works (nothing for a kill to leave), else removed again.
    Where that is not possible, this machine's clock less two seconds, which is on the safe side for Git's racy rule (an
    entry is only trusted when its mtime is older than the clock was before it was looked at).
    """
    if _NAMELESS:
        try:
            descriptor = os.open(folder, os.O_WRONLY | _NAMELESS, 0o600)
        except OSError:
            pass  # not on this file system, or not for us
        else:
            try:
                return os.fstat(descriptor).st_mtime_ns
            finally:
                os.close(descriptor)
    probe = os.path.join(folder, temporary_name())
    try:
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError:
        return time.time_ns() - _COARSEST_NS
    try:
        return os.fstat(descriptor).st_mtime_ns
    finally:
        os.close(descriptor)
        os.unlink(probe)

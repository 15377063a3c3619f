"""A small file that is read whole: a config, a state, a manifest that is about to be edited."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

from dm.errors import Refused
from dm.plumbing.fs.machine import display_path, machine_errors


class RecordFile(NamedTuple):
    """A file as it was read: its bytes and what tells whether it has changed. ``content`` None: it is not there."""

    path: Path
    content: bytes | None
    status: os.stat_result | None

    @property
    def mtime_ns(self) -> int:
        """Time of its last change; 0 when it is not there."""
        return 0 if self.status is None else self.status.st_mtime_ns

    @property
    def stamp(self) -> tuple[int, ...]:
        """What differs when another file or other content lies there."""
        status = self.status
        return () if status is None else (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def read_record(path: Path) -> RecordFile:
    """Read a file that may be missing. Raises `MachineFailed`, and `Refused` for a device or a fifo: a clone may bring
    a link to one, which would be read for ever.
    """
    with machine_errors("read", path):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return RecordFile(path, None, None)
        try:
            status = os.fstat(descriptor)
            if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):  # reading a folder says so itself
                message = f"cannot read '{display_path(path)}': it is no file"
                raise Refused(message, hint="remove it, or the link that leads to it", code="special-file")
            with os.fdopen(descriptor, "rb", closefd=False) as stream:
                return RecordFile(path, stream.read(), status)
        finally:
            os.close(descriptor)

"""How a fault of the user's machine becomes one clear line.

Every `OSError` that can be expected (full disk, permission, read-only file system, I/O error) leaves this floor as a
`MachineFailed` (exit 8) that says what was being done, to which path, what went wrong and what to do about it.
"""

from __future__ import annotations

import errno
import os
from types import TracebackType
from typing import Any

from dm.errors import MachineFailed
from dm.values import printable

#: What the functions of this floor take for a path. Bytes are the quickest and exact for names that are not UTF-8.
AnyPath = str | bytes | os.PathLike[Any]

#: errno -> (what to say, code, hint)
_FAULTS: dict[int, tuple[str, str, str]] = {
    errno.ENOSPC: ("disk full", "disk-full", "free some space, then run the command again"),
    errno.EDQUOT: ("disk quota exceeded", "disk-full", "free some space of your quota, then run the command again"),
    errno.EACCES: ("permission denied", "permission", "check the owner and mode of the path and of its folder"),
    errno.EPERM: ("operation not permitted", "permission", "check the owner and attributes of the path"),
    errno.EROFS: ("read-only file system", "read-only", "use a place that can be written to"),
    errno.EIO: ("input/output error", "io-error", "the disk or the network mount may be failing; see the system log"),
    errno.EMFILE: ("too many open files", "open-files", "raise the limit ('ulimit -n') or use fewer jobs"),
    errno.ENFILE: ("too many open files on this machine", "open-files", "close other programs, then try again"),
    errno.ENAMETOOLONG: ("name too long", "name-too-long", "set a shorter 'key' or a store with a shorter path"),
    errno.ENOENT: ("no such file or folder", "missing", "it may have been moved or removed meanwhile"),
    errno.ESTALE: ("stale file handle", "io-error", "the network mount went away; mount it again"),
    errno.ELOOP: ("too many symbolic links, or a link where none may be", "link", "look at what lies there"),
}


def display_path(path: AnyPath) -> str:
    """A path as messages show it: text on one line, control characters escaped."""
    return printable(os.fsdecode(path))


def machine_failed(error: OSError, action: str, path: AnyPath) -> MachineFailed:
    """Return the `MachineFailed` that says ``cannot {action} '{path}': {what went wrong}``; raise it ``from error``."""
    known = _FAULTS.get(error.errno or 0)
    if known is None:
        reason = (error.strerror or type(error).__name__).lower()
        return MachineFailed(f"cannot {action} '{display_path(path)}': {reason}")
    reason, code, hint = known
    return MachineFailed(f"cannot {action} '{display_path(path)}': {reason}", code=code, hint=hint)


class _MachineErrors:
    # A class with slots: a generator-based context manager costs three times as much, and hot loops enter this.
    __slots__ = ("action", "path")

    def __init__(self, action: str, path: AnyPath) -> None:
        self.action = action
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            raise machine_failed(error, self.action, self.path) from error


def machine_errors(action: str, path: AnyPath) -> _MachineErrors:
    """A `with` block whose `OSError`s become `MachineFailed`: ``cannot {action} '{path}': disk full``.

    ``action`` is a verb, with an object where it needs one (``write``, ``read the state in``). Codes: ``disk-full``,
    ``permission``, ``read-only``, ``io-error``, ``open-files``, ``name-too-long``, ``missing``, else
    ``machine-failed`` with the system's own words.
    """
    return _MachineErrors(action, path)

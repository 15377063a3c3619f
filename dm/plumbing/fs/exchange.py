"""Two names change places in one step, so that neither is ever without what lies there (Linux, macOS)."""

from __future__ import annotations

import errno
import os
import sys

from dm.plumbing.fs.machine import AnyPath

#: What is answered where the kernel or the file system cannot.
_CANNOT = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EXDEV, errno.EPERM})
_SWAP = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS
_HERE = -100  # AT_FDCWD of Linux


def exchange(one: AnyPath, other: AnyPath) -> bool:
    """Let two files or folders of one file system change places; False where that cannot be done, and nothing was.

    Links are exchanged, not followed. Raises `OSError`; then nothing was done. After a crash they have changed places,
    or not.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    first, second = ctypes.c_char_p(os.fsencode(one)), ctypes.c_char_p(os.fsencode(other))
    try:
        if sys.platform == "darwin":
            failed = libc.renamex_np(first, second, ctypes.c_uint(_SWAP))
        else:
            failed = libc.renameat2(_HERE, first, _HERE, second, ctypes.c_uint(_SWAP))
    except AttributeError:
        return False  # a C library without it
    if not failed:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number))

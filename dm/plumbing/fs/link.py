"""One file's bytes under a second name: reflink, else hard link, else copy.

A small state machine in the manner of uv's: each rung is tried in the order asked for, a rung that this pair of file
systems cannot do is remembered, and the rung that was used is returned.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from dm.errors import MachineFailed, Refused
from dm.plumbing.fs.buffer import make_buffer
from dm.plumbing.fs.machine import AnyPath, display_path, machine_errors
from dm.plumbing.fs.remove import remove_tree
from dm.plumbing.fs.temporary import temporary_name

LinkMode = Literal["reflink", "hardlink", "copy"]
LINK_MODES: tuple[LinkMode, ...] = ("reflink", "hardlink", "copy")

#: linux/fs.h: _IOW(0x94, 9, int)
_FICLONE = 0x40049409
#: Bytes asked of one `copy_file_range`, and read at once where that is missing.
_COPY_RANGE_BYTES = 1 << 30
_COPY_BUFFER_BYTES = 1 << 20

_NO_REFLINK = frozenset(
    {errno.EOPNOTSUPP, errno.ENOTSUP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM, errno.EBADF}
)
_NO_HARDLINK = frozenset({errno.EPERM, errno.EMLINK, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS})
_NO_COPY_RANGE = frozenset(
    {errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EPERM, errno.EBADF, errno.ETXTBSY}
)

#: (device of the source, device of the target's folder, mode): rungs that this pair of file systems cannot do.
_impossible: set[tuple[int, int, LinkMode]] = set()
#: Devices of folders that were met, so that a rung is known to be impossible without a stat per file.
_folder_devices: dict[str | bytes, int] = {}
_FOLDER_DEVICES_MAX = 4096


class _RungFailed(Exception):
    """This rung cannot do it; ``lasting`` when it holds for the pair of file systems, not for this file alone."""

    def __init__(self, reason: str, *, lasting: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.lasting = lasting


def link_file(source: AnyPath, target: AnyPath, *, modes: Sequence[LinkMode], executable: bool = False) -> LinkMode:
    """Give the regular file ``source`` a second name, by the first of ``modes`` that works; return that mode.

    ``target`` must not exist and its folder must. A reflink or copy is a new file with the mode 0444, 0555 with
    ``executable``, less the umask; a hard link shares the source's mode. An executable file is never hard-linked
    (its mode would be shared with the object). The next rung is tried on EPERM (another user's file under protected
    hard links), EMLINK, EXDEV, EOPNOTSUPP and their like; after a reflink and a copy the sizes are compared.

    What a pair of file systems cannot do is remembered for the life of the process, so a tree of 20,000 files asks
    once. Raises `Refused` when something lies at ``target``, `MachineFailed` (code ``link-failed``) when no mode
    works and for faults of the machine; then no target is left.
    """
    reasons: list[str] = []
    with machine_errors("link or copy to", target):
        for mode in modes:
            if mode == "hardlink" and executable:
                reasons.append("hardlink: an executable file is never hard-linked")
                continue
            if _impossible and (_folder_device(source), _folder_device(target), mode) in _impossible:
                reasons.append(f"{mode}: not between these file systems")
                continue
            try:
                _try(mode, source, target, executable=executable)
            except FileExistsError as error:
                raise Refused(
                    f"cannot put anything at '{display_path(target)}': something else is in the way",
                    hint="look at what lies there and move it aside",
                    code="in-the-way",
                ) from error
            except _RungFailed as failure:
                reasons.append(f"{mode}: {failure.reason}")
                if failure.lasting:
                    _impossible.add((os.lstat(source).st_dev, _folder_device(target), mode))
            else:
                return mode
    why = "; ".join(reasons) or "no mode is allowed"
    raise MachineFailed(
        f"cannot link '{display_path(source)}' to '{display_path(target)}': {why}",
        hint='allow copies (link = ["reflink", "hardlink", "copy"]) or keep both in one file system',
        code="link-failed",
    )


def find_working_modes(folder: Path) -> dict[LinkMode, str]:
    """For each mode ``works``, or why it does not between two files in ``folder``.

    Two probe files are made there and removed again. Raises `MachineFailed` when ``folder`` cannot be written to.
    """
    found: dict[LinkMode, str] = {}
    probe = folder / temporary_name()
    with machine_errors("make a probe file in", folder):
        os.mkdir(probe)
    try:
        with machine_errors("make a probe file in", folder):
            source = probe / "source"
            source.write_bytes(b"dm probe\n" * 1000)
            for mode in LINK_MODES:
                try:
                    _try(mode, source, probe / mode, executable=False)
                except _RungFailed as failure:
                    found[mode] = failure.reason
                else:
                    found[mode] = "works"
    finally:
        remove_tree(probe)
    return found


def find_link_fault(source: AnyPath, folder: Path) -> str | None:
    """Why no hard link to ``source`` can be made in ``folder`` (another user's file, under protected hard links); None
    when one can. A link is made there and removed again. Raises `MachineFailed`.
    """
    probe = folder / temporary_name()
    with machine_errors("make a probe link in", folder):
        try:
            _hardlink(source, probe)
        except _RungFailed as failure:
            return failure.reason
        os.unlink(probe)
    return None


def forget_impossible_modes() -> None:
    """Forget what file systems could not do (after a mount changed, and between tests)."""
    _impossible.clear()
    _folder_devices.clear()


def _folder_device(path: AnyPath) -> int:
    """The device of the folder that holds ``path``."""
    folder: str | bytes = os.path.dirname(os.fspath(path)) or "."
    device = _folder_devices.get(folder)
    if device is None:
        if len(_folder_devices) >= _FOLDER_DEVICES_MAX:
            _folder_devices.clear()
        device = _folder_devices[folder] = os.stat(folder).st_dev
    return device


def _try(mode: LinkMode, source: AnyPath, target: AnyPath, *, executable: bool) -> None:
    if mode == "hardlink":
        _hardlink(source, target)
        return
    if mode == "reflink" and sys.platform == "darwin":
        _clone_on_macos(source, target, executable=executable)
        return
    origin = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        size = _read_regular_size(origin, source)
        copy = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o555 if executable else 0o444)
        try:
            try:
                if mode == "reflink":
                    _clone(origin, copy)
                else:
                    _copy(origin, copy, size)
                copied = os.fstat(copy).st_size
            finally:
                os.close(copy)  # a full disk may say so only here
            if copied != size:
                raise _RungFailed(f"{copied} of {size} bytes arrived", lasting=mode == "reflink")
        except BaseException:
            os.unlink(target)
            raise
    finally:
        os.close(origin)


def _read_regular_size(descriptor: int, path: AnyPath) -> int:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise Refused(f"cannot link '{display_path(path)}': it is not a regular file", code="special-file")
    return status.st_size


def _hardlink(source: AnyPath, target: AnyPath) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_HARDLINK:
            raise
        lasting = error.errno != errno.EMLINK
        if error.errno == errno.EPERM:
            # Of our own file it is the file system that refuses; of another user's, protected hard links.
            lasting = os.lstat(source).st_uid == os.geteuid()
        elif error.errno == errno.EXDEV:
            # Within one device: two mounts of it (containers), which says nothing of other places on it.
            lasting = os.lstat(source).st_dev != _folder_device(target)
        raise _RungFailed(_reason(error), lasting=lasting) from error


def _clone(origin: int, copy: int) -> None:
    import fcntl

    try:
        fcntl.ioctl(copy, _FICLONE, origin)
    except OSError as error:
        if error.errno not in _NO_REFLINK:
            raise
        raise _RungFailed(_reason(error), lasting=True) from error


def _clone_on_macos(source: AnyPath, target: AnyPath, *, executable: bool) -> None:
    import ctypes

    try:
        clone = ctypes.CDLL(None, use_errno=True).clonefile
    except (OSError, AttributeError) as error:
        raise _RungFailed("this system has no clonefile", lasting=True) from error
    if clone(os.fsencode(source), os.fsencode(target), ctypes.c_uint32(1)) != 0:  # 1: CLONE_NOFOLLOW
        number = ctypes.get_errno()
        fault = OSError(number, os.strerror(number))
        if number not in _NO_REFLINK:
            raise fault
        raise _RungFailed(_reason(fault), lasting=True)
    status = os.lstat(target)
    if status.st_size != os.lstat(source).st_size:
        os.unlink(target)
        raise _RungFailed("sizes differ", lasting=True)
    umask = os.umask(0)  # the only way to ask; put back at once
    os.umask(umask)
    os.chmod(target, (0o555 if executable else 0o444) & ~umask)


def _copy(origin: int, copy: int, size: int) -> None:
    if hasattr(os, "copy_file_range"):
        done = 0
        try:
            while done < size:
                count = os.copy_file_range(origin, copy, min(size - done, _COPY_RANGE_BYTES))
                if count == 0:
                    break
                done += count
            if done == size:
                return
        except OSError as error:
            if done or error.errno not in _NO_COPY_RANGE:
                raise
    os.lseek(origin, 0, os.SEEK_SET)
    os.lseek(copy, 0, os.SEEK_SET)
    buffer = make_buffer(min(_COPY_BUFFER_BYTES, size))
    while count := os.readv(origin, [buffer]):
        rest = buffer[:count]
        while rest:
            rest = rest[os.write(copy, rest) :]


def _reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()

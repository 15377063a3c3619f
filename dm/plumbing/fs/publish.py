"""The one way in which something becomes visible: written beside its target, checked, flushed, renamed.

Readers see the old or the new, whole. A crash leaves at most a temporary file whose name `is_temporary` knows: a
leading ``.dm-``, a trailing ``.tmp``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from dm.errors import DmError, Refused
from dm.plumbing.fs.machine import AnyPath, display_path, machine_errors

_TEMPORARY_PREFIX = ".dm-"
_TEMPORARY_SUFFIX = ".tmp"
#: What a rename or a link onto something that lies there can answer.
_IN_THE_WAY = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR})
#: What `link` answers on file systems that have no hard links (vfat: EPERM), or at the link count's limit.
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})
#: What `fsync` of a folder answers where only files can be flushed (some network and FUSE mounts).
_NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES})
#: Deeper than this, `remove_tree` moves a sub-folder up before it goes on: a descriptor is open for every level.
_REMOVE_DEPTH_MAX = 200


def temporary_name() -> str:
    """A new name for a temporary file: hidden, unique, and known to `is_temporary`."""
    return f"{_TEMPORARY_PREFIX}{os.getpid():x}-{os.urandom(6).hex()}{_TEMPORARY_SUFFIX}"


def is_temporary(name: str | bytes) -> bool:
    """Whether a file's name is one that `temporary_name` made (litter when no process is at work)."""
    text = os.fsdecode(name)
    return text.startswith(_TEMPORARY_PREFIX) and text.endswith(_TEMPORARY_SUFFIX)


def write_file(
    path: Path, data: bytes, *, durable: bool = True, mode: int | None = None, like: os.stat_result | None = None
) -> None:
    """Make ``path`` hold ``data``; a reader sees the old content or the new one, whole.

    The bytes go to a temporary file beside ``path``, which is flushed and renamed over it; with ``durable`` the folder
    is flushed as well, so that the new content survives a power cut once this returns. ``mode`` sets the permission
    bits (default: 0666 less the umask); ``like`` gives the new file the mode and, where permitted, owner and group of
    that earlier stat. A symlink at ``path`` is replaced, not followed; missing folders are made.

    Raises `MachineFailed`, and `Refused` when a folder lies at ``path``; then the old content is untouched and the
    temporary file is gone. A crash may leave the temporary file.
    """
    folder = path.parent
    temporary = folder / temporary_name()
    with machine_errors("write", path):
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileNotFoundError:
            ensure_folder(folder)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            try:
                _take_over_owner(descriptor, like)
                if mode is not None or like is not None:
                    os.fchmod(descriptor, mode if mode is not None else stat.S_IMODE(like.st_mode) if like else 0)
                write_all(descriptor, data)
                if durable:
                    flush_descriptor(descriptor)
            finally:
                os.close(descriptor)  # a full disk may say so only here
            _rename(temporary, path)
        except BaseException:
            _unlink_quietly(temporary)
            raise
        if durable:
            flush_folder(folder)


def write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    """Write every byte of ``data``: `os.write` may stop early. Raises `OSError`."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def flush_descriptor(descriptor: int) -> None:
    """Flush one open file to the disk, through the drive's own cache on macOS. Raises `OSError`."""
    if sys.platform == "darwin":
        import fcntl

        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EINVAL):
                raise
    os.fsync(descriptor)


def flush_folder(folder: AnyPath) -> None:
    """Flush a folder's entries; silently nothing where the file system cannot. Raises `OSError` for real faults."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:
        return  # a drop-box folder may be written but not opened
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def replace(staged: Path, target: Path) -> None:
    """Rename ``staged`` over ``target``; the target's missing folders are made first.

    A file replaces a file, a folder replaces nothing or an empty folder. Raises `Refused` when something else is in
    the way, `MachineFailed` for faults of the machine. Both sides lie in one file system: another one is a bug of the
    caller and raises a plain `DmError` (exit 70).
    """
    with machine_errors("put in place", target):
        _rename(staged, target)


def place(staged: Path, target: Path) -> bool:
    """Move ``staged`` to ``target`` unless something lies there: True when it was moved.

    Never overwrites (not even a dangling link) and never waits; of several callers one gets True. When False is
    returned ``staged`` is where it was. Missing folders are made. Raises as `replace` does. After a crash ``staged``
    may be there under both names.
    """
    with machine_errors("put in place", target):
        try:
            return _place(staged, target)
        except FileNotFoundError:
            os.lstat(staged)
            ensure_folder(target.parent)
            return _place(staged, target)


def _place(staged: Path, target: Path) -> bool:
    status = os.lstat(staged)
    if stat.S_ISDIR(status.st_mode):
        # `rename` of a folder overwrites nothing but an empty folder; that one is kept by looking first.
        return not os.path.lexists(target) and _rename_folder(staged, target)
    try:
        os.link(staged, target, follow_symlinks=False)
    except FileExistsError:
        # Over NFS a link may have been made although its answer was lost.
        if not os.path.samestat(status, os.lstat(target)):
            return False
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        # No hard links here: without them the look and the rename are two steps; the copy's lock guards them.
        if os.path.lexists(target):
            return False
        _rename(staged, target)
        return True
    os.unlink(staged)
    return True


def _rename_folder(staged: Path, target: Path) -> bool:
    try:
        os.rename(staged, target)
    except OSError as error:
        if error.errno in _IN_THE_WAY and os.path.lexists(target):
            return False
        raise
    return True


def _rename(staged: Path, target: Path) -> None:
    try:
        try:
            os.rename(staged, target)
        except FileNotFoundError:
            os.lstat(staged)
            ensure_folder(target.parent)
            os.rename(staged, target)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise DmError(
                f"cannot rename '{display_path(staged)}' to '{display_path(target)}': not one file system", code="bug"
            ) from error
        if error.errno in _IN_THE_WAY:
            raise _in_the_way(target) from error
        raise


def _in_the_way(path: AnyPath) -> Refused:
    return Refused(
        f"cannot put anything at '{display_path(path)}': something else is in the way",
        hint="look at what lies there and move it aside",
        code="in-the-way",
    )


def flush_file_systems(paths: Iterable[AnyPath]) -> None:
    """Make what was written to ``paths`` (files, or folders with all below them) survive a power cut.

    One `syncfs` per file system where the kernel has it (Linux), so the cost does not grow with the number of paths;
    elsewhere every file and folder is flushed by itself. Missing paths are an error. Raises `MachineFailed`, also
    when an earlier write to that file system failed (Linux ≥ 5.8 says so at `syncfs`).
    """
    by_device: dict[int, list[AnyPath]] = {}
    for path in paths:
        with machine_errors("flush", path):
            by_device.setdefault(os.lstat(path).st_dev, []).append(path)
    for group in by_device.values():
        with machine_errors("flush", group[0]):
            if not _sync_file_system(group[0]):
                for path in group:
                    _flush_tree(os.fsencode(path))


_syncfs: Callable[[int], int] | None = None
_syncfs_missing = not sys.platform.startswith("linux")


def _sync_file_system(path: AnyPath) -> bool:
    """`syncfs` of the file system that holds ``path``; False where there is none."""
    global _syncfs, _syncfs_missing
    if _syncfs_missing:
        return False
    import ctypes

    if _syncfs is None:
        try:
            _syncfs = ctypes.CDLL(None, use_errno=True).syncfs
        except (OSError, AttributeError):
            _syncfs_missing = True
            return False
    folder = path if stat.S_ISDIR(os.lstat(path).st_mode) else os.path.dirname(os.fspath(path)) or "."
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _syncfs(descriptor) == 0:
            return True
        number = ctypes.get_errno()
    finally:
        os.close(descriptor)
    if number in (errno.ENOSYS, errno.EBADF):
        return False
    raise OSError(number, os.strerror(number))


def _flush_tree(path: bytes) -> None:
    status = os.lstat(path)
    if stat.S_ISDIR(status.st_mode):
        with os.scandir(path) as entries:
            for entry in entries:
                _flush_tree(entry.path)
        flush_folder(path)
    elif stat.S_ISREG(status.st_mode):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            flush_descriptor(descriptor)
        finally:
            os.close(descriptor)


def ensure_folder(path: Path, *, root: Path | None = None) -> list[Path]:
    """Make a folder and those above it; return the ones that were made, outermost first (none: it was there).

    Below ``root`` new folders take the group's permissions and setgid from the root folder, so that a store which a
    group shares stays writable for the group whatever the umask. Raises `Refused` when a file is in the way,
    `MachineFailed` for faults of the machine.
    """
    missing: list[Path] = []
    made: list[Path] = []
    folder = path
    with machine_errors("make the folder", path):
        while True:
            try:
                os.mkdir(folder)
            except FileNotFoundError:
                if folder.parent == folder:
                    raise
                missing.append(folder)
                folder = folder.parent
                continue
            except FileExistsError:
                if not os.path.isdir(folder):
                    raise _in_the_way(folder) from None
            except NotADirectoryError:
                raise _in_the_way(folder.parent) from None
            else:
                made.append(folder)
                if root is not None:
                    _share_folder(folder, root)
            if not missing:
                return made
            folder = missing.pop()


def _share_folder(folder: Path, root: Path) -> None:
    if folder == root or not folder.is_relative_to(root):
        return
    wanted = os.stat(root)
    bits = wanted.st_mode & (stat.S_IRWXG | stat.S_ISGID)
    if not bits & (stat.S_IWGRP | stat.S_ISGID):
        return
    have = os.stat(folder)
    # Without setgid the new folder belongs to the user's own group, which the root's permission is not meant for.
    if have.st_gid == wanted.st_gid and bits & ~have.st_mode:
        os.chmod(folder, stat.S_IMODE(have.st_mode) | bits)


def _take_over_owner(descriptor: int, like: os.stat_result | None) -> None:
    if like is None:
        return
    have = os.fstat(descriptor)
    for owner, group in ((like.st_uid, like.st_gid), (-1, like.st_gid)):
        if (owner in (-1, have.st_uid)) and group == have.st_gid:
            return
        try:
            os.fchown(descriptor, owner, group)
            return
        except PermissionError:
            continue  # only root gives files away; the group alone may still be kept


def remove_tree(path: Path) -> None:
    """Remove a file, a link or a folder with all below it; nothing there is fine.

    Links are removed, never followed, also when someone swaps a folder for a link meanwhile. Read-only folders are
    made writable first. Raises `MachineFailed`; then a part may be gone.
    """
    with machine_errors("remove", path):
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(status.st_mode):
            _unlink_quietly(path)
            return
        _empty_folder(path)
        os.rmdir(path)


def _empty_folder(path: Path) -> None:
    """Remove all below a folder, with one descriptor per level and never through a link."""
    top = _open_writable(os.fspath(path), None)
    # (descriptor, the folder's name in the one above, its sub-folders that are still there)
    stack: list[tuple[int, str, list[str]]] = [(top, "", [])]
    try:
        stack[0][2].extend(_remove_files(top))
        while stack:
            descriptor, name, folders = stack[-1]
            if folders:
                child = folders.pop()
                child_descriptor = _open_writable(child, descriptor)
                if len(stack) >= _REMOVE_DEPTH_MAX:
                    os.close(child_descriptor)
                    moved = temporary_name()
                    os.rename(child, moved, src_dir_fd=descriptor, dst_dir_fd=top)
                    stack[0][2].append(moved)
                    continue
                stack.append((child_descriptor, child, []))
                stack[-1][2].extend(_remove_files(child_descriptor))
                continue
            os.close(descriptor)
            stack.pop()
            if stack:
                os.rmdir(name, dir_fd=stack[-1][0])
    finally:
        for descriptor, _, _ in stack:
            os.close(descriptor)


def _remove_files(descriptor: int) -> list[str]:
    """Remove what is no folder from an open folder; return the names of its sub-folders."""
    folders = []
    with os.scandir(descriptor) as entries:
        listed = list(entries)
    for entry in listed:
        if entry.is_dir(follow_symlinks=False):
            folders.append(entry.name)
        else:
            os.unlink(entry.name, dir_fd=descriptor)
    return folders


def _open_writable(name: str | bytes, parent: int | None) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        descriptor = os.open(name, flags, dir_fd=parent)
    except PermissionError:
        # Unreadable: it can only be opened after its mode is changed by name. Ours alone can be changed that way.
        os.chmod(name, 0o700, dir_fd=parent)
        descriptor = os.open(name, flags, dir_fd=parent)
    status = os.fstat(descriptor)
    if status.st_mode & 0o700 != 0o700:
        # Another user's folder that our group may write to stays as it is; what cannot be removed says so itself.
        with contextlib.suppress(PermissionError):
            os.fchmod(descriptor, stat.S_IMODE(status.st_mode) | 0o700)
    return descriptor


def _unlink_quietly(path: Path) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


__all__ = [
    "ensure_folder",
    "flush_descriptor",
    "flush_file_systems",
    "flush_folder",
    "is_temporary",
    "place",
    "remove_tree",
    "replace",
    "temporary_name",
    "write_all",
    "write_file",
]

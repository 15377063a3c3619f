"""The one way in which something becomes visible: written beside its target, checked, flushed, renamed.

Readers see the old or the new, whole. A crash leaves at most a temporary file whose name `is_temporary` knows: a
leading ``.dm-``, a trailing ``.tmp``.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from dm.errors import DmError, Refused
from dm.plumbing.fs.flush import flush_descriptor, flush_file_systems, flush_folder
from dm.plumbing.fs.machine import AnyPath, display_path, machine_errors
from dm.plumbing.fs.remove import remove_tree, unlink_quietly
from dm.plumbing.fs.temporary import is_temporary, temporary_name

#: What a rename or a link onto something that lies there can answer.
_IN_THE_WAY = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR})
#: So often a folder above may be taken away by others while one is made in it.
_REFUSED_MAX = 20
#: What `link` answers on file systems that have no hard links (vfat: EPERM), or at the link count's limit.
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})


def write_file(
    path: Path, data: bytes, *, durable: bool = True, mode: int | None = None, like: os.stat_result | None = None
) -> None:
    """Make ``path`` hold ``data``; a reader sees the old content or the new one, whole.

    The bytes go to a temporary file beside ``path``, which is flushed and renamed over it; with ``durable`` the folder
    is flushed as well, so that the new content survives a power cut once this returns. ``mode`` sets the permission
    bits (default: 0666 less the umask); ``like`` gives the new file the permissions and, where permitted, owner and
    group of that earlier stat. A symlink at ``path`` is replaced, not followed; missing folders are made.

    Raises `MachineFailed`, and `Refused` when a folder lies at ``path``; then the old content is untouched and the
    temporary file is gone. A crash may leave the temporary file.
    """
    folder = path.parent
    temporary = folder / temporary_name()
    with machine_errors("write", path):
        try:
            stage_file(temporary, data, durable=durable, mode=mode, like=like)
            _rename(temporary, path)
        except BaseException:
            unlink_quietly(temporary)
            raise
        if durable:
            flush_folder(folder)


def stage_file(
    path: Path, data: bytes, *, durable: bool = True, mode: int | None = None, like: os.stat_result | None = None
) -> None:
    """Write a new file at a private name; the options are those of `write_file`, missing folders are made.

    Raises `OSError`; then a part of it may lie there.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        descriptor = os.open(path, flags, 0o666)
    except FileNotFoundError:
        ensure_folder(path.parent)
        descriptor = os.open(path, flags, 0o666)
    try:
        if like is not None:
            _take_over_owner(descriptor, like)
            os.fchmod(descriptor, like.st_mode & 0o777)
        if mode is not None:
            os.fchmod(descriptor, mode)
        write_all(descriptor, data)
        if durable:
            flush_descriptor(descriptor)
    finally:
        os.close(descriptor)  # a full disk may say so only here


def write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    """Write every byte of ``data``: `os.write` may stop early. Raises `OSError`."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_private(path: str, data: bytes | memoryview, *, mode: int = 0o666) -> None:
    """Write a new file at a private name; one that can be written to is also its group's (`share_with_group`).

    Raises `OSError`.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        if mode & 0o020:
            share_with_group(descriptor, path)
        write_all(descriptor, data)
    finally:
        os.close(descriptor)  # a full disk may say so only here


def share_with_group(descriptor: int, path: str | Path) -> None:
    """Let the group read and write an open file of ours, where it may write to its folder and the folder is its."""
    folder = os.stat(os.path.dirname(path) or ".")
    have = os.fstat(descriptor)
    if folder.st_mode & 0o020 and folder.st_gid == have.st_gid and not have.st_mode & 0o020:
        os.fchmod(descriptor, (have.st_mode & 0o777) | 0o060)


def replace(staged: str | Path, target: str | Path) -> None:
    """Rename ``staged`` over ``target``; the target's missing folders are made first.

    A file replaces a file, a folder replaces nothing or an empty folder. Raises `Refused` when something else is in
    the way, `MachineFailed` for faults of the machine. Both sides lie in one file system: another one is a bug of the
    caller and raises a plain `DmError` (exit 70).
    """
    with machine_errors("put in place", target):
        _rename(staged, target)


def place(staged: str | Path, target: str | Path) -> bool:
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
            ensure_folder(Path(target).parent)
            return _place(staged, target)


def _place(staged: str | Path, target: str | Path) -> bool:
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


def _rename_folder(staged: str | Path, target: str | Path) -> bool:
    try:
        os.rename(staged, target)
    except OSError as error:
        if error.errno in _IN_THE_WAY and os.path.lexists(target):
            return False
        raise
    return True


def _rename(staged: str | Path, target: str | Path) -> None:
    try:
        try:
            os.rename(staged, target)
        except FileNotFoundError:
            os.lstat(staged)
            ensure_folder(Path(target).parent)
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


def ensure_folder(path: Path, *, root: Path | None = None) -> list[Path]:
    """Make a folder and those above it; return the ones that were made, outermost first (none: it was there).

    Below ``root`` new folders take the group's permissions and setgid from the root folder, so that a store which a
    group shares stays writable for the group whatever the umask. Raises `Refused` when a file is in the way,
    `MachineFailed` for faults of the machine.
    """
    missing: list[Path] = []
    made: list[Path] = []
    folder = path
    refused = 0
    with machine_errors("make the folder", path):
        while True:
            try:
                os.mkdir(folder)
            except FileNotFoundError:
                # Below a folder that is there: /proc and automounters say so of what they do not make.
                refused += os.path.isdir(folder.parent)
                if folder.parent == folder or refused > _REFUSED_MAX:
                    raise
                missing.append(folder)
                folder = folder.parent
                continue
            except FileExistsError:
                if not os.path.isdir(folder):
                    raise _in_the_way(folder) from None
            except NotADirectoryError:
                above = folder.parent
                while not os.path.lexists(above):
                    above = above.parent
                raise _in_the_way(above) from None
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


def _take_over_owner(descriptor: int, like: os.stat_result) -> None:
    have = os.fstat(descriptor)
    for owner, group in ((like.st_uid, like.st_gid), (-1, like.st_gid)):
        if (owner in (-1, have.st_uid)) and group == have.st_gid:
            return
        try:
            os.fchown(descriptor, owner, group)
            return
        except PermissionError:
            continue  # only root gives files away; the group alone may still be kept


__all__ = [
    "ensure_folder",
    "flush_descriptor",
    "flush_file_systems",
    "flush_folder",
    "is_temporary",
    "place",
    "remove_tree",
    "replace",
    "share_with_group",
    "stage_file",
    "temporary_name",
    "write_all",
    "write_file",
    "write_private",
]

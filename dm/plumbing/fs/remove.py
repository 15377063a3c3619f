"""Removing: whole folders, without ever following a link."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.fs.temporary import temporary_name

#: Deeper than this, `remove_tree` moves a sub-folder up before it goes on: a descriptor is open for every level.
_REMOVE_DEPTH_MAX = 200


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
            unlink_quietly(path)
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


def unlink_quietly(path: Path) -> None:
    """Remove a file or link that may be gone already. Raises `OSError`."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)

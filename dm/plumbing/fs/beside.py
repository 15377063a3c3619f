"""A private folder beside a place, for what is to be renamed to it: the next one who does the same clears a dead one's.

``.dm-<name>-<pid>-<random>.tmp`` beside ``<name>``, held by `flock` on itself for as long as the work goes on. The
kernel drops the lock of a killed process, so its folder is known to be nobody's, whatever it holds. Where there is no
`flock` nothing is cleared: a folder in use cannot be told from an abandoned one.

It is for places outside of a store, which has `.dm/partial` (`store.workspace`).
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

from dm.plumbing.fs.flock import try_flock, unlock
from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.fs.publish import ensure_folder, remove_tree
from dm.plumbing.fs.temporary import is_temporary_of, temporary_name

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class Beside:
    """A `with` block that gives a path, where nothing lies, on the file system of ``target``'s folder.

    What is left at it goes at the end, and so does what killed ones left for the same target. Missing folders above
    ``target`` are made. Raises `MachineFailed`, and `Refused` when a file is in their way. A crash leaves the folder.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._folder = target.parent
        self._descriptor = -1

    def __enter__(self) -> Path:
        with machine_errors("write", self._target):
            ensure_folder(self._target.parent)
            self._clear_abandoned()
            while not self._make():
                pass
        return self._folder / self._target.name

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        try:
            remove_tree(self._folder)
        finally:
            unlock(descriptor)

    def _make(self) -> bool:
        """Make the folder and lock it; False when another took it for a dead one's before it was locked."""
        self._folder = self._target.with_name(temporary_name(self._target.name))
        os.mkdir(self._folder, 0o700)
        try:
            descriptor = os.open(self._folder, _FOLDER)
        except FileNotFoundError:
            return False
        if try_flock(descriptor) is not False and os.fstat(descriptor).st_nlink:
            self._descriptor = descriptor
            return True
        os.close(descriptor)
        return False

    def _clear_abandoned(self) -> None:
        folder = self._target.parent
        try:
            names = os.listdir(folder)
        except PermissionError:
            return  # a drop-box folder may be written but not read
        for name in names:
            if not is_temporary_of(self._target.name, name):
                continue
            try:
                descriptor = os.open(folder / name, _FOLDER)
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                continue  # gone meanwhile, not ours, or another user's, who clears it
            try:
                if try_flock(descriptor):
                    remove_tree(folder / name)
            finally:
                os.close(descriptor)

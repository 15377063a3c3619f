"""A private folder for one piece of work in a store: what is half-done lies here and nowhere else.

``.dm/partial/work-<n>``, held by `flock` on ``.dm/locks/work-<n>`` for as long as the work goes on. The kernel drops
the lock of a killed process, so the next work in the store finds the folder free and clears it: partial leftovers never
pile up and nobody has to judge their age. Where there is no `flock` the folder's name is unique and one that nobody
touched for a day is cleared.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from dm.environment import read_clock_ns
from dm.errors import DmError, MachineFailed
from dm.plumbing.fs.flock import open_lock_file, try_flock, unlock
from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.fs.publish import ensure_folder, is_temporary, remove_tree
from dm.plumbing.store.layout import Layout

_PREFIX = "work-"
#: How many pieces of work may go on at once in one store; more than processes on a machine that share one.
_SLOTS = 1000
#: Without `flock`: a folder that was not touched for so long is nobody's.
_ABANDONED_NS = 24 * 3600 * 1_000_000_000


class Workspace:
    """A `with` block with a private, empty ``folder`` on the store's file system, removed at the end.

    ``new_path()`` gives names in it that are not in use. Raises `MachineFailed` where nothing can be written.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._descriptor = -1
        self._count = 0
        self.folder = ""

    def __enter__(self) -> Self:
        layout = self._layout
        layout.prepare()
        with machine_errors("work in", layout.partial):
            name = self._take_slot()
            self.folder = os.fspath(layout.partial / name)
            try:
                self._clear_abandoned(name)
                path = Path(self.folder)
                remove_tree(path)
                ensure_folder(path, root=layout.root)
            except BaseException:
                self._release()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            remove_tree(Path(self.folder))
        except DmError:
            # The next work clears it. What went wrong in this one is what has to be told.
            if error is None:
                raise
        finally:
            self._release()

    def new_path(self) -> str:
        """A path in the folder that was not given before."""
        self._count += 1
        return f"{self.folder}/{self._count}"

    def _take_slot(self) -> str:
        for slot in range(_SLOTS):
            name = f"{_PREFIX}{slot}"
            taken = self._try(name)
            if taken:
                return name
            if taken is None:
                return f"{_PREFIX}{os.getpid()}-{os.urandom(8).hex()}"
        raise MachineFailed(f"{_SLOTS} pieces of work go on at once in '{self._layout.root}'", code="locked")

    def _try(self, name: str) -> bool | None:
        descriptor, _ = open_lock_file(self._layout.locks / name, root=self._layout.root)
        try:
            taken = try_flock(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        if taken:
            self._descriptor = descriptor
        else:
            os.close(descriptor)
        return taken

    def _release(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            unlock(descriptor)

    def _clear_abandoned(self, own: str) -> None:
        try:
            names = os.listdir(self._layout.partial)
        except FileNotFoundError:
            return
        for name in names:
            if is_temporary(name):
                path = self._layout.partial / name
                if _is_abandoned(path):
                    remove_tree(path)
            if not name.startswith(_PREFIX) or name == own:
                continue
            path = self._layout.partial / name
            if name[len(_PREFIX) :].isdecimal():
                other = Workspace(self._layout)
                if other._try(name):
                    try:
                        remove_tree(path)
                    finally:
                        other._release()
            elif _is_abandoned(path):
                remove_tree(path)


def _is_abandoned(path: Path) -> bool:
    try:
        return read_clock_ns() - os.lstat(path).st_mtime_ns > _ABANDONED_NS
    except FileNotFoundError:
        return False

"""Refs as files below ``.dm/refs``: read, put in their place by one rename, removed, listed.

A ref's path below that folder is its copy's below the root. So a copy inside another would need a file where there is a
folder: that is refused, unless what is in the way is the stale ref of a copy that is gone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from dm.errors import Refused
from dm.plumbing.fs.flush import flush_file
from dm.plumbing.fs.machine import display_path, machine_errors
from dm.plumbing.fs.publish import remove_tree, replace, write_private
from dm.plumbing.fs.temporary import is_temporary, temporary_name
from dm.plumbing.store.layout import Layout
from dm.plumbing.store.markers import MARKER_NAME
from dm.plumbing.store.refs import Ref, check_ref_name

#: More than any ref has.
_BYTES_MAX = 4096


class RefFiles:
    """The refs of one store. A store that is not there has none; only `write` makes it."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def name(self, copy: str | Path) -> str:
        """The checked name of a ref, given by itself (a text) or by its copy's path. Raises `Refused`."""
        return self._layout.ref_name(copy) if isinstance(copy, Path) else check_ref_name(copy)

    def read(self, name: str) -> Ref | None:
        """What was last seen of a copy; None: nothing known. Raises `Malformed` for a ref that cannot be read."""
        path = self._layout.ref_path(name)
        if not self._layout.is_there():
            return None
        with machine_errors("read", path):
            try:
                # Not a file object: `dm status` reads thousands of refs. A fifo is empty: nobody is waited for.
                descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
                try:
                    line = os.read(descriptor, _BYTES_MAX).decode("utf-8", "replace")
                finally:
                    os.close(descriptor)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None
        # A power cut without `durable` may leave an empty file: then nothing is known.
        return Ref.parse(line, file=path) if line else None

    def write(self, name: str, ref: Ref, *, durable: bool) -> None:
        """Record what was seen of a copy, flushed first with ``durable``. Raises as `put` does."""
        self._layout.prepare()
        private = self._layout.partial / temporary_name()
        with machine_errors("write", self._layout.refs / name):
            try:
                stage_ref(ref, os.fspath(private))
                if durable:
                    flush_file(private)
                self.put(name, private)
            except BaseException:
                remove_tree(private)
                raise

    def put(self, name: str, private: str | Path) -> None:
        """Move a staged ref's file to its place.

        A stale ref in the way (of a file where there is a folder now, or the reverse) is removed when its copy is gone.
        Raises `Refused` when its copy is there: one copy would lie inside another.
        """
        path = self._layout.ref_path(name)
        try:
            self._layout.ensure_folder_once(os.path.dirname(path))
            replace(private, path)
        except Refused:
            self._clear_stale(name)
            replace(private, path)

    def refuse_copies_below(self, name: str) -> None:
        """Raise `Refused` where copies that are there lie below a place: nobody may put it aside with them in it."""
        refs = self._layout.refs
        if os.path.isdir(refs / name):
            for below in self._list_below(name):
                if os.path.lexists(self._layout.root / below):
                    raise self._make_nested(name, below)

    def remove(self, name: str) -> None:
        """Forget what was seen of a copy; nothing there is fine."""
        path = self._layout.ref_path(name)
        if not self._layout.is_there():
            return
        with machine_errors("remove", path):
            try:
                os.unlink(path)
            except (FileNotFoundError, NotADirectoryError):
                return

    def list_names(self) -> list[str]:
        """The name of every ref, in the order of the names' parts; none is read."""
        if not self._layout.is_there():
            return []
        return sorted(self._list_below(""), key=lambda each: each.split("/"))

    def list_refs(self) -> Iterator[tuple[str, Ref]]:
        """Every ref of which something is known, in that order. Raises `Malformed` for one that cannot be read,
        and `Refused` for one that has a name that no copy may have.
        """
        for name in self.list_names():
            ref = self.read(check_ref_name(name))
            if ref is not None:
                yield name, ref

    def _list_below(self, below: str) -> Iterator[str]:
        folder = self._layout.refs / below
        with machine_errors("list the refs in", folder):
            try:
                entries = list(os.scandir(folder))
            except FileNotFoundError:
                return
        for entry in entries:
            name = f"{below}/{entry.name}" if below else entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from self._list_below(name)
            elif not is_temporary(entry.name):
                yield name

    def _clear_stale(self, name: str) -> None:
        refs = self._layout.refs
        parts = name.split("/")
        for count in range(1, len(parts)):
            above = "/".join(parts[:count])
            if os.path.isfile(refs / above):
                self._remove_stale(above, name)
        top = refs / name
        for folder, _, files in os.walk(top):
            for file in files:
                self._remove_stale(os.path.relpath(os.path.join(folder, file), refs), name)
        if top.is_dir():
            remove_tree(top)

    def _remove_stale(self, stale: str, name: str) -> None:
        if os.path.lexists(self._layout.root / stale) and not self._is_plain_parent(stale, name):
            raise self._make_nested(name, stale)
        remove_tree(self._layout.refs / stale)

    def _make_nested(self, name: str, other: str) -> Refused:
        root = self._layout.root
        return Refused(
            f"cannot publish '{display_path(root / name)}': the copy '{display_path(root / other)}' is in the way",
            hint="one copy cannot lie inside another; set a 'key' of its own for one of them",
            code="nested-copies",
        )

    def _is_plain_parent(self, stale: str, name: str) -> bool:
        # The old copy was a file or folder that is gone; what has its name now is only a folder on the way to the new.
        folder = self._layout.root / stale
        return name.startswith(f"{stale}/") and folder.is_dir() and not os.path.lexists(folder / MARKER_NAME)


def stage_ref(ref: Ref, private: str) -> None:
    """Write a ref under a private name, for `RefFiles.put`. Raises `OSError`."""
    write_private(private, f"{ref.format()}\n".encode())

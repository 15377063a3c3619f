"""What is finished appears as a copy: by one rename, or as a link of its object.

A folder on the way to the copy may be a mount of its own, which no rename reaches from ``.dm``: then the bytes are
brought beside the copy first, under a name that the next one in the same place clears.
"""

from __future__ import annotations

import os
from pathlib import Path

from dm.errors import Refused
from dm.plumbing.fs.exchange import exchange
from dm.plumbing.fs.link import LinkMode, link_file
from dm.plumbing.fs.machine import display_path, machine_errors
from dm.plumbing.fs.publish import flush_file_systems, place, remove_tree, replace
from dm.plumbing.hashing import blake3_of
from dm.plumbing.store.copying import copy_privately
from dm.plumbing.store.layout import Layout
from dm.plumbing.store.quarantine import put_in_place_of, set_aside
from dm.plumbing.store.workspace import Workspace


class Placer:
    """Puts copies in their places, in a workspace of the store. The caller holds the copies' locks."""

    def __init__(self, layout: Layout, workspace: Workspace, *, durable: bool) -> None:
        self._layout = layout
        self._work = workspace
        self._durable = durable
        self._reached: dict[str, bool] = {}

    def reaches(self, copy: str | Path) -> bool:
        """Whether what is staged in the workspace can be renamed to a copy's place; looked at once for a folder."""
        folder = os.path.dirname(copy)
        known = self._reached.get(folder)
        if known is None:
            known = self._reached[folder] = is_on_store_device(self._layout, Path(folder))
        return known

    def new_path(self, copy: Path) -> Path:
        """A private path, where nothing lies, from which one rename reaches the copy's place."""
        return Path(self._work.new_path()) if self.reaches(copy) else _clear_beside(copy, b"new")

    def put(self, staged: Path, copy: Path, *, is_folder: bool, replaces: bool) -> bool:
        """Move a staged file or folder to its place. With ``replaces`` what lies there, unmarked, gives way.

        Returns whether its bytes had to be written once more. Raises `Refused` when something appeared there.
        """
        is_near = self.reaches(copy)
        if not is_near:
            staged = self._bring_beside(staged, copy)
        if not replaces:
            if not place(staged, copy):
                raise _appeared(copy)
        elif not is_folder and (copy.is_symlink() or not copy.is_dir()):
            replace(staged, copy)
        elif _exchange(staged, copy):
            remove_tree(staged)  # what lay there
        else:
            # A folder cannot be renamed over one that holds something: the old one goes first, after its marker.
            aside = Path(self._work.new_path()) if is_near else _clear_beside(copy, b"old")
            os.rename(copy, aside)
            try:
                is_placed = place(staged, copy)
            except BaseException:
                if not place(aside, copy):
                    self._set_aside(aside, copy)
                raise
            if not is_placed:
                kept = self._set_aside(aside, copy)
                raise _appeared(copy, hint=f"look at it; what lay there before is kept at '{display_path(kept)}'")
            remove_tree(aside)
        return not is_near

    def put_in_place_of(self, staged: Path, copy: Path, *, note: str) -> tuple[Path, bool]:
        """Move a staged file or folder to its place, and what lies there to the quarantine, as `quarantine` has it.

        Returns where that is kept, and as `put` whether bytes were written once more. Raises `Refused` when something
        appeared there.
        """
        is_near = self.reaches(copy)
        kept, is_placed = put_in_place_of(
            self._layout, copy, staged if is_near else self._bring_beside(staged, copy), note
        )
        if not is_placed:
            raise _appeared(copy, hint=f"look at it; what lay there before is kept at '{display_path(kept)}'")
        return kept, not is_near

    def link(self, source: str, copy: str) -> LinkMode:
        """Make a copy, where nothing lies, a hard link of a file; where none can be made now it is copied.

        Returns which it became. Raises `Refused` when something appeared there.
        """
        try:
            os.link(source, copy, follow_symlinks=False)
        except FileExistsError:
            raise _appeared(copy) from None
        except OSError:
            # It worked when it was tried out, and not for this file: it stands alone.
            private = self._work.new_path()
            link_file(source, private, modes=("copy",))
            if not place(private, copy):
                raise _appeared(copy) from None
            return "copy"
        return "hardlink"

    def _set_aside(self, old: Path, copy: Path) -> Path:
        return set_aside(self._layout, old, f"lay at '{display_path(copy)}' until something else appeared there")

    def _bring_beside(self, staged: Path, copy: Path) -> Path:
        beside = _clear_beside(copy, b"new")
        copy_privately(os.fspath(staged), os.fspath(beside))
        if self._durable:
            flush_file_systems([beside])
        return beside


def is_on_store_device(layout: Layout, folder: Path) -> bool:
    """Whether a folder below the root, there or still to be made, is on the file system of ``.dm``."""
    with machine_errors("look at", folder):
        while not folder.is_dir() and folder != layout.root:
            folder = folder.parent
        return os.stat(folder).st_dev == os.stat(layout.meta).st_dev


def _exchange(staged: Path, copy: Path) -> bool:
    with machine_errors("put in place", copy):
        return exchange(staged, copy)


def _clear_beside(copy: Path, purpose: bytes) -> Path:
    """A private name beside a copy, the same for every run, so that what a kill left there goes now."""
    name = blake3_of(purpose + b"\0" + os.fsencode(copy.name)).hex()[:32]
    beside = copy.parent / f".dm-{name}.tmp"
    remove_tree(beside)
    return beside


def _appeared(copy: str | Path, *, hint: str = "look at it, then run the command again") -> Refused:
    return Refused(
        f"cannot publish to '{display_path(copy)}': something appeared there meanwhile", hint=hint, code="occupied"
    )

"""A working copy at its place: what the marker, the ref and the disk say of it.

Three kinds of place (SCHEMA.md, "Places"): below a store root, where refs and markers are kept; managed but in no store
(``storage_path`` with ``$key`` inside a segment), with a marker; and user-managed, where nothing but the data itself is
ever written. What was last seen of the latter two is in the project's own notes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from dm.plumbing.fs.machine import machine_failed
from dm.plumbing.store.markers import read_copy_state
from dm.plumbing.store.refs import Ref

if TYPE_CHECKING:
    from dm.plumbing.records.copy_notes import CopyNotes
    from dm.plumbing.store.disk import DiskStore
    from dm.plumbing.store.layout import Layout
    from dm.progress import Progress


class Notes:
    """What a project last saw of the copies that are in no store, and the commits of repositories: read once, written
    in one go by `write`.
    """

    def __init__(self, project_root: Path, progress: Progress) -> None:
        self._root = project_root
        self._progress = progress
        self._read: CopyNotes | None = None
        self._new: dict[Path, str] = {}
        self._gone: set[Path] = set()
        self._commits: dict[Path, str | None] = {}

    def find(self, path: Path) -> Ref | None:
        """What was last seen of the copy at a path; None when nothing is known."""
        line = self._known.copies.get(path)
        return None if line is None else Ref.parse(line)

    def list_copies(self) -> list[Path]:
        """The copies that something is known of, wherever they lie; they may be gone."""
        return list(self._known.copies)

    def find_revision(self, path: Path) -> str | None:
        """The commit that the working copy at a path is of; None when it is no repository's, or not known."""
        return self._known.revisions.get(path)

    def note_revision(self, path: Path, revision: str | None) -> None:
        """Remember the commit, or that there is none; `write` makes it last."""
        known = self._known.revisions
        if known.get(path) == revision:
            return
        self._commits[path] = revision
        if revision is None:
            del known[path]
        else:
            known[path] = revision

    @property
    def layout(self) -> Layout:
        """Where notes on unlocked copies are that are in no store."""
        from dm.plumbing.records.private import PRIVATE_FOLDER
        from dm.plumbing.store.layout import Layout

        return Layout(self._root / PRIVATE_FOLDER)

    @property
    def _known(self) -> CopyNotes:
        if self._read is None:
            from dm.plumbing.records.copy_notes import read_copy_notes

            self._read = read_copy_notes(self._root, progress=self._progress)
        return self._read

    def note(self, path: Path, ref: Ref | None) -> None:
        """Remember what was seen, or that the copy is gone; `write` makes it last."""
        if self.find(path) == ref:
            return
        known = self._known.copies
        if ref is None:
            known.pop(path, None)
            self._new.pop(path, None)
            self._gone.add(path)
        else:
            known[path] = self._new[path] = ref.format()
            self._gone.discard(path)

    def write(self) -> None:
        """Write what is new; nothing when nothing is."""
        if self._new or self._gone or self._commits:
            from dm.plumbing.records.copy_notes import merge_copy_notes

            commits = self._commits
            merge_copy_notes(self._root, self._new, self._gone, revisions=commits, progress=self._progress)
            self._new, self._gone, self._commits = {}, set(), {}


class Copy:
    """One place of one dataset's working copy."""

    __slots__ = ("_notes", "path", "store", "user_managed")

    def __init__(self, path: Path, store: DiskStore | None, *, user_managed: bool, notes: Notes) -> None:
        self.path = path
        self.store = store
        self.user_managed = user_managed
        self._notes = notes

    def exists(self) -> bool:
        """Whether anything lies at the place; a dangling link counts."""
        try:
            os.lstat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise machine_failed(error, "look at", self.path) from error
        return True

    def is_marked(self) -> bool:
        """Whether the copy is complete by its marker; at a user-managed place, whether it exists."""
        if self.user_managed:
            return self.exists()
        return read_copy_state(self.path) == "complete"

    def read_ref(self) -> Ref | None:
        """What was last seen of the copy; None when nothing is known."""
        if self.store is not None:
            return self.store.read_ref(self.path)
        return self._notes.find(self.path)

    def write_ref(self, ref: Ref) -> None:
        """Record what was seen of the copy."""
        if self.store is not None:
            self.store.write_ref(self.store.ref_name(self.path), ref)
        else:
            self._notes.note(self.path, ref)

    def is_unlocked(self) -> bool:
        """Whether the copy is unlocked: private, writable, its bytes its user's to change (`dm unlock`)."""
        if self.user_managed:
            return False
        if self.store is not None:
            return self.store.is_unlocked(self.path)
        from dm.plumbing.store.unlocked import is_unlocked

        return is_unlocked(self._notes.layout, os.fspath(self.path))

    def forget_unlocked(self) -> None:
        """The copy is not unlocked any more, or gone."""
        if self.store is not None:
            self.store.forget_unlocked(self.path)
            return
        from dm.plumbing.store.unlocked import forget_unlocked

        forget_unlocked(self._notes.layout, os.fspath(self.path))

    def note_revision(self, revision: str | None) -> None:
        """Record the commit that the copy is of; None when it is no repository's."""
        self._notes.note_revision(self.path, revision)

    def find_revision(self) -> str | None:
        """The commit that the copy is of; None when it is no repository's, or another checkout fetched it."""
        return self._notes.find_revision(self.path)

    def remove_ref(self) -> None:
        """Forget what was seen of the copy."""
        self.note_revision(None)
        if self.store is not None:
            self.store.remove_ref(self.store.ref_name(self.path))
        else:
            self._notes.note(self.path, None)

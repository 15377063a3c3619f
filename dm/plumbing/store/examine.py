"""Is everything in a store as it should be? Its objects, its refs, its markers, and what dead processes left.

Every object is read and held against its name; refs, copies and markers are held against each other. Nothing is
changed. Copies themselves are compared by `dm.plumbing.store.verify`, which is told what was read here, so that a file
that is hard-linked to its object is read once.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from dm.errors import DmError, MachineFailed
from dm.plumbing.fs.flock import open_lock_file, try_flock, unlock
from dm.plumbing.fs.machine import display_path, machine_errors
from dm.plumbing.fs.temporary import is_temporary
from dm.plumbing.hashing import tree_id_of
from dm.plumbing.store.layout import Layout
from dm.plumbing.store.loose import is_hex
from dm.plumbing.store.markers import MARKER_NAME, has_marker
from dm.plumbing.store.object_look import ExaminedObjects, ObjectLook, ObjectReader
from dm.plumbing.store.objects import FOLDER_MODE, TreeEntry, decode_tree
from dm.plumbing.store.ref_files import RefFiles
from dm.plumbing.store.refs import Ref
from dm.plumbing.store.unlocked import list_unlocked
from dm.progress import SILENT, Progress
from dm.values import Digest

#: object-damaged: an object's bytes are not those of its name. object-missing: a tree in the store names one that is
#: not there. object-unreadable: one that may not be read. object-stray: a file among the objects that is none.
#: ref-malformed: a ref that cannot be read. copy-missing: a ref whose copy is not there. ref-missing: a marked copy
#: without a ref. marker-missing: a copy with a ref and without its marker. marker-stray: a marker without a copy.
#: leftover: what a process that is gone left behind. folder-closed: a folder that may, or can, not be looked into.
FindingKind = Literal[
    "object-damaged",
    "object-missing",
    "object-unreadable",
    "object-stray",
    "ref-malformed",
    "copy-missing",
    "ref-missing",
    "marker-missing",
    "marker-stray",
    "leftover",
    "folder-closed",
]
#: Kinds that mean that bytes are lost or wrong; the others are untidy.
DAMAGE = frozenset({"object-damaged", "object-missing"})

#: Faults that concern one folder alone, in words.
_CLOSED = {"permission": "you may not look into it", "name-too-long": "it lies too deep to be looked into"}
#: Folders that hold no copies.
_LEFT_OUT = frozenset((".dm", ".git", ".hg", ".datamanifest"))


class Finding(NamedTuple):
    """One thing that is not as it should be, in words. ``digest`` is the object's, where it is about one; ``copies``
    the names of the refs that lead to it, ``size_bytes`` what it should have, where a tree or a ref says so.
    """

    kind: FindingKind
    path: Path
    message: str
    digest: Digest | None = None
    copies: tuple[str, ...] = ()
    size_bytes: int | None = None


class Examiner:
    """Looks through one store; one examination at a time."""

    def __init__(self, layout: Layout, *, progress: Progress = SILENT) -> None:
        self._layout = layout
        self._progress = progress
        self._refs = RefFiles(layout)
        self._trees: set[bytes] = set()  # trees that refs lead to
        self._sizes: dict[bytes, int | None] = {}  # of files that refs lead to

    def read_objects(self, look: ObjectLook = ObjectLook()) -> ExaminedObjects:  # noqa: B008 - frozen
        """Read every object, or those that ``look`` allows; as `ObjectReader.read`."""
        return ObjectReader(self._layout, look, self._progress).read()

    def find_object_faults(self, examined: ExaminedObjects) -> Iterator[Finding]:
        """Each object that is damaged, missing below a tree that is here, or none at all, with the copies it is of.

        Of objects that were not read nothing is said.
        """
        promised = {entry.id: entry for entries in examined.trees.values() for entry in entries}
        missing = {raw for raw in promised if raw not in examined.present}
        copies = self._find_users(examined, missing | examined.damaged.keys())
        for raw in sorted(missing | examined.damaged.keys()):
            entry = promised.get(raw)
            is_tree = raw in self._trees or (entry is not None and entry.mode == FOLDER_MODE)
            digest = Digest.of_tree(raw) if is_tree else Digest.of_blob(raw)
            kind: FindingKind = "object-missing" if raw in missing else "object-damaged"
            message = f"its bytes are not those of {digest.short}"
            if raw in missing:
                message = "a tree in the store names it, and it is not there"
            size_bytes = self._sizes.get(raw) if entry is None else entry.size
            path = Path(self._layout.object_path(raw))
            yield Finding(kind, path, message, digest, tuple(copies[raw]), None if is_tree else size_bytes)
        for raw, error in sorted(examined.unreadable.items()):
            yield Finding("object-unreadable", Path(self._layout.object_path(raw)), error.message, Digest.of_blob(raw))
        yield from self._list_strays()

    def find_ref_faults(self) -> Iterator[Finding]:
        """Each ref that cannot be read, that has no copy, or whose copy has no marker."""
        for name, ref in self._list_refs():
            path, copy = Path(self._layout.ref_path(name)), self._layout.root / name
            if isinstance(ref, DmError):
                yield Finding("ref-malformed", path, ref.message, copies=(name,))
            elif not os.path.lexists(copy):
                yield Finding("copy-missing", copy, "it was here when it was last seen", ref.digest, (name,))
            elif not self._has_marker(copy):
                yield Finding("marker-missing", copy, "it has no completion marker", ref.digest, (name,))

    def find_place_faults(self) -> Iterator[Finding]:
        """Each marked copy without a ref, marker without a copy and leftover, below the root, and each folder that may
        or can not be looked into (another user's own, ``lost+found``, too deep), whose like does not end the look.

        Stores further in and what belongs to version control are not entered. Nothing is read but names and stat data.
        A root without ``.dm`` may hold copies of other tools all the same.
        """
        if not self._layout.root.is_dir():
            return
        known = set(self._refs.list_names())
        waiting = [self._layout.root]
        while waiting:
            folder = waiting.pop()
            try:
                with machine_errors("look into", folder):
                    found, further = self._look_into(folder, known)
            except MachineFailed as error:
                reason = _CLOSED.get(error.code)
                if reason is None or folder == self._layout.root:
                    raise
                yield Finding("folder-closed", folder, f"{reason}, and what it holds is not known")
                continue
            yield from found
            waiting += further
        yield from self._find_leftovers()

    def _look_into(self, folder: Path, known: set[str]) -> tuple[list[Finding], list[Path]]:
        """What is wrong right in a folder, and its folders that are still to be looked into."""
        is_root = folder == self._layout.root
        if not is_root and (folder / ".dm" / "format").exists():
            return [], []
        names = set(os.listdir(folder))
        if MARKER_NAME in names and not is_root and has_marker(folder, is_folder=True):
            # What lies in a copy is its own.
            if self._ref_of(folder) in known:
                return [], []
            return [Finding("ref-missing", folder, "it is marked as complete, and nothing is known of it")], []
        found: list[Finding] = []
        further: list[Path] = []
        for name in sorted(names):
            path = folder / name
            if name in _LEFT_OUT or self._ref_of(path) in known:
                continue
            if path.is_dir() and not path.is_symlink():
                further.append(path)
            else:
                found += self._judge_entry(path, names)
        return found, further

    def _judge_entry(self, path: Path, names: set[str]) -> Iterator[Finding]:
        if path.name.endswith(MARKER_NAME) and path.name != MARKER_NAME:
            status = path.lstat()
            if stat.S_ISREG(status.st_mode) and not status.st_size and path.name.removesuffix(MARKER_NAME) not in names:
                yield Finding("marker-stray", path, "a completion marker, and no copy beside it")
        elif is_temporary(path.name):
            yield Finding("leftover", path, "a temporary file of a process that is gone")
        elif has_marker(path, is_folder=False):
            yield Finding("ref-missing", path, "it is marked as complete, and nothing is known of it")

    def _find_leftovers(self) -> Iterator[Finding]:
        """Workspaces of processes that are gone (their lock is free), and notes on unlocked copies that are gone."""
        for path in _list_folder(self._layout.partial):
            if path.name.startswith("work-") and self._is_free(path.name):
                yield Finding("leftover", path, "work that a process left half-done")
        for name, path in list_unlocked(self._layout):
            if not os.path.lexists(self._layout.root / name):
                yield Finding("leftover", path, f"a note that '{display_path(name)}' is unlocked, which is not there")

    def _is_free(self, name: str) -> bool:
        lock = self._layout.locks / name
        if not lock.exists():
            return False  # a name of its own, where there is no flock: age tells, not this look
        descriptor, _ = open_lock_file(lock, root=self._layout.root)
        taken = try_flock(descriptor)
        if taken:
            unlock(descriptor)
        else:
            os.close(descriptor)
        return bool(taken)

    # Inside

    def _list_strays(self) -> Iterator[Finding]:
        message = "it lies among the objects and is none"
        for folder in _list_folder(self._layout.objects):
            if not is_hex(folder.name, 2) or not folder.is_dir():
                yield Finding("object-stray", folder, message)
                continue
            for path in _list_folder(folder):
                if not is_hex(path.name, 62) or not stat.S_ISREG(path.lstat().st_mode):
                    yield Finding("object-stray", path, message)

    def _list_refs(self) -> Iterator[tuple[str, Ref | DmError]]:
        for name in self._refs.list_names():
            try:
                yield name, self._refs.read(name) or Ref()
            except DmError as error:
                yield name, error

    def _read_refs(self) -> Iterator[tuple[str, Ref]]:
        for name, ref in self._list_refs():
            if isinstance(ref, Ref):
                yield name, ref

    def _find_users(self, examined: ExaminedObjects, wanted: set[bytes]) -> dict[bytes, list[str]]:
        """The copies that lead to each of some objects, through the trees that are sound."""
        users: dict[bytes, list[str]] = {raw: [] for raw in wanted}
        for name, ref in self._read_refs() if wanted else ():
            if ref.digest is not None and ref.digest.is_tree:
                self._trees.add(ref.digest.raw)
            elif ref.digest is not None:
                self._sizes[ref.digest.raw] = ref.size_bytes
            waiting = [] if ref.digest is None else [(ref.digest.raw, ref.digest.is_tree)]
            seen: set[bytes] = set()
            while waiting:
                raw, is_tree = waiting.pop()
                if raw not in seen:
                    seen.add(raw)
                    if raw in users:
                        users[raw].append(name)
                    if is_tree:
                        for entry in self._find_entries(raw, examined):
                            waiting.append((entry.id, entry.mode == FOLDER_MODE))
                            self._sizes[entry.id] = entry.size
                            if entry.mode == FOLDER_MODE:
                                self._trees.add(entry.id)
        return users

    def _find_entries(self, raw: bytes, examined: ExaminedObjects) -> list[TreeEntry]:
        """The entries of a tree, also of one that was not come to in this look; none of one that is not sound."""
        if raw not in examined.trees and raw in examined.present and raw not in examined.damaged:
            try:
                data = Path(self._layout.object_path(raw)).read_bytes()
                examined.trees[raw] = decode_tree(data) if tree_id_of(data) == raw else []
            except (OSError, DmError):
                examined.trees[raw] = []
        return examined.trees.get(raw, [])

    def _ref_of(self, path: Path) -> str:
        return path.relative_to(self._layout.root).as_posix()

    def _has_marker(self, copy: Path) -> bool:
        with machine_errors("look at", copy):
            return has_marker(copy, is_folder=copy.is_dir())


def _list_folder(folder: Path) -> list[Path]:
    try:
        with machine_errors("look into", folder):
            return sorted(folder.iterdir())
    except MachineFailed as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return []
        raise

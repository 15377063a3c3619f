"""What was staged for a copy, found out before anything is written: its files, their ids, its trees, its digest."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dm.errors import Refused
from dm.plumbing.fs.machine import display_path
from dm.plumbing.fs.walk import Entry
from dm.plumbing.hashing import hash_blob
from dm.plumbing.store.copying import copy_privately
from dm.plumbing.store.ground import Ground
from dm.plumbing.store.ingest import marker_in_source
from dm.plumbing.store.layout import Layout
from dm.plumbing.store.markers import MARKER_NAME
from dm.plumbing.store.measure import BuiltTree, build_trees, measure_copy, scan_copy
from dm.plumbing.store.objects import refuse_unsafe_names
from dm.plumbing.store.publication import Publication
from dm.plumbing.store.stamps import NO_ID
from dm.plumbing.store.workspace import Workspace
from dm.progress import Progress
from dm.values import Digest

_MARKER = MARKER_NAME.encode()


class Staged(NamedTuple):
    """A staged file or folder, on the store's file system at ``path``.

    ``entries`` are all that is in a folder, or the file itself, ``ids`` theirs (`NO_ID` for folders and where nothing
    was hashed); ``trees`` are a folder's, by relative name. ``digest`` is None for what stands alone, unmeasured.
    """

    path: str
    entries: Sequence[Entry]
    ids: Sequence[bytes]
    trees: dict[bytes, BuiltTree]
    digest: Digest | None
    size_bytes: int
    files: int

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return bool(self.trees)

    def list_contents(self) -> Iterator[tuple[Entry, bytes]]:
        """Each file and link with its id."""
        for entry, raw in zip(self.entries, self.ids, strict=True):
            if entry.kind != "folder":
                yield entry, raw

    def path_of(self, entry: Entry) -> bytes:
        """Where an entry lies."""
        return os.fsencode(f"{self.path}/") + entry.name if self.trees else os.fsencode(self.path)


class StagedReader:
    """Finds out what was staged, in a workspace of the store. The caller turns `OSError` into words."""

    def __init__(self, layout: Layout, workspace: Workspace, ground: Ground, *, progress: Progress) -> None:
        self._layout = layout
        self._work = workspace
        self._ground = ground
        self._progress = progress
        self._device = os.stat(layout.meta).st_dev

    def read(self, publication: Publication) -> Staged:
        """Read what a publication names; of what is somebody's own, or on another file system, a copy of it.

        Raises `Refused` for what cannot be published.
        """
        path = os.fspath(publication.staged)
        status = os.lstat(path)
        if not publication.owned or status.st_dev != self._device:
            private = self._work.new_path()
            copy_privately(os.path.realpath(path), private)
            path = private
            status = os.lstat(private)
        if stat.S_ISDIR(status.st_mode):
            return self._read_folder(path, publication)
        if stat.S_ISREG(status.st_mode):
            return self._read_file(path, status, publication)
        raise Refused(
            f"cannot publish '{display_path(publication.staged)}': it is neither a file nor a folder",
            code="special-file",
        )

    def _read_file(self, path: str, status: os.stat_result, publication: Publication) -> Staged:
        executables = None if self._ground.keeps_modes else publication.executables or frozenset()
        entry = _entry_of(status, executables=executables)
        size_bytes = status.st_size
        if publication.stand_alone:
            return Staged(path, (entry,), (NO_ID,), {}, None, size_bytes, 1)
        blob_id = publication.blob_id
        if blob_id is None:
            with self._progress.start(publication.copy.name, total=size_bytes) as task:
                blob_id = hash_blob(path, task)
        return Staged(path, (entry,), (blob_id,), {}, Digest.of_blob(blob_id), size_bytes, 1)

    def _read_folder(self, path: str, publication: Publication) -> Staged:
        measured = publication.measured
        folder = Path(path)
        entries: Sequence[Entry]
        ids: Sequence[bytes]
        if publication.stand_alone:
            entries = scan_copy(folder)
            ids = (NO_ID,) * len(entries)
        else:
            if measured is None or not measured.digest.is_tree or scan_copy(folder) != list(measured.entries):
                measured = measure_copy(folder, progress=self._progress)
            entries, ids = measured.entries, measured.ids
        if not self._ground.keeps_modes:
            entries = _with_modes(entries, publication.executables or frozenset())
        if any(entry.name == _MARKER for entry in entries):
            raise marker_in_source(publication.staged)
        trees = build_trees(entries, ids)
        for name, tree in trees.items():
            refuse_unsafe_names(
                [entry.name for entry in tree.entries], folds_case=self._layout.folds_case(), folder=name
            )
        root = trees[b""]
        digest = None if publication.stand_alone else Digest.of_tree(root.id)
        return Staged(path, entries, ids, trees, digest, root.size_bytes, root.files)


def _entry_of(status: os.stat_result, *, executables: frozenset[bytes] | None) -> Entry:
    mode = status.st_mode
    if executables is not None:
        mode = mode | 0o111 if b"" in executables else mode & ~0o111
    return Entry(
        b"", "file", mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev,
        status.st_nlink,
    )  # fmt: skip


def _with_modes(entries: Sequence[Entry], executables: frozenset[bytes]) -> list[Entry]:
    return [
        entry
        if entry.kind != "file"
        else entry._replace(mode=entry.mode | 0o111 if entry.name in executables else entry.mode & ~0o111)
        for entry in entries
    ]

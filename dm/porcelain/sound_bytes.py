"""The search for sound bytes: where a blob or a tree of a digest can be had, read and found right.

Looked at, in this order: the objects of every store in reach; other copies (`dm.porcelain.other_copies`), which a
repair names; the working copies that the refs and trees of the stores lead to (a folder's tree is made again of a copy
that is whole). What is walked for that is walked once, when it is first needed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dm.errors import DmError, NotFound
from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.hashing import blake3_of, hash_blob
from dm.plumbing.store.measure import build_trees, measure_copy
from dm.plumbing.store.objects import FOLDER_MODE, LINK_MODE, TreeEntry
from dm.porcelain.other_copies import OtherCopies
from dm.values import Digest

if TYPE_CHECKING:
    from dm.plumbing.store.disk import DiskStore
    from dm.plumbing.store.refs import Ref


class Place(NamedTuple):
    """A path that should hold certain bytes, in the copy of a store that a ref is of."""

    path: Path
    store: DiskStore
    name: str
    ref: Ref


class SoundBytes:
    """Finds bytes by their digest in ``stores``, in the copies that these know, and in ``others``.

    Of ``pools``, stores that are somebody else's, only the objects are asked: what else they know is not walked.
    """

    def __init__(self, stores: Sequence[DiskStore], *, pools: Sequence[DiskStore] = ()) -> None:
        self._stores = [store for store in stores if store.exists()]
        self._pools = [store for store in pools if store.exists()]
        self.others = OtherCopies()
        self._places: dict[bytes, list[Place]] | None = None
        self._links: dict[bytes, list[Path]] = {}
        self._trees: dict[bytes, list[TreeEntry]] | None = None

    def find_bytes(
        self, digest: Digest, *, but: Path | None = None, size_bytes: int | None = None, name: bytes = b""
    ) -> Path | None:
        """A file with the bytes of a blob, or the object of a tree, read and found right; None: none is in reach.

        ``but`` is passed over; ``size_bytes`` and ``name``, the end of its path, help to find it sooner.
        """
        for store in (*self._stores, *self._pools):
            path = store.object_path(digest)
            if path != but and is_sound(path, digest):
                return path
        if digest.is_tree:
            return None
        found = self.others.find_file(digest, size_bytes=size_bytes, name=name, but=but)
        if found is not None:
            return found
        for place in self.list_places(digest):
            if place.path != but and is_sound(place.path, digest):
                return place.path
        return None

    def list_places(self, digest: Digest) -> Sequence[Place]:
        """Where files with the bytes of a blob should lie, by the refs of the stores and the trees they lead to."""
        return self._find_places().get(digest.raw, ())

    def find_tree(self, digest: Digest) -> list[TreeEntry] | None:
        """The entries of a folder: from its object in any store, else of a copy in which that folder is whole."""
        from dm.plumbing.store.objects import decode_tree

        source = self.find_bytes(digest)
        if source is not None:
            with machine_errors("read the object", source):
                return decode_tree(source.read_bytes())
        elsewhere = self.others.find_tree(digest)
        if elsewhere is not None:
            return elsewhere
        if self._trees is None:
            self._trees = {}
            for store in self._stores:
                for name, ref in _read_refs(store):
                    if ref.digest is not None and ref.digest.is_tree:
                        self._trees |= _build_trees(store, name)
        return self._trees.get(digest.raw)

    def find_link(self, digest: Digest) -> bytes | None:
        """The text of a link whose target is a blob, from a link in a copy; None: there is none."""
        elsewhere = self.others.find_link(digest)
        if elsewhere is not None:
            return elsewhere
        self._find_places()
        for path in self._links.get(digest.raw, ()):
            try:
                target = os.readlink(os.fsencode(path))
            except OSError:
                continue
            if blake3_of(target) == digest.raw:
                return target
        return None

    def is_in_pool(self, path: Path) -> bool:
        """Whether a path lies in a store that is somebody else's."""
        return any(path.is_relative_to(store.root) for store in self._pools)

    def list_entries(self, tree: Digest) -> Iterator[tuple[bytes, TreeEntry]]:
        """Every entry below a tree by its path; what lies below a tree that is nowhere in reach is left out."""
        waiting = [(b"", tree)]
        while waiting:
            prefix, digest = waiting.pop()
            for entry in self.find_tree(digest) or ():
                path = prefix + b"/" + entry.name if prefix else entry.name
                yield path, entry
                if entry.mode == FOLDER_MODE:
                    waiting.append((path, Digest.of_tree(entry.id)))

    def _find_places(self) -> dict[bytes, list[Place]]:
        if self._places is None:
            self._places = {}
            for store in self._stores:
                for name, ref in _read_refs(store):
                    for raw, path, is_link in self._list_files(store.root / name, ref):
                        if is_link:
                            self._links.setdefault(raw, []).append(path)
                        else:
                            self._places.setdefault(raw, []).append(Place(path, store, name, ref))
        return self._places

    def _list_files(self, copy: Path, ref: Ref) -> Iterator[tuple[bytes, Path, bool]]:
        """(id, path, whether it is a link) of what a copy should hold."""
        if ref.digest is None:
            return
        if not ref.digest.is_tree:
            yield ref.digest.raw, copy, False
            return
        for name, entry in self.list_entries(ref.digest):
            if entry.mode != FOLDER_MODE:
                yield entry.id, Path(os.fsdecode(os.fsencode(copy) + b"/" + name)), entry.mode == LINK_MODE


def is_sound(path: Path, digest: Digest) -> bool:
    """Whether an object's file, or any file, has these bytes now."""
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode):
            return False
        if digest.is_tree:
            from dm.plumbing.hashing import tree_id_of

            return tree_id_of(path.read_bytes()) == digest.raw
    except OSError:
        return False  # one that cannot be read is none that could be used
    try:
        return hash_blob(path) == digest.raw
    except DmError:
        return False


def not_in_reach(digest: Digest) -> NotFound:
    """The error for bytes that the search did not find."""
    return NotFound(f"no sound copy of {digest.short} is in reach", code="no-source")


def _read_refs(store: DiskStore) -> Iterator[tuple[str, Ref]]:
    # What cannot be read is told by who verifies; here it only helps to find bytes.
    try:
        names = store.list_ref_names()
    except DmError:
        return
    for name in names:
        try:
            ref = store.read_ref(name)
        except DmError:
            continue
        if ref is not None:
            yield name, ref


def _build_trees(store: DiskStore, name: str) -> dict[bytes, list[TreeEntry]]:
    """The trees of a copy as it is now, by id: what has the id of another is that."""
    try:
        measured = measure_copy(store.root / name, stat_cache=store.stat_cache, quick=True, ref_root=store.root)
        if not measured.digest.is_tree:
            return {}
        return {tree.id: tree.entries for tree in build_trees(measured.entries, measured.ids).values()}
    except DmError:
        return {}  # gone, or not to be read: of no help here

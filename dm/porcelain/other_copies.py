"""Files and folders that no store knows of, in which sound bytes may lie: pools, places of other tools and of the user.

They need no marker, ref or object: they are walked when a repair has found nothing nearer, each once, by names and
sizes; read are only files of the size that is looked for. Nothing is ever written there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from dm.errors import DmError
from dm.plumbing.hashing import blake3_of, hash_blob
from dm.plumbing.store.measure import build_trees, measure_copy, scan_copy
from dm.plumbing.store.objects import TreeEntry
from dm.values import Digest


class OtherCopies:
    """Finds bytes by their digest in what others keep. What cannot be read there is of no help, and no error."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[], Iterable[Path]]] = []
        self._folders: list[Path] = []
        self._known: set[Path] = set()
        self._sizes: dict[int, list[str]] = {}
        self._ids: dict[str, bytes | None] = {}
        self._links: dict[bytes, bytes] = {}
        self._trees: dict[bytes, list[TreeEntry]] = {}
        self._measured = 0

    def add(self, find: Callable[[], Iterable[Path]]) -> None:
        """Look in these files and folders too. ``find`` is asked when it first matters; what is not there is fine."""
        self._waiting.append(find)

    def find_file(
        self, digest: Digest, *, size_bytes: int | None = None, name: bytes = b"", but: Path | None = None
    ) -> Path | None:
        """A file with the bytes of a blob, read and found right; None where there is none.

        ``size_bytes`` is its size where that is known: else all are read. Those whose path ends with ``name`` are read
        first; ``but`` is passed over.
        """
        self._walk()
        sizes: Iterable[int] = self._sizes if size_bytes is None else (size_bytes,)
        paths = [path for size in sizes for path in self._sizes.get(size, ())]
        end = f"/{os.fsdecode(name)}"
        paths.sort(key=lambda path: not path.endswith(end))
        for path in paths:
            if self._read_id(path) == digest.raw and Path(path) != but:
                return Path(path)
        return None

    def find_link(self, digest: Digest) -> bytes | None:
        """The text of a link whose target is a blob; None where there is none."""
        self._walk()
        return self._links.get(digest.raw)

    def find_tree(self, digest: Digest) -> list[TreeEntry] | None:
        """The entries of a folder that has this id now, by reading every file of the folders; None: none has."""
        self._walk()
        while digest.raw not in self._trees and self._measured < len(self._folders):
            folder = self._folders[self._measured]
            self._measured += 1
            self._trees |= self._read_trees(folder)
        return self._trees.get(digest.raw)

    # Inside

    def _walk(self) -> None:
        while self._waiting:
            for path in self._waiting.pop(0)():
                if path not in self._known:
                    self._known.add(path)
                    try:
                        self._note(path)
                    except (DmError, OSError):
                        continue

    def _note(self, path: Path) -> None:
        status = os.stat(path)
        if not stat.S_ISDIR(status.st_mode):
            if stat.S_ISREG(status.st_mode):
                self._sizes.setdefault(status.st_size, []).append(os.path.realpath(path))
            return
        top = os.path.realpath(path)
        entries = scan_copy(Path(top))
        self._folders.append(Path(top))
        for entry in entries:
            inside = f"{top}/{os.fsdecode(entry.name)}"
            if entry.kind == "file":
                self._sizes.setdefault(entry.size, []).append(inside)
            elif entry.kind == "link":
                target = os.readlink(os.fsencode(inside))
                self._links[blake3_of(target)] = target

    def _read_id(self, path: str) -> bytes | None:
        if path not in self._ids:
            try:
                self._ids[path] = hash_blob(path)
            except DmError:
                self._ids[path] = None
        return self._ids[path]

    def _read_trees(self, folder: Path) -> dict[bytes, list[TreeEntry]]:
        try:
            measured = measure_copy(folder)
        except DmError:
            return {}
        for entry, raw in zip(measured.entries, measured.ids, strict=True):
            if entry.kind == "file":
                self._ids[f"{folder}/{os.fsdecode(entry.name)}"] = raw
        return {tree.id: tree.entries for tree in build_trees(measured.entries, measured.ids).values()}

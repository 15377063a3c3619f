"""Bytes of the user's become objects, and the user's files stay as they are: never linked, never chmoded.

Each file is read once: what is hashed is what is written, so an object is right even when its file changes meanwhile.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from dm.errors import MachineFailed, Refused
from dm.plumbing.fs.buffer import make_buffer
from dm.plumbing.fs.link import link_file
from dm.plumbing.fs.machine import display_path, machine_errors
from dm.plumbing.fs.publish import flush_file_systems, write_all
from dm.plumbing.fs.walk import Entry
from dm.plumbing.hashing import MultiHasher, blake3_of, hash_blob
from dm.plumbing.store.layout import Layout
from dm.plumbing.store.markers import MARKER_NAME
from dm.plumbing.store.measure import build_trees, scan_copy
from dm.plumbing.store.objects import encode_tree, refuse_unsafe_names
from dm.plumbing.store.stamps import NO_ID
from dm.plumbing.store.workspace import Workspace
from dm.plumbing.store.writing import ObjectWriter
from dm.progress import Progress, Task
from dm.values import Digest

#: Files up to this size, in bytes, are read whole: one that is stored already is then never written.
_WHOLE_BYTES_MAX = 1 << 20
#: Read at once of larger files, in bytes: blake3 uses all cores for a piece of this size.
_PIECE_BYTES = 4 << 20


class Ingested(NamedTuple):
    """What a file or folder is. ``objects_written`` is 0 where nothing was to be written, or all was there."""

    digest: Digest
    size_bytes: int
    files: int
    objects_written: int = 0


class Ingest:
    """One file, folder or stream into the objects of a store, in a workspace of it."""

    def __init__(
        self, layout: Layout, workspace: Workspace, *, writer: ObjectWriter, durable: bool, progress: Progress
    ) -> None:
        self._layout = layout
        self._work = workspace
        self._writer = writer
        self._durable = durable
        self._progress = progress
        self._reflinks = "reflink" in writer.ground.rungs
        self._buffer = make_buffer(_WHOLE_BYTES_MAX + 1)

    def store_path(self, path: Path) -> Ingested:
        """Store the file or folder at ``path`` (a link there is followed). Raises `Refused`."""
        with machine_errors("read", path):
            status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            return self._store_folder(path)
        if not stat.S_ISREG(status.st_mode):
            raise Refused(f"cannot store '{display_path(path)}': no file and no folder", code="special-file")
        with self._progress.start(path.name, total=status.st_size) as task:
            raw, size = self._store_file(os.path.realpath(os.fsencode(path)), status.st_size, task)
        self._finish()
        return Ingested(Digest.of_blob(raw), size, 1, self._writer.written)

    def store_bytes(self, data: bytes) -> Digest:
        """Store bytes as a blob."""
        raw = blake3_of(data)
        self._stage_bytes(raw, data)
        self._finish()
        return Digest.of_blob(raw)

    def store_stream(self, stream: BinaryIO) -> Digest:
        """Store what is left in a stream as a blob, in bounded memory."""
        private = self._work.new_path()
        descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
        try:
            with MultiHasher(["blake3"]) as hasher:
                while piece := stream.read(_WHOLE_BYTES_MAX):
                    hasher.update(piece)
                    write_all(descriptor, piece)
                digest = hasher.digests()["blake3"]
                size = hasher.size_bytes
        finally:
            os.close(descriptor)  # a full disk may say so only here
        self._adopt(digest.raw, private, size)
        self._finish()
        return digest

    def store_tree(self, data: bytes, raw: bytes) -> None:
        """Store the bytes of a tree."""
        self._writer.stage_tree(raw, data)
        self._finish()

    def _store_folder(self, path: Path) -> Ingested:
        entries = scan_copy(path)
        _refuse_entries(path, entries, folds_case=self._layout.folds_case())
        top = os.fsencode(path)
        ids: list[bytes] = []
        seen: list[Entry] = []
        with self._progress.start(path.name, total=sum(each.size for each in entries if each.kind != "folder")) as task:
            for entry in entries:
                name = top + b"/" + entry.name
                if entry.kind == "folder":
                    ids.append(NO_ID)
                    seen.append(entry)
                    continue
                if entry.kind == "link":
                    with machine_errors("read the link", name):
                        target = os.readlink(name)
                    raw, size = blake3_of(target), len(target)
                    self._stage_bytes(raw, target)
                else:
                    raw, size = self._store_file(name, entry.size, task)
                ids.append(raw)
                seen.append(entry if size == entry.size else entry._replace(size=size))
        trees = build_trees(seen, ids)
        for tree in trees.values():
            self._writer.stage_tree(tree.id, encode_tree(tree.entries))
        self._finish()
        root = trees[b""]
        return Ingested(Digest.of_tree(root.id), root.size_bytes, root.files, self._writer.written)

    def _store_file(self, path: bytes, expected_bytes: int, task: Task) -> tuple[bytes, int]:
        with machine_errors("read", path):
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                if expected_bytes <= _WHOLE_BYTES_MAX:
                    count = os.readv(descriptor, [self._buffer])
                    if count <= _WHOLE_BYTES_MAX and (count == expected_bytes or not os.read(descriptor, 1)):
                        return self._store_whole(path, self._buffer[:count], task)
                    os.lseek(descriptor, 0, os.SEEK_SET)
                return self._store_large(path, descriptor, task)
            finally:
                os.close(descriptor)

    def _store_whole(self, path: bytes, data: memoryview, task: Task) -> tuple[bytes, int]:
        raw, size = blake3_of(data), len(data)
        task.advance(size)
        if not self._writer.find_equal(raw, data):
            if self._reflinks and size:
                private = self._clone(path)
                # The file may have been written since it was read: then the bytes that were hashed are stored.
                if hash_blob(private) == raw:
                    self._writer.adopt_private(raw, private)
                    return raw, size
                os.unlink(private)
            self._writer.stage_bytes(raw, data)
        return raw, size

    def _store_large(self, path: bytes, descriptor: int, task: Task) -> tuple[bytes, int]:
        if self._reflinks:
            private = self._clone(path)
            raw = hash_blob(private, task)
            size = os.stat(private).st_size
        else:
            private = self._work.new_path()
            raw, size = _copy_and_hash(descriptor, private, task)
        self._adopt(raw, private, size)
        return raw, size

    def _clone(self, path: bytes) -> str:
        private = self._work.new_path()
        link_file(path, os.fsencode(private), modes=("reflink", "copy"))
        return private

    def _stage_bytes(self, raw: bytes, data: bytes) -> None:
        if not self._writer.find_equal(raw, data):
            self._writer.stage_bytes(raw, data)

    def _adopt(self, raw: bytes, private: str, size: int) -> None:
        if self._is_there(raw, size):
            os.unlink(private)
        else:
            self._writer.adopt_private(raw, private)

    def _is_there(self, raw: bytes, size: int) -> bool:
        if not self._writer.is_known(raw):
            self._writer.find_existing([(raw, size)])
        return self._writer.is_known(raw)

    def _finish(self) -> None:
        if self._durable and self._writer.has_staged:
            flush_file_systems([self._work.folder])
        self._writer.place_all()


def _copy_and_hash(source: int, target: str, task: Task) -> tuple[bytes, int]:
    copy = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
    try:
        # Two buffers in turns: one is hashed while the other is read and written.
        buffers = [make_buffer(_PIECE_BYTES) for _ in range(2)]
        with MultiHasher(["blake3"]) as hasher:
            turn = 0
            while count := os.readv(source, [buffers[turn]]):
                piece = buffers[turn][:count]
                hasher.feed(piece)
                write_all(copy, piece)
                task.advance(count)
                turn = 1 - turn
            digest = hasher.digests()["blake3"]
            size = hasher.size_bytes
    finally:
        os.close(copy)  # a full disk may say so only here
    if os.stat(target).st_size != size:
        raise MachineFailed(f"cannot write '{display_path(target)}': bytes got lost", code="io-error")
    return digest.raw, size


def _refuse_entries(path: Path, entries: Sequence[Entry], *, folds_case: bool) -> None:
    inside: dict[bytes, list[bytes]] = {}
    for entry in entries:
        folder, _, name = entry.name.rpartition(b"/")
        inside.setdefault(folder, []).append(name)
    for folder, names in inside.items():
        refuse_unsafe_names(names, folds_case=folds_case, folder=folder)
    if MARKER_NAME.encode() in inside.get(b"", ()):
        raise marker_in_source(path)


def marker_in_source(path: Path) -> Refused:
    """The error for a folder whose own ``.complete`` would be taken for the marker."""
    return Refused(
        f"cannot store '{display_path(path)}': it holds a '{MARKER_NAME}' that is not an empty file",
        hint=f"an empty '{MARKER_NAME}' at the top of a folder marks it as complete; rename this one",
        code="marker-in-source",
    )

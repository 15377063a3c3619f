"""What a working copy takes on disk for itself: what it shares with another copy, by hard links or in the same blocks,
is not given back by removing it. Sharing with the objects of stores is no sharing: those are there for its sake.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dm.errors import DmError, Malformed
from dm.plumbing.fs.extents import has_shared_extents, share_blocks
from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.store.markers import MARKER_NAME
from dm.plumbing.store.objects import FOLDER_MODE, LINK_MODE
from dm.values import Digest

if TYPE_CHECKING:
    from dm.plumbing.store.disk import DiskStore


def count_own_bytes(copy: Path, digest: Digest | None, *, stores: Sequence[DiskStore]) -> int:
    """The bytes of the files of ``copy`` that no other copy shares; a file with several names in it counts once.

    ``digest`` is what the copy is by its ref, ``stores`` are those in which its objects and other copies may lie. Reads
    stat data, trees and, where blocks are shared, where they lie; no content. What cannot be looked at counts in full.
    Raises `MachineFailed`.
    """
    stores = [store for store in stores if store.exists()]
    top = os.path.realpath(os.fsencode(copy))
    ids = {} if digest is None else dict(_list_files(stores, top, digest))
    names: dict[tuple[int, int], list[bytes]] = {}
    found: dict[tuple[int, int], os.stat_result] = {}
    with machine_errors("look through", copy):
        for path in _walk(top):
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode):
                inode = status.st_dev, status.st_ino
                names.setdefault(inode, []).append(path)
                found[inode] = status
        unshared = []
        for inode, status in found.items():
            known = ids.get(names[inode][0])
            objects = 0 if known is None else sum(_is_object(store, known, inode) for store in stores)
            if status.st_nlink <= len(names[inode]) + objects:
                unshared.append(inode)
        # By content, a file for each place on the device where it lies; of clones in the copy itself one is counted.
        cloned: dict[bytes, list[bytes]] = {}
        counted: dict[bytes, int] = {}
        for inode in unshared:
            path = names[inode][0]
            if path in ids and _is_cloned(path):
                places = cloned.setdefault(ids[path], [])
                if any(share_blocks(path, place) for place in places):
                    continue
                places.append(path)
            counted[path] = found[inode].st_size
        for other, raw in _list_others(stores, copy) if cloned else ():
            for path in cloned.get(raw, []):
                if path in counted and _is_cloned(other) and share_blocks(path, other):
                    del counted[path]
    return sum(counted.values())


def _is_cloned(path: bytes) -> bool:
    try:
        return has_shared_extents(path)
    except OSError:
        return False  # not there, or not for us to open


def _walk(copy: bytes) -> Iterator[bytes]:
    if not os.path.isdir(copy):
        if os.path.exists(copy):
            yield copy
        return
    for folder, _, files in os.walk(copy):
        for name in files:
            if folder != copy or name != MARKER_NAME.encode():
                yield folder + b"/" + name


def _is_object(store: DiskStore, raw: bytes, inode: tuple[int, int]) -> bool:
    try:
        status = os.lstat(store.object_path(Digest.of_blob(raw)))
    except FileNotFoundError:
        return False
    return (status.st_dev, status.st_ino) == inode


def _list_others(stores: Sequence[DiskStore], copy: Path) -> Iterator[tuple[bytes, bytes]]:
    """(path, id) of each file that should lie in another copy, by the refs of the stores."""
    for store in stores:
        with suppress(Malformed):  # a ref that cannot be read, which `verify` tells
            for name, ref in store.list_refs():
                if ref.digest is not None and store.root / name != copy:
                    yield from _list_files(stores, os.fsencode(store.root / name), ref.digest)


def _list_files(stores: Sequence[DiskStore], top: bytes, digest: Digest) -> Iterator[tuple[bytes, bytes]]:
    """(path, id) of each file of what a digest names, at ``top``; nothing below a tree that cannot be read."""
    if not digest.is_tree:
        yield top, digest.raw
        return
    store = next((store for store in stores if store.has(digest)), None)
    if store is None:
        return
    try:
        entries = store.read_tree(digest)
    except DmError:
        return  # `verify` says what is wrong with it
    for entry in entries:
        if entry.mode == FOLDER_MODE:
            yield from _list_files(stores, top + b"/" + entry.name, Digest.of_tree(entry.id))
        elif entry.mode != LINK_MODE:
            yield top + b"/" + entry.name, entry.id

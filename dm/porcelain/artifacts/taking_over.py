"""Writing the ref of an artifact that somebody added to: what a peer made or put beside, a further format of ours.

A ref vouches for bytes, so what an earlier one speaks of is held against it first: bytes that went bad since are set
aside and never blessed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dm.errors import ContentMismatch, DmError, Malformed, NotFound
from dm.plumbing.fs.machine import display_path
from dm.plumbing.hashing import blake3_of
from dm.plumbing.records.sidecars import METADATA_NAME, SIDECAR_NAMES, decode_metadata
from dm.plumbing.store.measure import Measured, build_trees, measure_copy
from dm.plumbing.store.objects import FILE_MODE, TreeEntry
from dm.porcelain.artifacts.looking import build_entries

if TYPE_CHECKING:
    from dm.plumbing.store.disk import DiskStore
    from dm.plumbing.store.refs import Ref
    from dm.progress import Progress


class Addition(NamedTuple):
    """What was just written into an artifact's folder: data with this name, and ``metadata.toml`` anew, which held
    ``former`` before (None: there was none).
    """

    name: str
    former: bytes | None

    def tell_former(self) -> TreeEntry | None:
        """The entry that ``metadata.toml`` was."""
        if self.former is None:
            return None
        return TreeEntry(METADATA_NAME.encode(), FILE_MODE, blake3_of(self.former), len(self.former))


def take_over(store: DiskStore, folder: Path, *, added: Addition | None = None, progress: Progress) -> None:
    """Write the ref of an artifact as it lies there. The caller holds its lock.

    One that has objects gets them for what is new in it; a peer's own is neither linked nor made read-only.
    """
    ref = _read_ref(store, folder)
    measured = measure_copy(folder)
    if ref is not None and ref.digest is not None and measured.digest != ref.digest:
        damaged = _find_damaged(store, folder, measured, ref, added)
        for name in damaged:
            kept = store.quarantine(folder / name, "its bytes were not those that were published")
            told = f"'{display_path(folder / name)}' is not what was published"
            progress.warn(f"{told}; what lay there is kept at '{display_path(kept)}'")
        if damaged:
            measured = measure_copy(folder)
    if ref is not None and ref.digest is not None and store.has(ref.digest):
        store.lock(folder, measured)
        return
    store.adopt(folder, measured.digest, size_bytes=measured.size_bytes, files=measured.files)


def _read_ref(store: DiskStore, folder: Path) -> Ref | None:
    try:
        return store.read_ref(folder)
    except Malformed:
        return None


def _find_damaged(store: DiskStore, folder: Path, measured: Measured, ref: Ref, added: Addition | None) -> list[str]:
    """What lies in a folder and is not what its ref says, beside what was just written."""
    assert ref.digest is not None
    former = None if added is None else added.tell_former()
    new = () if added is None else (added.name, METADATA_NAME)
    expected: list[TreeEntry] | None
    try:
        expected = store.read_tree(ref.digest)
    except (NotFound, ContentMismatch, Malformed):
        expected = build_entries(os.fspath(folder), ref.digest, former)
    present = build_trees(measured.entries, measured.ids)[b""].entries
    if expected is None:
        # It cannot be told which of them: none is vouched for any more.
        names = [os.fsdecode(entry.name) for entry in present]
        return [name for name in names if name not in SIDECAR_NAMES and name not in new]
    ids = {entry.name: entry.id for entry in expected}
    names = [os.fsdecode(entry.name) for entry in present if ids.get(entry.name, entry.id) != entry.id]
    if METADATA_NAME in names and _is_readable(folder):
        # It decides nothing, and is another one where a kill came before the ref of data that was put beside.
        names.remove(METADATA_NAME)
    return [name for name in names if name not in new]


def _is_readable(folder: Path) -> bool:
    try:
        decode_metadata((folder / METADATA_NAME).read_bytes())
    except (OSError, DmError):
        return False
    return True

"""A copy that lies there comes into the store's care, or leaves it: its ref, its marker, what is noted of it.

The caller holds the copy's lock.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

from dm.environment import format_time, read_clock_ns
from dm.errors import Refused
from dm.plumbing.fs.machine import display_path, machine_errors
from dm.plumbing.fs.publish import remove_tree
from dm.plumbing.store.layout import Layout
from dm.plumbing.store.loose import LooseObjects
from dm.plumbing.store.markers import put_marker, refuse_foreign_marker, remove_marker
from dm.plumbing.store.measure import scan_copy
from dm.plumbing.store.ref_files import RefFiles
from dm.plumbing.store.refs import Ref
from dm.plumbing.store.unlocked import forget_unlocked
from dm.plumbing.store.workshop import Workshop
from dm.values import Digest


class Custody:
    """Takes copies in and lets them go; objects stay."""

    def __init__(self, layout: Layout, workshop: Workshop) -> None:
        self._layout = layout
        self._workshop = workshop
        self._refs = RefFiles(layout)

    def adopt(
        self,
        copy: Path,
        digest: Digest,
        *,
        known: Ref,
        objects: LooseObjects,
        ingest: Callable[[Path], object],
        durable: bool,
    ) -> Ref:
        """Mark a copy whose bytes were just proven to be ``digest``; write its ref, verified now, and return it.

        ``known`` has its source id and its sizes; sizes that it does not have are looked up. ``ingest`` makes objects
        of its bytes: called only where a reflink makes that free and there is none yet.
        """
        name = self._refs.name(copy)
        with machine_errors("adopt", copy):
            is_folder = stat.S_ISDIR(os.stat(copy).st_mode)
            if is_folder != digest.is_tree:
                kind = "folder" if is_folder else "file"
                raise Refused(f"cannot adopt the {kind} '{display_path(copy)}' as {digest.short}", code="other-kind")
            size_bytes, files = known.size_bytes, known.files
            if size_bytes is None or files is None:
                size_bytes, files = _count(copy, is_folder=is_folder)
            marked = refuse_foreign_marker(copy, is_folder=is_folder)
            self._layout.prepare()
            with self._workshop.hold_off_prune():
                if "reflink" in self._workshop.ground().rungs and not objects.has(digest):
                    ingest(copy)
                ref = Ref(digest, size_bytes, files, format_time(read_clock_ns()), known.source_id)
                self._refs.write(name, ref, durable=durable)
            if not marked:
                put_marker(copy, is_folder=is_folder)
        return ref

    def discard(self, copy: Path) -> None:
        """Remove a copy with its marker and its ref, by one rename: a kill leaves it whole, or nothing."""
        with self._workshop.open() as workspace, machine_errors("delete", copy):
            if not copy.is_dir() or copy.is_symlink():
                remove_marker(copy, is_folder=False)
            try:
                os.rename(copy, workspace.new_path())
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                remove_tree(copy)  # a mount of its own
            name = self._refs.name(copy)
            self._refs.remove(name)
            forget_unlocked(self._layout, name)


def _count(copy: Path, *, is_folder: bool) -> tuple[int, int]:
    """(bytes, files and links) of a copy."""
    if not is_folder:
        return os.stat(copy).st_size, 1
    sizes = [entry.size for entry in scan_copy(copy) if entry.kind != "folder"]
    return sum(sizes), len(sizes)

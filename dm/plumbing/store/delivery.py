"""One object appears at a path: verified, built under a private name, shown by one rename.

A checkout is that and no more. A published copy gets its ref before, and its marker after it, as in
`dm.plumbing.store.publishing`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from dm.environment import format_time, read_clock_ns
from dm.errors import Refused
from dm.plumbing.fs.beside import Beside
from dm.plumbing.fs.flush import flush_file
from dm.plumbing.fs.link import LinkMode
from dm.plumbing.fs.machine import display_path, machine_errors
from dm.plumbing.fs.publish import flush_file_systems, place, remove_tree
from dm.plumbing.store.checkout import Built, Checkout, Plan
from dm.plumbing.store.layout import Layout
from dm.plumbing.store.markers import put_marker, refuse_foreign_marker
from dm.plumbing.store.placing import Placer, is_on_store_device
from dm.plumbing.store.publication import Published
from dm.plumbing.store.quarantine import put_in_place_of
from dm.plumbing.store.ref_files import RefFiles, stage_ref
from dm.plumbing.store.refs import Ref
from dm.plumbing.store.unlocked import forget_unlocked
from dm.plumbing.store.workshop import Workshop
from dm.values import Digest


class Delivery:
    """Objects of one store appear at paths, inside its folder or elsewhere."""

    def __init__(self, layout: Layout, workshop: Workshop, checkout: Checkout) -> None:
        self._layout = layout
        self._workshop = workshop
        self._checkout = checkout

    def check_out(
        self,
        digest: Digest,
        destination: Path,
        *,
        modes: Sequence[LinkMode] | None = None,
        aside: str | None = None,
    ) -> tuple[Built, Path | None]:
        """Build an object at ``destination``; as `DiskStore.checkout`, and with ``aside`` as `DiskStore.replace`."""
        with self._workshop.read():
            plan = self._checkout.plan(digest)
            if self._layout.owns(destination) and is_on_store_device(self._layout, destination.parent):
                with self._workshop.open() as workspace:
                    return self._show(plan, Path(workspace.new_path()), destination, modes, aside)
            with Beside(destination) as staged:
                return self._show(plan, staged, destination, modes, aside)

    def _show(
        self, plan: Plan, staged: Path, destination: Path, modes: Sequence[LinkMode] | None, aside: str | None
    ) -> tuple[Built, Path | None]:
        with machine_errors("check out to", destination):
            occupied = os.path.lexists(destination)
            if occupied and aside is None:
                raise _occupied(destination)
            usual = modes or self._workshop.usual_modes(destination)
            built = self._checkout.build(plan, os.fspath(staged), modes=usual, strict=modes is not None)
            kept = None
            if occupied and aside is not None:
                kept, is_placed = put_in_place_of(self._layout, destination, staged, aside)
            else:
                is_placed = place(staged, destination)
            if not is_placed:
                raise _occupied(destination)
        return built, kept

    def publish(self, digest: Digest, copy: Path, source_id: str | None, *, durable: bool) -> tuple[Published, Built]:
        """Make a working copy of an object, with its ref and marker; as `DiskStore.publish_object`."""
        refs = RefFiles(self._layout)
        name = refs.name(copy)
        with self._workshop.open() as workspace:
            plan = self._checkout.plan(digest)
            private = workspace.new_path()
            staged = Placer(self._layout, workspace, durable=durable).new_path(copy)
            ref = Ref(digest, plan.size_bytes, plan.files_count, format_time(read_clock_ns()), source_id)
            with machine_errors("publish", copy):
                if not digest.is_tree:
                    refuse_foreign_marker(copy, is_folder=False)
                stage_ref(ref, private)
                if os.path.lexists(copy):
                    raise _occupied(copy)
                self._layout.ensure_folder_once(os.path.dirname(copy))
                rungs = self._workshop.survey(workspace).rungs
                built = self._checkout.build(plan, os.fspath(staged), modes=rungs, strict=False)
                if durable:
                    # Names alone are in the journal of the file system, in their order; bytes are not.
                    if built.all_hardlinks:
                        flush_file(private)
                    else:
                        flush_file_systems([workspace.folder, staged])
                refs.put(name, private)
                if not place(staged, copy):
                    remove_tree(staged)
                    raise _occupied(copy)
                put_marker(copy, is_folder=digest.is_tree)
                forget_unlocked(self._layout, name)
        return Published(copy, digest, plan.size_bytes, plan.files_count, built.mode), built


def _occupied(path: Path) -> Refused:
    return Refused(
        f"cannot check out to '{display_path(path)}': something lies there",
        hint="name another place, or move it away",
        code="occupied",
    )

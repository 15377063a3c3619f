"""Putting staged datasets in their places: below a store, managed without one, or at a place of the user's own.

A store publishes a whole batch with one flush (`dm.plumbing.store.publishing`). The other two kinds are rare and have
no objects: the staged entry itself becomes the copy.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from dm.environment import format_time, read_clock_ns
from dm.errors import DmError, Refused
from dm.plumbing.fs.beside import Beside
from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.fs.publish import ensure_folder, flush_file_systems, place, remove_tree
from dm.plumbing.store.copying import copy_privately
from dm.plumbing.store.layout import Layout
from dm.plumbing.store.markers import put_marker, refuse_foreign_marker, remove_marker
from dm.plumbing.store.measure import measure_copy, scan_copy
from dm.plumbing.store.publication import Publication, Published
from dm.plumbing.store.quarantine import put_in_place_of
from dm.plumbing.store.refs import Ref

if TYPE_CHECKING:
    from dm.plumbing.records.dataset import Dataset
    from dm.plumbing.store.disk import DiskStore
    from dm.plumbing.store.measure import Measured
    from dm.porcelain.copies import Copy
    from dm.porcelain.project import Project
    from dm.porcelain.staging import Staged

#: Why something is put aside: the end of its note.
FETCHED_AGAIN = "when it was fetched again with --force"


def publish(
    project: Project, batch: Sequence[tuple[Dataset, Copy, Staged]], *, aside: str | None = None
) -> list[Published | DmError]:
    """Publish staged datasets, those of one store together; the answer has for each what became of it, in order.

    With ``aside`` what lies at a place, and is other content, is moved into the quarantine right before the new is
    shown, with that text in its note, and objects that are there already are read before they serve it; without, it
    fails that dataset. Nothing is ever overwritten. The caller holds the locks.
    """
    results: list[Published | DmError | None] = [None] * len(batch)
    stores: dict[Path, tuple[DiskStore, list[tuple[int, str | None]]]] = {}
    for index, (dataset, copy, staged) in enumerate(batch):
        try:
            same = None if aside is None else _find_same(dataset, copy, staged)
            note = None
            if aside is not None and same is None and copy.exists():
                _refuse_project(project, dataset, copy)
                note = _make_note(dataset, aside)
            if same is not None and (copy.store is None or dataset.skip_checksum):
                results[index] = _keep(dataset, copy, same)
            elif copy.store is None:
                results[index] = _publish_alone(project, dataset, copy, staged, note)
            else:
                stores.setdefault(copy.store.root, (copy.store, []))[1].append((index, note))
        except DmError as error:
            results[index] = error
    for store, items in stores.values():
        try:
            answers = store.publish_each(
                [_describe(*batch[index], note)._replace(anew=aside is not None) for index, note in items]
            )
        except DmError as error:
            answers = [error] * len(items)
        for (index, _), answer in zip(items, answers, strict=True):
            results[index] = answer
    for result in results:
        if isinstance(result, Published) and result.kept is not None:
            project.progress.note(f"what lay at '{result.copy}' is kept at '{result.kept}'")
    return [result for result in results if result is not None]


def _describe(dataset: Dataset, copy: Copy, staged: Staged, aside: str | None) -> Publication:
    return Publication(
        staged.entry,
        copy.path,
        source_id=dataset.source_id,
        blob_id=None if staged.blob is None else staged.blob.raw,
        aliases=staged.aliases,
        stand_alone=dataset.skip_checksum,
        aside=aside,
        measured=staged.tree,
    )


def _find_same(dataset: Dataset, copy: Copy, staged: Staged) -> Measured | None:
    """What lies at a place, every byte read, when it is what was staged."""
    if not copy.exists() or copy.path.is_symlink():
        return None
    digest = staged.tree.digest if staged.tree is not None else staged.blob
    if digest is None and dataset.skip_checksum:  # nobody has measured it
        digest = measure_copy(staged.entry).digest
    if digest is None or copy.path.is_dir() != digest.is_tree:
        return None
    measured = measure_copy(copy.path)
    return measured if measured.digest == digest else None


def _keep(dataset: Dataset, copy: Copy, measured: Measured) -> Published:
    """Leave a copy that is what was staged where it is; its marker and what is known of it are written."""
    size_bytes, files = measured.size_bytes, measured.files
    if not dataset.skip_checksum:
        adopt(copy, dataset, measured)
        return Published(copy.path, measured.digest, size_bytes, files, None, unchanged=True)
    copy.write_ref(Ref(None, size_bytes, files, None, dataset.source_id))
    if not copy.user_managed:
        put_marker(copy.path, is_folder=measured.digest.is_tree)
    return Published(copy.path, None, size_bytes, files, None, unchanged=True)


def _count(path: Path) -> tuple[int, int]:
    """(bytes, files and links) of a file or folder."""
    if not path.is_dir():
        return os.stat(path).st_size, 1
    sizes = [entry.size for entry in scan_copy(path) if entry.kind != "folder"]
    return sum(sizes), len(sizes)


def _make_note(dataset: Dataset, why: str) -> str:
    return f"lay at the place of '{dataset.name}' {why}"


def _refuse_project(project: Project, dataset: Dataset, copy: Copy) -> None:
    manifest = project.manifest.path or project.root
    if copy.path == manifest or project.root.is_relative_to(copy.path):
        raise Refused(
            f"cannot put '{copy.path}' aside for '{dataset.name}': it is the project itself",
            hint="give the dataset another 'storage_path'",
            code="path-unsafe",
        )


def put_unlocked_aside(project: Project, dataset: Dataset, copy: Copy, replacement: Path) -> None:
    """A dataset has another copy now: its unlocked one is kept in the quarantine, or goes: equal bytes."""
    with project.lock_copy(copy):
        if not copy.exists() or copy.store is None:
            return
        new = measure_copy(replacement, stat_cache=project.stat_cache, quick=True)
        if measure_copy(copy.path).digest == new.digest:
            discard_copy(copy)
            return
        kept = copy.store.quarantine(copy.path, _make_note(dataset, FETCHED_AGAIN))
        copy.forget_unlocked()
        project.progress.note(f"what lay at '{copy.path}' is kept at '{kept}'")
        copy.remove_ref()


def _publish_alone(
    project: Project, dataset: Dataset, copy: Copy, staged: Staged, aside: str | None
) -> Published:
    entry = staged.entry
    kept = None
    is_folder = entry.is_dir()
    ensure_folder(copy.path.parent)
    with ExitStack() as stack:
        if not _share_file_system(entry, copy.path.parent):
            # The place may be on another file system than the project: then it is staged once more, beside it.
            beside = stack.enter_context(Beside(copy.path))
            _copy_with_modes(entry, beside)
            entry = beside
        flush_file_systems([entry])
        if not copy.user_managed and not is_folder:
            marked = refuse_foreign_marker(copy.path, is_folder=False)
            if marked and (aside is None or (copy.path.is_dir() and not copy.path.is_symlink())):
                remove_marker(copy.path, is_folder=False)  # nobody's: it would be the new file's
        if aside is not None:
            kept, is_placed = put_in_place_of(Layout(project.ensure_private_folder()), copy.path, entry, aside)
        else:
            is_placed = place(entry, copy.path)
        if not is_placed:
            raise Refused(f"cannot publish '{copy.path}': something came to lie there meanwhile", code="place-taken")
    if not copy.user_managed:
        put_marker(copy.path, is_folder=is_folder)
    digest, verified = None, None
    if not dataset.skip_checksum:
        digest, verified = staged.tree.digest if staged.tree else staged.blob, format_time(read_clock_ns())
    size_bytes, files = (staged.tree.size_bytes, staged.tree.files) if staged.tree else _count(copy.path)
    copy.write_ref(Ref(digest, size_bytes, files, verified, dataset.source_id))
    if kept is not None and not copy.user_managed:
        copy.forget_unlocked()
    return Published(copy.path, digest, size_bytes, files, None, kept=kept)


def _share_file_system(one: Path, other: Path) -> bool:
    with machine_errors("look at", other):
        return os.stat(one).st_dev == os.stat(other).st_dev


def _copy_with_modes(source: Path, target: Path) -> None:
    """Copy a staged entry; its files keep the modes that they were staged with."""
    copy_privately(os.fspath(source), os.fspath(target))
    names = [os.fsdecode(each.name) for each in scan_copy(source) if each.kind == "file"] if source.is_dir() else [""]
    with machine_errors("write", target):
        for name in names:
            mode = os.stat(os.path.join(source, name) if name else source).st_mode & 0o777
            os.chmod(os.path.join(target, name) if name else target, mode)


def adopt(copy: Copy, dataset: Dataset, measured: Measured) -> None:
    """Take over a copy whose bytes were just proven: ref and marker, where its place has such.

    The caller holds the copy's lock.
    """
    if copy.store is not None:
        size_bytes, files = measured.size_bytes, measured.files
        copy.store.adopt(copy.path, measured.digest, dataset.source_id, size_bytes=size_bytes, files=files)
        return
    if not copy.user_managed:
        put_marker(copy.path, is_folder=measured.digest.is_tree)
    copy.write_ref(make_ref(measured, dataset.source_id))


def make_ref(measured: Measured, source_id: str | None) -> Ref:
    """A ref that says that every byte of a copy was read now."""
    return Ref(measured.digest, measured.size_bytes, measured.files, format_time(read_clock_ns()), source_id)


def remove_copy(project: Project, copy: Copy) -> None:
    """Delete a managed copy with its marker and ref. Objects stay in the store."""
    with project.lock_copy(copy):
        if not copy.exists():
            return
        discard_copy(copy)


def discard_copy(copy: Copy) -> None:
    """As `remove_copy`, of a copy whose lock the caller holds."""
    if copy.store is not None:
        copy.note_revision(None)
        copy.store.discard(copy.path)
        return
    remove_marker(copy.path, is_folder=copy.path.is_dir() and not copy.path.is_symlink())
    with machine_errors("delete", copy.path):
        remove_tree(copy.path)
    copy.remove_ref()
    copy.forget_unlocked()

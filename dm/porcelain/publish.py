"""Putting staged datasets in their places: below a store, managed without one, or at a place of the user's own.

A store publishes a whole batch with one flush (`dm.plumbing.store.publishing`). The other two kinds are rare and have
no objects: the staged entry itself becomes the copy.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dm.environment import format_time, read_clock_ns
from dm.errors import DmError, Refused
from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.fs.publish import ensure_folder, flush_file_systems, place, remove_tree
from dm.plumbing.fs.temporary import temporary_name
from dm.plumbing.store.copying import copy_privately
from dm.plumbing.store.layout import Layout
from dm.plumbing.store.markers import put_marker, remove_marker
from dm.plumbing.store.measure import measure_copy, scan_copy
from dm.plumbing.store.publication import Publication, Published
from dm.plumbing.store.quarantine import set_aside
from dm.plumbing.store.refs import Ref

if TYPE_CHECKING:
    from dm.plumbing.records.dataset import Dataset
    from dm.plumbing.store.disk import DiskStore
    from dm.plumbing.store.measure import Measured
    from dm.porcelain.copies import Copy
    from dm.porcelain.project import Project
    from dm.porcelain.staging import Staged


def publish(
    project: Project, batch: Sequence[tuple[Dataset, Copy, Staged]], *, put_aside: bool
) -> list[Published | DmError]:
    """Publish staged datasets, those of one store together; the answer has for each what became of it, in order.

    With ``put_aside`` what lies at a place is moved into the quarantine first; without, other content there fails
    that dataset. Nothing is ever overwritten. The caller holds the locks.
    """
    results: list[Published | DmError | None] = [None] * len(batch)
    stores: dict[Path, tuple[DiskStore, list[int]]] = {}
    for index, (dataset, copy, staged) in enumerate(batch):
        try:
            same = _find_same(dataset, copy, staged) if put_aside else None
            if put_aside and same is None:
                _put_aside(project, dataset, copy)
            if same is not None and (copy.store is None or dataset.skip_checksum):
                results[index] = _keep(dataset, copy, same)
            elif copy.store is None:
                results[index] = _publish_alone(project, dataset, copy, staged)
            else:
                stores.setdefault(copy.store.root, (copy.store, []))[1].append(index)
        except DmError as error:
            results[index] = error
    for store, indexes in stores.values():
        try:
            answers = store.publish_each([_describe(*batch[index]) for index in indexes])
        except DmError as error:
            answers = [error] * len(indexes)
        for index, answer in zip(indexes, answers, strict=True):
            results[index] = answer
    return [result for result in results if result is not None]


def _describe(dataset: Dataset, copy: Copy, staged: Staged) -> Publication:
    return Publication(
        staged.entry,
        copy.path,
        source_id=dataset.source_id,
        blob_id=None if staged.blob is None else staged.blob.raw,
        aliases=staged.aliases,
        stand_alone=dataset.skip_checksum,
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


def _put_aside(project: Project, dataset: Dataset, copy: Copy) -> None:
    """Move what lies at a place into the quarantine, with a note that says why; nothing when nothing is there."""
    if not copy.exists():
        return
    manifest = project.manifest.path or project.root
    if copy.path == manifest or project.root.is_relative_to(copy.path):
        raise Refused(
            f"cannot put '{copy.path}' aside for '{dataset.name}': it is the project itself",
            hint="give the dataset another 'storage_path'",
            code="path-unsafe",
        )
    note = f"lay at the place of '{dataset.name}' when it was fetched again with --force"
    if copy.store is not None:
        kept = copy.store.quarantine(copy.path, note)
    else:
        kept = set_aside(Layout(project.ensure_private_folder()), copy.path, note)
    if not copy.user_managed:
        copy.forget_unlocked()
    project.progress.note(f"what lay at '{copy.path}' is kept at '{kept}'")


def put_unlocked_aside(project: Project, dataset: Dataset, copy: Copy, replacement: Path) -> None:
    """A dataset has another copy now: its unlocked one is kept in the quarantine, or goes: equal bytes."""
    with project.lock_copy(copy):
        if not copy.exists() or copy.store is None:
            return
        new = measure_copy(replacement, stat_cache=project.stat_cache, quick=True)
        if measure_copy(copy.path).digest == new.digest:
            discard_copy(copy)
            return
        _put_aside(project, dataset, copy)
        copy.remove_ref()


def _publish_alone(project: Project, dataset: Dataset, copy: Copy, staged: Staged) -> Published:
    entry = staged.entry
    is_folder = entry.is_dir()
    ensure_folder(copy.path.parent)
    # The place may be on another file system than the project: then it is staged once more, beside it.
    beside = None if _share_file_system(entry, copy.path.parent) else copy.path.with_name(temporary_name())
    try:
        if beside is not None:
            _copy_with_modes(entry, beside)
            entry = beside
        flush_file_systems([entry])
        if not copy.user_managed:
            remove_marker(copy.path, is_folder=is_folder)
        if not place(entry, copy.path):
            raise Refused(f"cannot publish '{copy.path}': something came to lie there meanwhile", code="place-taken")
    except BaseException:
        if beside is not None:
            remove_tree(beside)
        raise
    if not copy.user_managed:
        put_marker(copy.path, is_folder=is_folder)
    digest, verified = None, None
    if not dataset.skip_checksum:
        digest, verified = staged.tree.digest if staged.tree else staged.blob, format_time(read_clock_ns())
    size_bytes, files = (staged.tree.size_bytes, staged.tree.files) if staged.tree else _count(copy.path)
    copy.write_ref(Ref(digest, size_bytes, files, verified, dataset.source_id))
    return Published(copy.path, digest, size_bytes, files, None)


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

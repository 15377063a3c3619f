"""Bring one dataset's bytes from an object that a store here holds under its declared digest: no source is asked.

What is obtained lies in the dataset's private place, its copy's lock is held, and `materialize` publishes it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dm.errors import ContentMismatch, MachineFailed, NotFound
from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.fs.publish import remove_tree
from dm.plumbing.store.measure import measure_checksum, measure_copy
from dm.porcelain.integrity import find_contract
from dm.porcelain.staging import Staged, Staging
from dm.values import Digest

if TYPE_CHECKING:
    from pathlib import Path

    from dm.plumbing.records.dataset import Dataset
    from dm.plumbing.store.disk import DiskStore
    from dm.plumbing.store.publication import Published
    from dm.porcelain.copies import Copy
    from dm.porcelain.project import Project


def link_from_objects(project: Project, dataset: Dataset, copy: Copy) -> Published | None:
    """Make the copy from an object that its own store holds under the declared digest; None when it holds none.

    One physical copy then serves this place too. The object is verified first, by reading it unless the stat cache
    vouches for it; one that fails, or was pruned since it was found, is told and passed over. The caller holds the
    copy's lock.
    """
    contract = _find_object_contract(dataset)
    if contract is None or copy.store is None or copy.exists():
        return None
    known = copy.store.find_by_digest(contract)
    if known is None or not _has_checksum(project, copy.store, known, contract):
        return None
    try:
        return copy.store.publish_object(known, copy.path, dataset.source_id)
    except (ContentMismatch, NotFound) as error:
        project.progress.warn(f"{error.message}; looking further")
        return None


def obtain_from_objects(project: Project, dataset: Dataset, copy: Copy, staging: Staging) -> Staged | None:
    """Stage a dataset from an object that another reachable store holds under its declared digest; None: none does.

    One that fails, or that this user may not read, is told and passed over.
    """
    contract = _find_object_contract(dataset)
    if contract is None:
        return None
    for store in project.list_readable_stores():
        if store is copy.store:
            continue
        try:
            known = store.find_by_digest(contract)
            if known is None or not _has_checksum(project, store, known, contract):
                continue
            entry = staging.make_folder() / "object"
            remove_tree(entry)
            # What becomes the user's own file must not share its bytes with the object: it may be written to.
            store.checkout(known, entry, modes=("reflink", "copy") if copy.store is None else None)
        except (ContentMismatch, NotFound) as error:
            project.progress.warn(f"{error.message}; looking further")
            continue
        except MachineFailed as error:
            if error.code != "permission":
                raise
            project.progress.warn(f"{error.message}; looking further")
            continue
        if copy.store is None:
            _make_writable(entry)
        sha256 = contract.hex if contract.algorithm == "sha256" else None
        if known.is_tree:
            return Staged(entry, staging, tree=measure_copy(entry), sha256=sha256, from_object=True)
        aliases = () if contract == known else (contract,)
        return Staged(entry, staging, known, aliases, sha256=sha256, from_object=True)
    return None


def _make_writable(entry: Path) -> None:
    """Files that are no store's can be written by their owner, as those are that come from a source."""
    with machine_errors("prepare", entry):
        files = [entry] if entry.is_file() else [path for path in entry.rglob("*") if path.is_file()]
        for path in files:
            if not path.is_symlink():
                os.chmod(path, path.stat().st_mode & 0o777 | 0o200)


def _has_checksum(project: Project, store: DiskStore, known: Digest, contract: Digest) -> bool:
    """Whether an object has the declared checksum. An alias only hints at it: the object is read, unless the stat
    cache knows its checksum.
    """
    if contract.algorithm == known.algorithm:
        return True
    cache, path = project.stat_cache, store.object_path(known)
    try:
        found = measure_checksum(path, contract.algorithm, stat_cache=cache, quick=True, ref_root=store.root)
    except MachineFailed:
        if store.has(known):
            raise
        return False  # pruned since it was found
    if found.checksum == contract or found.digest != known:
        return True  # a damaged object is found out, and told, where it is linked
    project.progress.warn(f"object {known.short} in '{store.root}' is not {contract.short}; looking further")
    return False


def _find_object_contract(dataset: Dataset) -> Digest | None:
    """The digest under which a store may hold the dataset; an archive's own checksum is no folder's."""
    return None if dataset.extract and dataset.digest is None else find_contract(dataset)

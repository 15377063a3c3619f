"""``rm``: take entries out of the manifest. Bytes stay, unless asked to go."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dm.errors import DmError, MachineFailed
from dm.plumbing.fs.machine import machine_failed
from dm.porcelain.find import Candidate, find_known_copy, is_read_only
from dm.porcelain.publish import remove_copy
from dm.porcelain.select import select
from dm.values import Outcome, fail

if TYPE_CHECKING:
    from pathlib import Path

    from dm.plumbing.records.dataset import Dataset
    from dm.plumbing.records.manifest import Manifest
    from dm.porcelain.project import Project


def remove(
    project: Project, identifiers: Sequence[str], *, delete: bool = False, dry_run: bool = False
) -> list[Outcome]:
    """Remove the named entries and their state records; with ``delete`` their working copies too.

    A copy that another entry of the manifest uses, one in a pool and one that the user manages stay, and the outcome
    says so. Objects stay in the store. An entry whose copy lies where this user may not delete it stays with it, as a
    failed outcome. With ``dry_run`` nothing is changed.
    """
    selection = select(project, identifiers)
    outcomes = list(selection.failures)
    if not selection.datasets:
        return outcomes
    leaving = {dataset.name for dataset in selection.datasets}
    plans = []
    for dataset in selection.datasets:
        try:
            plans.append((dataset, *_plan(project, dataset, leaving, delete=delete)))
        except MachineFailed as error:
            outcomes.append(fail(dataset.name, error))
    leaving = {dataset.name for dataset, _, _ in plans}
    if plans and not dry_run:

        def change(_manifest: Manifest) -> Mapping[str, Mapping[str, object] | None]:
            return dict.fromkeys(leaving)

        project.edit_manifest(change)
    for dataset, candidate, message in plans:
        path = None
        try:
            if candidate is not None:
                path = candidate.copy.path
                if not dry_run:
                    remove_copy(project, candidate.copy)
            told = f"would be {message}" if dry_run else message
            outcomes.append(Outcome(dataset.name, "ok", path=path, message=told))
        except DmError as error:
            failed = fail(dataset.name, error)
            outcomes.append(failed._replace(message=f"removed from the manifest, but its copy stays: {error.message}"))
    kept = {_find_key(dataset) for dataset in project.manifest.datasets.values() if dataset.name not in leaving}
    if plans and not dry_run:
        gone = {key for dataset, _, _ in plans if (key := _find_key(dataset)) is not None} - kept
        project.merge_state({}, deletes=gone)
    return outcomes


def _plan(
    project: Project, dataset: Dataset, leaving: set[str], *, delete: bool
) -> tuple[Candidate | None, str]:
    """The copy to delete, if any, and what to tell. Raises `MachineFailed` where it may not be deleted."""
    if not delete:
        return None, "removed from the manifest; its bytes stay"
    if dataset.skip_download:
        return None, "removed from the manifest; its bytes are the user's own and stay"
    try:
        candidate = find_known_copy(project, dataset)
    except DmError as error:
        # An entry that names no place, like one with an unsafe key, never had a copy; it can still be taken out.
        return None, f"removed from the manifest; nothing to delete: {error.message}"
    if candidate is None:
        return None, _tell_unknown(project, dataset)
    path = candidate.copy.path
    if candidate.copy.user_managed:
        return None, f"removed from the manifest; '{path}' is the user's own and stays"
    if candidate.how == "pool":
        return None, f"removed from the manifest; '{path}' lies in a pool and stays"
    if candidate.copy.store is None and is_read_only(candidate):
        return None, f"removed from the manifest; '{path}' lies in no store of dm's and stays"
    distrust = project.find_distrust(dataset, candidate.copy)
    if distrust is not None:
        return None, f"removed from the manifest; its bytes stay: {distrust}"
    for other in project.manifest.datasets.values():
        if other.name not in leaving and _may_use(project, other, path):
            return None, f"removed from the manifest; '{path}' stays, '{other.name}' uses it"
    if not os.access(path.parent, os.W_OK | os.X_OK):
        number = errno.EROFS if os.statvfs(path.parent).f_flag & os.ST_RDONLY else errno.EACCES
        raise machine_failed(OSError(number, os.strerror(number)), "delete", path)
    return candidate, f"removed from the manifest, with '{path}'"


def _tell_unknown(project: Project, dataset: Dataset) -> str:
    """What to tell of a dataset without a copy that is known as its own."""
    path = project.locate(dataset).path
    if os.path.lexists(path):
        return f"removed from the manifest; what lies at '{path}' is not known to be its copy and stays"
    return "removed from the manifest; it is not there"


def _may_use(project: Project, dataset: Dataset, path: Path) -> bool:
    """Whether a path is a dataset's place; one whose entry is at fault names none."""
    try:
        return project.locate(dataset).path == path
    except DmError:
        return False


def _find_key(dataset: Dataset) -> str | None:
    """The key under which the state knows a dataset; None for one whose key is refused, of which there is no record."""
    try:
        return dataset.key.text
    except DmError:
        return None

"""Unlocked copies of a project's datasets: which they are, and the work on those that are in no store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dm.errors import DmError
from dm.porcelain.find import Candidate, find_candidates
from dm.porcelain.integrity import name_ways_out_of_edit
from dm.values import Outcome

if TYPE_CHECKING:
    from dm.plumbing.records.dataset import Dataset
    from dm.plumbing.store.measure import Measured
    from dm.plumbing.store.unlocking import Unlocker
    from dm.porcelain.copies import Copy
    from dm.porcelain.project import Project


def find_unlocked(project: Project, dataset: Dataset) -> Candidate | None:
    """The dataset's unlocked copy: recorded, at its location or in the project's own scope; None when there is none."""
    for candidate in find_candidates(project, dataset):
        if candidate.how in ("state", "scope", "location") and candidate.copy.is_unlocked():
            return candidate
    return None


def list_unlocked_names(project: Project) -> list[str]:
    """The names of the datasets with an unlocked copy, in the manifest's order. Reads no data."""
    project.look_anew()
    if not project.has_unlocked():
        return []
    names = []
    for dataset in project.manifest.datasets.values():
        try:
            if find_unlocked(project, dataset) is not None:
                names.append(dataset.name)
        except DmError:
            continue  # an entry at fault has no copy; `dm status` says what is wrong with it
    return names


def make_edited(dataset: Dataset, copy: Copy) -> Outcome:
    """The outcome of a dataset whose unlocked copy was edited: it is left as it is, and said."""
    return Outcome(
        dataset.name,
        "skipped",
        path=copy.path,
        state="modified",
        code="unlocked",
        message="unlocked and edited: left as it is",
        hint=name_ways_out_of_edit(dataset),
    )


def unlock_in_place(project: Project, copy: Copy, measured: Measured | None) -> None:
    """Make the files of a managed copy private and writable where they lie. The caller holds its lock."""
    if copy.store is not None:
        copy.store.unlock(copy.path, measured)
        return
    with _work_alone(project) as unlocker:
        unlocker.open(copy.path, os.fspath(copy.path), measured)


def lock_in_place(project: Project, dataset: Dataset, copy: Copy, measured: Measured | None) -> None:
    """Make the files of an unlocked copy read-only, sharing the bytes of objects where it is in a store."""
    if copy.store is not None:
        copy.store.lock(copy.path, measured, dataset.source_id)
        return
    with _work_alone(project) as unlocker:
        unlocker.close(copy.path, os.fspath(copy.path), measured, None)


@contextmanager
def _work_alone(project: Project) -> Iterator[Unlocker]:
    """For a copy in no store: work in the project's private folder, on the same file system."""
    from pathlib import Path

    from dm.plumbing.store.ground import survey_ground
    from dm.plumbing.store.layout import Layout
    from dm.plumbing.store.unlocking import Unlocker
    from dm.plumbing.store.workspace import Workspace

    layout = Layout(project.ensure_private_folder())
    with Workspace(layout) as workspace:
        ground = survey_ground(Path(workspace.folder), ())
        yield Unlocker(layout, workspace, ground, durable=project.places.durable())

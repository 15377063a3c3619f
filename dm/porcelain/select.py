"""The selection that every verb shares: identifiers of datasets, all of them when none is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from dm.errors import NotFound
from dm.values import Outcome, fail

if TYPE_CHECKING:
    from dm.plumbing.records.dataset import Dataset
    from dm.porcelain.project import Project


class Selection(NamedTuple):
    """The datasets that were meant, in order and once each; a failed outcome for each identifier that names none.

    ``named`` says that identifiers were given: a dataset asked for by name that is not there is a failure, one among
    all is told and skipped.
    """

    datasets: list[Dataset]
    failures: list[Outcome]
    named: bool


def select(project: Project, identifiers: Sequence[str]) -> Selection:
    """Find the datasets of identifiers (names, aliases, DOIs); every dataset when there are none."""
    project.look_anew()
    if not identifiers:
        return Selection(list(project.manifest.datasets.values()), [], named=False)
    found: dict[str, Dataset] = {}
    failures = []
    for identifier in identifiers:
        try:
            dataset = project.manifest.find(identifier)
        except NotFound as error:
            failures.append(fail(identifier, error))
        else:
            found[dataset.name] = dataset
    return Selection(list(found.values()), failures, named=True)


def find_skip_reason(dataset: Dataset) -> str | None:
    """Why a dataset is none of `dm`'s business on disk, or None."""
    if dataset.skip_download:
        return "provided and managed by the user (skip_download)"
    if dataset.lazy_access:
        return "opened in place by its loader (lazy_access)"
    return None

"""``fetch``: make declared data be here, verified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dm.porcelain.materialize import FetchOptions, materialize
from dm.porcelain.select import select
from dm.porcelain.sources import CODE_FIELDS

if TYPE_CHECKING:
    from dm.porcelain.project import Project
    from dm.values import Outcome


def declares_code(project: Project) -> bool:
    """Whether code of the manifest may have to bring one of its datasets."""
    return any(not CODE_FIELDS.isdisjoint(dataset.table) for dataset in project.manifest.datasets.values())


def fetch(
    project: Project,
    identifiers: Sequence[str] = (),
    options: FetchOptions = FetchOptions(),  # noqa: B008 - a frozen value
    *,
    report: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Make the named datasets (all when none is named) be at their places, verified; an outcome for each.

    ``report`` is called with each outcome as soon as it stands. Failures are outcomes; see `materialize` for what
    holds after a kill.
    """
    selection = select(project, identifiers)
    if report is not None:
        for failure in selection.failures:
            report(failure)
    if selection.failures and options.fail_fast:
        return selection.failures
    return [*selection.failures, *materialize(project, selection.datasets, options, report=report).outcomes]

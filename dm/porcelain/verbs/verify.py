"""``verify``: read the bytes again and compare them with the digests. Never changes data; records when it looked.

Three things can be looked at: the datasets of a manifest (`verify`), judged by their contract first; copies that a
store knows (`verify_copies`); and a whole store (`verify_store`): every object, ref and marker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dm.porcelain.select import select
from dm.porcelain.verifying.copies import find_copies, verify_copies
from dm.porcelain.verifying.datasets import prepare_look
from dm.porcelain.verifying.options import Report, VerifyOptions, ignore, look_at
from dm.porcelain.verifying.reach import make_mender
from dm.porcelain.verifying.repair import repair_dataset
from dm.porcelain.verifying.stores import verify_store
from dm.values import Outcome

if TYPE_CHECKING:
    from dm.porcelain.project import Project

__all__ = ["VerifyOptions", "find_copies", "make_mender", "verify", "verify_copies", "verify_store"]


def verify(
    project: Project,
    identifiers: Sequence[str] = (),
    options: VerifyOptions = VerifyOptions(),  # noqa: B008 - frozen
    *,
    report: Report | None = None,
) -> list[Outcome]:
    """Compare each dataset's bytes with its contract, else with what was last seen; an outcome for each.

    Every byte is read, unless ``quick``: then unchanged stat data stand for bytes, and the outcome's message says how
    much was not read. What differs is in ``differences``, file by file where the tree's objects are there; the exit
    status of such an outcome is 4. A dataset that is not there is exit 3 when named, skipped among all.
    """
    selection = select(project, identifiers)
    tell = report or ignore
    for failure in selection.failures:
        tell(failure)
    looks = []
    for dataset in selection.datasets:
        looks.append(prepare_look(project, dataset, options, named=selection.named))
    outcomes = look_at(looks, options, project.progress, ignore if options.repair else tell)
    if options.repair:
        roots = project.list_store_roots()
        mender = make_mender(project.places, project.open_store, *roots, progress=project.progress)
        datasets = {dataset.name: dataset for dataset in selection.datasets}
        for index, outcome in enumerate(outcomes):
            if outcome.exit_status == 4:
                dataset = datasets[outcome.name]
                outcomes[index] = repair_dataset(
                    project, mender, dataset, outcome, named=selection.named, dry_run=options.dry_run
                )
            tell(outcomes[index])
    return [*selection.failures, *outcomes]

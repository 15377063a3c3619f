"""``verify``: read the bytes again and compare them with the digests. Never changes data; records when it looked.

Three things can be looked at: the datasets of a project (`verify`), judged by their contract first, and what its
functions produced; copies that a store knows (`verify_copies`); and a whole store: every object, ref and marker.
`verify_all` is for all of it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from dm.errors import DmError, UsageError
from dm.plumbing.records.used_stores import find_used_stores
from dm.porcelain.artifacts.catalogue import Spot, find_store, means_artifact
from dm.porcelain.select import Selection, select
from dm.porcelain.store_choice import check_root, choose_stores
from dm.porcelain.verifying.artifacts import find_named, list_recorded, prepare_artifact, repair_artifact
from dm.porcelain.verifying.copies import find_copies, verify_copies
from dm.porcelain.verifying.datasets import prepare_look
from dm.porcelain.verifying.options import Report, SharedTime, VerifyOptions, ignore, look_at
from dm.values import Outcome, fail

if TYPE_CHECKING:
    from pathlib import Path

    from dm.plumbing.records.dataset import Dataset
    from dm.plumbing.store.disk import DiskStore
    from dm.porcelain.mending import Mender
    from dm.porcelain.project import Project

__all__ = ["VerifyOptions", "Wanted", "verify", "verify_all", "verify_copies"]


class Wanted(NamedTuple):
    """What is to be verified. ``names``: datasets and produced ones. ``paths``, absolute: copies, folders with several,
    whole stores. ``root``: one store, whole. ``everything``: every store that is used here, whole, besides the
    datasets. Nothing of these: all datasets, and what the state records.
    """

    names: Sequence[str] = ()
    paths: Sequence[Path] = ()
    root: Path | None = None
    everything: bool = False

    @property
    def means_datasets(self) -> bool:
        """Whether datasets or produced ones are among it."""
        return bool(self.names) or not (self.paths or self.root)

    def check(self) -> None:
        """Raise `UsageError` for what contradicts itself, `NotFound` where ``root`` is no store."""
        if self.everything and (self.names or self.paths):
            raise UsageError("--all goes without names", hint="name a store's folder to verify it whole")
        if self.root is not None:
            check_root(self.root)


def verify_all(
    project: Project,
    wanted: Wanted,
    options: VerifyOptions = VerifyOptions(),  # noqa: B008 - frozen
    *,
    max_time_s: float | None = None,
    report: Report | None = None,
) -> list[Outcome]:
    """Verify what is wanted; outcomes as `verify`, `verify_copies` and `stores.verify_store` give them.

    A project of `Project.open_anywhere` that has no manifest declares nothing: then only paths and stores are looked
    at. Every part gets its share of ``max_time_s``. Of a store that the project chose and the user did not allow, and
    of one that cannot be looked through, there is a failed outcome. Raises as `Wanted.check` and `VerifyOptions.check`.
    """
    wanted.check()
    options.check()
    tell = report or ignore
    outcomes: list[Outcome] = []
    stores = [] if wanted.root is None else [project.open_store(wanted.root)]
    if wanted.everything and wanted.root is None:
        stores, outcomes = choose_stores(project, None, "note down what is verified in")
        for outcome in outcomes:
            tell(outcome)
    has_datasets = wanted.means_datasets and project.places.project_root is not None
    time = SharedTime(max_time_s, parts=has_datasets + len(stores) + len(wanted.paths))
    if has_datasets:
        outcomes += verify(project, wanted.names, time.give(options), report=tell)
    for store in stores:
        outcomes += _verify_store(project, store, time.give(options), tell)
    for path in wanted.paths:
        outcomes += _verify_path(project, path, time.give(options), tell)
    return outcomes


def _verify_store(project: Project, store: DiskStore, options: VerifyOptions, report: Report) -> list[Outcome]:
    from dm.porcelain.verifying.stores import verify_store

    try:
        mender = _make_mender(project, store.root) if options.repair else None
        return verify_store(store, options, mender=mender, progress=project.progress, report=report)
    except DmError as error:  # no reason to pass over the other stores
        outcome = fail(os.fspath(store.root), error)
        report(outcome)
        return [outcome]


def _verify_path(project: Project, path: Path, options: VerifyOptions, report: Report) -> list[Outcome]:
    try:
        root, names = find_copies(path)
    except DmError as error:
        outcome = fail(os.fspath(path), error)
        report(outcome)
        return [outcome]
    store = project.open_store(root)
    if names is None:
        return _verify_store(project, store, options, report)
    mender = _make_mender(project, root) if options.repair else None
    return verify_copies(store, names, options, mender=mender, progress=project.progress, report=report)


def _make_mender(project: Project, *roots: Path) -> Mender:
    from dm.porcelain.verifying.reach import make_mender

    used = find_used_stores(project.places, project.manifest.datasets.values(), project.trust)
    return make_mender(project.places, used, project.open_store, *roots, progress=project.progress)


def verify(
    project: Project,
    identifiers: Sequence[str] = (),
    options: VerifyOptions = VerifyOptions(),  # noqa: B008 - frozen
    *,
    report: Report | None = None,
) -> list[Outcome]:
    """Compare each dataset's bytes with its contract, else with what was last seen, and those of produced datasets with
    their refs; an outcome for each. Without ``identifiers`` all datasets, and what the project's state records.

    Every byte is read, unless ``quick``: then unchanged stat data stand for bytes, and the outcome's message says how
    much was not read. What differs is in ``differences``, file by file where the tree's objects are there; the exit
    status of such an outcome is 4. What is not there is exit 3 when named, skipped among all. Raises `UsageError` for
    options that contradict each other.
    """
    options.check()
    tell = report or ignore
    chosen = _choose(project, identifiers)
    for failure in chosen.failures:
        tell(failure)
    named = bool(identifiers)
    looks = [prepare_look(project, dataset, options, named=named) for dataset in chosen.datasets]
    looks += [prepare_artifact(project, spot, options, named=named) for spot in chosen.spots]
    outcomes = look_at(looks, options, project.progress, ignore if options.repair else tell)
    if options.repair:
        _repair(project, chosen, outcomes, options, named=named, tell=tell)
    return [*chosen.failures, *outcomes]


class _Chosen(NamedTuple):
    datasets: list[Dataset]
    spots: list[Spot]
    failures: list[Outcome]


def _choose(project: Project, identifiers: Sequence[str]) -> _Chosen:
    if not identifiers:
        datasets = select(project, ()).datasets
        try:
            return _Chosen(datasets, list_recorded(project), [])
        except DmError as error:  # no reason to pass over the datasets
            return _Chosen(datasets, [], [fail("produced datasets", error)])
    names, spots, failures = [], [], []
    for identifier in identifiers:
        try:
            if means_artifact(project, identifier):
                spots += find_named(project, identifier)
            else:
                names.append(identifier)
        except DmError as error:
            failures.append(fail(identifier, error))
    selection = select(project, names) if names else Selection([], [], named=True)
    return _Chosen(selection.datasets, spots, [*failures, *selection.failures])


def _repair(
    project: Project,
    chosen: _Chosen,
    outcomes: list[Outcome],
    options: VerifyOptions,
    *,
    named: bool,
    tell: Report,
) -> None:
    """Mend what failed: each outcome gives way to what became of it, and is told."""
    from dm.porcelain.verifying.reach import make_mender
    from dm.porcelain.verifying.repair import mark_dataset, repair_dataset, restore_dataset

    used = find_used_stores(project.places, project.manifest.datasets.values(), project.trust)
    homes = [root for root in map(find_store, chosen.spots) if root is not None and root not in used.foreign]
    mender = make_mender(project.places, used, project.open_store, *homes, progress=project.progress)
    dry_run = options.dry_run
    for index, outcome in enumerate(outcomes):
        dataset = chosen.datasets[index] if index < len(chosen.datasets) else None
        if dataset is not None and "missing" in (outcome.state, outcome.code):
            outcomes[index] = restore_dataset(project, mender, dataset, outcome, named=named, dry_run=dry_run)
        elif dataset is not None and outcome.exit_status == 4:
            outcomes[index] = repair_dataset(project, mender, dataset, outcome, named=named, dry_run=dry_run)
        elif dataset is not None and outcome.status == "ok" and not dry_run:
            outcomes[index] = mark_dataset(project, dataset, outcome, named=named)
        elif outcome.exit_status == 4:
            spot = chosen.spots[index - len(chosen.datasets)]
            outcomes[index] = repair_artifact(project, mender, spot, outcome, dry_run=dry_run)
        tell(outcomes[index])

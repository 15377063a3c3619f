"""What the datasets of one run require of each other: who joins the run, who has to wait, who fails with whom."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dm.errors import DmError, SourceFailed
from dm.porcelain.order import Cycles, Required, Waiting, find_required
from dm.values import Outcome, fail

if TYPE_CHECKING:
    from dm.plumbing.records.dataset import Dataset
    from dm.porcelain.project import Project


class Released(NamedTuple):
    """What follows from one outcome: the positions that may start now, and the outcomes of those that cannot."""

    free: list[int]
    settled: list[tuple[int, Outcome]]


class Requirements:
    """``requires`` in one run; true while somebody waits. Positions count the run's datasets; ``datasets`` and
    ``outcomes`` are the run's own lists, which grow by what is required and was not asked for.
    """

    def __init__(self, project: Project, datasets: list[Dataset], outcomes: list[Outcome | None]) -> None:
        self._project = project
        self._datasets = datasets
        self._outcomes = outcomes
        self._positions: dict[str, int] = {}
        self._needed: dict[int, list[tuple[str, int]]] = {}
        self._waiting = Waiting()
        self._held: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._held)

    def note(self, position: int) -> None:
        """Note what the dataset at a position requires; what is not in the run yet joins it, behind all others.

        Raises `Malformed` for an identifier that names no dataset, or several.
        """
        if not self._positions:
            self._positions.update((dataset.name, at) for at, dataset in enumerate(self._datasets))
        needed = []
        for identifier, dataset in find_required(self._project.manifest, self._datasets[position]):
            if dataset.name not in self._positions:
                self._positions[dataset.name] = len(self._datasets)
                self._datasets.append(dataset)
                self._outcomes.append(None)
            needed.append((identifier, self._positions[dataset.name]))
        if needed:
            self._needed[position] = needed

    def hold_back(self, positions: Iterable[int]) -> Released:
        """Of datasets that are to be brought: those that may start at once. The rest waits for its `release`."""
        if not self._needed:
            return Released(list(positions), [])
        free, failed = [], []
        cycles = Cycles(self._project.manifest)
        for position in positions:
            dataset = self._datasets[position]
            needed = self._needed.get(position)
            if needed is None:
                free.append(position)
                continue
            try:
                cycles.check(dataset)
            except DmError as error:
                failed.append((position, fail(dataset.name, error)))
                continue
            self._held.add(position)
            self._waiting.add(position, [other for _, other in needed])
        for position, outcome in enumerate(self._outcomes):
            if outcome is not None:
                more = self.release(position, outcome)
                free += more.free
                failed += more.settled
        return Released(free, failed)

    def release(self, position: int, outcome: Outcome) -> Released:
        """The dataset at a position has its outcome: what follows for those that waited for it."""
        lack = self._find_lack(self._datasets[position], outcome)
        if lack is None:
            free = [each for each in self._waiting.settle(position) if each in self._held]
            self._held.difference_update(free)
            return Released(free, [])
        settled = []
        for dependant in self._waiting.give_up(position):
            if dependant not in self._held:
                continue  # failed with another one already
            self._held.discard(dependant)
            name = self._datasets[dependant].name
            if outcome.code == "not-tried":
                settled.append((dependant, make_untried(name)))
                continue
            error = SourceFailed(
                f"cannot fetch '{name}': it requires '{outcome.name}', {lack}", code="requires-failed"
            )
            error.__cause__ = outcome.error
            settled.append((dependant, fail(name, error)))
        return Released([], settled)

    def hand_on(self, position: int) -> tuple[Required, ...]:
        """What a dataset requires, with the paths where it is now; empty for most."""
        found = []
        for identifier, at in self._needed.get(position, ()):
            dataset, outcome = self._datasets[at], self._outcomes[at]
            path = None if outcome is None else outcome.path
            if path is None and dataset.skip_download:
                path = self._find_place(dataset)
            found.append(Required(identifier, dataset.name, path))
        return tuple(found)

    def count_held(self) -> int:
        """How many still wait."""
        return len(self._held)

    def _find_lack(self, dataset: Dataset, outcome: Outcome) -> str | None:
        """Why a dataset does not serve those that require it; None when it does."""
        if outcome.failed:
            return "which failed"
        if outcome.code == "not-tried":
            return "which was not tried"
        if dataset.skip_download:
            path = self._find_place(dataset)
            return None if os.path.exists(path) else f"which is not at '{path}' (skip_download)"
        return None

    def _find_place(self, dataset: Dataset) -> Path:
        return self._project.locate(dataset).path


def make_untried(name: str) -> Outcome:
    """The outcome of a dataset that was not tried, since an earlier one failed and the run stops at the first."""
    return Outcome(name, "skipped", code="not-tried", message="not tried: an earlier one failed (--fail-fast)")

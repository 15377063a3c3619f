"""What comes before what: ``requires`` resolved, its cycles named, and who still waits for whom.

Pure: nothing is fetched here. A run that has no dataset with ``requires`` never gets here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dm.errors import Malformed, NotFound
from dm.values import printable

if TYPE_CHECKING:
    from dm.plumbing.records.dataset import Dataset
    from dm.plumbing.records.manifest import Manifest


#: The most names of a circle that are told one by one.
_NAMES_TOLD = 16


class Required(NamedTuple):
    """A dataset that another one requires, as it is handed on to code: ``identifier`` is the word in ``requires``,
    ``path`` where it is, None for one that has no path (``lazy_access``).
    """

    identifier: str
    name: str
    path: Path | None


def find_required(manifest: Manifest, dataset: Dataset) -> list[tuple[str, Dataset]]:
    """What a dataset requires: each identifier with the dataset that it names, in the manifest's order, once each.

    Raises `Malformed` with file and line for an identifier that names none, or several.
    """
    identifiers = dict.fromkeys(dataset.requires)
    return [(identifier, find_identified(manifest, dataset, identifier)) for identifier in identifiers]


def find_identified(manifest: Manifest, dataset: Dataset, identifier: str) -> Dataset:
    """The dataset that one identifier in another's ``requires`` names. Raises as `find_required` does."""
    try:
        return manifest.find(identifier)
    except NotFound as error:
        raise Malformed(
            f"dataset '{printable(dataset.name)}': cannot follow 'requires': {error.message}",
            hint=error.hint,
            file=manifest.path,
            line=dataset.find_line("requires"),
            code="requires-unknown",
        ) from error


class Cycles:
    """Finds the datasets that require themselves, through others or at once. Each part of the manifest is walked once.

    Only what is declared counts, not what is there: a manifest that cannot be fetched into an empty store is wrong.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._group_of: dict[str, frozenset[str]] = {}  # the names that reach each other, by name

    def check(self, dataset: Dataset) -> None:
        """Raise `Malformed` (``requires-cycle``) that names the circle when the dataset is part of one."""
        if dataset.name not in self._group_of:
            self._walk(dataset.name)
        circle = self._find_circle(dataset.name)
        if circle is not None:
            names = [printable(name) for name in circle]
            if len(names) > _NAMES_TOLD:
                names[8:-3] = [f"… ({len(names) - 11} more)"]
            told = " -> ".join(names)
            raise Malformed(
                f"'requires' goes round in a circle: {told}",
                hint="take one of them out of the other's 'requires'",
                file=self._manifest.path,
                line=dataset.find_line("requires"),
                code="requires-cycle",
            )

    def _list_next(self, name: str) -> list[str]:
        names = []
        for identifier in self._manifest.datasets[name].requires:
            try:
                names.append(self._manifest.find(identifier).name)
            except NotFound:
                continue  # told when that dataset itself is to be brought
        return names

    def _walk(self, start: str) -> None:
        """Tarjan's strongly connected components (SIAM J. Comput. 1, 1972), with its own stack: chains are long."""
        index: dict[str, int] = {}
        low: dict[str, int] = {}
        open_names: list[str] = []
        is_open: set[str] = set()
        stack = [(start, iter(self._list_next(start)))]
        index[start] = low[start] = 0
        open_names.append(start)
        is_open.add(start)
        while stack:
            name, following = stack[-1]
            for other in following:
                if other in self._group_of:
                    continue
                if other not in index:
                    index[other] = low[other] = len(index)
                    open_names.append(other)
                    is_open.add(other)
                    stack.append((other, iter(self._list_next(other))))
                    break
                if other in is_open:
                    low[name] = min(low[name], index[other])
            else:
                stack.pop()
                if stack:
                    above = stack[-1][0]
                    low[above] = min(low[above], low[name])
                if low[name] == index[name]:
                    names = [open_names.pop()]
                    while names[-1] != name:
                        names.append(open_names.pop())
                    group = frozenset(names)
                    is_open -= group
                    self._group_of.update(dict.fromkeys(group, group))

    def _find_circle(self, name: str) -> list[str] | None:
        """The shortest way from a dataset back to itself; None when there is none."""
        group = self._group_of[name]
        came_from: dict[str, str] = {}
        queue = deque([name])
        while queue:
            current = queue.popleft()
            for other in self._list_next(current):
                if other == name:
                    way = [name, current]
                    while way[-1] != name:
                        way.append(came_from[way[-1]])
                    return way[::-1] if current != name else [name, name]
                if other in group and other not in came_from:
                    came_from[other] = current
                    queue.append(other)
        return None


class Waiting:
    """Who waits for whom, by position in a run."""

    def __init__(self) -> None:
        self._open: dict[int, set[int]] = {}
        self._dependants: dict[int, list[int]] = {}

    def add(self, position: int, needed: Iterable[int]) -> None:
        """``position`` waits for all of ``needed``."""
        waits = self._open.setdefault(position, set())
        for other in needed:
            if other not in waits:
                waits.add(other)
                self._dependants.setdefault(other, []).append(position)

    def settle(self, position: int) -> list[int]:
        """``position`` is there: return those that wait for nothing any more."""
        free = []
        for dependant in self._dependants.pop(position, ()):
            waits = self._open[dependant]
            waits.discard(position)
            if not waits:
                free.append(dependant)
        return free

    def give_up(self, position: int) -> list[int]:
        """``position`` will not be there: return those that waited for it."""
        return self._dependants.pop(position, [])

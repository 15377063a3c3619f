"""Where else the bytes of a copy may lie: pools, other scopes, other roots, a user's places. Nothing is read here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dm.errors import DmError
from dm.plumbing.store.layout import find_store_root
from dm.porcelain.find import find_candidates
from dm.porcelain.integrity import find_contract
from dm.porcelain.mending import Mender

if TYPE_CHECKING:
    from dm.plumbing.records.dataset import Dataset
    from dm.plumbing.records.places import Places
    from dm.plumbing.records.used_stores import UsedStores
    from dm.plumbing.store.disk import DiskStore
    from dm.porcelain.project import Project
    from dm.progress import Progress

Kind = Literal["datasets", "cached"]
_KINDS: tuple[Kind, ...] = ("datasets", "cached")
#: Below a root the peers keep the data of single projects in folders of this one.
_PEERS_PROJECTS = "projects"


def make_mender(
    places: Places, used: UsedStores, open_store: Callable[[Path], DiskStore], *roots: Path, progress: Progress
) -> Mender:
    """A mender that finds sound bytes in the stores at ``roots``, in those that are used here and in the read pools.

    Of stores that may only be read it takes objects as it does of pools.
    """
    own = dict.fromkeys([*roots, *used.own])
    pools = [root for root in dict.fromkeys([*used.foreign, *find_pool_roots(places)]) if root not in own]

    def open_readable(roots: Iterable[Path]) -> Iterator[DiskStore]:
        for store in map(open_store, roots):
            try:
                store.exists()
            except DmError as error:
                progress.warn(f"passing over '{store.root}': {error.message}")
                continue
            yield store

    return Mender(
        list(open_readable(own)),
        pools=list(open_readable(pools)),
        find_others=lambda name: find_copies_like(places, name),
        progress=progress,
    )


def find_pool_roots(places: Places) -> list[Path]:
    """The stores that the read pools are, or lie in."""
    roots: dict[Path, None] = {}
    for kind in _KINDS:
        for pool in places.pools(kind):
            root = find_store_root(pool / "any")
            if root is not None:
                roots[root] = None
    return list(roots)


def find_copies_like(places: Places, name: str) -> Iterator[Path]:
    """Where the copy that has this ref in a store may lie too; whether anything is there is not asked."""
    parts = name.split("/")
    for kind in _KINDS:
        prefix = places.prefix(kind)
        for index, part in enumerate(parts[:-1]):
            if part == prefix:
                yield from _find_places(places, "/".join(parts[index + 1 :]), kind)
    yield from _find_places(places, name, "datasets")


def find_copies_of(project: Project, dataset: Dataset) -> Iterator[Path]:
    """Where the bytes of a dataset may lie: its own places, those of datasets with the same contract, other scopes."""
    contract = find_contract(dataset)
    alike = [
        each
        for each in project.manifest.datasets.values()
        if each.name != dataset.name and contract is not None and find_contract(each) == contract
    ]
    for each in (dataset, *alike):
        try:
            candidates = list(find_candidates(project, each))
            landing = each.landing.text
        except DmError:
            continue  # told where that dataset itself is looked at
        for candidate in candidates:
            yield candidate.copy.path
        yield from _find_places(project.places, landing, "datasets")


def _find_places(places: Places, landing: str, kind: Kind) -> Iterator[Path]:
    for pool in places.pools(kind):
        yield pool / landing
    prefix = places.prefix(kind)
    for root in places.store_roots():
        yield root / landing
        for folder in _list_scopes(root):
            yield folder / prefix / landing


def _list_scopes(root: Path) -> Iterator[Path]:
    yield root
    for folder in (root, root / _PEERS_PROJECTS):
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue  # not there, or not ours to look at: then nothing is found in it
        for name in names:
            if not name.startswith("."):
                yield folder / name

"""Which stores are used here, by the settings, by single datasets and by produced ones; and which may be written to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dm.errors import DmError
from dm.plumbing.records.artifact_places import list_artifact_roots
from dm.plumbing.records.location import Location

if TYPE_CHECKING:
    from dm.plumbing.records.dataset import Dataset
    from dm.plumbing.records.places import Places
    from dm.plumbing.records.trust import Trust


class UsedStores(NamedTuple):
    """Store roots, each once: those that may be written to, and those that may only be read, with the reason."""

    own: tuple[Path, ...]
    foreign: dict[Path, str]


def find_used_stores(places: Places, datasets: Iterable[Dataset], trust: Trust | None) -> UsedStores:
    """Every store root that is used here, whether a store is there or not.

    ``foreign`` are those that are there, that a manifest or a checkout's config chose outside, and that the user did
    not allow (``trust`` is None where there is no manifest).
    """
    own: dict[Path, None] = {}
    foreign: dict[Path, str] = {}
    for root, location in _list_locations(places, datasets):
        if root in own:
            continue
        reason = places.untrusted_place(location) if root.is_dir() else None
        if reason is None or (trust is not None and trust.allows_place(location)):
            own[root] = None
            foreign.pop(root, None)
        else:
            foreign.setdefault(root, reason)
    return UsedStores(tuple(own), foreign)


def _list_locations(places: Places, datasets: Iterable[Dataset]) -> Iterator[tuple[Path, Location]]:
    """Each store root with what leads to it."""
    for place in places.store_places():
        yield place.path, place
    for dataset in datasets:
        try:
            location = places.locate(dataset)
        except DmError:
            continue  # told where the dataset itself is looked at
        if location.store_root is not None:
            yield location.store_root, location
    for root in list_artifact_roots(places):
        if root.store_root is not None:
            yield root.store_root, root.locate(root.folder)

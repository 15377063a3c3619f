"""Taking an artifact away: its folder, its ref, the folders above that it leaves empty. Objects stay for `prune`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from dm.errors import Refused
from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.records.state import list_state_paths
from dm.porcelain.artifacts.catalogue import Spot, find_store, prove, read_metadata
from dm.values import printable

if TYPE_CHECKING:
    from dm.porcelain.project import Project


def find_reason_to_stay(project: Project, spot: Spot) -> str | None:
    """Why a spot is not `dm`'s to remove for this project; None when it is.

    A folder of the project's own is. One that only the state knows has to be in a store, with a ref there, and prove
    what it is: a state file may come with a clone. Neither does one go that others made: it is recorded where it was
    found, which may have been a pool. What lies in a pool or in the peers' own folder stays.
    """
    root = find_store(spot)
    if root is None or spot.folder is None:
        return "it lies in no store of this project's"
    if spot.root is None:
        if project.open_store(root).read_ref(spot.folder) is None:
            return f"the store '{root}' knows nothing of it"
        return prove(spot)[1] or _find_other_maker(project, spot.folder)
    return project.find_place_distrust(spot.root.locate(spot.folder))


def _find_other_maker(project: Project, folder: Path) -> str | None:
    """Whose a folder is that this project did not make: another user's, or another project's that is there."""
    made_for = read_metadata(folder).state_file
    own = [os.path.realpath(path) for path in list_state_paths(project.root)]
    if made_for and os.path.realpath(made_for) in own:
        return None
    with machine_errors("look at", folder):
        if os.lstat(folder).st_uid != os.geteuid():
            return "another user made it"
    if made_for and os.path.exists(made_for):
        return f"another project made it, whose state is '{printable(made_for)}'"
    return None


def remove_artifact(project: Project, spot: Spot) -> bool:
    """Remove an artifact's folder with its marker and ref, then the folders of its cachetype that are left empty.

    False when it was gone already. Who computes or loads it under its lock is waited for. It goes by one rename: a kill
    leaves it whole, or nothing. Raises `Refused` for a spot that `find_reason_to_stay` speaks of.
    """
    folder, root = spot.folder, find_store(spot)
    reason = find_reason_to_stay(project, spot)
    if reason is not None or folder is None or root is None:
        raise Refused(f"cannot remove '{folder}': {reason}", code="not-ours")
    store = project.open_store(root)
    with store.lock_copy(folder):
        is_there = os.path.lexists(folder)
        if is_there:
            store.discard(folder)
        else:
            store.remove_ref(folder)
    _remove_empty_folders(folder.parent, base=_find_base(spot, folder))
    return is_there


def _find_base(spot: Spot, folder: Path) -> Path:
    """The folder in which the cachetype's lies; it stays."""
    if spot.root is not None:
        return spot.root.folder
    return folder.parents[spot.address.count("/")]


def _remove_empty_folders(folder: Path, *, base: Path) -> None:
    """Remove a folder and those above it, below ``base``, as long as they are empty.

    Whoever is about to publish there holds a lock file in it, so that it is not.
    """
    while folder != base and folder.is_relative_to(base):
        with machine_errors("remove the folder", folder):
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                pass
            except OSError:
                return  # in use, or not ours to remove: it is only empty
        folder = folder.parent

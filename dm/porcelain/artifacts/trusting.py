"""Whose results may be unpickled: this user's own, and no others without the user's word (SCHEMA.md, "Hits")."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dm.errors import Malformed
from dm.plumbing.records.artifact_places import PEERS_FOLDER
from dm.plumbing.records.ladder import FROM_PROJECT
from dm.plumbing.records.untrusted import follow_links

if TYPE_CHECKING:
    from dm.plumbing.records.location import Location
    from dm.porcelain.project import Project


def may_be_cloned(project: Project, location: Location, ref: str) -> bool:
    """Whether results at a place may have come with the project, as files that look like this user's own.

    That is so where the project's own files chose a place inside it. It gives nothing away where the function itself
    is the project's: who calls it runs the project's code anyway. ``ref`` is ``module:qualname``.
    """
    if project.manifest.path is None or not any(rung.level in FROM_PROJECT for rung in location.rungs):
        return False
    root = follow_links(os.fspath(project.root))
    if not _is_inside(follow_links(os.fspath(location.path)), root):
        return False
    module = sys.modules.get(ref.partition(":")[0])
    file = getattr(module, "__file__", None)
    return not (isinstance(file, str) and _is_inside(follow_links(os.fspath(Path(file).absolute())), root))


def is_peers_own(project: Project, folder: Path) -> bool:
    """Whether a folder is below the one in which the peers keep this user's results when nothing is configured."""
    try:
        peers = project.places.expand(PEERS_FOLDER, used_in="the peers' folder")
    except Malformed:
        return False
    return _is_inside(follow_links(os.fspath(folder)), follow_links(os.path.normpath(peers)))


def _is_inside(path: str, root: str) -> bool:
    return path.startswith(root.rstrip("/") + "/")

"""What a cloned project may not decide: where outside itself something is written.

A manifest and a checkout's config come with a clone. What they set may lie in the project, in a built-in root or in a
folder that the environment or the user's own config names; anything else needs the user's trust (SCHEMA.md, "What a
cloned project may not decide"). Below a project some folders belong to other tools, which would obey what is put there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from dm.errors import Malformed
from dm.plumbing.records.fields import is_symbol
from dm.plumbing.records.ladder import FROM_PROJECT, Ladder, Rung
from dm.plumbing.records.location import Location
from dm.values import printable

#: Folders below a project that other tools, or `dm` itself, obey.
_FOREIGN_FOLDERS = frozenset((".git", ".hg", ".datamanifest"))

#: How names in the user's cache folder begin whose content is believed, or run: the stat cache, bytecode of Python.
_OWN_STARTS = ("stat-v", ".python")


def find_foreign_folder(path: str, project_root: Path | None) -> str | None:
    """Why nothing may be kept at ``path``, by its text alone; None when it may."""
    if "/." not in path:
        return None
    if "/.dm/" in path.casefold() + "/":
        return "'.dm' is a store's own folder"
    root = "" if project_root is None else str(project_root).rstrip("/") + "/"
    if not root or not path.startswith(root):
        return None
    for part in path[len(root) :].casefold().split("/"):
        if part in _FOREIGN_FOLDERS:
            return f"'{part}' belongs to other tools"
    return None


class TrustedRoots:
    """The folders in which a clone may choose a place. Looked up once."""

    def __init__(self, user: Ladder, find_root: Callable[[str], Path], project_root: Path | None) -> None:
        """``user`` is the ladder of the environment and the user's config alone, ``find_root`` its folder roots."""
        names = ["data", "cache", "repo", "datasets_dir", "datacache_dir", *user.list_names(), *_list_variables(user)]
        roots: dict[Path, None] = {} if project_root is None else {project_root: None}
        for name in names:
            try:
                if is_symbol(name) and name != "project" and user.lookup(name) is not None:
                    roots[find_root(name)] = None
            except Malformed:
                continue  # it needs something that only the project sets: then it is not the user's own word
        for folder in (user.environment.user_data_dir, user.environment.user_cache_dir):
            roots[folder / "datamanifest"] = None
        roots.pop(Path("/"), None)
        self._roots = [str(root) for root in roots]
        self._project_root = project_root
        self._own_folder = str(user.environment.user_cache_dir / "datamanifest")

    def find_reason(self, location: Location, resolve: Callable[[str], str]) -> str | None:
        """Why a location needs trust; None when it does not. ``resolve`` follows links."""
        culprit = next((rung for rung in location.rungs if rung.level in FROM_PROJECT), None)
        if culprit is None:
            return None
        path = str(location.path)
        if not any(_is_inside(path, root) for root in self._roots):
            return _tell(culprit, path, None)
        real = resolve(path)
        if not any(_is_inside(real, resolve(root)) for root in self._roots):
            return _tell(culprit, path, real)
        if self._is_own(real, resolve):
            return f"{culprit.origin} puts it at '{printable(path)}', where dm keeps what it believes unread"
        # By its text the path is no tool's folder; where its links lead may be one.
        project_root = None if self._project_root is None else Path(resolve(str(self._project_root)))
        return None if find_foreign_folder(real, project_root) is None else _tell(culprit, path, real)

    def _is_own(self, real: str, resolve: Callable[[str], str]) -> bool:
        folder = resolve(self._own_folder).casefold()
        return real.casefold().startswith(tuple(f"{folder}/{start}" for start in _OWN_STARTS))


def follow_links(path: str) -> str:
    """Where a path leads when every link in it is followed, as far as it exists."""
    return os.path.realpath(path)


def _tell(culprit: Rung, path: str, real: str | None) -> str:
    lead = "" if real is None else f", which leads to '{printable(real)}'"
    return f"{culprit.origin} puts it at '{printable(path)}'{lead}: not in the project nor in a folder that you name"


def _list_variables(ladder: Ladder) -> list[str]:
    """Names for which ``DATAMANIFEST_<NAME>_DIR`` or ``DATAMANIFEST_<NAME>`` is set."""
    return [
        variable.removeprefix("DATAMANIFEST_").removesuffix("_DIR").lower()
        for variable, value in ladder.environment.variables.items()
        if value and variable.startswith("DATAMANIFEST_")
    ]


def _is_inside(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")

"""The project whose artifacts are meant: that of a manifest, or a folder's."""

from __future__ import annotations

import os
from pathlib import Path

from dm.environment import Environment
from dm.plumbing.records.manifest import Manifest, discover
from dm.porcelain.project import Project
from dm.progress import SILENT, Progress

#: What the root of a project has, where there is no manifest.
_PROJECT_SIGNS = ("pyproject.toml", "Project.toml", ".git")


def open_project(
    environment: Environment, *, manifest_path: Path | None = None, progress: Progress = SILENT, trust: bool = False
) -> Project:
    """The project that the working folder lies in, as `Project.open` has it.

    Without a manifest in reach it is the nearest folder upwards with a ``pyproject.toml``, ``Project.toml`` or
    ``.git``, else the working folder: its artifacts are known by place alone, and its ``manifest.path`` is None.
    Raises `Malformed` for a manifest or config file that cannot be read, `NotFound` for a manifest that was named and
    is not there.
    """
    path = discover(environment.working_folder, environment, manifest_path)
    if path is not None:
        return Project.open(environment, manifest_path=path, progress=progress, trust=trust)
    nothing = Manifest.of_tables({}, project_root=find_project_root(environment.working_folder))
    return Project.of(nothing, environment, progress=progress, trust=trust)


def find_project_root(start: Path) -> Path:
    """The nearest folder upwards that looks like a project's, else ``start`` itself."""
    for folder in (start, *start.parents):
        if any(os.path.exists(folder / name) for name in _PROJECT_SIGNS):
            return folder
    return start

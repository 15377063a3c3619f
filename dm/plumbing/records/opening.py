"""Opening a project's places: the config files and the project's own files are read, once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from dm.environment import Environment
from dm.plumbing.records.config import CONFIG_NAME, ProjectFiles, make_line_finder, read_config
from dm.plumbing.records.ladder import Ladder, Source
from dm.plumbing.records.places import Places


class Storing(Protocol):
    """What is asked of a manifest to open its places."""

    @property
    def path(self) -> Path | None: ...
    @property
    def text(self) -> str: ...
    @property
    def storage(self) -> Mapping[str, object]: ...
    @property
    def project_root(self) -> Path: ...


def open_places(manifest: Storing | None, environment: Environment) -> Places:
    """The places of a manifest, or of no project at all; later changes of files or environment do not move them.

    Raises `Malformed` (with file and line) for a config file that is not TOML, `MachineFailed` for one that cannot be
    read.
    """
    user = read_config(environment.user_config_file)
    if manifest is None:
        return Places(Ladder(environment, None, None, user), None, environment)
    root = manifest.project_root
    find_line = make_line_finder(manifest.text)
    ladder = Ladder(
        environment,
        read_config(root / CONFIG_NAME),
        Source(manifest.path, manifest.storage, ("_STORAGE",), find_line),
        user,
        project_root=root,
    )
    return Places(
        ladder,
        root,
        environment,
        find_project_name=ProjectFiles(root).find_name,
        manifest=Source(manifest.path, {}, (), find_line),
    )
